package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Config says where a node keeps its raft state and how it runs.
type Config struct {
	Dir    string // raft's own directory; created if absent
	NodeID string
	DiskID string // UUID of the disk; its first 8 characters are part of the raft server's id (I18)

	// Bootstrap forms a cluster of this node alone, and Founders one of these
	// voters, this node among them, if there is no raft state yet. With neither,
	// a node without state waits until a leader adds it.
	Bootstrap bool
	Founders  []Server
	// LoneVoter says that elections are part of each start, and no news.
	LoneVoter bool

	// Listener is where raft's peers call; closed by Close, and by Open if that
	// fails. With nil the node has no peers.
	Listener  net.Listener
	Advertise string // host:port at which peers reach Listener; empty: its own address
	// Dial connects to a peer; nil: TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// AddressOf tells where a server is now. It beats the address that it was
	// added with, so that an address may change without a change of the
	// members. It must answer at once. nil: nobody knows.
	AddressOf func(serverID string) (addr string, ok bool)

	Logger *slog.Logger // nil: none
	// OnFatal is told, once, why the node cannot go on: a store that failed, or
	// something that does not match its checksum, or a command that this program
	// does not know. The process must end. It is called on one of raft's own
	// goroutines and must not wait for the node.
	OnFatal func(error)

	wrapStore func(boltStore) boltStore // for tests of bad disks; nil: none
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports every mistake.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no Dir"))
	}
	if c.NodeID == "" {
		errs = append(errs, errors.New("no NodeID"))
	}
	if len(c.DiskID) < 8 {
		errs = append(errs, fmt.Errorf("DiskID %q is shorter than 8 characters", c.DiskID))
	}
	if c.OnFatal == nil {
		errs = append(errs, errors.New("no OnFatal"))
	}
	if len(c.Founders) > 0 && len(c.DiskID) >= 8 && !slices.ContainsFunc(c.Founders, func(s Server) bool { return s.ID == string(c.serverID()) }) {
		errs = append(errs, fmt.Errorf("this server, %s, is not one of its Founders", c.serverID()))
	}
	if len(c.Founders) > 1 && c.Listener == nil {
		errs = append(errs, errors.New("no Listener, but other Founders"))
	}
	if err := errors.Join(errs...); err != nil {
		return stream.Errorf(stream.Invalid, "raftfsm.Open", "%w", err)
	}
	return nil
}

const (
	trailingLogs      = 1024
	snapshotThreshold = 4096 // entries
	maxProposals      = 256  // at once; more wait for their turn
	notReady          = "raft leader is not ready yet"
)

func (c Config) raftConfig(notify chan<- bool) *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = c.serverID()
	r.NotifyCh = notify
	r.Logger = newHclog(c.Logger, c.LoneVoter)
	r.TrailingLogs, r.SnapshotThreshold = trailingLogs, snapshotThreshold
	r.SnapshotInterval = 30 * time.Second
	r.HeartbeatTimeout, r.ElectionTimeout, r.LeaderLeaseTimeout = raftTimeout, raftTimeout, leaderLease
	r.CommitTimeout = 20 * time.Millisecond
	r.ShutdownOnRemove = false // a node that was removed may be added again
	r.NoLegacyTelemetry = true
	return r
}

func (c Config) serverID() raft.ServerID { return raft.ServerID(ServerID(c.NodeID, c.DiskID)) }

// Node is a member of the metadata's raft cluster, with its copy of the state.
type Node struct {
	id    raft.ServerID
	fsm   *fsm
	raft  *raft.Raft
	store *store
	layer *layer // nil without peers

	failure   *failure
	role      *latest[role]
	reads     chan chan readResult // to readLoop
	proposals chan struct{}        // one token per proposal under way
	nudges    chan struct{}        // capacity 1, to nudgeLoop
	suspects  chan struct{}        // capacity 1, to suspectLoop
	closing   sync.Mutex           // orders start and the closing of done
	done      chan struct{}        // closed when Close begins
	stopped   chan struct{}        // closed when raft has ended
	close     func() error         // once
	calls     sync.WaitGroup       // goroutines that wait for an answer of raft's
	wg        sync.WaitGroup       // all others
}

