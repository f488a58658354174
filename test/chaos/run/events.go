package run

import (
	"fmt"
	"sync"
	"time"
)

// Event is something that was done to the cluster.
type Event struct {
	At         time.Duration // since the episode's start
	What, Whom string
	Led        []string // shards that it led, of a kill or pause
}

// Events is the list of an episode. Its methods may be called from any goroutine.
type Events struct {
	started time.Time
	tell    func(string) // each event, as it happens; may be nil

	mu   sync.Mutex
	list []Event
}

// Add notes an event that happens now.
func (e *Events) Add(what, whom string, led ...string) {
	at := time.Since(e.started)
	e.mu.Lock()
	e.list = append(e.list, Event{at, what, whom, led})
	e.mu.Unlock()
	if e.tell != nil {
		e.tell(fmt.Sprintf("%7.2fs  %s: %s", at.Seconds(), what, whom))
	}
}

// All gives the events so far.
func (e *Events) All() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Event(nil), e.list...)
}
