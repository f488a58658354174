package gateway

import (
	"fmt"
	"testing"

	"shardstream/stream"
)

// The records of the benchmarks have 1 KiB, and are all of one shard.
const benchSize = 1024

// benchPut gives a put of so many records, routed, encrypted or not, and what it
// takes to build it.
func benchPut(b *testing.B, records int, encrypted bool) (*put, *call, *streamView) {
	e := newEnv(b, withProvider(&testProvider{}))
	e.create("s", 1)
	if encrypted {
		e.encrypt("s", "k")
	}
	c := &call{g: e.g, waiting: b.Context()}
	m := e.g.meta.load()
	v := m.byName["s"]
	p := new(put)
	for i := range records {
		p.add(fmt.Sprintf("partition-key-%d", i), nil, make([]byte, benchSize))
	}
	if failure := p.prepare(v); failure != nil {
		b.Fatal(failure)
	}
	if failure := c.takeKey(p, m, v, ""); failure != nil {
		b.Fatal(failure)
	}
	p.route(v)
	return p, c, v
}

func benchBoth(b *testing.B, run func(b *testing.B, records int, encrypted bool)) {
	for _, records := range []int{1, 500} {
		for _, encrypted := range []bool{false, true} {
			kind := "plain"
			if encrypted {
				kind = "encrypted"
			}
			b.Run(fmt.Sprintf("%dx1KiB/%s", records, kind), func(b *testing.B) {
				b.SetBytes(int64(records * benchSize))
				b.ReportAllocs()
				run(b, records, encrypted)
			})
		}
	}
}

// BenchmarkBuild makes the batch of a put.
func BenchmarkBuild(b *testing.B) {
	benchBoth(b, func(b *testing.B, records int, encrypted bool) {
		p, c, v := benchPut(b, records, encrypted)
		b.ResetTimer()
		for b.Loop() {
			if err := p.build(c, v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkChoose checks and decrypts what a get was given.
func BenchmarkChoose(b *testing.B) {
	benchBoth(b, func(b *testing.B, records int, encrypted bool) {
		p, c, v := benchPut(b, records, encrypted)
		if err := p.build(c, v); err != nil {
			b.Fatal(err)
		}
		batch := p.groups[0].batch
		batch.Stamp(1, 0, 1)
		m := c.g.meta.load()
		decrypt := func(x stream.Batch) (stream.Batch, error) { return c.g.decrypt(c.ctx(), m, v, x) }
		batches := [][]byte{batch}
		b.ResetTimer()
		for b.Loop() {
			if run, err := choose(batches, 0, maxReadRecords, maxReadBytes, decrypt); err != nil || run.records != records {
				b.Fatal(run.records, err)
			}
		}
	})
}
