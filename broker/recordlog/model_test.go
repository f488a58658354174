package recordlog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"shardstream/stream"
)

// dumb is the second implementation that the log is compared with: slices.
type dumb struct {
	mu       sync.Mutex
	replicas map[stream.ReplicaKey]*dumbReplica
}

type dumbReplica struct {
	batches []stream.Batch // all that were given to Append, trimmed ones too
	acked   int            // of them
	start   stream.Offset
	epoch   stream.Epoch
	time    int64
}

func (d *dumbReplica) end() stream.Offset {
	if len(d.batches) == 0 {
		return 0
	}
	return d.batches[len(d.batches)-1].End()
}

func (d *dumbReplica) from(o stream.Offset) []stream.Batch {
	i := slices.IndexFunc(d.batches, func(b stream.Batch) bool { return b.End() > o })
	if i < 0 {
		return nil
	}
	return d.batches[i:]
}

func (d *dumbReplica) before(ms int64) stream.Offset {
	for _, b := range d.batches {
		if b.Arrival() >= ms {
			return b.Base()
		}
	}
	return d.end()
}

// compare checks a running log against the model.
func (m *dumb) compare(l *Log) error {
	if len(l.Replicas()) != len(m.replicas) {
		return fmt.Errorf("%d replicas, want %d", len(l.Replicas()), len(m.replicas))
	}
	if d := l.Damage(); len(d) > 0 {
		return fmt.Errorf("damage: %v", d)
	}
	for k, d := range m.replicas {
		r := l.Replica(k)
		if r == nil {
			return fmt.Errorf("replica %s is missing", k)
		}
		if r.Start() != d.start || r.End() != d.end() || r.Epoch() != d.epoch {
			return fmt.Errorf("replica %s has start %d end %d epoch %d, want %d %d %d", k, r.Start(), r.End(), r.Epoch(), d.start, d.end(), d.epoch)
		}
		got, err := readAll(r)
		if err != nil {
			return err
		}
		if err := equal(got, d.from(d.start)); err != nil {
			return fmt.Errorf("replica %s: %w", k, err)
		}
		if err := d.checkEpochs(r); err != nil {
			return fmt.Errorf("replica %s: %w", k, err)
		}
	}
	return nil
}

// checkEpochs compares the epoch table with the visible batches.
func (d *dumbReplica) checkEpochs(r *Replica) error {
	table := r.EpochTable()
	for _, b := range d.from(d.start) {
		i := 0
		for i < len(table)-1 && table[i+1].First <= b.Base() {
			i++
		}
		if i >= len(table) || table[i].Epoch != b.Epoch() {
			return fmt.Errorf("epoch table %v, but the batch at %d has epoch %d", table, b.Base(), b.Epoch())
		}
	}
	return nil
}

func equal(got, want []stream.Batch) error {
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !bytes.Equal(got[i], want[i]) {
			return fmt.Errorf("%d batches, want %d, and number %d differs", len(got), len(want), i)
		}
	}
	return nil
}

// adopt takes over what a crash has left, after checking that it may be so:
// everything acknowledged is there, and of the rest a first part.
func (m *dumb) adopt(l *Log) error {
	for k, d := range m.replicas {
		r := l.Replica(k)
		if r == nil {
			return fmt.Errorf("replica %s is lost", k)
		}
		if r.Epoch() != d.epoch {
			return fmt.Errorf("replica %s has epoch %d, adopted %d (I6)", k, r.Epoch(), d.epoch)
		}
		if r.Start() > d.start {
			return fmt.Errorf("replica %s starts at %d, trimmed to %d", k, r.Start(), d.start)
		}
		n := slices.IndexFunc(d.batches, func(b stream.Batch) bool { return b.End() > r.End() })
		if n < 0 {
			n = len(d.batches)
		}
		if n < d.acked {
			return fmt.Errorf("replica %s ends at %d: %d batches of %d that were acknowledged are lost (I2)", k, r.End(), d.acked-n, d.acked)
		}
		d.batches, d.acked = d.batches[:n], n
		r.TrimTo(d.start)
	}
	return m.compare(l)
}

// TestModel runs random operations, crashes among them, against the model.
func TestModel(t *testing.T) { rapid.Check(t, modelRun(false)) }

