package gateway

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// takesLocked reports whether a shard takes records.
func (f *fakeBroker) takesLocked(id stream.ShardID) bool {
	i := slices.IndexFunc(f.shards[uint64(id.Stream)], func(s *pb.Shard) bool { return s.Number == id.Number })
	return i >= 0 && f.shards[uint64(id.Stream)][i].State == pb.ShardState_SHARD_STATE_OPEN
}

// reshardLocked makes the children of a reshard, and ends it at once unless the
// test wants to.
func (f *fakeBroker) reshardLocked(c *pb.Reshard) (*pb.CommandResult, *pb.MetadataEvent) {
	f.proposed = c
	if r := f.refuse; r != nil {
		f.refuse = nil
		return r, nil
	}
	if s := f.streams[c.StreamId]; s.Status != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		r := refusal(stream.WrongState)
		r.Status = s.Status
		return r, nil
	}
	shards := slices.Clone(f.shards[c.StreamId])
	var open []*pb.Shard
	for _, s := range shards {
		if s.State == pb.ShardState_SHARD_STATE_OPEN {
			open = append(open, s)
		}
	}
	slices.SortFunc(open, func(a, b *pb.Shard) int { return rangeOf(a).Start.Compare(rangeOf(b).Start) })
	re := &pb.Resharding{}
	parents := make(map[uint32]bool)
	first := len(shards)
	add := func(r stream.HashRange, of ...*pb.Shard) *pb.Shard {
		s := &pb.Shard{
			StreamId: c.StreamId, Number: uint32(len(shards)), State: pb.ShardState_SHARD_STATE_CREATING,
			Range: &pb.HashRange{StartHi: r.Start.Hi, StartLo: r.Start.Lo, EndHi: r.End.Hi, EndLo: r.End.Lo},
		}
		for _, p := range of {
			s.Parents = append(s.Parents, p.Number)
			parents[p.Number] = true
		}
		shards = append(shards, s)
		return s
	}
	split := func(s *pb.Shard, at stream.HashKey) []*pb.Shard {
		r := rangeOf(s)
		return []*pb.Shard{
			add(stream.HashRange{Start: r.Start, End: at.Prev()}, s), add(stream.HashRange{Start: at, End: r.End}, s),
		}
	}
	merge := func(low, high *pb.Shard) {
		add(stream.HashRange{Start: rangeOf(low).Start, End: rangeOf(high).End}, low, high)
	}
	switch target := int(c.TargetCount); c.Kind {
	case pb.ReshardKind_RESHARD_KIND_SPLIT:
		split(shards[c.Shard], stream.HashKey{Hi: c.SplitAtHi, Lo: c.SplitAtLo})
	case pb.ReshardKind_RESHARD_KIND_MERGE:
		merge(shards[c.Shard], shards[c.AdjacentShard])
	case pb.ReshardKind_RESHARD_KIND_COUNT:
		if target > len(open) {
			var halves []*pb.Shard
			for _, s := range open {
				r := rangeOf(s)
				half := r.End.Sub(r.Start)
				halves = append(halves, split(s, r.Start.Add(stream.HashKey{Hi: half.Hi >> 1, Lo: half.Lo>>1 | half.Hi<<63}).Next())...)
			}
			for i := range len(halves) - target {
				merge(halves[2*i+1], halves[2*i+2])
			}
		} else {
			for i := range len(open) - target {
				merge(open[2*i], open[2*i+1])
			}
		}
	}
	for _, s := range shards[:first] {
		if parents[s.Number] {
			re.Parents = append(re.Parents, s.Number)
		}
	}
	for _, s := range shards[first:] {
		if parents[s.Number] {
			re.Passing = append(re.Passing, s.Number)
			continue
		}
		re.Children = append(re.Children, s.Number)
		s.Replicas, s.Leader, s.Epoch = []*pb.Replica{{Id: 90 + uint64(s.Number), NodeId: "n1"}}, 90+uint64(s.Number), 1
		f.logs[stream.ShardID{Stream: stream.StreamID(c.StreamId), Number: s.Number}] = &fakeLog{}
	}
	f.shards[c.StreamId] = shards
	s := f.editStreamLocked(c.StreamId, func(s *pb.Stream) {
		s.Status, s.Reshard, s.TransitionAfterMs = pb.StreamStatus_STREAM_STATUS_UPDATING, re, c.TransitionAfterMs
	})
	e := &pb.MetadataEvent{Streams: []*pb.Stream{s}, Shards: shards}
	if !f.resharding {
		e = f.finishLocked(c.StreamId)
	}
	return &pb.CommandResult{Current: uint64(len(open))}, e
}

