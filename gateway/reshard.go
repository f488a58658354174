package gateway

import (
	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: SplitShard, MergeShards and UpdateShardCount start a reshard of an
// ACTIVE stream and answer at once, the first two with nothing. The stream is
// UPDATING until the children are open, and for TransitionDelay; shard lists
// show it as it was until then, and it takes records all the time.
//
//   - Shard ids are read leniently; one that can't be read is reported as it
//     was given, and before the stream is looked at.
//   - Then, in this order: the stream exists, is ACTIVE, is not on-demand; the
//     shards exist; the shard quota; the arguments.
//   - SplitShard: the new key is above the shard's first key plus one, and below
//     its last. The lower half has the smaller id.
//   - MergeShards: ShardToMerge is the lower one; the other order is refused.
//   - UpdateShardCount: to at most twice and at least half the open shards.
//     CurrentShardCount is the number of open shards before. The present number
//     is no error and changes nothing.

func splitShard(c *call, in *kinesis.SplitShardInput) (*empty, *kinesis.Error) {
	numbers, failure := c.shardNumbers(in.StreamName, in.StreamARN, *in.ShardToSplit)
	if failure != nil {
		return nil, failure
	}
	// A key above all hash keys is refused as the highest one is: no shard can be
	// split there.
	at, ok := stream.ParseHashKey(*in.NewStartingHashKey)
	if !ok {
		at = stream.MaxHashKey
	}
	_, _, failure = c.reshard(in.StreamName, in.StreamARN, &pb.Reshard{
		Kind: pb.ReshardKind_RESHARD_KIND_SPLIT, Shard: numbers[0], SplitAtHi: at.Hi, SplitAtLo: at.Lo,
	}, *in.NewStartingHashKey)
	return nil, failure
}

func mergeShards(c *call, in *kinesis.MergeShardsInput) (*empty, *kinesis.Error) {
	numbers, failure := c.shardNumbers(in.StreamName, in.StreamARN, *in.ShardToMerge, *in.AdjacentShardToMerge)
	if failure != nil {
		return nil, failure
	}
	_, _, failure = c.reshard(in.StreamName, in.StreamARN, &pb.Reshard{
		Kind: pb.ReshardKind_RESHARD_KIND_MERGE, Shard: numbers[0], AdjacentShard: numbers[1],
	}, "")
	return nil, failure
}

func updateShardCount(c *call, in *kinesis.UpdateShardCountInput) (*kinesis.UpdateShardCountOutput, *kinesis.Error) {
	t, current, failure := c.reshard(in.StreamName, in.StreamARN, &pb.Reshard{
		Kind: pb.ReshardKind_RESHARD_KIND_COUNT, TargetCount: uint32(*in.TargetShardCount), DailyLimit: c.g.dailyLimits().shardCounts,
	}, "")
	if failure != nil {
		return nil, failure
	}
	return &kinesis.UpdateShardCountOutput{
		StreamName: new(t.v.Name), StreamARN: new(t.v.arn(c.region(), t.account)),
		CurrentShardCount: new(int32(current)), TargetShardCount: new(*in.TargetShardCount),
	}, nil
}

// shardNumbers reads the shard ids of a request.
func (c *call) shardNumbers(name, arn *string, ids ...string) ([]uint32, *kinesis.Error) {
	a, failure := addressOf(deref(name), deref(arn))
	if failure != nil {
		return nil, failure
	}
	numbers := make([]uint32, len(ids))
	for i, id := range ids {
		n, ok := stream.ParseShardName(id)
		if !ok {
			return nil, c.shardNotFound(id, a)
		}
		numbers[i] = n
	}
	return numbers, nil
}

// reshard proposes a reshard of the stream, and gives the number of open shards
// before. key is the hash key of a split as it was given.
func (c *call) reshard(name, arn *string, command *pb.Reshard, key string) (t updateTarget, current uint64, failure *kinesis.Error) {
	m, v, failure := c.locate(name, arn)
	if failure != nil {
		return t, 0, failure
	}
	t = updateTarget{v: v, account: m.cluster.AccountId, cluster: m.cluster.Id}
	command.StreamId, command.TransitionAfterMs = v.Id, c.transitionEnd()
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_Reshard{Reshard: command}})
	if err != nil {
		return t, 0, c.fail(err, subject{name: v.Name, account: t.account})
	}
	if r.Error != pb.ErrorKind_ERROR_KIND_NONE {
		return t, 0, c.reshardRefused(t, command, r, key)
	}
	return t, r.Current, nil
}

// reshardRefused makes AWS's answer of the reason why a reshard was refused.
func (c *call) reshardRefused(t updateTarget, command *pb.Reshard, r *pb.CommandResult, key string) *kinesis.Error {
	name, account := t.v.Name, t.account
	shard, target := stream.ShardName(r.Shard), int32(command.TargetCount)
	switch r.Refusal {
	case pb.Refusal_REFUSAL_ON_DEMAND:
		return kinesis.OnDemandStream(name, account)
	case pb.Refusal_REFUSAL_SHARD_UNKNOWN:
		return kinesis.ShardNotFound(shard, name, account)
	case pb.Refusal_REFUSAL_SHARD_NOT_OPEN:
		return kinesis.ShardAlreadyClosed(shard, name, account)
	case pb.Refusal_REFUSAL_NOT_ADJACENT:
		return kinesis.ShardsNotAdjacent(stream.ShardName(command.Shard), stream.ShardName(command.AdjacentShard), name, account)
	case pb.Refusal_REFUSAL_SPLIT_POINT:
		// A range never changes, but the shard may be younger than t.
		v := c.g.meta.load().byID[t.v.Id]
		if command.Kind != pb.ReshardKind_RESHARD_KIND_SPLIT || v == nil || v.shard(r.Shard) == nil {
			return kinesis.ShardNotDivisible(shard, name, account)
		}
		keys := rangeOf(v.shard(r.Shard))
		return kinesis.SplitKeyOutOfRange(key, shard, name, account, keys.Start.String(), keys.End.String())
	case pb.Refusal_REFUSAL_ABOVE_DOUBLE:
		return kinesis.ScaleUpTooFar(int32(r.Current), target)
	case pb.Refusal_REFUSAL_BELOW_HALF:
		return kinesis.ScaleDownTooFar(int32(r.Current), target)
	case pb.Refusal_REFUSAL_ABOVE_MAXIMUM:
		return kinesis.TargetOverLimit(int32(r.Limit), int32(r.Current), target)
	case pb.Refusal_REFUSAL_DAILY_LIMIT:
		return kinesis.TooManyShardCountUpdates(name, account)
	case pb.Refusal_REFUSAL_SHARD_QUOTA:
		return kinesis.ShardLimitExceeded(account, c.region(), int(r.Current), int(r.Limit), int(r.Additional))
	}
	return c.refused(r, subject{name: name, account: account})
}
