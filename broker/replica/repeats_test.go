package replica

import (
	"crypto/aes"
	"crypto/cipher"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"shardstream/stream"
)

func batchOf(request, invocation byte, attempt uint16, base stream.Offset, arrival int64, count int) stream.Batch {
	var req, inv [16]byte
	if request != 0 {
		req = [16]byte{0: request, 15: request}
	}
	if invocation != 0 {
		inv = [16]byte{0: invocation, 15: invocation}
	}
	b := stream.NewBatch(nil, stream.ShardID{Stream: 1}, req, inv, attempt)
	for i := range count {
		b = b.AppendRecord(stream.Record{PartitionKey: []byte("k"), Data: []byte("d"), Ordinal: uint16(i)})
	}
	stream.FinishBatch(b, count)
	b.Stamp(1, base, arrival)
	return b
}

// encrypted gives the same batch encrypted, each time in other bytes.
func encrypted(b stream.Batch) stream.Batch {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithNonceSize(block, 24)
	if err != nil {
		panic(err)
	}
	e := stream.NewEncryptedBatch(nil, b.Shard(), b.RequestID(), b.InvocationID(), b.Attempt(), 1, b.Count())
	for _, r := range b.Records() {
		e = e.AppendRecord(r)
	}
	e = e.Encrypt(aead, b.Count())
	e.Stamp(b.Epoch(), b.Base(), b.Arrival())
	return e
}

func TestRepeats_I22(t *testing.T) {
	other := func(b stream.Batch) stream.Batch { // the same ids, with a larger first record
		c := stream.NewBatch(nil, b.Shard(), b.RequestID(), b.InvocationID(), b.Attempt())
		for i := range b.Count() {
			c = c.AppendRecord(stream.Record{PartitionKey: []byte("k"), Data: []byte("other"), Ordinal: uint16(i)})
		}
		stream.FinishBatch(c, b.Count())
		return c
	}
	const part = true
	for _, c := range []struct {
		name       string
		in, repeat stream.Batch
		part       bool
		want       int // of the repeat's first records are stored
	}{
		{"the gateway's own repeat", batchOf(1, 0, 0, 0, 0, 2), batchOf(1, 0, 0, 0, 0, 2), !part, 2},
		{"another request", batchOf(1, 0, 0, 0, 0, 2), batchOf(2, 0, 0, 0, 0, 2), !part, 0},
		{"an SDK's retry", batchOf(1, 7, 1, 0, 0, 1), batchOf(2, 7, 2, 0, 0, 1), !part, 1},
		{"the first attempt comes after its retry", batchOf(1, 7, 2, 0, 0, 1), batchOf(2, 7, 1, 0, 0, 1), !part, 1},
		{"a client that sends one fixed id", batchOf(1, 7, 1, 0, 0, 1), batchOf(2, 7, 1, 0, 0, 1), !part, 0},
		{"one fixed id and no attempts", batchOf(1, 7, 0, 0, 0, 1), batchOf(2, 7, 0, 0, 0, 1), !part, 0},
		{"other records under the id", batchOf(1, 7, 1, 0, 0, 2), other(batchOf(2, 7, 2, 0, 0, 2)), !part, 0},
		{"fewer records under the id", batchOf(1, 7, 1, 0, 0, 2), batchOf(2, 7, 2, 0, 0, 1), !part, 0},
		{"encrypted once more", encrypted(batchOf(1, 0, 0, 0, 0, 2)), encrypted(batchOf(1, 0, 0, 0, 0, 2)), !part, 2},
		{"encrypted only at the second time", batchOf(1, 0, 0, 0, 0, 2), encrypted(batchOf(1, 0, 0, 0, 0, 2)), !part, 2},
		{"other records under the id, encrypted", encrypted(batchOf(1, 7, 1, 0, 0, 2)), encrypted(other(batchOf(2, 7, 2, 0, 0, 2))), !part, 0},
		{"no ids at all", batchOf(0, 0, 0, 0, 0, 1), batchOf(0, 0, 0, 0, 0, 1), !part, 0},

		{"the retry of a put that was admitted in part", batchOf(1, 7, 1, 0, 0, 3), batchOf(2, 7, 2, 0, 0, 5), !part, 3},
		{"that retry, of what is stored", batchOf(1, 7, 1, 0, 0, 3), batchOf(2, 7, 2, 0, 0, 3), part, 3},
		{"other records, more of them", batchOf(1, 7, 1, 0, 0, 3), other(batchOf(2, 7, 2, 0, 0, 5)), !part, 0},
		{"admitted in part, while the retry was admitted as a whole", batchOf(2, 7, 2, 0, 0, 5), batchOf(1, 7, 1, 0, 0, 3), part, 3},
		{"the part of another request", batchOf(2, 7, 1, 0, 0, 5), batchOf(1, 7, 1, 0, 0, 3), part, 0},
		{"admitted in part, encrypted", encrypted(batchOf(1, 7, 1, 0, 0, 3)), encrypted(batchOf(2, 7, 2, 0, 0, 5)), !part, 3},
		{"more records of fewer bytes, encrypted", encrypted(other(batchOf(1, 7, 1, 0, 0, 3))), encrypted(batchOf(2, 7, 2, 0, 0, 5)), !part, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := repeats{memory: &Memory{}}
			table.add(c.in, 0)
			if _, got := table.find(c.repeat, c.part); got != c.want {
				t.Errorf("%d records are stored, want %d", got, c.want)
			}
		})
	}
}

