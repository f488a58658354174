package ondemand

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"shardstream/stream"
)

// testing is what the test framework and rapid have in common.
type fataler interface {
	Fatalf(format string, args ...any)
}

// spread is a load: some of it even over the hash space, some on single keys. Its
// figures are in split rates.
type spread struct {
	even float64
	keys map[uint64]float64 // by the upper half of the hash key
}

func (s spread) total() float64 {
	sum := s.even
	for _, d := range s.keys {
		sum += d
	}
	return sum
}

// on gives the part of the load that a range has.
func (s spread) on(r stream.HashRange) float64 {
	d := s.even * math.Ldexp(float64(r.End.Sub(r.Start).Hi)+1, -64)
	for k, weight := range s.keys {
		if r.Contains(stream.HashKey{Hi: k, Lo: 1 << 40}) {
			d += weight
		}
	}
	return d
}

type simShard struct {
	Shard
	born *simShard // what it came from by a split
}

// sim is a stream under a load. Reshards take no time.
type sim struct {
	t      fataler
	rules  Rules
	need   Need
	h      *History
	open   []*simShard
	next   uint32
	now    time.Duration // since the start
	splits int
	merges int
	last   time.Duration // of the last change
}

const simStart = 1_700_000_000_000 // Unix ms

func newSim(t fataler, r Rules, shards int) *sim {
	s := &sim{t: t, rules: r.WithDefaults(), need: Need{Room: 1 << 20}, h: NewHistory(nil)}
	for _, keys := range stream.UniformRanges(shards) {
		s.add(keys, nil)
	}
	return s
}

func (s *sim) ms() int64 { return simStart + s.now.Milliseconds() }

func (s *sim) add(keys stream.HashRange, born *simShard) {
	o := &simShard{Shard: Shard{Number: s.next, Keys: keys}, born: born}
	from := o
	for range Tries {
		if from != nil {
			from = from.born
		}
	}
	if from != nil {
		o.Origin, o.HasOrigin = from.Keys, true
	}
	s.next++
	s.open = append(s.open, o)
}

// interval lets one interval of a load pass, and does what is planned then.
func (s *sim) interval(load spread) Plan {
	s.now += s.rules.Interval
	for _, o := range s.open {
		bytes := load.on(o.Keys) * float64(s.rules.SplitRate) * s.rules.Interval.Seconds()
		s.h.Measure(s.rules, o.Number, Written{Bytes: uint64(bytes), Records: 1, Over: s.rules.Interval}, s.ms())
	}
	var shards []Shard
	for _, o := range s.open {
		shards = append(shards, o.Shard)
	}
	plan := s.h.Look(s.rules, shards, s.need, s.ms())
	s.carryOut(plan)
	return plan
}

func (s *sim) carryOut(p Plan) {
	take := func(number uint32) *simShard {
		i := slices.IndexFunc(s.open, func(o *simShard) bool { return o.Number == number })
		if i < 0 {
			s.t.Fatalf("shard %d is named twice, or not open: %v", number, p)
		}
		o := s.open[i]
		s.open = slices.Delete(s.open, i, i+1)
		return o
	}
	before := len(s.open)
	for _, n := range p.Splits {
		o := take(n)
		d := o.Keys.End.Sub(o.Keys.Start)
		middle := o.Keys.Start.Add(stream.HashKey{Hi: d.Hi >> 1, Lo: d.Lo>>1 | d.Hi<<63})
		s.add(stream.HashRange{Start: o.Keys.Start, End: middle}, o)
		s.add(stream.HashRange{Start: middle.Next(), End: o.Keys.End}, o)
	}
	for _, m := range p.Merges {
		low, high := take(m[0]), take(m[1])
		if low.Keys.End.Next() != high.Keys.Start {
			s.t.Fatalf("merge of %v and %v", low.Keys, high.Keys)
		}
		s.add(stream.HashRange{Start: low.Keys.Start, End: high.Keys.End}, nil)
	}
	switch {
	case len(p.Splits) > 0 && len(s.open) > s.rules.MaxShards:
		s.t.Fatalf("%d shards", len(s.open))
	case len(p.Splits) > s.need.Room:
		s.t.Fatalf("%d splits, and room for %d", len(p.Splits), s.need.Room)
	case len(s.open) > 2*before:
		s.t.Fatalf("from %d to %d shards at once", before, len(s.open))
	case len(p.Merges) > 0 && (len(s.open) < MinShards || len(p.Splits) > 0):
		s.t.Fatalf("%d shards after %v", len(s.open), p)
	}
	s.splits, s.merges = s.splits+len(p.Splits), s.merges+len(p.Merges)
	if len(p.Splits)+len(p.Merges) > 0 {
		s.last = s.now
	}
	s.checkCover()
}

func (s *sim) checkCover() {
	sorted := slices.Clone(s.open)
	slices.SortFunc(sorted, func(a, b *simShard) int { return a.Keys.Start.Compare(b.Keys.Start) })
	next := stream.HashKey{}
	for _, o := range sorted {
		if o.Keys.Start != next || o.Keys.End.Less(o.Keys.Start) {
			s.t.Fatalf("a gap or an overlap at %v", o.Keys)
		}
		next = o.Keys.End.Next()
	}
	if next != (stream.HashKey{}) {
		s.t.Fatalf("the hash space is not covered")
	}
}

// run lets a constant load last.
func (s *sim) run(load spread, d time.Duration) {
	for end := s.now + d; s.now < end; {
		s.interval(load)
	}
}

// hottest gives the highest load of a shard, in split rates.
func (s *sim) hottest(load spread) (most float64) {
	for _, o := range s.open {
		most = max(most, load.on(o.Keys))
	}
	return most
}

func (s *sim) String() string {
	return fmt.Sprintf("%d shards after %d splits and %d merges, the last at %v", len(s.open), s.splits, s.merges, s.last)
}

var _ fataler = (*testing.T)(nil)
