package broker

import (
	"testing"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

func TestADiskFromAnEarlierTimeIsFoundOut_I8_I18(t *testing.T) {
	mark := incarnationMark{Confirmed: 4, Attempted: 4}
	for _, c := range []struct {
		name   string
		answer *pb.RecallResponse
		mark   incarnationMark
		frame  uint64
		want   bool
	}{
		{"nothing is remembered", &pb.RecallResponse{}, mark, 10, false},
		{"what the disk knows", &pb.RecallResponse{DiskId: "d", Incarnation: 4, JournalFrame: 10}, mark, 10, false},
		{"older than the disk", &pb.RecallResponse{DiskId: "d", Incarnation: 3, JournalFrame: 900}, mark, 10, false},
		{"a later incarnation", &pb.RecallResponse{DiskId: "d", Incarnation: 5, JournalFrame: 1}, mark, 10, true},
		{"the same incarnation, a later frame", &pb.RecallResponse{DiskId: "d", Incarnation: 4, JournalFrame: 11}, mark, 10, true},
		{"the incarnation of an attempt", &pb.RecallResponse{DiskId: "d", Incarnation: 5, JournalFrame: 10}, incarnationMark{4, 5}, 10, false},
		{"another disk under this name, later", &pb.RecallResponse{DiskId: "e", Incarnation: 5}, mark, 10, true},
		{"another disk under this name, before", &pb.RecallResponse{DiskId: "e", Incarnation: 3}, mark, 10, false},
	} {
		if got := rolledBack(c.answer, "d", c.mark, c.frame); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestDamagedNodesHaveNoSay: two nodes whose metadata is damaged must not take
// each other for a part of the majority that has it all.
func TestDamagedNodesHaveNoSay(t *testing.T) {
	r, err := loadRecalls(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &controllerService{recalls: r}
	for _, damaged := range []bool{true, false} {
		s.damaged.Store(damaged)
		if _, err := s.Recall(t.Context(), &pb.RecallRequest{NodeId: "a"}); damaged != (stream.KindOf(err) == stream.Unavailable) || !damaged && err != nil {
			t.Errorf("damaged %v: %v", damaged, err)
		}
	}
}

func TestRecallsAreKept(t *testing.T) {
	dir := t.TempDir()
	r, err := loadRecalls(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := raftfsm.NewState()
	for i, c := range []*pb.Command{
		{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c", TokenKey: make([]byte, 32), AccountId: "0", Limits: &pb.Limits{}}}},
		{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{Broker: &pb.Broker{NodeId: "a", DiskId: "disk-of-a", FeatureLevel: featureLevel}, JournalFrame: 7}}},
	} {
		s, _ = s.Apply(uint64(i+1), c)
	}
	if err := r.learn(known(s, []raftfsm.Server{{NodeID: "a", Voter: true}})); err != nil {
		t.Fatal(err)
	}
	// A voter that has not registered yet counts, and is noted without delay.
	more := known(s, []raftfsm.Server{{NodeID: "a", Voter: true}, {NodeID: "b", Voter: true}})
	if r.urgent(known(s, []raftfsm.Server{{NodeID: "a", Voter: true}})) || !r.urgent(more) || len(more) != 2 {
		t.Fatalf("what is urgent is not: %+v", more)
	}
	r, err = loadRecalls(dir)
	if want := (recalled{Incarnation: 1, DiskID: "disk-of-a", Frame: 7, Voter: true}); err != nil || r.of("a") != want || len(r.voters()) != 1 {
		t.Fatalf("%+v, %v", r.of("a"), err)
	}
}
