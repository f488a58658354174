package recordlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"sort"
	"strconv"

	"shardstream/stream"
)

// A segment holds batches of one replica in offset order, in a file named
// after its first offset:
//
//	page 0   header: magic "SSS1", version, stream id 8, replica id 8, shard
//	         number 4, zero 4, base offset 8, creation time ms 8, CRC32C
//	page 1   runs of batches, back to back; each run is what one spill wrote
//	         and begins at a page, zeros before it, so that a later write
//	         never touches a page that holds synced data
//	page n   once it is sealed, the index: magic "SSX1", version, number of
//	         entries 4, zero 4, then for each 64 KiB the offset 8, position 8
//	         and arrival time 8 of a batch, and the CRC32C of all that
//
// Where a segment ends is told by the manifest and not by the file's size:
// what lies behind is not synced, and the journal has it. The index is a hint:
// it is rebuilt from the batches when it is missing or wrong.
const (
	segmentMagic      = 0x31535353 // "SSS1"
	indexMagic        = 0x31585353 // "SSX1"
	segmentHeaderSize = 52
	indexHeaderSize   = 16
	indexEntrySize    = 24
	indexEvery        = 64 << 10
)

// segment describes one segment of a replica.
type segment struct {
	base, end stream.Offset
	bytes     int64 // where the batches end in the file
	firstMs   int64 // arrival of the first batch
	lastMs    int64 // arrival of the last
	created   int64 // ms
	sealed    bool  // nothing is added any more
}

func segmentName(base stream.Offset) string { return fmt.Sprintf("%020d.seg", base) }

func parseSegmentName(name string) (base stream.Offset, ok bool) {
	if len(name) != 24 || name[20:] != ".seg" {
		return 0, false
	}
	n, err := strconv.ParseUint(name[:20], 10, 64)
	return stream.Offset(n), err == nil
}

func (l *Log) replicaDir(key stream.ReplicaKey) string {
	return path.Join(l.cfg.Dir, "shards", key.String())
}

func (l *Log) segmentPath(key stream.ReplicaKey, base stream.Offset) string {
	return path.Join(l.replicaDir(key), segmentName(base))
}

func segmentHeader(page []byte, key stream.ReplicaKey, base stream.Offset, created int64) {
	clear(page[:pageSize])
	le := binary.LittleEndian
	le.PutUint32(page[0:], segmentMagic)
	le.PutUint32(page[4:], formatVersion)
	le.PutUint64(page[8:], uint64(key.Shard.Stream))
	le.PutUint64(page[16:], uint64(key.Replica))
	le.PutUint32(page[24:], key.Shard.Number)
	le.PutUint64(page[32:], uint64(base))
	le.PutUint64(page[40:], uint64(created))
	le.PutUint32(page[48:], crc32.Checksum(page[:48], castagnoli))
}

func checkSegmentHeader(page []byte, key stream.ReplicaKey, base stream.Offset) error {
	le := binary.LittleEndian
	switch {
	case len(page) < segmentHeaderSize || le.Uint32(page) != segmentMagic ||
		crc32.Checksum(page[:48], castagnoli) != le.Uint32(page[48:]):
		return errors.New("the header fails its checksum")
	case le.Uint32(page[4:]) != formatVersion:
		return fmt.Errorf("version %d is not known", le.Uint32(page[4:]))
	case le.Uint64(page[8:]) != uint64(key.Shard.Stream) || le.Uint64(page[16:]) != uint64(key.Replica) ||
		le.Uint32(page[24:]) != key.Shard.Number || le.Uint64(page[32:]) != uint64(base):
		return errors.New("the header belongs to another segment")
	}
	return nil
}

// indexEntry says where a batch begins.
type indexEntry struct {
	offset stream.Offset
	pos    int64
	ms     int64
}

type index []indexEntry

// note adds the batch if it lies far enough behind the last entry.
func (x *index) note(b stream.Batch, pos int64) {
	if n := len(*x); n == 0 || pos >= (*x)[n-1].pos+indexEvery {
		*x = append(*x, indexEntry{b.Base(), pos, b.Arrival()})
	}
}

// byOffset gives the last entry at or before the offset.
func (x index) byOffset(o stream.Offset) (indexEntry, bool) {
	i := sort.Search(len(x), func(i int) bool { return x[i].offset > o })
	if i == 0 {
		return indexEntry{}, false
	}
	return x[i-1], true
}

// byTime gives the last entry that arrived before the time.
func (x index) byTime(ms int64) (indexEntry, bool) {
	i := sort.Search(len(x), func(i int) bool { return x[i].ms >= ms })
	if i == 0 {
		return indexEntry{}, false
	}
	return x[i-1], true
}

func (x index) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, indexHeaderSize, indexHeaderSize+len(x)*indexEntrySize+4)
	le.PutUint32(b[0:], indexMagic)
	le.PutUint32(b[4:], formatVersion)
	le.PutUint32(b[8:], uint32(len(x)))
	for _, e := range x {
		b = le.AppendUint64(b, uint64(e.offset))
		b = le.AppendUint64(b, uint64(e.pos))
		b = le.AppendUint64(b, uint64(e.ms))
	}
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeIndex gives false for one that is missing, damaged or can't be of a
// segment with that many bytes.
func decodeIndex(b []byte, bytes int64) (index, bool) {
	le := binary.LittleEndian
	if len(b) < indexHeaderSize+4 || le.Uint32(b) != indexMagic || le.Uint32(b[4:]) != formatVersion {
		return nil, false
	}
	n := int(le.Uint32(b[8:]))
	size := indexHeaderSize + n*indexEntrySize
	if n > len(b)/indexEntrySize || size+4 > len(b) || crc32.Checksum(b[:size], castagnoli) != le.Uint32(b[size:]) {
		return nil, false
	}
	x := make(index, n)
	for i := range x {
		e := b[indexHeaderSize+i*indexEntrySize:]
		x[i] = indexEntry{stream.Offset(le.Uint64(e)), int64(le.Uint64(e[8:])), int64(le.Uint64(e[16:]))}
		if x[i].pos < pageSize || x[i].pos >= bytes {
			return nil, false
		}
	}
	return x, true
}

