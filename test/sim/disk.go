package sim

import (
	"slices"

	"shardstream/broker/recordlog"
	"shardstream/stream"
)

// disk is what a node keeps over a crash. All logs of a node share one journal:
// what was written becomes durable in order, and a crash keeps some first part
// of what was not.
type disk struct {
	id          int // another one after a loss
	incarnation uint64
	durable     map[stream.ReplicaKey]*content
	journal     []op // written, not synced
}

// content is one replica's log.
type content struct {
	epoch   stream.Epoch
	start   stream.Offset
	hw      stream.Offset
	batches []stream.Batch
}

func (c *content) clone() *content {
	d := *c
	d.batches = slices.Clone(c.batches)
	return &d
}

func (c *content) end() stream.Offset {
	if n := len(c.batches); n > 0 {
		return c.batches[n-1].End()
	}
	return c.start
}

// op is one write: what it does to a content, and whom to tell.
type op struct {
	key   stream.ReplicaKey
	apply func(*content)
	done  func(error)
	made  bool // creates the replica
}

func newDisk(id int) *disk {
	return &disk{id: id, durable: make(map[stream.ReplicaKey]*content)}
}

// write applies an op to what is on the disk for good.
func (d *disk) write(o op) {
	if o.made && d.durable[o.key] == nil {
		d.durable[o.key] = &content{}
	}
	if c := d.durable[o.key]; c != nil && o.apply != nil {
		o.apply(c)
	}
}

// sync makes the first n ops durable and calls back.
func (d *disk) sync(n int) {
	ops := slices.Clone(d.journal[:n])
	d.journal = slices.Clone(d.journal[n:])
	for _, o := range ops {
		d.write(o)
	}
	for _, o := range ops {
		if o.done != nil {
			o.done(nil)
		}
	}
}

// crash keeps the first n unsynced ops, and tells nobody.
func (d *disk) crash(n int) {
	for _, o := range d.journal[:n] {
		d.write(o)
	}
	d.journal = nil
}

// log is a replica's log as its process sees it.
type log struct {
	w       *world
	disk    *disk
	key     stream.ReplicaKey
	mem     *content
	durable stream.Offset
	cuts    int
}

func openLog(w *world, d *disk, key stream.ReplicaKey) *log {
	mem := d.durable[key].clone()
	return &log{w: w, disk: d, key: key, mem: mem, durable: mem.end()}
}

func (l *log) push(apply func(*content), done func(error)) {
	l.disk.journal = append(l.disk.journal, op{key: l.key, apply: apply, done: done})
}

func (l *log) Append(b stream.Batch, done func(error)) error {
	checked, err := stream.CheckBatch(b)
	switch {
	case err != nil:
		return err
	case b.Base() != l.mem.end():
		return stream.Errorf(stream.Gap, "sim.Append", "begins at %d, the log ends at %d", b.Base(), l.mem.end())
	case b.Arrival() < l.LastArrival():
		return stream.Errorf(stream.Invalid, "sim.Append", "time goes back")
	}
	b = slices.Clone(checked)
	l.mem.batches = append(l.mem.batches, b)
	l.w.sawBatch(l.key, b)
	cuts := l.cuts
	l.push(func(c *content) { c.batches = append(c.batches, b) }, func(error) {
		if l.cuts == cuts {
			l.durable = b.End()
		}
		done(nil)
	})
	return nil
}

func (l *log) Adopt(epoch stream.Epoch, done func(error)) error {
	if epoch < l.mem.epoch {
		return stream.Errorf(stream.Stale, "sim.Adopt", "goes back")
	}
	l.mem.epoch = epoch
	l.push(func(c *content) { c.epoch = epoch }, done)
	return nil
}

func (l *log) CutAsync(to stream.Offset, done func(error)) error {
	cut := func(c *content) {
		c.batches = slices.DeleteFunc(c.batches, func(b stream.Batch) bool { return b.End() > to })
	}
	if to < l.mem.start || to > l.mem.end() {
		return stream.Errorf(stream.Invalid, "sim.Cut", "%d is outside of the log", to)
	}
	cut(l.mem)
	if l.mem.end() != to {
		l.w.fail("a cut to %d inside of a batch of %s", to, l.key)
	}
	l.cuts++
	l.durable = min(l.durable, to)
	l.push(cut, done)
	return nil
}

func (l *log) Restart(at stream.Offset, done func(error)) error {
	restart := func(c *content) { c.batches, c.start = nil, at }
	restart(l.mem)
	l.cuts++
	l.durable = at
	l.push(restart, done)
	return nil
}

func (l *log) Epoch() stream.Epoch       { return l.mem.epoch }
func (l *log) Start() stream.Offset      { return l.mem.start }
func (l *log) DurableEnd() stream.Offset { return max(l.durable, l.mem.start) }
func (l *log) End() stream.Offset        { return l.mem.end() }

func (l *log) LastArrival() int64 {
	if n := len(l.mem.batches); n > 0 {
		return l.mem.batches[n-1].Arrival()
	}
	return 0
}

func (l *log) EpochTable() (table []recordlog.EpochStart) {
	for _, b := range l.mem.batches {
		if n := len(table); n == 0 || table[n-1].Epoch != b.Epoch() {
			table = append(table, recordlog.EpochStart{Epoch: b.Epoch(), First: b.Base()})
		}
	}
	return table
}

func (l *log) EpochOf(o stream.Offset) stream.Epoch {
	for _, b := range l.mem.batches {
		if b.End() >= o && b.Base() < o {
			return b.Epoch()
		}
	}
	return 0
}

func (l *log) HW() stream.Offset { return min(l.mem.hw, l.durable) }

func (l *log) SetHW(o stream.Offset) {
	l.mem.hw = o
	for _, b := range l.mem.batches {
		if b.End() <= o {
			l.w.commitAt(l.key.Shard, b)
		}
	}
	if l.w.chance(10) { // lazily
		l.push(func(c *content) { c.hw = min(o, c.end()) }, nil)
	}
}

// TailStart makes small logs have a part that is not in memory.
func (l *log) TailStart() stream.Offset {
	if n := len(l.mem.batches); n > 4 {
		return l.mem.batches[n-4].Base()
	}
	return l.mem.start
}

func (l *log) Read(from, limit stream.Offset, maxBytes int) (out []stream.Batch, err error) {
	for _, b := range l.mem.batches {
		if b.End() <= from || b.End() > limit {
			continue
		}
		if len(out) > 0 && maxBytes < len(b) {
			break
		}
		maxBytes -= len(b)
		out = append(out, b)
	}
	return out, nil
}

func (l *log) FindTime(ms int64) (stream.Offset, error) {
	for _, b := range l.mem.batches {
		if b.Arrival() >= ms {
			return b.Base(), nil
		}
	}
	return l.mem.end(), nil
}

func (l *log) TrimBefore(ms int64, limit stream.Offset) stream.Offset {
	o, _ := l.FindTime(ms)
	l.TrimTo(min(o, limit))
	return l.mem.start
}

func (l *log) TrimTo(o stream.Offset) {
	if o = min(o, l.durable); o <= l.mem.start {
		return
	}
	trim := func(c *content) {
		c.batches = slices.DeleteFunc(c.batches, func(b stream.Batch) bool { return b.End() <= o })
		c.start = max(c.start, o)
	}
	trim(l.mem)
	l.push(trim, nil)
}
