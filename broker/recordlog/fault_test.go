package recordlog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"shardstream/stream"
)

// long says that the long forms of tests are wanted.
func long() bool { return os.Getenv("SHARDSTREAM_LONG") != "" }

// script is a run that touches every kind of write. It notes what was
// acknowledged, and ends at the first error.
type script struct {
	fatal atomic.Bool
	acked map[stream.ReplicaKey][]stream.Batch
	start map[stream.ReplicaKey]stream.Offset
	epoch map[stream.ReplicaKey]stream.Epoch
	// What a step under way may or may not have done.
	unsure map[stream.ReplicaKey]bool
}

func newScript() *script {
	return &script{
		acked: map[stream.ReplicaKey][]stream.Batch{}, start: map[stream.ReplicaKey]stream.Offset{},
		epoch: map[stream.ReplicaKey]stream.Epoch{}, unsure: map[stream.ReplicaKey]bool{},
	}
}

func (s *script) config(fs *MemFS) Config {
	cfg := small(fs)
	cfg.OnFatal = func(error) { s.fatal.Store(true) }
	return cfg
}

func (s *script) run(fs *MemFS) (err error) {
	l, err := Open(s.config(fs))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	keys := []stream.ReplicaKey{key(1), key(2), key(3)}
	if err := l.Create(keys); err != nil {
		return err
	}
	for i, k := range keys {
		s.unsure[k] = true
		if err := l.Adopt([]Adoption{{k, stream.Epoch(i + 1)}}); err != nil {
			return err
		}
		s.unsure[k] = false
		s.epoch[k], s.acked[k], s.start[k] = stream.Epoch(i+1), nil, 0
	}
	add := func(k stream.ReplicaKey, size int) error {
		r := l.Replica(k)
		b := batch(k.Shard, s.epoch[k], r.End(), 1000+int64(r.End()), 1, size)
		if err := appendWait(r, b); err != nil {
			return err
		}
		s.acked[k] = append(s.acked[k], b)
		return nil
	}
	checkpoint := func() error {
		l.segMu.Lock()
		defer l.segMu.Unlock()
		return l.checkpoint(0)
	}
	for i := range 18 {
		for _, k := range keys {
			if err := add(k, 300+137*i); err != nil {
				return err
			}
		}
		switch i {
		case 8, 15:
			if err := checkpoint(); err != nil {
				return err
			}
		case 12:
			k := keys[1]
			s.unsure[k] = true
			if err := l.Replica(k).Cut(7); err != nil {
				return err
			}
			s.acked[k], s.unsure[k] = s.acked[k][:7], false
		case 14:
			k := keys[2]
			s.unsure[k] = true
			done := make(chan error, 1)
			if err := l.Replica(k).Restart(50, func(err error) { done <- err }); err != nil {
				return err
			}
			if err := <-done; err != nil {
				return err
			}
			s.acked[k], s.start[k], s.unsure[k] = nil, 50, false
		case 16:
			l.Replica(keys[0]).TrimTo(9)
			s.start[keys[0]] = 9
		}
	}
	return checkpoint()
}

// check opens what is left and looks for what was acknowledged.
func (s *script) check(fs *MemFS) error {
	l, err := Open(small(fs))
	if err != nil {
		return err
	}
	defer l.Close()
	if d := l.Damage(); len(d) > 0 {
		return fmt.Errorf("damage: %v", d)
	}
	for k, want := range s.acked {
		r := l.Replica(k)
		if r == nil {
			return fmt.Errorf("replica %s is lost", k)
		}
		if s.unsure[k] {
			continue
		}
		if r.Epoch() != s.epoch[k] {
			return fmt.Errorf("replica %s has epoch %d, adopted %d (I6)", k, r.Epoch(), s.epoch[k])
		}
		r.TrimTo(s.start[k])
		want = slices.DeleteFunc(slices.Clone(want), func(b stream.Batch) bool { return b.End() <= s.start[k] })
		got, err := readAll(r)
		if err != nil {
			return err
		}
		if len(got) < len(want) || equal(got[:len(want)], want) != nil {
			return fmt.Errorf("replica %s: %d batches of %d that were acknowledged (I2)", k, len(got), len(want))
		}
	}
	return nil
}

