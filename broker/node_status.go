package broker

import (
	"context"

	"shardstream/broker/recordlog"
	"shardstream/broker/replica"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// NodeStatus tells what this node knows of itself, and of its replicas.
func (s *clusterService) NodeStatus(_ context.Context, req *pb.NodeStatusRequest) (*pb.NodeStatusResponse, error) {
	stats := s.host.records.Stats()
	response := &pb.NodeStatusResponse{
		ClusterId: s.meta.State().Cluster().GetId(), NodeId: string(s.host.node), Incarnation: s.host.incarnation,
		Version: s.version, StartedMs: s.startedMs, Raft: s.raftStatus(),
		DiskFree: stats.DiskFree, DiskFull: stats.DiskFull, Leaders: uint32(s.host.leading()),
	}
	if s.members != nil {
		response.Members = s.members()
	}
	if s.stalled != nil {
		response.DiskStalled = s.stalled()
	}
	if req.Replicas {
		s.host.each(func(h *hosted) {
			if req.StreamId == 0 || stream.StreamID(req.StreamId) == h.Key().Shard.Stream {
				response.Replicas = append(response.Replicas, replicaStatus(s.host.records, h))
			}
		})
	}
	return response, nil
}

func (s *clusterService) raftStatus() *pb.RaftStatus {
	st := s.meta.Status()
	m := &pb.RaftStatus{LeaderNode: raftfsm.NodeOf(st.LeaderID), Term: st.Term, LastIndex: st.Last, AppliedIndex: st.Applied}
	for _, server := range s.meta.Servers() {
		m.Servers = append(m.Servers, &pb.RaftServer{NodeId: server.NodeID, Address: server.Addr, Voter: server.Voter})
	}
	return m
}

func replicaStatus(records *recordlog.Log, h *hosted) *pb.ReplicaStatus {
	key, st := h.Key(), h.Status()
	m := &pb.ReplicaStatus{
		Replica: &pb.ReplicaRef{StreamId: uint64(key.Shard.Stream), Shard: key.Shard.Number, ReplicaId: uint64(key.Replica)},
		Role:    roleMessage(st), Epoch: uint32(st.Epoch), Start: uint64(st.Start), HighWatermark: uint64(st.HighWatermark),
		DurableEnd: uint64(st.DurableEnd), End: uint64(st.End),
	}
	log := records.Replica(key)
	if log == nil {
		return m
	}
	m.Damaged = log.Damaged()
	for _, f := range st.Followers {
		fs := &pb.FollowerStatus{
			ReplicaId: uint64(f.Replica), NodeId: string(f.Node), DurableEnd: uint64(f.DurableEnd), Attached: f.Attached, CatchingUp: f.CatchingUp,
		}
		// Records of a shard are taken to be of one size.
		if total := st.End - st.Start; f.DurableEnd < st.End && total > 0 {
			fs.TotalBytes = uint64(log.Bytes())
			fs.RemainingBytes = uint64(float64(fs.TotalBytes) * float64(st.End-max(f.DurableEnd, st.Start)) / float64(total))
		}
		m.Followers = append(m.Followers, fs)
	}
	return m
}

func roleMessage(st replica.Status) pb.ReplicaRole {
	switch {
	case st.Leading:
		return pb.ReplicaRole_REPLICA_ROLE_LEADER
	case st.Following:
		return pb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	}
	return pb.ReplicaRole_REPLICA_ROLE_UNKNOWN
}
