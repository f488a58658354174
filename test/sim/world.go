package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"shardstream/broker/replica"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// Options size a run.
type Options struct {
	Nodes, Shards, Steps int
	Crashes, Losses      int // at most
	Reshards             int // at most
	Trace                bool
}

// violation ends a run.
type violation struct{ text string }

// world is a cluster.
type world struct {
	Options
	rng   *rand.Rand
	step  int
	trace []string
	clock time.Duration

	states    []*raftfsm.State // after each command, oldest first
	proposals []*pb.Command    // on their way to raft
	nodes     []*node
	wires     map[[2]int]*wire
	streamID  uint64
	crashes   int
	losses    int
	values    uint64

	// What the checks remember.
	committed map[stream.ShardID]map[stream.Offset]string // everything that anybody was shown
	low       map[stream.ShardID]stream.Offset            // trimmed by a leader below this
	payloads  map[at]string                               // I4
	acked     map[stream.ShardID]int

	Counts Counts
}

// Counts say what happened, so that a run that did nothing shows.
type Counts struct {
	Acked, Elections, InSyncChanges, Crashes, Losses, Breaks, Reshards int
}

type at struct {
	shard  stream.ShardID
	epoch  stream.Epoch
	offset stream.Offset
}

// wire is what is under way from one node to another: the streams of one
// connection and what late remains of the ones before it.
type wire struct {
	up     bool
	frames []delivery
	late   []delivery
}

type delivery func()

func (w *world) logf(format string, args ...any) {
	if w.Trace {
		w.trace = append(w.trace, fmt.Sprintf("%5d  ", w.step)+fmt.Sprintf(format, args...))
	}
}

func (w *world) fail(format string, args ...any) {
	panic(violation{fmt.Sprintf("step %d: ", w.step) + fmt.Sprintf(format, args...)})
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func (w *world) state() *raftfsm.State { return w.states[len(w.states)-1] }

func nodeID(i int) stream.NodeID { return stream.NodeID(fmt.Sprintf("n%d", i)) }

func (w *world) nodeOf(id stream.NodeID) *node {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// commit applies a command to the metadata.
func (w *world) commit(c *pb.Command) *pb.CommandResult {
	c.TimeMs = w.nowMs()
	data, err := proto.Marshal(c) // as raft would carry it: nothing is shared
	if err != nil {
		w.fail("%v", err)
	}
	decoded, err := raftfsm.DecodeCommand(data)
	if err != nil {
		w.fail("%v", err)
	}
	before := w.state()
	after, result := before.Apply(uint64(len(w.states)), decoded)
	w.states = append(w.states, after)
	w.logf("raft %d: %v -> %v %s", len(w.states)-1, c.Op, result.Error, result.Detail)
	w.checkMetadata(before, after)
	return result
}

func (w *world) nowMs() int64 { return 1_700_000_000_000 + w.clock.Milliseconds() }

func newWorld(seed uint64, o Options) *world {
	w := &world{
		Options: o, rng: rand.New(rand.NewPCG(seed, 7)),
		wires:     make(map[[2]int]*wire),
		committed: make(map[stream.ShardID]map[stream.Offset]string),
		low:       make(map[stream.ShardID]stream.Offset),
		payloads:  make(map[at]string),
		acked:     make(map[stream.ShardID]int),
		states:    []*raftfsm.State{raftfsm.NewState()},
	}
	w.commit(&pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
		ClusterId: "sim", TokenKey: make([]byte, 32), AccountId: "000000000000", Limits: &pb.Limits{Shards: 100, OnDemandStreams: 10},
	}}})
	for i := range o.Nodes {
		n := &node{w: w, index: i, id: nodeID(i), disk: newDisk(i)}
		w.nodes = append(w.nodes, n)
		for j := range o.Nodes {
			w.wires[[2]int{i, j}] = &wire{}
		}
	}
	for _, n := range w.nodes {
		n.start()
		n.register()
	}
	c := &pb.CreateStream{Name: "s", ShardCount: uint32(o.Shards), Mode: pb.StreamMode_STREAM_MODE_PROVISIONED}
	for i := range o.Shards {
		nodes := &pb.ReplicaNodes{}
		for j := range 3 {
			nodes.NodeIds = append(nodes.NodeIds, string(nodeID((i+j)%o.Nodes)))
		}
		c.Placement = append(c.Placement, nodes)
	}
	w.streamID = w.commit(&pb.Command{Op: &pb.Command_CreateStream{CreateStream: c}}).StreamId
	for _, n := range w.nodes {
		n.learn(len(w.states) - 1)
		n.disk.sync(len(n.disk.journal))
		n.report()
	}
	for len(w.proposals) > 0 {
		w.propose(0)
	}
	if r := w.commit(&pb.Command{Op: &pb.Command_ActivateStream{ActivateStream: &pb.ActivateStream{StreamId: w.streamID}}}); r.Error != 0 {
		w.fail("can't activate: %s", r.Detail)
	}
	return w
}

