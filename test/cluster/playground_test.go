package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"shardstream/test/history"
)

// TestPlayground starts one, kills the playground itself, and starts it again on
// the same directory: no process is left behind, and no record is lost.
func TestPlayground(t *testing.T) {
	dir := t.TempDir()
	base := freePorts(t, 60)
	port := freePorts(t, 1)
	p := &process{
		name: "playground", log: filepath.Join(t.TempDir(), "playground.log"), ready: "http://" + hostPort(port) + "/_shardstream/readyz",
		args: []string{"playground", "--dir", dir, "--base-port", strconv.Itoa(base), "--gateway-listen", hostPort(port)},
	}
	showLogs(t, dir, func() []*process { return []*process{p} })
	c := &cluster{endpoint: p.ready[:len(p.ready)-len("/_shardstream/readyz")]}
	for i := range 3 {
		c.nodes = append(c.nodes, &broker{process: process{name: fmt.Sprintf("node-%d", i+1)}, first: base + 10*(i+1)})
	}
	p.start(t)
	p.awaitReady(t)
	c.awaitHealthy(t)
	c.createStream(t, stream, shards)
	keys := c.hashKeys(t, stream)
	h := history.New()
	l := c.startLoad(t, stream, h, 0)
	l.writable(t.Context(), t, keys, "first", time.Now())

	pids := make(map[string]int)
	for _, name := range []string{"node-1", "node-2", "node-3", "gateway"} {
		text, err := os.ReadFile(filepath.Join(dir, name, "pid"))
		if err != nil {
			t.Fatal(err)
		}
		if pids[name], err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			t.Fatal(err)
		}
	}
	if runtime.GOOS == "linux" { // elsewhere nothing tells the children
		p.kill(t)
	} else if code := p.stop(t); code != 0 {
		t.Errorf("status %d", code)
	}
	for name, pid := range pids {
		eventually(t, func() error {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("%s, process %d, outlives the playground: %v", name, pid, err)
			}
			return nil
		})
	}

	p.start(t)
	p.awaitReady(t)
	c.awaitHealthy(t)
	l.writable(t.Context(), t, keys, "second", time.Now())
	c.check(t, stream, h)
	if code := p.stop(t); code != 0 {
		t.Errorf("status %d after SIGTERM", code)
	}
	if text := p.lastLines(100); !strings.Contains(text, "shardstream cluster status --watch --broker "+c.brokers()) {
		t.Errorf("it does not say what to type:\n%s", text)
	}
}
