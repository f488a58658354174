package replica

import (
	"slices"
	"time"

	"shardstream/broker/recordlog"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

type cursorState uint8

const (
	greeting cursorState = iota // the handshake is to be sent, or was
	cutting                     // the follower has told its tail and is told what to cut
	pushing                     // the follower's log is a prefix of the leader's
)

// pushWindow bounds the bytes that are on their way to a follower.
const pushWindow = 4 << 20

// cursor is a leader's view of one other replica, in one epoch.
type cursor struct {
	replica  stream.ReplicaID
	node     stream.NodeID
	eligible bool // for the in-sync set, says the metadata

	state       cursorState
	session     uint64
	incarnation uint64
	generation  uint64 // counts what makes a read for it useless

	sendHand, sendCut bool
	handAt            time.Duration
	cutTo             stream.Offset
	restart           bool

	lane   Lane
	next   stream.Offset // to send
	flying []sent        // sent and not acknowledged
	bytes  int64         // of those
	hwSent stream.Offset

	// match is the durable end that was acknowledged in this session; nothing
	// is known of it before (acked). highest is that of any session.
	match, highest stream.Offset
	acked          bool
	progressAt     time.Duration

	banUntil, banLast time.Duration
	bannedAt          time.Duration
}

type sent struct {
	end   stream.Offset
	bytes int64
}

// shakeHands begins a session anew.
func (c *cursor) shakeHands(r *Replica) {
	c.state, c.acked = greeting, false
	c.sendHand, c.sendCut = true, false
	c.handAt = r.env.Elapsed()
	c.stopPushing()
	c.lane = Tail
	r.env.PushReady(c.node, Tail, r)
}

func (c *cursor) stopPushing() {
	c.flying, c.bytes = nil, 0
	c.generation++
}

// ban keeps a replica that stalled out of the in-sync set for a while.
func (c *cursor) ban(now time.Duration) {
	if now-c.bannedAt > banMemory {
		c.banLast = 0
	}
	c.banLast = min(max(2*c.banLast, banFirst), banMost)
	c.bannedAt, c.banUntil = now, now+c.banLast
}

// HandleReply takes a follower's answer to the handshake: it compares the
// whole epoch tables and tells the follower what to cut.
func (r *Replica) HandleReply(from stream.NodeID, m *pb.HandReply) {
	r.mu.Lock()
	defer r.unlock()
	c := r.cursorFor(from, m.Epoch, m.Replica)
	if c == nil || m.Incarnation < c.incarnation || m.Incarnation == c.incarnation && m.Session <= c.session {
		return // of an earlier handshake, on a stream that was slow to die
	}
	l := r.lead
	c.stopPushing()
	c.acked = false
	if m.Incarnation > c.incarnation {
		// Another process: what stalled is gone. To wait now would stop writes at
		// the next step of a rolling restart.
		c.banUntil = 0
	}
	c.session, c.incarnation = m.Session, m.Incarnation
	follower := tail{start: stream.Offset(m.Start), end: stream.Offset(m.End)}
	for _, e := range m.Epochs {
		follower.epochs = append(follower.epochs, recordlog.EpochStart{Epoch: stream.Epoch(e.Epoch), First: stream.Offset(e.First)})
	}
	own := tail{start: r.log.Start(), end: r.log.End(), epochs: r.log.EpochTable()}
	member := slices.Contains(l.maximal, c.replica)
	if follower.end < c.highest {
		r.env.Alarm(r, c.replica, "a follower has lost records that it had acknowledged: its disk lies or was rolled back")
	}
	to, restart, ok := reconcile(own, follower, member)
	if !ok {
		r.env.Alarm(r, c.replica, "an in-sync follower has no epoch in common with its leader")
		return
	}
	c.state, c.cutTo, c.restart, c.sendCut = cutting, to, restart, true
	c.handAt = r.env.Elapsed()
	r.env.PushReady(c.node, Tail, r)
}

// cursorFor gives the cursor that an answer is for, nil if it is for another
// epoch or from another node.
func (r *Replica) cursorFor(from stream.NodeID, epoch uint32, replica uint64) *cursor {
	if r.role != leading || stream.Epoch(epoch) != r.epoch {
		return nil
	}
	if c := r.lead.cursorOf(stream.ReplicaID(replica)); c != nil && c.node == from {
		return c
	}
	return nil
}

// HandleAck counts what a follower has on its disk.
func (r *Replica) HandleAck(from stream.NodeID, m *pb.Ack) {
	r.mu.Lock()
	defer r.unlock()
	c := r.cursorFor(from, m.Epoch, m.Replica)
	if c == nil || c.state == greeting || c.session != m.Session || c.incarnation != m.Incarnation {
		return // I7, I11: of another handshake, or of another life of the node
	}
	durable := stream.Offset(m.DurableEnd)
	now := r.env.Elapsed()
	begins := c.state == cutting
	if begins {
		if c.sendCut {
			return
		}
		c.state, c.next, c.hwSent = pushing, c.cutTo, 0
		c.progressAt = now
	}
	if !c.acked || durable > c.match {
		c.match, c.acked, c.progressAt = durable, true, now
		c.highest = max(c.highest, durable)
	}
	i := 0
	for ; i < len(c.flying) && c.flying[i].end <= c.match; i++ {
		c.bytes -= c.flying[i].bytes
	}
	c.flying = slices.Delete(c.flying, 0, i)
	if begins || c.next < r.log.End() { // else there is at most a mark to send, which can wait
		r.env.PushReady(c.node, c.lane, r)
	}
	r.advance()
	r.changeInSync()
	r.needTick()
}

// HandleNack takes a refusal.
func (r *Replica) HandleNack(from stream.NodeID, m *pb.Nack) {
	r.mu.Lock()
	defer r.unlock()
	if stream.Kind(m.Error) == stream.Stale && r.role == leading && stream.Epoch(m.Epoch) == r.epoch && stream.Epoch(m.CurrentEpoch) > r.epoch {
		r.stepDown("another replica was elected")
		return
	}
	c := r.cursorFor(from, m.Epoch, m.Replica)
	if c == nil || c.state == greeting || c.session != m.Session {
		return
	}
	expected := stream.Offset(m.Expected)
	if stream.Kind(m.Error) == stream.Gap && c.state == pushing && expected >= c.match && expected <= r.log.End() {
		// Something was lost on the way, or refused: go on from there.
		c.stopPushing()
		c.next = expected
		r.env.PushReady(c.node, c.lane, r)
		return
	}
	// Full, damaged, or gone: greeted again after a while, by Tick.
	c.stopPushing()
	c.state, c.acked, c.sendHand, c.sendCut = greeting, false, false, false
	c.handAt = r.env.Elapsed()
	r.needTick()
}

// Fill adds to a frame what the leader has to send to a node in a lane, at most
// about budget bytes of batches, and reports how many it used and whether more
// is waiting. Calls for one node and lane must not overlap.
func (r *Replica) Fill(to stream.NodeID, lane Lane, f *pb.PushFrame, budget int) (used int, more bool) {
	r.mu.Lock()
	defer r.unlock()
	if r.role != leading {
		return 0, false
	}
	for _, c := range r.lead.cursors {
		if c.node != to {
			continue
		}
		if lane == Tail {
			r.fillHandshake(c, f)
		}
		if c.state == pushing && c.lane == lane {
			n, m := r.fillAppends(c, f, budget-used)
			used, more = used+n, more || m
		}
	}
	return used, more
}

func (r *Replica) fillHandshake(c *cursor, f *pb.PushFrame) {
	id := r.key.Shard
	if c.sendHand {
		c.sendHand = false
		f.Hands = append(f.Hands, &pb.Hand{
			StreamId: uint64(id.Stream), Shard: id.Number, Epoch: uint32(r.epoch), Leader: uint64(r.key.Replica), Target: uint64(c.replica),
		})
	}
	if c.sendCut {
		c.sendCut = false
		f.Cuts = append(f.Cuts, &pb.Cut{
			StreamId: uint64(id.Stream), Shard: id.Number, Epoch: uint32(r.epoch), Target: uint64(c.replica),
			Session: c.session, To: uint64(c.cutTo), Restart: c.restart,
		})
	}
}

// fillAppends adds batches from the cursor on, and the high watermark. What is
// not in memory any more is read without the lock, and in the catch-up lane.
func (r *Replica) fillAppends(c *cursor, f *pb.PushFrame, budget int) (used int, more bool) {
	end := r.log.End()
	if c.next < r.log.Start() { // what it would need has expired: it begins anew
		c.shakeHands(r)
		return 0, false
	}
	if far := c.next < r.log.TailStart(); c.next < end && far != (c.lane == CatchUp) {
		if len(c.flying) > 0 {
			return 0, false // the lanes change when nothing is on the way, so that batches stay in order
		}
		c.lane = Tail
		if far {
			c.lane = CatchUp
		}
		r.env.PushReady(c.node, c.lane, r)
		return 0, false
	}
	room := min(int64(budget), pushWindow-c.bytes)
	if c.next < end && (room > 0 || len(c.flying) == 0) {
		batches, ok := r.readFor(c, end, int(max(room, 1)))
		if !ok {
			return 0, false
		}
		for _, b := range batches {
			n := int64(len(b))
			if b.Base() > c.next { // behind a hole that was given up
				break
			}
			f.Appends = append(f.Appends, r.appendMessage(c, b))
			used += int(n)
			c.next, c.bytes = b.End(), c.bytes+n
			c.flying = append(c.flying, sent{b.End(), n})
		}
		c.hwSent = r.hw
		return used, used > 0 && c.next < r.log.End() && c.bytes < pushWindow
	}
	if r.hw > c.hwSent {
		c.hwSent = r.hw
		f.Marks = append(f.Marks, &pb.HighWatermark{
			StreamId: uint64(r.key.Shard.Stream), Shard: r.key.Shard.Number, Epoch: uint32(r.epoch), Target: uint64(c.replica),
			Session: c.session, HighWatermark: uint64(r.hw), Start: uint64(r.log.Start()),
		})
	}
	return 0, false
}

// readFor reads for a cursor; the lock is not held meanwhile if the disk has to
// be asked. It fails if the cursor was moved by then.
func (r *Replica) readFor(c *cursor, end stream.Offset, room int) ([]stream.Batch, bool) {
	if c.lane == Tail {
		batches, err := r.log.Read(c.next, end, room)
		return batches, err == nil
	}
	lead, from, generation := r.lead, c.next, c.generation
	r.mu.Unlock()
	batches, err := r.log.Read(from, end, room)
	r.mu.Lock()
	return batches, err == nil && r.lead == lead && c.generation == generation && c.next == from
}

func (r *Replica) appendMessage(c *cursor, b stream.Batch) *pb.AppendBatch {
	return &pb.AppendBatch{
		StreamId: uint64(r.key.Shard.Stream), Shard: r.key.Shard.Number, Epoch: uint32(r.epoch), Target: uint64(c.replica),
		Session: c.session, PrevEpoch: uint32(r.log.EpochOf(b.Base())), HighWatermark: uint64(r.hw), Start: uint64(r.log.Start()), Batch: b,
	}
}
