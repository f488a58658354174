package broker

import (
	"context"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"shardstream/broker/recordlog"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

const (
	proposeTimeout = 10 * time.Second
	// heartbeat keeps a watcher sure of its broker: silent for 300 ms means
	// the next broker (gateway/watch.go).
	heartbeat = 100 * time.Millisecond
)

// clusterService is the metadata's door to the outside.
type clusterService struct {
	pb.UnimplementedClusterServer
	meta    *raftfsm.Node
	control *control
	host    *host
	stopped <-chan struct{} // closed when the broker stops: watches end
	watches sync.WaitGroup  // watches of this process

	version   string
	startedMs int64
	members   func() []*pb.Member // as gossip sees them; nil on a lone node
	stalled   func() bool         // the disk; nil if nobody watches it
}

// Propose applies a command of the Kinesis API or an operator's. The others are
// the brokers' own.
func (s *clusterService) Propose(ctx context.Context, req *pb.ProposeRequest) (*pb.ProposeResponse, error) {
	c := req.GetCommand()
	if !fromAPI(c) && !fromOperator(c) {
		return nil, stream.Errorf(stream.Invalid, "broker.Propose", "command %T is not for callers", c.GetOp())
	}
	result, err := s.control.Propose(ctx, c)
	if err != nil {
		return nil, err
	}
	return &pb.ProposeResponse{Result: result}, nil
}

// WatchMetadata sends everything, then every change, and heartbeats between.
func (s *clusterService) WatchMetadata(_ *pb.WatchMetadataRequest, out grpc.ServerStreamingServer[pb.MetadataEvent]) error {
	ctx := out.Context()
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	var seen *raftfsm.State
	for {
		state, changed := s.meta.Watch()
		if state != seen {
			for _, e := range raftfsm.Diff(seen, state) {
				if err := out.Send(e); err != nil {
					return err
				}
			}
			seen = state
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stopped:
			return stream.Errorf(stream.Unavailable, "broker.WatchMetadata", "this broker is stopping")
		case <-changed:
		case <-ticker.C:
			if err := out.Send(&pb.MetadataEvent{Index: seen.Index()}); err != nil {
				return err
			}
		}
	}
}

// ReadIndex gives an index that the raft leader has verified.
func (s *clusterService) ReadIndex(ctx context.Context, _ *pb.ReadIndexRequest) (*pb.ReadIndexResponse, error) {
	read := s.control.ReadIndex
	if wasForwarded(ctx) {
		read = s.control.meta.ReadIndex
	}
	index, err := read(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.ReadIndexResponse{Index: index}, nil
}

// ListDamage names what this node's disk has lost.
func (s *clusterService) ListDamage(context.Context, *pb.ListDamageRequest) (*pb.ListDamageResponse, error) {
	response := &pb.ListDamageResponse{ScanComplete: s.host.records.Stats().ScrubRounds > 0}
	state := s.meta.State()
	for _, d := range s.host.records.Damage() {
		response.Damage = append(response.Damage, damageMessage(state, d))
	}
	return response, nil
}

func damageMessage(state *raftfsm.State, d recordlog.Damage) *pb.Damage {
	m := &pb.Damage{
		Replica: &pb.ReplicaRef{StreamId: uint64(d.Key.Shard.Stream), Shard: d.Key.Shard.Number, ReplicaId: uint64(d.Key.Replica)},
		Start:   uint64(d.Range.Start), End: uint64(d.Range.End),
		File: d.File, FileOffset: d.Pos, Reason: d.Reason, AfterMs: d.AfterMs, BeforeMs: d.BeforeMs,
	}
	if st := state.Stream(uint64(d.Key.Shard.Stream)); st != nil {
		m.StreamName = st.Name
	}
	return m
}

// AcceptDamage gives ranges up for good: the operator's word goes into the
// metadata first, and the host then makes the hole durable and leads again. So
// a crash in between leaves the word standing and the work to be done.
func (s *clusterService) AcceptDamage(ctx context.Context, req *pb.AcceptDamageRequest) (*pb.AcceptDamageResponse, error) {
	const op = "broker.AcceptDamage"
	known := make(map[recordlog.Damage]bool)
	for _, d := range s.host.records.Damage() {
		known[essence(d)] = true
	}
	c := &pb.AcceptLoss{By: req.By}
	for _, d := range req.Damage {
		if d.Replica == nil || !known[damageOf(d)] {
			return nil, stream.Errorf(stream.Stale, op, "the damage of stream %q, offsets [%d,%d), is not what this node knows: list it again", d.StreamName, d.Start, d.End)
		}
		c.Ranges = append(c.Ranges, &pb.LostRange{Replica: d.Replica, Start: d.Start, End: d.End, Reason: d.Reason})
	}
	if len(c.Ranges) == 0 {
		return nil, stream.Errorf(stream.Invalid, op, "nothing to accept")
	}
	result, err := s.control.Propose(ctx, &pb.Command{Op: &pb.Command_AcceptLoss{AcceptLoss: c}})
	if err != nil {
		return nil, err
	}
	if result.Error != pb.ErrorKind_ERROR_KIND_NONE {
		return nil, stream.Errorf(stream.Kind(result.Error), op, "%s", result.Detail)
	}
	return &pb.AcceptDamageResponse{Accepted: req.Damage}, nil
}

// essence leaves out what is told for people only.
func essence(d recordlog.Damage) recordlog.Damage {
	return recordlog.Damage{Key: d.Key, Range: d.Range}
}

func damageOf(d *pb.Damage) recordlog.Damage {
	return recordlog.Damage{
		Key: stream.ReplicaKey{
			Shard:   stream.ShardID{Stream: stream.StreamID(d.Replica.StreamId), Number: d.Replica.Shard},
			Replica: stream.ReplicaID(d.Replica.ReplicaId),
		},
		Range: stream.OffsetRange{Start: stream.Offset(d.Start), End: stream.Offset(d.End)},
	}
}

// inProcessCluster is the Cluster client for a gateway in the same process.
type inProcessCluster struct{ service *clusterService }

func (c inProcessCluster) Propose(ctx context.Context, in *pb.ProposeRequest, _ ...grpc.CallOption) (*pb.ProposeResponse, error) {
	out, err := c.service.Propose(ctx, in)
	return out, toStatus(err)
}

func (c inProcessCluster) ReadIndex(ctx context.Context, in *pb.ReadIndexRequest, _ ...grpc.CallOption) (*pb.ReadIndexResponse, error) {
	out, err := c.service.ReadIndex(ctx, in)
	return out, toStatus(err)
}

func (c inProcessCluster) NodeStatus(ctx context.Context, in *pb.NodeStatusRequest, _ ...grpc.CallOption) (*pb.NodeStatusResponse, error) {
	out, err := c.service.NodeStatus(ctx, in)
	return out, toStatus(err)
}

func (c inProcessCluster) ListDamage(ctx context.Context, in *pb.ListDamageRequest, _ ...grpc.CallOption) (*pb.ListDamageResponse, error) {
	out, err := c.service.ListDamage(ctx, in)
	return out, toStatus(err)
}

func (c inProcessCluster) AcceptDamage(ctx context.Context, in *pb.AcceptDamageRequest, _ ...grpc.CallOption) (*pb.AcceptDamageResponse, error) {
	out, err := c.service.AcceptDamage(ctx, in)
	return out, toStatus(err)
}

// WatchMetadata runs the service's method in a goroutine that ends with ctx or
// with the broker; the stream's Recv then gives the reason.
func (c inProcessCluster) WatchMetadata(ctx context.Context, in *pb.WatchMetadataRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.MetadataEvent], error) {
	p := &pipe{ctx: ctx, stopped: c.service.stopped, events: make(chan *pb.MetadataEvent, 16), ended: make(chan struct{})}
	c.service.watches.Go(func() {
		defer close(p.ended)
		p.err = toStatus(c.service.WatchMetadata(in, pipeServer{p}))
	})
	return pipeClient{p}, nil
}

// pipe is a server stream within the process.
type pipe struct {
	ctx     context.Context
	stopped <-chan struct{} // closed when the broker stops
	events  chan *pb.MetadataEvent
	ended   chan struct{} // closed when the server's method has returned
	err     error         // what it returned; read after ended
}

// The two ends implement what gRPC's generated interfaces ask for; the methods
// for headers and raw messages have no meaning in a process.
type (
	pipeServer struct{ *pipe }
	pipeClient struct{ *pipe }
)

func (p *pipe) Context() context.Context { return p.ctx }

func (p *pipe) SendMsg(any) error { return io.ErrClosedPipe }

func (p *pipe) RecvMsg(any) error { return io.ErrClosedPipe }

func (p pipeServer) SetHeader(metadata.MD) error { return nil }

func (p pipeServer) SendHeader(metadata.MD) error { return nil }

func (p pipeServer) SetTrailer(metadata.MD) {}

func (p pipeServer) Send(e *pb.MetadataEvent) error {
	select {
	case p.events <- e:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-p.stopped:
		return nil // the watch looks at stopped next
	}
}

func (p pipeClient) Header() (metadata.MD, error) { return nil, nil }

func (p pipeClient) Trailer() metadata.MD { return nil }

func (p pipeClient) CloseSend() error { return nil }

func (p pipeClient) Recv() (*pb.MetadataEvent, error) {
	select {
	case e := <-p.events:
		return e, nil
	case <-p.ended:
		if p.err == nil {
			return nil, io.EOF
		}
		return nil, p.err
	}
}
