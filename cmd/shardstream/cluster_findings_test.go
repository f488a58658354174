package main

import (
	"fmt"
	"strings"
	"testing"

	pb "shardstream/proto/shardstream/v1"
)

// threeNodes is a healthy cluster of node-1 to node-3, with the given number of
// shards of the stream "orders", on all three, led in turn.
func threeNodes(shards int) *clusterView {
	v := &clusterView{
		askedAt: "127.0.0.1:7070",
		meta: metadataView{
			index: 100, cluster: &pb.ClusterInfo{Id: "cluster-1"},
			streams: map[uint64]*pb.Stream{1: {Id: 1, Name: "orders", Status: pb.StreamStatus_STREAM_STATUS_ACTIVE, RetentionHours: 24}},
			shards:  map[uint64][]*pb.Shard{},
		},
		nodes: map[string]*nodeView{},
	}
	var servers []*pb.RaftServer
	for i := 1; i <= 3; i++ {
		servers = append(servers, &pb.RaftServer{NodeId: fmt.Sprintf("node-%d", i), Voter: true})
	}
	for i := 1; i <= 3; i++ {
		id := fmt.Sprintf("node-%d", i)
		v.meta.brokers = append(v.meta.brokers, &pb.Broker{NodeId: id, GrpcAddress: fmt.Sprintf("10.0.0.%d:7070", i), State: pb.BrokerState_BROKER_STATE_LIVE})
		v.nodes[id] = &nodeView{status: &pb.NodeStatusResponse{
			ClusterId: "cluster-1", NodeId: id, DiskFree: 5 << 30, Version: "v1",
			Raft: &pb.RaftStatus{LeaderNode: "node-1", Term: 3, LastIndex: 100, AppliedIndex: 100, Servers: servers},
		}}
	}
	for n := range shards {
		s := &pb.Shard{StreamId: 1, Number: uint32(n), State: pb.ShardState_SHARD_STATE_OPEN, ReplicationFactor: 3, MinInSync: 2, Epoch: 1}
		for i := 1; i <= 3; i++ {
			r := &pb.Replica{Id: uint64(10*n + i), NodeId: fmt.Sprintf("node-%d", i), State: pb.ReplicaState_REPLICA_STATE_CREATED}
			s.Replicas = append(s.Replicas, r)
			s.InSync = append(s.InSync, r.Id)
		}
		s.Leader = s.InSync[n%3]
		v.meta.shards[1] = append(v.meta.shards[1], s)
	}
	return v
}

// dark makes nodes silent.
func dark(v *clusterView, nodes ...int) {
	for _, i := range nodes {
		v.nodes[fmt.Sprintf("node-%d", i)] = &nodeView{problem: "connection refused"}
	}
}

// fence does what the metadata does to a dead node's shards.
func fence(v *clusterView, node int) {
	id := fmt.Sprintf("node-%d", node)
	v.meta.brokers[node-1].State = pb.BrokerState_BROKER_STATE_FENCED
	v.meta.brokers[node-1].Reason = "no beat for 600 ms"
	for _, s := range v.meta.shards[1] {
		var rest []uint64
		for _, r := range s.Replicas {
			for _, m := range s.InSync {
				if m == r.Id && r.NodeId != id {
					rest = append(rest, m)
				}
			}
		}
		led := false
		for _, r := range s.Replicas {
			led = led || r.NodeId == id && r.Id == s.Leader
		}
		if len(rest) >= int(s.MinInSync) {
			s.InSync = rest
		}
		if led {
			s.Leader = 0
			for _, m := range rest {
				for _, r := range s.Replicas {
					if r.Id == m && v.meta.brokers[r.NodeId[5]-'1'].State == pb.BrokerState_BROKER_STATE_LIVE && s.Leader == 0 {
						s.Leader = m
					}
				}
			}
		}
	}
}

