package recordlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"shardstream/stream"
)

// results gathers what callbacks are told, in order.
type results struct {
	mu  sync.Mutex
	all []string
	wg  sync.WaitGroup
}

func (x *results) want(name string) func(error) {
	x.wg.Add(1)
	return func(err error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.all = append(x.all, fmt.Sprint(name, " ", err))
		x.wg.Done()
	}
}

// held makes the disk wait at every sync until release is called.
func held(fs *MemFS) (release func()) {
	gate := make(chan struct{})
	fs.OnSync(func() { <-gate })
	return sync.OnceFunc(func() {
		fs.OnSync(nil)
		close(gate)
	})
}

// TestAsyncOrder asks for everything while the disk stands still: nothing may
// wait, memory has it at once, and the callbacks come in the order of asking.
func TestAsyncOrder(t *testing.T) {
	fs := NewMemFS()
	l := open(t, small(fs))
	r := create(t, l, key(1))
	for range 4 {
		add(t, r, 1000, 100)
	}
	release := held(fs)
	defer release()
	var x results
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	shard := r.key.Shard
	must(r.Append(batch(shard, 1, 4, 1001, 2, 10), x.want("append 4")))
	if b, err := r.Read(4, r.End(), 1000); err != nil || len(b) != 1 || b[0].Base() != 4 {
		t.Fatalf("a batch that is not durable is not read: %v %v", b, err)
	}
	must(r.CutAsync(2, x.want("cut 2")))
	if r.End() != 2 || r.DurableEnd() != 2 {
		t.Fatalf("after the cut: end %d, durable end %d", r.End(), r.DurableEnd())
	}
	must(r.Append(batch(shard, 1, 2, 1001, 1, 10), x.want("append 2")))
	must(r.CutAsync(3, x.want("cut at the end")))
	must(r.Adopt(1, x.want("adopt 1")))
	must(r.Append(batch(shard, 1, 3, 1001, 1, 10), x.want("append 3")))
	must(r.Restart(50, x.want("restart 50")))
	must(r.Append(batch(shard, 1, 50, 500, 1, 10), x.want("append 50")))
	must(r.Adopt(3, x.want("adopt 3")))
	if err := r.Append(batch(shard, 1, 51, 500, 1, 10), nil); !errors.Is(err, stream.Stale) {
		t.Fatalf("a batch of the former epoch after Adopt: %v (I6)", err)
	}
	if err := r.Adopt(2, nil); !errors.Is(err, stream.Stale) {
		t.Fatalf("back to epoch 2: %v (I6)", err)
	}
	must(r.Adopt(3, x.want("adopt 3 again")))
	if r.Epoch() != 1 {
		t.Fatal("the epoch is adopted before it is durable (I6)")
	}
	release()
	x.wg.Wait()
	want := []string{"append 4 <nil>", "cut 2 <nil>", "append 2 <nil>", "cut at the end <nil>", "adopt 1 <nil>", "append 3 <nil>", "restart 50 <nil>", "append 50 <nil>", "adopt 3 <nil>", "adopt 3 again <nil>"}
	if !slices.Equal(x.all, want) {
		t.Fatalf("told %q\nwant %q", x.all, want)
	}
	if r.Start() != 50 || r.End() != 51 || r.DurableEnd() != 51 || r.Epoch() != 3 {
		t.Fatalf("[%d,%d) durable to %d in epoch %d", r.Start(), r.End(), r.DurableEnd(), r.Epoch())
	}
}

// TestEpochOfBatches: a follower stores batches of former epochs, in order.
func TestEpochOfBatches(t *testing.T) {
	l := open(t, small(NewMemFS()))
	r := create(t, l, key(1))
	if err := l.Adopt([]Adoption{{r.key, 9}}); err != nil {
		t.Fatal(err)
	}
	shard := r.key.Shard
	for _, c := range []struct {
		epoch stream.Epoch
		kind  stream.Kind
	}{{3, 0}, {3, 0}, {2, stream.Stale}, {5, 0}, {10, stream.Stale}, {4, stream.Stale}, {9, 0}} {
		err := appendWait(r, batch(shard, c.epoch, r.End(), 1, 1, 10))
		if got := stream.KindOf(err); err != nil && got != c.kind || err == nil && c.kind != 0 {
			t.Fatalf("a batch of epoch %d: %v, want kind %d", c.epoch, err, c.kind)
		}
	}
	want := []EpochStart{{3, 0}, {5, 2}, {9, 3}}
	if got := r.EpochTable(); !slices.Equal(got, want) {
		t.Fatalf("epochs %v, want %v", got, want)
	}
	for o, e := range []stream.Epoch{0, 3, 3, 5, 9, 0} {
		if got := r.EpochOf(stream.Offset(o)); got != e {
			t.Errorf("EpochOf(%d) is %d, want %d", o, got, e)
		}
	}
}

