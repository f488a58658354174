package gateway

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
)

// Behaviour: RegisterStreamConsumer registers a consumer of an ACTIVE stream; it
// is CREATING for TransitionDelay and then ACTIVE. Its ARN holds the second of
// its creation, so that a name that is registered again has another ARN.
// DeregisterStreamConsumer answers empty; the consumer is DELETING and then
// gone. DescribeStreamConsumer shows one with its stream's ARN,
// ListStreamConsumers up to 100 by creation, without that ARN.
//
//   - A consumer is named by its ARN, by StreamARN and ConsumerName, or by all
//     three, which must agree.
//   - A name that is taken, in any state, is ResourceInUse.
//   - NextToken remembers stream and place. It stands beside StreamARN, which is
//     required, and is refused with that of another stream.

const maxListedConsumers = 100

// consumerTarget is a consumer that a request means.
type consumerTarget struct {
	v        *streamView
	consumer *pb.Consumer
	account  string
}

func (t consumerTarget) ref() *pb.ConsumerRef {
	return &pb.ConsumerRef{Name: t.consumer.Name, CreatedS: t.consumer.CreatedMs / 1000}
}

func registerStreamConsumer(c *call, in *kinesis.RegisterStreamConsumerInput) (*kinesis.RegisterStreamConsumerOutput, *kinesis.Error) {
	m, v, failure := c.locate(nil, in.StreamARN)
	if failure != nil {
		return nil, failure
	}
	account, name := m.cluster.AccountId, *in.ConsumerName
	if failure := checkTags(in.Tags, v.Name, account); failure != nil {
		return nil, failure
	}
	if len(in.Tags) > maxTags {
		return nil, kinesis.TooManyTags(v.Name, account)
	}
	limits := c.g.consumerLimits(m)
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_RegisterConsumer{RegisterConsumer: &pb.RegisterConsumer{
		StreamId: v.Id, Name: name, Tags: in.Tags, TransitionAfterMs: c.transitionEnd(),
		Limit: limits.all, CreatingLimit: limits.creating,
	}}})
	if err != nil {
		return nil, c.fail(err, subject{name: v.Name, account: account})
	}
	switch r.Refusal {
	case pb.Refusal_REFUSAL_CONSUMER_EXISTS:
		return nil, kinesis.ConsumerExists(name, v.Name, account)
	case pb.Refusal_REFUSAL_CONSUMER_LIMIT:
		return nil, kinesis.TooManyConsumers(v.Name, account, int(r.Limit))
	case pb.Refusal_REFUSAL_CREATING_LIMIT:
		return nil, kinesis.TooManyCreatingConsumers(v.Name, account, int(r.Limit))
	}
	if failure := c.refused(r, subject{name: v.Name, account: account}); failure != nil {
		return nil, failure
	}
	made := &pb.Consumer{Name: name, CreatedMs: int64(r.Current), Status: pb.ConsumerStatus_CONSUMER_STATUS_CREATING}
	shape := consumerShape(v.arn(c.region(), account), made)
	return &kinesis.RegisterStreamConsumerOutput{Consumer: &shape}, nil
}

func deregisterStreamConsumer(c *call, in *kinesis.DeregisterStreamConsumerInput) (*empty, *kinesis.Error) {
	t, failure := c.locateConsumer(in.StreamARN, in.ConsumerName, in.ConsumerARN)
	if failure != nil {
		return nil, failure
	}
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_DeregisterConsumer{DeregisterConsumer: &pb.DeregisterConsumer{
		StreamId: t.v.Id, Consumer: t.ref(), TransitionAfterMs: c.transitionEnd(),
	}}})
	if err != nil {
		return nil, c.fail(err, subject{name: t.v.Name, account: t.account})
	}
	if r.Refusal == pb.Refusal_REFUSAL_CONSUMER_UNKNOWN { // another call came between
		return nil, kinesis.ConsumerNotFound(t.consumer.Name, t.account)
	}
	return nil, c.refused(r, subject{name: t.v.Name, account: t.account})
}

func describeStreamConsumer(c *call, in *kinesis.DescribeStreamConsumerInput) (*kinesis.DescribeStreamConsumerOutput, *kinesis.Error) {
	t, failure := c.locateConsumer(in.StreamARN, in.ConsumerName, in.ConsumerARN)
	if failure != nil {
		return nil, failure
	}
	arn := t.v.arn(c.region(), t.account)
	shape := consumerShape(arn, t.consumer)
	return &kinesis.DescribeStreamConsumerOutput{ConsumerDescription: &kinesis.ConsumerDescription{
		ConsumerName: shape.ConsumerName, ConsumerARN: shape.ConsumerARN, ConsumerStatus: shape.ConsumerStatus,
		ConsumerCreationTimestamp: shape.ConsumerCreationTimestamp, StreamARN: arn,
	}}, nil
}

