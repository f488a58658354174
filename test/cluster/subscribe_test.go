package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/history"
	"shardstream/test/plainbody"
)

// TestSubscriptionsSurviveKills follows each shard by one subscription that was
// opened before all: each node is killed with kill -9 and one is paused, under
// load. No subscription ends before its time, and what each was pushed is what the
// shard holds: nothing lost, nothing twice, in its order.
func TestSubscriptionsSurviveKills(t *testing.T) {
	c := startCluster(t, 3, "--request-timeout", "60s")
	c.createStream(t, stream, shards)
	keys := c.hashKeys(t, stream)
	all := c.subscribeAll(t, stream)
	h := history.New()
	l := c.startLoad(t, stream, h, writers)
	for round := range rounds(t, 1) {
		for i, f := range []fault{killed, killed, killed, paused} {
			victim := c.nodes[i%len(c.nodes)]
			c.awaitHealthy(t)
			since := time.Now()
			f.begin(t, victim)
			l.writable(t.Context(), t, keys, fmt.Sprintf("%d%s%d", round, f.name, i), since)
			f.end(t, victim)
		}
	}
	c.awaitHealthy(t)
	l.stop()
	t.Log(l)
	stored := c.readAll(t, stream)
	pushed := all.await(t, len(stored))
	if !slices.Equal(pushed, stored) {
		t.Errorf("%d records were pushed, %d are stored, and they differ", len(pushed), len(stored))
	}
	report(t, "the subscribers", h.Check(pushed))
	acknowledged, unknown := h.Counts()
	t.Logf("%d records acknowledged, %d of unknown outcome, %d pushed; longest silence of a subscription %s", acknowledged, unknown, len(pushed), all.silence())
}

// TestGatewaysKeepOneRule: a consumer's subscription through one gateway counts
// for its calls through another, also when the shard's leader has changed.
func TestGatewaysKeepOneRule(t *testing.T) {
	c := startCluster(t, 3)
	c.createStream(t, stream, 1)
	arn := c.registerConsumer(t, stream)
	second := *c
	port := freePorts(t, 2)
	second.endpoint = "http://" + hostPort(port)
	gateway := &process{
		name: "gateway-2", log: filepath.Join(c.dir, "gateway-2.log"), ready: second.endpoint + "/_shardstream/readyz",
		args: []string{"gateway", "--listen", hostPort(port), "--brokers", c.brokers(), "--http-listen", hostPort(port + 1)},
	}
	gateway.start(t)
	gateway.awaitReady(t)
	subscribe := func(c *cluster) *kinesis.SubscribeToShardEventStream {
		t.Helper()
		out, err := c.patientClient().SubscribeToShard(t.Context(), &kinesis.SubscribeToShardInput{
			ConsumerARN: &arn, ShardId: aws.String("shardId-000000000000"), StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeLatest},
		})
		if err != nil {
			t.Fatal(err)
		}
		return out.GetStream()
	}
	inUse := func(s *kinesis.SubscribeToShardEventStream) {
		t.Helper()
		for range s.Events() {
		}
		if err := s.Err(); codeOf(err) != "ResourceInUseException" {
			t.Fatalf("the stream ended with %v, want ResourceInUseException", err)
		}
	}
	first := subscribe(c)
	<-first.Events()
	inUse(subscribe(&second))

	leader, _, _ := c.placement(t)
	c.named(leader).kill(t)
	eventually(t, func() error {
		_, err := c.client().PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String(stream), PartitionKey: aws.String("k"), Data: []byte("x")})
		return err
	})
	for e := range first.Events() { // it goes on at the next leader
		if len(e.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value.Records) > 0 {
			break
		}
	}
	time.Sleep(5 * time.Second) // the rule is one of time
	took := subscribe(&second)
	<-took.Events()
	inUse(first)
	if err := took.Close(); err != nil {
		t.Error(err)
	}
}

// follower is the subscription to one shard.
type follower struct {
	k          *kinesis.Client
	arn, shard string

	mu     sync.Mutex
	reads  []history.Read
	silent time.Duration // the longest time between two events
	ended  error         // why it has ended too early
}

type followers struct {
	all     []*follower
	running sync.WaitGroup
}

