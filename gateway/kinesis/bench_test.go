package kinesis

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"testing"

	"shardstream/stream"
)

// The workload of the benchmarks: 500 records of 1 KiB.
const (
	benchRecords = 500
	benchSize    = 1024
)

func benchInput() *PutRecordsInput {
	random := rand.New(rand.NewPCG(1, 2))
	in := &PutRecordsInput{StreamName: new("orders"), Records: make([]PutRecordsRequestEntry, benchRecords)}
	for i := range in.Records {
		data := make([]byte, benchSize)
		for j := range data {
			data[j] = byte(random.Uint32())
		}
		in.Records[i] = PutRecordsRequestEntry{Data: data, PartitionKey: new(fmt.Sprintf("key-%04d", i))}
	}
	return in
}

// benchBatches gives the records as a shard keeps them, ten to a batch.
func benchBatches() []stream.Batch {
	in := benchInput()
	var batches []stream.Batch
	for i := 0; i < len(in.Records); i += 10 {
		b := stream.NewBatch(nil, stream.ShardID{Stream: 1, Number: 3}, [16]byte{}, [16]byte{}, 0)
		for j, r := range in.Records[i : i+10] {
			b = b.AppendRecord(stream.Record{PartitionKey: []byte(*r.PartitionKey), Data: r.Data, Ordinal: uint16(j)})
		}
		stream.FinishBatch(b, 10)
		b.Stamp(1, stream.Offset(i), 1777320018123)
		batches = append(batches, b)
	}
	return batches
}

func formats(b *testing.B, run func(b *testing.B, f Format)) {
	b.Run("JSON", func(b *testing.B) { run(b, JSON) })
	b.Run("CBOR", func(b *testing.B) { run(b, CBOR) })
}

// BenchmarkPutRecords is the quick way with the payload decoded.
func BenchmarkPutRecords(b *testing.B) {
	formats(b, func(b *testing.B, f Format) {
		body := AppendOutput(nil, f, benchInput())
		dst := make([]byte, 0, benchRecords*(benchSize+8))
		var s PutScan
		b.SetBytes(benchRecords * benchSize)
		b.ReportAllocs()
		for b.Loop() {
			if !s.ScanPutRecords(f, body) {
				b.Fatal("not scanned")
			}
			dst = dst[:0]
			for i := range s.Entries {
				var err error
				if dst, err = s.Entries[i].Data.AppendTo(dst); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkScanPutRecords is the quick way without the payload.
func BenchmarkScanPutRecords(b *testing.B) {
	formats(b, func(b *testing.B, f Format) {
		body := AppendOutput(nil, f, benchInput())
		var s PutScan
		b.SetBytes(benchRecords * benchSize)
		b.ReportAllocs()
		for b.Loop() {
			if !s.ScanPutRecords(f, body) {
				b.Fatal("not scanned")
			}
		}
	})
}

// BenchmarkDecodePutRecords is the exact way, checks included.
func BenchmarkDecodePutRecords(b *testing.B) {
	formats(b, func(b *testing.B, f Format) {
		body := AppendOutput(nil, f, benchInput())
		b.SetBytes(benchRecords * benchSize)
		b.ReportAllocs()
		for b.Loop() {
			in, err := Decode(PutRecords, f, body)
			if err == nil {
				err = Validate(in)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPutRecordsOutput(b *testing.B) {
	results := make([]PutResult, benchRecords)
	for i := range results {
		results[i].Sequence = stream.RecordSequence(uint32(i%4), 1777319237, stream.Offset(i), 1777320018)
	}
	formats(b, func(b *testing.B, f Format) {
		var dst []byte
		b.ReportAllocs()
		for b.Loop() {
			dst = AppendPutRecordsOutput(dst[:0], f, results, "")
		}
	})
}

func BenchmarkGetRecordsOutput(b *testing.B) {
	a := &GetRecordsAnswer{
		RecordRun:         RecordRun{Shard: 3, Created: 1777319237, Batches: benchBatches(), To: benchRecords},
		NextShardIterator: "AAAAAAAAAAEiterator",
	}
	formats(b, func(b *testing.B, f Format) {
		var dst []byte
		b.SetBytes(benchRecords * benchSize)
		b.ReportAllocs()
		for b.Loop() {
			dst = AppendGetRecordsOutput(dst[:0], f, a)
		}
	})
}

// BenchmarkBase64 compares the vectorised decoder with the standard library's.
func BenchmarkBase64(b *testing.B) {
	text := []byte(base64.StdEncoding.EncodeToString(benchInput().Records[0].Data))
	dst := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	for name, decode := range map[string]func(dst, src []byte) (int, error){
		"vector": vectorBase64.Decode, "standard": base64.StdEncoding.Decode,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchSize)
			for b.Loop() {
				if _, err := decode(dst, text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
