package broker

import (
	"context"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"shardstream/broker/recordlog"
	"shardstream/placement"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

const (
	proposeTimeout = 10 * time.Second
	// heartbeat keeps a watcher sure of its broker: silent for 300 ms means
	// the next broker (design section 4).
	heartbeat = 100 * time.Millisecond

	defaultReplicationFactor = 3
	// maxTransitionDelay bounds what a caller may ask a stream to stay in
	// CREATING or DELETING.
	maxTransitionDelay = time.Minute
)

// clusterService is the metadata's door to the outside.
type clusterService struct {
	pb.UnimplementedClusterServer
	meta    *raftfsm.Node
	host    *host
	stopped <-chan struct{} // closed when the broker stops: watches end
	watches sync.WaitGroup  // watches of this process
	now     func() int64
}

// Propose applies a command of the Kinesis API. The others are the brokers' own.
func (s *clusterService) Propose(ctx context.Context, req *pb.ProposeRequest) (*pb.ProposeResponse, error) {
	c := req.GetCommand()
	switch op := c.GetOp().(type) {
	case *pb.Command_CreateStream:
		s.place(op.CreateStream)
		op.CreateStream.TransitionAfterMs = s.clampTransition(op.CreateStream.TransitionAfterMs)
	case *pb.Command_DeleteStream:
		op.DeleteStream.TransitionAfterMs = s.clampTransition(op.DeleteStream.TransitionAfterMs)
	case *pb.Command_SetRetention, *pb.Command_AddTags, *pb.Command_RemoveTags:
	default:
		return nil, stream.Errorf(stream.Invalid, "broker.Propose", "command %T is not for callers", op)
	}
	c.TimeMs = s.now()
	result, err := s.meta.Propose(ctx, c)
	if err != nil {
		return nil, err
	}
	return &pb.ProposeResponse{Result: result}, nil
}

func (s *clusterService) clampTransition(ms int64) int64 {
	return min(ms, s.now()+maxTransitionDelay.Milliseconds())
}

// place chooses the nodes of every shard's replicas from the live brokers.
func (s *clusterService) place(c *pb.CreateStream) {
	state := s.meta.State()
	count := make(map[string]*placement.Broker)
	var live []placement.Broker
	for _, b := range state.Brokers() {
		if b.State == pb.BrokerState_BROKER_STATE_LIVE {
			live = append(live, placement.Broker{Node: stream.NodeID(b.NodeId), Zone: b.Zone})
		}
	}
	for i := range live {
		count[string(live[i].Node)] = &live[i]
	}
	if len(live) > 1 { // with one broker there is nothing to weigh
		for _, st := range state.Streams() {
			for _, shard := range state.Shards(st.Id) {
				for _, r := range shard.Replicas {
					if b := count[r.NodeId]; b != nil {
						b.Replicas++
						if r.Id == shard.Leader {
							b.Leaders++
						}
					}
				}
			}
		}
	}
	c.Placement = nil
	rf := min(defaultReplicationFactor, len(live))
	for _, nodes := range placement.Assign(int(c.ShardCount), rf, live) {
		ids := make([]string, len(nodes))
		for i, n := range nodes {
			ids[i] = string(n)
		}
		c.Placement = append(c.Placement, &pb.ReplicaNodes{NodeIds: ids})
	}
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
	index, err := s.meta.ReadIndex(ctx)
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
	result, err := s.meta.Propose(ctx, &pb.Command{TimeMs: s.now(), Op: &pb.Command_AcceptLoss{AcceptLoss: c}})
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