// scanner walks through a segment's batches and verifies each (I14).
type scanner struct {
	file  File
	shard stream.ShardID
	pos   int64         // of the next batch
	bytes int64         // where the segment ends
	next  stream.Offset // that the next batch must begin with
	end   stream.Offset // of the segment
	chunk int           // bytes to read at least
	reuse bool          // batches given out are valid until the next step only

	buf    []byte
	bufPos int64
}

// found is what a step of a scanner has met: a batch, at its position, and
// before it offsets that are lost. At the end the batch is nil.
type found struct {
	batch  stream.Batch
	pos    int64
	lost   stream.OffsetRange
	reason string
}

// load gives up to n bytes at pos, fewer at the segment's end.
func (s *scanner) load(pos int64, n int) ([]byte, error) {
	n = int(min(int64(n), s.bytes-pos))
	if n <= 0 {
		return nil, nil
	}
	if at := pos - s.bufPos; at < 0 || at+int64(n) > int64(len(s.buf)) {
		size := min(int64(max(n, s.chunk)), s.bytes-pos)
		buf := s.buf[:0]
		if !s.reuse || int64(cap(buf)) < size {
			buf = make([]byte, size) // batches given out lie in the old one
		}
		buf = buf[:size]
		got, err := s.file.ReadAt(buf, pos)
		if errors.Is(err, io.EOF) {
			clear(buf[got:]) // shorter than it should be: no batch is there
			err = nil
		}
		if err != nil {
			return nil, err
		}
		s.buf, s.bufPos = buf, pos
	}
	at := pos - s.bufPos
	return s.buf[at : at+int64(n) : at+int64(n)], nil
}

// at verifies the batch at a position. The error is one of the disk.
func (s *scanner) at(pos int64) (b stream.Batch, why, err error) {
	bytes, err := s.load(pos, stream.BatchHeaderSize)
	if err != nil {
		return nil, nil, err
	}
	n, why := stream.PeekBatch(bytes)
	if why != nil {
		return nil, why, nil
	}
	if bytes, err = s.load(pos, n); err != nil {
		return nil, nil, err
	}
	b, why = stream.CheckBatch(bytes)
	if why == nil && (b.Shard() != s.shard || b.Base() < s.next || b.End() > s.end) {
		why = fmt.Errorf("a batch of shard %s, offsets [%d,%d), does not belong here", b.Shard(), b.Base(), b.End())
	}
	return b, why, nil
}

// step gives the next batch. The error is one of the disk.
func (s *scanner) step() (found, error) {
	if s.pos >= s.bytes {
		return s.finish("the segment ends too early"), nil
	}
	b, why, err := s.at(s.pos)
	if err != nil {
		return found{}, err
	}
	at := s.pos
	if why != nil && at%pageSize != 0 && s.zeroTo(roundUp(at)) {
		// The end of a run.
		s.pos = roundUp(at)
		return s.step()
	}
	if why != nil {
		if b, at, err = s.resync(at + 1); err != nil {
			return found{}, err
		}
		if b == nil {
			s.pos = s.bytes
			return s.finish(why.Error()), nil
		}
	}
	f := found{batch: b, pos: at}
	if b.Base() > s.next {
		f.lost, f.reason = stream.OffsetRange{Start: s.next, End: b.Base()}, "a batch is missing"
		if why != nil {
			f.reason = why.Error()
		}
	}
	s.next, s.pos = b.End(), at+int64(len(b))
	return f, nil
}

func (s *scanner) finish(reason string) (f found) {
	f.pos = s.bytes
	if s.next < s.end {
		f.lost, f.reason = stream.OffsetRange{Start: s.next, End: s.end}, reason
		s.next = s.end
	}
	return f
}

func (s *scanner) zeroTo(to int64) bool {
	bytes, err := s.load(s.pos, int(to-s.pos))
	if err != nil {
		return false
	}
	for _, c := range bytes {
		if c != 0 {
			return false
		}
	}
	return true
}

var batchMagic = binary.LittleEndian.AppendUint32(nil, stream.BatchMagic)

// resync looks for the next sound batch from a position on.
func (s *scanner) resync(from int64) (stream.Batch, int64, error) {
	const look = 64 << 10
	for from < s.bytes {
		window, err := s.load(from, look)
		if err != nil {
			return nil, 0, err
		}
		i := bytes.Index(window, batchMagic)
		if i < 0 {
			from += int64(max(len(window)-3, 1))
			continue
		}
		b, why, err := s.at(from + int64(i))
		if err != nil {
			return nil, 0, err
		}
		if why == nil {
			return b, from + int64(i), nil
		}
		from += int64(i) + 1
	}
	return nil, s.bytes, nil
}
