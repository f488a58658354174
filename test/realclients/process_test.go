package realclients

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// process is a program that runs beside the test. Its standard error goes to a
// file below .cache/clients/log.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	log    string
	exited chan struct{} // closed when the process has ended and all its lines were handed over
	status int           // its exit status then; -1 if killed
}

// launch starts a program. Each line of its standard output goes to line, in
// order, from one goroutine. The test's end kills it if it still runs.
func launch(t *testing.T, name string, env []string, line func(string), argv ...string) *process {
	t.Helper()
	p := &process{
		cmd: exec.Command(argv[0], argv[1:]...), exited: make(chan struct{}),
		log: repository(".cache", "clients", "log", strings.ReplaceAll(t.Name(), "/", "-")+"-"+name+".log"),
	}
	if err := os.MkdirAll(filepath.Dir(p.log), 0o755); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Env, p.cmd.Stderr = env, log
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		p.stdin, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		log.Close()
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		defer close(p.exited)
		defer log.Close()
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 2<<20)
		for lines.Scan() {
			line(lines.Text())
		}
		_, _ = io.Copy(log, stdout) // after a line that is too long: nothing may block
		_ = p.cmd.Wait()            // the status says it all
		p.status = p.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // has ended already, mostly
		<-p.exited
		if t.Failed() {
			t.Logf("%s (status %d) said at last:\n%s", name, p.status, p.tail())
		}
	})
	return p
}

// kill ends the process with kill -9 and waits for its end.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.exited
}

// running gives nil while the process lives.
func (p *process) running() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended with status %d", filepath.Base(p.cmd.Path), p.status)
	default:
		return nil
	}
}

// finish closes the standard input, by which our programs end, and wants
// status 0.
func (p *process) finish(t *testing.T) {
	t.Helper()
	_ = p.stdin.Close() // fails only if the process is gone, which the status tells
	p.await(t)
}

// await waits for the end of the process and wants status 0.
func (p *process) await(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		if p.running() == nil {
			return fmt.Errorf("%s still runs", filepath.Base(p.cmd.Path))
		}
		return nil
	})
	if p.status != 0 {
		t.Errorf("%s ended with status %d: %s", filepath.Base(p.cmd.Path), p.status, p.log)
	}
}

// tail gives the last lines of the log, cut to what a person reads, and where
// the whole is.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	lines = lines[max(0, len(lines)-8):]
	for i, l := range lines {
		lines[i] = l[:min(len(l), 300)]
	}
	return strings.Join(lines, "\n") + "\n(all of it: " + p.log + ")"
}

// The credentials of the clients.
const (
	accessKey = "AKIDREALCLIENTS"
	secretKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// clientEnv is the environment of clients: none of the user's own AWS settings,
// and the credentials that the server knows.
func clientEnv(more ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "SHARDSTREAM_") {
			env = append(env, v)
		}
	}
	return append(append(env,
		"AWS_ACCESS_KEY_ID="+accessKey, "AWS_SECRET_ACCESS_KEY="+secretKey, "AWS_SECRET_KEY="+secretKey,
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull), more...)
}
