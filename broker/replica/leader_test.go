package replica

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"shardstream/stream"
)

// fakeLog keeps batches in memory; a batch is durable when the test says so.
type fakeLog struct {
	batches []stream.Batch
	waiting []func(error)
	durable stream.Offset
	start   stream.Offset
}

func (f *fakeLog) Append(b stream.Batch, done func(error)) error {
	if b.Base() != f.End() {
		return stream.Errorf(stream.Gap, "fake", "base %d, end %d", b.Base(), f.End())
	}
	f.batches = append(f.batches, b)
	f.waiting = append(f.waiting, done)
	return nil
}

func (f *fakeLog) sync(err error) {
	if err == nil {
		f.durable = f.End()
	}
	for _, done := range f.waiting {
		done(err)
	}
	f.waiting = nil
}

func (f *fakeLog) Start() stream.Offset { return f.start }

func (f *fakeLog) End() stream.Offset {
	if len(f.batches) == 0 {
		return 0
	}
	return f.batches[len(f.batches)-1].End()
}

func (f *fakeLog) DurableEnd() stream.Offset { return f.durable }

func (f *fakeLog) LastArrival() int64 {
	if len(f.batches) == 0 {
		return 0
	}
	return f.batches[len(f.batches)-1].Arrival()
}

func (f *fakeLog) Read(from, limit stream.Offset, maxBytes int) (found []stream.Batch, _ error) {
	for _, b := range f.batches {
		if b.End() <= from || b.End() > limit {
			continue
		}
		if len(found) > 0 && maxBytes < len(b) {
			break
		}
		found = append(found, b)
		maxBytes -= len(b)
	}
	return found, nil
}

func (f *fakeLog) FindTime(ms int64) (stream.Offset, error) {
	for _, b := range f.batches {
		if b.Arrival() >= ms {
			return b.Base(), nil
		}
	}
	return f.End(), nil
}

func (f *fakeLog) TrimBefore(ms int64) stream.Offset {
	for _, b := range f.batches {
		if b.Base() >= f.start && b.Arrival() < ms {
			f.start = b.End()
		}
	}
	return f.start
}

func batchOf(n, size int) stream.Batch {
	b := stream.NewBatch(nil, stream.ShardID{Stream: 1}, [16]byte{}, [16]byte{}, 0)
	for i := range n {
		b = b.AppendRecord(stream.Record{PartitionKey: []byte("k"), Data: make([]byte, size), Ordinal: uint16(i)})
	}
	stream.FinishBatch(b, n)
	return b
}

func TestAcknowledgedOnlyWhenDurable_I2(t *testing.T) {
	log := &fakeLog{}
	l := NewLeader(log, 3, func() int64 { return 1000 })
	acked := false
	base, arrival, err := l.Append(batchOf(2, 10), func(err error) { acked = err == nil })
	if err != nil || base != 0 || arrival != 1000 {
		t.Fatal(base, arrival, err)
	}
	if r, _ := l.Read(0, 0, 10, 1<<20); acked || len(r.Batches) != 0 || r.HighWatermark != 0 {
		t.Fatalf("an unsynced record was acknowledged (%v) or shown (%d batches)", acked, len(r.Batches))
	}
	log.sync(nil)
	r, _ := l.Read(0, 0, 10, 1<<20)
	if !acked || len(r.Batches) != 1 || r.HighWatermark != 2 {
		t.Fatalf("acked %v, %d batches, high watermark %d", acked, len(r.Batches), r.HighWatermark)
	}
	if b, err := stream.CheckBatch(r.Batches[0]); err != nil || b.Epoch() != 3 {
		t.Fatal(err, b.Epoch())
	}
}

func TestFailedSyncIsNeverAcknowledged_I15(t *testing.T) {
	log := &fakeLog{}
	l := NewLeader(log, 1, func() int64 { return 1 })
	var got error
	l.Append(batchOf(1, 1), func(err error) { got = err })
	log.sync(errors.New("I/O error"))
	if got == nil || l.HighWatermark() != 0 {
		t.Fatal(got, l.HighWatermark())
	}
}

func TestArrivalNeverDecreases_I20(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log, clock, last := &fakeLog{}, int64(0), int64(0)
		l := NewLeader(log, 1, func() int64 { return clock })
		for range rapid.IntRange(1, 20).Draw(t, "puts") {
			clock = rapid.Int64Range(1, 1000).Draw(t, "clock")
			_, arrival, err := l.Append(batchOf(1, 1), func(error) {})
			if err != nil || arrival < last || arrival < clock {
				t.Fatalf("arrival %d after %d, clock %d: %v", arrival, last, clock, err)
			}
			last = arrival
		}
	})
}

// A reader that follows the answers sees every record once, in order, whatever
// its limits, and makes progress with each answer (I12).
func TestReadersSeeEveryRecordOnce_I12(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := &fakeLog{}
		l := NewLeader(log, 1, func() int64 { return 1 })
		for range rapid.IntRange(0, 12).Draw(t, "batches") {
			l.Append(batchOf(rapid.IntRange(1, 9).Draw(t, "records"), rapid.IntRange(0, 400).Draw(t, "size")), func(error) {})
		}
		log.sync(nil)
		next := stream.Offset(rapid.IntRange(0, int(log.End())).Draw(t, "from"))
		for next < log.End() {
			records, bytes := rapid.IntRange(1, 12).Draw(t, "max records"), rapid.IntRange(1, 2000).Draw(t, "max bytes")
			r, err := l.Read(next, 0, records, bytes)
			if err != nil || len(r.Batches) == 0 {
				t.Fatalf("no progress at %d of %d: %v", next, log.End(), err)
			}
			if r.Batches[0].Base() > next || r.Batches[0].End() <= next {
				t.Fatalf("asked for %d, got a batch [%d,%d)", next, r.Batches[0].Base(), r.Batches[0].End())
			}
			for i, b := range r.Batches[1:] {
				if b.Base() != r.Batches[i].End() {
					t.Fatalf("batch at %d follows one that ends at %d", b.Base(), r.Batches[i].End())
				}
			}
			next = min(r.Batches[len(r.Batches)-1].End(), next+stream.Offset(records))
		}
	})
}

func TestPositionOutsideTheLogIsNoError(t *testing.T) {
	log := &fakeLog{}
	l := NewLeader(log, 1, func() int64 { return 100 })
	l.Append(batchOf(3, 1), func(error) {})
	log.sync(nil)
	if r, err := l.Read(99, 0, 10, 1000); err != nil || len(r.Batches) != 0 {
		t.Fatalf("above the high watermark: %d batches, %v", len(r.Batches), err)
	}
	if o, err := l.FindTime(50, 0); o != 0 || err != nil {
		t.Fatal(o, err)
	}
	if o, err := l.FindTime(101, 0); o != 3 || err != nil {
		t.Fatal(o, err)
	}
	if r, err := l.Read(0, 101, 10, 1000); err != nil || len(r.Batches) != 0 || r.Start != 3 {
		t.Fatalf("everything expired: %d batches, start %d, %v", len(r.Batches), r.Start, err)
	}
}