// TestAdoptManyFrames: adopting thousands one by one costs a few frames.
func TestAdoptManyFrames(t *testing.T) {
	fs := NewMemFS()
	l := open(t, small(fs))
	var keys []stream.ReplicaKey
	for i := range 5000 {
		keys = append(keys, key(i))
	}
	if err := l.Create(keys); err != nil {
		t.Fatal(err)
	}
	before := l.Stats().Fdatasyncs
	release := held(fs) // the first frame takes long, as frames on disks do
	defer release()
	var wg sync.WaitGroup
	for _, k := range keys {
		wg.Add(1)
		if err := l.Replica(k).Adopt(4, func(err error) {
			if err != nil {
				t.Error(err)
			}
			wg.Done()
		}); err != nil {
			t.Fatal(err)
		}
	}
	release()
	wg.Wait()
	if n := l.Stats().Fdatasyncs - before; n > 4 {
		t.Fatalf("%d fdatasyncs for 5000 adoptions", n)
	}
	l.Close()
	l = open(t, small(fs))
	for _, k := range keys {
		if e := l.Replica(k).Epoch(); e != 4 {
			t.Fatalf("%s has epoch %d (I6)", k, e)
		}
	}
}

// adoptFirst makes a replica that exists adopt epoch 1.
func adoptFirst(t *testing.T, l *Log, k stream.ReplicaKey) *Replica {
	t.Helper()
	if err := l.Adopt([]Adoption{{k, 1}}); err != nil {
		t.Fatal(err)
	}
	return l.Replica(k)
}

// spilledReplica gives a replica whose batches are all in a segment, and of which
// memory has none.
func spilledReplica(t *testing.T, l *Log, n int) *Replica {
	t.Helper()
	r := create(t, l, key(1))
	for i := range n {
		add(t, r, int64(1000+i), 500)
	}
	l.segMu.Lock()
	defer l.segMu.Unlock()
	if err := l.flushReplica(r); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.dropTailLocked(len(r.tail))
	r.mu.Unlock()
	return r
}

