package broker

import (
	"shardstream/placement"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// repair gives shards with too few lasting replicas new ones: at most one each
// in a plan, and on each node no more than it can take at a time.
func (p *planner) repair() {
	if len(p.wanting) == 0 {
		return
	}
	var shards []placement.Shard
	byID := make(map[stream.ShardID]*pb.Shard, len(p.wanting))
	for _, shard := range p.wanting {
		s := placement.Shard{ID: idOf(shard), Factor: int(shard.ReplicationFactor)}
		for _, r := range shard.Replicas {
			lost := !p.lasting(r)
			if !formed(shard) {
				lost = lost || p.brokers[r.NodeId].GetState() == pb.BrokerState_BROKER_STATE_FENCED
			}
			s.Replicas = append(s.Replicas, placement.Replica{Node: stream.NodeID(r.NodeId), Lost: lost})
		}
		shards = append(shards, s)
		byID[s.ID] = shard
	}
	brokers, underway := p.takers()
	for _, place := range placement.Repair(shards, brokers, underway, placement.Limits{Total: itemsPerCommand, PerBroker: addsPerNode}) {
		shard := byID[place.Shard]
		p.places = append(p.places, &pb.ReplicaPlace{StreamId: shard.StreamId, Shard: shard.Number, Version: shard.Version, NodeId: string(place.Node)})
	}
}

// takers gives the brokers that may be given replicas, and how many of theirs are
// not in sync yet.
func (p *planner) takers() (brokers []placement.Broker, underway map[stream.NodeID]int) {
	underway = make(map[stream.NodeID]int)
	for _, b := range p.state.Brokers() {
		if node := stream.NodeID(b.NodeId); b.State == pb.BrokerState_BROKER_STATE_LIVE && p.view.health[b.NodeId] == (health{}) {
			brokers = append(brokers, placement.Broker{Node: node, Zone: b.Zone, Replicas: p.replicas[b.NodeId]})
			underway[node] = p.adding[b.NodeId]
		}
	}
	return brokers, underway
}

func idOf(shard *pb.Shard) stream.ShardID {
	return stream.ShardID{Stream: stream.StreamID(shard.StreamId), Number: shard.Number}
}
