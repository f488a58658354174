package gateway

import (
	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: IncreaseStreamRetentionPeriod and DecreaseStreamRetentionPeriod set
// how long records can be read, 24 to 8760 hours, and answer empty. The stream
// must be ACTIVE, and is UPDATING for TransitionDelay. The present period is no
// error in either and changes nothing. Increasing does not
// bring back what has expired.

func increaseRetention(c *call, in *kinesis.IncreaseStreamRetentionPeriodInput) (*empty, *kinesis.Error) {
	return nil, c.setRetention(in.StreamName, in.StreamARN, *in.RetentionPeriodHours, true)
}

func decreaseRetention(c *call, in *kinesis.DecreaseStreamRetentionPeriodInput) (*empty, *kinesis.Error) {
	return nil, c.setRetention(in.StreamName, in.StreamARN, *in.RetentionPeriodHours, false)
}

func (c *call) setRetention(name, arn *string, hours int32, increase bool) *kinesis.Error {
	m, v, failure := c.locate(name, arn)
	if failure != nil {
		return failure
	}
	account := m.cluster.AccountId
	if failure := mustBeActive(v, account); failure != nil {
		return failure
	}
	if failure := checkRetention(v.Name, hours, int32(v.RetentionHours), increase); failure != nil {
		return failure
	}
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_SetRetention{SetRetention: &pb.SetRetention{
		StreamId: v.Id, Hours: uint32(hours), Increase: increase, TransitionAfterMs: c.transitionEnd(),
	}}})
	if err != nil {
		return c.fail(err, subject{name: v.Name, account: account})
	}
	if stream.Kind(r.Error) == stream.Invalid { // another call came between
		if failure := checkRetention(v.Name, hours, int32(r.Current), increase); failure != nil {
			return failure
		}
	}
	return c.refused(r, subject{name: v.Name, account: account})
}

func checkRetention(name string, hours, current int32, increase bool) *kinesis.Error {
	switch {
	case hours < kinesis.MinRetentionHours:
		return kinesis.RetentionTooShort(hours)
	case hours > kinesis.MaxRetentionHours:
		return kinesis.RetentionTooLong(hours)
	case increase && hours < current:
		return kinesis.RetentionBelowCurrent(name, hours, current)
	case !increase && hours > current:
		return kinesis.RetentionAboveCurrent(name, hours, current)
	}
	return nil
}
