package cluster

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// broker is one node: its process, and where it is reached.
type broker struct {
	process
	first int // port of gRPC; raft, gossip and HTTP follow
}

func (b *broker) grpc() string   { return hostPort(b.first) }
func (b *broker) gossip() string { return hostPort(b.first + 2) }

// cluster is some brokers and a gateway before them.
type cluster struct {
	dir      string
	nodes    []*broker
	gateway  *process
	endpoint string // http://HOST:PORT
}

// startCluster starts brokers that form a cluster and a gateway, and waits until
// all is well.
func startCluster(t *testing.T, nodes int, gatewayArgs ...string) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir()}
	showLogs(t, c.dir, func() (ps []*process) {
		for _, n := range c.nodes {
			ps = append(ps, &n.process)
		}
		return append(ps, c.gateway)
	})
	for range nodes {
		c.add(t)
	}
	for _, n := range c.nodes {
		n.args = c.args(n, nodes)
		n.start(t)
	}
	port := freePorts(t, 2)
	c.endpoint = "http://" + hostPort(port)
	c.gateway = &process{
		name: "gateway", log: filepath.Join(c.dir, "gateway.log"), ready: c.endpoint + "/_shardstream/readyz",
		args: append([]string{
			"gateway", "--listen", hostPort(port), "--brokers", c.brokers(), "--http-listen", hostPort(port + 1),
			"--transition-delay", "0s",
		}, gatewayArgs...),
	}
	c.gateway.start(t)
	for _, n := range c.nodes {
		n.awaitReady(t)
	}
	c.gateway.awaitReady(t)
	c.awaitHealthy(t)
	return c
}

// add makes the next node, without starting it.
func (c *cluster) add(t *testing.T) *broker {
	t.Helper()
	name := fmt.Sprintf("node-%d", len(c.nodes)+1)
	n := &broker{process: process{name: name, log: filepath.Join(c.dir, name+".log")}, first: freePorts(t, 4)}
	n.ready = "http://" + hostPort(n.first+3) + "/readyz"
	c.nodes = append(c.nodes, n)
	return n
}

// args gives the node's command line. It expects nodes to form a cluster with,
// or, with 0, only joins.
func (c *cluster) args(n *broker, expect int) []string {
	var seeds []string
	for _, other := range c.nodes {
		seeds = append(seeds, other.gossip())
	}
	args := []string{
		"broker", "--node-id", n.name, "--data-dir", filepath.Join(c.dir, n.name),
		"--grpc-listen", n.grpc(), "--raft-listen", hostPort(n.first + 1), "--gossip-listen", n.gossip(), "--http-listen", hostPort(n.first + 3),
		"--join", strings.Join(seeds, ","), "--journal-budget", "67108864", "--disk-reserve", "67108864",
	}
	if expect > 0 {
		args = append(args, "--bootstrap-expect", strconv.Itoa(expect))
	}
	return args
}

func (c *cluster) brokers() string {
	var list []string
	for _, n := range c.nodes {
		list = append(list, n.grpc())
	}
	return strings.Join(list, ",")
}

// status is what `cluster status --json` says, as far as the tests look at it.
type status struct {
	Healthy bool
	Raft    struct{ Leader string }
	Nodes   []struct {
		Node, State, GRPCAddress, RaftRole string
		Reachable                          bool
		Replicas, InSync, Leads            int
	}
	Shards   struct{ Total, Offline, BelowMinInSync, UnderReplicated int }
	Findings []struct{ Severity, What, Do string }
}

func (c *cluster) status(t *testing.T) (status, error) {
	t.Helper()
	var s status
	out, errs, code := shardstream(t, "cluster", "status", "--json", "--broker", c.brokers())
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("cluster status: status %d: %s%s", code, errs, out)
	}
	if s.Healthy != (code == 0) {
		t.Errorf("cluster status says healthy: %v, with exit status %d", s.Healthy, code)
	}
	return s, nil
}

// awaitHealthy waits until `cluster status` finds nothing wrong.
func (c *cluster) awaitHealthy(t *testing.T) status {
	t.Helper()
	var s status
	eventually(t, func() (err error) {
		if s, err = c.status(t); err == nil && !s.Healthy {
			err = fmt.Errorf("not healthy: %+v", s.Findings)
		}
		return err
	})
	return s
}

// awaitFinding waits until `cluster status` has a finding with these words.
func (c *cluster) awaitFinding(t *testing.T, what, do string) {
	t.Helper()
	eventually(t, func() error {
		s, err := c.status(t)
		if err != nil {
			return err
		}
		for _, f := range s.Findings {
			if strings.Contains(f.What, what) && strings.Contains(f.Do, do) {
				return nil
			}
		}
		return fmt.Errorf("no finding %q with %q in %+v", what, do, s.Findings)
	})
}
