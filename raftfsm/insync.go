package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
)

// setInSync gives the shard, which must be one being edited, another in-sync
// set. A lost copy stands in the list only as long as it is in that set. Once
// there are two members, one disk less may never again be enough (I1).
func setInSync(sh *pb.Shard, ids []uint64) {
	sh.InSync = ids
	lost := func(r *pb.Replica) bool {
		return r.GetState() == pb.ReplicaState_REPLICA_STATE_LOST && !slices.Contains(ids, r.GetId())
	}
	if slices.ContainsFunc(sh.GetReplicas(), lost) {
		sh.Replicas = slices.DeleteFunc(slices.Clone(sh.GetReplicas()), lost)
	}
	raiseFloor(sh)
}

func raiseFloor(sh *pb.Shard) {
	if len(sh.GetInSync()) >= 2 && sh.GetMinInSync() < 2 && sh.GetReplicationFactor() >= 2 {
		sh.MinInSync = 2
	}
}

// aboveFloor tells that the in-sync set can do without one of its members. The
// floor is strict (I1): a dead member at the floor stays until it is swapped.
func aboveFloor(sh *pb.Shard) bool { return len(sh.GetInSync()) > int(sh.GetMinInSync()) }

// shrink takes the node's copies out of the in-sync set of a shard being
// edited, as many as the floor allows: those whose disk is gone first.
func shrink(sh *pb.Shard, node string) {
	for _, lostOnes := range []bool{true, false} {
		for _, r := range sh.GetReplicas() {
			lost := r.GetState() == pb.ReplicaState_REPLICA_STATE_LOST
			if r.GetNodeId() == node && lost == lostOnes && aboveFloor(sh) && slices.Contains(sh.GetInSync(), r.GetId()) {
				setInSync(sh, without(sh.GetInSync(), r.GetId()))
			}
		}
	}
}

func without(ids []uint64, id uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(ids), func(other uint64) bool { return other == id })
}

// inSyncOn tells whether a copy on the node is in sync.
func inSyncOn(sh *pb.Shard, node string) bool {
	return slices.ContainsFunc(sh.GetReplicas(), func(r *pb.Replica) bool {
		return r.GetNodeId() == node && slices.Contains(sh.GetInSync(), r.GetId())
	})
}

// replica gives one of the shard's replicas, nil if it has none of that id.
func replica(sh *pb.Shard, id uint64) *pb.Replica {
	if i := replicaIndex(sh, id); i >= 0 {
		return sh.GetReplicas()[i]
	}
	return nil
}

func replicaIndex(sh *pb.Shard, id uint64) int {
	return slices.IndexFunc(sh.GetReplicas(), func(r *pb.Replica) bool { return r.GetId() == id })
}
