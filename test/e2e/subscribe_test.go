package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/plainbody"
)

// wholeStreams lets a stream of events be read to its end.
func wholeStreams(o *kinesis.Options) {
	o.HTTPClient = plainbody.Client(awshttp.NewBuildableClient())
}

// registerConsumer registers a consumer and waits until it is ACTIVE.
func registerConsumer(t *testing.T, c *kinesis.Client, stream, name string) (arn string) {
	t.Helper()
	described, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &stream})
	if err != nil {
		t.Fatal(err)
	}
	streamARN := described.StreamDescriptionSummary.StreamARN
	registered, err := c.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: streamARN, ConsumerName: &name})
	if err != nil {
		t.Fatal(err)
	}
	arn = *registered.Consumer.ConsumerARN
	eventually(t, func() error {
		out, err := c.DescribeStreamConsumer(t.Context(), &kinesis.DescribeStreamConsumerInput{ConsumerARN: &arn})
		if err != nil {
			return err
		}
		if status := out.ConsumerDescription.ConsumerStatus; status != types.ConsumerStatusActive {
			return fmt.Errorf("the consumer is %s", status)
		}
		return nil
	})
	return arn
}

// follow reads a shard by subscriptions from its oldest record on, each from where
// the one before has ended, until until says that it is enough or the shard ends.
// It gives the records' data and the children.
func follow(ctx context.Context, c *kinesis.Client, arn, shard string, until func(records []string) bool) (records []string, children []types.ChildShard, err error) {
	position := &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}
	for {
		out, err := c.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{ConsumerARN: &arn, ShardId: &shard, StartingPosition: position})
		if err != nil {
			return records, nil, err
		}
		events := out.GetStream()
		for e := range events.Events() {
			event := e.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value
			for _, r := range event.Records {
				records = append(records, string(r.Data))
			}
			if event.ContinuationSequenceNumber == nil {
				return records, event.ChildShards, events.Close()
			}
			position = &types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: event.ContinuationSequenceNumber}
			if until(records) {
				return records, nil, events.Close()
			}
		}
		if err := errors.Join(events.Err(), events.Close()); err != nil {
			return records, nil, err
		}
	}
}

// TestGoSDKSubscribes through a split to the end of the parent, and in the children.
func TestGoSDKSubscribes(t *testing.T) {
	n := start(t, "--ephemeral", "--transition-delay", "0s")
	c := client(n.endpoint, wholeStreams)
	const name = "fanout"
	createStream(t, c, name, 1)
	arn := registerConsumer(t, c, name, "go")
	put := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if _, err := c.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String(name), Data: fmt.Appendf(nil, "%03d", i), PartitionKey: aws.String(fmt.Sprint(i))}); err != nil {
				t.Fatal(err)
			}
		}
	}
	split := make(chan error, 1)
	put(0, 50)
	records, children, err := follow(t.Context(), c, arn, "shardId-000000000000", func(records []string) bool {
		if len(records) == 50 && cap(split) > len(split) {
			_, err := c.SplitShard(t.Context(), &kinesis.SplitShardInput{
				StreamName: aws.String(name), ShardToSplit: aws.String("shardId-000000000000"), NewStartingHashKey: aws.String("170141183460469231731687303715884105728"),
			})
			split <- err
		}
		return false
	})
	if err := errors.Join(err, <-split); err != nil {
		t.Fatal(err)
	}
	if len(records) != 50 || !slices.IsSorted(records) || len(children) != 2 {
		t.Fatalf("%d records, %d children: %v", len(records), len(children), records)
	}
	put(50, 150)
	var all []string
	for _, child := range children {
		if !slices.Equal(child.ParentShards, []string{"shardId-000000000000"}) {
			t.Errorf("parents %v", child.ParentShards)
		}
		// Whose number of records is not known: what was put last is the last.
		listed, err := readAll(t.Context(), c, name)
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, r := range listed {
			if r.ShardID == *child.ShardId {
				want++
			}
		}
		records, _, err := follow(t.Context(), c, arn, *child.ShardId, func(records []string) bool { return len(records) >= want })
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, records...)
	}
	slices.Sort(all)
	if len(all) != 100 || all[0] != "050" || all[99] != "149" || len(slices.Compact(all)) != 100 {
		t.Fatalf("%d records: %v", len(all), all)
	}
}

// TestOneSubscriptionOfAConsumer: a second call within five seconds is refused, a
// later one takes over.
func TestOneSubscriptionOfAConsumer(t *testing.T) {
	n := start(t, "--ephemeral", "--transition-delay", "0s")
	c := client(n.endpoint, wholeStreams)
	createStream(t, c, "s", 1)
	arn := registerConsumer(t, c, "s", "c")
	subscribe := func() *kinesis.SubscribeToShardEventStream {
		t.Helper()
		out, err := c.SubscribeToShard(t.Context(), &kinesis.SubscribeToShardInput{
			ConsumerARN: &arn, ShardId: aws.String("shardId-000000000000"), StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeLatest},
		})
		if err != nil {
			t.Fatal(err)
		}
		return out.GetStream()
	}
	const text = "Another active subscription exists for this consumer: 000000000000:s:shardId-000000000000:c"
	refused := func(s *kinesis.SubscribeToShardEventStream) {
		t.Helper()
		for range s.Events() {
		}
		var inUse *types.ResourceInUseException
		if err := s.Err(); !errors.As(err, &inUse) || inUse.ErrorMessage() != text {
			t.Fatalf("%v", err)
		}
	}
	began := time.Now()
	first := subscribe()
	<-first.Events()
	refused(subscribe())
	time.Sleep(time.Until(began.Add(5500 * time.Millisecond))) // the rule is one of time
	second := subscribe()
	<-second.Events()
	refused(first)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	if log := n.text(); strings.Contains(log, "level=ERROR") {
		t.Error(log)
	}
}
