package throttle

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// Any sequence of takes: over every span what passes is at most burst and rate,
// and what is refused would have been more than that over some span.
func TestBucketIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rate{PerSecond: rapid.Int64Range(1, 3<<20).Draw(t, "rate"), Burst: rapid.Int64Range(1, 10<<20).Draw(t, "burst")}
		type taken struct {
			at time.Duration
			n  int64
		}
		var b Bucket
		var passed []taken
		now := time.Duration(rapid.Int64Range(0, 1e18).Draw(t, "start"))
		// over reports whether the takes from some moment on are more than may pass.
		over := func() bool {
			sum := int64(0)
			for _, p := range slices.Backward(passed) {
				sum += p.n
				// In whole units times billions, so that nothing is rounded here either.
				if span := int64(now - p.at); (sum-r.Burst)*billion > span*r.PerSecond {
					return true
				}
			}
			return false
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, 3e9).Draw(t, "pause"))
			n := rapid.Int64Range(0, r.Burst).Draw(t, "n")
			ok := b.Take(r, now, n)
			passed = append(passed, taken{now, n})
			if ok == over() {
				t.Fatalf("take of %d at %v: %v", n, now, ok)
			}
			if !ok {
				passed = passed[:len(passed)-1]
			}
		}
	})
}

func TestBucketFillsUp(t *testing.T) {
	r := Rate{PerSecond: 1 << 20, Burst: 1 << 20}
	var b Bucket
	b.Overdraw(r, 0, 3<<20)
	if d := b.Delay(r, 0, 0); d != 3*time.Second {
		t.Errorf("full after %v", d)
	}
	if d := b.Delay(r, time.Second, 1<<20); d != time.Second {
		t.Errorf("a second's share is there after %v more", d)
	}
	if b.Full(r, 3*time.Second-1) || !b.Full(r, 3*time.Second) {
		t.Error("it is not full after three seconds, or a nanosecond before")
	}
	b.Take(r, 4*time.Second, 1)
	if b.Full(r, 3*time.Second) { // a clock of another thread, a little behind
		t.Error("an earlier time fills it")
	}
	if !b.Take(r, 3*time.Second, 1<<20-1) {
		t.Error("an earlier time is not taken for the latest")
	}
	if !b.Full(r, 1<<62) {
		t.Error("it is not full after a century")
	}
}

// TestBucketRoundsNothing: a third of a second is no whole number of nanoseconds.
func TestBucketRoundsNothing(t *testing.T) {
	r := Rate{PerSecond: 3, Burst: 3}
	var b Bucket
	b.Take(r, 0, 1)
	if b.Full(r, 333_333_333) || !b.Full(r, 333_333_334) {
		t.Error("it is full before a third of a second, or not behind it")
	}
}

func TestIdle(t *testing.T) {
	for name, c := range map[string]struct {
		use  func(*Shard)
		idle time.Duration
	}{
		"records":    {func(s *Shard) { s.Write(0, slices.Values(sizes(1000, 0))) }, time.Second},
		"bytes":      {func(s *Shard) { s.Write(0, slices.Values(sizes(1, mib))) }, time.Second},
		"large ones": {func(s *Shard) { s.Write(0, slices.Values(sizes(1, 10*mib))) }, 10 * time.Second},
		"calls":      {func(s *Shard) { s.Read(0) }, time.Second / 5},
		"reads":      {func(s *Shard) { s.Give(0, 10*mib) }, 5 * time.Second},
		"iterators":  {func(s *Shard) { s.Iterator(0) }, time.Second / 5},
	} {
		var s Shard
		if !s.Idle(0) {
			t.Errorf("%s: a new one is not idle", name)
		}
		c.use(&s)
		if s.Idle(c.idle-1) || !s.Idle(c.idle) {
			t.Errorf("%s: it is idle before %v, or not then", name, c.idle)
		}
	}
}

func sizes(n, size int) []int { return slices.Repeat([]int{size}, n) }

