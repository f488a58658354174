package raftfsm

import (
	"sync"
	"time"
)

// stallLimit is how long a call of the raft store may take before a leader
// falls silent, so that others elect.
const (
	stallLimit = time.Second
	stallTick  = 50 * time.Millisecond
)

// underway knows since when calls have been under way.
type underway struct {
	mu    sync.Mutex
	began map[*time.Time]struct{}
}

// begin notes a call; the answer ends it.
func (u *underway) begin() (end func()) {
	at := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.began == nil {
		u.began = make(map[*time.Time]struct{})
	}
	u.began[&at] = struct{}{}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.began, &at)
	}
}

// longest gives the time that the oldest call has been under way, 0 for none.
func (u *underway) longest() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	var longest time.Duration
	for at := range u.began {
		longest = max(longest, time.Since(*at))
	}
	return longest
}

// StoreStalled tells how long a call of the raft store has been under way, 0
// if there is none.
func (n *Node) StoreStalled() time.Duration { return n.store.calls.longest() }

// stallLoop mutes a leader whose disk hangs. Raft's heartbeats run on goroutines
// of their own, so that such a leader would be followed for ever.
func (n *Node) stallLoop() {
	ticker := time.NewTicker(stallTick)
	defer ticker.Stop()
	muted := false
	for {
		select {
		case <-ticker.C:
		case <-n.stopped:
			return
		}
		stalled := n.StoreStalled()
		r, _ := n.role.load()
		if want := stalled > stallLimit && (r.leading || muted); want != muted {
			muted = want
			n.layer.mute(muted)
			n.failure.cfg.Logger.Warn("the disk of the raft log", "stalled", stalled, "muted", muted)
		}
	}
}
