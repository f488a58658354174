package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func anyRecord() *rapid.Generator[Record] {
	return rapid.Custom(func(t *rapid.T) Record {
		return Record{
			PartitionKey: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "key"),
			Data:         rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "data"),
			Ordinal:      rapid.Uint16().Draw(t, "ordinal"),
			ExplicitHash: rapid.Bool().Draw(t, "explicit"),
		}
	})
}

// id makes an id out of a byte.
func id(b byte) (v [16]byte) {
	for i := range v {
		v[i] = b
	}
	return v
}

func build(shard ShardID, records []Record) Batch {
	b := NewBatch(nil, shard, id(1), id(2), 3)
	for _, r := range records {
		b = b.AppendRecord(r)
	}
	FinishBatch(b, len(records))
	return b
}

func TestBatchSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shard := ShardID{StreamID(rapid.Uint64().Draw(t, "stream")), rapid.Uint32().Draw(t, "number")}
		records := rapid.SliceOfN(anyRecord(), 1, 6).Draw(t, "records")
		b := build(shard, records)
		if got, err := CheckUnstamped(b); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("unstamped: %v", err)
		}
		if _, err := CheckBatch(b); err == nil && b.CRC() != crc32.Checksum(b[12:], castagnoli) {
			t.Fatal("a batch without a checksum is accepted")
		}
		epoch, base := Epoch(rapid.Uint32().Draw(t, "epoch")), Offset(rapid.Uint64Range(0, 1<<62).Draw(t, "base"))
		arrival := rapid.Int64().Draw(t, "arrival")
		b.Stamp(epoch, base, arrival)

		// It is found at the head of whatever follows it.
		long := append(slices.Clone(b), rapid.SliceOf(rapid.Byte()).Draw(t, "behind")...)
		got, err := CheckBatch(long)
		if err != nil || !bytes.Equal(got, b) || cap(got) != len(b) {
			t.Fatalf("got %d bytes of %d, %v", len(got), len(b), err)
		}
		if n, err := PeekBatch(long); err != nil || n != len(b) {
			t.Fatalf("peek: %d, %v", n, err)
		}
		if got.Shard() != shard || got.Epoch() != epoch || got.Base() != base || got.Arrival() != arrival || got.Count() != len(records) ||
			got.End() != base+Offset(len(records)) || got.Attempt() != 3 || got.RequestID() != id(1) || got.InvocationID() != id(2) || got.Len() != len(b) {
			t.Fatalf("header: %x", []byte(got[:BatchHeaderSize]))
		}
		i := 0
		for o, r := range got.Records() {
			want := records[i]
			if o != base+Offset(i) || !bytes.Equal(r.PartitionKey, want.PartitionKey) || !bytes.Equal(r.Data, want.Data) || r.Ordinal != want.Ordinal || r.ExplicitHash != want.ExplicitHash {
				t.Fatalf("record %d: got %+v at %d, want %+v", i, r, o, want)
			}
			i++
		}
		if i != len(records) {
			t.Fatalf("%d records of %d", i, len(records))
		}
		for range got.Records() {
			break // stopping early is allowed
		}
	})
}

// TestEveryFlippedBitIsFound: no single bit of a stamped batch can change unseen.
func TestEveryFlippedBitIsFound(t *testing.T) {
	b := build(ShardID{1, 2}, []Record{{PartitionKey: []byte("key"), Data: []byte("data")}, {Data: []byte{0}, ExplicitHash: true}, {PartitionKey: []byte("k")}})
	b.Stamp(7, 1000, 1777320018123)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := CheckBatch(b); !errors.Is(err, Corrupt) {
				t.Errorf("byte %d, bit %d: %v", i, bit, err)
			}
			b[i] ^= 1 << bit
		}
	}
	if _, err := CheckBatch(b); err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if _, err := CheckBatch(b[:n]); !errors.Is(err, Corrupt) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

