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
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"shardstream/broker/member"
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
	cfg        Config
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
	push       *replicationService
	grpc       *grpc.Server
	unlock     func() error

	// Of a node with peers; nil on a lone one.
	group   *member.Group
	former  *former
	recalls *recalls
	session *session

	watchdog *watchdog
	stopping atomic.Bool   // asked to stop: the beats say so
	ready    chan struct{} // closed when the node serves
	stop     context.CancelFunc
	abort    context.CancelCauseFunc // ends the start
	stopped  chan struct{}
	running  sync.WaitGroup
	failed   chan error // capacity 1: the first fatal error
}

// Open starts a node, in the order in which each part needs the ones before:
// lock and identity; for a node with peers gossip, its place in a cluster, and
// gRPC, which until the end answers only what forming a cluster needs; the
// record log and the metadata side by side; registration; then the first
// reconciliation, so that the node serves all it should when Open returns. ctx
// bounds the start only.
func Open(ctx context.Context, cfg Config) (b *Broker, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	if !cfg.Lone {
		if err := cfg.validateCluster(); err != nil {
			return nil, err
		}
	}
	if err := makeDirDurably(cfg.DataDir); err != nil {
		return nil, fmt.Errorf("can't make the data directory: %w", err)
	}
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	running, cancel := context.WithCancel(context.Background())
	b = &Broker{
		cfg: cfg, logger: cfg.Logger, clock: newClock(), conns: newConns(cfg.dial), ready: make(chan struct{}),
		stop: cancel, stopped: make(chan struct{}), failed: make(chan error, 1),
	}
	b.data, b.cluster, b.push = &dataService{stopped: b.stopped}, &clusterService{stopped: b.stopped, version: cfg.Version, startedMs: time.Now().UnixMilli()}, &replicationService{}
	b.controller = &controllerService{stopped: b.stopped}
	defer func() {
		if err != nil {
			select {
			case why := <-b.failed: // the reason, of which err is a consequence
				err = why
			default:
			}
			b.shutDown(context.Background())
			b = nil
		}
	}()
	b.abort = abort
	if b.unlock, err = lockDir(cfg.DataDir); err != nil {
		return b, err
	}
	if b.identity, err = loadIdentity(cfg.DataDir, cfg.NodeID, cfg.DefaultNodeID, cfg.Lone); err != nil {
		return b, err
	}
	raftConfig, err := b.openStores(ctx)
	if err != nil {
		return b, err
	}
	if err := b.settle(ctx, raftConfig); err != nil {
		return b, err
	}
	grpcAddress, raftAddress, gossipAddress := b.addresses()
	incarnation, err := b.register(ctx, cfg, grpcAddress, raftAddress, gossipAddress)
	if err != nil {
		return b, fmt.Errorf("can't register this node in the metadata: %w", err)
	}
	if err := b.takeUpShards(ctx, running, incarnation); err != nil {
		return b, err
	}
	b.serve(running, incarnation)
	b.logger.Info("broker is up", "node", b.identity.NodeID, "cluster", b.identity.ClusterID, "incarnation", incarnation)
	return b, nil
}

// raftDir is raft's own directory.
func (b *Broker) raftDir() string { return filepath.Join(b.cfg.DataDir, "raft") }

// findPlace gives raft's configuration. A lone node is its own cluster; another
// asks its peers, and may wait for them for long.
func (b *Broker) findPlace(ctx context.Context) (raftfsm.Config, error) {
	c := raftfsm.Config{
		Dir: b.raftDir(), NodeID: string(b.identity.NodeID), DiskID: b.identity.DiskID, Logger: b.cfg.Logger, OnFatal: b.fail,
	}
	if b.cfg.Lone {
		c.Bootstrap, c.LoneVoter = true, true
		return c, nil
	}
	if err := b.meetPeers(ctx); err != nil {
		return c, err
	}
	c.DiskID = b.identity.DiskID
	place, err := b.former.find(ctx)
	if err != nil {
		return c, err
	}
	b.identity.ClusterID = place.clusterID
	host, _, err := advertised(b.cfg)
	if err != nil {
		return c, err
	}
	c.Listener, c.Advertise, c.AddressOf, c.Dial = b.cfg.RaftListener, withPort(host, b.cfg.RaftListener), addressOf(b.group), b.cfg.dial
	for _, f := range place.bootstrap {
		c.Founders = append(c.Founders, raftfsm.Server{ID: raftfsm.ServerID(f.NodeId, f.DiskId), NodeID: f.NodeId, Addr: f.RaftAddress, Voter: true})
	}
	return c, nil
}

