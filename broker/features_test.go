package broker

import (
	"testing"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// TestOlderProgramsAreSpared: while a broker with an older program is in the
// cluster, no command is proposed at which it would stop, and of those that it
// knows none has a member that it would not apply.
func TestOlderProgramsAreSpared(t *testing.T) {
	state := func(level uint32) *raftfsm.State {
		s, _ := raftfsm.NewState().Apply(1, &pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c", TokenKey: make([]byte, 32), AccountId: "0", Limits: &pb.Limits{}}}})
		s, _ = s.Apply(2, &pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
			Broker: &pb.Broker{NodeId: "a", DiskId: "disk of a", FeatureLevel: level},
		}}})
		return s
	}
	older, newer := state(raftfsm.FeatureOnDemand-1), state(raftfsm.FeatureOnDemand)
	for _, c := range []*pb.Command{
		{Op: &pb.Command_RegisterConsumer{}},
		{Op: &pb.Command_DeregisterConsumer{}},
		{Op: &pb.Command_AdvanceConsumers{}},
		{Op: &pb.Command_SetPolicy{}},
		{Op: &pb.Command_UpdateStream{}},
		{Op: &pb.Command_EndUpdate{}},
		{Op: &pb.Command_SetCommitment{}},
		{Op: &pb.Command_NoteDemand{}},
		{Op: &pb.Command_Reshard{Reshard: &pb.Reshard{OnDemand: true}}},
	} {
		if err := checkFeature(older, c); stream.KindOf(err) != stream.Stale {
			t.Errorf("%T: %v", c.Op, err)
		}
		if err := checkFeature(newer, c); err != nil {
			t.Errorf("%T: %v", c.Op, err)
		}
	}
	retention := &pb.SetRetention{Hours: 48, TransitionAfterMs: 5}
	create, reshard := &pb.CreateStream{CreatingLimit: 5, WarmMibps: 5}, &pb.Reshard{DailyLimit: 10}
	for _, c := range []*pb.Command{
		{Op: &pb.Command_SetRetention{SetRetention: retention}},
		{Op: &pb.Command_CreateStream{CreateStream: create}},
		{Op: &pb.Command_Reshard{Reshard: reshard}},
	} {
		if err := checkFeature(older, c); err != nil {
			t.Errorf("%T: %v", c.Op, err)
		}
		if stampCommand(newer, 1, c); retention.TransitionAfterMs+int64(create.CreatingLimit)+int64(reshard.DailyLimit) == 0 {
			t.Errorf("%T has lost what all know", c.Op)
		}
		stampCommand(older, 1, c)
	}
	if retention.Hours != 48 || retention.TransitionAfterMs != 0 || create.CreatingLimit != 0 || create.WarmMibps != 0 || reshard.DailyLimit != 0 {
		t.Errorf("%v, %v, %v", retention, create, reshard)
	}
}
