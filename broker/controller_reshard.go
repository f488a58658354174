package broker

import (
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
)

// goneFor is how long a broker that was removed stays on the list, so that its
// process, if it still runs or is started again by mistake, is told so.
const goneFor = time.Hour

// reshard plans the next step of a stream's reshard, or of its closed shards'
// end. It is true if that changes the stream's shards, so that nothing else may
// in this plan.
//
// The middle step, the seals, is that of the parents' leaders. A reshard that
// shall take some time (transition_after_ms) spends it before this first step:
// afterwards writes wait. So does one of shards that were made in this second:
// those of the children must be of a later one, and the metadata would raise the
// cluster's time for that, again and again where streams are made and split in a
// row.
func (p *planner) reshard(s *pb.Stream) bool {
	re := s.Reshard
	if re != nil && p.state.Shard(s.Id, re.Parents[0]).GetState() == pb.ShardState_SHARD_STATE_OPEN &&
		p.dueIn(max(s.TransitionAfterMs, p.secondAfter(s.Id, re.Parents))) && p.state.SealWaitsFor(s.Id) == "" {
		p.first = append(p.first, sealParentsCommand(s.Id))
		return true
	}
	return p.expire(s)
}

// secondAfter gives the beginning of the first second, in Unix ms, in which none
// of these shards was made.
func (p *planner) secondAfter(id uint64, shards []uint32) int64 {
	second := int64(0)
	for _, n := range shards {
		second = max(second, p.state.Shard(id, n).GetCreatedMs()/1000+1)
	}
	return second * 1000
}

// expire ends closed shards whose data has passed the retention.
func (p *planner) expire(s *pb.Stream) bool {
	if !p.view.mayExpire {
		return false
	}
	var old []uint32
	for _, shard := range p.state.Shards(s.Id) {
		if shard.State == pb.ShardState_SHARD_STATE_CLOSED && p.dueIn(raftfsm.ExpiresMs(s, shard)+1) && len(old) < itemsPerCommand {
			old = append(old, shard.Number)
		}
	}
	if len(old) == 0 {
		return false
	}
	p.first = append(p.first, &pb.Command{Op: &pb.Command_ExpireShards{ExpireShards: &pb.ExpireShards{StreamId: s.Id, Shards: old}}})
	return true
}

// forget takes brokers off the list that were removed some time ago, once raft
// has no server of theirs: until then, the list says that it is not wanted.
func (p *planner) forget() {
	for _, b := range p.state.Brokers() {
		if b.State == pb.BrokerState_BROKER_STATE_GONE && !p.view.inRaft[b.NodeId] && p.dueIn(b.ChangedMs+goneFor.Milliseconds()) {
			p.first = append(p.first, &pb.Command{Op: &pb.Command_RemoveBroker{RemoveBroker: &pb.RemoveBroker{NodeId: b.NodeId, Forget: true}}})
		}
	}
}

func sealParentsCommand(id uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_SealParents{SealParents: &pb.SealParents{StreamId: id}}}
}

// mayExpire tells that the cluster's time is good enough to delete by (I17): a
// majority of the brokers agrees on it, or there is only this one.
func (c *controller) mayExpire(brokers []*pb.Broker) bool {
	return len(brokers) == 1 || c.control.clock.agreed()
}

// agreed tells that the cluster's time is that of a majority.
func (c *clock) agreed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known
}

// inRaft gives the nodes that raft has servers of.
func (c *controller) inRaft() map[string]bool {
	nodes := make(map[string]bool)
	if c.servers == nil {
		return nodes
	}
	for _, s := range c.servers.Servers() {
		nodes[s.NodeID] = true
	}
	return nodes
}