// meetPeers starts gossip and gRPC, and makes sure that this disk is what the
// peers remember of it, or else a new one.
func (b *Broker) meetPeers(ctx context.Context) (err error) {
	resumes := raftfsm.HasState(b.raftDir())
	var damage error
	if resumes {
		if damage = raftfsm.Verify(b.raftDir()); damage != nil && !errors.Is(damage, stream.Corrupt) {
			return fmt.Errorf("can't open the metadata: %w", damage)
		}
	}
	if b.group, b.former, err = gather(b.cfg, &b.identity, resumes); err != nil {
		return err
	}
	group := b.group
	b.running.Go(func() { b.endAmongStrangers(group) })
	gate := &promiseGate{}
	gate.Store(b.former)
	b.controller.promise, b.controller.recalls = gate, b.recalls
	b.controller.damaged.Store(damage != nil)
	b.serveGRPC(b.cfg.GRPCListener)
	switch {
	case damage != nil && !b.recalls.others(string(b.identity.NodeID)):
		return fmt.Errorf("can't open the metadata, and no other node is known to have it: %w", damage)
	case damage != nil:
		b.logger.Error("the metadata on this disk is damaged: once a majority of the cluster answers, this node takes part as a new, empty disk, and gets everything again",
			"damage", damage)
	case !resumes || b.identity.ClusterID == "":
		return nil
	}
	copied, err := b.askPeers(ctx, b.group, damage != nil)
	if err != nil || !copied && damage == nil {
		return err
	}
	if err := b.startAnew(); err != nil {
		return fmt.Errorf("can't start on this disk anew: %w", err)
	}
	if err := b.group.Close(); err != nil {
		return err
	}
	if b.group, b.former, err = gather(b.cfg, &b.identity, false); err != nil {
		return err
	}
	gate.Store(b.former)
	b.controller.damaged.Store(false)
	return nil
}

// promiseGate passes promises on to the present former.
type promiseGate struct{ atomic.Pointer[former] }

func (g *promiseGate) Promise(ctx context.Context, req *pb.PromiseRequest) (*pb.PromiseResponse, error) {
	return g.Load().Promise(ctx, req)
}

// openStores opens the record log and the metadata. On a lone node at the same
// time: both read their files back first, and a start should take the longer of
// the two. A node with peers asks them in between.
func (b *Broker) openStores(ctx context.Context) (raftConfig raftfsm.Config, err error) {
	if b.cfg.Lone {
		if raftConfig, err = b.findPlace(ctx); err != nil {
			return raftConfig, err
		}
		var logErr, metaErr error
		var opening sync.WaitGroup
		opening.Go(func() { logErr = b.openRecords() })
		opening.Go(func() { metaErr = b.openMetadata(raftConfig) })
		opening.Wait()
		return raftConfig, errors.Join(logErr, metaErr)
	}
	if b.recalls, err = loadRecalls(b.cfg.DataDir); err != nil {
		return raftConfig, err
	}
	if err := b.openRecords(); err != nil {
		return raftConfig, err
	}
	if raftConfig, err = b.findPlace(ctx); err != nil {
		return raftConfig, err
	}
	return raftConfig, b.openMetadata(raftConfig)
}

func (b *Broker) openRecords() (err error) {
	cfg := b.cfg
	b.records, err = recordlog.Open(recordlog.Config{
		Dir: cfg.DataDir, FS: cfg.recordsFS, JournalBudget: cfg.JournalBudget, TailCache: cfg.TailCache,
		DiskReserve: cfg.DiskReserve, ScrubInterval: cfg.ScrubInterval, Logger: cfg.Logger, OnFatal: b.fail,
	})
	if err != nil {
		return fmt.Errorf("can't open the record log: %w", err)
	}
	b.reportRecovery()
	return nil
}

