package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is one process of the program, through all of its lives.
type process struct {
	name  string
	log   string // file
	args  []string
	ready string // URL that answers 200 once it serves; empty: no such

	cmd    *exec.Cmd
	exited chan struct{} // closed when the present life has ended
}

// start runs the process, and has the test's end kill it.
func (p *process) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(program, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, exited := p.cmd, make(chan struct{})
	p.exited = exited
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the state says it all
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // has ended already, mostly
		<-exited
	})
}

// awaitReady waits until the process serves.
func (p *process) awaitReady(t *testing.T) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	eventually(t, func() error {
		select {
		case <-p.exited:
			t.Fatalf("%s ended (%s):\n%s", p.name, p.cmd.ProcessState, p.lastLines(20))
		default:
		}
		resp, err := client.Get(p.ready)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", p.name, resp.Status)
		}
		return nil
	})
}

// kill ends the process with kill -9, and returns when it is gone.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill %s: %v", p.name, err)
	}
	<-p.exited
}

// pause stops the process until resume.
func (p *process) pause(t *testing.T) { p.signal(t, syscall.SIGSTOP) }

func (p *process) resume(t *testing.T) { p.signal(t, syscall.SIGCONT) }

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%v to %s: %v\n%s", s, p.name, err, p.lastLines(20))
	}
}

// stop asks the process to end, and gives its exit status.
func (p *process) stop(t *testing.T) int {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatalf("%s does not end:\n%s", p.name, p.lastLines(20))
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) lastLines(n int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// shardstream runs another command of the program.
func shardstream(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the status says it all
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// eventually calls check until it gives nil. For what another process does in
// its own time.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not even after %s: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ports gives free ports in a row. They lie below those that the system takes
// for outgoing connections, so that they are still free at a restart.
var ports = struct {
	sync.Mutex
	next int
}{next: 15_000 + os.Getpid()%1000*10}

func freePorts(t *testing.T, n int) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		first := ports.next
		ports.next += n
		if ports.next > 31_000 {
			ports.next = 15_000
		}
		if allFree(first, n) {
			return first
		}
	}
	t.Fatal("no free ports")
	return 0
}

func allFree(first, n int) bool {
	for port := first; port < first+n; port++ {
		l, err := net.Listen("tcp", hostPort(port))
		if err != nil {
			return false
		}
		u, err := net.ListenPacket("udp", hostPort(port))
		if errors.Join(err, l.Close()) != nil {
			return false
		}
		u.Close()
	}
	return true
}

func hostPort(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// showLogs names the logs' last lines if the test has failed, and keeps them
// where SHARDSTREAM_KEEP says.
func showLogs(t *testing.T, dir string, ps func() []*process) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, p := range ps() {
			t.Logf("%s says last:\n%s", p.name, p.lastLines(30))
		}
		if keep := os.Getenv("SHARDSTREAM_KEEP"); keep != "" {
			to := filepath.Join(keep, filepath.Base(t.Name())+"-"+strconv.FormatInt(time.Now().Unix(), 10))
			if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
				t.Logf("can't keep the data: %v", err)
			} else {
				t.Logf("kept in %s", to)
			}
		}
	})
}
