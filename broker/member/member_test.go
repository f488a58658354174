package member

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"shardstream/broker/member/memnet"
	"shardstream/stream"
)

// bubble runs a test on fake time and a network of its own. It fails if any
// goroutine outlives the test's members.
func bubble(t *testing.T, test func(*testing.T, *memnet.Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		// memberlist's Shutdown doesn't wait for a probe that is under way.
		t.Cleanup(func() { time.Sleep(time.Minute) })
		test(t, new(memnet.Network))
	})
}

func address(i int) string { return fmt.Sprintf("10.0.0.%d:7072", i) }

func start(t *testing.T, n *memnet.Network, at string, facts Facts, options ...func(*Config)) *Group {
	t.Helper()
	if facts.DiskID == "" {
		facts.DiskID = "disk-of-" + string(facts.NodeID)
	}
	cfg := Config{Facts: facts, Transport: n.Transport(at), Seeds: []string{address(1)}}
	for _, o := range options {
		o(&cfg)
	}
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// await waits until the members that g sees are as described, "node=state ...".
func await(t *testing.T, g *Group, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for {
		members, changed := g.Watch()
		var words []string
		for _, m := range members {
			words = append(words, fmt.Sprintf("%s=%s", m.NodeID, m.State))
		}
		got := strings.Join(words, " ")
		if got == want {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s sees %q, want %q", g.self, got, want)
		}
	}
}

func TestMembersFindEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		// The seed comes last: the others retry until it is there.
		full := Facts{NodeID: "c", DiskID: "d3", Zone: "z3", GRPC: "c.example:7070", Raft: "c.example:7071", HTTP: "other:7073", Founding: "f", Founder: "o", Expect: 3}
		c := start(t, n, address(3), full)
		<-c.Sought()
		b := start(t, n, address(2), Facts{NodeID: "b"})
		time.Sleep(time.Minute)
		a := start(t, n, address(1), Facts{NodeID: "a"})
		for _, g := range []*Group{a, b, c} {
			await(t, g, "a=alive b=alive c=alive")
		}
		if got := a.Members()[2]; got.Facts != full || got.Gossip != address(3) || got.Started != c.cfg.Started {
			t.Errorf("a sees %+v, want the facts %+v", got, full)
		}
		if self := c.Self(); self.Facts != full || self.Gossip != address(3) {
			t.Errorf("c sees itself as %+v", self)
		}
		if err := b.UpdateFacts(func(f *Facts) { f.ClusterID = "x" }); err != nil {
			t.Fatal(err)
		}
		for {
			members, changed := a.Watch()
			if m := members[1]; m.ClusterID == "x" {
				break
			}
			<-changed
		}
	})
}

func TestDeathAndGoodbye(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		a := start(t, n, address(1), Facts{NodeID: "a"})
		b := start(t, n, address(2), Facts{NodeID: "b"})
		c := start(t, n, address(3), Facts{NodeID: "c"})
		await(t, a, "a=alive b=alive c=alive")
		await(t, b, "a=alive b=alive c=alive")
		await(t, c, "a=alive b=alive c=alive")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		await(t, a, "a=alive b=alive c=dead")
		await(t, b, "a=alive b=alive c=dead")
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		await(t, a, "a=alive b=left c=dead")
	})
}

// TestRestartWithAnotherAddress is what a StatefulSet does to its pods, at once
// and before anybody has noticed the death of the old process.
func TestRestartWithAnotherAddress(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		a := start(t, n, address(1), Facts{NodeID: "a"})
		b := start(t, n, address(2), Facts{NodeID: "b"})
		await(t, a, "a=alive b=alive")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		b = start(t, n, address(4), Facts{NodeID: "b"})
		moved := func() bool {
			for _, m := range a.Members() {
				if m.NodeID == "b" && m.State == Alive && m.Gossip == address(4) {
					return true
				}
			}
			return false
		}
		for start := time.Now(); !moved(); {
			_, changed := a.Watch()
			select {
			case <-changed:
			case <-time.After(time.Second):
			}
			if time.Since(start) > time.Minute {
				t.Fatalf("a sees %+v", a.Members())
			}
		}
		await(t, b, "a=alive b=alive")
		// The old process's death is noticed later, and hides nothing.
		time.Sleep(2 * time.Minute)
		if !moved() {
			t.Errorf("a sees %+v", a.Members())
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.seen) != 2 {
			t.Errorf("%d processes are remembered, want 2", len(a.seen))
		}
	})
}

