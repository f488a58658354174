// Package broker is the life of one storage node: it opens the data directory,
// registers the node in the metadata, hosts the shards that the metadata gives
// it, and serves records and metadata to gateways. What it knows of a shard's
// replication is in broker/replica, of the disk in broker/recordlog, of the
// metadata in raftfsm.
//
// The invariant it keeps: it serves a shard only in an epoch that it has
// adopted durably, in this process, for the first time (I4, I6); its own
// registration at each start makes the epochs of all its shards rise.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"shardstream/broker/recordlog"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// The quotas of a new cluster: what DescribeLimits shows. High enough never to
// be met by accident, low enough to stop a runaway loop.
const (
	defaultShardLimit    = 100_000
	defaultOnDemandLimit = 1_000
	defaultAccount       = "000000000000"
)

// Broker is a running node. Open makes one, Close ends it.
type Broker struct {
	logger     *slog.Logger
	identity   identity
	records    *recordlog.Log
	meta       *raftfsm.Node
	clock      *clock
	conns      *conns
	control    *control
	env        *env
	host       *host
	data       *dataService
	cluster    *clusterService
	controller *controllerService
	grpc       *grpc.Server
	unlock     func() error

	stop    context.CancelFunc
	stopped chan struct{}
	running sync.WaitGroup
	failed  chan error // capacity 1: the first fatal error
}

// Open starts a node: lock and identity, the record log and the metadata side
// by side, registration, then the first reconciliation, so that the node
// serves all it should when Open returns. ctx bounds the start only.
func Open(ctx context.Context, cfg Config) (b *Broker, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil {
		return nil, fmt.Errorf("can't make the data directory: %w", err)
	}
	b = &Broker{logger: cfg.Logger, stopped: make(chan struct{}), failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			if b.stop != nil {
				b.stop()
				b.env.peers.wait()
			}
			b.release()
			b = nil
		}
	}()
	if b.unlock, err = lockDir(cfg.DataDir); err != nil {
		return b, err
	}
	fresh := false
	if b.identity, fresh, err = loadIdentity(cfg.DataDir, cfg.NodeID, cfg.DefaultNodeID); err != nil {
		return b, err
	}
	if err := b.openStores(cfg); err != nil {
		return b, err
	}
	b.reportRecovery()
	if err := b.meta.WaitLeader(ctx); err != nil {
		return b, fmt.Errorf("the metadata found no leader: %w", err)
	}
	if err := b.initCluster(ctx, fresh); err != nil {
		return b, err
	}
	b.clock = newClock()
	b.conns = newConns(dialTCP)
	b.control = &control{
		node: string(b.identity.NodeID), clusterID: func() string { return b.identity.ClusterID }, meta: b.meta, clock: b.clock, conns: b.conns,
		address: func(node string) string { return b.meta.State().Broker(node).GetGrpcAddress() },
	}
	incarnation, err := b.register(ctx, cfg)
	if err != nil {
		return b, fmt.Errorf("can't register this node in the metadata: %w", err)
	}

	running, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	b.env = newEnv(b.identity.NodeID, incarnation, b.clock, b.control, cfg.Logger)
	b.host = newHost(b.identity.NodeID, incarnation, b.records, b.meta, b.control, b.env, cfg.Logger)
	b.env.peers = newPeers(running, b.identity.NodeID, b.identity.ClusterID, incarnation, b.host, dialTCP, b.clock.since, cfg.Logger)
	state, _ := b.meta.Watch()
	b.host.look(state)
	if err := b.host.reconcileShards(ctx, state); err != nil {
		return b, fmt.Errorf("can't take up the shards of this node: %w", err)
	}
	if err := b.host.awaitLeading(ctx); err != nil {
		return b, fmt.Errorf("can't lead the shards of this node: %w", err)
	}
	b.data = &dataService{host: b.host}
	b.cluster = &clusterService{meta: b.meta, control: b.control, host: b.host, stopped: b.stopped}
	if cfg.Registerer != nil {
		registerMetrics(cfg.Registerer, b)
	}

	b.running.Go(func() { b.env.tick(running) })
	b.running.Go(func() { b.env.propose(running) })
	b.running.Go(func() { b.host.run(running) })
	b.running.Go(func() { b.host.readBack(running) })
	b.running.Go(func() { b.host.expire(running) })
	b.controller = &controllerService{control: b.control, stopped: b.stopped}
	b.running.Go(func() {
		b.controller.lead(running, controllerConfig{Holds: b.host.holds, Logger: cfg.Logger})
	})
	if cfg.GRPCListener != nil {
		b.serveGRPC(cfg.GRPCListener)
	}
	b.logger.Info("broker is up", "node", b.identity.NodeID, "cluster", b.identity.ClusterID, "incarnation", incarnation)
	return b, nil
}

