package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
)

// placement is what `stream describe --json` says of the first shard.
func (c *cluster) placement(t *testing.T) (leader string, inSync, nodes []string) {
	t.Helper()
	out, errs, code := shardstream(t, "stream", "describe", stream, "--json", "--broker", c.brokers())
	var s struct {
		ShardList []struct {
			Leader   string
			InSync   []string
			Replicas []struct{ Node string }
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 || len(s.ShardList) == 0 {
		t.Fatalf("stream describe: status %d, %v: %s%s", code, err, errs, out)
	}
	for _, r := range s.ShardList[0].Replicas {
		nodes = append(nodes, r.Node)
	}
	return s.ShardList[0].Leader, s.ShardList[0].InSync, nodes
}

func (c *cluster) named(name string) *broker {
	return c.nodes[slices.IndexFunc(c.nodes, func(n *broker) bool { return n.name == name })]
}

// TestBothInSyncDisksLost loses the two disks that have everything, of a shard
// whose third copy is behind: one is emptied, one does not come back. Nothing is
// served until an operator has said so, and how much may be lost; then the shard
// goes on with what the third copy has, and is whole again by itself. The disk
// that did not come back does after all: what it had is kept, and not served.
func TestBothInSyncDisksLost(t *testing.T) {
	c := startCluster(t, 5, "--request-timeout", "2s")
	c.createStream(t, stream, 1)
	k := c.client()
	put := func(from, to int) error {
		for i := from; i < to; i++ {
			if _, err := k.PutRecord(t.Context(), &kinesis.PutRecordInput{
				StreamName: aws.String(stream), PartitionKey: aws.String("key"), Data: fmt.Appendf(nil, "record %d", i),
			}); err != nil {
				return err
			}
		}
		return nil
	}
	const kept, lost = 60, 40
	if err := put(0, kept); err != nil {
		t.Fatal(err)
	}
	leader, _, nodes := c.placement(t)
	third := nodes[slices.IndexFunc(nodes, func(n string) bool { return n != leader })]
	c.named(third).kill(t)
	eventually(t, func() error {
		if _, inSync, _ := c.placement(t); len(inSync) != 2 || slices.Contains(inSync, third) {
			return fmt.Errorf("in sync: %v", inSync)
		}
		return nil
	})
	if err := put(kept, kept+lost); err != nil {
		t.Fatal(err)
	}
	burnt := slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return n == third })
	c.named(burnt[0]).kill(t)
	c.named(burnt[1]).kill(t)
	c.named(third).start(t)
	c.named(third).awaitReady(t)
	c.awaitFinding(t, "is offline", "start any of these brokers")
	// While those that have everything may come back, they are waited for.
	eventually(t, func() error {
		if out := c.operate(t, "recover"); !strings.Contains(out, "is left alone: every record is on broker") {
			return fmt.Errorf("cluster recover says: %s", out)
		}
		return nil
	})
	emptied, away := c.named(burnt[0]), c.named(burnt[1])
	if err := os.RemoveAll(filepath.Join(c.dir, emptied.name)); err != nil {
		t.Fatal(err)
	}
	emptied.start(t)
	emptied.awaitReady(t)
	c.awaitFinding(t, "is offline", "start broker "+away.name+": only its disk")
	if err := put(0, 1); err == nil {
		t.Error("a put was taken")
	}

	var plan struct {
		AcceptLoss uint64
		Shards     []struct {
			Copies []struct {
				Node string
				End  uint64
			}
		}
		Recovered []string
	}
	look := func(args ...string) {
		t.Helper()
		out := c.operate(t, append([]string{"recover", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &plan); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	look("--gone", away.name)
	if len(plan.Shards) != 1 || len(plan.Shards[0].Copies) == 0 || plan.Shards[0].Copies[0].Node != third || plan.Shards[0].Copies[0].End != kept {
		t.Errorf("the plan is %+v, want the copy of %s with %d records first", plan, third, kept)
	}
	accept := func(n uint64) []string {
		return []string{"recover", "--gone", away.name, "--accept-loss", fmt.Sprint(n), "--json"}
	}
	c.refused(t, "nothing was changed", accept(plan.AcceptLoss+1)...)
	look(append(accept(plan.AcceptLoss), "--reason", "a test")[1:]...)
	if len(plan.Recovered) != 1 {
		t.Errorf("recovered is %v", plan.Recovered)
	}
	if err := put(kept, kept+1); err != nil { // waits for the floor inside
		eventually(t, func() error { return put(kept, kept+1) })
	}
	eventually(t, func() error {
		if _, inSync, _ := c.placement(t); len(inSync) != 3 {
			return fmt.Errorf("in sync: %v", inSync)
		}
		return nil
	})
	away.start(t)
	away.awaitReady(t)
	eventually(t, func() error {
		if kept, _ := filepath.Glob(filepath.Join(c.dir, away.name, "trash", "aside-*", "*")); len(kept) == 0 {
			return fmt.Errorf("nothing is kept in trash/ of %s", away.name)
		}
		return nil
	})
	var values []string
	for _, r := range c.readAll(t, stream) {
		if !slices.Contains(values, r.Value) { // a put that failed may have been stored
			values = append(values, r.Value)
		}
	}
	if len(values) != kept+1 {
		t.Errorf("%d records are read, want %d: %v", len(values), kept+1, values)
	}
	if out := c.operate(t, "recover"); out != "no shard needs to be recovered: each has a leader\n" {
		t.Errorf("afterwards: %s", out)
	}
}
