package powerfs

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/history"
	"shardstream/test/plainbody"
)

// patience bounds each wait for something that must happen. It is long: only a
// hang should fail here.
const patience = 2 * time.Minute

const streamName = "powerless"

// dev is one life of `shardstream dev`.
type dev struct {
	cmd    *exec.Cmd
	client *kinesis.Client
	log    strings.Builder // stderr; to be read when the process has ended
	ended  chan struct{}
}

func startDev(t *testing.T, program, dir string) *dev {
	t.Helper()
	d := &dev{ended: make(chan struct{})}
	d.cmd = exec.Command(program, "dev", "--data-dir", dir, "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0",
		"--transition-delay", "0s", "--journal-budget", strconv.Itoa(16<<20), "--tail-cache", strconv.Itoa(1<<20))
	d.cmd.Stderr = &d.log
	stdout, err := d.cmd.StdoutPipe()
	must(t, err, d.cmd.Start())
	endpoint := make(chan string, 1)
	go func() {
		defer close(d.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if at, ok := strings.CutPrefix(lines.Text(), "endpoint: "); ok {
				endpoint <- strings.TrimSpace(at)
			}
		}
		_ = d.cmd.Wait() // killed, or the log says why
	}()
	t.Cleanup(d.kill)
	select {
	case at := <-endpoint:
		d.client = kinesis.New(kinesis.Options{
			Region: "us-east-1", BaseEndpoint: aws.String(at), Retryer: aws.NopRetryer{},
			Credentials: credentials.NewStaticCredentialsProvider("dev", "dev", ""),
			HTTPClient:  plainbody.Client(&http.Client{Timeout: patience}),
		})
	case <-d.ended:
		t.Fatalf("dev ends at once (%s):\n%s", d.cmd.ProcessState, d.log.String())
	case <-time.After(patience):
		t.Fatal("dev does not serve")
	}
	return d
}

func (d *dev) kill() {
	_ = d.cmd.Process.Kill() // has ended already, perhaps
	<-d.ended
}

// createStream creates the stream of the test, and waits until it is ACTIVE.
func (d *dev) createStream(t *testing.T) {
	t.Helper()
	_, err := d.client.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: aws.String(streamName), ShardCount: aws.Int32(4)})
	must(t, err)
	w := kinesis.NewStreamExistsWaiter(d.client, func(o *kinesis.StreamExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 100*time.Millisecond
	})
	must(t, w.Wait(t.Context(), &kinesis.DescribeStreamInput{StreamName: aws.String(streamName)}, patience))
}

// put puts batches under the writer's own keys until one fails. A batch whose
// outcome is unknown is not repeated.
func (d *dev) put(ctx context.Context, h *history.History, writer string, source *rand.Rand, acknowledged func(int)) {
	for n := 0; ; n++ {
		var entries []types.PutRecordsRequestEntry
		for i := range 1 + source.IntN(20) {
			e := types.PutRecordsRequestEntry{
				PartitionKey: aws.String(fmt.Sprintf("%s-key-%d", writer, i%3)),
				Data:         fmt.Appendf(nil, "%s-%d-%d-%0*d", writer, n, i, 1+source.IntN(4000), 0),
			}
			h.Attempt(*e.PartitionKey, string(e.Data))
			entries = append(entries, e)
		}
		out, err := d.client.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: aws.String(streamName), Records: entries})
		if err != nil {
			return
		}
		stored := 0
		for i, r := range out.Records {
			if aws.ToString(r.ErrorCode) == "" {
				h.Acknowledged(string(entries[i].Data), history.Place{ShardID: *r.ShardId, SequenceNumber: *r.SequenceNumber})
				stored++
			}
		}
		acknowledged(stored)
		if stored < len(entries) {
			return
		}
	}
}

// read reads all shards from their oldest records.
func (d *dev) read(t *testing.T) (reads []history.Read) {
	t.Helper()
	shards, err := d.client.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String(streamName)})
	must(t, err)
	for _, shard := range shards.Shards {
		it, err := d.client.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: aws.String(streamName), ShardId: shard.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		must(t, err)
		for next, end := it.ShardIterator, false; !end; {
			out, err := d.client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
			must(t, err)
			for _, r := range out.Records {
				reads = append(reads, history.Read{
					Place: history.Place{ShardID: *shard.ShardId, SequenceNumber: *r.SequenceNumber},
					Key:   *r.PartitionKey, Value: string(r.Data),
				})
			}
			next, end = out.NextShardIterator, len(out.Records) == 0 && *out.MillisBehindLatest == 0
		}
	}
	return reads
}

// streams is what became of the streams that come and go beside the load.
type streams struct {
	next    int
	created map[string]bool // the call was answered
	deleted map[string]bool // true: the call was answered, false: perhaps
}

func newStreams() *streams { return &streams{created: map[string]bool{}, deleted: map[string]bool{}} }

