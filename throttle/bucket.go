// Package throttle judges rates: what still may pass, by what has passed
// before. It holds Kinesis's limits of a shard and keeps what was used of them.
// It is pure: times are handed in, and nothing waits here.
//
// The invariant: over any span of time t no more than Burst + PerSecond·t
// passes, and nothing is lost to rounding, so that what is refused would have
// been over the rate. Only what is charged after the fact (Overdraw) goes over
// the burst, and then nothing passes until it is made up for.
package throttle

import "time"

// Rate is a sustained rate and how much may come at once after a pause. Neither
// exceeds 1 GiB.
type Rate struct {
	PerSecond int64
	Burst     int64
}

// Bucket is what is used of one rate. The zero value is a full bucket. Times are
// those of a clock that never goes back; an earlier one counts as the latest.
//
// A token bucket and not a window of a second, as it has no borders at which
// twice the rate could pass, and no second in which a steady sender at the very
// rate is refused.
type Bucket struct {
	debt int64 // what is missing to a full bucket, in billionths; falls by PerSecond each nanosecond
	at   time.Duration
}

const billion = 1_000_000_000

func (b *Bucket) settle(r Rate, now time.Duration) {
	gone := now - b.at
	if gone <= 0 {
		return
	}
	b.at = now
	if int64(gone) > b.debt/r.PerSecond {
		b.debt = 0
		return
	}
	b.debt -= int64(gone) * r.PerSecond
}

// Take takes n if they are there, else nothing.
func (b *Bucket) Take(r Rate, now time.Duration, n int64) bool {
	b.settle(r, now)
	if b.debt+n*billion > r.Burst*billion {
		return false
	}
	b.debt += n * billion
	return true
}

// Overdraw takes n though they may not be there.
func (b *Bucket) Overdraw(r Rate, now time.Duration, n int64) {
	b.settle(r, now)
	b.debt += n * billion
}

// Used tells how much is missing to a full bucket, rounded up.
func (b *Bucket) Used(r Rate, now time.Duration) int64 {
	b.settle(r, now)
	return (b.debt + billion - 1) / billion
}

// Delay gives the time until no more than n are missing to a full bucket.
func (b *Bucket) Delay(r Rate, now time.Duration, n int64) time.Duration {
	b.settle(r, now)
	over := b.debt - n*billion
	if over <= 0 {
		return 0
	}
	return time.Duration((over + r.PerSecond - 1) / r.PerSecond)
}

// Full reports whether nothing is missing: the bucket may be forgotten.
func (b *Bucket) Full(r Rate, now time.Duration) bool {
	b.settle(r, now)
	return b.debt == 0
}
