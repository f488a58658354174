package raftfsm

import (
	"math"
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// maxShards is how many open shards UpdateShardCount can give a stream.
const maxShards = 10_000

// reshard begins a reshard: it makes the children, which wait for their
// replicas while the parents take records.
func (d *draft) reshard(c *pb.Reshard) *pb.CommandResult {
	plan, res := d.planReshard(c)
	if res != nil {
		return res
	}
	e := d.entry(c.GetStreamId())
	counts := e.stream.GetCountChangesMs()
	if c.GetDailyLimit() > 0 && len(plan.made) > 0 {
		if counts, res = d.noteChange(counts, c.GetDailyLimit()); res != nil {
			return res
		}
	}
	current := uint64(len(openPieces(e.shards)))
	if len(plan.made) == 0 {
		return &pb.CommandResult{StreamId: c.GetStreamId(), Current: current}
	}
	if res := d.checkPlacement(c.GetPlacement(), len(plan.children())); res != nil {
		return res
	}
	s := d.editStream(c.GetStreamId())
	s.CountChangesMs = counts
	e = d.entry(s.GetId())
	s.Status, s.TransitionAfterMs = pb.StreamStatus_STREAM_STATUS_UPDATING, c.GetTransitionAfterMs()
	s.NextShardNumber += uint32(len(plan.made))
	s.Reshard = &pb.Resharding{Parents: plan.parents, StartedMs: d.now}
	for _, p := range plan.made {
		sh := &pb.Shard{
			StreamId: s.GetId(), Number: p.number, State: pb.ShardState_SHARD_STATE_CREATING, CreatedMs: d.now,
			Range: rangeMessage(p.keys), Parents: p.parents, Version: 1,
		}
		if p.passing {
			s.Reshard.Passing = append(s.Reshard.Passing, p.number)
		} else {
			d.placeShard(sh, c.GetPlacement()[len(s.Reshard.Children)].GetNodeIds())
			s.Reshard.Children = append(s.Reshard.Children, p.number)
		}
		e.shards = append(e.shards, sh)
	}
	d.recount(e)
	return &pb.CommandResult{StreamId: s.GetId(), Current: current}
}

// recount counts the open shards of an entry that this draft made once more.
func (d *draft) recount(e *entry) {
	d.open -= e.open
	e.open = countOpen(e.stream, e.shards)
	d.open += e.open
}

// ReshardChildren gives how many placements a Reshard needs: one for each shard
// that will take records. 0 if the command would be refused or change nothing.
func (s *State) ReshardChildren(c *pb.Reshard) int {
	plan, res := s.planReshard(c)
	if res != nil {
		return 0
	}
	return len(plan.children())
}

// reshardPlan is what a reshard makes of a stream's shards.
type reshardPlan struct {
	parents []uint32 // by their ranges
	made    []*piece // by their numbers
}

func (p *reshardPlan) children() []*piece {
	return slices.DeleteFunc(slices.Clone(p.made), func(p *piece) bool { return p.passing })
}

// planReshard checks a reshard by the rules of the Kinesis API, in its order:
// state, shards, limits, arguments.
func (s *State) planReshard(c *pb.Reshard) (*reshardPlan, *pb.CommandResult) {
	e := s.entry(c.GetStreamId())
	switch {
	case e == nil:
		return nil, refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	case e.stream.GetStatus() != pb.StreamStatus_STREAM_STATUS_ACTIVE:
		return nil, wrongState(e.stream)
	case c.GetOnDemand() && e.stream.GetMode() != pb.StreamMode_STREAM_MODE_ON_DEMAND:
		return nil, wrongState(e.stream) // its mode was changed meanwhile
	case !c.GetOnDemand() && e.stream.GetMode() == pb.StreamMode_STREAM_MODE_ON_DEMAND:
		return nil, because(pb.Refusal_REFUSAL_ON_DEMAND, refuse(stream.Invalid, "stream %q is in on-demand mode", e.stream.GetName()))
	}
	var plan *reshardPlan
	var res *pb.CommandResult
	switch c.GetKind() {
	case pb.ReshardKind_RESHARD_KIND_SPLIT:
		plan, res = s.planSplit(e, c)
	case pb.ReshardKind_RESHARD_KIND_MERGE:
		plan, res = s.planMerge(e, c)
	case pb.ReshardKind_RESHARD_KIND_COUNT:
		plan, res = s.planCount(e, c)
	case pb.ReshardKind_RESHARD_KIND_LIST:
		plan, res = s.planList(e, c)
	default:
		return nil, refuse(stream.Invalid, "a reshard of kind %d", c.GetKind())
	}
	if res != nil {
		return nil, res
	}
	if len(plan.made) > math.MaxInt32-len(e.shards) { // what a shard id can hold
		return nil, refuse(stream.LimitExceeded, "stream %q has had %d shards", e.stream.GetName(), len(e.shards))
	}
	return plan, nil
}

func (s *State) planSplit(e *entry, c *pb.Reshard) (*reshardPlan, *pb.CommandResult) {
	if res := e.knows(c.GetShard()); res != nil {
		return nil, res
	}
	if res := s.checkShardQuota(1); res != nil {
		return nil, res
	}
	p := pieceOf(e.shards[c.GetShard()])
	at := stream.HashKey{Hi: c.GetSplitAtHi(), Lo: c.GetSplitAtLo()}
	// The lower half has at least two keys and so has the higher one, whatever
	// the reason of the API's is.
	if p.keys.End.Sub(p.keys.Start).Less(stream.HashKey{Lo: 2}) || !p.keys.Start.Next().Less(at) || !at.Less(p.keys.End) {
		return nil, about(c.GetShard(), because(pb.Refusal_REFUSAL_SPLIT_POINT,
			refuse(stream.Invalid, "%s can't be split at %v: its keys are %v to %v", stream.ShardName(p.number), at, p.keys.Start, p.keys.End)))
	}
	if res := e.isOpen(c.GetShard()); res != nil {
		return nil, res
	}
	r := rescaling{next: uint32(len(e.shards))}
	r.splitAt(p, at)
	return &reshardPlan{parents: []uint32{p.number}, made: r.made}, nil
}

func (s *State) planMerge(e *entry, c *pb.Reshard) (*reshardPlan, *pb.CommandResult) {
	numbers := []uint32{c.GetShard(), c.GetAdjacentShard()}
	for _, n := range numbers {
		if res := e.knows(n); res != nil {
			return nil, res
		}
	}
	for _, n := range numbers {
		if res := e.isOpen(n); res != nil {
			return nil, res
		}
	}
	low, high := pieceOf(e.shards[numbers[0]]), pieceOf(e.shards[numbers[1]])
	if !adjacent(low, high) {
		return nil, notAdjacent(low, high)
	}
	r := rescaling{next: uint32(len(e.shards))}
	r.merge(low, high)
	return &reshardPlan{parents: numbers, made: r.made}, nil
}

func adjacent(low, high *piece) bool {
	return low.keys.End != stream.MaxHashKey && low.keys.End.Next() == high.keys.Start
}

func notAdjacent(low, high *piece) *pb.CommandResult {
	return because(pb.Refusal_REFUSAL_NOT_ADJACENT,
		refuse(stream.Invalid, "%s does not begin where %s ends", stream.ShardName(high.number), stream.ShardName(low.number)))
}

func (s *State) planCount(e *entry, c *pb.Reshard) (*reshardPlan, *pb.CommandResult) {
	open := openPieces(e.shards)
	current, target := uint64(len(open)), uint64(c.GetTargetCount())
	switch {
	case target == 0:
		return nil, refuse(stream.Invalid, "a stream has at least one shard")
	case target == current:
		return &reshardPlan{}, nil
	case target > 2*current:
		return nil, figures(because(pb.Refusal_REFUSAL_ABOVE_DOUBLE,
			refuse(stream.LimitExceeded, "%d shards are more than double of %d", target, current)), current, 2*current)
	case 2*target < current:
		return nil, figures(because(pb.Refusal_REFUSAL_BELOW_HALF,
			refuse(stream.LimitExceeded, "%d shards are less than half of %d", target, current)), current, (current+1)/2)
	case target > maxShards:
		return nil, figures(because(pb.Refusal_REFUSAL_ABOVE_MAXIMUM,
			refuse(stream.LimitExceeded, "%d shards exceed the limit of %d", target, maxShards)), current, maxShards)
	}
	if target > current {
		// Every shard is split on the way; these count too.
		if res := s.checkShardQuota(current); res != nil {
			return nil, res
		}
		for _, p := range open {
			if p.keys.Start == p.keys.End {
				return nil, about(p.number, because(pb.Refusal_REFUSAL_SPLIT_POINT,
					refuse(stream.Invalid, "%s has a single hash key", stream.ShardName(p.number))))
			}
		}
	}
	plan := &reshardPlan{made: rescale(open, uint32(len(e.shards)), int(target))}
	for _, p := range open {
		if p.passing {
			plan.parents = append(plan.parents, p.number)
		}
	}
	return plan, nil
}

// knows refuses a shard that the stream never had or that has expired.
func (e *entry) knows(number uint32) *pb.CommandResult {
	if int64(number) < int64(len(e.shards)) && e.shards[number].GetState() != pb.ShardState_SHARD_STATE_EXPIRED {
		return nil
	}
	res := refuse(stream.NotFound, "stream %q has no shard %s", e.stream.GetName(), stream.ShardName(number))
	res.StreamId = e.stream.GetId()
	return about(number, because(pb.Refusal_REFUSAL_SHARD_UNKNOWN, res))
}

func (e *entry) isOpen(number uint32) *pb.CommandResult {
	if e.shards[number].GetState() == pb.ShardState_SHARD_STATE_OPEN {
		return nil
	}
	return about(number, because(pb.Refusal_REFUSAL_SHARD_NOT_OPEN,
		refuse(stream.Invalid, "%s has been split or merged already", stream.ShardName(number))))
}

// checkShardQuota refuses more shards than the account may have.
func (s *State) checkShardQuota(more uint64) *pb.CommandResult {
	limit := uint64(s.cluster.GetLimits().GetShards())
	if limit == 0 || uint64(s.open)+more <= limit {
		return nil
	}
	res := figures(refuse(stream.LimitExceeded, "%d open shards and %d more exceed the limit of %d", s.open, more, limit), uint64(s.open), limit)
	res.Additional = more
	return because(pb.Refusal_REFUSAL_SHARD_QUOTA, res)
}

func because(why pb.Refusal, res *pb.CommandResult) *pb.CommandResult {
	res.Refusal = why
	return res
}

func about(shard uint32, res *pb.CommandResult) *pb.CommandResult {
	res.Shard = shard
	return res
}