func (b *Broker) openMetadata(raftConfig raftfsm.Config) (err error) {
	if b.meta, err = raftfsm.Open(raftConfig); err != nil {
		return fmt.Errorf("can't open the metadata: %w", err)
	}
	return nil
}

// settle waits for the metadata: raft has a leader, and the cluster its first entry.
func (b *Broker) settle(ctx context.Context, raftConfig raftfsm.Config) error {
	b.control = &control{
		node: string(b.identity.NodeID), clusterID: func() string { return b.identity.ClusterID }, meta: b.meta, clock: b.clock, conns: b.conns,
		address: b.grpcAddressOf,
	}
	if b.former != nil {
		// Raft's first configuration is on disk; a crash from here on resumes.
		if err := errors.Join(b.former.formed(b.identity.ClusterID), b.former.tellGossip()); err != nil {
			return err
		}
	}
	if err := b.meta.WaitLeader(ctx); err != nil {
		return fmt.Errorf("the metadata found no leader: %w", err)
	}
	if err := b.initCluster(ctx); err != nil {
		return err
	}
	if b.former != nil {
		return b.former.settled()
	}
	return nil
}

// grpcAddressOf gives where another broker serves gRPC: gossip knows best, as a
// broker that came back under a new address may not have registered yet.
func (b *Broker) grpcAddressOf(node string) string {
	if b.group != nil {
		for _, m := range b.group.Members() {
			if string(m.NodeID) == node && m.State == member.Alive && m.GRPC != "" && m.ClusterID == b.identity.ClusterID {
				return m.GRPC
			}
		}
	}
	return b.meta.State().Broker(node).GetGrpcAddress()
}

// addresses gives what the metadata is told of this node.
func (b *Broker) addresses() (grpcAddress, raftAddress, gossipAddress string) {
	if b.group == nil {
		if b.cfg.GRPCListener != nil {
			grpcAddress = b.cfg.GRPCListener.Addr().String()
		}
		return grpcAddress, "", ""
	}
	self := b.group.Self()
	return self.GRPC, self.Raft, self.Gossip
}

// takeUpShards makes the node's replicas what the metadata says they are.
func (b *Broker) takeUpShards(ctx, running context.Context, incarnation uint64) error {
	b.env = newEnv(b.identity.NodeID, incarnation, b.clock, b.control, b.logger)
	b.host = newHost(b.identity.NodeID, incarnation, b.records, b.meta, b.control, b.env, b.logger)
	if b.cfg.ShardLimits {
		b.host.limits = newLimits(b.clock.since)
	}
	b.env.peers = newPeers(running, b.identity.NodeID, b.identity.ClusterID, incarnation, b.host, b.cfg.dial, b.clock.since, b.cfg.CatchUpRate, b.logger)
	b.push.peers, b.push.records = b.env.peers, b.records
	b.data.host = b.host
	b.cluster.meta, b.cluster.control, b.cluster.host = b.meta, b.control, b.host
	b.controller.control = b.control
	if b.group != nil {
		b.controller.servers = b.meta
		b.cluster.members = func() []*pb.Member { return memberMessages(b.group.Members()) }
	}
	state, _ := b.meta.Watch()
	b.host.look(state)
	if err := b.host.reconcileShards(ctx, state); err != nil {
		return fmt.Errorf("can't take up the shards of this node: %w", err)
	}
	if err := b.host.awaitLeading(ctx); err != nil {
		return fmt.Errorf("can't lead the shards of this node: %w", err)
	}
	return nil
}

