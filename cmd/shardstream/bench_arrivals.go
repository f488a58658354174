package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"shardstream/cmd/shardstream/internal/benchclient"
)

// arrivals reads every shard from its end on while a load is put, and measures
// the time from each record's sending to its arrival here.
type arrivals struct {
	load    *load
	poll    time.Duration
	stop    context.CancelFunc
	wg      sync.WaitGroup
	readers []*arrivalReader
	count   atomic.Int64
	changed chan struct{} // signalled when count has grown
}

type arrivalReader struct {
	latency *hdrhistogram.Histogram // microseconds
	errors  int64
	last    string // what the last error said
}

// startArrivals returns when every reader stands at its shard's end: what is
// put from then on will arrive.
func startArrivals(ctx context.Context, target *benchclient.Target, s *benchStream, l *load, poll time.Duration) (*arrivals, error) {
	ctx, stop := context.WithCancel(ctx)
	a := &arrivals{load: l, poll: poll, stop: stop, changed: make(chan struct{}, 1)}
	for _, shard := range s.shards {
		conn := target.NewConn()
		cursor, err := s.cursor(ctx, conn, shard, "LATEST", 10000)
		if err != nil {
			conn.Close()
			a.finish(0)
			return nil, err
		}
		r := &arrivalReader{latency: newLatency()}
		a.readers = append(a.readers, r)
		a.wg.Go(func() {
			defer conn.Close()
			a.read(ctx, cursor, r)
		})
	}
	return a, nil
}

func (a *arrivals) read(ctx context.Context, cursor *shardCursor, r *arrivalReader) {
	for ctx.Err() == nil && cursor.iterator != "" {
		arrived := int64(0)
		_, caughtUp, err := cursor.next(ctx, func(g benchclient.Got) {
			stamp, _, ours := a.load.format.Read(g.Data)
			if !ours {
				return
			}
			arrived++
			since := time.Since(a.load.began) - time.Duration(stamp.Nanos)
			_ = r.latency.RecordValue(max(1, since.Microseconds()))
		})
		if arrived > 0 {
			a.count.Add(arrived)
			select {
			case a.changed <- struct{}{}:
			default:
			}
			continue
		}
		if err != nil && ctx.Err() == nil {
			r.errors++
			r.last = err.Error()
			_ = pause(ctx, max(a.poll, 10*time.Millisecond)) // the loop sees when ctx has ended
		} else if caughtUp {
			_ = pause(ctx, a.poll)
		}
	}
}

// finish waits until want records have arrived, or none for five seconds, and
// then stops the readers.
func (a *arrivals) finish(want int64) {
	awaitArrivals(&a.count, a.changed, want)
	a.stop()
	a.wg.Wait()
}

// awaitArrivals waits until count, whose growth changed signals, is want, or has
// not grown for five seconds.
func awaitArrivals(count *atomic.Int64, changed <-chan struct{}, want int64) {
	patience := time.NewTimer(5 * time.Second)
	defer patience.Stop()
	for count.Load() < want {
		select {
		case <-changed:
			patience.Reset(5 * time.Second)
		case <-patience.C:
			return
		}
	}
}

func (a *arrivals) report(r *benchResult) {
	latency := newLatency()
	for _, reader := range a.readers {
		latency.Merge(reader.latency)
		if reader.errors > 0 {
			r.Errors[fmt.Sprintf("(reading) %s", reader.last)] += reader.errors
		}
	}
	r.EndToEnd = &benchArrivals{Records: a.count.Load(), Latency: summarize(latency)}
}
