package cluster

import (
	"path/filepath"
	"testing"
)

// TestForeignDirectory starts a broker for one cluster on the directory of a
// broker of another.
func TestForeignDirectory(t *testing.T) {
	ours, other := startCluster(t, 1), startCluster(t, 1)
	n := other.nodes[0]
	if code := n.stop(t); code != 0 {
		t.Fatalf("status %d", code)
	}
	guest := ours.add(t)
	args := ours.args(guest, 0)
	for i, a := range args {
		switch a {
		case "--data-dir":
			args[i+1] = filepath.Join(other.dir, n.name)
		case "--node-id":
			args[i+1] = n.name
		}
	}
	ours.nodes = ours.nodes[:1]
	_, errs, code := shardstream(t, args...)
	if err := oneLineThatSays(withoutLog(errs), "is the directory of another cluster than the nodes of --join are of"); code != 1 || err != nil {
		t.Errorf("status %d, %v: %s", code, err, errs)
	}
	ours.awaitHealthy(t)
}
