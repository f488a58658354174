package raftfsm

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"os"
)

// checkBolt walks all pages of a bbolt file that its newest meta page reaches,
// on the bytes alone, and fails with Kind Corrupt at the first that bbolt could
// not have written. bbolt itself trusts its pages: it panics over a bad one, on
// a goroutine of its own where nobody can catch that, or follows a pointer out
// of the file.
//
// It checks the shape. What the pages say is checked by the sums of store.
func checkBolt(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	w := boltWalk{path: path, data: data, reached: make(map[uint64]bool)}
	root, err := w.meta()
	if err != nil {
		return err
	}
	return w.page(root, nil, nil, 0)
}

const (
	boltMagic     = 0xED0CDAED
	boltVersion   = 2
	boltHeader    = 16 // of a page: id u64 | flags u16 | count u16 | overflow u32
	boltElem      = 16
	boltBranch    = 1
	boltLeaf      = 2
	boltMaxDepth  = 32
	boltSubBucket = 1 // flag of a leaf element
)

type boltWalk struct {
	path     string
	data     []byte
	pageSize uint64
	pages    uint64 // high water mark: no page in use has this id or a higher one
	reached  map[uint64]bool
}

// meta gives the root page of the newest meta page that matches its checksum,
// as bbolt does. Whether going back to the older one loses anything is for the
// mark to tell.
func (w *boltWalk) meta() (root uint64, err error) {
	le := binary.LittleEndian
	found, newest := false, uint64(0)
	for i := range 2 {
		at := 0
		if i == 1 {
			if w.pageSize == 0 {
				w.pageSize = uint64(os.Getpagesize())
			}
			at = int(w.pageSize)
		}
		at += boltHeader
		if at+64 > len(w.data) {
			continue
		}
		m := w.data[at : at+64]
		sum := fnv.New64a()
		sum.Write(m[:56])
		if le.Uint32(m) != boltMagic || le.Uint32(m[4:]) != boltVersion || le.Uint64(m[56:]) != sum.Sum64() {
			continue
		}
		w.pageSize = uint64(le.Uint32(m[8:]))
		if txid := le.Uint64(m[48:]); !found || txid > newest {
			found, newest = true, txid
			root, w.pages = le.Uint64(m[16:]), le.Uint64(m[40:])
		}
	}
	switch {
	case !found:
		return 0, damaged(w.path, "both meta pages fail their checksum")
	case w.pageSize < 512 || w.pages > uint64(len(w.data))/w.pageSize:
		return 0, damaged(w.path, "%d bytes are too few for %d pages", len(w.data), w.pages)
	}
	return root, nil
}

// page checks a page and all below it. first is the key that its parent has
// for it, and limit the next key there; nil for none.
func (w *boltWalk) page(id uint64, first, limit []byte, depth int) error {
	if id < 2 || id >= w.pages || depth > boltMaxDepth {
		return damaged(w.path, "page %d is none", id)
	}
	body := w.data[id*w.pageSize:]
	if got := binary.LittleEndian.Uint64(body); got != id {
		return damaged(w.path, "page %d says that it is page %d", id, got)
	}
	overflow := uint64(binary.LittleEndian.Uint32(body[12:]))
	if overflow >= w.pages || id+overflow >= w.pages {
		return damaged(w.path, "page %d ends outside the file", id)
	}
	for i := id; i <= id+overflow; i++ {
		if w.reached[i] {
			return damaged(w.path, "page %d is used twice", i)
		}
		w.reached[i] = true
	}
	body = body[:(overflow+1)*w.pageSize]
	used, err := w.elements(id, body, first, limit, depth)
	if err != nil {
		return err
	}
	if used > uint64(len(body)) || used+w.pageSize < uint64(len(body)) {
		return damaged(w.path, "page %d has %d bytes in %d overflow pages", id, used, overflow)
	}
	return nil
}

// elements checks that the keys and values of a page lie as bbolt lays them,
// behind each other in order without a gap, which ties the count and all the
// lengths together. It gives the bytes in use.
func (w *boltWalk) elements(id uint64, body, first, limit []byte, depth int) (used uint64, err error) {
	le := binary.LittleEndian
	flags, count := le.Uint16(body[8:]), uint64(le.Uint16(body[10:]))
	if flags != boltBranch && flags != boltLeaf {
		return 0, damaged(w.path, "page %d has flags %#x", id, flags)
	}
	used = boltHeader + count*boltElem
	if count == 0 && (flags == boltBranch || first != nil) || used > uint64(len(body)) {
		return 0, damaged(w.path, "page %d has %d elements", id, count)
	}
	var before, childKey []byte
	var child uint64 // of the branch element before
	for i := range count {
		at := boltHeader + i*boltElem
		elem := body[at : at+boltElem]
		var pos, ksize, vsize uint64
		if flags == boltBranch {
			pos, ksize = uint64(le.Uint32(elem)), uint64(le.Uint32(elem[4:]))
		} else {
			pos, ksize, vsize = uint64(le.Uint32(elem[4:])), uint64(le.Uint32(elem[8:])), uint64(le.Uint32(elem[12:]))
		}
		if at+pos != used || used+ksize+vsize > uint64(len(body)) {
			return 0, damaged(w.path, "page %d: element %d is out of place", id, i)
		}
		key, value := body[used:used+ksize], body[used+ksize:used+ksize+vsize]
		used += ksize + vsize
		switch {
		case i == 0 && first != nil && !bytes.Equal(first, key),
			i > 0 && bytes.Compare(before, key) >= 0,
			limit != nil && bytes.Compare(key, limit) >= 0:
			return 0, damaged(w.path, "page %d: key %d is out of order", id, i)
		}
		before = key
		switch elemFlags := le.Uint32(elem); {
		case flags == boltBranch:
			if i > 0 {
				err = w.page(child, childKey, key, depth+1)
			}
			child, childKey = le.Uint64(elem[8:]), key
		case elemFlags == boltSubBucket:
			err = w.bucket(id, value, depth)
		case elemFlags != 0:
			err = damaged(w.path, "page %d: element %d has flags %#x", id, i, elemFlags)
		}
		if err != nil {
			return 0, err
		}
	}
	if flags == boltBranch {
		err = w.page(child, childKey, limit, depth+1)
	}
	return used, err
}

// bucket checks the tree below a bucket: root u64 | sequence u64, and if the
// root is 0, the bucket's only page right behind.
func (w *boltWalk) bucket(id uint64, value []byte, depth int) error {
	if len(value) < 16 {
		return damaged(w.path, "page %d: a bucket of %d bytes", id, len(value))
	}
	root := binary.LittleEndian.Uint64(value)
	if root != 0 {
		if len(value) != 16 {
			return damaged(w.path, "page %d: a bucket of %d bytes", id, len(value))
		}
		return w.page(root, nil, nil, depth+1)
	}
	inline := value[16:]
	if len(inline) < boltHeader {
		return damaged(w.path, "page %d: an inline bucket of %d bytes", id, len(inline))
	}
	used, err := w.elements(id, inline, nil, nil, depth+1)
	if err == nil && used != uint64(len(inline)) {
		err = damaged(w.path, "page %d: an inline bucket has %d of %d bytes", id, used, len(inline))
	}
	return err
}
