package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
)

// candidate gives the replica that may lead the shard: the first in the order
// of placement that is in sync (I2), on its disk, undamaged, and on a live
// broker. 0 if there is none.
func (d *draft) candidate(sh *pb.Shard) uint64 {
	for _, r := range sh.GetReplicas() {
		if r.GetState() == pb.ReplicaState_REPLICA_STATE_CREATED && slices.Contains(sh.GetInSync(), r.GetId()) &&
			d.Broker(r.GetNodeId()).GetState() == pb.BrokerState_BROKER_STATE_LIVE {
			return r.GetId()
		}
	}
	return 0
}

// elect gives the shard its candidate as leader of a new epoch, or takes it
// offline. The shard must be one being edited. The epoch rises in both cases,
// so that the former leader's epoch is over (I4).
func (d *draft) elect(sh *pb.Shard) {
	sh.Leader = d.candidate(sh)
	sh.Epoch++
}

// finished tells that a shard takes no more records and has no leader.
func finished(sh *pb.Shard) bool {
	return sh.GetState() == pb.ShardState_SHARD_STATE_EXPIRED
}
