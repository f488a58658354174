package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
)

// planWorld is a metadata state with brokers that do what it tells them.
type planWorld struct {
	t     testing.TB
	state *raftfsm.State
	nowMs int64
	view  planView
	// planned counts the commands of the plans so far, by their kind.
	planned map[string]int
}

func newPlanWorld(t testing.TB, nodes ...string) *planWorld {
	w := &planWorld{t: t, state: raftfsm.NewState(), nowMs: 1_000_000, planned: map[string]int{}}
	w.view = planView{
		replaceAfter: defaultReplaceAfter, eligible: map[string]bool{}, health: map[string]health{},
		holds: func(uint64) bool { return false }, rebalance: true,
	}
	w.apply(&pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
		ClusterId: "c", TokenKey: make([]byte, 32), AccountId: defaultAccount, Limits: &pb.Limits{Shards: 1 << 20, OnDemandStreams: 100},
	}}})
	for _, n := range nodes {
		w.register(n)
	}
	return w
}

func (w *planWorld) apply(c *pb.Command) *pb.CommandResult {
	w.t.Helper()
	c.TimeMs = w.nowMs
	var result *pb.CommandResult
	w.state, result = w.state.Apply(w.state.Index()+1, c)
	if result.Error != 0 {
		w.t.Fatalf("%v: %v", c, result)
	}
	return result
}

// register makes a node live; the text behind a slash in the name is its zone.
func (w *planWorld) register(node string) {
	w.view.eligible[node] = true
	w.apply(&pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
		Broker:          &pb.Broker{NodeId: node, DiskId: "disk of " + node, Zone: node[1:], FeatureLevel: raftfsm.FeatureIncarnation},
		LastIncarnation: w.state.Broker(node).GetIncarnation(),
	}}})
}

func (w *planWorld) fence(node string) {
	w.apply(fenceCommand(fence{node, w.state.Broker(node).Incarnation, "test"}))
}

func (w *planWorld) create(name string, shards int) uint64 {
	c := &pb.Command{Op: &pb.Command_CreateStream{CreateStream: &pb.CreateStream{Name: name, ShardCount: uint32(shards)}}}
	stampCommand(w.state, w.nowMs, c)
	return w.apply(c).StreamId
}

// obey does what brokers do: replicas are made, and those that have caught up
// join the in-sync set or take a dead member's place.
func (w *planWorld) obey() {
	w.t.Helper()
	for _, s := range w.state.Streams() {
		for _, shard := range w.state.Shards(s.Id) {
			for _, r := range shard.Replicas {
				b := w.state.Broker(r.NodeId)
				if r.State == pb.ReplicaState_REPLICA_STATE_NEW && b.State == pb.BrokerState_BROKER_STATE_LIVE {
					w.apply(&pb.Command{Op: &pb.Command_ReplicasCreated{ReplicasCreated: &pb.ReplicasCreated{
						NodeId: r.NodeId, Incarnation: b.Incarnation,
						Replicas: []*pb.ReplicaRef{{StreamId: s.Id, Shard: shard.Number, ReplicaId: r.Id}},
					}}})
				}
			}
			for _, r := range w.state.Shard(s.Id, shard.Number).Replicas {
				w.expand(s.Id, shard.Number, r)
			}
		}
	}
}

func (w *planWorld) expand(id uint64, number uint32, r *pb.Replica) {
	shard, b := w.state.Shard(id, number), w.state.Broker(r.NodeId)
	if shard.Leader == 0 || inSync(shard, r) || r.State != pb.ReplicaState_REPLICA_STATE_CREATED || b.State != pb.BrokerState_BROKER_STATE_LIVE {
		return
	}
	members := []uint64{r.Id}
	var leader *pb.Broker
	for _, m := range shard.Replicas {
		if m.Id == shard.Leader {
			leader = w.state.Broker(m.NodeId)
		}
		if inSync(shard, m) && (m.Id == shard.Leader || w.state.Broker(m.NodeId).State != pb.BrokerState_BROKER_STATE_FENCED) {
			members = append(members, m.Id)
		}
	}
	w.apply(&pb.Command{Op: &pb.Command_AlterInSync{AlterInSync: &pb.AlterInSync{
		NodeId: leader.NodeId, Incarnation: leader.Incarnation,
		Changes: []*pb.InSyncChange{{StreamId: id, Shard: number, Epoch: shard.Epoch, Version: shard.Version, InSync: members, Added: r.Id, AddedIncarnation: b.Incarnation}},
	}}})
}

func (w *planWorld) plan() planned {
	w.view.nowMs = w.nowMs
	return makePlan(w.state, w.view)
}

