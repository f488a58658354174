package raftfsm

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// The entry of a nudge changes no metadata, and no reader waits for one that does.
func TestReadsDoNotWaitBehindANudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, 3)
		for i := range c.nodes {
			c.open(i)
		}
		lead := c.leader()
		mustPropose(t, lead, initCmd(nil))
		mustPropose(t, lead, rejoin("a", "disk-a", 0))
		at := mustPropose(t, lead, fence("a", 1)).GetIndex()
		time.Sleep(300 * time.Millisecond) // of the bubble's time: the nudge is committed
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if index, err := lead.ReadIndex(ctx); err != nil || index != at {
			t.Errorf("index %d, %v; the last command is %d", index, err, at)
		}
		c.stopAll()
	})
}
