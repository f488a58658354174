package recordlog

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shardstream/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a configuration in which little data makes files roll, tails spill
// and checkpoints happen.
func small(fs FS) Config {
	return Config{
		Dir: "/data", FS: fs, JournalBudget: 512 << 10, JournalFileSize: 64 << 10, SegmentSize: 64 << 10,
		TailCache: 64 << 10, MaxOpenFiles: 4, DiskReserve: -1, spillAt: 8 << 10, flushTick: 20 * time.Millisecond,
	}
}

func open(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func key(shard int) stream.ReplicaKey {
	return stream.ReplicaKey{Shard: stream.ShardID{Stream: 7, Number: uint32(shard)}, Replica: stream.ReplicaID(100 + shard)}
}

// create makes a replica that has adopted epoch 1.
func create(t testing.TB, l *Log, k stream.ReplicaKey) *Replica {
	t.Helper()
	if err := l.Create([]stream.ReplicaKey{k}); err != nil {
		t.Fatalf("Create: %v", err)
	}
	if err := l.Adopt([]Adoption{{k, 1}}); err != nil {
		t.Fatalf("Adopt: %v", err)
	}
	return l.Replica(k)
}

func batch(shard stream.ShardID, epoch stream.Epoch, base stream.Offset, arrival int64, records, size int) stream.Batch {
	b := stream.NewBatch(nil, shard, [16]byte{1}, [16]byte{}, 0)
	data := make([]byte, size)
	for i := range records {
		copy(data, fmt.Sprintf("%d:%d:%d ", shard.Number, epoch, base+stream.Offset(i)))
		for j := 24; j < size; j++ {
			data[j] = byte(int(base) + i*j)
		}
		b = b.AppendRecord(stream.Record{PartitionKey: []byte("key"), Data: data, Ordinal: uint16(i)})
	}
	stream.FinishBatch(b, records)
	b.Stamp(epoch, base, arrival)
	return b
}

// add appends a batch of one record and waits for it.
func add(t testing.TB, r *Replica, arrival int64, size int) stream.Batch {
	t.Helper()
	b := batch(r.key.Shard, r.Epoch(), r.End(), arrival, 1, size)
	if err := r.log.Admit(t.Context(), len(b)); err != nil {
		t.Fatalf("Admit: %v", err)
	}
	if err := appendWait(r, b); err != nil {
		t.Fatalf("Append: %v", err)
	}
	return b
}

func appendWait(r *Replica, b stream.Batch) error {
	done := make(chan error, 1)
	if err := r.Append(b, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

// readAll reads a replica from its start to its end, in small steps.
func readAll(r *Replica) (all []stream.Batch, err error) {
	from := r.Start()
	for {
		got, err := r.Read(from, r.End(), 10_000)
		if err != nil || len(got) == 0 {
			return all, err
		}
		for _, b := range got {
			if b.Base() < from && len(all) > 0 {
				return all, errors.New("a batch was read twice")
			}
			from = b.End()
		}
		all = append(all, got...)
	}
}
