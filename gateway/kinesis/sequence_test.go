package kinesis

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"shardstream/stream"
)

// The plain way is stream's; the fast one must print the same.
func TestSequenceWriterAgreesWithStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w sequenceWriter
		created := rapid.SliceOfN(rapid.Int64Range(0, 1<<36-1), 1, 3).Draw(t, "created")
		for range rapid.IntRange(1, 20).Draw(t, "numbers") {
			n := stream.SequenceNumber{
				Created: rapid.SampledFrom(created).Draw(t, "created"),
				Arrival: rapid.SampledFrom(created).Draw(t, "arrival"),
				Shard:   rapid.Uint32().Draw(t, "shard"),
				Counter: rapid.Uint64Range(0, stream.MaxCounter).Draw(t, "counter"),
			}
			if got, want := string(w.append(nil, n)), n.String(); got != want {
				t.Fatalf("%+v: got %s, want %s", n, got, want)
			}
			if got, want := string(appendShardDigits(nil, n.Shard)), fmt.Sprintf("%012d", n.Shard); got != want {
				t.Fatalf("shard: got %s, want %s", got, want)
			}
		}
	})
}

func TestEightDigits(t *testing.T) {
	// Every four-digit half, with both neighbours' extremes.
	for n := range uint64(10000) {
		for _, v := range [...]uint64{n, n * 10000, n*10000 + 9999, 99990000 + n} {
			var d [8]byte
			put8(d[:], v)
			if want := fmt.Sprintf("%08d", v); string(d[:]) != want {
				t.Fatalf("got %s, want %s", d[:], want)
			}
		}
	}
}
