package gateway

import (
	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: CreateStream starts the creation of a stream and answers empty; the
// stream is CREATING until its shards are on disk, and for TransitionDelay.
//
//   - Without a mode, a ShardCount means PROVISIONED, none means ON_DEMAND.
//   - ON_DEMAND streams begin with 4 shards and must not ask for a count;
//     PROVISIONED ones must.
//   - A name that is taken, in any state, is ResourceInUse; the shard quota is
//     LimitExceeded.
//   - WarmThroughputMiBps above 0 is refused: there is no commitment to warm
//     throughput here.

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
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_CreateStream{CreateStream: command}})
	if err != nil {
		return nil, c.fail(err, subject{name: name, account: account})
	}
	if stream.Kind(r.Error) == stream.LimitExceeded {
		limits, count := m.cluster.GetLimits(), int(command.ShardCount)
		if r.Limit == uint64(limits.GetOnDemandStreams()) && r.Current+uint64(count) <= uint64(limits.GetShards()) {
			return nil, kinesis.TooManyOnDemand(account, int(r.Limit))
		}
		return nil, kinesis.ShardLimitExceeded(account, c.region(), int(r.Current), int(r.Limit), count)
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
		TransitionAfterMs: c.transitionEnd(),
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
	if deref(in.WarmThroughputMiBps) > 0 {
		m, failure := c.cached()
		if failure != nil {
			return nil, failure
		}
		return nil, kinesis.WarmThroughputRefused(command.Name, m.cluster.AccountId)
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
