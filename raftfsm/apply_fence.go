package raftfsm

import (
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// fenceBroker takes a broker that is taken for dead out of everything, in this
// one entry. Repeats are welcome: one takes out what the floor kept before.
func (d *draft) fenceBroker(c *pb.FenceBroker) *pb.CommandResult {
	if res := d.checkIncarnation(c.GetNodeId(), c.GetIncarnation()); res != nil {
		return res
	}
	switch d.Broker(c.GetNodeId()).GetState() {
	case pb.BrokerState_BROKER_STATE_GONE:
		return refuse(stream.WrongState, "broker %q is gone", c.GetNodeId())
	case pb.BrokerState_BROKER_STATE_FENCED:
	default:
		d.setBrokerState(c.GetNodeId(), pb.BrokerState_BROKER_STATE_FENCED, c.GetReason())
	}
	for _, at := range d.shardsOn(c.GetNodeId()) {
		d.vacate(d.at(at), c.GetNodeId())
	}
	return &pb.CommandResult{Incarnation: c.GetIncarnation()}
}

// vacate moves a shard's leadership away from a node that can't be elected and
// takes its copies out of the in-sync set, above the floor, so that writes
// don't wait for them. A shard that it only follows keeps its epoch.
//
// The set of a shard that goes offline, or is so, does not shrink: no write
// waits, and whichever member returns first can lead it.
func (d *draft) vacate(sh *pb.Shard, node string) {
	led := replica(sh, sh.GetLeader()).GetNodeId() == node
	switch {
	case led:
		sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
		if d.candidate(sh) != 0 {
			shrink(sh, node)
		}
		d.elect(sh)
	case sh.GetLeader() != 0 && aboveFloor(sh) && inSyncOn(sh, node):
		shrink(d.editShard(sh.GetStreamId(), sh.GetNumber()), node)
	}
}

// unfenceBroker lets a broker that is heard again take part: it may be elected
// and added to in-sync sets. What only it can lead, it leads at once.
func (d *draft) unfenceBroker(c *pb.UnfenceBroker) *pb.CommandResult {
	if res := d.checkIncarnation(c.GetNodeId(), c.GetIncarnation()); res != nil {
		return res
	}
	if d.Broker(c.GetNodeId()).GetState() == pb.BrokerState_BROKER_STATE_FENCED {
		state, reason := upState(d.Broker(c.GetNodeId()))
		d.setBrokerState(c.GetNodeId(), state, reason)
		for _, at := range d.shardsOn(c.GetNodeId()) {
			d.electOffline(d.at(at))
		}
	}
	return &pb.CommandResult{Incarnation: c.GetIncarnation()}
}

// stopBroker prepares for a broker's end while it still runs: leaderships and
// memberships go where others can take them. It keeps a leadership that nobody
// else can take, and at the floor its membership; a repeat moves what has become
// movable since.
func (d *draft) stopBroker(c *pb.StopBroker) *pb.CommandResult {
	node := c.GetNodeId()
	if res := d.checkIncarnation(node, c.GetIncarnation()); res != nil {
		return res
	}
	switch d.Broker(node).GetState() {
	case pb.BrokerState_BROKER_STATE_GONE, pb.BrokerState_BROKER_STATE_FENCED:
		return refuse(stream.WrongState, "broker %q is %s", node, d.Broker(node).GetState())
	case pb.BrokerState_BROKER_STATE_STOPPING:
	default:
		d.setBrokerState(node, pb.BrokerState_BROKER_STATE_STOPPING, "asked to stop")
	}
	for _, at := range d.shardsOn(node) {
		d.release(d.at(at), node)
	}
	return &pb.CommandResult{Incarnation: c.GetIncarnation()}
}

func (d *draft) release(sh *pb.Shard, node string) {
	moves := false
	if replica(sh, sh.GetLeader()).GetNodeId() == node {
		next := replica(sh, d.candidate(sh))
		// From one that stops to another that stops would lead back and forth.
		if d.Broker(next.GetNodeId()).GetState() == pb.BrokerState_BROKER_STATE_STOPPING || next == nil {
			return
		}
		moves = true
	}
	leaves := sh.GetLeader() != 0 && aboveFloor(sh) && inSyncOn(sh, node)
	if !moves && !leaves {
		return
	}
	sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
	if leaves {
		shrink(sh, node)
	}
	if moves {
		d.elect(sh)
	}
}
