package e2e

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"shardstream/test/history"
)

// TestSignalsEndCleanly asks the node to stop, idle and under load, with both
// signals: exit status 0, and everything acknowledged is there afterwards.
func TestSignalsEndCleanly(t *testing.T) {
	n := startIn(t, t.TempDir(), "--transition-delay", "0s", "--stream", "stopped:2")
	h := history.New()
	for i, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		if status := n.stop(t, signal); status != 0 {
			t.Errorf("%v while idle: status %d", signal, status)
		}
		n.restart(t)

		ctx, stop := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		progress := make(chan struct{}, 1)
		for w := range 4 {
			source := rand.New(rand.NewPCG(uint64(i), uint64(w)))
			writers.Go(func() {
				write(ctx, n.endpoint, "stopped", h, signal.String()+string(rune('a'+w)), source, progress)
			})
		}
		<-progress
		if status := n.stop(t, signal); status != 0 {
			t.Errorf("%v under load: status %d", signal, status)
		}
		stop()
		writers.Wait()
		n.restart(t)
		check(t, n, "stopped", h)
	}
}

// TestStartErrorsAreClear starts nodes that can't work: one clear line on
// stderr, and the contract's exit status.
func TestStartErrorsAreClear(t *testing.T) {
	n := startIn(t, t.TempDir())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"port taken", []string{"--ephemeral", "--listen", taken.Addr().String()}, 1, taken.Addr().String()},
		{"directory in use", []string{"--data-dir", n.dir, "--listen", "127.0.0.1:0"}, 1, n.dir},
		{"directory is a file", []string{"--data-dir", file, "--listen", "127.0.0.1:0"}, 1, file},
		{"bad stream", []string{"--ephemeral", "--listen", "127.0.0.1:0", "--stream", "no good"}, 2, "--stream"},
		{"unknown flag", []string{"--no-such-flag"}, 2, "--no-such-flag"},
	} {
		_, stderr, status := shardstream(t, nil, append([]string{"dev", "--grpc-listen", "127.0.0.1:0", "--log-level", "error"}, c.args...)...)
		if status != c.status || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: status %d, stderr %q; want status %d and one line with %q", c.name, status, stderr, c.status, c.want)
		}
	}
	if !n.running() {
		t.Error("the node in whose directory another was started has ended")
	}
}

// TestEphemeralLeavesNothing holds that --ephemeral removes its directory.
func TestEphemeralLeavesNothing(t *testing.T) {
	n := start(t, "--ephemeral", "--stream", "gone")
	dir := ""
	for line := range strings.Lines(n.text()) {
		if rest, ok := strings.CutPrefix(line, "data:"); ok {
			dir = strings.Fields(rest)[0]
		}
	}
	eventually(t, func() error { return status200(n.endpoint + "/_shardstream/readyz") })
	if status := n.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
	if dir == "" {
		t.Skip("SKIPPED: the banner has not named the directory in time")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}
