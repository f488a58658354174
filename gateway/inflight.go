package gateway

import (
	"context"
	"slices"
	"sync"

	"shardstream/stream"
)

// inflight knows the calls that are waiting for a node, so that those whose shard
// gets another leader are given up at once: the node may be dead or cut off, and
// would leave them hanging until their deadline. A put given up is repeated with
// its request id, by which the new leader knows it (I22).
type inflight struct {
	mu    sync.Mutex // protects calls
	calls map[*inflightCall]struct{}
}

// inflightCall is one call of a node.
type inflightCall struct {
	node   string
	stream uint64
	shards []uint32
	cancel context.CancelCauseFunc
}

var errMoved = stream.Errorf(stream.NotLeader, "gateway.leader", "given up: the shard has another leader")

// begin notes a call that is routed by m. The context that it gives ends when the
// metadata shows that the node leads one of the shards no more. end must be
// called with it after the call.
func (g *Gateway) begin(ctx context.Context, m *metadata, c *inflightCall) context.Context {
	ctx, c.cancel = context.WithCancelCause(ctx)
	g.inflight.mu.Lock()
	g.inflight.calls[c] = struct{}{}
	g.inflight.mu.Unlock()
	// What changed before it was noted.
	if now := g.meta.load(); now != m && !c.isRouted(now) {
		c.cancel(errMoved)
	}
	return ctx
}

// end forgets a call, and gives its error as the caller should see it.
func (g *Gateway) end(ctx context.Context, c *inflightCall, err error) error {
	if err != nil && context.Cause(ctx) == errMoved {
		err = errMoved
	}
	g.inflight.mu.Lock()
	delete(g.inflight.calls, c)
	g.inflight.mu.Unlock()
	c.cancel(nil)
	return err
}

// moved gives up the calls that m sends elsewhere.
func (f *inflight) moved(m *metadata) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.calls {
		if !c.isRouted(m) {
			c.cancel(errMoved)
		}
	}
}

// isRouted reports whether m still sends all of the call's shards to its node.
// A stream that is gone is for the node to tell.
func (c *inflightCall) isRouted(m *metadata) bool {
	v := m.byID[c.stream]
	return v == nil || !slices.ContainsFunc(c.shards, func(number uint32) bool {
		s := v.shard(number)
		return s != nil && leaderNode(s) != c.node
	})
}
