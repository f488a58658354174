package recordlog

import (
	"errors"
	"time"

	"shardstream/stream"
)

// scrubStep is read between two looks at the clock, bytes.
const scrubStep = 1 << 20

// runScrub reads all segments again and again, slowly, so that a bit that
// flips in data nobody reads is found while other copies are still good.
func (l *Log) runScrub(stop <-chan struct{}) {
	for {
		if !l.scrub(stop) {
			return
		}
		l.counters.scrubRounds.Add(1)
		select {
		case <-stop:
			return
		case <-time.After(l.cfg.ScrubInterval):
		}
	}
}

// scrub makes one round; it gives false when it was stopped.
func (l *Log) scrub(stop <-chan struct{}) bool {
	pace := time.NewTimer(0)
	defer pace.Stop()
	wait := func(bytes int64) bool {
		pace.Reset(time.Duration(float64(bytes) / float64(l.cfg.ScrubRate) * float64(time.Second)))
		select {
		case <-stop:
			return false
		case <-pace.C:
			return true
		}
	}
	for _, r := range l.Replicas() {
		r.mu.Lock()
		segs, gen := append([]segment(nil), r.segs...), r.gen
		r.mu.Unlock()
		for _, s := range segs {
			damage, ok := l.scrubSegment(r.key, s, wait)
			if !ok {
				return false
			}
			if len(damage) > 0 && r.unchanged(gen, s) {
				l.foundDamage(r, damage)
			}
		}
	}
	return true
}

func (l *Log) scrubSegment(key stream.ReplicaKey, s segment, wait func(int64) bool) (damage []Damage, ok bool) {
	f, err := l.fs.Open(l.segmentPath(key, s.base), ReadOnly)
	if err != nil {
		return l.openDamage(key, s, err), true
	}
	damage, ok, err = scrubFile(f, key, s, func(bytes int64) bool {
		l.counters.scrubbedBytes.Add(bytes)
		return wait(bytes)
	})
	for i := range damage {
		damage[i].File = l.segmentPath(key, s.base)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		damage = append(damage, l.damageIn(key, s, stream.OffsetRange{Start: s.base, End: s.end}, 0, err.Error()))
	}
	return damage, ok
}

// scrubFile verifies every batch of a segment and gives what is lost. pace is
// called after each scrubStep and stops the walk by false.
func scrubFile(f File, key stream.ReplicaKey, s segment, pace func(bytes int64) bool) (damage []Damage, ok bool, err error) {
	sc := newScanner(f, key, s)
	sc.reuse = true
	last, afterMs := sc.pos, int64(0)
	for {
		step, err := sc.step()
		if err != nil {
			lost := stream.OffsetRange{Start: sc.next, End: s.end}
			return append(damage, Damage{Key: key, Range: lost, Pos: sc.pos, Reason: err.Error(), AfterMs: afterMs, BeforeMs: s.lastMs}), true, nil
		}
		if step.lost.Start < step.lost.End {
			d := Damage{Key: key, Range: step.lost, Pos: step.pos, Reason: step.reason, AfterMs: afterMs, BeforeMs: s.lastMs}
			if step.batch != nil {
				d.BeforeMs = step.batch.Arrival()
			}
			damage = append(damage, d)
		}
		if step.batch == nil || sc.pos-last >= scrubStep {
			if !pace(sc.pos - last) {
				return damage, false, nil
			}
			last = sc.pos
		}
		if step.batch == nil {
			return damage, true, nil
		}
		afterMs = step.batch.Arrival()
	}
}
