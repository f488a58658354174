package broker

import (
	"context"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// removedLook is how often a removed node looks whether it may end.
const removedLook = 100 * time.Millisecond

// endWhenRemoved ends the node once it has been removed from the cluster. Others
// are told so by the controller; one that is the controller itself goes on as
// such until raft has another leader, so that nobody waits for an election.
func (b *Broker) endWhenRemoved(ctx context.Context) {
	for {
		state, changed := b.meta.Watch()
		var look <-chan time.Time
		if state.Broker(string(b.identity.NodeID)).GetState() == pb.BrokerState_BROKER_STATE_GONE {
			if !b.meta.IsLeader() {
				b.fail(stream.Errorf(stream.Stale, "broker", "node %s was removed from the cluster", b.identity.NodeID))
				return
			}
			look = time.After(removedLook)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-look:
		}
	}
}
