package raftfsm

import (
	"maps"
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// What the Kinesis API fixes about retention, in hours, and record size.
const (
	minRetentionHours   = 24
	maxRetentionHours   = 8760
	defaultMaxRecordKib = 1024
)

func (d *draft) createStream(c *pb.CreateStream) *pb.CommandResult {
	if c.GetName() == "" || c.GetShardCount() == 0 {
		return refuse(stream.Invalid, "a stream needs a name and at least one shard")
	}
	hours := c.GetRetentionHours()
	if hours == 0 {
		hours = minRetentionHours
	}
	if hours < minRetentionHours || hours > maxRetentionHours {
		return refuse(stream.Invalid, "retention of %d hours is not within %d and %d", hours, minRetentionHours, maxRetentionHours)
	}
	if old := d.StreamByName(c.GetName()); old != nil {
		res := refuse(stream.AlreadyExists, "stream %q exists", c.GetName())
		res.StreamId, res.Status = old.GetId(), old.GetStatus()
		return res
	}
	if res := d.checkQuota(c); res != nil {
		return res
	}
	if res := d.checkPlacement(c.GetPlacement(), int(c.GetShardCount())); res != nil {
		return res
	}

	cluster := d.editCluster()
	s := &pb.Stream{
		Id: cluster.NextStreamId, Name: c.GetName(), Status: pb.StreamStatus_STREAM_STATUS_CREATING,
		Mode: c.GetMode(), CreatedMs: d.now, RetentionHours: hours, Tags: c.GetTags(),
		MaxRecordKib: c.GetMaxRecordKib(), NextShardNumber: c.GetShardCount(),
		TransitionAfterMs: c.GetTransitionAfterMs(),
	}
	if s.Mode == pb.StreamMode_STREAM_MODE_UNKNOWN {
		s.Mode = pb.StreamMode_STREAM_MODE_PROVISIONED
	}
	if s.MaxRecordKib == 0 {
		s.MaxRecordKib = defaultMaxRecordKib
	}
	cluster.NextStreamId++

	shards := make([]*pb.Shard, c.GetShardCount())
	for i, r := range stream.UniformRanges(len(shards)) {
		shards[i] = &pb.Shard{
			StreamId: s.GetId(), Number: uint32(i), State: pb.ShardState_SHARD_STATE_CREATING, CreatedMs: d.now,
			Range: rangeMessage(r),
		}
		d.placeShard(shards[i], c.GetPlacement()[i].GetNodeIds())
	}
	e := &entry{stream: s, shards: shards, open: len(shards)}
	d.put(e)
	d.open += e.open
	d.ownNames().Insert([]byte(s.GetName()), s.GetId())
	return &pb.CommandResult{StreamId: s.GetId()}
}

// placeShard gives a new shard its replicas. It has no leader and no in-sync
// set until all of them are on their disks: see form.
func (d *draft) placeShard(sh *pb.Shard, nodes []string) {
	for _, node := range nodes {
		sh.Replicas = append(sh.Replicas, d.newReplica(node))
	}
	sh.ReplicationFactor = uint32(len(nodes))
	sh.MinInSync = uint32(min(2, len(nodes)))
	sh.Epoch, sh.Version = 1, 1
}

func (d *draft) checkQuota(c *pb.CreateStream) *pb.CommandResult {
	limits := d.cluster.GetLimits()
	if limit := uint64(limits.GetShards()); limit > 0 && uint64(d.open)+uint64(c.GetShardCount()) > limit {
		return figures(refuse(stream.LimitExceeded, "%d open shards and %d more exceed the limit of %d",
			d.open, c.GetShardCount(), limit), uint64(d.open), limit)
	}
	if limit := uint64(limits.GetOnDemandStreams()); limit > 0 && c.GetMode() == pb.StreamMode_STREAM_MODE_ON_DEMAND {
		var current uint64
		d.each(func(e *entry) {
			if e.stream.GetMode() == pb.StreamMode_STREAM_MODE_ON_DEMAND && e.stream.GetStatus() != pb.StreamStatus_STREAM_STATUS_DELETING {
				current++
			}
		})
		if current+1 > limit {
			return figures(refuse(stream.LimitExceeded, "%d on-demand streams are the limit of %d", current, limit), current, limit)
		}
	}
	return nil
}

func (d *draft) checkPlacement(placement []*pb.ReplicaNodes, shards int) *pb.CommandResult {
	if len(placement) != shards {
		return refuse(stream.Invalid, "placement for %d shards instead of %d", len(placement), shards)
	}
	for i, p := range placement {
		if len(p.GetNodeIds()) == 0 {
			return refuse(stream.Invalid, "no node for shard %d", i)
		}
		for j, node := range p.GetNodeIds() {
			for _, other := range p.GetNodeIds()[:j] {
				if node == other {
					return refuse(stream.Invalid, "two replicas of shard %d on node %q", i, node)
				}
			}
			if d.Broker(node).GetState() != pb.BrokerState_BROKER_STATE_LIVE {
				return refuse(stream.Stale, "shard %d placed on node %q, which is not live", i, node)
			}
		}
	}
	return nil
}

func (d *draft) activateStream(c *pb.ActivateStream) *pb.CommandResult {
	e := d.entry(c.GetStreamId())
	if e == nil {
		return refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	}
	if e.stream.GetStatus() != pb.StreamStatus_STREAM_STATUS_CREATING || d.now < e.stream.GetTransitionAfterMs() {
		return wrongState(e.stream)
	}
	for _, sh := range e.shards {
		if node, waits := awaits(sh); waits {
			res := wrongState(e.stream)
			res.Detail += ": shard " + stream.ShardName(sh.GetNumber()) + " waits for a replica on " + node
			return res
		}
	}
	s := d.editStream(c.GetStreamId())
	s.Status, s.TransitionAfterMs = pb.StreamStatus_STREAM_STATUS_ACTIVE, 0
	for _, sh := range e.shards {
		if sh.GetState() == pb.ShardState_SHARD_STATE_CREATING {
			d.editShard(sh.GetStreamId(), sh.GetNumber()).State = pb.ShardState_SHARD_STATE_OPEN
		}
	}
	return &pb.CommandResult{StreamId: s.GetId()}
}

// awaits tells whether a shard has not had all its first replicas yet, and
// names the node of one that is missing. Replicas that came later, when the
// shard had formed, don't matter.
func awaits(sh *pb.Shard) (node string, waits bool) {
	for _, r := range sh.GetReplicas() {
		if r.GetState() != pb.ReplicaState_REPLICA_STATE_CREATED && (!formed(sh) || r.GetState() == pb.ReplicaState_REPLICA_STATE_NEW &&
			slices.Contains(sh.GetInSync(), r.GetId())) {
			return r.GetNodeId(), true
		}
	}
	return "", !formed(sh)
}

func (d *draft) deleteStream(c *pb.DeleteStream) *pb.CommandResult {
	s := d.Stream(c.GetStreamId())
	if c.GetStreamId() == 0 {
		s = d.StreamByName(c.GetName())
	}
	if s == nil {
		return refuse(stream.NotFound, "no stream %q (%d)", c.GetName(), c.GetStreamId())
	}
	if s.GetStatus() == pb.StreamStatus_STREAM_STATUS_DELETING {
		return wrongState(s)
	}
	s = d.editStream(s.GetId())
	s.Status, s.TransitionAfterMs = pb.StreamStatus_STREAM_STATUS_DELETING, c.GetTransitionAfterMs()
	e := d.entry(s.GetId())
	d.open -= e.open
	e.open = 0
	return &pb.CommandResult{StreamId: s.GetId()}
}

func (d *draft) removeStream(c *pb.RemoveStream) *pb.CommandResult {
	s := d.Stream(c.GetStreamId())
	if s == nil {
		return refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	}
	if s.GetStatus() != pb.StreamStatus_STREAM_STATUS_DELETING || d.now < s.GetTransitionAfterMs() {
		return wrongState(s)
	}
	d.remove(s.GetId())
	return &pb.CommandResult{StreamId: s.GetId()}
}

func (d *draft) setRetention(c *pb.SetRetention) *pb.CommandResult {
	s := d.Stream(c.GetStreamId())
	if s == nil {
		return refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	}
	if s.GetStatus() != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		return wrongState(s)
	}
	hours, current := c.GetHours(), s.GetRetentionHours()
	if hours < minRetentionHours || hours > maxRetentionHours ||
		c.GetIncrease() && hours < current || !c.GetIncrease() && hours > current {
		res := refuse(stream.Invalid, "retention of %d hours cannot follow %d", hours, current)
		return figures(res, uint64(current), 0)
	}
	if hours != current {
		d.editStream(s.GetId()).RetentionHours = hours
	}
	return &pb.CommandResult{StreamId: s.GetId()}
}

