// Package history records what clients were told while they put, and checks it
// against what is read afterwards.
//
// It knows no client and no server: tests tell it what happened. The invariant
// it keeps: whatever was acknowledged is accounted for, so that a loss can't
// hide behind a test that forgot a record.
package history

import (
	"fmt"
	"sort"
	"sync"
)

// Place is where a record is.
type Place struct{ ShardID, SequenceNumber string }

// Read is one record as a reader got it.
type Read struct {
	Place
	Key, Value string
}

// put is one value's fate. A value is put under one key and is unique.
type put struct {
	key      string
	number   int // among the puts of its key, in the order of their first attempt
	attempts int // whose outcome is not a refusal
	acks     []Place
}

// History is what happened to the puts of any number of writers. All methods
// may be called from any goroutine.
type History struct {
	mu   sync.Mutex
	puts map[string]*put
	next map[string]int // by key
}

// New makes an empty history.
func New() *History { return &History{puts: map[string]*put{}, next: map[string]int{}} }

// Attempt says that the value is about to be put under the key. Puts of one key
// must not overlap, except for repeats of one value.
func (h *History) Attempt(key, value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.puts[value]
	if p == nil {
		p = &put{key: key, number: h.next[key]}
		h.next[key]++
		h.puts[value] = p
	}
	p.attempts++
}

// Acknowledged says that an attempt succeeded.
func (h *History) Acknowledged(value string, at Place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.puts[value]
	p.acks = append(p.acks, at)
}

// Refused says that an attempt certainly stored nothing.
func (h *History) Refused(value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.puts[value].attempts--
}

// Counts gives how many values were acknowledged, and of how many the outcome
// is unknown.
func (h *History) Counts() (acknowledged, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.puts {
		switch {
		case len(p.acks) > 0:
			acknowledged++
		case p.attempts > 0:
			unknown++
		}
	}
	return acknowledged, unknown
}

// Check compares the history with what one reader got, in the order in which
// it got it, shard after shard. It gives every violation found:
//   - an acknowledged record is there, at the place that was acknowledged, with
//     the key it was put under;
//   - nothing is there more often than it was attempted, and nothing that was
//     refused or never put;
//   - in a shard, sequence numbers rise;
//   - for one key, the records come in the order of their puts. A value that
//     was attempted again counts by its first place.
//
// Children of a shard must follow their parents in reads.
func (h *History) Check(reads []Read) (violations []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	bad := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }

	places := map[string][]Place{}   // by value
	lastNumber := map[string]int{}   // by key: number of the last value first seen
	lastSeq := map[string]string{}   // by shard
	lastValue := map[string]string{} // by key
	for _, r := range reads {
		if last, ok := lastSeq[r.ShardID]; ok && !Less(last, r.SequenceNumber) {
			bad("%s: sequence number %s is read after %s", r.ShardID, r.SequenceNumber, last)
		}
		lastSeq[r.ShardID] = r.SequenceNumber
		p := h.puts[r.Value]
		switch {
		case p == nil:
			bad("%q at %s was never put", r.Value, r.Place)
			continue
		case p.key != r.Key:
			bad("%q was put under key %q and is read under %q", r.Value, p.key, r.Key)
		}
		places[r.Value] = append(places[r.Value], r.Place)
		if len(places[r.Value]) > 1 {
			continue
		}
		if last, ok := lastNumber[r.Key]; ok && p.number < last {
			bad("key %q: %q is read after %q, which was put later", r.Key, r.Value, lastValue[r.Key])
		}
		lastNumber[r.Key], lastValue[r.Key] = p.number, r.Value
	}
	for value, p := range h.puts {
		found := places[value]
		if len(found) > p.attempts {
			bad("%q was attempted %d times and is there %d times: %v", value, p.attempts, len(found), found)
		}
		for _, ack := range p.acks {
			if !contains(found, ack) {
				bad("%q was acknowledged at %s, and is read at %v", value, ack, found)
			}
		}
	}
	sort.Strings(violations)
	return violations
}

// String gives "shard sequence-number".
func (p Place) String() string { return p.ShardID + " " + p.SequenceNumber }

// Less compares sequence numbers as whole numbers.
func Less(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

func contains(places []Place, p Place) bool {
	for _, q := range places {
		if p == q {
			return true
		}
	}
	return false
}
