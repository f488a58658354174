package broker

import (
	"cmp"

	pb "shardstream/proto/shardstream/v1"
)

// repair gives shards with too few lasting replicas new ones: at most one each
// in a plan, and on each node no more than it can take at a time.
func (p *planner) repair() {
	for _, shard := range p.wanting {
		if node := p.placeFor(shard); node != "" {
			p.adding[node]++
			p.replicas[node]++
			p.places = append(p.places, &pb.ReplicaPlace{StreamId: shard.StreamId, Shard: shard.Number, Version: shard.Version, NodeId: node})
		}
	}
}

// placeFor chooses the broker of a shard's next replica: in a zone with as few
// of its lasting replicas as possible, then the one that has least. It gives ""
// while those that it could choose have enough to do: another zone would be for
// ever, waiting is not.
func (p *planner) placeFor(shard *pb.Shard) string {
	taken := make(map[string]bool, len(shard.Replicas))
	zones := make(map[string]int)
	for _, r := range shard.Replicas {
		if r.State != pb.ReplicaState_REPLICA_STATE_LOST {
			taken[r.NodeId] = true
		}
		if p.lasting(r) {
			zones[p.brokers[r.NodeId].GetZone()]++
		}
	}
	var best *pb.Broker
	for _, b := range p.state.Brokers() { // by node id, which decides between equals
		if b.State != pb.BrokerState_BROKER_STATE_LIVE || taken[b.NodeId] || p.view.health[b.NodeId] != (health{}) {
			continue
		}
		if best == nil || cmp.Or(
			cmp.Compare(zones[b.Zone], zones[best.Zone]),
			cmp.Compare(p.adding[b.NodeId]/addsPerNode, p.adding[best.NodeId]/addsPerNode),
			cmp.Compare(p.replicas[b.NodeId], p.replicas[best.NodeId])) < 0 {
			best = b
		}
	}
	if best == nil || p.adding[best.NodeId] >= addsPerNode {
		return ""
	}
	return best.NodeId
}