// role is what the node knows of the raft leadership.
type role struct {
	leading    bool   // this node leads
	generation uint64 // counts its leaderships
	ready      bool   // and its state holds all that was committed before it led
	known      bool   // another node leads
}

// Open starts the node. It fails with Kind Corrupt if anything in the
// directory does not match its checksum; nothing is changed then.
func Open(cfg Config) (_ *Node, err error) {
	defer func() {
		if err != nil && cfg.Listener != nil {
			_ = cfg.Listener.Close()
		}
	}()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	f := &failure{cfg: cfg, failed: make(chan struct{})}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(cfg.Dir)); err != nil {
		return nil, err
	}
	snaps, err := openSnapStore(filepath.Join(cfg.Dir, "snapshots"), f.tell)
	if err != nil {
		return nil, err
	}
	logs, err := openStore(cfg.Dir, f.tell)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, logs.Close())
		}
	}()
	if cfg.wrapStore != nil {
		logs.bolt = cfg.wrapStore(logs.bolt)
	}
	if err := joinUp(logs, snaps); err != nil {
		return nil, err
	}
	var peers *layer
	var trans raft.Transport
	if cfg.Listener == nil {
		_, trans = raft.NewInmemTransport(raft.ServerAddress(cfg.serverID()))
	} else {
		peers = newLayer(cfg)
		network := newTransport(cfg, peers).(*raft.NetworkTransport)
		trans = network
		defer func() {
			if err != nil {
				err = errors.Join(err, network.Close())
			}
		}()
	}
	notify := make(chan bool)
	conf := cfg.raftConfig(notify)
	if members := cfg.founding(trans.LocalAddr()); len(members) > 0 {
		if err := bootstrap(conf, logs, snaps, trans, members); err != nil {
			return nil, err
		}
	}
	n := &Node{
		id: conf.LocalID, fsm: newFSM(f.tell), store: logs, layer: peers, failure: f,
		role:      newLatest(role{}),
		reads:     make(chan chan readResult, 128),
		proposals: make(chan struct{}, maxProposals),
		nudges:    make(chan struct{}, 1),
		suspects:  make(chan struct{}, 1),
		done:      make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	n.close = sync.OnceValue(n.shutdown)
	if n.raft, err = raft.NewRaft(conf, n.fsm, logs, logs, snaps, trans); err != nil {
		return nil, err
	}
	f.watch(n.raft)
	n.wg.Go(func() { n.roleLoop(notify) })
	n.start(n.readLoop)
	n.start(n.nudgeLoop)
	n.start(n.suspectLoop)
	if peers != nil {
		n.wg.Go(n.stallLoop)
	}
	n.electNow()
	return n, nil
}

// failure stops raft at the first error after which it must not go on, so that
// other voters elect and nothing more is tried on this disk (I15).
type failure struct {
	cfg    Config
	failed chan struct{} // closed by the first error

	mu   sync.Mutex
	err  error
	raft *raft.Raft  // nil until it runs
	stop raft.Future // of raft's shutdown, once begun: only the first one waits
}

func (f *failure) tell(err error) {
	f.mu.Lock()
	first := f.err == nil
	if first {
		f.err = err
		close(f.failed)
		f.stopLocked()
	}
	f.mu.Unlock()
	if first {
		f.cfg.Logger.Error("raft cannot go on", "error", err)
		f.cfg.OnFatal(err)
	}
}

func (f *failure) watch(r *raft.Raft) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.raft = r
	f.stopLocked()
}

// stopLocked only begins raft's shutdown: it is called on raft's goroutines.
func (f *failure) stopLocked() {
	if f.err != nil && f.raft != nil && f.stop == nil {
		f.stop = f.raft.Shutdown()
	}
}

// shutdown stops raft and waits for it.
func (f *failure) shutdown() error {
	f.mu.Lock()
	if f.stop == nil {
		f.stop = f.raft.Shutdown()
	}
	stop := f.stop
	f.mu.Unlock()
	return stop.Error()
}

