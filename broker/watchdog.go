package broker

import (
	"context"
	"sync/atomic"
	"time"

	"shardstream/stream"
)

const (
	// stallNoticed is how long a call to the disk may take before the node says
	// so and gives its leaderships away.
	stallNoticed = time.Second
	// stallFatal is how long it may take before the node ends, so that the
	// cluster knows for sure.
	stallFatal    = 10 * time.Second
	watchdogEvery = 250 * time.Millisecond
)

// watchdog looks how long calls to the disk are under way. A disk that hangs
// answers nothing and fails nothing, so somebody has to look.
//
// A process that was stopped for a while finds calls that look as old as its
// stop. So only time counts in which the watchdog itself has looked.
type watchdog struct {
	stalledFor func() time.Duration // the longest call under way
	fail       func(error)

	is    atomic.Bool
	last  time.Time     // of the last look
	spent time.Duration // with looking at a stalled disk
}

func (w *watchdog) stalled() bool { return w.is.Load() }

func (w *watchdog) run(ctx context.Context) {
	ticker := time.NewTicker(watchdogEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.look(time.Now())
		}
	}
}

func (w *watchdog) look(now time.Time) {
	d := w.stalledFor()
	if d > stallNoticed {
		w.spent += min(now.Sub(w.last), 2*watchdogEvery)
	} else {
		w.spent = 0
	}
	w.last = now
	w.is.Store(w.spent > watchdogEvery)
	if d > stallFatal && w.spent > stallFatal-stallNoticed-2*watchdogEvery {
		w.fail(stream.Errorf(stream.Internal, "broker.watchdog", "the disk has not answered for %s", d.Round(time.Second)))
	}
}
