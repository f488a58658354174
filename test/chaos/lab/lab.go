//go:build linux

// Package lab has clusters of real processes on a network and on disks that one
// can break: brokers and gateways, each on a host of its own, and a host for the
// clients. It drives them by the command line and the network only, and judges
// nothing.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"shardstream/test/chaos/network"
)

// Config says what a lab has.
type Config struct {
	Dir      string // logs and data; exists
	Program  string // the binary under test
	Brokers  int
	Gateways int
	Seed     uint64
	// Args are added to each broker's command line, Env of its name to its
	// environment.
	Args []string
	Env  func(node string) []string
	// Disks makes the disk of a node; nil is a directory of its own.
	Disks func(node, backing string) (Disk, error)
}

// Disk is where a node keeps its data.
type Disk interface {
	Path() string // of the data directory
	Close() error // after the node has ended
}

// Broker is a node of the cluster.
type Broker struct {
	*Process
	Disk Disk
}

// Lab is a cluster under test.
type Lab struct {
	Network  *network.Network
	Brokers  []*Broker
	Gateways []*Process
	Clients  *network.Host

	cfg  Config
	made int          // brokers so far
	http *http.Client // on the clients' host
}

// The ports, the same on each host.
const (
	grpcPort   = "7070"
	raftPort   = "7071"
	gossipPort = "7072"
	httpPort   = "7073"
	apiPort    = "4567"
)

// New makes a lab and starts everything in it. Close ends it, also after an
// error.
func New(ctx context.Context, cfg Config) (*Lab, error) {
	l := &Lab{Network: network.New(cfg.Seed), cfg: cfg}
	err := l.build(ctx)
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context) error {
	clients, err := l.Network.AddHost("clients")
	if err != nil {
		return err
	}
	l.Clients = clients
	l.http = l.HTTP(30 * time.Second)
	for range l.cfg.Brokers {
		if _, err := l.addBroker(); err != nil {
			return err
		}
	}
	for _, b := range l.Brokers {
		b.args = append(l.brokerArgs(b), "--bootstrap-expect", fmt.Sprint(l.cfg.Brokers))
		if err := b.Start(); err != nil {
			return err
		}
	}
	for i := range l.cfg.Gateways {
		if err := l.addGateway(fmt.Sprintf("gateway-%d", i+1)); err != nil {
			return err
		}
	}
	for _, p := range l.Processes() {
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	return l.Healthy(ctx)
}

// addBroker makes a node that has not started, under a name that was not used
// before.
func (l *Lab) addBroker() (*Broker, error) {
	l.made++
	name := fmt.Sprintf("node-%d", l.made)
	host, err := l.Network.AddHost(name)
	if err != nil {
		return nil, err
	}
	backing := filepath.Join(l.cfg.Dir, name)
	if err := os.MkdirAll(backing, 0o755); err != nil {
		return nil, err
	}
	b := &Broker{Process: l.process(name, host, "http://"+host.Address+":"+httpPort+"/readyz"), Disk: directory(backing)}
	if l.cfg.Env != nil {
		b.env = l.cfg.Env(name)
	}
	if l.cfg.Disks != nil {
		if b.Disk, err = l.cfg.Disks(name, backing); err != nil {
			return nil, err
		}
	}
	l.Brokers = append(l.Brokers, b)
	return b, nil
}

// AddBroker starts another broker, which joins the cluster.
func (l *Lab) AddBroker(ctx context.Context) (*Broker, error) {
	b, err := l.addBroker()
	if err != nil {
		return nil, err
	}
	b.args = l.brokerArgs(b)
	if err := b.Start(); err != nil {
		return nil, err
	}
	return b, b.Ready(ctx)
}

func (l *Lab) process(name string, host *network.Host, ready string) *Process {
	return &Process{
		Name: name, Host: host, Log: filepath.Join(l.cfg.Dir, name+".log"),
		program: l.cfg.Program, ready: ready, client: l.http,
	}
}

func (l *Lab) brokerArgs(b *Broker) []string {
	var seeds []string
	for _, other := range l.Brokers {
		seeds = append(seeds, other.Host.Address+":"+gossipPort)
	}
	a := b.Host.Address
	return append([]string{
		"broker", "--node-id", b.Name, "--data-dir", b.Disk.Path(), "--advertise", a,
		"--grpc-listen", a + ":" + grpcPort, "--raft-listen", a + ":" + raftPort, "--gossip-listen", a + ":" + gossipPort, "--http-listen", a + ":" + httpPort,
		"--join", strings.Join(seeds, ","), "--journal-budget", "67108864", "--disk-reserve", "67108864",
	}, l.cfg.Args...)
}

func (l *Lab) addGateway(name string) error {
	host, err := l.Network.AddHost(name)
	if err != nil {
		return err
	}
	p := l.process(name, host, "http://"+host.Address+":"+apiPort+"/_shardstream/readyz")
	p.args = []string{
		"gateway", "--listen", host.Address + ":" + apiPort, "--brokers", l.brokers(), "--http-listen", host.Address + ":" + httpPort,
		"--transition-delay", "0s", "--shutdown-timeout", "5s",
	}
	l.Gateways = append(l.Gateways, p)
	return p.Start()
}

func (l *Lab) brokers() string {
	var list []string
	for _, b := range l.Brokers {
		list = append(list, b.Host.Address+":"+grpcPort)
	}
	return strings.Join(list, ",")
}

// Processes gives all processes, brokers first.
func (l *Lab) Processes() []*Process {
	var all []*Process
	for _, b := range l.Brokers {
		all = append(all, b.Process)
	}
	return append(all, l.Gateways...)
}

// Endpoint is where a gateway serves the Kinesis API, for clients on Clients.
func (l *Lab) Endpoint(gateway int) string {
	return "http://" + l.Gateways[gateway%len(l.Gateways)].Host.Address + ":" + apiPort
}

// HTTP makes an HTTP client on the clients' host.
func (l *Lab) HTTP(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		DialContext: l.Clients.Dial, MaxIdleConnsPerHost: 64, ResponseHeaderTimeout: timeout,
	}}
}

