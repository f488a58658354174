package raftfsm

import (
	"cmp"
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// FeatureOnDemand is the first feature level of brokers that know the commands
// by which on-demand streams are scaled, and those of consumers, policies and
// settings. A program that doesn't know a command stops at it, so none is
// proposed before every broker has this level.
const FeatureOnDemand = 3

// maxDemandPeaks bounds what a stream keeps of its demand; the oldest go first.
const maxDemandPeaks = 64

// planList checks the splits and merges by which an on-demand stream is scaled.
func (s *State) planList(e *entry, c *pb.Reshard) (*reshardPlan, *pb.CommandResult) {
	if !c.GetOnDemand() {
		return nil, refuse(stream.Invalid, "a list of splits and merges is for on-demand streams only")
	}
	open := openPieces(e.shards)
	free := make(map[uint32]*piece, len(open))
	for _, p := range open {
		free[p.number] = p
	}
	// take gives an open shard, each at most once.
	take := func(number uint32) (*piece, *pb.CommandResult) {
		if res := e.knows(number); res != nil {
			return nil, res
		}
		if res := e.isOpen(number); res != nil {
			return nil, res
		}
		p := free[number]
		if p == nil {
			return nil, about(number, refuse(stream.Invalid, "%s is named twice", stream.ShardName(number)))
		}
		delete(free, number)
		return p, nil
	}
	r := rescaling{next: uint32(len(e.shards))}
	for _, number := range c.GetSplits() {
		p, res := take(number)
		if res != nil {
			return nil, res
		}
		if p.keys.Start == p.keys.End {
			return nil, about(number, because(pb.Refusal_REFUSAL_SPLIT_POINT, refuse(stream.Invalid, "%s has a single hash key", stream.ShardName(number))))
		}
		r.split(p)
	}
	for _, pair := range c.GetMerges() {
		low, res := take(pair.GetLow())
		if res != nil {
			return nil, res
		}
		high, res := take(pair.GetHigh())
		if res != nil {
			return nil, res
		}
		if !adjacent(low, high) {
			return nil, notAdjacent(low, high)
		}
		r.merge(low, high)
	}
	more := len(c.GetSplits()) - len(c.GetMerges())
	if total := len(open) + more; more > 0 && total > maxShards {
		return nil, figures(because(pb.Refusal_REFUSAL_ABOVE_MAXIMUM,
			refuse(stream.LimitExceeded, "%d shards exceed the limit of %d", total, maxShards)), uint64(len(open)), maxShards)
	}
	if more > 0 {
		if res := s.checkShardQuota(uint64(more)); res != nil {
			return nil, res
		}
	}
	plan := &reshardPlan{made: r.made}
	for _, p := range open {
		if p.passing {
			plan.parents = append(plan.parents, p.number)
		}
	}
	return plan, nil
}

// noteDemand records peaks of on-demand streams. A note for a stream that is
// gone or has another mode by now is no error of the command.
func (d *draft) noteDemand(c *pb.NoteDemand) *pb.CommandResult {
	for _, note := range c.GetNotes() {
		s := d.Stream(note.GetStreamId())
		if s.GetMode() != pb.StreamMode_STREAM_MODE_ON_DEMAND || s.GetStatus() == pb.StreamStatus_STREAM_STATUS_DELETING || note.GetPeak() == nil {
			continue
		}
		d.editStream(s.GetId()).DemandPeaks = withPeak(s.GetDemandPeaks(), note.GetPeak(), note.GetForgetBeforeMs())
	}
	return &pb.CommandResult{}
}

// withPeak gives a new list in which a peak is at least the given one, without
// those that are to be forgotten.
func withPeak(old []*pb.DemandPeak, peak *pb.DemandPeak, forgetBeforeMs int64) []*pb.DemandPeak {
	kept := make([]*pb.DemandPeak, 0, len(old)+1)
	for _, p := range old {
		switch {
		case p.GetFromMs() == peak.GetFromMs():
			peak = &pb.DemandPeak{
				FromMs: peak.GetFromMs(), Demand: max(p.GetDemand(), peak.GetDemand()), Shards: max(p.GetShards(), peak.GetShards()),
			}
		case p.GetFromMs() >= forgetBeforeMs:
			kept = append(kept, p)
		}
	}
	kept = append(kept, peak)
	slices.SortFunc(kept, func(a, b *pb.DemandPeak) int { return cmp.Compare(a.GetFromMs(), b.GetFromMs()) })
	return kept[max(0, len(kept)-maxDemandPeaks):]
}