// TestFailEachIO lets each write and each sync of a run fail: the log stops,
// says so, and a restart has all that was acknowledged (I15).
func TestFailEachIO(t *testing.T) {
	for _, what := range []string{"write", "sync"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			reached := false
			for n := int64(1); ; n++ {
				fs, s := NewMemFS(), newScript()
				if what == "write" {
					fs.FailWrite(n)
				} else {
					fs.FailSync(n)
				}
				err := s.run(fs)
				if hit := map[string]int64{"write": fs.Writes(), "sync": fs.Syncs()}[what] >= n; !hit {
					if err != nil {
						t.Fatalf("without a fault: %v", err)
					}
					if !reached || n < 50 {
						t.Fatalf("the run has only %d of them", n)
					}
					return
				}
				reached = reached || s.fatal.Load()
				if err == nil {
					t.Fatalf("%s %d fails and nobody hears of it", what, n)
				}
				for seed, keep := range []bool{false, true} {
					if err := s.check(fs.CrashClone(uint64(n)+uint64(seed), keep)); err != nil {
						t.Fatalf("after %s %d failed, with keep %v: %v", what, n, keep, err)
					}
				}
				if err := s.check(fs.Clone()); err != nil {
					t.Fatalf("after %s %d failed, process restarted: %v", what, n, err)
				}
			}
		})
	}
}

