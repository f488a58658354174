package gateway

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

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
	cancel context.CancelFunc
	moved  atomic.Bool // given up
}

var errMoved = stream.Errorf(stream.NotLeader, "gateway.leader", "given up: the shard has another leader")

// begin notes a call that is routed by m. The context that it gives ends when the
// metadata shows that the node leads one of the shards no more. end must be
// called after the call.
func (c *call) begin(m *metadata, n *inflightCall) context.Context {
	ctx, cancel := context.WithDeadline(c.parent, c.deadline)
	n.cancel = cancel
	f := &c.g.inflight
	f.mu.Lock()
	f.calls[n] = struct{}{}
	f.mu.Unlock()
	// What changed before it was noted.
	if now := c.g.meta.load(); now != m && !n.isRouted(now) {
		n.giveUp()
	}
	return ctx
}

// end forgets a call, and gives its error as the caller should see it.
func (c *call) end(n *inflightCall, err error) error {
	f := &c.g.inflight
	f.mu.Lock()
	delete(f.calls, n)
	f.mu.Unlock()
	n.cancel()
	if err != nil && n.moved.Load() {
		return errMoved
	}
	return err
}

func (n *inflightCall) giveUp() {
	n.moved.Store(true)
	n.cancel()
}

// moved gives up the calls that m sends elsewhere.
func (f *inflight) moved(m *metadata) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.calls {
		if !c.isRouted(m) {
			c.giveUp()
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
