package recordlog

import (
	"cmp"
	"errors"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"time"
)

// runFlusher writes behind: it spills tails, forgets cached batches, deletes
// trimmed segments and makes checkpoints. All of that is one goroutine's work,
// for whatever number of replicas.
func (l *Log) runFlusher(stop <-chan struct{}) {
	tick := time.NewTicker(l.cfg.flushTick)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-l.kick:
		case <-tick.C:
			l.checkSpace()
		}
		l.flush()
	}
}

// flush does what there is to do.
func (l *Log) flush() {
	if l.journal.err() != nil {
		return
	}
	l.segMu.Lock()
	defer l.segMu.Unlock()
	defer l.journal.letIn()
	if l.settleCuts() != nil {
		return
	}
	for {
		r := l.nextSpill()
		if r == nil {
			break
		}
		if l.spill(r) != nil {
			break
		}
	}
	_ = l.relieve(l.cfg.TailCache / 2)
	l.evict()
	if l.deleteTrimmed() != nil {
		return
	}
	if l.journal.liveBytes() > l.cfg.JournalBudget/2 {
		_ = l.checkpoint(l.cfg.JournalBudget / 4)
	}
}

func (l *Log) kickFlusher() { signal(l.kick) }

// queueSpill notes a replica whose tail is worth a write.
func (l *Log) queueSpill(r *Replica) {
	l.queueMu.Lock()
	l.spillQueue = append(l.spillQueue, r)
	l.queueMu.Unlock()
	l.kickFlusher()
}

func (l *Log) nextSpill() *Replica {
	r := l.popSpill()
	if r != nil {
		r.mu.Lock() // never under queueMu: trim takes them the other way round
		r.queued = false
		r.mu.Unlock()
	}
	return r
}

func (l *Log) popSpill() *Replica {
	l.queueMu.Lock()
	defer l.queueMu.Unlock()
	if len(l.spillQueue) == 0 {
		l.spillQueue = nil
		return nil
	}
	r := l.spillQueue[0]
	l.spillQueue[0] = nil
	l.spillQueue = l.spillQueue[1:]
	return r
}

func (l *Log) queueTrim(r *Replica) {
	l.queueMu.Lock()
	l.trimQueue = append(l.trimQueue, r)
	l.queueMu.Unlock()
	l.kickFlusher()
}

// deleteTrimmed deletes segments that lie below the visible start, after the
// journal knows that start: a segment that is missing must not look like
// damage. Needs segMu.
func (l *Log) deleteTrimmed() error {
	l.queueMu.Lock()
	queue := l.trimQueue
	l.trimQueue = nil
	l.queueMu.Unlock()
	var ops []op
	doomed := map[*Replica][]segment{}
	for _, r := range queue {
		r.mu.Lock()
		n := 0
		for n < len(r.segs) && r.segs[n].end <= r.start {
			n++
		}
		if n > 0 && !r.dropped {
			doomed[r] = append(doomed[r], r.segs[:n]...)
			if r.segs = slices.Clone(r.segs[n:]); len(r.segs) == 0 {
				r.dirty, r.dirtyFile = false, 0
			}
			ops = append(ops, op{key: r.key, typ: entryTrim, base: r.start})
			r.logged = r.start
		}
		r.mu.Unlock()
	}
	if len(ops) == 0 {
		return nil
	}
	if err := l.journal.do(ops...); err != nil {
		return err
	}
	for r, segs := range doomed {
		for _, s := range segs {
			l.cache.forget(segID{r.key, s.base})
			if err := l.fs.Remove(l.segmentPath(r.key, s.base)); err != nil {
				l.logger.Error("can't delete a trimmed segment", slog.String("replica", r.key.String()), slog.Any("error", err))
				continue
			}
			l.counters.segmentsDeleted.Add(1)
		}
	}
	return nil
}

// carryBelow is the size of a tail that a checkpoint rather writes to the
// journal again than to a segment: one sequential write for all of them,
// where each segment would cost an fsync of its own.
const carryBelow = 64 << 10

// checkpoint makes journal files superfluous until the rest is no larger than
// keep bytes, and retires them. Needs segMu.
func (l *Log) checkpoint(keep int64) error {
	j := l.journal
	first := j.firstToKeep(keep)
	// Everything pushed until now is durable after this, and everything pushed
	// later stands in the files that are kept.
	if err := j.barrier(); err != nil {
		return err
	}
	type pinned struct {
		r     *Replica
		bytes int64
		dirty bool
	}
	var pins []pinned
	for _, r := range l.Replicas() {
		r.mu.Lock()
		if pin := r.pinLocked(); pin != 0 && pin < first {
			pins = append(pins, pinned{r, r.unspilled, r.dirty})
		}
		r.mu.Unlock()
	}
	slices.SortStableFunc(pins, func(a, b pinned) int { return cmp.Compare(a.bytes, b.bytes) })
	carried := int64(0)
	for _, p := range pins {
		if err := l.settleFiles(p.r); err != nil {
			return l.mustNotFail(err)
		}
		if !p.dirty && p.bytes < carryBelow && carried+p.bytes <= l.cfg.JournalBudget/8 {
			n, err := p.r.carry(first)
			if err != nil {
				return err
			}
			carried += n
		}
		for p.r.pinnedBelow(first) {
			err := l.flushReplica(p.r)
			if errors.Is(err, errCut) {
				err = j.barrier() // a cut has come between; the next turn has it durable
			}
			if err != nil {
				return err
			}
		}
	}
	for dir := range l.dirtyDirs {
		if err := l.fs.SyncDir(dir); err != nil {
			return l.mustNotFail(err)
		}
		delete(l.dirtyDirs, dir)
	}
	m := l.snapshot(first)
	// The manifest says nothing that is not durable.
	if err := j.barrier(); err != nil {
		return err
	}
	if err := writeManifest(l.fs, l.journalDir(), m); err != nil {
		return l.mustNotFail(err)
	}
	l.counters.checkpoints.Add(1)
	l.counters.carriedBytes.Add(carried)
	return l.mustNotFail(j.retire(m.firstFile))
}

