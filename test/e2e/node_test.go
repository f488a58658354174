// Package e2e drives the real binary with real clients: the AWS CLI, boto3,
// the Go and JS SDKs, a CBOR client, and our own put and tail; it kills it,
// fills its disk and flips its bits.
//
// It reaches into no package of ours but the history checker: what it knows of
// the server is the command line, the wire and the files. A test whose tool is
// absent is skipped and says so; with CI=true nothing that the project installs
// itself may be absent.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program is the binary under test, built once.
var program string

// patience bounds each wait for something that must happen. It is long: a
// starved machine may be slow, and only a hang should fail here.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "shardstream-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "shardstream")
	build := exec.Command("go", "build", "-o", program, "shardstream/cmd/shardstream")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// node is one running `shardstream dev`.
type node struct {
	endpoint string // http://127.0.0.1:PORT
	operator string // HOST:PORT of gRPC
	dir      string // "" if ephemeral
	args     []string

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
	status int           // its exit status then; -1 if killed

	mu     sync.Mutex
	output bytes.Buffer // stdout and stderr
}

// start runs dev with free ports and further flags, and waits until it serves.
// The test's end stops it.
func start(t *testing.T, args ...string) *node {
	t.Helper()
	n := &node{args: args}
	n.launch(t, "127.0.0.1:0")
	return n
}

// startIn is start on a data directory.
func startIn(t *testing.T, dir string, args ...string) *node {
	t.Helper()
	n := start(t, append([]string{"--data-dir", dir}, args...)...)
	n.dir = dir
	return n
}

// restart runs the node again, on the same port and directory.
func (n *node) restart(t *testing.T) {
	t.Helper()
	n.launch(t, strings.TrimPrefix(n.endpoint, "http://"))
}

func (n *node) launch(t *testing.T, listen string) {
	t.Helper()
	serving := n.spawn(t, listen)
	select {
	case <-serving:
	case <-n.exited:
		t.Fatalf("dev ended with status %d before it served:\n%s", n.status, n.text())
	case <-time.After(patience):
		t.Fatalf("dev does not serve:\n%s", n.text())
	}
}

// spawn starts the process, and gives a channel that closes when it has said
// where it serves.
func (n *node) spawn(t *testing.T, listen string) (serving chan struct{}) {
	t.Helper()
	n.mu.Lock()
	n.output.Reset()
	n.mu.Unlock()
	args := append([]string{"dev", "--listen", listen, "--grpc-listen", "127.0.0.1:0"}, n.args...)
	n.cmd = exec.Command(program, args...)
	n.cmd.Stderr = lockedWriter{n}
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.exited = make(chan struct{})
	serving = make(chan struct{})
	cmd, exited := n.cmd, n.exited
	go func() {
		defer close(exited)
		n.readBanner(stdout, serving)
		_ = cmd.Wait() // the status says it all
		n.status = cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // has ended already, mostly
		<-exited
		if t.Failed() {
			t.Logf("what dev said:\n%s", n.text())
		}
	})
	return serving
}

// readBanner copies stdout, and finds the endpoint and the operator's port in it.
func (n *node) readBanner(stdout io.Reader, serving chan struct{}) {
	lines := bufio.NewScanner(stdout)
	named := 0 // how many of the two are known
	for lines.Scan() {
		line := lines.Text()
		_, _ = lockedWriter{n}.Write([]byte(line + "\n")) // a buffer never fails
		if endpoint, ok := strings.CutPrefix(line, "endpoint: "); ok {
			n.endpoint = strings.TrimSpace(endpoint)
			named++
		}
		if operator, ok := strings.CutPrefix(line, "operator: "); ok {
			n.operator = strings.Fields(operator)[0]
			named++
		}
		if named == 2 {
			named++
			close(serving)
		}
	}
}

type lockedWriter struct{ n *node }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.n.mu.Lock()
	defer w.n.mu.Unlock()
	return w.n.output.Write(b)
}

// text gives what the process has said so far.
func (n *node) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.output.String()
}

// kill ends the process with kill -9 and waits for its end.
func (n *node) kill(t *testing.T) {
	t.Helper()
	if err := n.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill: %v\n%s", err, n.text())
	}
	<-n.exited
}

// stop asks the process to end, and gives its exit status.
func (n *node) stop(t *testing.T, signal syscall.Signal) int {
	t.Helper()
	if err := n.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("%v: %v\n%s", signal, err, n.text())
	}
	n.awaitExit(t)
	return n.status
}

func (n *node) awaitExit(t *testing.T) {
	t.Helper()
	select {
	case <-n.exited:
	case <-time.After(patience):
		t.Fatalf("dev does not end:\n%s", n.text())
	}
}

// running reports whether the process lives.
func (n *node) running() bool {
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// shardstream runs another command of the binary, and gives its output and
// exit status.
func shardstream(t *testing.T, stdin io.Reader, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
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

// repository gives the path of a file of the repository.
func repository(path ...string) string {
	return filepath.Join(append([]string{"..", ".."}, path...)...)
}

// missing skips a test for want of a tool, or fails it where the project's own
// files were to install the tool.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, though CI must have it", what)
	}
	t.Skipf("SKIPPED: %s is missing (make clients installs it)", what)
}

// pythonTool gives the path of a program of the virtual environment.
func pythonTool(t *testing.T, name string) string {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("SKIPPED: there is no python3")
	}
	path, err := filepath.Abs(repository(".cache", "venv", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, name)
	}
	return path
}

// clientEnv is the environment of foreign clients: none of the user's own AWS
// settings, any credentials.
func clientEnv(more ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "SHARDSTREAM_") {
			env = append(env, v)
		}
	}
	return append(append(env, "AWS_ACCESS_KEY_ID=dev", "AWS_SECRET_ACCESS_KEY=dev", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_PAGER=", "AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull), more...)
}

// status200 checks that a GET of the path answers 200.
func status200(url string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
