package gateway

import (
	"context"
	"time"

	"google.golang.org/grpc"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// tailCall is a Tail under way at the leader of a subscription's shard.
type tailCall struct {
	events grpc.ServerStreamingClient[pb.TailEvent]
	note   *inflightCall
	silent *time.Timer // gives the call up
}

var errSilent = stream.Errorf(stream.Timeout, "gateway.subscription", "the leader has said nothing for too long")

// receive gives the leader's next word, of a call that is opened if there is
// none. After an error there is none. Kind Timeout if the leader says nothing
// until the given time.
func (s *subscription) receive(until time.Time) (*pb.TailEvent, error) {
	if s.tail == nil {
		if err := s.connect(until); err != nil {
			return nil, err
		}
	} else {
		s.tail.silent.Reset(time.Until(until))
	}
	e, err := s.tail.events.Recv()
	if err != nil {
		return nil, s.hangUp(err)
	}
	return e, nil
}

// connect opens a Tail from the next offset on. The call is noted, so that it ends
// when another node leads or the consumer is gone.
func (s *subscription) connect(until time.Time) error {
	g := s.c.g
	m := g.meta.load()
	v, shard, node, err := leaderOf(m, s.t.id())
	if err != nil {
		return err
	}
	data, err := g.client(m, node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	note := &inflightCall{
		node: node, stream: v.Id, shards: []uint32{shard.Number}, stays: s.stays,
		cancel: func() { cancel(errMoved) },
	}
	s.tail = &tailCall{note: note, silent: time.AfterFunc(time.Until(until), func() { cancel(errSilent) })}
	g.inflight.begin(&g.meta.current, m, note)
	in := &pb.TailRequest{
		Shard: &pb.ShardRef{StreamId: v.Id, Shard: shard.Number}, Offset: uint64(s.next),
		MaxSilenceMs: uint32(g.cfg.SubscriptionBeat.Milliseconds()),
		Subscription: &pb.Subscription{Consumer: s.consumer.Name, ConsumerCreatedS: s.consumer.CreatedS, Id: s.c.id[:]},
	}
	if !s.began.IsZero() {
		in.Subscription.Resumed, in.Subscription.AgeMs = true, uint64(time.Since(s.began).Milliseconds())
	}
	s.tail.events, err = data.Tail(ctx, in)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return s.hangUp(err)
	}
	return nil
}

// hangUp ends the call, if there is one, and gives its error as it is to be seen.
func (s *subscription) hangUp(err error) error {
	t := s.tail
	if t == nil {
		return err
	}
	s.tail = nil
	silent := !t.silent.Stop()
	moved := s.c.g.inflight.end(t.note)
	switch {
	case err == nil:
	case moved:
		return errMoved
	case silent && kindOf(err) == stream.Timeout:
		return errSilent
	}
	return err
}
