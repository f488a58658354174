// Package member knows who is there: it finds the other nodes by gossip, and
// tells their addresses, zone and cluster. It wraps hashicorp/memberlist.
//
// It is not a failure detector: on starved cores gossip declares the living
// dead, so nothing may be fenced, moved or deleted for what it says. It decides
// nothing; forming a cluster from what it sees is the broker's matter.
//
// The invariant it keeps: one node id stands for one member, its newest
// process, and no member of another cluster is ever shown.
package member

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"shardstream/stream"
)

// State is what gossip thinks of a member. Never a reason to fence it.
type State string

// The states.
const (
	Alive State = "alive"
	Dead  State = "dead" // it fell silent
	Left  State = "left" // it said good-bye
)

// Facts are what a node tells of itself.
type Facts struct {
	NodeID    stream.NodeID
	DiskID    string
	Zone      string
	ClusterID string // of the cluster that it has, or once had; empty if it never had one
	GRPC      string // HOST:PORT
	Raft      string // HOST:PORT
	HTTP      string // HOST:PORT of the admin port; empty if there is none
	// Founding is the cluster that the node has promised to found with others,
	// and Founder the node that is to do it; empty once it exists, or if there
	// is no such promise.
	Founding string
	Founder  stream.NodeID
	Expect   int // its --bootstrap-expect
}

// Member is a node as gossip sees it.
type Member struct {
	Facts
	Gossip  string // IP:PORT
	Started int64  // Unix ms; tells the processes of one node apart
	State   State
}

// Config says how to take part. Facts.NodeID is required, and Bind unless
// Transport is given.
type Config struct {
	Facts Facts
	// Started is when this process began, Unix ms; default now. Each start of a
	// node is a member of its own in gossip, so that one that comes back under
	// another address conflicts with nobody.
	Started int64

	Bind string // HOST:PORT, for TCP and UDP
	// AdvertiseIP is what the others are told to gossip to. Empty takes Bind's
	// host, or the machine's private address if that is no particular one.
	AdvertiseIP net.IP
	// Seeds are HOST:PORT of other nodes' gossip. A name stands for all of its
	// addresses. They are tried for ever, and looked up anew each time.
	Seeds []string
	Key   []byte // 16, 24 or 32 bytes: encrypts gossip; all nodes need the same

	Logger *slog.Logger

	// For tests: another network, another DNS.
	Transport  memberlist.Transport
	LookupHost func(ctx context.Context, host string) ([]string, error)
}

func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Facts.NodeID == "" {
		errs = append(errs, errors.New("no node id"))
	}
	for _, s := range c.Seeds {
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("--join %s: want HOST:PORT, the gossip port of another node", s))
		}
	}
	switch len(c.Key) {
	case 0, 16, 24, 32:
	default:
		errs = append(errs, fmt.Errorf("a gossip key has 16, 24 or 32 bytes, this one has %d", len(c.Key)))
	}
	if len(errs) > 0 {
		return c, stream.Errorf(stream.Invalid, "member.Open", "%w", errors.Join(errs...))
	}
	if c.Started == 0 {
		c.Started = time.Now().UnixMilli()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.LookupHost == nil {
		c.LookupHost = net.DefaultResolver.LookupHost
	}
	return c, nil
}

// Group is this node's part in the gossip. Open makes one, Close ends it.
type Group struct {
	// Set once.
	cfg     Config
	logger  *slog.Logger
	list    *memberlist.Memberlist
	self    string                // gossip name
	sought  chan struct{}         // closed when each seed was tried once
	foreign atomic.Pointer[error] // see Foreign
	stop    context.CancelFunc
	wg      sync.WaitGroup
	close   func() error

	mu      sync.Mutex
	facts   Facts
	left    bool
	seen    map[string]Member // by gossip name
	changed chan struct{}     // closed and replaced by each change
	refused map[string]time.Time
}

