package gateway

import (
	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: ListShards gives up to 1000 shards (or MaxResults, if less) in the
// order of their ids, from behind ExclusiveStartShardId, which need not exist.
// NextToken is there unless the page is the last, and remembers stream, filter
// and place: nothing that identifies the stream may stand beside it, MaxResults
// may. A StreamCreationTimestamp of another stream is answered as not found. The
// stream must have been created: in CREATING it is ResourceInUse.
//
// Filters, with T0 the trim horizon (now less the retention, but not before the
// stream's creation):
//
//	none, FROM_TRIM_HORIZON  all that have not expired
//	AT_TRIM_HORIZON          those that were open at T0
//	AT_LATEST                the open ones
//	AT_TIMESTAMP             those that were open at that time
//	FROM_TIMESTAMP           those that were open at that time or later
//	AFTER_SHARD_ID           as ExclusiveStartShardId
//
// A shard was open from its creation until and with the moment of its closing,
// and its children from the next millisecond on, so that what was open at any
// moment covers the hash space once. While a reshard is under way its parents
// are open and its children are not there.
//
// Times before T0 count as T0, times after now as now: Flink asks with its own
// clock.

const maxListedShards = 1000

// shardFilter is a ShardFilter as a token keeps it.
type shardFilter struct {
	Type string // "" for none
	AtMs int64  // for the types with a Timestamp
}

func listShards(c *call, in *kinesis.ListShardsInput) (*kinesis.ListShardsOutput, *kinesis.Error) {
	m, v, t, failure := c.shardsPage(in)
	if failure != nil {
		return nil, failure
	}
	limit := maxListedShards
	if in.MaxResults != nil {
		limit = min(limit, int(*in.MaxResults))
	}
	now := c.g.cfg.Now().UnixMilli()
	out := &kinesis.ListShardsOutput{Shards: make([]kinesis.Shard, 0, min(limit, len(v.shards)))}
	for _, s := range v.shards {
		if int64(s.Number) <= t.After || !isListed(v, s, now) || !t.Filter.takes(v, s, now) {
			continue
		}
		if len(out.Shards) == limit {
			token, failure := c.sealToken(m, tokenShards, t)
			if failure != nil {
				return nil, failure
			}
			out.NextToken = &token
			return out, nil
		}
		out.Shards = append(out.Shards, shardShape(s))
		t.After = int64(s.Number)
	}
	return out, nil
}

// shardsPage reads which page of which stream a request is for.
func (c *call) shardsPage(in *kinesis.ListShardsInput) (*metadata, *streamView, shardsToken, *kinesis.Error) {
	if in.NextToken != nil {
		return c.nextShardsPage(in)
	}
	none := shardsToken{}
	if in.StreamName == nil && in.StreamARN == nil {
		return nil, nil, none, kinesis.NoTokenNorStream()
	}
	filter, after, failure := c.readFilter(in)
	if failure != nil {
		return nil, nil, none, failure
	}
	m, v, failure := c.locate(in.StreamName, in.StreamARN)
	if failure != nil {
		return nil, nil, none, failure
	}
	account := m.cluster.AccountId
	// Seconds: that is all a client's floating-point number is sure to keep.
	if at := in.StreamCreationTimestamp; at != nil && int64(*at)/1000 != v.CreatedMs/1000 {
		return nil, nil, none, kinesis.StreamNotFound(v.Name, account)
	}
	if v.Status == pb.StreamStatus_STREAM_STATUS_CREATING {
		return nil, nil, none, kinesis.StreamState(v.Name, account, statusName(v.Status))
	}
	return m, v, shardsToken{Stream: v.Id, Name: v.Name, After: after, Filter: filter}, nil
}

func (c *call) nextShardsPage(in *kinesis.ListShardsInput) (*metadata, *streamView, shardsToken, *kinesis.Error) {
	var t shardsToken
	for _, other := range []struct {
		given  bool
		member string
	}{
		{in.StreamName != nil, "StreamName"},
		{in.StreamARN != nil, "StreamARN"},
		{in.ShardFilter != nil, "ShardFilter"},
		{in.ExclusiveStartShardId != nil, "ExclusiveStartShardId"},
		{in.StreamCreationTimestamp != nil, "StreamCreationTimestamp"},
	} {
		if other.given {
			return nil, nil, t, kinesis.TokenTogetherWith(other.member)
		}
	}
	m, failure := c.linearizable()
	if failure != nil {
		return nil, nil, t, failure
	}
	if failure := c.openToken(m, tokenShards, *in.NextToken, &t); failure != nil {
		return nil, nil, t, failure
	}
	v := m.byID[t.Stream]
	if v == nil {
		return nil, nil, t, kinesis.StreamNotFound(t.Name, m.cluster.AccountId)
	}
	return m, v, t, nil
}

// readFilter reads the filter and the two ways to say where to begin.
func (c *call) readFilter(in *kinesis.ListShardsInput) (f shardFilter, after int64, failure *kinesis.Error) {
	after, failure = c.exclusiveStart(in.ExclusiveStartShardId, in.StreamName, in.StreamARN)
	if failure != nil || in.ShardFilter == nil {
		return f, after, failure
	}
	filter := in.ShardFilter
	f.Type = deref(filter.Type)
	wantsID := f.Type == kinesis.ShardFilterTypeAfterShardID
	wantsTime := f.Type == kinesis.ShardFilterTypeAtTimestamp || f.Type == kinesis.ShardFilterTypeFromTimestamp
	switch {
	case wantsID && filter.ShardId == nil:
		return f, after, kinesis.FilterMemberRequired(f.Type, "ShardId")
	case !wantsID && filter.ShardId != nil:
		return f, after, kinesis.FilterMemberNotExpected(f.Type, "ShardId")
	case wantsTime && filter.Timestamp == nil:
		return f, after, kinesis.FilterMemberRequired(f.Type, "Timestamp")
	case !wantsTime && filter.Timestamp != nil:
		return f, after, kinesis.FilterMemberNotExpected(f.Type, "Timestamp")
	}
	if wantsTime {
		f.AtMs = int64(*filter.Timestamp)
	}
	if wantsID {
		from, failure := c.exclusiveStart(filter.ShardId, in.StreamName, in.StreamARN)
		if failure != nil {
			return f, after, failure
		}
		after = max(after, from)
	}
	return f, after, nil
}

// takes reports whether the filter lets a listed shard pass.
func (f shardFilter) takes(v *streamView, s *pb.Shard, nowMs int64) bool {
	// Not before what has expired, even if our clock is behind the one that said
	// so: no list has a hole.
	horizon := max(nowMs-int64(v.RetentionHours)*3_600_000, v.CreatedMs, v.expiredMs+1)
	closed := s.State == pb.ShardState_SHARD_STATE_CLOSED
	openAt := func(ms int64) bool { return s.CreatedMs <= ms && (!closed || s.ClosedMs >= ms) }
	at := min(max(f.AtMs, horizon), max(nowMs, horizon))
	switch f.Type {
	case kinesis.ShardFilterTypeAtTrimHorizon:
		return openAt(horizon)
	case kinesis.ShardFilterTypeAtLatest:
		return !closed
	case kinesis.ShardFilterTypeAtTimestamp:
		return openAt(at)
	case kinesis.ShardFilterTypeFromTimestamp:
		return !closed || s.ClosedMs >= at
	}
	return true
}

// childShards gives the shards that were made of this one, as answers at its end
// name them.
func childShards(v *streamView, parent uint32) []kinesis.ChildShard {
	var children []kinesis.ChildShard
	for _, s := range v.shards {
		if s.State == pb.ShardState_SHARD_STATE_CREATING { // not before the parents are closed
			continue
		}
		for _, p := range s.Parents {
			if p != parent {
				continue
			}
			child := kinesis.ChildShard{ShardId: stream.ShardName(s.Number), HashKeyRange: hashRange(s)}
			for _, p := range s.Parents {
				child.ParentShards = append(child.ParentShards, stream.ShardName(p))
			}
			children = append(children, child)
			break
		}
	}
	return children
}
