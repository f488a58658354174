package recordlog

import (
	"errors"
	"io/fs"
	"slices"
	"sort"

	"shardstream/stream"
)

// A cut removes everything from an offset on. It happens in memory and in the
// journal at once, so that appends can follow it without waiting; the files
// follow later, before anything else is written to them (settleFiles). If the
// cut goes into a segment whose batches are not in memory, where it ends in the
// file has to be looked up first (resolve); until then a checkpoint describes
// the replica as it was before the cut, and keeps the journal file with the cut.

// doomed is a segment that a cut has removed.
type doomed struct {
	base stream.Offset
	gen  uint32 // of the cut: the file goes when that is durable
}

// CutAsync removes everything from an offset on. End is there at once, and
// appends may follow; done, like that of Append, is called when the cut is
// durable. It is for followers whose log differs from the leader's; whether a
// cut is allowed is theirs to know (I7). The offset must be the end of a batch,
// or the start; if it is neither, and that can be told only from the disk, the
// part of the batch before it will be found to be damaged.
//
// Kinds: Invalid (not between Start and End, or inside of a batch), NotFound
// (dropped), Unavailable, Internal.
func (r *Replica) CutAsync(to stream.Offset, done func(error)) error {
	const where = "recordlog.Cut"
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped {
		return stream.Errorf(stream.NotFound, where, "replica %s is dropped", r.key)
	}
	if to < r.start || to > r.end {
		return stream.Errorf(stream.Invalid, where, "%d is outside of the log [%d,%d)", to, r.start, r.end)
	}
	if to == r.end {
		_, err := r.log.journal.push(op{done: done})
		return err
	}
	at, ok := r.cutPointLocked(to)
	if !ok {
		return stream.Errorf(stream.Invalid, where, "%d is not the end of a batch", to)
	}
	before := r.before
	if at.inFile && before == nil {
		m := r.metaLocked()
		before = &m
	}
	// Under the lock, so that appends stand before or behind the cut in the
	// journal as they do in memory.
	file, err := r.log.journal.push(r.cutOpLocked(entryCut, to, done))
	if err != nil {
		return err
	}
	if at.inFile && r.before == nil {
		r.before, r.cutFile = before, file
	}
	r.cutLocked(to, at)
	return nil
}