// seal has the parents take no more records.
func (f *fakeBroker) seal(id uint64) {
	for _, n := range f.stream(id).Reshard.Parents {
		f.editShard(id, n, func(s *pb.Shard) { s.State = pb.ShardState_SHARD_STATE_SEALING })
	}
}

func (f *fakeBroker) stream(id uint64) *pb.Stream {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streams[id]
}

// finish ends a reshard.
func (f *fakeBroker) finish(id uint64) {
	defer f.settle()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publishLocked(f.finishLocked(id))
}

// finishLocked closes the parents and opens the children, in one change and with
// the times that the metadata's rules give them.
func (f *fakeBroker) finishLocked(id uint64) *pb.MetadataEvent {
	re := f.streams[id].Reshard
	shards := slices.Clone(f.shards[id])
	at := f.now().UnixMilli()
	for _, n := range re.Parents {
		at = max(at, (shards[n].CreatedMs/1000+1)*1000)
	}
	first := len(shards) - len(re.Children) - len(re.Passing)
	for i := first; i < len(shards); i++ {
		s := proto.Clone(shards[i]).(*pb.Shard)
		s.State, s.CreatedMs = pb.ShardState_SHARD_STATE_OPEN, at
		for _, n := range s.Parents {
			if int(n) >= first {
				s.CreatedMs = max(s.CreatedMs, shards[n].CreatedMs+1)
			}
		}
		for _, n := range s.Parents {
			p := proto.Clone(shards[n]).(*pb.Shard)
			p.State, p.ClosedMs = pb.ShardState_SHARD_STATE_CLOSED, s.CreatedMs-1
			if log := f.logs[stream.ShardID{Stream: stream.StreamID(id), Number: n}]; log != nil {
				p.FinalOffset = uint64(log.end)
			}
			shards[n] = p
		}
		shards[i] = s
	}
	f.shards[id] = shards
	s := f.editStreamLocked(id, func(s *pb.Stream) { s.Status, s.Reshard = pb.StreamStatus_STREAM_STATUS_ACTIVE, nil })
	return &pb.MetadataEvent{Streams: []*pb.Stream{s}, Shards: shards}
}

func (d fakeData) FindRepeat(_ context.Context, in *pb.FindRepeatRequest, _ ...grpc.CallOption) (*pb.FindRepeatResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := shardOf(in.Shard)
	d.finds = append(d.finds, id)
	if d.onFind != nil {
		if kind := d.onFind(id); kind != 0 {
			return &pb.FindRepeatResponse{Error: pb.ErrorKind(kind)}, nil
		}
	}
	for _, b := range slices.Backward(d.logs[id].batches) {
		request, invocation := b.RequestID(), b.InvocationID()
		if slices.Equal(request[:], in.RequestId) ||
			invocation != [16]byte{} && slices.Equal(invocation[:], in.InvocationId) && max(uint32(b.Attempt()), in.Attempt) > 1 {
			out := &pb.FindRepeatResponse{BaseOffset: uint64(b.Base()), ArrivalMs: b.Arrival()}
			for ordinal := range b.Ordinals() {
				out.Ordinals = append(out.Ordinals, uint32(ordinal))
			}
			return out, nil
		}
	}
	return &pb.FindRepeatResponse{Error: pb.ErrorKind(stream.NotFound)}, nil
}
