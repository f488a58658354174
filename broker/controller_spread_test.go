package broker

import (
	"fmt"
	"slices"
	"testing"

	pb "shardstream/proto/shardstream/v1"
)

func rebalance() *pb.Command {
	return &pb.Command{Op: &pb.Command_Rebalance{Rebalance: &pb.Rebalance{}}}
}

// even tells how many replicas and leaderships the brokers have, and fails if
// two of them differ by more than one.
func (w *planWorld) even(nodes ...string) {
	w.t.Helper()
	replicas := map[string]int{}
	for _, s := range w.state.Streams() {
		for _, shard := range w.state.Shards(s.Id) {
			for _, r := range shard.Replicas {
				replicas[r.NodeId]++
			}
		}
	}
	for what, count := range map[string]map[string]int{"replicas": replicas, "leaders": w.leaders()} {
		var counts []int
		for _, n := range nodes {
			counts = append(counts, count[n])
			delete(count, n)
		}
		if slices.Max(counts)-slices.Min(counts) > 1 || len(count) > 0 {
			w.t.Errorf("%s of %v are %v, elsewhere %v", what, nodes, counts, count)
		}
	}
}

func TestRebalanceOntoNewBrokersAndBack(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c")
	w.create("s", 17)
	w.settle()
	w.register("d")
	w.register("e")
	w.view.eligible = map[string]bool{} // it waits for no hysteresis
	w.settle()
	if n := w.planned["AddReplicas"]; n != 0 {
		t.Fatalf("data moved though nobody asked for it: %v", w.planned)
	}
	w.apply(rebalance())
	w.settle()
	w.check()
	w.even("a", "b", "c", "d", "e")
	if since := w.state.Cluster().RebalancingSinceMs; since != 0 {
		t.Error("it never ends")
	}

	for _, n := range []string{"b", "e"} {
		w.apply(&pb.Command{Op: &pb.Command_DrainBroker{DrainBroker: &pb.DrainBroker{NodeId: n}}})
	}
	w.settle()
	w.check()
	w.apply(rebalance())
	w.settle()
	w.even("a", "c", "d")
	for _, n := range []string{"b", "e"} {
		w.apply(&pb.Command{Op: &pb.Command_RemoveBroker{RemoveBroker: &pb.RemoveBroker{NodeId: n}}})
	}
}

// A broker that is the leader of all it has too many of is relieved, too.
func TestRebalanceMovesLeadersOutOfTheWay(t *testing.T) {
	w := newPlanWorld(t, "a")
	w.create("s", 8)
	w.settle()
	w.register("b")
	w.register("c")
	w.register("d")
	w.settle()
	w.check()
	w.apply(rebalance())
	w.settle()
	w.check()
	w.even("a", "b", "c", "d")
}

func TestRebalanceWaitsForWhatIsUnderWay(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c")
	w.create("s", 6)
	w.settle()
	w.register("d")
	w.apply(rebalance())
	if w.step() == 0 {
		t.Fatal("nothing moves")
	}
	if w.step() != 0 || w.state.Cluster().RebalancingSinceMs == 0 {
		t.Fatalf("goes on before the new replicas are in sync: %v", w.planned)
	}
	w.settle()
	w.even("a", "b", "c", "d")
}

func TestOperatorsActsAreLetThrough(t *testing.T) {
	for i, c := range []*pb.Command{
		{Op: &pb.Command_DrainBroker{}},
		{Op: &pb.Command_UndrainBroker{}},
		{Op: &pb.Command_RemoveBroker{}},
		{Op: &pb.Command_Rebalance{}},
		{Op: &pb.Command_RecoverShard{}},
	} {
		if !fromOperator(c) {
			t.Error(fmt.Sprint(i), commandName(c))
		}
	}
	if fromOperator(&pb.Command{Op: &pb.Command_RemoveBroker{RemoveBroker: &pb.RemoveBroker{Forget: true}}}) {
		t.Error("only the controller knows when raft has forgotten a broker")
	}
	if fromOperator(&pb.Command{Op: &pb.Command_FenceBroker{}}) || fromOperator(&pb.Command{}) {
		t.Error("too much")
	}
}
