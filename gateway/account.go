package gateway

import (
	"time"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
)

// Behaviour: DescribeAccountSettings and UpdateAccountSettings show and change
// the account's commitment to a minimum of throughput. It lasts 24 hours at
// least: who ends it earlier has it until then, and may take that back. Nothing
// is billed here; the commitment only opens what AWS opens with it: warm
// throughput, and 50 consumers a stream instead of 20 where these are limited.

const minimumCommitment = 24 * time.Hour

func describeAccountSettings(c *call, _ *kinesis.DescribeAccountSettingsInput) (*kinesis.DescribeAccountSettingsOutput, *kinesis.Error) {
	m, failure := c.linearizable()
	if failure != nil {
		return nil, failure
	}
	return &kinesis.DescribeAccountSettingsOutput{MinimumThroughputBillingCommitment: c.commitment(m)}, nil
}

func updateAccountSettings(c *call, in *kinesis.UpdateAccountSettingsInput) (*kinesis.UpdateAccountSettingsOutput, *kinesis.Error) {
	enabled := deref(in.MinimumThroughputBillingCommitment.Status) == kinesis.MinimumThroughputBillingCommitmentInputStatusEnabled
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_SetCommitment{SetCommitment: &pb.SetCommitment{
		Enabled: enabled, MinimumMs: minimumCommitment.Milliseconds(),
	}}})
	if err != nil {
		return nil, c.fail(err, subject{})
	}
	if failure := c.refused(r, subject{}); failure != nil {
		return nil, failure
	}
	return &kinesis.UpdateAccountSettingsOutput{MinimumThroughputBillingCommitment: c.commitment(c.g.meta.load())}, nil
}

// commitment shows the account's commitment.
func (c *call) commitment(m *metadata) *kinesis.MinimumThroughputBillingCommitmentOutput {
	now, made := c.g.cfg.Now().UnixMilli(), m.cluster.GetCommitment()
	out := &kinesis.MinimumThroughputBillingCommitmentOutput{Status: kinesis.MinimumThroughputBillingCommitmentOutputStatusDisabled}
	if made == nil {
		return out
	}
	out.StartedAt = new(kinesis.Timestamp(made.StartedMs))
	switch {
	case made.Enabled:
		out.Status = kinesis.MinimumThroughputBillingCommitmentOutputStatusEnabled
		out.EarliestAllowedEndAt = new(kinesis.Timestamp(made.EarliestEndMs))
	case commitmentInForce(made, now):
		out.Status = kinesis.MinimumThroughputBillingCommitmentOutputStatusEnabledUntilEarliestAllowedEnd
		out.EarliestAllowedEndAt = new(kinesis.Timestamp(made.EarliestEndMs))
	default:
		out.EndedAt = new(kinesis.Timestamp(made.EndedMs))
	}
	return out
}

func commitmentInForce(c *pb.Commitment, nowMs int64) bool {
	return c.GetEnabled() || nowMs < c.GetEndedMs()
}
