package realclients

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/history"
)

// load puts records of distinct values under keys that spread over all shards,
// until it is stopped.
type load struct {
	history *history.History
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	err     error // set before wg is done

	mu    sync.Mutex
	reads map[string]history.Read // what was acknowledged, by value
}

// read gives the record of a value that was acknowledged.
func (l *load) read(value string) (history.Read, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.reads[value]
	return r, ok
}

// acknowledged notes where a value was put.
func (l *load) acknowledged(r history.Read) {
	l.history.Acknowledged(r.Value, r.Place)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads[r.Value] = r
}

// batchSize is how many records one call of the load puts, and batchPause the
// time between two calls: some 200 records a second, since what is tested is
// the consumers' bookkeeping.
const (
	batchSize  = 40
	batchPause = 200 * time.Millisecond
)

// startLoad starts a load on a stream; the test's end stops it.
func startLoad(t *testing.T, c *kinesis.Client, stream string) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{history: history.New(), cancel: cancel, reads: map[string]history.Read{}}
	l.wg.Go(func() { l.err = l.run(ctx, c, stream) })
	t.Cleanup(func() { cancel(); l.wg.Wait() })
	return l
}

func (l *load) run(ctx context.Context, c *kinesis.Client, stream string) error {
	for batch := 0; ctx.Err() == nil; batch++ {
		entries := make([]types.PutRecordsRequestEntry, batchSize)
		for i := range entries {
			key, value := fmt.Sprintf("key-%d-%d", batch%5, i), fmt.Sprintf("value-%d-%d", batch, i)
			entries[i] = types.PutRecordsRequestEntry{PartitionKey: aws.String(key), Data: []byte(value)}
			l.history.Attempt(key, value)
		}
		// Not ctx: the last batch too has an outcome.
		out, err := c.PutRecords(context.WithoutCancel(ctx), &kinesis.PutRecordsInput{StreamName: &stream, Records: entries})
		if err != nil {
			return err
		}
		for i, r := range out.Records {
			if r.ErrorCode != nil {
				return fmt.Errorf("PutRecords: %s: %s", *r.ErrorCode, *r.ErrorMessage)
			}
			l.acknowledged(history.Read{
				Place: history.Place{ShardID: *r.ShardId, SequenceNumber: *r.SequenceNumber},
				Key:   *entries[i].PartitionKey, Value: string(entries[i].Data),
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(batchPause):
		}
	}
	return nil
}

// stop ends the load and gives how many records it has put.
func (l *load) stop(t *testing.T) int {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	if l.err != nil {
		t.Fatalf("the load: %v", l.err)
	}
	return l.count()
}

func (l *load) count() int {
	acknowledged, _ := l.history.Counts()
	return acknowledged
}