// propose takes a proposal off the way and applies it.
func (w *world) propose(i int) {
	c := w.proposals[i]
	w.proposals = slices.Delete(w.proposals, i, i+1)
	w.commit(c)
}

// Run plays one schedule. It gives what went wrong, "" if nothing did, with the
// trace.
func Run(seed uint64, o Options) (counts Counts, wrong string, trace string) {
	var w *world
	defer func() {
		if p := recover(); p != nil {
			v, ok := p.(violation)
			if !ok {
				panic(p)
			}
			wrong = v.text
		}
		if w != nil {
			counts, trace = w.Counts, strings.Join(w.trace, "\n")
		}
	}()
	w = newWorld(seed, o)
	moves := w.moves()
	total := 0
	for i := range moves {
		// Each run has its own temper: some things often, some hardly ever.
		moves[i].weight = 1 + moves[i].weight*[]int{1, 4, 10, 30}[w.rng.IntN(4)]
		total += moves[i].weight
	}
	for w.step = 0; w.step < o.Steps; w.step++ {
		pick := w.rng.IntN(total)
		for _, m := range moves {
			if pick -= m.weight; pick < 0 {
				m.do()
				break
			}
		}
		w.check()
	}
	w.heal()
	return
}

// env is a node as its replicas see it. It belongs to one process: a crashed
// one's effects go nowhere.
type env struct {
	n    *node
	life int
}

func (e env) alive() bool { return e.n.up && e.n.life == e.life }

func (e env) Now() int64             { return e.n.w.nowMs() + e.n.skew }
func (e env) Elapsed() time.Duration { return e.n.w.clock }

func (e env) PushReady(to stream.NodeID, lane replica.Lane, r *replica.Replica) {
	if e.alive() {
		e.n.pushes[push{to, lane, r.Key()}] = true
	}
}

func (e env) MarkReady(to stream.NodeID, lane replica.Lane, r *replica.Replica) {
	e.PushReady(to, lane, r)
}

func (e env) AnswerReady(to stream.NodeID, r *replica.Replica) {
	if e.alive() {
		e.n.answers[push{to, 0, r.Key()}] = true
	}
}

func (e env) ProposeInSync(r *replica.Replica, c *pb.InSyncChange) {
	if e.alive() {
		w := e.n.w
		w.logf("%s proposes in-sync %v (added %d) for %s at version %d", e.n.id, c.InSync, c.Added, r.Key(), c.Version)
		w.proposals = append(w.proposals, &pb.Command{Op: &pb.Command_AlterInSync{AlterInSync: &pb.AlterInSync{
			NodeId: string(e.n.id), Incarnation: e.n.incarnation, Changes: []*pb.InSyncChange{proto.Clone(c).(*pb.InSyncChange)},
		}}})
	}
}

func (e env) ProposeSeal(r *replica.Replica, epoch stream.Epoch, version uint64, final stream.Offset, lastArrival int64) {
	if e.alive() {
		e.n.w.logf("%s proposes the end of %s at %d", e.n.id, r.Key(), final)
		e.n.w.proposals = append(e.n.w.proposals, &pb.Command{Op: &pb.Command_SealShards{SealShards: &pb.SealShards{
			NodeId: string(e.n.id), Incarnation: e.n.incarnation, Seals: []*pb.Seal{{
				StreamId: uint64(r.Key().Shard.Stream), Shard: r.Key().Shard.Number, Epoch: uint32(epoch), Version: version, FinalOffset: uint64(final), LastArrivalMs: lastArrival,
			}},
		}}})
	}
}

func (e env) NeedTick(r *replica.Replica) {
	if e.alive() {
		e.n.ticking[r.Key()] = true
	}
}

func (e env) Alarm(r *replica.Replica, suspect stream.ReplicaID, what string) {
	e.n.w.fail("alarm at %s of replica %d: %s", r.Key(), suspect, what)
}

func (c *Counts) add(o Counts) {
	c.Acked += o.Acked
	c.Elections += o.Elections
	c.InSyncChanges += o.InSyncChanges
	c.Crashes += o.Crashes
	c.Losses += o.Losses
	c.Breaks += o.Breaks
	c.Reshards += o.Reshards
}
