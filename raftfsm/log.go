package raftfsm

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// newHclog gives raft a logger that ends in slog. Raft is talkative about what
// is ordinary, above all where elections are part of each start (quiet).
func newHclog(to *slog.Logger, quiet bool) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(&sink{to, quiet})
	return l
}

type sink struct {
	to    *slog.Logger
	quiet bool
}

// Accept is part of hclog.SinkAdapter.
func (s *sink) Accept(name string, level hclog.Level, msg string, args ...any) {
	at := slog.LevelDebug
	switch {
	case level >= hclog.Error:
		at = slog.LevelWarn
	case level == hclog.Warn && strings.Contains(msg, "using fallback address"):
		// Asked at each dial; the address from the raft log is good enough.
	case level == hclog.Warn && !s.quiet:
		at = slog.LevelInfo
	}
	s.to.Log(context.Background(), at, msg, append([]any{"part", name}, args...)...)
}
