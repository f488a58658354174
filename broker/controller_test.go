package broker

import (
	"context"
	"errors"
	"testing"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const (
	stateLive   = pb.BrokerState_BROKER_STATE_LIVE
	stateFenced = pb.BrokerState_BROKER_STATE_FENCED
)

func TestKilledBrokerIsFencedWithinMilliseconds(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(3 * time.Second)
		w.nodes["b"].end()
		if took := w.awaitState("b", stateFenced); took > 50*time.Millisecond {
			t.Fatalf("fenced after %v", took)
		}
		if n := w.raft.times("FenceBroker"); n != 1 {
			t.Fatalf("%d entries for one death", n)
		}
		w.start("b")
		pass(12 * time.Second)
		if w.broker("b").State != stateLive || w.raft.times("FenceBroker") != 1 {
			t.Fatal(w.broker("b"), w.raft.commands)
		}
	})
}

func TestFrozenBrokerIsFencedAfterItsLimitAndComesBack(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(3 * time.Second)
		b := w.nodes["b"]
		b.freeze(true)
		if took := w.awaitState("b", stateFenced); took < 550*time.Millisecond || took > 700*time.Millisecond {
			t.Fatalf("fenced after %v", took)
		}
		pass(10 * time.Second)
		if w.broker("b").State != stateFenced {
			t.Fatal("unfenced while frozen")
		}
		b.freeze(false)
		if took := w.awaitState("b", stateLive); took > 3*time.Second {
			t.Fatalf("unfenced after %v", took)
		}
		w.await("it hears that", func() bool { return !b.session.Fenced() && time.Since(b.session.LastAnswered()) < 200*time.Millisecond })
		pass(12 * time.Second)
		if w.raft.times("FenceBroker") != 1 || w.raft.times("UnfenceBroker") != 1 {
			t.Fatal(w.raft.commands)
		}
	})
}

func TestFencedBrokerHearsIt(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(time.Second)
		b := w.nodes["b"]
		b.mu.Lock()
		b.health.stalled = true // so that it is not let in again
		b.mu.Unlock()
		pass(time.Second)
		w.raft.apply(fenceCommand(fence{"b", w.broker("b").Incarnation, "test"}))
		w.await("it hears that", b.session.Fenced)
	})
}

func TestKilledRaftLeaderIsFencedByTheNext(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(3 * time.Second)
		w.nodes["a"].end()
		pass(time.Second)
		if n := w.nodes["b"].suspected(); n == 0 {
			t.Fatal("nobody suspects the raft leader though its address refuses")
		}
		w.raft.appoint("b")
		if took := w.awaitState("a", stateFenced); took > 150*time.Millisecond {
			t.Fatalf("fenced after %v", took)
		}
		pass(12 * time.Second)
		if w.broker("c").State != stateLive || w.broker("b").State != stateLive {
			t.Fatal(w.raft.commands)
		}
	})
}

func TestFrozenRaftLeaderIsFencedByTheNextAfterOneProbe(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(3 * time.Second)
		w.nodes["a"].freeze(true)
		pass(2 * time.Second)
		w.raft.appoint("b")
		if took := w.awaitState("a", stateFenced); took < probeTimeout || took > probeTimeout+100*time.Millisecond {
			t.Fatalf("fenced after %v", took)
		}
		w.nodes["a"].freeze(false)
		w.awaitState("a", stateLive)
		pass(12 * time.Second)
		if w.raft.times("FenceBroker") != 1 {
			t.Fatal(w.raft.commands)
		}
	})
}

// On starved cores the former raft leader may have lost its leadership for that
// alone, and answers late for the same reason.
func TestFormerRaftLeaderIsGivenTimeOnStarvedCores(t *testing.T) {
	for lag, fences := range map[time.Duration]int{0: 1, 100 * time.Millisecond: 0} {
		inControlWorld(t, func(w *controlWorld) {
			pass(3 * time.Second)
			w.late.Store(int64(lag))
			w.net.mu.Lock()
			w.net.slow = 300 * time.Millisecond
			w.net.mu.Unlock()
			w.raft.appoint("b")
			pass(500 * time.Millisecond)
			if n := w.raft.times("FenceBroker"); n != fences {
				t.Errorf("lag %v: %d fenced", lag, n)
			}
		})
	}
}

func TestRaftLeaderThatMerelyStoppedLeadingIsNotFenced(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		for _, next := range []string{"b", "c", "a", "b"} {
			pass(3 * time.Second)
			w.raft.appoint(next)
		}
		pass(10 * time.Second)
		if n := w.raft.times("FenceBroker"); n != 0 {
			t.Fatal(w.raft.commands)
		}
		for name, n := range w.nodes {
			if since := time.Since(n.session.LastAnswered()); since > 200*time.Millisecond {
				t.Errorf("%s was answered %v ago", name, since)
			}
		}
	})
}

