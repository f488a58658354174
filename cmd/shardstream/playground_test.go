package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// shell makes a child that runs a script.
func shell(t *testing.T, name, script string) *child {
	t.Helper()
	return &child{name: name, dir: filepath.Join(t.TempDir(), name), program: "/bin/sh", args: []string{"-c", script}}
}

func TestChildLivesAndDies(t *testing.T) {
	s := newSpawner()
	defer s.close()
	ended := make(chan *child, 1)
	var serving bool
	var mu sync.Mutex
	probe := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !serving { // the second probe finds it ready
			serving = true
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	}))
	defer probe.Close()
	t.Setenv("SHARDSTREAM_NODES", "9")
	n := shell(t, "one", `echo "setting: [$SHARDSTREAM_NODES]"; exec sleep 1000`)
	n.ready = probe.URL
	if err := n.start(s, ended); err != nil {
		t.Fatal(err)
	}
	if err := n.awaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(n.dir, "pid")
	text, err := os.ReadFile(pidFile)
	if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(n.pid()) {
		t.Fatalf("pid file %q, %v; the pid is %d", text, err, n.pid())
	}
	if err := syscall.Kill(n.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got != n || n.how() != "signal: killed" || !n.killed() {
		t.Errorf("%v ended: %s", got.name, n.how())
	}
	if _, err := os.Stat(pidFile); !os.IsNotExist(err) {
		t.Errorf("the pid file outlives the process: %v", err)
	}
	// A second life, which is asked to end and so is not reported.
	if err := n.start(s, ended); err != nil {
		t.Fatal(err)
	}
	stopAll([]*child{n})
	select {
	case <-ended:
		t.Error("a child that was asked to end is reported")
	default:
	}
	if text := n.lastLines(); !strings.Contains(text, "setting: []") {
		t.Errorf("settings of the playground reach its children: %s", text)
	}
}

func TestChildThatEndsBeforeItServesShowsItsLog(t *testing.T) {
	s := newSpawner()
	defer s.close()
	n := shell(t, "one", `for i in 1 2 3 4 5 6 7; do echo "line $i"; done; exit 3`)
	n.ready = "http://127.0.0.1:1/"
	if err := n.start(s, make(chan *child, 1)); err != nil {
		t.Fatal(err)
	}
	err := n.awaitReady(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "line 7") || strings.Contains(err.Error(), "line 2") {
		t.Errorf("%v", err)
	}
}

// TestWatchReportsAndRestarts plays the part of the playground that runs after
// everything has started.
func TestPlaygroundReportsAndRestarts(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint(restart), func(t *testing.T) {
			s := newSpawner()
			defer s.close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan *child, 1)
			n := shell(t, "node-2", `echo "what happened"; exit 1`)
			n.done = nil
			if err := n.start(s, ended); err != nil {
				t.Fatal(err)
			}
			defer stopAll([]*child{n})
			r, w := io.Pipe()
			done := make(chan error, 1)
			c := &playgroundCmd{Restart: restart}
			go func() { done <- c.watch(ctx, w, slog.New(slog.DiscardHandler), s, ended) }()
			want := "what happened"
			if restart {
				want = "node-2 runs again"
			}
			var said bytes.Buffer
			for buf := make([]byte, 4096); !strings.Contains(said.String(), want); {
				k, err := r.Read(buf)
				if err != nil {
					t.Fatalf("%v; so far: %s", err, said.String())
				}
				said.Write(buf[:k])
			}
			if !strings.Contains(said.String(), "node-2 has ended: exit status 1") || strings.Contains(said.String(), "--restart") == restart {
				t.Errorf("said: %s", said.String())
			}
			cancel()
			go func() { _, _ = io.Copy(io.Discard, r) }() // ends with w
			if err := <-done; err != nil {
				t.Error(err)
			}
			w.Close()
		})
	}
}

func TestPlaygroundRefusesWhatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--base-port", strconv.Itoa(port - 12), "--gateway-listen", ""}, "in use already: 127.0.0.1:" + strconv.Itoa(port)},
		{[]string{"--base-port", "21000", "--gateway-listen", l.Addr().String()}, "--gateway-listen " + l.Addr().String() + ": another process listens"},
	} {
		code, _, errs := runCLI(t, "", append([]string{"playground", "--dir", t.TempDir(), "--nodes", "1"}, c.args...)...)
		if code != exitFailure || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, c.want) {
			t.Errorf("%v: status %d, stderr %q", c.args, code, errs)
		}
	}
	dir := t.TempDir()
	release, err := lockPlayground(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := lockPlayground(dir); err == nil || !strings.Contains(err.Error(), "another playground runs on it") {
		t.Errorf("%v", err)
	}
}
