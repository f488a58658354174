package raftfsm

import (
	"fmt"
	"strings"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func sealParents(id uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_SealParents{SealParents: &pb.SealParents{StreamId: id}}}
}

func seals(node string, incarnation uint64, all ...*pb.Seal) *pb.Command {
	return &pb.Command{Op: &pb.Command_SealShards{SealShards: &pb.SealShards{NodeId: node, Incarnation: incarnation, Seals: all}}}
}

func sealOf(sh *pb.Shard, final uint64) *pb.Seal {
	return &pb.Seal{StreamId: sh.GetStreamId(), Shard: sh.GetNumber(), Epoch: sh.GetEpoch(), Version: sh.GetVersion(), FinalOffset: final}
}

func expire(id uint64, shards ...uint32) *pb.Command {
	return &pb.Command{Op: &pb.Command_ExpireShards{ExpireShards: &pb.ExpireShards{StreamId: id, Shards: shards}}}
}

func drain(node string) *pb.Command {
	return &pb.Command{Op: &pb.Command_DrainBroker{DrainBroker: &pb.DrainBroker{NodeId: node}}}
}

func undrain(node string) *pb.Command {
	return &pb.Command{Op: &pb.Command_UndrainBroker{UndrainBroker: &pb.UndrainBroker{NodeId: node}}}
}

func removeBroker(node string, forget bool) *pb.Command {
	return &pb.Command{Op: &pb.Command_RemoveBroker{RemoveBroker: &pb.RemoveBroker{NodeId: node, Forget: forget}}}
}

func split(id uint64, shard uint32, at stream.HashKey) *pb.Reshard {
	return &pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_SPLIT, Shard: shard, SplitAtHi: at.Hi, SplitAtLo: at.Lo}
}

func merge(id uint64, low, high uint32) *pb.Reshard {
	return &pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_MERGE, Shard: low, AdjacentShard: high}
}

func count(id uint64, target uint32) *pb.Reshard {
	return &pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_COUNT, TargetCount: target}
}

// placed is the command with all children on these nodes.
func (w *world) placed(c *pb.Reshard, nodes ...string) *pb.Command {
	c.Placement = nil
	for range w.s.ReshardChildren(c) {
		c.Placement = append(c.Placement, &pb.ReplicaNodes{NodeIds: nodes})
	}
	return &pb.Command{Op: &pb.Command_Reshard{Reshard: c}}
}

// sealAll seals all parents, each with its number as the final offset.
func (w *world) sealAll(id uint64) {
	w.tb.Helper()
	byNode := make(map[string][]*pb.Seal)
	for _, n := range w.s.Stream(id).GetReshard().GetParents() {
		sh := w.s.Shard(id, n)
		leader := replica(sh, sh.GetLeader()).GetNodeId()
		byNode[leader] = append(byNode[leader], sealOf(sh, uint64(n)))
	}
	for node, all := range byNode {
		if got := w.items(seals(node, w.s.Broker(node).GetIncarnation(), all...)); strings.Trim(got, "NOE ") != "" {
			w.tb.Fatalf("seals: %s", got)
		}
	}
}

func (w *world) sealOne(id uint64, n uint32) {
	w.tb.Helper()
	sh := w.s.Shard(id, n)
	leader := replica(sh, sh.GetLeader()).GetNodeId()
	if got := w.items(seals(leader, w.s.Broker(leader).GetIncarnation(), sealOf(sh, uint64(n)))); got != "NONE" {
		w.tb.Fatalf("seal of %v: %s", sh, got)
	}
}

// resharded carries a reshard out.
func (w *world) resharded(c *pb.Reshard, nodes ...string) {
	w.tb.Helper()
	w.must(w.placed(c, nodes...))
	w.createdAll(c.GetStreamId())
	w.must(sealParents(c.GetStreamId()))
	w.sealAll(c.GetStreamId())
}

// tree puts a stream's shards into a line: "2<0,1 open" has the parents 0 and 1.
func (w *world) tree(id uint64) string {
	var parts []string
	for _, sh := range w.s.Shards(id) {
		p := fmt.Sprint(sh.GetNumber())
		for i, parent := range sh.GetParents() {
			p += string("<,"[i]) + fmt.Sprint(parent)
		}
		parts = append(parts, p+" "+strings.ToLower(strings.TrimPrefix(sh.GetState().String(), "SHARD_STATE_")))
	}
	return strings.Join(parts, "; ")
}
