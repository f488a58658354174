package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"shardstream/gateway"
	"shardstream/gateway/brokers"
	"shardstream/stream"
)

// gatewayCmd is `shardstream gateway`: the Kinesis API in front of brokers.
type gatewayCmd struct {
	Listen  string   `default:":4567" placeholder:"HOST:PORT" help:"Where the Kinesis API is served: HTTP/1.1 and HTTP/2 (h2c), JSON and CBOR. Port 0 takes a free one."`
	Brokers []string `required:"" placeholder:"HOST:PORT" help:"gRPC addresses of brokers, repeatable or comma-separated; one that answers is enough to find the others. A DNS name stands for all its addresses."`

	TLSCert string `name:"tls-cert" type:"existingfile" placeholder:"FILE" help:"Serve HTTPS (HTTP/1.1 and h2) with this certificate chain, PEM. Read again when it changes."`
	TLSKey  string `name:"tls-key" type:"existingfile" placeholder:"FILE" help:"The certificate's private key, PEM."`
	authFlags
	kmsFlags

	HTTPListen string `name:"http-listen" default:":7083" placeholder:"HOST:PORT" help:"Admin port for health, metrics and profiles (/healthz, /readyz, /metrics, /debug/pprof). Off when empty."`

	TransitionDelay time.Duration `default:"1s" help:"How long a stream at least stays CREATING, UPDATING and DELETING, as clients meet it on AWS (where it takes several seconds)."`
	AccountLimits   string        `enum:"aws,off" default:"off" help:"Whether AWS's quotas of an account are imposed (aws): calls per second of each operation, as each gateway counts them, streams and consumers in creation, consumers per stream, changes per day. Shard quotas are not among them."`
	RequestTimeout  time.Duration `default:"10s" help:"How long a request waits out a failover before its client gets a retryable error."`
	MaxInFlight     int64         `default:"268435456" placeholder:"BYTES" help:"Bodies of requests and answers kept in memory at once; more have to wait."`
	ShutdownTimeout time.Duration `default:"30s" help:"How long requests in flight may take at a stop."`
}

// Help is what `shardstream gateway --help` says below its first line.
func (gatewayCmd) Help() string {
	return `Serves the Kinesis API and keeps nothing: any number of gateways may stand in front of the same brokers,
and any of them may be stopped or started at any time.

Examples:
  shardstream gateway --brokers 10.0.0.1:7070,10.0.0.2:7070,10.0.0.3:7070
  shardstream gateway --brokers brokers.example.org:7070 --listen 127.0.0.1:4567
  shardstream gateway --brokers brokers.example.org:7070 --auth sigv4 --credentials /etc/shardstream/keys.yaml`
}

// Run is the command's entry.
func (c *gatewayCmd) Run(e *env) error { return c.run(e.ctx, e.stdout, e.log) }

// run serves until ctx ends. The order: ports first, so that a mistake there
// costs nothing; then the admin port, which says why the gateway is not ready
// yet; then the Kinesis API, which lets its requests wait for the brokers. The
// stop is the reverse, so that requests in flight still have their brokers.
func (c *gatewayCmd) run(ctx context.Context, out io.Writer, logger *slog.Logger) (err error) {
	var tlsConfig *tls.Config
	if c.TLSCert != "" || c.TLSKey != "" {
		if c.TLSCert == "" || c.TLSKey == "" {
			return usagef("--tls-cert and --tls-key go together")
		}
		if tlsConfig, err = reloadedTLS(c.TLSCert, c.TLSKey, logger); err != nil {
			return fmt.Errorf("--tls-cert %s: %w", c.TLSCert, err)
		}
	}
	keys, err := c.provider(ctx, "", logger)
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
	pool, err := brokers.New(brokers.Config{Seeds: c.Brokers, Logger: logger})
	if errors.Is(err, stream.Invalid) {
		return usagef("--brokers: %w", err)
	} else if err != nil {
		return err
	}
	defer pool.Close()

	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	cfg := gateway.Config{
		Cluster: pool, Data: pool.Data, RequestTimeout: c.RequestTimeout, TransitionDelay: c.TransitionDelay, AccountLimits: c.AccountLimits == "aws",
		MaxInFlight: c.MaxInFlight, KeyProvider: keys, Logger: logger, Registerer: metrics,
	}
	c.configure(&cfg, keyFile)
	g, err := gateway.New(cfg)
	if errors.Is(err, stream.Invalid) {
		return usageError{err}
	} else if err != nil {
		return err
	}
	var a *admin
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), c.ShutdownTimeout)
		defer cancel()
		if e := g.Shutdown(closing); e != nil {
			err = errors.Join(err, fmt.Errorf("requests were cut off after --shutdown-timeout %v: %w", c.ShutdownTimeout, e))
		}
		if a != nil { // to the last, so that readyz says what goes on
			closing, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			a.close(closing)
		}
	}()
	if c.HTTPListen != "" {
		l, err := listen("--http-listen", c.HTTPListen)
		if err != nil {
			return err
		}
		a = serveAdmin(l, metrics, g.Unready, logger)
		fmt.Fprintf(out, "admin:    http://%s/metrics\n", l.Addr())
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener, tlsConfig) }() // ends with g.Shutdown, and is waited for there
	scheme := "http"
	if tlsConfig != nil {
		scheme = "https"
	}
	fmt.Fprintf(out, "endpoint: %s://%s\n", scheme, listener.Addr())
	c.warnIfOpen(listener.Addr(), logger)
	ready := make(chan error, 1)
	waiting, stopWaiting := context.WithCancel(ctx)
	go func() { ready <- g.Ready(waiting) }() // ends with waiting, and is awaited below
	defer func() {
		stopWaiting()
		if ready != nil {
			<-ready
		}
	}()
	for {
		select {
		case err := <-ready:
			ready = nil
			if err == nil {
				fmt.Fprintln(out, "ready")
			}
		case <-ctx.Done():
			fmt.Fprintln(out, "stopping: finishing the requests in flight")
			return nil
		case err := <-served:
			return fmt.Errorf("the gateway stopped serving: %w", err)
		}
	}
}

// isLoopback reports whether only this machine reaches an address.
func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
