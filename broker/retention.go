package broker

import (
	"context"
	"time"
)

// trimEvery is how often expired records are dropped from shards that nobody
// reads; a read never shows them in any case.
const trimEvery = time.Minute

// expire trims every led shard by its stream's retention, until the context ends.
func (h *host) expire(ctx context.Context) {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			h.each(func(s *hosted) { s.Expire(h.cutoff(s)) })
		}
	}
}
