package judge

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
)

// The checks, by their words in Violation.
const (
	Lost       = "lost"        // acknowledged, and not there at its place
	Invented   = "invented"    // there, and never put, or under another key, or refused
	Duplicated = "duplicated"  // put once, there more often
	Unordered  = "order"       // sequence numbers or arrival times of a shard fall
	Divergent  = "divergent"   // two readers saw something else at one place, or a reader skipped something
	Unreal     = "real time"   // a later put stands before an earlier one, or was read before it was put
	KeyOrder   = "key order"   // of one key, a later put stands before an earlier one, across reshards
	Stale      = "stale"       // a reader that began later missed what was acknowledged before
	Incomplete = "incomplete"  // the run has no final reading of a shard: nothing can be said
	ParentLast = "parent last" // a child took records before its parent's end
)

// maxPerCheck bounds the violations reported of one kind; the count is exact.
const maxPerCheck = 20

// Check gives what a run broke: at most 20 violations of a kind, and how many
// there were of each.
func (h *History) Check() (found []Violation, counts map[string]int) {
	c := &checker{h: h, counts: make(map[string]int)}
	c.index()
	c.finals()
	c.puts()
	c.readings()
	c.realTime()
	c.keyOrder()
	c.generations()
	return c.found, c.counts
}

type checker struct {
	h      *History
	found  []Violation
	counts map[string]int

	byValue map[string]*Put
	logs    map[string][]Record      // final log by shard
	at      map[Place]int            // index in the log
	places  map[string][]Place       // by value
	depth   map[string]int           // of a shard: longest way to a shard without parents
	acked   map[string][]ackedRecord // by shard, by time of acknowledgement
}

type ackedRecord struct {
	put   *Put
	index int // in the shard's log
	upTo  int // highest index of all acknowledged before it and itself
}

func (c *checker) bad(check, format string, args ...any) {
	c.counts[check]++
	if c.counts[check] <= maxPerCheck {
		c.found = append(c.found, Violation{check, fmt.Sprintf(format, args...)})
	}
}

func (c *checker) index() {
	c.byValue = make(map[string]*Put, len(c.h.Puts))
	for i := range c.h.Puts {
		p := &c.h.Puts[i]
		if c.byValue[p.Value] != nil {
			c.bad(Incomplete, "%q was put twice by the application: the history is no good", p.Value)
		}
		c.byValue[p.Value] = p
	}
	c.depth = make(map[string]int)
	parents := make(map[string][]string)
	for _, s := range c.h.Shards {
		parents[s.ID] = s.Parents
	}
	var depth func(string, int) int
	depth = func(shard string, guard int) int {
		if d, ok := c.depth[shard]; ok || guard > len(parents) {
			return d
		}
		d := 0
		for _, p := range parents[shard] {
			d = max(d, depth(p, guard+1)+1)
		}
		c.depth[shard] = d
		return d
	}
	for _, s := range c.h.Shards {
		depth(s.ID, 0)
	}
}

// finals takes the final readings for the truth, after looking whether they can
// be: rising, and nothing that was never put.
func (c *checker) finals() {
	c.logs = make(map[string][]Record)
	c.at = make(map[Place]int)
	c.places = make(map[string][]Place)
	for _, r := range c.h.Readings {
		if !r.Final {
			continue
		}
		if _, twice := c.logs[r.Shard]; twice {
			c.bad(Incomplete, "%s has two final readings", r.Shard)
			continue
		}
		c.logs[r.Shard] = r.Records
		for i, rec := range r.Records {
			place := Place{r.Shard, rec.Sequence}
			c.at[place] = i
			c.places[rec.Value] = append(c.places[rec.Value], place)
			if i == 0 {
				continue
			}
			before := r.Records[i-1]
			if !Less(before.Sequence, rec.Sequence) {
				c.bad(Unordered, "%s: %s is read after %s", r.Shard, rec.Sequence, before.Sequence)
			}
			if rec.ArrivalMs < before.ArrivalMs {
				c.bad(Unordered, "%s: %s arrived at %d, after one of %d", r.Shard, rec.Sequence, rec.ArrivalMs, before.ArrivalMs)
			}
		}
	}
	for _, s := range c.h.Shards {
		if _, ok := c.logs[s.ID]; !ok {
			c.bad(Incomplete, "%s has no final reading", s.ID)
		}
	}
	for value, places := range c.places {
		p := c.byValue[value]
		switch {
		case p == nil:
			c.bad(Invented, "%q at %v was never put", value, places)
			continue
		case p.Outcome == Refused:
			c.bad(Invented, "%q at %v had been refused", value, places)
		}
		if len(places) > 1 {
			c.bad(Duplicated, "%q was put once and is there %d times: %v", value, len(places), places)
		}
		for _, place := range places {
			if key := c.logs[place.Shard][c.at[place]].Key; key != p.Key {
				c.bad(Invented, "%q was put under key %q and is there under %q", value, p.Key, key)
			}
		}
	}
}

