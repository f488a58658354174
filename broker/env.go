package broker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"shardstream/broker/replica"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// replicaTick is how often a replica that waits for something is looked at.
const replicaTick = 100 * time.Millisecond

// inSyncTimeout bounds one proposal of in-sync sets; leaders repeat theirs.
const inSyncTimeout = 2 * time.Second

// env is this node as its replicas see it.
type env struct {
	// Set once.
	node        stream.NodeID
	incarnation uint64
	clock       *clock
	control     *control
	peers       *peers
	logger      *slog.Logger
	wakeTicks   chan struct{} // capacity 1
	wakeChanges chan struct{} // capacity 1

	mu      sync.Mutex
	ticking map[*replica.Replica]struct{}
	changes map[*replica.Replica]*pb.InSyncChange
	seals   map[*replica.Replica]seal
}

var _ replica.Env = (*env)(nil)

func newEnv(node stream.NodeID, incarnation uint64, c *clock, ctl *control, logger *slog.Logger) *env {
	return &env{
		node: node, incarnation: incarnation, clock: c, control: ctl, logger: logger,
		wakeTicks: make(chan struct{}, 1), wakeChanges: make(chan struct{}, 1),
		ticking: make(map[*replica.Replica]struct{}), changes: make(map[*replica.Replica]*pb.InSyncChange), seals: make(map[*replica.Replica]seal),
	}
}

func (e *env) Now() int64             { return e.clock.arrivalMs() }
func (e *env) Elapsed() time.Duration { return e.clock.since() }

func (e *env) PushReady(to stream.NodeID, lane replica.Lane, r *replica.Replica) {
	e.peers.peer(to).pushes[lane].add(r)
}

func (e *env) MarkReady(to stream.NodeID, lane replica.Lane, r *replica.Replica) {
	e.peers.peer(to).marks[lane].add(r)
}

func (e *env) AnswerReady(to stream.NodeID, r *replica.Replica) { e.peers.peer(to).answers.add(r) }

func (e *env) NeedTick(r *replica.Replica) {
	e.mu.Lock()
	e.ticking[r] = struct{}{}
	e.mu.Unlock()
	wake(e.wakeTicks)
}

func (e *env) ProposeInSync(r *replica.Replica, c *pb.InSyncChange) {
	e.mu.Lock()
	e.changes[r] = c
	e.mu.Unlock()
	wake(e.wakeChanges)
}

func (e *env) Alarm(r *replica.Replica, suspect stream.ReplicaID, what string) {
	e.logger.Error("a replica is not what it must be; look at its disk", "shard", r.Key().Shard, "replica", suspect, "what", what)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// tick looks at the replicas that wait for something, until the context ends.
// There is no timer while there are none.
func (e *env) tick(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wakeTicks:
		}
		if !e.tickAll(ctx) {
			return
		}
	}
}

func (e *env) tickAll(ctx context.Context) bool {
	ticker := time.NewTicker(replicaTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
		e.mu.Lock()
		rs := make([]*replica.Replica, 0, len(e.ticking))
		for r := range e.ticking {
			rs = append(rs, r)
		}
		clear(e.ticking)
		e.mu.Unlock()
		if len(rs) == 0 {
			return true
		}
		for _, r := range rs {
			if r.Tick() {
				e.mu.Lock()
				e.ticking[r] = struct{}{}
				e.mu.Unlock()
			}
		}
	}
}

// propose carries changes of in-sync sets and the ends of sealing shards to the
// metadata, all that wait in one command each, until the context ends. Leaders
// learn the outcome from the metadata.
func (e *env) propose(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wakeChanges:
		}
		e.mu.Lock()
		c := &pb.AlterInSync{NodeId: string(e.node), Incarnation: e.incarnation}
		for _, change := range e.changes {
			c.Changes = append(c.Changes, change)
		}
		clear(e.changes)
		s := &pb.SealShards{NodeId: string(e.node), Incarnation: e.incarnation}
		for r, end := range e.seals {
			s.Seals = append(s.Seals, &pb.Seal{
				StreamId: uint64(r.Key().Shard.Stream), Shard: r.Key().Shard.Number,
				Epoch: uint32(end.epoch), Version: end.version, FinalOffset: uint64(end.final), LastArrivalMs: end.lastArrival,
			})
		}
		clear(e.seals)
		e.mu.Unlock()
		if len(c.Changes) > 0 {
			e.proposeOne(ctx, &pb.Command{Op: &pb.Command_AlterInSync{AlterInSync: c}}, "in-sync sets could not be changed yet; will retry", len(c.Changes))
		}
		if len(s.Seals) > 0 {
			e.proposeOne(ctx, &pb.Command{Op: &pb.Command_SealShards{SealShards: s}}, "shards could not be closed yet; will retry", len(s.Seals))
		}
	}
}

func (e *env) proposeOne(ctx context.Context, c *pb.Command, failed string, shards int) {
	proposing, cancel := context.WithTimeout(ctx, inSyncTimeout)
	defer cancel()
	if _, err := e.control.Propose(proposing, c); err != nil && ctx.Err() == nil {
		e.logger.Warn(failed, "shards", shards, "error", err)
	}
}

// ProposeSeal notes that a sealing shard has reached its end. Closing a shard is
// carried to the metadata as changes of in-sync sets are.
func (e *env) ProposeSeal(r *replica.Replica, epoch stream.Epoch, version uint64, final stream.Offset, lastArrival int64) {
	e.mu.Lock()
	e.seals[r] = seal{epoch, version, final, lastArrival}
	e.mu.Unlock()
	wake(e.wakeChanges)
}

// seal is a shard's end as its leader proposes it.
type seal struct {
	epoch   stream.Epoch
	version uint64
	final   stream.Offset

	lastArrival int64
}
