package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// resharding gives the stream's entry if a reshard is under way.
func (d *draft) resharding(id uint64) (*entry, *pb.CommandResult) {
	e := d.entry(id)
	switch {
	case e == nil:
		return nil, refuse(stream.NotFound, "no stream %d", id)
	case e.stream.GetStatus() != pb.StreamStatus_STREAM_STATUS_UPDATING || e.stream.GetReshard() == nil:
		return nil, wrongState(e.stream)
	}
	return e, nil
}

// sealParents has the parents of a reshard take no more records. From here on,
// writes wait for the children. So it is not done before each of these can lead,
// and each parent too, since the last one that is sealed ends the wait for all.
func (d *draft) sealParents(c *pb.SealParents) *pb.CommandResult {
	e, res := d.resharding(c.GetStreamId())
	if res != nil {
		return res
	}
	if d.now < e.stream.GetTransitionAfterMs() {
		return wrongState(e.stream)
	}
	if why := sealWaitsFor(e); why != "" {
		res := wrongState(e.stream)
		res.Detail += ": " + why
		return res
	}
	for _, n := range e.stream.GetReshard().GetParents() {
		if e.shards[n].GetState() == pb.ShardState_SHARD_STATE_OPEN {
			d.editShard(c.GetStreamId(), n).State = pb.ShardState_SHARD_STATE_SEALING
			e = d.entry(c.GetStreamId())
		}
	}
	return &pb.CommandResult{StreamId: c.GetStreamId()}
}

// SealWaitsFor says, for people, what is missing before the parents of the
// stream's reshard can be sealed; "" if nothing is, or if it has none.
func (s *State) SealWaitsFor(id uint64) string {
	if e := s.entry(id); e != nil {
		return sealWaitsFor(e)
	}
	return ""
}

func sealWaitsFor(e *entry) string {
	for _, n := range e.stream.GetReshard().GetChildren() {
		if node, waits := awaits(e.shards[n]); waits {
			return stream.ShardName(n) + " waits for a replica on " + node
		}
		if e.shards[n].GetLeader() == 0 {
			return stream.ShardName(n) + " has no leader"
		}
	}
	for _, n := range e.stream.GetReshard().GetParents() {
		if sh := e.shards[n]; sh.GetLeader() == 0 && sh.GetState() == pb.ShardState_SHARD_STATE_OPEN {
			return stream.ShardName(n) + " has no leader"
		}
	}
	return ""
}

// sealShards fixes the ends of shards as their leaders say (I21). A refused item
// is no error of the command.
func (d *draft) sealShards(c *pb.SealShards) *pb.CommandResult {
	if res := d.checkIncarnation(c.GetNodeId(), c.GetIncarnation()); res != nil {
		return res
	}
	items := make([]pb.ErrorKind, len(c.GetSeals()))
	var touched []uint64
	for i, seal := range c.GetSeals() {
		items[i] = pb.ErrorKind(d.seal(c.GetNodeId(), seal))
		if id := seal.GetStreamId(); items[i] == 0 && !slices.Contains(touched, id) {
			touched = append(touched, id)
		}
	}
	for _, id := range touched {
		d.endReshard(id)
	}
	return &pb.CommandResult{Items: items}
}

func (d *draft) seal(node string, c *pb.Seal) stream.Kind {
	sh := d.Shard(c.GetStreamId(), c.GetShard())
	switch {
	case sh == nil:
		return stream.NotFound
	case sh.GetSealed():
		if sh.GetFinalOffset() != c.GetFinalOffset() {
			return stream.Stale // final means final
		}
		return 0
	case sh.GetState() != pb.ShardState_SHARD_STATE_SEALING,
		d.Stream(c.GetStreamId()).GetStatus() != pb.StreamStatus_STREAM_STATUS_UPDATING:
		return stream.WrongState
	// The leader knows that what it calls committed is so by this set of copies,
	// and that nobody leads after it.
	case sh.GetEpoch() != c.GetEpoch(), sh.GetVersion() != c.GetVersion(),
		replica(sh, sh.GetLeader()).GetNodeId() != node:
		return stream.Stale
	}
	sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
	sh.Sealed, sh.FinalOffset, sh.LastArrivalMs = true, c.GetFinalOffset(), c.GetLastArrivalMs()
	return 0
}

