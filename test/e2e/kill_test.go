package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/history"
)

// killRounds is how often the node is killed: few in the short suite.
func killRounds(t *testing.T) int {
	t.Helper()
	s := os.Getenv("SHARDSTREAM_KILL_ROUNDS")
	if s == "" {
		return 3
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("SHARDSTREAM_KILL_ROUNDS=%q", s)
	}
	return n
}

// TestKillUnderLoad kills the node with kill -9 at random moments while writers
// put, and starts it again. What was acknowledged is there after each restart,
// in order, at its place, and nothing more often than it was attempted.
func TestKillUnderLoad(t *testing.T) {
	rounds := killRounds(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SHARDSTREAM_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SHARDSTREAM_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))

	// A small journal makes checkpoints and recycling part of the game.
	n := startIn(t, t.TempDir(), "--transition-delay", "0s", "--journal-budget", "16777216")
	const name = "killed"
	createStream(t, client(n.endpoint), name, 4)
	h := history.New()
	for round := range rounds {
		ctx, stop := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		progress := make(chan struct{}, 1)
		for w := range 8 {
			source := rand.New(rand.NewPCG(seed, uint64(round*100+w)))
			writers.Go(func() { write(ctx, n.endpoint, name, h, fmt.Sprintf("r%d-w%d", round, w), source, progress) })
		}
		<-progress // the load is on
		sleep := time.Duration(20+random.IntN(500)) * time.Millisecond
		time.Sleep(sleep) // the moment of the kill is the point of the test
		n.kill(t)
		stop() // what is out gets no answer any more
		writers.Wait()
		n.restart(t)
		acknowledged, unknown := h.Counts()
		t.Logf("round %d: killed after %s; so far %d values acknowledged, %d unknown", round+1, sleep, acknowledged, unknown)
		// Reading everything grows with the rounds: check them all at first, then some.
		if round < 5 || round%10 == 9 || round == rounds-1 {
			check(t, n, name, h)
		}
		if t.Failed() {
			return
		}
	}
	if status := n.stop(t, syscall.SIGINT); status != 0 {
		t.Errorf("SIGINT: status %d", status)
	}
}

// check reads everything, twice, and compares it with the history.
func check(t *testing.T, n *node, stream string, h *history.History) {
	t.Helper()
	c := client(n.endpoint)
	reads := mustReadAll(t, c, stream)
	violations := h.Check(reads)
	for i, v := range violations {
		if i == 20 {
			t.Errorf("and %d more violations", len(violations)-i)
			break
		}
		t.Error(v)
	}
	if again := mustReadAll(t, c, stream); !slices.Equal(reads, again) {
		t.Errorf("two readers see different records: %d and %d", len(reads), len(again))
	}
}

// write puts batches of the writer's own keys until ctx ends, each batch until
// its outcome is known: an attempt that fails without an answer is sometimes
// repeated as a new call, which may store its records twice.
func write(ctx context.Context, endpoint, stream string, h *history.History, writer string, source *rand.Rand, progress chan<- struct{}) {
	c := client(endpoint, once)
	for batch := 0; ctx.Err() == nil; batch++ {
		var entries []types.PutRecordsRequestEntry
		for i := range 1 + source.IntN(20) {
			entries = append(entries, types.PutRecordsRequestEntry{
				PartitionKey: aws.String(fmt.Sprintf("%s-key-%d", writer, i%3)),
				Data:         fmt.Appendf(nil, "%s-%d-%d-%0*d", writer, batch, i, 1+source.IntN(2000), 0),
			})
		}
		for attempt := 0; attempt < 3; attempt++ {
			if putOnce(ctx, c, stream, h, entries) {
				select {
				case progress <- struct{}{}:
				default:
				}
				break
			}
			if ctx.Err() != nil || source.IntN(2) == 0 {
				// Later values of these keys must not overtake a repeat of this
				// one: a batch that is given up is given up.
				break
			}
		}
	}
}

// putOnce makes one attempt and tells the history what came of it. It gives
// false if the outcome is unknown, or some record was refused.
func putOnce(ctx context.Context, c *kinesis.Client, stream string, h *history.History, entries []types.PutRecordsRequestEntry) bool {
	for i := range entries {
		h.Attempt(*entries[i].PartitionKey, string(entries[i].Data))
	}
	out, err := c.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &stream, Records: entries})
	if err != nil {
		if codeOf(err) != "" && !errors.Is(err, context.Canceled) && codeOf(err) != "InternalFailure" && codeOf(err) != "ServiceUnavailable" {
			for i := range entries {
				h.Refused(string(entries[i].Data))
			}
		}
		return false
	}
	all := true
	for i, r := range out.Records {
		if aws.ToString(r.ErrorCode) == "" {
			h.Acknowledged(string(entries[i].Data), history.Place{ShardID: *r.ShardId, SequenceNumber: *r.SequenceNumber})
			continue
		}
		all = false // its outcome counts as unknown: a timeout inside looks the same
	}
	return all
}

// TestBenchVerifiesUnderLoad lets the load generator check itself: what it was
// told is what it reads.
func TestBenchVerifiesUnderLoad(t *testing.T) {
	n := startIn(t, t.TempDir(), "--transition-delay", "0s")
	for _, args := range [][]string{
		{"put-batch", "--batch", "500", "--shards", "8", "--verify"},
		{"put", "--connections", "16", "--verify"},
		{"e2e", "--rate", "500", "--verify"},
		{"get", "--records", "20000"},
	} {
		out, stderr, status := shardstream(t, nil, append(append([]string{"bench"}, args...), "--duration", "2s", "--endpoint", n.endpoint)...)
		if status != 0 {
			t.Errorf("bench %v: status %d: %s%s", args, status, out, stderr)
		}
		t.Log(out)
	}
}
