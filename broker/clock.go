package broker

import (
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// clockSlack is how far the arrival time of a record may be from the
	// cluster's time: a wrong clock of one node can't push a shard's time
	// further ahead (I20).
	clockSlack = time.Second
	// clockTrust is how far this node's clock may be off before it takes no
	// part in retention (I17).
	clockTrust = 30 * time.Second
	// slowAnswer is the longest round trip from which the cluster's time is
	// read, once it is known at all.
	slowAnswer = 250 * time.Millisecond
)

// clock knows two times: this node's own, and the cluster's, which is the
// median of all nodes' clocks as the raft leader tells it. Between two answers
// the cluster's time goes on by the monotonic clock, so that a jump of this
// node's clock changes nothing. Until an answer came, and on a lone node, both
// are the node's own.
type clock struct {
	wall  func() int64         // this node's clock, Unix ms
	since func() time.Duration // a clock that never jumps

	mu    sync.Mutex
	known bool
	ms    int64 // the cluster's time
	at    time.Duration
}

func newClock() *clock {
	start := time.Now()
	return &clock{
		wall:  func() int64 { return time.Now().UnixMilli() },
		since: func() time.Duration { return time.Since(start) },
	}
}

// observe takes over the cluster's time from an answer to a question that was
// sent at the given reading of since. 0 means that the answerer does not know.
func (c *clock) observe(clusterMs int64, sent time.Duration) {
	if clusterMs == 0 {
		return
	}
	now := c.since()
	c.mu.Lock()
	defer c.mu.Unlock()
	trip := now - sent
	if c.known && trip > slowAnswer && now-c.at < clockTrust {
		return // what was read before is more exact
	}
	c.known, c.ms, c.at = true, clusterMs, sent+trip/2
}

// clusterMs gives the cluster's time, by which retention and transitions go.
func (c *clock) clusterMs() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		return c.wall()
	}
	return c.ms + (c.since() - c.at).Milliseconds()
}

// arrivalMs gives the time to stamp on records: this node's clock, held within
// a second of the cluster's.
func (c *clock) arrivalMs() int64 {
	cluster := c.clusterMs()
	return max(cluster-clockSlack.Milliseconds(), min(c.wall(), cluster+clockSlack.Milliseconds()))
}

// skew is by how much this node's clock is ahead of the cluster's.
func (c *clock) skew() time.Duration {
	return time.Duration(c.wall()-c.clusterMs()) * time.Millisecond
}

// trusted is false while this node's clock is so wrong that it must not delete
// anything by time.
func (c *clock) trusted() bool { return c.skew().Abs() <= clockTrust }

// clockTable holds what all nodes say of their clocks, for the median. It is
// pure, and guarded by its owner.
type clockTable map[string]int64 // node to how far its clock is ahead of ours, ms

// note takes a node's clock at the moment when ours showed own.
func (t clockTable) note(node string, theirs, own int64) { t[node] = theirs - own }

// keep forgets all nodes that are not among the live ones.
func (t clockTable) keep(live map[string]bool) {
	maps.DeleteFunc(t, func(node string, _ int64) bool { return !live[node] })
}

// median gives by how much the cluster's time is ahead of ours, once a majority
// of the nodes has been heard. Of an even number the one of the two in the
// middle counts that is nearer to what was the cluster's time so far.
func (t clockTable) median(nodes int, soFar int64) (offset int64, ok bool) {
	if len(t) == 0 || len(t)*2 <= nodes {
		return 0, false
	}
	offsets := slices.Sorted(maps.Values(t))
	low, high := offsets[(len(offsets)-1)/2], offsets[len(offsets)/2]
	if soFar-low <= high-soFar {
		return low, true
	}
	return high, true
}
