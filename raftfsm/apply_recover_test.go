package raftfsm

import (
	"slices"
	"testing"

	pb "shardstream/proto/shardstream/v1"
)

func recovery(sh *pb.Shard, node string, replica, incarnation uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_RecoverShard{RecoverShard: &pb.RecoverShard{
		StreamId: sh.GetStreamId(), Shard: sh.GetNumber(), Version: sh.GetVersion(), ReplicaId: replica,
		NodeId: node, Incarnation: incarnation, By: "op", Reason: "two disks burnt", LostFrom: 90, LostTo: 100,
	}}}
}

// lostTwo has a shard whose in-sync copies are gone with their disks, and a
// third that fell out of the set before.
func lostTwo(t *testing.T) (*world, uint64) {
	w := newCluster(t, "a", "b", "c")
	id := w.active("s", 1, "a", "b", "c")
	w.must(fence("c", 1))
	w.must(fence("b", 1))
	w.must(fence("a", 1))
	w.must(rejoin("a", "another", 0))
	w.must(rejoin("b", "another", 0))
	w.must(unfence("c", 1))
	w.looks(id, "[a?] [b?] [c] a! b!")
	return w, id
}

func TestRecoverShard(t *testing.T) {
	w, id := lostTwo(t)
	before := w.s.Shard(id, 0)
	old := on(before, "c").GetId()
	w.must(recovery(before, "c", old, 1))
	w.looks(id, "c* [a?] [b?]")
	sh := w.s.Shard(id, 0)
	if sh.GetEpoch() <= before.GetEpoch() || sh.GetMinInSync() != 2 || len(sh.GetInSync()) != 1 {
		t.Errorf("want a new epoch, and the floor as it was: %v", sh)
	}
	r := sh.GetRecoveries()[0]
	if r.GetBy() != "op" || r.GetReason() == "" || r.GetStart() != 90 || r.GetEnd() != 100 || r.GetReplicaId() != old || !r.GetBehindEnd() {
		t.Errorf("the record says %v", r)
	}
	for _, was := range before.GetReplicas() {
		if is := replica(sh, was.GetId()); was.GetId() != old && (is != nil || !slices.Contains(r.GetEnded(), was.GetId())) {
			t.Errorf("copy %v goes on under its id", was)
		}
	}
	// The others catch up and are whole members again.
	w.must(created("a", 2, w.refs(id, "a")...))
	sh = w.s.Shard(id, 0)
	if got := w.items(alter("c", 1, adding(inSync(sh, "c", "a"), sh, "a", 2))); got != "NONE" {
		t.Fatal(got)
	}
	w.looks(id, "c* a [b?]")
}

// A copy that the metadata counts on no more may be the best there is.
func TestRecoverShardFromACopyThatWasTakenOff(t *testing.T) {
	w, id := lostTwo(t)
	sh := w.s.Shard(id, 0)
	w.must(recovery(sh, "c", on(sh, "a").GetId()-1, 1)) // whichever, it existed
	if sh = w.s.Shard(id, 0); sh.GetLeader() != sh.GetReplicas()[0].GetId() || sh.GetReplicas()[0].GetNodeId() != "c" {
		t.Error(sh)
	}
}

func TestRecoverShardDown(t *testing.T) {
	w, id := lostTwo(t)
	w.must(fence("a", 2))
	sh := w.s.Shard(id, 0)
	w.must(recovery(sh, "c", on(sh, "c").GetId(), 1))
	w.looks(id, "c* [b?]") // a gets one when it is back
}

func TestRecoverShardDamage(t *testing.T) {
	w := newCluster(t, "a")
	id := w.active("s", 1, "a")
	w.must(suspect("a", 1, w.refs(id, "a")...))
	sh := w.s.Shard(id, 0)
	c := recovery(sh, "a", on(sh, "a").GetId(), 1)
	c.GetRecoverShard().Damage = []*pb.LostRange{{Start: 3, End: 5, Reason: "rot"}}
	w.must(c)
	w.looks(id, "a*")
	if r := w.s.Shard(id, 0).GetRecoveries(); len(r) != 2 || r[1].GetStart() != 3 || r[1].GetEnd() != 5 || r[1].GetBehindEnd() {
		t.Error(r)
	}
}

func TestRecoverShardRefused(t *testing.T) {
	w, id := lostTwo(t)
	sh := w.s.Shard(id, 0)
	c := on(sh, "c").GetId()
	for name, change := range map[string]func(*pb.RecoverShard){
		"no shard":                func(r *pb.RecoverShard) { r.Shard = 7 },
		"another version":         func(r *pb.RecoverShard) { r.Version-- },
		"another incarnation":     func(r *pb.RecoverShard) { r.Incarnation++ },
		"no broker":               func(r *pb.RecoverShard) { r.NodeId, r.Incarnation = "x", 0 },
		"on another node":         func(r *pb.RecoverShard) { r.NodeId, r.Incarnation = "a", 2 },
		"never was":               func(r *pb.RecoverShard) { r.ReplicaId = 1 << 40 },
		"a lost one":              func(r *pb.RecoverShard) { r.ReplicaId = sh.GetReplicas()[3].GetId() },
		"ends before it starts":   func(r *pb.RecoverShard) { r.LostTo = 1 },
		"damage before its start": func(r *pb.RecoverShard) { r.Damage = []*pb.LostRange{{Start: 2, End: 1}} },
	} {
		cmd := recovery(sh, "c", c, 1)
		change(cmd.GetRecoverShard())
		if res := w.do(cmd); res.GetError() == 0 {
			t.Errorf("%s: accepted", name)
		}
	}
	w.must(recovery(sh, "c", c, 1))
	now := w.s.Shard(id, 0)
	if res := w.do(recovery(now, "c", c, 1)); res.GetError() != pb.ErrorKind_ERROR_KIND_WRONG_STATE {
		t.Errorf("a shard with a leader: %v", res)
	}
	w.must(fence("c", 1))
	now = w.s.Shard(id, 0)
	if res := w.do(recovery(now, "c", c, 1)); res.GetError() != pb.ErrorKind_ERROR_KIND_WRONG_STATE {
		t.Errorf("a broker that is down: %v", res)
	}
}

func TestRebalanceIsNotedUntilItEnds(t *testing.T) {
	w := newCluster(t, "a")
	begin, end := &pb.Command{Op: &pb.Command_Rebalance{Rebalance: &pb.Rebalance{}}}, &pb.Command{Op: &pb.Command_Rebalance{Rebalance: &pb.Rebalance{End: true}}}
	w.must(end)
	w.must(begin)
	since := w.s.Cluster().GetRebalancingSinceMs()
	w.must(begin)
	if since == 0 || w.s.Cluster().GetRebalancingSinceMs() != since {
		t.Errorf("since %d, then %d", since, w.s.Cluster().GetRebalancingSinceMs())
	}
	w.must(end)
	if w.s.Cluster().GetRebalancingSinceMs() != 0 {
		t.Error("does not end")
	}
}
