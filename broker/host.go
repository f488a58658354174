package broker

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
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
	control     *control
	env         *env
	clock       *clock
	logger      *slog.Logger
	wakeUnread  chan struct{}        // capacity 1
	memory      *replica.Memory      // of requests, for I22
	limits      *limits              // nil: the shards have none
	answered    func() time.Duration // since the raft leader's last answer to a beat; nil on a lone node
	wake        chan struct{}        // capacity 1: look at the damage list again

	mu      sync.RWMutex // guards the fields below
	shards  map[stream.ShardID]*hosted
	streams map[stream.StreamID]*hostedStream
	unread  []*hosted // to be read back

	// Owned by run.
	seen        *raftfsm.State
	pending     map[stream.ShardID]struct{} // shards to look at
	stuckToldAt time.Duration               // 0: the last step succeeded
}

// hosted is a shard of which this node has a replica.
type hosted struct {
	*replica.Replica
	stream  *hostedStream
	written written
	seats   seats // of subscriptions, while it leads
}

// hostedStream is what all shards of a stream share.
type hostedStream struct {
	retentionMs atomic.Int64
	onDemand    atomic.Bool
}

// cutoff gives the arrival time before which records have expired, by the
// cluster's time: a node whose clock is far off it deletes nothing (I17).
func (h *host) cutoff(s *hosted) int64 {
	if !h.clock.trusted() {
		return 0
	}
	return h.clock.clusterMs() - s.stream.retentionMs.Load()
}

