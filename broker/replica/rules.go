package replica

import (
	"slices"

	"shardstream/broker/recordlog"
	"shardstream/stream"
)

// The arithmetic of the protocol, free of state.

// commitPoint gives the offset below which everything is committed: the
// smallest durable end over a set of replicas. It fails if the end of one is
// not known.
func commitPoint(set []stream.ReplicaID, durableEnd func(stream.ReplicaID) (stream.Offset, bool)) (stream.Offset, bool) {
	if len(set) == 0 {
		return 0, false
	}
	lowest := ^stream.Offset(0)
	for _, id := range set {
		end, known := durableEnd(id)
		if !known {
			return 0, false
		}
		lowest = min(lowest, end)
	}
	return lowest, true
}

// tail describes a log for the comparison of a handshake.
type tail struct {
	start, end stream.Offset
	epochs     []recordlog.EpochStart // of the batches in [start, end) at least, oldest first
}

// endOf gives the offset after the last record of an epoch, if there is one.
func (t tail) endOf(epoch stream.Epoch) (stream.Offset, bool) {
	i, found := slices.BinarySearchFunc(t.epochs, epoch, func(e recordlog.EpochStart, epoch stream.Epoch) int {
		return int(int64(e.Epoch) - int64(epoch))
	})
	if !found {
		return 0, false
	}
	if i+1 < len(t.epochs) {
		return t.epochs[i+1].First, true
	}
	return t.end, true
}

// agreement gives the offset up to which two logs are the same: in the highest
// epoch that both have, the smaller of its two ends. Since an epoch has one
// leader and an (epoch, offset) one record for ever (I4), equality there means
// equality of everything before (I5); so one comparison is enough, where
// comparing offsets alone (Oxia), or falling back to the high watermark
// (Liftbridge), is not. It fails if there is no common epoch.
func agreement(a, b tail) (stream.Offset, bool) {
	for i := len(b.epochs) - 1; i >= 0; i-- {
		epoch := b.epochs[i].Epoch
		if ea, both := a.endOf(epoch); both {
			eb, _ := b.endOf(epoch)
			return min(ea, eb), true
		}
	}
	return 0, false
}

// reconcile decides what a follower must do with its log so that it is a
// prefix of the leader's: cut it at an offset, or (restart) drop all of it and
// begin empty at that offset, since the leader has nothing old enough to go on
// with. Only a replica outside of the in-sync set may restart; for one inside,
// ok false says that what must never happen has.
func reconcile(leader, follower tail, inSync bool) (to stream.Offset, restart, ok bool) {
	if to, common := agreement(leader, follower); common && to >= leader.start && to >= follower.start {
		return to, false, true
	}
	// Nothing that both still have is the same. What either has trimmed was
	// committed, so the logs agree below the higher of the two starts.
	switch {
	case follower.start >= leader.start && follower.start <= leader.end:
		return follower.start, false, true
	case inSync && follower.start < leader.start && leader.start <= follower.end:
		// A member has all that was committed: below the leader's start, too.
		return leader.start, false, true
	case inSync:
		return 0, false, false
	}
	return leader.start, true, true
}

// without gives the set without a member; the set itself is not changed.
func without(set []stream.ReplicaID, id stream.ReplicaID) []stream.ReplicaID {
	return slices.DeleteFunc(slices.Clone(set), func(m stream.ReplicaID) bool { return m == id })
}

// union gives all members of both sets.
func union(a, b []stream.ReplicaID) []stream.ReplicaID {
	u := slices.Clone(a)
	for _, id := range b {
		if !slices.Contains(u, id) {
			u = append(u, id)
		}
	}
	return u
}

// candidate is what a leader knows of another replica when it thinks about the
// in-sync set.
type candidate struct {
	id      stream.ReplicaID
	member  bool // of the in-sync set
	stalled bool // no durable progress for too long, though records are outstanding
	ready   bool // holds all that is committed, and all that the leader was elected with; may join
}

// nextInSync decides the next change of the in-sync set, if one is due. The
// set never shrinks below the floor (I1): there, a dead member is swapped for a
// ready one in one step, or it stays and writes wait.
func nextInSync(inSync []stream.ReplicaID, floor int, others []candidate) (set []stream.ReplicaID, added stream.ReplicaID, change bool) {
	var stalled, ready stream.ReplicaID
	for _, c := range others {
		switch {
		case c.member && c.stalled && stalled == 0:
			stalled = c.id
		case !c.member && c.ready && ready == 0:
			ready = c.id
		}
	}
	switch {
	case stalled != 0 && len(inSync) > floor:
		return without(inSync, stalled), 0, true
	case stalled != 0 && ready != 0:
		return append(without(inSync, stalled), ready), ready, true
	case ready != 0:
		return append(slices.Clone(inSync), ready), ready, true
	}
	return nil, 0, false
}
