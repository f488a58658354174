package member

import (
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// translator carries memberlist's log lines into ours. Almost all are of
// interest only to whoever debugs gossip itself; joins, deaths and refusals are
// logged by this package in its own words. A few name an operator's mistake:
// these become one line a minute.
type translator struct {
	logger *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // by advice; a handful
}

// advices name what an operator can do, by what memberlist says.
var advices = []struct {
	seen   *regexp.Regexp
	advice string
}{
	{
		regexp.MustCompile(`invalid msgType|msg type .* not supported|Message type .* not supported|failed to receive: |Failed to decode|missing message type byte|packet too short`),
		"something that does not speak gossip talks to this node's gossip port: does it mean another port?",
	},
	{
		regexp.MustCompile(`[Dd]ecrypt|not encrypted|Encryption|is encrypted`),
		"gossip that can't be decrypted: all nodes of a cluster need the same gossip key",
	},
	{
		regexp.MustCompile(`over TCP but UDP probes failed`),
		"gossip's TCP gets through to a node, but its UDP does not: open the gossip port for UDP too",
	},
	{
		regexp.MustCompile(`Binding to public address without encryption`),
		"gossip listens on a public address without a key: whoever reaches it can read and write it",
	},
}

// Write takes one line, "[LEVEL] memberlist: text".
func (t *translator) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	for _, a := range advices {
		if !a.seen.MatchString(text) || strings.Contains(text, "failed to join") {
			continue
		}
		if t.due(a.advice) {
			t.logger.Warn(a.advice, "detail", withoutPrefix(text))
			return len(line), nil
		}
		break
	}
	t.logger.Debug("memberlist", "says", text)
	return len(line), nil
}

func (t *translator) due(advice string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last = make(map[string]time.Time)
	}
	now := time.Now()
	if now.Sub(t.last[advice]) < time.Minute {
		return false
	}
	t.last[advice] = now
	return true
}

func withoutPrefix(text string) string {
	_, rest, found := strings.Cut(text, "memberlist: ")
	if !found {
		return text
	}
	return rest
}
