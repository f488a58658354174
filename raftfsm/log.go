package raftfsm

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// newHclog gives raft a logger that ends in slog. Raft is talkative about what
// is ordinary, above all where elections are part of each start (quiet).
func newHclog(to *slog.Logger, quiet bool) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(&sink{to: to, quiet: quiet, told: make(map[string]time.Time), now: time.Now})
	return l
}

type sink struct {
	to    *slog.Logger
	quiet bool
	now   func() time.Time

	mu   sync.Mutex
	told map[string]time.Time // when a warning was let through last
}

// tellAgain is after how long a warning is let through again: raft repeats those
// of a peer that is down several times a second. maxTold bounds what is kept.
const (
	tellAgain = time.Minute
	maxTold   = 256
)

// news tells whether a warning was not let through lately. What names the peer
// tells warnings apart, the error's details do not.
func (s *sink) news(msg string, args []any) bool {
	key := msg
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "peer" || args[i] == "server-id" {
			key += fmt.Sprint(" ", args[i+1])
		}
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.told[key]; ok && now.Sub(at) < tellAgain {
		return false
	}
	if len(s.told) >= maxTold {
		clear(s.told)
	}
	s.told[key] = now
	return true
}

// Accept is part of hclog.SinkAdapter.
func (s *sink) Accept(name string, level hclog.Level, msg string, args ...any) {
	at := slog.LevelDebug
	switch {
	case level >= hclog.Error:
		if s.news(msg, args) {
			at = slog.LevelWarn
		}
	case level == hclog.Warn && strings.Contains(msg, "using fallback address"):
		// Asked at each dial; the address from the raft log is good enough.
	case level == hclog.Warn && !s.quiet:
		if s.news(msg, args) {
			at = slog.LevelInfo
		}
	}
	s.to.Log(context.Background(), at, msg, append([]any{"part", name}, args...)...)
}