// endReshard closes the parents and opens the children, once no parent can get
// another record (I21). All in one entry, so that the open shards cover the hash
// space at every index.
//
// Each shard was open from its creation up to and with its closing ms, and the
// next one begins a ms later, so that at every moment exactly one shard was open
// for a hash key. Shards between parents and children get a moment of their own.
//
// The children's first second is behind that of their parents, since sequence
// numbers begin with it, and those of a key must rise across the reshard. For
// parents made in this same second the cluster's time is raised for that.
func (d *draft) endReshard(id uint64) {
	e, res := d.resharding(id)
	if res != nil {
		return
	}
	re := e.stream.GetReshard()
	opened := d.now
	for _, n := range re.GetParents() {
		if !e.shards[n].GetSealed() {
			return
		}
		// A parent has no record from the time on when its children are there: a
		// reader that begins at a time begins with the shards of that time.
		opened = max(opened, (e.shards[n].GetCreatedMs()/1000+1)*1000, e.shards[n].GetLastArrivalMs()+1)
	}
	// What a reshard made stands at the end of the list.
	first := len(e.shards) - len(re.GetChildren()) - len(re.GetPassing())
	created := make(map[uint32]int64) // of the shards that the reshard made
	closed := make(map[uint32]int64)
	for _, sh := range e.shards[first:] {
		at := opened
		for _, p := range sh.GetParents() {
			if before, made := created[p]; made {
				at = max(at, before+1)
			}
		}
		created[sh.GetNumber()] = at
		for _, p := range sh.GetParents() {
			closed[p] = at - 1
		}
		d.now = max(d.now, at)
	}
	end := func(n uint32) {
		sh := d.editShard(id, n)
		sh.State, sh.Sealed, sh.ClosedMs = pb.ShardState_SHARD_STATE_CLOSED, true, closed[n]
	}
	for _, n := range re.GetParents() {
		end(n)
	}
	for _, n := range re.GetPassing() {
		end(n)
		d.Shard(id, n).CreatedMs = created[n]
	}
	for _, n := range re.GetChildren() {
		sh := d.editShard(id, n)
		sh.State, sh.CreatedMs = pb.ShardState_SHARD_STATE_OPEN, created[n]
	}
	s := d.editStream(id)
	s.Status, s.TransitionAfterMs, s.Reshard = pb.StreamStatus_STREAM_STATUS_ACTIVE, 0, nil
	d.recount(d.entry(id))
}

// expireShards ends shards whose data has passed the retention. A refused item is
// no error of the command.
func (d *draft) expireShards(c *pb.ExpireShards) *pb.CommandResult {
	e := d.entry(c.GetStreamId())
	if e == nil {
		return refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	}
	if e.stream.GetStatus() == pb.StreamStatus_STREAM_STATUS_DELETING {
		return wrongState(e.stream)
	}
	items := make([]pb.ErrorKind, len(c.GetShards()))
	for i, n := range c.GetShards() {
		items[i] = pb.ErrorKind(d.expireShard(e.stream, n))
	}
	return &pb.CommandResult{Items: items}
}

func (d *draft) expireShard(s *pb.Stream, number uint32) stream.Kind {
	sh := d.Shard(s.GetId(), number)
	switch {
	case sh == nil:
		return stream.NotFound
	case sh.GetState() == pb.ShardState_SHARD_STATE_EXPIRED:
		return 0
	case sh.GetState() != pb.ShardState_SHARD_STATE_CLOSED || d.now <= ExpiresMs(s, sh):
		return stream.WrongState
	}
	sh = d.editShard(s.GetId(), number)
	sh.State = pb.ShardState_SHARD_STATE_EXPIRED
	sh.Replicas, sh.InSync, sh.Leader = nil, nil, 0
	sh.Epoch++
	return 0
}

// ExpiresMs gives the last moment, Unix ms, at which a closed shard is not too
// old yet.
func ExpiresMs(s *pb.Stream, sh *pb.Shard) int64 {
	return sh.GetClosedMs() + int64(s.GetRetentionHours())*3_600_000
}
