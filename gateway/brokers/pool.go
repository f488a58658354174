// Package brokers holds a gateway's connections to the brokers of a cluster: for
// records to each broker by its address, for metadata and commands to whichever
// answers.
//
// It knows nothing of streams, shards or requests, and decides no route: which
// broker leads a shard is the gateway's business. It repeats only what is safe
// to repeat: a read, or a command that a broker says it has not taken.
//
// The invariant it keeps: a command is never sent to a second broker unless the
// first has certainly not proposed it.
package brokers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Config says how to find the brokers.
type Config struct {
	// Seeds are HOST:PORT of brokers' gRPC, any of which is enough to find
	// the others. A DNS name stands for all its addresses, and is resolved
	// again each time a broker is looked for.
	Seeds  []string
	TLS    *tls.Config  // nil: plaintext
	Logger *slog.Logger // default: discards

	// Lookup resolves a seed's name. Default: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]string, error)
	// Dial connects. Default: TCP that notices a dead peer within seconds.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Pool is the connections to the brokers. It is a pb.ClusterClient whose calls
// go to a broker that answers; Data gives the way to a particular one.
type Pool struct {
	// Set once.
	seeds   []string
	options []grpc.DialOption
	lookup  func(ctx context.Context, host string) ([]string, error)
	log     *slog.Logger

	mu      sync.Mutex // protects all below
	closed  bool
	data    map[string]*dataConn        // by address
	control map[string]*grpc.ClientConn // by address
	members []string                    // addresses that the metadata names, the best first
	current string                      // whose watch is alive; "" if none
	tried   map[string]uint64           // by address: when it was last chosen, in choices
	choices uint64

	fruitless int // brokers tried since the last watch spoke
}

var _ pb.ClusterClient = (*Pool)(nil)

// dataConn is the connections for records to one broker and their client, made
// once. They connect with their first call.
type dataConn struct {
	calls, tails *grpc.ClientConn
	client       pb.DataClient
}

// dataClient sends Tail another way than the other calls: the records that
// subscriptions are pushed must not delay a put's answer, and wait in small
// windows for those who take them.
type dataClient struct {
	pb.DataClient
	tails pb.DataClient
}

func (c dataClient) Tail(ctx context.Context, in *pb.TailRequest, o ...grpc.CallOption) (grpc.ServerStreamingClient[pb.TailEvent], error) {
	return c.tails.Tail(ctx, in, o...)
}

// New makes a pool; it connects when something is asked of it. Close ends it.
func New(cfg Config) (*Pool, error) {
	if len(cfg.Seeds) == 0 {
		return nil, stream.Errorf(stream.Invalid, "brokers.New", "no broker is named")
	}
	var errs []error
	for _, s := range cfg.Seeds {
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("broker %q: it must be HOST:PORT, as 10.0.0.1:7070", s))
		}
	}
	if len(errs) > 0 {
		return nil, &stream.Error{Kind: stream.Invalid, Op: "brokers.New", Err: errors.Join(errs...)}
	}
	p := &Pool{
		seeds: cfg.Seeds, options: dialOptions(cfg), lookup: cfg.Lookup, log: cfg.Logger,
		data: make(map[string]*dataConn), control: make(map[string]*grpc.ClientConn), tried: make(map[string]uint64),
	}
	if p.lookup == nil {
		p.lookup = net.DefaultResolver.LookupHost
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	return p, nil
}

// Data gives the client for records of the broker at that address, as
// gateway.Config wants it.
func (p *Pool) Data(_, address string) (pb.DataClient, error) {
	const op = "brokers.Data"
	if address == "" {
		return nil, stream.Errorf(stream.Unavailable, op, "the broker has no address yet")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, stream.Errorf(stream.Unavailable, op, "closed")
	}
	c := p.data[address]
	if c == nil {
		calls, err := p.dial(address)
		if err != nil {
			return nil, err
		}
		tails, err := p.dial(address, grpc.WithInitialWindowSize(tailWindow))
		if err != nil {
			_ = calls.Close()
			return nil, err
		}
		c = &dataConn{calls, tails, dataClient{pb.NewDataClient(calls), pb.NewDataClient(tails)}}
		p.data[address] = c
	}
	return c.client, nil
}

// controlConn gives the connection for metadata and commands. It is another
// than that for records, so that a full window of theirs never delays it.
func (p *Pool) controlConn(address string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, stream.Errorf(stream.Unavailable, "brokers.control", "closed")
	}
	c := p.control[address]
	if c == nil {
		var err error
		if c, err = p.dial(address); err != nil {
			return nil, err
		}
		p.control[address] = c
	}
	return c, nil
}

func (p *Pool) dial(address string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	// passthrough: the name is resolved by each dial, not once.
	c, err := grpc.NewClient("passthrough:///"+address, append(slices.Clip(p.options), more...)...)
	if err != nil {
		return nil, stream.Errorf(stream.Invalid, "brokers.dial", "%s: %w", address, err)
	}
	return c, nil
}

// learn takes over which brokers there are, and drops the connections to those
// that are gone. Calls under way there fail, as they would.
func (p *Pool) learn(list []*pb.Broker) {
	if len(list) == 0 {
		return
	}
	var good, bad []string
	known := make(map[string]bool)
	for _, b := range list {
		if b.GrpcAddress == "" || b.State == pb.BrokerState_BROKER_STATE_GONE || known[b.GrpcAddress] {
			continue
		}
		known[b.GrpcAddress] = true
		if b.State == pb.BrokerState_BROKER_STATE_LIVE || b.State == pb.BrokerState_BROKER_STATE_DRAINING {
			good = append(good, b.GrpcAddress)
		} else {
			bad = append(bad, b.GrpcAddress)
		}
	}
	var dropped []*grpc.ClientConn
	p.mu.Lock()
	p.members = append(good, bad...)
	for address, c := range p.data {
		if !known[address] {
			dropped = append(dropped, c.calls, c.tails)
			delete(p.data, address)
		}
	}
	for address, c := range p.control {
		// Seeds are addresses of their own, which the metadata may spell
		// otherwise; the one in use stays in use.
		if !known[address] && address != p.current {
			dropped = append(dropped, c)
			delete(p.control, address)
			delete(p.tried, address)
		}
	}
	p.mu.Unlock()
	closeAll(dropped)
}

// Close ends all connections, and with them the calls under way.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	var all []*grpc.ClientConn
	for _, c := range p.data {
		all = append(all, c.calls, c.tails)
	}
	for _, c := range p.control {
		all = append(all, c)
	}
	clear(p.data)
	clear(p.control)
	p.mu.Unlock()
	closeAll(all)
}

func closeAll(conns []*grpc.ClientConn) {
	for _, c := range conns {
		_ = c.Close() // its only error says that it was closed already
	}
}
