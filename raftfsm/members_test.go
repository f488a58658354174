package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"shardstream/stream"
)

// roster names the servers, nonvoters in brackets.
func roster(n *Node) string {
	var parts []string
	for _, s := range n.Servers() {
		part := s.NodeID + "@" + s.Addr
		if !s.Voter {
			part = "[" + part + "]"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, " ")
}

// followers gives the positions of the nodes that run and don't lead.
func (c *trio) followers(lead *Node) []int {
	var rest []int
	for i, n := range c.nodes {
		if n != nil && n != lead {
			rest = append(rest, i)
		}
	}
	return rest
}

// otherThan waits for another leader.
func (c *trio) otherThan(old *Node) *Node {
	c.t.Helper()
	for range 1000 {
		for _, n := range c.nodes {
			if n != nil && n != old && n.IsLeader() {
				return n
			}
		}
		time.Sleep(10 * time.Millisecond) // of the bubble's time
	}
	c.t.Fatal("no other leader")
	return nil
}

// One founds; the others wait without state, and take part when it calls.
func TestClusterIsFoundedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 3)
		c.config[1].Founders, c.config[2].Founders = nil, nil
		for i := range c.nodes {
			if HasState(c.config[i].Dir) {
				t.Errorf("node %d has state", i)
			}
		}
		c.open(1)
		c.open(2)
		time.Sleep(time.Minute) // of the bubble's time
		if len(c.nodes[1].Servers()) != 0 {
			t.Errorf("a waiting node has %v", c.nodes[1].Servers())
		}
		c.stop(1)
		if HasState(c.config[1].Dir) {
			t.Error("a waiting node made itself state")
		}
		c.open(1)
		c.open(0)
		lead := c.leader()
		at := mustPropose(t, lead, initCmd(nil)).GetIndex()
		for i, n := range c.nodes {
			c.reach(n, at)
			if got := roster(n); got != "n0@addr0 n1@addr1 n2@addr2" {
				t.Errorf("node %d knows of %s", i, got)
			}
			if node, addr := n.Leader(); node != NodeOf(lead.ID()) || addr != c.addrs[c.index(lead)] {
				t.Errorf("node %d takes %s at %s for the leader", i, node, addr)
			}
			if st := n.Status(); st.Term == 0 || st.Applied < at || st.Last < at || st.Commit < at || st.Leading != (n == lead) || st.LeaderID != lead.ID() {
				t.Errorf("node %d: %+v", i, st)
			}
		}
		// A founder that comes back with its list founds nothing.
		c.stopAll()
		for i := range c.nodes {
			if !HasState(c.config[i].Dir) {
				t.Errorf("node %d has no state", i)
			}
			c.open(i)
		}
		c.leader()
		for _, n := range c.nodes {
			c.reach(n, at)
		}
		c.stopAll()
	})
}

// A node that needs nobody's vote does not wait for anybody's silence.
func TestSoleVoterLeadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 1)
		for range 2 {
			began := time.Now()
			c.open(0)
			if err := c.nodes[0].WaitLeader(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("led after %v", took)
			}
			c.stop(0)
		}
	})
}

func TestMembersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 1)
		for i := range c.nodes {
			c.open(i)
		}
		lead := c.leader()
		mustPropose(t, lead, initCmd(nil))
		steps := func(err error, want string) {
			t.Helper()
			if got := roster(lead); err != nil || got != want {
				t.Fatalf("%v, members %s, want %s", err, got, want)
			}
		}
		one, two := c.server(1), c.server(2)
		steps(lead.AddServer(t.Context(), one.ID, one.Addr, false), "n0@addr0 [n1@addr1]")
		c.reach(c.nodes[1], lead.State().Index())
		if err := c.nodes[1].AddServer(t.Context(), two.ID, two.Addr, true); stream.KindOf(err) != stream.NotLeader {
			t.Errorf("added by a nonvoter: %v", err)
		}
		steps(lead.AddServer(t.Context(), one.ID, one.Addr, true), "n0@addr0 n1@addr1")
		index := lead.Status().Last
		steps(lead.AddServer(t.Context(), one.ID, one.Addr, true), "n0@addr0 n1@addr1")
		steps(lead.AddServer(t.Context(), one.ID, one.Addr, false), "n0@addr0 n1@addr1")
		if lead.Status().Last != index {
			t.Error("a repeat made an entry")
		}
		steps(lead.AddServer(t.Context(), two.ID, two.Addr, true), "n0@addr0 n1@addr1 n2@addr2")
		steps(lead.DemoteServer(t.Context(), one.ID), "n0@addr0 [n1@addr1] n2@addr2")
		steps(lead.RemoveServer(t.Context(), two.ID), "n0@addr0 [n1@addr1]")

		// Neither the removed one nor the nonvoter disturbs, not even after a
		// restart.
		term := lead.Status().Term
		c.stop(2)
		c.open(2)
		time.Sleep(time.Minute) // of the bubble's time
		if got := lead.Status(); got.Term != term || !got.Leading {
			t.Errorf("term %d after %d, leading %v", got.Term, term, got.Leading)
		}
		// Added again, it catches up.
		steps(lead.AddServer(t.Context(), two.ID, two.Addr, false), "n0@addr0 [n1@addr1] [n2@addr2]")
		c.reach(c.nodes[2], mustPropose(t, lead, register("x", "d")).GetIndex())
		c.stopAll()
	})
}

// An emptied disk is another server; its former self is still listed at the
// same address (I18).
func TestWipedNodeComesBackAsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 3)
		for i := range c.nodes {
			c.open(i)
		}
		lead := c.leader()
		mustPropose(t, lead, initCmd(nil))
		gone := c.followers(lead)[0]
		old := c.server(gone)
		c.stop(gone)
		if err := os.RemoveAll(c.config[gone].Dir); err != nil {
			t.Fatal(err)
		}
		c.config[gone].DiskID, c.config[gone].Founders = "fedcba9876543210", nil
		c.open(gone)
		at := mustPropose(t, lead, register("x", "d")).GetIndex()
		time.Sleep(10 * time.Second) // of the bubble's time
		if c.nodes[gone].State().Index() != 0 {
			t.Error("the emptied node was taken for its former self")
		}
		if err := lead.AddServer(t.Context(), c.server(gone).ID, c.addrs[gone], true); err != nil {
			t.Fatal(err)
		}
		if err := lead.RemoveServer(t.Context(), old.ID); err != nil {
			t.Fatal(err)
		}
		c.reach(c.nodes[gone], at)
		c.stopAll()
	})
}

// Addresses change, even all at once, and the members stay the same.
func TestAddressesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 3)
		for i := range c.nodes {
			c.open(i)
		}
		lead := c.leader()
		at := mustPropose(t, lead, initCmd(nil)).GetIndex()
		c.stopAll()
		for i := range c.addrs {
			c.addrs[i] = fmt.Sprint("moved", i)
		}
		// Another's former address, too.
		c.addrs[1], c.addrs[2] = "addr2", "addr1"
		for i := range c.nodes {
			c.open(i)
		}
		lead = c.leader()
		for _, n := range c.nodes {
			c.reach(n, at)
		}
		// The leader puts its own into the log.
		for _, s := range lead.Servers() {
			if s.ID == lead.ID() && s.Addr != c.addrs[c.index(lead)] {
				t.Errorf("the log has the leader at %s", s.Addr)
			}
		}
		c.stopAll()
	})
}

// A node that was alone, without a network, becomes the first of a cluster.
func TestLoneNodeGetsPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 0)
		alone := c.config[0]
		alone.Bootstrap, alone.LoneVoter = true, true
		n, err := Open(alone)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.WaitLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
		at := mustPropose(t, n, initCmd(nil)).GetIndex()
		if got := roster(n); got != "n0@" {
			t.Errorf("members %s", got)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		for i := range c.nodes {
			c.open(i)
		}
		lead := c.leader()
		for i := 1; i < 3; i++ {
			if err := lead.AddServer(t.Context(), c.server(i).ID, c.addrs[i], true); err != nil {
				t.Fatal(err)
			}
			c.reach(c.nodes[i], at)
		}
		if got := roster(lead); got != "n0@addr0 n1@addr1 n2@addr2" {
			t.Errorf("members %s", got)
		}
		c.stopAll()
	})
}

