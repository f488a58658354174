package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

func (w *planWorld) reshard(c *pb.Reshard) *pb.CommandResult {
	w.t.Helper()
	cmd := &pb.Command{Op: &pb.Command_Reshard{Reshard: c}}
	stampCommand(w.state, w.nowMs, cmd)
	return w.apply(cmd)
}

// seal does what the leaders of sealing shards do.
func (w *planWorld) seal(id uint64) {
	w.t.Helper()
	for _, shard := range w.state.Shards(id) {
		if shard.State != pb.ShardState_SHARD_STATE_SEALING || shard.Sealed {
			continue
		}
		for _, r := range shard.Replicas {
			if r.Id == shard.Leader {
				w.apply(&pb.Command{Op: &pb.Command_SealShards{SealShards: &pb.SealShards{
					NodeId: r.NodeId, Incarnation: w.state.Broker(r.NodeId).Incarnation,
					Seals: []*pb.Seal{{StreamId: id, Shard: shard.Number, Epoch: shard.Epoch, Version: shard.Version, FinalOffset: 7}},
				}}})
			}
		}
	}
}

func (w *planWorld) drain(node string) {
	w.t.Helper()
	w.apply(&pb.Command{Op: &pb.Command_DrainBroker{DrainBroker: &pb.DrainBroker{NodeId: node}}})
}

// on counts the replicas that a node has.
func (w *planWorld) on(node string) (n int) {
	for _, s := range w.state.Streams() {
		for _, shard := range w.state.Shards(s.Id) {
			for _, r := range shard.Replicas {
				if r.NodeId == node {
					n++
				}
			}
		}
	}
	return n
}

func TestReshardIsSealedOnceItsChildrenCanLeadAndItIsDue(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c", "d")
	id := w.create("s", 4)
	w.settle()
	w.nowMs += 1000
	w.reshard(&pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_COUNT, TargetCount: 5, TransitionAfterMs: w.nowMs + 500})
	led := map[string]int{}
	for _, shard := range w.state.Shards(id)[4:] {
		if len(shard.Replicas) > 0 {
			led[shard.Replicas[0].NodeId]++
		}
	}
	if len(led) != 4 {
		t.Fatalf("the children are placed on %v", led)
	}
	if p := w.plan(); len(p.commands) != 0 || p.next != 500*time.Millisecond {
		t.Fatalf("before its time: %+v", p)
	}
	w.nowMs += 500
	if p := w.plan(); len(p.commands) != 0 {
		t.Fatalf("before the replicas are made: %+v", p)
	}
	w.obey()
	clear(w.planned)
	if w.step(); w.planned["SealParents"] != 1 || len(w.planned) != 1 {
		t.Fatalf("planned %v", w.planned)
	}
	if p := w.plan(); len(p.commands) != 0 {
		t.Fatalf("sealed again: %+v", p)
	}
	w.seal(id)
	w.settle()
	if s := w.state.Stream(id); s.Status != pb.StreamStatus_STREAM_STATUS_ACTIVE || w.state.OpenShards() != 5 {
		t.Fatalf("%v, %d open", s, w.state.OpenShards())
	}
	if p := w.plan(); len(p.commands) != 0 {
		t.Fatalf("no rest: %+v", p)
	}
}

// The children's second is behind the parents', and comes by itself: nothing
// raises the cluster's time for it.
func TestReshardOfShardsOfThisSecondWaitsForTheNext(t *testing.T) {
	w := newPlanWorld(t, "a")
	w.nowMs += 300
	id := w.create("s", 1)
	w.settle()
	w.nowMs += 200
	w.reshard(&pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_COUNT, TargetCount: 2})
	w.obey()
	if p := w.plan(); len(p.commands) != 0 || p.next != 500*time.Millisecond {
		t.Fatalf("in the parent's second: %+v", p)
	}
	w.nowMs += 500
	w.settle()
	w.seal(id)
	w.settle()
	if got := w.state.Shard(id, 1).GetCreatedMs(); got != w.nowMs || w.state.Stream(id).Status != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		t.Fatalf("a child is of %d, not %d", got, w.nowMs)
	}
}

// A broker that dies while it has yet to make children's replicas holds nothing up.
func TestReshardGoesOnWithoutADeadBroker(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c")
	id := w.create("s", 2)
	w.settle()
	w.nowMs += 1000
	w.reshard(&pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_MERGE, Shard: 0, AdjacentShard: 1})
	w.fence("a")
	w.settle()
	w.seal(id)
	w.settle()
	if s := w.state.Stream(id); s.Status != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		t.Fatal(s, w.state.SealWaitsFor(id))
	}
}

func TestClosedShardsExpire_I17(t *testing.T) {
	w := newPlanWorld(t, "a")
	id := w.create("s", 1)
	w.settle()
	w.nowMs += 2000
	w.reshard(&pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_SPLIT, SplitAtHi: 9})
	w.settle()
	w.seal(id)
	w.settle()
	day := (24 * time.Hour).Milliseconds()
	w.nowMs = w.state.Shard(id, 0).ClosedMs + day
	w.view.mayExpire = true
	if p := w.plan(); len(p.commands) != 0 || p.next != time.Millisecond {
		t.Fatalf("%+v", p)
	}
	w.nowMs++
	w.view.mayExpire = false
	if p := w.plan(); len(p.commands) != 0 {
		t.Fatalf("though nobody knows the time: %+v", p)
	}
	w.view.mayExpire = true
	w.settle()
	if shard := w.state.Shard(id, 0); shard.State != pb.ShardState_SHARD_STATE_EXPIRED || len(shard.Replicas) != 0 {
		t.Fatal(shard)
	}
	if p := w.plan(); len(p.commands) != 0 {
		t.Fatalf("no rest: %+v", p)
	}
}

