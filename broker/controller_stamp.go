package broker

import (
	"time"

	"shardstream/placement"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

const (
	defaultReplicationFactor = 3
	// maxTransitionDelay bounds what a caller may ask a stream to stay in
	// CREATING, UPDATING or DELETING.
	maxTransitionDelay = time.Minute
)

// stampCommand puts in what the raft leader decides, since applying a command
// must not: the time, and where the replicas of new shards go.
func stampCommand(state *raftfsm.State, nowMs int64, c *pb.Command) {
	c.TimeMs = nowMs
	clearUnknown(state, c)
	latest := nowMs + maxTransitionDelay.Milliseconds()
	switch op := c.GetOp().(type) {
	case *pb.Command_CreateStream:
		op.CreateStream.Placement = placeShards(state, int(op.CreateStream.ShardCount))
		op.CreateStream.TransitionAfterMs = min(op.CreateStream.TransitionAfterMs, latest)
	case *pb.Command_Reshard:
		op.Reshard.Placement = placeShards(state, state.ReshardChildren(op.Reshard))
		op.Reshard.TransitionAfterMs = min(op.Reshard.TransitionAfterMs, latest)
	case *pb.Command_DeleteStream:
		op.DeleteStream.TransitionAfterMs = min(op.DeleteStream.TransitionAfterMs, latest)
	case *pb.Command_SetRetention:
		op.SetRetention.TransitionAfterMs = min(op.SetRetention.TransitionAfterMs, latest)
	case *pb.Command_UpdateStream:
		op.UpdateStream.TransitionAfterMs = min(op.UpdateStream.TransitionAfterMs, latest)
	case *pb.Command_RegisterConsumer:
		op.RegisterConsumer.TransitionAfterMs = min(op.RegisterConsumer.TransitionAfterMs, latest)
	case *pb.Command_DeregisterConsumer:
		op.DeregisterConsumer.TransitionAfterMs = min(op.DeregisterConsumer.TransitionAfterMs, latest)
	}
}

// fromAPI tells that a command is one of the Kinesis API, which any caller may
// have proposed. The others are the brokers' own.
func fromAPI(c *pb.Command) bool {
	switch o := c.GetOp().(type) {
	case *pb.Command_Reshard:
		return !o.Reshard.GetOnDemand()
	case *pb.Command_CreateStream, *pb.Command_DeleteStream, *pb.Command_SetRetention, *pb.Command_AddTags, *pb.Command_RemoveTags,
		*pb.Command_RegisterConsumer, *pb.Command_DeregisterConsumer, *pb.Command_SetPolicy, *pb.Command_UpdateStream, *pb.Command_SetCommitment:
		return true
	}
	return false
}

// placeShards chooses the nodes of every new shard's replicas from the live
// brokers.
func placeShards(state *raftfsm.State, shards int) []*pb.ReplicaNodes {
	brokers := loads(state)
	var nodes []*pb.ReplicaNodes
	for _, chosen := range placement.Assign(shards, min(defaultReplicationFactor, len(brokers)), brokers) {
		ids := make([]string, len(chosen))
		for i, n := range chosen {
			ids[i] = string(n)
		}
		nodes = append(nodes, &pb.ReplicaNodes{NodeIds: ids})
	}
	return nodes
}

// loads gives the live brokers with what each has.
func loads(state *raftfsm.State) []placement.Broker {
	at := make(map[string]int)
	var live []placement.Broker
	for _, b := range state.Brokers() {
		if b.State == pb.BrokerState_BROKER_STATE_LIVE {
			at[b.NodeId] = len(live)
			live = append(live, placement.Broker{Node: stream.NodeID(b.NodeId), Zone: b.Zone})
		}
	}
	if len(live) < 2 {
		return live // with one broker there is nothing to weigh
	}
	for _, st := range state.Streams() {
		for _, shard := range state.Shards(st.Id) {
			for n, r := range shard.Replicas {
				if i, ok := at[r.NodeId]; ok {
					live[i].Replicas++
					if n == 0 {
						live[i].Leaders++
					}
				}
			}
		}
	}
	return live
}
