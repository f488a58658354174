package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"shardstream/test/history"
	"shardstream/test/plainbody"
)

// client makes a client that never retries: what it sees is what the gateway
// could not wait out.
func (c *cluster) client() *kinesis.Client { return clientOf(c.endpoint, aws.NopRetryer{}) }

func clientOf(endpoint string, retryer aws.Retryer) *kinesis.Client {
	return kinesis.New(kinesis.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("dev", "dev", ""),
		Retryer:      retryer,
		HTTPClient: plainbody.Client(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConnsPerHost = 64
		}).WithTimeout(patience)),
	})
}

// createStream creates a stream and waits until it is ACTIVE.
func (c *cluster) createStream(t *testing.T, name string, shards int32) {
	t.Helper()
	k := c.client()
	if _, err := k.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		out, err := k.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &name})
		if err != nil {
			return err
		}
		if s := out.StreamDescriptionSummary.StreamStatus; s != types.StreamStatusActive {
			return fmt.Errorf("the stream is %s", s)
		}
		return nil
	})
}

// load is writers that put until stop.
type load struct {
	k       *kinesis.Client
	stream  string
	history *history.History
	cancel  context.CancelFunc
	writers sync.WaitGroup

	puts, failed atomic.Int64 // records

	mu     sync.Mutex
	errors map[string]int // by code, "" without an answer
	slow   []time.Duration
	took   []time.Duration // each request
}

// startLoad starts writers. Each puts one request after the other, a PutRecord
// and a PutRecords in turn.
func (c *cluster) startLoad(t *testing.T, stream string, h *history.History, writers int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{k: c.client(), stream: stream, history: h, cancel: cancel, errors: make(map[string]int)}
	for w := range writers {
		l.writers.Go(func() { l.write(ctx, fmt.Sprintf("%s-w%d", t.Name(), w)) })
	}
	t.Cleanup(l.stop)
	return l
}

// stop lets the writers finish what they are at.
func (l *load) stop() {
	l.cancel()
	l.writers.Wait()
}

// pace is the time between two requests of a writer: enough to meet every fault
// with requests under way, few enough to read everything at the end.
const pace = 10 * time.Millisecond

func (l *load) write(ctx context.Context, writer string) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	life := 0 // of the writer's keys: after an unknown outcome it takes new ones
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		var entries []types.PutRecordsRequestEntry
		for i := range 1 + n%2*7 {
			entries = append(entries, types.PutRecordsRequestEntry{
				PartitionKey: aws.String(fmt.Sprintf("%s-%d-key%d", writer, life, i)),
				Data:         fmt.Appendf(nil, "%s-%d-%d-%0*d", writer, n, i, 1+n%5*200, 0),
			})
		}
		if !l.put(context.WithoutCancel(ctx), entries) {
			life++
		}
	}
}

// put makes one attempt and tells the history what came of it; false if any
// record was not acknowledged.
func (l *load) put(ctx context.Context, entries []types.PutRecordsRequestEntry) bool {
	for _, e := range entries {
		l.history.Attempt(*e.PartitionKey, string(e.Data))
	}
	l.puts.Add(int64(len(entries)))
	started := time.Now()
	defer func() {
		d := time.Since(started)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.took = append(l.took, d)
		if d > 100*time.Millisecond {
			l.slow = append(l.slow, d)
		}
	}()
	if len(entries) == 1 {
		out, err := l.k.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &l.stream, PartitionKey: entries[0].PartitionKey, Data: entries[0].Data})
		if err != nil {
			l.fail(codeOf(err), 1)
			return false
		}
		l.history.Acknowledged(string(entries[0].Data), history.Place{ShardID: *out.ShardId, SequenceNumber: *out.SequenceNumber})
		return true
	}
	out, err := l.k.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &l.stream, Records: entries})
	if err != nil {
		l.fail(codeOf(err), len(entries))
		return false
	}
	all := true
	for i, r := range out.Records {
		if code := aws.ToString(r.ErrorCode); code != "" {
			l.fail(code, 1)
			all = false // its outcome counts as unknown: a timeout inside looks the same
			continue
		}
		l.history.Acknowledged(string(entries[i].Data), history.Place{ShardID: *r.ShardId, SequenceNumber: *r.SequenceNumber})
	}
	return all
}

func (l *load) fail(code string, records int) {
	l.failed.Add(int64(records))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors[code] += records
}