// TestRepeatsAreWhatTheLogHolds compares the table with a list that is
// searched from its end.
func TestRepeatsAreWhatTheLogHolds_I22(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := repeats{memory: &Memory{}}
		var log []stream.Batch
		now := int64(1_000_000)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			end := stream.Offset(0)
			if n := len(log); n > 0 {
				end = log[n-1].End()
			}
			switch rapid.IntRange(0, 9).Draw(t, "do") {
			case 0:
				to := stream.Offset(0)
				if n := len(log); n > 0 {
					to = log[rapid.IntRange(0, n-1).Draw(t, "to")].Base()
				}
				table.cut(to)
				log = slices.DeleteFunc(log, func(b stream.Batch) bool { return b.End() > to })
			case 1:
				now += rapid.Int64Range(0, repeatWindow.Milliseconds()).Draw(t, "pass")
			default:
				b := batchOf(byte(rapid.IntRange(1, 255).Draw(t, "id")), 0, 0, end, now, 1)
				if _, known := table.find(b, false); known == 0 {
					table.add(b, now)
					log = append(log, b)
				}
			}
			table.expire(now)
			for _, b := range log {
				got, found := table.find(b, false)
				fresh := b.Arrival() >= now-repeatWindow.Milliseconds()
				if fresh && (found == 0 || got.base != b.Base()) {
					t.Fatalf("the batch at %d is not found", b.Base())
				}
			}
			if table.memory.used.Load() != int64(len(table.list)) {
				t.Fatal("the memory is miscounted")
			}
		}
	})
}

// TestIDsThatAreHalfTheSame: as UUIDs made of time and machine are.
func TestIDsThatAreHalfTheSame_I22(t *testing.T) {
	for half := range 2 {
		table := repeats{memory: &Memory{}}
		var batches []stream.Batch
		for i := range 50 {
			b := batchOf(0, 1, 2, stream.Offset(i), 0, 1)
			b[72+8*half] = byte(i + 1)
			batches = append(batches, b)
			table.add(b, 0)
		}
		for i, b := range batches {
			if s, found := table.find(b, false); found == 0 || s.base != stream.Offset(i) {
				t.Fatalf("half %d: the batch at %d is not found", half, i)
			}
		}
	}
}

func TestRepeatsForgetTheOldestForWantOfMemory(t *testing.T) {
	table := repeats{memory: &Memory{Limit: 10 * rememberedSize}}
	for i := range 25 {
		table.add(batchOf(byte(i+1), 0, 0, stream.Offset(i), 0, 1), 0)
	}
	if _, found := table.find(batchOf(25, 0, 0, 0, 0, 1), false); found == 0 || table.memory.Early() != 15 || len(table.list) != 10 {
		t.Fatalf("%d found, %d early, %d kept", found, table.memory.Early(), len(table.list))
	}
}

func BenchmarkRepeats(b *testing.B) {
	table := repeats{memory: &Memory{}}
	batch := batchOf(1, 2, 1, 0, 0, 1)
	now := int64(0)
	for b.Loop() {
		now += 1 // a thousand batches a second
		for i := 56; i < 88; i += 8 {
			batch[i] = byte(rand.Uint32())
			batch[i+1] = byte(rand.Uint32())
			batch[i+2] = byte(rand.Uint32())
		}
		batch.Stamp(1, stream.Offset(now), now)
		if _, found := table.find(batch, false); found == 0 {
			table.add(batch, now)
		}
	}
}

// TestAnIdleShardForgets: what it remembers counts against the memory of all.
func TestAnIdleShardForgets_I22(t *testing.T) {
	env := &stillEnv{}
	memory := &Memory{Limit: 4 * rememberedSize}
	idle := New(stream.ReplicaKey{Replica: 1}, "n", 1, emptyLog{}, env, memory)
	busy := New(stream.ReplicaKey{Replica: 2}, "n", 1, emptyLog{}, env, memory)
	for i := range 4 {
		idle.repeats.add(batchOf(byte(i+1), 0, 0, stream.Offset(i), 0, 1), 0)
	}
	env.now = repeatWindow.Milliseconds() + 1
	idle.Expire(0)
	for i := range 4 {
		busy.repeats.add(batchOf(byte(i+1), 0, 0, stream.Offset(i), env.now, 1), env.now)
	}
	if len(busy.repeats.list) != 4 || memory.Early() != 0 {
		t.Fatalf("the busy shard remembers %d of 4, %d were forgotten early", len(busy.repeats.list), memory.Early())
	}
}

// stillEnv is a node on which nothing happens but time.
type stillEnv struct {
	Env
	now int64
}

func (e *stillEnv) Now() int64 { return e.now }

// emptyLog is a log without anything.
type emptyLog struct{ Log }

func (emptyLog) Epoch() stream.Epoch  { return 0 }
func (emptyLog) End() stream.Offset   { return 0 }
func (emptyLog) Start() stream.Offset { return 0 }
func (emptyLog) HW() stream.Offset    { return 0 }