func TestNodesOfAnotherClusterAreKeptOut(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		var ours, theirs lockedBuffer
		a := start(t, n, address(1), Facts{NodeID: "a", ClusterID: "one"}, ours.logs)
		b := start(t, n, address(2), Facts{NodeID: "b", ClusterID: "two"}, theirs.logs)
		neutral := start(t, n, address(3), Facts{NodeID: "n"}, func(c *Config) { c.Seeds = []string{address(1), address(2)} })
		await(t, neutral, "a=alive b=alive n=alive")
		time.Sleep(5 * time.Minute)
		await(t, a, "a=alive n=alive")
		await(t, b, "b=alive n=alive")
		// A node that finds its cluster drops nobody by itself, but it takes no
		// stranger in again.
		for _, log := range []*lockedBuffer{&ours, &theirs} {
			text := log.String()
			if !strings.Contains(text, "belongs to cluster") || !strings.Contains(text, "--join") {
				t.Errorf("the reason is not told: %s", text)
			}
			if lines := strings.Count(text, "level=WARN"); lines > 20 {
				t.Errorf("%d warnings in five minutes:\n%s", lines, text)
			}
		}
	})
}

// TestForeignSeeds joins by seeds of another cluster: nobody else is there, so
// that is told apart from seeds that are down.
func TestForeignSeeds(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		start(t, n, address(1), Facts{NodeID: "a", ClusterID: "one"})
		lost := start(t, n, address(2), Facts{NodeID: "b", ClusterID: "two"}, func(c *Config) { c.Seeds = []string{address(1)} })
		<-lost.Sought()
		if err := lost.Foreign(); err == nil || !strings.Contains(err.Error(), "belongs to cluster one") {
			t.Errorf("the seeds are of another cluster: %v", err)
		}
		start(t, n, address(3), Facts{NodeID: "c", ClusterID: "two"})
		home := start(t, n, address(4), Facts{NodeID: "d", ClusterID: "two"}, func(c *Config) { c.Seeds = []string{address(1), address(3), address(9)} })
		<-home.Sought()
		if err := home.Foreign(); err != nil {
			t.Errorf("one of its own is there: %v", err)
		}
		alone := start(t, n, address(5), Facts{NodeID: "e", ClusterID: "two"}, func(c *Config) { c.Seeds = []string{address(9)} })
		<-alone.Sought()
		if err := alone.Foreign(); err != nil {
			t.Errorf("nobody answers: %v", err)
		}
	})
}

// TestHalvesMeetAgain cuts a group in two until both halves have forgotten each
// other: the seeds bring them together.
func TestHalvesMeetAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		a := start(t, n, address(1), Facts{NodeID: "a"})
		b := start(t, n, address(2), Facts{NodeID: "b"})
		c := start(t, n, address(3), Facts{NodeID: "c"})
		await(t, a, "a=alive b=alive c=alive")
		await(t, b, "a=alive b=alive c=alive")
		await(t, c, "a=alive b=alive c=alive")
		cut := func(broken bool) {
			for _, other := range []int{1, 2} {
				n.Cut(address(3), address(other), broken)
				n.Cut(address(other), address(3), broken)
			}
		}
		cut(true)
		await(t, a, "a=alive b=alive c=dead")
		await(t, c, "a=dead b=dead c=alive")
		time.Sleep(10 * time.Minute)
		cut(false)
		for _, g := range []*Group{a, b, c} {
			await(t, g, "a=alive b=alive c=alive")
		}
	})
}

func TestASeedNameStandsForAllItsAddresses(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		known := make(chan struct{})
		lookup := func(_ context.Context, host string) ([]string, error) {
			select {
			case <-known:
				return []string{"10.0.0.9", "10.0.0.2", "10.0.0.1"}, nil // .9 is nobody
			default:
				return nil, &net.DNSError{Err: "no such host", Name: host}
			}
		}
		named := func(c *Config) { c.Seeds, c.LookupHost = []string{"brokers.example:7072"}, lookup }
		a := start(t, n, address(1), Facts{NodeID: "a"}, named)
		b := start(t, n, address(2), Facts{NodeID: "b"}, named)
		time.Sleep(time.Minute)
		await(t, a, "a=alive")
		close(known)
		await(t, a, "a=alive b=alive")
		await(t, b, "a=alive b=alive")
	})
}

