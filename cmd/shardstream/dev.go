package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"shardstream/broker"
	"shardstream/gateway"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// devCmd is `shardstream dev`: a broker and a gateway in one process.
type devCmd struct {
	Listen    string   `default:"127.0.0.1:4567" placeholder:"HOST:PORT" help:"Where the Kinesis API is served: HTTP/1.1 and HTTP/2 (h2c), JSON and CBOR. Port 0 takes a free one (${default})."`
	DataDir   string   `default:"./shardstream-data" placeholder:"DIR" help:"Where the data is kept. Made if absent; started again on it, everything is there (${default})."`
	Ephemeral bool     `help:"Keep the data in a temporary directory, removed at exit."`
	Stream    []string `placeholder:"NAME[:SHARDS]" help:"Create this stream at start unless it exists; 1 shard if no number is given. Repeatable."`

	authFlags
	kmsFlags

	TLS        bool   `name:"tls" help:"Serve HTTPS (HTTP/1.1 and h2) with a self-signed certificate, kept in DIR/tls for clients to trust."`
	HTTPListen string `name:"http-listen" placeholder:"HOST:PORT" help:"Admin port for health, metrics and profiles (/healthz, /readyz, /metrics, /debug/pprof). Off when empty."`
	GRPCListen string `name:"grpc-listen" default:"127.0.0.1:7070" placeholder:"HOST:PORT" help:"Where 'shardstream cluster' commands reach this node. If the default port is taken, a free one is used and printed (${default})."`
	NodeID     string `placeholder:"NAME" help:"Name of this node in a new data directory (default: the hostname)."`

	TransitionDelay time.Duration `default:"1s" help:"How long a stream at least stays CREATING, UPDATING and DELETING, as clients meet it on AWS (where it takes several seconds). 0 is as fast as the disk."`
	ShardLimits     string        `enum:"aws,off" default:"off" help:"Whether shards are held to AWS's limits (aws): 1 MiB and 1,000 records written, 2 MiB and five GetRecords and GetShardIterator calls read each second."`
	AccountLimits   string        `enum:"aws,off" default:"off" help:"Whether AWS's quotas of an account are imposed (aws): calls per second of each operation, streams and consumers in creation, consumers per stream, changes per day. Shard quotas are not among them."`
	JournalBudget   int64         `default:"268435456" placeholder:"BYTES" help:"Journal kept before a checkpoint writes it back: bounds the replay at a start (${default}: 256 MiB)."`
	TailCache       int64         `default:"67108864" placeholder:"BYTES" help:"Recent records kept in memory (${default}: 64 MiB)."`
	DiskReserve     int64         `default:"268435456" placeholder:"BYTES" help:"Free disk below which puts are refused, with a retryable error; reads go on (${default}: 256 MiB)."`
	ScrubInterval   time.Duration `default:"168h" help:"How often all stored records are read and verified. The first pass begins at the start."`
	RequestTimeout  time.Duration `default:"10s" help:"How long a put is retried inside before its client gets a retryable error."`
	ShutdownTimeout time.Duration `default:"30s" help:"How long requests in flight may take at a stop."`

	OnDemand onDemandFlags `embed:"" prefix:"on-demand-"`
}

// Help is what `shardstream dev --help` says below its first line.
func (devCmd) Help() string {
	return `A whole Kinesis on this machine, in one process: every put is synced to disk before it is answered.

Examples:
  shardstream dev
  shardstream dev --stream orders:4 --stream clicks
  shardstream dev --ephemeral --listen 127.0.0.1:0
  shardstream dev --auth sigv4 --credentials keys.yaml

Then, in another shell (any credentials do):
  export AWS_ACCESS_KEY_ID=dev AWS_SECRET_ACCESS_KEY=dev AWS_DEFAULT_REGION=us-east-1
  aws kinesis list-streams --endpoint-url http://127.0.0.1:4567`
}

const defaultGRPCListen = "127.0.0.1:7070"

var streamName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)

// seed is a stream to create at the start.
type seed struct {
	name   string
	shards uint32
}

func parseSeeds(args []string) ([]seed, error) {
	var seeds []seed
	for _, arg := range args {
		name, count, given := strings.Cut(arg, ":")
		s := seed{name: name, shards: 1}
		if !streamName.MatchString(name) {
			return nil, fmt.Errorf("--stream %s: a stream's name is 1 to 128 letters, digits, '_', '.' or '-'", arg)
		}
		if given {
			n, err := strconv.ParseUint(count, 10, 32)
			if err != nil || n < 1 || n > 10_000 {
				return nil, fmt.Errorf("--stream %s: the number of shards must be 1 to 10000", arg)
			}
			s.shards = uint32(n)
		}
		seeds = append(seeds, s)
	}
	return seeds, nil
}

// Run is the command's entry.
func (c *devCmd) Run(e *env) error { return c.run(e.ctx, e.stdout, e.log) }

