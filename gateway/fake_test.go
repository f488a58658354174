package gateway

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const testAccount = "123456789012"

// fakeBroker is a one-node cluster in memory: metadata with the rules that
// raftfsm has, logs as lists of batches. Its hooks let tests put faults in.
type fakeBroker struct {
	pb.ClusterClient // nil: what a gateway never calls

	now func() time.Time

	mu       sync.Mutex
	index    uint64
	cluster  *pb.ClusterInfo
	nodes    []*pb.Broker
	streams  map[uint64]*pb.Stream
	shards   map[uint64][]*pb.Shard
	logs     map[stream.ShardID]*fakeLog
	watchers map[*fakeWatch]bool
	watches  int // opened so far

	// creating keeps new streams in CREATING until activate.
	creating bool
	// silentWatches makes new watches say nothing at all.
	silentWatches bool

	// onAppend, onRead may answer in place of the log (kind 0: let it pass).
	onAppend func(node string, shard stream.ShardID) (stream.Kind, error)
	onRead   func(stream.ShardID) stream.Kind
	appends  []*pb.AppendRequest // as received, without the batches' bytes
	reads    []*pb.ReadRequest
	locates  []*pb.LocateRequest
	readIdx  int
	repeats  int // batches that were there already

	// resharding keeps streams in UPDATING until seal and finish. refuse answers
	// the next Reshard.
	resharding bool
	refuse     *pb.CommandResult
	proposed   *pb.Reshard // the last one
	// admits, if set, says how many of a batch's first records a shard takes.
	admits func(stream.ShardID, int) int
	// loses may lose the answer to an Append that was done.
	loses func(*pb.AppendRequest) bool
	// onFind may answer in place of the log, as onAppend.
	onFind func(stream.ShardID) stream.Kind
	finds  []stream.ShardID
	// lags keeps changes from the watchers until somebody asks for an index.
	lags   bool
	lagged []*pb.MetadataEvent

	// onTail may refuse a Tail (kind 0: let it pass); silentTails makes all of
	// them say nothing.
	onTail      func(node string, in *pb.TailRequest) stream.Kind
	silentTails bool
	tails       []*pb.TailRequest // as received
	tailing     map[*fakeTail]bool
	broken      map[*fakeTail]stream.Kind // what they end with

	// shown waits until the gateway under test shows a change; set by newEnv.
	shown func(index uint64)
}

// settle waits until a change that was just published shows.
func (f *fakeBroker) settle() {
	f.mu.Lock()
	index, watched, shown := f.index, len(f.watchers) > 0, f.shown
	f.mu.Unlock()
	if watched && shown != nil {
		shown(index)
	}
}

type fakeLog struct {
	batches []stream.Batch
	start   stream.Offset
	end     stream.Offset
	hidden  stream.Offset // offsets above the high watermark
}

// find gives the stored batch of the same request and records, nil if there is none.
func (l *fakeLog) find(b stream.Batch) stream.Batch {
	ordinal := func(b stream.Batch) int {
		for o := range b.Ordinals() {
			return int(o)
		}
		return -1
	}
	for _, have := range l.batches {
		if have.RequestID() == b.RequestID() && ordinal(have) == ordinal(b) {
			return have
		}
	}
	return nil
}

func newFakeBroker(now func() time.Time) *fakeBroker {
	return &fakeBroker{
		now: now, index: 7,
		cluster: &pb.ClusterInfo{
			Id: "c1", TokenKey: make([]byte, 32), NextStreamId: 1, NextReplicaId: 1, AccountId: testAccount,
			Limits: &pb.Limits{Shards: 200, OnDemandStreams: 3},
		},
		nodes:   []*pb.Broker{{NodeId: "n1", GrpcAddress: "addr-1", State: pb.BrokerState_BROKER_STATE_LIVE}},
		streams: make(map[uint64]*pb.Stream), shards: make(map[uint64][]*pb.Shard),
		logs: make(map[stream.ShardID]*fakeLog), watchers: make(map[*fakeWatch]bool),
		tailing: make(map[*fakeTail]bool), broken: make(map[*fakeTail]stream.Kind),
	}
}

