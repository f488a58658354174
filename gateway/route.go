package gateway

import (
	"context"
	"maps"
	"slices"
	"sort"
	"sync/atomic"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// metadata is the cluster at one raft index, as requests see it. It is
// immutable: a request takes one and is served from it as a whole.
type metadata struct {
	index   uint64
	cluster *pb.ClusterInfo // nil until the cluster is formed and known
	byID    map[uint64]*streamView
	byName  map[string]*streamView
	names   []string              // sorted
	nodes   map[string]*pb.Broker // by node id

	next chan struct{} // closed when a newer one takes its place
}

// streamView is a stream with its shards and routes. It is immutable.
type streamView struct {
	*pb.Stream
	shards    []*pb.Shard // by number
	routes    []route     // open and sealing shards by the start of their range
	expiredMs int64       // when the youngest of the expired shards was closed
	metrics   *streamMetrics
}

// route says where the records of a part of the hash space go.
type route struct {
	start stream.HashKey
	shard *pb.Shard
	node  string // leader's node, "" while the shard is offline
	index int    // place among the stream's routes
	// The shard takes no records any more, and its children none yet: puts wait
	// for these (I21).
	sealing bool
}

// shard finds a shard by its number, nil if there is none.
func (v *streamView) shard(number uint32) *pb.Shard {
	// Numbers are nearly always the places; expired shards leave gaps.
	if int(number) < len(v.shards) && v.shards[number].Number == number {
		return v.shards[number]
	}
	i, ok := slices.BinarySearchFunc(v.shards, number, func(s *pb.Shard, n uint32) int {
		return int(s.Number) - int(n)
	})
	if !ok {
		return nil
	}
	return v.shards[i]
}

// route finds the shard that has the hash key, open or sealing;
// nil if there is none at the moment.
func (v *streamView) route(k stream.HashKey) *route {
	i := sort.Search(len(v.routes), func(i int) bool { return k.Less(v.routes[i].start) }) - 1
	if i < 0 || rangeOf(v.routes[i].shard).End.Less(k) {
		return nil
	}
	return &v.routes[i]
}

// openShards counts the open shards as lists show them: a reshard under way does
// not show.
func (v *streamView) openShards() int { return len(v.routes) }

func (v *streamView) arn(region, account string) string {
	return "arn:aws:kinesis:" + region + ":" + account + ":stream/" + v.Name
}

func rangeOf(s *pb.Shard) stream.HashRange {
	r := s.GetRange()
	return stream.HashRange{
		Start: stream.HashKey{Hi: r.GetStartHi(), Lo: r.GetStartLo()},
		End:   stream.HashKey{Hi: r.GetEndHi(), Lo: r.GetEndLo()},
	}
}

// leaderNode gives the node of the shard's leader, "" while it is offline.
func leaderNode(s *pb.Shard) string {
	if s.Leader == 0 {
		return ""
	}
	for _, r := range s.Replicas {
		if r.Id == s.Leader {
			return r.NodeId
		}
	}
	return ""
}

func newStreamView(s *pb.Stream, shards []*pb.Shard, m *streamMetrics) *streamView {
	v := &streamView{Stream: s, shards: shards, metrics: m}
	for _, sh := range shards {
		switch sh.State {
		case pb.ShardState_SHARD_STATE_OPEN, pb.ShardState_SHARD_STATE_SEALING:
			v.routes = append(v.routes, route{
				start: rangeOf(sh).Start, shard: sh, node: leaderNode(sh),
				sealing: sh.State == pb.ShardState_SHARD_STATE_SEALING,
			})
		case pb.ShardState_SHARD_STATE_EXPIRED:
			v.expiredMs = max(v.expiredMs, sh.ClosedMs)
		}
	}
	slices.SortFunc(v.routes, func(a, b route) int { return a.start.Compare(b.start) })
	for i := range v.routes {
		v.routes[i].index = i
	}
	return v
}

// mirror is the gateway's copy of the metadata. One goroutine writes it, the
// watch; all others take the current value or wait for a later one.
type mirror struct {
	current atomic.Pointer[metadata]
	metrics *metrics

	// Of the watch: the step that is being received.
	pending step
}

func newMirror(m *metrics) *mirror {
	r := &mirror{metrics: m}
	r.current.Store(&metadata{next: make(chan struct{})})
	return r
}

func (r *mirror) load() *metadata { return r.current.Load() }

// await gives the first metadata, from the current one on, that satisfies ok.
// Its error has Kind Timeout when ctx ends first.
func (r *mirror) await(ctx context.Context, ok func(*metadata) bool) (*metadata, error) {
	for {
		m := r.load()
		if ok(m) {
			return m, nil
		}
		select {
		case <-m.next:
		case <-ctx.Done():
			return nil, stream.Errorf(stream.Timeout, "gateway.await", "waiting for metadata: %w", context.Cause(ctx))
		}
	}
}

// awaitIndex waits until the mirror has reached a raft index.
func (r *mirror) awaitIndex(ctx context.Context, index uint64) (*metadata, error) {
	return r.await(ctx, func(m *metadata) bool { return m.index >= index && m.cluster != nil })
}

// step gathers the events that make one change: those with More and the last.
type step struct {
	events []*pb.MetadataEvent
	// behind keeps a whole metadata that is older than what is already known,
	// until further steps have brought it up.
	behind *metadata
}

// begin forgets a step that broke off: a new watch starts with everything.
func (r *mirror) begin() { r.pending = step{} }

// apply takes one event of the watch, and publishes when it ends a step: it then
// gives what is shown from now on, else nil. What
// requests see never goes back to a lower index, unless the cluster is another
// one: a watch that was opened at a broker which lags stays hidden until it has
// caught up.
func (r *mirror) apply(e *pb.MetadataEvent) *metadata {
	r.pending.events = append(r.pending.events, e)
	if e.More {
		return nil
	}
	events := r.pending.events
	r.pending.events = nil

	shown := r.load()
	base := shown
	if r.pending.behind != nil {
		base = r.pending.behind
	}
	next := r.build(base, events)
	if next == nil { // a heartbeat
		return nil
	}
	older := next.index < shown.index && next.cluster.GetId() == shown.cluster.GetId()
	if older || next.cluster == nil && shown.cluster != nil {
		r.pending.behind = next
		return nil
	}
	r.pending.behind = nil
	next.next = make(chan struct{})
	r.metrics.monitor(shown.byName, next.byName)
	r.metrics.forgetStreams(shown.byName, next.byName)
	r.current.Store(next)
	close(shown.next)
	r.metrics.forgetConsumers(shown.byName, next.byName)
	return next
}

// build gives base with the events applied, nil if they change nothing. It
// copies only the maps, and makes new views of the streams that changed.
func (r *mirror) build(base *metadata, events []*pb.MetadataEvent) *metadata {
	next := &metadata{
		index: events[len(events)-1].Index, cluster: base.cluster,
		byID: base.byID, byName: base.byName, names: base.names, nodes: base.nodes,
	}
	changed := next.index != base.index
	streams := make(map[uint64]*pb.Stream)
	shards := make(map[uint64][]*pb.Shard)
	removed := make(map[uint64]bool)
	for _, e := range events {
		if e.Reset_ {
			clear(streams)
			clear(shards)
			clear(removed)
			*next = metadata{index: next.index}
			changed = true
		}
		if e.Cluster != nil {
			next.cluster, changed = e.Cluster, true
		}
		if len(e.Brokers) > 0 {
			next.nodes, changed = make(map[string]*pb.Broker, len(e.Brokers)), true
			for _, b := range e.Brokers {
				next.nodes[b.NodeId] = b
			}
		}
		for _, s := range e.Streams {
			streams[s.Id] = s
			delete(removed, s.Id)
		}
		for _, s := range e.Shards {
			shards[s.StreamId] = append(shards[s.StreamId], s)
		}
		for _, id := range e.RemovedStreams {
			delete(streams, id)
			delete(shards, id)
			removed[id] = true
		}
	}
	if len(streams)+len(shards)+len(removed) == 0 {
		if !changed {
			return nil
		}
		return next
	}
	byID, byName := maps.Clone(next.byID), maps.Clone(next.byName)
	if byID == nil {
		byID, byName = make(map[uint64]*streamView), make(map[string]*streamView)
	}
	sameNames := len(removed) == 0
	drop := func(id uint64) {
		if old := byID[id]; old != nil {
			delete(byID, id)
			if byName[old.Name] == old {
				delete(byName, old.Name)
			}
		}
	}
	for id := range removed {
		drop(id)
	}
	touched := slices.Collect(maps.Keys(streams))
	for id := range shards {
		if _, ok := streams[id]; !ok {
			touched = append(touched, id)
		}
	}
	for _, id := range touched {
		old, s := byID[id], streams[id]
		if s == nil {
			if old == nil {
				continue // a shard of a stream that is already gone
			}
			s = old.Stream
		}
		var oldShards []*pb.Shard
		if old != nil {
			oldShards = old.shards
		}
		drop(id)
		v := newStreamView(s, withChanges(oldShards, shards[id]), r.metrics.ofStream(s.Name))
		if _, known := next.byName[s.Name]; !known {
			sameNames = false
		}
		byID[id], byName[s.Name] = v, v
	}
	if !sameNames {
		next.names = slices.Sorted(maps.Keys(byName))
	}
	next.byID, next.byName = byID, byName
	return next
}

// withChanges gives the shards by number, changed ones in place of old ones.
func withChanges(old, changed []*pb.Shard) []*pb.Shard {
	if len(changed) == 0 {
		return old
	}
	latest := make(map[uint32]*pb.Shard, len(old)+len(changed))
	for _, s := range old {
		latest[s.Number] = s
	}
	for _, s := range changed {
		latest[s.Number] = s
	}
	return slices.SortedFunc(maps.Values(latest), func(a, b *pb.Shard) int { return int(a.Number) - int(b.Number) })
}
