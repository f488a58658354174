package e2e

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// shardMetrics gives what a scrape shows of shards: "incoming_bytes_total 0" is
// that of shardId-000000000000.
func shardMetrics(t *testing.T, admin string) map[string]string {
	t.Helper()
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	found := make(map[string]string)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		series, ok := strings.CutPrefix(lines.Text(), "shardstream_shard_")
		if !ok {
			continue
		}
		name, rest, _ := strings.Cut(series, `{shard="shardId-00000000000`)
		labels, value, _ := strings.Cut(rest, "} ")
		shard, ok := strings.CutSuffix(labels, `",stream="s"`)
		if !ok {
			t.Errorf("unexpected: %s", lines.Text())
		}
		found[name+" "+shard] = value
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestEnhancedMonitoring: the metrics of shards are there while they are enabled.
func TestEnhancedMonitoring(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := l.Addr().String()
	l.Close() // dev takes it
	n := start(t, "--ephemeral", "--transition-delay", "0", "--http-listen", admin, "--stream", "s:2", "--stream", "other")
	c, ctx := client(n.endpoint), t.Context()
	stream := "s"
	check := func(want map[string]string) {
		t.Helper()
		if got := shardMetrics(t, admin); !maps.Equal(got, want) {
			t.Errorf("%v, not %v", got, want)
		}
	}
	check(nil)
	if _, err := c.EnableEnhancedMonitoring(ctx, &kinesis.EnableEnhancedMonitoringInput{
		StreamName: &stream, ShardLevelMetrics: []types.MetricsName{types.MetricsNameIncomingBytes, types.MetricsNameOutgoingRecords},
	}); err != nil {
		t.Fatal(err)
	}
	key, first := "key", "0"
	for _, name := range []string{"s", "other"} {
		if _, err := c.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &name, PartitionKey: &key, ExplicitHashKey: &first, Data: []byte("12345")}); err != nil {
			t.Fatal(err)
		}
	}
	if reads := mustReadAll(t, c, stream); len(reads) != 1 {
		t.Errorf("%d records", len(reads))
	}
	check(map[string]string{"incoming_bytes_total 0": "8", "incoming_bytes_total 1": "0", "outgoing_records_total 0": "1", "outgoing_records_total 1": "0"})
	if _, err := c.DisableEnhancedMonitoring(ctx, &kinesis.DisableEnhancedMonitoringInput{
		StreamName: &stream, ShardLevelMetrics: []types.MetricsName{types.MetricsNameOutgoingRecords},
	}); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"incoming_bytes_total 0": "8", "incoming_bytes_total 1": "0"})
	if _, err := c.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: &stream}); err != nil {
		t.Fatal(err)
	}
	quick := func(o *kinesis.StreamNotExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 100*time.Millisecond
	}
	if err := kinesis.NewStreamNotExistsWaiter(c, quick).Wait(ctx, &kinesis.DescribeStreamInput{StreamName: &stream}, patience); err != nil {
		t.Fatal(err)
	}
	check(nil)
}
