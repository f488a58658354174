package raftfsm

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// checkCover checks that a stream's shards share out the hash space at every
// moment of its life, and how they descend from each other.
func checkCover(t *rapid.T, s *State, st *pb.Stream) {
	shards := s.Shards(st.GetId())
	if int(st.GetNextShardNumber()) != len(shards) {
		t.Fatalf("%d shards of %v", len(shards), st)
	}
	if st.GetReshard() != nil && st.GetStatus() != pb.StreamStatus_STREAM_STATUS_UPDATING && st.GetStatus() != pb.StreamStatus_STREAM_STATUS_DELETING {
		t.Fatalf("a reshard and a status that don't agree: %v", st)
	}
	first := func(sh *pb.Shard) bool { return len(sh.GetParents()) == 0 }
	moments := []int64{st.GetCreatedMs()}
	checkExact(t, st, shards, func(sh *pb.Shard) bool {
		switch sh.GetState() {
		case pb.ShardState_SHARD_STATE_OPEN, pb.ShardState_SHARD_STATE_SEALING:
			return true
		}
		return sh.GetState() == pb.ShardState_SHARD_STATE_CREATING && first(sh)
	})
	for _, sh := range shards {
		checkDescent(t, shards, sh)
		if sh.GetState() != pb.ShardState_SHARD_STATE_CREATING || first(sh) {
			moments = append(moments, sh.GetCreatedMs(), sh.GetCreatedMs()+1)
		}
		if sh.GetClosedMs() != 0 {
			moments = append(moments, sh.GetClosedMs(), sh.GetClosedMs()+1)
		}
	}
	slices.Sort(moments)
	for _, at := range slices.Compact(moments) {
		checkExact(t, st, shards, func(sh *pb.Shard) bool {
			exists := sh.GetState() != pb.ShardState_SHARD_STATE_CREATING || first(sh)
			closed := sh.GetState() == pb.ShardState_SHARD_STATE_CLOSED || sh.GetState() == pb.ShardState_SHARD_STATE_EXPIRED
			return exists && sh.GetCreatedMs() <= at && (!closed || sh.GetClosedMs() >= at)
		})
	}
}

// checkExact checks that the shards taken cover the hash space, none twice.
func checkExact(t *rapid.T, st *pb.Stream, shards []*pb.Shard, takes func(*pb.Shard) bool) {
	var taken []*piece
	for _, sh := range shards {
		if takes(sh) {
			taken = append(taken, pieceOf(sh))
		}
	}
	slices.SortFunc(taken, func(x, y *piece) int { return x.keys.Start.Compare(y.keys.Start) })
	next := stream.HashKey{}
	for _, p := range taken {
		if p.keys.Start != next || p.keys.End.Less(p.keys.Start) {
			t.Fatalf("shard %d of %v has %v, the one before ends before %v", p.number, st, p.keys, next)
		}
		next = p.keys.End.Next()
	}
	if len(taken) == 0 || next != (stream.HashKey{}) {
		t.Fatalf("the shards of %v do not reach the end of the hash space", st)
	}
}

func checkDescent(t *rapid.T, shards []*pb.Shard, sh *pb.Shard) {
	parents := sh.GetParents()
	if len(parents) == 0 {
		return
	}
	for _, n := range parents {
		parent := shards[n]
		if n >= sh.GetNumber() {
			t.Fatalf("a parent that came later: %v", sh)
		}
		if sh.GetState() == pb.ShardState_SHARD_STATE_CREATING {
			continue
		}
		if !parent.GetSealed() || parent.GetState() < pb.ShardState_SHARD_STATE_CLOSED {
			t.Fatalf("open before its parent was closed (I21): %v of %v", sh, parent)
		}
		if parent.GetClosedMs() >= sh.GetCreatedMs() || parent.GetCreatedMs() >= sh.GetCreatedMs() {
			t.Fatalf("made before its parent ended: %v of %v", sh, parent)
		}
		// Sequence numbers begin with the second of creation.
		if parent.GetReplicationFactor() > 0 && parent.GetCreatedMs()/1000 >= sh.GetCreatedMs()/1000 {
			t.Fatalf("made in the second of its parent: %v of %v", sh, parent)
		}
	}
	mine, low, high := pieceOf(sh).keys, pieceOf(shards[parents[0]]).keys, pieceOf(shards[parents[len(parents)-1]]).keys
	switch len(parents) {
	case 1:
		if mine.Start.Less(low.Start) || low.End.Less(mine.End) || mine == low {
			t.Fatalf("not a part of its parent: %v", sh)
		}
	case 2:
		if mine.Start != low.Start || mine.End != high.End || low.End.Next() != high.Start {
			t.Fatalf("not the whole of its parents: %v", sh)
		}
	default:
		t.Fatalf("too many parents: %v", sh)
	}
}

// checkEnds checks what a reshard must never do between two states.
func checkEnds(t *rapid.T, old, sh *pb.Shard) {
	switch {
	case sh.GetState() < old.GetState():
		t.Fatalf("a shard goes back: %v after %v", sh, old)
	case old.GetSealed() && (!sh.GetSealed() || sh.GetFinalOffset() != old.GetFinalOffset()):
		t.Fatalf("final was not final (I21): %v after %v", sh, old)
	case old.GetState() >= pb.ShardState_SHARD_STATE_CLOSED && sh.GetClosedMs() != old.GetClosedMs():
		t.Fatalf("closed twice: %v after %v", sh, old)
	case old.GetState() != pb.ShardState_SHARD_STATE_CREATING && sh.GetCreatedMs() != old.GetCreatedMs():
		t.Fatalf("made twice: %v after %v", sh, old)
	}
}

