package recordlog

import (
	"runtime"
	"sync"
	"time"

	"shardstream/stream"
)

// op is one thing that waits to become durable: a directory entry, for Append
// with its batch. An op without a type writes nothing and is done when all
// before it are (a barrier).
type op struct {
	key   stream.ReplicaKey
	r     *Replica // Append
	typ   entryType
	epoch stream.Epoch
	base  stream.Offset
	end   stream.Offset
	gen   uint32 // of the replica, for Append: an op from before a cut moves no durable end
	batch stream.Batch
	pos   int
	carry bool // a copy of a batch that is durable already
	done  func(error)
}

func (o *op) entry() entry {
	e := entry{key: o.key, typ: o.typ, epoch: o.epoch, base: o.base, end: o.end}
	if o.batch != nil {
		e.crc, e.pos, e.len = o.batch.CRC(), uint32(o.pos), uint32(len(o.batch))
	}
	return e
}

// journal makes ops durable in the order in which they were pushed. One
// goroutine writes: while frame A is in pwrite and fdatasync, what arrives
// gathers in frame B; when A is done its waiters are woken and B goes out.
// There is no timer in that: a group grows while a sync is under way.
type journal struct {
	log *Log // set once

	mu      sync.Mutex
	fill    *frameBuf // gathers
	other   *frameBuf // the second buffer, nil while it is being written
	waiting []op      // what found no room in fill
	held    int64     // bytes of batches pushed and not done
	durable uint64    // number of the last durable frame
	gate    gate
	closing bool
	idle    bool      // all is written, and covered by an empty frame
	began   time.Time // of the write under way; zero if there is none
	failed  error     // sticky: the first error goes to every later waiter (I15)
	files   []journalFile
	spares  []spareFile
	keep    map[uint64]bool // damaged files, which go to trash/ instead of being reused

	wake    chan struct{} // the writer has something to do
	freed   chan struct{} // a spare file or disk space has appeared
	prepare chan struct{} // a spare file is wanted

	// The writer's own.
	uuid   [16]byte
	file   File
	seq    uint64
	empty  bool // the last frame is an empty one, or there is none yet
	size   int64
	pos    int64
	frame  uint64 // number of the last frame
	prev   uint32 // checksum of its head
	synced uint64 // highest frame known to be durable
	hints  []*Replica
}

// journalFile is a file that recovery would read. files[len-1] is written to.
type journalFile struct {
	seq   uint64
	size  int64
	first uint64 // number of its first frame
}

type spareFile struct {
	name string
	size int64
}

// push hands ops over, all of them in one frame as far as they carry no
// batches, and gives a lower bound of the journal file in which they will
// stand. It never blocks, and fails only if the journal has.
func (j *journal) push(ops ...op) (file uint64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.refusalLocked(); err != nil {
		return 0, err
	}
	for i := range ops {
		j.addLocked(&ops[i])
	}
	signal(j.wake)
	return j.files[len(j.files)-1].seq, nil
}

// pushAppend hands an append over if the bound of what may be under way lets it.
func (j *journal) pushAppend(o op) (file uint64, err error) {
	n := int64(len(o.batch))
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.refusalLocked(); err != nil {
		return 0, err
	}
	if err := j.overloadedLocked(n); err != nil {
		return 0, err
	}
	j.gate.granted = max(0, j.gate.granted-n)
	j.addLocked(&o)
	signal(j.wake)
	return j.files[len(j.files)-1].seq, nil
}

// pushQuietly hands an op over that goes with the next frame, but makes none.
func (j *journal) pushQuietly(o op) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.refusalLocked() == nil {
		j.addLocked(&o)
	}
}

func (j *journal) refusalLocked() error {
	if j.failed != nil {
		return j.failed
	}
	if j.closing {
		return stream.Errorf(stream.Unavailable, "recordlog.Append", "the log is closed")
	}
	return nil
}

func (j *journal) addLocked(o *op) {
	j.held += int64(len(o.batch))
	if len(j.waiting) == 0 && j.fill.hasRoom(len(o.batch)) {
		j.fill.add(*o)
	} else {
		j.waiting = append(j.waiting, *o)
	}
}

// do pushes ops and waits until they are durable.
func (j *journal) do(ops ...op) error {
	result := make(chan error, 1)
	last := &ops[len(ops)-1]
	before := last.done
	last.done = func(err error) {
		if before != nil {
			before(err)
		}
		result <- err
	}
	if _, err := j.push(ops...); err != nil {
		return err
	}
	return <-result
}

// barrier waits until everything pushed so far is durable.
func (j *journal) barrier() error { return j.do(op{}) }

// active gives the number of the file that is written to: a lower bound of
// the file in which what is pushed from now on will lie.
func (j *journal) active() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.files[len(j.files)-1].seq
}

// liveBytes gives the size of all files that recovery would read.
func (j *journal) liveBytes() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.liveBytesLocked()
}

func (j *journal) liveBytesLocked() (total int64) {
	for _, f := range j.files {
		total += f.size
	}
	return total
}

// take swaps the buffers and gives the one to write, nil if there is nothing
// in it, unless an empty one is wanted.
func (j *journal) take(wantEmpty bool) (b *frameBuf, closed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.fill.ops) == 0 && !wantEmpty {
		return nil, j.closing
	}
	b, j.fill, j.other = j.fill, j.other, nil
	n := 0
	for n < len(j.waiting) && j.fill.hasRoom(len(j.waiting[n].batch)) {
		j.fill.add(j.waiting[n])
		n++
	}
	rest := copy(j.waiting, j.waiting[n:])
	clear(j.waiting[rest:])
	j.waiting = j.waiting[:rest]
	if rest == 0 && cap(j.waiting) > 1<<12 {
		j.waiting = nil
	}
	return b, false
}

