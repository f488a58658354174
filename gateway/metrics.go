package gateway

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardstream/gateway/kinesis"
)

// The metrics of the gateway. Labels are bounded: operations are the 39 of the
// API and "none", codes those of the API, and streams only such as exist.
var (
	descRequests    = opts("requests_total", "Requests by operation and by the error code of the answer (\"ok\" for none).")
	descSeconds     = opts("request_seconds", "Time from a request's header to its answer, by operation.")
	descInRecords   = opts("incoming_records_total", "Records stored by puts, by stream.")
	descInBytes     = opts("incoming_bytes_total", "Bytes of data and partition keys stored by puts, by stream.")
	descOutRecords  = opts("outgoing_records_total", "Records given to readers, by stream.")
	descOutBytes    = opts("outgoing_bytes_total", "Bytes of data and partition keys given to readers, by stream.")
	descAge         = opts("iterator_age_seconds", "How far behind now the latest read of a stream ended, 0 at the tip.")
	descThrottled   = opts("throttled_total", "Requests and records refused for throughput, by operation.")
	descFailed      = opts("put_record_failures_total", "Records of puts that were not stored, by error code.")
	descRetries     = opts("retries_total", "Calls of brokers repeated inside a request, by reason.")
	descWatchBreaks = opts("metadata_watch_breaks_total", "Times that the metadata watch broke or fell silent.")
	descKeyCalls    = opts("key_service_calls_total", "Calls of the provider of encryption keys, by call (generate, unwrap) and by how they ended: ok, failed, or why it refused.")
	descInFlight    = opts("body_bytes_in_flight", "Bytes set aside for bodies of requests and answers.")
	descConnections = opts("connections", "Open client connections.")
)

func opts(name, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: "shardstream", Subsystem: "gateway", Name: name, Help: help}
}

type metrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	inRecords   *prometheus.CounterVec
	inBytes     *prometheus.CounterVec
	outRecords  *prometheus.CounterVec
	outBytes    *prometheus.CounterVec
	age         *prometheus.GaugeVec
	throttled   *prometheus.CounterVec
	failed      *prometheus.CounterVec
	retries     *prometheus.CounterVec
	watchBreaks prometheus.Counter
	keyCalls    *prometheus.CounterVec
	connections prometheus.Gauge

	byStream streamVectors

	ok map[string]okMetrics // by operation; set once

	fanout consumerVecs

	mu        sync.Mutex // guards the maps below
	streams   map[string]*streamMetrics
	consumers map[string]map[string]*consumerMetrics // by stream and name
}

// okMetrics are those that nearly every request counts, resolved once.
type okMetrics struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

// streamMetrics are the metrics of one stream, resolved once.
type streamMetrics struct {
	inRecords, inBytes, outRecords, outBytes prometheus.Counter
	age                                      prometheus.Gauge

	ops     opSlots
	monitor atomic.Pointer[shardMonitor] // nil: no shard-level metrics
}

func newMetrics(r prometheus.Registerer, b *budget) (*metrics, error) {
	counter := func(o prometheus.Opts, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(o), labels)
	}
	m := &metrics{
		registerer: r,
		requests:   counter(descRequests, "operation", "code"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: descSeconds.Namespace, Subsystem: descSeconds.Subsystem, Name: descSeconds.Name, Help: descSeconds.Help,
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}, []string{"operation"}),
		inRecords:   counter(descInRecords, "stream"),
		inBytes:     counter(descInBytes, "stream"),
		outRecords:  counter(descOutRecords, "stream"),
		outBytes:    counter(descOutBytes, "stream"),
		age:         prometheus.NewGaugeVec(prometheus.GaugeOpts(descAge), []string{"stream"}),
		throttled:   counter(descThrottled, "operation"),
		failed:      counter(descFailed, "code"),
		retries:     counter(descRetries, "reason"),
		keyCalls:    counter(descKeyCalls, "call", "outcome"),
		watchBreaks: prometheus.NewCounter(prometheus.CounterOpts(descWatchBreaks)),
		connections: prometheus.NewGauge(prometheus.GaugeOpts(descConnections)),
		fanout:      newConsumerVecs(),
		byStream:    newStreamVectors(),
		streams:     make(map[string]*streamMetrics),
		consumers:   make(map[string]map[string]*consumerMetrics),
	}
	m.ok = make(map[string]okMetrics, len(served))
	for op := range served {
		m.ok[string(op)] = okMetrics{m.requests.WithLabelValues(string(op), "ok"), m.seconds.WithLabelValues(string(op))}
	}
	m.all = []prometheus.Collector{
		m.requests, m.seconds, m.inRecords, m.inBytes, m.outRecords, m.outBytes, m.age,
		m.throttled, m.failed, m.retries, m.watchBreaks, m.keyCalls, m.connections,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(descInFlight), func() float64 { return float64(b.inUse()) }),
	}
	m.all = append(m.all, m.fanout.all()...)
	m.all = append(append(m.all, m.byStream.collectors()...), newShardCollector(m))
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range m.all {
		errs = append(errs, r.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}

// ofStream gives the metrics of a stream that exists.
func (m *metrics) ofStream(name string) *streamMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[name]
	if s == nil {
		s = &streamMetrics{
			inRecords: m.inRecords.WithLabelValues(name), inBytes: m.inBytes.WithLabelValues(name),
			outRecords: m.outRecords.WithLabelValues(name), outBytes: m.outBytes.WithLabelValues(name),
			age: m.age.WithLabelValues(name),
		}
		m.streams[name] = s
	}
	return s
}

// forgetStreams drops the series of streams that are gone.
func (m *metrics) forgetStreams(before, after map[string]*streamView) {
	for name := range before {
		if _, there := after[name]; there {
			continue
		}
		m.mu.Lock()
		delete(m.streams, name)
		m.byStream.forget(name)
		m.mu.Unlock()
		m.inRecords.DeleteLabelValues(name)
		m.inBytes.DeleteLabelValues(name)
		m.outRecords.DeleteLabelValues(name)
		m.outBytes.DeleteLabelValues(name)
		m.age.DeleteLabelValues(name)
	}
}

// observe counts an answer.
func (m *metrics) observe(operation, code string, started time.Time) {
	if ok, there := m.ok[operation]; there && code == "ok" {
		ok.requests.Inc()
		ok.seconds.Observe(time.Since(started).Seconds())
		return
	}
	m.requests.WithLabelValues(operation, code).Inc()
	m.seconds.WithLabelValues(operation).Observe(time.Since(started).Seconds())
	if code == kinesis.CodeProvisionedThroughputExceeded {
		m.throttled.WithLabelValues(operation).Inc()
	}
}
