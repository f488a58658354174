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

// dumbReplica is a replica as a list of what was asked of it. A crash may undo
// the last of that, back to what was acknowledged.
type dumbReplica struct {
	base  dumbState
	steps []dumbStep
	acked int // of steps
	now   dumbState
	trim  stream.Offset // the start that was last asked for
	time  int64
}

// dumbStep is one thing that was asked of a replica.
type dumbStep struct {
	what  entryType
	batch stream.Batch
	at    stream.Offset
	epoch stream.Epoch
}

// dumbState is what a replica should be.
type dumbState struct {
	batches []stream.Batch // trimmed ones too
	floor   stream.Offset  // where the log begins, but for trims
	epoch   stream.Epoch
	hw      stream.Offset
}

func (s *dumbState) end() stream.Offset {
	if len(s.batches) == 0 {
		return s.floor
	}
	return s.batches[len(s.batches)-1].End()
}

// lastEpoch is the least that the next batch may have.
func (s *dumbState) lastEpoch() stream.Epoch {
	if len(s.batches) == 0 {
		return 0
	}
	return s.batches[len(s.batches)-1].Epoch()
}

func (s *dumbState) boundary(o stream.Offset) bool {
	return o == s.floor || slices.ContainsFunc(s.batches, func(b stream.Batch) bool { return b.End() == o })
}

func (s *dumbState) apply(step dumbStep) {
	switch step.what {
	case entryAppend:
		s.batches = append(slices.Clip(s.batches), step.batch)
	case entryCut:
		n := 0
		for n < len(s.batches) && s.batches[n].End() <= step.at {
			n++
		}
		s.batches, s.hw = s.batches[:n], min(s.hw, step.at)
	case entryRestart:
		s.batches, s.floor, s.hw = nil, step.at, step.at
	case entryAdopt:
		s.epoch = max(s.epoch, step.epoch)
	case entryHW:
		s.hw = max(s.hw, step.at)
	}
}

func (d *dumbReplica) do(step dumbStep) int {
	d.steps = append(d.steps, step)
	d.now.apply(step)
	if step.what == entryRestart {
		d.trim = step.at
	}
	return len(d.steps)
}

func (d *dumbReplica) end() stream.Offset { return d.now.end() }

// start is the first visible offset.
func (d *dumbReplica) start() stream.Offset { return max(d.now.floor, d.trim) }

func (s *dumbState) from(o stream.Offset) []stream.Batch {
	i := slices.IndexFunc(s.batches, func(b stream.Batch) bool { return b.End() > o })
	if i < 0 {
		return nil
	}
	return s.batches[i:]
}