// openStores opens the record log and the metadata at the same time: both read
// their files back first, and a start should take the longer of the two.
func (b *Broker) openStores(cfg Config) error {
	var logErr, metaErr error
	var opening sync.WaitGroup
	opening.Go(func() {
		b.records, logErr = recordlog.Open(recordlog.Config{
			Dir: cfg.DataDir, JournalBudget: cfg.JournalBudget, TailCache: cfg.TailCache,
			DiskReserve: cfg.DiskReserve, ScrubInterval: cfg.ScrubInterval, Logger: cfg.Logger, OnFatal: b.fail,
		})
	})
	opening.Go(func() {
		b.meta, metaErr = raftfsm.Open(raftfsm.Config{
			Dir: filepath.Join(cfg.DataDir, "raft"), NodeID: string(b.identity.NodeID), DiskID: b.identity.DiskID,
			Bootstrap: true, LoneVoter: true, Logger: cfg.Logger, OnFatal: b.fail,
		})
	})
	opening.Wait()
	if logErr != nil {
		logErr = fmt.Errorf("can't open the record log: %w", logErr)
	}
	if metaErr != nil {
		metaErr = fmt.Errorf("can't open the metadata: %w", metaErr)
	}
	return errors.Join(logErr, metaErr)
}

func (b *Broker) reportRecovery() {
	r := b.records.Recovery()
	if r.TornBytes > 0 {
		b.logger.Warn("the journal's unsynced end was cut off", "bytes", r.TornBytes)
	}
	for _, d := range b.records.Damage() {
		b.logger.Error("stored records are damaged: the shard goes offline; see `shardstream cluster recover`",
			"shard", d.Key.Shard, "offsets", d.Range.String(), "file", d.File, "position", d.Pos, "reason", d.Reason)
	}
}

// initCluster forms the cluster exactly once, with the identity's cluster id.
func (b *Broker) initCluster(ctx context.Context, fresh bool) error {
	known := b.meta.State().Cluster()
	if known.GetId() == "" {
		result, err := b.meta.Propose(ctx, &pb.Command{TimeMs: time.Now().UnixMilli(), Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
			ClusterId: b.identity.ClusterID, TokenKey: newTokenKey(), AccountId: defaultAccount,
			Limits: &pb.Limits{Shards: defaultShardLimit, OnDemandStreams: defaultOnDemandLimit},
		}}})
		if err != nil {
			return fmt.Errorf("can't form the cluster: %w", err)
		}
		if result.Error != pb.ErrorKind_ERROR_KIND_NONE {
			return fmt.Errorf("can't form the cluster: %s", result.Detail)
		}
		if !fresh && len(b.records.Replicas()) > 0 {
			return fmt.Errorf("the metadata in raft/ is empty but the record log is not: restore raft/ from a backup of this directory")
		}
		return nil
	}
	if known.Id != b.identity.ClusterID {
		return fmt.Errorf("the metadata is of cluster %s, but identity.json says %s: these files do not belong together", known.Id, b.identity.ClusterID)
	}
	return nil
}

func (b *Broker) register(ctx context.Context, cfg Config) (incarnation uint64, err error) {
	address := ""
	if cfg.GRPCListener != nil {
		address = cfg.GRPCListener.Addr().String()
	}
	result, err := b.meta.Propose(ctx, &pb.Command{TimeMs: time.Now().UnixMilli(), Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
		Broker: &pb.Broker{
			NodeId: string(b.identity.NodeID), DiskId: b.identity.DiskID, GrpcAddress: address, Zone: cfg.Zone,
			State: pb.BrokerState_BROKER_STATE_LIVE, FeatureLevel: 1,
		},
	}}})
	if err != nil {
		return 0, err
	}
	if result.Error != pb.ErrorKind_ERROR_KIND_NONE {
		return 0, errors.New(result.Detail)
	}
	return result.Incarnation, nil
}