// Open starts to listen, and to look for the seeds in the background.
func Open(cfg Config) (*Group, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Group{
		cfg: cfg, logger: cfg.Logger, facts: cfg.Facts, stop: cancel,
		self:    string(cfg.Facts.NodeID) + "#" + strconv.FormatInt(cfg.Started, 36),
		seen:    make(map[string]Member),
		sought:  make(chan struct{}),
		changed: make(chan struct{}),
		refused: make(map[string]time.Time),
	}
	g.close = sync.OnceValue(g.shutdown)
	if _, err := encodeFacts(g.facts, cfg.Started, false); err != nil {
		cancel()
		return nil, stream.Errorf(stream.Invalid, "member.Open", "%w", err)
	}
	conf, err := g.memberlistConfig(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	if g.list, err = memberlist.Create(conf); err != nil {
		cancel()
		return nil, errors.Join(stream.Errorf(stream.Unavailable, "member.Open", "%w", err), conf.Transport.Shutdown())
	}
	g.wg.Go(func() { g.seek(ctx) })
	return g, nil
}

// memberlistConfig keeps memberlist's timers for a LAN: shorter ones only
// declare the living dead sooner, and nobody waits for them.
func (g *Group) memberlistConfig(ctx context.Context) (*memberlist.Config, error) {
	conf := memberlist.DefaultLANConfig()
	conf.Name = g.self
	conf.TCPTimeout = 3 * time.Second
	conf.DeadNodeReclaimTime = 5 * time.Second
	conf.SecretKey = g.cfg.Key
	conf.Delegate, conf.Events, conf.Alive, conf.Merge = delegate{g}, events{g}, alive{g}, merge{g}
	conf.Logger = log.New(&translator{logger: g.logger}, "", 0)
	conf.AdvertiseAddr, conf.AdvertisePort = "", 0
	conf.Transport = g.cfg.Transport
	if conf.Transport != nil {
		return conf, nil
	}
	t, err := listen(ctx, g.cfg.Bind, conf.Logger)
	if err != nil {
		return nil, err
	}
	ip := g.cfg.AdvertiseIP
	if ip == nil {
		if ip, err = t.ip(); err != nil {
			return nil, errors.Join(err, t.Shutdown())
		}
	}
	conf.Transport = t
	conf.AdvertiseAddr, conf.AdvertisePort = ip.String(), t.GetAutoBindPort()
	conf.BindPort = conf.AdvertisePort
	return conf, nil
}

// Self gives this node as the others see it.
func (g *Group) Self() Member {
	// memberlist asks this package under its own lock: so its lock comes first,
	// always.
	address := g.list.LocalNode().Address()
	g.mu.Lock()
	defer g.mu.Unlock()
	return Member{Facts: g.facts, Gossip: address, Started: g.cfg.Started, State: Alive}
}

// Members gives all members that were ever seen, this node included, by node
// id: of each node its newest process.
func (g *Group) Members() []Member {
	members, _ := g.Watch()
	return members
}

// Watch gives the members and a channel that closes when they have changed.
func (g *Group) Watch() ([]Member, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	best := make(map[stream.NodeID]Member)
	for _, m := range g.seen {
		if old, ok := best[m.NodeID]; !ok || supersedes(m, old) {
			best[m.NodeID] = m
		}
	}
	members := make([]Member, 0, len(best))
	for _, m := range best {
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.NodeID, b.NodeID) })
	return members, g.changed
}

// Sought gives a channel that closes when each address of each seed has been
// tried once: whoever could be found by them has been found, or didn't answer.
func (g *Group) Sought() <-chan struct{} { return g.sought }

// supersedes tells whether a is to be shown instead of b, of one node id.
func supersedes(a, b Member) bool {
	if (a.State == Alive) != (b.State == Alive) {
		return a.State == Alive
	}
	return a.Started > b.Started
}

