package broker

import pb "shardstream/proto/shardstream/v1"

// replaceSuspect takes a damaged replica out of a shard that others have whole,
// so that it is given a new one, which is copied from them: damage is repaired
// from a replica, never skipped (I13). At the floor it waits until another
// member was added or swapped in. The damaged copy leaves the disk only when
// the shard is whole again.
func (p *planner) replaceSuspect(shard *pb.Shard) bool {
	for _, r := range shard.Replicas {
		if r.State != pb.ReplicaState_REPLICA_STATE_SUSPECT || r.Id == shard.Leader || len(shard.Replicas) == 1 {
			continue
		}
		if inSync(shard, r) && len(shard.InSync) <= int(shard.MinInSync) {
			continue
		}
		p.drops = append(p.drops, change(shard, r.Id))
		return true
	}
	return false
}
