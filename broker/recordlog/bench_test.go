package recordlog

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"shardstream/stream"
)

// BenchmarkAppend writes to a real disk: the temporary directory's.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		parallel, records, size int
	}{{1, 1, 1024}, {16, 1, 1024}, {4, 500, 1024}} {
		b.Run(fmt.Sprintf("%dx%dx%d", c.parallel, c.records, c.size), func(b *testing.B) {
			l := open(b, Config{Dir: b.TempDir(), JournalBudget: 1 << 30, OnFatal: func(err error) { b.Error(err) }})
			before := l.Stats()
			b.SetBytes(int64(c.records * c.size))
			b.ReportAllocs()
			var wg sync.WaitGroup
			for i := range c.parallel {
				r := create(b, l, key(i))
				// The record log takes the bytes over; a few templates keep the
				// producer's own work out of the measure.
				template := batch(r.key.Shard, 1, 0, 0, c.records, c.size)
				n := b.N / c.parallel
				if i < b.N%c.parallel {
					n++
				}
				wg.Go(func() {
					done := make(chan error, 1)
					f := func(err error) { done <- err }
					for k := range n {
						x := append(stream.Batch(nil), template...)
						x.Stamp(1, r.End(), int64(k))
						if err := r.Append(x, f); err != nil {
							b.Error(err)
							return
						}
						if err := <-done; err != nil && !errors.Is(err, stream.Throttled) {
							b.Error(err)
							return
						}
					}
				})
			}
			b.ResetTimer()
			wg.Wait()
			b.StopTimer()
			after := l.Stats()
			b.ReportMetric(float64(after.Appends-before.Appends)/float64(after.Fdatasyncs-before.Fdatasyncs), "appends/fdatasync")
		})
	}
}