func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*clusterView)
		want   []string // "severity: part of what | part of do", in order
		counts shardCounts
	}{
		{"healthy", func(*clusterView) {}, nil, shardCounts{Total: 6}},
		{"limits on one broker only", func(v *clusterView) { v.meta.brokers[1].ShardLimits = true }, []string{
			"warning: brokers node-2 hold their shards to limits, and node-1, node-3 do not|the same --shard-limits",
		}, shardCounts{Total: 6}},
		{"killed, not noticed yet", func(v *clusterView) { dark(v, 2) }, []string{
			"critical: the leader of 2 shards, broker node-2, does not answer: orders/shardId-000000000001, orders/shardId-000000000004|look again",
			"warning: voter node-2 does not answer, and the metadata can't lose another|",
			"warning: broker node-2 at 10.0.0.2:7070 does not answer: connection refused|start it",
			"warning: 6 shards have fewer in-sync replicas|there are 2 for 3 copies",
		}, shardCounts{Total: 6, UnderReplicated: 6}},
		{"killed and fenced", func(v *clusterView) { dark(v, 2); fence(v, 2) }, []string{
			"warning: voter node-2",
			"warning: broker node-2 at 10.0.0.2:7070 does not answer: connection refused; it is fenced (no beat for 600 ms)|start it",
			"warning: 6 shards have fewer in-sync replicas than wanted: orders/shardId-000000000000, orders/shardId-000000000001, orders/shardId-000000000002 and 3 more|",
		}, shardCounts{Total: 6, UnderReplicated: 6}},
		{"two of three down", func(v *clusterView) {
			dark(v, 2)
			fence(v, 2)
			dark(v, 1)
			v.nodes["node-3"].status.Raft.LeaderNode = ""
		}, []string{
			"critical: the metadata has no majority: 1 of 3 voters answer, 2 are needed|start 1 of: node-1, node-2",
			"critical: puts to 6 shards wait: too few in-sync replicas are there|start broker node-1",
			"critical: the leader of 4 shards, broker node-1, does not answer|majority",
			"warning: broker node-1",
			"warning: broker node-2",
			"warning: 6 shards have fewer",
		}, shardCounts{Total: 6, UnderReplicated: 6, BelowMinInSync: 6}},
		{"all members of the in-sync set gone", func(v *clusterView) {
			dark(v, 2)
			fence(v, 2)
			dark(v, 1)
			fence(v, 1)
			v.meta.shards[1] = v.meta.shards[1][:1]
			v.meta.shards[1][0].Leader, v.meta.shards[1][0].InSync = 0, []uint64{1, 2}
			v.nodes["node-3"].status.Raft.LeaderNode = ""
		}, []string{
			"critical: the metadata has no majority: 1 of 3",
			"critical: 1 shard is offline, puts and reads of it fail: orders/shardId-000000000000|start any of these brokers, whose disks have all of its records: node-1, node-2",
			"warning: broker node-1", "warning: broker node-2", "warning: 1 shard has fewer",
		}, shardCounts{Total: 1, Offline: 1, UnderReplicated: 1}},
		{"only one sound copy, and that is down", func(v *clusterView) {
			v.meta.shards[1] = v.meta.shards[1][:1]
			s := v.meta.shards[1][0]
			s.Leader, s.InSync = 0, []uint64{1, 2}
			s.Replicas[0].State = pb.ReplicaState_REPLICA_STATE_SUSPECT
			dark(v, 2)
			fence(v, 2)
		}, []string{
			"critical: 1 shard is offline|start broker node-2: only its disk has all of its records",
			"warning: voter node-2", "warning: broker node-2", "warning: 1 shard has",
		}, shardCounts{Total: 1, Offline: 1, UnderReplicated: 1}},
		{"no sound copy", func(v *clusterView) {
			v.meta.shards[1] = v.meta.shards[1][:1]
			s := v.meta.shards[1][0]
			s.Leader, s.InSync, s.ReplicationFactor, s.MinInSync = 0, []uint64{1}, 1, 1
			s.Replicas = s.Replicas[:1]
			s.Replicas[0].State = pb.ReplicaState_REPLICA_STATE_SUSPECT
		}, []string{"critical: 1 shard is offline, and no copy is sound: orders/shardId-000000000000|cluster recover"}, shardCounts{Total: 1, Offline: 1}},
		{"a lost disk at the floor", func(v *clusterView) {
			for _, s := range v.meta.shards[1] {
				s.Replicas[1].State = pb.ReplicaState_REPLICA_STATE_LOST
				s.Leader, s.InSync = s.InSync[0], s.InSync[:2]
			}
		}, []string{
			"critical: puts to 6 shards wait|start broker node-2",
			"warning: 6 shards have fewer in-sync replicas|nothing: the cluster repairs it",
		}, shardCounts{Total: 6, UnderReplicated: 6, BelowMinInSync: 6}},
		{"raft elects", func(v *clusterView) {
			for _, n := range v.nodes {
				n.status.Raft.LeaderNode = ""
			}
		}, []string{"critical: the metadata has no leader: one is being elected|node-1, node-2, node-3"}, shardCounts{Total: 6}},
		{"a voter's disk was lost", func(v *clusterView) {
			for _, n := range v.nodes {
				n.status.Raft.Servers = append(n.status.Raft.Servers[:3:3], &pb.RaftServer{NodeId: "node-3"})
			}
		}, []string{"warning: the disk of node-3 is gone, and with it a voter|within about a minute"}, shardCounts{Total: 6}},
		{"its successor votes, the former is not removed yet", func(v *clusterView) {
			for _, n := range v.nodes {
				n.status.Raft.Servers = append(n.status.Raft.Servers[:3:3], &pb.RaftServer{NodeId: "node-3", Voter: true})
			}
		}, []string{"warning: the disk of node-3 is gone"}, shardCounts{Total: 6}},
		{"a voter's disk was lost, and another voter is down", func(v *clusterView) {
			for _, n := range v.nodes {
				n.status.Raft.Servers = append(n.status.Raft.Servers[:3:3], &pb.RaftServer{NodeId: "node-3"})
			}
			dark(v, 1)
			v.meta.shards[1] = nil
		}, []string{
			"critical: the metadata has no majority: 1 of 3 voters answer|start broker node-1",
			"warning: the disk of node-3 is gone", "warning: broker node-1",
		}, shardCounts{}},
		{"too few voters", func(v *clusterView) {
			for _, n := range v.nodes {
				n.status.Raft.Servers = append(n.status.Raft.Servers[:2:2], &pb.RaftServer{NodeId: "node-3"})
			}
		}, []string{"warning: the metadata has 2 voters, and should have 3|gets a vote"}, shardCounts{Total: 6}},
		{"raft's leader is dark", func(v *clusterView) { dark(v, 1); v.meta.shards[1] = nil }, []string{
			"critical: the metadata has no leader", "warning: broker node-1",
		}, shardCounts{}},
		{"fenced but there", func(v *clusterView) { fence(v, 3) }, []string{
			"warning: broker node-3 answers, but is fenced (no beat for 600 ms)|comes back by itself",
			"warning: 6 shards have fewer",
		}, shardCounts{Total: 6, UnderReplicated: 6}},
		{"catching up", func(v *clusterView) {
			for _, s := range v.meta.shards[1] {
				s.InSync, s.Leader = s.InSync[:2], s.InSync[0]
			}
			for n := range 2 {
				v.nodes["node-1"].status.Replicas = append(v.nodes["node-1"].status.Replicas, &pb.ReplicaStatus{
					Role:      pb.ReplicaRole_REPLICA_ROLE_LEADER,
					Followers: []*pb.FollowerStatus{{NodeId: "node-3", CatchingUp: true, RemainingBytes: uint64(1+n) << 30, TotalBytes: 10 << 30}, {NodeId: "node-2"}},
				})
			}
		}, []string{
			"warning: 6 shards have fewer in-sync replicas|nothing: the cluster repairs it",
			"note: broker node-3 is catching up: 2 replicas, 3.0 GiB of 20.0 GiB left|",
		}, shardCounts{Total: 6, UnderReplicated: 6}},
		{"disks", func(v *clusterView) {
			v.nodes["node-1"].status.DiskFull, v.nodes["node-1"].status.DiskFree = true, 100<<20
			v.nodes["node-2"].status.DiskStalled = true
			v.nodes["node-3"].status.Replicas = []*pb.ReplicaStatus{{Damaged: true}}
		}, []string{
			"critical: the disk of broker node-1 is almost full (100 MiB free)|make room",
			"critical: the disk of broker node-2 does not answer|kernel's log",
			"warning: broker node-3 has stored records that failed their checksums, in 1 replica|copied from them",
		}, shardCounts{Total: 6}},
		{"another cluster's node", func(v *clusterView) { v.nodes["node-2"].status.ClusterId = "other" }, []string{
			"critical: broker node-2 at 10.0.0.2:7070 belongs to another cluster, other|",
		}, shardCounts{Total: 6}},
		{"one that has not joined", func(v *clusterView) {
			v.nodes["node-1"].status.Members = []*pb.Member{{NodeId: "node-4", State: "alive", Address: "10.0.0.4:7072"}, {NodeId: "node-5", State: "dead"}}
		}, []string{"warning: broker node-4 is there (gossip at 10.0.0.4:7072), but has not joined yet|log"}, shardCounts{Total: 6}},
		{"stopped on purpose", func(v *clusterView) {
			dark(v, 3)
			v.meta.brokers[2].State = pb.BrokerState_BROKER_STATE_STOPPING
			v.meta.shards[1] = nil
		}, []string{"warning: voter node-3", "warning: broker node-3 was stopped on purpose|"}, shardCounts{}},
		{"streams on their way in and out", func(v *clusterView) {
			for i, s := range v.meta.shards[1] {
				s.Leader = 0
				if i == 0 {
					s.State = pb.ShardState_SHARD_STATE_CREATING
				}
			}
			v.meta.streams[1].Status = pb.StreamStatus_STREAM_STATUS_DELETING
		}, nil, shardCounts{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := threeNodes(6)
			c.change(v)
			h := examine(v)
			ok := len(h.findings) == len(c.want)
			for i, want := range c.want {
				if !ok {
					break
				}
				severity, rest, _ := strings.Cut(want, ": ")
				what, do, _ := strings.Cut(rest, "|")
				f := h.findings[i]
				ok = string(f.Severity) == severity && strings.Contains(f.What, what) && strings.Contains(f.Do, do)
			}
			if !ok || h.shards != c.counts {
				for _, f := range h.findings {
					t.Logf("%s: %s|%s", f.Severity, f.What, f.Do)
				}
				t.Errorf("want %q and %+v, got %+v", c.want, c.counts, h.shards)
			}
			if h.healthy() != (len(c.want) == 0) {
				t.Errorf("healthy: %v", h.healthy())
			}
		})
	}
}
