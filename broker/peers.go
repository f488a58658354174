package broker

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"shardstream/broker/replica"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

const (
	// pushFrame is about how many bytes of batches go into one frame.
	pushFrame = 1 << 20
	// catchUpBurst is how much catch-up may be sent at once.
	catchUpBurst = 4 << 20
	// markDelay is how long a high watermark waits for an append that carries it.
	markDelay = 5 * time.Millisecond
	// pingEvery is how often an idle stream asks for a sign of life; the
	// answers to all before it come first.
	pingEvery = 100 * time.Millisecond
	// greetTimeout bounds the opening of a stream.
	greetTimeout = 2 * time.Second

	reconnectFirst = 20 * time.Millisecond
	reconnectMost  = 500 * time.Millisecond
)

// peers holds the streams to and from all other brokers: one stream per ordered
// pair of nodes and lane carries all shards. What is to be sent is not queued:
// replicas that have something to say stand in a queue, once each, and are asked
// when there is room. So a slow peer costs no memory.
type peers struct {
	// Set once.
	self        stream.NodeID
	clusterID   string
	incarnation uint64
	host        *host
	dial        dialer
	elapsed     func() time.Duration
	logger      *slog.Logger
	ctx         context.Context
	catchUp     *rate.Limiter // bytes per second of all catch-up from this node

	running sync.WaitGroup

	mu     sync.RWMutex
	byNode map[stream.NodeID]*peer
}

// peer is another broker.
type peer struct {
	node    stream.NodeID
	pushes  [2]*ready // by lane: leaders here with something for followers there
	marks   [2]*ready // by lane: leaders here with a newer high watermark for followers there
	answers *ready    // followers here with something for leaders there
	// confirmed is when the ping was sent (elapsed) that was answered last:
	// until then no follower there had adopted a newer epoch without saying so.
	confirmed atomic.Int64

	mu      sync.Mutex
	address string
	changed chan struct{}      // closed when address changes
	inbound context.CancelFunc // ends the tail stream that came from there
	known   bool               // a broker of the metadata; its streams are kept up
}

func newPeers(ctx context.Context, self stream.NodeID, clusterID string, incarnation uint64, h *host, dial dialer, elapsed func() time.Duration, catchUpRate int64, logger *slog.Logger) *peers {
	return &peers{
		self: self, clusterID: clusterID, incarnation: incarnation, host: h, dial: dial, elapsed: elapsed, logger: logger, ctx: ctx,
		catchUp: rate.NewLimiter(rate.Limit(catchUpRate), catchUpBurst),
		byNode:  make(map[stream.NodeID]*peer),
	}
}

// wait waits for all goroutines, which end with the context.
func (p *peers) wait() { p.running.Wait() }

