package recordlog

import (
	"context"
	"slices"
	"time"

	"shardstream/stream"
)

// gate is where appends wait for room, in the order in which they came: a
// large one is not overtaken by small ones that would always fit. Guarded by
// the journal's mu.
type gate struct {
	// granted is what was let in and not pushed yet, bytes, as far as one can
	// tell: who was let in need not push. It is forgotten with each frame.
	granted int64
	queue   []*admission
}

// admission is a caller of Admit that waits.
type admission struct {
	bytes int64
	in    chan struct{} // closed when it may go on
}

// Admit waits until appends of that many bytes fit what may be under way, but
// not for long: a disk that stalls must not collect callers. Callers who can
// wait call it before they append; Append itself never waits, and refuses at
// twice the bound.
//
// Kinds: DiskFull, Throttled (a second has passed, or the context has ended),
// Unavailable (closed), Internal (the disk failed).
func (l *Log) Admit(ctx context.Context, bytes int) error {
	const where = "recordlog.Admit"
	if l.DiskFull() {
		return stream.Errorf(stream.DiskFull, where, "less than the disk reserve is left")
	}
	j := l.journal
	j.mu.Lock()
	if err := j.refusalLocked(); err != nil {
		j.mu.Unlock()
		return err
	}
	if len(j.gate.queue) == 0 && j.fitsLocked(int64(bytes)) {
		j.gate.granted += int64(bytes)
		j.mu.Unlock()
		return nil
	}
	a := &admission{bytes: int64(bytes), in: make(chan struct{})}
	j.gate.queue = append(j.gate.queue, a)
	if j.held == 0 {
		// No frame is under way whose end would let us in.
		j.addLocked(&op{done: func(error) {}})
		signal(j.wake)
	}
	j.mu.Unlock()
	l.kickFlusher()
	timer := time.NewTimer(l.cfg.admitWait)
	defer timer.Stop()
	cause := "a second has passed"
	select {
	case <-a.in:
		return j.admitted()
	case <-timer.C:
	case <-ctx.Done():
		cause = ctx.Err().Error()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if i := slices.Index(j.gate.queue, a); i >= 0 {
		j.gate.queue = slices.Delete(j.gate.queue, i, i+1)
		j.letInLocked() // smaller ones behind it may fit
		l.counters.throttled.Add(1)
		return stream.Errorf(stream.Throttled, where, "%d bytes wait for the disk: %s", j.held, cause)
	}
	return j.refusalLocked()
}

func (j *journal) admitted() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.refusalLocked()
}

// fitsLocked reports whether so many more bytes keep within the bound. One
// that is larger than the bound goes alone.
func (j *journal) fitsLocked(bytes int64) bool {
	under := j.held + j.gate.granted
	return (under == 0 || under+bytes <= j.log.cfg.inFlight) && j.log.tailHasRoom() && j.hasRoomLocked()
}

// hasRoomLocked reports whether the journal keeps to its budget; if not, a
// checkpoint is on its way. A checkpoint can always bring it down to two files.
func (j *journal) hasRoomLocked() bool {
	return len(j.files) <= 2 || j.liveBytesLocked() <= j.log.cfg.JournalBudget
}

// overloadedLocked refuses what is beyond all bounds, for those who did not
// ask Admit: followers, whose leader has a window for each of them.
func (j *journal) overloadedLocked(bytes int64) error {
	l := j.log
	if (j.held == 0 || j.held+bytes <= 2*l.cfg.inFlight) && l.unspilled.Load() <= l.tailBound()+l.cfg.inFlight {
		return nil
	}
	l.counters.throttled.Add(1)
	l.kickFlusher()
	return stream.Errorf(stream.Throttled, "recordlog.Append", "%d bytes wait for the disk", j.held)
}

// letInLocked lets those in who fit now, all of them if the journal has ended.
func (j *journal) letInLocked() {
	n := 0
	for n < len(j.gate.queue) && (j.failed != nil || j.closing || j.fitsLocked(j.gate.queue[n].bytes)) {
		j.gate.granted += j.gate.queue[n].bytes
		close(j.gate.queue[n].in)
		n++
	}
	j.gate.queue = slices.Delete(j.gate.queue, 0, n)
}

// letIn lets callers in when memory has become free.
func (j *journal) letIn() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.letInLocked()
}

func (l *Log) tailBound() int64 { return max(l.cfg.TailCache, 1<<20) }

// tailHasRoom says whether memory takes another batch.
func (l *Log) tailHasRoom() bool { return l.unspilled.Load() <= l.tailBound() }
