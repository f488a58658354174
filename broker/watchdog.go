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
type watchdog struct {
	stalledFor func() time.Duration // the longest call under way
	fail       func(error)

	is atomic.Bool
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
			w.look()
		}
	}
}

func (w *watchdog) look() {
	d := w.stalledFor()
	w.is.Store(d > stallNoticed)
	if d > stallFatal {
		w.fail(stream.Errorf(stream.Internal, "broker.watchdog", "the disk has not answered for %s", d.Round(time.Second)))
	}
}
