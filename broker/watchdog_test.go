package broker

import (
	"testing"
	"time"
)

func TestWatchdogKnowsAStopFromAStall(t *testing.T) {
	for _, c := range []struct {
		name            string
		stopped         time.Duration // the process, while a call is under way
		hangs           time.Duration // the disk, from then on
		stalled, failed bool
	}{
		{"a disk that is quick", 0, 0, false, false},
		{"a short stall", 0, 3 * time.Second, true, false},
		{"a disk that hangs", 0, 12 * time.Second, true, true},
		{"a process that was stopped", time.Minute, 0, false, false},
		{"a process that was stopped, and the disk hangs then", time.Minute, 12 * time.Second, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			began, failed := now, false
			under := true
			w := &watchdog{fail: func(error) { failed = true }, stalledFor: func() time.Duration {
				if !under {
					return 0
				}
				return now.Sub(began)
			}}
			w.look(now)
			now = now.Add(c.stopped)
			w.look(now)
			stalled := false
			for end := now.Add(c.hangs); now.Before(end); {
				now = now.Add(watchdogEvery)
				w.look(now)
				stalled = stalled || w.stalled()
			}
			under = false
			now = now.Add(watchdogEvery)
			w.look(now)
			if stalled != c.stalled || failed != c.failed || w.stalled() {
				t.Errorf("stalled %v, failed %v, afterwards %v", stalled, failed, w.stalled())
			}
		})
	}
}
