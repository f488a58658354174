package powerfs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shardstream/broker/recordlog"
	"shardstream/stream"
)

// replicaKey is that of a replica of the tests.
func replicaKey(n int) stream.ReplicaKey {
	return stream.ReplicaKey{Shard: stream.ShardID{Stream: 7, Number: uint32(n)}, Replica: stream.ReplicaID(100 + n)}
}

func openLog(t *testing.T, dir string) *recordlog.Log {
	t.Helper()
	l, err := recordlog.Open(recordlog.Config{
		Dir: dir, JournalBudget: 4 << 20, JournalFileSize: 512 << 10, SegmentSize: 256 << 10, TailCache: 256 << 10, DiskReserve: -1,
	})
	must(t, err)
	return l
}

// batch makes the batch at a place of a replica's log.
func batch(r *recordlog.Replica, base stream.Offset) stream.Batch {
	b := stream.NewBatch(nil, r.Key().Shard, [16]byte{1}, [16]byte{}, 0)
	data := fmt.Appendf(nil, "%d-%d-%0*d", r.Key().Shard.Number, base, 1+int(base)*37%6000, 0)
	b = b.AppendRecord(stream.Record{PartitionKey: []byte("key"), Data: data})
	stream.FinishBatch(b, 1)
	b.Stamp(r.Epoch(), base, int64(base)+1)
	return b
}

const replicas = 5

// record appends to all replicas until the power goes, which it does after so
// many batches. It gives the ends that were acknowledged.
func record(t *testing.T, p *Process, l *recordlog.Log, epoch stream.Epoch, count int64, loss Loss) (ends [replicas]stream.Offset) {
	t.Helper()
	var adoptions []recordlog.Adoption
	for i := range replicas {
		adoptions = append(adoptions, recordlog.Adoption{Key: replicaKey(i), Epoch: epoch})
		ends[i] = l.Replica(replicaKey(i)).End()
	}
	must(t, l.Adopt(adoptions))
	var appended atomic.Int64
	var writers sync.WaitGroup
	for i := range replicas {
		r := l.Replica(replicaKey(i))
		writers.Go(func() {
			for {
				b := batch(r, r.End())
				done := make(chan error, 1)
				if err := l.Admit(t.Context(), len(b)); err != nil {
					return
				}
				if err := r.Append(b, func(err error) { done <- err }); err != nil {
					return
				}
				if <-done != nil {
					return // the power has gone
				}
				ends[i] = b.End()
				if appended.Add(1) == count {
					if err := p.PowerLoss(loss); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	_ = l.Close() // has failed already
	must(t, p.PowerOn())
	return ends
}

// missing says what of the acknowledged batches can't be read.
func missing(l *recordlog.Log, ends [replicas]stream.Offset) error {
	for i, end := range ends {
		r := l.Replica(replicaKey(i))
		if r == nil {
			return fmt.Errorf("replica %d is not there", i)
		}
		for at := r.Start(); at < end; {
			got, err := r.Read(at, r.End(), 1<<20)
			if err != nil || len(got) == 0 {
				return fmt.Errorf("replica %d at %d of %d: %d batches, %v", i, at, end, len(got), err)
			}
			for _, b := range got {
				// The epoch is that of the time; records say the place themselves.
				for _, rec := range b.Records() {
					if want := fmt.Sprintf("%d-%d-", i, b.Base()); len(rec.Data) < len(want) || string(rec.Data[:len(want)]) != want {
						return fmt.Errorf("replica %d at %d: %q", i, b.Base(), rec.Data[:min(20, len(rec.Data))])
					}
				}
				at = b.End()
			}
		}
	}
	return nil
}

// TestRecordLog loses power under a record log: each batch that was
// acknowledged is read back after the restart. On a disk that lies it is not.
func TestRecordLog(t *testing.T) {
	const rounds = 12
	p := mounted(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	// Most power losses shall fall between a write and its sync.
	must(t, os.Mkdir(p.Path(), 0o755), syncPath(p.Dir), p.Slow(Syncs, time.Millisecond))
	l := openLog(t, p.Path())
	var keys []stream.ReplicaKey
	for i := range replicas {
		keys = append(keys, replicaKey(i))
	}
	must(t, l.Create(keys))
	for round := range rounds {
		count := 1 + random.Int64N(1500)
		ends := record(t, p, l, stream.Epoch(round+1), count, Loss{Torn: round%3 > 0, Seed: random.Uint64()})
		l = openLog(t, p.Path())
		report := l.Recovery()
		t.Logf("round %d: %d batches, then ends %v, %d frames torn", round, count, ends, report.TornFrames)
		if len(report.Damage) > 0 {
			t.Errorf("round %d: damage %+v", round, report.Damage)
		}
		if err := missing(l, ends); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	must(t, p.Lie(true))
	ends := record(t, p, l, rounds+1, 100, Loss{})
	must(t, p.Heal())
	l = openLog(t, p.Path())
	if err := missing(l, ends); err == nil {
		t.Error("nothing is missing though nothing was synced: this test finds nothing")
	}
	must(t, l.Close())
}
