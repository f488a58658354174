package replica

import (
	"fmt"
	"slices"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Bounds and patience of a leader. They are about speed, never about safety.
const (
	// stallLimit is how long a member of the in-sync set may make no durable
	// progress while records are outstanding.
	stallLimit = 400 * time.Millisecond
	// repeatAfter is when a proposal or a handshake without an answer is repeated.
	repeatAfter = 500 * time.Millisecond
	// lostAfter is when what is on its way to a follower counts as lost.
	lostAfter = 2 * time.Second
	// banFirst and banMost bound how long a replica that was evicted for
	// stalling must be healthy before it may join again; it doubles each time
	// and is forgotten after banMemory of health.
	banFirst  = 10 * time.Second
	banMost   = 5 * time.Minute
	banMemory = 10 * time.Minute
	// maxUncommitted bounds the bytes of a shard that wait for their commit;
	// one batch is always taken.
	maxUncommitted = 16 << 20
)

// leadership is what a leader has in memory for one epoch.
type leadership struct {
	epochStart stream.Offset // the log's end when it was elected
	version    uint64        // of the in-sync set below
	inSync     []stream.ReplicaID
	// maximal is the commit set: the union of all that the in-sync set may
	// have become in the metadata. It narrows only to what was read from there,
	// never on a refusal, which proves nothing of an earlier attempt (I3).
	maximal    []stream.ReplicaID
	pending    *pb.InSyncChange // proposed, outcome unknown
	proposedAt time.Duration

	cursors []*cursor

	first, last *waiter // in offset order
	uncommitted int64   // bytes of theirs
}

// waiter is a put that waits for its commit.
type waiter struct {
	end   stream.Offset
	bytes int64
	done  func(error)
	err   error
	next  *waiter
}

// takeOver begins the leadership of the epoch that has just become durable.
func (r *Replica) takeOver() {
	v := r.view
	if v.Leader != r.key.Replica || v.Epoch != r.epoch {
		r.role = idle // elected and replaced while the epoch was written
		return
	}
	r.role = leading
	r.hw = max(r.hw, r.log.Start())
	r.lead = &leadership{epochStart: r.log.End()}
	r.lead.learn(r, v)
	r.advance()
	r.needTick()
}

// learn takes over what the metadata says of the in-sync set and the replicas.
func (l *leadership) learn(r *Replica, v View) {
	if v.Version > l.version || l.inSync == nil {
		l.version, l.inSync = v.Version, slices.Clone(v.InSync)
		if l.pending != nil && l.pending.Version < v.Version {
			// Decided, whatever became of it: a later set was read.
			l.pending = nil
		}
		l.maximal = l.inSync
		if l.pending != nil {
			l.maximal = union(l.inSync, fromIDs(l.pending.InSync))
		}
	}
	now := r.env.Elapsed()
	kept := l.cursors[:0:0]
	for _, m := range v.Members {
		if m.ID == r.key.Replica {
			continue
		}
		i := slices.IndexFunc(l.cursors, func(c *cursor) bool { return c.replica == m.ID && c.node == m.Node })
		var c *cursor
		if i >= 0 {
			c = l.cursors[i]
		} else {
			c = &cursor{replica: m.ID, node: m.Node, progressAt: now}
			c.shakeHands(r)
		}
		c.eligible = m.Eligible
		kept = append(kept, c)
	}
	l.cursors = kept
	r.needTick()
}

func fromIDs(ids []uint64) []stream.ReplicaID {
	out := make([]stream.ReplicaID, len(ids))
	for i, id := range ids {
		out[i] = stream.ReplicaID(id)
	}
	return out
}

func (l *leadership) cursorOf(id stream.ReplicaID) *cursor {
	for _, c := range l.cursors {
		if c.replica == id {
			return c
		}
	}
	return nil
}

// await lets a waiter wait until the high watermark has passed its end.
func (l *leadership) await(r *Replica, w *waiter) {
	l.uncommitted += w.bytes
	switch {
	case w.end <= r.hw:
		w.next, r.done = r.done, w
		l.uncommitted -= w.bytes
	case l.last == nil:
		l.first, l.last = w, w
	case l.last.end <= w.end:
		l.last.next, l.last = w, w
	default: // a repeat of something before
		at := &l.first
		for (*at).end <= w.end {
			at = &(*at).next
		}
		w.next, *at = *at, w
	}
}

// fail gives up all waiters.
func (l *leadership) fail(r *Replica, err error) {
	for w := l.first; w != nil; w = w.next {
		w.err = err
	}
	if l.last != nil {
		l.last.next = r.done
		r.done = l.first
	}
	l.first, l.last, l.uncommitted = nil, nil, 0
}

// needTick asks for ticks if none are under way.
func (r *Replica) needTick() {
	if r.ticking || r.lead == nil {
		return
	}
	r.ticking = true
	now := r.env.Elapsed()
	for _, c := range r.lead.cursors {
		c.progressAt = now
	}
	r.env.NeedTick(r)
}

// commitPoint gives the smallest durable end over the commit set, as told in
// this epoch.
func (r *Replica) commitPoint() (stream.Offset, bool) {
	l := r.lead
	if len(l.inSync) < r.view.MinInSync {
		return 0, false
	}
	return commitPoint(l.maximal, func(id stream.ReplicaID) (stream.Offset, bool) {
		if id == r.key.Replica {
			return r.log.DurableEnd(), true // never the unsynced tail (I2)
		}
		if c := l.cursorOf(id); c != nil && c.acked {
			return c.match, true
		}
		return 0, false
	})
}

// advance moves the high watermark as far as the commit set allows, and lets
// the puts below it go.
func (r *Replica) advance() {
	l := r.lead
	hw, known := r.commitPoint()
	if !known || hw <= r.hw {
		r.seal()
		return
	}
	r.hw = hw
	r.log.SetHW(hw)
	r.wakeWatches()
	before := r.done
	var last *waiter
	for w := l.first; w != nil && w.end <= hw; w = w.next {
		l.uncommitted -= w.bytes
		last = w
	}
	if last != nil {
		r.done = l.first
		if l.first = last.next; l.first == nil {
			l.last = nil
		}
		last.next = before
	}
	for _, c := range l.cursors {
		if c.state == pushing {
			r.env.MarkReady(c.node, c.lane, r)
		}
	}
	r.seal()
}

// How says how a batch is to be appended.
type How struct {
	Again bool // the caller has sent these bytes before
	// Part says that it has the first records only of a batch that was not
	// admitted as a whole.
	Part bool
	// Admit gives how many of the first records of a batch that is none of
	// ours yet may be stored now, by the shard's limits. If it is all, they
	// count as stored. nil admits all. It is called under the replica's lock.
	Admit func(stream.Batch) int
}

// Admits is the detail of an append that was Throttled since the shard's limits
// let only that many of its first records pass. A batch of these alone, sent as
// Part, is stored if they still do.
type Admits int

func (n Admits) Error() string { return fmt.Sprintf("only the first %d records would pass", int(n)) }

func admits(op string, shard stream.ShardID, n int, b stream.Batch) error {
	return stream.Errorf(stream.Throttled, op, "%d records for shard %s: %w", b.Count(), shard, Admits(n))
}

// Append stamps the batch with the next offset, the arrival time, the epoch and
// the checksum, and gives it to the log and to the followers at once. It
// returns the offset of the batch's first record and the arrival time (Unix
// ms); done is called when the batch is committed (nil) or when that is not
// known to happen any more. When Append itself fails, done is not called. The
// bytes belong to the log from the call on.
//
// A repeat of a batch that is in the log is not stored: it gets the answer of
// the first, when that is committed (I22), and no limit is asked.
//
// Kinds: NotLeader, Throttled (too much of the shard waits for its commit, or
// the shard's limits let not all records pass: Admits), Unavailable (it may be a
// repeat, and it isn't known yet of what), and those of the log.
func (r *Replica) Append(b stream.Batch, how How, done func(error)) (stream.Offset, int64, error) {
	const op = "replica.Append"
	r.mu.Lock()
	defer r.unlock()
	if r.role != leading {
		return 0, 0, stream.Errorf(stream.NotLeader, op, "this node does not lead shard %s", r.key.Shard)
	}
	l := r.lead
	switch first, records := r.repeats.find(b, how.Part); records {
	case 0:
	case b.Count():
		r.repeats.memory.answers.Add(1)
		l.await(r, &waiter{end: first.base + stream.Offset(records), done: done})
		return first.base, first.arrival, nil
	default: // the others were not admitted, and still are not: the caller was told so
		return 0, 0, admits(op, r.key.Shard, records, b)
	}
	if !r.view.Open {
		return 0, 0, stream.Errorf(stream.Unavailable, op, "shard %s takes no records now", r.key.Shard)
	}
	if r.repeats.from > 0 && (how.Again || b.Attempt() > 1) {
		return 0, 0, stream.Errorf(stream.Unavailable, op, "shard %s is still reading back which requests it has seen", r.key.Shard)
	}
	if l.uncommitted > 0 && l.uncommitted+int64(len(b)) > maxUncommitted {
		return 0, 0, stream.Errorf(stream.Throttled, op, "%d bytes of shard %s wait for their replicas", l.uncommitted, r.key.Shard)
	}
	if how.Admit != nil {
		if n := how.Admit(b); n < b.Count() {
			return 0, 0, admits(op, r.key.Shard, n, b)
		}
	}
	// Arrival times never decrease in a shard, whatever the clocks do (I20), nor
	// from a parent to its child.
	base, arrival := r.log.End(), max(r.env.Now(), r.log.LastArrival(), r.view.CreatedMs)
	b.Stamp(r.epoch, base, arrival)
	if err := r.log.Append(b, r.onDurable); err != nil {
		return 0, 0, err
	}
	r.repeats.add(b, arrival)
	l.await(r, &waiter{end: b.End(), bytes: int64(len(b)), done: done})
	if len(l.cursors) > 0 {
		r.needTick()
		for _, c := range l.cursors {
			if c.state == pushing {
				r.env.PushReady(c.node, c.lane, r)
			}
		}
	}
	return base, arrival, nil
}

// PeerUp says that the streams to a node are open: its replicas are greeted anew.
func (r *Replica) PeerUp(node stream.NodeID) {
	r.mu.Lock()
	defer r.unlock()
	if r.role != leading {
		return
	}
	for _, c := range r.lead.cursors {
		if c.node == node {
			c.shakeHands(r)
		}
	}
	r.needTick()
}

// changeInSync proposes the next change of the in-sync set, if one is due.
func (r *Replica) changeInSync() {
	l := r.lead
	if l.pending != nil {
		return
	}
	now := r.env.Elapsed()
	end := r.log.End()
	others := make([]candidate, 0, 8)
	for _, c := range l.cursors {
		member := slices.Contains(l.inSync, c.replica)
		others = append(others, candidate{
			id: c.replica, member: member,
			stalled: member && (!c.acked || c.match < end) && r.hw < end && now-c.progressAt >= stallLimit,
			// I9: it has all that is committed and all that the leader was
			// elected with, as told in this epoch.
			ready: !member && c.eligible && c.state == pushing && c.acked && c.match >= r.hw && c.match >= l.epochStart && now >= c.banUntil,
		})
	}
	for _, id := range l.inSync { // one whose disk is lost
		if id != r.key.Replica && l.cursorOf(id) == nil {
			others = append(others, candidate{id: id, member: true, stalled: true})
		}
	}
	set, added, change := nextInSync(l.inSync, r.view.MinInSync, others)
	if !change {
		return
	}
	p := &pb.InSyncChange{
		StreamId: uint64(r.key.Shard.Stream), Shard: r.key.Shard.Number, Epoch: uint32(r.epoch), Version: l.version,
	}
	for _, id := range set {
		p.InSync = append(p.InSync, uint64(id))
	}
	if added != 0 {
		p.Added, p.AddedIncarnation = uint64(added), l.cursorOf(added).incarnation
	}
	for _, c := range l.cursors {
		// One that was swapped at the floor may come back at once: the set has
		// nobody to spare.
		if added == 0 && slices.Contains(l.inSync, c.replica) && !slices.Contains(set, c.replica) && c.acked {
			c.ban(now)
		}
	}
	l.pending, l.proposedAt = p, now
	l.maximal = union(l.inSync, set)
	r.env.ProposeInSync(r, p)
}

// seal proposes the end of a shard that is being closed, once everything in it
// is committed. The state SEALING is irrevocable and stands in the metadata
// before any later election, so no leader takes a record behind that end (I21).
//
// A high watermark at the log's end is not enough: a member that has not shaken
// hands in this epoch may hold more, which nobody has committed and nobody has
// cut off yet. Elected later, it would commit that behind the shard's end.
func (r *Replica) seal() {
	if !r.view.Sealing || r.lead.version != r.view.Version {
		return
	}
	end := r.log.End()
	if hw, known := r.commitPoint(); known && hw == end && r.hw == end {
		r.env.ProposeSeal(r, r.epoch, r.view.Version, end, r.log.LastArrival())
	}
}

// Tick lets time pass: about every 100 ms while it returns true. It looks for
// members that stall, repeats what got no answer, and thinks about the in-sync
// set.
func (r *Replica) Tick() bool {
	r.mu.Lock()
	defer r.unlock()
	l := r.lead
	if l == nil {
		r.ticking = false
		return false
	}
	now := r.env.Elapsed()
	if l.pending != nil && now-l.proposedAt >= repeatAfter {
		l.proposedAt = now
		r.env.ProposeInSync(r, l.pending)
	}
	end := r.log.End()
	quiet := l.pending == nil && r.hw == end
	for _, c := range l.cursors {
		if c.acked && c.match >= end {
			c.progressAt = now
		}
		if c.state != pushing && now-c.handAt >= repeatAfter || len(c.flying) > 0 && now-c.progressAt >= lostAfter {
			c.shakeHands(r)
		} else if c.state == pushing && len(c.flying) == 0 && c.next < end {
			r.env.PushReady(c.node, c.lane, r) // a read for it has failed
		}
		quiet = quiet && c.acked && c.match >= end && slices.Contains(l.inSync, c.replica)
	}
	r.changeInSync()
	r.seal()
	r.ticking = !quiet || l.pending != nil || r.view.Sealing
	return r.ticking
}
