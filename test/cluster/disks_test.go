package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shardstream/test/history"
)

// TestEmptiedDirectory takes a node's disk away. The node comes back under its
// name, takes no part until it has everything again (I8, I11), and does so by
// itself; then it alone can stand in for another that is killed.
func TestEmptiedDirectory(t *testing.T) {
	lostDisk(t, func(t *testing.T, dir string) {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDamagedMetadata damages what one node keeps of raft. The others have all that
// is in it, so that it too comes back by itself.
func TestDamagedMetadata(t *testing.T) {
	lostDisk(t, func(t *testing.T, dir string) {
		name := filepath.Join(dir, "raft", "raft.mark")
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range raw {
			raw[i] ^= 1
		}
		if err := os.WriteFile(name, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	})
}

// lostDisk spoils the disk of a node that is down, and starts it again.
func lostDisk(t *testing.T, spoil func(t *testing.T, dir string)) {
	c := startCluster(t, 3)
	c.createStream(t, stream, shards)
	keys := c.hashKeys(t, stream)
	h := history.New()
	l := c.startLoad(t, stream, h, writers)
	l.writable(t.Context(), t, keys, "before", time.Now())

	victim := c.nodes[2]
	victim.kill(t)
	spoil(t, filepath.Join(c.dir, victim.name))
	l.writable(t.Context(), t, keys, "without it", time.Now())
	victim.start(t)
	victim.awaitReady(t)
	s := c.awaitHealthy(t)
	for _, n := range s.Nodes {
		if n.Replicas != shards || n.InSync != shards {
			t.Errorf("%s has %d replicas, %d in sync, want %d", n.Node, n.Replicas, n.InSync, shards)
		}
	}
	c.nodes[0].kill(t)
	l.writable(t.Context(), t, keys, "in its place", time.Now())
	l.stop()
	t.Log(l)
	c.check(t, stream, h)
}

// TestWhatIsRefused starts nodes on directories that are not theirs: each is
// refused in one line that says why.
func TestWhatIsRefused(t *testing.T) {
	c := startCluster(t, 1)
	n := c.nodes[0]
	refuse := func(want string, args ...string) {
		t.Helper()
		_, errs, code := shardstream(t, args...)
		var said []string
		for line := range strings.Lines(errs) {
			if !strings.Contains(line, "level=") {
				said = append(said, line)
			}
		}
		if code != 1 || len(said) != 1 || !strings.Contains(said[0], want) {
			t.Errorf("status %d, want 1 and one line with %q:\n%s", code, want, errs)
		}
	}
	other := c.add(t)
	on := func(dir string, more ...string) []string {
		args := append(c.args(other, 0), more...)
		for i, a := range args {
			if a == "--data-dir" {
				args[i+1] = dir
			}
		}
		return args
	}
	dir := filepath.Join(c.dir, n.name)
	refuse("is in use by another shardstream", on(dir)...)
	n.kill(t)
	refuse(`belongs to node "node-1", not to "node-2"`, on(dir)...)
	if err := os.Remove(filepath.Join(dir, "identity.json")); err != nil {
		t.Fatal(err)
	}
	refuse("holds data but no identity.json", on(dir)...)
}