// step carries one plan out. Every item of it must be accepted: nothing has
// changed in between.
func (w *planWorld) step() int {
	w.t.Helper()
	p := w.plan()
	for _, c := range p.commands {
		w.planned[kindOfCommand(c)]++
		for i, item := range w.apply(c).Items {
			if item != 0 {
				w.t.Fatalf("item %d of %v is refused: %v", i, c, item)
			}
		}
	}
	return len(p.commands)
}

// settle plans and obeys until nothing is left to do.
func (w *planWorld) settle() {
	w.t.Helper()
	for range 10_000 {
		before := w.state
		w.obey()
		if w.step() == 0 && w.state == before {
			return
		}
	}
	w.t.Fatalf("no rest: %v", w.plan().commands)
}

func kindOfCommand(c *pb.Command) string {
	return fmt.Sprintf("%T", c.Op)[len("*shardstreamv1.Command_"):]
}

// check holds a settled state to what a cluster at rest must be.
func (w *planWorld) check() {
	w.t.Helper()
	live := 0
	for _, b := range w.state.Brokers() {
		if b.State == pb.BrokerState_BROKER_STATE_LIVE {
			live++
		}
	}
	for _, s := range w.state.Streams() {
		for _, shard := range w.state.Shards(s.Id) {
			nodes := map[string]bool{}
			sound := 0
			for _, r := range shard.Replicas {
				if nodes[r.NodeId] {
					w.t.Fatalf("two replicas on %s: %v", r.NodeId, shard)
				}
				nodes[r.NodeId] = true
				if inSync(shard, r) && w.state.Broker(r.NodeId).State == pb.BrokerState_BROKER_STATE_LIVE {
					sound++
				}
			}
			if want := min(3, live); sound < want {
				w.t.Fatalf("%d of %d replicas are in sync: %v", sound, want, shard)
			}
		}
	}
}

func (w *planWorld) leaders() map[string]int {
	count := map[string]int{}
	for _, s := range w.state.Streams() {
		for _, shard := range w.state.Shards(s.Id) {
			for _, r := range shard.Replicas {
				if r.Id == shard.Leader {
					count[r.NodeId]++
				}
			}
		}
	}
	return count
}

func TestStreamIsActiveOnceFormedAndDue(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c")
	c := &pb.Command{Op: &pb.Command_CreateStream{CreateStream: &pb.CreateStream{Name: "s", ShardCount: 3, TransitionAfterMs: w.nowMs + 500}}}
	stampCommand(w.state, w.nowMs, c)
	id := w.apply(c).StreamId
	if p := w.plan(); len(p.commands) != 0 || p.next != idle {
		t.Fatalf("before its replicas are made: %+v", p)
	}
	w.obey()
	if p := w.plan(); len(p.commands) != 0 || p.next != 500*time.Millisecond {
		t.Fatalf("before its time: %+v", p)
	}
	w.nowMs += 500
	w.settle()
	if got := w.state.Stream(id).Status; got != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		t.Fatal(got)
	}
}

func TestDeletedStreamGoesWhenThisDiskIsFreeOfIt_I16(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c")
	id := w.create("s", 1)
	w.settle()
	w.apply(&pb.Command{Op: &pb.Command_DeleteStream{DeleteStream: &pb.DeleteStream{Name: "s", TransitionAfterMs: w.nowMs + 500}}})
	holds := true
	w.view.holds = func(stream uint64) bool { return stream == id && holds }
	if p := w.plan(); len(p.commands) != 0 || p.next != 500*time.Millisecond {
		t.Fatalf("%+v", p)
	}
	w.nowMs += 500
	if p := w.plan(); len(p.commands) != 0 || p.next > time.Second {
		t.Fatalf("%+v", p)
	}
	if deletedStream(w.state, id) {
		t.Fatal("taken for deleted before it is")
	}
	holds = false
	w.step()
	if w.state.Stream(id) != nil {
		t.Fatal("still there")
	}
	if !deletedStream(w.state, id) || deletedStream(w.state, id+1) || deletedStream(w.state, 0) || deletedStream(raftfsm.NewState(), id) {
		t.Fatal("a deleted stream is not told from one never heard of")
	}
}

// One broker's cluster that two others join gets three replicas of each of
// 2,000 shards, with one command to raise all factors.
func TestBrokersThatJoinRaiseReplication(t *testing.T) {
	w := newPlanWorld(t, "a")
	w.create("s", 2000)
	w.settle()
	w.register("b")
	w.register("c")
	clear(w.planned)
	w.step()
	if w.planned["SetFactors"] != 1 {
		t.Fatal(w.planned)
	}
	w.settle()
	w.check()
	if p := w.plan(); len(p.commands) != 0 {
		t.Fatal(p.commands)
	}
	if n := w.state.Shard(1, 7).MinInSync; n != 2 {
		t.Fatalf("the floor is %d", n)
	}
}

