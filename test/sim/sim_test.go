package sim

import (
	"flag"
	"os"
	"testing"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run this schedule alone, with its trace")
	runsFlag = flag.Uint64("runs", 0, "schedules to run")
)

func options(seed uint64) Options {
	o := Options{Nodes: 3, Shards: 1, Steps: 1500, Crashes: 6, Losses: 1}
	o.Reshards = int(seed % 3)
	switch seed % 4 {
	case 1:
		o.Shards = 2
	case 2:
		o.Nodes, o.Losses = 4, 2
	case 3:
		o.Losses = 0
		o.Crashes = 20
	}
	return o
}

// TestSchedules runs a hundred schedules, thousands with
// SHARDSTREAM_LONG=1, and any number with -runs.
func TestSchedules(t *testing.T) {
	runs := uint64(100)
	if os.Getenv("SHARDSTREAM_LONG") != "" {
		runs = 20_000
	}
	if *runsFlag > 0 {
		runs = *runsFlag
	}
	if *seedFlag > 0 {
		o := options(*seedFlag)
		o.Trace = true
		counts, wrong, trace := Run(*seedFlag, o)
		t.Logf("%s\n%+v", trace, counts)
		if wrong != "" {
			t.Fatalf("seed %d: %s", *seedFlag, wrong)
		}
		return
	}
	var sum Counts
	for seed := uint64(1); seed <= runs; seed++ {
		counts, wrong, _ := Run(seed, options(seed))
		if wrong != "" {
			t.Fatalf("seed %d: %s\nagain, with its trace: go test ./test/sim -run TestSchedules -seed %d -v", seed, wrong, seed)
		}
		sum.add(counts)
	}
	t.Logf("%d schedules: %+v", runs, sum)
	if sum.Acked == 0 || sum.Elections == 0 || sum.InSyncChanges == 0 || sum.Losses == 0 {
		t.Errorf("too little happened: %+v", sum)
	}
}
