package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/history"
)

// patient has the SDK try again for as long as a node needs to come back.
func patient(o *kinesis.Options) {
	o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = 60, 200*time.Millisecond
		o.RateLimiter = noLimit{}
	})
}

// noLimit never stops the retries of a client.
type noLimit struct{}

func (noLimit) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}
func (noLimit) AddTokens(uint) error { return nil }

// writeSteadily puts batches of the writer's own keys until ctx ends. Every batch
// has an outcome: the SDK tries again, and nothing may be stored twice by that.
// It notes the longest call.
func writeSteadily(ctx context.Context, c *kinesis.Client, stream string, h *history.History, writer string, longest *atomic.Int64) error {
	source := rand.New(rand.NewPCG(1, uint64(len(writer))))
	for batch := 0; ctx.Err() == nil; batch++ {
		var entries []types.PutRecordsRequestEntry
		for i := range 1 + source.IntN(20) {
			entries = append(entries, types.PutRecordsRequestEntry{
				PartitionKey: aws.String(fmt.Sprintf("%s-key-%d", writer, i%7)), Data: fmt.Appendf(nil, "%s-%d-%d", writer, batch, i),
			})
		}
		// Not ctx: the last batch too has an outcome.
		began := time.Now()
		done, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		stored := putOnce(done, c, stream, h, entries)
		cancel()
		longest.Store(max(longest.Load(), int64(time.Since(began))))
		if !stored {
			return fmt.Errorf("%s: batch %d was not stored", writer, batch)
		}
		select { // a pace, so that the reads stay few
		case <-ctx.Done():
		case <-time.After(time.Duration(source.IntN(int(4 * time.Millisecond)))):
		}
	}
	return nil
}

// awaitActive waits until a reshard is over.
func awaitActive(t *testing.T, c *kinesis.Client, name string, shards int32) {
	t.Helper()
	eventually(t, func() error {
		out, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &name})
		if err != nil {
			return err
		}
		s := out.StreamDescriptionSummary
		if s.StreamStatus != types.StreamStatusActive || *s.OpenShardCount != shards {
			return fmt.Errorf("%s with %d shards", s.StreamStatus, *s.OpenShardCount)
		}
		return nil
	})
}

// coversOnce checks that the shards that a filter lists cover the hash space once.
func coversOnce(ctx context.Context, c *kinesis.Client, name string, filter *types.ShardFilter) error {
	out, err := c.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &name, ShardFilter: filter})
	if err != nil {
		return err
	}
	number := func(s *string) *big.Int { n, _ := new(big.Int).SetString(*s, 10); return n }
	slices.SortFunc(out.Shards, func(a, b types.Shard) int {
		return number(a.HashKeyRange.StartingHashKey).Cmp(number(b.HashKeyRange.StartingHashKey))
	})
	next := new(big.Int)
	for _, s := range out.Shards {
		if number(s.HashKeyRange.StartingHashKey).Cmp(next) != 0 {
			return fmt.Errorf("%v: %s begins at %s, not %s", filter.Type, *s.ShardId, *s.HashKeyRange.StartingHashKey, next)
		}
		next.Add(number(s.HashKeyRange.EndingHashKey), big.NewInt(1))
	}
	if next.Cmp(new(big.Int).Lsh(big.NewInt(1), 128)) != 0 {
		return fmt.Errorf("%v: ends before %s", filter.Type, next)
	}
	return nil
}

