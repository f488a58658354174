package main

import (
	"cmp"
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// shardLoss is a shard without a sound in-sync copy, and what is left of it.
type shardLoss struct {
	Stream string `json:"stream"`
	Shard  string `json:"shard"`
	// Waits names brokers that are down and may have every record; while there is
	// one, the shard is not recovered unless they are declared gone.
	Waits  []string    `json:"waitsFor"`
	Copies []shardCopy `json:"copies"` // the best first
	// Known is how many records were committed and are on no copy; Most how many
	// the best copy lacks of all that any copy tells of. What only lost disks had
	// is in neither.
	Known uint64 `json:"knownLost"`
	Most  uint64 `json:"lostAtMost"`

	shard *pb.Shard
}

// shardCopy is one copy of a shard on a disk that answers.
type shardCopy struct {
	Node      string   `json:"node"`
	Replica   uint64   `json:"replica"`
	State     string   `json:"state"` // empty: the metadata counts on it no more
	LastEpoch uint32   `json:"lastEpoch"`
	Start     uint64   `json:"start"`
	HW        uint64   `json:"highWatermark"`
	End       uint64   `json:"end"`
	Last      string   `json:"lastArrival,omitempty"`
	Damaged   []uint64 `json:"damaged,omitempty"` // pairs of start and end

	incarnation uint64
	damage      []*pb.Damage
}

func (c *shardCopy) damagedRecords() (n uint64) { return damagedRecords(c.damage) }

// recoverPlan finds the shards that only an operator can bring back, and what
// each copy of them has. damage is what each node's disk has lost. It is pure.
func recoverPlan(v *clusterView, damage map[string][]*pb.Damage, gone []string) []*shardLoss {
	plan := []*shardLoss{}
	for _, s := range v.meta.streamsByName() {
		if s.Status == pb.StreamStatus_STREAM_STATUS_DELETING {
			continue
		}
		for _, shard := range v.meta.shards[s.Id] {
			if shard.Leader != 0 || len(shard.InSync) == 0 || shard.State == pb.ShardState_SHARD_STATE_EXPIRED {
				continue
			}
			l := &shardLoss{Stream: s.Name, Shard: stream.ShardName(shard.Number), Waits: []string{}, Copies: copiesOf(v, shard, damage), shard: shard}
			for _, r := range shard.Replicas {
				if slices.Contains(shard.InSync, r.Id) && r.State == pb.ReplicaState_REPLICA_STATE_CREATED && !slices.Contains(gone, r.NodeId) {
					l.Waits = append(l.Waits, r.NodeId)
				}
			}
			l.estimate()
			plan = append(plan, l)
		}
	}
	return plan
}

// estimate compares the best copy with all that is known of the others.
func (l *shardLoss) estimate() {
	if len(l.Copies) == 0 {
		return
	}
	best := &l.Copies[0]
	l.Known, l.Most = best.damagedRecords(), best.damagedRecords()
	l.Known += records(best.End, l.highest(func(c *shardCopy) uint64 { return c.HW }))
	l.Most += records(best.End, l.highest(func(c *shardCopy) uint64 { return c.End }))
}

func (l *shardLoss) highest(of func(*shardCopy) uint64) (h uint64) {
	for i := range l.Copies {
		h = max(h, of(&l.Copies[i]))
	}
	return h
}

// copiesOf gives the shard's copies on disks of brokers that are up, the best
// first: the one with the newest leader's records, and of these the longest. A
// longer one with older records has some that were never committed (oxia#579).
func copiesOf(v *clusterView, shard *pb.Shard, damage map[string][]*pb.Damage) []shardCopy {
	copies := []shardCopy{}
	for _, b := range v.meta.brokers {
		status := v.nodes[b.NodeId].status
		if status == nil || status.Incarnation != b.Incarnation || b.State == pb.BrokerState_BROKER_STATE_FENCED || b.State == pb.BrokerState_BROKER_STATE_GONE {
			continue
		}
		for _, r := range slices.Concat(status.Replicas, status.OnDisk) {
			if r.GetReplica().GetStreamId() != shard.StreamId || r.GetReplica().GetShard() != shard.Number {
				continue
			}
			c := shardCopy{
				Node: b.NodeId, Replica: r.Replica.ReplicaId, LastEpoch: r.LastEpoch, Start: r.Start, HW: r.HighWatermark, End: r.DurableEnd,
				Last: timeText(r.LastArrivalMs), incarnation: b.Incarnation,
			}
			for _, listed := range shard.Replicas {
				if listed.Id == c.Replica && listed.State != pb.ReplicaState_REPLICA_STATE_LOST {
					c.State = replicaStateName(listed.State)
				}
			}
			for _, d := range damage[b.NodeId] {
				if d.GetReplica().GetReplicaId() == c.Replica {
					c.damage = append(c.damage, d)
					c.Damaged = append(c.Damaged, d.Start, d.End)
				}
			}
			copies = append(copies, c)
		}
	}
	slices.SortFunc(copies, func(x, y shardCopy) int {
		return cmp.Or(-cmp.Compare(x.LastEpoch, y.LastEpoch), -cmp.Compare(x.End, y.End),
			cmp.Compare(x.damagedRecords(), y.damagedRecords()), cmp.Compare(x.Node, y.Node), cmp.Compare(x.Replica, y.Replica))
	})
	return copies
}

// command is what commits the recovery from the best copy.
func (l *shardLoss) command(by, reason string) *pb.Command {
	best := &l.Copies[0]
	c := &pb.RecoverShard{
		StreamId: l.shard.StreamId, Shard: l.shard.Number, Version: l.shard.Version, ReplicaId: best.Replica, NodeId: best.Node,
		Incarnation: best.incarnation, By: by, Reason: reason, LostFrom: best.End,
		LostTo: l.highest(func(c *shardCopy) uint64 { return c.End }),
	}
	for _, d := range best.damage {
		c.Damage = append(c.Damage, &pb.LostRange{Replica: d.Replica, Start: d.Start, End: d.End, Reason: d.Reason})
	}
	return &pb.Command{Op: &pb.Command_RecoverShard{RecoverShard: c}}
}
