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
	stays  func(*streamView) bool // more that must hold of the stream; nil: nothing
	moved  atomic.Bool            // given up
	seen   *streamView            // of the metadata that moved was told last; guarded by inflight.mu
}

var errMoved = stream.Errorf(stream.NotLeader, "gateway.leader", "given up: the shard has another leader")

// begin notes a call that is routed by m. The context that it gives ends when the
// metadata shows that the node leads one of the shards no more. end must be
// called after the call.
func (c *call) begin(m *metadata, n *inflightCall) context.Context {
	ctx, cancel := context.WithDeadline(c.parent, c.deadline)
	n.cancel = cancel
	c.g.inflight.begin(&c.g.meta.current, m, n)
	return ctx
}

// begin notes a call that is routed by m. end must be called after it.
func (f *inflight) begin(current *atomic.Pointer[metadata], m *metadata, n *inflightCall) {
	f.mu.Lock()
	f.calls[n] = struct{}{}
	f.mu.Unlock()
	// What changed before it was noted.
	if now := current.Load(); now != m && !n.isRouted(now.byID[n.stream]) {
		n.giveUp()
	}
}

// end forgets a call, and gives its error as the caller should see it.
func (c *call) end(n *inflightCall, err error) error {
	if moved := c.g.inflight.end(n); moved && err != nil {
		return errMoved
	}
	return err
}

// end forgets a call, and reports whether it was given up.
func (f *inflight) end(n *inflightCall) bool {
	f.mu.Lock()
	delete(f.calls, n)
	f.mu.Unlock()
	n.cancel()
	return n.moved.Load()
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
		v := m.byID[c.stream]
		if v == c.seen && v != nil {
			continue // most changes are of other streams
		}
		if c.seen = v; !c.isRouted(v) {
			c.giveUp()
		}
	}
}

// isRouted reports whether the stream as it is now still sends all of the call's
// shards to its node, and the rest holds. A stream that is gone (nil) is for the
// node to tell.
func (c *inflightCall) isRouted(v *streamView) bool {
	if v == nil {
		return true
	}
	if c.stays != nil && !c.stays(v) {
		return false
	}
	return !slices.ContainsFunc(c.shards, func(number uint32) bool {
		s := v.shard(number)
		return s != nil && leaderNode(s) != c.node
	})
}
