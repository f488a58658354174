// Package judge holds what clients did and saw against what a stream promises.
// It is pure: it knows no client and no server. Histories come from a run of
// test/chaos, or from a test that plants a fault to see it found.
//
// What it takes for granted: every value is put by the application once (an SDK
// may send it more often), and nothing is trimmed by retention while a run lasts.
package judge

import (
	"math/big"
	"time"
)

// Time is the time since a run's start, by one monotonic clock for all clients.
type Time = time.Duration

// Outcome is what a client knows of its put.
type Outcome int

// The outcomes.
const (
	Unknown      Outcome = iota // no answer, or one that says nothing: stored once or not at all
	Acknowledged                // stored at Place
	Refused                     // certainly not stored
)

// Place is where a record is.
type Place struct{ Shard, Sequence string }

// Put is a record that was put.
type Put struct {
	Key, Value       string
	Called, Returned Time
	Outcome          Outcome
	Place            Place // if Acknowledged
}

// Record is a record as a reader got it.
type Record struct {
	Sequence   string
	Key, Value string
	ArrivalMs  int64
	At         Time // when it was got
}

// From is where a reading begins.
type From int

// The beginnings.
const (
	TrimHorizon From = iota
	Latest
	AtSequence
	AfterSequence
	AtTimestamp
)

// Reading is what one reader got of one shard, from one beginning on, without a
// gap that it knows of.
type Reading struct {
	Reader, Shard string
	From          From
	Sequence      string // of AtSequence, AfterSequence
	TimestampMs   int64  // of AtTimestamp
	Started       Time   // when its beginning was asked for
	Records       []Record
	// CaughtUp is when it last heard that there was nothing further, as of that
	// call's beginning; 0 if never.
	CaughtUp Time
	// Final marks the readings that were made when everything was over, one of
	// each shard, to the very end: the truth that all others are held against.
	Final bool
}

// Shard is a shard as ListShards shows it at the end.
type Shard struct {
	ID      string
	Parents []string
}

// History is a run of one stream.
type History struct {
	Puts     []Put
	Readings []Reading
	Shards   []Shard
}

// Violation is a promise that was broken.
type Violation struct {
	Check string // which one: a word for tables
	Text  string
}

// Less compares sequence numbers as whole numbers.
func Less(a, b string) bool { return compare(a, b) < 0 }

func compare(a, b string) int {
	if len(a) == len(b) {
		switch {
		case a < b:
			return -1
		case a > b:
			return 1
		}
		return 0
	}
	x, okX := new(big.Int).SetString(a, 10)
	y, okY := new(big.Int).SetString(b, 10)
	if !okX || !okY { // no number at all: any order will do, it is reported elsewhere
		if a < b {
			return -1
		}
		return 1
	}
	return x.Cmp(y)
}
