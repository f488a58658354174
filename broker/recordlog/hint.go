package recordlog

import "shardstream/stream"

// The high watermark that a replica keeps is a hint: it lowers what a new
// leader has to wait for, and lets a replica refuse a cut that must be wrong
// (I7). It decides nothing, so it costs no write: it goes with the next frame
// that is written anyway, and with checkpoints.

// maxHints bounds the hints in one frame.
const maxHints = 512

// SetHW notes the high watermark. It goes up only, but for cuts.
func (r *Replica) SetHW(o stream.Offset) {
	r.mu.Lock()
	if o <= r.hw || r.dropped {
		r.mu.Unlock()
		return
	}
	r.hw = o
	queue := !r.hinted
	r.hinted = true
	r.mu.Unlock()
	if queue {
		r.log.queueMu.Lock()
		r.log.hintQueue = append(r.log.hintQueue, r)
		r.log.queueMu.Unlock()
	}
}

// HW gives the high watermark as far as it is known, never above DurableEnd:
// after a restart what reached the disk of it.
func (r *Replica) HW() stream.Offset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hwLocked()
}

func (r *Replica) hwLocked() stream.Offset { return max(r.start, min(r.hw, r.durable)) }

// addHints puts high watermarks into the frame that is about to be written.
func (j *journal) addHints() {
	l := j.log
	l.queueMu.Lock()
	n := min(len(l.hintQueue), maxHints)
	rs := append(j.hints[:0], l.hintQueue[:n]...)
	rest := copy(l.hintQueue, l.hintQueue[n:])
	clear(l.hintQueue[rest:])
	l.hintQueue = l.hintQueue[:rest]
	l.queueMu.Unlock()
	for _, r := range rs {
		r.mu.Lock()
		r.hinted = false
		if hw := min(r.hw, r.durable); hw > r.start && !r.dropped {
			// Under the lock, so that it stands before or behind a cut in the
			// journal as it does in memory.
			j.pushQuietly(op{key: r.key, typ: entryHW, base: hw})
		}
		r.mu.Unlock()
	}
	clear(rs)
	j.hints = rs[:0]
}

// hintsOnly reports whether nothing in the frame has to be durable.
func (f *frameBuf) hintsOnly() bool {
	for i := range f.ops {
		if t := f.ops[i].typ; t != entryHW && t != 0 {
			return false
		}
	}
	return true
}
