package gateway

import (
	"context"
	"sync"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// linearizable gives metadata that shows everything committed before the call.
func (g *Gateway) linearizable(ctx context.Context) (*metadata, error) {
	index, err := g.indexes.read(ctx)
	if err != nil {
		return nil, err
	}
	return g.reach(ctx, index)
}

// propose applies a command and waits until our own metadata shows it, so that
// a client reads its writes here. A refusal is a result, not an error. Whether a
// command whose answer was lost has been applied nobody can say, so that it is
// not tried again here; the client's own retry then meets its effect.
func (g *Gateway) propose(ctx context.Context, c *pb.Command) (*pb.CommandResult, error) {
	r, err := g.cfg.Cluster.Propose(ctx, &pb.ProposeRequest{Command: c})
	if err != nil {
		return nil, err
	}
	result := r.GetResult()
	if result == nil {
		return nil, stream.Errorf(stream.Internal, "gateway.propose", "no result")
	}
	if _, err := g.reach(ctx, result.Index); err != nil {
		return nil, err
	}
	return result, nil
}

// reach waits until our metadata has reached an index that a broker has named.
// If it does not come in the time in which a healthy watch would bring it, the
// broker that we watch is behind, perhaps cut off from the others, and the watch
// goes to the next.
func (g *Gateway) reach(ctx context.Context, index uint64) (*metadata, error) {
	if m := g.meta.load(); m.index >= index && m.cluster != nil {
		return m, nil
	}
	for wait := g.cfg.WatchSilence; ; wait *= 2 {
		soon, cancel := context.WithTimeout(ctx, wait)
		m, err := g.meta.awaitIndex(soon, index)
		cancel()
		if err == nil || ctx.Err() != nil {
			return m, err
		}
		g.watchElsewhere()
	}
}

// indexReader asks for verified indexes, one call for all who wait: who comes
// while one is under way is served by the next, since the answer under way may
// be older than the question.
type indexReader struct {
	ask   func() (uint64, error)
	owner *sync.WaitGroup

	mu      sync.Mutex // protects both below
	running bool
	next    *indexAnswer // what the next call will answer; nil if nobody waits
}

type indexAnswer struct {
	done  chan struct{} // closed when the others are set
	index uint64
	err   error
}

// newIndexReader makes a reader whose calls end with ctx, and are awaited by
// owner.
func newIndexReader(ctx context.Context, cluster pb.ClusterClient, timeout time.Duration, owner *sync.WaitGroup) *indexReader {
	return &indexReader{owner: owner, ask: func() (uint64, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		r, err := cluster.ReadIndex(ctx, &pb.ReadIndexRequest{})
		return r.GetIndex(), err
	}}
}

func (r *indexReader) read(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &indexAnswer{done: make(chan struct{})}
	}
	a := r.next
	if !r.running {
		r.running = true
		r.owner.Go(r.run)
	}
	r.mu.Unlock()
	select {
	case <-a.done:
		return a.index, a.err
	case <-ctx.Done():
		return 0, stream.Errorf(stream.Timeout, "gateway.index", "waiting for the metadata's leader: %w", context.Cause(ctx))
	}
}

// run calls until nobody waits.
func (r *indexReader) run() {
	for {
		r.mu.Lock()
		a := r.next
		r.next = nil
		if a == nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		a.index, a.err = r.ask()
		close(a.done)
	}
}
