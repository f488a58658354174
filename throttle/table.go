package throttle

import "time"

// Idler is state that may be forgotten once it is idle.
type Idler[V any] interface {
	*V
	Idle(now time.Duration) bool
}

// minSweep is the fewest looks into a table between two sweeps.
const minSweep = 1024

// Table has the state of whatever was busy lately, by its key. What has become
// idle is forgotten, so that it holds little more than what was busy since the
// last minSweep looks. Not for concurrent use.
type Table[K comparable, V any, P Idler[V]] struct {
	states map[K]P
	looks  int // since the last sweep
}

// At gives the state of a key; it is good until the next call.
func (t *Table[K, V, P]) At(key K, now time.Duration) P {
	if t.looks++; t.looks > max(minSweep, len(t.states)) {
		t.looks = 0
		for k, s := range t.states {
			if s.Idle(now) {
				delete(t.states, k)
			}
		}
	}
	s := t.states[key]
	if s == nil {
		if t.states == nil {
			t.states = make(map[K]P)
		}
		s = P(new(V))
		t.states[key] = s
	}
	return s
}

// Len gives the number of states that are kept.
func (t *Table[K, V, P]) Len() int { return len(t.states) }
