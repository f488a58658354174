package recordlog

import (
	"slices"
	"sort"
	"sync"

	"shardstream/stream"
)

// EpochStart says at which offset the batches of an epoch begin.
type EpochStart struct {
	Epoch stream.Epoch
	First stream.Offset
}

// Replica is one copy of one shard. Its methods may be called concurrently,
// but offsets are only meaningful if one caller appends at a time.
//
// An idle replica is this struct and nothing else: no goroutine, no timer, no
// open file, no buffer.
type Replica struct {
	log *Log // set once
	key stream.ReplicaKey

	mu sync.Mutex
	// What the replica is. start <= durable <= end.
	dropped bool
	gen     uint32       // counts cuts and restarts
	landgen uint32       // gen of the last one that is durable
	epoch   stream.Epoch // adopted, durably
	wanted  stream.Epoch // adopted, perhaps not durably yet
	epochs  []EpochStart
	start   stream.Offset
	logged  stream.Offset // a start that the journal or the manifest knows
	durable stream.Offset
	end     stream.Offset
	hw      stream.Offset // the high watermark as far as we were told; a hint
	hinted  bool          // in the queue for the journal to know it
	startMs int64         // arrival of the batch at start; 0 if not known
	lastMs  int64         // arrival of the newest batch ever; 0 if there was none
	looseMs bool          // lastMs may be too late
	holes   []stream.OffsetRange
	damage  []Damage

	// Where it is. Batches below spilled are in segs; tail holds the batches
	// from some offset <= spilled up to end, in memory.
	segs      []segment
	spilled   stream.Offset
	tail      []tailBatch
	unspilled int64   // bytes of the batches in tail from spilled on
	dirty     bool    // the last segment has bytes that are not synced
	dirtyFile uint64  // the journal file from which on they stand
	synced    segment // the last segment as it was at the last sync of it
	queued    bool    // in the flusher's queue
	lastCut   uint64  // journal frame of the last cut or restart

	// What a cut has left to do to the files, see cut.go.
	doomed  []doomed     // segments to delete
	long    uint32       // gen from which on the last segment's file is longer than segs says; 0 if it isn't
	before  *replicaMeta // the replica before a cut whose place in the file isn't known yet
	cutFile uint64       // the journal file from which on that cut stands
}

type tailBatch struct {
	batch stream.Batch
	file  uint64 // the batch stands in this journal file or a later one
	pos   int64  // where it stands in its segment; 0 if that is not known
}

// Key gives the replica's name.
func (r *Replica) Key() stream.ReplicaKey { return r.key }

// End gives the offset after the last batch, durable or not.
func (r *Replica) End() stream.Offset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end
}

// DurableEnd gives the offset after the last batch that fdatasync has returned for.
func (r *Replica) DurableEnd() stream.Offset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.durable
}

// Start gives the first visible offset.
func (r *Replica) Start() stream.Offset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.start
}

// Epoch gives the adopted epoch; it never goes back (I6).
func (r *Replica) Epoch() stream.Epoch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.epoch
}

// LastArrival gives the arrival time of the newest batch, trimmed or not, in
// Unix ms; 0 if there was none. Until the files are looked at after a cut into
// them it may be later than that, never earlier.
func (r *Replica) LastArrival() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastMs
}

// EpochTable gives the epochs of the log's batches with their first offsets,
// oldest first.
func (r *Replica) EpochTable() []EpochStart {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.epochs)
}

// Damaged reports whether a part of the log is known to be lost and was not
// given up.
func (r *Replica) Damaged() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.damage) > 0
}

