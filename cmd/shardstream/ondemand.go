package main

import (
	"fmt"
	"time"

	"shardstream/ondemand"
)

// onDemandFlags are the figures by which on-demand streams are scaled. All
// brokers of a cluster should have the same: those of the one that controls the
// cluster count.
type onDemandFlags struct {
	SplitRate  int64         `default:"500000" placeholder:"BYTES" help:"Bytes per second above which a shard of an on-demand stream is split; a record counts for 1,000 at least. A stream has one shard for each of these in its peak, which is room for twice the peak (${default})."`
	MaxShards  int           `default:"200" placeholder:"N" help:"Most shards that an on-demand stream is given (${default})."`
	PeakWindow time.Duration `default:"720h" help:"For how long an on-demand stream keeps the shards that its peak asked for (${default})."`
	Quiet      time.Duration `default:"24h" help:"For how long neighbouring shards must have been quiet, each below a quarter of the split rate, before they are merged (${default})."`
	Interval   time.Duration `default:"1m" help:"Over which the load of on-demand streams is averaged. A shard is split after five, a stream doubled at most once in each (${default})."`
}

func (f onDemandFlags) rules() (ondemand.Rules, error) {
	r := ondemand.Rules{SplitRate: f.SplitRate, MaxShards: f.MaxShards, PeakWindow: f.PeakWindow, Quiet: f.Quiet, Interval: f.Interval}
	if err := r.Validate(); err != nil {
		return r, usageError{fmt.Errorf("--on-demand-%w", err)}
	}
	return r, nil
}
