// Package gateway is Shardstream's door to the outside: an HTTP server that
// speaks the Kinesis Data Streams API and turns every call into calls of the
// brokers' services. It is stateless: its copy of the metadata comes from
// WatchMetadata, and iterators and page tokens carry all that they need.
//
// It is not the place where records are stored, ordered or judged: it never
// imports the broker, and meets it only as a pb.DataClient and pb.ClusterClient.
//
// The invariant it keeps: what it answers is what a broker has said. A put is
// reported as stored only when the shard's leader has said that the very batch
// is committed (I19), and a read holds nothing above the high watermark that
// the leader gave with it (I12).
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardstream/gateway/credentials"
	"shardstream/gateway/kms"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Config says how a gateway works. Cluster and Data are required; every other
// field has a default.
type Config struct {
	// Cluster is where metadata comes from and commands go to.
	Cluster pb.ClusterClient
	// Data gives the client of a node, by its id and the gRPC address that the
	// metadata has for it. It is called for every request and must be quick.
	Data func(nodeID, address string) (pb.DataClient, error)

	// KeyProvider wraps the data keys of encrypted streams. Default: none, streams
	// can't be encrypted, and what is encrypted can't be read.
	KeyProvider kms.Provider

	Logger     *slog.Logger          // default: discards
	Registerer prometheus.Registerer // nil: the metrics are counted, but shown nowhere
	Now        func() time.Time      // default: time.Now

	// RequestTimeout bounds a request from its last body byte to its answer,
	// the waiting for a failover included. Default 10 s.
	RequestTimeout time.Duration
	// OfflineWait is how long a request waits for a shard without a leader
	// to get one: a failover never leaves one without, so that its members
	// are all gone, and its requests must not take the memory of the others'
	// for long. Default 3 s.
	OfflineWait time.Duration
	// MaxBody bounds a request's body, bytes. Default 16 MiB: a PutRecords of
	// 10 MiB is 14 MiB of base64.
	MaxBody int
	// MaxInFlight bounds the bytes of all bodies, requests and answers, that
	// are in memory at once. Default 256 MiB.
	MaxInFlight int64
	// BodyGrace and BodyRate bound a slow client: reading or writing n bytes
	// may take BodyGrace + n/BodyRate (bytes per second). Default 20 s, 64 KiB/s.
	BodyGrace time.Duration
	BodyRate  int
	// SubscriptionLife is how long a SubscribeToShard lasts, and SubscriptionBeat
	// how long it is silent at most. Default 5 min and 4 s: clients give up after
	// 10 s of silence, some after less.
	SubscriptionLife, SubscriptionBeat time.Duration
	// MaxEventBytes bounds the bytes of all larger events of subscriptions that are
	// being written at once, records and their JSON. Default 128 MiB.
	MaxEventBytes int64
	// HeaderTimeout bounds the reading of a request's header, IdleTimeout the
	// life of a connection without requests. Default 10 s and 3 min.
	HeaderTimeout time.Duration
	IdleTimeout   time.Duration
	// MaxConnections bounds the open connections; others wait to be accepted.
	// Default 20,000.
	MaxConnections int
	// TransitionDelay is how long a stream stays in CREATING and DELETING at
	// least; AWS's clients expect to see these states, tests rather not.
	TransitionDelay time.Duration
	// AccountLimits imposes AWS's quotas of an account: how often an operation
	// may be called at this gateway, how many streams and consumers may be in
	// creation, how many consumers a stream has, how often it is changed within
	// 24 hours. Default: off.
	AccountLimits bool
	// Credentials gives the access keys by which requests must be signed, as they
	// are now. nil: requests are not authenticated.
	Credentials func() *credentials.Set
	// SigningRegion is the one region that signatures may be for; "": any.
	SigningRegion string
	// WatchSilence is how long the metadata watch may be silent before it is
	// opened anew; it doubles while that helps nothing. Default 300 ms.
	WatchSilence time.Duration
}

