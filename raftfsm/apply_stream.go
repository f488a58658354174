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
	if res := d.checkCreation(c); res != nil {
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
		TransitionAfterMs: c.GetTransitionAfterMs(), WarmMibps: c.GetWarmMibps(),
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

func (d *draft) checkCreation(c *pb.CreateStream) *pb.CommandResult {
	if limit := c.GetCreatingLimit(); limit > 0 {
		if creating := d.countStreams(func(s *pb.Stream) bool { return s.GetStatus() == pb.StreamStatus_STREAM_STATUS_CREATING }); creating >= uint64(limit) {
			return limited(pb.Refusal_REFUSAL_CREATING_LIMIT, creating, limit, "streams CREATING")
		}
	}
	if res := d.checkShardQuota(uint64(c.GetShardCount())); res != nil {
		return res
	}
	if c.GetMode() == pb.StreamMode_STREAM_MODE_ON_DEMAND {
		if res := d.checkOnDemand(); res != nil {
			return res
		}
	}
	if c.GetWarmMibps() > 0 {
		return d.checkWarm(c.GetMode())
	}
	return nil
}

// checkOnDemand refuses one more on-demand stream than the account may have.
func (d *draft) checkOnDemand() *pb.CommandResult {
	limit := d.cluster.GetLimits().GetOnDemandStreams()
	if limit == 0 {
		return nil
	}
	current := d.countStreams(func(s *pb.Stream) bool {
		return s.GetMode() == pb.StreamMode_STREAM_MODE_ON_DEMAND && s.GetStatus() != pb.StreamStatus_STREAM_STATUS_DELETING
	})
	if current < uint64(limit) {
		return nil
	}
	return limited(pb.Refusal_REFUSAL_ON_DEMAND_LIMIT, current, limit, "on-demand streams")
}

func (s *State) countStreams(is func(*pb.Stream) bool) (n uint64) {
	s.each(func(e *entry) {
		if is(e.stream) {
			n++
		}
	})
	return n
}

// limited refuses one more of something than its limit.
func limited(why pb.Refusal, current uint64, limit uint32, what string) *pb.CommandResult {
	return figures(because(why, refuse(stream.LimitExceeded, "%d %s, the limit is %d", current, what, limit)), current, uint64(limit))
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
	if len(s.GetConsumers()) > 0 && !c.GetWithConsumers() {
		res := because(pb.Refusal_REFUSAL_HAS_CONSUMERS, wrongState(s))
		res.Detail = "the stream has consumers"
		return res
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
		s = d.editStream(s.GetId())
		s.RetentionHours = hours
		d.beginUpdate(s, c.GetTransitionAfterMs())
	}
	return &pb.CommandResult{StreamId: s.GetId()}
}

func (d *draft) addTags(c *pb.AddTags) *pb.CommandResult {
	old, res := d.tagsOf(c.GetStreamId(), c.GetConsumer())
	if res != nil {
		return res
	}
	tags := make(map[string]string, len(old)+len(c.GetTags()))
	maps.Copy(tags, old)
	maps.Copy(tags, c.GetTags())
	if len(tags) > int(c.GetLimit()) {
		return figures(refuse(stream.LimitExceeded, "%d tags exceed the limit of %d", len(tags), c.GetLimit()),
			uint64(len(old)), uint64(c.GetLimit()))
	}
	if res := mayGrow(d.Stream(c.GetStreamId()), tagsSize(tags)-tagsSize(old)); res != nil {
		return res
	}
	if !maps.Equal(tags, old) {
		d.setTags(c.GetStreamId(), c.GetConsumer(), tags)
	}
	return &pb.CommandResult{StreamId: c.GetStreamId()}
}

func (d *draft) removeTags(c *pb.RemoveTags) *pb.CommandResult {
	old, res := d.tagsOf(c.GetStreamId(), c.GetConsumer())
	if res != nil {
		return res
	}
	tags := maps.Clone(old)
	for _, key := range c.GetKeys() {
		delete(tags, key)
	}
	if len(tags) != len(old) {
		d.setTags(c.GetStreamId(), c.GetConsumer(), tags)
	}
	return &pb.CommandResult{StreamId: c.GetStreamId()}
}

// tagsOf gives the tags of a stream or of one of its consumers, if they may
// change: those of a stream that has been created and is not being deleted.
func (d *draft) tagsOf(id uint64, consumer *pb.ConsumerRef) (map[string]string, *pb.CommandResult) {
	s := d.Stream(id)
	if s == nil {
		return nil, refuse(stream.NotFound, "no stream %d", id)
	}
	switch s.GetStatus() {
	case pb.StreamStatus_STREAM_STATUS_ACTIVE, pb.StreamStatus_STREAM_STATUS_UPDATING:
	default:
		return nil, wrongState(s)
	}
	if consumer == nil {
		return s.GetTags(), nil
	}
	c, res := findConsumer(s, consumer)
	return c.GetTags(), res
}

func (d *draft) setTags(id uint64, consumer *pb.ConsumerRef, tags map[string]string) {
	if consumer == nil {
		d.editStream(id).Tags = tags
		return
	}
	d.editConsumer(id, consumer, func(c *pb.Consumer) { c.Tags = tags })
}
