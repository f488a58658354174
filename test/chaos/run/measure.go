package run

import (
	"cmp"
	"slices"
	"time"

	"shardstream/test/chaos/judge"
)

// measure takes times from a history: how long a shard took no writes, how soon
// after a fault each shard took one again, and what every second was like.
func (r *Result) measure(h *judge.History) {
	acks := make(map[string][]judge.Put) // by shard, by return
	var last judge.Time
	for _, p := range h.Puts {
		last = max(last, p.Returned)
		if p.Outcome == judge.Acknowledged {
			acks[p.Place.Shard] = append(acks[p.Place.Shard], p)
		}
	}
	for _, list := range acks {
		slices.SortFunc(list, func(a, b judge.Put) int { return cmp.Compare(a.Returned, b.Returned) })
		for i := 1; i < len(list); i++ {
			r.LongestGap = max(r.LongestGap, list[i].Returned-list[i-1].Returned)
		}
	}
	for _, e := range r.Events {
		for _, shard := range e.Led {
			list := acks[shard]
			i, _ := slices.BinarySearchFunc(list, e.At, func(p judge.Put, at judge.Time) int { return cmp.Compare(p.Returned, at) })
			if i == 0 || i == len(list) {
				continue // the shard was not there before, or not any more
			}
			// The first put that was acknowledged after the fault; one that was under
			// way had the time since then to wait.
			r.Failovers = append(r.Failovers, list[i].Returned-e.At)
		}
	}
	r.Timeline = timeline(h, last)
}

func timeline(h *judge.History, last judge.Time) []Second {
	seconds := make([]Second, int(last/time.Second)+1)
	took := make([][]time.Duration, len(seconds))
	for _, p := range h.Puts {
		i := int(p.Returned / time.Second)
		switch p.Outcome {
		case judge.Acknowledged:
			seconds[i].Acknowledged++
		case judge.Unknown:
			seconds[i].Unknown++
		}
		took[i] = append(took[i], p.Returned-p.Called)
	}
	for i, t := range took {
		if len(t) > 0 {
			slices.Sort(t)
			seconds[i].Median, seconds[i].Longest = t[len(t)/2], t[len(t)-1]
		}
	}
	return seconds
}

// Percentile gives the q-quantile of durations, 0 of none.
func Percentile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Sorted(slices.Values(d))
	return d[min(len(d)-1, int(q*float64(len(d))))]
}
