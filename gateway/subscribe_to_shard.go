package gateway

import (
	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: SubscribeToShard answers 200 with a stream of events, whose first
// says nothing but that it is one. Then come the records from the starting
// position on, as soon as they are stored, and an event without records at least
// every five seconds.
//
//   - ContinuationSequenceNumber is in every event while the shard is open, and
//     rises with time. Both AFTER_ and AT_SEQUENCE_NUMBER go on there.
//   - The last event of a closed shard has no records and no continuation, but
//     ChildShards.
//   - After five minutes the stream ends in order, and the client calls again.
//   - Only an ACTIVE consumer may subscribe. One that is deregistered, or whose
//     stream is deleted, is told so in the stream (ResourceNotFound).
//   - A consumer has one subscription to a shard. A call within five seconds of one
//     that succeeded is ResourceInUse, in the stream as with AWS; a later one takes
//     over, and the former one is told so (ResourceInUse). One call a second,
//     otherwise LimitExceeded. The shard's leader keeps these rules, so that it
//     does not matter which gateways are called.
//   - Starting positions are those of GetShardIterator, with its texts. LATEST in a
//     closed shard leads to the last event at once.
//   - Errors that are found before the first event are ordinary answers. The events
//     are JSON, whatever the request was.
//
// A leader that fails is not the client's problem: the stream goes on at the next
// one, and neither loses nor repeats a record.

func subscribeToShard(c *call) *kinesis.Error {
	in, failure := decode[kinesis.SubscribeToShardInput](c)
	if failure != nil {
		return failure
	}
	if !c.streams { // never: what can't carry a stream leaves the call to what can
		return kinesis.InternalFailure()
	}
	a, ref, ok := parseConsumerARN(*in.ConsumerARN)
	if !ok {
		return kinesis.ForeignARN(*in.ConsumerARN)
	}
	number, ok := stream.ParseShardName(*in.ShardId)
	if !ok {
		return c.shardNotFound(*in.ShardId, a)
	}
	if failure := c.activeConsumer(*in.ConsumerARN, a, ref); failure != nil {
		return failure
	}
	t, failure := c.readShard(a, number)
	if failure != nil {
		return failure
	}
	at := in.StartingPosition
	offset, failure := c.position(t, *at.Type, at.SequenceNumber, at.Timestamp)
	if failure != nil {
		return failure
	}
	s := newSubscription(c, t, ref, *in.ConsumerARN, offset)
	if failure := s.start(); failure != nil {
		s.close()
		return failure
	}
	c.events = s
	return nil
}

// activeConsumer refuses a consumer that may not subscribe. One that the metadata
// at hand does not show as ACTIVE may just have become it.
func (c *call) activeConsumer(arn string, a address, ref *pb.ConsumerRef) *kinesis.Error {
	m, failure := c.cached()
	if failure != nil {
		return failure
	}
	find := func() (*streamView, *pb.Consumer, string) {
		v, account := a.find(m)
		if v == nil {
			return nil, nil, account
		}
		return v, v.consumer(ref), account
	}
	const active = pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE
	v, consumer, account := find()
	if consumer.GetStatus() != active {
		if m, failure = c.linearizable(); failure != nil {
			return failure
		}
		v, consumer, account = find()
	}
	switch {
	case consumer == nil:
		return kinesis.ConsumerNotFound(arn, account)
	case consumer.Status != active:
		return kinesis.ConsumerNotActive(consumer.Name, consumer.CreatedMs/1000, v.Name, account)
	}
	return nil
}
