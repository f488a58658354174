package broker

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"shardstream/stream"
)

// dialer opens a connection to another broker. Tests put theirs in its place.
type dialer func(ctx context.Context, address string) (net.Conn, error)

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// conns keeps one connection per broker for commands and control-plane reads.
// Beats have connections of their own, and so have records.
type conns struct {
	dial dialer

	mu     sync.Mutex
	byNode map[string]*nodeConn
	closed bool
}

type nodeConn struct {
	address string
	conn    *grpc.ClientConn
}

func newConns(dial dialer) *conns {
	return &conns{dial: dial, byNode: make(map[string]*nodeConn)}
}

// to gives a connection to the node that is ready for calls. It fails with Kind
// Unavailable, so that its caller knows that nothing was sent, and soon enough
// to try another node within the caller's deadline.
func (c *conns) to(ctx context.Context, node, address string) (*grpc.ClientConn, error) {
	const op = "broker.connect"
	if address == "" {
		return nil, stream.Errorf(stream.Unavailable, op, "the address of node %s is not known yet", node)
	}
	conn, err := c.conn(node, address)
	if err != nil {
		return nil, stream.Errorf(stream.Unavailable, op, "node %s at %s: %w", node, address, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return conn, nil
		case connectivity.Idle:
			conn.Connect()
		case connectivity.TransientFailure, connectivity.Shutdown:
			return nil, stream.Errorf(stream.Unavailable, op, "node %s at %s can't be reached", node, address)
		}
		if !conn.WaitForStateChange(ctx, state) {
			return nil, stream.Errorf(stream.Unavailable, op, "node %s at %s: %w", node, address, context.Cause(ctx))
		}
	}
}

// conn gives the node's connection, and replaces one to a former address.
func (c *conns) conn(node, address string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, net.ErrClosed
	}
	if n := c.byNode[node]; n != nil {
		if n.address == address {
			return n.conn, nil
		}
		_ = n.conn.Close()
		delete(c.byNode, node)
	}
	conn, err := newClientConn(address, c.dial)
	if err != nil {
		return nil, err
	}
	c.byNode[node] = &nodeConn{address, conn}
	return conn, nil
}

func (c *conns) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, n := range c.byNode {
		_ = n.conn.Close()
	}
	clear(c.byNode)
}

// newClientConn makes a connection for small messages. Both windows are set:
// setting one alone would leave the other at 64 KiB. It tries again soon, since
// a broker that restarts is back within a second.
func newClientConn(address string, dial dialer) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 25 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 250 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithInitialWindowSize(4<<20), grpc.WithInitialConnWindowSize(16<<20),
	)
}
