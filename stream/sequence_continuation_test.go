package stream

import (
	"testing"

	"pgregory.net/rapid"
)

// TestContinuationSequence: it lies behind the records below its offset and before
// the one there, and rises with time.
func TestContinuationSequence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shard := rapid.Uint32().Draw(t, "shard")
		seconds := rapid.Int64Range(0, maxCreated-1)
		created, next := seconds.Draw(t, "created"), Offset(rapid.Uint64Range(0, MaxCounter-2).Draw(t, "next"))
		now := seconds.Draw(t, "now")
		n := ContinuationSequence(shard, created, next, now).String()
		p, err := ParseSequence(n)
		if err != nil || p.SequenceNumber != ContinuationSequence(shard, created, next, now) || p.Version != 2 {
			t.Fatalf("%s: %+v, %v", n, p, err)
		}
		if next > 0 {
			if r := RecordSequence(shard, created, next-1, seconds.Draw(t, "before")).String(); r >= n {
				t.Errorf("record %s is not before %s", r, n)
			}
		}
		if r := RecordSequence(shard, created, next, seconds.Draw(t, "behind")).String(); r <= n {
			t.Errorf("record %s is not behind %s", r, n)
		}
		if later := ContinuationSequence(shard, created, next, now+1).String(); later <= n {
			t.Errorf("%s a second after %s", later, n)
		}
		if end := EndSequence(shard, created, now).String(); end <= n {
			t.Errorf("%s is behind the end of the shard", n)
		}
	})
}
