package replica

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"time"

	"shardstream/stream"
)

// repeatWindow is for how long a batch is remembered so that its repeat is not
// stored again (I22).
const repeatWindow = 2 * time.Minute

// rememberedSize is about what one remembered batch costs, bytes.
const rememberedSize = 128

// Memory bounds what all replicas of a node remember of batches, for I22.
type Memory struct {
	Limit   int64        // bytes; 0 is no limit
	used    atomic.Int64 // batches
	early   atomic.Int64 // forgotten before their time
	answers atomic.Int64 // repeats that were answered with the first
}

// Used gives the bytes in use.
func (m *Memory) Used() int64 { return m.used.Load() * rememberedSize }

// Early counts batches that were forgotten before their time for want of memory.
func (m *Memory) Early() int64 { return m.early.Load() }

// Answers counts repeats that were not stored again.
func (m *Memory) Answers() int64 { return m.answers.Load() }

// seen is a batch in the log, as much of it as tells a repeat.
type seen struct {
	request, invocation [16]byte
	base, end           stream.Offset
	arrival             int64
	length              uint32 // of its records in the clear, bytes
	attempt, ordinal    uint16
}

// repeats remembers the batches of a shard's last minutes by their request
// (I22). A batch enters when it enters the log, as a leader's or a follower's,
// and leaves with a cut, so that the table is always what the log says, and a
// follower that is elected needs no time to make one.
type repeats struct {
	memory *Memory
	first  uint64            // number of the oldest in list
	list   []seen            // by offset
	byID   map[uint64]uint64 // key of an id -> number of the newest batch that has it
	// Batches from here on are in the table; those before it, written before
	// the process began, only once they were read back (restored).
	from stream.Offset
}

// keyOf mixes all of an id, since clients' ids may differ in either half only.
func keyOf(id [16]byte) uint64 {
	return bits.RotateLeft64(binary.LittleEndian.Uint64(id[:8])*0x9E3779B97F4A7C15, 29) ^ binary.LittleEndian.Uint64(id[8:])
}

func requestKey(id [16]byte) uint64 { return keyOf(id) }

// invocationKey is apart from request keys.
func invocationKey(id [16]byte) uint64 { return ^keyOf(id) }

func describe(b stream.Batch) seen {
	s := seen{
		request: b.RequestID(), invocation: b.InvocationID(), base: b.Base(), end: b.End(), arrival: b.Arrival(),
		length: uint32(b.RecordBytes()), attempt: b.Attempt(),
	}
	for ordinal := range b.Ordinals() {
		s.ordinal = ordinal
		break
	}
	return s
}

// find gives the batch that b repeats, and how many of b's first records are in
// it; 0 if there is none. The gateway's id is enough; the SDK's only if either of
// the two is marked as a retry, so that a client which sends one fixed id loses
// nothing.
func (t *repeats) find(b stream.Batch, part bool) (seen, int) {
	if len(t.list) == 0 {
		return seen{}, 0
	}
	if id := b.RequestID(); id != [16]byte{} {
		if s, ok := t.at(t.byID, requestKey(id)); ok && s.request == id {
			if n := s.firstOf(b, part); n > 0 {
				return s, n
			}
		}
	}
	if id := b.InvocationID(); id != [16]byte{} {
		if s, ok := t.at(t.byID, invocationKey(id)); ok && s.invocation == id && (s.attempt > 1 || b.Attempt() > 1) {
			if n := s.firstOf(b, part); n > 0 {
				return s, n
			}
		}
	}
	return seen{}, 0
}

func (t *repeats) at(m map[uint64]uint64, key uint64) (seen, bool) {
	n, ok := m[key]
	if !ok || n < t.first || n-t.first >= uint64(len(t.list)) {
		return seen{}, false
	}
	return t.list[n-t.first], true
}

// firstOf gives how many of b's first records are in the batch, by its shape: a
// repeat is the same records, or where one of the two has only what the shard's
// limits let pass, the same at the beginning. Encrypted, they are other bytes each
// time, and how long each is does not show; and one of the two may be encrypted
// and the other not, if that was switched on between them.
func (s seen) firstOf(b stream.Batch, part bool) int {
	if s.ordinal != describe(b).ordinal {
		return 0
	}
	n := int(s.end - s.base)
	switch {
	case n == b.Count() && int(s.length) == b.RecordBytes():
		return n
	case n < b.Count() && beginsWith(b, n, int(s.length)):
		return n
	case n > b.Count() && part:
		// An SDK's next attempt was quicker, and was admitted as a whole.
		return b.Count()
	}
	return 0
}

// beginsWith reports whether b's first n records have that many bytes, or may
// have them if they are encrypted.
func beginsWith(b stream.Batch, n, bytes int) bool {
	if b.Encrypted() {
		return bytes <= b.RecordBytes()-(b.Count()-n)*stream.RecordHeaderSize
	}
	for _, r := range b.Records() {
		if n--; n < 0 {
			break
		}
		bytes -= stream.RecordHeaderSize + len(r.PartitionKey) + len(r.Data)
	}
	return bytes == 0
}

