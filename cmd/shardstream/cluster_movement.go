package main

import (
	"fmt"
	"slices"

	pb "shardstream/proto/shardstream/v1"
)

// movement is how far the moving of replicas has got.
type movement struct {
	Done     bool     `json:"done"`
	Replicas int      `json:"replicasLeft"`
	Leaders  int      `json:"leadersLeft"`
	UnderWay int      `json:"replicasUnderWay"`
	Bytes    uint64   `json:"bytesLeft"`
	Seconds  int64    `json:"secondsLeft"` // -1: not known yet
	Blocked  []string `json:"blocked"`     // why it can't end, and what to do
}

// drainMovement tells what a broker still holds. It is pure, as all here.
func drainMovement(v *clusterView, node string) movement {
	m := movement{Seconds: -1, Blocked: []string{}}
	leaders := leaderReports(v)
	need := make(map[uint32]int) // shards by their factor
	offline := 0
	eachShard(v, func(shard *pb.Shard) {
		var mine, coming *pb.Replica
		for _, r := range shard.Replicas {
			switch {
			case r.NodeId == node:
				mine = r
			case !slices.Contains(shard.InSync, r.Id):
				coming = r
			}
		}
		if mine == nil {
			return
		}
		m.Replicas++
		if mine.Id == shard.Leader {
			m.Leaders++
		}
		if shard.Leader == 0 {
			offline++
		}
		need[shard.ReplicationFactor]++
		report := leaders[shard.Leader]
		switch {
		case coming != nil:
			m.UnderWay++
			m.Bytes += remaining(report, coming)
		case len(shard.InSync) <= int(shard.ReplicationFactor):
			m.Bytes += report.GetBytes()
		}
	})
	m.Done = m.Replicas == 0
	live := 0
	for _, b := range v.meta.brokers {
		if b.State == pb.BrokerState_BROKER_STATE_LIVE && b.NodeId != node {
			live++
		}
	}
	for _, factor := range slices.Backward(sortedFactors(need)) {
		if live < int(factor) {
			m.Blocked = append(m.Blocked, fmt.Sprintf("%s of it: %d brokers are needed, and %d are there to take them: start or add one",
				plural(uint64(need[factor]), "shard"), factor, live))
		}
	}
	if offline > 0 {
		m.Blocked = append(m.Blocked, fmt.Sprintf("%s of it %s offline: see shardstream cluster status", plural(uint64(offline), "shard"), isAre(offline)))
	}
	m.Blocked = append(m.Blocked, fullDisks(v, node)...)
	return m
}

func sortedFactors(m map[uint32]int) []uint32 {
	var all []uint32
	for f := range m {
		all = append(all, f)
	}
	slices.Sort(all)
	return all
}

// rebalanceMovement tells what is left of a rebalance: the replicas that are
// under way, and those by which brokers still differ.
func rebalanceMovement(v *clusterView) movement {
	m := movement{Seconds: -1, Blocked: []string{}, Done: v.meta.cluster.GetRebalancingSinceMs() == 0}
	if m.Done {
		return m
	}
	leaders := leaderReports(v)
	counts := make(map[string]int)
	for _, b := range v.meta.brokers {
		if b.State == pb.BrokerState_BROKER_STATE_LIVE {
			counts[b.NodeId] = 0
		}
	}
	var bytes, copies uint64
	offline, total := 0, 0
	eachShard(v, func(shard *pb.Shard) {
		report := leaders[shard.Leader]
		bytes += report.GetBytes()
		copies++
		if shard.Leader == 0 {
			offline++
		}
		for _, r := range shard.Replicas {
			if _, live := counts[r.NodeId]; !live {
				continue
			}
			counts[r.NodeId]++
			total++
			if !slices.Contains(shard.InSync, r.Id) {
				m.UnderWay++
				m.Bytes += remaining(report, r)
			}
		}
	})
	if n := len(counts); n > 0 {
		for _, have := range counts {
			m.Replicas += max(0, have-(total+n-1)/n)
		}
	}
	m.Replicas = max(m.Replicas, m.UnderWay)
	if copies > 0 {
		m.Bytes += uint64(m.Replicas-m.UnderWay) * (bytes / copies)
	}
	if offline > 0 {
		m.Blocked = append(m.Blocked, fmt.Sprintf("%s %s offline: see shardstream cluster status", plural(uint64(offline), "shard"), isAre(offline)))
	}
	m.Blocked = append(m.Blocked, fullDisks(v, "")...)
	return m
}

// remaining gives what a replica that is being filled still needs.
func remaining(leader *pb.ReplicaStatus, r *pb.Replica) uint64 {
	for _, f := range leader.GetFollowers() {
		if f.ReplicaId == r.Id && f.Attached {
			return f.RemainingBytes
		}
	}
	return leader.GetBytes()
}

func fullDisks(v *clusterView, except string) (all []string) {
	for _, b := range v.meta.brokers {
		if b.NodeId != except && v.nodes[b.NodeId].status.GetDiskFull() {
			all = append(all, fmt.Sprintf("the disk of broker %s is almost full: it takes no replicas", b.NodeId))
		}
	}
	return all
}

func eachShard(v *clusterView, f func(*pb.Shard)) {
	for _, s := range v.meta.streamsByName() {
		if s.Status == pb.StreamStatus_STREAM_STATUS_DELETING {
			continue
		}
		for _, shard := range v.meta.shards[s.Id] {
			f(shard)
		}
	}
}
