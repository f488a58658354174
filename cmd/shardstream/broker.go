package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"shardstream/broker"
	"shardstream/gateway"
	"shardstream/gateway/brokers"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// brokerCmd is `shardstream broker`: one storage node of a cluster.
type brokerCmd struct {
	NodeID  string `placeholder:"NAME" help:"Name of this node, for as long as its data lives (default: what the data directory says, and in a new one the hostname)."`
	DataDir string `default:"./shardstream-data" placeholder:"DIR" help:"Where the data is kept. Made if absent."`
	Zone    string `placeholder:"ZONE" help:"Rack or availability zone. Replicas of a shard are spread over zones first."`

	GRPCListen   string `name:"grpc-listen" default:":7070" placeholder:"HOST:PORT" help:"For gateways, other brokers and 'shardstream cluster' (${default})."`
	RaftListen   string `name:"raft-listen" default:":7071" placeholder:"HOST:PORT" help:"For the metadata's raft, between brokers only (${default})."`
	GossipListen string `name:"gossip-listen" default:":7072" placeholder:"HOST:PORT" help:"For finding each other, TCP and UDP, between brokers only (${default})."`
	HTTPListen   string `name:"http-listen" default:":7073" placeholder:"HOST:PORT" help:"Admin port for health, metrics and profiles: /healthz, /readyz, /metrics, /debug/pprof (${default}). Off when empty."`
	Advertise    string `placeholder:"HOST" help:"Name or address under which all others reach this node, without a port (default: what it listens on, or its private address)."`

	Join            []string `placeholder:"HOST:PORT" help:"Gossip addresses of other nodes, repeatable or comma-separated; one that answers is enough. A DNS name stands for all its addresses. Tried for ever."`
	BootstrapExpect int      `placeholder:"N" help:"Form a new cluster as soon as N nodes without one have found each other. Give all N the same. It happens once: later it changes nothing, and a cluster that exists already is joined."`
	GossipKeyFile   string   `type:"existingfile" placeholder:"FILE" help:"16, 24 or 32 bytes in hex or base64: encrypts gossip. All nodes need the same."`

	authFlags
	GatewayListen   string        `name:"gateway-listen" placeholder:"HOST:PORT" help:"Serve the Kinesis API in this process too. Off when empty."`
	RequestTimeout  time.Duration `default:"10s" help:"How long the gateway retries a put inside before its client gets a retryable error."`
	TransitionDelay time.Duration `default:"1s" help:"How long a stream at least stays CREATING, UPDATING and DELETING, as clients of the gateway meet it on AWS."`
	ShardLimits     string        `enum:"aws,off" default:"off" help:"Whether shards are held to AWS's limits (aws): 1 MiB and 1,000 records written, 2 MiB and five GetRecords and GetShardIterator calls read each second. The leader of a shard keeps count for all gateways. Give all brokers the same."`
	AccountLimits   string        `enum:"aws,off" default:"off" help:"Whether AWS's quotas of an account are imposed (aws): calls per second of each operation, as each gateway counts them, streams and consumers in creation, consumers per stream, changes per day. Shard quotas are not among them."`

	JournalBudget   int64         `default:"2147483648" placeholder:"BYTES" help:"Journal kept before a checkpoint writes it back: bounds the replay at a start."`
	TailCache       int64         `default:"67108864" placeholder:"BYTES" help:"Recent records kept in memory."`
	ReplaceAfter    time.Duration `default:"10m" placeholder:"TIME" help:"How long a broker must be dead before its replicas are copied to others. One whose disk was lost is replaced at once."`
	DiskReserve     int64         `default:"536870912" placeholder:"BYTES" help:"Free disk below which puts are refused, with a retryable error; reads go on."`
	CatchUpRate     int64         `default:"67108864" placeholder:"BYTES" help:"Bytes per second that this node sends to replicas that are behind, in all."`
	ScrubInterval   time.Duration `default:"168h" help:"How often all stored records are read and verified. The first pass begins at the start."`
	ShutdownTimeout time.Duration `default:"30s" help:"How long handing over and requests in flight may take at a stop."`

	OnDemand onDemandFlags `embed:"" prefix:"on-demand-"`
}

