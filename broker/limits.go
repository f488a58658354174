package broker

import (
	"sync"
	"time"

	"shardstream/stream"
	"shardstream/throttle"
)

// limits holds the shards that this node leads to Kinesis's limits. What is used
// of them is known to the leader alone and lives as long as it leads, so that
// any number of gateways act as one; the next leader begins with a full share.
type limits struct {
	elapsed func() time.Duration // a clock that never goes back; set once

	mu     sync.Mutex // guards shards; nothing is called with it that waits
	shards throttle.Table[stream.ShardID, throttle.Shard, *throttle.Shard]
}

func newLimits(elapsed func() time.Duration) *limits { return &limits{elapsed: elapsed} }

// admit gives how many of the batch's first records may be written now. If it is
// all, they are counted.
func (l *limits) admit(b stream.Batch) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.elapsed()
	n, _ := l.shards.At(b.Shard(), now).Write(now, recordSizes(b))
	return n
}

// read counts a GetRecords; Kind Throttled if it must not read.
func (l *limits) read(id stream.ShardID) error {
	return l.judge("broker.read", id, func(s *throttle.Shard, now time.Duration) bool { return s.Read(now) })
}

// give counts what a GetRecords has read, bytes; Kind Throttled if it must not
// give it.
func (l *limits) give(id stream.ShardID, bytes int) error {
	return l.judge("broker.read", id, func(s *throttle.Shard, now time.Duration) bool { return s.Give(now, bytes) })
}

// iterator counts a GetShardIterator; Kind Throttled if it must not pass.
func (l *limits) iterator(id stream.ShardID) error {
	return l.judge("broker.locate", id, func(s *throttle.Shard, now time.Duration) bool { return s.Iterator(now) })
}

func (l *limits) judge(op string, id stream.ShardID, pass func(*throttle.Shard, time.Duration) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.elapsed(); !pass(l.shards.At(id, now), now) {
		return stream.Errorf(stream.Throttled, op, "over the limits of shard %s", id)
	}
	return nil
}

// recordSizes gives the bytes of each record, data and partition key, in order.
func recordSizes(b stream.Batch) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for _, r := range b.Records() {
			if !yield(len(r.PartitionKey) + len(r.Data)) {
				return
			}
		}
	}
}

// bytesGiven gives the bytes of the records that a gateway makes its answer of:
// those from an offset on, up to maxRecords and maxBytes, and one at least.
func bytesGiven(batches []stream.Batch, from stream.Offset, maxRecords, maxBytes int) (bytes int) {
	records := 0
	for _, b := range batches {
		at := b.Base()
		for size := range recordSizes(b) {
			if at++; at <= from {
				continue
			}
			if records == maxRecords || records > 0 && bytes+size > maxBytes {
				return bytes
			}
			records++
			bytes += size
		}
	}
	return bytes
}
