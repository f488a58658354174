package realclients

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// plainAndTLS runs f against a server without and one with TLS, with what makes
// a client's environment trust its certificate.
func plainAndTLS(t *testing.T, f func(s *server, env []string)) {
	t.Helper()
	for _, args := range [][]string{nil, {"--tls"}} {
		s := startServer(t, args...)
		env := clientEnv("ENDPOINT=" + s.endpoint)
		if s.trust != "" {
			env = append(env, "AWS_CA_BUNDLE="+s.trust, "NODE_EXTRA_CA_CERTS="+s.trust)
		}
		f(s, env)
	}
}

// TestScripts runs the clients of test/e2e with signatures that are verified,
// plain and with TLS. Each script ends with status 0 if it is content.
func TestScripts(t *testing.T) {
	python := repository(".cache", "venv", "bin", "python")
	node, _ := exec.LookPath("node") // "" is not there
	for _, c := range []struct {
		client, wire, exercised, program, script string
		version                                  func(*testing.T) string
	}{
		{
			"boto3", "JSON, HTTP/1.1, plain and TLS", "the life of a stream, records of every byte, iterators, waiters, paginators, errors",
			python, "python/check.py", pythonVersion("python", "boto3"),
		},
		{
			"boto3", "JSON, event stream, HTTP/1.1, plain and TLS", "SubscribeToShard, over a split",
			python, "python/subscribe.py", pythonVersion("python", "boto3"),
		},
		{
			"JavaScript SDK v3", "JSON, HTTP/2, plain (h2c) and TLS", "the life of a stream, many calls on one connection, errors",
			node, "js/check.mjs", packageVersion("js", "@aws-sdk/client-kinesis"),
		},
		{
			"JavaScript SDK v3", "JSON, event stream, HTTP/2, plain (h2c) and TLS", "SubscribeToShard, over a split",
			node, "js/subscribe.mjs", packageVersion("js", "@aws-sdk/client-kinesis"),
		},
	} {
		t.Run(c.script, func(t *testing.T) {
			r := trial(t, c.client, c.wire, c.exercised)
			if _, err := os.Stat(c.program); err != nil {
				r.unavailable(t, "there is no "+filepath.Base(c.program)+" with it (make clients)")
			}
			r.version = c.version(t)
			plainAndTLS(t, func(_ *server, env []string) {
				launch(t, "script", env, func(string) {}, c.program, repository("test", "clients", c.script)).await(t)
			})
		})
	}
}

// TestAWSCLI makes a few calls with the CLI, as a person would.
func TestAWSCLI(t *testing.T) {
	r := trial(t, "AWS CLI v1", "JSON, HTTP/1.1, plain and TLS", "create, wait, put, list, split, read back, delete")
	cli := repository(".cache", "venv", "bin", "aws")
	if _, err := os.Stat(cli); err != nil {
		r.unavailable(t, "there is no CLI (make clients)")
	}
	r.version = pythonVersion("python", "awscli")(t)
	plainAndTLS(t, func(s *server, env []string) {
		call := func(args ...string) string {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), cli, append([]string{"--endpoint-url", s.endpoint, "--output", "text", "kinesis"}, args...)...)
			cmd.Env = env
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
			return strings.TrimSpace(string(out))
		}
		call("create-stream", "--stream-name", "cli", "--shard-count", "1")
		call("wait", "stream-exists", "--stream-name", "cli")
		shard := call("put-record", "--stream-name", "cli", "--partition-key", "k", "--data", "from the CLI", "--query", "ShardId")
		call("split-shard", "--stream-name", "cli", "--shard-to-split", shard, "--new-starting-hash-key", "17")
		awaitActive(t, s.client(t), "cli")
		if got := call("list-shards", "--stream-name", "cli", "--query", "length(Shards)"); got != "3" {
			t.Errorf("%s shards", got)
		}
		iterator := call("get-shard-iterator", "--stream-name", "cli", "--shard-id", shard, "--shard-iterator-type", "TRIM_HORIZON")
		if got := call("get-records", "--shard-iterator", iterator, "--query", "Records[].Data"); got != "ZnJvbSB0aGUgQ0xJ" {
			t.Errorf("read %q", got)
		}
		call("delete-stream", "--stream-name", "cli")
		call("wait", "stream-not-exists", "--stream-name", "cli")
	})
}

// TestGoSDK puts with the Go SDK, which the server's whole own test suite uses
// as well, and subscribes: over HTTP/1.1, and over HTTP/2 with TLS.
func TestGoSDK(t *testing.T) {
	r := trial(t, "Go SDK v2", "JSON, event stream, HTTP/1.1, and HTTP/2 with TLS", "the life of a stream, records, SubscribeToShard, over a split")
	r.version = buildVersion(t, "github.com/aws/aws-sdk-go-v2/service/kinesis")
	plainAndTLS(t, func(s *server, _ []string) {
		c := s.client(t)
		const stream = "go"
		createStream(t, c, stream, 1)
		summary, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(stream)})
		if err != nil {
			t.Fatal(err)
		}
		registered, err := c.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{
			StreamARN: summary.StreamDescriptionSummary.StreamARN, ConsumerName: aws.String("go"),
		})
		if err != nil {
			t.Fatal(err)
		}
		arn := registered.Consumer.ConsumerARN
		eventually(t, func() error {
			d, err := c.DescribeStreamConsumer(t.Context(), &kinesis.DescribeStreamConsumerInput{ConsumerARN: arn})
			if err == nil && d.ConsumerDescription.ConsumerStatus != types.ConsumerStatusActive {
				err = fmt.Errorf("the consumer is %s", d.ConsumerDescription.ConsumerStatus)
			}
			return err
		})
		subscribed, err := c.SubscribeToShard(t.Context(), &kinesis.SubscribeToShardInput{
			ConsumerARN: arn, ShardId: aws.String("shardId-000000000000"),
			StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer subscribed.GetStream().Close()
		l := startLoad(t, c, stream)
		got, split := map[string]string{}, false
		for event := range subscribed.GetStream().Events() {
			e := event.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value
			for _, record := range e.Records {
				got[*record.SequenceNumber] = string(record.Data)
			}
			if len(got) >= batchSize && !split {
				split = true
				if _, err := c.SplitShard(t.Context(), &kinesis.SplitShardInput{
					StreamName: aws.String(stream), ShardToSplit: aws.String("shardId-000000000000"), NewStartingHashKey: aws.String("17"),
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := subscribed.GetStream().Err(); err != nil {
			t.Errorf("the subscription: %v", err)
		}
		l.stop(t)
		want := 0
		l.mu.Lock()
		defer l.mu.Unlock()
		for value, read := range l.reads {
			if read.ShardID == "shardId-000000000000" {
				want++
				if got[read.SequenceNumber] != value {
					t.Errorf("%s was put at %s, where %q is", value, read.SequenceNumber, got[read.SequenceNumber])
				}
			}
		}
		if len(got) != want {
			t.Errorf("%d records came, and %d were put", len(got), want)
		}
	})
}

// buildVersion gives the version of a module that this test is built with.
func buildVersion(t *testing.T, module string) string {
	t.Helper()
	var m struct{ Version string }
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-json", module).Output()
	if err == nil {
		err = json.Unmarshal(out, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m.Version
}
