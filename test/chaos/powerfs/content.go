package powerfs

import (
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

const (
	blockSize  = 4096
	sectorSize = 512
	// runSize is the most that one write to the platter carries, bytes.
	runSize = 1 << 20
)

// blocks has blocks to use again. What is in them is arbitrary.
var blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}

// medium is the file on the platter.
type medium interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// content is what a file holds: the bytes on the platter, and over them the
// blocks that were written since the last sync.
//
// Invariants: floor <= min(size, synced). No byte of a dirty block at or behind
// size differs from zero, and no dirty block begins there.
type content struct {
	size   int64 // as programs see it
	synced int64 // of the file on the platter
	floor  int64 // the platter's bytes from here on have been cut off
	dirty  map[int64]*[blockSize]byte
}

// clean says whether the platter has all of it.
func (c *content) clean() bool {
	return len(c.dirty) == 0 && c.size == c.synced && c.floor == c.synced
}

// durable reads the platter's bytes as far as they are still part of the file,
// and zeros behind them.
func (c *content) durable(m medium, p []byte, off int64) error {
	n := int(max(0, min(int64(len(p)), c.floor-off)))
	clear(p[n:])
	return readAt(m, p[:n], off)
}

// readAt reads all of p; what lies behind the medium's end is zero.
func readAt(m medium, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := m.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	clear(p[n:])
	return err
}

// read gives the number of bytes, less than asked for at the end only.
func (c *content) read(m medium, p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), c.size-off)))
	p = p[:n]
	for done := 0; done < n; {
		at := off + int64(done)
		b, from := at/blockSize, int(at%blockSize)
		if block := c.dirty[b]; block != nil {
			done += copy(p[done:], block[from:])
			continue
		}
		run := blockSize - from // as far as no block is dirty
		for b++; done+run < n && c.dirty[b] == nil; b++ {
			run += blockSize
		}
		run = min(run, n-done)
		if err := c.durable(m, p[done:done+run], at); err != nil {
			return done, err
		}
		done += run
	}
	return n, nil
}

func (c *content) write(m medium, p []byte, off int64) error {
	for len(p) > 0 {
		b, from := off/blockSize, int(off%blockSize)
		block := c.dirty[b]
		if block == nil {
			block = blocks.Get().(*[blockSize]byte)
			if from > 0 || len(p) < blockSize {
				if err := c.durable(m, block[:], b*blockSize); err != nil {
					return err
				}
			} // else all of it is written
			if c.dirty == nil {
				c.dirty = map[int64]*[blockSize]byte{}
			}
			c.dirty[b] = block
		}
		n := copy(block[from:], p)
		p, off = p[n:], off+int64(n)
		c.size = max(c.size, off)
	}
	return nil
}

func (c *content) truncate(size int64) {
	c.size = size
	c.floor = min(c.floor, size)
	c.dropFrom(size)
}

// dropFrom forgets what was written at or behind a position.
func (c *content) dropFrom(pos int64) {
	for b, block := range c.dirty {
		if b*blockSize >= pos {
			delete(c.dirty, b)
			blocks.Put(block)
		} else if tail := pos - b*blockSize; tail < blockSize {
			clear(block[tail:])
		}
	}
}

// flush makes everything durable. After an error some of it may be.
func (c *content) flush(m medium) error {
	if c.floor < c.synced {
		if err := m.Truncate(c.floor); err != nil {
			return err
		}
		c.synced = c.floor
	}
	dirty := slices.Sorted(maps.Keys(c.dirty))
	run := make([]byte, 0, min(len(dirty)*blockSize, runSize))
	for i, b := range dirty {
		run = append(run, c.dirty[b][:]...)
		if i+1 < len(dirty) && dirty[i+1] == b+1 && len(run) < runSize {
			continue
		}
		if _, err := m.WriteAt(run, (b+1)*blockSize-int64(len(run))); err != nil {
			return err
		}
		run = run[:0]
	}
	if err := m.Truncate(c.size); err != nil {
		return err
	}
	c.synced, c.floor = c.size, c.size
	c.lose()
	return nil
}

// lose is a flush that has failed: what should have been written is marked
// clean and never will be.
func (c *content) lose() {
	for _, block := range c.dirty {
		blocks.Put(block)
	}
	c.dirty = nil
}

// cut shortens the file, also on the platter.
func (c *content) cut(m medium, size int64) error {
	if err := m.Truncate(size); err != nil {
		return err
	}
	c.dropFrom(size)
	c.size, c.synced, c.floor = size, size, min(c.floor, size)
	return nil
}

// tear lets a part of what was not synced reach the platter. The content must
// not be used any more.
func (c *content) tear(m medium, rng *rand.Rand) error {
	size := c.size
	if size != c.synced && rng.IntN(2) == 0 {
		size = c.synced
	}
	// Bytes that were cut off are zeros written, for all the disk knows.
	changed := slices.Collect(maps.Keys(c.dirty))
	if c.floor < c.synced {
		for b := c.floor / blockSize; b*blockSize < c.synced; b++ {
			if c.dirty[b] == nil {
				changed = append(changed, b)
			}
		}
	}
	slices.Sort(changed)
	for _, b := range changed {
		at := b * blockSize
		if at >= size {
			break
		}
		var kept int
		switch rng.IntN(4) {
		case 0, 1:
			kept = blockSize
		case 2:
			kept = blockSize - rng.IntN(blockSize/sectorSize)*sectorSize
		case 3:
			continue
		}
		kept = int(min(int64(kept), size-at))
		var block [blockSize]byte
		if d := c.dirty[b]; d != nil {
			block = *d
		} else if err := c.durable(m, block[:], at); err != nil {
			return err
		}
		if _, err := m.WriteAt(block[:kept], at); err != nil {
			return err
		}
	}
	return m.Truncate(size)
}
