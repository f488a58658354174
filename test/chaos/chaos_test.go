//go:build linux

// Package chaos plays the short form of a chaos run. The long one is the command
// test/chaos/cmd/shardstream-chaos.
package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"shardstream/test/chaos/powerfs"
	"shardstream/test/chaos/run"
)

// short are the nemeses of the short form: one of each kind.
var short = []string{"kill-all", "isolate", "power-torn", "rot", "reshard-kill", "everything"}

// TestShort plays a few episodes with a seed that is new each time, and printed.
// SHARDSTREAM_SEED plays one again.
func TestShort(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces and mounts take root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip(err)
	}
	if err := powerfs.Available(); err != nil {
		t.Skip(err)
	}
	seed := rand.Uint64N(1_000_000)
	if s := os.Getenv("SHARDSTREAM_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SHARDSTREAM_SEED=%q", s)
		}
	}
	dir := t.TempDir()
	cfg := run.Config{
		Dir: dir, Brokers: 3, Shards: 3, Writers: 3, Length: 8 * time.Second,
		Program: build(t, dir, "shardstream/cmd/shardstream"), PowerFS: build(t, dir, "shardstream/test/chaos/powerfs/cmd/powerfs"),
	}
	nemeses := make(map[string]run.Nemesis)
	for _, n := range run.Nemeses() {
		nemeses[n.Name] = n
	}
	for i, name := range short {
		t.Run(name, func(t *testing.T) {
			r, err := run.Episode(t.Context(), cfg, nemeses[name], seed+uint64(i))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("seed %d: %d faults, %d records put, %d of unknown outcome, longest time without writes %s",
				r.Seed, r.Strikes, r.Put, r.Unknown, r.LongestGap.Round(time.Millisecond))
			if r.OK() {
				return
			}
			for _, e := range r.Events {
				t.Logf("%7.2fs %s: %s", e.At.Seconds(), e.What, e.Whom)
			}
			for _, text := range append(r.Problems, r.Complaints...) {
				t.Error(text)
			}
			for _, v := range r.Violations {
				t.Errorf("%s: %s", v.Check, v.Text)
			}
			if keep := os.Getenv("SHARDSTREAM_KEEP"); keep != "" {
				to := filepath.Join(keep, fmt.Sprintf("chaos-%s-%d", name, r.Seed))
				t.Log("kept in", to, os.CopyFS(to, os.DirFS(r.Dir)))
			}
		})
	}
}

func build(t *testing.T, dir, pkg string) string {
	t.Helper()
	to := filepath.Join(dir, filepath.Base(pkg))
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", to, pkg).CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, out)
	}
	return to
}
