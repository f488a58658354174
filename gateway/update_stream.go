package gateway

import (
	"slices"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
)

// Behaviour: UpdateStreamMode, UpdateMaxRecordSize, UpdateStreamWarmThroughput,
// EnableEnhancedMonitoring and DisableEnhancedMonitoring change an ACTIVE stream,
// which is UPDATING for TransitionDelay. What is so already is no error and
// changes nothing. The new setting is in force at once.
//
//   - UpdateStreamMode keeps the shards.
//   - UpdateMaxRecordSize only judges puts: records that are there stay.
//   - Warm throughput takes an on-demand stream, and an account with a commitment.
//   - ALL stands for the seven shard-level metrics. The answer has those that were
//     on before, and those that are on now.

func updateStreamMode(c *call, in *kinesis.UpdateStreamModeInput) (*empty, *kinesis.Error) {
	set := &pb.SetMode{
		Mode:      pb.StreamMode_STREAM_MODE_PROVISIONED,
		WarmMibps: uint32(deref(in.WarmThroughputMiBps)), DailyLimit: c.g.dailyLimits().modes,
	}
	if deref(in.StreamModeDetails.StreamMode) == kinesis.StreamModeOnDemand {
		set.Mode = pb.StreamMode_STREAM_MODE_ON_DEMAND
	}
	_, failure := c.updateStream(nil, in.StreamARN, func(*streamView) *pb.UpdateStream {
		return &pb.UpdateStream{Change: &pb.UpdateStream_SetMode{SetMode: set}}
	})
	return nil, failure
}

func updateMaxRecordSize(c *call, in *kinesis.UpdateMaxRecordSizeInput) (*empty, *kinesis.Error) {
	if in.StreamARN == nil { // the model lets a StreamId stand for it, which is not in use
		return nil, kinesis.NoStreamARN()
	}
	_, failure := c.updateStream(nil, in.StreamARN, func(*streamView) *pb.UpdateStream {
		return &pb.UpdateStream{Change: &pb.UpdateStream_MaxRecordKib{MaxRecordKib: uint32(*in.MaxRecordSizeInKiB)}}
	})
	return nil, failure
}

func updateStreamWarmThroughput(c *call, in *kinesis.UpdateStreamWarmThroughputInput) (*kinesis.UpdateStreamWarmThroughputOutput, *kinesis.Error) {
	t, failure := c.updateStream(in.StreamName, in.StreamARN, func(*streamView) *pb.UpdateStream {
		return &pb.UpdateStream{Change: &pb.UpdateStream_SetWarm{SetWarm: &pb.SetWarm{Mibps: uint32(*in.WarmThroughputMiBps)}}}
	})
	if failure != nil {
		return nil, failure
	}
	return &kinesis.UpdateStreamWarmThroughputOutput{
		StreamName: new(t.v.Name), StreamARN: new(t.v.arn(c.region(), t.account)),
		WarmThroughput: &kinesis.WarmThroughputObject{TargetMiBps: in.WarmThroughputMiBps, CurrentMiBps: new(currentMiBps(t.v))},
	}, nil
}

// warmThroughput shows what an on-demand stream is ready to take, in an account
// with a commitment; nil for all others.
func warmThroughput(m *metadata, v *streamView, nowMs int64) *kinesis.WarmThroughputObject {
	if v.Mode != pb.StreamMode_STREAM_MODE_ON_DEMAND || !commitmentInForce(m.cluster.GetCommitment(), nowMs) {
		return nil
	}
	return &kinesis.WarmThroughputObject{TargetMiBps: new(int32(v.WarmMibps)), CurrentMiBps: new(currentMiBps(v))}
}

// currentMiBps is what the open shards of a stream take by AWS's limits.
func currentMiBps(v *streamView) int32 { return int32(v.openShards()) }

func enableEnhancedMonitoring(c *call, in *kinesis.EnableEnhancedMonitoringInput) (*kinesis.EnhancedMonitoringOutput, *kinesis.Error) {
	return c.setMonitoring(in.StreamName, in.StreamARN, func(metrics []pb.ShardMetric) []pb.ShardMetric {
		return append(slices.Clone(metrics), shardMetrics(in.ShardLevelMetrics)...)
	})
}

func disableEnhancedMonitoring(c *call, in *kinesis.DisableEnhancedMonitoringInput) (*kinesis.EnhancedMonitoringOutput, *kinesis.Error) {
	off := shardMetrics(in.ShardLevelMetrics)
	return c.setMonitoring(in.StreamName, in.StreamARN, func(metrics []pb.ShardMetric) []pb.ShardMetric {
		return slices.DeleteFunc(slices.Clone(metrics), func(m pb.ShardMetric) bool { return slices.Contains(off, m) })
	})
}

