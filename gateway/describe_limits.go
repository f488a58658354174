package gateway

import (
	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
)

// Behaviour: DescribeLimits shows the account's quotas and what is used of them:
// open shards of streams that are not being deleted, and on-demand streams.

func describeLimits(c *call, _ *kinesis.DescribeLimitsInput) (*kinesis.DescribeLimitsOutput, *kinesis.Error) {
	m, failure := c.linearizable()
	if failure != nil {
		return nil, failure
	}
	out := &kinesis.DescribeLimitsOutput{
		ShardLimit:               int32(m.cluster.GetLimits().GetShards()),
		OnDemandStreamCountLimit: int32(m.cluster.GetLimits().GetOnDemandStreams()),
	}
	for _, v := range m.byID {
		if v.Status == pb.StreamStatus_STREAM_STATUS_DELETING {
			continue
		}
		if v.Mode == pb.StreamMode_STREAM_MODE_ON_DEMAND {
			out.OnDemandStreamCount++
		}
		for _, s := range v.shards {
			switch s.State {
			case pb.ShardState_SHARD_STATE_CREATING, pb.ShardState_SHARD_STATE_OPEN, pb.ShardState_SHARD_STATE_SEALING:
				out.OpenShardCount++
			}
		}
	}
	return out, nil
}
