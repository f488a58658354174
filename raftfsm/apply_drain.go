package raftfsm

import (
	"slices"

	"google.golang.org/protobuf/proto"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const drainReason = "asked to drain"

// upState is the state of a broker that is up and does not stop.
func upState(b *pb.Broker) (state pb.BrokerState, reason string) {
	if b.GetDraining() {
		return pb.BrokerState_BROKER_STATE_DRAINING, drainReason
	}
	return pb.BrokerState_BROKER_STATE_LIVE, ""
}

// drainBroker begins to take a broker out of use, unless the shards then had too
// few brokers for their replicas, and it could never end.
func (d *draft) drainBroker(c *pb.DrainBroker) *pb.CommandResult {
	b, res := d.member(c.GetNodeId())
	if res != nil {
		return res
	}
	if b.GetDraining() {
		return &pb.CommandResult{Incarnation: b.GetIncarnation()}
	}
	left, need := 0, max(1, d.largestFactor())
	for _, other := range d.brokers {
		if other != b && !other.GetDraining() && electable(other) > 0 {
			left++
		}
	}
	if left < need {
		return figures(refuse(stream.WrongState, "draining %q would leave %d brokers that are up, and there are shards that need %d: add a broker first",
			c.GetNodeId(), left, need), uint64(left), uint64(need))
	}
	d.setDraining(b, true)
	return &pb.CommandResult{Incarnation: b.GetIncarnation()}
}

func (d *draft) undrainBroker(c *pb.UndrainBroker) *pb.CommandResult {
	b, res := d.member(c.GetNodeId())
	if res != nil {
		return res
	}
	if b.GetDraining() {
		d.setDraining(b, false)
	}
	return &pb.CommandResult{Incarnation: b.GetIncarnation()}
}

func (d *draft) setDraining(old *pb.Broker, draining bool) {
	b := proto.CloneOf(old)
	b.Draining = draining
	switch b.GetState() {
	case pb.BrokerState_BROKER_STATE_LIVE, pb.BrokerState_BROKER_STATE_DRAINING:
		b.State, b.Reason = upState(b)
		b.ChangedMs = d.now
	}
	d.putBroker(b)
}

// removeBroker takes a broker out of the cluster for good, if nothing is lost by
// that.
func (d *draft) removeBroker(c *pb.RemoveBroker) *pb.CommandResult {
	node := c.GetNodeId()
	b := d.Broker(node)
	gone := b.GetState() == pb.BrokerState_BROKER_STATE_GONE
	switch {
	case b == nil:
		return refuse(stream.NotFound, "there is no broker %q", node)
	case c.GetForget() && !gone:
		return refuse(stream.WrongState, "broker %q is %s", node, b.GetState())
	case c.GetForget():
		d.brokers = slices.DeleteFunc(slices.Clone(d.brokers), func(other *pb.Broker) bool { return other == b })
		return &pb.CommandResult{}
	case gone:
		return &pb.CommandResult{}
	case !b.GetDraining() && b.GetState() != pb.BrokerState_BROKER_STATE_FENCED:
		return refuse(stream.WrongState, "broker %q is in use: drain it first", node)
	}
	if n := len(d.shardsOn(node)); n > 0 {
		return figures(refuse(stream.WrongState, "broker %q still holds replicas of %d shards: wait until it is drained", node, n), uint64(n), 0)
	}
	d.setBrokerState(node, pb.BrokerState_BROKER_STATE_GONE, "removed")
	return &pb.CommandResult{Incarnation: b.GetIncarnation()}
}

// member gives a broker that has not been removed.
func (d *draft) member(node string) (*pb.Broker, *pb.CommandResult) {
	b := d.Broker(node)
	switch {
	case b == nil:
		return nil, refuse(stream.NotFound, "there is no broker %q", node)
	case b.GetState() == pb.BrokerState_BROKER_STATE_GONE:
		return nil, refuse(stream.WrongState, "broker %q was removed", node)
	}
	return b, nil
}

// largestFactor gives how many brokers the shard with most replicas needs.
func (d *draft) largestFactor() int {
	most := uint32(0)
	d.each(func(e *entry) {
		if e.stream.GetStatus() == pb.StreamStatus_STREAM_STATUS_DELETING {
			return
		}
		for _, sh := range e.shards {
			if !finished(sh) {
				most = max(most, sh.GetReplicationFactor())
			}
		}
	})
	return int(most)
}