func TestConfigMistakesAreToldTogether(t *testing.T) {
	_, err := Open(Config{Seeds: []string{"host", ":7072", "ok:1"}, Key: []byte("short")})
	if !errors.Is(err, stream.Invalid) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"no node id", "--join host", "--join :7072", "has 5"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	long := Facts{NodeID: "n", Zone: strings.Repeat("z", 600)}
	if _, err := Open(Config{Facts: long, Transport: new(memnet.Network).Transport(address(1))}); !errors.Is(err, stream.Invalid) {
		t.Errorf("facts that don't fit: %v", err)
	}
}

// TestRealSockets runs on loopback: a free port, a taken one, and a key.
func TestRealSockets(t *testing.T) {
	key := []byte("0123456789abcdef")
	open := func(id stream.NodeID, bind string, key []byte, log *lockedBuffer, seeds ...string) (*Group, error) {
		cfg := Config{Facts: Facts{NodeID: id}, Bind: bind, Seeds: seeds, Key: key}
		log.logs(&cfg)
		g, err := Open(cfg)
		if err == nil {
			t.Cleanup(func() { g.Close() })
		}
		return g, err
	}
	var log lockedBuffer
	a, err := open("a", "127.0.0.1:0", key, &log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open("x", a.Self().Gossip, key, &log); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a taken port: %v", err)
	}
	b, err := open("b", "localhost:0", key, &log, a.Self().Gossip)
	if err != nil {
		t.Fatal(err)
	}
	await(t, a, "a=alive b=alive")
	await(t, b, "a=alive b=alive")

	var keyless lockedBuffer
	c, err := open("c", "127.0.0.1:0", nil, &keyless, a.Self().Gossip)
	if err != nil {
		t.Fatal(err)
	}
	keyless.await(t, "gossip key")
	await(t, c, "c=alive")
	await(t, a, "a=alive b=alive")
}

// TestAnotherProtocolGetsOneClearLine points --join at a port that speaks
// something else, and something else at the gossip port.
func TestAnotherProtocolGetsOneClearLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// What a gRPC server says first: SETTINGS.
			_, _ = c.Write([]byte{0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 64, 0})
			c.Close()
		}
	})
	defer serving.Wait()
	defer l.Close()

	var log lockedBuffer
	cfg := Config{Facts: Facts{NodeID: "a"}, Bind: "127.0.0.1:0", Seeds: []string{l.Addr().String()}}
	log.logs(&cfg)
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	log.await(t, "--join takes a node's gossip port")

	c, err := net.Dial("tcp", g.Self().Gossip)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	log.await(t, "talks to this node's gossip port")
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (b *lockedBuffer) logs(c *Config) {
	b.more = make(chan struct{}, 1)
	c.Logger = slog.New(slog.NewTextHandler(b, nil))
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits until exactly one line has the words.
func (b *lockedBuffer) await(t *testing.T, words string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		switch n := strings.Count(b.String(), words); {
		case n == 1:
			return
		case n > 1:
			t.Fatalf("%q is said %d times:\n%s", words, n, b.String())
		}
		select {
		case <-b.more:
		case <-deadline:
			t.Fatalf("%q is not said:\n%s", words, b.String())
		}
	}
}

// Self is asked for at any moment, also while memberlist, under its own lock,
// asks whether a newcomer may be a member.
func TestSelfWhileMembersCome(t *testing.T) {
	n := new(memnet.Network)
	g := start(t, n, address(1), Facts{NodeID: "n1"})
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for ctx.Err() == nil {
				if g.Self().NodeID != "n1" {
					t.Error("it is somebody else")
				}
			}
		})
	}
	for i := 2; i < 10; i++ {
		start(t, n, address(i), Facts{NodeID: stream.NodeID(fmt.Sprint("n", i))})
	}
	for {
		members, changed := g.Watch()
		if len(members) == 9 {
			break
		}
		<-changed
	}
	cancel()
	asking.Wait()
}
