package raftfsm

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRepeatedWarningsAreToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newHclog(slog.New(slog.NewTextHandler(&out, nil)), false)
		for i := range 100 {
			l.Error("failed to heartbeat to", "peer", "n2", "error", i)
			l.Error("failed to heartbeat to", "peer", "n3", "error", i)
		}
		if n := strings.Count(out.String(), "heartbeat"); n != 2 {
			t.Errorf("%d lines:\n%s", n, out.String())
		}
		time.Sleep(tellAgain)
		l.Error("failed to heartbeat to", "peer", "n2")
		if n := strings.Count(out.String(), "n2"); n != 2 {
			t.Errorf("%d lines after a minute:\n%s", n, out.String())
		}
	})
}
