package ondemand

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"shardstream/stream"
)

// A busy shard is split once its demand was above the split rate on average over
// five intervals, and no earlier.
func TestBusyShardIsSplit(t *testing.T) {
	const key = 1 << 62 // in the second shard of four
	for name, test := range map[string]struct {
		loads []float64 // of the shard, in each interval
		want  int       // intervals until the split; 0: none
	}{
		"steadily above":         {[]float64{1.1, 1.1, 1.1, 1.1, 1.1}, 5},
		"at the split rate":      {[]float64{1, 1, 1, 1, 1, 1, 1, 1}, 0},
		"a minute far above":     {[]float64{0, 3.9, 0, 0, 0, 0, 0}, 0},
		"above on average":       {[]float64{0, 2, 0, 2, 0, 2, 0}, 6},
		"below, then above":      {[]float64{.2, .2, .2, .2, .2, 1.4, 1.4, 1.4, 1.4}, 9},
		"a peak beyond 4 shards": {[]float64{4.1}, 1}, // not for the shard, but for the stream's peak
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, Rules{}, 4)
			got := 0
			for i, d := range test.loads {
				if p := s.interval(spread{keys: map[uint64]float64{key: d}}); len(p.Splits) > 0 {
					if p.Splits[0] != 1 {
						t.Errorf("split %v", p.Splits)
					}
					got = i + 1
					break
				}
			}
			if got != test.want {
				t.Errorf("split after %d intervals, want %d", got, test.want)
			}
		})
	}
}

// A thousand records weigh what a megabyte does.
func TestRecordsCount(t *testing.T) {
	r := Rules{}.WithDefaults()
	for _, w := range []struct {
		Written
		want float64
	}{
		{Written{Bytes: 30_000_000, Records: 60, Over: time.Minute}, 500_000},
		{Written{Bytes: 600_000, Records: 30_000, Over: time.Minute}, 500_000},
		{Written{Bytes: 30_000_000, Records: 30_000, Over: time.Minute}, 500_000},
	} {
		if got := w.demand(); got != w.want {
			t.Errorf("%+v: %v", w, got)
		}
	}
	if got := r.shardsFor(500_001); got != 2 {
		t.Errorf("%d shards for twice 500,001 bytes per second", got)
	}
}

// Within 15 minutes of any load, a stream has shards for twice of it, and none
// is above the split rate.
func TestCapacityWithinFifteenMinutes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		load := spread{even: rapid.Float64Range(0, 200).Draw(t, "load")}
		s := newSim(t, Rules{MaxShards: 256}, MinShards)
		s.run(spread{even: rapid.Float64Range(0, 1).Draw(t, "before")}, 10*time.Minute)
		s.run(load, 15*time.Minute)
		if len(s.open) < int(math.Ceil(load.total())) || s.hottest(load) > 1 {
			t.Fatalf("load %v: %v, the busiest has %v", load, s, s.hottest(load))
		}
		if len(s.open) > 2*int(max(MinShards, math.Ceil(load.total()))) {
			t.Fatalf("load %v: %v", load, s)
		}
	})
}

func drawSpread(t *rapid.T, name string) spread {
	s := spread{even: rapid.Float64Range(0, 40).Draw(t, name), keys: map[uint64]float64{}}
	for range rapid.IntRange(0, 4).Draw(t, "keys") {
		s.keys[rapid.Uint64().Draw(t, "key")] = rapid.Float64Range(0, 8).Draw(t, "weight")
	}
	return s
}

