package gateway

import (
	"context"
	"slices"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// A retry that meets a reshard. The leader of a shard knows by their ids the
// batches that it has, but a child knows nothing of its parents', and what was
// one batch there is several here, or the reverse. So before records that may be
// stored in a closed shard go to its children, that shard is asked what it has
// of the request (I22). It is closed, so that what it answers stays true (I21).
//
// All of a request's records for a shard wait together, so that a shard gets at
// most one batch of a request, and that is the same one at every repeat.
//
// If the parent does not answer the records wait as for a leader, and fail
// with a retryable error in the end: storing them again would perhaps be
// storing them twice.

// repeatWindow is how long after its closing a shard is asked for the batches of
// an SDK's retry: longer than shards remember them.
const repeatWindow = 3 * time.Minute

// askParents asks the closed shards that may have records of the request, and
// notes the results of those that are stored. It gives the kind for which some
// have not answered, 0 if all have; what is routed to their children is held
// until the next round.
func (c *call) askParents(p *put, m *metadata, v *streamView) (again stream.Kind) {
	p.held = p.held[:0]
	if p.attempt <= 1 && !p.doubt {
		return 0
	}
	p.held = slices.Grow(p.held, len(v.routes))[:len(v.routes)]
	clear(p.held)
	q := inquiry{c: c, p: p, m: m, v: v, silent: make(map[uint32]stream.Kind), young: make(map[int][]uint32)}
	for i := range p.records {
		r := &p.records[i]
		to := v.route(r.hash)
		if r.done || to == nil || to.sealing {
			continue
		}
		if n := uint32(r.perhapsIn - 1); r.perhapsIn > 0 && n != to.shard.Number {
			again = longer(again, q.ask(n, to))
		}
		if p.attempt > 1 {
			for _, n := range q.ancestors(to) {
				again = longer(again, q.ask(n, to))
			}
		}
	}
	return again
}

// inquiry is one round of questions.
type inquiry struct {
	c *call
	p *put
	m *metadata
	v *streamView

	silent map[uint32]stream.Kind // those that have not answered in this round
	young  map[int][]uint32       // by route: its ancestors that may remember requests
}

// ask asks a shard unless it has answered. Without an answer it holds back what
// is routed to its child, and gives the reason.
func (q *inquiry) ask(number uint32, child *route) stream.Kind {
	if slices.Contains(q.p.asked, number) {
		return 0
	}
	kind, known := q.silent[number]
	if !known {
		if kind = q.askShard(number); kind == 0 {
			q.p.asked = append(q.p.asked, number)
			return 0
		}
		q.silent[number] = kind
	}
	q.p.held[child.index] = true
	return kind
}

// askShard asks a shard, and notes what it has.
func (q *inquiry) askShard(number uint32) stream.Kind {
	c, id := q.c, stream.ShardID{Stream: stream.StreamID(q.v.Id), Number: number}
	request := &pb.FindRepeatRequest{
		Shard:     &pb.ShardRef{StreamId: q.v.Id, Shard: number},
		RequestId: c.id[:], InvocationId: q.p.invocation[:], Attempt: uint32(q.p.attempt),
	}
	var found *pb.FindRepeatResponse
	err := c.onceAtLeader(q.m, id, func(ctx context.Context, data pb.DataClient) (pb.ErrorKind, string, error) {
		r, err := data.FindRepeat(ctx, request)
		found = r
		return r.GetError(), r.GetDetail(), err
	})
	switch kind := kindOf(err); {
	case err == nil:
		q.p.found(q.v, number, found)
		return 0
	case kind == stream.NotFound: // nothing of the request, or the shard has expired
		return 0
	case mayRetry(kind):
		return kind
	default:
		c.g.log.Error("a closed shard can't tell what it has of a request", "request", c.requestID(),
			"stream", q.v.Name, "shard", number, "error", err)
		return stream.Unavailable
	}
}

// found notes the results of the records that a shard has stored.
func (p *put) found(v *streamView, number uint32, r *pb.FindRepeatResponse) {
	s := v.shard(number)
	offset := stream.Offset(r.BaseOffset)
	for _, ordinal := range r.Ordinals {
		if i := int(ordinal); i < len(p.records) && !p.records[i].done && rangeOf(s).Contains(p.records[i].hash) {
			p.succeed(v.metrics, i, stream.RecordSequence(s.Number, createdSecond(s), offset, r.ArrivalMs/1000))
		}
		offset++
	}
}

// ancestors gives the shards that were closed so lately, on the way to this one,
// that they may remember an earlier attempt of an SDK's.
func (q *inquiry) ancestors(to *route) []uint32 {
	numbers, known := q.young[to.index]
	if known {
		return numbers
	}
	since := q.c.g.cfg.Now().Add(-repeatWindow).UnixMilli()
	var walk func(*pb.Shard)
	walk = func(s *pb.Shard) {
		for _, n := range s.Parents {
			parent := q.v.shard(n)
			if parent == nil || parent.State != pb.ShardState_SHARD_STATE_CLOSED || parent.ClosedMs < since || slices.Contains(numbers, n) {
				continue
			}
			if parent.FinalOffset > 0 { // else it has nothing, and perhaps no replicas
				numbers = append(numbers, n)
			}
			walk(parent)
		}
	}
	walk(to.shard)
	q.young[to.index] = numbers
	return numbers
}
