package broker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"shardstream/broker/recordlog"
	"shardstream/broker/replica"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// host makes this node's disk and its leaderships what the metadata says they
// should be. One goroutine (run) compares the wanted with the actual, does one
// step and looks again: it works on levels, not edges, so a lost wake-up or a
// failed step costs a moment and never correctness. The raft FSM itself never
// calls out.
//
// Metadata is never used to delete data that it merely fails to mention (I16):
// replicas are dropped only for a stream that the FSM says is DELETING.
type host struct {
	// Set once.
	node        stream.NodeID
	incarnation uint64
	records     *recordlog.Log
	meta        *raftfsm.Node
	logger      *slog.Logger
	now         func() int64
	wake        chan struct{} // capacity 1: look at the damage list again

	mu      sync.RWMutex // guards the fields below
	shards  map[stream.ShardID]*hosted
	streams map[stream.StreamID]*hostedStream

	// Owned by run.
	seen     *raftfsm.State
	pending  map[stream.ShardID]struct{}  // shards to look at
	changing map[stream.StreamID]struct{} // streams in CREATING or DELETING
}

// hosted is a shard that this node leads.
type hosted struct {
	leader *replica.Leader
	stream *hostedStream
}

// hostedStream is what all shards of a stream share.
type hostedStream struct {
	retentionMs atomic.Int64
}

// cutoff gives the arrival time before which records have expired.
func (h *hosted) cutoff(now int64) int64 { return now - h.stream.retentionMs.Load() }

func newHost(node stream.NodeID, incarnation uint64, records *recordlog.Log, meta *raftfsm.Node, logger *slog.Logger, now func() int64) *host {
	h := &host{
		node: node, incarnation: incarnation, records: records, meta: meta, logger: logger, now: now,
		wake:     make(chan struct{}, 1),
		shards:   make(map[stream.ShardID]*hosted),
		streams:  make(map[stream.StreamID]*hostedStream),
		pending:  make(map[stream.ShardID]struct{}),
		changing: make(map[stream.StreamID]struct{}),
	}
	records.OnDamage(func(d recordlog.Damage) {
		logger.Error("stored records are damaged", "shard", d.Key.Shard, "offsets", d.Range.String(), "file", d.File, "position", d.Pos, "reason", d.Reason)
		h.lookAgain()
	})
	return h
}

func (h *host) lookAgain() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// leading gives the shard if this node leads it and may serve; else NotFound,
// NotLeader or Offline.
func (h *host) leading(id stream.ShardID) (*hosted, error) {
	h.mu.RLock()
	s := h.shards[id]
	h.mu.RUnlock()
	if s != nil {
		return s, nil
	}
	const op = "broker.leading"
	shard := h.meta.State().Shard(uint64(id.Stream), id.Number)
	switch {
	case shard == nil:
		return nil, stream.Errorf(stream.NotFound, op, "shard %s does not exist", id)
	case shard.Leader == 0:
		return nil, stream.Errorf(stream.Offline, op, "shard %s is offline: no in-sync replica may serve it", id)
	}
	return nil, stream.Errorf(stream.NotLeader, op, "node %s does not lead shard %s", h.node, id)
}

// retryDelay is how long a step that failed waits for its repeat; a change of
// the metadata repeats it sooner.
const retryDelay = 100 * time.Millisecond

// run reconciles until the context ends.
func (h *host) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		state, changed := h.meta.Watch()
		h.look(state)
		next := h.reconcile(ctx, state)
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer.C:
		case <-h.wake:
			h.lookAtDamaged()
		}
	}
}

// look notes what differs between the state and the one seen last.
func (h *host) look(state *raftfsm.State) {
	if state == h.seen {
		return
	}
	for _, e := range raftfsm.Diff(h.seen, state) {
		for _, s := range e.Streams {
			h.noteStream(state, s)
		}
		for _, s := range e.Shards {
			h.pending[stream.ShardID{Stream: stream.StreamID(s.StreamId), Number: s.Number}] = struct{}{}
		}
		for _, id := range e.RemovedStreams {
			delete(h.changing, stream.StreamID(id))
			h.mu.Lock()
			delete(h.streams, stream.StreamID(id))
			h.mu.Unlock()
		}
	}
	h.seen = state
}