// Under a constant load, whatever it is like and whatever was before, the shards
// come to rest, and then there is nothing more to do. What is still above the
// split rate can't be helped: one key has it, or the stream has all it may.
func TestConstantLoadComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rules{
			MaxShards: rapid.IntRange(MinShards, 120).Draw(t, "max"), Interval: time.Minute, Quiet: 20 * time.Minute, PeakWindow: time.Hour,
		}
		s := newSim(t, r, rapid.IntRange(1, 12).Draw(t, "shards"))
		s.run(drawSpread(t, "before"), time.Duration(rapid.IntRange(0, 200).Draw(t, "minutes"))*time.Minute)
		load := drawSpread(t, "load")
		from, splits := s.now, s.splits
		s.run(load, 12*time.Hour)
		if s.last-from > 8*time.Hour {
			t.Fatalf("load %v: still at it: %v", load, s)
		}
		// A key's shard is split until the rest of its origin is little beside it.
		if more := s.splits - splits; more > s.rules.MaxShards+(Tries+10)*len(load.keys) {
			t.Fatalf("load %v: %d splits", load, more)
		}
		if full := len(s.open) >= s.rules.MaxShards; full {
			return
		}
		if len(s.open) < int(math.Ceil(load.total()-1e-6)) {
			t.Fatalf("load %v of %v: %v", load, load.total(), s)
		}
		for _, o := range s.open {
			most := 0.0
			for k, d := range load.keys {
				if o.Keys.Contains(stream.HashKey{Hi: k, Lo: 1 << 40}) {
					most = max(most, d)
				}
			}
			// Two keys that four halvings don't part are as one.
			if d := load.on(o.Keys); d > 1.001 && most < 0.25 {
				t.Fatalf("load %v: %v has %v of it: %v", load, o.Shard, d, s)
			}
		}
	})
}

// A key that no split can help gets a bounded number of them, and what they have
// made for nothing is merged again, but not so that it would begin anew.
func TestBusyKey(t *testing.T) {
	load := spread{even: 0.4, keys: map[uint64]float64{1 << 61: 1.8}}
	s := newSim(t, Rules{}, MinShards)
	s.run(load, 2*time.Hour)
	if s.splits != Tries || len(s.open) != MinShards+Tries {
		t.Fatalf("after two hours: %v", s)
	}
	s.run(load, 90*24*time.Hour)
	if s.splits != Tries || len(s.open) != MinShards || s.last > 7*24*time.Hour {
		t.Errorf("after 90 days: %v", s)
	}
	// The same by day only.
	s = newSim(t, Rules{}, MinShards)
	for range 90 {
		s.run(load, 12*time.Hour)
		s.run(spread{even: 0.1}, 12*time.Hour)
	}
	if s.splits != Tries || s.last > 7*24*time.Hour {
		t.Errorf("by day, after 90 days: %v", s)
	}
}

// Shards follow the week's highest load and stay, through nights and weekends;
// once the stream is quiet for longer than the window of peaks, they are merged.
func TestNightsAndWeekends(t *testing.T) {
	s, grown := newSim(t, Rules{Interval: 5 * time.Minute}, MinShards), 0
	day := func(peak float64, busy uint64) {
		for m := range 24 * 12 {
			sun := max(0, -math.Cos(2*math.Pi*float64(m)/(24*12)))
			s.interval(spread{even: 1 + (peak-1)*sun, keys: map[uint64]float64{busy: 1.5 * sun}})
		}
	}
	for d := range 70 {
		peak := 20.0
		if d%7 >= 5 {
			peak = 1.2
		}
		day(peak, 1<<60)
		if d == 0 {
			grown = s.splits
		}
	}
	// Only what was split in vain for the busy key is merged again.
	if s.splits != grown || s.merges > Tries || s.last > 7*24*time.Hour || len(s.open) < 22 {
		t.Errorf("after ten weeks, %d splits on the first day: %v", grown, s)
	}
	t.Logf("after ten weeks: %v", s)
	quiet, had := s.now-2*24*time.Hour, len(s.open)
	s.run(spread{even: 0.5}, 27*24*time.Hour)
	if len(s.open) != had {
		t.Errorf("before the window was over: %v", s)
	}
	s.run(spread{even: 0.5}, 14*24*time.Hour)
	if len(s.open) != MinShards || s.last < quiet+30*24*time.Hour {
		t.Errorf("after the window, quiet since %v: %v", quiet, s)
	}
	t.Logf("quiet for 41 days: %v", s)
}

