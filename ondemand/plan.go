package ondemand

import (
	"cmp"
	"math"
	"slices"

	"shardstream/stream"
)

// Shard is an open shard of a stream.
type Shard struct {
	Number uint32
	Keys   stream.HashRange
	// Origin is the range of the shard that it came from by Tries splits in a row;
	// HasOrigin is false if there was none.
	Origin    stream.HashRange
	HasOrigin bool
}

// Plan is what to do with a stream. No shard is in it twice. One that has splits
// has no merges.
type Plan struct {
	Splits []uint32    // each in the middle of its range
	Merges [][2]uint32 // the lower one first
}

// Need is what a stream is to have beside what was measured.
type Need struct {
	WarmRate int64 // bytes per second that it is to be ready for; 0: none
	Room     int   // shards that it may get in addition
}

// Look notes what the stream needs at present, and gives what to do about it.
// shards are all that are open.
func (h *History) Look(r Rules, shards []Shard, need Need, nowMs int64) Plan {
	if !h.measured(r, shards, nowMs) || len(shards) == 0 {
		return Plan{}
	}
	l := newLook(h, r, shards, nowMs)
	demand := 0.0
	for _, load := range l.loads {
		demand += load.newest()
	}
	h.notePeak(r, demand, l.packed(), nowMs)
	peak := h.peak()
	wanted := min(r.MaxShards, max(r.shardsFor(peak.Demand), r.shardsFor(float64(need.WarmRate)/2)))
	room := min(need.Room, r.MaxShards-len(shards))
	if splits := l.splits(wanted, room); len(splits) > 0 {
		return Plan{Splits: splits}
	}
	return Plan{Merges: l.merges(len(shards) - max(MinShards, wanted, peak.Shards))}
}

// look is one look at a stream.
type look struct {
	rules  Rules
	nowMs  int64
	shards []Shard   // by their ranges
	loads  []*load   // of the shards, in their order
	before []float64 // sums of the averages before each shard, and of all
}

func newLook(h *History, r Rules, shards []Shard, nowMs int64) *look {
	l := &look{rules: r, nowMs: nowMs, shards: slices.Clone(shards), before: make([]float64, len(shards)+1)}
	slices.SortFunc(l.shards, func(a, b Shard) int { return a.Keys.Start.Compare(b.Keys.Start) })
	for i, s := range l.shards {
		l.loads = append(l.loads, h.shards[s.Number])
		l.before[i+1] = l.before[i] + l.loads[i].average()
	}
	return l
}

// packed gives how many shards would be left if neighbours were merged as far as
// half a split rate.
func (l *look) packed() int {
	packs, in := 0, 0.0
	for i, load := range l.loads {
		d := load.average()
		if in += d; i == 0 || in > float64(l.rules.SplitRate)/2 {
			packs, in = packs+1, d
		}
	}
	return packs
}

// splits gives the shards to split, at most room: those that are above the split
// rate, and as many others as it takes to have the wanted number.
func (l *look) splits(wanted, room int) []uint32 {
	var hot, others []int
	for i, load := range l.loads {
		switch {
		case !l.divisible(i):
		case load.n >= sustained && load.average() > float64(l.rules.SplitRate):
			hot = append(hot, i)
		default:
			others = append(others, i)
		}
	}
	for _, some := range [][]int{hot, others} {
		slices.SortFunc(some, func(i, j int) int {
			return cmp.Or(cmp.Compare(l.loads[j].newest(), l.loads[i].newest()), l.width(j).Compare(l.width(i)), cmp.Compare(i, j))
		})
	}
	missing := min(max(0, wanted-len(l.shards)-len(hot)), len(others))
	chosen := append(hot, others[:missing]...)
	var numbers []uint32
	for _, i := range chosen[:min(len(chosen), max(room, 0))] {
		numbers = append(numbers, l.shards[i].Number)
	}
	return numbers
}

func (l *look) width(i int) stream.HashKey { return l.shards[i].Keys.End.Sub(l.shards[i].Keys.Start) }

// divisible tells that splitting a shard may spread its demand.
func (l *look) divisible(i int) bool {
	return l.width(i).Hi > 0 && !l.alone(i)
}

// alone tells that the last splits have not spread a shard's demand: it has
// nearly all of that of its origin. Of a shard that was merged across the
// origin's border, a part is counted as if its demand were even. So a busy key's
// shard, which only ever gets narrower, is left with nothing beside it.
func (l *look) alone(i int) bool {
	s := l.shards[i]
	if !s.HasOrigin {
		return false
	}
	from, _ := slices.BinarySearchFunc(l.shards, s.Origin.Start, func(s Shard, k stream.HashKey) int { return s.Keys.End.Compare(k) })
	to, ends := slices.BinarySearchFunc(l.shards, s.Origin.End, func(s Shard, k stream.HashKey) int { return s.Keys.End.Compare(k) })
	all := l.before[to] - l.before[from]
	if o := l.shards[from].Keys; o.Start.Less(s.Origin.Start) {
		all -= l.loads[from].average() * share(stream.HashRange{Start: o.Start, End: s.Origin.Start}, o)
	}
	if o := l.shards[to].Keys; ends {
		all += l.loads[to].average()
	} else {
		all += l.loads[to].average() * share(stream.HashRange{Start: o.Start, End: s.Origin.End}, o)
	}
	return all > 0 && l.loads[i].average() >= aloneShare*all
}

// share gives what part of a range another one is.
func share(part, of stream.HashRange) float64 {
	width := func(r stream.HashRange) float64 {
		d := r.End.Sub(r.Start)
		return math.Ldexp(float64(d.Hi), 64) + float64(d.Lo)
	}
	return width(part) / max(width(of), 1)
}

// merges gives at most n pairs of neighbours that have been quiet for long
// enough, the narrowest first.
func (l *look) merges(n int) [][2]uint32 {
	if n <= 0 {
		return nil
	}
	var pairs []int // of i and i+1
	for i := range len(l.shards) - 1 {
		if l.quiet(i) && l.quiet(i+1) {
			pairs = append(pairs, i)
		}
	}
	together := func(i int) stream.HashKey { return l.shards[i+1].Keys.End.Sub(l.shards[i].Keys.Start) }
	slices.SortStableFunc(pairs, func(i, j int) int { return together(i).Compare(together(j)) })
	taken := make(map[int]bool)
	var merges [][2]uint32
	for _, i := range pairs {
		if len(merges) < n && !taken[i] && !taken[i+1] {
			taken[i], taken[i+1] = true, true
			merges = append(merges, [2]uint32{l.shards[i].Number, l.shards[i+1].Number})
		}
	}
	return merges
}

func (l *look) quiet(i int) bool {
	since := l.loads[i].quietMs
	return since != 0 && l.nowMs-since >= l.rules.Quiet.Milliseconds()
}
