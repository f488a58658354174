package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// replicasCreated notes replicas that are on their disk. Those that meanwhile
// ceased to exist are passed over: their node learns that from the metadata.
func (d *draft) replicasCreated(c *pb.ReplicasCreated) *pb.CommandResult {
	if res := d.checkIncarnation(c.GetNodeId(), c.GetIncarnation()); res != nil {
		return res
	}
	for _, ref := range c.GetReplicas() {
		sh, i := d.findReplica(ref)
		if sh == nil || sh.GetReplicas()[i].GetNodeId() != c.GetNodeId() ||
			sh.GetReplicas()[i].GetState() != pb.ReplicaState_REPLICA_STATE_NEW {
			continue
		}
		sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
		setReplica(sh, i, pb.ReplicaState_REPLICA_STATE_CREATED)
		d.form(sh)
		d.electOffline(d.Shard(ref.GetStreamId(), ref.GetShard()))
	}
	return &pb.CommandResult{}
}

// markSuspect takes damaged replicas out of all elections (I13). They stay in
// the in-sync set: what they are known to have counts on.
func (d *draft) markSuspect(c *pb.MarkSuspect) *pb.CommandResult {
	if res := d.checkIncarnation(c.GetNodeId(), c.GetIncarnation()); res != nil {
		return res
	}
	for _, ref := range c.GetReplicas() {
		sh, i := d.findReplica(ref)
		if sh == nil || sh.GetReplicas()[i].GetNodeId() != c.GetNodeId() ||
			sh.GetReplicas()[i].GetState() != pb.ReplicaState_REPLICA_STATE_CREATED {
			continue
		}
		sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
		setReplica(sh, i, pb.ReplicaState_REPLICA_STATE_SUSPECT)
		if sh.GetLeader() == ref.GetReplicaId() {
			d.elect(sh)
		}
	}
	return &pb.CommandResult{}
}

// acceptLoss carries out an operator's word, for all the ranges or for none.
func (d *draft) acceptLoss(c *pb.AcceptLoss) *pb.CommandResult {
	for _, lost := range c.GetRanges() {
		if sh, _ := d.findReplica(lost.GetReplica()); sh == nil {
			return refuse(stream.NotFound, "no replica %d of shard %d/%d", lost.GetReplica().GetReplicaId(),
				lost.GetReplica().GetStreamId(), lost.GetReplica().GetShard())
		}
		if lost.GetStart() > lost.GetEnd() {
			return refuse(stream.Invalid, "lost range [%d,%d) ends before it starts", lost.GetStart(), lost.GetEnd())
		}
	}
	for _, lost := range c.GetRanges() {
		sh, i := d.findReplica(lost.GetReplica())
		sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
		sh.Recoveries = append(slices.Clip(sh.GetRecoveries()), &pb.Recovery{
			AtMs: d.now, By: c.GetBy(), ReplicaId: lost.GetReplica().GetReplicaId(),
			Start: lost.GetStart(), End: lost.GetEnd(), Reason: lost.GetReason(),
		})
		if sh.GetReplicas()[i].GetState() == pb.ReplicaState_REPLICA_STATE_SUSPECT {
			setReplica(sh, i, pb.ReplicaState_REPLICA_STATE_CREATED)
		}
		d.form(sh)
		d.electOffline(d.Shard(lost.GetReplica().GetStreamId(), lost.GetReplica().GetShard()))
	}
	return &pb.CommandResult{}
}

// checkIncarnation refuses what an earlier process of the node said (I11).
func (d *draft) checkIncarnation(node string, incarnation uint64) *pb.CommandResult {
	if now := d.Broker(node).GetIncarnation(); now == 0 || now != incarnation {
		return refuse(stream.Stale, "node %q has incarnation %d, not %d", node, now, incarnation)
	}
	return nil
}

// findReplica gives the shard and the replica's position in its list; nil if
// the stream, the shard or the replica is gone.
func (d *draft) findReplica(ref *pb.ReplicaRef) (*pb.Shard, int) {
	sh := d.Shard(ref.GetStreamId(), ref.GetShard())
	for i, r := range sh.GetReplicas() {
		if r.GetId() == ref.GetReplicaId() {
			return sh, i
		}
	}
	return nil, 0
}