// Another controller begins with the peaks that were noted, and merges nothing
// that they ask for.
func TestPeaksOutliveTheController(t *testing.T) {
	s, load := newSim(t, Rules{}, MinShards), spread{even: 12}
	var peaks []Peak
	for range 3 * 60 {
		s.interval(load)
		if p, _, due := s.h.Note(s.rules, last(peaks), s.ms()); due {
			if last(peaks).FromMs != p.FromMs {
				peaks = append(peaks, Peak{})
			}
			peaks[len(peaks)-1] = p
		}
	}
	splits := s.splits
	s.h = NewHistory(peaks)
	s.run(spread{}, 20*24*time.Hour)
	quiet := s.String()
	s.run(load, 24*time.Hour)
	if s.splits != splits || len(s.open) < 14 {
		t.Errorf("%d splits; after 20 quiet days %s; under the load of before %v", splits, quiet, s)
	}
	if _, _, due := NewHistory(peaks).Note(s.rules, last(peaks), s.ms()); due {
		t.Error("a peak is noted that came from the notes")
	}
}

func last(peaks []Peak) (p Peak) {
	if n := len(peaks); n > 0 {
		p = peaks[n-1]
	}
	return p
}

func TestNothingIsDecidedUnmeasured(t *testing.T) {
	r := Rules{}.WithDefaults()
	shards := []Shard{{Number: 0, Keys: stream.UniformRanges(2)[0]}, {Number: 1, Keys: stream.UniformRanges(2)[1]}}
	much := Written{Bytes: 1 << 30, Over: time.Minute}
	h := NewHistory([]Peak{{FromMs: simStart, Demand: 1e9, Shards: 2}})
	now := int64(simStart)
	look := func() int { return len(h.Look(r, shards, Need{Room: 100}, now).Splits) }
	h.Measure(r, 0, much, now)
	if n := look(); n != 0 {
		t.Errorf("%d splits while one shard is unknown", n)
	}
	h.Measure(r, 1, Written{Over: 30 * time.Second}, now)
	if n := look(); n != 0 {
		t.Errorf("%d splits after half an interval", n)
	}
	h.Measure(r, 1, Written{Over: 30 * time.Second}, now)
	if n := look(); n != 2 {
		t.Errorf("%d splits when all is known", n)
	}
	now += 4 * time.Minute.Milliseconds()
	if n := look(); n != 0 {
		t.Errorf("%d splits by old figures", n)
	}
}

func TestWarmAndRoom(t *testing.T) {
	s := newSim(t, Rules{}, MinShards)
	s.need.WarmRate = 20 << 20
	s.run(spread{}, 10*time.Minute)
	if len(s.open) != 21 { // 20 MiB are 20.97 MB
		t.Errorf("for 20 MiB/s: %v", s)
	}
	s = newSim(t, Rules{}, MinShards)
	s.need.Room = 3
	s.interval(spread{even: 100})
	if len(s.open) != 7 {
		t.Errorf("with room for 3: %v", s)
	}
}

func TestValidate(t *testing.T) {
	if err := (Rules{}).WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
	for _, test := range []struct {
		r    Rules
		want string
	}{
		{Rules{SplitRate: -1}, "split-rate -1"},
		{Rules{MaxShards: 3}, "max-shards 3"},
		{Rules{MaxShards: 20_000}, "max-shards 20000"},
		{Rules{Interval: time.Millisecond}, "interval 1ms"},
		{Rules{PeakWindow: time.Minute}, "peak-window 1m0s"},
		{Rules{Quiet: time.Second}, "quiet 1s"},
	} {
		if err := test.r.WithDefaults().Validate(); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%+v: %v", test.r, err)
		}
	}
}