// puts looks for what was acknowledged, and gathers it by shard.
func (c *checker) puts() {
	c.acked = make(map[string][]ackedRecord)
	for i := range c.h.Puts {
		p := &c.h.Puts[i]
		if p.Outcome != Acknowledged {
			continue
		}
		i, ok := c.at[p.Place]
		if !ok || c.logs[p.Place.Shard][i].Value != p.Value {
			there := "nothing"
			if ok {
				there = fmt.Sprintf("%q", c.logs[p.Place.Shard][i].Value)
			}
			c.bad(Lost, "%q was acknowledged at %v, where %s is; it is at %v", p.Value, p.Place, there, c.places[p.Value])
			continue
		}
		c.acked[p.Place.Shard] = append(c.acked[p.Place.Shard], ackedRecord{put: p, index: i})
	}
	for _, list := range c.acked {
		slices.SortFunc(list, func(a, b ackedRecord) int { return cmp.Compare(a.put.Returned, b.put.Returned) })
		upTo := -1
		for i := range list {
			upTo = max(upTo, list[i].index)
			list[i].upTo = upTo
		}
	}
}

// ackedBefore gives the highest index of what was acknowledged in a shard before
// a moment, -1 if nothing was.
func (c *checker) ackedBefore(shard string, at Time) int {
	list := c.acked[shard]
	i := sort.Search(len(list), func(i int) bool { return list[i].put.Returned >= at })
	if i == 0 {
		return -1
	}
	return list[i-1].upTo
}

// readings holds each against the truth: it is one gapless piece of the final
// log, begins where it was asked to, and reaches what had been acknowledged.
func (c *checker) readings() {
	for _, r := range c.h.Readings {
		log, ok := c.logs[r.Shard]
		if !ok {
			c.bad(Incomplete, "%s read %s, which is not known at the end", r.Reader, r.Shard)
			continue
		}
		name := fmt.Sprintf("%s in %s", r.Reader, r.Shard)
		next := c.begin(r, log, name)
		for _, rec := range r.Records {
			if p := c.byValue[rec.Value]; p != nil && rec.At < p.Called {
				c.bad(Unreal, "%s: %q was read before it was put", name, rec.Value)
			}
			i, there := c.at[Place{r.Shard, rec.Sequence}]
			switch {
			case !there:
				c.bad(Divergent, "%s: %q at %s is not there at the end", name, rec.Value, rec.Sequence)
				continue
			case log[i].Value != rec.Value || log[i].Key != rec.Key || log[i].ArrivalMs != rec.ArrivalMs:
				c.bad(Divergent, "%s: at %s it got %q, and at the end there is %q", name, rec.Sequence, rec.Value, log[i].Value)
			}
			if next >= 0 && i != next {
				c.bad(Divergent, "%s: record %d (%s) came where %d was due", name, i, rec.Sequence, next)
			}
			next = i + 1
		}
		if r.CaughtUp > 0 && next >= 0 {
			if must := c.ackedBefore(r.Shard, r.CaughtUp); next <= must {
				c.bad(Stale, "%s: caught up at %s with record %d, but record %d had been acknowledged", name, r.CaughtUp, next-1, must)
			}
		}
	}
}

