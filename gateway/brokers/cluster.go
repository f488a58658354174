package brokers

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const (
	// A read that one broker does not answer is asked of the next; each round
	// over all of them is more patient, for they may all be starved.
	minAttempt = 500 * time.Millisecond
	maxAttempt = 4 * time.Second

	// connectTimeout bounds the wait for a connection before the next broker
	// is tried.
	connectTimeout = 500 * time.Millisecond

	minPause = 10 * time.Millisecond
	maxPause = 200 * time.Millisecond
)

// mayAsk reports whether another broker, or the same a moment later, may answer
// a read that failed so.
func mayAsk(k stream.Kind) bool {
	switch k {
	case stream.NotLeader, stream.Unavailable, stream.Timeout, stream.Offline, stream.Stale:
		return true
	}
	return false
}

// eachBroker calls f with one broker after the other, until it says that it is
// done or ctx ends, and then gives the last error. f may use its context for no
// longer than the call.
func (p *Pool) eachBroker(ctx context.Context, f func(ctx context.Context, c *grpc.ClientConn) (done bool, err error)) error {
	patience, pause := minAttempt, minPause
	last := error(stream.Errorf(stream.Unavailable, "brokers", "no broker is known"))
	for {
		for _, address := range p.candidates(ctx, false) {
			conn, err := p.controlConn(address)
			if err != nil {
				return err
			}
			p.chosen(address)
			if err := awaitReady(ctx, conn); err != nil {
				last = stream.Errorf(stream.Unavailable, "brokers", "%s: %w", address, err)
			} else {
				attempt, cancel := context.WithTimeout(ctx, patience)
				done, err := f(attempt, conn)
				cancel()
				if done {
					return err
				}
				last = err
			}
			if ctx.Err() != nil {
				return last
			}
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return last
		}
		patience, pause = min(2*patience, maxAttempt), min(2*pause, maxPause)
	}
}

// awaitReady waits until there is a connection, or none can be made.
func awaitReady(ctx context.Context, c *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for {
		s := c.GetState()
		switch s {
		case connectivity.Ready:
			return nil
		case connectivity.Idle:
			c.Connect()
		case connectivity.TransientFailure, connectivity.Shutdown:
			return stream.Errorf(stream.Unavailable, "brokers.connect", "cannot connect")
		}
		if !c.WaitForStateChange(ctx, s) {
			return stream.Errorf(stream.Timeout, "brokers.connect", "no connection within %v", connectTimeout)
		}
	}
}

// ReadIndex asks one broker after the other: reading twice harms nothing.
func (p *Pool) ReadIndex(ctx context.Context, in *pb.ReadIndexRequest, o ...grpc.CallOption) (out *pb.ReadIndexResponse, err error) {
	err = p.eachBroker(ctx, func(ctx context.Context, c *grpc.ClientConn) (bool, error) {
		var err error
		out, err = pb.NewClusterClient(c).ReadIndex(ctx, in, o...)
		return err == nil || !mayAsk(KindOf(err)), err
	})
	return out, err
}

// Propose gives a command to a broker, and to another only if there was no
// connection or the broker itself says that it has proposed nothing. Whether a
// command whose answer was lost has been applied nobody can say.
func (p *Pool) Propose(ctx context.Context, in *pb.ProposeRequest, o ...grpc.CallOption) (out *pb.ProposeResponse, err error) {
	whole := ctx
	err = p.eachBroker(ctx, func(_ context.Context, c *grpc.ClientConn) (bool, error) {
		var err error
		out, err = pb.NewClusterClient(c).Propose(whole, in, o...)
		k := stream.Kind(0)
		if err != nil {
			k = said(err)
		}
		return k != stream.NotLeader && k != stream.Unavailable, err
	})
	return out, err
}

// WatchMetadata opens a watch at the broker that was tried longest ago: a caller
// whose watch has broken or fallen silent calls again, and comes to another.
func (p *Pool) WatchMetadata(ctx context.Context, in *pb.WatchMetadataRequest, o ...grpc.CallOption) (grpc.ServerStreamingClient[pb.MetadataEvent], error) {
	list := p.candidates(ctx, true)
	if len(list) == 0 {
		return nil, stream.Errorf(stream.Unavailable, "brokers.WatchMetadata", "no broker is known")
	}
	address := list[0]
	conn, err := p.controlConn(address)
	if err != nil {
		return nil, err
	}
	p.chosen(address)
	w, err := pb.NewClusterClient(conn).WatchMetadata(ctx, in, o...)
	if err != nil {
		return nil, stream.Errorf(KindOf(err), "brokers.WatchMetadata", "%s: %w", address, err)
	}
	return &watch{w, p, address}, nil
}

// watch passes on what a broker tells, and learns from it who the brokers are.
type watch struct {
	grpc.ServerStreamingClient[pb.MetadataEvent]
	pool    *Pool
	address string
}

func (w *watch) Recv() (*pb.MetadataEvent, error) {
	e, err := w.ServerStreamingClient.Recv()
	if err != nil {
		w.pool.lost(w.address)
		return nil, stream.Errorf(KindOf(err), "brokers.WatchMetadata", "%s: %w", w.address, err)
	}
	w.pool.alive(w.address)
	w.pool.learn(e.Brokers)
	return e, nil
}

// The calls below are an operator's, about one broker: no gateway makes them.

// NodeStatus is not for a pool.
func (p *Pool) NodeStatus(context.Context, *pb.NodeStatusRequest, ...grpc.CallOption) (*pb.NodeStatusResponse, error) {
	return nil, errOneBroker
}

// ListDamage is not for a pool.
func (p *Pool) ListDamage(context.Context, *pb.ListDamageRequest, ...grpc.CallOption) (*pb.ListDamageResponse, error) {
	return nil, errOneBroker
}

// AcceptDamage is not for a pool.
func (p *Pool) AcceptDamage(context.Context, *pb.AcceptDamageRequest, ...grpc.CallOption) (*pb.AcceptDamageResponse, error) {
	return nil, errOneBroker
}

var errOneBroker = stream.Errorf(stream.Invalid, "brokers", "this is asked of one broker, not of all")
