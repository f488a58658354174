package powerfs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Flip is a bit that was inverted.
type Flip struct {
	Path   string // below the mount
	Offset int64
	Bit    int
}

// Cut is a file that was shortened, durably.
type Cut struct {
	Path     string
	Old, New int64 // sizes
}

// pick gives a file whose path matches and that has durable bytes, by the seed.
func (d *disk) pick(pattern string, rng *rand.Rand) (*node, error) {
	var found []*node
	for _, n := range d.nodes {
		if !n.isDir() && n.names > 0 && n.content.floor > 0 && matches(pattern, n.path()) {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no file with durable bytes matches %q", pattern)
	}
	slices.SortFunc(found, func(a, b *node) int { return strings.Compare(a.path(), b.path()) })
	return found[rng.IntN(len(found))], nil
}

// flipTries bounds the search for a block that is not all zeros.
const flipTries = 1000

// flip inverts a durable bit, in a block that is not all zeros if one is found:
// in files that are zeroed in advance there is else nothing to damage.
func (d *disk) flip(pattern string, seed uint64) (flip Flip, id uint64, err error) {
	rng := rand.New(rand.NewPCG(seed, 11))
	n, err := d.pick(pattern, rng)
	if err != nil {
		return Flip{}, 0, err
	}
	f, err := d.backing(n)
	if err != nil {
		return Flip{}, 0, err
	}
	defer d.release(n)
	for try := range flipTries {
		off := rng.Int64N(n.content.floor)
		var block [blockSize]byte
		if n.content.dirty[off/blockSize] != nil {
			continue // the flip would be written over
		}
		if err := n.content.durable(f, block[:], off/blockSize*blockSize); err != nil {
			return Flip{}, 0, err
		}
		if block == [blockSize]byte{} && try < flipTries-1 {
			continue
		}
		flip = Flip{Path: n.path(), Offset: off, Bit: rng.IntN(8)}
		b := []byte{block[off%blockSize] ^ 1<<flip.Bit}
		_, err := f.WriteAt(b, off)
		return flip, n.id, err
	}
	return Flip{}, 0, fmt.Errorf("no byte of %s is durable", n.path())
}

// cut shortens a file by at least a byte.
func (d *disk) cut(pattern string, seed uint64) (c Cut, id uint64, err error) {
	rng := rand.New(rand.NewPCG(seed, 13))
	n, err := d.pick(pattern, rng)
	if err != nil {
		return Cut{}, 0, err
	}
	f, err := d.backing(n)
	if err != nil {
		return Cut{}, 0, err
	}
	defer d.release(n)
	c = Cut{Path: n.path(), Old: n.content.size, New: rng.Int64N(n.content.floor)}
	if err := n.content.cut(f, c.New); err != nil {
		return Cut{}, 0, err
	}
	d.used -= c.Old - c.New
	return c, n.id, nil
}
