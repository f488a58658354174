package gateway

import (
	"context"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// linearizable gives metadata that shows everything committed before the call.
func (g *Gateway) linearizable(ctx context.Context) (*metadata, error) {
	r, err := g.cfg.Cluster.ReadIndex(ctx, &pb.ReadIndexRequest{})
	if err != nil {
		return nil, err
	}
	return g.meta.awaitIndex(ctx, r.Index)
}

// propose applies a command and waits until our own metadata shows it, so that
// a client reads its writes here. A refusal is a result, not an error. It is
// not tried again: whether a command whose answer was lost has been applied
// nobody can say, and the client's own retry then meets its effect.
func (g *Gateway) propose(ctx context.Context, c *pb.Command) (*pb.CommandResult, error) {
	r, err := g.cfg.Cluster.Propose(ctx, &pb.ProposeRequest{Command: c})
	if err != nil {
		return nil, err
	}
	result := r.GetResult()
	if result == nil {
		return nil, stream.Errorf(stream.Internal, "gateway.propose", "no result")
	}
	if _, err := g.meta.awaitIndex(ctx, result.Index); err != nil {
		return nil, err
	}
	return result, nil
}