// run is the writer. It ends when the journal is closed and empty, or has failed.
func (j *journal) run() {
	idle := time.NewTimer(time.Hour)
	defer idle.Stop()
	for {
		if j.err() != nil {
			j.drain()
			return
		}
		if j.pending() {
			j.addHints()
		}
		b, closed := j.take(false)
		if closed {
			return
		}
		if b == nil {
			// The last frame's durability is known to memory only. One empty
			// frame says it to the disk, so that damage to the last frame
			// isn't taken for a torn tail.
			if j.empty {
				j.rest()
				continue
			}
			idle.Reset(j.log.cfg.idleFrame)
			select {
			case <-j.wake:
				continue
			case <-idle.C:
			}
			j.addHints()
			b, _ = j.take(true)
		}
		j.setBegan(time.Now())
		err := j.write(b)
		j.setBegan(time.Time{})
		if err != nil {
			j.fail(err)
			j.drainFrame(b)
			continue
		}
		j.complete(b)
		// Whoever was woken appends again in a moment; with its batch in the
		// next frame, there are half as many frames (DESIGN.md).
		runtime.Gosched()
	}
}

// rest waits until there is something to do.
func (j *journal) rest() {
	j.setIdle(true)
	<-j.wake
	j.setIdle(false)
}

func (j *journal) setIdle(on bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.idle = on
}

func (j *journal) setBegan(at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.began = at
}

// Stalled gives for how long the write to the journal that is under way has
// been so, 0 if there is none: a disk that hangs is like a node that is dead,
// but only the node itself can tell.
func (l *Log) Stalled() time.Duration {
	l.journal.mu.Lock()
	defer l.journal.mu.Unlock()
	if l.journal.began.IsZero() {
		return 0
	}
	return time.Since(l.journal.began)
}

// Position names the journal and its last durable frame. A disk whose frame is
// below one that it has reported before was put back to an older state, and has
// lost what it acknowledged since.
func (l *Log) Position() (journal [16]byte, frame uint64) {
	l.journal.mu.Lock()
	defer l.journal.mu.Unlock()
	return l.journal.uuid, l.journal.durable
}

// pending reports whether there is something to write.
func (j *journal) pending() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.fill.ops) > 0
}

// write writes one frame and makes it durable.
func (j *journal) write(b *frameBuf) error {
	if b.entries == 0 && len(b.ops) > 0 {
		return nil // barriers only
	}
	if need := b.size(); j.file == nil || j.pos+need > j.size {
		if err := j.roll(need, true); err != nil {
			return err
		}
	}
	h := head{uuid: j.uuid, file: j.seq, frame: j.frame + 1, synced: j.synced, prev: j.prev}
	bytes, crc := b.finish(h)
	if _, err := j.file.WriteAt(bytes, j.pos); err != nil {
		return err
	}
	if !j.log.cfg.mutantNoSync {
		if err := j.file.Sync(); err != nil {
			return err
		}
	}
	j.frame++
	j.synced, j.prev = j.frame, crc
	j.pos += int64(len(bytes))
	j.empty = b.hintsOnly()
	s := &j.log.counters
	s.frames.Add(1)
	s.fdatasyncs.Add(1)
	s.journalBytes.Add(int64(len(bytes)))
	return nil
}

// complete publishes the durable ends and wakes the waiters, in order.
func (j *journal) complete(b *frameBuf) {
	var bytes int64
	for i := range b.ops {
		o := &b.ops[i]
		bytes += int64(len(o.batch))
		if o.typ == entryAppend {
			o.r.landed(o)
		}
		if o.done != nil {
			o.done(nil)
		}
	}
	b.reset()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.other = b
	j.held -= bytes
	j.durable = j.frame
	j.gate.granted = 0 // who was let in before has appended, or won't
	j.letInLocked()
}

func (j *journal) err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failed
}

// fail makes an error sticky (I15). The writer hands it to all that waits, so
// that even then what is told is told in order, and by one goroutine.
func (j *journal) fail(cause error) {
	err := stream.Errorf(stream.Internal, "recordlog", "the disk failed, nothing is written any more: %w", cause)
	j.mu.Lock()
	if j.failed != nil {
		j.mu.Unlock()
		return
	}
	j.failed = err
	j.letInLocked()
	j.mu.Unlock()
	signal(j.wake)
	signal(j.freed)
	j.log.fatal(err)
}

// drain tells all that waits why it is lost.
func (j *journal) drain() {
	j.mu.Lock()
	lost := append(j.fill.take(), j.waiting...)
	j.waiting = nil
	err := j.failed
	j.mu.Unlock()
	for i := range lost {
		if lost[i].done != nil {
			lost[i].done(err)
		}
	}
}

func (j *journal) drainFrame(b *frameBuf) {
	err := j.err()
	for i := range b.ops {
		if done := b.ops[i].done; done != nil {
			done(err)
		}
	}
	b.reset()
}

func (j *journal) close() {
	j.mu.Lock()
	j.closing = true
	j.letInLocked()
	j.mu.Unlock()
	signal(j.wake)
}

// signal wakes the reader of a channel of capacity one, or leaves it woken.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
