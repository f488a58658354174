// Package load is the clients of a chaos run: writers, readers of all kinds, and
// an operator who reshards, all by the public Kinesis API. What they did and saw
// goes into a judge.History.
//
// It decides nothing: whether what they saw is right is the judge's to say. The
// one exception are answers that no client should ever get: see Complaints.
package load

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"shardstream/test/chaos/judge"
	"shardstream/test/plainbody"
)

// Config says what a load does.
type Config struct {
	Stream    string
	Shards    int32
	Endpoints []string     // of the gateways; clients take them in turn
	HTTP      *http.Client // reaches them
	Writers   int
	Pace      time.Duration // between two requests of a writer; default 20 ms
	Batch     int           // most records of a PutRecords; default 20
	// Probe, if set, has one more writer for each shard of the beginning, which
	// puts a record this often: how long the shard takes none shows by them.
	Probe   time.Duration
	Padding int // most bytes that a record's data is filled up with; default 200
	Seed    uint64
}

// Load is clients at work.
type Load struct {
	cfg     Config
	started time.Time
	rec     *recorder
	clients []*kinesis.Client // without retries, one per gateway
	retries []*kinesis.Client // with the SDK's

	subscribers []*kinesis.Client // whose answers never end
	consumer    *string           // ARN

	stopWriting, stopReading context.CancelFunc
	writers, readers         sync.WaitGroup
}

// New makes the stream and waits until it is ACTIVE.
func New(ctx context.Context, cfg Config) (*Load, error) {
	if cfg.Pace == 0 {
		cfg.Pace = 20 * time.Millisecond
	}
	if cfg.Batch == 0 {
		cfg.Batch = 20
	}
	if cfg.Padding == 0 {
		cfg.Padding = 200
	}
	l := &Load{cfg: cfg, started: time.Now(), rec: newRecorder()}
	endless := *cfg.HTTP
	endless.Timeout = 0
	for _, e := range cfg.Endpoints {
		l.clients = append(l.clients, newClient(e, cfg.HTTP, aws.NopRetryer{}))
		l.retries = append(l.retries, newClient(e, cfg.HTTP, retry.NewStandard()))
		l.subscribers = append(l.subscribers, newClient(e, &endless, aws.NopRetryer{}))
	}
	_, err := l.clients[0].CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: &cfg.Stream, ShardCount: &cfg.Shards})
	if err != nil {
		return nil, err
	}
	if err := l.awaitActive(ctx); err != nil {
		return nil, err
	}
	return l, l.register(ctx)
}

func newClient(endpoint string, h *http.Client, r aws.Retryer) *kinesis.Client {
	return kinesis.New(kinesis.Options{
		Region: "us-east-1", BaseEndpoint: &endpoint, Retryer: r, HTTPClient: plainbody.Client(h),
		Credentials: credentials.NewStaticCredentialsProvider("dev", "dev", ""),
	})
}

func (l *Load) awaitActive(ctx context.Context) error {
	for {
		out, err := l.clients[0].DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &l.cfg.Stream})
		if err == nil && out.StreamDescriptionSummary.StreamStatus == types.StreamStatusActive {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s is not ACTIVE: %w", l.cfg.Stream, errors.Join(ctx.Err(), err))
		}
		sleep(ctx, 20*time.Millisecond)
	}
}

// Start starts all clients.
func (l *Load) Start(ctx context.Context) {
	writing, stopWriting := context.WithCancel(ctx)
	reading, stopReading := context.WithCancel(ctx)
	l.stopWriting, l.stopReading = stopWriting, stopReading
	for w := range l.cfg.Writers {
		l.writers.Go(func() { l.write(writing, w) })
	}
	if l.cfg.Probe > 0 {
		for _, s := range l.listShards(ctx, 0) {
			l.writers.Go(func() { l.probe(writing, *s.ShardId, *s.HashKeyRange.StartingHashKey) })
		}
	}
	for m := range makers {
		l.writers.Go(func() { l.makeStreams(writing, m) })
	}
	l.readers.Go(func() { l.followAll(reading, "follower", l.pollShard) })
	if l.consumer != nil {
		l.readers.Go(func() { l.followAll(reading, "subscriber", l.subscribeShard) })
	}
	l.readers.Go(func() { l.glance(reading) })
}

// StopWriting ends the writers, after what each is at.
func (l *Load) StopWriting() {
	l.stopWriting()
	l.writers.Wait()
}

// Stop ends all clients.
func (l *Load) Stop() {
	l.StopWriting()
	l.stopReading()
	l.readers.Wait()
}

// Now is the time of the history.
func (l *Load) Now() judge.Time { return time.Since(l.started) }

// Started is the wall clock's time at the history's 0.
func (l *Load) Started() time.Time { return l.started }

// Complaints gives what no client should ever have been answered, whatever was
// broken at the time: a fault of the server's is a 5xx or no answer, never an
// error that tells the client that it did something wrong.
func (l *Load) Complaints() []string { return l.rec.takeComplaints() }

// History gives what happened so far, with final readings of all shards if it
// was made after Finish.
func (l *Load) History() *judge.History { return l.rec.history() }

// Counts gives how many records were put, acknowledged, and of unknown outcome.
func (l *Load) Counts() (put, acknowledged, unknown int) { return l.rec.counts() }

// client gives one of the clients, by turns.
func (l *Load) client(n int) *kinesis.Client { return l.clients[n%len(l.clients)] }

// judgeError says what an error tells of a request that may change something.
func judgeError(err error) (refused bool, complaint string) {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false, ""
	}
	var response interface{ HTTPStatusCode() int }
	if errors.As(err, &response) && response.HTTPStatusCode() >= 500 {
		return false, ""
	}
	switch api.(type) {
	case *types.ProvisionedThroughputExceededException, *types.LimitExceededException:
		return true, ""
	}
	switch api.ErrorCode() {
	case "InternalFailure", "ServiceUnavailable", "InternalFailureException":
		return false, ""
	}
	return true, api.ErrorCode() + ": " + api.ErrorMessage()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// recorder gathers the history; its methods may be called from any goroutine.
type recorder struct {
	mu         sync.Mutex
	puts       []judge.Put
	readings   []judge.Reading
	shards     []judge.Shard
	complaints []string
	streamOps  []judge.StreamOp
	names      names
}

func newRecorder() *recorder { return &recorder{} }

func (r *recorder) put(p ...judge.Put) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.puts = append(r.puts, p...)
}

func (r *recorder) reading(x judge.Reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readings = append(r.readings, x)
}

func (r *recorder) complain(what string, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.complaints) < 100 {
		r.complaints = append(r.complaints, what+": "+text)
	}
}

func (r *recorder) takeComplaints() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.complaints
	r.complaints = nil
	return c
}

func (r *recorder) history() *judge.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &judge.History{Puts: slices.Clone(r.puts), Readings: slices.Clone(r.readings), Shards: slices.Clone(r.shards)}
}

func (r *recorder) counts() (put, acknowledged, unknown int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.puts {
		switch p.Outcome {
		case judge.Acknowledged:
			acknowledged++
		case judge.Unknown:
			unknown++
		}
	}
	return len(r.puts), acknowledged, unknown
}