func (d *draft) addTags(c *pb.AddTags) *pb.CommandResult {
	s, res := d.taggable(c.GetStreamId())
	if res != nil {
		return res
	}
	tags := make(map[string]string, len(s.GetTags())+len(c.GetTags()))
	maps.Copy(tags, s.GetTags())
	maps.Copy(tags, c.GetTags())
	if len(tags) > int(c.GetLimit()) {
		return figures(refuse(stream.LimitExceeded, "%d tags exceed the limit of %d", len(tags), c.GetLimit()),
			uint64(len(s.GetTags())), uint64(c.GetLimit()))
	}
	if !maps.Equal(tags, s.GetTags()) {
		d.editStream(s.GetId()).Tags = tags
	}
	return &pb.CommandResult{StreamId: s.GetId()}
}

func (d *draft) removeTags(c *pb.RemoveTags) *pb.CommandResult {
	s, res := d.taggable(c.GetStreamId())
	if res != nil {
		return res
	}
	tags := maps.Clone(s.GetTags())
	for _, key := range c.GetKeys() {
		delete(tags, key)
	}
	if len(tags) != len(s.GetTags()) {
		d.editStream(s.GetId()).Tags = tags
	}
	return &pb.CommandResult{StreamId: s.GetId()}
}

// taggable finds a stream whose tags may change: any that has been created and
// is not being deleted.
func (d *draft) taggable(id uint64) (*pb.Stream, *pb.CommandResult) {
	s := d.Stream(id)
	if s == nil {
		return nil, refuse(stream.NotFound, "no stream %d", id)
	}
	switch s.GetStatus() {
	case pb.StreamStatus_STREAM_STATUS_ACTIVE, pb.StreamStatus_STREAM_STATUS_UPDATING:
		return s, nil
	}
	return nil, wrongState(s)
}