// Append takes a stamped batch over, which must begin at End. Its epoch may be
// that of the log's last batch or a later one, up to the adopted: a follower
// that catches up stores old batches byte for byte. done is called once, after
// fdatasync or with the error that stopped the log, from the journal's
// goroutine, in the order in which things were asked of the replica; it must
// be quick. If Append fails, done is not called. Append never waits (see Admit).
//
// Kinds: Invalid (not this shard's, or it arrived before the last one, I20),
// Corrupt (fails its checksum), Gap (does not begin at End), Stale (of another
// epoch, or while a later one is being adopted), DiskFull, Throttled (beyond
// all bounds of what may be under way), Unavailable (closed), NotFound
// (dropped), Internal (the disk failed).
func (r *Replica) Append(b stream.Batch, done func(error)) error {
	const op = "recordlog.Append"
	l := r.log
	checked, err := stream.CheckBatch(b)
	if err != nil {
		return err
	}
	if len(checked) != len(b) || b.Shard() != r.key.Shard {
		return stream.Errorf(stream.Invalid, op, "a batch of shard %s with %d of %d bytes for replica %s", b.Shard(), len(checked), len(b), r.key)
	}
	if l.DiskFull() {
		return stream.Errorf(stream.DiskFull, op, "less than the disk reserve is left")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch last := r.lastEpochLocked(); {
	case r.dropped:
		return stream.Errorf(stream.NotFound, op, "replica %s is dropped", r.key)
	case r.wanted != r.epoch:
		return stream.Errorf(stream.Stale, op, "a batch of epoch %d, while %d is being adopted", b.Epoch(), r.wanted)
	case b.Epoch() > r.epoch || b.Epoch() < last:
		return stream.Errorf(stream.Stale, op, "a batch of epoch %d, the last one has %d, adopted is %d", b.Epoch(), last, r.epoch)
	case b.Base() != r.end:
		return stream.Errorf(stream.Gap, op, "a batch begins at %d, the log ends at %d", b.Base(), r.end)
	case b.Arrival() < r.lastMs && !r.looseMs:
		return stream.Errorf(stream.Invalid, op, "a batch arrived at %d, the one before at %d", b.Arrival(), r.lastMs)
	}
	file, err := l.journal.pushAppend(appendOp(r, b, done))
	if err != nil {
		return err
	}
	r.addLocked(b, file)
	l.counters.appends.Add(1)
	l.counters.appendBytes.Add(int64(len(b)))
	return nil
}

// lastEpochLocked gives the epoch of the log's last batch, 0 if it has none.
func (r *Replica) lastEpochLocked() stream.Epoch {
	if n := len(r.epochs); n > 0 {
		return r.epochs[n-1].Epoch
	}
	return 0
}

const whereAdopt = "recordlog.Adopt"

// Adopt makes the replica adopt an epoch and calls done, like that of Append,
// when it is durable. From the call on until then no batch is taken, so that in
// done DurableEnd is End, and no batch of a former leader can follow (I6).
// Adopting the adopted epoch writes nothing; done comes all the same.
//
// Kinds: Stale (it would go back), NotFound (dropped), Unavailable, Internal.
func (r *Replica) Adopt(epoch stream.Epoch, done func(error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.adoptableLocked(epoch); err != nil {
		return err
	}
	o := op{done: done}
	if epoch > r.wanted {
		o = op{key: r.key, typ: entryAdopt, epoch: epoch, done: func(err error) {
			// In the journal's goroutine, so that a checkpoint which drops the
			// journal's word has the replica's.
			if err == nil {
				r.mu.Lock()
				r.epoch = max(r.epoch, epoch)
				r.mu.Unlock()
			}
			done(err)
		}}
	}
	if _, err := r.log.journal.push(o); err != nil {
		return err
	}
	r.wanted = epoch
	return nil
}

func (r *Replica) adoptableLocked(epoch stream.Epoch) error {
	if r.dropped {
		return stream.Errorf(stream.NotFound, whereAdopt, "replica %s is dropped", r.key)
	}
	if epoch < r.wanted {
		return stream.Errorf(stream.Stale, whereAdopt, "replica %s has adopted epoch %d, asked is %d", r.key, r.wanted, epoch)
	}
	return nil
}

// appendOp makes the journal's op of an append.
func appendOp(r *Replica, b stream.Batch, done func(error)) op {
	return op{
		key: r.key, r: r, typ: entryAppend, epoch: b.Epoch(), base: b.Base(), end: b.End(), gen: r.gen, batch: b, done: done,
	}
}

// addLocked puts a batch at the log's end.
func (r *Replica) addLocked(b stream.Batch, file uint64) {
	if n := len(r.epochs); n == 0 || r.epochs[n-1].Epoch != b.Epoch() {
		r.epochs = append(r.epochs, EpochStart{b.Epoch(), b.Base()})
	}
	if r.start == r.end {
		r.startMs = b.Arrival()
	}
	r.end, r.lastMs, r.looseMs = b.End(), b.Arrival(), false
	r.tail = append(r.tail, tailBatch{batch: b, file: file})
	r.unspilled += int64(len(b))
	r.log.tailBytes.Add(int64(len(b)))
	r.log.unspilled.Add(int64(len(b)))
}

// landed publishes that an append is durable.
func (r *Replica) landed(o *op) {
	r.mu.Lock()
	if o.gen == r.gen && !o.carry {
		r.durable = o.end
	}
	spill := r.unspilled >= r.log.cfg.spillAt && !r.queued
	if spill {
		r.queued = true
	}
	r.mu.Unlock()
	if spill {
		r.log.queueSpill(r)
	}
}

// tailAt gives the place in tail of the first batch that ends behind the offset.
func (r *Replica) tailAt(o stream.Offset) int {
	return sort.Search(len(r.tail), func(i int) bool { return r.tail[i].batch.End() > o })
}

// dropTailLocked forgets the first n batches in memory.
func (r *Replica) dropTailLocked(n int) {
	var bytes int64
	for i := range n {
		b := r.tail[i].batch
		bytes += int64(len(b))
		if b.Base() >= r.spilled {
			r.unspilled -= int64(len(b))
			r.log.unspilled.Add(-int64(len(b)))
		}
	}
	r.log.tailBytes.Add(-bytes)
	clear(r.tail[:n])
	if r.tail = r.tail[n:]; len(r.tail) == 0 {
		r.tail = nil
	}
}

// pinLocked gives the first journal file that the replica needs for recovery,
// or 0 if it needs none. Carried batches stand in later files than batches
// behind them, so all have to be looked at.
func (r *Replica) pinLocked() uint64 {
	pin := uint64(0)
	if r.dirty {
		pin = r.dirtyFile
	}
	if r.before != nil && (pin == 0 || r.cutFile < pin) {
		pin = r.cutFile
	}
	for i := r.tailAt(r.spilled); i < len(r.tail); i++ {
		if file := r.tail[i].file; pin == 0 || file < pin {
			pin = file
		}
	}
	return pin
}

// TailStart gives the first offset that Read serves from memory, durable or not.
func (r *Replica) TailStart() stream.Offset {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.tail) == 0 {
		return r.end
	}
	return max(r.start, r.tail[0].batch.Base())
}

// Bytes gives about how many bytes the batches of [Start, End) take.
func (r *Replica) Bytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := r.unspilled
	for i := range r.segs {
		s := &r.segs[i]
		bytes := s.bytes - pageSize
		if s.base < r.start && s.end > s.base {
			// By the share of its records: which bytes those are is in no index.
			bytes = int64(float64(bytes) * float64(s.end-min(r.start, s.end)) / float64(s.end-s.base))
		}
		total += bytes
	}
	return total
}

// EpochOf gives the epoch of the record before the offset; 0 if there is none,
// or it was trimmed and is not known any more.
func (r *Replica) EpochOf(o stream.Offset) stream.Epoch {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o > r.end {
		return 0
	}
	i := sort.Search(len(r.epochs), func(i int) bool { return r.epochs[i].First >= o })
	if i == 0 {
		return 0
	}
	return r.epochs[i-1].Epoch
}
