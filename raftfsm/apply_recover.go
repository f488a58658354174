package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// rebalance notes an operator's wish, or that it is fulfilled. What there is to
// do for it is the controller's to find out.
func (d *draft) rebalance(c *pb.Rebalance) *pb.CommandResult {
	switch since := d.cluster.GetRebalancingSinceMs(); {
	case c.GetEnd() && since != 0:
		d.editCluster().RebalancingSinceMs = 0
	case !c.GetEnd() && since == 0:
		d.editCluster().RebalancingSinceMs = max(1, d.now)
	}
	return &pb.CommandResult{}
}

// recoverShard has a shard go on with one copy, by an operator's word.
//
// It is the only command that leaves fewer members than the floor asks for. The
// floor itself stays, so that nothing is acknowledged before a second disk has
// it (I1). No other copy goes on under its id: so none is ever cut below a high
// watermark that it has shown (I7), and what was lost can still be looked for
// in it.
func (d *draft) recoverShard(c *pb.RecoverShard) *pb.CommandResult {
	sh := d.Shard(c.GetStreamId(), c.GetShard())
	if res := d.checkRecovery(sh, c); res != nil {
		return res
	}
	sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
	recovery := &pb.Recovery{
		AtMs: d.now, By: c.GetBy(), ReplicaId: c.GetReplicaId(), Start: c.GetLostFrom(), End: c.GetLostTo(), Reason: c.GetReason(), BehindEnd: true,
	}
	chosen := &pb.Replica{Id: c.GetReplicaId(), NodeId: c.GetNodeId(), State: pb.ReplicaState_REPLICA_STATE_CREATED}
	replicas := []*pb.Replica{chosen}
	placed := map[string]bool{c.GetNodeId(): true}
	for _, r := range sh.GetReplicas() {
		if r.GetId() != c.GetReplicaId() {
			recovery.Ended = append(recovery.Ended, r.GetId())
		}
		// A broker that is down gets one when it returns, or another does.
		if node := r.GetNodeId(); !placed[node] && d.Broker(node).GetState() == pb.BrokerState_BROKER_STATE_LIVE {
			placed[node] = true
			replicas = append(replicas, d.newReplica(node))
		}
	}
	sh.Replicas = replicas
	sh.InSync = []uint64{c.GetReplicaId()}
	sh.Recoveries = append(slices.Clip(sh.GetRecoveries()), recovery)
	for _, lost := range c.GetDamage() {
		sh.Recoveries = append(sh.Recoveries, &pb.Recovery{
			AtMs: d.now, By: c.GetBy(), ReplicaId: c.GetReplicaId(), Start: lost.GetStart(), End: lost.GetEnd(), Reason: lost.GetReason(),
		})
	}
	if sh.GetFinalOffset() > c.GetLostFrom() && hasEnd(sh) {
		// Readers must come to the end of a closed shard, to go on with its
		// children: so it ends where the copy does.
		sh.FinalOffset = c.GetLostFrom()
	}
	d.elect(sh)
	return &pb.CommandResult{}
}

// hasEnd tells that a shard's final offset is known.
func hasEnd(sh *pb.Shard) bool {
	return sh.GetSealed() || sh.GetState() == pb.ShardState_SHARD_STATE_CLOSED
}

// checkRecovery refuses what is not, or no longer, as the operator has seen it.
func (d *draft) checkRecovery(sh *pb.Shard, c *pb.RecoverShard) *pb.CommandResult {
	b := d.Broker(c.GetNodeId())
	listed := replica(sh, c.GetReplicaId())
	switch {
	case sh == nil:
		return refuse(stream.NotFound, "there is no shard %d of stream %d", c.GetShard(), c.GetStreamId())
	case sh.GetLeader() != 0:
		return refuse(stream.WrongState, "shard %d of stream %d has a leader: there is nothing to recover", c.GetShard(), c.GetStreamId())
	case finished(sh), !formed(sh), d.Stream(c.GetStreamId()).GetStatus() == pb.StreamStatus_STREAM_STATUS_DELETING:
		return refuse(stream.WrongState, "shard %d of stream %d holds no records", c.GetShard(), c.GetStreamId())
	case sh.GetVersion() != c.GetVersion():
		return refuse(stream.Stale, "shard %d of stream %d has changed since it was looked at: look again", c.GetShard(), c.GetStreamId())
	case b.GetIncarnation() == 0 || b.GetIncarnation() != c.GetIncarnation():
		return refuse(stream.Stale, "broker %q has restarted since it was asked: ask it again", c.GetNodeId()) // I11
	case electable(b) == 0:
		return refuse(stream.WrongState, "broker %q is %s", c.GetNodeId(), b.GetState())
	case c.GetReplicaId() == 0 || c.GetReplicaId() >= d.cluster.GetNextReplicaId():
		return refuse(stream.Invalid, "there never was a replica %d", c.GetReplicaId()) // I8
	case listed != nil && (listed.GetNodeId() != c.GetNodeId() || listed.GetState() == pb.ReplicaState_REPLICA_STATE_LOST):
		return refuse(stream.Invalid, "replica %d is not on the disk of broker %q", c.GetReplicaId(), c.GetNodeId()) // I8
	case c.GetLostFrom() > c.GetLostTo():
		return refuse(stream.Invalid, "lost range [%d,%d) ends before it starts", c.GetLostFrom(), c.GetLostTo())
	}
	for _, lost := range c.GetDamage() {
		if lost.GetStart() > lost.GetEnd() {
			return refuse(stream.Invalid, "lost range [%d,%d) ends before it starts", lost.GetStart(), lost.GetEnd())
		}
	}
	return nil
}
