package gateway

import (
	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: DescribeStream shows a stream in any state, with up to 100 of its
// shards in the order of their ids, from behind ExclusiveStartShardId, which
// need not exist. In CREATING there are no shards yet. DescribeStreamSummary
// shows the same without shards, and with their number. Neither ever gives a
// StreamId: SDKs would build another endpoint from it.

// maxDescribed is the most shards of one answer, whatever Limit says.
const maxDescribed = 100

func describeStream(c *call, in *kinesis.DescribeStreamInput) (*kinesis.DescribeStreamOutput, *kinesis.Error) {
	after, failure := c.exclusiveStart(in.ExclusiveStartShardId, in.StreamName, in.StreamARN)
	if failure != nil {
		return nil, failure
	}
	m, v, failure := c.locate(in.StreamName, in.StreamARN)
	if failure != nil {
		return nil, failure
	}
	limit := maxDescribed
	if in.Limit != nil {
		limit = min(limit, int(*in.Limit))
	}
	now := c.g.cfg.Now().UnixMilli()
	shards := make([]kinesis.Shard, 0, min(limit, len(v.shards)))
	more := false
	for _, s := range v.shards {
		if int64(s.Number) <= after || !isListed(v, s, now) {
			continue
		}
		if len(shards) == limit {
			more = true
			break
		}
		shards = append(shards, shardShape(s))
	}
	return &kinesis.DescribeStreamOutput{StreamDescription: &kinesis.StreamDescription{
		StreamName: v.Name, StreamARN: v.arn(c.region(), m.cluster.AccountId), StreamStatus: statusName(v.Status),
		StreamModeDetails: modeDetails(v.Mode), Shards: shards, HasMoreShards: more,
		RetentionPeriodHours: int32(v.RetentionHours), StreamCreationTimestamp: kinesis.Timestamp(v.CreatedMs),
		EnhancedMonitoring: monitoring(v), EncryptionType: new(encryptionType(v)), KeyId: encryptionKey(v),
	}}, nil
}

func describeStreamSummary(c *call, in *kinesis.DescribeStreamSummaryInput) (*kinesis.DescribeStreamSummaryOutput, *kinesis.Error) {
	m, v, failure := c.locate(in.StreamName, in.StreamARN)
	if failure != nil {
		return nil, failure
	}
	return &kinesis.DescribeStreamSummaryOutput{StreamDescriptionSummary: &kinesis.StreamDescriptionSummary{
		StreamName: v.Name, StreamARN: v.arn(c.region(), m.cluster.AccountId), StreamStatus: statusName(v.Status),
		StreamModeDetails: modeDetails(v.Mode), RetentionPeriodHours: int32(v.RetentionHours),
		StreamCreationTimestamp: kinesis.Timestamp(v.CreatedMs), EnhancedMonitoring: monitoring(v),
		EncryptionType: new(encryptionType(v)), KeyId: encryptionKey(v), OpenShardCount: int32(v.openShards()),
		ConsumerCount: new(int32(len(v.Consumers))), MaxRecordSizeInKiB: new(int32(v.MaxRecordKib)),
		WarmThroughput: warmThroughput(m, v, c.g.cfg.Now().UnixMilli()),
	}}, nil
}

// monitoring is the one element that AWS always shows.
func monitoring(v *streamView) []kinesis.EnhancedMetrics {
	return []kinesis.EnhancedMetrics{{ShardLevelMetrics: metricNames(v.ShardMetrics)}}
}

func encryptionType(v *streamView) string {
	if v.DataKey == 0 {
		return kinesis.EncryptionTypeNone
	}
	return kinesis.EncryptionTypeKMS
}

// encryptionKey is the KeyId that encryption was started with, nil without it.
func encryptionKey(v *streamView) *string {
	for _, k := range v.DataKeys {
		if k.Id == v.DataKey {
			return new(k.KeyId)
		}
	}
	return nil
}

// exclusiveStart reads an ExclusiveStartShardId: the number of the shard behind
// which a list begins, -1 for a list from the start.
func (c *call) exclusiveStart(id, name, arn *string) (int64, *kinesis.Error) {
	if id == nil {
		return -1, nil
	}
	if n, ok := stream.ParseShardName(*id); ok {
		return int64(n), nil
	}
	a, failure := addressOf(deref(name), deref(arn))
	if failure != nil {
		return 0, failure
	}
	return 0, c.shardNotFound(*id, a)
}

// shardNotFound answers a shard id that cannot be read.
func (c *call) shardNotFound(id string, a address) *kinesis.Error {
	m, failure := c.cached()
	if failure != nil {
		return failure
	}
	_, account := a.find(m)
	return kinesis.ShardNotFound(id, a.name, account)
}

// isListed reports whether a shard shows in lists at that time: it exists for
// clients from when the stream is created, and until its data has expired.
func isListed(v *streamView, s *pb.Shard, nowMs int64) bool {
	return s.State != pb.ShardState_SHARD_STATE_CREATING && !isExpired(v, s, nowMs)
}

func isExpired(v *streamView, s *pb.Shard, nowMs int64) bool {
	return s.State == pb.ShardState_SHARD_STATE_EXPIRED ||
		s.State == pb.ShardState_SHARD_STATE_CLOSED && s.ClosedMs+int64(v.RetentionHours)*3_600_000 < nowMs
}

func shardShape(s *pb.Shard) kinesis.Shard {
	created := createdSecond(s)
	shape := kinesis.Shard{
		ShardId:      stream.ShardName(s.Number),
		HashKeyRange: hashRange(s),
		SequenceNumberRange: &kinesis.SequenceNumberRange{
			StartingSequenceNumber: stream.StartSequence(s.Number, created).String(),
		},
	}
	if len(s.Parents) > 0 {
		shape.ParentShardId = new(stream.ShardName(s.Parents[0]))
	}
	if len(s.Parents) > 1 {
		shape.AdjacentParentShardId = new(stream.ShardName(s.Parents[1]))
	}
	if s.State == pb.ShardState_SHARD_STATE_CLOSED {
		shape.SequenceNumberRange.EndingSequenceNumber = new(stream.EndSequence(s.Number, created, closedSecond(s)).String())
	}
	return shape
}

// closedSecond is the time that the EndingSequenceNumber of a closed shard
// carries: the second before the one in which its children begin, as on AWS. They
// begin a millisecond after its end, mostly in the same second. A shard between
// parents and children ends in the second of its creation.
func closedSecond(s *pb.Shard) int64 { return max((s.ClosedMs+1)/1000-1, createdSecond(s)) }

func hashRange(s *pb.Shard) *kinesis.HashKeyRange {
	r := rangeOf(s)
	return &kinesis.HashKeyRange{StartingHashKey: r.Start.String(), EndingHashKey: r.End.String()}
}

// createdSecond is the creation time that a shard's sequence numbers carry.
func createdSecond(s *pb.Shard) int64 { return s.CreatedMs / 1000 }
