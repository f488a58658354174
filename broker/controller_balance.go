package broker

import (
	"shardstream/placement"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// balance moves leaderships back to where placement wants them, among shards
// that are otherwise at rest. Each move costs the shard a new epoch, so it is
// done only now and then, and only to nodes that have been well for a while.
func (p *planner) balance() {
	if !p.view.rebalance {
		return
	}
	var shards []placement.Shard
	byID := make(map[stream.ShardID]*pb.Shard, len(p.quiet))
	for _, shard := range p.quiet {
		s := placement.Shard{ID: idOf(shard), Factor: int(shard.ReplicationFactor)}
		for _, r := range shard.Replicas {
			leads := r.Id == shard.Leader
			s.Replicas = append(s.Replicas, placement.Replica{
				Node: stream.NodeID(r.NodeId), Leader: leads, Lost: !p.lasting(r),
				// Hysteresis is for those that would be moved to.
				Able: p.sound(shard, r) && !p.unfit(r.NodeId) && (leads || p.view.eligible[r.NodeId] || p.rebalancing()),
			})
		}
		shards = append(shards, s)
		byID[s.ID] = shard
	}
	for _, move := range placement.PreferredLeaders(shards) {
		shard := byID[move.Shard]
		for _, r := range shard.Replicas {
			if r.NodeId == string(move.To) && p.sound(shard, r) {
				p.evenMoves = append(p.evenMoves, change(shard, r.Id))
			}
		}
	}
}
