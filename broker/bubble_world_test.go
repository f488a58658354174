package broker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"shardstream/broker/member"
	"shardstream/broker/member/memnet"
	"shardstream/broker/recordlog"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// bubbleCluster is a cluster of whole brokers in one process on fake time, each
// opened by Open, with its own machine: an address, a disk for records that
// forgets what was not synced, and real files for the rest.
type bubbleCluster struct {
	t      *testing.T
	net    *bubbleNet
	gossip *memnet.Network
	nodes  []*bubbleNode
	logger *slog.Logger
	loads  []*bubbleLoad

	replaceAfter time.Duration
}

// bubbleNode is one machine, and the process on it.
type bubbleNode struct {
	cluster *bubbleCluster
	name    string
	machine string // IP
	dir     string

	mu      sync.Mutex
	disk    *recordlog.MemFS
	log     *bubbleLog
	running *Broker // nil while no process runs that serves
	ended   error   // why the last process ended by itself
	opening context.CancelFunc
	process sync.WaitGroup
}

// bubblePatience is how long anything that must happen may take, of the bubble's time.
const bubblePatience = 10 * time.Minute

// inBubbleCluster runs f with a cluster that has been formed by so many nodes.
func inBubbleCluster(t *testing.T, nodes int, f func(c *bubbleCluster), options ...func(*bubbleCluster)) {
	dir := t.TempDir()
	if raceDetector && os.Getenv("SHARDSTREAM_LONG") == "" {
		// Seen with Go 1.26: a segmentation fault in internal/synctest.Run when
		// the bubble of a whole cluster ends. `make test` runs these without.
		t.Skip("the race detector and a large bubble crash the runtime now and then")
	}
	synctest.Test(t, func(t *testing.T) {
		c := &bubbleCluster{t: t, net: newBubbleNet(), gossip: new(memnet.Network), logger: slog.New(slog.DiscardHandler)}
		if os.Getenv("SHARDSTREAM_BUBBLE_LOG") != "" {
			c.logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
		for _, o := range options {
			o(c)
		}
		for i := range nodes {
			n := &bubbleNode{
				cluster: c, name: fmt.Sprintf("n%d", i+1), machine: fmt.Sprintf("10.0.0.%d", i+1),
				dir: filepath.Join(dir, fmt.Sprintf("n%d", i+1)), disk: recordlog.NewMemFS(),
			}
			makeDirs(t, n.disk, n.dir)
			c.nodes = append(c.nodes, n)
		}
		defer c.end()
		for _, n := range c.nodes {
			n.start()
		}
		for _, n := range c.nodes {
			n.awaitUp()
		}
		f(c)
	})
}

// makeDirs makes a directory with all above it.
func makeDirs(t *testing.T, disk *recordlog.MemFS, dir string) {
	t.Helper()
	if dir == "/" {
		return
	}
	makeDirs(t, disk, path.Dir(dir))
	if err := disk.Mkdir(dir); err != nil {
		t.Fatal(err)
	}
	if err := disk.SyncDir(path.Dir(dir)); err != nil {
		t.Fatal(err)
	}
}

func (c *bubbleCluster) end() {
	for _, l := range c.loads {
		l.end()
	}
	for _, n := range c.nodes {
		n.kill()
	}
	for _, n := range c.nodes {
		n.process.Wait()
	}
	c.net.mu.Lock()
	left := slices.Collect(maps.Keys(c.net.conns))
	c.net.mu.Unlock()
	for _, conn := range left {
		_ = conn.Close()
	}
	time.Sleep(time.Minute) // memberlist's Shutdown doesn't wait for a probe that is under way
}

// config is that of the present life of the node.
func (n *bubbleNode) config() Config {
	c := n.cluster
	var seeds []string
	for _, o := range c.nodes {
		seeds = append(seeds, o.machine+":7072")
	}
	return Config{
		DataDir: n.dir, NodeID: stream.NodeID(n.name), Zone: "z",
		GRPCListener: c.net.listen(n.machine, 7070), RaftListener: c.net.listen(n.machine, 7071), GossipBind: n.machine + ":7072",
		Join: seeds, BootstrapExpect: len(c.nodes),
		JournalBudget: 8 << 20, TailCache: 4 << 20, DiskReserve: 1, ReplaceAfter: c.replaceAfter,
		dial:   c.net.dialer(n.machine),
		gossip: func(m *member.Config) { m.Transport = c.gossip.Transport(n.machine + ":7072") },
	}
}

// mayFail says that the node is about to have reason for errors.
func (n *bubbleNode) mayFail() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.log != nil {
		n.log.dying.Store(true)
	}
}

