package realclients

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
)

// follower is a consumer of one process, with the events of Worker.java.
type follower struct {
	client, wire, component string   // component may be several
	retrieval               string   // polling, fanout
	dynamo                  bool     // whether it keeps its place in DynamoDB
	tellsEnds               bool     // whether it says which shards have ended
	valuesOnly              bool     // whether it knows the records' data and nothing else
	argv                    []string // relative to test/clients, if it has a slash
	version                 func(*testing.T) string
	cannot                  string // why it can't be run against any server but AWS
}

// TestFollowers has each consumer follow a stream under load through a split and
// a merge: every record is processed, in the shards before and after.
func TestFollowers(t *testing.T) {
	for _, f := range []follower{
		{
			client: "vmware-go-kcl-v2", wire: "JSON, HTTP/1.1", component: "vmware", retrieval: "polling", dynamo: true, tellsEnds: true,
			argv: []string{"go/bin/vmware"}, version: moduleVersion("github.com/vmware/vmware-go-kcl-v2"),
		},
		{
			client: "vmware-go-kcl-v2", wire: "JSON, event stream, HTTP/1.1", component: "vmware", retrieval: "fanout", dynamo: true, tellsEnds: true,
			argv: []string{"go/bin/vmware"}, version: moduleVersion("github.com/vmware/vmware-go-kcl-v2"),
		},
		{
			client: "harlow/kinesis-consumer (Go SDK v1)", wire: "JSON, HTTP/1.1", component: "harlow", retrieval: "polling", tellsEnds: true,
			argv: []string{"go/bin/harlow"}, version: moduleVersion("github.com/harlow/kinesis-consumer"),
		},
		{
			client: "lifion-kinesis (JavaScript SDK v2)", wire: "JSON, HTTP/1.1", component: "node", retrieval: "polling", dynamo: true,
			argv: []string{"node", "node/lifion.js"}, version: packageVersion("node", "lifion-kinesis"),
		},
		{
			client: "lifion-kinesis (aws4)", wire: "JSON, event stream, HTTP/1.1", component: "node", retrieval: "fanout",
			version: packageVersion("node", "lifion-kinesis"),
			cannot:  "for fan-out it signs for AWS's own host and calls that, whatever its option endpoint says",
		},
		{
			client: "aws-kcl (Node.js, MultiLangDaemon)", wire: "CBOR, HTTP/2 (h2c)", component: "multilang node", retrieval: "polling", dynamo: true, tellsEnds: true,
			argv: []string{"node", "node/daemon.js"}, version: packageVersion("node", "aws-kcl"),
		},
		{
			client: "aws-kcl (Node.js, MultiLangDaemon)", wire: "CBOR, HTTP/2 (h2c)", component: "multilang node", retrieval: "fanout", dynamo: true, tellsEnds: true,
			argv: []string{"node", "node/daemon.js"}, version: packageVersion("node", "aws-kcl"),
		},
		{
			client: "async-kinesis (Python)", wire: "JSON, HTTP/1.1", component: "async", retrieval: "polling", valuesOnly: true,
			argv: []string{"../../.cache/clients/async/bin/python", "async/consume.py"}, version: pythonVersion("async", "async-kinesis"),
		},
	} {
		t.Run(strings.Fields(f.client)[0]+"/"+f.retrieval, func(t *testing.T) {
			r := trial(t, f.client, f.wire, retrievals[f.retrieval]+": a stream under load followed through a split and a merge; every record processed")
			for _, component := range strings.Fields(f.component) {
				r.needs(t, component)
			}
			r.version = f.version(t)
			if f.cannot != "" {
				r.unavailable(t, f.cannot)
			}
			follow(t, r, f)
		})
	}
}

// retrievals are the words of the table for the two ways to read.
var retrievals = map[string]string{"polling": "polling", "fanout": "enhanced fan-out"}

func follow(t *testing.T, r *row, f follower) {
	s := startServer(t)
	const stream = "followed"
	env := clientEnv("ENDPOINT="+s.endpoint, "STREAM="+stream, "RETRIEVAL="+f.retrieval, "APPLICATION=application", "WORKER=w1")
	if f.dynamo {
		env = append(env, "DYNAMODB="+startDynamo(t, r).endpoint)
	}
	c := s.client(t)
	createStream(t, c, stream, 4)
	l := startLoad(t, c, stream)
	argv := append([]string(nil), f.argv...)
	for i, arg := range argv {
		if strings.Contains(arg, "/") {
			argv[i] = repository("test", "clients", arg)
		}
	}
	a := newApplication()
	a.tellsEnds, a.valuesOnly = f.tellsEnds, f.valuesOnly
	p := launch(t, "consumer", env, func(line string) { a.note("w1", line) }, argv...)
	a.workers["w1"] = p
	a.allWork(t)

	if _, err := c.SplitShard(t.Context(), &kinesis.SplitShardInput{
		StreamName: aws.String(stream), ShardToSplit: aws.String("shardId-000000000000"), NewStartingHashKey: aws.String("42535295865117307932921825928971026432"),
	}); err != nil {
		t.Fatal(err)
	}
	awaitActive(t, c, stream)
	if _, err := c.MergeShards(t.Context(), &kinesis.MergeShardsInput{
		StreamName: aws.String(stream), ShardToMerge: aws.String("shardId-000000000001"), AdjacentShardToMerge: aws.String("shardId-000000000002"),
	}); err != nil {
		t.Fatal(err)
	}
	awaitActive(t, c, stream)
	began := time.Now()
	a.processes(t, c, stream, l)
	took := time.Since(began)
	p.finish(t)
	t.Logf("%d records, %d deliveries, all %s after the last reshard", l.count(), a.deliveries, took)
	for _, line := range a.strange {
		t.Errorf("what is this? %s", line)
	}
}
