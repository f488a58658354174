//go:build linux

package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestLab(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces take root")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "shardstream")
	if out, err := exec.Command("go", "build", "-o", program, "shardstream/cmd/shardstream").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l, err := New(ctx, Config{Dir: dir, Program: program, Brokers: 3, Gateways: 2, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := l.RaftLeader(ctx)
	if b == nil {
		t.Fatal("nobody leads raft")
	}
	b.Kill()
	if s, err := l.Status(ctx); err != nil || s.Healthy {
		t.Fatal(s, err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	if err := l.Healthy(ctx); err != nil {
		t.Fatal(err)
	}
	if c := b.Crashes(); len(c) > 0 {
		t.Error(c)
	}
}
