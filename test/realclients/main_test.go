// Package realclients drives the clients that need more than Go, python3 and
// node alone: the Java SDK, the KCL in its versions, the KPL, and the consumers
// that others wrote in Go, JavaScript and Python. test/e2e has the clients that
// every run of the tests uses.
//
// It is off unless SHARDSTREAM_CLIENTS is set, as by `make test-clients`, which
// installs the clients first. A client that could not be installed is skipped
// with the reason, and the run ends with a table of what was run: client,
// version, what was exercised, result. The invariant: no row says "works" unless
// the client ran in this very run.
package realclients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// program is the binary under test, built once.
var program string

// patience bounds each wait for something that must happen. It is long: several
// JVMs share a starved machine, and only a hang should fail here.
const patience = 5 * time.Minute

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	if os.Getenv("SHARDSTREAM_CLIENTS") == "" {
		return m.Run() // all is skipped
	}
	dir, err := os.MkdirTemp("", "shardstream-realclients-")
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
	status := m.Run()
	if err := results.publish(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// eventually calls check until it gives nil. For what other processes do in
// their own time.
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
		time.Sleep(100 * time.Millisecond)
	}
}

// repository gives the absolute path of a file of the repository.
func repository(path ...string) string {
	full, err := filepath.Abs(filepath.Join(append([]string{"..", ".."}, path...)...))
	if err != nil {
		panic(err) // there is no working directory
	}
	return full
}
