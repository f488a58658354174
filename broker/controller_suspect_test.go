package broker

import (
	"testing"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// TestDamageIsRepairedFromAReplica_I13: three nodes, so that the new copy can
// only come to the node of the damaged one.
func TestDamageIsRepairedFromAReplica_I13(t *testing.T) {
	w := newPlanWorld(t, "n1", "n2", "n3")
	id := w.create("s", 1)
	w.settle()
	shard := w.state.Shard(id, 0)
	for i, r := range shard.Replicas { // the leader among them
		if i == 2 {
			break
		}
		w.apply(&pb.Command{Op: &pb.Command_MarkSuspect{MarkSuspect: &pb.MarkSuspect{
			NodeId: r.NodeId, Incarnation: w.state.Broker(r.NodeId).Incarnation,
			Replicas: []*pb.ReplicaRef{{StreamId: id, Shard: 0, ReplicaId: r.Id}},
		}}})
		w.settle()
		now := w.state.Shard(id, 0)
		if len(now.InSync) != 3 || len(now.Replicas) != 3 || replicaOn(now, stream.NodeID(r.NodeId)).GetId() == r.Id {
			t.Fatalf("after damage on %s: %v", r.NodeId, now)
		}
		for _, now := range now.Replicas {
			if now.State != pb.ReplicaState_REPLICA_STATE_CREATED {
				t.Fatalf("after damage on %s: %v", r.NodeId, now)
			}
		}
	}
}
