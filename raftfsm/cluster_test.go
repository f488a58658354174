package raftfsm

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"shardstream/stream"
)

// trio is three nodes in one process, in a bubble of fake time.
type trio struct {
	t      *testing.T
	dir    string
	nodes  [3]*Node
	trans  [3]*raft.InmemTransport
	config [3]Config
}

func startTrio(t *testing.T) *trio {
	c := &trio{t: t, dir: t.TempDir()}
	for i := range c.nodes {
		c.config[i] = Config{
			Dir: filepath.Join(c.dir, fmt.Sprint(i)), NodeID: fmt.Sprint("n", i), DiskID: "0123456789abcdef",
			Bootstrap: i == 0, OnFatal: func(err error) { t.Errorf("node %d: %v", i, err) },
		}
		c.open(i)
	}
	lead := c.leader()
	for i := 1; i < 3; i++ {
		if err := lead.raft.AddVoter(c.config[i].serverID(), c.trans[i].LocalAddr(), 0, 0).Error(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *trio) open(i int) {
	addr := raft.ServerAddress(fmt.Sprint("addr", i))
	_, c.trans[i] = raft.NewInmemTransportWithTimeout(addr, 200*time.Millisecond)
	for j, other := range c.trans {
		if other != nil && j != i {
			c.trans[i].Connect(other.LocalAddr(), other)
			other.Connect(addr, c.trans[i])
		}
	}
	c.config[i].Transport = c.trans[i]
	n, err := Open(c.config[i])
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[i] = n
}

func (c *trio) stop(i int) {
	for j, other := range c.trans {
		if j != i {
			other.Disconnect(c.trans[i].LocalAddr())
		}
	}
	c.trans[i].DisconnectAll()
	if err := c.nodes[i].Close(); err != nil {
		c.t.Error(err)
	}
	c.nodes[i] = nil
}

// leader waits for a node that is ready to lead.
func (c *trio) leader() *Node {
	for range 1000 {
		for _, n := range c.nodes {
			if n != nil && n.IsLeader() {
				return n
			}
		}
		time.Sleep(20 * time.Millisecond) // of the bubble's time
	}
	c.t.Fatal("nobody leads")
	return nil
}

func (c *trio) index(lead *Node) int {
	for i, n := range c.nodes {
		if n == lead {
			return i
		}
	}
	return -1
}

// reach waits until a node's state has an index.
func (c *trio) reach(n *Node, index uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		s, changed := n.Watch()
		if s.Index() >= index {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			c.t.Fatalf("state stays at %d, wanted %d", s.Index(), index)
		}
	}
}

func TestClusterFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startTrio(t)
		first := c.leader()
		mustPropose(t, first, initCmd(nil))
		at := mustPropose(t, first, register("a", "d")).GetIndex()
		for _, n := range c.nodes {
			c.reach(n, at)
			if !bytes.Equal(encode(t, n.State()), encode(t, first.State())) {
				t.Fatal("the copies differ")
			}
			if err := n.WaitLeader(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n == first {
				continue
			}
			if _, err := n.Propose(t.Context(), register("b", "d")); stream.KindOf(err) != stream.NotLeader {
				t.Errorf("proposed to a follower: %v", err)
			}
			if _, err := n.ReadIndex(t.Context()); stream.KindOf(err) != stream.NotLeader {
				t.Errorf("asked a follower: %v", err)
			}
			// The leader's checksums came along (I14).
			var l raft.Log
			if err := n.store.GetLog(at, &l); err != nil || !sealed(&l) {
				t.Errorf("entry %d: %v", at, err)
			}
		}
		gone := c.index(first)
		c.stop(gone)
		second := c.leader()
		if index, err := second.ReadIndex(t.Context()); err != nil || index != at {
			t.Errorf("the new leader's index is %d, not %d: %v", index, at, err)
		}
		at = mustPropose(t, second, register("b", "d")).GetIndex()
		c.open(gone)
		c.reach(c.nodes[gone], at)

		// Alone, a leader answers no reads and steps down.
		for i := range c.nodes {
			if c.nodes[i] != second {
				c.stop(i)
			}
		}
		if _, err := second.ReadIndex(t.Context()); stream.KindOf(err) != stream.NotLeader {
			t.Errorf("read without a majority: %v", err)
		}
		time.Sleep(5 * time.Second) // of the bubble's time
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := second.WaitLeader(ctx); stream.KindOf(err) != stream.Unavailable {
			t.Errorf("a leader without a majority: %v", err)
		}
		c.stop(c.index(second))
	})
}

// A node that was away too long gets a snapshot; its watchers are told, and
// its log has no gap afterwards.
func TestClusterInstallsSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startTrio(t)
		lead := c.leader()
		mustPropose(t, lead, initCmd(nil))
		away := (c.index(lead) + 1) % 3
		c.stop(away)
		var at uint64
		for i := range trailingLogs + 100 {
			at = mustPropose(t, lead, register(fmt.Sprint("b", i%50), "d")).GetIndex()
		}
		if err := lead.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		c.open(away)
		n := c.nodes[away]
		c.reach(n, at)
		if !bytes.Equal(encode(t, n.State()), encode(t, lead.State())) {
			t.Error("the copies differ")
		}
		synctest.Wait() // the log goes after the state has changed
		if first, _, _ := n.store.bounds(); first > 0 && first <= 20 {
			t.Errorf("the log begins at %d: no snapshot was needed", first)
		}
		at = mustPropose(t, lead, register("z", "d")).GetIndex()
		c.reach(n, at)
		want := encode(t, n.State())
		c.stop(away)
		c.open(away)
		c.reach(c.nodes[away], at)
		if !bytes.Equal(encode(t, c.nodes[away].State()), want) {
			t.Error("another state after a restart")
		}
		for i := range c.nodes {
			c.stop(i)
		}
	})
}