func (c *call) setMonitoring(name, arn *string, change func([]pb.ShardMetric) []pb.ShardMetric) (*kinesis.EnhancedMonitoringOutput, *kinesis.Error) {
	var desired []pb.ShardMetric
	t, failure := c.updateStream(name, arn, func(v *streamView) *pb.UpdateStream {
		desired = slices.Compact(slices.Sorted(slices.Values(change(v.ShardMetrics))))
		return &pb.UpdateStream{Change: &pb.UpdateStream_ShardMetrics{ShardMetrics: &pb.ShardMetrics{Metrics: desired}}}
	})
	if failure != nil {
		return nil, failure
	}
	return &kinesis.EnhancedMonitoringOutput{
		StreamName: new(t.v.Name), StreamARN: new(t.v.arn(c.region(), t.account)),
		CurrentShardLevelMetrics: metricNames(t.v.ShardMetrics), DesiredShardLevelMetrics: metricNames(desired),
	}, nil
}

// shardMetricNames are the API's names of the shard-level metrics.
var shardMetricNames = map[pb.ShardMetric]string{
	pb.ShardMetric_SHARD_METRIC_INCOMING_BYTES:                        kinesis.MetricsNameIncomingBytes,
	pb.ShardMetric_SHARD_METRIC_INCOMING_RECORDS:                      kinesis.MetricsNameIncomingRecords,
	pb.ShardMetric_SHARD_METRIC_OUTGOING_BYTES:                        kinesis.MetricsNameOutgoingBytes,
	pb.ShardMetric_SHARD_METRIC_OUTGOING_RECORDS:                      kinesis.MetricsNameOutgoingRecords,
	pb.ShardMetric_SHARD_METRIC_WRITE_PROVISIONED_THROUGHPUT_EXCEEDED: kinesis.MetricsNameWriteProvisionedThroughputExceeded,
	pb.ShardMetric_SHARD_METRIC_READ_PROVISIONED_THROUGHPUT_EXCEEDED:  kinesis.MetricsNameReadProvisionedThroughputExceeded,
	pb.ShardMetric_SHARD_METRIC_ITERATOR_AGE_MILLISECONDS:             kinesis.MetricsNameIteratorAgeMilliseconds,
}

// shardMetrics reads names that validation has let pass.
func shardMetrics(names []string) []pb.ShardMetric {
	var metrics []pb.ShardMetric
	for metric, name := range shardMetricNames {
		if slices.Contains(names, name) || slices.Contains(names, kinesis.MetricsNameAll) {
			metrics = append(metrics, metric)
		}
	}
	return metrics
}

// metricNames gives the names of metrics, in their order; never nil.
func metricNames(metrics []pb.ShardMetric) []string {
	names := make([]string, 0, len(metrics))
	for _, m := range metrics {
		names = append(names, shardMetricNames[m])
	}
	return names
}

// updateTarget is the stream of an update or reshard, as it was before.
type updateTarget struct {
	v       *streamView
	account string
	cluster string // id
}

// updateStream proposes a change of the stream that a request names.
func (c *call) updateStream(name, arn *string, change func(*streamView) *pb.UpdateStream) (t updateTarget, failure *kinesis.Error) {
	if t, failure = c.updatable(name, arn); failure != nil {
		return t, failure
	}
	return t, c.update(t, change(t.v))
}

// updatable gives the stream that a request names, if it can be changed.
func (c *call) updatable(name, arn *string) (t updateTarget, failure *kinesis.Error) {
	m, v, failure := c.locate(name, arn)
	if failure != nil {
		return t, failure
	}
	t = updateTarget{v: v, account: m.cluster.AccountId, cluster: m.cluster.Id}
	return t, mustBeActive(v, t.account)
}

// update proposes a change of the stream.
func (c *call) update(t updateTarget, update *pb.UpdateStream) *kinesis.Error {
	v := t.v
	if warm := max(update.GetSetMode().GetWarmMibps(), update.GetSetWarm().GetMibps()); warm > maxWarmMibps {
		return kinesis.WarmThroughputTooHigh(warm, maxWarmMibps)
	}
	update.StreamId, update.TransitionAfterMs = v.Id, c.transitionEnd()
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_UpdateStream{UpdateStream: update}})
	if err != nil {
		return c.fail(err, subject{name: v.Name, account: t.account})
	}
	switch r.Refusal {
	case pb.Refusal_REFUSAL_DAILY_LIMIT:
		if update.GetSetMode() != nil {
			return kinesis.TooManyModeUpdates(v.Name, t.account)
		}
		return kinesis.TooManyEncryptionChanges(v.Name, t.account)
	case pb.Refusal_REFUSAL_WARM_THROUGHPUT:
		return kinesis.WarmThroughputRefused(v.Name, t.account)
	case pb.Refusal_REFUSAL_ON_DEMAND_LIMIT:
		return kinesis.TooManyOnDemand(t.account, int(r.Limit))
	}
	return c.refused(r, subject{name: v.Name, account: t.account})
}