func (d *dumbReplica) before(ms int64) stream.Offset {
	for _, b := range d.now.batches {
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
		if r.Start() != d.start() || r.End() != d.end() {
			return fmt.Errorf("replica %s has [%d,%d), want [%d,%d)", k, r.Start(), r.End(), d.start(), d.end())
		}
		if hw, durable := r.HW(), r.DurableEnd(); hw > durable || hw > max(d.now.hw, r.Start()) {
			return fmt.Errorf("replica %s has high watermark %d, was told %d, is durable to %d", k, hw, d.now.hw, durable)
		}
		got, err := readAll(r)
		if err != nil {
			return err
		}
		if err := equal(got, d.now.from(d.start())); err != nil {
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
	for _, b := range d.now.from(d.start()) {
		i := 0
		for i < len(table)-1 && table[i+1].First <= b.Base() {
			i++
		}
		if i >= len(table) || table[i].Epoch != b.Epoch() {
			return fmt.Errorf("epoch table %v, but the batch at %d has epoch %d", table, b.Base(), b.Epoch())
		}
		if e := r.EpochOf(b.End()); e != b.Epoch() {
			return fmt.Errorf("EpochOf(%d) is %d, want %d", b.End(), e, b.Epoch())
		}
	}
	if d.end() == d.start() && r.EpochOf(r.End()) > d.now.epoch {
		return fmt.Errorf("EpochOf(%d) is %d, adopted is %d", r.End(), r.EpochOf(r.End()), d.now.epoch)
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

// adopt takes over what a crash has left, after checking that it may be so: it
// is what all that was acknowledged has made, and a first part of the rest.
func (m *dumb) adopt(l *Log) error {
	for k, d := range m.replicas {
		r := l.Replica(k)
		if r == nil {
			return fmt.Errorf("replica %s is lost", k)
		}
		if err := d.adopt(r); err != nil {
			return fmt.Errorf("replica %s [%d,%d) of epoch %d: %w", k, r.Start(), r.End(), r.Epoch(), err)
		}
	}
	return m.compare(l)
}

func (d *dumbReplica) adopt(r *Replica) error {
	got, err := readAll(r)
	if err != nil {
		return err
	}
	s, told := d.base, stream.Offset(0)
	for _, step := range d.steps[d.acked:] {
		if step.what == entryHW {
			told = max(told, step.at)
		}
	}
	why := errors.New("nothing explains it")
	for n := 0; n <= len(d.steps); n++ {
		if n > 0 {
			s.apply(d.steps[n-1])
		}
		if n < d.acked {
			continue
		}
		switch {
		case r.Epoch() != s.epoch:
			why = fmt.Errorf("adopted is %d (I6)", s.epoch)
		case r.End() != s.end() || r.Start() < s.floor:
			why = fmt.Errorf("with %d of %d steps acknowledged it should end at %d (I2)", d.acked, len(d.steps), s.end())
		case r.HW() > max(s.hw, told, r.Start()):
			why = fmt.Errorf("high watermark %d, was told %d and %d (I7)", r.HW(), s.hw, told)
		case equal(got, s.from(r.Start())) != nil:
			why = equal(got, s.from(r.Start()))
		default:
			s.hw = max(s.hw, told)
			if d.trim < r.Start() || !s.boundary(d.trim) {
				d.trim = r.Start() // a restart or a cut was undone, or done
			}
			d.settle(s)
			r.TrimTo(d.trim)
			return nil
		}
	}
	return why
}

// settle forgets how the replica came to be what it is.
func (d *dumbReplica) settle(s dumbState) {
	s.batches = slices.Clip(s.batches)
	d.base, d.now, d.steps, d.acked = s, s, nil, 0
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
		// ask gives the callback of a step.
		ask := func(t *rapid.T, d *dumbReplica, step dumbStep) func(error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			n := d.do(step)
			pending.Add(1)
			return func(err error) {
				defer pending.Done()
				m.mu.Lock()
				defer m.mu.Unlock()
				if err == nil && d.acked >= n {
					panic("told out of order")
				}
				if err == nil {
					d.acked = n
				}
			}
		}
		settle := func() {
			pending.Wait()
			for _, d := range m.replicas {
				d.settle(d.now)
			}
		}
		push := func(t *rapid.T, r *Replica, d *dumbReplica) {
			d.time += int64(rapid.IntRange(0, 3).Draw(t, "time"))
			epoch := r.Epoch() // of what is being adopted nothing is taken yet
			if last := d.now.lastEpoch(); last > epoch || epoch != d.now.epoch {
				return
			} else if rapid.IntRange(0, 9).Draw(t, "old") == 0 {
				epoch = last // as a follower does that catches up
			}
			b := batch(r.key.Shard, epoch, d.end(), d.time, rapid.IntRange(1, 4).Draw(t, "records"), rapid.IntRange(0, 5000).Draw(t, "size"))
			must(r.Append(b, ask(t, d, dumbStep{what: entryAppend, batch: b})))
		}
		cut := func(t *rapid.T, r *Replica, d *dumbReplica) (to stream.Offset) {
			visible := d.now.from(d.start())
			to = d.start()
			if n := rapid.IntRange(0, len(visible)).Draw(t, "n"); n > 0 {
				to = max(to, visible[n-1].End())
			}
			return to
		}
		// burst asks for many things without waiting for any.
		burst := func(t *rapid.T, r *Replica, d *dumbReplica) {
			for range rapid.IntRange(1, 8).Draw(t, "n") {
				switch rapid.IntRange(0, 11).Draw(t, "what") {
				case 0, 1:
					to := cut(t, r, d)
					must(r.CutAsync(to, ask(t, d, dumbStep{what: entryCut, at: to})))
				case 2:
					at := d.end() + stream.Offset(rapid.IntRange(-5, 20).Draw(t, "at"))
					if int64(at) < 0 {
						at = 0
					}
					must(r.Restart(at, ask(t, d, dumbStep{what: entryRestart, at: at})))
				case 3:
					e := d.now.epoch + stream.Epoch(rapid.IntRange(0, 1).Draw(t, "epochs"))
					must(r.Adopt(e, ask(t, d, dumbStep{what: entryAdopt, epoch: e})))
				case 4, 5:
					if hw := r.DurableEnd(); hw <= d.end() {
						r.SetHW(hw)
						m.mu.Lock()
						d.do(dumbStep{what: entryHW, at: hw})
						m.mu.Unlock()
					}
				default:
					push(t, r, d)
				}
			}
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
				m.replicas[k] = &dumbReplica{base: dumbState{epoch: 1}, now: dumbState{epoch: 1}, time: 1000}
			},
			"append": func(t *rapid.T) {
				r, d := pick(t)
				for range rapid.IntRange(1, 20).Draw(t, "n") {
					push(t, r, d)
				}
				settle()
			},
			"burst": func(t *rapid.T) {
				r, d := pick(t)
				burst(t, r, d)
				settle()
				if r.DurableEnd() != d.end() || r.Epoch() != d.now.epoch {
					t.Fatalf("durable to %d in epoch %d, want %d in %d", r.DurableEnd(), r.Epoch(), d.end(), d.now.epoch)
				}
			},
			"adopt": func(t *rapid.T) {
				r, d := pick(t)
				epoch := d.now.epoch + stream.Epoch(rapid.IntRange(0, 2).Draw(t, "epochs"))
				must(l.Adopt([]Adoption{{r.key, epoch}}))
				if epoch > 0 && !errors.Is(l.Adopt([]Adoption{{r.key, epoch - 1}}), stream.Stale) {
					t.Fatal("an epoch went back (I6)")
				}
				d.now.epoch = epoch
				settle()
			},
			"trim": func(t *rapid.T) {
				r, d := pick(t)
				ms := int64(rapid.IntRange(1000, int(d.time)+1).Draw(t, "ms"))
				d.trim = max(d.start(), d.before(ms))
				if got := r.TrimBefore(ms, ^stream.Offset(0)); got != d.trim {
					t.Fatalf("TrimBefore gives %d, want %d", got, d.trim)
				}
			},
			"find": func(t *rapid.T) {
				r, d := pick(t)
				ms := int64(rapid.IntRange(1000, int(d.time)+1).Draw(t, "ms"))
				if got, err := r.FindTime(ms); err != nil || got != max(d.start(), d.before(ms)) {
					t.Fatalf("FindTime gives %d, %v, want %d", got, err, max(d.start(), d.before(ms)))
				}
			},
			"cut": func(t *rapid.T) {
				r, d := pick(t)
				to := cut(t, r, d)
				must(r.Cut(to))
				d.now.apply(dumbStep{what: entryCut, at: to})
				settle()
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
					burst(t, r, d)
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