func (c Config) withDefaults() Config {
	setDefault(&c.Logger, slog.New(slog.DiscardHandler))
	setDefault(&c.RequestTimeout, 10*time.Second)
	setDefault(&c.OfflineWait, 3*time.Second)
	setDefault(&c.MaxBody, 16<<20)
	setDefault(&c.MaxInFlight, 256<<20)
	setDefault(&c.BodyGrace, 20*time.Second)
	setDefault(&c.BodyRate, 64<<10)
	setDefault(&c.SubscriptionLife, 5*time.Minute)
	setDefault(&c.SubscriptionBeat, 4*time.Second)
	setDefault(&c.MaxEventBytes, 128<<20)
	setDefault(&c.HeaderTimeout, 10*time.Second)
	setDefault(&c.IdleTimeout, 3*time.Minute)
	setDefault(&c.MaxConnections, 20_000)
	setDefault(&c.WatchSilence, 300*time.Millisecond)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.KeyProvider == nil {
		c.KeyProvider = kms.None{}
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports all mistakes of a configuration together, Kind Invalid.
func (c Config) Validate() error {
	var errs []error
	if c.Cluster == nil {
		errs = append(errs, errors.New("no Cluster client"))
	}
	if c.Data == nil {
		errs = append(errs, errors.New("no Data clients"))
	}
	for name, d := range map[string]time.Duration{
		"RequestTimeout": c.RequestTimeout, "OfflineWait": c.OfflineWait, "BodyGrace": c.BodyGrace, "SubscriptionLife": c.SubscriptionLife, "SubscriptionBeat": c.SubscriptionBeat,
		"HeaderTimeout": c.HeaderTimeout, "IdleTimeout": c.IdleTimeout,
		"TransitionDelay": c.TransitionDelay, "WatchSilence": c.WatchSilence,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s is negative", name))
		}
	}
	if c.MaxEventBytes < 0 || c.MaxBody < 0 || c.BodyRate < 0 || c.MaxConnections < 0 {
		errs = append(errs, errors.New("a bound is negative"))
	}
	if c.MaxInFlight < int64(c.MaxBody) {
		errs = append(errs, fmt.Errorf("MaxInFlight of %d bytes cannot hold a body of %d", c.MaxInFlight, c.MaxBody))
	}
	if len(errs) > 0 {
		return &stream.Error{Kind: stream.Invalid, Op: "gateway.New", Err: errors.Join(errs...)}
	}
	return nil
}

// Gateway serves the Kinesis API.
type Gateway struct {
	// Set once.
	cfg     Config
	log     *slog.Logger
	meta    *mirror
	metrics *metrics
	budget  *budget
	events  *budget // of subscriptions, up to largeEvent each
	// largeEvents is of those above, apart, since few clients that take them in
	// slowly use it up.
	largeEvents *budget
	calls       *calls // nil: the account may make any number
	sealer      sealer
	server      *http.Server
	indexes     *indexReader
	keys        *kms.Keys

	policies policyCache

	watching watching
	inflight inflight
	quick    quickSet

	stopping atomic.Bool
	draining context.Context // ends at the begin of Shutdown, and subscriptions with it
	drain    context.CancelFunc
	stop     context.CancelFunc // ends the watch and the index reader
	wg       sync.WaitGroup     // both
}

// New makes a gateway and starts its metadata watch. Shutdown ends it.
func New(cfg Config) (*Gateway, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, log: cfg.Logger, budget: newBudget(cfg.MaxInFlight), events: newBudget(cfg.MaxEventBytes / 2), largeEvents: newBudget(cfg.MaxEventBytes / 2), quick: newQuickSet()}
	m, err := newMetrics(cfg.Registerer, g.budget)
	if err != nil {
		return nil, &stream.Error{Kind: stream.Invalid, Op: "gateway.New", Err: err}
	}
	g.metrics = m
	g.policies.damaged = func(text string, err error) {
		g.log.Error("a resource policy can't be read, and denies all until it is put anew", "policy", text, "error", err)
	}
	g.meta = newMirror(m)
	if cfg.AccountLimits {
		g.calls = newCalls(cfg.Now)
	}
	g.inflight.calls = make(map[*inflightCall]struct{})
	g.keys = kms.NewKeys(cfg.KeyProvider, cfg.Now, func(call, outcome string) {
		m.keyCalls.WithLabelValues(call, outcome).Inc()
	})
	g.draining, g.drain = context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	g.stop = cancel
	g.indexes = newIndexReader(ctx, cfg.Cluster, cfg.RequestTimeout, &g.wg)
	g.server = g.newServer()
	g.wg.Go(func() { g.watch(ctx) })
	return g, nil
}

// Ready waits until the gateway knows the cluster's metadata.
func (g *Gateway) Ready(ctx context.Context) error {
	_, err := g.meta.await(ctx, func(m *metadata) bool { return m.cluster != nil })
	return err
}

// Shutdown takes no more connections, lets the requests under way finish until
// ctx ends, and then ends everything that the gateway has started.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.stopping.Store(true)
	g.drain()
	g.quick.shutdown()
	err := errors.Join(g.server.Shutdown(ctx), g.quick.wait(ctx))
	if err != nil {
		g.server.Close()
	}
	g.stop()
	g.wg.Wait()
	g.keys.Close()
	g.metrics.unregister()
	return err
}