// joinUp checks that the log begins where the newest snapshot ends, and drops
// a log that the snapshot has overtaken.
func joinUp(logs *store, snaps *snapStore) error {
	list, err := snaps.List()
	if err != nil {
		return err
	}
	var snap uint64
	if len(list) > 0 {
		snap = list[0].Index
	}
	first, last, _ := logs.bounds()
	if first > snap+1 {
		return damaged(logs.path, "it begins at entry %d, but the newest snapshot ends at %d", first, snap)
	}
	if last > 0 && last < snap {
		return logs.DeleteRange(first, last)
	}
	return nil
}

// founding gives the members of a cluster that is to be formed.
func (c Config) founding(self raft.ServerAddress) []raft.Server {
	if c.Bootstrap {
		return []raft.Server{{ID: c.serverID(), Address: self}}
	}
	var members []raft.Server
	for _, s := range c.Founders {
		id := raft.ServerID(s.ID)
		members = append(members, raft.Server{ID: id, Address: peerAddress(id, s.Addr)})
	}
	return members
}

// bootstrap forms the cluster if the node has no raft state, and finishes a
// bootstrap that a crash cut short behind its first write, that of the term.
func bootstrap(conf *raft.Config, logs *store, snaps *snapStore, trans raft.Transport, members []raft.Server) error {
	list, err := snaps.List()
	if err != nil {
		return err
	}
	_, last, _ := logs.bounds()
	if last > 0 || len(list) > 0 {
		return nil
	}
	term, err := logs.GetUint64([]byte(stableKeys[0]))
	if err != nil {
		return err
	}
	if term > 1 {
		return damaged(logs.path, "it has no entry, but is in term %d", term)
	}
	if term == 1 {
		if err := logs.SetUint64([]byte(stableKeys[0]), 0); err != nil {
			return err
		}
	}
	return raft.BootstrapCluster(conf, logs, logs, snaps, trans, raft.Configuration{Servers: members})
}

// State gives the node's copy of the metadata, which may be behind the leader's.
func (n *Node) State() *State {
	s, _ := n.fsm.state.load()
	return s
}

// Watch gives the state and a channel that closes when a newer one is there.
func (n *Node) Watch() (*State, <-chan struct{}) { return n.fsm.state.load() }

// IsLeader tells whether this node leads raft and its state holds all that was
// committed before.
func (n *Node) IsLeader() bool {
	r, _ := n.role.load()
	return r.leading && r.ready
}

// WaitLeader waits until a raft leader is known; if that is this node, until
// its state holds all that was committed before. It fails with Kind Unavailable
// if the context or the node ends first.
func (n *Node) WaitLeader(ctx context.Context) error {
	for {
		r, changed := n.role.load()
		if r.leading && r.ready || !r.leading && r.known {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return stream.Errorf(stream.Unavailable, "raftfsm.WaitLeader", "no raft leader: %w", context.Cause(ctx))
		case <-n.done:
			return errClosed("raftfsm.WaitLeader")
		}
	}
}

// roleLoop follows the leadership until raft has ended. It never waits for
// raft, since raft waits for it.
func (n *Node) roleLoop(notify <-chan bool) {
	observed := make(chan raft.Observation, 1)
	observer := raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(observer)
	defer n.raft.DeregisterObserver(observer)
	known := func() bool {
		_, id := n.raft.LeaderWithID()
		return id != "" && id != n.id
	}
	// A leader that has spoken before the observer was there is not observed.
	n.role.update(func(r role) role {
		r.known = known()
		return r
	})
	for {
		select {
		case leading := <-notify:
			var generation uint64
			n.role.update(func(r role) role {
				r = role{leading: leading, generation: r.generation, known: known()}
				if leading {
					r.generation++
				}
				generation = r.generation
				return r
			})
			if leading {
				n.start(func() { n.becomeReady(generation) })
			}
		case <-observed:
			n.role.update(func(r role) role {
				r.known = known()
				return r
			})
		case <-n.stopped:
			return
		}
	}
}

