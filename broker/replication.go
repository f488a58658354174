package broker

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"shardstream/broker/recordlog"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// replicationService takes what leaders on other nodes push.
type replicationService struct {
	pb.UnimplementedReplicationServer
	peers   *peers
	records *recordlog.Log
}

// Push serves one lane of another node until it breaks. Answers go back on the
// tail lane, all of them: they are cumulative, and told apart by their session.
func (s *replicationService) Push(in grpc.BidiStreamingServer[pb.PushFrame, pb.AnswerFrame]) error {
	first, err := in.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if err := s.check(hello); err != nil {
		return err
	}
	if err := in.Send(&pb.AnswerFrame{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	stop := context.AfterFunc(s.peers.ctx, cancel)
	defer stop()

	p := s.peers.peer(stream.NodeID(hello.FromNode))
	i := &inbound{service: s, peer: p, in: in, pinged: make(chan struct{}, 1)}
	var answering sync.WaitGroup
	defer answering.Wait()
	if !hello.CatchUp {
		// A new stream replaces the one before, which may be slow to die.
		p.mu.Lock()
		if p.inbound != nil {
			p.inbound()
		}
		p.inbound = cancel
		p.mu.Unlock()
		answering.Go(func() {
			defer cancel()
			i.answer(ctx)
		})
	}
	frames := make(chan error, 1)
	// Recv ends when this method has returned, so it can't be waited for here.
	s.peers.running.Go(func() { frames <- i.receive(ctx) })
	select {
	case err = <-frames:
	case <-ctx.Done():
		err = stream.Errorf(stream.Unavailable, "broker.Push", "a newer stream, or the broker stops")
	}
	cancel()
	return err
}

func (s *replicationService) check(h *pb.PushHello) error {
	const op = "broker.Push"
	switch {
	case h == nil:
		return stream.Errorf(stream.Invalid, op, "a stream without a greeting")
	case h.ClusterId != s.peers.clusterID:
		return stream.Errorf(stream.Invalid, op, "node %s belongs to cluster %s, this is cluster %s", h.FromNode, h.ClusterId, s.peers.clusterID)
	case h.ToNode != string(s.peers.self):
		return stream.Errorf(stream.Invalid, op, "this is node %s, not %s: its address has moved", s.peers.self, h.ToNode)
	}
	if b := s.peers.host.meta.State().Broker(h.FromNode); b != nil && b.Incarnation > h.FromIncarnation {
		return stream.Errorf(stream.Stale, op, "node %s has been started anew", h.FromNode)
	}
	return nil
}

// inbound is one stream from another node.
type inbound struct {
	service *replicationService
	peer    *peer
	in      grpc.BidiStreamingServer[pb.PushFrame, pb.AnswerFrame]
	ping    atomic.Uint64
	pinged  chan struct{} // capacity 1
}

// receive hands the frames' messages to the replicas here.
func (i *inbound) receive(ctx context.Context) error {
	host, from := i.service.peers.host, i.peer.node
	for {
		f, err := i.in.Recv()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, m := range f.Hands {
			if r := host.replicaOf(m.StreamId, m.Shard); r != nil {
				r.HandleHand(from, m)
			}
		}
		for _, m := range f.Cuts {
			if r := host.replicaOf(m.StreamId, m.Shard); r != nil {
				r.HandleCut(from, m)
			}
		}
		for _, m := range f.Appends {
			r := host.replicaOf(m.StreamId, m.Shard)
			if r == nil {
				continue
			}
			// A full journal holds the stream up, and so the sender. When it
			// takes too long the append is refused, and the leader told.
			if err := i.service.records.Admit(ctx, len(m.Batch)); err != nil && ctx.Err() != nil {
				return ctx.Err()
			}
			r.HandleAppend(from, m)
		}
		for _, m := range f.Marks {
			if r := host.replicaOf(m.StreamId, m.Shard); r != nil {
				r.HandleMark(from, m)
			}
		}
		if f.Ping > 0 {
			i.ping.Store(f.Ping)
			select {
			case i.pinged <- struct{}{}:
			default:
			}
		}
	}
}

// answer sends what the followers here have to say. An answer to a ping stands
// behind all that was to be said when it came.
func (i *inbound) answer(ctx context.Context) {
	queue := i.peer.answers
	for {
		select {
		case <-ctx.Done():
			return
		case <-queue.wake:
		case <-i.pinged:
		}
		for {
			runtime.Gosched() // what the same sync has made durable goes with this frame
			f := &pb.AnswerFrame{Pong: i.ping.Swap(0)}
			for n := queue.len(); n > 0; n-- {
				queue.take().FillAnswer(i.peer.node, f)
			}
			if f.Pong == 0 && len(f.Replies)+len(f.Acks)+len(f.Nacks) == 0 {
				break
			}
			if i.in.Send(f) != nil {
				return
			}
		}
	}
}