// TestStickyError: after a failed sync nothing is written any more, and who
// waits is told once, in order.
func TestStickyError(t *testing.T) {
	fs := NewMemFS()
	var fatal atomic.Int32
	cfg := small(fs)
	cfg.OnFatal = func(error) { fatal.Add(1) }
	l := open(t, cfg)
	r := create(t, l, key(1))
	waitIdle(t, l)
	release := held(fs)
	defer release()
	var x results
	for i := range 5 {
		if err := r.Append(batch(r.key.Shard, 1, r.End(), 1, 1, 100), x.want(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	fs.FailSync(1)
	release()
	x.wg.Wait()
	for i, told := range x.all {
		if !strings.HasPrefix(told, fmt.Sprint(i, " ")) || !strings.Contains(told, "the disk failed") {
			t.Fatalf("number %d is told %q", i, told)
		}
	}
	if err := r.Append(batch(r.key.Shard, 1, r.End(), 1, 1, 100), nil); !errors.Is(err, stream.Internal) {
		t.Fatalf("an append after the failure: %v", err)
	}
	writes := fs.Writes()
	if err := l.Close(); !errors.Is(err, stream.Internal) {
		t.Fatalf("Close: %v", err)
	}
	if fs.Writes() != writes || fatal.Load() != 1 {
		t.Fatalf("%d writes after the failure, OnFatal called %d times", fs.Writes()-writes, fatal.Load())
	}
	if r.DurableEnd() != 0 {
		t.Fatal("durable without a sync")
	}
}

// TestLyingDiskIsNoticed: the tests must see a disk, or a program, that does
// not sync. If this one fails, the others show nothing.
func TestLyingDiskIsNoticed(t *testing.T) {
	fs, s := NewMemFS(), newScript()
	fs.IgnoreSync(true)
	if err := s.run(fs); err != nil {
		t.Fatal(err)
	}
	if err := s.check(fs.CrashClone(1, false)); err == nil {
		t.Fatal("a power cut on a disk that never synced loses nothing?")
	}
}

// TestModelNoticesMissingSync runs the model against a log without fdatasync.
func TestModelNoticesMissingSync(t *testing.T) {
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.shrinktime": "0s", "rapid.checks": "500"} {
		f := flag.Lookup(name)
		before := f.Value.String()
		if err := f.Value.Set(value); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Value.Set(before) }()
	}
	mutant := &quietTB{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		rapid.Check(mutant, modelRun(true))
	}()
	<-done
	if !mutant.failed.Load() {
		t.Fatal("the model does not notice that nothing is synced")
	}
}

// quietTB is a test that is meant to fail.
type quietTB struct {
	testing.TB
	failed atomic.Bool
}

func (q *quietTB) Helper()               {}
func (q *quietTB) Logf(string, ...any)   {}
func (q *quietTB) Log(...any)            {}
func (q *quietTB) Errorf(string, ...any) { q.Fail() }
func (q *quietTB) Error(...any)          { q.Fail() }
func (q *quietTB) Fatalf(string, ...any) { q.FailNow() }
func (q *quietTB) Fatal(...any)          { q.FailNow() }
func (q *quietTB) Fail()                 { q.failed.Store(true) }
func (q *quietTB) Failed() bool          { return q.failed.Load() }
func (q *quietTB) FailNow() {
	q.Fail()
	runtime.Goexit()
}

// TestDiskFull: puts get a clear error, reads go on, and when space returns
// puts do too, without a restart.
func TestDiskFull(t *testing.T) {
	fs := NewMemFS()
	cfg := small(fs)
	l := open(t, cfg)
	r := create(t, l, key(1))
	fs.SetCapacity(fs.Used() + 300<<10)
	var want []stream.Batch
	var full error
	results := make(chan error, 10_000)
	pending := 0
	for full == nil {
		b := batch(r.key.Shard, 1, r.End(), int64(len(want)), 1, 3000)
		if full = r.Append(b, func(err error) { results <- err }); full == nil {
			want = append(want, b)
			pending++
		}
		if pending == cap(results) {
			t.Fatal("the disk does not fill")
		}
	}
	if !errors.Is(full, stream.DiskFull) && !errors.Is(full, stream.Throttled) {
		t.Fatalf("an append to a full disk: %v", full)
	}
	waitFor(t, l.DiskFull)
	if err := l.Admit(t.Context(), 1); !errors.Is(err, stream.DiskFull) {
		t.Fatalf("Admit: %v", err)
	}
	if err := l.Create([]stream.ReplicaKey{key(2)}); !errors.Is(err, stream.DiskFull) {
		t.Fatalf("Create: %v", err)
	}
	if got, err := readAll(r); err != nil || equal(got, want) != nil {
		t.Fatalf("reads of a full disk: %v, %v", err, equal(got, want))
	}
	fs.SetCapacity(0)
	for range pending {
		if err := <-results; err != nil {
			t.Fatalf("an append that waited for space: %v", err)
		}
	}
	waitFor(t, func() bool { return !l.DiskFull() }) // the flusher looks each second
	want = append(want, add(t, r, int64(len(want)), 3000))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, cfg)
	got, err := readAll(l.Replica(key(1)))
	if err != nil {
		t.Fatal(err)
	}
	sameBatches(t, got, want)
}

// TestDiskReserve: below the reserve appends are refused before the disk is full.
func TestDiskReserve(t *testing.T) {
	fs := NewMemFS()
	fs.SetCapacity(8 << 20)
	cfg := small(fs)
	cfg.DiskReserve = 1 << 20
	l := open(t, cfg)
	r := create(t, l, key(1))
	add(t, r, 1, 100)
	fs.SetCapacity(fs.Used() + 1000)
	waitFor(t, l.DiskFull)
	if err := r.Append(batch(r.key.Shard, 1, 1, 1, 1, 1), nil); !errors.Is(err, stream.DiskFull) {
		t.Fatal(err)
	}
	if err := l.Adopt([]Adoption{{r.key, 2}}); err != nil {
		t.Fatalf("an epoch must be adopted even then: %v", err)
	}
	fs.SetCapacity(8 << 20)
	waitFor(t, func() bool { return !l.DiskFull() })
	add(t, r, 1, 100)
}

