package broker

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// endedByRecovery gives those of the copies that an operator's recovery of the
// shard has ended. They may have records that were given up, so they are set
// aside and not deleted.
func endedByRecovery(shard *pb.Shard, copies []stream.ReplicaKey) (ended []stream.ReplicaKey) {
	for _, key := range copies {
		if slices.ContainsFunc(shard.Recoveries, func(r *pb.Recovery) bool { return slices.Contains(r.Ended, uint64(key.Replica)) }) {
			ended = append(ended, key)
		}
	}
	return ended
}