// Metadata.

type fakeWatch struct {
	grpc.ClientStream
	ctx    context.Context
	events chan *pb.MetadataEvent
	broken chan struct{}
}

func (w *fakeWatch) Recv() (*pb.MetadataEvent, error) {
	select {
	case e := <-w.events:
		return e, nil
	default:
	}
	select {
	case e := <-w.events:
		return e, nil
	case <-w.broken:
		return nil, io.EOF
	case <-w.ctx.Done():
		return nil, w.ctx.Err()
	}
}

func (f *fakeBroker) WatchMetadata(ctx context.Context, _ *pb.WatchMetadataRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.MetadataEvent], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watches++
	w := &fakeWatch{ctx: ctx, events: make(chan *pb.MetadataEvent, 10_000), broken: make(chan struct{})}
	if f.silentWatches {
		return w, nil
	}
	f.watchers[w] = true
	w.events <- &pb.MetadataEvent{Index: f.index, Reset_: true, Cluster: f.cluster, Brokers: f.nodes, More: true}
	e := &pb.MetadataEvent{Index: f.index}
	for _, id := range slices.Sorted(maps.Keys(f.streams)) {
		e.Streams = append(e.Streams, f.streams[id])
		e.Shards = append(e.Shards, f.shards[id]...)
	}
	w.events <- e
	return w, nil
}

func (f *fakeBroker) breakWatches() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		close(w.broken)
		delete(f.watchers, w)
	}
}

func (f *fakeBroker) publishLocked(e *pb.MetadataEvent) uint64 {
	f.index++
	e.Index = f.index
	f.wakeTailsLocked()
	if f.lags {
		f.lagged = append(f.lagged, e)
		return f.index
	}
	for w := range f.watchers {
		w.events <- e
	}
	return f.index
}

// editShard changes a shard and publishes it.
func (f *fakeBroker) editShard(id uint64, number uint32, edit func(*pb.Shard)) {
	defer f.settle()
	f.mu.Lock()
	defer f.mu.Unlock()
	s := proto.Clone(f.shards[id][number]).(*pb.Shard)
	edit(s)
	f.shards[id] = slices.Clone(f.shards[id])
	f.shards[id][number] = s
	f.publishLocked(&pb.MetadataEvent{Shards: []*pb.Shard{s}})
}

func (f *fakeBroker) addShard(id uint64, s *pb.Shard) {
	defer f.settle()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shards[id] = append(slices.Clone(f.shards[id]), s)
	f.publishLocked(&pb.MetadataEvent{Shards: []*pb.Shard{s}})
}

func (f *fakeBroker) editStream(id uint64, edit func(*pb.Stream)) {
	defer f.settle()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publishLocked(&pb.MetadataEvent{Streams: []*pb.Stream{f.editStreamLocked(id, edit)}})
}

func (f *fakeBroker) editStreamLocked(id uint64, edit func(*pb.Stream)) *pb.Stream {
	s := proto.Clone(f.streams[id]).(*pb.Stream)
	edit(s)
	f.streams[id] = s
	return s
}

func (f *fakeBroker) addNode(id string) {
	defer f.settle()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes = append(slices.Clone(f.nodes), &pb.Broker{NodeId: id, GrpcAddress: "addr-" + id})
	f.publishLocked(&pb.MetadataEvent{Brokers: f.nodes})
}

// activate ends CREATING.
func (f *fakeBroker) activate(id uint64) {
	defer f.settle()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publishLocked(f.activateLocked(id))
}

func (f *fakeBroker) activateLocked(id uint64) *pb.MetadataEvent {
	s := f.editStreamLocked(id, func(s *pb.Stream) { s.Status = pb.StreamStatus_STREAM_STATUS_ACTIVE })
	shards := slices.Clone(f.shards[id])
	for i := range shards {
		shards[i] = proto.Clone(shards[i]).(*pb.Shard)
		shards[i].State = pb.ShardState_SHARD_STATE_OPEN
	}
	f.shards[id] = shards
	return &pb.MetadataEvent{Streams: []*pb.Stream{s}, Shards: shards}
}

