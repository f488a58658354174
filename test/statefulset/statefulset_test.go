//go:build linux

package statefulset

import (
	"slices"
	"testing"
	"time"

	"shardstream/test/history"
)

// TestStatefulSetLife lets the pods live: a machine is lost and its pod comes
// back elsewhere, then an update replaces all pods one after the other. Each
// comes back with another address and the same disk. No client sees an error,
// and no acknowledged record is lost, doubled or out of order.
//
// The update goes on as soon as a pod is ready, without minReadySeconds, which
// is harder than what the manifest asks for.
func TestStatefulSetLife(t *testing.T) {
	c := startCluster(t)
	c.createStream(t, 12)
	h := history.New()
	l := c.startLoad(t, "all", h)
	l.awaitRequests(t, 200)
	t.Logf("before: %s", l.phase())

	lost := c.brokers[1]
	lost.kill(t)
	lost.start(t)
	lost.awaitReady(t)
	c.awaitHealthy(t)
	t.Logf("a machine is lost: %s", l.phase())

	// From the highest to the lowest, as a StatefulSet does it.
	for _, p := range slices.Backward(c.brokers) {
		took := p.stop(t)
		started := time.Now()
		p.start(t)
		p.awaitReady(t)
		t.Logf("%s: stopped within %s, ready again after %s: %s", p.name, took.Round(time.Millisecond), time.Since(started).Round(time.Millisecond), l.phase())
	}
	c.awaitHealthy(t)
	l.stop()
	if f := l.failures(); len(f) > 0 {
		t.Errorf("clients saw errors: %v", f)
	}
	c.check(t, h)
}

// TestAllPodsAtOnce takes all pods away at once, as when a cluster of machines
// is switched off, and has them come back with other addresses. The gateway has
// nobody left whom it knew, nor have the brokers: only the Service's name.
func TestAllPodsAtOnce(t *testing.T) {
	c := startCluster(t)
	c.createStream(t, 6)
	h := history.New()
	l := c.startLoad(t, "before", h)
	l.awaitRequests(t, 200)
	for _, p := range c.brokers {
		p.kill(t)
	}
	started := time.Now()
	for _, p := range c.brokers {
		p.start(t)
	}
	for _, p := range append(c.brokers, c.gateway) {
		p.awaitReady(t)
	}
	c.awaitHealthy(t)
	healthy := time.Since(started).Round(time.Millisecond)
	l.stop()
	t.Logf("healthy again %s after the pods started: %s; failed meanwhile: %v", healthy, l.phase(), l.failures())

	// Puts go on as if nothing had been.
	after := c.startLoad(t, "after", h)
	after.awaitRequests(t, 200)
	after.stop()
	if f := after.failures(); len(f) > 0 {
		t.Errorf("clients saw errors after all was healthy again: %v", f)
	}
	c.check(t, h)
}
