package replica

import "shardstream/stream"

// Watch is a reader that waits for a shard to have something new for it. It
// waits at one replica at a time, whose memory is all that it costs there.
type Watch struct {
	// C gets a value, or has one already, when it is time to look again.
	C chan struct{}

	place int // in the replica's list, plus one; 0: it does not wait. Guarded by the replica's mu.
}

// NewWatch makes a watch that does not wait yet.
func NewWatch() *Watch { return &Watch{C: make(chan struct{}, 1)} }

// Await reports whether something is committed from the offset on. If not, w
// waits: it is told once when the high watermark moves, the metadata says
// something new of the shard, or this replica no longer leads. Kinds: NotLeader.
func (r *Replica) Await(w *Watch, from stream.Offset) (bool, error) {
	r.mu.Lock()
	defer r.unlock()
	switch {
	case r.role != leading:
		return false, stream.Errorf(stream.NotLeader, "replica.Await", "this node does not lead shard %s", r.key.Shard)
	case r.hw > from:
		return true, nil
	case w.place == 0:
		r.watches = append(r.watches, w)
		w.place = len(r.watches)
	}
	return false, nil
}

// Forget ends the waiting of w, if it waits here.
func (r *Replica) Forget(w *Watch) {
	r.mu.Lock()
	defer r.unlock()
	i := w.place - 1
	if i < 0 || i >= len(r.watches) || r.watches[i] != w {
		return
	}
	last := len(r.watches) - 1
	r.watches[i] = r.watches[last]
	r.watches[i].place = i + 1
	r.watches[last] = nil
	r.watches = r.watches[:last]
	w.place = 0
}

// wakeWatches lets those who wait look again, once the lock is free.
func (r *Replica) wakeWatches() {
	for _, w := range r.watches {
		w.place = 0
	}
	r.woken = append(r.woken, r.watches...)
	r.watches = nil
}

// Watches counts those who wait.
func (r *Replica) Watches() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.watches)
}
