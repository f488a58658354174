package broker

import (
	"context"

	pb "shardstream/proto/shardstream/v1"
)

// formClient calls other nodes while this one has no place yet: each call on a
// connection of its own, since there are few, and addresses change.
type formClient struct{ dial dialer }

var _ formPeers = formClient{}

func (c formClient) Promise(ctx context.Context, address string, req *pb.PromiseRequest) (*pb.PromiseResponse, error) {
	conn, err := newClientConn(address, c.dial)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, err := pb.NewControllerClient(conn).Promise(ctx, req)
	return answer, fromStatus("broker.Promise", err)
}

func (c formClient) Recall(ctx context.Context, address string, req *pb.RecallRequest) (*pb.RecallResponse, error) {
	conn, err := newClientConn(address, c.dial)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return pb.NewControllerClient(conn).Recall(ctx, req)
}

func (c formClient) Join(ctx context.Context, address string, req *pb.JoinRequest) (*pb.JoinResponse, error) {
	conn, err := newClientConn(address, c.dial)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, err := pb.NewControllerClient(conn).Join(ctx, req)
	return answer, fromStatus("broker.Join", err)
}