func (r *Replica) pinnedBelow(first uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	pin := r.pinLocked()
	return pin != 0 && pin < first
}

// flushReplica spills and syncs all of a replica's durable batches.
func (l *Log) flushReplica(r *Replica) error {
	if err := l.spill(r); err != nil {
		return err
	}
	r.mu.Lock()
	dirty, gen := r.dirty, r.gen
	var last segment
	if n := len(r.segs); n > 0 {
		last = r.segs[n-1]
	}
	r.mu.Unlock()
	if !dirty {
		return nil
	}
	f, err := l.cache.get(r.key, last)
	if err != nil {
		return l.mustNotFail(err)
	}
	defer l.cache.release(f)
	return l.syncSegment(r, f, gen, false)
}

// carry writes the tail's batches that stand in files before first to the
// journal again. The next barrier makes them durable.
func (r *Replica) carry(first uint64) (bytes int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped {
		return 0, nil
	}
	file := r.log.journal.active()
	for i := r.tailAt(r.spilled); i < len(r.tail); i++ {
		t := &r.tail[i]
		if t.batch.End() > r.durable {
			break
		}
		if t.file >= first {
			continue
		}
		o := appendOp(r, t.batch, nil)
		o.carry = true
		if _, err := r.log.journal.push(o); err != nil {
			return bytes, err
		}
		t.file = file
		bytes += int64(len(t.batch))
	}
	return bytes, nil
}

// firstToKeep gives the first journal file to keep so that all kept ones
// together are no larger than that, the active one always among them.
func (j *journal) firstToKeep(keep int64) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, size := len(j.files)-1, int64(0)
	for i > 0 && size+j.files[i].size+j.files[i-1].size <= keep {
		size += j.files[i].size
		i--
	}
	return j.files[i].seq
}

// snapshot describes the log as it is, for recovery from that journal file on.
func (l *Log) snapshot(first uint64) *manifest {
	m := &manifest{uuid: l.journal.uuid, firstFile: first}
	for _, f := range l.journal.filesNow() {
		if f.seq == first {
			m.firstFrame = f.first
		}
	}
	replicas := l.Replicas()
	m.replicas = make([]replicaMeta, 0, len(replicas))
	for _, r := range replicas {
		r.mu.Lock()
		if !r.dropped {
			m.replicas = append(m.replicas, r.metaLocked())
		}
		r.mu.Unlock()
	}
	return m
}

func (r *Replica) metaLocked() replicaMeta {
	if r.before != nil {
		return *r.before // the journal has the rest
	}
	m := replicaMeta{
		key: r.key, hw: r.hwLocked(), epoch: r.epoch, start: r.start, end: r.end, startMs: r.startMs, lastMs: r.lastMs, lastCut: r.lastCut,
		epochs: slices.Clone(r.epochs), holes: slices.Clone(r.holes), damage: slices.Clone(r.damage), segs: slices.Clone(r.segs),
	}
	// What is spilled but not synced is left to the journal: the last segment
	// is described as far as it was at its last sync.
	if r.dirty {
		last := &m.segs[len(m.segs)-1]
		if r.synced.end <= last.base {
			m.segs = m.segs[:len(m.segs)-1]
		} else {
			last.end, last.bytes, last.lastMs = r.synced.end, r.synced.bytes, r.synced.lastMs
		}
	}
	m.flushed = r.spilled
	if r.dirty {
		m.flushed = max(r.synced.end, r.start)
		if r.synced.end <= r.segs[len(r.segs)-1].base {
			m.flushed = max(r.segs[len(r.segs)-1].base, r.start)
		}
	}
	m.flushed = min(m.flushed, m.end)
	return m
}

func (j *journal) filesNow() []journalFile {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.files)
}

// toTrash moves something that is not ours to delete below trash/ (I16).
func (l *Log) toTrash(name, as string) error {
	trash := path.Join(l.cfg.Dir, "trash")
	if err := l.mkdirDurably(trash); err != nil {
		return err
	}
	to := path.Join(trash, as)
	for n := 1; ; n++ {
		if _, err := l.fs.Stat(to); err != nil {
			break
		}
		to = path.Join(trash, as+"-"+strconv.Itoa(n))
	}
	if err := l.fs.Rename(name, to); err != nil {
		return err
	}
	l.logger.Warn("moved to trash what nothing mentions", slog.String("from", name), slog.String("to", to))
	if err := l.fs.SyncDir(trash); err != nil {
		return err
	}
	return l.fs.SyncDir(path.Dir(name))
}
