package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// shown gives the series whose names begin so, without that beginning, as text:
// "incoming_bytes_total{0,s}" with the values of the labels, and 0 for
// shardId-000000000000. A summary gives its count.
func shown(t *testing.T, r *prometheus.Registry, prefix string) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		name, ok := strings.CutPrefix(f.GetName(), prefix)
		if !ok {
			continue
		}
		for _, s := range f.Metric {
			var labels []string
			for _, l := range s.Label {
				labels = append(labels, strings.TrimPrefix(l.GetValue(), "shardId-00000000000"))
			}
			key := name + "{" + strings.Join(labels, ",") + "}"
			switch f.GetType().String() {
			case "COUNTER":
				all[key] = s.GetCounter().GetValue()
			case "GAUGE":
				all[key] = s.GetGauge().GetValue()
			case "SUMMARY":
				all[key] = float64(s.GetSummary().GetSampleCount())
			}
		}
	}
	return all
}

func mustShow(t *testing.T, got, want map[string]float64) {
	t.Helper()
	if !maps.Equal(got, want) {
		var text []string
		for _, k := range slices.Sorted(maps.Keys(got)) {
			text = append(text, fmt.Sprintf("%s %v", k, got[k]))
		}
		t.Errorf("shown:\n%s\nnot %v", strings.Join(text, "\n"), want)
	}
}

// TestShardMetrics: they are there while they are enabled, and no longer.
func TestShardMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	e := newEnv(t, func(c *Config, _ *fakeBroker) { c.Registerer = registry })
	e.create("s", 2)
	e.create("other", 1)
	enable := func(op string, names ...string) {
		t.Helper()
		e.ok(op, m{"StreamName": "s", "ShardLevelMetrics": names})
	}
	check := func(want map[string]float64) {
		t.Helper()
		mustShow(t, shown(t, registry, "shardstream_shard_"), want)
	}
	e.put("s", "a", "unseen")
	e.put("other", "a", "unseen")
	check(map[string]float64{})

	enable("EnableEnhancedMonitoring", "IncomingBytes", "IncomingRecords")
	check(map[string]float64{
		"incoming_bytes_total{0,s}": 0, "incoming_records_total{0,s}": 0,
		"incoming_bytes_total{1,s}": 0, "incoming_records_total{1,s}": 0,
	})
	e.ok("PutRecords", m{"StreamName": "s", "Records": []m{
		{"PartitionKey": "key", "Data": []byte("12345"), "ExplicitHashKey": "0"},
		{"PartitionKey": "key", "Data": []byte("1234567"), "ExplicitHashKey": "0"},
		{"PartitionKey": "k", "Data": []byte(""), "ExplicitHashKey": halfKey},
	}})
	check(map[string]float64{
		"incoming_bytes_total{0,s}": 18, "incoming_records_total{0,s}": 2,
		"incoming_bytes_total{1,s}": 1, "incoming_records_total{1,s}": 1,
	})

	// One that is enabled later begins with zero, though it could have been known.
	iterator := e.iterator("s", "shardId-000000000000", "TRIM_HORIZON", nil)
	e.read(iterator, nil)
	enable("EnableEnhancedMonitoring", "ALL")
	enable("DisableEnhancedMonitoring", "IncomingBytes", "IncomingRecords")
	none := map[string]float64{}
	for _, shard := range []string{"0", "1"} {
		for _, name := range []string{"outgoing_bytes", "outgoing_records", "read_throughput_exceeded", "write_throughput_exceeded"} {
			none[name+"_total{"+shard+",s}"] = 0
		}
	}
	check(none)
	e.clock.advance(1500 * time.Millisecond)
	e.read(iterator, m{"Limit": 2})
	e.admit(map[uint32]int{0: 1, 1: 0})
	e.ok("PutRecords", m{"StreamName": "s", "Records": []m{
		{"PartitionKey": "k", "Data": []byte("1"), "ExplicitHashKey": "0"},
		{"PartitionKey": "k", "Data": []byte("2"), "ExplicitHashKey": "0"},
		{"PartitionKey": "k", "Data": []byte("3"), "ExplicitHashKey": "0"},
		{"PartitionKey": "k", "Data": []byte("4"), "ExplicitHashKey": halfKey},
	}})
	e.broker.mu.Lock()
	e.broker.onRead = func(stream.ShardID) stream.Kind { return stream.Throttled }
	e.broker.mu.Unlock()
	e.refused("GetRecords", m{"ShardIterator": iterator}, exceeded, rateText(0))
	want := maps.Clone(none)
	maps.Copy(want, map[string]float64{
		"outgoing_records_total{0,s}": 2, "outgoing_bytes_total{0,s}": 15, "iterator_age_seconds{0,s}": 1.5,
		"write_throughput_exceeded_total{0,s}": 2, "write_throughput_exceeded_total{1,s}": 1, "read_throughput_exceeded_total{0,s}": 2,
	})
	check(want)

	// A shard that has expired is no longer shown.
	e.broker.editShard(e.broker.streamID("s"), 0, func(s *pb.Shard) { s.State = pb.ShardState_SHARD_STATE_EXPIRED })
	maps.DeleteFunc(want, func(k string, _ float64) bool { return strings.HasSuffix(k, "{0,s}") })
	check(want)

	// Nor is anything of a stream for which all are disabled, nor of a deleted one.
	enable("DisableEnhancedMonitoring", "ALL")
	check(map[string]float64{})
	enable("EnableEnhancedMonitoring", "IncomingBytes")
	check(map[string]float64{"incoming_bytes_total{1,s}": 0})
	e.broker.remove(e.broker.streamID("s"))
	check(map[string]float64{})
}