// remove ends DELETING.
func (f *fakeBroker) remove(id uint64) {
	defer f.settle()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.streams, id)
	delete(f.shards, id)
	f.publishLocked(&pb.MetadataEvent{RemovedStreams: []uint64{id}})
}

func (f *fakeBroker) streamID(name string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streamLocked(name).GetId()
}

func (f *fakeBroker) streamLocked(name string) *pb.Stream {
	for _, s := range f.streams {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func (f *fakeBroker) ReadIndex(context.Context, *pb.ReadIndexRequest, ...grpc.CallOption) (*pb.ReadIndexResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readIdx++
	for _, e := range f.lagged {
		for w := range f.watchers {
			w.events <- e
		}
	}
	f.lags, f.lagged = false, nil
	return &pb.ReadIndexResponse{Index: f.index}, nil
}

func refusal(k stream.Kind) *pb.CommandResult { return &pb.CommandResult{Error: pb.ErrorKind(k)} }

func (f *fakeBroker) Propose(_ context.Context, in *pb.ProposeRequest, _ ...grpc.CallOption) (*pb.ProposeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, e := f.applyLocked(in.Command)
	if e == nil {
		e = &pb.MetadataEvent{}
	}
	r.Index = f.publishLocked(e)
	return &pb.ProposeResponse{Result: r}, nil
}

func (f *fakeBroker) applyLocked(c *pb.Command) (*pb.CommandResult, *pb.MetadataEvent) {
	switch op := c.Op.(type) {
	case *pb.Command_CreateStream:
		return f.createLocked(op.CreateStream)
	case *pb.Command_DeleteStream:
		s := f.streams[op.DeleteStream.StreamId]
		if s.Status == pb.StreamStatus_STREAM_STATUS_DELETING {
			r := refusal(stream.WrongState)
			r.Status = s.Status
			return r, nil
		}
		s = f.editStreamLocked(s.Id, func(s *pb.Stream) {
			s.Status, s.TransitionAfterMs = pb.StreamStatus_STREAM_STATUS_DELETING, op.DeleteStream.TransitionAfterMs
		})
		return &pb.CommandResult{}, &pb.MetadataEvent{Streams: []*pb.Stream{s}}
	case *pb.Command_Reshard:
		return f.reshardLocked(op.Reshard)
	case *pb.Command_UpdateStream:
		return f.updateLocked(op.UpdateStream)
	case *pb.Command_SetRetention:
		s := f.editStreamLocked(op.SetRetention.StreamId, func(s *pb.Stream) { s.RetentionHours = op.SetRetention.Hours })
		return &pb.CommandResult{}, &pb.MetadataEvent{Streams: []*pb.Stream{s}}
	case *pb.Command_AddTags:
		tags := maps.Clone(f.streams[op.AddTags.StreamId].Tags)
		if tags == nil {
			tags = make(map[string]string)
		}
		maps.Copy(tags, op.AddTags.Tags)
		if len(tags) > int(op.AddTags.Limit) {
			r := refusal(stream.LimitExceeded)
			r.Limit = uint64(op.AddTags.Limit)
			return r, nil
		}
		s := f.editStreamLocked(op.AddTags.StreamId, func(s *pb.Stream) { s.Tags = tags })
		return &pb.CommandResult{}, &pb.MetadataEvent{Streams: []*pb.Stream{s}}
	case *pb.Command_RemoveTags:
		s := f.editStreamLocked(op.RemoveTags.StreamId, func(s *pb.Stream) {
			for _, k := range op.RemoveTags.Keys {
				delete(s.Tags, k)
			}
		})
		return &pb.CommandResult{}, &pb.MetadataEvent{Streams: []*pb.Stream{s}}
	}
	return refusal(stream.Invalid), nil
}

func (f *fakeBroker) createLocked(c *pb.CreateStream) (*pb.CommandResult, *pb.MetadataEvent) {
	if f.streamLocked(c.Name) != nil {
		return refusal(stream.AlreadyExists), nil
	}
	if c.WarmMibps > 0 {
		r := refusal(stream.Invalid)
		r.Refusal = pb.Refusal_REFUSAL_WARM_THROUGHPUT
		return r, nil
	}
	var open, onDemand uint64
	for id, s := range f.streams {
		open += uint64(len(f.shards[id]))
		if s.Mode == pb.StreamMode_STREAM_MODE_ON_DEMAND {
			onDemand++
		}
	}
	if limit := uint64(f.cluster.Limits.Shards); open+uint64(c.ShardCount) > limit {
		r := refusal(stream.LimitExceeded)
		r.Refusal, r.Current, r.Limit, r.Additional = pb.Refusal_REFUSAL_SHARD_QUOTA, open, limit, uint64(c.ShardCount)
		return r, nil
	}
	if limit := uint64(f.cluster.Limits.OnDemandStreams); c.Mode == pb.StreamMode_STREAM_MODE_ON_DEMAND && onDemand == limit {
		r := refusal(stream.LimitExceeded)
		r.Refusal, r.Current, r.Limit = pb.Refusal_REFUSAL_ON_DEMAND_LIMIT, onDemand, limit
		return r, nil
	}
	nowMs := f.now().UnixMilli()
	s := &pb.Stream{
		Id: f.cluster.NextStreamId, Name: c.Name, Status: pb.StreamStatus_STREAM_STATUS_CREATING, Mode: c.Mode,
		CreatedMs: nowMs, RetentionHours: 24, Tags: c.Tags, MaxRecordKib: cmp.Or(c.MaxRecordKib, 1024),
		NextShardNumber: c.ShardCount, TransitionAfterMs: c.TransitionAfterMs,
	}
	f.cluster = proto.Clone(f.cluster).(*pb.ClusterInfo)
	f.cluster.NextStreamId++
	var shards []*pb.Shard
	for i, r := range stream.UniformRanges(int(c.ShardCount)) {
		shards = append(shards, &pb.Shard{
			StreamId: s.Id, Number: uint32(i), State: pb.ShardState_SHARD_STATE_CREATING, CreatedMs: nowMs,
			Range:    &pb.HashRange{StartHi: r.Start.Hi, StartLo: r.Start.Lo, EndHi: r.End.Hi, EndLo: r.End.Lo},
			Replicas: []*pb.Replica{{Id: uint64(i) + 1, NodeId: "n1"}}, Leader: uint64(i) + 1, Epoch: 1,
		})
		f.logs[stream.ShardID{Stream: stream.StreamID(s.Id), Number: uint32(i)}] = &fakeLog{}
	}
	f.streams[s.Id], f.shards[s.Id] = s, shards
	e := &pb.MetadataEvent{Cluster: f.cluster, Streams: []*pb.Stream{s}, Shards: shards}
	if !f.creating {
		e = f.activateLocked(s.Id)
		e.Cluster = f.cluster
	}
	return &pb.CommandResult{StreamId: s.Id}, e
}

// Records.

// fakeData is the Data client of one node.
type fakeData struct {
	*fakeBroker
	node string
}

func (f *fakeBroker) data(node, address string) (pb.DataClient, error) {
	return fakeData{f, node}, nil
}

func shardOf(ref *pb.ShardRef) stream.ShardID {
	return stream.ShardID{Stream: stream.StreamID(ref.StreamId), Number: ref.Shard}
}

func (d fakeData) Append(ctx context.Context, in *pb.AppendRequest, _ ...grpc.CallOption) (*pb.AppendResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := &pb.AppendRequest{}
	out := &pb.AppendResponse{}
	for _, sb := range in.Batches {
		id := shardOf(sb.Shard)
		seen.Batches = append(seen.Batches, &pb.ShardBatch{Shard: sb.Shard, Batch: sb.Batch[:stream.BatchHeaderSize], Repeat: sb.Repeat, Part: sb.Part})
		r := &pb.AppendResult{}
		out.Results = append(out.Results, r)
		if d.onAppend != nil {
			kind, err := d.onAppend(d.node, id)
			if err != nil {
				return nil, err
			}
			if r.Error = pb.ErrorKind(kind); kind != 0 {
				continue
			}
		}
		b, err := stream.CheckUnstamped(sb.Batch)
		log := d.logs[id]
		if err != nil || b.Shard() != id || log == nil {
			return nil, fmt.Errorf("bad batch for %v: %w", id, err)
		}
		if first := log.find(b); first != nil { // a repeat (I22)
			d.repeats++
			r.BaseOffset, r.ArrivalMs = uint64(first.Base()), first.Arrival()
			continue
		}
		if !d.takesLocked(id) {
			r.Error = pb.ErrorKind(stream.Unavailable)
			continue
		}
		if d.admits != nil {
			if n := d.admits(id, b.Count()); n < b.Count() {
				r.Error, r.Admitted = pb.ErrorKind_ERROR_KIND_THROTTLED, uint32(n)
				continue
			}
		}
		now := d.now().UnixMilli()
		b.Stamp(1, log.end, now)
		r.BaseOffset, r.ArrivalMs = uint64(log.end), now
		log.batches = append(log.batches, b)
		log.end = b.End()
		d.wakeTailsLocked()
	}
	d.appends = append(d.appends, seen)
	if d.loses != nil && d.loses(in) {
		return nil, stream.Errorf(stream.Timeout, "fake", "the answer is lost")
	}
	return out, nil
}

func (d fakeData) Read(_ context.Context, in *pb.ReadRequest, _ ...grpc.CallOption) (*pb.ReadResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads = append(d.reads, in)
	id := shardOf(in.Shard)
	if d.onRead != nil {
		if kind := d.onRead(id); kind != 0 {
			return &pb.ReadResponse{Error: pb.ErrorKind(kind)}, nil
		}
	}
	log := d.logs[id]
	high := log.end - log.hidden
	out := &pb.ReadResponse{LogStart: uint64(log.start), HighWatermark: uint64(high), Settling: log.hidden > 0}
	size, records := 0, 0
	for _, b := range log.batches {
		if b.End() > high {
			break
		}
		out.LastArrivalMs = b.Arrival()
		if b.End() <= max(stream.Offset(in.Offset), log.start) || records >= int(in.MaxRecords) {
			continue
		}
		if len(out.Batches) > 0 && size+len(b) > int(in.MaxBytes) {
			break
		}
		out.Batches = append(out.Batches, b)
		size += len(b)
		records += b.Count()
	}
	return out, nil
}

func (d fakeData) Locate(_ context.Context, in *pb.LocateRequest, _ ...grpc.CallOption) (*pb.LocateResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.locates = append(d.locates, in)
	id := shardOf(in.Shard)
	if d.onRead != nil {
		if kind := d.onRead(id); kind != 0 {
			return &pb.LocateResponse{Error: pb.ErrorKind(kind)}, nil
		}
	}
	log := d.logs[id]
	out := &pb.LocateResponse{Offset: uint64(log.end - log.hidden)}
	switch in.Position {
	case pb.Position_POSITION_TRIM_HORIZON:
		out.Offset = uint64(log.start)
	case pb.Position_POSITION_AT_TIME:
		for _, b := range log.batches {
			if b.Arrival() >= in.TimeMs {
				out.Offset = uint64(b.Base())
				break
			}
		}
	}
	return out, nil
}

// meeting answers an Append only when as many as were announced have come.
type meeting struct {
	pb.DataClient
	arrived *sync.WaitGroup
}

func (d meeting) Append(ctx context.Context, in *pb.AppendRequest, o ...grpc.CallOption) (*pb.AppendResponse, error) {
	d.arrived.Done()
	d.arrived.Wait()
	return d.DataClient.Append(ctx, in, o...)
}
