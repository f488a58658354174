package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// setFactors changes how many replicas shards should have and how many must
// agree.
func (d *draft) setFactors(c *pb.SetFactors) *pb.CommandResult {
	items := make([]pb.ErrorKind, len(c.GetChanges()))
	for i, change := range c.GetChanges() {
		items[i] = pb.ErrorKind(d.setFactor(change))
	}
	return &pb.CommandResult{Items: items}
}

func (d *draft) setFactor(c *pb.FactorChange) stream.Kind {
	sh, kind := d.shardAt(c.GetStreamId(), c.GetShard(), c.GetVersion())
	if sh == nil {
		return kind
	}
	factor, floor := c.GetReplicationFactor(), c.GetMinInSync()
	if floor == 0 {
		floor = sh.GetMinInSync()
	}
	switch {
	case factor == 0 || floor > factor:
		return stream.Invalid
	case formed(sh) && int(floor) > len(sh.GetInSync()):
		return stream.WrongState // the floor would not hold
	case floor < 2 && factor >= 2 && len(sh.GetInSync()) >= 2 && c.GetMinInSync() != 0:
		return stream.Invalid // one disk would be enough to lose records (I1)
	case factor == sh.GetReplicationFactor() && floor == sh.GetMinInSync():
		return 0
	}
	sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
	sh.ReplicationFactor, sh.MinInSync = factor, floor
	raiseFloor(sh)
	return 0
}

// shardAt gives a shard if it still has the version that the state had before
// this command: several items may change one shard. With nil, the kind says why.
func (d *draft) shardAt(id uint64, number uint32, version uint64) (*pb.Shard, stream.Kind) {
	sh := d.Shard(id, number)
	switch {
	case sh == nil:
		return nil, stream.NotFound
	case d.before.Shard(id, number).GetVersion() != version:
		return nil, stream.Stale
	case finished(sh), d.Stream(id).GetStatus() == pb.StreamStatus_STREAM_STATUS_DELETING:
		return nil, stream.WrongState
	}
	return sh, 0
}

// moveLeaders gives leaderships to members that can take them.
func (d *draft) moveLeaders(c *pb.MoveLeaders) *pb.CommandResult {
	items := make([]pb.ErrorKind, len(c.GetMoves()))
	for i, move := range c.GetMoves() {
		items[i] = pb.ErrorKind(d.moveLeader(move))
	}
	return &pb.CommandResult{Items: items}
}

func (d *draft) moveLeader(c *pb.ReplicaChange) stream.Kind {
	sh, kind := d.shardAt(c.GetStreamId(), c.GetShard(), c.GetVersion())
	if sh == nil {
		return kind
	}
	r := replica(sh, c.GetReplicaId())
	switch {
	case r == nil:
		return stream.NotFound
	case sh.GetLeader() == r.GetId():
		return 0
	case r.GetState() != pb.ReplicaState_REPLICA_STATE_CREATED, !slices.Contains(sh.GetInSync(), r.GetId()),
		d.Broker(r.GetNodeId()).GetState() != pb.BrokerState_BROKER_STATE_LIVE:
		return stream.WrongState
	}
	sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
	sh.Leader = r.GetId()
	sh.Epoch++
	return 0
}

// addReplicas places replicas, which are no members until their node has made
// them and the shard's leader says that they have caught up (I9).
func (d *draft) addReplicas(c *pb.AddReplicas) *pb.CommandResult {
	items := make([]pb.ErrorKind, len(c.GetPlaces()))
	for i, place := range c.GetPlaces() {
		items[i] = pb.ErrorKind(d.addReplica(place))
	}
	return &pb.CommandResult{Items: items}
}

func (d *draft) addReplica(c *pb.ReplicaPlace) stream.Kind {
	sh, kind := d.shardAt(c.GetStreamId(), c.GetShard(), c.GetVersion())
	if sh == nil {
		return kind
	}
	if d.Broker(c.GetNodeId()).GetState() != pb.BrokerState_BROKER_STATE_LIVE {
		return stream.WrongState
	}
	if slices.ContainsFunc(sh.GetReplicas(), func(r *pb.Replica) bool {
		return r.GetNodeId() == c.GetNodeId() && r.GetState() != pb.ReplicaState_REPLICA_STATE_LOST
	}) {
		return stream.AlreadyExists
	}
	sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
	// Before the lost ones, so that these stay at the end.
	at := slices.IndexFunc(sh.GetReplicas(), func(r *pb.Replica) bool { return r.GetState() == pb.ReplicaState_REPLICA_STATE_LOST })
	if at < 0 {
		at = len(sh.GetReplicas())
	}
	sh.Replicas = slices.Insert(slices.Clone(sh.GetReplicas()), at, d.newReplica(c.GetNodeId()))
	return 0
}

// dropReplicas takes replicas off the list for good.
func (d *draft) dropReplicas(c *pb.DropReplicas) *pb.CommandResult {
	items := make([]pb.ErrorKind, len(c.GetReplicas()))
	for i, r := range c.GetReplicas() {
		items[i] = pb.ErrorKind(d.dropReplica(r))
	}
	return &pb.CommandResult{Items: items}
}

// dropReplica refuses what could cost records: a leader, a member at the floor
// (I1), the only copy, and of a shard that is offline any copy that may hold
// something, since an operator may have to fall back on it.
func (d *draft) dropReplica(c *pb.ReplicaChange) stream.Kind {
	sh, kind := d.shardAt(c.GetStreamId(), c.GetShard(), c.GetVersion())
	if sh == nil {
		return kind
	}
	i := replicaIndex(sh, c.GetReplicaId())
	if i < 0 {
		return stream.NotFound
	}
	r := sh.GetReplicas()[i]
	member := slices.Contains(sh.GetInSync(), r.GetId())
	empty := r.GetState() == pb.ReplicaState_REPLICA_STATE_NEW || !formed(sh)
	if r.GetId() == sh.GetLeader() || member && !aboveFloor(sh) || len(sh.GetReplicas()) == 1 || sh.GetLeader() == 0 && !empty {
		return stream.WrongState
	}
	sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
	sh.Replicas = slices.Delete(slices.Clone(sh.GetReplicas()), i, i+1)
	if member {
		setInSync(sh, without(sh.GetInSync(), r.GetId()))
	}
	d.form(sh) // if it was this one that a new shard waited for
	return 0
}