// bubbleLog fails the test for each error that a node tells of which nobody
// hurts: an alarm, damage, a goroutine that gave up.
type bubbleLog struct {
	slog.Handler
	t     *testing.T
	node  string
	dying atomic.Bool
}

func (l *bubbleLog) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError || l.Handler.Enabled(ctx, level)
}

func (l *bubbleLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError && !l.dying.Load() {
		text := r.Message
		r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
		l.t.Errorf("%s: %s", l.node, text)
	}
	if !l.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	r.AddAttrs(slog.String("on", l.node), slog.Time("at", time.Now()))
	return l.Handler.Handle(ctx, r)
}

// WithAttrs and WithGroup keep to the one handler: what a logger adds is of no
// use here.
func (l *bubbleLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *bubbleLog) WithGroup(string) slog.Handler      { return l }

// start starts a process on the machine, which runs until kill, or until it
// ends by itself as the program does (I15).
func (n *bubbleNode) start() {
	n.process.Wait()
	n.cutGossip(false)
	cfg := n.config()
	log := &bubbleLog{Handler: n.cluster.logger.Handler(), t: n.cluster.t, node: n.name}
	cfg.Logger = slog.New(log)
	ctx, cancel := context.WithCancel(context.Background())
	n.mu.Lock()
	cfg.recordsFS, n.log, n.opening, n.ended = n.disk, log, cancel, nil
	n.mu.Unlock()
	n.process.Go(func() {
		b, err := Open(ctx, cfg)
		if err != nil {
			_ = cfg.GRPCListener.Close()
			n.note(nil, err)
			return
		}
		n.note(b, nil)
		select {
		case <-ctx.Done():
		case err := <-b.Failed():
			n.note(nil, err)
			n.cluster.net.endProcess(n.machine)
			n.cutGossip(true)
		}
		_ = b.shutDown(ctx) // its time is over already
		n.note(nil, nil)
	})
}

func (n *bubbleNode) note(b *Broker, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running = b
	if err != nil {
		n.ended = err
	}
}

func (n *bubbleNode) broker() *Broker {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running
}

// died gives why the process ended by itself, nil if it did not.
func (n *bubbleNode) died() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ended
}

// kill ends the process as kill -9 does. The kernel has all that was written.
func (n *bubbleNode) kill() {
	n.mayFail()
	n.cluster.net.endProcess(n.machine)
	n.abandon(func(disk *recordlog.MemFS) *recordlog.MemFS { return disk.Clone() })
}

// cutPower ends everything on the machine; the others hear nothing. What was
// not synced is lost, or of it as much is kept as the seed says.
func (n *bubbleNode) cutPower(seed uint64, keep bool) {
	n.mayFail()
	n.cluster.net.powerOff(n.machine)
	n.abandon(func(disk *recordlog.MemFS) *recordlog.MemFS { return disk.CrashClone(seed, keep) })
}

// abandon leaves the process without network and disk, and ends what is left.
func (n *bubbleNode) abandon(after func(*recordlog.MemFS) *recordlog.MemFS) {
	n.cutGossip(true)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.disk.Kill()
	n.disk.OnSync(nil)
	n.disk = after(n.disk)
	n.running = nil
	if n.opening != nil {
		n.opening()
	}
}

// restart starts the machine and the process again.
func (n *bubbleNode) restart() {
	n.process.Wait()
	n.cluster.net.powerOn(n.machine)
	n.start()
}

func (n *bubbleNode) awaitUp() {
	n.cluster.t.Helper()
	n.cluster.await(n.name+" is up", func() bool {
		if err := n.died(); err != nil {
			n.cluster.t.Fatalf("%s ended: %v", n.name, err)
		}
		return n.broker() != nil
	})
}

