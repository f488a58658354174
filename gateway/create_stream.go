package gateway

import (
	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
)

// Behaviour: CreateStream starts the creation of a stream and answers empty; the
// stream is CREATING until its shards are on disk, and for TransitionDelay.
//
//   - Without a mode, a ShardCount means PROVISIONED, none means ON_DEMAND.
//   - ON_DEMAND streams begin with 4 shards and must not ask for a count;
//     PROVISIONED ones must.
//   - A name that is taken, in any state, is ResourceInUse; the shard quota is
//     LimitExceeded.
//   - WarmThroughputMiBps above 0 takes an on-demand stream and the account's
//     commitment.

// onDemandShards is how many shards an on-demand stream begins with.
const onDemandShards = 4

func createStream(c *call, in *kinesis.CreateStreamInput) (*empty, *kinesis.Error) {
	command, failure := c.createCommand(in)
	if failure != nil {
		return nil, failure
	}
	m, failure := c.cached()
	if failure != nil {
		return nil, failure
	}
	name, account := *in.StreamName, m.cluster.AccountId
	if failure := checkTags(in.Tags, name, account); failure != nil {
		return nil, failure
	}
	if len(in.Tags) > maxTags {
		return nil, kinesis.TooManyTags(name, account)
	}
	if command.WarmMibps > maxWarmMibps {
		return nil, kinesis.WarmThroughputTooHigh(command.WarmMibps, maxWarmMibps)
	}
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_CreateStream{CreateStream: command}})
	if err != nil {
		return nil, c.fail(err, subject{name: name, account: account})
	}
	switch r.Refusal {
	case pb.Refusal_REFUSAL_ON_DEMAND_LIMIT:
		return nil, kinesis.TooManyOnDemand(account, int(r.Limit))
	case pb.Refusal_REFUSAL_SHARD_QUOTA:
		return nil, kinesis.ShardLimitExceeded(account, c.region(), int(r.Current), int(r.Limit), int(r.Additional))
	case pb.Refusal_REFUSAL_CREATING_LIMIT:
		return nil, kinesis.TooManyCreating(account, int(r.Limit))
	case pb.Refusal_REFUSAL_WARM_THROUGHPUT:
		return nil, kinesis.WarmThroughputRefused(name, account)
	}
	return nil, c.refused(r, subject{name: name, account: account})
}

// createCommand gives the command for a checked input.
func (c *call) createCommand(in *kinesis.CreateStreamInput) (*pb.CreateStream, *kinesis.Error) {
	mode := kinesis.StreamModeOnDemand
	if in.StreamModeDetails != nil {
		mode = deref(in.StreamModeDetails.StreamMode)
	} else if in.ShardCount != nil {
		mode = kinesis.StreamModeProvisioned
	}
	command := &pb.CreateStream{
		Name: *in.StreamName, Tags: in.Tags, MaxRecordKib: uint32(deref(in.MaxRecordSizeInKiB)),
		TransitionAfterMs: c.transitionEnd(), WarmMibps: uint32(deref(in.WarmThroughputMiBps)), CreatingLimit: c.g.creatingLimit(),
	}
	switch {
	case mode == kinesis.StreamModeOnDemand && in.ShardCount != nil:
		return nil, kinesis.ShardCountNotExpected()
	case mode == kinesis.StreamModeOnDemand:
		command.Mode, command.ShardCount = pb.StreamMode_STREAM_MODE_ON_DEMAND, onDemandShards
	case in.ShardCount == nil:
		return nil, kinesis.ShardCountRequired()
	default:
		command.Mode, command.ShardCount = pb.StreamMode_STREAM_MODE_PROVISIONED, uint32(*in.ShardCount)
	}
	return command, nil
}

// transitionEnd gives the earliest end of a transition that begins now, Unix ms.
func (c *call) transitionEnd() int64 {
	if c.g.cfg.TransitionDelay == 0 {
		return 0
	}
	return c.g.cfg.Now().Add(c.g.cfg.TransitionDelay).UnixMilli()
}