// The read lease needs both: that answers stop when a node is cut off, and that
// a frozen raft leader does not believe itself when it wakes up.
func TestAnswersStopWithTheLeader(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(time.Second)
		w.raft.appoint("")
		pass(500 * time.Millisecond)
		for name, n := range w.nodes {
			if since := time.Since(n.session.LastAnswered()); since < 400*time.Millisecond {
				t.Errorf("%s was answered %v ago, by no leader", name, since)
			}
		}
	})
}

func TestStoppingBrokerIsReleased(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(time.Second)
		n := w.nodes["b"]
		n.mu.Lock()
		n.health.stopping = true
		n.mu.Unlock()
		if took := w.awaitState("b", pb.BrokerState_BROKER_STATE_STOPPING); took > 100*time.Millisecond {
			t.Fatalf("after %v", took)
		}
	})
}

func TestStreamBecomesActiveUnderAController(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(time.Second)
		create := &pb.Command{Op: &pb.Command_CreateStream{CreateStream: &pb.CreateStream{Name: "s", ShardCount: 2, TransitionAfterMs: time.Now().UnixMilli() + 1000}}}
		result, err := w.nodes["c"].control.Propose(w.ctx, create) // forwarded
		if err != nil || result.Error != 0 {
			t.Fatal(result, err)
		}
		for _, shard := range w.raft.state.Shards(result.StreamId) {
			if len(shard.Replicas) != 3 {
				t.Fatalf("the leader placed %v", shard)
			}
			for _, r := range shard.Replicas {
				created := &pb.Command{Op: &pb.Command_ReplicasCreated{ReplicasCreated: &pb.ReplicasCreated{
					NodeId: r.NodeId, Incarnation: 1, Replicas: []*pb.ReplicaRef{{StreamId: result.StreamId, Shard: shard.Number, ReplicaId: r.Id}},
				}}}
				if result, err := w.nodes[r.NodeId].control.Propose(w.ctx, created); err != nil || result.Error != 0 {
					t.Fatal(result, err)
				}
			}
		}
		took := w.await("the stream is active", func() bool {
			return w.nodes["a"].meta.State().StreamByName("s").Status == pb.StreamStatus_STREAM_STATUS_ACTIVE
		})
		if took < 900*time.Millisecond || took > 1200*time.Millisecond {
			t.Fatalf("after %v", took)
		}
	})
}

func TestSupersededProcessHearsIt(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(time.Second)
		w.raft.apply(&pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
			Broker: &pb.Broker{NodeId: "b", DiskId: "another"},
		}}})
		n := w.nodes["b"]
		w.await("the former process hears it", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.superseded != nil })
		n.mu.Lock()
		defer n.mu.Unlock()
		if !errors.Is(n.superseded, stream.Stale) {
			t.Fatal(n.superseded)
		}
	})
}

func TestSecondNodeUnderALiveNameIsRefused(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(time.Second)
		register := func(disk string) error {
			_, err := w.nodes["b"].control.Propose(w.ctx, &pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
				Broker: &pb.Broker{NodeId: "b", DiskId: disk},
			}}})
			return err
		}
		if err := register("another"); !errors.Is(err, stream.AlreadyExists) {
			t.Fatal(err)
		}
		w.nodes["b"].freeze(true)
		w.awaitState("b", stateFenced)
		w.nodes["b"].freeze(false)
		// With the first one gone, the name is free for its emptied disk.
		w.nodes["b"].end()
		pass(5 * time.Second)
		w.nodes["b"].control.conns = newConns(w.net.dial)
		if err := register("another"); err != nil {
			t.Fatal(err)
		}
		w.nodes["b"].control.conns.close()
	})
}

