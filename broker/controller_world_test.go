package broker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// fakeRaft is the metadata of a whole cluster as one value, with a leader that
// the test appoints.
type fakeRaft struct {
	mu      sync.Mutex
	state   *raftfsm.State
	changed chan struct{}
	leader  string
	ready   time.Time // when the leader's state holds all that was committed before
	term    uint64
	// before, if set, may fail a proposal before or after it is applied.
	before, after func(node string, c *pb.Command) error
	commands      []string
}

func newFakeRaft() *fakeRaft {
	return &fakeRaft{state: raftfsm.NewState(), changed: make(chan struct{})}
}

// becomesReady is how long a new leader is known before it is ready.
const becomesReady = 30 * time.Millisecond

func (r *fakeRaft) appoint(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leader = node
	r.term++
	r.ready = time.Now().Add(becomesReady)
}

func (r *fakeRaft) apply(c *pb.Command) *pb.CommandResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	var result *pb.CommandResult
	r.state, result = r.state.Apply(r.state.Index()+1, c)
	r.commands = append(r.commands, commandName(c))
	close(r.changed)
	r.changed = make(chan struct{})
	return result
}

func (r *fakeRaft) times(name string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.commands {
		if c == name {
			n++
		}
	}
	return n
}

// fakeMeta is one node's view of it.
type fakeMeta struct {
	raft *fakeRaft
	node string
}

func (m *fakeMeta) State() *raftfsm.State { s, _ := m.Watch(); return s }

func (m *fakeMeta) Watch() (*raftfsm.State, <-chan struct{}) {
	m.raft.mu.Lock()
	defer m.raft.mu.Unlock()
	return m.raft.state, m.raft.changed
}

func (m *fakeMeta) Leader() (node, address string) {
	m.raft.mu.Lock()
	defer m.raft.mu.Unlock()
	return m.raft.leader, ""
}

func (m *fakeMeta) IsLeader() bool {
	m.raft.mu.Lock()
	defer m.raft.mu.Unlock()
	return m.raft.leader == m.node && !time.Now().Before(m.raft.ready)
}

func (m *fakeMeta) Status() raftfsm.Status {
	m.raft.mu.Lock()
	defer m.raft.mu.Unlock()
	return raftfsm.Status{Term: m.raft.term, Leading: m.raft.leader == m.node}
}

func (m *fakeMeta) Propose(_ context.Context, c *pb.Command) (*pb.CommandResult, error) {
	if !m.IsLeader() {
		return nil, stream.Errorf(stream.NotLeader, "fake", "node %s does not lead", m.node)
	}
	if f := m.raft.before; f != nil {
		if err := f(m.node, c); err != nil {
			return nil, err
		}
	}
	result := m.raft.apply(c)
	if f := m.raft.after; f != nil {
		if err := f(m.node, c); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func (m *fakeMeta) ReadIndex(context.Context) (uint64, error) {
	if !m.IsLeader() {
		return 0, stream.Errorf(stream.NotLeader, "fake", "node %s does not lead", m.node)
	}
	return m.State().Index(), nil
}

// memNet is a network in memory: an address that nobody listens at refuses,
// a frozen one accepts and says nothing, as the kernel does for a stopped process.
type memNet struct {
	mu     sync.Mutex
	listen map[string]*bufconn.Listener
	frozen map[string]bool
	slow   time.Duration // how long it takes to connect
	lost   []net.Conn    // other ends of connections to frozen nodes
}

func newMemNet() *memNet {
	return &memNet{listen: make(map[string]*bufconn.Listener), frozen: make(map[string]bool)}
}

func (n *memNet) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	l, frozen, slow := n.listen[address], n.frozen[address], n.slow
	n.mu.Unlock()
	pause(ctx, slow)
	switch {
	case l == nil:
		return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	case frozen:
		near, far := net.Pipe()
		n.mu.Lock()
		n.lost = append(n.lost, far)
		n.mu.Unlock()
		return near, nil
	}
	return l.DialContext(ctx)
}

func (n *memNet) close() {
	for _, c := range n.lost {
		_ = c.Close()
	}
}

// controlNode is what of a broker talks with the raft leader.
type controlNode struct {
	world   *controlWorld
	name    string
	meta    *fakeMeta
	control *control
	service *controllerService
	session *session
	server  *grpc.Server
	stop    context.CancelFunc
	stopped chan struct{}
	running sync.WaitGroup

	mu         sync.Mutex
	health     health
	frozen     bool
	suspects   int
	superseded error
}

// freeze has the process do nothing more, as SIGSTOP does: beats are neither
// sent nor answered, and its connections stay.
func (n *controlNode) freeze(on bool) {
	n.mu.Lock()
	n.frozen = on
	n.mu.Unlock()
	n.world.net.mu.Lock()
	n.world.net.frozen[n.name] = on
	n.world.net.mu.Unlock()
}

type controlWorld struct {
	t     *testing.T
	raft  *fakeRaft
	net   *memNet
	nodes map[string]*controlNode
	ctx   context.Context
	late  atomic.Int64 // every node's scheduling lag, ns
}

func (w *controlWorld) lag() time.Duration { return time.Duration(w.late.Load()) }

// inControlWorld runs f in a bubble with a cluster of three nodes, led by a.
func inControlWorld(t *testing.T, f func(w *controlWorld)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		w := &controlWorld{t: t, raft: newFakeRaft(), net: newMemNet(), nodes: make(map[string]*controlNode), ctx: ctx}
		w.raft.apply(&pb.Command{TimeMs: time.Now().UnixMilli(), Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
			ClusterId: "c", TokenKey: make([]byte, 32), AccountId: defaultAccount, Limits: &pb.Limits{Shards: 1000, OnDemandStreams: 10},
		}}})
		w.raft.appoint("a")
		for _, name := range []string{"a", "b", "c"} {
			w.start(name)
		}
		f(w)
		for _, n := range w.nodes {
			n.freeze(false)
			n.end()
		}
		w.net.close()
	})
}