// Restart drops everything, and the log begins empty at an offset: for a
// follower that ends below the leader's log start. Start, End and DurableEnd
// are there at once; done, like that of Append, is called when that is durable.
//
// Kinds: NotFound (dropped), Unavailable, Internal.
func (r *Replica) Restart(at stream.Offset, done func(error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped {
		return stream.Errorf(stream.NotFound, "recordlog.Restart", "replica %s is dropped", r.key)
	}
	if _, err := r.log.journal.push(r.cutOpLocked(entryRestart, at, done)); err != nil {
		return err
	}
	r.gen++
	r.dropTailLocked(len(r.tail))
	r.doomLocked(r.segs)
	r.segs, r.dirty, r.dirtyFile, r.synced, r.long, r.before = nil, false, 0, segment{}, 0, nil
	r.start, r.end, r.durable, r.spilled, r.logged, r.hw = at, at, at, at, at, at
	r.startMs, r.lastMs, r.looseMs = 0, 0, false
	r.epochs, r.holes, r.damage = nil, nil, nil
	return nil
}

// cutOpLocked makes the journal's op of a cut or restart that is about to happen.
func (r *Replica) cutOpLocked(typ entryType, to stream.Offset, done func(error)) op {
	gen := r.gen + 1
	return op{key: r.key, typ: typ, base: to, done: func(err error) {
		if err == nil {
			r.cutLanded(gen, to)
		}
		done(err)
	}}
}

// cutLanded notes, in the journal's goroutine, that a cut is durable, and with
// it all that was pushed before it.
func (r *Replica) cutLanded(gen uint32, to stream.Offset) {
	r.mu.Lock()
	r.landgen, r.lastCut = gen, r.log.journal.frame
	if r.gen == gen {
		r.durable = max(r.durable, to)
	}
	queue := len(r.doomed) > 0 || r.long != 0 || r.before != nil
	r.mu.Unlock()
	if queue {
		l := r.log
		l.queueMu.Lock()
		l.cutQueue = append(l.cutQueue, r)
		l.queueMu.Unlock()
		l.kickFlusher()
	}
}

// Cut removes everything from an offset on, durably on return, and fails if
// that is inside of a batch. Kinds: as of CutAsync, and Corrupt.
func (r *Replica) Cut(to stream.Offset) error {
	r.mu.Lock()
	at, ok := cutPoint{}, true
	if to > r.start && to < r.end {
		at, ok = r.cutPointLocked(to)
	}
	r.mu.Unlock()
	if ok && at.inFile {
		end, err := r.log.endInFile(r.key, at.in, to)
		if err != nil {
			return stream.Errorf(stream.Corrupt, "recordlog.Cut", "%w", err)
		}
		ok = end.exact
	}
	if !ok {
		return stream.Errorf(stream.Invalid, "recordlog.Cut", "%d is not the end of a batch", to)
	}
	result := make(chan error, 1)
	if err := r.CutAsync(to, func(err error) { result <- err }); err != nil {
		return err
	}
	return <-result
}

// cutPoint is where a log can be cut.
type cutPoint struct {
	arrival int64   // of the last batch that stays; 0 if none does
	bytes   int64   // where it ends in its segment, if it is in one
	loose   bool    // arrival is not known
	inFile  bool    // bytes is not known: the cut goes into this segment
	in      segment // of which memory has no batch there
}

// cutPointLocked finds the batch that ends at the offset, false if none does.
func (r *Replica) cutPointLocked(to stream.Offset) (at cutPoint, ok bool) {
	n := sort.Search(len(r.tail), func(i int) bool { return r.tail[i].batch.End() >= to })
	inTail := n < len(r.tail) && r.tail[n].batch.Base() < to
	if inTail {
		t := &r.tail[n]
		if t.batch.End() != to {
			return at, false
		}
		at.arrival = t.batch.Arrival()
		if t.pos > 0 {
			at.bytes = t.pos + int64(len(t.batch))
		}
	}
	i := sort.Search(len(r.segs), func(i int) bool { return r.segs[i].end >= to })
	switch {
	case i < len(r.segs) && r.segs[i].base < to:
		s := r.segs[i]
		if s.end == to && (r.before == nil || i < len(r.segs)-1) {
			return cutPoint{arrival: s.lastMs, bytes: s.bytes}, true
		}
		if at.bytes == 0 {
			at.loose, at.inFile, at.in = !inTail, true, s
		}
		return at, true
	case inTail:
		return at, true
	}
	hole := slices.ContainsFunc(r.holes, func(h stream.OffsetRange) bool { return h.End == to })
	return at, to <= r.start || hole || i > 0 && r.segs[i-1].end == to
}

// cutLocked cuts what memory knows.
func (r *Replica) cutLocked(to stream.Offset, at cutPoint) {
	r.gen++
	r.end, r.durable, r.hw = to, min(r.durable, to), min(r.hw, to)
	if r.looseMs = at.loose; !r.looseMs {
		r.lastMs = at.arrival
	}
	if r.start == to {
		r.startMs = 0
	}
	n := sort.Search(len(r.tail), func(i int) bool { return r.tail[i].batch.End() > to })
	r.cutTailLocked(n)
	r.spilled = min(r.spilled, to)
	for len(r.epochs) > 0 && r.epochs[len(r.epochs)-1].First >= to {
		r.epochs = r.epochs[:len(r.epochs)-1]
	}
	r.holes, r.damage = cutRanges(r.holes, r.damage, to)
	r.segs = slices.Clone(r.segs)
	last := len(r.segs)
	for last > 0 && r.segs[last-1].base >= to {
		last--
	}
	removed := r.segs[last:]
	r.doomLocked(removed)
	if r.segs = r.segs[:last]; len(removed) > 0 {
		r.dirty, r.dirtyFile, r.long, r.synced = false, 0, 0, segment{}
		if last > 0 {
			r.synced = r.segs[last-1]
		}
		if !at.inFile {
			r.before = nil // what was to be looked up is gone
		}
	}
	if last == 0 || r.segs[last-1].end <= to {
		return
	}
	s := &r.segs[last-1]
	s.end, s.sealed, r.long = to, false, r.gen
	if !at.inFile {
		s.bytes, s.lastMs = at.bytes, at.arrival
	}
	if !r.dirty || r.synced.end >= to {
		r.synced, r.dirty, r.dirtyFile = *s, false, 0
	}
}

// cutTailLocked forgets the batches in memory from the n-th on.
func (r *Replica) cutTailLocked(n int) {
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
}

func (r *Replica) doomLocked(segs []segment) {
	for _, s := range segs {
		r.doomed = append(r.doomed, doomed{s.base, r.gen})
	}
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

// fileEnd is where batches end in a segment's file.
type fileEnd struct {
	bytes   int64
	arrival int64
	exact   bool // the last one ends at the offset that was asked for
}

// endInFile finds the last batch that ends at or below an offset inside of a segment.
func (l *Log) endInFile(key stream.ReplicaKey, s segment, to stream.Offset) (fileEnd, error) {
	f, err := l.cache.get(key, s)
	if err != nil {
		return fileEnd{}, err
	}
	defer l.cache.release(f)
	sc := newScanner(f.file, key, s)
	sc.reuse = true
	f.seek(sc, to-1)
	end := fileEnd{bytes: sc.pos, arrival: s.firstMs}
	for {
		step, err := sc.step()
		if err != nil {
			return end, err
		}
		b := step.batch
		if b == nil || b.End() > to {
			// A hole that was given up may end here.
			end.exact = end.exact || b != nil && b.Base() == to && step.lost.End == to
			return end, nil
		}
		end = fileEnd{step.pos + int64(len(b)), b.Arrival(), b.End() == to}
		if end.exact {
			return end, nil
		}
	}
}

// resolve looks up where the last segment ends after a cut into it. What lies
// before the cut and can't be read is damage.
func (r *Replica) resolve() error {
	for {
		r.mu.Lock()
		if r.before == nil || len(r.segs) == 0 {
			r.before = nil
			r.mu.Unlock()
			return nil
		}
		s, gen := r.segs[len(r.segs)-1], r.gen
		r.mu.Unlock()
		end, err := r.log.endInFile(r.key, s, s.end)
		missing := errors.Is(err, fs.ErrNotExist)
		if err != nil && !missing {
			return err
		}
		r.mu.Lock()
		n := len(r.segs)
		if r.gen != gen || r.before == nil || n == 0 || r.segs[n-1].base != s.base {
			r.mu.Unlock()
			continue // cut again, trimmed, or someone else was faster
		}
		last := &r.segs[n-1]
		if missing {
			end = fileEnd{bytes: pageSize, arrival: s.firstMs}
			last.sealed = true // nothing is written to it any more
		}
		last.bytes, last.lastMs = end.bytes, end.arrival
		if r.synced.base == s.base && r.synced.end == s.end {
			r.synced = *last
		}
		if r.looseMs {
			r.lastMs, r.looseMs = end.arrival, false
		}
		r.before = nil
		start := r.start
		r.mu.Unlock()
		if !end.exact && start < s.end {
			return r.damagedCut(s)
		}
		return nil
	}
}

// damagedCut names what is missing between the last batch that can be read and
// the place of a cut.
func (r *Replica) damagedCut(s segment) error {
	f, err := r.log.fs.Open(r.log.segmentPath(r.key, s.base), ReadOnly)
	if err != nil {
		r.log.foundDamage(r, r.log.openDamage(r.key, s, err))
		return ignoreMissing(err)
	}
	damage, _, err := scrubFile(f, r.key, s, func(int64) bool { return true })
	for i := range damage {
		damage[i].File = r.log.segmentPath(r.key, s.base)
	}
	r.log.foundDamage(r, damage)
	return errors.Join(err, f.Close())
}

// settleFiles does to the files what the journal says was cut; after a crash
// recovery does it again. Nothing may be written to a replica's segments
// before it. Needs segMu.
func (l *Log) settleFiles(r *Replica) error {
	if err := r.resolve(); err != nil {
		return err
	}
	r.mu.Lock()
	if len(r.doomed) == 0 && r.long == 0 || r.dropped {
		r.mu.Unlock()
		return nil
	}
	landed := r.landgen
	var bases []stream.Offset
	r.doomed = slices.DeleteFunc(r.doomed, func(d doomed) bool {
		// Not one that was cut away, made again and cut away again.
		if done := d.gen <= landed; done {
			bases = append(bases, d.base)
			return true
		}
		return false
	})
	if len(r.doomed) == 0 {
		r.doomed = nil
	}
	var last *segment
	if r.long != 0 && r.long <= landed && r.before == nil {
		if n := len(r.segs); n > 0 {
			s := r.segs[n-1]
			last = &s
		}
		r.long = 0
	}
	r.mu.Unlock()
	// The cache forgets after the file has changed: what it opens from then on
	// is right.
	for _, base := range bases {
		if err := l.fs.Remove(l.segmentPath(r.key, base)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		l.cache.forget(segID{r.key, base})
	}
	if last == nil {
		return nil
	}
	f, err := l.fs.Open(l.segmentPath(r.key, last.base), Write)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // resolve has named it
	}
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(last.bytes), f.Close())
	l.cache.forget(segID{r.key, last.base})
	return err
}

// settleCuts settles the files of all replicas that were cut. Needs segMu.
func (l *Log) settleCuts() error {
	l.queueMu.Lock()
	queue := l.cutQueue
	l.cutQueue = nil
	l.queueMu.Unlock()
	for _, r := range queue {
		if err := l.settleFiles(r); err != nil {
			return l.mustNotFail(err)
		}
	}
	return nil
}