// walk reads a stream as the KCL does: it begins with the shards that were open
// at the trim horizon, and goes on with the children that an ended shard names,
// once all their parents have ended.
func walk(ctx context.Context, c *kinesis.Client, name string) (reads []history.Read, shards []string, err error) {
	first, err := c.ListShards(ctx, &kinesis.ListShardsInput{
		StreamName: &name, ShardFilter: &types.ShardFilter{Type: types.ShardFilterTypeAtTrimHorizon},
	})
	if err != nil {
		return nil, nil, err
	}
	var ready []string
	known, ended := map[string]bool{}, map[string]bool{}
	for _, s := range first.Shards {
		ready = append(ready, *s.ShardId)
		known[*s.ShardId] = true
	}
	var children []types.ChildShard // whose parents have not all ended yet
	for len(ready) > 0 {
		id := ready[0]
		ready = ready[1:]
		shards = append(shards, id)
		it, err := c.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
			StreamName: &name, ShardId: &id, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			return nil, nil, err
		}
		for next := it.ShardIterator; next != nil; {
			out, err := c.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: next, Limit: aws.Int32(500)})
			if err != nil {
				return nil, nil, err
			}
			for _, r := range out.Records {
				reads = append(reads, history.Read{
					Place: history.Place{ShardID: id, SequenceNumber: *r.SequenceNumber}, Key: *r.PartitionKey, Value: string(r.Data),
				})
			}
			if (out.NextShardIterator == nil) != (len(out.ChildShards) > 0) {
				return nil, nil, fmt.Errorf("%s: iterator %v, children %v", id, out.NextShardIterator, out.ChildShards)
			}
			next = out.NextShardIterator
			if next == nil {
				ended[id] = true
				children = append(children, out.ChildShards...)
			} else if len(out.Records) == 0 && *out.MillisBehindLatest == 0 {
				break
			}
		}
		children = slices.DeleteFunc(children, func(child types.ChildShard) bool {
			for _, p := range child.ParentShards {
				if !ended[p] {
					return false
				}
			}
			if !known[*child.ShardId] {
				known[*child.ShardId] = true
				ready = append(ready, *child.ShardId)
			}
			return true
		})
	}
	if len(children) > 0 {
		return nil, nil, fmt.Errorf("children whose parents never end: %v", children)
	}
	return reads, shards, nil
}

// TestReshardUnderLoad splits, merges and resizes a stream while writers put and
// readers list, and kills the node in the middle of one. Nothing is lost, nothing
// is there twice, and the records of each key keep their order.
func TestReshardUnderLoad(t *testing.T) {
	const inUpdating = 100 * time.Millisecond
	n := startIn(t, t.TempDir(), "--transition-delay", inUpdating.String())
	const name = "resharded"
	c := client(n.endpoint, patient)
	createStream(t, c, name, 4)
	h := history.New()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	var longest [8]atomic.Int64
	failed := make(chan error, 16)
	for w := range longest {
		load.Go(func() {
			if err := writeSteadily(ctx, client(n.endpoint, patient), name, h, strings.Repeat("w", w+1), &longest[w]); err != nil {
				failed <- err
			}
		})
	}
	began := time.Now()
	load.Go(func() {
		for ctx.Err() == nil {
			at := began.Add(rand.N(time.Since(began)))
			for _, f := range []types.ShardFilter{
				{Type: types.ShardFilterTypeAtLatest},
				{Type: types.ShardFilterTypeAtTrimHorizon},
				{Type: types.ShardFilterTypeAtTimestamp, Timestamp: &at},
			} {
				if err := coversOnce(ctx, c, name, &f); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
			}
		}
	})
	enough := func(more int) {
		t.Helper()
		before, _ := h.Counts()
		eventually(t, func() error {
			if now, _ := h.Counts(); now < before+more {
				return fmt.Errorf("%d values, then %d", before, now)
			}
			return nil
		})
	}
	slowest := func() (d time.Duration) {
		for w := range longest {
			d = max(d, time.Duration(longest[w].Swap(0)))
		}
		return d
	}
	enough(200)
	t.Logf("the longest put before: %s", slowest())

	act := func(what string, shards int32, f func() error) {
		t.Helper()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		awaitActive(t, c, name, shards)
		enough(200)
		t.Logf("%s: the longest put took %s", what, slowest())
	}
	resize := func(to int32) func() error {
		return func() error {
			_, err := c.UpdateShardCount(t.Context(), &kinesis.UpdateShardCountInput{
				StreamName: aws.String(name), TargetShardCount: &to, ScalingType: types.ScalingTypeUniformScaling,
			})
			return err
		}
	}
	act("split", 5, func() error {
		_, err := c.SplitShard(t.Context(), &kinesis.SplitShardInput{
			StreamName: aws.String(name), ShardToSplit: aws.String("shardId-000000000000"), NewStartingHashKey: aws.String("9876543210"),
		})
		return err
	})
	act("merge", 4, func() error {
		_, err := c.MergeShards(t.Context(), &kinesis.MergeShardsInput{
			StreamName: aws.String(name), ShardToMerge: aws.String("shardId-000000000001"), AdjacentShardToMerge: aws.String("shardId-000000000002"),
		})
		return err
	})
	act("4 to 8", 8, resize(8))
	act("8 to 5", 5, resize(5))
	act("5 to 3, killed meanwhile", 3, func() error {
		err := resize(3)()
		// Before, while or after the parents are sealed: the moment of the kill
		// is the point.
		time.Sleep(inUpdating*3/4 + rand.N(inUpdating/2))
		n.kill(t)
		n.restart(t)
		return err
	})

	stop()
	load.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	acknowledged, unknown := h.Counts()
	t.Logf("%d values acknowledged, %d unknown", acknowledged, unknown)
	check(t, n, name, h)
	reads, walked, err := walk(t.Context(), c, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range h.Check(reads) {
		t.Error("as the KCL reads: ", v)
	}
	listed, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String(name)})
	if err != nil {
		t.Fatal(err)
	}
	if len(listed.Shards) != len(walked) {
		t.Errorf("walked over %v of %d shards", walked, len(listed.Shards))
	}
	if len(reads) != acknowledged {
		t.Errorf("%d records for %d acknowledged values", len(reads), acknowledged)
	}
}