// Run runs a command of the program on the clients' host.
func (l *Lab) Run(ctx context.Context, args ...string) (stdout string, err error) {
	cmd := exec.CommandContext(ctx, l.cfg.Program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := l.Clients.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("shardstream %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Cluster runs a cluster command against all brokers.
func (l *Lab) Cluster(ctx context.Context, command string, args ...string) (string, error) {
	return l.Run(ctx, append([]string{"cluster", command, "--broker", l.brokers()}, args...)...)
}

// Status is what `cluster status --json` says, as far as tests look at it.
type Status struct {
	Healthy bool
	Raft    struct{ Leader string }
	Nodes   []struct {
		Node, State             string
		Reachable               bool
		Replicas, InSync, Leads int
	}
	Shards   struct{ Total, Offline, BelowMinInSync, UnderReplicated int }
	Findings []struct{ Severity, What, Do string }
}

// Status asks the cluster how it is.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	var s Status
	out, err := l.Cluster(ctx, "status", "--json") // its exit status tells Healthy too
	if failed := json.Unmarshal([]byte(out), &s); failed != nil {
		return s, errors.Join(err, failed)
	}
	return s, nil
}

// Leaders gives the node of each shard's leader.
func (l *Lab) Leaders(ctx context.Context, stream string) (map[string]string, error) {
	out, err := l.Run(ctx, "stream", "describe", stream, "--json", "--broker", l.brokers())
	if err != nil {
		return nil, err
	}
	var said struct {
		ShardList []struct{ Shard, State, Leader string }
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		return nil, err
	}
	leaders := make(map[string]string)
	for _, s := range said.ShardList {
		leaders[s.Shard] = s.Leader
	}
	return leaders, nil
}

// Healthy waits until `cluster status` finds nothing wrong.
func (l *Lab) Healthy(ctx context.Context) error {
	return poll(ctx, func(ctx context.Context) error {
		s, err := l.Status(ctx)
		if err == nil && !s.Healthy {
			err = fmt.Errorf("not healthy: %+v", s.Findings)
		}
		return err
	})
}

// Metric gives a metric of a process that has no labels.
func (l *Lab) Metric(ctx context.Context, p *Process, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Host.Address+":"+httpPort+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", p.Name, name)
}

// RaftLeader gives the broker that leads the metadata's raft, nil if none is
// known.
func (l *Lab) RaftLeader(ctx context.Context) *Broker {
	s, err := l.Status(ctx)
	if err != nil {
		return nil
	}
	for _, b := range l.Brokers {
		if b.Name == s.Raft.Leader {
			return b
		}
	}
	return nil
}

// Forget takes a broker off the lab's list that the cluster has removed.
func (l *Lab) Forget(b *Broker) {
	b.Kill()
	l.Brokers = slices.DeleteFunc(l.Brokers, func(other *Broker) bool { return other == b })
	_ = b.Disk.Close()
}

// Close ends everything. Logs and data stay.
func (l *Lab) Close() {
	for _, p := range l.Processes() {
		p.Kill()
	}
	for _, b := range l.Brokers {
		if b.Disk != nil {
			_ = b.Disk.Close()
		}
	}
	if l.http != nil {
		l.http.CloseIdleConnections()
	}
	l.Network.Close()
}

// directory is a plain disk.
type directory string

func (d directory) Path() string { return filepath.Join(string(d), "data") }
func (d directory) Close() error { return nil }
