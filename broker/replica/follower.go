package replica

import (
	"slices"

	"shardstream/broker/recordlog"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// upstream is what a follower knows of its leader.
type upstream struct {
	node    stream.NodeID
	leader  stream.ReplicaID
	session uint64 // counts the handshakes of this process; ties every message to one of them (I7)

	replying   bool          // the handshake waits for its answer
	reconciled bool          // the cut of this session is durable: appends are taken
	cutting    bool          // it is under way
	owed       bool          // an acknowledgement is due though nothing has moved
	acked      stream.Offset // told in this session

	nacks []nackTo
}

type nackTo struct {
	node stream.NodeID
	nack *pb.Nack
}

// maxNacks bounds what waits for a node that does not take its answers; it asks
// again if one is dropped.
const maxNacks = 8

func (u *upstream) detach() {
	*u = upstream{session: u.session, nacks: u.nacks}
}

func (r *Replica) refuse(to stream.NodeID, epoch stream.Epoch, session uint64, kind stream.Kind, detail string) {
	if slices.ContainsFunc(r.up.nacks, func(n nackTo) bool {
		return n.node == to && n.nack.Session == session && n.nack.Error == pb.ErrorKind(kind) && n.nack.Epoch == uint32(epoch)
	}) {
		return // one answer is enough for all that follows in a stream
	}
	if len(r.up.nacks) >= maxNacks {
		r.up.nacks = slices.Delete(r.up.nacks, 0, 1) // the newest count
	}
	r.up.nacks = append(r.up.nacks, nackTo{to, &pb.Nack{
		StreamId: uint64(r.key.Shard.Stream), Shard: r.key.Shard.Number, Epoch: uint32(epoch), Replica: uint64(r.key.Replica),
		Session: session, Error: pb.ErrorKind(kind), CurrentEpoch: uint32(r.epoch), Expected: uint64(r.log.End()), Detail: detail,
	}})
	r.answer(to)
}

// HandleHand begins to follow a leader: the epoch is adopted durably, and then
// the tail is told. Adoption and the reported tail are one atomic step: from
// here on nothing of an older epoch or handshake is taken
// (bookkeeper#2614 is what happens otherwise).
func (r *Replica) HandleHand(from stream.NodeID, m *pb.Hand) {
	r.mu.Lock()
	defer r.unlock()
	epoch := stream.Epoch(m.Epoch)
	switch {
	case stream.ReplicaID(m.Target) != r.key.Replica:
		r.refuse(from, epoch, 0, stream.NotFound, "this node holds another replica of the shard")
		return
	case epoch < r.epoch, epoch == r.epoch && (r.role == leading || r.role == preparing):
		r.refuse(from, epoch, 0, stream.Stale, "a newer epoch is adopted")
		return
	}
	former, formerEpoch := r.up, r.epoch
	followed := r.role == following && former.node != from
	r.stepDown("another replica was elected")
	r.role = following
	r.up.detach()
	r.up.node, r.up.leader = from, stream.ReplicaID(m.Leader)
	r.up.session++
	r.up.replying = true
	if epoch > r.epoch {
		r.adopt(epoch)
	} else if !r.adopting {
		r.answer(from)
	}
	if followed {
		// So that a leader that was replaced stops to answer reads: what this
		// node tells it from here on confirms nothing any more.
		r.refuse(former.node, formerEpoch, former.session, stream.Stale, "another leader was elected")
	}
}

// attached reports whether a message belongs to the present handshake, and
// answers those of an older epoch.
func (r *Replica) attached(from stream.NodeID, epoch stream.Epoch, session uint64) bool {
	if epoch < r.epoch {
		r.refuse(from, epoch, session, stream.Stale, "a newer epoch is adopted")
		return false
	}
	return r.role == following && epoch == r.epoch && !r.adopting && r.up.node == from && r.up.session == session && !r.up.replying
}

// HandleCut makes the log a prefix of the leader's, once in each session.
func (r *Replica) HandleCut(from stream.NodeID, m *pb.Cut) {
	r.mu.Lock()
	defer r.unlock()
	if !r.attached(from, stream.Epoch(m.Epoch), m.Session) || r.up.reconciled || r.up.cutting {
		return
	}
	to, session := stream.Offset(m.To), m.Session
	done := func(err error) {
		r.mu.Lock()
		defer r.unlock()
		if err != nil || r.role != following || r.up.session != session {
			return
		}
		r.up.cutting, r.up.reconciled, r.up.owed = false, true, true
		r.answer(r.up.node)
	}
	var err error
	switch {
	case m.Restart && to > r.hw:
		// Everything here lies below the leader's log start. That is a trim.
		r.up.cutting = true
		r.hw = to
		r.repeats.cut(0)
		err = r.log.Restart(to, done)
	case to == r.log.End():
		r.up.reconciled, r.up.owed = true, true
		r.answer(from)
	case to < r.hw:
		// I7: no leader may lack what was committed. Somebody's disk has lied.
		what := "a leader asks for a cut below the high watermark"
		r.env.Alarm(r, r.up.leader, what)
		r.refuse(from, r.epoch, session, stream.Corrupt, what)
		r.role = idle
		r.up.detach()
	default:
		r.up.cutting = true
		r.repeats.cut(to)
		err = r.log.CutAsync(to, done)
	}
	if err != nil {
		r.refuse(from, r.epoch, session, stream.KindOf(err), err.Error())
		r.role = idle
		r.up.detach()
	}
}

// HandleAppend takes a batch that follows on what is here; others are answered
// with what is expected.
func (r *Replica) HandleAppend(from stream.NodeID, m *pb.AppendBatch) {
	r.mu.Lock()
	defer r.unlock()
	if !r.attached(from, stream.Epoch(m.Epoch), m.Session) || !r.up.reconciled {
		return
	}
	b := stream.Batch(m.Batch)
	if len(b) < stream.BatchHeaderSize {
		r.refuse(from, r.epoch, m.Session, stream.Corrupt, "a batch without a header")
		return
	}
	end := r.log.End()
	switch {
	case b.Base() > end:
		r.refuse(from, r.epoch, m.Session, stream.Gap, "")
		return
	case b.Base() < end: // sent twice; what is durable of it is told again
		r.up.owed = true
		r.answer(from)
	case m.PrevEpoch != 0 && r.log.EpochOf(end) != stream.Epoch(m.PrevEpoch) && end > r.log.Start():
		r.refuse(from, r.epoch, m.Session, stream.Corrupt, "the record before the batch is of another epoch")
		return
	default:
		if err := r.log.Append(b, r.onDurable); err != nil { // verifies the checksum (I14)
			r.refuse(from, r.epoch, m.Session, stream.KindOf(err), err.Error())
			return
		}
		r.repeats.add(b, b.Arrival())
	}
	r.learnMark(stream.Offset(m.HighWatermark), stream.Offset(m.Start))
}

// HandleMark learns the leader's high watermark and log start.
func (r *Replica) HandleMark(from stream.NodeID, m *pb.HighWatermark) {
	r.mu.Lock()
	defer r.unlock()
	if r.attached(from, stream.Epoch(m.Epoch), m.Session) && r.up.reconciled {
		r.learnMark(stream.Offset(m.HighWatermark), stream.Offset(m.Start))
	}
}

// learnMark takes a leader's high watermark over as far as it is known to hold
// for this log, and drops what the leader has trimmed below it (I17).
func (r *Replica) learnMark(hw, start stream.Offset) {
	if hw = min(hw, r.log.End()); hw > r.hw {
		r.hw = hw
		r.log.SetHW(hw)
	}
	if start = min(start, r.hw); start > r.log.Start() {
		r.log.TrimTo(start)
	}
}

// FillAnswer adds what the replica has to tell a node to a frame.
func (r *Replica) FillAnswer(to stream.NodeID, f *pb.AnswerFrame) {
	r.mu.Lock()
	defer r.unlock()
	kept := r.up.nacks[:0]
	for _, n := range r.up.nacks {
		if n.node == to {
			f.Nacks = append(f.Nacks, n.nack)
		} else {
			kept = append(kept, n)
		}
	}
	clear(r.up.nacks[len(kept):])
	if r.up.nacks = kept; len(kept) == 0 {
		r.up.nacks = nil
	}
	if r.role != following || r.up.node != to || r.adopting {
		return
	}
	if r.up.replying {
		r.up.replying = false
		f.Replies = append(f.Replies, r.handReply())
		return
	}
	if !r.up.reconciled {
		return
	}
	// Acknowledged is only what fdatasync has returned for (I2).
	if durable := r.log.DurableEnd(); r.up.owed || durable > r.up.acked {
		r.up.owed, r.up.acked = false, durable
		f.Acks = append(f.Acks, &pb.Ack{
			StreamId: uint64(r.key.Shard.Stream), Shard: r.key.Shard.Number, Epoch: uint32(r.epoch), Replica: uint64(r.key.Replica),
			Incarnation: r.incarnation, Session: r.up.session, DurableEnd: uint64(durable),
		})
	}
}

func (r *Replica) handReply() *pb.HandReply {
	return &pb.HandReply{
		StreamId: uint64(r.key.Shard.Stream), Shard: r.key.Shard.Number, Epoch: uint32(r.epoch), Replica: uint64(r.key.Replica),
		Incarnation: r.incarnation, Session: r.up.session,
		Start: uint64(r.log.Start()), End: uint64(r.log.End()), HighWatermark: uint64(r.hw),
		Epochs: epochMessages(r.log.EpochTable()),
	}
}

func epochMessages(table []recordlog.EpochStart) []*pb.EpochStart {
	out := make([]*pb.EpochStart, len(table))
	for i, e := range table {
		out[i] = &pb.EpochStart{Epoch: uint32(e.Epoch), First: uint64(e.First)}
	}
	return out
}
