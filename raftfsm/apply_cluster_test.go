package raftfsm

import (
	"fmt"
	"testing"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func TestFenceMovesEverythingInOneEntry(t *testing.T) {
	w := newCluster(t, "a", "b", "c")
	led := w.active("led", 2000, "a", "b", "c")
	followed := w.active("followed", 1, "b", "a", "c")
	alone := w.active("alone", 1, "a")
	before := w.s.Shard(followed, 0)
	w.refuses(stream.Stale, fence("a", 2))
	w.refuses(stream.Stale, fence("nobody", 0))
	w.now = 7000
	w.must(fence("a", 1))
	for _, sh := range w.s.Shards(led) {
		if shape(sh) != "[a] b* c" || sh.GetEpoch() != 3 {
			t.Fatalf("shard %v", sh)
		}
	}
	w.looks(followed, "b* [a] c")
	if sh := w.s.Shard(followed, 0); sh.GetEpoch() != before.GetEpoch() || sh.GetVersion() != before.GetVersion()+1 {
		t.Errorf("a followed shard's epoch moved: %v", sh)
	}
	w.looks(alone, "a") // offline, and still the member
	if b := w.s.Broker("a"); w.broker("a") != "FENCED 1" || b.GetChangedMs() != 7000 || b.GetReason() != "silent" {
		t.Errorf("broker %v", b)
	}
	same := w.s.Shard(led, 0)
	w.must(fence("a", 1))
	if w.s.Shard(led, 0) != same {
		t.Error("a repeat changed something")
	}

	// The next one to die stays a member at the floor (I1).
	w.must(fence("b", 1))
	w.looks(led, "[a] b c*")
	w.looks(followed, "b [a] c*")
	// And if the last dies too, whichever member returns first leads.
	w.must(fence("c", 1))
	w.looks(led, "[a] b c")
	if sh := w.s.Shard(led, 0); sh.GetLeader() != 0 || sh.GetEpoch() != 5 {
		t.Errorf("offline: %v", sh)
	}
	w.refuses(stream.Stale, unfence("b", 9))
	w.must(unfence("a", 1))
	w.looks(led, "[a] b c")
	w.looks(alone, "a*")
	w.must(unfence("b", 1))
	w.looks(led, "[a] b* c")
	epoch := w.s.Shard(led, 0).GetEpoch()
	w.must(unfence("c", 1))
	w.must(unfence("c", 1))
	if w.looks(led, "[a] b* c"); w.s.Shard(led, 0).GetEpoch() != epoch || w.broker("c") != "LIVE 1" {
		t.Errorf("unfencing another moved the leader: %v", w.s.Shard(led, 0))
	}
}

// The set of a shard that goes offline keeps its members: no write waits for
// them, and each of them can lead it when it returns.
func TestOfflineKeepsItsMembers(t *testing.T) {
	w := newCluster(t, "a", "b", "c")
	id := w.active("s", 1, "a", "b", "c")
	w.must(suspect("b", 1, w.refs(id, "b")...))
	w.must(suspect("c", 1, w.refs(id, "c")...))
	w.looks(id, "a* b~ c~")
	w.must(fence("a", 1))
	w.looks(id, "a b~ c~")
	w.must(fence("b", 1))
	w.looks(id, "a b~ c~")
	w.must(unfence("a", 1))
	w.looks(id, "a* b~ c~")
}

func TestRegisterOfTheSameDisk(t *testing.T) {
	w := newCluster(t, "a", "b", "c")
	id := w.active("s", 1, "a", "b", "c")
	alone := w.active("alone", 1, "a")
	w.must(fence("a", 1))
	c := rejoin("a", "disk-a", 1)
	b := c.GetRegisterBroker().GetBroker()
	b.GrpcAddress, b.RaftAddress, b.GossipAddress, b.HttpAddress, b.Zone, b.FeatureLevel = "g", "r", "m", "h", "z2", 5
	w.must(c)
	w.looks(id, "[a] b* c")
	w.looks(alone, "a*")
	got := w.s.Broker("a")
	if got.GetGrpcAddress() != "g" || got.GetRaftAddress() != "r" || got.GetGossipAddress() != "m" || got.GetHttpAddress() != "h" ||
		got.GetZone() != "z2" || got.GetFeatureLevel() != 5 || w.broker("a") != "LIVE 2" {
		t.Errorf("broker %v", got)
	}
	// Restarted before anyone noticed.
	w.must(rejoin("b", "disk-b", 1))
	w.looks(id, "[a] b c*")
	if w.broker("b") != "LIVE 2" {
		t.Error(w.broker("b"))
	}
}

// A disk that is not the registered one, or that was taken back to an earlier
// time, has none of the copies that its replica ids name (I8, I11).
func TestRegisterOfAnotherDisk(t *testing.T) {
	for name, c := range map[string]*pb.Command{
		"another disk": rejoin("a", "empty", 0), "emptied": rejoin("a", "disk-a", 0),
		"rolled back": rejoin("a", "disk-a", 1), "from the future": rejoin("a", "disk-a", 3),
	} {
		t.Run(name, func(t *testing.T) {
			w := newCluster(t, "a", "b", "c")
			w.must(rejoin("a", "disk-a", 1)) // incarnation 2
			three := w.active("three", 1, "a", "b", "c")
			two := w.active("two", 1, "a", "b")
			one := w.active("one", 1, "a")
			forming := w.must(create("forming", 1, "b", "a")).GetStreamId()
			w.must(created("a", 2, w.refs(forming, "a")...))
			leaving := w.active("leaving", 1, "a", "b")
			w.must(deleteName("leaving", 0))
			last := w.s.Cluster().GetNextReplicaId() - 1
			w.must(c)
			w.looks(three, "[a?] b* c")
			w.looks(two, "[a?] b* a!")
			w.looks(one, "[a?] a!")
			w.looks(forming, "[b?] [a?]")
			w.looks(leaving, "b* a!")
			for _, id := range []uint64{three, two, one, forming} {
				if r := on(w.s.Shard(id, 0), "a"); r.GetId() <= last {
					t.Errorf("replica id %d is not new", r.GetId())
				}
			}
			// A second time: the copy that was new is void as well.
			w.must(rejoin("a", "another one", 0))
			w.looks(two, "[a?] b* a!")

			// The way out at the floor: the lost member is swapped for a caught-up one.
			w.must(created("a", 4, w.refs(two, "a")...))
			sh := w.s.Shard(two, 0)
			if got := w.items(alter("b", 1, adding(inSync(sh, "b", "a"), sh, "a", 4))); got != "NONE" {
				t.Error(got)
			}
			w.looks(two, "a b*")
		})
	}
}

// A broker of a version that did not persist incarnations is known by its disk.
func TestRegisterAfterUpgrade(t *testing.T) {
	w := newWorld(t, "a")
	id := w.active("s", 1, "a")
	w.must(register("a", "disk-a"))
	w.looks(id, "a*")
	w.must(rejoin("a", "disk-a", 0))
	w.looks(id, "a*")
	w.must(rejoin("a", "disk-a", 0)) // now it should have known better
	w.looks(id, "[a?] a!")
}

func TestStopBroker(t *testing.T) {
	w := newCluster(t, "a", "b", "c")
	three := w.active("three", 1, "a", "b", "c")
	two := w.active("two", 1, "a", "b")
	one := w.active("one", 1, "a")
	w.refuses(stream.Stale, stop("a", 2))
	w.must(stop("a", 1))
	w.looks(three, "[a] b* c")
	w.looks(two, "a b*")
	w.looks(one, "a*") // nobody else can
	if w.broker("a") != "STOPPING 1" {
		t.Error(w.broker("a"))
	}
	w.refuses(stream.Stale, create("new", 1, "a"))
	sh := w.s.Shard(three, 0)
	if got := w.items(alter("b", 1, adding(inSync(sh, "a", "b", "c"), sh, "a", 1))); got != "STALE" {
		t.Errorf("joined again while stopping: %s", got)
	}
	// It is better than nobody while it runs, and gives way when it can.
	w.must(fence("b", 1))
	w.looks(two, "a* b")
	w.must(unfence("b", 1))
	w.looks(two, "a* b")
	w.must(stop("a", 1))
	w.looks(two, "a b*")
	// Two that stop don't hand a leadership to and fro.
	w.must(stop("b", 1))
	same := w.s.Shard(two, 0)
	w.must(stop("a", 1))
	w.must(stop("b", 1))
	if w.s.Shard(two, 0) != same {
		t.Errorf("moved between two that stop: %v", w.s.Shard(two, 0))
	}
	w.must(fence("a", 1))
	w.refuses(stream.WrongState, stop("a", 1))
	w.must(rejoin("a", "disk-a", 1))
	if w.broker("a") != "LIVE 2" {
		t.Error(w.broker("a"))
	}
	w.looks(one, "a*")
}

func TestAlterInSync(t *testing.T) {
	w := newCluster(t, "a", "b", "c", "d")
	id := w.active("s", 1, "a", "b", "c")
	sh := w.s.Shard(id, 0)
	w.items(add(placeOn(sh, "d")))
	w.must(created("d", 1, w.refs(id, "d")...))
	sh = w.s.Shard(id, 0)
	w.looks(id, "a* b c [d]")

	w.refuses(stream.Stale, alter("a", 2, inSync(sh, "a", "b")))
	for name, c := range map[string]struct {
		change *pb.InSyncChange
		want   string
	}{
		"unknown shard":     {&pb.InSyncChange{StreamId: id, Shard: 7}, "NOT_FOUND"},
		"old epoch":         {&pb.InSyncChange{StreamId: id, Epoch: sh.GetEpoch() - 1, Version: sh.GetVersion(), InSync: sh.GetInSync()[:2]}, "STALE"},
		"old version":       {&pb.InSyncChange{StreamId: id, Epoch: sh.GetEpoch(), Version: sh.GetVersion() - 1, InSync: sh.GetInSync()[:2]}, "STALE"},
		"below the floor":   {inSync(sh, "a"), "INVALID"},
		"without leader":    {inSync(sh, "b", "c"), "INVALID"},
		"unnamed addition":  {inSync(sh, "a", "b", "d"), "INVALID"},
		"twice":             {inSync(sh, "a", "b", "b"), "INVALID"},
		"added is missing":  {adding(inSync(sh, "a", "b"), sh, "d", 1), "INVALID"},
		"added is a member": {adding(inSync(sh, "a", "b"), sh, "b", 1), "INVALID"},
		"unknown replica":   {&pb.InSyncChange{StreamId: id, Epoch: sh.GetEpoch(), Version: sh.GetVersion(), InSync: []uint64{sh.GetLeader(), 77}, Added: 77}, "INVALID"},
	} {
		if got := w.items(alter("a", 1, c.change)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got := w.items(alter("b", 1, inSync(sh, "a", "b"))); got != "STALE" {
		t.Errorf("by another than the leader: %s", got)
	}
	if w.s.Shard(id, 0) != sh {
		t.Fatal("a refused change changed the shard")
	}

	// Two changes of one shard in one command: the second is out of date (I10).
	if got := w.items(alter("a", 1, inSync(sh, "a", "b"), inSync(sh, "a", "c"))); got != "NONE STALE" {
		t.Error(got)
	}
	w.looks(id, "a* b [c] [d]")

	// Only the candidate is at fault: the version rises, so that the leader may
	// count without it again (I3).
	for name, spoil := range map[string]func(w *world) uint64{
		"another incarnation": func(*world) uint64 { return 9 },
		"fenced":              func(w *world) uint64 { w.must(fence("c", 1)); return 1 },
		"suspect":             func(w *world) uint64 { w.must(suspect("c", 1, w.refs(id, "c")...)); return 1 },
		"stopping":            func(w *world) uint64 { w.must(stop("c", 1)); return 1 },
	} {
		w := &world{tb: t, s: w.s, index: w.index, now: w.now}
		incarnation := spoil(w)
		sh := w.s.Shard(id, 0)
		if got := w.items(alter("a", 1, adding(inSync(sh, "a", "b", "c"), sh, "c", incarnation))); got != "STALE" {
			t.Errorf("%s: %s", name, got)
		}
		now := w.s.Shard(id, 0)
		if now.GetVersion() != sh.GetVersion()+1 || now.GetEpoch() != sh.GetEpoch() || len(now.GetInSync()) != 2 {
			t.Errorf("%s: %v after %v", name, now, sh)
		}
	}
	// A swap at the floor: b for d.
	sh = w.s.Shard(id, 0)
	if got := w.items(alter("a", 1, adding(inSync(sh, "a", "d"), sh, "d", 1))); got != "NONE" {
		t.Error(got)
	}
	w.looks(id, "a* [b] [c] d")
}

// A stream made on one broker: its floor rises as soon as there are two copies.
func TestFloorRises(t *testing.T) {
	w := newCluster(t, "a", "b", "c")
	id := w.active("s", 1, "a")
	sh := w.s.Shard(id, 0)
	change := func(factor, floor uint32) *pb.FactorChange {
		sh := w.s.Shard(id, 0)
		return &pb.FactorChange{StreamId: id, Version: sh.GetVersion(), ReplicationFactor: factor, MinInSync: floor}
	}
	for _, c := range []struct {
		change *pb.FactorChange
		want   string
	}{
		{change(0, 0), "INVALID"},
		{change(1, 2), "INVALID"},
		{change(3, 2), "WRONG_STATE"},
		{&pb.FactorChange{StreamId: 99}, "NOT_FOUND"},
		{&pb.FactorChange{StreamId: id, Version: 1, ReplicationFactor: 3}, "STALE"},
		{change(1, 1), "NONE"},
	} {
		if got := w.items(factors(c.change)); got != c.want || w.s.Shard(id, 0) != sh {
			t.Errorf("%v: %s, want %s", c.change, got, c.want)
		}
	}
	if got := w.items(factors(change(3, 0))); got != "NONE" {
		t.Error(got)
	}
	sh = w.s.Shard(id, 0)
	if got := w.items(add(placeOn(sh, "b"), placeOn(sh, "c"), placeOn(sh, "a"))); got != "NONE NONE ALREADY_EXISTS" {
		t.Error(got)
	}
	w.must(created("b", 1, w.refs(id, "b")...))
	w.must(created("c", 1, w.refs(id, "c")...))
	w.looks(id, "a* [b] [c]")
	sh = w.s.Shard(id, 0)
	w.items(alter("a", 1, adding(inSync(sh, "a", "b"), sh, "b", 1)))
	sh = w.s.Shard(id, 0)
	if sh.GetMinInSync() != 2 || sh.GetReplicationFactor() != 3 {
		t.Errorf("shard %v", sh)
	}
	if got := w.items(alter("a", 1, inSync(sh, "a"))); got != "INVALID" {
		t.Errorf("shrunk below: %s", got)
	}
	if got := w.items(factors(change(3, 1))); got != "INVALID" {
		t.Errorf("lowered: %s", got)
	}
	if got := w.items(factors(change(1, 1))); got != "NONE" || w.s.Shard(id, 0).GetMinInSync() != 1 {
		t.Errorf("a factor of one: %s", got)
	}
}

func TestMoveLeaders(t *testing.T) {
	w := newCluster(t, "a", "b", "c", "d")
	id := w.active("s", 1, "a", "b", "c")
	sh := w.s.Shard(id, 0)
	stale := changeOf(sh, "b")
	stale.Version--
	if got := w.items(move(stale, &pb.ReplicaChange{StreamId: 99}, &pb.ReplicaChange{StreamId: id, Version: sh.GetVersion()}, changeOf(sh, "a"))); got != "STALE NOT_FOUND NOT_FOUND NONE" {
		t.Error(got)
	}
	if w.s.Shard(id, 0) != sh {
		t.Error("changed by nothing")
	}
	if got := w.items(move(changeOf(sh, "b"))); got != "NONE" {
		t.Error(got)
	}
	w.looks(id, "a b* c")
	if now := w.s.Shard(id, 0); now.GetEpoch() != sh.GetEpoch()+1 {
		t.Errorf("shard %v", now)
	}
	w.must(fence("c", 1))
	w.must(suspect("a", 1, w.refs(id, "a")...))
	sh = w.s.Shard(id, 0)
	if got := w.items(move(changeOf(sh, "a"), changeOf(sh, "c"))); got != "WRONG_STATE WRONG_STATE" {
		t.Error(got)
	}
}

func TestAddAndDropReplicas(t *testing.T) {
	w := newCluster(t, "a", "b", "c", "d")
	id := w.active("s", 1, "a", "b", "c")
	sh := w.s.Shard(id, 0)
	w.must(fence("d", 1))
	if got := w.items(add(placeOn(sh, "d"), placeOn(sh, "b"), placeOn(sh, "nobody"))); got != "WRONG_STATE ALREADY_EXISTS WRONG_STATE" {
		t.Error(got)
	}
	w.must(unfence("d", 1))
	if got := w.items(add(placeOn(sh, "d"))); got != "NONE" {
		t.Error(got)
	}
	w.looks(id, "a* b c [d?]")
	sh = w.s.Shard(id, 0)
	if got := w.items(drop(changeOf(sh, "a"), changeOf(sh, "b"), changeOf(sh, "c"), &pb.ReplicaChange{StreamId: id, Version: sh.GetVersion(), ReplicaId: 99})); got != "WRONG_STATE NONE WRONG_STATE NOT_FOUND" {
		t.Error(got)
	}
	w.looks(id, "a* c [d?]")
	if got := w.items(drop(changeOf(sh, "d"))); got != "STALE" {
		t.Error(got)
	}
	// Of a shard that is offline only empty copies go.
	w.must(created("d", 1, w.refs(id, "d")...))
	w.items(add(placeOn(w.s.Shard(id, 0), "b")))
	w.must(fence("a", 1))
	w.must(fence("c", 1))
	w.looks(id, "a c [d] [b?]")
	sh = w.s.Shard(id, 0)
	if got := w.items(drop(changeOf(sh, "d"), changeOf(sh, "a"), changeOf(sh, "b"))); got != "WRONG_STATE WRONG_STATE NONE" {
		t.Error(got)
	}
	w.must(deleteID(id))
	sh = w.s.Shard(id, 0)
	if got := w.items(drop(changeOf(sh, "d"))) + w.items(add(placeOn(sh, "b"))); got != "WRONG_STATEWRONG_STATE" {
		t.Error(got)
	}
}

// A broker that dies while a stream is being made doesn't hold it up for ever.
func TestCreateGoesOnWithoutABroker(t *testing.T) {
	w := newCluster(t, "a", "b", "c", "d")
	id := w.must(create("s", 1, "c", "a", "b")).GetStreamId()
	w.must(created("a", 1, w.refs(id, "a")...))
	w.must(fence("c", 1))
	w.must(created("b", 1, w.refs(id, "b")...))
	w.looks(id, "[c?] [a] [b]")
	w.refuses(stream.WrongState, activate(id))
	fork := &world{tb: t, s: w.s, index: w.index, now: w.now}
	sh := w.s.Shard(id, 0)
	// Another place for it.
	if got := w.items(add(placeOn(sh, "d"))) + " " + w.items(drop(changeOf(w.s.Shard(id, 0), "c"))); got != "NONE NONE" {
		t.Error(got)
	}
	w.looks(id, "[a] [b] [d?]")
	w.must(created("d", 1, w.refs(id, "d")...))
	w.looks(id, "a* b d")
	w.must(activate(id))

	// Or without it, for now.
	if got := fork.items(drop(changeOf(sh, "c"))); got != "NONE" {
		t.Error(got)
	}
	fork.looks(id, "a* b")
	if sh := fork.s.Shard(id, 0); sh.GetReplicationFactor() != 3 || sh.GetMinInSync() != 2 {
		t.Errorf("shard %v", sh)
	}
	fork.must(activate(id))

	// It died with its copy made: it does not hold writes up.
	w.must(rejoin("c", "disk-c", 1))
	late := w.must(create("late", 1, "c", "a", "b")).GetStreamId()
	w.must(created("c", 2, w.refs(late, "c")...))
	w.must(fence("c", 2))
	w.must(created("a", 1, w.refs(late, "a")...))
	w.must(created("b", 1, w.refs(late, "b")...))
	w.looks(late, "[c] a* b")
	only := w.must(create("only", 1, "a")).GetStreamId()
	if got := w.items(drop(changeOf(w.s.Shard(only, 0), "a"))); got != "WRONG_STATE" {
		t.Errorf("dropped the only replica: %s", got)
	}
}

// Fencing in a large cluster: the cost of the one entry.
func BenchmarkFence(b *testing.B) {
	w := newCluster(b, "a", "b", "c", "d", "e", "f")
	nodes := []string{"a", "b", "c", "d", "e", "f"}
	for i := range 100 {
		w.active(fmt.Sprint(i), 1000, nodes[i%6], nodes[(i+1)%6], nodes[(i+2)%6])
	}
	c := fence("a", 1)
	b.Run("100k shards", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w.s.Apply(1, c)
		}
	})
}

// TestADiskFromAnEarlierTimeIsAnotherDisk_I8: a copy of a data directory that is
// put back knows the incarnation, but its journal ends too early.
func TestADiskFromAnEarlierTimeIsAnotherDisk_I8(t *testing.T) {
	for _, c := range []struct {
		frame uint64
		same  bool
	}{{99, false}, {100, true}, {101, true}} {
		s := NewState()
		apply := func(cmd *pb.Command) *pb.CommandResult {
			next, r := s.Apply(s.Index()+1, cmd)
			s = next
			return r
		}
		apply(&pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "c", TokenKey: make([]byte, 32), AccountId: "0", Limits: &pb.Limits{Shards: 10}}}})
		register := func(last, frame uint64) *pb.CommandResult {
			return apply(&pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
				Broker: &pb.Broker{NodeId: "a", DiskId: "disk-of-a", FeatureLevel: FeatureIncarnation}, LastIncarnation: last, JournalFrame: frame,
			}}})
		}
		register(0, 10)
		id := apply(&pb.Command{Op: &pb.Command_CreateStream{CreateStream: &pb.CreateStream{
			Name: "s", ShardCount: 1, Mode: pb.StreamMode_STREAM_MODE_PROVISIONED, Placement: []*pb.ReplicaNodes{{NodeIds: []string{"a"}}},
		}}}).StreamId
		first := s.Shard(id, 0).Replicas[0].Id
		apply(&pb.Command{Op: &pb.Command_ReplicasCreated{ReplicasCreated: &pb.ReplicasCreated{NodeId: "a", Incarnation: 1, Replicas: []*pb.ReplicaRef{{StreamId: id, ReplicaId: first}}}}})
		apply(&pb.Command{Op: &pb.Command_NoteFrames{NoteFrames: &pb.NoteFrames{Notes: []*pb.FrameNote{
			{NodeId: "a", Incarnation: 1, Frame: 100}, {NodeId: "a", Incarnation: 1, Frame: 50}, {NodeId: "a", Incarnation: 7, Frame: 999}, {NodeId: "nobody", Frame: 1},
		}}}})
		if got := s.Broker("a").NotedFrame; got != 100 {
			t.Fatalf("noted %d", got)
		}
		register(1, c.frame)
		leads := s.Shard(id, 0).Leader == first
		if leads != c.same {
			t.Errorf("a disk at frame %d of 100 leads with what it had: %v", c.frame, leads)
		}
	}
}
