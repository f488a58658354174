package recordlog

import (
	"sort"

	"shardstream/stream"
)

// TrimBefore moves the visible start to the first batch that arrived at or
// after ms (Unix ms), at most to limit, and gives it. Only durable batches are
// trimmed. The new start becomes durable with the next checkpoint or deletion; until then a
// crash may bring trimmed batches back, which the next call trims again.
func (r *Replica) TrimBefore(ms int64, limit stream.Offset) stream.Offset {
	r.mu.Lock()
	start := r.start
	if start >= min(r.durable, limit) || r.startMs >= ms {
		r.mu.Unlock()
		return start
	}
	r.mu.Unlock()
	o, arrival, err := r.findTime(ms)
	if err != nil {
		return r.Start() // the log has failed, or the replica is dropped
	}
	if o > limit {
		o, arrival = limit, 0
	}
	r.trim(o, arrival)
	return r.Start()
}

// TrimTo moves the visible start up to an offset, at most to the durable end.
// What TrimBefore says of durability holds here too.
func (r *Replica) TrimTo(o stream.Offset) { r.trim(o, 0) }

// trim moves the start to an offset whose batch has that arrival time, 0 if it
// is not known.
func (r *Replica) trim(o stream.Offset, arrival int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o > r.durable {
		o, arrival = r.durable, 0
	}
	if o <= r.start || r.dropped {
		return
	}
	r.start, r.startMs = o, arrival
	n := sort.Search(len(r.tail), func(i int) bool { return r.tail[i].batch.End() > o })
	if n > 0 {
		last := r.tail[n-1].batch.End()
		r.dropTailLocked(n)
		r.spilled = max(r.spilled, last)
	}
	for len(r.holes) > 0 && r.holes[0].End <= o {
		r.holes = r.holes[1:]
	}
	damage := r.damage[:0:0]
	for _, d := range r.damage {
		if d.Range.End > o {
			damage = append(damage, d)
		}
	}
	r.damage = damage
	for len(r.epochs) > 1 && r.epochs[1].First <= o {
		r.epochs = r.epochs[1:]
	}
	if len(r.segs) > 0 && r.segs[0].end <= o {
		r.log.queueTrim(r)
	}
}