// TestCutIntoFile cuts where only the file knows the place, and does all that
// may come before it is looked up.
func TestCutIntoFile(t *testing.T) {
	for _, then := range []string{"read", "find", "append", "cut", "checkpoint", "crash", "checkpoint and crash", "roll, checkpoint and crash", "restart", "trim"} {
		t.Run(then, func(t *testing.T) {
			fs := NewMemFS()
			cfg := small(fs)
			cfg.SegmentSize = 1 << 20
			l := open(t, cfg)
			if err := l.Create([]stream.ReplicaKey{key(2)}); err != nil {
				t.Fatal(err)
			}
			r := spilledReplica(t, l, 60)
			all, err := readAll(r)
			if err != nil {
				t.Fatal(err)
			}
			l.segMu.Lock() // the flusher stays away
			unlock := sync.OnceFunc(l.segMu.Unlock)
			defer unlock()
			done := make(chan error, 1)
			if err := r.CutAsync(37, func(err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
			r.mu.Lock()
			pending := r.before != nil
			r.mu.Unlock()
			if !pending {
				t.Fatal("the test does not reach a cut whose place is unknown")
			}
			want := all[:37]
			more := batch(r.key.Shard, 1, 37, 1036, 2, 700)
			switch then {
			case "find":
				if o, err := r.FindTime(1036); err != nil || o != 36 {
					t.Fatal(o, err)
				}
				if o, err := r.FindTime(1040); err != nil || o != 37 {
					t.Fatal(o, err)
				}
			case "append":
				if err := appendWait(r, more); err != nil {
					t.Fatal(err)
				}
				want = append(want[:37:37], more)
				if err := l.flushReplica(r); err != nil {
					t.Fatal(err)
				}
			case "cut":
				if err := r.CutAsync(20, func(error) {}); err != nil {
					t.Fatal(err)
				}
				want = all[:20]
			case "restart":
				if err := r.Restart(20, func(error) {}); err != nil {
					t.Fatal(err)
				}
				want = nil
			case "trim":
				r.TrimTo(37)
				want = nil
			case "roll, checkpoint and crash":
				// The journal file with the cut would not be kept for anything else.
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				done <- nil
				other, file := adoptFirst(t, l, key(2)), l.journal.active()
				for l.journal.active() < file+2 {
					if err := appendWait(other, batch(other.key.Shard, 1, other.End(), 1, 1, 5000)); err != nil {
						t.Fatal(err)
					}
				}
				if err := l.checkpoint(0); err != nil {
					t.Fatal(err)
				}
			case "checkpoint", "checkpoint and crash":
				if err := l.checkpoint(0); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(then, "crash") {
				unlock()
				left := fs.CrashClone(1, false)
				fs.Kill()
				l.Close()
				cfg.FS, fs = left, left
				l = open(t, cfg)
				r = l.Replica(key(1))
			}
			got, err := readAll(r)
			if err != nil {
				t.Fatal(err)
			}
			sameBatches(t, got, want)
			unlock()
			if then != "restart" && then != "cut" && then != "trim" && then != "append" {
				if at := r.LastArrival(); at != 1036 {
					t.Fatalf("last arrival %d", at)
				}
			}
			for range 2 {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				v, err := Verify("/data", fs.Clone(), nil)
				if err != nil || len(v.Damage) > 0 {
					t.Fatalf("%v %+v", err, v)
				}
				l = open(t, cfg)
				if got, err = readAll(l.Replica(key(1))); err != nil {
					t.Fatal(err)
				}
				sameBatches(t, got, want)
			}
		})
	}
}

// TestCutDuringSpill cuts while a run of batches is on its way to a segment.
func TestCutDuringSpill(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		for _, to := range []stream.Offset{0, 5, 10, 13, 20} {
			t.Run(fmt.Sprint(fresh, to), func(t *testing.T) {
				fs := NewMemFS()
				cfg := small(fs)
				cfg.spillAt, cfg.TailCache, cfg.JournalBudget = 1<<30, 8<<20, 8<<20 // spills only when the test wants it
				if !fresh {
					cfg.SegmentSize = 1 << 20
				}
				l := open(t, cfg)
				r := create(t, l, key(1))
				var want []stream.Batch
				spill := func() {
					t.Helper()
					l.segMu.Lock()
					defer l.segMu.Unlock()
					if err := l.flushReplica(r); err != nil && !errors.Is(err, errCut) {
						t.Fatal(err)
					}
				}
				fill := func(n, size int) {
					for range n {
						want = append(want, add(t, r, 1000+int64(r.End()), size))
					}
				}
				fill(10, 7000)
				spill()
				fill(10, 7000)
				waitIdle(t, l)
				done := make(chan error, 1)
				var once sync.Once
				fs.OnWrite(func() {
					once.Do(func() {
						if err := r.CutAsync(to, func(err error) { done <- err }); err != nil {
							done <- err
						}
						want = want[:to]
					})
				})
				spill()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				fill(12, 3000)
				spill()
				got, err := readAll(r)
				if err != nil {
					t.Fatal(err)
				}
				sameBatches(t, got, want)
				r.mu.Lock()
				r.dropTailLocked(len(r.tail))
				r.mu.Unlock()
				for range 2 {
					if got, err = readAll(l.Replica(key(1))); err != nil {
						t.Fatal(err)
					}
					sameBatches(t, got, want)
					l.Close()
					l = open(t, cfg)
				}
			})
		}
	}
}

// TestFilesWaitForTheCut: as long as a cut is not durable the files have all
// that was before it.
func TestFilesWaitForTheCut(t *testing.T) {
	for _, to := range []stream.Offset{0, 3, 12, 25} {
		fs := NewMemFS()
		cfg := small(fs)
		cfg.SegmentSize = 10_000
		l := open(t, cfg)
		r := create(t, l, key(1))
		var want []stream.Batch
		for i := range 40 {
			want = append(want, add(t, r, int64(i), 1000))
		}
		l.segMu.Lock()
		if err := l.checkpoint(0); err != nil {
			t.Fatal(err)
		}
		if err := l.flushReplica(r); err != nil {
			t.Fatal(err)
		}
		if err := l.checkpoint(0); err != nil {
			t.Fatal(err)
		}
		l.segMu.Unlock()
		waitIdle(t, l)
		gate := make(chan struct{})
		fs.OnWrite(func() { <-gate })
		done := make(chan error, 1)
		if err := r.CutAsync(to, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		l.segMu.Lock()
		if err := l.settleFiles(r); err != nil {
			t.Fatal(err)
		}
		left := fs.Clone()
		l.segMu.Unlock()
		fs.OnWrite(nil)
		close(gate)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		cfg.FS = left
		killed := open(t, cfg)
		got, err := readAll(killed.Replica(key(1)))
		if err != nil {
			t.Fatalf("killed before the cut to %d was durable: %v", to, err)
		}
		sameBatches(t, got, want)
	}
}

// TestIndexAfterCut: what the index of an open segment knows of batches that
// were cut away must not lead readers astray.
func TestIndexAfterCut(t *testing.T) {
	cfg := small(NewMemFS())
	cfg.SegmentSize = 4 << 20
	l := open(t, cfg)
	r := create(t, l, key(1))
	var want []stream.Batch
	for i := range 400 {
		want = append(want, add(t, r, int64(i), 1000))
	}
	flushed := func() {
		t.Helper()
		l.segMu.Lock()
		defer l.segMu.Unlock()
		if err := l.flushReplica(r); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		r.dropTailLocked(len(r.tail))
		r.mu.Unlock()
	}
	flushed()
	if err := r.Cut(100); err != nil {
		t.Fatal(err)
	}
	want = want[:100]
	for i := range 900 {
		want = append(want, add(t, r, int64(400+i), 300))
	}
	flushed()
	for _, b := range want {
		if got, err := r.Read(b.Base(), b.End(), 1); err != nil || len(got) != 1 || got[0].Base() != b.Base() {
			t.Fatalf("at %d: %d batches, %v", b.Base(), len(got), err)
		}
		if o, err := r.FindTime(b.Arrival()); err != nil || o != b.Base() {
			t.Fatalf("FindTime(%d) gives %d, %v", b.Arrival(), o, err)
		}
	}
}

// TestCutInsideBatchInFile: such a cut is the caller's mistake. What can't be
// kept is damage with a name, never served.
func TestCutInsideBatchInFile(t *testing.T) {
	l := open(t, small(NewMemFS()))
	r := create(t, l, key(1))
	for i := range 10 {
		if err := appendWait(r, batch(r.key.Shard, 1, r.End(), int64(i), 3, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.CutAsync(10, func(error) {}); !errors.Is(err, stream.Invalid) {
		t.Fatalf("a cut inside of a batch in memory: %v", err)
	}
	l.segMu.Lock()
	if err := l.flushReplica(r); err != nil {
		t.Fatal(err)
	}
	l.segMu.Unlock()
	r.mu.Lock()
	r.dropTailLocked(len(r.tail))
	r.mu.Unlock()
	if err := r.Cut(10); !errors.Is(err, stream.Invalid) {
		t.Fatalf("a cut inside of a batch in a file: %v", err)
	}
	if r.End() != 30 {
		t.Fatal("a refused cut cuts")
	}
	if err := r.CutAsync(10, func(error) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(9, 10, 1000); !errors.Is(err, stream.Corrupt) {
		t.Fatalf("the part of a batch before the cut: %v", err)
	}
	if got, err := r.Read(0, 9, 10_000); err != nil || len(got) != 3 {
		t.Fatal(len(got), err)
	}
	if d := l.Damage(); len(d) != 1 || d[0].Range != (stream.OffsetRange{Start: 9, End: 10}) {
		t.Fatalf("damage %v", d)
	}
}

// TestHighWatermarkHint: it costs no sync of its own, is never above the
// durable end, and falls with a cut.
func TestHighWatermarkHint(t *testing.T) {
	fs := NewMemFS()
	l := open(t, small(fs))
	r := create(t, l, key(1))
	for range 10 {
		add(t, r, 1, 10)
	}
	r.SetHW(99)
	if r.HW() != 10 {
		t.Fatalf("HW %d", r.HW())
	}
	waitIdle(t, l)
	syncs := l.Stats().Fdatasyncs
	r.SetHW(100)
	waitIdle(t, l)
	if n := l.Stats().Fdatasyncs - syncs; n != 0 {
		t.Fatalf("%d fdatasyncs for a hint", n)
	}
	if err := r.Cut(6); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		add(t, r, 1, 10)
	}
	if r.HW() != 6 {
		t.Fatalf("HW %d after a cut to 6", r.HW())
	}
	r.SetHW(8)
	add(t, r, 1, 10)
	left := fs.CrashClone(0, false)
	fs.Kill()
	l = open(t, small(left))
	if hw := l.Replica(key(1)).HW(); hw != 8 {
		t.Fatalf("HW %d after a crash, want 8, which went with the last frame", hw)
	}
	r = l.Replica(key(1))
	r.SetHW(9)
	l.segMu.Lock()
	if err := l.checkpoint(0); err != nil {
		t.Fatal(err)
	}
	l.segMu.Unlock()
	left = left.CrashClone(0, false)
	if hw := open(t, small(left)).Replica(key(1)).HW(); hw != 9 {
		t.Fatalf("HW %d after a checkpoint, want 9", hw)
	}
}

// waitIdle waits until the journal has written its idle frame.
func waitIdle(t *testing.T, l *Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		l.journal.mu.Lock()
		idle := l.journal.idle
		l.journal.mu.Unlock()
		if idle {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("the journal does not come to rest")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestTailStartAndBytes(t *testing.T) {
	l := open(t, small(NewMemFS()))
	r := create(t, l, key(1))
	if r.TailStart() != 0 || r.Bytes() != 0 {
		t.Fatal(r.TailStart(), r.Bytes())
	}
	size := int64(0)
	for i := range 40 {
		size += int64(len(add(t, r, int64(i), 1000)))
	}
	near := func(want int64) {
		t.Helper()
		if got := r.Bytes(); got < want*9/10 || got > want*3/2 {
			t.Fatalf("Bytes %d, want about %d", got, want)
		}
	}
	near(size)
	l.segMu.Lock()
	if err := l.flushReplica(r); err != nil {
		t.Fatal(err)
	}
	l.segMu.Unlock()
	near(size)
	r.mu.Lock()
	r.dropTailLocked(len(r.tail) - 3)
	r.mu.Unlock()
	if r.TailStart() != 37 {
		t.Fatalf("TailStart %d", r.TailStart())
	}
	r.TrimTo(20)
	near(size / 2)
	r.TrimTo(40)
	if r.TailStart() != 40 || r.Bytes() != 0 {
		t.Fatal(r.TailStart(), r.Bytes())
	}
}

// TestAdmit: appends wait in order, large ones are not overtaken, and nobody
// waits for ever.
func TestAdmit(t *testing.T) {
	fs := NewMemFS()
	cfg := small(fs)
	cfg.inFlight, cfg.admitWait = 10_000, time.Minute
	l := open(t, cfg)
	r := create(t, l, key(1))
	waitIdle(t, l)
	release := held(fs)
	defer release()
	var x results
	admit := func(bytes int) {
		t.Helper()
		if err := l.Admit(t.Context(), bytes); err != nil {
			t.Fatal(err)
		}
	}
	admit(6000)
	if err := r.Append(batch(r.key.Shard, 1, 0, 1, 1, 5900), x.want("first")); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	for i, bytes := range []int{9000, 100} {
		waiting.Go(func() {
			if err := l.Admit(t.Context(), bytes); err != nil {
				t.Error(err)
			}
		})
		// The small one would fit, but must not overtake the large one.
		waitFor(t, func() bool {
			l.journal.mu.Lock()
			defer l.journal.mu.Unlock()
			return len(l.journal.gate.queue) == i+1
		})
	}
	// Append itself never waits: it refuses, at twice the bound.
	if err := r.Append(batch(r.key.Shard, 1, 1, 1, 1, 9000), x.want("second")); err != nil {
		t.Fatal(err)
	}
	if err := r.Append(batch(r.key.Shard, 1, 2, 1, 1, 9000), nil); !errors.Is(err, stream.Throttled) {
		t.Fatalf("an append beyond all bounds: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Admit(ctx, 100); !errors.Is(err, stream.Throttled) {
		t.Fatalf("Admit with a context that has ended: %v", err)
	}
	release()
	waiting.Wait()
	x.wg.Wait()
	// Let in and never appended: others are let in all the same.
	for range 20 {
		admit(9000)
	}
	admit(50_000)
	l.Close()
	if err := l.Admit(t.Context(), 1); !errors.Is(err, stream.Unavailable) {
		t.Fatalf("Admit of a closed log: %v", err)
	}
}

func TestAdmitGivesUp(t *testing.T) {
	fs := NewMemFS()
	cfg := small(fs)
	cfg.inFlight, cfg.admitWait = 1000, 5*time.Millisecond
	l := open(t, cfg)
	r := create(t, l, key(1))
	release := held(fs)
	defer release()
	var x results
	if err := r.Append(batch(r.key.Shard, 1, 0, 1, 1, 900), x.want("")); err != nil {
		t.Fatal(err)
	}
	if err := l.Admit(t.Context(), 900); !errors.Is(err, stream.Throttled) {
		t.Fatal(err)
	}
	if l.Stats().Throttled != 1 {
		t.Fatal("not counted")
	}
	release()
	x.wg.Wait()
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("it does not come")
		case <-time.After(time.Millisecond):
		}
	}
}