// Help is what `shardstream broker --help` says below its first line.
func (brokerCmd) Help() string {
	return `Three nodes form a cluster that survives the loss of any one of them: each put is on the disks of two at least
before it is answered. The same command starts a node the first time and after each stop; the second one below adds a node later.

Examples:
  shardstream broker --data-dir /var/lib/shardstream --join 10.0.0.1:7072,10.0.0.2:7072,10.0.0.3:7072 --bootstrap-expect 3
  shardstream broker --data-dir /var/lib/shardstream --join brokers.example.org:7072
  shardstream gateway --brokers 10.0.0.1:7070,10.0.0.2:7070,10.0.0.3:7070

Then:
  shardstream cluster status --broker 10.0.0.1:7070

For a cluster on this machine, to try out: shardstream playground`
}

// Run is the command's entry.
func (c *brokerCmd) Run(e *env) error { return c.run(e.ctx, e.stdout, e.log) }

// run starts the node and serves until ctx ends or the node fails. The order:
// ports first, so that a mistake there costs nothing; then the admin port, which
// says what the node waits for while it has no place in a cluster yet; then the
// broker; then its gateway. The stop is the reverse.
func (c *brokerCmd) run(ctx context.Context, out io.Writer, logger *slog.Logger) (err error) {
	cfg, err := c.config(logger)
	if err != nil {
		return usageError{err}
	}
	if cfg.OnDemand, err = c.OnDemand.rules(); err != nil {
		return err
	}
	for _, l := range []struct {
		flag, address string
		to            *net.Listener
	}{{"--grpc-listen", c.GRPCListen, &cfg.GRPCListener}, {"--raft-listen", c.RaftListen, &cfg.RaftListener}} {
		if *l.to, err = listen(l.flag, l.address); err != nil {
			return err
		}
		defer (*l.to).Close()
	}
	var ready readiness
	ready.set(errors.New("starting: reading the disk and finding the cluster"))
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	cfg.Registerer = metrics
	if c.HTTPListen != "" {
		l, err := listen("--http-listen", c.HTTPListen)
		if err != nil {
			return err
		}
		cfg.HTTPAddress = advertisedAddress(c.Advertise, l.Addr())
		a := serveAdmin(l, metrics, ready.get, logger)
		defer func() {
			closing, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			a.close(closing)
		}()
	}
	var gatewayListener net.Listener
	var keyFile *credentialsFile
	if c.GatewayListen != "" {
		if keyFile, err = c.authFlags.open(logger); err != nil {
			return err
		}
		defer keyFile.watch(credentialsCheck)()
		if gatewayListener, err = listen("--gateway-listen", c.GatewayListen); err != nil {
			return err
		}
		defer gatewayListener.Close()
	}

	fmt.Fprintf(out, "grpc:     %s\n", cfg.GRPCListener.Addr())
	node, err := broker.Open(ctx, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop while it was starting
		}
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), c.ShutdownTimeout)
		defer cancel()
		err = errors.Join(err, node.Close(closing))
	}()
	ready.set(nil)
	fmt.Fprintf(out, "node:     %s\n", node.NodeID())
	served := make(chan error, 1)
	if gatewayListener != nil {
		stop, err := c.serveGateway(ctx, node, cfg, gatewayListener, keyFile, metrics, served, logger)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		fmt.Fprintf(out, "endpoint: http://%s\n", gatewayListener.Addr())
		c.warnIfOpen(gatewayListener.Addr(), logger)
	}
	fmt.Fprintln(out, "ready")
	select {
	case <-ctx.Done():
		ready.set(errors.New("stopping"))
		fmt.Fprintln(out, "stopping: handing over and finishing the requests in flight")
		return nil
	case err := <-node.Failed():
		return fmt.Errorf("this node had to stop, nothing acknowledged is lost: %w", err)
	case err := <-served:
		return fmt.Errorf("the gateway stopped serving: %w", err)
	}
}

