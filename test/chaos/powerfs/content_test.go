package powerfs

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// memory is a medium in memory.
type memory struct{ data []byte }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.grow(off + int64(len(p)))
	return copy(m.data[off:], p), nil
}

func (m *memory) Truncate(size int64) error {
	m.grow(size)
	m.data = m.data[:size:size]
	return nil
}

func (m *memory) grow(size int64) {
	if more := size - int64(len(m.data)); more > 0 {
		m.data = append(m.data, make([]byte, more)...)
	}
}

// written gives the file's bytes after a write or a truncation.
func written(old, p []byte, off int) []byte {
	data := bytes.Clone(old)
	if more := off + len(p) - len(data); more > 0 {
		data = append(data, make([]byte, more)...)
	}
	copy(data[off:], p)
	return data
}

func truncated(old []byte, size int) []byte {
	return append(bytes.Clone(old[:min(size, len(old))]), make([]byte, max(0, size-len(old)))...)
}

// torn says what is wrong with what a power loss has left of a file that held
// now and had last been synced as synced: "" if nothing is.
func torn(got, now, synced []byte) string {
	if len(got) != len(now) && len(got) != len(synced) {
		return "the size is neither the old one nor the new one"
	}
	now, synced = truncated(now, len(got)), truncated(synced, len(got))
	for at := 0; at < len(got); at += sectorSize {
		end := min(at+sectorSize, len(got))
		if g := got[at:end]; !bytes.Equal(g, now[at:end]) && !bytes.Equal(g, synced[at:end]) {
			return "a sector is neither old nor new"
		}
	}
	return ""
}

// TestContent holds that a file reads as what was written, that a sync makes
// just that durable, and that a power loss leaves each sector old or new.
func TestContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, c := &memory{}, &content{}
		var now, synced []byte
		size := rapid.IntRange(0, 5*blockSize)
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				p := bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, rapid.IntRange(1, 2*blockSize).Draw(t, "length"))
				off := size.Draw(t, "offset")
				now = written(now, p, off)
				ok(t, c.write(m, p, int64(off)))
			},
			"truncate": func(t *rapid.T) {
				n := size.Draw(t, "size")
				now = truncated(now, n)
				c.truncate(int64(n))
			},
			"sync": func(t *rapid.T) {
				ok(t, c.flush(m))
				synced = now
				if !bytes.Equal(m.data, now) || !c.clean() {
					t.Fatal("not all is on the platter")
				}
			},
			"cut": func(t *rapid.T) {
				n := min(size.Draw(t, "size"), len(synced), len(now))
				ok(t, c.cut(m, int64(n)))
				now, synced = now[:n], synced[:n]
			},
			"power loss": func(t *rapid.T) {
				ok(t, c.tear(m, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))))
				if wrong := torn(m.data, now, synced); wrong != "" {
					t.Fatal(wrong)
				}
				now = bytes.Clone(m.data)
				synced = now
				c = &content{size: int64(len(now)), synced: int64(len(now)), floor: int64(len(now))}
			},
			"": func(t *rapid.T) {
				off, got := size.Draw(t, "from"), make([]byte, 3*blockSize)
				n, err := c.read(m, got, int64(off))
				ok(t, err)
				want := now[min(off, len(now)):min(off+len(got), len(now))]
				if !bytes.Equal(got[:n], want) {
					t.Fatalf("read at %d gives %d bytes that are not what was written", off, n)
				}
				if c.size != int64(len(now)) || c.floor > min(c.size, c.synced) || c.synced != int64(len(m.data)) {
					t.Fatalf("size %d (want %d), synced %d (want %d), floor %d", c.size, len(now), c.synced, len(m.data), c.floor)
				}
			},
		})
	})
}

// TestTearReachesAll holds that a torn power loss can give all old, all new and
// a mixture, and both sizes.
func TestTearReachesAll(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(200) {
		m, c := &memory{}, &content{}
		old, new := bytes.Repeat([]byte{1}, 2*blockSize), bytes.Repeat([]byte{2}, 3*blockSize)
		ok(t, c.write(m, old, 0))
		ok(t, c.flush(m))
		ok(t, c.write(m, new, 0))
		ok(t, c.tear(m, rand.New(rand.NewPCG(seed, 1))))
		first := m.data[:blockSize]
		switch ones := bytes.Count(first, []byte{1}); {
		case ones == 0:
			seen["new"] = true
		case ones == blockSize:
			seen["old"] = true
		case ones%sectorSize == 0 && first[0] == 2 && first[blockSize-1] == 1:
			seen["torn"] = true
		default:
			t.Fatalf("seed %d: %d bytes of a block are old", seed, ones)
		}
		if len(m.data) == len(old) {
			seen["short"] = true
		} else {
			seen["long"] = true
		}
	}
	if len(seen) != 5 {
		t.Errorf("only seen %v", seen)
	}
}

func ok(t interface{ Fatal(...any) }, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
