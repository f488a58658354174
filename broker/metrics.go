package broker

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"shardstream/broker/recordlog"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
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
	{"shardstream_log_damage_found_total", "Ranges of stored records that failed their checksum when they were read or scrubbed, also those repaired since.", prometheus.CounterValue, func(s recordlog.Stats) float64 { return float64(s.Damage) }},
	{"shardstream_log_scrubbed_bytes_total", "Bytes of cold segments that the scrub has read and verified.", prometheus.CounterValue, func(s recordlog.Stats) float64 { return float64(s.ScrubbedBytes) }},
	{"shardstream_disk_free_bytes", "Free bytes on the data directory's file system.", prometheus.GaugeValue, func(s recordlog.Stats) float64 { return float64(s.DiskFree) }},
}

var (
	diskFullDesc   = prometheus.NewDesc("shardstream_disk_full", "1 while puts are refused because the free disk is below --disk-reserve.", nil, nil)
	damageDesc     = prometheus.NewDesc("shardstream_damaged_ranges", "Ranges of stored records that failed their checksum and await `shardstream cluster recover`.", nil, nil)
	leadingDesc    = prometheus.NewDesc("shardstream_shards_leading", "Shards that this node leads.", nil, nil)
	leaderlessDesc = prometheus.NewDesc("shardstream_shards_offline", "Shards of the cluster that have no leader.", nil, nil)
	belowFloorDesc = prometheus.NewDesc("shardstream_shards_below_min_in_sync", "Shards of the cluster with fewer live in-sync replicas than puts need: they wait.", nil, nil)
	underDesc      = prometheus.NewDesc("shardstream_shards_under_replicated", "Shards of the cluster with fewer in-sync replicas than wanted.", nil, nil)
	catchUpDesc    = prometheus.NewDesc("shardstream_catch_up_remaining_bytes", "Bytes that followers of the shards which this node leads have yet to be sent, about.", nil, nil)
	raftTermDesc   = prometheus.NewDesc("shardstream_raft_term", "Raft's term; it rises with each election of a metadata leader.", nil, nil)
	raftLeadDesc   = prometheus.NewDesc("shardstream_raft_leader", "1 on the node that leads the metadata.", nil, nil)
	fencedDesc     = prometheus.NewDesc("shardstream_brokers_fenced", "Brokers of the cluster that are taken for dead.", nil, nil)
	failoversDesc  = prometheus.NewDesc("shardstream_epochs", "Sum of all shards' epochs: it rises with each election of a shard's leader, and falls when a stream is deleted.", nil, nil)
	repeatsDesc    = prometheus.NewDesc("shardstream_repeats_total", "Puts that were recognised as repeats of stored ones, and not stored again.", nil, nil)
	forgottenDesc  = prometheus.NewDesc("shardstream_requests_forgotten_early_total", "Requests that were forgotten before their time for want of memory: their repeats would be stored again.", nil, nil)
	stalledDesc    = prometheus.NewDesc("shardstream_disk_stalled", "1 while a call to the disk has been under way for more than a second.", nil, nil)
	skewDesc       = prometheus.NewDesc("shardstream_clock_skew_seconds", "By how much this node's clock is ahead of the cluster's.", nil, nil)
	raftIndexDesc  = prometheus.NewDesc("shardstream_metadata_index", "Raft index of this node's copy of the metadata.", nil, nil)
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
	for _, d := range []*prometheus.Desc{
		leaderlessDesc, belowFloorDesc, underDesc, catchUpDesc, raftTermDesc, raftLeadDesc, fencedDesc, failoversDesc, repeatsDesc, forgottenDesc, stalledDesc, skewDesc,
	} {
		ch <- d
	}
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
	c.collectCluster(ch)
}

// collectCluster gives what every node knows of the cluster, and what this one
// knows of its part in it.
func (c *collector) collectCluster(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	f := shardFigures(c.b.meta.State())
	gauge(leaderlessDesc, float64(f.leaderless))
	gauge(belowFloorDesc, float64(f.belowFloor))
	gauge(underDesc, float64(f.under))
	gauge(fencedDesc, float64(f.fenced))
	gauge(failoversDesc, float64(f.epochs))
	gauge(catchUpDesc, float64(c.b.host.remaining()))
	raft := c.b.meta.Status()
	gauge(raftTermDesc, float64(raft.Term))
	gauge(raftLeadDesc, float64(boolFigure(raft.Leading)))
	counter(repeatsDesc, float64(c.b.host.memory.Answers()))
	counter(forgottenDesc, float64(c.b.host.memory.Early()))
	gauge(stalledDesc, float64(boolFigure(c.b.watchdog.stalled())))
	gauge(skewDesc, c.b.clock.skew().Seconds())
}

func boolFigure(b bool) int {
	if b {
		return 1
	}
	return 0
}

// figures of all shards.
type figures struct{ leaderless, belowFloor, under, fenced, epochs int }

func shardFigures(state *raftfsm.State) (f figures) {
	live := make(map[string]bool)
	for _, b := range state.Brokers() {
		live[b.NodeId] = b.State != pb.BrokerState_BROKER_STATE_FENCED
		f.fenced += boolFigure(!live[b.NodeId])
	}
	for _, s := range state.Streams() {
		for _, shard := range state.Shards(s.Id) {
			f.epochs += int(shard.Epoch)
			if shard.State != pb.ShardState_SHARD_STATE_OPEN && shard.State != pb.ShardState_SHARD_STATE_SEALING {
				continue
			}
			inSync := 0
			for _, r := range shard.Replicas {
				inSync += boolFigure(live[r.NodeId] && slices.Contains(shard.InSync, r.Id) && r.State == pb.ReplicaState_REPLICA_STATE_CREATED)
			}
			f.leaderless += boolFigure(shard.Leader == 0)
			f.belowFloor += boolFigure(inSync < int(shard.MinInSync))
			f.under += boolFigure(inSync < int(shard.ReplicationFactor))
		}
	}
	return f
}
