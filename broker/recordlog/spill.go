package recordlog

import (
	"cmp"
	"errors"
	"path"
	"slices"

	"shardstream/stream"
)

// errFull stops what the flusher is at until the disk has room again. The
// data stays in memory and in the journal.
var errFull = errors.New("the disk is full")

// errCut says that the replica was cut while a run was on its way to the disk.
var errCut = errors.New("the log was cut")

// spillChunk bounds what one write to a segment holds, unless one batch is larger.
const spillChunk = 4 << 20

// spill writes what of the replica's durable tail is not yet in segments,
// without syncing it. Needs segMu.
func (l *Log) spill(r *Replica) error {
	for {
		if err := l.settleFiles(r); err != nil {
			return l.mustNotFail(err)
		}
		run := r.unspilledDurable()
		if len(run.batches) == 0 {
			return nil
		}
		if err := l.writeRun(r, run); err != nil && !errors.Is(err, errCut) {
			return l.mustNotFail(err)
		}
	}
}

// mustNotFail lets a full disk pass, and takes any other error for the disk's
// end (I15).
func (l *Log) mustNotFail(err error) error {
	if err == nil || errors.Is(err, errFull) {
		return err
	}
	if isNoSpace(err) {
		l.noteFull(err)
		return errFull
	}
	l.journal.fail(err)
	return err
}

// spillRun is what one write to a segment holds.
type spillRun struct {
	batches []stream.Batch
	size    int64
	file    uint64 // they stand in this journal file or later ones
	gen     uint32 // of the replica; a cut meanwhile makes the run void
}

// unspilledDurable gives the next batches to spill.
func (r *Replica) unspilledDurable() (run spillRun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run.gen = r.gen
	for i := r.tailAt(r.spilled); i < len(r.tail); i++ {
		t := r.tail[i]
		n := len(run.batches)
		if t.batch.End() > r.durable || n > 0 && run.size+int64(len(t.batch)) > spillChunk {
			break
		}
		if n > 0 && t.batch.Base() != run.batches[n-1].End() {
			break // behind a hole, which begins a segment of its own
		}
		if n == 0 || t.file < run.file {
			run.file = t.file
		}
		run.batches = append(run.batches, t.batch)
		run.size += int64(len(t.batch))
	}
	return run
}

// writeRun writes batches behind each other to the replica's last segment, or
// to a new one.
func (l *Log) writeRun(r *Replica, run spillRun) error {
	s, fresh, err := l.segmentFor(r, run)
	if err != nil {
		return err
	}
	at := roundUp(s.bytes)
	start, from := int64(0), at
	if fresh {
		start, from = pageSize, 0
	}
	buf := l.spillBuffer(int(start + roundUp(run.size)))
	if fresh {
		segmentHeader(buf, r.key, s.base, s.created)
	}
	n := start
	positions := make([]int64, len(run.batches))
	for i, b := range run.batches {
		positions[i] = at + n - start
		n += int64(copy(buf[n:], b))
	}
	clear(buf[n:])
	f, err := l.cache.get(r.key, s)
	if err != nil {
		return err
	}
	defer l.cache.release(f)
	if err := l.writeSegment(f, buf, from); err != nil {
		return err
	}
	f.mu.Lock()
	for i, b := range run.batches {
		f.idx.note(b, positions[i])
	}
	f.mu.Unlock()
	last := run.batches[len(run.batches)-1]
	s.end, s.bytes, s.lastMs = last.End(), at+run.size, last.Arrival()
	if !r.wroteRun(s, fresh, run, positions) {
		l.cache.forget(f.id)
		return errCut
	}
	l.counters.spills.Add(1)
	l.counters.spillBytes.Add(run.size)
	l.noteCached(r, last.End())
	return nil
}

// directSpill is the size from which on a run is written past the page cache:
// to fill fresh pages of the cache is slower than the disk (DESIGN.md).
const directSpill = 256 << 10

func (l *Log) writeSegment(f *segFile, buf []byte, at int64) (err error) {
	w := f.file
	if len(buf) >= directSpill {
		if w, err = l.fs.Open(l.segmentPath(f.id.key, f.id.base), Write|Direct); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.Close()) }()
	}
	_, err = w.WriteAt(buf, at)
	return err
}

// wroteRun takes a run over that was written, unless the replica was cut
// meanwhile: then the file is longer than it should be.
func (r *Replica) wroteRun(s segment, fresh bool, run spillRun, positions []int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gen != run.gen {
		if n := len(r.segs); fresh {
			r.doomed = append(r.doomed, doomed{base: s.base})
		} else if n > 0 && r.segs[n-1].base == s.base && r.long == 0 {
			r.long = 1
		}
		return false
	}
	if fresh {
		r.segs = append(r.segs, s)
	} else {
		r.segs[len(r.segs)-1] = s
	}
	if !r.dirty || run.file < r.dirtyFile {
		r.dirtyFile = run.file
	}
	r.dirty = true
	i := 0
	for j := r.tailAt(r.spilled); j < len(r.tail) && i < len(run.batches); j++ {
		for i < len(run.batches) && run.batches[i].Base() < r.tail[j].batch.Base() {
			i++ // trimmed meanwhile
		}
		if i < len(run.batches) {
			r.tail[j].pos = positions[i]
			i++
		}
	}
	r.spilledToLocked(s.end)
	return true
}