// A drained broker gives away what it leads at once, and then its replicas, a few
// at a time, each after another copy is in sync.
func TestDrain(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c", "d")
	w.create("s", 100)
	w.settle()
	led := w.leaders()["a"]
	if led == 0 {
		t.Fatal("nothing to drain")
	}
	w.drain("a")
	clear(w.planned)
	if w.step(); w.planned["MoveLeaders"] == 0 || w.leaders()["a"] != 0 {
		t.Fatalf("%v, and leads %d", w.planned, w.leaders()["a"])
	}
	for range 1000 {
		w.step()
		adding := map[string]int{}
		for _, s := range w.state.Streams() {
			for _, shard := range w.state.Shards(s.Id) {
				if n := len(shard.InSync); n < 3 {
					t.Fatalf("%d copies in sync: %v", n, shard)
				}
				for _, r := range shard.Replicas {
					if !inSync(shard, r) {
						adding[r.NodeId]++
					}
				}
			}
		}
		for node, n := range adding {
			if n > addsPerNode || node == "a" {
				t.Fatalf("%s is given %d replicas at a time", node, n)
			}
		}
		if w.obey(); w.on("a") == 0 {
			break
		}
	}
	w.settle()
	w.check()
	if w.on("a") != 0 {
		t.Fatalf("it still has %d", w.on("a"))
	}
	w.apply(&pb.Command{Op: &pb.Command_RemoveBroker{RemoveBroker: &pb.RemoveBroker{NodeId: "a"}}})
	w.view.inRaft = map[string]bool{"a": true}
	w.nowMs += goneFor.Milliseconds()
	if p := w.plan(); len(p.commands) != 0 {
		t.Fatalf("forgotten though raft has it: %+v", p)
	}
	w.view.inRaft = nil
	w.nowMs--
	if p := w.plan(); len(p.commands) != 0 || p.next != time.Millisecond {
		t.Fatalf("forgotten too early: %+v", p)
	}
	w.nowMs++
	w.settle()
	if w.state.Broker("a") != nil {
		t.Fatal(w.state.Broker("a"))
	}
}

// A dead broker that is to be drained is not waited for.
func TestDrainOfADeadBroker(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c", "d")
	w.create("s", 20)
	w.settle()
	w.fence("a")
	w.settle()
	if w.on("a") == 0 {
		t.Fatal("replaced at once")
	}
	w.drain("a")
	w.settle()
	w.check()
	if w.on("a") != 0 {
		t.Fatalf("it still has %d", w.on("a"))
	}
}

func TestUndrainEndsTheMoves(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c", "d")
	w.create("s", 200)
	w.settle()
	w.drain("a")
	for range 3 {
		w.step()
		w.obey()
	}
	left := w.on("a")
	w.apply(&pb.Command{Op: &pb.Command_UndrainBroker{UndrainBroker: &pb.UndrainBroker{NodeId: "a"}}})
	w.settle()
	w.check()
	if left == 0 || w.on("a") == 0 || w.leaders()["a"] == 0 {
		t.Fatalf("it had %d, has %d and leads %d", left, w.on("a"), w.leaders()["a"])
	}
}

func TestReshardIsStampedByTheRaftLeader(t *testing.T) {
	w := newPlanWorld(t, "a", "b")
	id := w.create("s", 2)
	w.settle()
	c := &pb.Command{Op: &pb.Command_Reshard{Reshard: &pb.Reshard{
		StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_SPLIT, Shard: 0, SplitAtHi: 9, TransitionAfterMs: w.nowMs + time.Hour.Milliseconds(),
		Placement: []*pb.ReplicaNodes{{NodeIds: []string{"mallory"}}},
	}}}
	if !fromAPI(c) {
		t.Error("no gateway may propose it")
	}
	stampCommand(w.state, w.nowMs, c)
	r := c.GetReshard()
	if len(r.Placement) != 2 || len(r.Placement[0].NodeIds) != 2 || r.TransitionAfterMs != w.nowMs+maxTransitionDelay.Milliseconds() {
		t.Errorf("stamped %v", r)
	}
	r.Shard = 9
	stampCommand(w.state, w.nowMs, c)
	if _, result := raftfsm.NewState().Apply(1, c); len(r.Placement) != 0 || stream.Kind(result.Error) == 0 {
		t.Errorf("stamped %v", r)
	}
}

// A broker that was removed hears so and ends; it can't come back but as a new
// one, on another disk.
func TestRemovedBrokerHearsIt(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(time.Second)
		w.raft.apply(&pb.Command{Op: &pb.Command_DrainBroker{DrainBroker: &pb.DrainBroker{NodeId: "b"}}})
		w.raft.apply(&pb.Command{Op: &pb.Command_RemoveBroker{RemoveBroker: &pb.RemoveBroker{NodeId: "b"}}})
		n := w.nodes["b"]
		w.await("the removed broker hears it", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.superseded != nil })
		n.mu.Lock()
		defer n.mu.Unlock()
		if !errors.Is(n.superseded, stream.Stale) || !strings.Contains(n.superseded.Error(), "was removed from the cluster") {
			t.Fatal(n.superseded)
		}
		disk := n.meta.State().Broker("b").DiskId
		_, err := n.control.Propose(w.ctx, &pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
			Broker: &pb.Broker{NodeId: "b", DiskId: disk},
		}}})
		if !errors.Is(err, stream.AlreadyExists) {
			t.Fatal(err)
		}
	})
}