// serve starts what runs until Close.
func (b *Broker) serve(running context.Context, incarnation uint64) {
	b.watchdog = &watchdog{fail: b.fail, stalledFor: func() time.Duration { return max(b.records.Stalled(), b.meta.StoreStalled()) }}
	b.cluster.stalled = b.watchdog.stalled
	if b.group != nil {
		b.session = newSession(sessionConfig{
			ClusterID: b.identity.ClusterID, NodeID: string(b.identity.NodeID), Incarnation: incarnation,
			Leader:  func() string { leader, _ := b.meta.Leader(); return leader },
			Address: b.grpcAddressOf, Dial: b.cfg.dial, Clock: b.clock, Local: b.controller.local,
			Health: func() health {
				return health{stalled: b.watchdog.stalled(), full: b.records.DiskFull(), stopping: b.stopping.Load()}
			},
			Frame:         func() uint64 { _, frame := b.records.Position(); return frame },
			LeaderSuspect: b.meta.LeaderSuspect, Superseded: b.fail, Logger: b.logger,
		})
		b.host.answered = b.session.sinceAnswered
		b.running.Go(func() { b.session.run(running) })
		b.running.Go(func() { b.endWhenRemoved(running) })
		b.running.Go(func() { b.recalls.run(running, b.meta, b.fail) })
	}
	if b.cfg.Registerer != nil {
		registerMetrics(b.cfg.Registerer, b)
	}
	b.running.Go(func() { b.watchdog.run(running) })
	b.running.Go(func() { b.env.tick(running) })
	b.running.Go(func() { b.env.propose(running) })
	b.running.Go(func() { b.host.run(running) })
	b.running.Go(func() { b.host.readBack(running) })
	b.running.Go(func() { b.host.expire(running) })
	b.running.Go(func() { b.host.sweepOrphans(running) })
	loads := &loadReporter{
		host: b.host, every: b.cfg.OnDemand.Interval / reportsPerInterval, since: b.clock.since, send: b.sendLoads,
		cluster: b.identity.ClusterID, node: string(b.identity.NodeID), incarnation: incarnation,
	}
	b.running.Go(func() { loads.run(running) })
	controls := controllerConfig{ReplaceAfter: b.cfg.ReplaceAfter, OnDemand: b.cfg.OnDemand, Holds: b.host.holds, Logger: b.logger}
	if b.session != nil {
		controls.Lag = b.session.Lag
	}
	b.running.Go(func() {
		b.controller.lead(running, controls)
	})
	if b.cfg.Lone && b.cfg.GRPCListener != nil {
		b.serveGRPC(b.cfg.GRPCListener)
	}
	close(b.ready)
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

// maxMessage bounds a gRPC message: a PutRecords of 10 MiB and its headers, or
// a read of maxReadBytes and one batch more.
const maxMessage = maxReadBytes + stream.MaxBatchSize + 1<<20

func (b *Broker) serveGRPC(l net.Listener) {
	b.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(16<<20),
		// A peer whose machine is gone leaves connections that nothing closes.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if info.FullMethod != pb.Controller_Promise_FullMethodName && info.FullMethod != pb.Controller_Recall_FullMethodName {
				if err := b.awaitReady(); err != nil {
					return nil, toStatus(err)
				}
			}
			out, err := handler(ctx, req)
			return out, toStatus(err)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := b.awaitReady(); err != nil {
				return toStatus(err)
			}
			return toStatus(handler(srv, ss))
		}),
	)
	pb.RegisterDataServer(b.grpc, b.data)
	pb.RegisterClusterServer(b.grpc, b.cluster)
	b.controller.register(b.grpc)
	pb.RegisterReplicationServer(b.grpc, b.push)
	b.running.Go(func() {
		if err := b.grpc.Serve(l); err != nil {
			b.fail(fmt.Errorf("gRPC stopped serving: %w", err))
		}
	})
}