// spilledToLocked moves the border between what is in segments and what is not.
func (r *Replica) spilledToLocked(to stream.Offset) {
	for i := r.tailAt(r.spilled); i < len(r.tail) && r.tail[i].batch.End() <= to; i++ {
		n := int64(len(r.tail[i].batch))
		r.unspilled -= n
		r.log.unspilled.Add(-n)
	}
	r.spilled = max(r.spilled, to)
}

// segmentFor gives the segment that a run goes to, sealing the last one if it
// is full, old, or does not end where the run begins.
func (l *Log) segmentFor(r *Replica, run spillRun) (s segment, fresh bool, err error) {
	base, arrival := run.batches[0].Base(), run.batches[0].Arrival()
	r.mu.Lock()
	var last segment
	if n := len(r.segs); n > 0 {
		last = r.segs[n-1]
	}
	cut := r.gen != run.gen
	r.mu.Unlock()
	if cut {
		return s, false, errCut
	}
	now := l.cfg.Now().UnixMilli()
	if last.bytes > 0 {
		if !last.sealed && last.end == base && last.bytes+run.size <= l.cfg.SegmentSize && now-last.created < l.cfg.SegmentAge.Milliseconds() {
			return last, false, nil
		}
		if !last.sealed {
			if err := l.seal(r, last, run.gen); err != nil {
				return s, false, err
			}
		}
	}
	s = segment{base: base, end: base, bytes: pageSize, firstMs: arrival, created: now}
	dir := l.replicaDir(r.key)
	for _, d := range []string{path.Dir(dir), dir} {
		if err := l.fs.Mkdir(d); err != nil {
			return s, false, err
		}
		// Even if it was there: its maker may have been killed before the sync.
		l.dirtyDirs[path.Dir(d)] = true
	}
	f, err := l.fs.Open(l.segmentPath(r.key, base), Create|Write)
	if err != nil {
		return s, false, err
	}
	// What a failed attempt left behind must not stand behind the new batches.
	if err = errors.Join(f.Truncate(0), f.Close()); err != nil {
		return s, false, err
	}
	l.cache.forget(segID{r.key, base})
	l.dirtyDirs[dir] = true
	return s, true, nil
}

// seal completes a segment: its index is added, and all of it is synced.
func (l *Log) seal(r *Replica, s segment, gen uint32) error {
	f, err := l.cache.get(r.key, s)
	if err != nil {
		return err
	}
	defer l.cache.release(f)
	f.mu.Lock()
	idx := f.idx.encode()
	f.mu.Unlock()
	at := roundUp(s.bytes)
	if err := f.file.Truncate(at); err != nil {
		return err
	}
	if _, err := f.file.WriteAt(idx, at); err != nil {
		return err
	}
	return l.syncSegment(r, f, gen, true)
}

// syncSegment syncs the replica's last segment, which becomes sealed by it or
// not. If the replica is cut meanwhile it counts as dirty still.
func (l *Log) syncSegment(r *Replica, f *segFile, gen uint32, sealed bool) error {
	if err := f.file.Sync(); err != nil {
		l.journal.fail(err)
		return err
	}
	l.counters.segmentSyncs.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.segs)
	if r.gen != gen || n == 0 || r.segs[n-1].base != f.id.base {
		return errCut
	}
	last := &r.segs[n-1]
	last.sealed = last.sealed || sealed
	r.dirty, r.dirtyFile, r.synced = false, 0, *last
	return nil
}

// spillBuffer gives a buffer of that size, used again and again.
func (l *Log) spillBuffer(size int) []byte {
	if size > 2*spillChunk {
		return alignedBuffer(size) // a rare giant
	}
	if size > len(l.spillBuf) {
		l.spillBuf = alignedBuffer(max(size, 64<<10, min(2*len(l.spillBuf), 2*spillChunk)))
	}
	return l.spillBuf[:size]
}

// cachedRun is a run that segments hold and memory still has: the oldest is
// forgotten first.
type cachedRun struct {
	r    *Replica
	upto stream.Offset
}

func (l *Log) noteCached(r *Replica, upto stream.Offset) {
	l.cached = append(l.cached, cachedRun{r, upto})
}

// evict forgets cached batches until the tails fit their budget. Needs segMu.
func (l *Log) evict() {
	n := 0
	for n < len(l.cached) && l.tailBytes.Load() > l.cfg.TailCache {
		c := l.cached[n]
		l.cached[n] = cachedRun{}
		c.r.mu.Lock()
		i := 0
		for i < len(c.r.tail) && c.r.tail[i].batch.End() <= min(c.upto, c.r.spilled) {
			i++
		}
		c.r.dropTailLocked(i)
		c.r.mu.Unlock()
		n++
	}
	if l.cached = l.cached[n:]; len(l.cached) == 0 {
		l.cached = nil
	}
}

// relieve spills until at most that many bytes stand in memory only, the
// replicas with the most of them first. Needs segMu.
func (l *Log) relieve(limit int64) error {
	if l.unspilled.Load() <= limit {
		return nil
	}
	type load struct {
		r     *Replica
		bytes int64
	}
	var loads []load
	for _, r := range l.Replicas() {
		r.mu.Lock()
		if r.unspilled > 0 {
			loads = append(loads, load{r, r.unspilled})
		}
		r.mu.Unlock()
	}
	slices.SortStableFunc(loads, func(a, b load) int { return cmp.Compare(b.bytes, a.bytes) })
	for _, x := range loads {
		if l.unspilled.Load() <= limit {
			return nil
		}
		if err := l.spill(x.r); err != nil {
			return err
		}
	}
	return nil
}