// Followers hear at once of what is urgent, not with the next heartbeat.
func TestFollowersAreNudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 3)
		for i := range c.nodes {
			c.open(i)
		}
		lead := c.leader()
		mustPropose(t, lead, initCmd(nil))
		mustPropose(t, lead, rejoin("a", "disk-a", 0))
		for range 20 {
			time.Sleep(300 * time.Millisecond) // of the bubble's time: let it get quiet
			began := time.Now()
			at := mustPropose(t, lead, fence("a", 1)).GetIndex()
			for _, i := range c.followers(lead) {
				c.reach(c.nodes[i], at)
			}
			// In the bubble, time passes only while everybody waits.
			if took := time.Since(began); took > 5*time.Millisecond {
				t.Fatalf("followers heard of it after %v", took)
			}
		}
		c.stopAll()
	})
}

// hung is a store that can be made to answer no write until it is released.
type hung struct {
	boltStore
	mu      sync.Mutex
	release chan struct{} // nil: it answers
}

func (h *hung) StoreLogs(logs []*raft.Log) error {
	h.mu.Lock()
	release := h.release
	h.mu.Unlock()
	if release != nil {
		<-release
	}
	return h.boltStore.StoreLogs(logs)
}

// A leader whose disk hangs falls silent, and others elect. Raft's heartbeats
// alone would keep it leading.
func TestLeaderWithHungDiskIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 3)
		var disks [3]*hung
		for i := range c.nodes {
			c.config[i].wrapStore = func(b boltStore) boltStore {
				disks[i] = &hung{boltStore: b}
				return disks[i]
			}
			c.open(i)
		}
		lead := c.leader()
		mustPropose(t, lead, initCmd(nil))
		h, release := disks[c.index(lead)], make(chan struct{})
		h.mu.Lock()
		h.release = release
		h.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := lead.Propose(ctx, register("x", "d")); stream.KindOf(err) != stream.Timeout {
			t.Errorf("proposed to a hung disk: %v", err)
		}
		if lead.StoreStalled() < 100*time.Millisecond {
			t.Errorf("stalled for %v", lead.StoreStalled())
		}
		next := c.otherThan(lead)
		mustPropose(t, next, register("y", "d"))
		if lead.StoreStalled() < stallLimit {
			t.Errorf("replaced after a stall of %v only", lead.StoreStalled())
		}
		close(release)
		at := mustPropose(t, next, register("z", "d")).GetIndex()
		c.reach(lead, at)
		if lead.IsLeader() || lead.StoreStalled() != 0 || !next.IsLeader() {
			t.Errorf("it still leads: %v; stalled: %v; the next one leads: %v", lead.IsLeader(), lead.StoreStalled(), next.IsLeader())
		}
		c.stopAll()
	})
}

// Evidence of the leader's death makes an election quick, and is harmless if
// it is wrong.
func TestSuspectedLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 3)
		for i := range c.nodes {
			c.open(i)
		}
		lead := c.leader()
		mustPropose(t, lead, initCmd(nil))
		var worst time.Duration
		for range 10 {
			for _, n := range c.nodes {
				n.LeaderSuspect()
			}
			term := lead.Status().Term
			time.Sleep(10 * time.Second) // of the bubble's time
			if lead.Status().Term != term || !lead.IsLeader() {
				t.Fatal("a leader that is heard was replaced")
			}
			for _, n := range c.nodes {
				if r := n.raft.ReloadableConfig(); r.HeartbeatTimeout != raftTimeout || r.ElectionTimeout != raftTimeout {
					t.Fatalf("timers %v and %v stay low", r.HeartbeatTimeout, r.ElectionTimeout)
				}
			}
			gone := c.index(lead)
			c.stop(gone)
			began := time.Now()
			for _, i := range c.followers(nil) {
				c.nodes[i].LeaderSuspect()
			}
			lead = c.otherThan(nil)
			took := time.Since(began)
			worst = max(worst, took)
			c.open(gone)
			c.reach(c.nodes[gone], mustPropose(t, lead, register("x", "d")).GetIndex())
		}
		// Without evidence it takes 1 s to 2 s.
		if worst > 700*time.Millisecond {
			t.Errorf("it took %v", worst)
		}
		c.stopAll()
	})
}

