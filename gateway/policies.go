package gateway

import (
	"shardstream/gateway/kinesis"
	"shardstream/gateway/policy"
	pb "shardstream/proto/shardstream/v1"
)

// Behaviour: PutResourcePolicy sets the policy of a stream, or of a consumer
// that is ACTIVE, in place of the one before, and answers empty. It may have 20 KiB.
// GetResourcePolicy gives it as it was put, and "{}" if there is none.
// DeleteResourcePolicy answers empty; where there is none it is ResourceNotFound.
// Policies are in force where requests are authenticated: see authorize.go.

func putResourcePolicy(c *call, in *kinesis.PutResourcePolicyInput) (*empty, *kinesis.Error) {
	r, failure := c.locateResource(*in.ResourceARN)
	if failure != nil {
		return nil, failure
	}
	if n := len(*in.Policy); n > kinesis.MaxPolicySize {
		return nil, kinesis.PolicyTooLarge(n)
	}
	if _, err := policy.Parse(*in.Policy); err != nil {
		return nil, kinesis.InvalidPolicy(err.Error())
	}
	return nil, c.setPolicy(r, *in.Policy)
}

func getResourcePolicy(c *call, in *kinesis.GetResourcePolicyInput) (*kinesis.GetResourcePolicyOutput, *kinesis.Error) {
	r, failure := c.locateResource(*in.ResourceARN)
	if failure != nil {
		return nil, failure
	}
	text := r.policy()
	if text == "" {
		text = "{}"
	}
	return &kinesis.GetResourcePolicyOutput{Policy: text}, nil
}

func deleteResourcePolicy(c *call, in *kinesis.DeleteResourcePolicyInput) (*empty, *kinesis.Error) {
	r, failure := c.locateResource(*in.ResourceARN)
	if failure != nil {
		return nil, failure
	}
	if r.policy() == "" {
		return nil, kinesis.PolicyNotFound(r.arn)
	}
	return nil, c.setPolicy(r, "")
}

func (c *call) setPolicy(r resource, text string) *kinesis.Error {
	result, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_SetPolicy{SetPolicy: &pb.SetPolicy{
		StreamId: r.v.Id, Consumer: r.ref, Policy: text,
	}}})
	if err != nil {
		return c.fail(err, subject{name: r.v.Name, account: r.account})
	}
	return c.resourceRefused(r, result)
}