func TestDeadBrokerIsReplacedWhenItStaysAway(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c", "d")
	w.create("s", 40)
	w.settle()
	w.fence("b")
	w.settle()
	p := w.plan()
	if p.next != defaultReplaceAfter {
		t.Fatalf("looks again in %v", p.next)
	}
	for _, shard := range w.state.Shards(1) {
		if len(shard.Replicas) != 3 {
			t.Fatalf("replaced at once: %v", shard)
		}
	}
	w.nowMs += defaultReplaceAfter.Milliseconds()
	w.settle()
	w.check()
	for _, shard := range w.state.Shards(1) {
		if replicaOn(shard, "b") != nil || len(shard.Replicas) != 3 {
			t.Fatalf("still on the dead broker: %v", shard)
		}
	}
	w.register("b") // with nothing to do for it
	w.settle()
	w.check()
}

// A broker that comes back while its replacements are on their way: none of the
// replicas is more than needed for ever.
func TestSurplusOfAReturnedBrokerIsDropped(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c", "d")
	w.create("s", 40)
	w.settle()
	w.fence("b")
	w.nowMs += defaultReplaceAfter.Milliseconds()
	w.step()
	if w.planned["AddReplicas"] == 0 {
		t.Fatal("nothing was added")
	}
	w.register("b")
	w.settle()
	w.check()
	for _, shard := range w.state.Shards(1) {
		if len(shard.Replicas) != 3 {
			t.Fatalf("%d replicas: %v", len(shard.Replicas), shard)
		}
	}
}

func TestEmptiedDiskIsReplacedAtOnce(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c")
	w.create("s", 20)
	w.settle()
	w.apply(&pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
		Broker: &pb.Broker{NodeId: "b", DiskId: "another", FeatureLevel: raftfsm.FeatureIncarnation},
	}}})
	w.settle()
	w.check()
}

func TestLeadershipsLeaveAnUnfitNodeInOneCommand(t *testing.T) {
	for name, h := range map[string]health{"stalled": {stalled: true}, "full": {full: true}} {
		t.Run(name, func(t *testing.T) {
			w := newPlanWorld(t, "a", "b", "c")
			w.create("s", 2000)
			w.settle()
			clear(w.view.eligible) // hysteresis does not matter for this
			w.view.health["b"] = h
			clear(w.planned)
			w.step()
			if w.planned["MoveLeaders"] != 1 || len(w.planned) != 1 {
				t.Fatal(w.planned)
			}
			if got := w.leaders(); got["b"] != 0 || got["a"]+got["c"] != 2000 {
				t.Fatal(got)
			}
			w.settle()
			w.view.health["a"], w.view.health["c"] = h, h
			if p := w.plan(); len(p.commands) != 0 {
				t.Fatalf("moved between unfit nodes: %v", p.commands)
			}
		})
	}
}

func TestStoppingBrokerIsReleasedOnceAndAgainWhenMoreCanGo(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c")
	w.create("s", 6)
	w.settle()
	w.fence("b")
	w.fence("c") // the floor keeps one of these in each set, and a leads all
	w.settle()
	w.view.health["a"] = health{stopping: true}
	clear(w.planned)
	w.step()
	if w.planned["StopBroker"] != 1 || w.leaders()["a"] != 6 {
		t.Fatal(w.planned, w.leaders())
	}
	if w.step() != 0 {
		t.Fatal("repeated though nothing can move")
	}
	w.register("b")
	w.settle()
	if n := w.leaders()["a"]; n != 0 {
		t.Fatalf("%d leaderships did not leave the stopping broker", n)
	}
}

// A member that the floor kept when its broker died leaves when another joins.
func TestDeadMemberAtTheFloorGoesWhenAnotherIsAdded(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c")
	w.create("s", 6)
	w.settle()
	w.fence("b")
	w.fence("c")
	w.register("b")
	w.obey()
	w.settle()
	for _, shard := range w.state.Shards(1) {
		if c := replicaOn(shard, "c"); inSync(shard, c) {
			t.Fatalf("a dead broker is in sync: %v", shard)
		}
	}
}

func TestStreamThatWaitsForADeadBrokerForms(t *testing.T) {
	for _, nodes := range [][]string{{"a", "b", "c"}, {"a", "b", "c", "d"}} {
		w := newPlanWorld(t, nodes...)
		id := w.create("s", 12)
		w.fence("b")
		w.settle()
		if got := w.state.Stream(id).Status; got != pb.StreamStatus_STREAM_STATUS_ACTIVE {
			t.Fatalf("%v: %v", nodes, got)
		}
		if len(nodes) == 4 {
			w.check()
		}
		w.register("b")
		w.settle()
		w.check()
	}
}

