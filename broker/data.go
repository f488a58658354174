package broker

import (
	"context"
	"errors"
	"sync/atomic"

	"google.golang.org/grpc"

	"shardstream/broker/replica"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// dataService is what gateways call for records. It looks the shard's leader
// up in the host and leaves everything else to it.
type dataService struct {
	pb.UnimplementedDataServer
	host    *host
	stopped <-chan struct{} // closed when the broker stops
}

// Bounds of one read, whatever the caller asks for.
const (
	maxReadRecords = 10_000
	maxReadBytes   = 16 << 20
)

func shardOf(ref *pb.ShardRef) stream.ShardID {
	return stream.ShardID{Stream: stream.StreamID(ref.GetStreamId()), Number: ref.GetShard()}
}

// Append hands every batch to its shard's leader before it waits for any, so
// that all of them share the journal's next group. An acknowledgement stands
// for exactly the batch it is given for (I19): one that failed, or whose
// outcome is unknown because the caller's deadline came first, is never
// reported as stored.
func (s *dataService) Append(ctx context.Context, req *pb.AppendRequest) (*pb.AppendResponse, error) {
	a := &appendCall{results: make([]pb.AppendResult, len(req.Batches)), done: make(chan struct{})}
	a.pending.Store(int32(len(req.Batches)) + 1)
	size := 0
	for _, b := range req.Batches {
		size += len(b.Batch)
	}
	refused := s.host.records.Admit(ctx, size) // the one place that waits for a busy disk
	for i, b := range req.Batches {
		err := refused
		if err == nil {
			err = s.appendOne(a, i, b)
		}
		if err != nil {
			a.fail(i, err)
			a.finish()
		}
	}
	a.finish()
	select {
	case <-a.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	response := &pb.AppendResponse{Results: make([]*pb.AppendResult, len(a.results))}
	for i := range a.results {
		response.Results[i] = &a.results[i]
	}
	return response, nil
}

// appendCall gathers the outcomes of one Append.
type appendCall struct {
	results []pb.AppendResult // each written by one party only; read after done
	pending atomic.Int32
	done    chan struct{}
}

func (a *appendCall) finish() {
	if a.pending.Add(-1) == 0 {
		close(a.done)
	}
}

func (a *appendCall) fail(i int, err error) {
	a.results[i].Error = pb.ErrorKind(stream.KindOf(err))
	a.results[i].Detail = err.Error()
	if n := replica.Admits(0); errors.As(err, &n) {
		a.results[i].Admitted = uint32(n)
	}
}

func (s *dataService) appendOne(a *appendCall, i int, sb *pb.ShardBatch) error {
	b, err := stream.CheckUnstamped(sb.Batch)
	if err != nil {
		return err
	}
	shard := shardOf(sb.Shard)
	if b.Shard() != shard {
		return stream.Errorf(stream.Invalid, "broker.Append", "a batch for shard %s was sent to shard %s", b.Shard(), shard)
	}
	h, err := s.host.serving(shard)
	if err != nil {
		return err
	}
	how := replica.How{Again: sb.Repeat, Part: sb.Part}
	if s.host.limits != nil {
		sizes, err := recordSizes(b, sb.Sizes)
		if err != nil {
			return err
		}
		how.Admit = func(b stream.Batch) int { return s.host.limits.admit(b.Shard(), sizes) }
	}
	size, records := dataBytes(b), b.Count()
	base, arrival, err := h.Append(b, how, func(err error) {
		if err != nil {
			a.fail(i, err)
		}
		a.finish()
	})
	if err != nil {
		return err
	}
	// The callback writes Error and Detail only, so these writes do not race
	// with it.
	a.results[i].BaseOffset, a.results[i].ArrivalMs = uint64(base), arrival
	if h.stream.onDemand.Load() && b.Epoch() != 0 { // stamped, so it is no repeat
		h.written.add(size, records)
	}
	return nil
}

// Read serves whole batches from an offset on.
func (s *dataService) Read(_ context.Context, req *pb.ReadRequest) (*pb.ReadResponse, error) {
	r, err := s.read(shardOf(req.Shard), stream.Offset(req.Offset),
		min(int(req.MaxRecords), maxReadRecords), min(int(req.MaxBytes), maxReadBytes))
	if err != nil {
		return &pb.ReadResponse{Error: pb.ErrorKind(stream.KindOf(err)), Detail: err.Error()}, nil
	}
	response := &pb.ReadResponse{
		LogStart: uint64(r.Start), HighWatermark: uint64(r.HighWatermark), LastArrivalMs: r.LastArrival,
		Settling: r.Settling,
	}
	response.Batches = make([][]byte, len(r.Batches))
	for i, b := range r.Batches {
		response.Batches[i] = b
	}
	return response, nil
}

func (s *dataService) read(id stream.ShardID, from stream.Offset, maxRecords, maxBytes int) (replica.ReadResult, error) {
	h, err := s.host.reading(id)
	if err != nil {
		return replica.ReadResult{}, err
	}
	limits := s.host.limits
	if limits != nil {
		if err := limits.read(id); err != nil {
			return replica.ReadResult{}, err
		}
	}
	r, err := h.Read(from, s.host.cutoff(h), maxRecords, maxBytes)
	if err == nil && limits != nil {
		err = limits.give(id, bytesGiven(r.Batches, from, maxRecords, maxBytes))
	}
	return r, err
}

// Locate resolves a position to an offset.
func (s *dataService) Locate(_ context.Context, req *pb.LocateRequest) (*pb.LocateResponse, error) {
	o, err := s.locate(req)
	if err != nil {
		return &pb.LocateResponse{Error: pb.ErrorKind(stream.KindOf(err)), Detail: err.Error()}, nil
	}
	return &pb.LocateResponse{Offset: uint64(o)}, nil
}

func (s *dataService) locate(req *pb.LocateRequest) (stream.Offset, error) {
	h, err := s.host.reading(shardOf(req.Shard))
	if err != nil {
		return 0, err
	}
	if l := s.host.limits; l != nil && req.Iterator {
		if err := l.iterator(shardOf(req.Shard)); err != nil {
			return 0, err
		}
	}
	cutoff := s.host.cutoff(h)
	switch req.Position {
	case pb.Position_POSITION_NONE:
		return 0, nil
	case pb.Position_POSITION_TRIM_HORIZON:
		return h.Start(cutoff)
	case pb.Position_POSITION_LATEST:
		return h.Latest()
	case pb.Position_POSITION_AT_TIME:
		return h.FindTime(req.TimeMs, cutoff)
	}
	return 0, stream.Errorf(stream.Invalid, "broker.Locate", "unknown position %d", req.Position)
}

// FindRepeat tells which records of a request a shard has stored.
func (s *dataService) FindRepeat(_ context.Context, req *pb.FindRepeatRequest) (*pb.FindRepeatResponse, error) {
	response := &pb.FindRepeatResponse{}
	b, err := s.findRepeat(req)
	if err != nil {
		response.Error, response.Detail = pb.ErrorKind(stream.KindOf(err)), err.Error()
		return response, nil
	}
	response.BaseOffset, response.ArrivalMs = uint64(b.Base()), b.Arrival()
	for ordinal := range b.Ordinals() {
		response.Ordinals = append(response.Ordinals, uint32(ordinal))
	}
	return response, nil
}

func (s *dataService) findRepeat(req *pb.FindRepeatRequest) (stream.Batch, error) {
	var request, invocation [16]byte
	if len(req.RequestId) != len(request) || len(req.InvocationId) != len(invocation) {
		return nil, stream.Errorf(stream.Invalid, "broker.FindRepeat", "ids of %d and %d bytes", len(req.RequestId), len(req.InvocationId))
	}
	copy(request[:], req.RequestId)
	copy(invocation[:], req.InvocationId)
	h, err := s.host.serving(shardOf(req.Shard))
	if err != nil {
		return nil, err
	}
	return h.FindRepeat(request, invocation, uint16(req.Attempt))
}

// inProcessData is the Data client for a gateway in the same process: the
// generated interface without gRPC in between.
type inProcessData struct{ service *dataService }

func (c inProcessData) Append(ctx context.Context, in *pb.AppendRequest, _ ...grpc.CallOption) (*pb.AppendResponse, error) {
	out, err := c.service.Append(ctx, in)
	return out, toStatus(err)
}

func (c inProcessData) Read(ctx context.Context, in *pb.ReadRequest, _ ...grpc.CallOption) (*pb.ReadResponse, error) {
	out, err := c.service.Read(ctx, in)
	return out, toStatus(err)
}

func (c inProcessData) Locate(ctx context.Context, in *pb.LocateRequest, _ ...grpc.CallOption) (*pb.LocateResponse, error) {
	out, err := c.service.Locate(ctx, in)
	return out, toStatus(err)
}

func (c inProcessData) FindRepeat(ctx context.Context, in *pb.FindRepeatRequest, _ ...grpc.CallOption) (*pb.FindRepeatResponse, error) {
	out, err := c.service.FindRepeat(ctx, in)
	return out, toStatus(err)
}
