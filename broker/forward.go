package broker

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// metadataNode is what control and the controller need of raft's node.
type metadataNode interface {
	State() *raftfsm.State
	Watch() (*raftfsm.State, <-chan struct{})
	IsLeader() bool
	Leader() (node, address string)
	Status() raftfsm.Status
	Propose(ctx context.Context, c *pb.Command) (*pb.CommandResult, error)
	ReadIndex(ctx context.Context) (uint64, error)
}

// control takes commands and questions about the metadata to the raft leader,
// wherever that is, and waits out the time without one. On the leader itself,
// and so on a lone node, nothing goes over the network.
//
// A command is sent again only if it is known not to have been applied, or if
// applying it twice is harmless: everything else could turn one wish into two
// effects.
type control struct {
	node      string // this one's id
	clusterID func() string
	meta      metadataNode
	clock     *clock
	conns     *conns
	// address gives a node's gRPC address, "" if it isn't known.
	address func(node string) string
}

// retryPause is about how long to wait for another raft leader before the
// next try.
const retryPause = 25 * time.Millisecond

// tryTimeout bounds one try of what may be repeated, so that a raft leader
// which is frozen does not cost the whole deadline.
const tryTimeout = 1500 * time.Millisecond

// Propose has a command applied. The raft leader stamps the time and chooses
// the placement. A refusal by the rules is a result, not an error.
func (c *control) Propose(ctx context.Context, cmd *pb.Command) (*pb.CommandResult, error) {
	ctx, cancel := withProposeTimeout(ctx)
	defer cancel()
	var result *pb.CommandResult
	err := c.atLeader(ctx, repeatable(cmd), func(ctx context.Context, leader string) (err error) {
		if leader == c.node {
			result, err = c.proposeHere(ctx, cmd)
		} else {
			result, err = c.submit(ctx, leader, cmd)
		}
		return err
	})
	return result, err
}

// ReadIndex gives a raft index that the leader has verified.
func (c *control) ReadIndex(ctx context.Context) (uint64, error) {
	ctx, cancel := withProposeTimeout(ctx)
	defer cancel()
	var index uint64
	err := c.atLeader(ctx, true, func(ctx context.Context, leader string) (err error) {
		if leader == c.node {
			index, err = c.meta.ReadIndex(ctx)
		} else {
			index, err = c.askIndex(ctx, leader)
		}
		return err
	})
	return index, err
}

func withProposeTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, proposeTimeout)
}

// atLeader calls f with the raft leader until it is done, the context ends, or
// f fails with something that must not be repeated.
func (c *control) atLeader(ctx context.Context, repeat bool, f func(ctx context.Context, leader string) error) error {
	for {
		err := c.tryLeader(ctx, repeat, f)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, stream.NotLeader), errors.Is(err, stream.Unavailable):
		case errors.Is(err, stream.Timeout) && repeat:
		default:
			return err
		}
		// Jitter keeps the brokers from asking a new leader all at once.
		pause := time.NewTimer(retryPause/2 + rand.N(retryPause))
		select {
		case <-ctx.Done():
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}

func (c *control) tryLeader(ctx context.Context, repeat bool, f func(ctx context.Context, leader string) error) error {
	leader := c.node
	if !c.meta.IsLeader() {
		if leader, _ = c.meta.Leader(); leader == "" || leader == c.node {
			return stream.Errorf(stream.Unavailable, "broker.control", "no raft leader is known")
		}
	}
	if repeat {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, tryTimeout)
		defer cancel()
	}
	return f(ctx, leader)
}

// proposeHere proposes on the raft leader. Kind Stale, beside those of raft, for
// what some broker's program does not know.
func (c *control) proposeHere(ctx context.Context, cmd *pb.Command) (*pb.CommandResult, error) {
	state := c.meta.State()
	if err := checkFeature(state, cmd); err != nil {
		return nil, err
	}
	stampCommand(state, c.clock.clusterMs(), cmd)
	return c.meta.Propose(ctx, cmd)
}

func (c *control) submit(ctx context.Context, leader string, cmd *pb.Command) (*pb.CommandResult, error) {
	const op = "broker.submit"
	conn, err := c.conns.to(ctx, leader, c.address(leader))
	if err != nil {
		return nil, err
	}
	var reached grpcpeer.Peer
	request := &pb.SubmitRequest{ClusterId: c.clusterID(), NodeId: c.node, Command: cmd}
	response, err := pb.NewControllerClient(conn).Submit(ctx, request, grpc.Peer(&reached))
	if err != nil {
		return nil, fromCall(op, err, &reached)
	}
	if response.GetResult() == nil {
		return nil, stream.Errorf(stream.Internal, op, "node %s answered without a result", leader)
	}
	return response.Result, nil
}

// forwardedKey marks a question that a broker has passed on: the next one
// answers it or refuses, so that two brokers which take each other for the raft
// leader don't send it back and forth.
const forwardedKey = "shardstream-forwarded"

func wasForwarded(ctx context.Context) bool {
	md, ok := metadata.FromIncomingContext(ctx)
	return ok && len(md.Get(forwardedKey)) > 0
}

func (c *control) askIndex(ctx context.Context, leader string) (uint64, error) {
	conn, err := c.conns.to(ctx, leader, c.address(leader))
	if err != nil {
		return 0, err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, forwardedKey, "1")
	response, err := pb.NewClusterClient(conn).ReadIndex(ctx, &pb.ReadIndexRequest{})
	if err != nil {
		return 0, fromStatus("broker.readIndex", err)
	}
	return response.Index, nil
}

// repeatable tells that a command may be sent again though the first one may
// have been applied: it names the incarnation or version that it was made for,
// so that a repeat changes nothing more. Registering a broker is not: a repeat
// would look like the disk of before the first one.
func repeatable(cmd *pb.Command) bool {
	switch cmd.GetOp().(type) {
	case *pb.Command_ReplicasCreated, *pb.Command_MarkSuspect, *pb.Command_FenceBroker, *pb.Command_UnfenceBroker,
		*pb.Command_StopBroker, *pb.Command_AlterInSync, *pb.Command_SealShards, *pb.Command_MoveLeaders, *pb.Command_AddReplicas,
		*pb.Command_DropReplicas, *pb.Command_SetFactors,
		*pb.Command_DrainBroker, *pb.Command_UndrainBroker, *pb.Command_RemoveBroker, *pb.Command_Rebalance:
		return true
	}
	return false
}
