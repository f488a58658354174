package broker

import (
	"context"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"shardstream/broker/replica"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Bounds of one event. It is small, since a reader that takes nothing in keeps
// one or two of them in memory, here and at its gateway.
const (
	maxTailRecords = 10_000
	maxTailBytes   = 256 << 10
	// tailPace is how long after an event the next one may come: what is committed
	// meanwhile comes together. The first one after a while comes at once.
	tailPace = 5 * time.Millisecond
)

// tail is a reader that follows a shard, without a goroutine of its own: it works
// while somebody is in next. One caller at a time.
type tail struct {
	// Set once.
	host    *host
	stopped <-chan struct{} // closed when the broker stops
	shard   stream.ShardID
	silence time.Duration // 0: none is too long
	sub     *pb.Subscription
	seats   *seats
	holder  *holder // nil without a subscription
	share   *share  // of the shard's throughput; nil: all of it
	watch   *replica.Watch

	from  stream.Offset
	at    *replica.Replica // where the watch may wait
	timer *time.Timer
	last  time.Time // of the last event; zero before the first
	tip   bool      // that event held all there was
	ended bool
}

// openTail begins a tail and takes the consumer's seat. close must be called.
// Kinds: those of reading and of seats.take.
func (s *dataService) openTail(req *pb.TailRequest) (*tail, error) {
	shard := shardOf(req.Shard)
	h, err := s.host.reading(shard)
	if err != nil {
		return nil, err
	}
	if !h.Leading() {
		return nil, stream.Errorf(stream.NotLeader, "broker.Tail", "this node does not lead shard %s", shard)
	}
	t := &tail{
		host: s.host, stopped: s.stopped, shard: shard, silence: time.Duration(req.MaxSilenceMs) * time.Millisecond,
		sub: req.Subscription, seats: &h.seats, watch: replica.NewWatch(),
		from: stream.Offset(req.Offset), timer: time.NewTimer(time.Hour),
	}
	if t.sub != nil {
		if t.holder, err = t.seats.take(t.sub, s.host.clock.since()); err != nil {
			return nil, err
		}
		t.share = s.host.limits.share()
	}
	return t, nil
}

func (t *tail) close() {
	t.timer.Stop()
	if t.at != nil {
		t.at.Forget(t.watch)
	}
	if t.holder != nil {
		t.seats.leave(t.sub, t.holder, !t.last.IsZero())
	}
}

// displaced is nil, and so blocks for ever, for a reader without a subscription.
func (t *tail) displaced() <-chan struct{} {
	if t.holder == nil {
		return nil
	}
	return t.holder.displaced
}

// next gives the next event as soon as there is something to say: batches, the
// end of the shard, or silence that has lasted long enough. After the end it
// gives io.EOF. Kinds: those of a read; WrongState when another subscription of
// the consumer has taken over; Unavailable when the broker stops.
func (t *tail) next(ctx context.Context) (*pb.TailEvent, error) {
	if t.ended {
		return nil, io.EOF
	}
	select {
	case <-t.displaced(): // also while there is much to read, and nothing to wait for
		return nil, errDisplaced
	case <-t.stopped:
		return nil, errStopping
	default:
	}
	if t.tip {
		if err := t.sleep(ctx, tailPace-time.Since(t.last)); err != nil {
			return nil, err
		}
	}
	if held, err := t.hold(ctx); held != nil || err != nil {
		return held, err
	}
	first := t.last.IsZero()
	event, err := t.look(first, maxTailRecords)
	if event != nil || err != nil {
		return event, err
	}
	var silent <-chan time.Time
	if t.silence > 0 {
		t.timer.Reset(t.silence - time.Since(t.last))
		silent = t.timer.C
	}
	for {
		speak := false
		select {
		case <-t.watch.C:
		case <-silent:
			speak = true
		case <-t.displaced():
			return nil, errDisplaced
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.stopped:
			return nil, errStopping
		}
		if event, err := t.look(speak, maxTailRecords); event != nil || err != nil {
			return event, err
		}
	}
}

var errStopping = stream.Errorf(stream.Unavailable, "broker.Tail", "this broker is stopping")

func (t *tail) sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t.timer.Reset(d)
	select {
	case <-t.timer.C:
		return nil
	case <-t.displaced():
		return errDisplaced
	case <-ctx.Done():
		return ctx.Err()
	case <-t.stopped:
		return errStopping
	}
}