// becomeReady waits until the state holds all that was committed before this
// leadership.
func (n *Node) becomeReady(generation uint64) {
	if n.barrier() != nil {
		return // the leadership is over, or the node
	}
	n.role.update(func(r role) role {
		r.ready = r.ready || r.leading && r.generation == generation
		return r
	})
	n.noteOwnAddress()
}

// Propose has a command applied by the cluster and gives its result; a refusal
// by the rules is a result, not an error. It fails with Kind NotLeader or
// Unavailable if the command was not applied and will not be, and with Kind
// Timeout if that is unknown.
func (n *Node) Propose(ctx context.Context, c *pb.Command) (*pb.CommandResult, error) {
	const op = "raftfsm.Propose"
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return nil, stream.Errorf(stream.Invalid, op, "%w", err)
	}
	if _, err := DecodeCommand(data); err != nil {
		return nil, stream.Errorf(stream.Invalid, op, "%w", err)
	}
	select {
	case n.proposals <- struct{}{}:
	case <-ctx.Done():
		return nil, stream.Errorf(stream.Unavailable, op, "not proposed: %w", context.Cause(ctx))
	case <-n.done:
		return nil, errClosed(op)
	}
	wait := timeLeft(ctx)
	type answer struct {
		result *pb.CommandResult
		err    error
	}
	answered := make(chan answer, 1)
	// Raft's futures cannot be given up, so a goroutine stays with this one.
	if !n.start(func() {
		defer func() { <-n.proposals }()
		future := n.raft.Apply(data, wait)
		if err := n.await(future); err != nil {
			answered <- answer{err: applyError(op, err)}
			return
		}
		switch r := future.Response().(type) {
		case *pb.CommandResult:
			answered <- answer{result: r}
			if urgent(c) {
				n.Nudge()
			}
		case error:
			answered <- answer{err: stream.Errorf(stream.Internal, op, "%w", r)}
		default:
			answered <- answer{err: stream.Errorf(stream.Internal, op, "raft answered with %T", r)}
		}
	}) {
		<-n.proposals
		return nil, errClosed(op)
	}
	select {
	case a := <-answered:
		return a.result, a.err
	case <-ctx.Done():
		return nil, stream.Errorf(stream.Timeout, op, "the outcome is unknown: %w", context.Cause(ctx))
	}
}

// start runs f on a goroutine that Close waits for; false if the node is closed.
func (n *Node) start(f func()) bool {
	n.closing.Lock()
	defer n.closing.Unlock()
	select {
	case <-n.done:
		return false
	default:
		n.calls.Go(f)
		return true
	}
}

// await gives the outcome of a future. Raft forgets futures that are queued in
// it when it ends, so that waiting for them would never end: the goroutine of
// such a one is lost, which happens only to a node that failed.
func (n *Node) await(f raft.Future) error {
	answered := make(chan error, 1)
	go func() { answered <- f.Error() }()
	select {
	case err := <-answered:
		return err
	case <-n.stopped:
	}
	select {
	case err := <-answered:
		return err
	default:
		return raft.ErrRaftShutdown
	}
}

// applyError gives raft's errors their kinds. Those of an entry that may have
// reached another node's log leave the outcome open.
func applyError(op string, err error) error {
	kind := stream.Timeout
	switch {
	case errors.Is(err, raft.ErrNotLeader):
		kind = stream.NotLeader
	case errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		kind = stream.Unavailable
	}
	return stream.Errorf(kind, op, "%w", err)
}

func errClosed(op string) error {
	return stream.Errorf(stream.Unavailable, op, "the raft node is closed")
}

// Close stops the node and waits for all of its goroutines. Proposals under
// way are waited for.
func (n *Node) Close() error { return n.close() }

func (n *Node) shutdown() error {
	n.closing.Lock()
	close(n.done)
	n.closing.Unlock()
	// Raft must live until it has answered what it was asked.
	drained := make(chan struct{})
	n.wg.Go(func() {
		n.calls.Wait()
		close(drained)
	})
	select {
	case <-drained:
	case <-n.failure.failed:
	}
	err := n.failure.shutdown()
	close(n.stopped)
	n.wg.Wait()
	return errors.Join(err, n.store.Close())
}