func TestBrokersMayOnlySpeakOfThemselves(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		pass(time.Second)
		for _, c := range []*pb.Command{
			{Op: &pb.Command_ReplicasCreated{ReplicasCreated: &pb.ReplicasCreated{NodeId: "c", Incarnation: 1}}},
			{Op: &pb.Command_MarkSuspect{MarkSuspect: &pb.MarkSuspect{NodeId: "c", Incarnation: 1}}},
			{Op: &pb.Command_AlterInSync{AlterInSync: &pb.AlterInSync{NodeId: "c", Incarnation: 1}}},
			{Op: &pb.Command_StopBroker{StopBroker: &pb.StopBroker{NodeId: "c", Incarnation: 1}}},
			{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{Broker: &pb.Broker{NodeId: "d", DiskId: "x"}}}},
			{Op: &pb.Command_FenceBroker{FenceBroker: &pb.FenceBroker{NodeId: "b", Incarnation: 1}}},
			{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{}}},
			{Op: &pb.Command_RemoveStream{RemoveStream: &pb.RemoveStream{StreamId: 1}}},
			{},
		} {
			if result, err := w.nodes["b"].control.Propose(w.ctx, c); !errors.Is(err, stream.Invalid) {
				t.Errorf("%s: %v, %v", commandName(c), result, err)
			}
		}
		n := w.nodes["b"]
		n.control.clusterID = func() string { return "another" }
		if _, err := n.control.Propose(w.ctx, stopCommand(&pb.Broker{NodeId: "b", Incarnation: 1})); !errors.Is(err, stream.Invalid) {
			t.Error("a stranger's command was taken:", err)
		}
	})
}

func TestCommandsWaitForARaftLeader(t *testing.T) {
	inControlWorld(t, func(w *controlWorld) {
		w.raft.appoint("")
		go func() {
			pass(3 * time.Second)
			w.raft.appoint("c")
		}()
		began := time.Now()
		if _, err := w.nodes["b"].control.ReadIndex(w.ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Fatalf("after %v", took)
		}
		w.raft.appoint("")
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		if _, err := w.nodes["b"].control.Propose(ctx, deleteCommand("x")); !errors.Is(err, stream.Unavailable) {
			t.Fatal(err)
		}
	})
}

func deleteCommand(name string) *pb.Command {
	return &pb.Command{Op: &pb.Command_DeleteStream{DeleteStream: &pb.DeleteStream{Name: name}}}
}

// What may have been applied is sent again only if that is harmless.
func TestUnknownOutcomesAreNotRepeated(t *testing.T) {
	for _, at := range []string{"a", "b"} { // at the raft leader, and forwarded
		for _, c := range []struct {
			name    string
			command func() *pb.Command
			kind    stream.Kind // of the first failure
			tries   int
			ok      bool
		}{
			{"unknown", func() *pb.Command { return deleteCommand("x") }, stream.Timeout, 1, false},
			{"not applied", func() *pb.Command { return deleteCommand("x") }, stream.Unavailable, 2, true},
			{"another leader", func() *pb.Command { return deleteCommand("x") }, stream.NotLeader, 2, true},
			{"harmless", func() *pb.Command { return stopCommand(&pb.Broker{NodeId: at, Incarnation: 1}) }, stream.Timeout, 2, true},
			{"registration", func() *pb.Command {
				return &pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{Broker: &pb.Broker{NodeId: at, DiskId: "disk of " + at}}}}
			}, stream.Timeout, 1, false},
			{"fault", func() *pb.Command { return deleteCommand("x") }, stream.Internal, 1, false},
		} {
			inControlWorld(t, func(w *controlWorld) {
				pass(time.Second)
				command := c.command()
				tries := 0
				w.raft.after = func(_ string, got *pb.Command) error {
					if commandName(got) != commandName(command) {
						return nil
					}
					if tries++; tries == 1 {
						return stream.Errorf(c.kind, "fake", "failed")
					}
					return nil
				}
				_, err := w.nodes[at].control.Propose(w.ctx, command)
				if tries != c.tries || (err == nil) != c.ok {
					t.Errorf("%s at %s: %d tries, %v", c.name, at, tries, err)
				}
			})
		}
	}
}

// A raft leader that is gone or frozen, and that is still thought to lead, holds
// nothing up for longer than it is so: what could not be sent is safe to send
// to the next.
func TestUnreachableRaftLeaderHoldsNothingUp(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		inControlWorld(t, func(w *controlWorld) {
			pass(time.Second)
			if frozen {
				w.nodes["b"].control.conns.close() // as it has not talked with it yet
				w.nodes["b"].control.conns = newConns(w.net.dial)
				w.nodes["a"].freeze(true)
			} else {
				w.nodes["a"].end()
				// What is on its way at that moment has an unknown outcome.
				pass(100 * time.Millisecond)
			}
			go func() {
				pass(2 * time.Second)
				w.raft.appoint("c")
			}()
			began := time.Now()
			result, err := w.nodes["b"].control.Propose(w.ctx, deleteCommand("x"))
			if err != nil || stream.Kind(result.Error) != stream.NotFound {
				t.Error(result, err)
			}
			if _, err := w.nodes["b"].control.ReadIndex(w.ctx); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 2*time.Second+dialTimeout+200*time.Millisecond {
				t.Errorf("frozen %v: after %v", frozen, took)
			}
		})
	}
}