// awaitReady refuses calls that come before the node can answer them.
func (b *Broker) awaitReady() error {
	select {
	case <-b.ready:
		return nil
	default:
		return stream.Errorf(stream.Unavailable, "broker", "this broker is starting")
	}
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
	if b.records.DiskFull() && b.meta.State().StreamByName(name).GetStatus() != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		return stream.Errorf(stream.DiskFull, "broker.EnsureStream", "less free disk is left than --disk-reserve: free some, or reserve less")
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

// Close ends the node: it gives its leaderships away, then no new requests, then
// the goroutines, the metadata, and last the record log with everything that
// was accepted. It gives the first error met. ctx bounds the wait for others and
// for requests in flight.
func (b *Broker) Close(ctx context.Context) error {
	b.handOver(ctx)
	return b.shutDown(ctx)
}

// drainTimeout bounds the wait for calls in flight at a stop.
const drainTimeout = 3 * time.Second

// handOverPatience is how long a node that stops waits without being heard.
const handOverPatience = 2 * time.Second

// handOver waits until other nodes lead what this one leads, as far as there
// are others.
func (b *Broker) handOver(ctx context.Context) {
	if b.session == nil {
		return
	}
	b.stopping.Store(true)
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		state, changed := b.meta.Watch()
		if b.session.sinceAnswered() > handOverPatience || !b.stillNeeded(state) {
			break
		}
		select {
		case <-changed:
			continue
		case <-ticker.C:
			continue
		case <-ctx.Done():
			b.logger.Warn("stopping though this node still leads shards, or shards need it: their writes wait until others took over")
		case err := <-b.failed:
			b.fail(err) // for whoever waits for it; a newer one may be there already
		}
		break
	}
	if b.meta.IsLeader() {
		if err := b.meta.TransferLeadership(ctx); err != nil && len(b.meta.Servers()) > 1 {
			b.logger.Info("the raft leadership was not handed over", "error", err)
		}
	}
}

// stillNeeded tells whether a live node could still take something over.
func (b *Broker) stillNeeded(state *raftfsm.State) bool {
	others := false
	for _, o := range state.Brokers() {
		others = others || o.NodeId != string(b.identity.NodeID) && o.State == pb.BrokerState_BROKER_STATE_LIVE
	}
	if !others {
		return false
	}
	if self := state.Broker(string(b.identity.NodeID)); self.GetState() == pb.BrokerState_BROKER_STATE_LIVE {
		return true // the controller has not heard it yet
	}
	return needed(state, b.identity.NodeID)
}

// needed tells whether a shard is led by the node, or would fall below its floor
// without it though a replica on a live node could still join its in-sync set.
func needed(state *raftfsm.State, node stream.NodeID) bool {
	for _, s := range state.Streams() {
		for _, shard := range state.Shards(s.Id) {
			mine := replicaOn(shard, node)
			if mine == nil {
				continue
			}
			if shard.Leader == mine.Id || slices.Contains(shard.InSync, mine.Id) && len(shard.InSync) <= int(shard.MinInSync) && couldJoin(state, shard) {
				return true
			}
		}
	}
	return false
}

// couldJoin tells whether a replica outside of the in-sync set is on a live node.
func couldJoin(state *raftfsm.State, shard *pb.Shard) bool {
	return slices.ContainsFunc(shard.Replicas, func(r *pb.Replica) bool {
		return !slices.Contains(shard.InSync, r.Id) && state.Broker(r.NodeId).GetState() == pb.BrokerState_BROKER_STATE_LIVE
	})
}

// shutDown ends whatever was started, also after a start that failed half-way.
func (b *Broker) shutDown(ctx context.Context) error {
	close(b.stopped)
	b.stop() // also ends the streams from other brokers, for which the next step waits
	if b.grpc != nil {
		// Connections of peers that are gone without a word would hold it up.
		ctx, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
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
	if b.env != nil {
		b.env.peers.wait()
	}
	b.cluster.watches.Wait()
	b.controller.wait()
	b.conns.close()
	return b.release(ctx)
}

// release closes what is open, in the reverse order of opening.
func (b *Broker) release(ctx context.Context) error {
	var errs []error
	if b.meta != nil {
		errs = append(errs, b.meta.Close())
	}
	if b.group != nil {
		leaving, cancel := context.WithTimeout(ctx, time.Second)
		if err := b.group.Leave(leaving); err != nil {
			b.logger.Debug("gossip was not told that this node leaves", "error", err)
		}
		cancel()
		errs = append(errs, b.group.Close())
	}
	if b.records != nil {
		errs = append(errs, b.records.Close())
	}
	if b.unlock != nil {
		errs = append(errs, b.unlock())
	}
	return errors.Join(errs...)
}
