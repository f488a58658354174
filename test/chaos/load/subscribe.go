package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"shardstream/test/chaos/judge"
)

// silence is how long a subscription may say nothing before its client gives it
// up; Java's SDK waits 10 s.
const silence = 10 * time.Second

// register makes the consumer that subscribes.
func (l *Load) register(ctx context.Context) error {
	d, err := l.clients[0].DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &l.cfg.Stream})
	if err != nil {
		return err
	}
	out, err := l.clients[0].RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{
		StreamARN: d.StreamDescriptionSummary.StreamARN, ConsumerName: aws.String("subscriber"),
	})
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "UnknownOperationException" {
		return nil // a build from before there were consumers
	}
	if err != nil {
		return err
	}
	l.consumer = out.Consumer.ConsumerARN
	return nil
}

// subscribeShard follows a shard by SubscribeToShard, and subscribes again from
// the continuation number whenever a subscription ends.
func (l *Load) subscribeShard(ctx context.Context, reader, shard string) []string {
	p := &position{l: l, r: &judge.Reading{Reader: reader, Shard: shard, From: judge.TrimHorizon}}
	defer func() { l.rec.reading(*p.r) }()
	from := &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}
	for n := rand.Int(); ctx.Err() == nil; n++ {
		ended, children := l.subscription(ctx, l.subscribers[n%len(l.subscribers)], p, &from)
		if ended {
			return children
		}
		sleep(ctx, time.Second) // the rule of one call a second
	}
	return nil
}

// subscription is one call. from is moved as events come.
func (l *Load) subscription(ctx context.Context, k *kinesis.Client, p *position, from **types.StartingPosition) (ended bool, children []string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	out, err := k.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{ConsumerARN: l.consumer, ShardId: &p.r.Shard, StartingPosition: *from})
	if err != nil {
		l.subscriptionFailed(ctx, p.r.Shard, err)
		return false, nil
	}
	events := out.GetStream()
	defer events.Close()
	for e := range events.Events() {
		quiet.Reset(silence)
		event, ok := e.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
		if !ok {
			continue
		}
		p.take(event.Value.Records)
		next := event.Value.ContinuationSequenceNumber
		for _, c := range event.Value.ChildShards {
			children = append(children, *c.ShardId)
		}
		if (next == nil) != (len(children) > 0) {
			l.rec.complain("SubscribeToShard of "+p.r.Shard, "an event with a continuation number and children, or with neither")
		}
		if next == nil {
			return true, children
		}
		*from = &types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: next}
	}
	if err := events.Err(); err != nil {
		l.subscriptionFailed(ctx, p.r.Shard, err)
	}
	return false, nil
}

// subscriptionFailed complains of what is not a server's fault. That another
// subscription exists is what a client hears that comes back too soon.
func (l *Load) subscriptionFailed(ctx context.Context, shard string, err error) {
	var taken *types.ResourceInUseException
	if !errors.As(err, &taken) {
		l.readFailed(ctx, "SubscribeToShard of "+shard, err)
	}
}
