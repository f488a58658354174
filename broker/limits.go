package broker

import (
	"iter"
	"math"
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

// admit gives how many of the first records of a batch, given by their sizes,
// may be written now. If it is all, they are counted.
func (l *limits) admit(id stream.ShardID, sizes iter.Seq[int]) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.elapsed()
	n, _ := l.shards.At(id, now).Write(now, sizes)
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

// share is one subscription's of a shard: each consumer has one of its own.
// Without limits it is nil and as large as wanted.
type share struct {
	elapsed func() time.Duration
	used    throttle.FanOut
}

func (l *limits) share() *share {
	if l == nil {
		return nil
	}
	return &share{elapsed: l.elapsed}
}

// delay gives the time until the next records may be pushed.
func (s *share) delay() time.Duration {
	if s == nil {
		return 0
	}
	return s.used.Delay(s.elapsed())
}

// pushed counts the records from an offset on.
func (s *share) pushed(batches []stream.Batch, from stream.Offset) {
	if s != nil {
		s.used.Pushed(s.elapsed(), bytesGiven(batches, from, math.MaxInt, math.MaxInt))
	}
}

// recordSizes gives the bytes of each record, data and partition key, in order.
// Those of an encrypted batch don't show: they are what the gateway says, and
// Kind Invalid if that does not add up. One that does not know of the limits yet
// says nothing.
func recordSizes(b stream.Batch, told []uint32) (iter.Seq[int], error) {
	if !b.Encrypted() || len(told) == 0 {
		return shares(b), nil
	}
	sum := uint64(0)
	for _, size := range told {
		sum += uint64(size)
	}
	if len(told) != b.Count() || sum != uint64(dataBytes(b)) {
		return nil, stream.Errorf(stream.Invalid, "broker.limits", "%d records of %d bytes are told to be %d of %d", b.Count(), dataBytes(b), len(told), sum)
	}
	return func(yield func(int) bool) {
		for _, size := range told {
			if !yield(int(size)) {
				return
			}
		}
	}, nil
}

// dataBytes gives the bytes of all data and partition keys of a batch.
func dataBytes(b stream.Batch) int { return b.RecordBytes() - b.Count()*stream.RecordHeaderSize }

// shares gives the sizes of a batch's records, and if they don't show, so many
// equal shares of the whole: over the whole batch they are exact.
func shares(b stream.Batch) iter.Seq[int] {
	if !b.Encrypted() {
		return func(yield func(int) bool) {
			for _, r := range b.Records() {
				if !yield(len(r.PartitionKey) + len(r.Data)) {
					return
				}
			}
		}
	}
	return func(yield func(int) bool) {
		total, n := dataBytes(b), b.Count()
		for i := range n {
			if !yield(total*(i+1)/n - total*i/n) {
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
		for size := range shares(b) {
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