func TestWrite(t *testing.T) {
	type put struct {
		at    time.Duration
		sizes []int
		pass  int
	}
	for name, puts := range map[string][]put{
		"1000 records a second": {
			{0, sizes(500, 1), 500},
			{0, sizes(500, 1), 500},
			{0, sizes(1, 1), 0},
			{time.Millisecond, sizes(1, 1), 1},
			{time.Millisecond, sizes(1, 1), 0},
			{time.Second + time.Millisecond, sizes(500, 1), 500},
		},
		"one too many, and those that fit come again": {
			{0, sizes(500, 1), 500}, {0, sizes(501, 1), 500}, {0, sizes(500, 1), 500}, {0, sizes(1, 1), 0},
		},
		"1 MiB a second": {
			{0, sizes(4, 256*kib), 4},
			{0, sizes(1, 1), 0},
			{time.Second / 2, sizes(3, 256*kib), 2},
			{time.Second / 2, sizes(2, 256*kib), 2},
			{time.Second / 2, sizes(1, 1), 0},
		},
		"saved up for a second at most": {
			{time.Hour, sizes(5, 256*kib), 4},
		},
		"a record of 1 MiB is an ordinary one": {
			{0, sizes(1, mib), 1}, {0, sizes(1, mib), 0}, {time.Second - 1, sizes(1, mib), 0}, {time.Second, sizes(1, mib), 1},
		},
		"10 MiB once in ten seconds": {
			{0, sizes(1, 10*mib), 1}, {10*time.Second - 1, sizes(1, 10*mib), 0}, {10 * time.Second, sizes(1, 10*mib), 1},
		},
		"large ones from what was saved up": {
			{0, sizes(3, 5*mib), 2}, {0, sizes(2, 5*mib), 2}, {time.Second, sizes(1, 2*mib), 0}, {2 * time.Second, sizes(1, 2*mib), 1},
		},
		"ordinary ones wait for large ones": {
			{0, sizes(1, 10*mib), 1}, {0, sizes(1, 1), 0}, {time.Second / 2, sizes(1, 512*kib), 1}, {time.Second / 2, sizes(1, 1), 0},
		},
		"large ones leave the share of the second": {
			{0, sizes(1, 8*mib), 1}, {0, sizes(1, mib), 1}, {0, sizes(1, mib), 0},
		},
		"a large one in the middle ends the put there": {
			{0, []int{1, 10*mib + 1, 1}, 1}, {0, []int{1, 9 * mib, 1}, 3},
		},
		"empty records count": {
			{0, sizes(1000, 0), 1000}, {0, sizes(1, 0), 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s Shard
			for i, p := range puts {
				pass, all := s.Write(p.at, slices.Values(p.sizes))
				if pass != p.pass || all != (p.pass == len(p.sizes)) {
					t.Fatalf("put %d: %d of %d pass (all: %v), not %d", i, pass, len(p.sizes), all, p.pass)
				}
			}
		})
	}
}

// A sender who takes whatever passes, in any mix, gets the rate and the burst
// and no more.
func TestWriteRateHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Shard
		now, bytes, records := time.Duration(0), 0, 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, 2e9).Draw(t, "pause"))
			put := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 20*kib), rapid.IntRange(0, 10*mib)), 1, 20).Draw(t, "sizes")
			pass, all := s.Write(now, slices.Values(put))
			if again, ok := s.Write(now, slices.Values(put[:pass])); !all && (!ok || again != pass) {
				t.Fatalf("%d of %d pass, and then %d", pass, len(put), again)
			}
			for _, size := range put[:pass] {
				bytes += size
				records++
			}
			if float64(bytes) > 10*mib+now.Seconds()*mib+1 || float64(records) > 1000+1000*now.Seconds() {
				t.Fatalf("%d records of %d bytes in %v", records, bytes, now)
			}
		}
	})
}