// TestBadRecordsAreFound: a batch whose checksum is right and whose records
// don't fill it is refused, stamped or not.
func TestBadRecordsAreFound(t *testing.T) {
	good := func() Batch {
		return build(ShardID{1, 2}, []Record{{PartitionKey: []byte("key"), Data: []byte("data")}, {Data: []byte("x")}})
	}
	first := BatchHeaderSize
	for name, spoil := range map[string]func(Batch) Batch{
		"no records":         func(b Batch) Batch { b = b[:first]; FinishBatch(b, 0); return b },
		"too few counted":    func(b Batch) Batch { FinishBatch(b, 1); return b },
		"too many counted":   func(b Batch) Batch { FinishBatch(b, 3); return b },
		"hugely many":        func(b Batch) Batch { FinishBatch(b, 1<<32-1); return b },
		"data too long":      func(b Batch) Batch { binary.LittleEndian.PutUint32(b[first:], 1<<32-1); return b },
		"data one longer":    func(b Batch) Batch { b[first]++; return b },
		"key one longer":     func(b Batch) Batch { b[first+4]++; return b },
		"unknown flags":      func(b Batch) Batch { b[first+8] = 2; return b },
		"bytes behind":       func(b Batch) Batch { b = append(b, 0); FinishBatch(b, 2); return b },
		"unknown version":    func(b Batch) Batch { b[12] = 2; return b },
		"magic":              func(b Batch) Batch { b[0]++; return b },
		"length below":       func(b Batch) Batch { binary.LittleEndian.PutUint32(b[4:], BatchHeaderSize-1); return b },
		"length above":       func(b Batch) Batch { binary.LittleEndian.PutUint32(b[4:], MaxBatchSize+1); return b },
		"length beyond":      func(b Batch) Batch { binary.LittleEndian.PutUint32(b[4:], uint32(len(b)+1)); return b },
		"cut in a header":    func(b Batch) Batch { b = b[:len(b)-6]; FinishBatch(b, 2); return b },
		"header of a record": func(b Batch) Batch { b = b[:first+4]; FinishBatch(b, 1); return b },
	} {
		b := spoil(good())
		if _, err := CheckUnstamped(b); !errors.Is(err, Invalid) {
			t.Errorf("%s, unstamped: %v", name, err)
		}
		b.Stamp(1, 0, 0)
		if _, err := CheckBatch(b); !errors.Is(err, Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := CheckUnstamped(append(good(), 0)); !errors.Is(err, Invalid) {
		t.Errorf("bytes behind an unstamped batch: %v", err)
	}
}

// TestLengthsCannotOverflow: lengths that together wrap around 32 bits are
// compared as what they are.
func TestLengthsCannotOverflow(t *testing.T) {
	if bits.UintSize < 64 {
		t.Skip("int has 32 bits")
	}
	b := build(ShardID{1, 2}, []Record{{PartitionKey: []byte("key"), Data: []byte("data")}})
	binary.LittleEndian.PutUint32(b[BatchHeaderSize:], 1<<32-RecordHeaderSize)
	b.Stamp(1, 0, 0)
	if _, err := CheckBatch(b); !errors.Is(err, Corrupt) {
		t.Error(err)
	}
}

func FuzzBatch(f *testing.F) {
	b := build(ShardID{1, 2}, []Record{{PartitionKey: []byte("key"), Data: []byte("data")}, {Data: []byte("x"), ExplicitHash: true}})
	b.Stamp(1, 2, 3)
	f.Add([]byte(b))
	aead := wideGCM(f, 7)
	encrypted := buildEncrypted(aead, ShardID{1, 2}, 3, []Record{{PartitionKey: []byte("key"), Data: []byte("data")}, {Data: []byte("x"), ExplicitHash: true}})
	encrypted.Stamp(1, 2, 3)
	f.Add([]byte(encrypted))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, BatchHeaderSize))
	f.Fuzz(func(t *testing.T, in []byte) {
		check := func(b Batch) {
			if b.Encrypted() {
				if n := len(slices.Collect(b.Ordinals())); n != b.Count() || b.RecordBytes() < n*RecordHeaderSize {
					t.Fatalf("%d ordinals of %d records of %d bytes", n, b.Count(), b.RecordBytes())
				}
				if _, err := b.Decrypt(nil, aead); err != nil && !errors.Is(err, Corrupt) {
					t.Fatal(err)
				}
				return
			}
			end, n := b.Base(), 0
			for o, r := range b.Records() {
				if o != end {
					t.Fatalf("offset %d, want %d", o, end)
				}
				end++
				n += RecordHeaderSize + len(r.PartitionKey) + len(r.Data)
			}
			if end != b.End() || n != len(b)-BatchHeaderSize {
				t.Fatalf("the records end at %d and have %d bytes", end, n)
			}
		}
		if b, err := CheckBatch(in); err == nil {
			check(b)
		} else if !errors.Is(err, Corrupt) {
			t.Fatal(err)
		}
		// The fuzzer finds no checksums; behind them it must get as far.
		if len(in) >= BatchHeaderSize {
			stamped := Batch(slices.Clone(in))
			stamped.Stamp(stamped.Epoch(), stamped.Base(), stamped.Arrival())
			b, err := CheckBatch(stamped)
			if err == nil && len(b) == len(stamped) {
				check(b)
			}
			if _, unstamped := CheckUnstamped(in); (unstamped == nil) != (err == nil && len(b) == len(stamped)) {
				t.Fatalf("stamped %v, unstamped %v", err, unstamped)
			}
		}
	})
}

func TestBatchAllocations(t *testing.T) {
	records := []Record{{PartitionKey: []byte("key"), Data: make([]byte, 1024)}, {Data: []byte("x")}}
	buf := make([]byte, 0, 4096)
	size := 0
	if n := testing.AllocsPerRun(100, func() {
		b := NewBatch(buf[:0], ShardID{1, 2}, id(1), id(2), 0)
		for _, r := range records {
			b = b.AppendRecord(r)
		}
		FinishBatch(b, len(records))
		b.Stamp(1, 2, 3)
		checked, err := CheckBatch(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range checked.Records() {
			size += len(r.Data)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	key, decimal := []byte("partition key"), []byte("340282366920938463463374607431768211455")
	if n := testing.AllocsPerRun(100, func() {
		h := HashPartitionKey(key)
		if k, ok := ParseHashKey(decimal); !ok || h.Less(HashKey{}) || k != MaxHashKey {
			t.Fatal("wrong key")
		}
		buf = h.AppendDecimal(buf[:0])
	}); n != 0 {
		t.Errorf("hash keys: %v allocations", n)
	}
}

func BenchmarkCheckBatch(b *testing.B) {
	batch := NewBatch(nil, ShardID{1, 2}, id(1), id(2), 0)
	for i := range 500 {
		batch = batch.AppendRecord(Record{PartitionKey: []byte("key"), Data: make([]byte, 1024), Ordinal: uint16(i)})
	}
	FinishBatch(batch, 500)
	batch.Stamp(1, 2, 3)
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CheckBatch(batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSequenceAppend(b *testing.B) {
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		buf = RecordSequence(3, 1777319237, Offset(i), 1777320018).Append(buf[:0])
	}
}
