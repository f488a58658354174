package cluster

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"shardstream/test/history"
)

// long tells whether the long forms are asked for.
func long() bool { return os.Getenv("SHARDSTREAM_LONG") != "" }

// operate runs `shardstream cluster ...` and fails the test if that fails.
func (c *cluster) operate(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := shardstream(t, append([]string{"cluster"}, append(args, "--broker", c.brokers())...)...)
	if code != 0 || errs != "" {
		t.Fatalf("cluster %s: status %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// grow starts another broker and waits until it is of the cluster.
func (c *cluster) grow(t *testing.T) *broker {
	t.Helper()
	n := c.add(t)
	n.args = c.args(n, 0)
	n.start(t)
	n.awaitReady(t)
	return n
}

// awaitEven waits until every shard is whole and replicas and leaderships of the
// named brokers are even within one.
func (c *cluster) awaitEven(t *testing.T, nodes ...string) {
	t.Helper()
	eventually(t, func() error {
		s, err := c.status(t)
		switch {
		case err != nil:
			return err
		case s.Shards.Offline+s.Shards.BelowMinInSync+s.Shards.UnderReplicated > 0:
			return fmt.Errorf("not whole: %+v", s.Shards)
		}
		var replicas, leads []int
		for _, n := range s.Nodes {
			if slices.Contains(nodes, n.Node) {
				replicas, leads = append(replicas, n.Replicas), append(leads, n.Leads)
			} else if n.Replicas+n.Leads > 0 {
				return fmt.Errorf("%s has %d replicas", n.Node, n.Replicas)
			}
		}
		if len(replicas) != len(nodes) || slices.Max(replicas)-slices.Min(replicas) > 1 || slices.Max(leads)-slices.Min(leads) > 1 {
			return fmt.Errorf("uneven: replicas %v, leaderships %v of %v", replicas, leads, nodes)
		}
		return nil
	})
}

// noErrors fails the test if a client saw any.
func (l *load) noErrors(t *testing.T) {
	t.Helper()
	l.stop()
	t.Log(l)
	if l.failed.Load() > 0 {
		t.Error("clients saw errors")
	}
}

// TestScaleOutAndIn adds two brokers to three, rebalances, drains two and removes
// them, while writers without retries put: no client sees an error, nothing is
// lost, and replicas and leaderships are even in between and at the end.
func TestScaleOutAndIn(t *testing.T) {
	c := startCluster(t, 3)
	n := 6
	if long() {
		n = 40
	}
	c.createStream(t, stream, int32(n))
	h := history.New()
	l := c.startLoad(t, stream, h, writers)

	began := time.Now()
	c.grow(t)
	c.grow(t)
	t.Logf("two brokers joined after %s", time.Since(began).Round(time.Millisecond))
	out := c.operate(t, "rebalance", "--wait", "--interval", "200ms")
	if !strings.HasSuffix(out, "the cluster is balanced\n") {
		t.Errorf("rebalance --wait says:\n%s", out)
	}
	t.Logf("rebalanced after %s", time.Since(began).Round(time.Millisecond))
	c.awaitEven(t, "node-1", "node-2", "node-3", "node-4", "node-5")

	c.refused(t, `broker "node-1" is in use: drain it first`, "remove", "node-1")
	for _, node := range []string{"node-1", "node-4"} {
		out := c.operate(t, "drain", node, "--wait", "--interval", "200ms")
		if !strings.Contains(out, "broker "+node+" is drained") {
			t.Errorf("drain --wait says:\n%s", out)
		}
		t.Logf("%s is drained after %s:\n%s", node, time.Since(began).Round(time.Millisecond), out)
		c.operate(t, "remove", node)
	}
	// Their processes end by themselves, in one line.
	for _, i := range []int{0, 3} {
		select {
		case <-c.nodes[i].exited:
		case <-time.After(patience):
			t.Fatalf("%s goes on though it was removed", c.nodes[i].name)
		}
		if err := oneLineThatSays(c.nodes[i].lastLines(1)+"\n", c.nodes[i].name+" was removed from the cluster"); err != nil {
			t.Errorf("%v: %s", err, c.nodes[i].lastLines(3))
		}
	}
	c.nodes = []*broker{c.nodes[1], c.nodes[2], c.nodes[4]}
	c.operate(t, "rebalance", "--wait", "--interval", "200ms")
	c.awaitEven(t, "node-2", "node-3", "node-5")
	l.noErrors(t)
	c.check(t, stream, h)
}

// refused runs an act on the cluster that must fail, with status 1 and one line
// that says why.
func (c *cluster) refused(t *testing.T, want string, args ...string) {
	t.Helper()
	out, errs, code := shardstream(t, append([]string{"cluster"}, append(args, "--broker", c.brokers())...)...)
	if err := oneLineThatSays(errs, want); code != 1 || out != "" || err != nil {
		t.Errorf("cluster %s: status %d, %v\n%s%s", strings.Join(args, " "), code, err, out, errs)
	}
}

func oneLineThatSays(text, want string) error {
	if strings.Count(text, "\n") != 1 || !strings.Contains(text, want) {
		return errors.New("want one line with " + want)
	}
	return nil
}

// TestWrongActs tries what an operator may do by mistake. Each is one clear
// line, and nothing changes.
func TestWrongActs(t *testing.T) {
	c := startCluster(t, 3)
	c.createStream(t, stream, shards)
	before := c.streamText(t)
	c.refused(t, `draining "node-2" would leave 2 brokers that are up, and there are shards that need 3: add a broker first`, "drain", "node-2")
	c.refused(t, `broker "node-2" is in use: drain it first`, "remove", "node-2")
	c.refused(t, `there is no broker "node-9"`, "drain", "node-9")
	c.refused(t, `there is no broker "node-9"`, "remove", "node-9")
	c.nodes[1].kill(t)
	c.awaitFinding(t, "broker node-2", "start it")
	eventually(t, func() error {
		_, errs, _ := shardstream(t, "cluster", "remove", "node-2", "--broker", c.brokers())
		return oneLineThatSays(errs, `broker "node-2" still holds replicas of 6 shards: wait until it is drained`)
	})
	c.nodes[1].start(t)
	c.awaitHealthy(t)

	// A port that is not gRPC's.
	_, errs, code := shardstream(t, "cluster", "status", "--broker", c.nodes[0].gossip())
	if err := oneLineThatSays(errs, "no broker's gRPC port"); code != 1 || err != nil {
		t.Errorf("status %d, %v: %s", code, err, errs)
	}

	// Two brokers with one name.
	twin := c.add(t)
	args := c.args(twin, 0)
	for i, a := range args {
		if a == twin.name {
			args[i] = "node-1"
		}
	}
	c.nodes = c.nodes[:3]
	_, errs, code = shardstream(t, args...)
	if err := oneLineThatSays(withoutLog(errs), "node-1"); code != 1 || err != nil {
		t.Errorf("status %d, %v: %s", code, err, errs)
	}
	c.awaitHealthy(t)
	if after := c.streamText(t); after != before {
		t.Errorf("the stream is\n%s\nand was\n%s", after, before)
	}
}

// withoutLog leaves out the lines of the log.
func withoutLog(errs string) string {
	var said []string
	for line := range strings.Lines(errs) {
		if !strings.Contains(line, "level=") {
			said = append(said, line)
		}
	}
	return strings.Join(said, "")
}

// streamText is what is told of the stream's replicas, without what changes by itself.
func (c *cluster) streamText(t *testing.T) string {
	t.Helper()
	s := c.awaitHealthy(t)
	var nodes []string
	for _, n := range s.Nodes {
		nodes = append(nodes, fmt.Sprint(n.Node, n.State, n.Replicas, n.InSync))
	}
	return strings.Join(nodes, " ")
}