// UpdateFacts changes what this node tells of itself. It returns when the
// others have been told, or could not be for a second; they will be then.
func (g *Group) UpdateFacts(change func(*Facts)) error {
	g.mu.Lock()
	facts := g.facts
	change(&facts)
	if _, err := encodeFacts(facts, g.cfg.Started, g.left); err != nil {
		g.mu.Unlock()
		return stream.Errorf(stream.Invalid, "member.UpdateFacts", "%w", err)
	}
	g.facts = facts
	g.mu.Unlock()
	// Its only error is that the time is over; the next full exchange tells.
	_ = g.list.UpdateNode(time.Second)
	return nil
}

// Leave tells the others that this node goes on purpose. ctx bounds the wait
// until they have heard of it.
func (g *Group) Leave(ctx context.Context) error {
	g.mu.Lock()
	g.left = true
	g.mu.Unlock()
	wait := 5 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(time.Until(deadline), time.Millisecond)
	}
	_ = g.list.UpdateNode(wait / 2)
	if err := g.list.Leave(wait / 2); err != nil {
		return stream.Errorf(stream.Timeout, "member.Leave", "%w", err)
	}
	return nil
}

// Close ends this node's part. Without a Leave before, the others take it for
// dead.
func (g *Group) Close() error { return g.close() }

func (g *Group) shutdown() error {
	g.stop() // first: it ends the dialling that seek may be waiting for
	g.wg.Wait()
	return g.list.Shutdown()
}

