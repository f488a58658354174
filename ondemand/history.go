package ondemand

import (
	"slices"
	"time"
)

// Peak is the most that a stream needed within a part of the window.
type Peak struct {
	FromMs int64   // when the part begins, Unix ms
	Demand float64 // bytes per second
	Shards int     // that its demand was spread over
}

// History is what is known of the load of one stream. It holds a fixed amount
// for each of its shards.
type History struct {
	peaks  []Peak // by time, one for a part
	shards map[uint32]*load
}

// NewHistory begins a history with the peaks of a former one.
func NewHistory(peaks []Peak) *History {
	return &History{peaks: slices.Clone(peaks), shards: make(map[uint32]*load)}
}

// Written is what a shard got in a time.
type Written struct {
	Bytes, Records uint64
	Over           time.Duration
}

func (w Written) demand() float64 {
	return max(float64(w.Bytes), recordBytes*float64(w.Records)) / w.Over.Seconds()
}

// load is the history of one shard.
type load struct {
	now    Written            // of the interval under way
	recent [sustained]float64 // demand of the last intervals
	n      int                // intervals so far; the newest is at (n-1) % sustained
	atMs   int64              // when the newest ended

	quietMs int64 // since when each interval was quiet; 0: the newest was not
}

// Measure adds what a shard got.
func (h *History) Measure(r Rules, shard uint32, w Written, nowMs int64) {
	l := h.shards[shard]
	if l == nil {
		l = &load{}
		h.shards[shard] = l
	}
	l.now.Bytes, l.now.Records, l.now.Over = l.now.Bytes+w.Bytes, l.now.Records+w.Records, l.now.Over+w.Over
	if l.now.Over < r.Interval {
		return
	}
	demand := l.now.demand()
	l.recent[l.n%sustained], l.atMs = demand, nowMs
	l.n++
	switch {
	case demand > float64(r.SplitRate)/4:
		l.quietMs = 0
	case l.quietMs == 0:
		l.quietMs = nowMs - l.now.Over.Milliseconds()
	}
	l.now = Written{}
}

// newest gives the demand of the last interval.
func (l *load) newest() float64 { return l.recent[(l.n+sustained-1)%sustained] }

// average gives the demand of the last intervals, as far as there are some.
func (l *load) average() float64 {
	sum := 0.0
	for _, d := range l.recent {
		sum += d
	}
	return sum / float64(min(l.n, sustained))
}

// measured tells that the shards were all measured lately. It forgets all others.
func (h *History) measured(r Rules, shards []Shard, nowMs int64) bool {
	keep := make(map[uint32]*load, len(shards))
	all := true
	for _, s := range shards {
		l := h.shards[s.Number]
		if l != nil {
			keep[s.Number] = l
		}
		all = all && l != nil && l.n > 0 && nowMs-l.atMs <= stale*r.Interval.Milliseconds()
	}
	h.shards = keep
	return all
}

// notePeak raises the peak of the present part, and forgets those that are past
// the window.
func (h *History) notePeak(r Rules, demand float64, shards int, nowMs int64) {
	part := r.part().Milliseconds()
	from := nowMs - nowMs%part
	h.peaks = slices.DeleteFunc(h.peaks, func(p Peak) bool { return p.FromMs < r.forgetBefore(nowMs) })
	i, found := slices.BinarySearchFunc(h.peaks, from, func(p Peak, from int64) int { return int(min(1, max(-1, p.FromMs-from))) })
	if !found {
		h.peaks = slices.Insert(h.peaks, i, Peak{FromMs: from})
	}
	p := &h.peaks[i]
	p.Demand, p.Shards = max(p.Demand, demand), max(p.Shards, shards)
}

// forgetBefore gives from when on the beginnings of parts reach into the window.
func (r Rules) forgetBefore(nowMs int64) int64 {
	return nowMs - (r.PeakWindow + r.part()).Milliseconds()
}

// peak gives the most that the stream needed within the window.
func (h *History) peak() (p Peak) {
	for _, o := range h.peaks {
		p.Demand, p.Shards = max(p.Demand, o.Demand), max(p.Shards, o.Shards)
	}
	return p
}

// Note gives the newest peak if whoever decides next should know of it: because
// it asks for more shards than the newest that is noted, or is of a later part.
// Peaks that begin before forgetMs are of no use any more.
func (h *History) Note(r Rules, noted Peak, nowMs int64) (p Peak, forgetMs int64, due bool) {
	if len(h.peaks) == 0 {
		return p, 0, false
	}
	p = h.peaks[len(h.peaks)-1]
	due = p.Demand > 0 && (p.FromMs != noted.FromMs || p.Shards > noted.Shards || r.shardsFor(p.Demand) > r.shardsFor(noted.Demand))
	return p, r.forgetBefore(nowMs), due
}
