package raftfsm

import (
	"fmt"
	"strings"
	"testing"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func TestSplit(t *testing.T) {
	w := newCluster(t, "a", "b", "c")
	id := w.active("s", 2, "a", "b", "c")
	w.now = 1500
	at := stream.HashKey{Hi: 7}
	c := w.placed(split(id, 0, at), "b", "c", "a")
	c.GetReshard().TransitionAfterMs = 2000
	res := w.must(c)
	if res.GetCurrent() != 2 || res.GetStreamId() != id {
		t.Errorf("result %v", res)
	}
	if got := w.tree(id); got != "0 open; 1 open; 2<0 creating; 3<0 creating" {
		t.Error(got)
	}
	st := w.s.Stream(id)
	re := st.GetReshard()
	if st.GetStatus() != pb.StreamStatus_STREAM_STATUS_UPDATING || st.GetNextShardNumber() != 4 || w.s.OpenShards() != 4 ||
		fmt.Sprint(re.GetParents(), re.GetChildren(), re.GetPassing(), re.GetStartedMs()) != "[0] [2 3] [] 1500" {
		t.Errorf("stream %v, %d open", st, w.s.OpenShards())
	}
	for _, other := range []*pb.Reshard{split(id, 1, stream.HashKey{Hi: 1 << 63, Lo: 7}), merge(id, 0, 1), count(id, 3)} {
		if res := w.refuses(stream.WrongState, w.placed(other)); res.GetStatus() != pb.StreamStatus_STREAM_STATUS_UPDATING {
			t.Errorf("a second reshard: %v", res)
		}
	}
	w.refuses(stream.WrongState, retention(id, 48, true))

	// Nothing is sealed before every child can lead and the time has come.
	w.now = 2500
	res = w.refuses(stream.WrongState, sealParents(id))
	if !strings.Contains(res.GetDetail(), "shardId-000000000002 waits for a replica on b") {
		t.Error(res)
	}
	w.now = 1700
	w.createdAll(id)
	w.refuses(stream.WrongState, sealParents(id))
	w.now = 2000
	w.must(fence("a", 1))
	w.must(fence("b", 1))
	w.must(fence("c", 1))
	if res := w.refuses(stream.WrongState, sealParents(id)); !strings.Contains(res.GetDetail(), "has no leader") {
		t.Error(res)
	}
	w.must(unfence("a", 1))
	w.must(unfence("b", 1))
	w.must(unfence("c", 1))
	parent := w.s.Shard(id, 0)
	leader := replica(parent, parent.GetLeader()).GetNodeId()
	if got := w.items(seals(leader, 1, sealOf(parent, 10))); got != "WRONG_STATE" {
		t.Errorf("the seal of an open shard: %s", got)
	}
	w.must(sealParents(id))
	sealing := w.s.Shard(id, 0)
	if sealing.GetState() != pb.ShardState_SHARD_STATE_SEALING || sealing.GetVersion() != parent.GetVersion()+1 || sealing.GetEpoch() != parent.GetEpoch() {
		t.Errorf("sealing: %v after %v", sealing, parent)
	}
	if w.s.Shard(id, 1).GetState() != pb.ShardState_SHARD_STATE_OPEN {
		t.Error("a shard that has no part in it is sealed")
	}
	w.must(sealParents(id))
	if w.s.Shard(id, 0) != sealing {
		t.Error("a repeat changes something")
	}
}

// A child that can't lead would make writes wait, so its parents aren't sealed.
func TestSealWaitsForEachChild(t *testing.T) {
	w := newCluster(t, "a", "b")
	id := w.active("s", 1, "a")
	w.must(w.placed(count(id, 2), "b"))
	w.createdAll(id)
	w.must(fence("b", 1))
	if res := w.refuses(stream.WrongState, sealParents(id)); !strings.Contains(res.GetDetail(), "shardId-000000000001 has no leader") {
		t.Error(res)
	}
	w.must(unfence("b", 1))
	w.must(fence("a", 1))
	if res := w.refuses(stream.WrongState, sealParents(id)); !strings.Contains(res.GetDetail(), "shardId-000000000000 has no leader") {
		t.Error(res)
	}
	w.must(unfence("a", 1))
	w.must(sealParents(id))
}

// Who seals must lead the shard in this epoch, and know it as it is.
func TestSealIsACompareAndSet(t *testing.T) {
	w := newCluster(t, "a", "b", "c")
	id := w.active("s", 2, "a", "b", "c")
	w.must(w.placed(merge(id, 0, 1), "c", "a"))
	w.createdAll(id)
	w.must(sealParents(id))
	sh := w.s.Shard(id, 0)
	stale := func(change func(*pb.Seal)) *pb.Seal {
		s := sealOf(sh, 10)
		change(s)
		return s
	}
	w.refuses(stream.Stale, seals("a", 9, sealOf(sh, 10)))
	before := w.s.Shard(id, 0)
	got := w.items(seals("a", 1,
		stale(func(s *pb.Seal) { s.Epoch-- }), stale(func(s *pb.Seal) { s.Version-- }), stale(func(s *pb.Seal) { s.Version++ }),
		stale(func(s *pb.Seal) { s.StreamId = 99 }), stale(func(s *pb.Seal) { s.Shard = 99 }), stale(func(s *pb.Seal) { s.Shard = 2 })))
	if got != "STALE STALE STALE NOT_FOUND NOT_FOUND WRONG_STATE" {
		t.Error(got)
	}
	if got := w.items(seals("b", 1, sealOf(sh, 10))); got != "STALE" {
		t.Errorf("of a follower: %s", got)
	}
	if w.s.Shard(id, 0) != before {
		t.Error("a refused item changed the shard")
	}

	// The leader dies; the next one goes on.
	w.must(fence("a", 1))
	if got := w.items(seals("a", 1, sealOf(sh, 10))); got != "STALE" {
		t.Errorf("of the former leader: %s", got)
	}
	w.now = 5000
	sh = w.s.Shard(id, 0)
	if got := w.items(seals("b", 1, sealOf(sh, 12))); got != "NONE" {
		t.Error(got)
	}
	sealed := w.s.Shard(id, 0)
	if !sealed.GetSealed() || sealed.GetFinalOffset() != 12 || sealed.GetState() != pb.ShardState_SHARD_STATE_SEALING || sealed.GetVersion() != sh.GetVersion()+1 {
		t.Errorf("sealed: %v", sealed)
	}
	if got := w.items(seals("b", 1, sealOf(sh, 12), sealOf(sealed, 13))); got != "NONE STALE" || w.s.Shard(id, 0) != sealed {
		t.Errorf("repeats: %s", got)
	}
	if got := w.tree(id); got != "0 sealing; 1 sealing; 2<0,1 creating" {
		t.Error(got)
	}

	// The last one changes everything over.
	w.now = 7300
	w.sealOne(id, 1)
	if got := w.tree(id); got != "0 closed; 1 closed; 2<0,1 open" {
		t.Error(got)
	}
	for n, final := range []uint64{12, 1} {
		if sh := w.s.Shard(id, uint32(n)); sh.GetClosedMs() != 7299 || sh.GetFinalOffset() != final || sh.GetLeader() == 0 {
			t.Errorf("closed: %v", sh)
		}
	}
	st := w.s.Stream(id)
	if child := w.s.Shard(id, 2); child.GetCreatedMs() != 7300 || w.s.OpenShards() != 1 ||
		st.GetStatus() != pb.StreamStatus_STREAM_STATUS_ACTIVE || st.GetReshard() != nil || st.GetTransitionAfterMs() != 0 {
		t.Errorf("child %v of %v", child, st)
	}
	if got := w.items(seals("b", 1, sealOf(sh, 12))); got != "NONE" {
		t.Errorf("a repeat after the end: %s", got)
	}
	w.refuses(stream.WrongState, sealParents(id))
}

// Sequence numbers begin with the second in which their shard was made, so
// children made in that of their parents would sort before them.
func TestChildrenOfAYoungShard(t *testing.T) {
	w := newCluster(t, "a")
	w.now = 5400
	id := w.active("s", 1, "a")
	w.now = 5600
	w.resharded(count(id, 2), "a")
	if p, c := w.s.Shard(id, 0), w.s.Shard(id, 1); p.GetClosedMs() != 5999 || c.GetCreatedMs() != 6000 || w.s.now() != 6000 {
		t.Errorf("parent %v, child %v, time %d", p, c, w.s.now())
	}
	w.now = 5700 // the clock has not reached the cluster's time
	w.resharded(merge(id, 1, 2), "a")
	if c := w.s.Shard(id, 3); c.GetCreatedMs() != 7000 {
		t.Errorf("child %v", c)
	}
}

func TestReshardRefusals(t *testing.T) {
	w := newCluster(t, "a")
	id := w.active("s", 4, "a")
	w.resharded(split(id, 3, middle(pieceOf(w.s.Shard(id, 3)).keys)), "a") // 3 becomes 4 and 5
	demand := create("d", 1, "a")
	demand.GetCreateStream().Mode = pb.StreamMode_STREAM_MODE_ON_DEMAND
	onDemand := w.must(demand).GetStreamId()
	w.refuses(stream.WrongState, w.placed(split(onDemand, 0, stream.HashKey{Hi: 5})))
	w.createdAll(onDemand)
	w.must(activate(onDemand))
	one := pieceOf(w.s.Shard(id, 1)).keys
	after := func(k stream.HashKey, n uint64) stream.HashKey { return k.Add(stream.HashKey{Lo: n}) }
	for name, test := range map[string]struct {
		c       *pb.Reshard
		kind    stream.Kind
		refusal pb.Refusal
		figures string // shard, current, limit
	}{
		"no stream":         {split(99, 0, stream.HashKey{Hi: 1}), stream.NotFound, 0, "0 0 0"},
		"no kind":           {&pb.Reshard{StreamId: id}, stream.Invalid, 0, "0 0 0"},
		"on demand":         {count(onDemand, 2), stream.Invalid, pb.Refusal_REFUSAL_ON_DEMAND, "0 0 0"},
		"split unknown":     {split(id, 6, one.Start), stream.NotFound, pb.Refusal_REFUSAL_SHARD_UNKNOWN, "6 0 0"},
		"split closed":      {split(id, 3, stream.HashKey{Hi: 0xd << 60}), stream.Invalid, pb.Refusal_REFUSAL_SHARD_NOT_OPEN, "3 0 0"},
		"split at start":    {split(id, 1, one.Start), stream.Invalid, pb.Refusal_REFUSAL_SPLIT_POINT, "1 0 0"},
		"split at start +1": {split(id, 1, after(one.Start, 1)), stream.Invalid, pb.Refusal_REFUSAL_SPLIT_POINT, "1 0 0"},
		"split at end":      {split(id, 1, one.End), stream.Invalid, pb.Refusal_REFUSAL_SPLIT_POINT, "1 0 0"},
		"split elsewhere":   {split(id, 1, stream.HashKey{Hi: 1}), stream.Invalid, pb.Refusal_REFUSAL_SPLIT_POINT, "1 0 0"},
		"merge unknown":     {merge(id, 1, 9), stream.NotFound, pb.Refusal_REFUSAL_SHARD_UNKNOWN, "9 0 0"},
		"merge closed":      {merge(id, 2, 3), stream.Invalid, pb.Refusal_REFUSAL_SHARD_NOT_OPEN, "3 0 0"},
		"merge inverted":    {merge(id, 2, 1), stream.Invalid, pb.Refusal_REFUSAL_NOT_ADJACENT, "0 0 0"},
		"merge distant":     {merge(id, 0, 2), stream.Invalid, pb.Refusal_REFUSAL_NOT_ADJACENT, "0 0 0"},
		"merge with itself": {merge(id, 1, 1), stream.Invalid, pb.Refusal_REFUSAL_NOT_ADJACENT, "0 0 0"},
		"merge around":      {merge(id, 5, 0), stream.Invalid, pb.Refusal_REFUSAL_NOT_ADJACENT, "0 0 0"},
		"to none":           {count(id, 0), stream.Invalid, 0, "0 0 0"},
		"above double":      {count(id, 11), stream.LimitExceeded, pb.Refusal_REFUSAL_ABOVE_DOUBLE, "0 5 10"},
		"below half":        {count(id, 2), stream.LimitExceeded, pb.Refusal_REFUSAL_BELOW_HALF, "0 5 3"},
	} {
		t.Run(name, func(t *testing.T) {
			res := w.refuses(test.kind, w.placed(test.c))
			if got := fmt.Sprint(res.GetShard(), res.GetCurrent(), res.GetLimit()); res.GetRefusal() != test.refusal || got != test.figures {
				t.Errorf("%v: %s", res, got)
			}
		})
	}
	for name, c := range map[string]*pb.Reshard{"two keys below": split(id, 1, after(one.Start, 2)), "two keys above": split(id, 1, one.End.Prev())} {
		if w.s.ReshardChildren(c) != 2 {
			t.Errorf("%s: refused", name)
		}
	}
	same := w.s
	if res := w.must(w.placed(count(id, 5))); res.GetCurrent() != 5 || w.s.Stream(id) != same.Stream(id) {
		t.Errorf("to as many as there are: %v", res)
	}
	w.refuses(stream.Invalid, &pb.Command{Op: &pb.Command_Reshard{Reshard: count(id, 6)}}) // without placement
	w.refuses(stream.Stale, w.placed(count(id, 6), "nobody"))
	w.must(deleteName("s", 0))
	w.refuses(stream.WrongState, w.placed(count(id, 6), "a"))
}

func TestReshardQuota(t *testing.T) {
	w := &world{tb: t, s: NewState(), now: 1000}
	w.must(initCmd(&pb.Limits{Shards: 8}))
	w.must(rejoin("a", "disk-a", 0))
	id := w.active("s", 4, "a")
	w.active("other", 3, "a")
	// 4 to 5 goes through 8, which are 4 more.
	res := w.refuses(stream.LimitExceeded, w.placed(count(id, 5)))
	if got := fmt.Sprint(res.GetRefusal(), res.GetCurrent(), res.GetLimit(), res.GetAdditional()); got != "REFUSAL_SHARD_QUOTA 7 8 4" {
		t.Error(got)
	}
	w.resharded(split(id, 0, stream.HashKey{Hi: 9}), "a")
	res = w.refuses(stream.LimitExceeded, w.placed(split(id, 1, stream.HashKey{})))
	if got := fmt.Sprint(res.GetRefusal(), res.GetCurrent(), res.GetLimit(), res.GetAdditional()); got != "REFUSAL_SHARD_QUOTA 8 8 1" {
		t.Error(got)
	}
	w.resharded(count(id, 3), "a")
	if w.s.OpenShards() != 6 {
		t.Errorf("%d open", w.s.OpenShards())
	}
}

func TestUpdateShardCountLimit(t *testing.T) {
	w := newCluster(t, "a")
	id := w.active("s", 6000, "a")
	res := w.refuses(stream.LimitExceeded, w.placed(count(id, 10_001)))
	if res.GetRefusal() != pb.Refusal_REFUSAL_ABOVE_MAXIMUM || res.GetCurrent() != 6000 || res.GetLimit() != 10_000 {
		t.Error(res)
	}
	w.resharded(count(id, 10_000), "a")
	if len(w.s.Shards(id)) != 6000+12_000+2000 || w.s.OpenShards() != 10_000 {
		t.Errorf("%d shards, %d open", len(w.s.Shards(id)), w.s.OpenShards())
	}
}

// The figures are those that others have seen on AWS.
func TestUpdateShardCount(t *testing.T) {
	for _, test := range []struct{ from, to, all int }{
		{1, 2, 3}, {2, 4, 6}, {4, 5, 15}, {10, 13, 37}, {4, 2, 6}, {5, 3, 7}, {2, 1, 3}, {3, 2, 4}, {8, 5, 11}, {7, 14, 21},
	} {
		w := newCluster(t, "a")
		id := w.active("s", test.from, "a")
		w.now = 3000
		w.resharded(count(id, uint32(test.to)), "a")
		open := openPieces(w.s.Shards(id))
		if len(open) != test.to || len(w.s.Shards(id)) != test.all || w.s.OpenShards() != test.to {
			t.Errorf("%d to %d: %d shards, %d open", test.from, test.to, len(w.s.Shards(id)), len(open))
		}
		widths := map[stream.HashKey]bool{}
		for _, p := range open {
			// The last shard takes what is left over of the division.
			w := p.keys.End.Sub(p.keys.Start).Add(stream.HashKey{Lo: 1 << 32})
			widths[stream.HashKey{Hi: w.Hi}] = true
		}
		if len(widths) > 2 || 2*test.from == test.to && len(widths) > 1 {
			t.Errorf("%d to %d: %d different widths", test.from, test.to, len(widths))
		}
	}
}

func TestPassingShards(t *testing.T) {
	w := newCluster(t, "a")
	id := w.active("s", 2, "a")
	w.now = 3000
	w.must(w.placed(count(id, 3), "a"))
	// Each is split, then the halves in the middle are merged.
	if got := w.tree(id); got != "0 open; 1 open; 2<0 creating; 3<0 creating; 4<1 creating; 5<1 creating; 6<3,4 creating" {
		t.Error(got)
	}
	re := w.s.Stream(id).GetReshard()
	if got := fmt.Sprint(re.GetParents(), re.GetChildren(), re.GetPassing()); got != "[0 1] [2 5 6] [3 4]" {
		t.Error(got)
	}
	if sh := w.s.Shard(id, 3); len(sh.GetReplicas()) != 0 {
		t.Errorf("replicas of a shard that never takes a record: %v", sh)
	}
	place := placeOn(w.s.Shard(id, 3), "a")
	if got := w.items(add(place)); got != "WRONG_STATE" {
		t.Errorf("and it may get one: %s", got)
	}
	w.createdAll(id)
	w.must(sealParents(id))
	w.sealAll(id)
	if got := w.tree(id); got != "0 closed; 1 closed; 2<0 open; 3<0 closed; 4<1 closed; 5<1 open; 6<3,4 open" {
		t.Error(got)
	}
	for n, want := range []string{"1000-2999", "1000-2999", "3000-0", "3000-3000", "3000-3000", "3000-0", "3001-0"} {
		sh := w.s.Shard(id, uint32(n))
		if got := fmt.Sprint(sh.GetCreatedMs(), "-", sh.GetClosedMs()); got != want {
			t.Errorf("shard %d: %s, want %s", n, got, want)
		}
	}
	if w.s.now() != 3001 {
		t.Errorf("time %d", w.s.now())
	}
}

func TestExpireShards(t *testing.T) {
	w := newCluster(t, "a", "b")
	id := w.active("s", 1, "a", "b")
	w.now = 5000
	w.resharded(count(id, 2), "a", "b")
	closed := w.s.Shard(id, 0)
	due := closed.GetClosedMs() + 24*3_600_000
	w.now = due
	if got := w.items(expire(id, 0, 1, 9)); got != "WRONG_STATE WRONG_STATE NOT_FOUND" || w.s.Shard(id, 0) != closed {
		t.Error(got)
	}
	w.must(retention(id, 48, true))
	w.now = due + 1
	if got := w.items(expire(id, 0)); got != "WRONG_STATE" {
		t.Error(got)
	}
	w.must(retention(id, 24, false))
	if got := w.items(expire(id, 0)); got != "NONE" {
		t.Error(got)
	}
	sh := w.s.Shard(id, 0)
	if sh.GetState() != pb.ShardState_SHARD_STATE_EXPIRED || len(sh.GetReplicas()) != 0 || len(sh.GetInSync()) != 0 || sh.GetLeader() != 0 ||
		sh.GetEpoch() <= closed.GetEpoch() || sh.GetVersion() <= closed.GetVersion() || sh.GetFinalOffset() != closed.GetFinalOffset() {
		t.Errorf("expired: %v after %v", sh, closed)
	}
	if got := w.items(expire(id, 0)); got != "NONE" || w.s.Shard(id, 0) != sh {
		t.Errorf("a repeat: %s", got)
	}
	if res := w.refuses(stream.NotFound, w.placed(split(id, 0, stream.HashKey{Hi: 9}))); res.GetRefusal() != pb.Refusal_REFUSAL_SHARD_UNKNOWN {
		t.Errorf("split of an expired shard: %v", res)
	}
	w.must(w.placed(count(id, 1), "a"))
	if w.s.Shard(id, 3).GetParents()[0] != 1 {
		t.Errorf("numbers: %s", w.tree(id))
	}
	w.must(deleteID(id))
	w.refuses(stream.WrongState, expire(id, 0))
	w.refuses(stream.WrongState, sealParents(id))
	w.refuses(stream.NotFound, expire(99, 0))
	w.refuses(stream.NotFound, sealParents(99))
}

// A stream that is deleted in the middle of a reshard ends as any other.
func TestDeleteWhileResharding(t *testing.T) {
	w := newCluster(t, "a")
	id := w.active("s", 2, "a")
	w.must(w.placed(merge(id, 0, 1), "a"))
	w.createdAll(id)
	w.must(sealParents(id))
	w.sealOne(id, 0)
	w.must(deleteID(id))
	if w.s.OpenShards() != 0 {
		t.Errorf("%d open", w.s.OpenShards())
	}
	if got := w.items(seals("a", 1, sealOf(w.s.Shard(id, 1), 3))); got != "WRONG_STATE" {
		t.Error(got)
	}
	w.must(remove(id))
	if w.s.Stream(id) != nil || w.s.OpenShards() != 0 {
		t.Error("it is still there")
	}
}