// drawReshard makes a step of a reshard, or one of a broker's end.
func drawReshard(t *rapid.T, s *State, node string, id uint64) *pb.Command {
	shards := s.Shards(id)
	var some uint32
	if len(shards) > 0 {
		some = uint32(rapid.IntRange(0, len(shards)-1).Draw(t, "shard"))
	}
	switch rapid.IntRange(0, 9).Draw(t, "reshard op") {
	case 0, 1, 2:
		c := &pb.Reshard{StreamId: id, Kind: pb.ReshardKind(rapid.IntRange(1, 3).Draw(t, "kind")), Shard: some}
		c.TransitionAfterMs = rapid.Int64Range(0, 100).Draw(t, "after")
		c.TargetCount = rapid.Uint32Range(0, 9).Draw(t, "target")
		at := stream.HashKey{}
		if len(shards) > 0 {
			keys := pieceOf(shards[some]).keys
			at = middle(keys)
			for _, p := range openPieces(shards) {
				if p.keys.Start == keys.End.Next() {
					c.AdjacentShard = p.number
				}
			}
		}
		c.SplitAtHi, c.SplitAtLo = at.Hi, at.Lo
		if s.Stream(id).GetMode() == pb.StreamMode_STREAM_MODE_ON_DEMAND {
			c = drawList(t, s, id)
		}
		nodes := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 3, rapid.ID[string]).Draw(t, "nodes")
		for range s.ReshardChildren(c) {
			c.Placement = append(c.Placement, &pb.ReplicaNodes{NodeIds: nodes})
		}
		return &pb.Command{Op: &pb.Command_Reshard{Reshard: c}}
	case 3, 4:
		return sealParents(id)
	case 5, 6:
		for _, n := range s.Stream(id).GetReshard().GetParents() {
			if !shards[n].GetSealed() {
				some = n
				break
			}
		}
		sh := s.Shard(id, some)
		leader := replica(sh, sh.GetLeader()).GetNodeId()
		return seals(leader, s.Broker(leader).GetIncarnation(), sealOf(sh, rapid.Uint64Range(0, 2).Draw(t, "final")))
	case 7:
		return expire(id, some)
	case 8:
		return drain(node)
	}
	if rapid.Bool().Draw(t, "remove") {
		return removeBroker(node, rapid.Bool().Draw(t, "forget"))
	}
	return undrain(node)
}

// drawList makes a reshard of an on-demand stream: each open shard is split,
// merged with the next one, or left alone.
func drawList(t *rapid.T, s *State, id uint64) *pb.Reshard {
	c := list(id, nil)
	open := openPieces(s.Shards(id))
	for i := 0; i < len(open); i++ {
		switch rapid.IntRange(0, 3).Draw(t, "what of a shard") {
		case 0:
			c.Splits = append(c.Splits, open[i].number)
		case 1:
			if i+1 < len(open) {
				c.Merges = append(c.Merges, &pb.ShardPair{Low: open[i].number, High: open[i+1].number})
				i++
			}
		}
	}
	return c
}

// A stream is split, merged and rescaled while its brokers die, return and are
// drained, and every reshard ends, with the hash space whole at each step.
func TestReshardProperties(tb *testing.T) {
	done := 0
	rapid.Check(tb, func(t *rapid.T) {
		nodes := []string{"a", "b", "c", "d"}
		w := newCluster(tb, nodes...)
		made := w.active
		if rapid.Bool().Draw(t, "on demand") {
			made = w.onDemand
		}
		id := made("s", rapid.IntRange(1, 5).Draw(t, "shards"), "a", "b", "c")
		history := &history{streams: id, replicas: w.s.Cluster().GetNextReplicaId() - 1}
		do := func(c *pb.Command) *pb.CommandResult {
			before := w.s
			res := w.do(c)
			checkRefusal(t, before, w.s, res)
			checkState(t, w.s)
			history.check(t, before, w.s, c)
			checkDiff(t, before, w.s)
			return res
		}
		finish := func() {
			for _, n := range nodes {
				inc := w.s.Broker(n).GetIncarnation()
				do(unfence(n, inc))
				do(created(n, inc, w.refs(id, n)...))
			}
			do(sealParents(id))
			for _, n := range w.s.Stream(id).GetReshard().GetParents() {
				sh := w.s.Shard(id, n)
				leader := replica(sh, sh.GetLeader()).GetNodeId()
				final := uint64(n)
				if sh.GetSealed() {
					final = sh.GetFinalOffset()
				}
				do(seals(leader, w.s.Broker(leader).GetIncarnation(), sealOf(sh, final)))
			}
			if st := w.s.Stream(id); st.GetStatus() != pb.StreamStatus_STREAM_STATUS_ACTIVE {
				t.Fatalf("it does not end: %v, %s, since %q", st, w.tree(id), w.s.SealWaitsFor(id))
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.now += rapid.Int64Range(0, 700).Draw(t, "time")
			node := rapid.SampledFrom(nodes).Draw(t, "node")
			inc := w.s.Broker(node).GetIncarnation()
			switch rapid.IntRange(0, 12).Draw(t, "step") {
			case 0:
				do(fence(node, inc))
			case 1:
				do(unfence(node, inc))
			case 2:
				do(rejoin(node, "disk-"+node, inc))
			case 3:
				do(created(node, inc, w.refs(id, node)...))
			case 4:
				w.now += rapid.Int64Range(0, 30*3_600_000).Draw(t, "long")
				for n := range w.s.Shards(id) {
					do(expire(id, uint32(n)))
				}
			case 5:
				finish()
			default:
				do(drawReshard(t, w.s, node, id))
			}
		}
		finish()
		done += len(w.s.Shards(id))
	})
	tb.Logf("%d shards in all", done)
}
