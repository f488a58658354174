package broker

import (
	"context"
	"errors"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// idle is how long reconciling may wait when nothing is due.
const idle = time.Hour

// transitions ends CREATING and DELETING of the streams for which everything
// is done and the time has come, and gives the time until the next is due.
// CREATING ends when every replica is on its disk; DELETING when no disk has
// one (here: this node's, which reconcileShards has emptied before).
func (h *host) transitions(ctx context.Context, state *raftfsm.State) time.Duration {
	next := idle
	for id := range h.changing {
		s := state.Stream(uint64(id))
		if s == nil {
			continue
		}
		var c *pb.Command
		switch s.Status {
		case pb.StreamStatus_STREAM_STATUS_CREATING:
			if !allCreated(state.Shards(s.Id)) {
				continue
			}
			c = &pb.Command{Op: &pb.Command_ActivateStream{ActivateStream: &pb.ActivateStream{StreamId: s.Id}}}
		case pb.StreamStatus_STREAM_STATUS_DELETING:
			c = &pb.Command{Op: &pb.Command_RemoveStream{RemoveStream: &pb.RemoveStream{StreamId: s.Id}}}
		default:
			continue
		}
		if wait := time.Duration(s.TransitionAfterMs-h.clock.clusterMs()) * time.Millisecond; wait > 0 {
			next = min(next, wait)
			continue
		}
		err := h.propose(ctx, c)
		if err != nil && !errors.Is(err, stream.WrongState) && !errors.Is(err, stream.NotFound) {
			if ctx.Err() == nil {
				h.logger.Warn("a stream's change could not be completed yet; will retry", "stream", s.Name, "error", err)
			}
			next = min(next, retryDelay)
		}
	}
	return next
}

func allCreated(shards []*pb.Shard) bool {
	for _, s := range shards {
		for _, r := range s.Replicas {
			if r.State == pb.ReplicaState_REPLICA_STATE_NEW {
				return false
			}
		}
	}
	return true
}

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