// start runs a node: a new process under this name.
func (w *controlWorld) start(name string) *controlNode {
	w.t.Helper()
	n := &controlNode{world: w, name: name, meta: &fakeMeta{w.raft, name}, stopped: make(chan struct{})}
	n.control = &control{
		node: name, clusterID: func() string { return "c" }, meta: n.meta, clock: newClock(), conns: newConns(w.net.dial),
		address: func(node string) string { return node },
	}
	n.service = &controllerService{control: n.control, stopped: n.stopped}
	var ctx context.Context
	ctx, n.stop = context.WithCancel(w.ctx)
	n.server = grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			out, err := handler(ctx, req)
			return out, toStatus(err)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return toStatus(handler(srv, ss))
		}))
	n.service.register(n.server)
	pb.RegisterClusterServer(n.server, &clusterService{control: n.control, stopped: n.stopped})
	l := bufconn.Listen(1 << 16)
	w.net.mu.Lock()
	w.net.listen[name] = l
	w.net.mu.Unlock()
	n.running.Go(func() { _ = n.server.Serve(l) })
	n.running.Go(func() {
		n.service.lead(ctx, controllerConfig{Holds: func(uint64) bool { return false }, Lag: w.lag, Logger: slog.New(slog.DiscardHandler)})
	})
	result, err := n.control.Propose(ctx, &pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
		Broker:          &pb.Broker{NodeId: name, DiskId: "disk of " + name, FeatureLevel: featureLevel},
		LastIncarnation: w.raft.state.Broker(name).GetIncarnation(),
	}}})
	if err != nil || result.Error != 0 {
		w.t.Fatal(result, err)
	}
	n.session = newSession(sessionConfig{
		ClusterID: "c", NodeID: name, Incarnation: result.Incarnation,
		Leader:  func() string { l, _ := n.meta.Leader(); return l },
		Address: func(node string) string { return node }, Dial: w.net.dial,
		Health: func() health { n.waitThawed(); n.mu.Lock(); defer n.mu.Unlock(); return n.health },
		Clock:  n.control.clock, Local: n.service.local,
		LeaderSuspect: func() { n.mu.Lock(); n.suspects++; n.mu.Unlock() },
		Superseded:    func(err error) { n.mu.Lock(); n.superseded = err; n.mu.Unlock() },
		Logger:        slog.New(slog.DiscardHandler),
	})
	n.running.Go(func() { n.session.run(ctx) })
	w.nodes[name] = n
	return n
}

// suspected is how often the node said that the raft leader is dead.
func (n *controlNode) suspected() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.suspects
}

// waitThawed holds a frozen node's beats up.
func (n *controlNode) waitThawed() {
	for {
		n.mu.Lock()
		frozen := n.frozen
		n.mu.Unlock()
		if !frozen {
			return
		}
		time.Sleep(time.Millisecond) // of the bubble's time
	}
}

// end stops the node at once, as kill -9 does.
func (n *controlNode) end() {
	n.world.net.mu.Lock()
	delete(n.world.net.listen, n.name)
	n.world.net.mu.Unlock()
	select {
	case <-n.stopped:
		return
	default:
	}
	close(n.stopped)
	n.server.Stop()
	n.stop()
	n.running.Wait()
	n.service.wait()
	n.control.conns.close()
}

func (w *controlWorld) broker(node string) *pb.Broker {
	w.raft.mu.Lock()
	defer w.raft.mu.Unlock()
	return w.raft.state.Broker(node)
}

// await waits until the condition holds, and gives how long that took.
func (w *controlWorld) await(what string, holds func() bool) time.Duration {
	w.t.Helper()
	from := time.Now()
	for !holds() {
		if time.Since(from) > time.Minute {
			w.t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(time.Millisecond) // of the bubble's time
	}
	return time.Since(from)
}

func (w *controlWorld) awaitState(node string, want pb.BrokerState) time.Duration {
	w.t.Helper()
	return w.await(fmt.Sprintf("%s is %v", node, want), func() bool { return w.broker(node).State == want })
}

// pass lets the bubble's time pass.
func pass(d time.Duration) { time.Sleep(d) }