// maxMessage bounds a gRPC message: a PutRecords of 10 MiB and its headers, or
// a read of maxReadBytes and one batch more.
const maxMessage = maxReadBytes + stream.MaxBatchSize + 1<<20

func (b *Broker) serveGRPC(l net.Listener) {
	b.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(16<<20),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			out, err := handler(ctx, req)
			return out, toStatus(err)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return toStatus(handler(srv, ss))
		}),
	)
	pb.RegisterDataServer(b.grpc, b.data)
	pb.RegisterClusterServer(b.grpc, b.cluster)
	b.controller.register(b.grpc)
	pb.RegisterReplicationServer(b.grpc, &replicationService{peers: b.env.peers, records: b.records})
	b.running.Go(func() {
		if err := b.grpc.Serve(l); err != nil {
			b.fail(fmt.Errorf("gRPC stopped serving: %w", err))
		}
	})
}

// fail notes the first error after which the process must not go on (I15).
func (b *Broker) fail(err error) {
	select {
	case b.failed <- err:
		b.logger.Error("this node must stop", "error", err)
	default:
	}
}

// Failed gives the error after which the process must end. It never closes.
func (b *Broker) Failed() <-chan error { return b.failed }

// NodeID gives the node's id.
func (b *Broker) NodeID() stream.NodeID { return b.identity.NodeID }

// Data gives a client of this node's records without a network in between.
func (b *Broker) Data() pb.DataClient { return inProcessData{b.data} }

// Cluster gives a client of the metadata without a network in between.
func (b *Broker) Cluster() pb.ClusterClient { return inProcessCluster{b.cluster} }

// EnsureStream creates a provisioned stream unless one of that name exists, and
// returns when it is ACTIVE and this node serves what it leads of it.
func (b *Broker) EnsureStream(ctx context.Context, name string, shards uint32) error {
	response, err := b.cluster.Propose(ctx, &pb.ProposeRequest{Command: &pb.Command{Op: &pb.Command_CreateStream{CreateStream: &pb.CreateStream{
		Name: name, ShardCount: shards, Mode: pb.StreamMode_STREAM_MODE_PROVISIONED,
	}}}})
	if err != nil {
		return err
	}
	if e := response.Result.Error; e != pb.ErrorKind_ERROR_KIND_NONE && e != pb.ErrorKind_ERROR_KIND_ALREADY_EXISTS {
		return errors.New(response.Result.Detail)
	}
	for {
		state, changed := b.meta.Watch()
		switch s := state.StreamByName(name); {
		case s == nil || s.Status == pb.StreamStatus_STREAM_STATUS_DELETING:
			return stream.Errorf(stream.WrongState, "broker.EnsureStream", "stream %s is being deleted", name)
		case s.Status == pb.StreamStatus_STREAM_STATUS_ACTIVE:
			return b.host.awaitServed(ctx, s.Id)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends the node: no new requests, then the goroutines, the metadata, and
// last the record log with everything that was accepted. It gives the first
// error met. ctx bounds the wait for requests in flight.
func (b *Broker) Close(ctx context.Context) error {
	close(b.stopped)
	b.stop() // also ends the streams from other brokers, for which the next step waits
	if b.grpc != nil {
		drained := make(chan struct{})
		go func() { // ends with GracefulStop, which Stop cuts short
			defer close(drained)
			b.grpc.GracefulStop()
		}()
		select {
		case <-drained:
		case <-ctx.Done():
			b.grpc.Stop()
			<-drained
		}
	}
	b.running.Wait()
	b.env.peers.wait()
	b.cluster.watches.Wait()
	b.controller.wait()
	b.conns.close()
	return b.release()
}

// release closes what is open, in the reverse order of opening.
func (b *Broker) release() error {
	var errs []error
	if b.meta != nil {
		errs = append(errs, b.meta.Close())
	}
	if b.records != nil {
		errs = append(errs, b.records.Close())
	}
	if b.unlock != nil {
		errs = append(errs, b.unlock())
	}
	return errors.Join(errs...)
}