// run starts the node, tells the user where it is, and serves until ctx ends
// or the node fails. The order: ports first, so that a mistake there costs
// nothing; then the broker, which reads its disk back; then the streams asked
// for; then the gateway opens. The stop is the reverse.
func (c *devCmd) run(ctx context.Context, out io.Writer, logger *slog.Logger) (err error) {
	seeds, err := parseSeeds(c.Stream)
	if err != nil {
		return usageError{err}
	}
	scaling, err := c.OnDemand.rules()
	if err != nil {
		return err
	}
	if c.Ephemeral {
		dir, err := os.MkdirTemp("", "shardstream-")
		if err != nil {
			return fmt.Errorf("can't make a temporary data directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		c.DataDir = dir
	}
	keys, err := c.provider(ctx, filepath.Join(c.DataDir, "keyring.yaml"), logger)
	if err != nil {
		return err
	}
	keyFile, err := c.authFlags.open(logger)
	if err != nil {
		return err
	}
	defer keyFile.watch(credentialsCheck)()
	listener, err := listen("--listen", c.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	grpcListener, err := c.listenGRPC()
	if err != nil {
		return err
	}
	defer grpcListener.Close()
	var tlsConfig *tls.Config
	certificate := ""
	if c.TLS {
		host, _, _ := net.SplitHostPort(c.Listen)
		if tlsConfig, certificate, err = selfSigned(filepath.Join(c.DataDir, "tls"), host); err != nil {
			return fmt.Errorf("can't set up TLS: %w", err)
		}
	}

	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	node, err := broker.Open(ctx, broker.Config{
		DataDir: c.DataDir, NodeID: stream.NodeID(c.NodeID), Lone: true, GRPCListener: grpcListener,
		JournalBudget: c.JournalBudget, TailCache: c.TailCache, DiskReserve: c.DiskReserve, ScrubInterval: c.ScrubInterval,
		ShardLimits: c.ShardLimits == "aws", OnDemand: scaling,
		Version: version, Logger: logger, Registerer: metrics,
	})
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), c.ShutdownTimeout)
		defer cancel()
		err = errors.Join(err, node.Close(closing))
	}()
	for _, s := range seeds {
		if err := node.EnsureStream(ctx, s.name, s.shards); err != nil {
			return fmt.Errorf("can't create stream %s: %w", s.name, err)
		}
	}
	cfg := gateway.Config{
		Cluster: node.Cluster(), Data: func(string, string) (pb.DataClient, error) { return node.Data(), nil },
		RequestTimeout: c.RequestTimeout, TransitionDelay: c.TransitionDelay, KeyProvider: keys, AccountLimits: c.AccountLimits == "aws", Logger: logger, Registerer: metrics,
	}
	c.configure(&cfg, keyFile)
	g, err := gateway.New(cfg)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), c.ShutdownTimeout)
		defer cancel()
		err = errors.Join(err, g.Shutdown(closing))
	}()
	if err := g.Ready(ctx); err != nil {
		return fmt.Errorf("the gateway did not get ready: %w", err)
	}
	if c.HTTPListen != "" {
		l, err := listen("--http-listen", c.HTTPListen)
		if err != nil {
			return err
		}
		a := serveAdmin(l, metrics, g.Unready, logger)
		defer func() {
			closing, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			a.close(closing)
		}()
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener, tlsConfig) }() // ends with g.Shutdown, and is waited for there
	c.banner(out, listener.Addr(), grpcListener.Addr(), certificate, node)
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "stopping: finishing the requests in flight")
		return nil
	case err := <-node.Failed():
		return fmt.Errorf("this node had to stop, nothing acknowledged is lost: %w", err)
	case err := <-served:
		return fmt.Errorf("the gateway stopped serving: %w", err)
	}
}

// listenGRPC listens for operators. The default port is a convenience: if
// something else has it, a second node on the same laptop still starts.
func (c *devCmd) listenGRPC() (net.Listener, error) {
	l, err := listen("--grpc-listen", c.GRPCListen)
	if err != nil && c.GRPCListen == defaultGRPCListen && errors.Is(err, syscall.EADDRINUSE) {
		return listen("--grpc-listen", "127.0.0.1:0")
	}
	return l, err
}

func listen(flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s %s: another process listens there: stop it, or choose another port: %w", flag, address, syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, address, err)
	}
	return l, nil
}

func (c *devCmd) banner(out io.Writer, api, grpc net.Addr, certificate string, node *broker.Broker) {
	scheme := "http"
	if c.TLS {
		scheme = "https"
	}
	endpoint := scheme + "://" + api.String()
	fmt.Fprintf(out, "Shardstream dev, node %s: a durable Kinesis endpoint\n\n", node.NodeID())
	fmt.Fprintf(out, "endpoint: %s\n", endpoint)
	fmt.Fprintf(out, "operator: %s  (shardstream cluster recover --broker %s)\n", grpc, grpc)
	if c.Ephemeral {
		fmt.Fprintf(out, "data:     %s  (removed at exit)\n", c.DataDir)
	} else {
		fmt.Fprintf(out, "data:     %s\n", c.DataDir)
	}
	verify := ""
	if certificate != "" {
		fmt.Fprintf(out, "trust:    %s\n", certificate)
		verify = " --ca-bundle " + certificate
	}
	hint, keys, region := "any credentials do", "AWS_ACCESS_KEY_ID=dev AWS_SECRET_ACCESS_KEY=dev", "us-east-1"
	if c.Auth != "none" {
		hint, keys = "with a key of "+c.Credentials, "AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=..."
		region = cmp.Or(c.AuthRegion, region)
	}
	fmt.Fprintf(out, "\nIn another shell (%s):\n", hint)
	fmt.Fprintf(out, "  export %s AWS_DEFAULT_REGION=%s\n", keys, region)
	fmt.Fprintf(out, "  aws kinesis create-stream --stream-name Foo --shard-count 1 --endpoint-url %s%s\n\n", endpoint, verify)
	if c.Auth == "none" && !isLoopback(api) {
		fmt.Fprintf(out, "WARNING: %s is not a loopback address and nobody is asked for credentials: whoever reaches this port can read and write everything.\n\n", api)
	}
	fmt.Fprintln(out, "Ctrl-C stops it.")
}
