package gateway

import (
	"container/list"
	"context"
	"sync"

	"shardstream/stream"
)

// budget bounds the bytes of bodies in memory over all requests. Who asks for
// more than is left waits its turn, first come first served.
type budget struct {
	size int64 // set once

	mu struct {
		sync.Mutex
		used    int64
		waiters list.List // of *budgetWaiter
	}
}

type budgetWaiter struct {
	n     int64
	ready chan struct{} // closed when n has been taken for it
}

func newBudget(size int64) *budget { return &budget{size: size} }

// tryAcquire takes n bytes if they are to be had at once.
func (b *budget) tryAcquire(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.waiters.Len() > 0 || b.mu.used+n > b.size {
		return false
	}
	b.mu.used += n
	return true
}

// acquire takes n bytes, which must not be more than the whole. It fails with
// Kind Throttled when ctx ends first.
func (b *budget) acquire(ctx context.Context, n int64) error {
	b.mu.Lock()
	if b.mu.waiters.Len() == 0 && b.mu.used+n <= b.size {
		b.mu.used += n
		b.mu.Unlock()
		return nil
	}
	w := &budgetWaiter{n: n, ready: make(chan struct{})}
	place := b.mu.waiters.PushBack(w)
	b.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.ready: // it came at the same moment
		b.mu.used -= n
	default:
		b.mu.waiters.Remove(place)
	}
	b.wakeLocked()
	return stream.Errorf(stream.Throttled, "gateway.budget", "%d bytes of bodies are in flight", b.mu.used)
}

// release gives n bytes back.
func (b *budget) release(n int64) {
	b.mu.Lock()
	b.mu.used -= n
	b.wakeLocked()
	b.mu.Unlock()
}

func (b *budget) wakeLocked() {
	for e := b.mu.waiters.Front(); e != nil; e = b.mu.waiters.Front() {
		w := e.Value.(*budgetWaiter)
		if b.mu.used+w.n > b.size {
			return
		}
		b.mu.used += w.n
		b.mu.waiters.Remove(e)
		close(w.ready)
	}
}

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.used
}
