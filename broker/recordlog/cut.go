package recordlog

import (
	"errors"
	"io/fs"
	"slices"
	"sort"

	"shardstream/stream"
)

// Cut removes everything from an offset on, durably on return. It is for
// followers whose log differs from the leader's; whether a cut is allowed is
// theirs to know (I7). The offset must be the end of a batch, or the start.
//
// Kinds: Invalid (not between Start and End, or inside of a batch), NotFound,
// Corrupt, Internal.
func (r *Replica) Cut(to stream.Offset) error {
	const where = "recordlog.Cut"
	l := r.log
	l.segMu.Lock()
	defer l.segMu.Unlock()
	last, err := r.lastBelow(to)
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	r.mu.Lock()
	switch {
	case r.dropped:
		err = stream.Errorf(stream.NotFound, where, "replica %s is dropped", r.key)
	case to < r.start || to > r.end:
		err = stream.Errorf(stream.Invalid, where, "%d is outside of the log [%d,%d)", to, r.start, r.end)
	case last == nil:
		err = stream.Errorf(stream.Invalid, where, "%d is not the end of a batch", to)
	}
	if err != nil || to == r.end {
		r.mu.Unlock()
		return err
	}
	// Under the lock, so that appends stand before or behind the cut in the
	// journal as they do in memory.
	err = l.journal.push(op{key: r.key, typ: entryCut, base: to, done: func(err error) {
		if err == nil {
			r.mu.Lock()
			r.lastCut = l.journal.frame
			r.mu.Unlock()
		}
		result <- err
	}})
	if err != nil {
		r.mu.Unlock()
		return err
	}
	removed, kept := r.cutLocked(to, last)
	r.mu.Unlock()
	if err := <-result; err != nil {
		return err
	}
	return l.mustNotFail(l.cutFiles(r.key, removed, kept))
}

// cutPoint is where a log can be cut: behind this batch.
type cutPoint struct {
	arrival int64 // of the last batch that stays; 0 if none does
	bytes   int64 // where it ends in its segment; 0 if it is in none
}

// lastBelow finds the batch that ends at the offset, nil if none does.
func (r *Replica) lastBelow(to stream.Offset) (*cutPoint, error) {
	r.mu.Lock()
	i := sort.Search(len(r.segs), func(i int) bool { return r.segs[i].end >= to })
	inSegment := i < len(r.segs) && r.segs[i].base < to
	var s segment
	if inSegment {
		s = r.segs[i]
	}
	point := &cutPoint{}
	n := sort.Search(len(r.tail), func(i int) bool { return r.tail[i].batch.End() >= to })
	hole := slices.ContainsFunc(r.holes, func(h stream.OffsetRange) bool { return h.End == to })
	found := to <= r.start || hole || i > 0 && r.segs[i-1].end == to
	if n < len(r.tail) && r.tail[n].batch.End() == to {
		point.arrival, found = r.tail[n].batch.Arrival(), true
	} else if n < len(r.tail) && r.tail[n].batch.Base() < to {
		found = false
	}
	r.mu.Unlock()
	if !inSegment {
		if !found {
			return nil, nil
		}
		return point, nil
	}
	if s.end == to {
		return &cutPoint{s.lastMs, s.bytes}, nil
	}
	f, err := r.log.cache.get(r.key, s)
	if err != nil {
		return nil, stream.Errorf(stream.Corrupt, "recordlog.Cut", "%w", err)
	}
	defer r.log.cache.release(f)
	sc := newScanner(f.file, r.key, s)
	sc.reuse = true
	f.seek(sc, to-1)
	for {
		step, err := sc.step()
		if err != nil {
			return nil, stream.Errorf(stream.Corrupt, "recordlog.Cut", "%w", err)
		}
		b := step.batch
		switch {
		case b == nil || b.Base() > to:
			return nil, nil
		case b.End() == to:
			return &cutPoint{b.Arrival(), step.pos + int64(len(b))}, nil
		case b.Base() == to:
			// A hole that was given up ends here.
			return &cutPoint{b.Arrival(), step.pos}, nil
		}
	}
}

// cutLocked cuts what memory knows. It gives the segments that are gone, and
// the one that has become shorter.
func (r *Replica) cutLocked(to stream.Offset, at *cutPoint) (removed []segment, kept *segment) {
	r.gen++
	r.end, r.durable, r.lastMs = to, min(r.durable, to), at.arrival
	if r.start == to {
		r.startMs = 0
	}
	n := sort.Search(len(r.tail), func(i int) bool { return r.tail[i].batch.End() > to })
	var bytes int64
	for i := n; i < len(r.tail); i++ {
		b := r.tail[i].batch
		bytes += int64(len(b))
		if b.Base() >= r.spilled {
			r.unspilled -= int64(len(b))
			r.log.unspilled.Add(-int64(len(b)))
		}
	}
	r.log.tailBytes.Add(-bytes)
	clear(r.tail[n:])
	r.tail = r.tail[:n:n]
	r.spilled = min(r.spilled, to)
	for len(r.epochs) > 0 && r.epochs[len(r.epochs)-1].First >= to {
		r.epochs = r.epochs[:len(r.epochs)-1]
	}
	r.holes, r.damage = cutRanges(r.holes, r.damage, to)
	r.segs = slices.Clone(r.segs)
	for n := len(r.segs); n > 0 && r.segs[n-1].base >= to; n-- {
		removed = append(removed, r.segs[n-1])
		r.segs = r.segs[:n-1]
		r.dirty, r.dirtyFile = false, 0
	}
	if n := len(r.segs); n > 0 && r.segs[n-1].end > to {
		s := &r.segs[n-1]
		s.end, s.bytes, s.lastMs, s.sealed = to, at.bytes, at.arrival, false
		if len(removed) > 0 || !r.dirty || r.synced.end >= to {
			r.synced, r.dirty, r.dirtyFile = *s, false, 0
		}
		copied := *s
		kept = &copied
	} else if len(removed) > 0 {
		r.synced = segment{}
		if n > 0 {
			r.synced = r.segs[n-1]
		}
	}
	return removed, kept
}

func cutRanges(holes []stream.OffsetRange, damage []Damage, to stream.Offset) ([]stream.OffsetRange, []Damage) {
	var keptHoles []stream.OffsetRange
	for _, h := range holes {
		if h.End = min(h.End, to); h.Start < h.End {
			keptHoles = append(keptHoles, h)
		}
	}
	var keptDamage []Damage
	for _, d := range damage {
		if d.Range.End = min(d.Range.End, to); d.Range.Start < d.Range.End {
			keptDamage = append(keptDamage, d)
		}
	}
	return keptHoles, keptDamage
}

// cutFiles does to the files what the journal says was cut. After a crash
// recovery does it again.
func (l *Log) cutFiles(key stream.ReplicaKey, removed []segment, kept *segment) error {
	for _, s := range removed {
		l.cache.forget(segID{key, s.base})
		if err := l.fs.Remove(l.segmentPath(key, s.base)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if kept == nil {
		return nil
	}
	l.cache.forget(segID{key, kept.base})
	f, err := l.fs.Open(l.segmentPath(key, kept.base), Write)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(kept.bytes), f.Close())
}
