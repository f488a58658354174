package recordlog

import (
	"fmt"
	"log/slog"
	"slices"
	"sort"

	"shardstream/stream"
)

// Damage is a part of a replica's log that the disk has lost.
type Damage struct {
	Key    stream.ReplicaKey
	Range  stream.OffsetRange // the records that are lost, or may be
	File   string             // where it was seen
	Pos    int64              // in the file, bytes
	Reason string
	// The lost records arrived between these times, Unix ms; 0 is not known.
	AfterMs, BeforeMs int64
}

// String gives one line for people.
func (d Damage) String() string {
	return fmt.Sprintf("replica %s lost records %s: %s at byte %d: %s", d.Key, d.Range, d.File, d.Pos, d.Reason)
}

func (d *Damage) err() error {
	return stream.Errorf(stream.Corrupt, "recordlog.Read", "%s", d.String())
}

func (l *Log) damageIn(key stream.ReplicaKey, s segment, lost stream.OffsetRange, pos int64, reason string) Damage {
	return Damage{
		Key: key, Range: lost, File: l.segmentPath(key, s.base), Pos: pos, Reason: reason,
		AfterMs: s.firstMs, BeforeMs: s.lastMs,
	}
}

// openDamage is that of a segment that can't be opened because it is missing.
func (l *Log) openDamage(key stream.ReplicaKey, s segment, err error) []Damage {
	if ignoreMissing(err) != nil {
		return nil
	}
	return []Damage{l.damageIn(key, s, stream.OffsetRange{Start: s.base, End: s.end}, 0, "the file is missing")}
}

func (r *Replica) damageAtLocked(o stream.Offset) *Damage {
	for i := range r.damage {
		if d := r.damage[i].Range; d.Start <= o && o < d.End {
			return &r.damage[i]
		}
	}
	return nil
}

// foundDamage records damage that was met outside of recovery, and tells who
// asked to be told. What was given up or trimmed is no damage any more.
func (l *Log) foundDamage(r *Replica, found []Damage) {
	var fresh []Damage
	r.mu.Lock()
	for _, d := range found {
		d.Range.Start = max(d.Range.Start, r.start)
		if d.Range.Start < d.Range.End && !known(d.Range, r.damage, r.holes) && !r.dropped {
			r.addDamageLocked(d)
			fresh = append(fresh, d)
		}
	}
	r.mu.Unlock()
	for _, d := range fresh {
		l.counters.damage.Add(1)
		l.logger.Error("stored records are damaged", slog.String("replica", r.key.String()),
			slog.String("records", d.Range.String()), slog.String("file", d.File), slog.Int64("pos", d.Pos), slog.String("reason", d.Reason))
		l.mu.RLock()
		told := l.told
		l.mu.RUnlock()
		for _, f := range told {
			f(d)
		}
	}
}

func (r *Replica) addDamageLocked(d Damage) {
	r.damage = append(r.damage, d)
	sort.SliceStable(r.damage, func(i, j int) bool { return r.damage[i].Range.Start < r.damage[j].Range.Start })
}

// Damage gives all damage that is known and was not given up, by replica and offset.
func (l *Log) Damage() (all []Damage) {
	for _, r := range l.Replicas() {
		r.mu.Lock()
		all = append(all, r.damage...)
		r.mu.Unlock()
	}
	return all
}

// OnDamage sets a function that is told of damage found from now on, by reads
// and the scrub. It must be quick, and may be called concurrently.
func (l *Log) OnDamage(f func(Damage)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(slices.Clip(l.told), f)
}

// GiveUp accepts the loss: the ranges become holes, durably, that reads skip.
func (l *Log) GiveUp(ds []Damage) error {
	var ops []op
	for _, d := range ds {
		r := l.Replica(d.Key)
		if r == nil {
			return stream.Errorf(stream.NotFound, "recordlog.GiveUp", "replica %s is not here", d.Key)
		}
		ops = append(ops, op{key: d.Key, typ: entryHole, base: d.Range.Start, end: d.Range.End, done: func(err error) {
			if err == nil {
				r.mu.Lock()
				r.giveUpLocked(d.Range)
				r.mu.Unlock()
			}
		}})
	}
	if len(ops) == 0 {
		return nil
	}
	return l.journal.do(ops...)
}

// giveUpLocked makes a range a hole, and what lies in it no damage any more.
func (r *Replica) giveUpLocked(hole stream.OffsetRange) {
	if !known(hole, nil, r.holes) {
		r.holes = append(r.holes, hole)
		sort.Slice(r.holes, func(i, j int) bool { return r.holes[i].Start < r.holes[j].Start })
	}
	r.damage = slices.DeleteFunc(r.damage, func(d Damage) bool { return known(d.Range, nil, r.holes) })
}