// config reads the flags, but for those that open ports.
func (c *brokerCmd) config(logger *slog.Logger) (broker.Config, error) {
	cfg := broker.Config{
		DataDir: c.DataDir, NodeID: stream.NodeID(c.NodeID), Zone: c.Zone,
		GossipBind: c.GossipListen, Advertise: c.Advertise, Join: c.Join, BootstrapExpect: c.BootstrapExpect,
		ReplaceAfter:  c.ReplaceAfter,
		JournalBudget: c.JournalBudget, TailCache: c.TailCache, DiskReserve: c.DiskReserve, ScrubInterval: c.ScrubInterval,
		CatchUpRate: c.CatchUpRate, ShardLimits: c.ShardLimits == "aws",
		Version: readBuildInfo().short(), Logger: logger,
	}
	for _, j := range c.Join {
		if host, port, err := net.SplitHostPort(j); err != nil || host == "" || port == "" {
			return cfg, fmt.Errorf("--join %s: want HOST:PORT, the gossip port of another node", j)
		}
	}
	if c.ReplaceAfter <= 0 {
		return cfg, fmt.Errorf("--replace-after %v: want a time above zero, such as 10m", c.ReplaceAfter)
	}
	if c.BootstrapExpect < 0 {
		return cfg, fmt.Errorf("--bootstrap-expect %d: want the number of nodes that form the cluster together", c.BootstrapExpect)
	}
	if len(c.Join) == 0 && c.BootstrapExpect == 0 {
		if _, err := os.Stat(c.DataDir); errors.Is(err, os.ErrNotExist) {
			return cfg, errors.New("a new node needs --join (to find the others), --bootstrap-expect (to form a cluster), or both; on one machine, try 'shardstream playground'")
		}
	}
	if c.GossipKeyFile != "" {
		key, err := readKey(c.GossipKeyFile)
		if err != nil {
			return cfg, fmt.Errorf("--gossip-key-file %s: %w", c.GossipKeyFile, err)
		}
		cfg.GossipKey = key
	}
	return cfg, nil
}

// readKey reads a key in hex or base64.
func readKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	word := strings.TrimSpace(string(text))
	key, err := hex.DecodeString(word)
	if err != nil {
		key, err = base64.StdEncoding.DecodeString(word)
	}
	if n := len(key); err != nil || n != 16 && n != 24 && n != 32 {
		return nil, errors.New("want 16, 24 or 32 bytes in hex or base64 (openssl rand -hex 32 makes such)")
	}
	return key, nil
}

// serveGateway starts the embedded gateway. It reaches this node's records
// without a network in between, and the other nodes' by gRPC.
func (c *brokerCmd) serveGateway(ctx context.Context, node *broker.Broker, cfg broker.Config, l net.Listener, keyFile *credentialsFile, metrics prometheus.Registerer, served chan<- error, logger *slog.Logger) (stop func() error, err error) {
	pool, err := brokers.New(brokers.Config{Seeds: []string{loopbackIfAny(cfg.GRPCListener.Addr())}, Logger: logger})
	if err != nil {
		return nil, err
	}
	gatewayConfig := gateway.Config{
		Cluster: node.Cluster(),
		Data: func(nodeID, address string) (pb.DataClient, error) {
			if nodeID == string(node.NodeID()) {
				return node.Data(), nil
			}
			return pool.Data(nodeID, address)
		},
		RequestTimeout: c.RequestTimeout, TransitionDelay: c.TransitionDelay, AccountLimits: c.AccountLimits == "aws", Logger: logger, Registerer: metrics,
	}
	c.configure(&gatewayConfig, keyFile)
	g, err := gateway.New(gatewayConfig)
	if err != nil {
		pool.Close()
		return nil, err
	}
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		served <- g.Serve(l, nil)
	}()
	stop = func() error {
		closing, cancel := context.WithTimeout(context.Background(), c.ShutdownTimeout)
		defer cancel()
		defer pool.Close()
		err := g.Shutdown(closing)
		<-done
		return err
	}
	if err := g.Ready(ctx); err != nil && ctx.Err() == nil {
		return nil, errors.Join(fmt.Errorf("the gateway did not get ready: %w", err), stop())
	}
	return stop, nil
}

// loopbackIfAny gives an address to dial for one that is listened on.
func loopbackIfAny(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return a.String()
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(t.Port))
}

// advertisedAddress gives the address of the admin port that others are told:
// empty if nothing says by which host they reach it.
func advertisedAddress(host string, a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	switch {
	case !ok:
		return ""
	case host != "":
		return net.JoinHostPort(host, strconv.Itoa(t.Port))
	case t.IP.IsUnspecified():
		return ""
	}
	return t.String()
}

// readiness is why a process can't serve yet; nil once it can.
type readiness struct{ reason atomic.Pointer[error] }

func (r *readiness) set(err error) { r.reason.Store(&err) }

func (r *readiness) get() error { return *r.reason.Load() }