func modelRun(mutant bool) func(t *rapid.T) {
	return func(t *rapid.T) {
		fs := NewMemFS()
		cfg := small(fs)
		cfg.mutantNoSync = mutant
		cfg.MaxOpenFiles = 2
		m := &dumb{replicas: map[stream.ReplicaKey]*dumbReplica{}}
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if l != nil {
				l.Close()
			}
		}()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		pick := func(t *rapid.T) (*Replica, *dumbReplica) {
			if len(m.replicas) == 0 {
				t.Skip("no replica")
			}
			rs := l.Replicas()
			r := rs[rapid.IntRange(0, len(rs)-1).Draw(t, "replica")]
			return r, m.replicas[r.key]
		}
		var pending sync.WaitGroup
		next := 0
		push := func(t *rapid.T, r *Replica, d *dumbReplica) {
			d.time += int64(rapid.IntRange(0, 3).Draw(t, "time"))
			b := batch(r.key.Shard, d.epoch, d.end(), d.time, rapid.IntRange(1, 4).Draw(t, "records"), rapid.IntRange(0, 5000).Draw(t, "size"))
			d.batches = append(d.batches, b)
			pending.Add(1)
			must(r.Append(b, func(err error) {
				defer pending.Done()
				m.mu.Lock()
				defer m.mu.Unlock()
				if err == nil {
					d.acked = max(d.acked, slices.IndexFunc(d.batches, func(x stream.Batch) bool { return &x[0] == &b[0] })+1)
				}
			}))
		}
		// reopen opens what is left of the file system, sometimes crashing again
		// in the midst of recovery.
		reopen := func(t *rapid.T, left *MemFS, acked func()) {
			fs.Kill()
			l.Close()
			pending.Wait()
			acked()
			again := rapid.IntRange(0, 40).Draw(t, "crash again")
			if again > 0 && again < 20 {
				var once sync.Once
				seed, n := rapid.Uint64().Draw(t, "seed"), 0
				var second *MemFS
				left.OnSync(func() {
					if n++; n == again {
						once.Do(func() { second = left.CrashClone(seed, true); left.Kill() })
					}
				})
				c := cfg
				c.FS = left
				if half, err := Open(c); err == nil {
					half.Close()
				}
				left.OnSync(nil)
				if second != nil {
					left = second
				}
			}
			fs = left
			cfg.FS = fs
			l, err = Open(cfg)
			must(err)
			must(m.adopt(l))
		}
		t.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) {
				if len(m.replicas) > 5 {
					t.Skip("enough")
				}
				k := key(next)
				next++
				must(l.Create([]stream.ReplicaKey{k}))
				must(l.Adopt([]Adoption{{k, 1}}))
				m.replicas[k] = &dumbReplica{epoch: 1, time: 1000}
			},
			"append": func(t *rapid.T) {
				r, d := pick(t)
				for range rapid.IntRange(1, 20).Draw(t, "n") {
					push(t, r, d)
				}
				pending.Wait()
			},
			"adopt": func(t *rapid.T) {
				r, d := pick(t)
				d.epoch += stream.Epoch(rapid.IntRange(0, 2).Draw(t, "epochs"))
				must(l.Adopt([]Adoption{{r.key, d.epoch}}))
				if d.epoch > 0 && !errors.Is(l.Adopt([]Adoption{{r.key, d.epoch - 1}}), stream.Stale) {
					t.Fatal("an epoch went back (I6)")
				}
			},
			"trim": func(t *rapid.T) {
				r, d := pick(t)
				ms := int64(rapid.IntRange(1000, int(d.time)+1).Draw(t, "ms"))
				d.start = max(d.start, d.before(ms))
				if got := r.TrimBefore(ms); got != d.start {
					t.Fatalf("TrimBefore gives %d, want %d", got, d.start)
				}
			},
			"find": func(t *rapid.T) {
				r, d := pick(t)
				ms := int64(rapid.IntRange(1000, int(d.time)+1).Draw(t, "ms"))
				if got, err := r.FindTime(ms); err != nil || got != max(d.start, d.before(ms)) {
					t.Fatalf("FindTime gives %d, %v, want %d", got, err, max(d.start, d.before(ms)))
				}
			},
			"cut": func(t *rapid.T) {
				r, d := pick(t)
				visible := d.from(d.start)
				if len(visible) == 0 {
					t.Skip("empty")
				}
				n := len(d.batches) - len(visible) + rapid.IntRange(0, len(visible)).Draw(t, "n")
				to := d.start
				if n > 0 {
					to = max(d.start, d.batches[n-1].End())
				}
				must(r.Cut(to))
				d.batches, d.acked = d.batches[:n], n
				if d.end() != to {
					t.Fatal("the model can't cut there")
				}
			},
			"drop": func(t *rapid.T) {
				r, _ := pick(t)
				must(l.Drop([]stream.ReplicaKey{r.key}))
				delete(m.replicas, r.key)
			},
			"flush": func(t *rapid.T) { l.flush() },
			"checkpoint": func(t *rapid.T) {
				l.segMu.Lock()
				defer l.segMu.Unlock()
				must(l.checkpoint(0))
			},
			"power loss": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "busy") && len(m.replicas) > 0 {
					r, d := pick(t)
					for range rapid.IntRange(1, 5).Draw(t, "n") {
						push(t, r, d)
					}
				}
				m.mu.Lock()
				acked := map[*dumbReplica]int{}
				for _, d := range m.replicas {
					acked[d] = d.acked
				}
				m.mu.Unlock()
				left := fs.CrashClone(rapid.Uint64().Draw(t, "seed"), rapid.Bool().Draw(t, "keep"))
				reopen(t, left, func() {
					for d, n := range acked {
						d.acked = n // what was acknowledged before the power went
					}
				})
			},
			"kill": func(t *rapid.T) { reopen(t, fs.Clone(), func() {}) },
			"stop": func(t *rapid.T) {
				must(l.Close())
				l, err = Open(cfg)
				must(err)
			},
			"": func(t *rapid.T) { must(m.compare(l)) },
		})
	}
}
