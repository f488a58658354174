package gateway

import (
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// The shard-level metrics of enhanced monitoring. A stream for which some are
// enabled has a shardMonitor, which counts all seven of each shard; what is shown
// are those that are enabled, beginning at zero when they are. A stream without
// costs its requests one look at a nil pointer.
//
// Each gateway shows what went through it: sums over all of them are the shard's.

// shardCounts are the metrics of one shard. Methods of a nil one count nothing.
type shardCounts struct {
	values [len(shardMetricOpts)]atomic.Int64 // by pb.ShardMetric; the age in ms
	read   atomic.Bool                        // the age is known
}

// reset lets a metric begin anew.
func (s *shardCounts) reset(metric pb.ShardMetric) {
	s.values[metric].Store(0)
	if metric == pb.ShardMetric_SHARD_METRIC_ITERATOR_AGE_MILLISECONDS {
		s.read.Store(false)
	}
}

// wrote counts a record that was stored.
func (s *shardCounts) wrote(bytes int) {
	if s != nil {
		s.values[pb.ShardMetric_SHARD_METRIC_INCOMING_RECORDS].Add(1)
		s.values[pb.ShardMetric_SHARD_METRIC_INCOMING_BYTES].Add(int64(bytes))
	}
}

// writeExceeded counts a record that was refused for throughput.
func (s *shardCounts) writeExceeded() {
	if s != nil {
		s.values[pb.ShardMetric_SHARD_METRIC_WRITE_PROVISIONED_THROUGHPUT_EXCEEDED].Add(1)
	}
}

// gave counts records that were given to a reader.
func (s *shardCounts) gave(records, bytes int) {
	if s != nil {
		s.values[pb.ShardMetric_SHARD_METRIC_OUTGOING_RECORDS].Add(int64(records))
		s.values[pb.ShardMetric_SHARD_METRIC_OUTGOING_BYTES].Add(int64(bytes))
	}
}

// behind notes how far behind now a GetRecords has ended.
func (s *shardCounts) behind(behindMs int64) {
	if s != nil {
		s.values[pb.ShardMetric_SHARD_METRIC_ITERATOR_AGE_MILLISECONDS].Store(behindMs)
		s.read.Store(true)
	}
}

// readExceeded counts a GetRecords that was refused for throughput.
func (s *shardCounts) readExceeded() {
	if s != nil {
		s.values[pb.ShardMetric_SHARD_METRIC_READ_PROVISIONED_THROUGHPUT_EXCEEDED].Add(1)
	}
}

// shardMonitor has the counts of a stream's shards.
type shardMonitor struct {
	stream uint64                                  // number, apart from that of a former namesake
	shards atomic.Pointer[map[uint32]*shardCounts] // never changed, but replaced

	enabled []pb.ShardMetric // guarded by metrics.mu
}

// shard gives the counts of a shard; nil if nothing is monitored.
func (s *streamMetrics) shard(number uint32) *shardCounts {
	m := s.monitor.Load()
	if m == nil {
		return nil
	}
	return (*m.shards.Load())[number]
}

// monitor makes the monitors what the streams say that changed. It is called
// before they are shown.
func (m *metrics) monitor(before, after map[string]*streamView) {
	for name, v := range after {
		if before[name] != v {
			m.monitorStream(v)
		}
	}
}

func (m *metrics) monitorStream(v *streamView) {
	s := v.metrics
	if len(v.ShardMetrics) == 0 {
		s.monitor.Store(nil)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	was := s.monitor.Load()
	if was == nil || was.stream != v.Id {
		was = &shardMonitor{stream: v.Id}
		was.shards.Store(&map[uint32]*shardCounts{})
	}
	known, shards := *was.shards.Load(), make(map[uint32]*shardCounts, len(v.shards))
	for _, shard := range v.shards {
		switch shard.State {
		case pb.ShardState_SHARD_STATE_OPEN, pb.ShardState_SHARD_STATE_SEALING, pb.ShardState_SHARD_STATE_CLOSED:
			counts := known[shard.Number]
			if counts == nil {
				counts = new(shardCounts)
			}
			for _, metric := range v.ShardMetrics {
				if !slices.Contains(was.enabled, metric) {
					counts.reset(metric)
				}
			}
			shards[shard.Number] = counts
		}
	}
	was.enabled = v.ShardMetrics
	was.shards.Store(&shards)
	s.monitor.Store(was)
}

// shardMetricOpts are what is shown, by pb.ShardMetric.
var shardMetricOpts = [...]struct{ name, help string }{
	pb.ShardMetric_SHARD_METRIC_INCOMING_BYTES:   {"shardstream_shard_incoming_bytes_total", "Bytes of data and partition keys stored in a shard."},
	pb.ShardMetric_SHARD_METRIC_INCOMING_RECORDS: {"shardstream_shard_incoming_records_total", "Records stored in a shard."},
	pb.ShardMetric_SHARD_METRIC_OUTGOING_BYTES:   {"shardstream_shard_outgoing_bytes_total", "Bytes of data and partition keys given to readers of a shard."},
	pb.ShardMetric_SHARD_METRIC_OUTGOING_RECORDS: {"shardstream_shard_outgoing_records_total", "Records given to readers of a shard."},
	pb.ShardMetric_SHARD_METRIC_WRITE_PROVISIONED_THROUGHPUT_EXCEEDED: {
		"shardstream_shard_write_throughput_exceeded_total", "Records for a shard refused since it is over its throughput.",
	},
	pb.ShardMetric_SHARD_METRIC_READ_PROVISIONED_THROUGHPUT_EXCEEDED: {
		"shardstream_shard_read_throughput_exceeded_total", "GetRecords calls of a shard refused since it is over its throughput.",
	},
	pb.ShardMetric_SHARD_METRIC_ITERATOR_AGE_MILLISECONDS: {
		"shardstream_shard_iterator_age_seconds", "How far behind now the latest GetRecords of a shard ended, 0 at the tip.",
	},
}

// shardCollector shows the shard-level metrics.
type shardCollector struct {
	m     *metrics
	descs [len(shardMetricOpts)]*prometheus.Desc
}

func newShardCollector(m *metrics) *shardCollector {
	c := &shardCollector{m: m}
	for metric, o := range shardMetricOpts {
		if o.name != "" {
			c.descs[metric] = prometheus.NewDesc(o.name, o.help, []string{"stream", "shard"}, nil)
		}
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *shardCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		if d != nil {
			ch <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (c *shardCollector) Collect(ch chan<- prometheus.Metric) {
	type monitored struct {
		name    string
		enabled []pb.ShardMetric
		shards  map[uint32]*shardCounts
	}
	var all []monitored
	c.m.mu.Lock()
	for name, s := range c.m.streams {
		if m := s.monitor.Load(); m != nil {
			all = append(all, monitored{name, m.enabled, *m.shards.Load()})
		}
	}
	c.m.mu.Unlock()
	for _, s := range all {
		for number, counts := range s.shards {
			for _, metric := range s.enabled {
				kind, value := prometheus.CounterValue, float64(counts.values[metric].Load())
				if metric == pb.ShardMetric_SHARD_METRIC_ITERATOR_AGE_MILLISECONDS {
					if !counts.read.Load() {
						continue // nobody reads it
					}
					kind, value = prometheus.GaugeValue, value/1000
				}
				ch <- prometheus.MustNewConstMetric(c.descs[metric], kind, value, s.name, stream.ShardName(number))
			}
		}
	}
}
