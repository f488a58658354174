package raftfsm

import (
	"context"
	"testing"
	"time"

	pb "shardstream/proto/shardstream/v1"
)

// openNode starts a lone voter on dir and waits until it leads. An OnFatal
// fails the test unless fatal is given.
func openNode(tb testing.TB, dir string, fatal func(error)) *Node {
	tb.Helper()
	if fatal == nil {
		fatal = func(err error) { tb.Errorf("OnFatal: %v", err) }
	}
	n, err := Open(testConfig(dir, fatal))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = n.Close() })
	if err := n.WaitLeader(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return n
}

func testConfig(dir string, fatal func(error)) Config {
	return Config{
		Dir: dir, NodeID: "n1", DiskID: "0123456789abcdef", Bootstrap: true, LoneVoter: true, OnFatal: fatal,
	}
}

func mustPropose(tb testing.TB, n *Node, c *pb.Command) *pb.CommandResult {
	tb.Helper()
	res, err := n.Propose(context.Background(), c)
	if err != nil {
		tb.Fatal(err)
	}
	return res
}

func TestNodeRestartKeepsState(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	n := openNode(t, dir, nil)
	t.Logf("open and lead: %v", time.Since(began))
	res := mustPropose(t, n, &pb.Command{TimeMs: 7, Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
		ClusterId: "c", TokenKey: make([]byte, 32), AccountId: "000000000000",
	}}})
	if res.GetError() != 0 || n.State().Index() != res.GetIndex() || n.State().Cluster().GetId() != "c" {
		t.Fatalf("result %v, state at %d", res, n.State().Index())
	}
	index, err := n.ReadIndex(t.Context())
	if err != nil || index != res.GetIndex() {
		t.Fatalf("read index %d, %v", index, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	n = openNode(t, dir, nil)
	t.Logf("reopen and lead: %v", time.Since(began))
	if n.State().Cluster().GetId() != "c" || n.State().Index() != res.GetIndex() {
		t.Fatalf("state at %d after restart", n.State().Index())
	}
}
