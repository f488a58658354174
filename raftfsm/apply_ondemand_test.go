package raftfsm

import (
	"fmt"
	"testing"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// onDemand is an active on-demand stream.
func (w *world) onDemand(name string, shards int, nodes ...string) uint64 {
	w.tb.Helper()
	c := create(name, shards, nodes...)
	c.GetCreateStream().Mode = pb.StreamMode_STREAM_MODE_ON_DEMAND
	id := w.must(c).GetStreamId()
	w.createdAll(id)
	w.must(activate(id))
	return id
}

// list is a reshard with these splits, and merges of a shard and its neighbour.
func list(id uint64, splits []uint32, merges ...[2]uint32) *pb.Reshard {
	c := &pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_LIST, OnDemand: true, Splits: splits}
	for _, m := range merges {
		c.Merges = append(c.Merges, &pb.ShardPair{Low: m[0], High: m[1]})
	}
	return c
}

// Several shards of one stream are split and merged by one reshard; the others
// take no notice of it.
func TestReshardList(t *testing.T) {
	w := newCluster(t, "a")
	id := w.onDemand("d", 6, "a")
	before := w.s.Shard(id, 5)
	w.resharded(list(id, []uint32{3, 0}, [2]uint32{1, 2}), "a")
	want := "0 closed; 1 closed; 2 closed; 3 closed; 4 open; 5 open; 6<3 open; 7<3 open; 8<0 open; 9<0 open; 10<1,2 open"
	if got := w.tree(id); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if w.s.Shard(id, 5) != before {
		t.Errorf("a shard that is in no split or merge was changed: %v", w.s.Shard(id, 5))
	}
	low, high, parent := pieceOf(w.s.Shard(id, 8)).keys, pieceOf(w.s.Shard(id, 9)).keys, pieceOf(w.s.Shard(id, 0)).keys
	if low.Start != parent.Start || high.Start != middle(parent) || high.End != parent.End {
		t.Errorf("%v and %v of %v", low, high, parent)
	}
}

func TestReshardListRefusals(t *testing.T) {
	w := &world{tb: t, s: NewState(), now: 1000}
	w.must(initCmd(&pb.Limits{Shards: 11}))
	w.must(rejoin("a", "disk-a", 0))
	id := w.onDemand("d", 4, "a")
	w.resharded(list(id, []uint32{3}), "a") // 3 becomes 4 and 5
	provisioned := w.active("p", 4, "a")
	byCaller := list(id, []uint32{0})
	byCaller.OnDemand = false
	provisionedList := list(provisioned, []uint32{0})
	provisionedList.OnDemand = false
	for name, test := range map[string]struct {
		c       *pb.Reshard
		kind    stream.Kind
		refusal pb.Refusal
		figures string // shard, current, limit, additional
	}{
		"not by the controller": {byCaller, stream.Invalid, pb.Refusal_REFUSAL_ON_DEMAND, "0 0 0 0"},
		"provisioned":           {list(provisioned, []uint32{0}), stream.WrongState, 0, "0 0 0 0"},
		"provisioned, a caller": {provisionedList, stream.Invalid, 0, "0 0 0 0"},
		"split unknown":         {list(id, []uint32{6}), stream.NotFound, pb.Refusal_REFUSAL_SHARD_UNKNOWN, "6 0 0 0"},
		"split closed":          {list(id, []uint32{3}), stream.Invalid, pb.Refusal_REFUSAL_SHARD_NOT_OPEN, "3 0 0 0"},
		"split twice":           {list(id, []uint32{1, 1}), stream.Invalid, 0, "1 0 0 0"},
		"split and merged":      {list(id, []uint32{1}, [2]uint32{0, 1}), stream.Invalid, 0, "1 0 0 0"},
		"merged with itself":    {list(id, nil, [2]uint32{1, 1}), stream.Invalid, 0, "1 0 0 0"},
		"merged twice":          {list(id, nil, [2]uint32{0, 1}, [2]uint32{1, 2}), stream.Invalid, 0, "1 0 0 0"},
		"merged, distant":       {list(id, nil, [2]uint32{0, 2}), stream.Invalid, pb.Refusal_REFUSAL_NOT_ADJACENT, "0 0 0 0"},
		"above the quota":       {list(id, []uint32{0, 1, 2}), stream.LimitExceeded, pb.Refusal_REFUSAL_SHARD_QUOTA, "0 9 11 3"},
	} {
		t.Run(name, func(t *testing.T) {
			res := w.refuses(test.kind, w.placed(test.c))
			if got := fmt.Sprint(res.GetShard(), res.GetCurrent(), res.GetLimit(), res.GetAdditional()); res.GetRefusal() != test.refusal || got != test.figures {
				t.Errorf("%v: %s", res, got)
			}
		})
	}
	same := w.s.Stream(id)
	if w.must(w.placed(list(id, nil))); w.s.Stream(id) != same {
		t.Error("an empty list changed the stream")
	}
	if n := w.s.ReshardChildren(list(id, []uint32{0, 1, 2}, [2]uint32{4, 5})); n != 7 {
		t.Errorf("%d children of three splits and a merge within the quota", n)
	}
}

func TestNoteDemand(t *testing.T) {
	w := newCluster(t, "a")
	id := w.onDemand("d", 4, "a")
	provisioned := w.active("p", 1, "a")
	note := func(id uint64, from int64, demand uint64, shards uint32, forget int64) {
		t.Helper()
		w.must(&pb.Command{Op: &pb.Command_NoteDemand{NoteDemand: &pb.NoteDemand{Notes: []*pb.DemandNote{
			{StreamId: id, Peak: &pb.DemandPeak{FromMs: from, Demand: demand, Shards: shards}, ForgetBeforeMs: forget},
		}}}})
	}
	peaks := func(id uint64) (s string) {
		for _, p := range w.s.Stream(id).GetDemandPeaks() {
			s += fmt.Sprintf("%d:%d/%d ", p.GetFromMs(), p.GetDemand(), p.GetShards())
		}
		return s
	}
	note(id, 100, 5, 2, 0)
	note(id, 200, 9, 1, 0)
	note(id, 100, 7, 1, 0) // rises, never falls
	if got := peaks(id); got != "100:7/2 200:9/1 " {
		t.Error(got)
	}
	w.must(&pb.Command{Op: &pb.Command_AddTags{AddTags: &pb.AddTags{StreamId: id, Tags: map[string]string{"k": "v"}, Limit: 50}}}) // keeps them
	note(id, 300, 1, 1, 150)
	if got := peaks(id); got != "200:9/1 300:1/1 " {
		t.Error(got)
	}
	note(provisioned, 100, 5, 2, 0)
	note(99, 100, 5, 2, 0)
	if got := peaks(provisioned); got != "" {
		t.Error(got)
	}
	for i := range int64(200) {
		note(id, 1000+i, 1, 1, 0)
	}
	if got := w.s.Stream(id).GetDemandPeaks(); len(got) != maxDemandPeaks || got[0].GetFromMs() != 1200-maxDemandPeaks {
		t.Errorf("%d peaks, from %v on", len(got), got[0])
	}
}