// TestReshardCLI reshards with the AWS CLI, with what it prints.
func TestReshardCLI(t *testing.T) {
	program := pythonTool(t, "aws")
	n := start(t, "--ephemeral", "--transition-delay", "0s", "--stream", "s:1")
	c := client(n.endpoint)
	run := func(wants string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, append([]string{"kinesis", "--endpoint-url", n.endpoint, "--output", "text"}, args...)...)
		cmd.Env = clientEnv("AWS_MAX_ATTEMPTS=1")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); !strings.HasSuffix(got, wants) || wants == "" && got != "" {
			t.Fatalf("%v:\n%s\nnot\n%s", args, got, wants)
		}
	}
	run("", "split-shard", "--stream-name", "s", "--shard-to-split", "shardId-000000000000", "--new-starting-hash-key", "170141183460469231731687303715884105728")
	awaitActive(t, c, "s", 2)
	run("when calling the SplitShard operation: Shard shardId-000000000000 in stream s under account 000000000000 has already been merged or split, and thus is not eligible for merging or splitting.",
		"split-shard", "--stream-name", "s", "--shard-to-split", "0", "--new-starting-hash-key", "7")
	run("when calling the SplitShard operation: NewStartingHashKey 1 used in SplitShard() on shard shardId-000000000001 in stream s under account 000000000000 is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's EndingHashKey 170141183460469231731687303715884105727.",
		"split-shard", "--stream-name", "s", "--shard-to-split", "1", "--new-starting-hash-key", "1")
	run("when calling the MergeShards operation: Shards shardId-000000000002 and shardId-000000000001 in stream s under account 000000000000 are not an adjacent pair of shards eligible for merging",
		"merge-shards", "--stream-name", "s", "--shard-to-merge", "2", "--adjacent-shard-to-merge", "1")
	run("UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: 2, Target shard count: 5",
		"update-shard-count", "--stream-name", "s", "--target-shard-count", "5", "--scaling-type", "UNIFORM_SCALING")
	run("2 arn:aws:kinesis:us-east-1:000000000000:stream/s s 3",
		"update-shard-count", "--stream-name", "s", "--target-shard-count", "3", "--scaling-type", "UNIFORM_SCALING")
	awaitActive(t, c, "s", 3)
	run("", "merge-shards", "--stream-name", "s", "--shard-to-merge", "3", "--adjacent-shard-to-merge", "7")
	awaitActive(t, c, "s", 2)
	run("shardId-000000000000 None None "+
		"shardId-000000000001 shardId-000000000000 None shardId-000000000002 shardId-000000000000 None "+
		"shardId-000000000003 shardId-000000000001 None shardId-000000000004 shardId-000000000001 None "+
		"shardId-000000000005 shardId-000000000002 None shardId-000000000006 shardId-000000000002 None "+
		"shardId-000000000007 shardId-000000000004 shardId-000000000005 shardId-000000000008 shardId-000000000003 shardId-000000000007",
		"list-shards", "--stream-name", "s", "--query", "Shards[].[ShardId,ParentShardId,AdjacentParentShardId]")
}
