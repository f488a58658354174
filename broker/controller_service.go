package broker

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// raftServers is what the controller needs of raft's own configuration.
type raftServers interface {
	Servers() []raftfsm.Server
	AddServer(ctx context.Context, id, addr string, voter bool) error
	DemoteServer(ctx context.Context, id string) error
	RemoveServer(ctx context.Context, id string) error
}

// promiser binds this node to a founding list: see form.go.
type promiser interface {
	Promise(ctx context.Context, req *pb.PromiseRequest) (*pb.PromiseResponse, error)
}

// controllerService answers other brokers, on every broker. What only the raft
// leader may answer fails with Kind NotLeader on the others, and until the
// leader's state holds all that was committed before.
type controllerService struct {
	pb.UnimplementedControllerServer
	control *control
	servers raftServers
	promise promiser // nil: this node is of a cluster already
	recalls *recalls // nil: it has no peers
	// The metadata on this disk is damaged: it is none of those by whose word
	// others find out what the cluster has.
	damaged atomic.Bool
	stopped <-chan struct{}

	current   atomic.Pointer[controller] // while this node leads raft
	receivers sync.WaitGroup
}

// register has a gRPC server answer for the service, and for gRPC's own health
// protocol, by which a controller finds out whether a process lives.
func (s *controllerService) register(server *grpc.Server) {
	pb.RegisterControllerServer(server, s)
	healthpb.RegisterHealthServer(server, grpchealth.NewServer())
}

// leading gives the controller if this node leads raft.
func (s *controllerService) leading(op string) (*controller, error) {
	if c := s.current.Load(); c != nil && s.control.meta.IsLeader() {
		return c, nil
	}
	if leader, _ := s.control.meta.Leader(); leader != "" && leader != s.control.node {
		return nil, stream.Errorf(stream.NotLeader, op, "node %s leads raft", leader)
	}
	return nil, stream.Errorf(stream.NotLeader, op, "this node does not lead raft")
}

// sameCluster refuses strangers.
func (s *controllerService) sameCluster(op, theirs string) error {
	if ours := s.control.clusterID(); theirs != ours {
		return stream.Errorf(stream.Invalid, op, "this is cluster %s, the call is for cluster %s", ours, theirs)
	}
	return nil
}

// Session takes the beats of one broker and answers each.
func (s *controllerService) Session(calls grpc.BidiStreamingServer[pb.Beat, pb.BeatAnswer]) error {
	const op = "broker.Session"
	// A goroutine of its own reads, so that the session also ends when the
	// leadership does, or this node. It ends with the stream.
	beats := make(chan *pb.Beat)
	s.receivers.Go(func() {
		defer close(beats)
		for {
			b, err := calls.Recv()
			if err != nil {
				return
			}
			select {
			case beats <- b:
			case <-calls.Context().Done():
				return
			}
		}
	})
	var held *heldSession
	for {
		var over <-chan struct{}
		if held != nil {
			over = held.controller.done
		}
		select {
		case <-s.stopped:
			return stream.Errorf(stream.Unavailable, op, "this broker is stopping")
		case <-over:
			_, err := s.leading(op)
			return err
		case b, ok := <-beats:
			if !ok {
				held.broken()
				return nil
			}
			c, err := s.leading(op)
			if err != nil {
				return err
			}
			if held == nil {
				if err := s.sameCluster(op, b.ClusterId); err != nil {
					return err
				}
				held = c.open(b.NodeId, b.Incarnation)
			} else if held.controller != c {
				return stream.Errorf(stream.NotLeader, op, "another leadership began")
			}
			answer, err := c.hear(held, b)
			if err != nil {
				return err
			}
			if err := calls.Send(answer); err != nil {
				held.broken()
				return nil
			}
		}
	}
}

// local answers a beat of this node itself, once raft has proved that it still
// leads: a node that was frozen must not go by what it believed before.
func (s *controllerService) local(ctx context.Context, b *pb.Beat) (*pb.BeatAnswer, error) {
	if _, err := s.control.meta.ReadIndex(ctx); err != nil {
		return nil, err
	}
	c, err := s.leading("broker.Session")
	if err != nil {
		return nil, err
	}
	return c.hear(&heldSession{controller: c, node: b.NodeId, incarnation: b.Incarnation}, b)
}

// Submit applies a command that another broker passes on or proposes itself.
func (s *controllerService) Submit(ctx context.Context, req *pb.SubmitRequest) (*pb.SubmitResponse, error) {
	const op = "broker.Submit"
	if err := s.sameCluster(op, req.ClusterId); err != nil {
		return nil, err
	}
	c, err := s.leading(op)
	if err != nil {
		return nil, err
	}
	if err := c.mayPropose(req.NodeId, req.Command); err != nil {
		return nil, err
	}
	result, err := s.control.proposeHere(ctx, req.Command)
	if err != nil {
		return nil, err
	}
	return &pb.SubmitResponse{Result: result}, nil
}

// Join adds a node to raft, as a nonvoter: who votes is decided later, of nodes
// that have been well for a while.
func (s *controllerService) Join(ctx context.Context, req *pb.JoinRequest) (*pb.JoinResponse, error) {
	const op = "broker.Join"
	if req.ClusterId != "" {
		if err := s.sameCluster(op, req.ClusterId); err != nil {
			return nil, err
		}
	}
	c, err := s.leading(op)
	if err != nil {
		// The caller takes the raft leader for itself, and can't ask it.
		if leader := s.control.meta.Status().LeaderID; leader != "" && raftfsm.NodeOf(leader) == req.NodeId && len(req.DiskId) >= 8 &&
			leader != raftfsm.ServerID(req.NodeId, req.DiskId) {
			return nil, nameTaken(req.NodeId)
		}
		return nil, err
	}
	switch {
	case req.NodeId == "" || len(req.DiskId) < 8 || req.RaftAddress == "":
		return nil, stream.Errorf(stream.Invalid, op, "a node joins with its id, its disk's id and its raft address")
	case s.servers == nil:
		return nil, stream.Errorf(stream.Invalid, op, "this is a node that nobody can join")
	}
	if err := c.nameIsFree(req.NodeId, req.DiskId); err != nil {
		return nil, err
	}
	id := raftfsm.ServerID(req.NodeId, req.DiskId)
	if err := s.servers.AddServer(ctx, id, req.RaftAddress, false); err != nil {
		return nil, err
	}
	response := &pb.JoinResponse{ClusterId: s.control.clusterID()}
	for _, server := range s.servers.Servers() {
		response.Voter = response.Voter || server.ID == id && server.Voter
	}
	return response, nil
}

// Promise is answered by the node itself.
func (s *controllerService) Promise(ctx context.Context, req *pb.PromiseRequest) (*pb.PromiseResponse, error) {
	if s.promise == nil {
		return &pb.PromiseResponse{Detail: "this node is of cluster " + s.control.clusterID() + " already"}, nil
	}
	return s.promise.Promise(ctx, req)
}

// lead runs a controller whenever this node leads raft, until the context ends.
func (s *controllerService) lead(ctx context.Context, cfg controllerConfig) {
	former := ""
	for ctx.Err() == nil {
		if !s.control.meta.IsLeader() {
			if leader, _ := s.control.meta.Leader(); leader != "" && leader != s.control.node {
				former = leader
			}
			pause(ctx, tickEvery)
			continue
		}
		c := newController(s.control, s.servers, cfg, former)
		s.current.Store(c)
		c.run(ctx)
		s.current.Store(nil)
		former = s.control.node
	}
}

// wait waits for what the service has started, once its gRPC server has stopped.
func (s *controllerService) wait() { s.receivers.Wait() }