func TestRead(t *testing.T) {
	type get struct {
		at    time.Duration
		bytes int // found; -1: refused before it reads
	}
	const refused = -1
	for name, gets := range map[string][]get{
		"five calls a second": {
			{0, 0},
			{0, 0},
			{0, 0},
			{0, 0},
			{0, 0},
			{0, refused},
			{200 * time.Millisecond, 0},
			{200 * time.Millisecond, refused},
			{1200 * time.Millisecond, 0},
		},
		"after 10 MiB five seconds": {
			{0, 10 * mib}, {0, refused}, {5*time.Second - 1, refused}, {5 * time.Second, 0},
		},
		"after 2 MiB the next second": {
			{0, mib}, {0, mib}, {0, refused}, {time.Second - 1, refused}, {time.Second, 10 * mib}, {6*time.Second - 1, refused}, {6 * time.Second, 0},
		},
		"less than 2 MiB a second": {
			{0, 400 * kib},
			{0, 400 * kib},
			{0, 400 * kib},
			{0, 400 * kib},
			{0, 400 * kib},
			{time.Second, 400 * kib},
			{time.Second, 400 * kib},
			{time.Second, 400 * kib},
			{time.Second, 400 * kib},
			{time.Second, 400 * kib},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s Shard
			for i, g := range gets {
				if ok := s.Read(g.at); ok != (g.bytes != refused) {
					t.Fatalf("call %d at %v passes: %v", i, g.at, ok)
				}
				if g.bytes != refused && !s.Give(g.at, g.bytes) {
					t.Fatalf("call %d at %v may not give what it has found", i, g.at)
				}
			}
		})
	}
}

func TestReadsAtOnce(t *testing.T) {
	var s Shard
	for range 2 {
		if !s.Read(0) {
			t.Fatal("two calls don't pass")
		}
	}
	if !s.Give(0, 10*mib) {
		t.Error("the first may not give 10 MiB")
	}
	if s.Give(0, 10*mib) {
		t.Error("the second gives 10 MiB as well")
	}
	if s.Read(5*time.Second - 1) {
		t.Error("the second's 10 MiB have been given all the same, or the first's forgotten")
	}
	if !s.Read(5 * time.Second) {
		t.Error("what the second has not given is counted")
	}
}

func TestIterator(t *testing.T) {
	var s Shard
	for i := range 6 {
		if got, want := s.Iterator(0), i < 5; got != want {
			t.Errorf("call %d passes: %v", i, got)
		}
	}
	if !s.Iterator(time.Second / 5) {
		t.Error("none passes a fifth of a second later")
	}
}

func TestFanOut(t *testing.T) {
	var f FanOut
	for i, p := range []struct {
		at    time.Duration
		delay time.Duration
		bytes int
	}{
		{0, 0, mib},
		{0, 0, mib - 1},
		{0, 0, mib},
		// 3 MiB - 1 are used, and the next may come when it is less than 2 MiB.
		{0, 500 * time.Millisecond, 0},
		{500 * time.Millisecond, 0, 2 * mib},
	} {
		if d := f.Delay(p.at); d != p.delay {
			t.Fatalf("push %d waits %v, not %v", i, d, p.delay)
		}
		f.Pushed(p.at, p.bytes)
	}
}

func TestTableForgetsTheIdle(t *testing.T) {
	var table Table[int, Shard, *Shard]
	for k := range 10_000 {
		table.At(k, 0).Write(0, slices.Values([]int{1}))
	}
	if n := table.Len(); n != 10_000 {
		t.Fatalf("%d states of 10,000 busy ones", n)
	}
	busy := 9 * time.Second
	if !table.At(1, busy).Iterator(busy) {
		t.Fatal("refused")
	}
	for range 10_001 {
		table.At(1, busy)
	}
	if n := table.Len(); n != 1 {
		t.Errorf("%d states are left, not the one that is busy", n)
	}
	if table.At(1, busy).Idle(busy) {
		t.Error("the busy one was forgotten")
	}
	if !table.At(1, busy+time.Second).Idle(busy + time.Second) {
		t.Error("a second later it is still busy")
	}
}

func BenchmarkWrite500(b *testing.B) {
	var s Shard
	put := sizes(500, 1000)
	for i := range b.N {
		s.Write(time.Duration(i)*time.Second, slices.Values(put))
	}
}