// patientClient is a client whose answers may take any time.
func (c *cluster) patientClient() *kinesis.Client {
	return kinesis.New(c.client().Options(), func(o *kinesis.Options) {
		o.HTTPClient = plainbody.Client(awshttp.NewBuildableClient())
	})
}

// registerConsumer registers a consumer, and gives its ARN when it is ACTIVE.
func (c *cluster) registerConsumer(t *testing.T, stream string) string {
	t.Helper()
	k := c.client()
	described, err := k.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &stream})
	if err != nil {
		t.Fatal(err)
	}
	registered, err := k.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{
		StreamARN: described.StreamDescriptionSummary.StreamARN, ConsumerName: aws.String("follower"),
	})
	if err != nil {
		t.Fatal(err)
	}
	arn := registered.Consumer.ConsumerARN
	eventually(t, func() error {
		out, err := k.DescribeStreamConsumer(t.Context(), &kinesis.DescribeStreamConsumerInput{ConsumerARN: arn})
		if err == nil && out.ConsumerDescription.ConsumerStatus != types.ConsumerStatusActive {
			err = fmt.Errorf("the consumer is %s", out.ConsumerDescription.ConsumerStatus)
		}
		return err
	})
	return *arn
}

// subscribeAll registers a consumer and subscribes it to every shard. The test's
// end ends the subscriptions.
func (c *cluster) subscribeAll(t *testing.T, stream string) *followers {
	t.Helper()
	k, arn := c.patientClient(), c.registerConsumer(t, stream)
	listed, err := k.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &stream})
	if err != nil {
		t.Fatal(err)
	}
	fs := &followers{}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		fs.running.Wait()
	})
	for _, shard := range listed.Shards {
		f := &follower{k: k, arn: arn, shard: *shard.ShardId}
		fs.all = append(fs.all, f)
		fs.running.Go(func() {
			err := f.run(ctx)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.ended = err
		})
	}
	return fs
}

// subscriptionLife is how long a subscription lasts, nearly.
const subscriptionLife = 4*time.Minute + 50*time.Second

// run goes on with the next subscription when one's time is over.
func (f *follower) run(ctx context.Context) error {
	position := &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}
	for {
		opened := time.Now()
		out, err := f.k.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{ConsumerARN: &f.arn, ShardId: &f.shard, StartingPosition: position})
		if err != nil {
			return err
		}
		events := out.GetStream()
		if next := f.read(events); next != nil {
			position = &types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: next}
		}
		if err := errors.Join(events.Err(), events.Close()); err != nil {
			return err
		}
		if time.Since(opened) < subscriptionLife {
			return fmt.Errorf("ended in order after %s", time.Since(opened))
		}
	}
}

// read reads one subscription to its end, and gives where it ended.
func (f *follower) read(events *kinesis.SubscribeToShardEventStream) (next *string) {
	last := time.Now()
	for e := range events.Events() {
		event := e.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value
		next = event.ContinuationSequenceNumber
		f.mu.Lock()
		f.silent, last = max(f.silent, time.Since(last)), time.Now()
		for _, r := range event.Records {
			f.reads = append(f.reads, history.Read{
				Place: history.Place{ShardID: f.shard, SequenceNumber: *r.SequenceNumber}, Key: *r.PartitionKey, Value: string(r.Data),
			})
		}
		f.mu.Unlock()
	}
	return next
}

// await waits until so many records have been pushed to all subscriptions, and
// gives them by shard.
func (fs *followers) await(t *testing.T, n int) (reads []history.Read) {
	t.Helper()
	eventually(t, func() error {
		reads = nil
		for _, f := range fs.all {
			f.mu.Lock()
			reads = append(reads, f.reads...)
			ended := f.ended
			f.mu.Unlock()
			if ended != nil {
				t.Fatalf("the subscription to %s: %v", f.shard, ended)
			}
		}
		if len(reads) < n {
			return fmt.Errorf("%d of %d records were pushed", len(reads), n)
		}
		return nil
	})
	return reads
}

// silence gives the longest time between two events of a subscription.
func (fs *followers) silence() (longest time.Duration) {
	for _, f := range fs.all {
		f.mu.Lock()
		longest = max(longest, f.silent)
		f.mu.Unlock()
	}
	return longest.Round(time.Millisecond)
}
