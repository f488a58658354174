package raftfsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	pb "shardstream/proto/shardstream/v1"
)

// rejoin is a registration by a broker that persists its incarnations.
func rejoin(node, disk string, last uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
		Broker:          &pb.Broker{NodeId: node, DiskId: disk, Zone: "z", FeatureLevel: FeatureIncarnation},
		LastIncarnation: last,
	}}}
}

func fence(node string, incarnation uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_FenceBroker{FenceBroker: &pb.FenceBroker{NodeId: node, Incarnation: incarnation, Reason: "silent"}}}
}

func unfence(node string, incarnation uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_UnfenceBroker{UnfenceBroker: &pb.UnfenceBroker{NodeId: node, Incarnation: incarnation}}}
}

func stop(node string, incarnation uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_StopBroker{StopBroker: &pb.StopBroker{NodeId: node, Incarnation: incarnation}}}
}

func alter(node string, incarnation uint64, changes ...*pb.InSyncChange) *pb.Command {
	return &pb.Command{Op: &pb.Command_AlterInSync{AlterInSync: &pb.AlterInSync{NodeId: node, Incarnation: incarnation, Changes: changes}}}
}

func move(moves ...*pb.ReplicaChange) *pb.Command {
	return &pb.Command{Op: &pb.Command_MoveLeaders{MoveLeaders: &pb.MoveLeaders{Moves: moves}}}
}

func drop(replicas ...*pb.ReplicaChange) *pb.Command {
	return &pb.Command{Op: &pb.Command_DropReplicas{DropReplicas: &pb.DropReplicas{Replicas: replicas}}}
}

func add(places ...*pb.ReplicaPlace) *pb.Command {
	return &pb.Command{Op: &pb.Command_AddReplicas{AddReplicas: &pb.AddReplicas{Places: places}}}
}

func factors(changes ...*pb.FactorChange) *pb.Command {
	return &pb.Command{Op: &pb.Command_SetFactors{SetFactors: &pb.SetFactors{Changes: changes}}}
}

// changeOf names the newest replica of a shard on a node, at its present version.
func changeOf(sh *pb.Shard, node string) *pb.ReplicaChange {
	return &pb.ReplicaChange{StreamId: sh.GetStreamId(), Shard: sh.GetNumber(), Version: sh.GetVersion(), ReplicaId: on(sh, node).GetId()}
}

func placeOn(sh *pb.Shard, node string) *pb.ReplicaPlace {
	return &pb.ReplicaPlace{StreamId: sh.GetStreamId(), Shard: sh.GetNumber(), Version: sh.GetVersion(), NodeId: node}
}

// on gives the replica on a node; a lost one only if there is no other.
func on(sh *pb.Shard, node string) *pb.Replica {
	var lost *pb.Replica
	for _, r := range sh.GetReplicas() {
		switch {
		case r.GetNodeId() != node:
		case r.GetState() == pb.ReplicaState_REPLICA_STATE_LOST:
			lost = r
		default:
			return r
		}
	}
	return lost
}

// inSync is a change of the set to the copies on these nodes.
func inSync(sh *pb.Shard, nodes ...string) *pb.InSyncChange {
	c := &pb.InSyncChange{StreamId: sh.GetStreamId(), Shard: sh.GetNumber(), Epoch: sh.GetEpoch(), Version: sh.GetVersion()}
	for _, n := range nodes {
		c.InSync = append(c.InSync, on(sh, n).GetId())
	}
	return c
}

func adding(c *pb.InSyncChange, sh *pb.Shard, node string, incarnation uint64) *pb.InSyncChange {
	c.Added, c.AddedIncarnation = on(sh, node).GetId(), incarnation
	return c
}

// items applies a command with a list and gives what became of the items.
func (w *world) items(c *pb.Command) string {
	w.tb.Helper()
	var kinds []string
	for _, k := range w.must(c).GetItems() {
		kinds = append(kinds, strings.TrimPrefix(k.String(), "ERROR_KIND_"))
	}
	return strings.Join(kinds, " ")
}

// shape puts a shard's replicas into a few letters: for "a* b c! d?" a leads, b
// is in sync, c is lost and in sync, d is new and not in sync. In brackets:
// not in sync.
func shape(sh *pb.Shard) string {
	marks := map[pb.ReplicaState]string{
		pb.ReplicaState_REPLICA_STATE_NEW: "?", pb.ReplicaState_REPLICA_STATE_SUSPECT: "~", pb.ReplicaState_REPLICA_STATE_LOST: "!",
	}
	var parts []string
	for _, r := range sh.GetReplicas() {
		p := r.GetNodeId() + marks[r.GetState()]
		if r.GetId() == sh.GetLeader() {
			p += "*"
		}
		if !slices.Contains(sh.GetInSync(), r.GetId()) {
			p = "[" + p + "]"
		}
		parts = append(parts, p)
	}
	return strings.Join(parts, " ")
}

func (w *world) looks(id uint64, want string) {
	w.tb.Helper()
	if got := shape(w.s.Shard(id, 0)); got != want {
		w.tb.Errorf("shard is %q, want %q: %v", got, want, w.s.Shard(id, 0))
	}
}

// newCluster has brokers that persist their incarnations.
func newCluster(tb testing.TB, nodes ...string) *world {
	w := &world{tb: tb, s: NewState(), now: 1000}
	w.must(initCmd(nil))
	for _, n := range nodes {
		w.must(rejoin(n, "disk-"+n, 0))
	}
	return w
}

func (w *world) broker(node string) string {
	b := w.s.Broker(node)
	return fmt.Sprintf("%s %d", strings.TrimPrefix(b.GetState().String(), "BROKER_STATE_"), b.GetIncarnation())
}
