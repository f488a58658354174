package broker

import (
	"cmp"
	"slices"

	"shardstream/placement"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// rebalancing tells that an operator wants replicas and leaderships evened out.
// Leaderships even out by themselves, too, but replicas only move when somebody
// says so: that copies data, and whoever starts an empty broker may want to
// choose the hour.
func (p *planner) rebalancing() bool { return p.state.Cluster().GetRebalancingSinceMs() != 0 }

// spread moves replicas from brokers that have too many to those that have too
// few: it adds the new one, and dropSurplus takes the old one off once the new
// one is in sync. When nothing is under way and nothing is left to do, the wish
// is fulfilled.
func (p *planner) spread() {
	if !p.rebalancing() {
		return
	}
	quiet := make(map[stream.ShardID]*pb.Shard, len(p.quiet))
	for _, shard := range p.quiet {
		quiet[idOf(shard)] = shard
	}
	var shards []placement.Shard
	for _, st := range p.settled {
		for _, shard := range p.state.Shards(st.Id) {
			s := placement.Shard{ID: idOf(shard), Factor: int(shard.ReplicationFactor)}
			for _, r := range shard.Replicas {
				s.Replicas = append(s.Replicas, placement.Replica{
					Node: stream.NodeID(r.NodeId), Leader: r.Id == shard.Leader, Lost: !p.lasting(r),
					Able: quiet[s.ID] != nil && p.sound(shard, r),
				})
			}
			shards = append(shards, s)
		}
	}
	brokers, underway := p.takers()
	places := placement.Spread(shards, brokers, underway, placement.Limits{Total: itemsPerCommand, PerBroker: addsPerNode})
	moving := make(map[stream.ShardID]bool, len(places))
	for _, place := range places {
		shard := quiet[place.Shard]
		moving[place.Shard] = true
		p.places = append(p.places, &pb.ReplicaPlace{StreamId: shard.StreamId, Shard: shard.Number, Version: shard.Version, NodeId: string(place.Node)})
	}
	// No shard is in two commands of a plan.
	p.evenMoves = slices.DeleteFunc(p.evenMoves, func(m *pb.ReplicaChange) bool {
		return moving[stream.ShardID{Stream: stream.StreamID(m.StreamId), Number: m.Shard}]
	})
	if p.underway() == 0 && len(p.first)+len(p.moves)+len(p.unformed)+len(p.factors)+len(p.places)+len(p.drops)+len(p.evenMoves) == 0 {
		p.first = append(p.first, endRebalanceCommand())
	}
}

// underway counts the replicas on live brokers that are not in sync yet.
func (p *planner) underway() (n int) {
	for _, adding := range p.adding {
		n += adding
	}
	return n
}

func compareBool(x, y bool) int {
	toInt := map[bool]int{true: 1}
	return cmp.Compare(toInt[x], toInt[y])
}