func TestOnlyReplicaOfANewShardOnADeadBrokerIsPlacedElsewhere(t *testing.T) {
	w := newPlanWorld(t, "a")
	id := w.create("s", 4)
	w.register("b")
	w.fence("a")
	w.settle()
	if got := w.state.Stream(id).Status; got != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		t.Fatal(got, w.state.Shards(id))
	}
}

func TestLeadershipsGoBackOnlyToEligibleNodes(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c")
	w.create("s", 300)
	w.settle()
	even := w.leaders()
	w.fence("b")
	w.register("b")
	w.view.eligible["b"] = false
	w.settle()
	if got := w.leaders()["b"]; got != 0 {
		t.Fatalf("%d leaderships are back too early", got)
	}
	w.view.eligible["b"] = true
	w.view.rebalance = false
	if n := w.step(); n != 0 {
		t.Fatal("moved out of turn")
	}
	w.view.rebalance = true
	clear(w.planned)
	w.settle()
	if got := w.leaders(); got["b"] != even["b"] || w.planned["MoveLeaders"] != 1 {
		t.Fatal(got, even, w.planned)
	}
}

func TestOfflineShardKeepsAllItsReplicas(t *testing.T) {
	w := newPlanWorld(t, "a", "b", "c", "d")
	w.create("s", 20)
	w.settle()
	for _, n := range []string{"a", "b", "c"} {
		w.fence(n)
	}
	w.nowMs += 2 * defaultReplaceAfter.Milliseconds()
	w.step()
	for _, shard := range w.state.Shards(1) {
		if shard.Leader == 0 && len(shard.Replicas) != 3 {
			t.Fatal(shard)
		}
	}
}

func TestNodeThatJoinsIsNotGivenEverythingAtOnce(t *testing.T) {
	w := newPlanWorld(t, "a", "b")
	w.create("s", 500)
	w.settle()
	w.register("c")
	w.step() // factors
	w.step()
	n := 0
	for _, shard := range w.state.Shards(1) {
		if replicaOn(shard, "c") != nil {
			n++
		}
	}
	if n != addsPerNode {
		t.Fatalf("%d replicas at once", n)
	}
	if w.step() != 0 {
		t.Fatal("more were placed before those are in sync")
	}
	w.settle()
	w.check()
}

func TestZonesAreKeptByRepair(t *testing.T) {
	w := newPlanWorld(t, "a1", "b1", "c2", "d2", "e3", "f3")
	w.create("s", 60)
	w.settle()
	w.fence("c2")
	w.nowMs += defaultReplaceAfter.Milliseconds()
	w.settle()
	w.check()
	for _, shard := range w.state.Shards(1) {
		zones := map[string]bool{}
		for _, r := range shard.Replicas {
			zones[r.NodeId[1:]] = true
		}
		if len(zones) != 3 {
			t.Fatal(shard)
		}
	}
}

// Whatever happens to brokers, plans come to rest, never contradict the state
// that they were made from, and leave every shard with enough copies in sync.
func TestPlansComeToRest_Property(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		names := []string{"a1", "b2", "c3", "d1", "e2"}
		w := newPlanWorld(t, names[:rapid.IntRange(1, 5).Draw(rt, "nodes")]...)
		created := 0
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			node := rapid.SampledFrom(names).Draw(rt, "node")
			b := w.state.Broker(node)
			switch rapid.SampledFrom([]string{"register", "fence", "stop", "create", "obey", "plan", "wait", "sick", "well", "rebalance"}).Draw(rt, "what") {
			case "register":
				delete(w.view.health, node)
				w.register(node)
			case "fence":
				if b != nil {
					w.fence(node)
				}
			case "stop":
				w.view.health[node] = health{stopping: true}
			case "create":
				if len(loads(w.state)) > 0 && created < 3 {
					created++
					w.create(fmt.Sprint("s", created), rapid.IntRange(1, 6).Draw(rt, "shards"))
				}
			case "obey":
				w.obey()
			case "plan":
				before := w.plan()
				if !slices.EqualFunc(before.commands, w.plan().commands, func(a, b *pb.Command) bool { return proto.Equal(a, b) }) {
					rt.Fatal("the same state gives two plans")
				}
				w.step()
			case "wait":
				w.nowMs += defaultReplaceAfter.Milliseconds()
			case "sick":
				w.view.health[node] = health{stalled: true}
			case "rebalance":
				w.apply(rebalance())
			case "well":
				delete(w.view.health, node)
			}
		}
		w.settle()
		clear(w.view.health)
		for _, b := range w.state.Brokers() {
			w.register(b.NodeId)
		}
		w.settle()
		w.check()
		if w.state.Cluster().RebalancingSinceMs != 0 {
			rt.Fatal("rebalancing never ends")
		}
		for _, s := range w.state.Streams() {
			if s.Status != pb.StreamStatus_STREAM_STATUS_ACTIVE {
				rt.Fatalf("%v", s)
			}
		}
	})
}
