package gateway

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardstream/gateway/kinesis"
)

// The stream-level metrics that CloudWatch has of Kinesis, beside the few of
// metrics.go: of the operations that carry records, by stream. They come to be
// with the first call, so that streams without traffic have none.
var (
	descOpSeconds = opts("stream_request_seconds", "Time from a request's header to its answer, by stream and operation that carries records.")
	descOpSuccess = opts("stream_success_total", "Requests that did at least a part of what they asked for, by stream and operation.")
	descOpBytes   = opts("stream_bytes_total", "Bytes of data and partition keys stored or given, by stream and operation.")
	descOpRecords = opts("stream_records_total", "Records of requests by stream, operation and what became of them: ok, throttled or failed.")
	descExceeded  = opts("throughput_exceeded_total", "Refusals since a shard is over its throughput, by stream: of records to write, of GetRecords calls to read.")
)

// What became of records.
const (
	outcomeOK = iota
	outcomeThrottled
	outcomeFailed
	outcomes
)

var outcomeNames = [outcomes]string{"ok", "throttled", "failed"}

// The operations that carry records.
const (
	opPutRecord = iota
	opPutRecords
	opGetRecords
	recordOps
)

var recordOpNames = [recordOps]kinesis.Op{kinesis.PutRecord, kinesis.PutRecords, kinesis.GetRecords}

// streamVectors are the families of these metrics.
type streamVectors struct {
	seconds  *prometheus.SummaryVec
	success  *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	records  *prometheus.CounterVec
	exceeded *prometheus.CounterVec
}

func newStreamVectors() streamVectors {
	counter := func(o prometheus.Opts, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(o), labels)
	}
	return streamVectors{
		// Without quantiles: sum and count, which cost next to nothing.
		seconds: prometheus.NewSummaryVec(prometheus.SummaryOpts{
			Namespace: descOpSeconds.Namespace, Subsystem: descOpSeconds.Subsystem, Name: descOpSeconds.Name, Help: descOpSeconds.Help,
		}, []string{"stream", "operation"}),
		success:  counter(descOpSuccess, "stream", "operation"),
		bytes:    counter(descOpBytes, "stream", "operation"),
		records:  counter(descOpRecords, "stream", "operation", "outcome"),
		exceeded: counter(descExceeded, "stream", "direction"),
	}
}

func (v *streamVectors) collectors() []prometheus.Collector {
	return []prometheus.Collector{v.seconds, v.success, v.bytes, v.records, v.exceeded}
}

// opMetrics are the metrics of one operation on one stream, resolved once.
type opMetrics struct {
	seconds  prometheus.Observer
	success  prometheus.Counter
	bytes    prometheus.Counter
	records  [outcomes]prometheus.Counter
	exceeded prometheus.Counter
}

// opSlots holds the metrics of a stream's operations; nil before the first call.
type opSlots [recordOps]atomic.Pointer[opMetrics]

func (v *streamVectors) resolve(name string, op int) *opMetrics {
	label, direction := string(recordOpNames[op]), "write"
	if op == opGetRecords {
		direction = "read"
	}
	o := &opMetrics{
		seconds: v.seconds.WithLabelValues(name, label), success: v.success.WithLabelValues(name, label),
		bytes: v.bytes.WithLabelValues(name, label), exceeded: v.exceeded.WithLabelValues(name, direction),
	}
	for i := range o.records {
		o.records[i] = v.records.WithLabelValues(name, label, outcomeNames[i])
	}
	return o
}

// forget drops the series of a stream.
func (v *streamVectors) forget(name string) {
	for _, op := range recordOpNames {
		v.seconds.DeleteLabelValues(name, string(op))
		v.success.DeleteLabelValues(name, string(op))
		v.bytes.DeleteLabelValues(name, string(op))
		for _, outcome := range outcomeNames {
			v.records.DeleteLabelValues(name, string(op), outcome)
		}
	}
	for _, direction := range []string{"read", "write"} {
		v.exceeded.DeleteLabelValues(name, direction)
	}
}

// detached counts for streams that are gone, and is shown nowhere.
var detached = func() *opMetrics {
	v := newStreamVectors()
	return v.resolve("", opPutRecord)
}()

// ofOp gives the metrics of an operation on a stream.
func (m *metrics) ofOp(v *streamView, op int) *opMetrics {
	s := v.metrics
	if o := s.ops[op].Load(); o != nil {
		return o
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams[v.Name] != s {
		return detached // deleted while the request was under way
	}
	o := s.ops[op].Load()
	if o == nil {
		o = m.byStream.resolve(v.Name, op)
		s.ops[op].Store(o)
	}
	return o
}

// put counts a PutRecord or PutRecords that has begun then, by what became of
// its records.
func (o *opMetrics) put(started time.Time, bytes, ok, throttled, failed int) {
	o.seconds.Observe(time.Since(started).Seconds())
	if ok > 0 {
		o.success.Inc()
		o.records[outcomeOK].Add(float64(ok))
		o.bytes.Add(float64(bytes))
	}
	if throttled > 0 {
		o.records[outcomeThrottled].Add(float64(throttled))
		o.exceeded.Add(float64(throttled))
	}
	if failed > 0 {
		o.records[outcomeFailed].Add(float64(failed))
	}
}

// get counts a GetRecords that has begun then; code is "" if it gave records.
func (o *opMetrics) get(started time.Time, records, bytes int, code string) {
	o.seconds.Observe(time.Since(started).Seconds())
	switch code {
	case "":
		o.success.Inc()
		o.records[outcomeOK].Add(float64(records))
		o.bytes.Add(float64(bytes))
	case kinesis.CodeProvisionedThroughputExceeded:
		o.exceeded.Inc()
	}
}
