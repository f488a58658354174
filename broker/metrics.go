package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"shardstream/broker/recordlog"
)

// metric is one row of the broker's table of metrics.
type metric struct {
	name  string
	help  string
	kind  prometheus.ValueType
	value func(recordlog.Stats) float64
}

var logMetrics = []metric{
	{"shardstream_log_appends_total", "Record batches appended.", prometheus.CounterValue, func(s recordlog.Stats) float64 { return float64(s.Appends) }},
	{"shardstream_log_appended_bytes_total", "Bytes of record batches appended.", prometheus.CounterValue, func(s recordlog.Stats) float64 { return float64(s.AppendBytes) }},
	{"shardstream_journal_frames_total", "Journal frames written: groups of batches that share one write and one fdatasync.", prometheus.CounterValue, func(s recordlog.Stats) float64 { return float64(s.Frames) }},
	{"shardstream_journal_syncs_total", "fdatasync calls on the journal.", prometheus.CounterValue, func(s recordlog.Stats) float64 { return float64(s.Fdatasyncs) }},
	{"shardstream_journal_bytes", "Bytes of journal that a restart would replay.", prometheus.GaugeValue, func(s recordlog.Stats) float64 { return float64(s.JournalSize) }},
	{"shardstream_log_tail_bytes", "Bytes of recent batches kept in memory.", prometheus.GaugeValue, func(s recordlog.Stats) float64 { return float64(s.TailBytes) }},
	{"shardstream_log_checkpoints_total", "Checkpoints: journal files given back after their segments were synced.", prometheus.CounterValue, func(s recordlog.Stats) float64 { return float64(s.Checkpoints) }},
	{"shardstream_log_open_files", "Segment files held open.", prometheus.GaugeValue, func(s recordlog.Stats) float64 { return float64(s.OpenSegments) }},
	{"shardstream_disk_free_bytes", "Free bytes on the data directory's file system.", prometheus.GaugeValue, func(s recordlog.Stats) float64 { return float64(s.DiskFree) }},
}

var (
	diskFullDesc  = prometheus.NewDesc("shardstream_disk_full", "1 while puts are refused because the free disk is below --disk-reserve.", nil, nil)
	damageDesc    = prometheus.NewDesc("shardstream_damaged_ranges", "Ranges of stored records that failed their checksum and await `shardstream cluster recover`.", nil, nil)
	leadingDesc   = prometheus.NewDesc("shardstream_shards_leading", "Shards that this node leads.", nil, nil)
	raftIndexDesc = prometheus.NewDesc("shardstream_metadata_index", "Raft index of this node's copy of the metadata.", nil, nil)
)

// collector reads the figures when somebody scrapes; nothing is counted twice.
type collector struct {
	b     *Broker
	descs []*prometheus.Desc // of logMetrics, in their order
}

func registerMetrics(r prometheus.Registerer, b *Broker) {
	c := &collector{b: b}
	for _, m := range logMetrics {
		c.descs = append(c.descs, prometheus.NewDesc(m.name, m.help, nil, nil))
	}
	r.MustRegister(c)
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
	ch <- diskFullDesc
	ch <- damageDesc
	ch <- leadingDesc
	ch <- raftIndexDesc
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	stats := c.b.records.Stats()
	for i, m := range logMetrics {
		ch <- prometheus.MustNewConstMetric(c.descs[i], m.kind, m.value(stats))
	}
	full := 0.0
	if c.b.records.DiskFull() {
		full = 1
	}
	leading := c.b.host.leading()
	ch <- prometheus.MustNewConstMetric(diskFullDesc, prometheus.GaugeValue, full)
	ch <- prometheus.MustNewConstMetric(damageDesc, prometheus.GaugeValue, float64(len(c.b.records.Damage())))
	ch <- prometheus.MustNewConstMetric(leadingDesc, prometheus.GaugeValue, float64(leading))
	ch <- prometheus.MustNewConstMetric(raftIndexDesc, prometheus.GaugeValue, float64(c.b.meta.State().Index()))
}
