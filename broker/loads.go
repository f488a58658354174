package broker

import (
	"context"
	"sync/atomic"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// reportsPerInterval is how often loads are told within the interval over which
// they are averaged.
const reportsPerInterval = 6

// written counts what a shard of an on-demand stream has been given here.
type written struct{ bytes, records atomic.Uint64 }

func (w *written) add(bytes, records int) {
	w.bytes.Add(uint64(bytes))
	w.records.Add(uint64(records))
}

// loadReporter tells the controller what was written to the on-demand shards
// that this node leads. What could not be told is told with what comes later, as
// an average over the longer time.
type loadReporter struct {
	cluster, node string
	incarnation   uint64
	host          *host
	every         time.Duration
	since         func() time.Duration // a clock that never jumps
	send          func(context.Context, *pb.LoadReport) error

	// Owned by run.
	untold map[stream.ShardID]*pb.ShardLoad // at most one for each shard of this node
	from   time.Duration                    // since when
}

// run reports until the context ends. On a node without on-demand streams it only
// looks whether there are some.
func (r *loadReporter) run(ctx context.Context) {
	r.untold, r.from = make(map[stream.ShardID]*pb.ShardLoad), r.since()
	ticker := time.NewTicker(r.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.tell(ctx)
		}
	}
}

func (r *loadReporter) tell(ctx context.Context) {
	now := r.since()
	if !r.host.takeWritten(r.untold) {
		clear(r.untold)
		r.from = now
		return
	}
	report := &pb.LoadReport{
		ClusterId: r.cluster, NodeId: r.node, Incarnation: r.incarnation, OverMs: (now - r.from).Milliseconds(),
	}
	for _, l := range r.untold {
		report.Loads = append(report.Loads, l)
	}
	ctx, cancel := context.WithTimeout(ctx, min(r.every, proposeTimeout))
	defer cancel()
	if err := r.send(ctx, report); err != nil {
		return // no raft leader at present, or one that does not know of loads
	}
	clear(r.untold)
	r.from = now
}

// takeWritten adds what the shards of on-demand streams have been given since the
// last call. It is false if this node has no such shard.
func (h *host) takeWritten(into map[stream.ShardID]*pb.ShardLoad) (any bool) {
	if !h.hasOnDemand() {
		return false
	}
	h.each(func(s *hosted) {
		if !s.stream.onDemand.Load() {
			return
		}
		any = true
		bytes, records := s.written.bytes.Swap(0), s.written.records.Swap(0)
		if records == 0 {
			return
		}
		id := s.Key().Shard
		l := into[id]
		if l == nil {
			l = &pb.ShardLoad{StreamId: uint64(id.Stream), Shard: id.Number}
			into[id] = l
		}
		l.Bytes, l.Records = l.Bytes+bytes, l.Records+records
	})
	return any
}

func (h *host) hasOnDemand() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, s := range h.streams {
		if s.onDemand.Load() {
			return true
		}
	}
	return false
}

// sendLoads takes a report to the raft leader.
func (b *Broker) sendLoads(ctx context.Context, report *pb.LoadReport) error {
	return b.control.atLeader(ctx, false, func(ctx context.Context, leader string) error {
		if leader == b.control.node {
			_, err := b.controller.ReportLoads(ctx, report)
			return err
		}
		conn, err := b.conns.to(ctx, leader, b.control.address(leader))
		if err != nil {
			return err
		}
		_, err = pb.NewControllerClient(conn).ReportLoads(ctx, report)
		return fromStatus("broker.sendLoads", err)
	})
}
