package broker

import (
	"testing"
	"time"
)

type fakeClock struct {
	clock
	ms      int64
	elapsed time.Duration
}

func newFakeClock() *fakeClock {
	f := &fakeClock{ms: 1_000_000_000}
	f.clock.wall = func() int64 { return f.ms }
	f.clock.since = func() time.Duration { return f.elapsed }
	return f
}

func (f *fakeClock) pass(d time.Duration) {
	f.ms += d.Milliseconds()
	f.elapsed += d
}

func TestWithoutAnAnswerTheOwnClockCounts(t *testing.T) {
	f := newFakeClock()
	f.observe(0, 0)
	if f.clusterMs() != f.ms || f.arrivalMs() != f.ms || !f.trusted() {
		t.Fatal(f.clusterMs(), f.arrivalMs())
	}
}

// I20, I17: one wrong clock moves arrival times by a second at most, and
// retention not at all.
func TestWrongClockIsHeldToTheClusters_I20(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, jump := range []time.Duration{-year, -time.Hour, -1500 * time.Millisecond, -300 * time.Millisecond, 0, 300 * time.Millisecond, 1500 * time.Millisecond, time.Hour, year} {
		f := newFakeClock()
		f.observe(f.ms, f.elapsed)
		want := f.ms + 100
		f.ms += jump.Milliseconds()
		f.pass(100 * time.Millisecond)
		if got := f.clusterMs(); got != want {
			t.Errorf("jump %v: the cluster's time moved by %d ms", jump, got-want)
		}
		held := max(-time.Second, min(jump, time.Second))
		if got := f.arrivalMs(); got != want+held.Milliseconds() {
			t.Errorf("jump %v: records arrive %d ms off", jump, got-want)
		}
		if f.skew() != jump {
			t.Errorf("jump %v: told as %v", jump, f.skew())
		}
		if f.trusted() != (jump.Abs() <= 30*time.Second) {
			t.Errorf("jump %v: trusted %v", jump, f.trusted())
		}
	}
}

func TestClusterTimeIsReadAtTheMiddleOfTheTrip(t *testing.T) {
	f := newFakeClock()
	f.pass(100 * time.Millisecond)
	f.observe(5_000, 0)
	if got := f.clusterMs(); got != 5_050 {
		t.Fatal(got)
	}
	f.pass(time.Second)
	f.observe(9_000, f.elapsed-time.Second) // too slow to be exact
	if got := f.clusterMs(); got != 6_050 {
		t.Fatal(got)
	}
	f.pass(time.Minute) // but better than one of long ago
	f.observe(99_000, f.elapsed-time.Second)
	if got := f.clusterMs(); got != 99_500 {
		t.Fatal(got)
	}
}

func TestMedianOfTheNodesClocks(t *testing.T) {
	for _, c := range []struct {
		nodes   int
		offsets []int64
		soFar   int64
		want    int64
		ok      bool
	}{
		{1, []int64{0}, 0, 0, true},
		{3, []int64{0}, 0, 0, false},
		{3, []int64{0, 31_536_000_000}, 3, 0, true},
		{3, []int64{0, -31_536_000_000}, -3, 0, true},
		{3, []int64{0, 400}, 300, 400, true},
		{3, []int64{0, 5, 31_536_000_000}, 31_536_000_000, 5, true},
		{5, []int64{-3, 2, 99_999, 1, -99_999}, 0, 1, true},
		{0, nil, 0, 0, false},
	} {
		table := clockTable{}
		for i, o := range c.offsets {
			table.note(string(rune('a'+i)), 1000+o, 1000)
		}
		if got, ok := table.median(c.nodes, c.soFar); got != c.want || ok != c.ok {
			t.Errorf("%+v: %d, %v", c, got, ok)
		}
	}
	table := clockTable{"a": 0, "b": 7}
	table.keep(map[string]bool{"b": true})
	if got, _ := table.median(1, 0); got != 7 || len(table) != 1 {
		t.Fatal(got, table)
	}
}
