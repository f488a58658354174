//go:build linux

package statefulset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"shardstream/test/history"
	"shardstream/test/plainbody"
)

const (
	stream  = "orders"
	writers = 4
	// pace is the time between two requests of a writer: enough to meet every
	// moment with requests under way, few enough to read everything at the end.
	pace = 10 * time.Millisecond
)

// kinesis makes a client that never retries: what it sees is what the gateway
// could not wait out.
func (c *cluster) kinesis() *kinesis.Client {
	return kinesis.New(kinesis.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String("http://" + c.gateway.at.address + ":4567"),
		Credentials:  credentials.NewStaticCredentialsProvider("dev", "dev", ""),
		Retryer:      aws.NopRetryer{},
		HTTPClient:   plainbody.Client(c.clients.client(patience)),
	})
}

func (c *cluster) createStream(t *testing.T, shards int32) {
	t.Helper()
	k := c.kinesis()
	if _, err := k.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: aws.String(stream), ShardCount: &shards}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		out, err := k.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(stream)})
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
	history *history.History
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	took   []time.Duration // of each request
	errors map[string]int  // records by code, "" without an answer
}

// startLoad starts writers whose keys nobody else uses.
func (c *cluster) startLoad(t *testing.T, name string, h *history.History) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{k: c.kinesis(), history: h, cancel: cancel, errors: map[string]int{}}
	for w := range writers {
		l.running.Go(func() { l.write(ctx, fmt.Sprintf("%s-w%d", name, w)) })
	}
	t.Cleanup(l.stop)
	return l
}

// stop lets the writers finish what they are at.
func (l *load) stop() {
	l.cancel()
	l.running.Wait()
}

func (l *load) write(ctx context.Context, writer string) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	life := 0 // of the writer's keys: after an unknown outcome it takes new ones
	for n := 0; ; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		var entries []types.PutRecordsRequestEntry
		for i := range 8 {
			entries = append(entries, types.PutRecordsRequestEntry{
				PartitionKey: aws.String(fmt.Sprintf("%s-%d-key%d", writer, life, i)),
				Data:         fmt.Appendf(nil, "%s-%d-%d", writer, n, i),
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
	started := time.Now()
	out, err := l.k.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: aws.String(stream), Records: entries})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, time.Since(started))
	if err != nil {
		code := err.Error()
		if api := smithy.APIError(nil); errors.As(err, &api) {
			code = api.ErrorCode()
		}
		l.errors[code] += len(entries)
		return false
	}
	all := true
	for i, r := range out.Records {
		if code := aws.ToString(r.ErrorCode); code != "" {
			l.errors[code+": "+aws.ToString(r.ErrorMessage)]++
			all = false // its outcome counts as unknown: a timeout inside looks the same
			continue
		}
		l.history.Acknowledged(string(entries[i].Data), history.Place{ShardID: *r.ShardId, SequenceNumber: *r.SequenceNumber})
	}
	return all
}

// phase gives the latencies since the last call, and clears them.
func (l *load) phase() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.took
	l.took = nil
	if len(d) == 0 {
		return "no requests"
	}
	slices.Sort(d)
	at := func(q float64) time.Duration { return d[int(q*float64(len(d)-1))].Round(time.Millisecond / 10) }
	slow := len(d) - 1
	for slow >= 0 && d[slow] > 100*time.Millisecond {
		slow--
	}
	return fmt.Sprintf("%d requests, median %s, p99 %s, p99.9 %s, longest %s, %d above 100 ms", len(d), at(0.5), at(0.99), at(0.999), at(1), len(d)-1-slow)
}

// awaitRequests waits until that many requests were answered since the last phase.
func (l *load) awaitRequests(t *testing.T, n int) {
	t.Helper()
	eventually(t, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.took) < n {
			return fmt.Errorf("%d requests of %d", len(l.took), n)
		}
		return nil
	})
}

// failures gives how many records failed, by their error.
func (l *load) failures() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	copied := make(map[string]int, len(l.errors))
	for k, v := range l.errors {
		copied[k] = v
	}
	return copied
}

// check reads everything and compares it with the history.
func (c *cluster) check(t *testing.T, h *history.History) {
	t.Helper()
	reads := c.readAll(t)
	violations := h.Check(reads)
	for _, v := range violations[:min(20, len(violations))] {
		t.Error(v)
	}
	acknowledged, unknown := h.Counts()
	t.Logf("%d records acknowledged, %d of unknown outcome, %d read, %d violations", acknowledged, unknown, len(reads), len(violations))
	if acknowledged == 0 {
		t.Error("nothing was acknowledged: the test has shown nothing")
	}
}

// readAll reads every shard from its oldest record to its end.
func (c *cluster) readAll(t *testing.T) (reads []history.Read) {
	t.Helper()
	k := c.kinesis()
	listed, err := k.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String(stream)})
	if err != nil {
		t.Fatal(err)
	}
	for _, shard := range listed.Shards {
		it, err := k.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: aws.String(stream), ShardId: shard.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
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