func (l *load) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := fmt.Sprintf("%d records put, %d failed %v, %d requests took more than 100 ms", l.puts.Load(), l.failed.Load(), l.errors, len(l.slow))
	if len(l.slow) > 0 {
		text += fmt.Sprintf(", the slowest %s", slices.Max(l.slow).Round(time.Millisecond))
	}
	return text
}

// latencies tells how long requests took.
func (l *load) latencies() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := slices.Sorted(slices.Values(l.took))
	if len(d) == 0 {
		return "no requests"
	}
	at := func(q float64) time.Duration {
		return d[min(len(d)-1, int(q*float64(len(d))))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("%d requests: p50 %s, p99 %s, p99.9 %s, slowest %s", len(d), at(0.5), at(0.99), at(0.999), at(1))
}

func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// hashKeys gives, for each shard that takes records, a hash key in its range.
func (c *cluster) hashKeys(t *testing.T, stream string) map[string]string {
	t.Helper()
	out, err := c.client().ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &stream})
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]string)
	for _, s := range out.Shards {
		if _, ok := new(big.Int).SetString(*s.HashKeyRange.StartingHashKey, 10); !ok {
			t.Fatalf("shard %s begins at %q", *s.ShardId, *s.HashKeyRange.StartingHashKey)
		}
		keys[*s.ShardId] = *s.HashKeyRange.StartingHashKey
	}
	return keys
}

// writable measures how long after since each shard takes a record: one put per
// shard, all at once, repeated only if it fails.
func (l *load) writable(ctx context.Context, t *testing.T, keys map[string]string, round string, since time.Time) []time.Duration {
	t.Helper()
	var (
		mu      sync.Mutex
		samples []time.Duration
		probes  sync.WaitGroup
	)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for shard, key := range keys {
		probes.Go(func() {
			for attempt := 0; ; attempt++ {
				partition, value := fmt.Sprintf("%s-%s-%d", round, shard, attempt), fmt.Sprintf("probe %s %s %d", round, shard, attempt)
				l.history.Attempt(partition, value)
				l.puts.Add(1)
				out, err := l.k.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &l.stream, PartitionKey: &partition, ExplicitHashKey: &key, Data: []byte(value)})
				if err == nil {
					d := time.Since(since)
					l.history.Acknowledged(value, history.Place{ShardID: *out.ShardId, SequenceNumber: *out.SequenceNumber})
					mu.Lock()
					samples = append(samples, d)
					mu.Unlock()
					return
				}
				l.fail(codeOf(err), 1)
				if ctx.Err() != nil {
					t.Errorf("round %s: %s takes no records: %v", round, shard, err)
					return
				}
			}
		})
	}
	probes.Wait()
	return samples
}

// check reads everything, twice, and compares it with the history.
func (c *cluster) check(t *testing.T, stream string, h *history.History) {
	t.Helper()
	reads := c.readAll(t, stream)
	violations := h.Check(reads)
	for i, v := range violations {
		if i == 20 {
			t.Errorf("and %d more violations", len(violations)-i)
			break
		}
		t.Error(v)
	}
	if again := c.readAll(t, stream); !slices.Equal(reads, again) {
		t.Errorf("two readers see different records: %d and %d", len(reads), len(again))
	}
	acknowledged, unknown := h.Counts()
	t.Logf("%d records acknowledged, %d of unknown outcome, %d read", acknowledged, unknown, len(reads))
	if acknowledged == 0 {
		t.Error("nothing was acknowledged: the test has shown nothing")
	}
}

// readAll reads every shard from its oldest record to its end.
func (c *cluster) readAll(t *testing.T, stream string) []history.Read {
	t.Helper()
	return readAllBy(t, c.client(), stream)
}

func readAllBy(t *testing.T, k *kinesis.Client, stream string) []history.Read {
	t.Helper()
	listed, err := k.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &stream})
	if err != nil {
		t.Fatal(err)
	}
	var reads []history.Read
	for _, shard := range listed.Shards {
		it, err := k.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: &stream, ShardId: shard.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			t.Fatal(err)
		}
		for next := it.ShardIterator; next != nil; {
			out, err := k.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range out.Records {
				reads = append(reads, history.Read{
					Place: history.Place{ShardID: *shard.ShardId, SequenceNumber: *r.SequenceNumber},
					Key:   *r.PartitionKey, Value: string(r.Data),
				})
			}
			next = out.NextShardIterator
			if len(out.Records) == 0 && *out.MillisBehindLatest == 0 {
				break
			}
		}
	}
	return reads
}