// peer gives the peer of a node, known or not.
func (p *peers) peer(node stream.NodeID) *peer {
	p.mu.RLock()
	q := p.byNode[node]
	p.mu.RUnlock()
	if q != nil {
		return q
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if q = p.byNode[node]; q == nil {
		q = &peer{node: node, pushes: [2]*ready{newReady(), newReady()}, marks: [2]*ready{newReady(), newReady()}, answers: newReady(), changed: make(chan struct{})}
		p.byNode[node] = q
	}
	return q
}

// update keeps streams to all brokers of the metadata.
func (p *peers) update(state *raftfsm.State) {
	for _, b := range state.Brokers() {
		if b.NodeId == string(p.self) || b.State == pb.BrokerState_BROKER_STATE_GONE {
			continue
		}
		q := p.peer(stream.NodeID(b.NodeId))
		q.mu.Lock()
		if q.address != b.GrpcAddress {
			q.address = b.GrpcAddress
			close(q.changed)
			q.changed = make(chan struct{})
		}
		start := !q.known
		q.known = true
		q.mu.Unlock()
		if start {
			p.running.Go(func() { p.keep(q) })
		}
	}
}

func (q *peer) where() (address string, changed <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.address, q.changed
}

// keep has streams to the peer open whenever that is possible.
func (p *peers) keep(q *peer) {
	pause := reconnectFirst
	told := false
	for {
		address, changed := q.where()
		began := p.elapsed()
		err := p.connect(q, address, changed)
		if p.ctx.Err() != nil {
			return
		}
		if p.elapsed()-began > time.Second {
			pause, told = reconnectFirst, false
		}
		if !told {
			p.logger.Info("no replication stream to a broker; trying on", "broker", q.node, "address", address, "error", err)
			told = true
		}
		timer := time.NewTimer(pause)
		select {
		case <-p.ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, reconnectMost)
	}
}

// connect opens both lanes, each on a connection of its own, and serves them
// until one breaks.
func (p *peers) connect(q *peer, address string, changed <-chan struct{}) error {
	if address == "" {
		return stream.Errorf(stream.Unavailable, "broker.push", "it has told no address")
	}
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	var lanes [2]grpc.BidiStreamingClient[pb.PushFrame, pb.AnswerFrame]
	for lane := range lanes {
		conn, err := newClientConn(address, p.dial)
		if err != nil {
			return err
		}
		defer conn.Close()
		if lanes[lane], err = p.greet(ctx, cancel, conn, q, replica.Lane(lane)); err != nil {
			return err
		}
	}
	p.logger.Info("replication streams to a broker are open", "broker", q.node, "address", address)
	p.host.peerUp(q.node)
	var serving sync.WaitGroup
	fail := func(err error) { cancel(err) }
	for lane := range lanes {
		serving.Go(func() { fail(p.push(ctx, q, replica.Lane(lane), lanes[lane])) })
		serving.Go(func() { fail(p.takeAnswers(q, replica.Lane(lane), lanes[lane])) })
	}
	select {
	case <-ctx.Done():
	case <-changed:
		fail(stream.Errorf(stream.Unavailable, "broker.push", "its address has changed"))
	}
	serving.Wait()
	return context.Cause(ctx)
}

// greet opens a stream and waits until the other side has accepted it.
func (p *peers) greet(ctx context.Context, cancel context.CancelCauseFunc, conn *grpc.ClientConn, q *peer, lane replica.Lane) (grpc.BidiStreamingClient[pb.PushFrame, pb.AnswerFrame], error) {
	timer := time.AfterFunc(greetTimeout, func() {
		cancel(stream.Errorf(stream.Timeout, "broker.push", "it did not answer the greeting"))
	})
	defer timer.Stop()
	out, err := pb.NewReplicationClient(conn).Push(ctx)
	if err != nil {
		return nil, err
	}
	if err := out.Send(&pb.PushFrame{Hello: &pb.PushHello{
		ClusterId: p.clusterID, FromNode: string(p.self), FromIncarnation: p.incarnation, ToNode: string(q.node), CatchUp: lane == replica.CatchUp,
	}}); err != nil {
		return nil, err
	}
	if _, err := out.Recv(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, fromStatus("broker.push", err)
	}
	return out, nil
}

// push sends what leaders here have for followers there.
func (p *peers) push(ctx context.Context, q *peer, lane replica.Lane, out grpc.BidiStreamingClient[pb.PushFrame, pb.AnswerFrame]) error {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	queue, marks := q.pushes[lane], q.marks[lane]
	marking := time.NewTimer(time.Hour)
	defer marking.Stop()
	armed := false
	for {
		f := &pb.PushFrame{}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-marks.wake:
			if !armed {
				armed = true
				marking.Reset(markDelay)
			}
			continue
		case <-marking.C:
			armed = false
			for n := marks.len(); n > 0; n-- {
				queue.add(marks.take())
			}
		case <-queue.wake:
		case <-ticker.C:
			if lane == replica.Tail {
				f.Ping = uint64(p.elapsed())
			}
		}
		for {
			runtime.Gosched() // what others are about to add goes with this frame
			budget := pushFrame
			for n := queue.len(); n > 0 && budget > 0; n-- {
				r := queue.take()
				used, more := r.Fill(q.node, lane, f, budget)
				if budget -= used; more {
					queue.add(r)
				}
			}
			if f.Ping == 0 && len(f.Hands)+len(f.Cuts)+len(f.Appends)+len(f.Marks) == 0 {
				break
			}
			if err := out.Send(f); err != nil {
				return err // Recv tells the reason
			}
			if lane == replica.CatchUp {
				// A batch may be larger than the frame was to be.
				if err := p.catchUp.WaitN(ctx, min(pushFrame-budget, catchUpBurst)); err != nil {
					return err
				}
			}
			f = &pb.PushFrame{}
		}
	}
}

// takeAnswers gives the followers' answers to the leaders here.
func (p *peers) takeAnswers(q *peer, lane replica.Lane, in grpc.BidiStreamingClient[pb.PushFrame, pb.AnswerFrame]) error {
	for {
		f, err := in.Recv()
		if err != nil {
			return fromStatus("broker.push", err)
		}
		if lane != replica.Tail {
			continue
		}
		for _, m := range f.Replies {
			if r := p.host.replicaOf(m.StreamId, m.Shard); r != nil {
				r.HandleReply(q.node, m)
			}
		}
		for _, m := range f.Acks {
			if r := p.host.replicaOf(m.StreamId, m.Shard); r != nil {
				r.HandleAck(q.node, m)
			}
		}
		for _, m := range f.Nacks {
			if r := p.host.replicaOf(m.StreamId, m.Shard); r != nil {
				r.HandleNack(q.node, m)
			}
		}
		if f.Pong > 0 {
			q.confirmed.Store(int64(f.Pong))
		}
	}
}

// confirmed reports whether the node has answered within the given time.
func (p *peers) confirmed(node stream.NodeID, within time.Duration) bool {
	at := p.peer(node).confirmed.Load()
	return at > 0 && p.elapsed()-time.Duration(at) < within
}

// ready is a queue of replicas that have something to say, each at most once.
type ready struct {
	wake chan struct{} // capacity 1

	mu     sync.Mutex
	items  []*replica.Replica
	queued map[*replica.Replica]struct{}
}

func newReady() *ready {
	return &ready{wake: make(chan struct{}, 1), queued: make(map[*replica.Replica]struct{})}
}

func (q *ready) add(r *replica.Replica) {
	q.mu.Lock()
	if _, in := q.queued[r]; !in {
		q.queued[r] = struct{}{}
		q.items = append(q.items, r)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *ready) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// take gives the first replica; there must be one. Only one goroutine takes.
func (q *ready) take() *replica.Replica {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.items[0]
	q.items[0] = nil
	if q.items = q.items[1:]; len(q.items) == 0 {
		q.items = nil
	}
	delete(q.queued, r)
	return r
}
