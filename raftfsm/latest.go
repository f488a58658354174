package raftfsm

import "sync"

// latest is a value of which only the newest matters. Publishing never waits
// for a reader; a slow reader skips values.
type latest[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{} // closed when value is no longer the newest
}

func newLatest[T any](v T) *latest[T] { return &latest[T]{value: v, changed: make(chan struct{})} }

// load gives the value and the channel that closes when a newer one is there.
func (l *latest[T]) load() (T, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.changed
}

func (l *latest[T]) publish(v T) { l.update(func(T) T { return v }) }

// update publishes what f makes of the value. f must be quick.
func (l *latest[T]) update(f func(T) T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value = f(l.value)
	close(l.changed)
	l.changed = make(chan struct{})
}
