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
	if req.OnDisk {
		for _, log := range s.host.records.Replicas() {
			key := log.Key()
			hosted := s.host.shard(key.Shard)
			if (req.StreamId == 0 || stream.StreamID(req.StreamId) == key.Shard.Stream) && (hosted == nil || hosted.Key() != key) {
				response.OnDisk = append(response.OnDisk, copyStatus(log))
			}
		}
	}
	return response, nil
}

// copyStatus tells of a copy that nobody serves. Its high watermark is only what
// was written down of it.
func copyStatus(log *recordlog.Replica) *pb.ReplicaStatus {
	m := &pb.ReplicaStatus{
		Replica: refOf(log.Key()), Epoch: uint32(log.Epoch()), Start: uint64(log.Start()), HighWatermark: uint64(log.HW()),
		DurableEnd: uint64(log.DurableEnd()), End: uint64(log.End()),
	}
	describeLog(m, log)
	return m
}

// describeLog fills in what only the record log knows.
func describeLog(m *pb.ReplicaStatus, log *recordlog.Replica) {
	m.Damaged, m.Bytes = log.Damaged(), uint64(max(0, log.Bytes()))
	if epochs := log.EpochTable(); len(epochs) > 0 {
		m.LastEpoch, m.LastArrivalMs = uint32(epochs[len(epochs)-1].Epoch), log.LastArrival()
	}
}

func refOf(key stream.ReplicaKey) *pb.ReplicaRef {
	return &pb.ReplicaRef{StreamId: uint64(key.Shard.Stream), Shard: key.Shard.Number, ReplicaId: uint64(key.Replica)}
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
		Replica: refOf(key),
		Role:    roleMessage(st), Epoch: uint32(st.Epoch), Start: uint64(st.Start), HighWatermark: uint64(st.HighWatermark),
		DurableEnd: uint64(st.DurableEnd), End: uint64(st.End),
	}
	log := records.Replica(key)
	if log == nil {
		return m
	}
	describeLog(m, log)
	for _, f := range st.Followers {
		fs := &pb.FollowerStatus{
			ReplicaId: uint64(f.Replica), NodeId: string(f.Node), DurableEnd: uint64(f.DurableEnd), Attached: f.Attached, CatchingUp: f.CatchingUp,
		}
		// Records of a shard are taken to be of one size.
		if total := st.End - st.Start; f.DurableEnd < st.End && total > 0 {
			fs.TotalBytes = m.Bytes
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
