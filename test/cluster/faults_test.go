package cluster

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/smithy-go"

	"shardstream/test/history"
)

const (
	stream  = "orders"
	shards  = 6
	writers = 4
	// pauseFor is how long a paused node stays so, once writes go on without it.
	pauseFor = time.Second
)

// samples are times until a shard took writes again, by the kind of round.
type samples map[string][]time.Duration

// String prints one line per kind: how many, median, p99, worst.
func (s samples) String() string {
	var b strings.Builder
	kinds := make([]string, 0, len(s))
	for k := range s {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		d := slices.Sorted(slices.Values(s[k]))
		at := func(q float64) time.Duration {
			return d[max(0, int(math.Ceil(q*float64(len(d))))-1)].Round(time.Millisecond)
		}
		fmt.Fprintf(&b, "\n  %-34s %4d samples   median %6s   p99 %6s   worst %6s", k, len(d), at(0.5), at(0.99), at(1))
	}
	return b.String()
}

// fault is something that happens to a node, and its end.
type fault struct {
	name  string
	begin func(*testing.T, *broker)
	end   func(*testing.T, *broker)
}

var (
	killed = fault{"kill -9", func(t *testing.T, n *broker) { n.kill(t) }, func(t *testing.T, n *broker) {
		n.start(t)
		n.awaitReady(t)
	}}
	paused = fault{"pause", func(t *testing.T, n *broker) { n.pause(t) }, func(t *testing.T, n *broker) {
		time.Sleep(pauseFor) // a longer silence is a part of the fault
		n.resume(t)
	}}
)

// TestClusterSurvivesKills kills each node with kill -9, and pauses each, while
// writers without retries put. No acknowledged record is lost, none is stored
// twice, and the order of each key is kept. It prints how long each shard took
// no writes; SHARDSTREAM_ROUNDS=20 plays 20 rounds of each fault.
func TestClusterSurvivesKills(t *testing.T) {
	c := startCluster(t, 3)
	c.createStream(t, stream, shards)
	keys := c.hashKeys(t, stream)
	h := history.New()
	l := c.startLoad(t, stream, h, writers)
	found := make(samples)
	n := rounds(t, len(c.nodes))
	for round := range n {
		for i, f := range []fault{killed, paused} {
			before := c.awaitHealthy(t)
			victim := c.nodes[(round+i)%len(c.nodes)]
			kind := f.name
			if before.Raft.Leader == victim.name {
				kind += ", the victim led the metadata"
			}
			since := time.Now()
			f.begin(t, victim)
			got := l.writable(t.Context(), t, keys, fmt.Sprintf("%d%s", round, f.name), since)
			found[kind] = append(found[kind], got...)
			f.end(t, victim)
			t.Logf("round %d: %s of %s: %d shards, the last after %s", round+1, kind, victim.name, len(got), slices.Max(append(got, 0)).Round(time.Millisecond))
			if t.Failed() {
				return
			}
		}
	}
	c.awaitHealthy(t)
	l.stop()
	t.Log(l)
	t.Logf("time until a shard takes writes again:%s", found)
	c.check(t, stream, h)
	for _, p := range c.nodes {
		if code := p.stop(t); code != 0 {
			t.Errorf("%s ends with status %d after SIGTERM", p.name, code)
		}
	}
}

// TestTwoOfThreeDown leaves one node: nothing is acknowledged, callers get an
// error that SDKs retry, and the status says what is needed. When one returns,
// writes go on without an operator.
func TestTwoOfThreeDown(t *testing.T) {
	c := startCluster(t, 3, "--request-timeout", "2s")
	c.createStream(t, stream, shards)
	keys := c.hashKeys(t, stream)
	h := history.New()
	l := c.startLoad(t, stream, h, 0) // no writers: only its probes
	l.writable(t.Context(), t, keys, "before", time.Now())

	c.nodes[0].kill(t)
	c.nodes[1].kill(t)
	for shard, key := range keys {
		value := "into the dark " + shard
		h.Attempt(value, value)
		_, err := l.k.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String(stream), PartitionKey: &value, ExplicitHashKey: &key, Data: []byte(value)})
		var api smithy.APIError
		switch {
		case err == nil:
			t.Errorf("%s: acknowledged by one node of three", shard)
		case !errors.As(err, &api) || api.ErrorFault() == smithy.FaultClient && api.ErrorCode() != "ProvisionedThroughputExceededException":
			t.Errorf("%s: not an error that SDKs retry: %v", shard, err)
		}
	}
	c.awaitFinding(t, "the metadata has no majority: 1 of 3 voters answer", "start 1 of: node-1, node-2")
	c.awaitFinding(t, "broker node-1 at "+c.nodes[0].grpc()+" does not answer", "start it")

	c.nodes[1].start(t)
	l.writable(t.Context(), t, keys, "one is back", time.Now())
	c.nodes[0].start(t)
	c.awaitHealthy(t)
	c.check(t, stream, h)
}

// TestFourthNodeJoinsAndMoves adds a node to a running cluster, and starts it
// again under other ports, as a container gets another address.
func TestFourthNodeJoinsAndMoves(t *testing.T) {
	c := startCluster(t, 3)
	n := c.add(t)
	n.args = c.args(n, 0)
	live := func() {
		t.Helper()
		n.start(t)
		n.awaitReady(t)
		eventually(t, func() error {
			s, err := c.status(t)
			if err != nil {
				return err
			}
			for _, got := range s.Nodes {
				if got.Node == n.name && got.State == "live" && got.Reachable && got.GRPCAddress == n.grpc() && s.Healthy {
					return nil
				}
			}
			return fmt.Errorf("%+v", s)
		})
	}
	live()
	if s, err := c.status(t); err != nil || len(s.Nodes) != 4 || s.Nodes[3].RaftRole != "nonvoter" {
		t.Errorf("%+v, %v; want node-4 as a nonvoter", s, err)
	}
	n.kill(t)
	n.first = freePorts(t, 4)
	n.ready = "http://" + hostPort(n.first+3) + "/readyz"
	n.args = c.args(n, 0)
	live()
}
