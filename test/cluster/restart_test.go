package cluster

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"shardstream/test/history"
)

// TestRollingRestart stops each broker with SIGTERM and starts it again, one
// after the other, while writers without retries put: no client sees an error.
// It prints how long the slowest puts took.
func TestRollingRestart(t *testing.T) {
	c := startCluster(t, 3)
	c.createStream(t, stream, shards)
	h := history.New()
	l := c.startLoad(t, stream, h, writers)
	times := 1
	if long() {
		times = 10
	}
	for range times {
		for _, n := range c.nodes {
			c.awaitHealthy(t)
			began := time.Now()
			if code := n.stop(t); code != 0 {
				t.Errorf("%s ends with status %d after SIGTERM:\n%s", n.name, code, n.lastLines(10))
			}
			stopped := time.Since(began)
			n.start(t)
			n.awaitReady(t)
			t.Logf("%s stopped within %s and was back after %s", n.name, stopped.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		}
	}
	c.awaitHealthy(t)
	l.noErrors(t)
	t.Log(l.latencies())
	c.check(t, stream, h)
}

// TestGrownFromDev puts into `shardstream dev`, goes on with its directory as a
// broker, and lets two more join under load: one disk becomes three, and nothing
// is lost.
func TestGrownFromDev(t *testing.T) {
	dir := t.TempDir()
	c := &cluster{dir: dir}
	first := c.add(t)
	port := freePorts(t, 2)
	c.endpoint = "http://" + hostPort(port)
	dev := &process{
		name: "dev", log: filepath.Join(dir, "dev.log"), ready: c.endpoint + "/_shardstream/readyz",
		args: []string{"dev", "--listen", hostPort(port), "--data-dir", filepath.Join(dir, first.name), "--stream", stream + ":6"},
	}
	ps := []*process{dev}
	showLogs(t, dir, func() []*process { return ps })
	dev.start(t)
	dev.awaitReady(t)
	keys := c.hashKeys(t, stream)
	h := history.New()
	l := c.startLoad(t, stream, h, 0)
	l.writable(t.Context(), t, keys, "dev", time.Now())
	if code := dev.stop(t); code != 0 {
		t.Fatalf("dev ends with status %d", code)
	}

	// The directory says who it is: an explicit name would be refused.
	first.args = slices.DeleteFunc(c.args(first, 1), func(a string) bool { return a == "--node-id" || a == first.name })
	ps = append(ps, &first.process)
	first.start(t)
	first.awaitReady(t)
	gateway := &process{
		name: "gateway", log: filepath.Join(dir, "gateway.log"), ready: dev.ready,
		args: []string{"gateway", "--listen", hostPort(port), "--brokers", c.brokers(), "--http-listen", hostPort(port + 1)},
	}
	ps = append(ps, gateway)
	gateway.start(t)
	gateway.awaitReady(t)
	c.awaitHealthy(t)
	l = c.startLoad(t, stream, h, writers)
	for range 2 {
		n := c.grow(t)
		ps = append(ps, &n.process)
		eventually(t, func() error {
			s, err := c.status(t)
			if err != nil {
				return err
			}
			for _, node := range s.Nodes {
				if node.InSync != shards {
					return fmt.Errorf("%s has %d replicas in sync", node.Node, node.InSync)
				}
			}
			return nil
		})
		l.writable(t.Context(), t, keys, n.name, time.Now())
	}
	c.awaitHealthy(t) // there are three voters
	l.noErrors(t)
	// Any one of the three may go now.
	first.kill(t)
	l.writable(t.Context(), t, keys, "without the first", time.Now())
	c.check(t, stream, h)
}
