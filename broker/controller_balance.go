package broker

// balance moves leaderships back to where placement wanted them, among shards
// that are otherwise at rest. Each move costs the shard a new epoch, so it is
// done only now and then, and only to nodes that have been well for a while.
func (p *planner) balance() {
	if !p.view.rebalance {
		return
	}
	for _, shard := range p.quiet {
		first := shard.Replicas[0]
		if first.Id != shard.Leader && p.sound(shard, first) && p.view.eligible[first.NodeId] && !p.unfit(first.NodeId) {
			p.evenMoves = append(p.evenMoves, change(shard, first.Id))
		}
	}
}
