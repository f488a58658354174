package broker

import (
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// Programs of two versions work together while a cluster is updated. The older
// one stops at a command that it does not know, at each start anew, and applies
// one of which it does not know a member otherwise than the newer ones. So
// neither is proposed before all brokers have said that they know them.

// allHave tells that all brokers of the cluster have a feature level.
func allHave(state *raftfsm.State, level uint32) bool {
	for _, b := range state.Brokers() {
		if b.FeatureLevel < level && b.State != pb.BrokerState_BROKER_STATE_GONE {
			return false
		}
	}
	return true
}

// checkFeature refuses a command that some broker does not know. Kind: Stale, and
// not Unavailable, for which callers wait: an update takes longer than they do.
func checkFeature(state *raftfsm.State, c *pb.Command) error {
	switch op := c.GetOp().(type) {
	case *pb.Command_Reshard:
		if !op.Reshard.GetOnDemand() {
			return nil
		}
	case *pb.Command_RegisterConsumer, *pb.Command_DeregisterConsumer, *pb.Command_AdvanceConsumers, *pb.Command_SetPolicy,
		*pb.Command_UpdateStream, *pb.Command_EndUpdate, *pb.Command_SetCommitment, *pb.Command_NoteDemand:
	default:
		return nil
	}
	if allHave(state, raftfsm.FeatureOnDemand) {
		return nil
	}
	return stream.Errorf(stream.Stale, "broker.propose", "%s has to wait until all brokers run a program that knows it", commandName(c))
}

// clearUnknown takes out of a command what some broker does not know of it.
func clearUnknown(state *raftfsm.State, c *pb.Command) {
	if allHave(state, raftfsm.FeatureOnDemand) {
		return
	}
	switch op := c.GetOp().(type) {
	case *pb.Command_CreateStream:
		op.CreateStream.CreatingLimit, op.CreateStream.WarmMibps = 0, 0
	case *pb.Command_SetRetention:
		op.SetRetention.TransitionAfterMs = 0
	case *pb.Command_Reshard:
		op.Reshard.DailyLimit = 0
	}
}
