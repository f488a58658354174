// Package ondemand decides when the shards of an on-demand stream are split and
// merged. It is pure: what it says depends on what was measured, on the rules
// and on the time that its callers give, and not on the clock or on chance.
//
// It is not for measuring, and carries nothing out. The invariants it keeps: what
// it proposes never leaves a stream with more shards than Rules.MaxShards, nor
// merges it below MinShards or below what the peak that is remembered needs.
//
// # The rules
//
// Demand is what is written in a second: bytes of data and partition keys, and at
// least 1,000 for each record. It is averaged over an interval, one minute.
//
//   - A shard is meant to take twice the split rate (500 KB/s): 1 MB and 1,000
//     records. A stream has shards for twice the highest demand within the window
//     of peaks (30 days): one for each split rate. It gets them at once, the
//     busiest split first, in steps that at most double it.
//   - A shard whose demand was above the split rate, on average over five
//     intervals, is split in the middle of its range.
//   - A split that leaves nine tenths of the demand in one half has not helped.
//     After four such in a row, the shard is split no more: its demand is that of
//     one key.
//   - Neighbours are merged if each was below a quarter of the split rate in each
//     interval of the quiet time (24 hours), while there are more shards than the
//     window of peaks asks for, and more than four.
//   - Nothing is decided of a stream before each of its shards was measured for an
//     interval. So a reshard is judged by what came of it.
//
// What the window asks for is more than its highest demand, as that need not be
// spread evenly: it is also the number of shards that would be left if, at that
// time, neighbours had been merged as far as half a split rate. Hence a stream
// that is busy in one place on one day of the week keeps its shards there for the
// others.
//
// From a quarter of the split rate each, to be merged, demand must rise fourfold
// before the rules would split again.
package ondemand

import (
	"fmt"
	"math"
	"time"
)

const (
	// MinShards is what no stream is merged below: what a new one begins with.
	MinShards = 4
	// Tries is how many splits in a row may fail to spread a shard's demand.
	Tries = 4

	// recordBytes is what a record counts for at least.
	recordBytes = 1000
	// sustained is over how many intervals a shard's demand is looked at.
	sustained = 5
	// windowParts is how many peaks are kept for the window: one of each part.
	windowParts = 30
	// stale is after how many intervals without a measurement a shard's demand
	// is unknown again.
	stale = 3
	// aloneShare of the demand of a range in one shard means that splitting the
	// range has not spread it.
	aloneShare = 0.9
)

// Rules are the figures that the rules go by.
type Rules struct {
	SplitRate  int64         // bytes per second; default 500,000
	MaxShards  int           // that a stream is given; default 200
	PeakWindow time.Duration // for which a peak is remembered; default 30 days
	Quiet      time.Duration // before neighbours are merged; default 24 hours
	Interval   time.Duration // over which demand is averaged; default 1 minute
}

// WithDefaults fills in what is zero.
func (r Rules) WithDefaults() Rules {
	set(&r.SplitRate, 500_000)
	set(&r.MaxShards, 200)
	set(&r.PeakWindow, 30*24*time.Hour)
	set(&r.Quiet, 24*time.Hour)
	set(&r.Interval, time.Minute)
	return r
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// MaxStreamShards is the most that Rules.MaxShards may be.
const MaxStreamShards = 10_000

// Validate names the first mistake. Its errors begin with the name of the figure
// as flags have it, after "on-demand-".
func (r Rules) Validate() error {
	switch {
	case r.SplitRate < 1:
		return fmt.Errorf("split-rate %d: want bytes per second, such as 500000", r.SplitRate)
	case r.MaxShards < MinShards || r.MaxShards > MaxStreamShards:
		return fmt.Errorf("max-shards %d: want %d to %d", r.MaxShards, MinShards, MaxStreamShards)
	case r.Interval < time.Second:
		return fmt.Errorf("interval %v: want a second or more", r.Interval)
	case r.PeakWindow < 3*r.Interval:
		return fmt.Errorf("peak-window %v: want at least three times the interval of %v", r.PeakWindow, r.Interval)
	case r.Quiet < r.Interval:
		return fmt.Errorf("quiet %v: want at least the interval of %v", r.Quiet, r.Interval)
	}
	return nil
}

// shardsFor gives how many shards have room for twice a demand.
func (r Rules) shardsFor(demand float64) int {
	return int(math.Ceil(demand / float64(r.SplitRate)))
}

// part is how long each peak stands for.
func (r Rules) part() time.Duration { return max(r.PeakWindow/windowParts, time.Millisecond) }