// begin gives the index at which a reading must begin, -1 if that can't be said.
func (c *checker) begin(r Reading, log []Record, name string) int {
	behind := func(is func(Record) bool) int { return sort.Search(len(log), func(i int) bool { return is(log[i]) }) }
	switch r.From {
	case TrimHorizon:
		return 0
	case AtSequence:
		return behind(func(rec Record) bool { return !Less(rec.Sequence, r.Sequence) })
	case AfterSequence:
		return behind(func(rec Record) bool { return Less(r.Sequence, rec.Sequence) })
	case AtTimestamp:
		return behind(func(rec Record) bool { return rec.ArrivalMs >= r.TimestampMs })
	}
	// LATEST is behind all that was acknowledged before it was asked for.
	if len(r.Records) > 0 {
		first, there := c.at[Place{r.Shard, r.Records[0].Sequence}]
		if must := c.ackedBefore(r.Shard, r.Started); there && first <= must {
			c.bad(Stale, "%s: LATEST began with record %d, though record %d had been acknowledged", name, first, must)
		}
	}
	return -1
}

// realTime: of two acknowledged puts in a shard that did not overlap, the later
// one has the higher number.
func (c *checker) realTime() {
	for shard, list := range c.acked {
		byCall := slices.Clone(list)
		slices.SortFunc(byCall, func(a, b ackedRecord) int { return cmp.Compare(a.put.Called, b.put.Called) })
		for _, a := range byCall {
			if must := c.ackedBefore(shard, a.put.Called); a.index <= must {
				c.bad(Unreal, "%s: %q has number %d, though %d was acknowledged before it was put", shard, a.put.Value, a.index, must)
			}
		}
	}
}

// keyOrder: a put that began when another of its key had been acknowledged comes
// behind it, whichever shards the two are in.
func (c *checker) keyOrder() {
	byKey := make(map[string][]*Put)
	for i := range c.h.Puts {
		byKey[c.h.Puts[i].Key] = append(byKey[c.h.Puts[i].Key], &c.h.Puts[i])
	}
	for key, puts := range byKey {
		slices.SortFunc(puts, func(a, b *Put) int { return cmp.Compare(a.Called, b.Called) })
		ended := slices.Clone(puts)
		slices.SortFunc(ended, func(a, b *Put) int { return cmp.Compare(a.Returned, b.Returned) })
		var last *Put // of those that had been acknowledged, the one furthest behind
		next := 0
		for _, p := range puts {
			for ; next < len(ended) && ended[next].Returned < p.Called; next++ {
				if q := ended[next]; q.Outcome == Acknowledged && (last == nil || c.before(last.Place, q.Place)) {
					last = q
				}
			}
			for _, place := range c.places[p.Value] {
				if last != nil && last != p && c.before(place, last.Place) {
					c.bad(KeyOrder, "key %q: %q at %v is before %q at %v, which was acknowledged before", key, p.Value, place, last.Value, last.Place)
				}
			}
		}
	}
}

// before orders places of one key: its shards are a line of descent.
func (c *checker) before(a, b Place) bool {
	if a.Shard != b.Shard {
		return c.depth[a.Shard] < c.depth[b.Shard]
	}
	return Less(a.Sequence, b.Sequence)
}

// generations: a child takes nothing before its parents' end.
func (c *checker) generations() {
	for _, s := range c.h.Shards {
		log := c.logs[s.ID]
		if len(log) == 0 {
			continue
		}
		for _, p := range s.Parents {
			if parent := c.logs[p]; len(parent) > 0 && parent[len(parent)-1].ArrivalMs > log[0].ArrivalMs {
				c.bad(ParentLast, "%s took a record at %d, its parent %s one at %d", s.ID, log[0].ArrivalMs, p, parent[len(parent)-1].ArrivalMs)
			}
		}
	}
}