// comeAndGo creates streams, and deletes most of them, until a call fails. The
// metadata then has something to lose too.
func (d *dev) comeAndGo(ctx context.Context, s *streams) {
	for ; ; s.next++ {
		name := aws.String(fmt.Sprintf("stream-%d", s.next))
		if _, err := d.client.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: name, ShardCount: aws.Int32(1)}); err != nil {
			s.next++ // it may be there
			return
		}
		s.created[*name] = true
		w := kinesis.NewStreamExistsWaiter(d.client, func(o *kinesis.StreamExistsWaiterOptions) {
			o.MinDelay, o.MaxDelay = time.Millisecond, 10*time.Millisecond
		})
		if w.Wait(ctx, &kinesis.DescribeStreamInput{StreamName: name}, patience) != nil {
			return
		}
		if s.next%10 == 0 {
			continue
		}
		s.deleted[*name] = false
		if _, err := d.client.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: name}); err != nil {
			return
		}
		s.deleted[*name] = true
	}
}

// violations says which streams are not as the calls were answered.
func (d *dev) violations(t *testing.T, s *streams) (bad []string) {
	t.Helper()
	there := map[string]bool{}
	for list := kinesis.NewListStreamsPaginator(d.client, &kinesis.ListStreamsInput{}); list.HasMorePages(); {
		page, err := list.NextPage(t.Context())
		must(t, err)
		for _, summary := range page.StreamSummaries {
			there[*summary.StreamName] = summary.StreamStatus != types.StreamStatusDeleting
		}
	}
	for name := range s.created {
		deleted, attempted := s.deleted[name]
		if there[name] && deleted {
			bad = append(bad, name+" was deleted and is there")
		}
		if !there[name] && !attempted {
			bad = append(bad, name+" was created and is not there")
		}
	}
	return bad
}

// loadAndLose puts until so many records are acknowledged, and loses power.
func (d *dev) loadAndLose(t *testing.T, p *Process, h *history.History, s *streams, round int, count int64, loss Loss) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var stored atomic.Int64
	var lose sync.Once
	var writers sync.WaitGroup
	for w := range 4 {
		source := rand.New(rand.NewPCG(loss.Seed, uint64(w)))
		writers.Go(func() {
			d.put(ctx, h, fmt.Sprintf("r%d-w%d", round, w), source, func(n int) {
				if stored.Add(int64(n)) >= count {
					lose.Do(func() {
						if err := p.PowerLoss(loss); err != nil {
							t.Error(err)
						}
						d.kill()
					})
				}
			})
		})
	}
	writers.Go(func() { d.comeAndGo(ctx, s) })
	writers.Wait()
	lose.Do(func() {
		d.kill() // its log is whole then
		t.Errorf("puts fail with the power on:\n%s", d.log.String())
	})
	must(t, p.PowerOn())
}

// TestDev loses power under `shardstream dev` and its load: what was
// acknowledged is there after each restart, in order, at its place, and nothing
// more often than it was put; streams are as the calls were answered. On a disk
// that lies this is not so.
func TestDev(t *testing.T) {
	rounds := 4
	if os.Getenv("SHARDSTREAM_LONG") != "" {
		rounds = 40
	}
	p := mounted(t)
	program := filepath.Join(t.TempDir(), "shardstream")
	out, err := exec.Command("go", "build", "-o", program, "shardstream/cmd/shardstream").CombinedOutput()
	if err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	seed := rand.Uint64()
	if s := os.Getenv("SHARDSTREAM_SEED"); s != "" {
		seed, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	t.Logf("SHARDSTREAM_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 3))

	h, s := history.New(), newStreams()
	d := startDev(t, program, p.Path())
	d.createStream(t)
	for round := range rounds {
		loss := Loss{Torn: round%4 > 0, Seed: random.Uint64()}
		// Every other round the power goes between a write and its sync.
		must(t, p.Slow(Syncs, time.Duration(round%2)*2*time.Millisecond))
		d.loadAndLose(t, p, h, s, round, 1+random.Int64N(3000), loss)
		d = startDev(t, program, p.Path())
		for _, v := range append(h.Check(d.read(t)), d.violations(t, s)...) {
			t.Error(v)
		}
		acknowledged, unknown := h.Counts()
		t.Logf("round %d, %+v: %d values acknowledged, %d unknown; %d streams created, %d deleted",
			round, loss, acknowledged, unknown, len(s.created), len(s.deleted))
		if t.Failed() {
			return
		}
	}

	must(t, p.Lie(true))
	d.loadAndLose(t, p, h, s, rounds, 200, Loss{})
	must(t, p.Heal())
	d = startDev(t, program, p.Path())
	if !slices.ContainsFunc(h.Check(d.read(t)), func(v string) bool { return strings.Contains(v, "acknowledged") }) {
		t.Error("nothing is missing though nothing was synced: this test finds nothing")
	}
	d.kill()
}