func listStreamConsumers(c *call, in *kinesis.ListStreamConsumersInput) (*kinesis.ListStreamConsumersOutput, *kinesis.Error) {
	if in.NextToken != nil && in.StreamCreationTimestamp != nil {
		return nil, kinesis.TokenTogetherWith("StreamCreationTimestamp")
	}
	m, v, failure := c.locate(nil, in.StreamARN)
	if failure != nil {
		return nil, failure
	}
	account := m.cluster.AccountId
	place := consumersToken{Stream: v.Id}
	if in.NextToken != nil {
		if failure := c.openToken(m, tokenConsumers, *in.NextToken, &place); failure != nil {
			return nil, failure
		}
		if place.Stream != v.Id {
			return nil, kinesis.InvalidNextToken()
		}
	}
	if at := in.StreamCreationTimestamp; at != nil && int64(*at)/1000 != v.CreatedMs/1000 {
		return nil, kinesis.StreamNotFound(v.Name, account)
	}
	if v.Status == pb.StreamStatus_STREAM_STATUS_CREATING {
		return nil, kinesis.StreamState(v.Name, account, statusName(v.Status))
	}
	limit := maxListedConsumers
	if in.MaxResults != nil {
		limit = min(limit, int(*in.MaxResults))
	}
	arn := v.arn(c.region(), account)
	out := &kinesis.ListStreamConsumersOutput{Consumers: []kinesis.Consumer{}}
	for _, consumer := range byCreation(v.Consumers) {
		if place.compare(consumer) >= 0 {
			continue
		}
		if len(out.Consumers) == limit {
			token, failure := c.sealToken(m, tokenConsumers, place)
			if failure != nil {
				return nil, failure
			}
			out.NextToken = &token
			break
		}
		out.Consumers = append(out.Consumers, consumerShape(arn, consumer))
		place.CreatedMs, place.Name = consumer.CreatedMs, consumer.Name
	}
	return out, nil
}

// byCreation gives consumers in the order of lists.
func byCreation(consumers []*pb.Consumer) []*pb.Consumer {
	return slices.SortedFunc(slices.Values(consumers), func(a, b *pb.Consumer) int {
		return cmp.Or(cmp.Compare(a.CreatedMs, b.CreatedMs), cmp.Compare(a.Name, b.Name))
	})
}

// compare orders the place before, at (0) or behind the consumer.
func (t consumersToken) compare(c *pb.Consumer) int {
	return cmp.Or(cmp.Compare(t.CreatedMs, c.CreatedMs), cmp.Compare(t.Name, c.Name))
}

func consumerShape(streamARN string, c *pb.Consumer) kinesis.Consumer {
	return kinesis.Consumer{
		ConsumerName: c.Name, ConsumerARN: consumerARN(streamARN, c), ConsumerStatus: consumerStatus(c.Status),
		ConsumerCreationTimestamp: kinesis.Timestamp(c.CreatedMs / 1000 * 1000),
	}
}

func consumerARN(streamARN string, c *pb.Consumer) string {
	return streamARN + "/consumer/" + c.Name + ":" + strconv.FormatInt(c.CreatedMs/1000, 10)
}

func consumerStatus(s pb.ConsumerStatus) string {
	switch s {
	case pb.ConsumerStatus_CONSUMER_STATUS_CREATING:
		return kinesis.ConsumerStatusCreating
	case pb.ConsumerStatus_CONSUMER_STATUS_DELETING:
		return kinesis.ConsumerStatusDeleting
	}
	return kinesis.ConsumerStatusActive
}

// parseConsumerARN reads STREAM-ARN/consumer/NAME:SECONDS.
func parseConsumerARN(arn string) (a address, ref *pb.ConsumerRef, ok bool) {
	i := strings.LastIndex(arn, "/consumer/")
	if i < 0 {
		return a, nil, false
	}
	a, ok = parseARN(arn[:i])
	name, seconds, found := strings.Cut(arn[i+len("/consumer/"):], ":")
	created, err := strconv.ParseInt(seconds, 10, 64)
	if !ok || !found || name == "" || err != nil || created <= 0 {
		return a, nil, false
	}
	return a, &pb.ConsumerRef{Name: name, CreatedS: created}, true
}

// consumer gives the consumer of a stream that a reference means, nil if there
// is none.
func (v *streamView) consumer(ref *pb.ConsumerRef) *pb.Consumer {
	for _, c := range v.Consumers {
		if c.Name == ref.Name && (ref.CreatedS == 0 || c.CreatedMs/1000 == ref.CreatedS) {
			return c
		}
	}
	return nil
}

// locateConsumer gives the consumer that a control operation means, of metadata
// that shows everything committed before the call.
func (c *call) locateConsumer(streamARN, name, arn *string) (t consumerTarget, failure *kinesis.Error) {
	if arn == nil && (streamARN == nil || name == nil) {
		return t, kinesis.NoConsumerAddress()
	}
	ref, said := &pb.ConsumerRef{Name: deref(name)}, deref(name)
	a, ok := address{}, true
	if streamARN != nil {
		if a, ok = parseARN(*streamARN); !ok {
			return t, kinesis.ForeignARN(*streamARN)
		}
	}
	if arn != nil {
		said = *arn
		other, byARN, ok := parseConsumerARN(*arn)
		switch {
		case !ok:
			return t, kinesis.ForeignARN(*arn)
		case streamARN != nil && other != a, name != nil && *name != byARN.Name:
			return t, kinesis.ConsumerAddressConflict(*arn)
		}
		a, ref = other, byARN
	}
	m, failure := c.linearizable()
	if failure != nil {
		return t, failure
	}
	t.v, t.account = a.find(m)
	if t.v == nil && arn == nil {
		return t, kinesis.StreamNotFound(a.name, t.account)
	}
	if t.v != nil {
		t.consumer = t.v.consumer(ref)
	}
	if t.consumer == nil {
		return t, kinesis.ConsumerNotFound(said, t.account)
	}
	return t, nil
}