// note takes in what memberlist says of a process. It runs under memberlist's
// lock, and must neither block nor call it.
func (g *Group) note(n *memberlist.Node, alive bool) {
	facts, started, leaving, err := decodeFacts(n.Meta)
	if err != nil {
		return // refused by the alive delegate before
	}
	m := Member{Facts: facts, Gossip: n.Address(), Started: started, State: Alive}
	switch {
	case !alive && leaving:
		m.State = Left
	case !alive:
		m.State = Dead
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old, known := g.seen[n.Name]
	g.seen[n.Name] = m
	for name, other := range g.seen {
		if other.NodeID != m.NodeID || name == n.Name {
			continue
		}
		if other.State == Alive && m.State == Alive && other.DiskID != m.DiskID {
			g.logger.Warn("two processes with different disks call themselves by one node id; if both run, give one of them another --node-id",
				"node", m.NodeID, "addresses", []string{other.Gossip, m.Gossip})
		}
		// A node's past is of no use.
		switch {
		case other.State != Alive && supersedes(m, other):
			delete(g.seen, name)
		case m.State != Alive && supersedes(other, m):
			delete(g.seen, n.Name)
		}
	}
	if n.Name != g.self && (!known || old.State != m.State) {
		g.logger.Info("member "+string(m.State), "node", m.NodeID, "gossip", m.Gossip, "zone", m.Zone, "cluster", m.ClusterID)
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

// admit says why a process may not be a member, nil if it may.
func (g *Group) admit(n *memberlist.Node) error {
	facts, _, _, err := decodeFacts(n.Meta)
	if err != nil {
		return fmt.Errorf("%s at %s tells nothing that this version understands: %w", n.Name, n.Address(), err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	ours := g.facts.ClusterID
	if ours == "" || facts.ClusterID == "" || ours == facts.ClusterID {
		return nil
	}
	err = fmt.Errorf("node %s at %s belongs to cluster %s, this node %s to cluster %s", facts.NodeID, n.Address(), facts.ClusterID, g.facts.NodeID, ours)
	if now := time.Now(); now.Sub(g.refused[n.Name]) > time.Minute {
		if len(g.refused) > 1000 {
			clear(g.refused)
		}
		g.refused[n.Name] = now
		g.logger.Warn("a node of another cluster is kept out; look at --join on both sides", "reason", err)
	}
	return err
}

// wire is Facts as they travel: within memberlist's 512 bytes, so the names are
// short, and a host that several addresses share is told once.
type wire struct {
	Version  int    `json:"v"`
	Node     string `json:"n"`
	Disk     string `json:"d,omitempty"`
	Zone     string `json:"z,omitempty"`
	Cluster  string `json:"c,omitempty"`
	GRPC     string `json:"g,omitempty"`
	Raft     string `json:"r,omitempty"`
	HTTP     string `json:"h,omitempty"`
	Founding string `json:"f,omitempty"`
	Founder  string `json:"o,omitempty"`
	Expect   int    `json:"e,omitempty"`
	Started  int64  `json:"t"`
	Leaving  bool   `json:"l,omitempty"`
}

func encodeFacts(f Facts, started int64, leaving bool) ([]byte, error) {
	host, _, _ := net.SplitHostPort(f.GRPC)
	short := func(address string) string {
		if h, port, err := net.SplitHostPort(address); err == nil && h == host {
			return ":" + port
		}
		return address
	}
	text, err := json.Marshal(wire{
		Version: 1, Node: string(f.NodeID), Disk: f.DiskID, Zone: f.Zone, Cluster: f.ClusterID,
		GRPC: f.GRPC, Raft: short(f.Raft), HTTP: short(f.HTTP), Founding: f.Founding, Founder: string(f.Founder), Expect: f.Expect,
		Started: started, Leaving: leaving,
	})
	if err == nil && len(text) > memberlist.MetaMaxSize {
		err = fmt.Errorf("node id, zone and addresses are too long together: gossip has room for %d bytes, they take %d", memberlist.MetaMaxSize, len(text))
	}
	return text, err
}

func decodeFacts(text []byte) (f Facts, started int64, leaving bool, err error) {
	var w wire
	if err := json.Unmarshal(text, &w); err != nil {
		return f, 0, false, err
	}
	if w.Version != 1 || w.Node == "" {
		return f, 0, false, fmt.Errorf("facts of version %d of node %q", w.Version, w.Node)
	}
	host, _, _ := net.SplitHostPort(w.GRPC)
	long := func(address string) string {
		if port, ok := strings.CutPrefix(address, ":"); ok {
			return net.JoinHostPort(host, port)
		}
		return address
	}
	return Facts{
		NodeID: stream.NodeID(w.Node), DiskID: w.Disk, Zone: w.Zone, ClusterID: w.Cluster,
		GRPC: w.GRPC, Raft: long(w.Raft), HTTP: long(w.HTTP), Founding: w.Founding, Founder: stream.NodeID(w.Founder), Expect: w.Expect,
	}, w.Started, w.Leaving, nil
}

// The four roles that memberlist asks for.
type (
	delegate struct{ *Group }
	events   struct{ *Group }
	alive    struct{ *Group }
	merge    struct{ *Group }
)

func (d delegate) NodeMeta(int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	text, _ := encodeFacts(d.facts, d.cfg.Started, d.left) // checked when they were set
	return text
}

func (delegate) NotifyMsg([]byte) {}

func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

func (delegate) LocalState(bool) []byte { return nil }

func (delegate) MergeRemoteState([]byte, bool) {}

func (e events) NotifyJoin(n *memberlist.Node) { e.note(n, true) }

func (e events) NotifyUpdate(n *memberlist.Node) { e.note(n, true) }

func (e events) NotifyLeave(n *memberlist.Node) { e.note(n, false) }

// NotifyAlive keeps strangers out one by one: they could also come by way of a
// node that has no cluster yet.
func (a alive) NotifyAlive(n *memberlist.Node) error { return a.admit(n) }

// NotifyMerge refuses whoever answers for another cluster. Its dead are no
// reason: a node without a cluster may remember those of several.
func (m merge) NotifyMerge(peers []*memberlist.Node) error {
	for _, n := range peers {
		if n.State != memberlist.StateAlive && n.State != memberlist.StateSuspect {
			continue
		}
		if err := m.admit(n); err != nil {
			return err
		}
	}
	return nil
}

// inUse gives the operator's line for a port that is taken.
func inUse(bind string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "address already in use") {
		return stream.Errorf(stream.Unavailable, "member.Open", "--gossip-listen %s: another process listens there: stop it, or choose another port", bind)
	}
	return stream.Errorf(stream.Unavailable, "member.Open", "--gossip-listen %s: %w", bind, err)
}
