package gateway

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const (
	// The pause before the watch is opened again after it failed.
	minWatchPause = 10 * time.Millisecond
	maxWatchPause = 250 * time.Millisecond

	// minWatch is how long a watch is left in peace before a doubt about it
	// opens another: each begins with the whole metadata.
	minWatch = time.Second

	// readyGrace is how long a gateway without a watch still counts as
	// ready: what it knows mostly still holds, and the next broker is near.
	readyGrace = 5 * time.Second
)

// watching is the state of the metadata watch, for others than its goroutine.
type watching struct {
	mu      sync.Mutex // protects all below
	cancel  context.CancelCauseFunc
	since   time.Time // when the present watch first spoke; zero if it has not
	lost    time.Time // when the last one ended
	started bool
}

// watch keeps the mirror up to date until ctx ends. A watch that breaks or
// falls silent is opened again, at another broker if there are several; the
// mirror meanwhile keeps what it has.
func (g *Gateway) watch(ctx context.Context) {
	pause, silence, broken := minWatchPause, g.cfg.WatchSilence, false
	for {
		started := time.Now()
		spoke, cause := g.watchOnce(ctx, silence, func() {
			if broken {
				g.log.Info("metadata watch is back")
				broken = false
			}
		})
		if ctx.Err() != nil {
			return
		}
		switch {
		case time.Since(started) > 10*time.Second: // it was sound for long enough
			silence = g.cfg.WatchSilence
		case stream.KindOf(cause) == stream.Timeout:
			// Perhaps it is we who are starved: give it more time.
			silence = min(2*silence, 10*time.Second)
		}
		if spoke {
			pause = minWatchPause
		}
		g.metrics.watchBreaks.Inc()
		if broken {
			g.log.Debug("metadata watch did not open", "error", cause)
		} else {
			g.log.Warn("metadata watch broke, trying another broker", "error", cause)
			broken = true
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, maxWatchPause)
	}
}

// watchOnce follows one watch until it breaks. It tells by opened when it has
// spoken.
func (g *Gateway) watchOnce(ctx context.Context, silence time.Duration, opened func()) (spoke bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g.watching.begin(cancel)
	defer g.watching.end()
	quiet := stream.Errorf(stream.Timeout, "gateway.watch", "silent for %v", silence)
	watchdog := time.AfterFunc(silence, func() { cancel(quiet) })
	defer watchdog.Stop()

	why := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	w, err := g.cfg.Cluster.WatchMetadata(ctx, &pb.WatchMetadataRequest{})
	if err != nil {
		return false, why(err)
	}
	g.meta.begin()
	for {
		e, err := w.Recv()
		if err != nil {
			return spoke, why(err)
		}
		watchdog.Reset(silence)
		if !spoke {
			spoke = true
			g.watching.spoke()
			opened()
		}
		if m := g.meta.apply(e); m != nil {
			g.inflight.moved(m)
		}
	}
}

func (w *watching) begin(cancel context.CancelCauseFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel, w.since, w.started = cancel, time.Time{}, false
}

func (w *watching) spoke() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since, w.started = time.Now(), true
}

func (w *watching) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started {
		w.lost = time.Now()
	}
	w.cancel, w.started = nil, false
}

var errBehind = stream.Errorf(stream.Stale, "gateway.watch", "the broker is behind the others")

// watchElsewhere opens another watch, unless the present one is young.
func (g *Gateway) watchElsewhere() {
	w := &g.watching
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil && w.started && time.Since(w.since) >= minWatch {
		w.cancel(errBehind)
	}
}

// Unready says why the gateway cannot serve; nil if it can: it knows the
// metadata and a broker is there. It does not ask the metadata's leader: while
// that is being elected records flow on, and all gateways at once must not
// leave their load balancer.
func (g *Gateway) Unready() error {
	const op = "gateway.Unready"
	if g.stopping.Load() {
		return stream.Errorf(stream.Unavailable, op, "stopping")
	}
	if g.meta.load().cluster == nil {
		return stream.Errorf(stream.Unavailable, op, "the cluster's metadata is not here yet")
	}
	w := &g.watching
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.started && time.Since(w.lost) > readyGrace {
		return stream.Errorf(stream.Unavailable, op, "no broker has answered for %v", time.Since(w.lost).Round(time.Second))
	}
	return nil
}
