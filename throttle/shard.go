package throttle

import (
	"iter"
	"time"
)

// The limits of a shard, as Kinesis has them. Bytes are those of data and
// partition keys.
var (
	// WriteRecords and WriteBytes bound what is written.
	WriteRecords = Rate{PerSecond: 1000, Burst: 1000}
	WriteBytes   = Rate{PerSecond: 1 << 20, Burst: 1 << 20}
	// LargeBytes is where records of more than LargeRecord are taken from: what
	// was not written in the last ten seconds.
	LargeBytes = Rate{PerSecond: 1 << 20, Burst: 10 << 20}

	// ReadCalls and ReadBytes bound GetRecords.
	ReadCalls = Rate{PerSecond: 5, Burst: 5}
	ReadBytes = Rate{PerSecond: 2 << 20, Burst: 2 << 20}

	// IteratorCalls bounds GetShardIterator.
	IteratorCalls = Rate{PerSecond: 5, Burst: 5}

	// FanOutBytes bounds what one consumer is pushed from one shard.
	FanOutBytes = Rate{PerSecond: 2 << 20, Burst: 2 << 20}
)

// LargeRecord is the size above which a record does not fit in a second's share.
const LargeRecord = 1 << 20

// Shard is what is used of a shard's limits. The zero value is an idle one.
type Shard struct {
	writes    writes
	reads     reads
	iterators Bucket
}

// writes has two buckets of bytes. All bytes are taken from large, which fills
// up at the shard's rate, so that the rate holds whatever the mix of records.
// Those of ordinary records are taken from bytes too, which holds the share of
// one second only: what was saved up is for large records alone.
type writes struct {
	records, bytes, large Bucket
}

func (w *writes) take(now time.Duration, size int64) bool {
	after := *w
	if !after.records.Take(WriteRecords, now, 1) || !after.large.Take(LargeBytes, now, size) {
		return false
	}
	if size <= LargeRecord && !after.bytes.Take(WriteBytes, now, size) {
		return false
	}
	*w = after
	return true
}

// Write judges records, given by their sizes, that are to be written together
// and in this order. If all pass they are taken. If not, nothing is, and it gives
// how many of the first would have passed.
func (s *Shard) Write(now time.Duration, sizes iter.Seq[int]) (pass int, all bool) {
	after := s.writes
	for size := range sizes {
		if !after.take(now, int64(size)) {
			return pass, false
		}
		pass++
	}
	s.writes = after
	return pass, true
}

// reads lets calls pass while less than a second's share is used. A call may
// give more than is left of it; from then on none passes until all of that is
// made up for. So two calls of 1 MiB shut the next second out, and one of 10 MiB
// the next five, as Kinesis has it.
type reads struct {
	calls, bytes Bucket
	shut         bool
}

func (r *reads) isShut(now time.Duration) bool {
	r.shut = r.shut && !r.bytes.Full(ReadBytes, now)
	return r.shut
}

// Read counts a call that is about to read, and reports whether it may.
func (s *Shard) Read(now time.Duration) bool {
	return !s.reads.isShut(now) && s.reads.calls.Take(ReadCalls, now, 1)
}

// Give takes the bytes that a call has found, and reports whether it may give
// them: others may have been quicker meanwhile.
func (s *Shard) Give(now time.Duration, bytes int) bool {
	if s.reads.isShut(now) {
		return false
	}
	s.reads.bytes.Overdraw(ReadBytes, now, int64(bytes))
	s.reads.shut = s.reads.bytes.Used(ReadBytes, now) >= ReadBytes.Burst
	return true
}

// Iterator counts a GetShardIterator, and reports whether it passes.
func (s *Shard) Iterator(now time.Duration) bool {
	return s.iterators.Take(IteratorCalls, now, 1)
}

// Idle reports whether it is as good as a new one.
func (s *Shard) Idle(now time.Duration) bool {
	w, r := &s.writes, &s.reads
	return w.records.Full(WriteRecords, now) && w.bytes.Full(WriteBytes, now) && w.large.Full(LargeBytes, now) &&
		r.calls.Full(ReadCalls, now) && r.bytes.Full(ReadBytes, now) && s.iterators.Full(IteratorCalls, now)
}

// FanOut is what a consumer has used of its own share of a shard. Nothing is
// refused: what is pushed waits. The zero value is an idle one.
type FanOut struct{ bytes Bucket }

// Delay gives the time until the next bytes may be pushed; 0 is now. One push
// may be larger than the share of a second, and is made up for before the next.
func (f *FanOut) Delay(now time.Duration) time.Duration {
	return f.bytes.Delay(FanOutBytes, now, FanOutBytes.Burst-1)
}

// Pushed counts bytes that were pushed.
func (f *FanOut) Pushed(now time.Duration, bytes int) {
	f.bytes.Overdraw(FanOutBytes, now, int64(bytes))
}
