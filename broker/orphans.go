package broker

import (
	"context"
	"time"

	"shardstream/stream"
)

const (
	// orphanAge is for how long the metadata must have been without a stream
	// before its replicas here are deleted, though nothing told so to this
	// node: it was down when the stream was.
	orphanAge  = 24 * time.Hour
	orphanLook = 10 * time.Minute
)

// orphan is a replica on this disk whose stream the metadata does not have.
type orphan struct {
	since time.Duration // when it was seen first
	index uint64        // of the metadata then
}

// orphans finds replicas of streams that were deleted while this node was down.
// That a stream is missing is weak evidence: metadata that merely fails to
// mention data must never delete it (I16). So the stream's id must be one that
// was given out, and it must be missing for a day and at a newer index as well.
type orphans struct {
	seen map[stream.ReplicaKey]orphan
}

// due gives what may be deleted now. missing are the replicas on the disk whose
// streams are not in the metadata at the index.
func (o *orphans) due(missing []stream.ReplicaKey, now time.Duration, index uint64) (gone []stream.ReplicaKey) {
	still := make(map[stream.ReplicaKey]orphan, len(missing))
	for _, key := range missing {
		first, known := o.seen[key]
		if !known {
			first = orphan{now, index}
		}
		still[key] = first
		if now-first.since >= orphanAge && index > first.index {
			gone = append(gone, key)
		}
	}
	o.seen = still
	return gone
}

// sweepOrphans looks for them until the context ends.
func (h *host) sweepOrphans(ctx context.Context) {
	var o orphans
	ticker := time.NewTicker(orphanLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		state := h.meta.State()
		var missing []stream.ReplicaKey
		for _, r := range h.records.Replicas() {
			if deletedStream(state, uint64(r.Key().Shard.Stream)) {
				missing = append(missing, r.Key())
			}
		}
		gone := o.due(missing, h.clock.since(), state.Index())
		if len(gone) == 0 {
			continue
		}
		h.logger.Info("deleting replicas of streams that were deleted while this node was down", "replicas", len(gone))
		if err := h.records.Drop(gone); err != nil {
			h.logger.Warn("they could not be deleted yet", "error", err)
		}
	}
}
