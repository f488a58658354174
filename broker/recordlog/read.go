package recordlog

import (
	"errors"
	"io/fs"
	"sort"

	"shardstream/stream"
)

// Read gives whole batches that end at or below limit. The first holds from,
// or begins behind it if what lies there was trimmed or given up. At least one
// batch is given if there is any; more only as far as they fit maxBytes.
// Batches must not be changed. Each is verified on its way from the disk (I14).
//
// Kinds: Corrupt when the batch that holds from is damaged (the damage is then
// recorded), NotFound when the replica is dropped, Internal.
func (r *Replica) Read(from, limit stream.Offset, maxBytes int) ([]stream.Batch, error) {
	for {
		r.mu.Lock()
		if r.dropped {
			r.mu.Unlock()
			return nil, stream.Errorf(stream.NotFound, "recordlog.Read", "replica %s is dropped", r.key)
		}
		from, limit = max(from, r.start), min(limit, r.end)
		from = r.skipHolesLocked(from)
		if d := r.damageAtLocked(from); d != nil && from < limit {
			r.mu.Unlock()
			return nil, d.err()
		}
		for i := range r.damage {
			if s := r.damage[i].Range.Start; s > from {
				limit = min(limit, s)
			}
		}
		if from >= limit {
			r.mu.Unlock()
			return nil, nil
		}
		if len(r.tail) > 0 && (from >= r.tail[0].batch.Base() || from >= r.spilled) {
			batches := r.readTailLocked(from, limit, maxBytes)
			r.mu.Unlock()
			return batches, nil
		}
		s, ok := r.segmentAtLocked(from)
		gen, cut := r.gen, r.before != nil
		r.mu.Unlock()
		if cut {
			if err := r.resolve(); err != nil {
				return nil, stream.Errorf(stream.Corrupt, "recordlog.Read", "%w", err)
			}
			continue
		}
		if !ok {
			return nil, nil
		}
		batches, damage, err := r.log.readSegment(r.key, s, max(from, s.base), limit, maxBytes)
		if err == nil && len(damage) == 0 {
			return batches, nil
		}
		if !r.unchanged(gen, s) {
			continue // it was cut or trimmed under our eyes
		}
		if err != nil {
			return nil, err
		}
		r.log.foundDamage(r, damage)
		if at := (stream.OffsetRange{Start: from, End: from + 1}); len(batches) > 0 || !known(at, damage, nil) {
			return batches, nil
		}
		// The next turn says what there is to say of the damage, or skips it
		// if it was given up before.
	}
}

// unchanged reports whether the segment is still a part of the replica.
func (r *Replica) unchanged(gen uint32, s segment) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped || r.gen != gen {
		return false
	}
	_, found := sort.Find(len(r.segs), func(i int) int { return compare(s.base, r.segs[i].base) })
	return found
}

func compare(a, b stream.Offset) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (r *Replica) readTailLocked(from, limit stream.Offset, maxBytes int) (batches []stream.Batch) {
	i := r.tailAt(from)
	n, size := i, 0
	for n < len(r.tail) && r.tail[n].batch.End() <= limit {
		size += len(r.tail[n].batch)
		if n > i && size > maxBytes {
			break
		}
		n++
	}
	if n == i {
		return nil
	}
	batches = make([]stream.Batch, 0, n-i)
	for ; i < n; i++ {
		batches = append(batches, r.tail[i].batch)
	}
	return batches
}

// segmentAtLocked gives the segment that holds the offset or the next one behind it.
func (r *Replica) segmentAtLocked(o stream.Offset) (segment, bool) {
	i := sort.Search(len(r.segs), func(i int) bool { return r.segs[i].end > o })
	if i == len(r.segs) {
		return segment{}, false
	}
	return r.segs[i], true
}

func (r *Replica) skipHolesLocked(o stream.Offset) stream.Offset {
	for _, h := range r.holes {
		if h.Start <= o && o < h.End {
			o = h.End
		}
	}
	return o
}