// TestStreamMetrics: what CloudWatch has of a stream.
func TestStreamMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	e := newEnv(t, func(c *Config, _ *fakeBroker) { c.Registerer = registry })
	e.create("s", 2)
	e.create("idle", 1)
	check := func(want map[string]float64) {
		t.Helper()
		got := shown(t, registry, "shardstream_gateway_")
		maps.DeleteFunc(got, func(k string, _ float64) bool {
			return !strings.HasPrefix(k, "stream_") && !strings.HasPrefix(k, "throughput_exceeded")
		})
		mustShow(t, got, want)
	}
	e.admit(map[uint32]int{0: 2})
	e.put("s", "k", "12345") // shard 1
	e.broker.mu.Lock()
	e.broker.onAppend = func(_ string, id stream.ShardID) (stream.Kind, error) {
		if id.Number == 1 {
			return stream.Internal, nil
		}
		return 0, nil
	}
	e.broker.mu.Unlock()
	e.ok("PutRecords", m{"StreamName": "s", "Records": []m{
		{"PartitionKey": "k", "Data": []byte("1"), "ExplicitHashKey": "0"},
		{"PartitionKey": "k", "Data": []byte("2"), "ExplicitHashKey": "0"},
		{"PartitionKey": "k", "Data": []byte("3"), "ExplicitHashKey": "0"},
		{"PartitionKey": "k", "Data": []byte("4"), "ExplicitHashKey": halfKey},
	}})
	e.refused("PutRecord", m{"StreamName": "s", "PartitionKey": "k", "Data": []byte("1"), "ExplicitHashKey": "0"}, exceeded, rateText(0))
	iterator := e.iterator("s", "shardId-000000000000", "TRIM_HORIZON", nil)
	e.read(e.read(iterator, nil)["NextShardIterator"].(string), nil)
	e.broker.mu.Lock()
	e.broker.onRead = func(stream.ShardID) stream.Kind { return stream.Throttled }
	e.broker.mu.Unlock()
	e.refused("GetRecords", m{"ShardIterator": iterator}, exceeded, rateText(0))
	check(map[string]float64{
		"stream_request_seconds{PutRecord,s}": 3, "stream_success_total{PutRecord,s}": 1, "stream_bytes_total{PutRecord,s}": 6,
		"stream_records_total{PutRecord,ok,s}": 1, "stream_records_total{PutRecord,throttled,s}": 2, "stream_records_total{PutRecord,failed,s}": 0,

		"stream_request_seconds{PutRecords,s}": 1, "stream_success_total{PutRecords,s}": 1, "stream_bytes_total{PutRecords,s}": 4,
		"stream_records_total{PutRecords,ok,s}": 2, "stream_records_total{PutRecords,throttled,s}": 1, "stream_records_total{PutRecords,failed,s}": 1,

		"stream_request_seconds{GetRecords,s}": 4, "stream_success_total{GetRecords,s}": 2, "stream_bytes_total{GetRecords,s}": 4,
		"stream_records_total{GetRecords,ok,s}": 2, "stream_records_total{GetRecords,throttled,s}": 0, "stream_records_total{GetRecords,failed,s}": 0,

		"throughput_exceeded_total{write,s}": 3, "throughput_exceeded_total{read,s}": 2,
	})
	v := e.g.meta.load().byName["s"]
	e.broker.remove(v.Id)
	check(map[string]float64{})
	// A request that is still under way leaves nothing behind.
	v.metrics.ops[opPutRecord].Store(nil)
	e.g.metrics.ofOp(v, opPutRecord).put(time.Now(), 1, 1, 0, 0)
	check(map[string]float64{})
}
