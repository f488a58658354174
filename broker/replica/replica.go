// Package replica is one replica's part in the replication of its shard: what
// a leader does with a put, a read and its followers' answers, and what a
// follower does with a leader's messages. It decides; it has no disk, no
// network, no clock and no goroutine of its own. The record log and the node
// (Env) are handed to it, and every method returns at once.
//
// It does not decide who leads: that is the metadata's, which it learns by
// SetView.
//
// The invariant it keeps: every record below a high watermark that any replica
// of the shard has ever shown or acknowledged is durably on every member of the
// in-sync set that the metadata holds (I2, I3), so that any member of it can be
// elected without being asked. DESIGN.md tells the protocol.
package replica

import (
	"slices"
	"sync"
	"time"

	"shardstream/broker/recordlog"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Log is what replication needs of a replica's record log;
// *recordlog.Replica implements it. None of its methods waits for the disk but
// Read and FindTime. Callbacks come in the order of the calls, never from
// within a call, and without any lock held.
type Log interface {
	// Append stores a stamped batch that begins at End, and takes its bytes over.
	Append(b stream.Batch, done func(error)) error
	// Adopt makes the epoch durable (I6).
	Adopt(epoch stream.Epoch, done func(error)) error
	// CutAsync drops everything from an offset on; End is there at once.
	CutAsync(to stream.Offset, done func(error)) error
	// Restart drops everything and begins empty at an offset.
	Restart(at stream.Offset, done func(error)) error

	Epoch() stream.Epoch // adopted
	Start() stream.Offset
	DurableEnd() stream.Offset
	End() stream.Offset
	LastArrival() int64
	EpochTable() []recordlog.EpochStart
	EpochOf(stream.Offset) stream.Epoch // of the record before the offset; 0 if there is none
	HW() stream.Offset                  // a hint, at most what SetHW was told
	SetHW(stream.Offset)
	TailStart() stream.Offset // from here on Read takes from memory
	Read(from, limit stream.Offset, maxBytes int) ([]stream.Batch, error)
	FindTime(ms int64) (stream.Offset, error)
	// TrimBefore moves the visible start up to the first batch that arrived at
	// or after ms, at most to limit, and gives it.
	TrimBefore(ms int64, limit stream.Offset) stream.Offset
	TrimTo(stream.Offset)
}

// Lane is one of the two streams between a pair of nodes.
type Lane uint8

// The lanes: catch-up runs apart from the tail, so that a replica that is far
// behind does not hold up the others.
const (
	Tail Lane = iota
	CatchUp
)

// Env is the node around its replicas. All replicas call it while they hold
// their own lock: its methods must not block and must not call back.
type Env interface {
	// Now gives the time that arrival times are taken from, Unix ms.
	Now() int64
	// Elapsed gives a clock that only ever goes forward, for delays.
	Elapsed() time.Duration
	// PushReady says that Fill has something to send to a node.
	PushReady(to stream.NodeID, lane Lane, r *Replica)
	// MarkReady says that Fill has a newer high watermark for a node, which can
	// wait for some milliseconds: an append that comes meanwhile carries it.
	MarkReady(to stream.NodeID, lane Lane, r *Replica)
	// AnswerReady says that FillAnswer has something to send to a node.
	AnswerReady(to stream.NodeID, r *Replica)
	// ProposeInSync asks for a change of the in-sync set. Its outcome is told
	// by the metadata alone; a proposal that is lost is repeated.
	ProposeInSync(r *Replica, c *pb.InSyncChange)
	// ProposeSeal asks to close a sealing shard: everything in it is committed,
	// and its leader takes no more. Repeated until the metadata says that it is.
	// lastArrival is that of the last record, Unix ms.
	ProposeSeal(r *Replica, epoch stream.Epoch, version uint64, final stream.Offset, lastArrival int64)
	// NeedTick asks for calls of Tick until one returns false.
	NeedTick(r *Replica)
	// Alarm reports what the protocol rules out: a disk or a program has lied.
	// The replica named is not to be trusted any more.
	Alarm(r *Replica, suspect stream.ReplicaID, what string)
}

// View is what the metadata says of a shard.
type View struct {
	Version   uint64
	Epoch     stream.Epoch
	Leader    stream.ReplicaID // 0 while offline
	MinInSync int
	InSync    []stream.ReplicaID
	Members   []Member // all replicas, this one included
	CreatedMs int64    // no record of the shard arrived before
	Open      bool     // takes records
	Sealing   bool     // takes none any more, and is to be closed at its end (I21)
}

// Member is a replica of the shard.
type Member struct {
	ID       stream.ReplicaID
	Node     stream.NodeID
	Eligible bool // may join the in-sync set: created, not suspect, on a live node
}

type role uint8

const (
	idle      role = iota
	preparing      // chosen as leader; the epoch is not durable yet
	leading
	following // has answered a leader's handshake
)

// Replica is one copy of a shard on this node. Its methods may be called
// concurrently.
type Replica struct {
	// Set once.
	key         stream.ReplicaKey
	node        stream.NodeID
	incarnation uint64
	log         Log
	env         Env
	onDurable   func(error) // r.durable; one value for all appends

	mu       sync.Mutex // guards the fields below
	view     View
	role     role
	epoch    stream.Epoch // adopted, or being adopted
	adopting bool
	hw       stream.Offset // never goes back in a process; at most what a leader committed (I12)
	ticking  bool
	done     *waiter // waiters whose outcome is known; called when the lock is free
	watches  []*Watch
	woken    []*Watch // to be told when the lock is free

	up      upstream
	lead    *leadership // while leading
	repeats repeats
}

// New gives the replica of a shard on a node, in the given incarnation; memory
// is what all replicas of the node share. It does nothing before SetView or a leader's handshake.
func New(key stream.ReplicaKey, node stream.NodeID, incarnation uint64, log Log, env Env, memory *Memory) *Replica {
	r := &Replica{key: key, node: node, incarnation: incarnation, log: log, env: env, epoch: log.Epoch()}
	r.repeats = repeats{memory: memory, from: log.End()}
	r.hw = max(log.HW(), log.Start())
	r.onDurable = r.durable
	return r
}

// Key gives the replica's name.
func (r *Replica) Key() stream.ReplicaKey { return r.key }

// unlock gives the lock back and then tells the waiters whose outcome became
// known meanwhile: callbacks never run under the lock.
func (r *Replica) unlock() {
	w, woken := r.done, r.woken
	r.done, r.woken = nil, nil
	r.mu.Unlock()
	for _, w := range woken {
		select {
		case w.C <- struct{}{}:
		default: // told already
		}
	}
	for w != nil {
		next := w.next
		w.done(w.err)
		w = next
	}
}

// SetView tells what the metadata says. Older views than one seen are ignored.
func (r *Replica) SetView(v View) {
	r.mu.Lock()
	defer r.unlock()
	if v.Version < r.view.Version {
		return
	}
	r.view = v
	r.wakeWatches()
	switch {
	case v.Leader == r.key.Replica && v.Epoch > r.epoch:
		// Only an epoch that was never adopted here may be led: one adopted
		// before belongs to an earlier life of this replica (I4).
		r.stepDown("a new epoch begins")
		r.role = preparing
		r.up.detach()
		r.adopt(v.Epoch)
	case v.Epoch > r.epoch && (r.role == leading || r.role == preparing):
		r.stepDown("another replica was elected")
	case r.role == leading && v.Epoch == r.epoch:
		r.lead.learn(r, v)
		r.advance()
		r.changeInSync()
	}
}

// adopt makes an epoch durable before anything is done in it (I6).
func (r *Replica) adopt(epoch stream.Epoch) {
	r.epoch, r.adopting = epoch, true
	err := r.log.Adopt(epoch, func(err error) {
		r.mu.Lock()
		defer r.unlock()
		if r.epoch != epoch || err != nil {
			return // overtaken by a later one, or the node is going down
		}
		r.adopting = false
		switch r.role {
		case preparing:
			r.takeOver()
		case following:
			r.answer(r.up.node)
		}
	})
	if err != nil { // the log is closed or has failed: the node is going down
		r.role, r.adopting = idle, false
	}
}

// stepDown ends a leadership. Appends that were not committed fail as NotLeader:
// whether the next leader has them is not known here.
func (r *Replica) stepDown(why string) {
	r.wakeWatches()
	if r.lead != nil {
		r.lead.fail(r, stream.Errorf(stream.NotLeader, "replica.Append", "shard %s: %s", r.key.Shard, why))
		r.lead = nil
	}
	r.role = idle
}

// Close ends what the replica does; it must not be used any more.
func (r *Replica) Close() {
	r.mu.Lock()
	defer r.unlock()
	r.stepDown("the replica is closed")
	r.up.detach()
	r.repeats.cut(0)
	r.epoch = ^stream.Epoch(0) // refuse whatever still arrives
}

// durable is called by the log when something appended is on the disk.
func (r *Replica) durable(err error) {
	if err != nil {
		return // the log has failed for good, and with it the node (I15)
	}
	r.mu.Lock()
	defer r.unlock()
	switch r.role {
	case leading:
		r.advance()
	case following:
		r.answer(r.up.node)
	}
}

// answer asks for a call of FillAnswer.
func (r *Replica) answer(to stream.NodeID) { r.env.AnswerReady(to, r) }

// Preparing reports whether the replica was elected and its epoch is not
// durable yet.
func (r *Replica) Preparing() bool {
	r.mu.Lock()
	defer r.unlock()
	return r.role == preparing
}

// Leading reports whether the replica leads its shard.
func (r *Replica) Leading() bool {
	r.mu.Lock()
	defer r.unlock()
	return r.role == leading
}

// Behind reports whether the replica leads and a follower lacks something.
func (r *Replica) Behind() bool {
	r.mu.Lock()
	defer r.unlock()
	return r.lead != nil && slices.ContainsFunc(r.lead.cursors, func(c *cursor) bool { return c.match < r.log.End() })
}

// Status is what a replica tells of itself.
type Status struct {
	Epoch         stream.Epoch
	Leading       bool
	Following     bool
	Start         stream.Offset
	HighWatermark stream.Offset
	DurableEnd    stream.Offset
	End           stream.Offset
	Followers     []FollowerStatus // a leader's
}

// FollowerStatus is a leader's view of a follower.
type FollowerStatus struct {
	Replica    stream.ReplicaID
	Node       stream.NodeID
	Attached   bool
	CatchingUp bool
	DurableEnd stream.Offset
}

// Status gives the replica's present state.
func (r *Replica) Status() Status {
	r.mu.Lock()
	defer r.unlock()
	s := Status{
		Epoch: r.epoch, Leading: r.role == leading, Following: r.role == following,
		Start: r.log.Start(), HighWatermark: r.hw, DurableEnd: r.log.DurableEnd(), End: r.log.End(),
	}
	if r.lead != nil {
		for _, c := range r.lead.cursors {
			s.Followers = append(s.Followers, FollowerStatus{
				Replica: c.replica, Node: c.node, Attached: c.acked, CatchingUp: c.lane == CatchUp, DurableEnd: c.match,
			})
		}
	}
	return s
}
