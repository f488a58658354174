package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
)

// electable says how well a broker in this state can take a leadership: 0 not
// at all, and of two the one with the lower figure goes first. A broker that is
// about to leave is the last resort: it is up and has every committed record.
func electable(b *pb.Broker) int {
	switch b.GetState() {
	case pb.BrokerState_BROKER_STATE_LIVE:
		return 1
	case pb.BrokerState_BROKER_STATE_DRAINING:
		return 2
	case pb.BrokerState_BROKER_STATE_STOPPING:
		return 3
	}
	return 0
}

// candidate gives the replica that may lead the shard: in sync (I2), on its
// disk, undamaged, on a broker that is up. The broker's state comes first, then
// the order of placement, which is made so that the shards of a dead broker
// spread. 0 if there is none.
func (d *draft) candidate(sh *pb.Shard) uint64 {
	var best uint64
	bestRank := 0
	for _, r := range sh.GetReplicas() {
		if r.GetState() != pb.ReplicaState_REPLICA_STATE_CREATED || !slices.Contains(sh.GetInSync(), r.GetId()) {
			continue
		}
		if rank := electable(d.Broker(r.GetNodeId())); rank > 0 && (best == 0 || rank < bestRank) {
			best, bestRank = r.GetId(), rank
		}
	}
	return best
}

// elect gives the shard its candidate as leader of a new epoch, or takes it
// offline. The shard must be one being edited. The epoch rises in both cases,
// so that the former leader's epoch is over (I4).
func (d *draft) elect(sh *pb.Shard) {
	sh.Leader = d.candidate(sh)
	sh.Epoch++
}

// electOffline gives an offline shard a leader if one of its copies can lead.
func (d *draft) electOffline(sh *pb.Shard) {
	if sh.GetLeader() == 0 && d.candidate(sh) != 0 {
		d.elect(d.editShard(sh.GetStreamId(), sh.GetNumber()))
	}
}

// finished tells that a shard has no replicas and never will: it has expired, or
// it only stands between the parents and the children of a reshard.
func finished(sh *pb.Shard) bool {
	return sh.GetState() == pb.ShardState_SHARD_STATE_EXPIRED || sh.GetReplicationFactor() == 0 && len(sh.GetReplicas()) == 0
}

// form ends a new shard's wait for its replicas: all of them are on their disks
// and empty, so all are in sync. Before that it has no in-sync set, since "never
// made it" and "lost it" would look the same.
func (d *draft) form(sh *pb.Shard) {
	if formed(sh) || len(sh.GetReplicas()) == 0 {
		return
	}
	var all []uint64
	for _, r := range sh.GetReplicas() {
		if r.GetState() != pb.ReplicaState_REPLICA_STATE_CREATED {
			return
		}
		all = append(all, r.GetId())
	}
	sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
	sh.MinInSync = uint32(min(2, len(all)))
	setInSync(sh, all)
	// A copy on a dead broker would only make writes wait.
	for _, r := range sh.GetReplicas() {
		if electable(d.Broker(r.GetNodeId())) == 0 {
			shrink(sh, r.GetNodeId())
		}
	}
	d.elect(sh)
}

// formed tells that the shard has had all its first replicas.
func formed(sh *pb.Shard) bool { return len(sh.GetInSync()) > 0 }
