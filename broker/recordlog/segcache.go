package recordlog

import (
	"container/list"
	"errors"
	"sync"

	"shardstream/stream"
)

// segCache holds the open segments of all replicas, of which there may be many
// more than a process can have files: the ones not used for longest are closed.
type segCache struct {
	log *Log // set once
	max int

	mu   sync.Mutex
	open map[segID]*segFile
	lru  list.List // of *segFile, the most recently used in front
}

type segID struct {
	key  stream.ReplicaKey
	base stream.Offset
}

// segFile is an open segment with its index.
type segFile struct {
	id   segID
	file File
	err  error
	once sync.Once

	mu  sync.Mutex
	idx index

	// Guarded by the cache.
	refs int
	gone bool // to be closed with the last reference
	elem *list.Element
}

func newSegCache(l *Log, limit int) *segCache {
	return &segCache{log: l, max: limit, open: map[segID]*segFile{}}
}

// get gives the segment opened and with its index, which a segment that is
// not sealed, or whose index is damaged, has to be read for. release must follow.
func (c *segCache) get(key stream.ReplicaKey, s segment) (*segFile, error) {
	id := segID{key, s.base}
	c.mu.Lock()
	f := c.open[id]
	if f == nil {
		f = &segFile{id: id}
		f.elem = c.lru.PushFront(f)
		c.open[id] = f
	} else {
		c.lru.MoveToFront(f.elem)
	}
	f.refs++
	var victims []*segFile
	for e := c.lru.Back(); e != nil && c.lru.Len() > c.max; {
		victim, before := e.Value.(*segFile), e.Prev()
		if victim.refs == 0 {
			c.forgetLocked(victim)
			victims = append(victims, victim)
		}
		e = before
	}
	c.mu.Unlock()
	for _, v := range victims {
		v.close()
	}
	f.once.Do(func() { f.err = f.load(c.log, s) })
	if f.err != nil {
		err := f.err
		c.forget(id)
		c.release(f)
		return nil, err
	}
	return f, nil
}

func (c *segCache) release(f *segFile) {
	c.mu.Lock()
	f.refs--
	last := f.refs == 0 && f.gone
	c.mu.Unlock()
	if last {
		f.close()
	}
}

func (c *segCache) forgetLocked(f *segFile) {
	if !f.gone {
		f.gone = true
		c.lru.Remove(f.elem)
		delete(c.open, f.id)
	}
}

// forget closes a segment, now or when its last reader is done.
func (c *segCache) forget(id segID) {
	c.mu.Lock()
	f := c.open[id]
	if f == nil {
		c.mu.Unlock()
		return
	}
	c.forgetLocked(f)
	idle := f.refs == 0
	c.mu.Unlock()
	if idle {
		f.close()
	}
}

func (c *segCache) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Len()
}

func (c *segCache) closeAll() {
	c.mu.Lock()
	files := make([]*segFile, 0, len(c.open))
	for _, f := range c.open {
		files = append(files, f)
	}
	c.mu.Unlock()
	for _, f := range files {
		c.forget(f.id)
	}
}

// close ignores the error: whatever had to be durable was synced before.
func (f *segFile) close() {
	if f.file != nil {
		_ = f.file.Close()
	}
}

func (f *segFile) load(l *Log, s segment) error {
	mode := ReadOnly
	if !s.sealed {
		mode = Write
	}
	file, err := l.fs.Open(l.segmentPath(f.id.key, s.base), mode)
	if err != nil {
		return err
	}
	f.file = file
	if s.sealed {
		if x, ok := readIndex(file, s); ok {
			f.idx = x
			return nil
		}
	}
	sc := newScanner(file, f.id.key, s)
	sc.reuse = true
	for {
		step, err := sc.step()
		if err != nil {
			err = errors.Join(err, file.Close())
			f.file = nil
			return err
		}
		if step.batch == nil {
			return nil
		}
		f.idx.note(step.batch, step.pos)
	}
}

func newScanner(file File, key stream.ReplicaKey, s segment) *scanner {
	return &scanner{
		file: file, shard: key.Shard, pos: pageSize, bytes: s.bytes, next: s.base, end: s.end, chunk: 256 << 10,
	}
}

func readIndex(file File, s segment) (index, bool) {
	at := roundUp(s.bytes)
	size, err := file.Size()
	if err != nil || size <= at || size-at > 1<<24 {
		return nil, false
	}
	b := make([]byte, size-at)
	if _, err := file.ReadAt(b, at); err != nil {
		return nil, false
	}
	return decodeIndex(b, s.bytes)
}

// seek places a scanner at the last indexed batch at or before the offset.
func (f *segFile) seek(sc *scanner, o stream.Offset) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e, ok := f.idx.byOffset(o); ok {
		sc.pos, sc.next = e.pos, e.offset
	}
}

// seekTime places a scanner at the last indexed batch before the time.
func (f *segFile) seekTime(sc *scanner, ms int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e, ok := f.idx.byTime(ms); ok {
		sc.pos, sc.next = e.pos, e.offset
	}
}
