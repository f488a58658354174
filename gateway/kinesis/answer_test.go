package kinesis

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"

	"shardstream/stream"
)

// readBack decodes an answer into a shape's type and has independent
// implementations look at it.
func readBack[T any](t *rapid.T, f Format, body []byte) T {
	oracle(t, f, body)
	var out T
	v := reflect.ValueOf(&out).Elem()
	if err := decode(shapeOf(v.Type()), f, body, v); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	return out
}

func drawSequence(t *rapid.T) stream.SequenceNumber {
	return stream.RecordSequence(rapid.Uint32().Draw(t, "shard"), rapid.Int64Range(0, 1<<34).Draw(t, "created"),
		stream.Offset(rapid.Uint64Range(0, 1<<62).Draw(t, "offset")), rapid.Int64Range(0, 1<<34).Draw(t, "arrival"))
}

func drawEncryption(t *rapid.T) (string, *string) {
	if rapid.Bool().Draw(t, "encrypted") {
		return EncryptionTypeKMS, new(EncryptionTypeKMS)
	}
	return "", nil
}

func TestPutAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		encryption, wantEncryption := drawEncryption(t)
		want := PutRecordsOutput{FailedRecordCount: new(int32(0)), Records: []PutRecordsResultEntry{}, EncryptionType: wantEncryption}
		var results []PutResult
		for range rapid.IntRange(0, 5).Draw(t, "records") {
			if rapid.Bool().Draw(t, "failed") {
				r := PutResult{ErrorCode: CodeInternalFailure, ErrorMessage: rapid.String().Draw(t, "message")}
				results = append(results, r)
				want.Records = append(want.Records, PutRecordsResultEntry{ErrorCode: &r.ErrorCode, ErrorMessage: &r.ErrorMessage})
				*want.FailedRecordCount++
				continue
			}
			n := drawSequence(t)
			results = append(results, PutResult{Sequence: n})
			want.Records = append(want.Records, PutRecordsResultEntry{SequenceNumber: new(n.String()), ShardId: new(stream.ShardName(n.Shard))})
		}
		one := drawSequence(t)
		for _, f := range []Format{JSON, CBOR} {
			if got := readBack[PutRecordsOutput](t, f, AppendPutRecordsOutput(nil, f, results, encryption)); !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			wantOne := PutRecordOutput{SequenceNumber: one.String(), ShardId: stream.ShardName(one.Shard), EncryptionType: wantEncryption}
			if got := readBack[PutRecordOutput](t, f, AppendPutRecordOutput(nil, f, one, encryption)); !reflect.DeepEqual(got, wantOne) {
				t.Fatalf("got %+v, want %+v", got, wantOne)
			}
		}
	})
}

// thereAndBack gives a batch as it is after it was stored encrypted.
func thereAndBack(b stream.Batch) stream.Batch {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithNonceSize(block, 24)
	if err != nil {
		panic(err)
	}
	e := stream.NewEncryptedBatch(nil, b.Shard(), b.RequestID(), b.InvocationID(), b.Attempt(), 1, b.Count())
	e = append(e, b[stream.BatchHeaderSize:]...).Encrypt(aead, b.Count())
	e.Stamp(b.Epoch(), b.Base(), b.Arrival())
	if b, err = e.Decrypt(nil, aead); err != nil {
		panic(err)
	}
	return b
}

func TestReadAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		run := RecordRun{Shard: rapid.Uint32().Draw(t, "shard"), Created: rapid.Int64Range(0, 1<<34).Draw(t, "created")}
		run.From = stream.Offset(rapid.IntRange(0, 8).Draw(t, "from"))
		run.To = run.From + stream.Offset(rapid.IntRange(0, 8).Draw(t, "records"))
		want := GetRecordsOutput{Records: []Record{}, MillisBehindLatest: new(rapid.Int64Range(0, 1<<40).Draw(t, "behind"))}
		offset := stream.Offset(rapid.IntRange(0, 4).Draw(t, "first"))
		for range rapid.IntRange(0, 3).Draw(t, "batches") {
			encryption, wantEncryption := drawEncryption(t)
			b := stream.NewBatch(nil, stream.ShardID{Stream: 1, Number: run.Shard}, [16]byte{}, [16]byte{}, 0)
			base, arrival := offset, rapid.Int64Range(0, 1<<41).Draw(t, "arrival")
			count := rapid.IntRange(1, 4).Draw(t, "count")
			for range count {
				key, data := rapid.StringN(1, 10, -1).Draw(t, "key"), append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "data")...)
				b = b.AppendRecord(stream.Record{PartitionKey: []byte(key), Data: data})
				if offset >= run.From && offset < run.To {
					want.Records = append(want.Records, Record{
						SequenceNumber: stream.RecordSequence(run.Shard, run.Created, offset, arrival/1000).String(), ApproximateArrivalTimestamp: new(Timestamp(arrival)),
						Data: data, PartitionKey: key, EncryptionType: wantEncryption,
					})
				}
				offset++
			}
			stream.FinishBatch(b, count)
			b.Stamp(1, base, arrival)
			if encryption != "" {
				b = thereAndBack(b)
			}
			run.Batches = append(run.Batches, b)
		}
		a := GetRecordsAnswer{RecordRun: run, MillisBehindLatest: *want.MillisBehindLatest}
		if rapid.Bool().Draw(t, "end") {
			a.ChildShards = []ChildShard{{ShardId: "shardId-000000000001", ParentShards: []string{"shardId-000000000000"}, HashKeyRange: &HashKeyRange{"0", "1"}}}
			want.ChildShards = a.ChildShards
		} else {
			a.NextShardIterator = "AAAA"
			want.NextShardIterator = new("AAAA")
		}
		for _, f := range []Format{JSON, CBOR} {
			if got := readBack[GetRecordsOutput](t, f, AppendGetRecordsOutput(nil, f, &a)); !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
		}
		event := AppendSubscribeEvent(nil, &SubscribeEvent{RecordRun: run, ContinuationSequenceNumber: a.NextShardIterator, MillisBehindLatest: a.MillisBehindLatest, ChildShards: a.ChildShards})
		wantEvent := SubscribeToShardEvent{Records: want.Records, ContinuationSequenceNumber: want.NextShardIterator, MillisBehindLatest: *want.MillisBehindLatest, ChildShards: want.ChildShards}
		if got := readBack[SubscribeToShardEvent](t, JSON, event); !reflect.DeepEqual(got, wantEvent) {
			t.Fatalf("got %+v, want %+v", got, wantEvent)
		}
	})
}

// TestAnswersAreWhatOthersRead reads two answers with other decoders, so that a
// mistake of our reader cannot hide one of our writer.
func TestAnswersAreWhatOthersRead(t *testing.T) {
	n := stream.RecordSequence(3076, 1777319237, 21689507109, 1777320018)
	const want = "49674026002850188218576229259473476449429298564223254594"
	text := AppendPutRecordsOutput(nil, JSON, []PutResult{{Sequence: n}, {ErrorCode: "C", ErrorMessage: "m"}}, "")
	if got := `{"FailedRecordCount":1,"Records":[{"SequenceNumber":"` + want + `","ShardId":"shardId-000000003076"},{"ErrorCode":"C","ErrorMessage":"m"}]}`; got != string(text) {
		t.Errorf("got %s", text)
	}
	batch := stream.NewBatch(nil, stream.ShardID{}, [16]byte{}, [16]byte{}, 0).AppendRecord(stream.Record{PartitionKey: []byte("k<"), Data: []byte{0xfb}})
	stream.FinishBatch(batch, 1)
	batch.Stamp(1, 21689507109, 1777320018250)
	a := &GetRecordsAnswer{RecordRun: RecordRun{Shard: 3076, Created: 1777319237, Batches: []stream.Batch{batch}, To: 1 << 40}, NextShardIterator: "i"}
	text = AppendGetRecordsOutput(nil, JSON, a)
	if got := `{"MillisBehindLatest":0,"NextShardIterator":"i","Records":[{"ApproximateArrivalTimestamp":1777320018.250,"Data":"+w==","PartitionKey":"k<","SequenceNumber":"` + want + `"}]}`; got != string(text) {
		t.Errorf("got %s", text)
	}
	var fromJSON struct {
		Records []struct{ Data []byte }
	}
	if err := json.Unmarshal(text, &fromJSON); err != nil || len(fromJSON.Records) != 1 || string(fromJSON.Records[0].Data) != "\xfb" {
		t.Errorf("%+v, %v", fromJSON, err)
	}
	var fromCBOR struct {
		Records []struct {
			Data                        []byte
			PartitionKey                string
			SequenceNumber              string
			ApproximateArrivalTimestamp cbor.Tag
		}
		NextShardIterator string
	}
	if err := cbor.Unmarshal(AppendGetRecordsOutput(nil, CBOR, a), &fromCBOR); err != nil {
		t.Fatal(err)
	}
	if r := fromCBOR.Records[0]; string(r.Data) != "\xfb" || r.PartitionKey != "k<" || r.SequenceNumber != want ||
		r.ApproximateArrivalTimestamp.Number != 1 || r.ApproximateArrivalTimestamp.Content != uint64(1777320018250) || fromCBOR.NextShardIterator != "i" {
		t.Errorf("%+v", fromCBOR)
	}
}
