package gateway

import (
	"context"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// The pause before the watch is opened again after it failed.
const (
	minWatchPause = 10 * time.Millisecond
	maxWatchPause = time.Second
)

// watch keeps the mirror up to date until ctx ends. A watch that breaks or
// falls silent is opened again; the mirror meanwhile keeps what it has.
func (g *Gateway) watch(ctx context.Context) {
	pause, silence := minWatchPause, g.cfg.WatchSilence
	for {
		started := g.cfg.Now()
		silent, err := g.watchOnce(ctx, silence)
		if ctx.Err() != nil {
			return
		}
		switch {
		case g.cfg.Now().Sub(started) > 10*time.Second: // it was sound for long enough
			pause, silence = minWatchPause, g.cfg.WatchSilence
		case silent:
			// Perhaps it is we who are starved: give it more time.
			silence = min(2*silence, 10*time.Second)
		}
		g.metrics.watchBreaks.Inc()
		g.log.Warn("metadata watch broke", "error", err, "pause", pause)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, maxWatchPause)
	}
}

// watchOnce follows one watch until it breaks.
func (g *Gateway) watchOnce(ctx context.Context, silence time.Duration) (silent bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := stream.Errorf(stream.Timeout, "gateway.watch", "silent for %v", silence)
	watchdog := time.AfterFunc(silence, func() { cancel(quiet) })
	defer watchdog.Stop()

	w, err := g.cfg.Cluster.WatchMetadata(ctx, &pb.WatchMetadataRequest{})
	if err != nil {
		return context.Cause(ctx) == quiet, err
	}
	g.meta.begin()
	for {
		e, err := w.Recv()
		if err != nil {
			if context.Cause(ctx) == quiet {
				return true, quiet
			}
			return false, err
		}
		watchdog.Reset(silence)
		g.meta.apply(e)
	}
}
