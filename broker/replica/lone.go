package replica

import (
	"sync"

	"shardstream/stream"
)

// LeaderLog is what replication needs of a replica's record log.
// *recordlog.Replica implements it.
type LeaderLog interface {
	// Append stores a stamped batch that begins at End, takes its bytes over,
	// and calls done once it is durable or has failed. Not to be called
	// concurrently.
	Append(b stream.Batch, done func(error)) error
	Start() stream.Offset
	End() stream.Offset
	DurableEnd() stream.Offset
	LastArrival() int64
	Read(from, limit stream.Offset, maxBytes int) ([]stream.Batch, error)
	FindTime(ms int64) (stream.Offset, error)
	TrimBefore(ms int64, limit stream.Offset) stream.Offset
}

// Leader serves one shard in one epoch. Its methods may be called concurrently.
type Leader struct {
	// Set once.
	log   LeaderLog
	epoch stream.Epoch
	now   func() int64

	// mu orders appends: offsets are handed out and given to the log in one step.
	mu sync.Mutex
}

// NewLeader gives the leader of a shard in an epoch that the log has durably
// adopted, for the first time in this process (I4, I6). now gives Unix
// milliseconds.
func NewLeader(log LeaderLog, epoch stream.Epoch, now func() int64) *Leader {
	return &Leader{log: log, epoch: epoch, now: now}
}

// Epoch gives the epoch in which this leader serves.
func (l *Leader) Epoch() stream.Epoch { return l.epoch }

// Append stamps the batch with the next offset, the arrival time (ms), the
// epoch and the checksum, and gives it to the log. It returns the offset of the
// batch's first record and the arrival time at once; done is called when the
// batch is committed (nil) or has failed. When Append itself fails, done is not
// called. The bytes belong to the log from the call on.
//
// Arrival times never decrease in a shard (I20), whatever the clock does.
func (l *Leader) Append(b stream.Batch, done func(error)) (stream.Offset, int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	base, arrival := l.log.End(), max(l.now(), l.log.LastArrival())
	b.Stamp(l.epoch, base, arrival)
	if err := l.log.Append(b, done); err != nil {
		return 0, 0, err
	}
	return base, arrival, nil
}

// HighWatermark gives the offset after the last committed record.
func (l *Leader) HighWatermark() stream.Offset { return l.log.DurableEnd() }

// Start gives the oldest visible offset after expiring all that arrived before
// the cutoff (Unix ms).
func (l *Leader) Start(cutoff int64) stream.Offset { return l.log.TrimBefore(cutoff, ^stream.Offset(0)) }

// LeaderRead is what a read found.
type LeaderRead struct {
	Batches       []stream.Batch
	Start         stream.Offset // oldest visible offset
	HighWatermark stream.Offset
	LastArrival   int64 // of the newest record, Unix ms; 0 if there was never one
}

// leaderReadStep bounds what one look into the log fetches, so that a read for few
// records does not fetch megabytes.
const leaderReadStep = 1 << 20

// Read gives whole batches from the offset on, until they hold maxRecords
// records or maxBytes bytes, at least one if there is any. An offset below the
// visible start is moved there; one above the high watermark gives no batches,
// which is never an error (design section 8).
func (l *Leader) Read(from stream.Offset, cutoff int64, maxRecords, maxBytes int) (LeaderRead, error) {
	r := LeaderRead{Start: l.Start(cutoff), HighWatermark: l.HighWatermark(), LastArrival: l.log.LastArrival()}
	from = max(from, r.Start)
	for from < r.HighWatermark && maxRecords > 0 && (maxBytes > 0 || len(r.Batches) == 0) {
		batches, err := l.log.Read(from, r.HighWatermark, min(maxBytes, leaderReadStep))
		if err != nil {
			return LeaderRead{}, err
		}
		if len(batches) == 0 {
			break // only a hole that was given up lies behind
		}
		for _, b := range batches {
			if len(r.Batches) > 0 && (maxBytes < len(b) || maxRecords <= 0) {
				return r, nil
			}
			r.Batches = append(r.Batches, b)
			maxBytes -= len(b)
			maxRecords -= int(b.End() - max(from, b.Base()))
			from = b.End()
		}
	}
	return r, nil
}

// FindTime gives the first visible offset that arrived at or after the time
// (Unix ms), or the high watermark if there is none.
func (l *Leader) FindTime(ms, cutoff int64) (stream.Offset, error) {
	o, err := l.log.FindTime(ms)
	if err != nil {
		return 0, err
	}
	return min(max(o, l.Start(cutoff)), l.HighWatermark()), nil
}
