package gateway

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// fakeTail follows a log of the fake. It keeps no rules of subscriptions: onTail
// answers for them.
type fakeTail struct {
	grpc.ClientStream
	ctx     context.Context
	data    fakeData
	in      *pb.TailRequest
	next    uint64
	first   bool
	ended   bool
	changed chan struct{}
}

// Tail is that of the fake's leader.
func (d fakeData) Tail(ctx context.Context, in *pb.TailRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.TailEvent], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tails = append(d.tails, in)
	if d.onTail != nil {
		if kind := d.onTail(d.node, in); kind != 0 {
			return nil, stream.Errorf(kind, "fake", "refused")
		}
	}
	t := &fakeTail{ctx: ctx, data: d, in: in, next: in.Offset, first: true, changed: make(chan struct{}, 1)}
	d.tailing[t] = true
	context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.tailing, t)
	})
	return t, nil
}

// wakeTailsLocked lets all tails look again.
func (f *fakeBroker) wakeTailsLocked() {
	for t := range f.tailing {
		select {
		case t.changed <- struct{}{}:
		default:
		}
	}
}

// breakTails ends the tails that are open with that kind.
func (f *fakeBroker) breakTails(kind stream.Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for t := range f.tailing {
		f.broken[t] = kind
	}
	f.wakeTailsLocked()
}

// openTails counts the tails that have not ended.
func (f *fakeBroker) openTails() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.tailing)
}

func (t *fakeTail) Recv() (*pb.TailEvent, error) {
	if t.ended {
		return nil, io.EOF
	}
	var silent <-chan time.Time
	if t.in.MaxSilenceMs > 0 {
		timer := time.NewTimer(time.Duration(t.in.MaxSilenceMs) * time.Millisecond)
		defer timer.Stop()
		silent = timer.C
	}
	speak := t.first
	t.first = false
	for {
		if e, err := t.look(speak); e != nil || err != nil {
			return e, err
		}
		select {
		case <-t.changed:
		case <-silent:
			speak = true
		case <-t.ctx.Done():
			return nil, t.ctx.Err()
		}
	}
}

func (t *fakeTail) look(speak bool) (*pb.TailEvent, error) {
	f := t.data.fakeBroker
	f.mu.Lock()
	defer f.mu.Unlock()
	if kind := f.broken[t]; kind != 0 {
		delete(f.broken, t)
		return nil, stream.Errorf(kind, "fake", "broken")
	}
	id := shardOf(t.in.Shard)
	log := f.logs[id]
	if log == nil || f.streams[uint64(id.Stream)] == nil {
		return nil, stream.Errorf(stream.NotFound, "fake", "no shard %s", id)
	}
	high := log.end - log.hidden
	e := &pb.TailEvent{LogStart: uint64(log.start), HighWatermark: uint64(high)}
	for _, b := range log.batches {
		if b.End() > high {
			break
		}
		e.LastArrivalMs = b.Arrival()
		if b.End() > max(stream.Offset(t.next), log.start) {
			e.Batches = append(e.Batches, b)
			t.next = uint64(b.End())
		}
	}
	for _, s := range f.shards[uint64(id.Stream)] {
		if s.Number == id.Number && s.State == pb.ShardState_SHARD_STATE_CLOSED && t.next >= s.FinalOffset {
			e.Ended, t.ended = true, true
		}
	}
	if len(e.Batches) == 0 && !e.Ended && !speak || f.silentTails {
		return nil, nil
	}
	return e, nil
}

// hide keeps the last n offsets of a log above the high watermark.
func (f *fakeBroker) hide(id uint64, shard uint32, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logs[stream.ShardID{Stream: stream.StreamID(id), Number: shard}].hidden = stream.Offset(n)
	f.wakeTailsLocked()
}