func newHost(node stream.NodeID, incarnation uint64, records *recordlog.Log, meta *raftfsm.Node, ctl *control, e *env, logger *slog.Logger) *host {
	h := &host{
		node: node, incarnation: incarnation, records: records, meta: meta, control: ctl, env: e, clock: e.clock, logger: logger,
		memory: &replica.Memory{Limit: requestMemory}, wakeUnread: make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		shards:  make(map[stream.ShardID]*hosted),
		streams: make(map[stream.StreamID]*hostedStream),
		pending: make(map[stream.ShardID]struct{}),
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

// replicaOf gives this node's replica of a shard, nil if it has none.
func (h *host) replicaOf(streamID uint64, number uint32) *replica.Replica {
	if s := h.shard(stream.ShardID{Stream: stream.StreamID(streamID), Number: number}); s != nil {
		return s.Replica
	}
	return nil
}

func (h *host) shard(id stream.ShardID) *hosted {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.shards[id]
}

// serving gives the shard if the metadata says that this node leads it; else
// NotFound, NotLeader or Offline. Whether it does already is the replica's to say.
func (h *host) serving(id stream.ShardID) (*hosted, error) {
	const op = "broker.serving"
	shard := h.meta.State().Shard(uint64(id.Stream), id.Number)
	s := h.shard(id)
	switch {
	case shard == nil:
		return nil, stream.Errorf(stream.NotFound, op, "shard %s does not exist", id)
	case shard.Leader == 0:
		return nil, stream.Errorf(stream.Offline, op, "shard %s is offline: no in-sync replica may serve it", id)
	case s == nil || s.Key().Replica != stream.ReplicaID(shard.Leader):
		return nil, stream.Errorf(stream.NotLeader, op, "node %s does not lead shard %s", h.node, id)
	}
	return s, nil
}

// requestMemory bounds what the node remembers of requests, so that a repeat is
// not stored again; what is forgotten early is counted.
const requestMemory = 64 << 20

// readLease is for how long after a sign that it still leads a leader answers
// reads. It is about freshness only: a deposed leader can't commit.
const readLease = 400 * time.Millisecond

// reading gives the shard if this node may answer reads of it: serving, and
// within the last 400 ms either the raft leader has answered a beat, or every
// other in-sync member's node has confirmed that it knows of no newer leader.
func (h *host) reading(id stream.ShardID) (*hosted, error) {
	s, err := h.serving(id)
	if err != nil || h.answered == nil || h.answered() < readLease {
		return s, err
	}
	shard := h.meta.State().Shard(uint64(id.Stream), id.Number)
	for _, r := range shard.GetReplicas() {
		if r.NodeId != string(h.node) && slices.Contains(shard.InSync, r.Id) && !h.env.peers.confirmed(stream.NodeID(r.NodeId), readLease) {
			return nil, stream.Errorf(stream.Unavailable, "broker.reading", "node %s can't tell whether it still leads shard %s", h.node, id)
		}
	}
	return s, nil
}

// awaitLeading waits until every shard that this node was to lead by what was
// seen last is led, or is not this node's to lead any more.
func (h *host) awaitLeading(ctx context.Context) error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		waiting := false
		h.each(func(s *hosted) { waiting = waiting || s.Preparing() })
		if !waiting {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// awaitServed waits until this node serves every shard of a stream that it leads
// by the metadata: it hears of its leaderships a moment after they were decided.
func (h *host) awaitServed(ctx context.Context, id uint64) error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		waiting := false
		for _, shard := range h.meta.State().Shards(id) {
			mine := replicaOn(shard, h.node)
			if mine == nil || mine.Id != shard.Leader {
				continue
			}
			s := h.shard(stream.ShardID{Stream: stream.StreamID(id), Number: shard.Number})
			waiting = waiting || s == nil || !s.Leading()
		}
		if !waiting {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// peerUp greets all replicas on a node anew.
func (h *host) peerUp(node stream.NodeID) {
	h.each(func(s *hosted) { s.PeerUp(node) })
}

// retryDelay is how long a step that failed waits for its repeat; a change of
// the metadata repeats it sooner.
const retryDelay = 100 * time.Millisecond

// stuckReminder is how often the reason is told why a step fails again and again.
const stuckReminder = 10 * time.Second

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
		if len(e.Brokers) > 0 {
			h.env.peers.update(state)
			if !sameStates(h.seen, state) {
				// Who may join an in-sync set depends on that.
				h.each(func(s *hosted) { h.pending[s.Key().Shard] = struct{}{} })
			}
		}
		for _, s := range e.Streams {
			h.noteStream(state, s)
		}
		for _, s := range e.Shards {
			h.pending[stream.ShardID{Stream: stream.StreamID(s.StreamId), Number: s.Number}] = struct{}{}
		}
		for _, id := range e.RemovedStreams {
			for _, shard := range h.seen.Shards(id) { // the DELETING before may not have been seen
				h.pending[stream.ShardID{Stream: stream.StreamID(id), Number: shard.Number}] = struct{}{}
			}
			h.mu.Lock()
			delete(h.streams, stream.StreamID(id))
			h.mu.Unlock()
		}
	}
	h.seen = state
}

// sameStates reports whether all brokers are in the states they were in.
func sameStates(old, now *raftfsm.State) bool {
	return old != nil && slices.EqualFunc(old.Brokers(), now.Brokers(), func(a, b *pb.Broker) bool {
		return a.NodeId == b.NodeId && a.State == b.State
	})
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
	shared.onDemand.Store(s.Mode == pb.StreamMode_STREAM_MODE_ON_DEMAND)
	if s.Status == pb.StreamStatus_STREAM_STATUS_DELETING {
		for _, shard := range state.Shards(s.Id) { // to be dropped, though they did not change
			h.pending[stream.ShardID{Stream: id, Number: shard.Number}] = struct{}{}
		}
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
	aside   []stream.ReplicaKey // before they are dropped
	suspect []*pb.ReplicaRef
	giveUp  []recordlog.Damage
	host    []hosting
	resign  []stream.ShardID
}

// hosting is a shard's replica, and what the metadata says of the shard.
type hosting struct {
	key  stream.ReplicaKey
	view replica.View
}

// reconcile does what the pending shards need. It gives the time after which it
// wants to be called again.
func (h *host) reconcile(ctx context.Context, state *raftfsm.State) time.Duration {
	if err := h.reconcileShards(ctx, state); err != nil {
		if now := h.clock.since(); ctx.Err() == nil && (h.stuckToldAt == 0 || now-h.stuckToldAt >= stuckReminder) {
			h.stuckToldAt = now
			h.logger.Warn("a change of the metadata could not be followed yet; trying on", "error", err)
		}
		return retryDelay
	}
	h.stuckToldAt = 0
	return idle
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
	if err := h.carryOut(ctx, &p); err != nil {
		return err // everything stays pending: each step can be repeated
	}
	clear(h.pending)
	return nil
}

func (h *host) planShard(p *plan, state *raftfsm.State, id stream.ShardID, damaged map[stream.ReplicaKey][]recordlog.Damage) {
	shard := state.Shard(uint64(id.Stream), id.Number)
	if shard == nil {
		p.resign = append(p.resign, id)
		// It was there in a state before: this is a deletion, and no gap in
		// what the metadata mentions (I16).
		if deletedStream(state, uint64(id.Stream)) {
			p.drop = append(p.drop, h.onDisk(id)...)
		}
		return
	}
	if shard.State == pb.ShardState_SHARD_STATE_EXPIRED { // said so by a command: a tombstone (I16)
		p.resign = append(p.resign, id)
		p.drop = append(p.drop, h.onDisk(id)...)
		return
	}
	gone := superseded(state, shard, h.onDisk(id))
	p.aside = append(p.aside, endedByRecovery(shard, gone)...)
	p.drop = append(p.drop, gone...)
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
		h.logger.Error("a replica is missing from this node's disk", "shard", id, "replica", mine.Id)
		if mine.State != pb.ReplicaState_REPLICA_STATE_SUSPECT {
			p.suspect = append(p.suspect, ref)
		}
		p.resign = append(p.resign, id)
		return
	}
	for _, d := range damaged[key] {
		if accepted(shard, d) {
			p.giveUp = append(p.giveUp, d)
		} else {
			if mine.State != pb.ReplicaState_REPLICA_STATE_SUSPECT {
				p.suspect = append(p.suspect, ref)
			}
			p.resign = append(p.resign, id)
			return
		}
	}
	if mine.State == pb.ReplicaState_REPLICA_STATE_SUSPECT {
		p.resign = append(p.resign, id)
		return
	}
	p.host = append(p.host, hosting{key, viewOf(state, shard)})
}

// superseded gives those of a shard's copies on this disk that the metadata has
// taken from the shard, by a command that named them: their ids were given out
// and stand in it no more (I16). They are kept while the shard is not whole, as
// they may be what an operator can still recover it from.
func superseded(state *raftfsm.State, shard *pb.Shard, onDisk []stream.ReplicaKey) (gone []stream.ReplicaKey) {
	if shard.Leader == 0 || len(shard.InSync) < int(shard.MinInSync) {
		return nil
	}
	listed := make(map[uint64]bool, len(shard.Replicas))
	for _, r := range shard.Replicas {
		listed[r.Id] = true
		if slices.Contains(shard.InSync, r.Id) && r.State != pb.ReplicaState_REPLICA_STATE_CREATED {
			return nil
		}
	}
	for _, key := range onDisk {
		if id := uint64(key.Replica); !listed[id] && id < state.Cluster().GetNextReplicaId() {
			gone = append(gone, key)
		}
	}
	return gone
}

// viewOf gives what a replica needs to know of its shard. A replica whose disk
// is lost is nobody's peer any more; it only stands in the in-sync set.
func viewOf(state *raftfsm.State, shard *pb.Shard) replica.View {
	v := replica.View{
		Version: shard.Version, Epoch: stream.Epoch(shard.Epoch), Leader: stream.ReplicaID(shard.Leader), MinInSync: int(shard.MinInSync),
		CreatedMs: shard.CreatedMs,
		Open:      shard.State == pb.ShardState_SHARD_STATE_OPEN,
		// A sealed one only waits for the other parents of its reshard.
		Sealing: shard.State == pb.ShardState_SHARD_STATE_SEALING && !shard.Sealed,
		InSync:  make([]stream.ReplicaID, len(shard.InSync)), Members: make([]replica.Member, 0, len(shard.Replicas)),
	}
	for i, id := range shard.InSync {
		v.InSync[i] = stream.ReplicaID(id)
	}
	for _, r := range shard.Replicas {
		if r.State == pb.ReplicaState_REPLICA_STATE_LOST {
			continue
		}
		v.Members = append(v.Members, replica.Member{
			ID: stream.ReplicaID(r.Id), Node: stream.NodeID(r.NodeId),
			Eligible: r.State == pb.ReplicaState_REPLICA_STATE_CREATED && state.Broker(r.NodeId).GetState() == pb.BrokerState_BROKER_STATE_LIVE,
		})
	}
	return v
}

// onDisk gives the shard's replicas on this node's disk.
func (h *host) onDisk(id stream.ShardID) (keys []stream.ReplicaKey) {
	for _, r := range h.from(id) {
		if r.Key().Shard != id {
			break
		}
		keys = append(keys, r.Key())
	}
	return keys
}

// holds tells whether this node's disk has anything of a stream.
func (h *host) holds(id uint64) bool {
	rest := h.from(stream.ShardID{Stream: stream.StreamID(id)})
	return len(rest) > 0 && rest[0].Key().Shard.Stream == stream.StreamID(id)
}

// from gives the replicas on this node's disk from a shard on.
func (h *host) from(id stream.ShardID) []*recordlog.Replica {
	all := h.records.Replicas()
	i, _ := slices.BinarySearchFunc(all, id, func(r *recordlog.Replica, id stream.ShardID) int {
		k := r.Key().Shard
		return cmp.Or(cmp.Compare(k.Stream, id.Stream), cmp.Compare(k.Number, id.Number))
	})
	return all[i:]
}

// carryOut does the plan's steps in the order that keeps the invariants: no
// report of a replica before it is on the disk, no service by one that is
// damaged.
func (h *host) carryOut(ctx context.Context, p *plan) error {
	for _, id := range p.resign {
		h.release(id)
	}
	if len(p.aside) > 0 {
		if err := h.records.SetAside(p.aside); err != nil {
			return err
		}
	}
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
	for _, s := range p.host {
		h.take(s.key).SetView(s.view)
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

// take gives the hosted replica, and hosts it if it is not yet.
func (h *host) take(key stream.ReplicaKey) *hosted {
	if s := h.shard(key.Shard); s != nil {
		if s.Key() == key {
			return s
		}
		h.release(key.Shard) // a former copy, whose disk was lost
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &hosted{
		Replica: replica.New(key, h.node, h.incarnation, h.records.Replica(key), h.env, h.memory),
		stream:  h.streams[key.Shard.Stream],
	}
	h.shards[key.Shard] = s
	h.unread = append(h.unread, s)
	wake(h.wakeUnread)
	return s
}

// readBackAgain is when a replica that could not be read back is tried again.
const readBackAgain = 10 * time.Second

// readBack lets replicas that were there before this process began read back
// which requests they have seen (I22), one after the other, until the context
// ends.
func (h *host) readBack(ctx context.Context) {
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	var failed []*hosted
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wakeUnread:
		case <-again.C:
		}
		h.mu.Lock()
		unread := append(failed, h.unread...)
		h.unread, failed = nil, nil
		h.mu.Unlock()
		for _, s := range unread {
			if ctx.Err() != nil {
				return
			}
			if h.shard(s.Key().Shard) != s {
				continue // not hosted any more
			}
			if err := s.Restore(); err != nil {
				h.logger.Warn("can't read back which requests a shard has seen; their repeats are refused meanwhile, and it is tried again", "shard", s.Key().Shard, "error", err)
				failed = append(failed, s)
				again.Reset(readBackAgain)
			}
		}
	}
}

func (h *host) release(id stream.ShardID) {
	h.mu.Lock()
	s := h.shards[id]
	delete(h.shards, id)
	h.mu.Unlock()
	if s != nil {
		s.Close()
	}
}

// propose applies a command of the broker's own. A refusal is an error: the
// state has moved on, and the next look will see how.
func (h *host) propose(ctx context.Context, c *pb.Command) error {
	result, err := h.control.Propose(ctx, c)
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
		if r.NodeId == string(node) && r.State != pb.ReplicaState_REPLICA_STATE_LOST {
			return r
		}
	}
	return nil
}

// accepted reports whether an operator has given up all of the damaged range.
func accepted(shard *pb.Shard, d recordlog.Damage) bool {
	for _, r := range shard.Recoveries {
		if !r.BehindEnd && r.ReplicaId == uint64(d.Key.Replica) && r.Start <= uint64(d.Range.Start) && uint64(d.Range.End) <= r.End {
			return true
		}
	}
	return false
}

// each calls f for every shard of which this node has a replica.
func (h *host) each(f func(*hosted)) {
	h.mu.RLock()
	all := make([]*hosted, 0, len(h.shards))
	for _, s := range h.shards {
		all = append(all, s)
	}
	h.mu.RUnlock()
	for _, s := range all {
		f(s)
	}
}

// leading counts the shards that this node leads.
func (h *host) leading() (n int) {
	h.each(func(s *hosted) {
		if s.Leading() {
			n++
		}
	})
	return n
}

// remaining gives about how many bytes followers are behind.
func (h *host) remaining() (bytes uint64) {
	h.each(func(s *hosted) {
		if !s.Behind() {
			return
		}
		for _, f := range replicaStatus(h.records, s).Followers {
			bytes += f.RemainingBytes
		}
	})
	return bytes
}