func (h *host) noteStream(state *raftfsm.State, s *pb.Stream) {
	id := stream.StreamID(s.Id)
	h.mu.Lock()
	shared := h.streams[id]
	if shared == nil {
		shared = &hostedStream{}
		h.streams[id] = shared
	}
	h.mu.Unlock()
	shared.retentionMs.Store(int64(s.RetentionHours) * time.Hour.Milliseconds())
	switch s.Status {
	case pb.StreamStatus_STREAM_STATUS_CREATING:
		h.changing[id] = struct{}{}
	case pb.StreamStatus_STREAM_STATUS_DELETING:
		h.changing[id] = struct{}{}
		for _, shard := range state.Shards(s.Id) { // to be dropped, though they did not change
			h.pending[stream.ShardID{Stream: id, Number: shard.Number}] = struct{}{}
		}
	default:
		delete(h.changing, id)
	}
}

func (h *host) lookAtDamaged() {
	for _, d := range h.records.Damage() {
		h.pending[d.Key.Shard] = struct{}{}
	}
}

// plan is what one pass over the pending shards has found to do. Each list is
// done in one step, so a thousand shards cost one sync and one raft entry.
type plan struct {
	create  []stream.ReplicaKey
	report  []*pb.ReplicaRef // replicas to report as created
	drop    []stream.ReplicaKey
	suspect []*pb.ReplicaRef
	giveUp  []recordlog.Damage
	adopt   []recordlog.Adoption
	lead    []stream.ShardID // after adopting
	resign  []stream.ShardID
}

// reconcile does what the pending shards need and the transitions that are
// due. It gives the time after which it wants to be called again.
func (h *host) reconcile(ctx context.Context, state *raftfsm.State) time.Duration {
	if err := h.reconcileShards(ctx, state); err != nil {
		if ctx.Err() == nil {
			h.logger.Warn("a change of the metadata could not be followed yet; will retry", "error", err)
		}
		return retryDelay
	}
	return h.transitions(ctx, state)
}

func (h *host) reconcileShards(ctx context.Context, state *raftfsm.State) error {
	if len(h.pending) == 0 {
		return nil
	}
	damaged := make(map[stream.ReplicaKey][]recordlog.Damage)
	for _, d := range h.records.Damage() {
		damaged[d.Key] = append(damaged[d.Key], d)
	}
	var p plan
	for id := range h.pending {
		h.planShard(&p, state, id, damaged)
	}
	if err := h.carryOut(ctx, state, &p); err != nil {
		return err // everything stays pending: each step can be repeated
	}
	clear(h.pending)
	return nil
}

func (h *host) planShard(p *plan, state *raftfsm.State, id stream.ShardID, damaged map[stream.ReplicaKey][]recordlog.Damage) {
	shard := state.Shard(uint64(id.Stream), id.Number)
	if shard == nil { // the stream was removed, and its replicas were dropped before
		p.resign = append(p.resign, id)
		return
	}
	mine := replicaOn(shard, h.node)
	if mine == nil {
		p.resign = append(p.resign, id)
		return
	}
	key := stream.ReplicaKey{Shard: id, Replica: stream.ReplicaID(mine.Id)}
	ref := &pb.ReplicaRef{StreamId: shard.StreamId, Shard: shard.Number, ReplicaId: mine.Id}
	onDisk := h.records.Replica(key)
	switch {
	case state.Stream(shard.StreamId).Status == pb.StreamStatus_STREAM_STATUS_DELETING:
		p.resign = append(p.resign, id)
		if onDisk != nil {
			p.drop = append(p.drop, key)
		}
		return
	case mine.State == pb.ReplicaState_REPLICA_STATE_NEW:
		if onDisk == nil {
			p.create = append(p.create, key)
		}
		p.report = append(p.report, ref)
	case onDisk == nil:
		h.logger.Error("a replica is missing from this node's disk: its shard goes offline", "shard", id, "replica", mine.Id)
		if mine.State != pb.ReplicaState_REPLICA_STATE_SUSPECT {
			p.suspect = append(p.suspect, ref)
		}
		p.resign = append(p.resign, id)
		return
	}
	for _, d := range damaged[key] {
		if accepted(shard, d) {
			p.giveUp = append(p.giveUp, d)
		} else if mine.State != pb.ReplicaState_REPLICA_STATE_SUSPECT {
			p.suspect = append(p.suspect, ref)
			p.resign = append(p.resign, id)
			return
		}
	}
	if shard.Leader != mine.Id || mine.State == pb.ReplicaState_REPLICA_STATE_SUSPECT {
		p.resign = append(p.resign, id)
		return
	}
	h.mu.RLock()
	leading := h.shards[id]
	h.mu.RUnlock()
	if leading == nil || leading.leader.Epoch() != stream.Epoch(shard.Epoch) {
		p.adopt = append(p.adopt, recordlog.Adoption{Key: key, Epoch: stream.Epoch(shard.Epoch)})
		p.lead = append(p.lead, id)
	}
}