// add remembers a batch at the log's end.
func (t *repeats) add(b stream.Batch, nowMs int64) {
	t.expire(nowMs)
	s := describe(b)
	if s.request == [16]byte{} && s.invocation == [16]byte{} {
		return
	}
	if t.byID == nil {
		t.byID = make(map[uint64]uint64)
	}
	for t.memory.Limit > 0 && t.memory.Used() >= t.memory.Limit && len(t.list) > 0 {
		t.memory.early.Add(1)
		t.forgetFirst()
	}
	t.index(s, t.first+uint64(len(t.list)))
	t.list = append(t.list, s)
	t.memory.used.Add(1)
}

func (t *repeats) index(s seen, number uint64) {
	if s.request != [16]byte{} {
		t.byID[requestKey(s.request)] = number
	}
	if s.invocation != [16]byte{} {
		t.byID[invocationKey(s.invocation)] = number
	}
}

func (t *repeats) unindex(s seen, number uint64) {
	for _, key := range []uint64{requestKey(s.request), invocationKey(s.invocation)} {
		if n, ok := t.byID[key]; ok && n == number {
			delete(t.byID, key)
		}
	}
}

func (t *repeats) forgetFirst() {
	t.unindex(t.list[0], t.first)
	t.list = t.list[1:]
	t.first++
	t.memory.used.Add(-1)
}

func (t *repeats) expire(nowMs int64) {
	for len(t.list) > 0 && t.list[0].arrival < nowMs-repeatWindow.Milliseconds() {
		t.forgetFirst()
	}
}

// cut forgets what is cut off the log.
func (t *repeats) cut(to stream.Offset) {
	for n := len(t.list); n > 0 && t.list[n-1].end > to; n-- {
		t.unindex(t.list[n-1], t.first+uint64(n-1))
		t.list = t.list[:n-1]
		t.memory.used.Add(-1)
	}
	t.from = min(t.from, to)
}

// restore puts batches before the table that were in the log when the process
// began, oldest first.
func (t *repeats) restore(old []seen) {
	kept := old[:0:0]
	for _, s := range old {
		if s.end <= t.from {
			kept = append(kept, s)
		}
	}
	if len(kept) > 0 {
		all := append(kept, t.list...)
		t.memory.used.Add(int64(len(kept)))
		t.list, t.first, t.byID = all, 0, make(map[uint64]uint64, 2*len(all))
		for i, s := range all {
			t.index(s, uint64(i))
		}
	}
	t.from = 0
}

// findRequest gives the batch of a request, whatever its shape is now.
func (t *repeats) findRequest(request, invocation [16]byte, attempt uint16) (seen, bool) {
	if request != [16]byte{} {
		if s, ok := t.at(t.byID, requestKey(request)); ok && s.request == request {
			return s, true
		}
	}
	if invocation != [16]byte{} {
		if s, ok := t.at(t.byID, invocationKey(invocation)); ok && s.invocation == invocation && (s.attempt > 1 || attempt > 1) {
			return s, true
		}
	}
	return seen{}, false
}

// FindRepeat gives the stored batch of a request, if the shard has one that is
// committed. Kinds: NotLeader, NotFound; Unavailable while that isn't known, or
// the batch is not committed yet; those of a read.
func (r *Replica) FindRepeat(request, invocation [16]byte, attempt uint16) (stream.Batch, error) {
	const op = "replica.FindRepeat"
	s, err := r.findCommitted(op, request, invocation, attempt)
	if err != nil {
		return nil, err
	}
	batches, err := r.log.Read(s.base, s.end, int(s.length))
	if err != nil {
		return nil, err
	}
	if len(batches) == 0 || batches[0].Base() != s.base {
		return nil, stream.Errorf(stream.NotFound, op, "the batch at offset %d has expired", s.base)
	}
	return batches[0], nil
}

func (r *Replica) findCommitted(op string, request, invocation [16]byte, attempt uint16) (seen, error) {
	r.mu.Lock()
	defer r.unlock()
	if r.role != leading {
		return seen{}, stream.Errorf(stream.NotLeader, op, "this node does not lead shard %s", r.key.Shard)
	}
	s, found := r.repeats.findRequest(request, invocation, attempt)
	switch {
	case !found && r.repeats.from > 0:
		return s, stream.Errorf(stream.Unavailable, op, "shard %s is still reading back which requests it has seen", r.key.Shard)
	case !found:
		return s, stream.Errorf(stream.NotFound, op, "shard %s has nothing of the request", r.key.Shard)
	case s.end > r.hw:
		return s, stream.Errorf(stream.Unavailable, op, "what shard %s has of the request is not committed yet", r.key.Shard)
	}
	return s, nil
}

// Restore reads back what the log held of the last minutes when the process
// began, so that repeats of it are known. It reads from the disk: not for a
// goroutine that others wait for. Until it is done a leader refuses what may be
// a repeat as Unavailable.
func (r *Replica) Restore() error {
	r.mu.Lock()
	from := r.repeats.from
	r.unlock()
	if from == 0 {
		return nil
	}
	var old []seen
	at, err := r.log.FindTime(r.env.Now() - repeatWindow.Milliseconds())
	for err == nil && at < from {
		var batches []stream.Batch
		if batches, err = r.log.Read(at, from, readStep); err != nil || len(batches) == 0 {
			break
		}
		for _, b := range batches {
			if b.RequestID() != [16]byte{} || b.InvocationID() != [16]byte{} {
				old = append(old, describe(b))
			}
			at = b.End()
		}
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.unlock()
	r.repeats.restore(old)
	return nil
}
