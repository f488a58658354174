// Package cluster drives clusters of real broker processes and a gateway on
// loopback: it kills them, pauses them and starts them again, while writers
// without retries of their own put, and checks what was stored against what
// they were told.
//
// It reaches into no package of ours but the history checker: what it knows of
// the servers is the command line, the wire and the files. Its invariant is that
// no test depends on how fast the machine is: durations are printed, not judged.
package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
	dir, err := os.MkdirTemp("", "shardstream-cluster-")
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

// rounds is how often each fault is played: once per node in the short suite.
func rounds(t *testing.T, short int) int {
	t.Helper()
	s := os.Getenv("SHARDSTREAM_ROUNDS")
	if s == "" {
		return short
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("SHARDSTREAM_ROUNDS=%q", s)
	}
	return n
}