// carryOut does the plan's steps in the order that keeps the invariants: no
// service before the epoch is durable (I6), no report before the replica is.
func (h *host) carryOut(ctx context.Context, state *raftfsm.State, p *plan) error {
	h.mu.Lock()
	for _, id := range p.resign {
		delete(h.shards, id)
	}
	h.mu.Unlock()
	if len(p.drop) > 0 {
		if err := h.records.Drop(p.drop); err != nil {
			return err
		}
	}
	if len(p.create) > 0 {
		if err := h.records.Create(p.create); err != nil {
			return err
		}
	}
	if len(p.giveUp) > 0 {
		if err := h.records.GiveUp(p.giveUp); err != nil {
			return err
		}
	}
	if len(p.adopt) > 0 {
		if err := h.records.Adopt(p.adopt); err != nil {
			return err
		}
		h.mu.Lock()
		for i, id := range p.lead {
			h.shards[id] = &hosted{
				leader: replica.NewLeader(h.records.Replica(p.adopt[i].Key), p.adopt[i].Epoch, h.now),
				stream: h.streams[id.Stream],
			}
		}
		h.mu.Unlock()
	}
	if len(p.suspect) > 0 {
		if err := h.propose(ctx, &pb.Command{Op: &pb.Command_MarkSuspect{MarkSuspect: &pb.MarkSuspect{
			NodeId: string(h.node), Incarnation: h.incarnation, Replicas: p.suspect,
		}}}); err != nil {
			return err
		}
	}
	if len(p.report) > 0 {
		return h.propose(ctx, &pb.Command{Op: &pb.Command_ReplicasCreated{ReplicasCreated: &pb.ReplicasCreated{
			NodeId: string(h.node), Incarnation: h.incarnation, Replicas: p.report,
		}}})
	}
	return nil
}

// propose applies a command of the broker's own. A refusal is an error: the
// state has moved on, and the next look will see how.
func (h *host) propose(ctx context.Context, c *pb.Command) error {
	c.TimeMs = h.now()
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	result, err := h.meta.Propose(ctx, c)
	if err != nil {
		return err
	}
	if result.Error != pb.ErrorKind_ERROR_KIND_NONE {
		return stream.Errorf(stream.Kind(result.Error), "broker.propose", "%s", result.Detail)
	}
	return nil
}

func replicaOn(shard *pb.Shard, node stream.NodeID) *pb.Replica {
	for _, r := range shard.Replicas {
		if r.NodeId == string(node) {
			return r
		}
	}
	return nil
}

// accepted reports whether an operator has given up all of the damaged range.
func accepted(shard *pb.Shard, d recordlog.Damage) bool {
	for _, r := range shard.Recoveries {
		if r.ReplicaId == uint64(d.Key.Replica) && r.Start <= uint64(d.Range.Start) && uint64(d.Range.End) <= r.End {
			return true
		}
	}
	return false
}

// each calls f for every shard that this node leads.
func (h *host) each(f func(*hosted)) {
	h.mu.RLock()
	leading := make([]*hosted, 0, len(h.shards))
	for _, s := range h.shards {
		leading = append(leading, s)
	}
	h.mu.RUnlock()
	for _, s := range leading {
		f(s)
	}
}