// TestManyReplicas: nothing runs and nothing is open for a replica by itself.
func TestManyReplicas(t *testing.T) {
	fs := NewMemFS()
	cfg := Config{Dir: "/data", FS: fs, MaxOpenFiles: 50, DiskReserve: -1, JournalBudget: 64 << 20, TailCache: 8 << 20}
	if long() {
		cfg.FS, cfg.Dir = nil, t.TempDir()
	}
	l := open(t, cfg)
	goroutines := runtime.NumGoroutine()
	began := time.Now()
	n := 10_000
	var keys []stream.ReplicaKey
	for i := range n {
		keys = append(keys, key(i))
	}
	if size := unsafe.Sizeof(Replica{}); size > 640 {
		t.Errorf("an idle replica takes %d bytes", size)
	}
	if err := l.Create(keys); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, k := range keys {
		r := l.Replica(k)
		wg.Add(2)
		if err := r.Adopt(1, func(err error) {
			defer wg.Done()
			if err == nil {
				err = r.Append(batch(k.Shard, 1, 0, 1, 1, 20), func(err error) {
					if err != nil {
						t.Error(err)
					}
					wg.Done()
				})
			}
			if err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	t.Logf("created, adopted and put to in %v", time.Since(began))
	l.segMu.Lock()
	if err := l.checkpoint(0); err != nil {
		t.Fatal(err)
	}
	for _, r := range l.Replicas()[:500] {
		if err := l.flushReplica(r); err != nil {
			t.Fatal(err)
		}
	}
	l.segMu.Unlock()
	s := l.Stats()
	if g := runtime.NumGoroutine(); g > goroutines || s.OpenSegments > 50 || s.Fdatasyncs > 500 {
		t.Fatalf("%d goroutines, before %d; %d open files; %d fdatasyncs", g, goroutines, s.OpenSegments, s.Fdatasyncs)
	}
	l.Close()
	began = time.Now()
	l = open(t, cfg)
	t.Logf("opened in %v", time.Since(began))
	for _, k := range keys {
		if got, err := l.Replica(k).Read(0, 1, 1); err != nil || len(got) != 1 {
			t.Fatal(k, got, err)
		}
	}
	if s := l.Stats(); s.OpenSegments > 50 || s.Replicas != int64(n) {
		t.Fatalf("%+v", s)
	}
}

// rotten is a data directory with a bit of everything in it.
func rotten(t *testing.T) (fs *MemFS, want map[stream.ReplicaKey][]stream.Batch) {
	t.Helper()
	fs, s := NewMemFS(), newScript()
	if err := s.run(fs); err != nil {
		t.Fatal(err)
	}
	// More that only the journal has.
	l, err := Open(s.config(fs))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		for k := range s.acked {
			r := l.Replica(k)
			b := batch(k.Shard, r.Epoch(), r.End(), 5000+int64(i), 1+i%3, 400)
			if err := appendWait(r, b); err != nil {
				t.Fatal(err)
			}
			s.acked[k] = append(s.acked[k], b)
		}
	}
	waitIdle(t, l) // all frames are covered by a later one
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for k, start := range s.start {
		s.acked[k] = slices.DeleteFunc(s.acked[k], func(b stream.Batch) bool { return b.End() <= start })
	}
	return fs.Clone(), s.acked
}

// TestFlippedBits flips bits anywhere: what can't be read any more is named,
// and nothing wrong is ever served or cut silently (I13, I14).
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	fs, want := rotten(t)
	files := fs.Files()
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	rng := rand.New(rand.NewPCG(1, 2))
	perFile := 15
	if long() {
		perFile = 3000
	}
	seen := map[string]int{}
	for _, name := range names {
		size := files[name]
		kind := path.Ext(name)
		if strings.HasPrefix(path.Base(name), "spare") || size == 0 {
			continue
		}
		used := int64(len(bytes.TrimRight(content(t, fs, name), "\x00")))
		for i := range perFile {
			bit := rng.Int64N(max(used, 1) * 8)
			if i < perFile/3 {
				bit = rng.Int64N(min(used, 200) * 8) // heads matter most
			}
			left := fs.Clone()
			if err := left.Flip(name, bit); err != nil {
				t.Fatal(err)
			}
			outcome, err := judge(left, want)
			if err != nil {
				t.Fatalf("bit %d of %s (%d bytes): %v", bit, name, size, err)
			}
			seen[kind+" "+outcome]++
		}
	}
	t.Log(seen)
	if seen[".log damage"] == 0 || seen[".seg damage"] == 0 || seen[" problem"] == 0 || seen[".log whole"] == 0 {
		t.Fatalf("the test does not reach every outcome: %v", seen)
	}
}

func content(t *testing.T, fs *MemFS, name string) []byte {
	t.Helper()
	b, err := readFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// judge opens a damaged directory and says how it went: an error if anything
// wrong was served, or is missing without being named.
func judge(fs *MemFS, want map[stream.ReplicaKey][]stream.Batch) (outcome string, err error) {
	v, verr := Verify("/data", fs.Clone(), nil)
	l, err := Open(small(fs))
	if err != nil {
		if verr == nil {
			return "", fmt.Errorf("Open says %w, and Verify nothing", err)
		}
		return "refused", nil
	}
	defer l.Close()
	if verr != nil {
		return "", fmt.Errorf("Verify fails where Open does not: %w", verr)
	}
	lost := false
	for k, batches := range want {
		r := l.Replica(k)
		if r == nil {
			return "", fmt.Errorf("replica %s is gone without a word", k)
		}
		n, err := judgeReplica(l, r, batches)
		if err != nil {
			return "", err
		}
		lost = lost || n > 0
	}
	switch {
	case lost && len(v.Damage) == 0:
		return "", errors.New("records are lost, and Verify does not see it")
	case lost:
		return "damage", nil
	case !v.OK():
		return "problem", nil
	}
	return "whole", nil
}

func judgeReplica(l *Log, r *Replica, want []stream.Batch) (lost int, err error) {
	if end := want[len(want)-1].End(); r.End() < end {
		return 0, fmt.Errorf("replica %s ends at %d, not %d: a silent cut", r.key, r.End(), end)
	}
	for _, b := range want {
		got, err := r.Read(b.Base(), b.End(), 1)
		switch {
		case err == nil && len(got) == 1 && bytes.Equal(got[0], b):
		case errors.Is(err, stream.Corrupt):
			lost++
			if !known(stream.OffsetRange{Start: b.Base(), End: b.Base() + 1}, l.Damage(), nil) {
				return 0, fmt.Errorf("replica %s at %d: %w, but no damage is recorded", r.key, b.Base(), err)
			}
		default:
			return 0, fmt.Errorf("replica %s at %d: %d batches, %w", r.key, b.Base(), len(got), err)
		}
	}
	return lost, nil
}

// TestTornLastFrame: the last frame with nothing behind it is cut and told.
func TestTornLastFrame(t *testing.T) {
	fs := NewMemFS()
	cfg := small(fs)
	l := open(t, cfg)
	r := create(t, l, key(1))
	add(t, r, 1, 500)
	waitIdle(t, l)
	release := held(fs)
	defer release()
	done := make(chan error, 1)
	if err := r.Append(batch(r.key.Shard, 1, 1, 1, 1, 9000), func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	name := path.Join("/data/journal", journalName(1))
	waitFor(t, func() bool { return bytes.Count(content(t, fs, name), batchMagic) == 2 })
	left := fs.Clone()
	release()
	<-done
	at := int64(bytes.LastIndex(content(t, left, name), batchMagic)) + 4000
	if err := left.Flip(name, at*8); err != nil {
		t.Fatal(err)
	}
	cfg.FS = left
	l = open(t, cfg)
	rec := l.Recovery()
	if rec.TornFrames != 1 || len(rec.Torn) != 1 || !strings.Contains(rec.Torn[0], "[1,2)") || len(rec.Damage) != 0 {
		t.Fatalf("%+v", rec)
	}
	if end := l.Replica(key(1)).End(); end != 1 {
		t.Fatalf("the log ends at %d", end)
	}
}
