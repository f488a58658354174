package raftfsm

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"shardstream/stream"
)

// memNet is a network in one process, for bubbles of fake time.
type memNet struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	moved     map[string]string // where servers are, by id
	silent    map[string]bool   // what such an address sends gets lost, as does what is sent to it
}

func newMemNet() *memNet {
	return &memNet{listeners: make(map[string]*memListener), moved: make(map[string]string), silent: make(map[string]bool)}
}

func (n *memNet) listen(addr string) *memListener {
	l := &memListener{net: n, addr: addr, calls: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[addr] = l
	return l
}

func (n *memNet) silence(addr string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent[addr] = on
}

// dialer gives what a node at an address dials with.
func (n *memNet) dialer(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, to string) (net.Conn, error) {
		n.mu.Lock()
		l, cut := n.listeners[to], n.silent[to] || n.silent[from]
		n.mu.Unlock()
		if cut {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if l == nil {
			return nil, syscall.ECONNREFUSED
		}
		mine, theirs := net.Pipe()
		select {
		case l.calls <- &memConn{theirs, n, to, from}:
			return &memConn{mine, n, from, to}, nil
		case <-l.closed:
			return nil, syscall.ECONNREFUSED
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

type memListener struct {
	net    *memNet
	addr   string
	calls  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.calls:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		if l.net.listeners[l.addr] == l {
			delete(l.net.listeners, l.addr)
		}
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return netAddr(l.addr) }

type memConn struct {
	net.Conn
	net      *memNet
	from, to string
}

func (c *memConn) Write(p []byte) (int, error) {
	c.net.mu.Lock()
	lost := c.net.silent[c.from] || c.net.silent[c.to]
	c.net.mu.Unlock()
	if lost {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// trio is three nodes in one process, in a bubble of fake time.
type trio struct {
	t      *testing.T
	dir    string
	net    *memNet
	nodes  [3]*Node
	addrs  [3]string
	config [3]Config
}

// newTrio has three nodes that are yet to be opened; the founders are the
// first so many.
func newTrio(t *testing.T, founders int) *trio {
	c := &trio{t: t, dir: t.TempDir(), net: newMemNet()}
	for i := range c.nodes {
		c.addrs[i] = fmt.Sprint("addr", i)
		c.config[i] = Config{
			Dir: filepath.Join(c.dir, fmt.Sprint(i)), NodeID: fmt.Sprint("n", i), DiskID: "0123456789abcdef",
			OnFatal: func(err error) { t.Errorf("node %d: %v", i, err) },
		}
	}
	for i := range founders {
		for j := range founders {
			c.config[i].Founders = append(c.config[i].Founders, c.server(j))
		}
	}
	return c
}

func (c *trio) server(i int) Server {
	id := string(c.config[i].serverID())
	return Server{ID: id, NodeID: c.config[i].NodeID, Addr: c.addrs[i], Voter: true}
}

// startTrio has three voters, two of which the first one added.
func startTrio(t *testing.T) *trio {
	c := newTrio(t, 1)
	for i := range c.nodes {
		c.open(i)
	}
	lead := c.leader()
	for i := 1; i < 3; i++ {
		if err := lead.AddServer(t.Context(), c.server(i).ID, c.addrs[i], true); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *trio) open(i int) {
	c.config[i].Listener, c.config[i].Dial = c.net.listen(c.addrs[i]), c.net.dialer(c.addrs[i])
	c.net.mu.Lock()
	c.net.moved[c.server(i).ID] = c.addrs[i]
	c.net.mu.Unlock()
	c.config[i].AddressOf = func(id string) (string, bool) {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		addr, ok := c.net.moved[id]
		return addr, ok
	}
	n, err := Open(c.config[i])
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[i] = n
}

func (c *trio) stop(i int) {
	if err := c.nodes[i].Close(); err != nil {
		c.t.Error(err)
	}
	c.nodes[i] = nil
}

func (c *trio) stopAll() {
	for i := range c.nodes {
		if c.nodes[i] != nil {
			c.stop(i)
		}
	}
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
		var wg sync.WaitGroup
		for range 60 {
			wg.Go(func() {
				for range trailingLogs/60 + 2 {
					if _, err := lead.Propose(t.Context(), activate(99)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		at := mustPropose(t, lead, register("b", "d")).GetIndex()
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