// A leader that falls silent is replaced, and is a follower when it is heard again.
func TestSilentLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 3)
		for i := range c.nodes {
			c.open(i)
		}
		lead := c.leader()
		mustPropose(t, lead, initCmd(nil))
		addr := c.addrs[c.index(lead)]
		c.net.silence(addr, true)
		next := c.otherThan(lead)
		at := mustPropose(t, next, register("x", "d")).GetIndex()
		c.net.silence(addr, false)
		c.reach(lead, at)
		c.stopAll()
	})
}

func TestTransferLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 3)
		for i := range c.nodes {
			c.open(i)
		}
		lead := c.leader()
		mustPropose(t, lead, initCmd(nil))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := lead.TransferLeadership(ctx); err != nil {
			t.Fatal(err)
		}
		next := c.otherThan(lead)
		if err := lead.TransferLeadership(ctx); err != nil { // it leads no longer
			t.Error(err)
		}
		mustPropose(t, next, register("x", "d"))
		// Nobody there to take it.
		for _, i := range c.followers(next) {
			c.stop(i)
		}
		if err := next.TransferLeadership(ctx); err == nil {
			synctest.Wait() // it left without a majority, and is about to say so
			if next.IsLeader() {
				t.Error("transferred to nobody")
			}
		}
		if err := next.Close(); err != nil {
			t.Error(err)
		}
		if err := next.TransferLeadership(ctx); err != nil && stream.KindOf(err) != stream.Unavailable {
			t.Error(err)
		}
	})
}

// Three nodes over real sockets.
func TestClusterOverTCP(t *testing.T) {
	c := newTrio(t, 0)
	for i := range c.nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.addrs[i], c.config[i].Listener = l.Addr().String(), l
	}
	for i := range c.nodes {
		c.config[0].Founders = append(c.config[0].Founders, c.server(i))
	}
	for i := range c.nodes {
		n, err := Open(c.config[i])
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[i] = n
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, n := range c.nodes {
		if err := n.WaitLeader(ctx); err != nil {
			t.Fatal(err)
		}
	}
	lead := c.leader()
	at := mustPropose(t, lead, initCmd(nil)).GetIndex()
	for _, n := range c.nodes {
		c.reach(n, at)
	}
	// Strangers and the misled hear nothing.
	for name, say := range map[string]string{
		"http": "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "another server": helloMagic + "\x00\x03n/x", "too long": helloMagic + "\xff\xff",
	} {
		conn, err := net.Dial("tcp", c.addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(say)); err != nil {
			t.Error(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		} else if !errors.Is(err, io.EOF) {
			t.Logf("%s: %v", name, err)
		}
		_ = conn.Close()
	}
	c.stopAll()
}

func TestConfigOfClusters(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{
		Dir: filepath.Join(dir, "raft"), NodeID: "n", DiskID: "0123456789", OnFatal: func(error) {},
		Founders: []Server{{ID: "a/01234567"}, {ID: "b/01234567"}},
	}
	_, err := Open(cfg)
	for _, want := range []string{"n/01234567, is not one of its Founders", "no Listener"} {
		if stream.KindOf(err) != stream.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if HasState(cfg.Dir) {
		t.Error("state out of nothing")
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, markFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !HasState(cfg.Dir) {
		t.Error("what can't be read is no state")
	}
}
