package gateway

import (
	"github.com/prometheus/client_golang/prometheus"
)

// The metrics of subscriptions, by stream and consumer. A consumer has them from
// its first subscription on, until it is deregistered.

var consumerLabels = []string{"stream", "consumer"}

// consumerVecs are the collectors.
type consumerVecs struct {
	open                                        *prometheus.GaugeVec
	begun, events, records, bytes, rateExceeded *prometheus.CounterVec
	behind                                      *prometheus.GaugeVec
}

func newConsumerVecs() consumerVecs {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), consumerLabels)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts(opts(name, help)), consumerLabels)
	}
	return consumerVecs{
		open:         gauge("subscriptions", "Subscriptions that are open here, by stream and consumer."),
		begun:        counter("subscribe_total", "Calls of SubscribeToShard that began a subscription."),
		events:       counter("subscribe_events_total", "Events written to subscriptions, those without records included."),
		records:      counter("subscribe_records_total", "Records written to subscriptions."),
		bytes:        counter("subscribe_bytes_total", "Bytes of data and partition keys written to subscriptions."),
		rateExceeded: counter("subscribe_rate_exceeded_total", "Calls of SubscribeToShard refused, since the consumer called too often."),
		behind:       gauge("subscribe_behind_seconds", "How far behind now the latest event of a consumer ended, 0 at the tip."),
	}
}

func (v consumerVecs) all() []prometheus.Collector {
	return []prometheus.Collector{v.open, v.begun, v.events, v.records, v.bytes, v.rateExceeded, v.behind}
}

// consumerMetrics are the metrics of one consumer, resolved once.
type consumerMetrics struct {
	open, behind                                prometheus.Gauge
	begun, events, records, bytes, rateExceeded prometheus.Counter
}

// ofConsumer gives the metrics of a consumer that exists.
func (m *metrics) ofConsumer(stream, consumer string) *consumerMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	byName := m.consumers[stream]
	if byName == nil {
		byName = make(map[string]*consumerMetrics)
		m.consumers[stream] = byName
	}
	c := byName[consumer]
	if c == nil {
		v := &m.fanout
		c = &consumerMetrics{
			open: v.open.WithLabelValues(stream, consumer), behind: v.behind.WithLabelValues(stream, consumer),
			begun: v.begun.WithLabelValues(stream, consumer), events: v.events.WithLabelValues(stream, consumer), records: v.records.WithLabelValues(stream, consumer),
			bytes: v.bytes.WithLabelValues(stream, consumer), rateExceeded: v.rateExceeded.WithLabelValues(stream, consumer),
		}
		byName[consumer] = c
	}
	return c
}

// forgetConsumers drops the series of consumers that are gone.
func (m *metrics) forgetConsumers(before, after map[string]*streamView) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for stream, byName := range m.consumers {
		now := after[stream]
		if now == before[stream] && now != nil {
			continue
		}
		exists := make(map[string]bool)
		if now != nil {
			for _, c := range now.Consumers {
				exists[c.Name] = true
			}
		}
		for consumer := range byName {
			if exists[consumer] {
				continue
			}
			delete(byName, consumer)
			for _, c := range m.fanout.all() {
				switch v := c.(type) {
				case *prometheus.CounterVec:
					v.DeleteLabelValues(stream, consumer)
				case *prometheus.GaugeVec:
					v.DeleteLabelValues(stream, consumer)
				}
			}
		}
		if len(byName) == 0 {
			delete(m.consumers, stream)
		}
	}
}
