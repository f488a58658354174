package gateway

import (
	"context"
	"math/rand/v2"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Calls of a shard's leader, and the patience with one that is not there: a
// failover is not the client's problem.

// Pauses between attempts when the metadata says nothing new: the leader that
// it names may not have begun to lead yet.
const (
	minRetryPause = 2 * time.Millisecond
	maxRetryPause = 100 * time.Millisecond
)

// mayRetry reports whether a call that failed so may succeed at another moment
// or at another node. Some say that nothing was stored; after a Timeout, a call
// given up and a broken connection it may have been, and the brokers know a batch
// that comes twice by its request id (I22).
func mayRetry(k stream.Kind) bool {
	switch k {
	case stream.NotLeader, stream.Offline, stream.Stale, stream.Unavailable, stream.Timeout:
		return true
	}
	return false
}

// patience is what one request has for shards without a leader.
type patience struct {
	c       *call
	pause   time.Duration
	offline time.Time // since when a shard was seen without a leader; zero if none was
}

// wait waits until there is something to try again: newer metadata than m, or
// the next attempt is due. It reports false when the request has waited enough.
func (p *patience) wait(m *metadata, why stream.Kind) bool {
	p.c.g.metrics.retries.WithLabelValues(why.String()).Inc()
	if p.pause == 0 {
		p.pause = minRetryPause
	} else {
		p.pause = min(2*p.pause, maxRetryPause)
	}
	// Spread, so that the requests that a dead leader has left behind do not
	// all come back at the same moment.
	limit := p.pause/2 + rand.N(p.pause)
	if why == stream.Offline {
		if p.offline.IsZero() {
			p.offline = time.Now()
		}
		left := p.c.g.cfg.OfflineWait - time.Since(p.offline)
		if left <= 0 {
			return false
		}
		limit = min(limit, left)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-m.next:
		p.pause = 0 // another leader, perhaps: begin anew
	case <-timer.C:
	case <-p.c.ctx().Done():
		return false
	}
	return p.c.ctx().Err() == nil
}

// client gives the client of a node.
func (g *Gateway) client(m *metadata, node string) (pb.DataClient, error) {
	b := m.nodes[node]
	if b == nil {
		return nil, stream.Errorf(stream.NotLeader, "gateway.client", "node %q is not known", node)
	}
	return g.cfg.Data(node, b.GrpcAddress)
}

// atLeader makes a call at the shard's leader, and again while that may help.
// The call gives the kind and detail of its answer, or an error.
func (c *call) atLeader(id stream.ShardID, f func(context.Context, pb.DataClient) (pb.ErrorKind, string, error)) error {
	p := patience{c: c}
	for {
		m := c.g.meta.load()
		err := c.onceAtLeader(m, id, f)
		kind := kindOf(err)
		if err == nil || !mayRetry(kind) || !p.wait(m, kind) {
			return err
		}
	}
}

func (c *call) onceAtLeader(m *metadata, id stream.ShardID, f func(context.Context, pb.DataClient) (pb.ErrorKind, string, error)) error {
	v, s, node, err := leaderOf(m, id)
	if err != nil {
		return err
	}
	data, err := c.g.client(m, node)
	if err != nil {
		return err
	}
	note := &inflightCall{node: node, stream: v.Id, shards: []uint32{s.Number}}
	ctx := c.begin(m, note)
	kind, detail, err := f(ctx, data)
	if err = c.end(note, err); err != nil {
		return err
	}
	if kind != pb.ErrorKind_ERROR_KIND_NONE {
		return resultError(kind, detail)
	}
	return nil
}

// leaderOf gives the node that leads a shard. Kinds: NotFound, Offline.
func leaderOf(m *metadata, id stream.ShardID) (v *streamView, s *pb.Shard, node string, err error) {
	const op = "gateway.leader"
	if v = m.byID[uint64(id.Stream)]; v == nil {
		return nil, nil, "", stream.Errorf(stream.NotFound, op, "no stream %d", id.Stream)
	}
	if s = v.shard(id.Number); s == nil || s.State == pb.ShardState_SHARD_STATE_EXPIRED {
		return nil, nil, "", stream.Errorf(stream.NotFound, op, "no shard %s", id)
	}
	if node = leaderNode(s); node == "" {
		return nil, nil, "", stream.Errorf(stream.Offline, op, "shard %s has no leader", id)
	}
	return v, s, node, nil
}
