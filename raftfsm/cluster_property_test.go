package raftfsm

import (
	"pgregory.net/rapid"

	pb "shardstream/proto/shardstream/v1"
)

// drawClusterCommand makes a command of a cluster's life, mostly one that fits
// the state.
func drawClusterCommand(t *rapid.T, s *State, node string, id uint64, incarnation func(string) uint64) *pb.Command {
	sh := s.Shard(id, 0)
	version := sh.GetVersion()
	if rapid.IntRange(0, 9).Draw(t, "stale version") == 0 {
		version--
	}
	var some uint64 // one of its replicas
	if n := len(sh.GetReplicas()); n > 0 {
		some = sh.GetReplicas()[rapid.IntRange(0, n-1).Draw(t, "replica")].GetId()
	}
	change := &pb.ReplicaChange{StreamId: id, Version: version, ReplicaId: some}
	switch rapid.IntRange(0, 12).Draw(t, "cluster op") {
	case 0, 1:
		return fence(node, incarnation(node))
	case 2:
		return unfence(node, incarnation(node))
	case 3:
		return stop(node, incarnation(node))
	case 4:
		return move(change)
	case 5:
		return drop(change)
	case 6:
		place := &pb.ReplicaPlace{StreamId: id, Version: version, NodeId: node}
		other := &pb.ReplicaPlace{StreamId: id, Version: version, NodeId: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "other")}
		return add(place, other)
	case 10:
		return &pb.Command{Op: &pb.Command_NoteFrames{NoteFrames: &pb.NoteFrames{Notes: []*pb.FrameNote{
			{NodeId: node, Incarnation: incarnation(node), Frame: rapid.Uint64Range(0, 2).Draw(t, "frame")},
		}}}}
	case 11, 12:
		var at string
		if r := replica(sh, some); r != nil {
			at = r.GetNodeId()
		}
		if rapid.IntRange(0, 4).Draw(t, "a copy taken off") == 0 {
			some, at = rapid.Uint64Range(0, 9).Draw(t, "old"), node
		}
		c := recovery(sh, at, some, incarnation(at))
		c.GetRecoverShard().Version = version
		return c
	case 7:
		return factors(&pb.FactorChange{
			StreamId: id, Version: version,
			ReplicationFactor: rapid.Uint32Range(0, 4).Draw(t, "factor"), MinInSync: rapid.Uint32Range(0, 3).Draw(t, "floor"),
		})
	}
	leader := replica(sh, sh.GetLeader()).GetNodeId()
	c := &pb.InSyncChange{StreamId: id, Epoch: sh.GetEpoch(), Version: version}
	for _, m := range sh.GetInSync() {
		if m == sh.GetLeader() || rapid.IntRange(0, 2).Draw(t, "keep member") > 0 {
			c.InSync = append(c.InSync, m)
		}
	}
	if rapid.Bool().Draw(t, "adds") {
		c.Added = some
		c.AddedIncarnation = incarnation(replica(sh, some).GetNodeId())
		c.InSync = append(c.InSync, some)
	}
	return alter(leader, incarnation(leader), c)
}