// readSegment reads from one segment. Damage is what was met on the way to
// from and at it; what lies behind good batches is left to the next read.
func (l *Log) readSegment(key stream.ReplicaKey, s segment, from, limit stream.Offset, maxBytes int) (batches []stream.Batch, damage []Damage, err error) {
	f, err := l.cache.get(key, s)
	if err != nil {
		return nil, l.openDamage(key, s, err), ignoreMissing(err)
	}
	defer l.cache.release(f)
	sc := newScanner(f.file, key, s)
	sc.chunk = min(max(maxBytes, 32<<10), 1<<20) + indexEvery
	f.seek(sc, from)
	size := 0
	for {
		step, err := sc.step()
		if err != nil {
			if len(batches) > 0 {
				return batches, nil, nil
			}
			return nil, []Damage{l.damageIn(key, s, stream.OffsetRange{Start: sc.next, End: s.end}, sc.pos, err.Error())}, nil
		}
		if step.lost.Start < step.lost.End {
			if len(batches) > 0 {
				return batches, nil, nil
			}
			d := l.damageIn(key, s, step.lost, step.pos, step.reason)
			if step.batch != nil {
				d.BeforeMs = step.batch.Arrival()
			}
			damage = append(damage, d)
			if step.lost.Start <= from && from < step.lost.End {
				return nil, damage, nil
			}
		}
		b := step.batch
		if b == nil || b.End() > limit {
			return batches, damage, nil
		}
		if b.End() <= from {
			continue
		}
		if size += len(b); size > maxBytes && len(batches) > 0 {
			return batches, damage, nil
		}
		batches = append(batches, b)
		l.counters.segmentReadBytes.Add(int64(len(b)))
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return stream.Errorf(stream.Internal, "recordlog.Read", "%w", err)
}

// FindTime gives the first visible offset that arrived at or after ms (Unix
// ms), or End if there is none. Errors as of Read.
func (r *Replica) FindTime(ms int64) (stream.Offset, error) {
	o, _, err := r.findTime(ms)
	return o, err
}

// findTime also gives the arrival of the batch found, 0 if there is none.
// Arrival times never decrease in a shard (I20), so that one can search by them.
func (r *Replica) findTime(ms int64) (stream.Offset, int64, error) {
	for {
		r.mu.Lock()
		if r.dropped {
			r.mu.Unlock()
			return 0, 0, stream.Errorf(stream.NotFound, "recordlog.FindTime", "replica %s is dropped", r.key)
		}
		if r.before != nil {
			r.mu.Unlock()
			if err := r.resolve(); err != nil {
				return 0, 0, stream.Errorf(stream.Corrupt, "recordlog.FindTime", "%w", err)
			}
			continue
		}
		i := sort.Search(len(r.segs), func(i int) bool { return r.segs[i].lastMs >= ms && r.segs[i].end > r.start })
		if i == len(r.segs) || len(r.tail) > 0 && r.tail[0].batch.Base() <= r.start {
			j := sort.Search(len(r.tail), func(j int) bool {
				b := r.tail[j].batch
				return b.Arrival() >= ms && b.End() > r.start
			})
			o, at := r.end, int64(0)
			if j < len(r.tail) {
				o, at = max(r.start, r.tail[j].batch.Base()), r.tail[j].batch.Arrival()
			}
			r.mu.Unlock()
			return o, at, nil
		}
		s, start, gen := r.segs[i], r.start, r.gen
		damage := append([]Damage(nil), r.damage...)
		holes := append([]stream.OffsetRange(nil), r.holes...)
		r.mu.Unlock()
		o, at, lost, err := r.log.findInSegment(r.key, s, ms, start)
		if !r.unchanged(gen, s) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		for _, d := range lost {
			if !known(d.Range, damage, holes) {
				r.log.foundDamage(r, []Damage{d})
			}
		}
		return o, at, nil
	}
}

func known(lost stream.OffsetRange, damage []Damage, holes []stream.OffsetRange) bool {
	for _, d := range damage {
		holes = append(holes, d.Range)
	}
	for _, h := range holes {
		if h.Start <= lost.Start && lost.End <= h.End {
			return true
		}
	}
	return false
}

// findInSegment looks for the first batch at or after the time. Damage before
// it stays damage, and the search goes on behind it.
func (l *Log) findInSegment(key stream.ReplicaKey, s segment, ms int64, start stream.Offset) (o stream.Offset, at int64, lost []Damage, err error) {
	f, err := l.cache.get(key, s)
	if err != nil {
		return s.end, 0, l.openDamage(key, s, err), ignoreMissing(err)
	}
	defer l.cache.release(f)
	sc := newScanner(f.file, key, s)
	sc.chunk, sc.reuse = indexEvery, true
	f.seekTime(sc, ms)
	if sc.next < start {
		f.seek(sc, start)
	}
	for {
		step, err := sc.step()
		if err != nil {
			d := l.damageIn(key, s, stream.OffsetRange{Start: sc.next, End: s.end}, sc.pos, err.Error())
			return s.end, 0, append(lost, d), nil
		}
		if step.lost.Start < step.lost.End {
			lost = append(lost, l.damageIn(key, s, step.lost, step.pos, step.reason))
		}
		b := step.batch
		if b == nil {
			return s.end, 0, lost, nil
		}
		if b.Arrival() >= ms && b.End() > start {
			return max(b.Base(), start), b.Arrival(), lost, nil
		}
	}
}
