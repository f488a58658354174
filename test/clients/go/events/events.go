// Package events is what the consumers in Go have in common: they say on the
// standard output what they do, in the words of ../java/kcl's Worker, and end
// with their standard input.
package events

import (
	"fmt"
	"io"
	"os"
	"sync"
)

var mu sync.Mutex

// Record says that a record was processed.
func Record(shard, number, key string, data []byte) {
	say("record %s %s 0 %s %s\n", shard, number, key, data)
}

// Leased says that the work on a shard begins.
func Leased(shard string) { say("leased %s\n", shard) }

// Ended says that a shard's end was reached.
func Ended(shard string) { say("ended %s\n", shard) }

// Lost says that a shard is left before its end.
func Lost(shard string) { say("lost %s\n", shard) }

// say writes a line, whole: several shards are worked on at once.
func say(format string, args ...any) {
	mu.Lock()
	defer mu.Unlock()
	fmt.Printf(format, args...)
}

// AwaitEnd waits for the end of the standard input.
func AwaitEnd() { _, _ = io.Copy(io.Discard, os.Stdin) } // an error is an end too