// hold waits while the consumer has had its share of the shard. If that is for
// longer than it may be silent it gives an event without records.
func (t *tail) hold(ctx context.Context) (*pb.TailEvent, error) {
	d := t.share.delay()
	if d <= 0 {
		return nil, nil
	}
	if left := t.silence - time.Since(t.last); t.silence > 0 && left < d {
		if err := t.sleep(ctx, left); err != nil {
			return nil, err
		}
		return t.look(true, 0)
	}
	return nil, t.sleep(ctx, d)
}

// look gives an event of up to so many records if there is something new, or if
// it is to speak anyway. Without one the watch waits.
func (t *tail) look(speak bool, records int) (*pb.TailEvent, error) {
	h, err := t.host.reading(t.shard)
	if err != nil {
		return nil, err
	}
	if t.at != nil && t.at != h.Replica {
		t.at.Forget(t.watch)
	}
	t.at = h.Replica
	there, err := h.Await(t.watch, t.from)
	if err != nil {
		return nil, err
	}
	if !there {
		records = 0
		if speak = speak || t.atEnd(); !speak {
			return nil, nil
		}
	}
	r, err := h.Read(t.from, t.host.cutoff(h), records, maxTailBytes)
	if err != nil {
		return nil, err
	}
	e := &pb.TailEvent{LogStart: uint64(r.Start), HighWatermark: uint64(r.HighWatermark), LastArrivalMs: r.LastArrival, Settling: r.Settling}
	if n := len(r.Batches); n > 0 {
		e.Batches = make([][]byte, n)
		for i, b := range r.Batches {
			e.Batches[i] = b
		}
		t.share.pushed(r.Batches, t.from)
		t.from = r.Batches[n-1].End()
	} else if records > 0 {
		t.from = r.HighWatermark // nothing but a hole that was given up
	}
	t.tip = t.from >= r.HighWatermark
	t.ended = t.atEnd()
	e.Ended = t.ended
	t.last = time.Now()
	return e, nil
}

// atEnd reports whether the shard will never have anything from here on (I21).
func (t *tail) atEnd() bool {
	s := t.host.meta.State().Shard(uint64(t.shard.Stream), t.shard.Number)
	return s.GetState() == pb.ShardState_SHARD_STATE_CLOSED && t.from >= stream.Offset(s.FinalOffset)
}

// Tail follows a shard for a caller.
func (s *dataService) Tail(req *pb.TailRequest, out grpc.ServerStreamingServer[pb.TailEvent]) error {
	t, err := s.openTail(req)
	if err != nil {
		return err
	}
	defer t.close()
	for {
		e, err := t.next(out.Context())
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := out.Send(e); err != nil {
			return err
		}
	}
}

// Tail gives the tail itself, which works in its caller's goroutine.
func (c inProcessData) Tail(ctx context.Context, in *pb.TailRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.TailEvent], error) {
	t, err := c.service.openTail(in)
	if err != nil {
		return nil, toStatus(err)
	}
	p := &inProcessTail{ctx: ctx, tail: t}
	context.AfterFunc(ctx, p.end)
	return p, nil
}

// inProcessTail is the stream of a Tail within the process. As with gRPC it ends
// with its context, or with an error of Recv.
type inProcessTail struct {
	ctx context.Context

	mu   sync.Mutex // held while Recv is in the tail
	tail *tail      // nil when it has ended
}

func (p *inProcessTail) Recv() (*pb.TailEvent, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ctx.Err(); err != nil || p.tail == nil {
		return nil, toStatus(context.Canceled)
	}
	e, err := p.tail.next(p.ctx)
	if err == nil {
		return e, nil
	}
	p.endLocked()
	if err == io.EOF {
		return nil, err
	}
	return nil, toStatus(err)
}

func (p *inProcessTail) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked()
}

func (p *inProcessTail) endLocked() {
	if p.tail != nil {
		p.tail.close()
		p.tail = nil
	}
}

// What else gRPC's generated interface asks for has no meaning in a process.

func (p *inProcessTail) Header() (metadata.MD, error) { return nil, nil }
func (p *inProcessTail) Trailer() metadata.MD         { return nil }
func (p *inProcessTail) CloseSend() error             { return nil }
func (p *inProcessTail) Context() context.Context     { return p.ctx }
func (p *inProcessTail) SendMsg(any) error            { return io.ErrClosedPipe }
func (p *inProcessTail) RecvMsg(any) error            { return io.ErrClosedPipe }
