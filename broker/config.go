package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardstream/broker/member"
	"shardstream/broker/recordlog"
	"shardstream/ondemand"
	"shardstream/stream"
)

// Config says how to run a broker. Only DataDir is required, and for a node
// that is not Lone the listeners of gRPC, raft and gossip.
type Config struct {
	DataDir string
	// NodeID is the explicit node id; empty takes the data directory's, and
	// for a new directory DefaultNodeID (by default the hostname).
	NodeID        stream.NodeID
	DefaultNodeID stream.NodeID
	Zone          string

	// Lone is a cluster of this node alone, without peers: a single raft voter
	// that nobody can join, and no listener but gRPC's.
	Lone bool

	// GRPCListener serves Data and Cluster to other processes; nil serves
	// this process only. The broker closes it.
	GRPCListener net.Listener
	RaftListener net.Listener // raft's own traffic between brokers. The broker closes it
	GossipBind   string       // HOST:PORT, TCP and UDP, of gossip

	// Advertise is the host under which other nodes and gateways reach this
	// one; the ports are those of the listeners. Empty takes the host that
	// GRPCListener is bound to and, if that is no particular one, the machine's
	// private address.
	Advertise   string
	HTTPAddress string // HOST:PORT of the admin port, as told to others; empty if there is none

	// Join names gossip addresses of other nodes, HOST:PORT. A DNS name stands
	// for all of its addresses and is asked again while none answers.
	Join []string
	// BootstrapExpect is how many nodes without a cluster form a new one
	// together, once. 0 only ever joins a cluster that exists.
	BootstrapExpect int
	GossipKey       []byte // 16, 24 or 32 bytes: encrypts gossip; nil does not

	// ReplaceAfter is how long a broker must be dead before its replicas are
	// copied to others, if this node controls the cluster. Default 10 min.
	ReplaceAfter time.Duration

	// ShardLimits holds the shards that this node leads to Kinesis's limits:
	// what is over them is refused. All nodes should have the same.
	ShardLimits bool
	OnDemand    ondemand.Rules // by which on-demand streams are scaled, if this node controls the cluster

	JournalBudget int64         // bytes of journal kept before a checkpoint; default 2 GiB
	TailCache     int64         // bytes of recent batches kept in memory; default 64 MiB
	DiskReserve   int64         // bytes of free disk below which puts are refused; default 512 MiB
	CatchUpRate   int64         // bytes per second at which replicas that are behind are caught up; default 64 MiB
	ScrubInterval time.Duration // how often all segments are read and verified; 0 is never

	Version    string // of the program, for people
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	// For tests: another network and another disk than the machine's.
	dial      dialer               // to other brokers, of gRPC and raft
	gossip    func(*member.Config) // changes how gossip is done
	recordsFS recordlog.FS         // under DataDir, of the record log alone
}

func (c Config) withDefaults() (Config, error) {
	if c.DataDir == "" {
		return c, errors.New("no data directory given")
	}
	if c.DefaultNodeID == "" {
		name, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("can't find the hostname for a node id, give --node-id: %w", err)
		}
		c.DefaultNodeID = stream.NodeID(name)
	}
	if c.JournalBudget == 0 {
		c.JournalBudget = 2 << 30
	}
	if c.TailCache == 0 {
		c.TailCache = 64 << 20
	}
	if c.DiskReserve == 0 {
		c.DiskReserve = 512 << 20
	}
	if c.CatchUpRate == 0 {
		c.CatchUpRate = 64 << 20
	}
	c.OnDemand = c.OnDemand.WithDefaults()
	if err := c.OnDemand.Validate(); err != nil {
		return c, fmt.Errorf("on-demand-%w", err)
	}
	if c.dial == nil {
		c.dial = dialTCP
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
