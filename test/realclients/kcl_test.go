package realclients

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
)

// TestKCL is the life of an application: three workers on eight shards under
// load, one of them killed while the stream is split and merged. Every record
// is processed, in a state of the leases that leaves nothing behind.
func TestKCL(t *testing.T) {
	const http2 = "CBOR, HTTP/2 (h2c)"
	for _, c := range []struct{ module, version, retrieval, wire string }{
		{"kcl1", "1", "polling", "CBOR, HTTP/1.1"},
		{"kcl2", "2", "polling", http2},
		{"kcl2", "2", "fanout", http2},
		{"kcl3", "3", "polling", http2},
		{"kcl3", "3", "fanout", http2},
	} {
		t.Run(c.version+"/"+c.retrieval, func(t *testing.T) {
			r := trial(t, "KCL "+c.version+" (Java)", c.wire,
				retrievals[c.retrieval]+": 3 workers on 8 shards under load, one killed -9, splits and merges meanwhile; every record processed, all closed shards ended")
			r.needs(t, c.module)
			r.version = jarVersion(t, c.module, "amazon-kinesis-client")
			runKCL(t, r, c.module, c.retrieval)
		})
	}
}

func runKCL(t *testing.T, r *row, module, retrieval string) {
	d := startDynamo(t, r)
	s := startServer(t)
	c := s.client(t)
	const stream = "kcl"
	createStream(t, c, stream, 8)
	a := newApplication()
	if module == "kcl3" {
		d.createLeaseTable(t, a.name)
	}
	l := startLoad(t, c, stream)
	env := clientEnv("ENDPOINT="+s.endpoint, "DYNAMODB="+d.endpoint, "STREAM="+stream, "RETRIEVAL="+retrieval)
	began := time.Now()
	for _, worker := range []string{"w1", "w2", "w3"} {
		a.startWorker(t, worker, module, env)
	}
	a.allWork(t)
	t.Logf("all three workers process after %s", time.Since(began))

	reshard := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		awaitActive(t, c, stream)
	}
	split := func(shard, at string) {
		t.Helper()
		_, err := c.SplitShard(t.Context(), &kinesis.SplitShardInput{
			StreamName: aws.String(stream), ShardToSplit: &shard, NewStartingHashKey: &at,
		})
		reshard("split", err)
	}
	merge := func(left, right string) {
		t.Helper()
		_, err := c.MergeShards(t.Context(), &kinesis.MergeShardsInput{
			StreamName: aws.String(stream), ShardToMerge: &left, AdjacentShardToMerge: &right,
		})
		reshard("merge", err)
	}
	split("shardId-000000000000", "1234567890")           // makes 8 and 9
	merge("shardId-000000000002", "shardId-000000000003") // makes 10
	killed := "w1"
	a.workers[killed].kill(t)
	delete(a.workers, killed)
	split("shardId-000000000010", "127605887595351923798765477786913079296") // makes 11 and 12
	merge("shardId-000000000008", "shardId-000000000009")                    // makes 13
	split("shardId-000000000007", "319014718988379809496913694467282698240") // makes 14 and 15
	a.allWork(t)

	open, closed := listShards(t, c, stream)
	began = time.Now()
	a.processes(t, c, stream, l)
	t.Logf("all %d closed shards ended, and all is processed, %s after the last reshard", len(closed), time.Since(began))
	eventually(t, func() error {
		owner, checkpoint := a.leases(t, d)
		for _, shard := range closed {
			// The KCL removes the lease of an ended shard some minutes later.
			if at, there := checkpoint[shard]; there && at != "SHARD_END" {
				return fmt.Errorf("%s is checkpointed at %q", shard, at)
			}
		}
		for _, shard := range open {
			if a.workers[owner[shard]] == nil {
				return fmt.Errorf("%s is leased by %q, and the workers are %v", shard, owner[shard], a.workers)
			}
		}
		return nil
	})
	for _, p := range a.workers {
		p.finish(t)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, line := range a.strange {
		t.Errorf("what is this? %s", line)
	}
	t.Logf("%d records put, %d deliveries: %v", l.count(), a.deliveries, a.perWorker)
}

// leases gives the owner and the checkpoint of every shard's lease.
func (a *application) leases(t *testing.T, d *dynamo) (owner, checkpoint map[string]string) {
	t.Helper()
	owner, checkpoint = map[string]string{}, map[string]string{}
	for _, item := range d.items(t, a.name) {
		if shard := item.text("leaseKey"); strings.HasPrefix(shard, "shardId-") { // the KCL 3 keeps more in this table
			owner[shard], checkpoint[shard] = item.text("leaseOwner"), item.text("checkpoint")
		}
	}
	return owner, checkpoint
}