// cutGossip is the part of a cut that the gossip's own network needs.
func (n *bubbleNode) cutGossip(cut bool) {
	for _, o := range n.cluster.nodes {
		if o != n {
			n.cluster.gossip.Cut(n.machine+":7072", o.machine+":7072", cut)
			n.cluster.gossip.Cut(o.machine+":7072", n.machine+":7072", cut)
		}
	}
}

// partition cuts the node's links to and from all others, or restores them.
func (n *bubbleNode) partition(to, from, cut bool) {
	for _, o := range n.cluster.nodes {
		if o == n {
			continue
		}
		if from {
			n.cluster.net.setCut(n.machine, o.machine, cut)
			n.cluster.gossip.Cut(n.machine+":7072", o.machine+":7072", cut)
		}
		if to {
			n.cluster.net.setCut(o.machine, n.machine, cut)
			n.cluster.gossip.Cut(o.machine+":7072", n.machine+":7072", cut)
		}
	}
}

// stall holds everything up that the node says and hears, clients included, as
// SIGSTOP does; or lets it go on.
func (n *bubbleNode) stall(on bool) {
	n.partition(true, true, on)
	n.cluster.net.setCut(n.machine, bubbleClientMachine, on)
	n.cluster.net.setCut(bubbleClientMachine, n.machine, on)
}

// await waits until the condition holds, and gives how long that took.
func (c *bubbleCluster) await(what string, holds func() bool) time.Duration {
	c.t.Helper()
	from := time.Now()
	for !holds() {
		if time.Since(from) > bubblePatience {
			c.t.Fatalf("not within %v: %s", bubblePatience, what)
		}
		time.Sleep(time.Millisecond) // of the bubble's time
	}
	return time.Since(from)
}

// state gives the newest metadata that any node shows.
func (c *bubbleCluster) state() *raftfsm.State {
	newest := raftfsm.NewState()
	for _, n := range c.nodes {
		if b := n.broker(); b != nil {
			if s := b.meta.State(); s.Index() > newest.Index() {
				newest = s
			}
		}
	}
	return newest
}

func (c *bubbleCluster) node(name string) *bubbleNode {
	i := slices.IndexFunc(c.nodes, func(n *bubbleNode) bool { return n.name == name })
	if i < 0 {
		return nil
	}
	return c.nodes[i]
}

// raftLeader gives the node that leads raft.
func (c *bubbleCluster) raftLeader() (leader *bubbleNode) {
	c.t.Helper()
	c.await("a raft leader", func() bool {
		for _, n := range c.nodes {
			if b := n.broker(); b != nil && b.meta.IsLeader() {
				leader = n
			}
		}
		return leader != nil
	})
	return leader
}

// follower gives a node that does not lead raft.
func (c *bubbleCluster) follower() *bubbleNode {
	leader := c.raftLeader()
	for _, n := range c.nodes {
		if n != leader {
			return n
		}
	}
	return nil
}

// leads gives the shards of the stream that a node leads.
func leads(state *raftfsm.State, id uint64, node string) (numbers []uint32) {
	for _, s := range state.Shards(id) {
		for _, r := range s.Replicas {
			if r.Id == s.Leader && r.NodeId == node {
				numbers = append(numbers, s.Number)
			}
		}
	}
	return numbers
}

// whole tells whether all brokers are live and all copies of all shards in sync.
func (c *bubbleCluster) whole() bool {
	state := c.state()
	live := 0
	for _, b := range state.Brokers() {
		if b.State == pb.BrokerState_BROKER_STATE_LIVE {
			live++
		}
	}
	if live < len(c.nodes) {
		return false
	}
	for _, s := range state.Streams() {
		for _, shard := range state.Shards(s.Id) {
			if shard.Leader == 0 || len(shard.InSync) != int(shard.ReplicationFactor) || len(shard.Replicas) != len(shard.InSync) {
				return false
			}
		}
	}
	return true
}

func (c *bubbleCluster) awaitWhole() time.Duration {
	c.t.Helper()
	return c.await("the cluster is whole", c.whole)
}
