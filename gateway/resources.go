package gateway

import (
	"strings"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
)

// resource is what a ResourceARN means: a stream, or one of its consumers.
type resource struct {
	arn     string
	v       *streamView
	account string

	consumer *pb.Consumer // nil: the stream itself
	ref      *pb.ConsumerRef
}

// locateResource finds the resource of an ARN, in metadata that shows everything
// committed before the call.
func (c *call) locateResource(arn string) (resource, *kinesis.Error) {
	if strings.Contains(arn, "/consumer/") {
		t, failure := c.locateConsumer(nil, nil, &arn)
		if failure != nil {
			return resource{}, failure
		}
		return resource{arn: arn, v: t.v, account: t.account, consumer: t.consumer, ref: t.ref()}, nil
	}
	r, failure := c.locateStream(nil, &arn)
	r.arn = arn
	return r, failure
}

// locateStream finds the stream of a name or ARN as a resource.
func (c *call) locateStream(name, arn *string) (resource, *kinesis.Error) {
	m, v, failure := c.locate(name, arn)
	if failure != nil {
		return resource{}, failure
	}
	return resource{v: v, account: m.cluster.AccountId}, nil
}

func (r resource) tags() map[string]string {
	if r.consumer != nil {
		return r.consumer.Tags
	}
	return r.v.Tags
}

func (r resource) policy() string {
	if r.consumer != nil {
		return r.consumer.Policy
	}
	return r.v.Policy
}

// resourceRefused turns a refusal of a command about the resource into an answer; nil if
// it was applied.
func (c *call) resourceRefused(r resource, result *pb.CommandResult) *kinesis.Error {
	switch result.Refusal {
	case pb.Refusal_REFUSAL_CONSUMER_UNKNOWN: // another call came between
		return kinesis.ConsumerNotFound(r.arn, r.account)
	case pb.Refusal_REFUSAL_CONSUMER_STATE:
		return kinesis.ConsumerNotActive(r.consumer.Name, r.consumer.CreatedMs/1000, r.v.Name, r.account)
	}
	return c.refused(result, subject{name: r.v.Name, account: r.account})
}
