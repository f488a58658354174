package recordlog

import (
	"encoding/binary"
	"hash/crc32"
	"unsafe"

	"shardstream/stream"
)

// A journal file is a run of frames, and a frame is what one group commit
// wrote: everything that was waiting, of all replicas, behind one fdatasync.
// Frames begin at multiples of 4096 and are padded to them, so that a later
// write never touches a sector that holds durable data. Little-endian:
//
//	head         80 bytes, see below
//	directory    one entry of 56 bytes for each thing in the frame
//	(zeros)
//	payload      the batches, back to back, byte for byte as given to Append
//	(zeros)
//	directory    again
//	tail         the head again, with another magic, at the frame's very end
//
// With the second copy at the far end, recovery can name what a damaged frame
// held, and read past a damaged head. The head:
//
//	off size
//	  0    4  magic: "SSJ1" in the head, "SSJE" in the tail
//	  4    4  version (1)
//	  8   16  journal's uuid
//	 24    8  fileseq: number of the file, so that stale frames of a file
//	          that was used before are recognised
//	 32    8  frameseq: number of the frame, one more in each, over all files
//	 40    8  synced through: all frames up to this number were durable when
//	          this one was written; a damaged frame among them is damage, and
//	          never a torn tail (I13)
//	 48    4  checksum in the head of the frame before
//	 52    4  length of the frame in bytes
//	 56    4  entries in the directory
//	 60    4  CRC32C of the directory
//	 64    4  position of the payload in the frame
//	 68    4  length of the payload
//	 72    4  zero
//	 76    4  CRC32C of bytes 0..76
//
// An entry of the directory:
//
//	off size
//	  0    8  stream id
//	  8    8  replica id
//	 16    4  shard number
//	 20    1  type
//	 21    3  zero
//	 24    4  epoch
//	 28    4  checksum in the batch
//	 32    8  base offset; Cut: the new end; Trim: the new start; Restart: both;
//	          HW: the high watermark
//	 40    8  end offset (Append, Hole)
//	 48    4  position of the batch in the payload
//	 52    4  length of the batch
//
// Batches carry their own CRC32C, so the payload has none of its own, and the
// padding needs none.
const (
	pageSize      = 4096
	headMagic     = 0x314a5353 // "SSJ1"
	tailMagic     = 0x454a5353 // "SSJE"
	formatVersion = 1
	headSize      = 80
	entrySize     = 56

	// frameCap is where a group commit stops to gather. One larger batch
	// still makes a frame of its own.
	frameCap = 4 << 20

	// maxFrame bounds what recovery believes of a length: the largest batch,
	// or a Create of 100,000 replicas, with room to spare.
	maxFrame = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type entryType uint8

const (
	entryAppend entryType = 1
	entryCut    entryType = 2 // the log ends at base
	entryAdopt  entryType = 3 // epoch is adopted
	entryTrim   entryType = 4 // the log starts at base
	entryCreate entryType = 5
	entryDrop   entryType = 6
	entryHole   entryType = 7 // [base, end) is given up

	entryRestart entryType = 8 // everything is dropped, the log begins empty at base
	entryHW      entryType = 9 // all below base was known to be committed: a hint
)

type entry struct {
	key      stream.ReplicaKey
	typ      entryType
	epoch    stream.Epoch
	crc      uint32
	base     stream.Offset
	end      stream.Offset
	pos, len uint32
}

func (e *entry) put(b []byte) {
	_ = b[entrySize-1]
	le := binary.LittleEndian
	le.PutUint64(b[0:], uint64(e.key.Shard.Stream))
	le.PutUint64(b[8:], uint64(e.key.Replica))
	le.PutUint32(b[16:], e.key.Shard.Number)
	le.PutUint32(b[20:], uint32(e.typ))
	le.PutUint32(b[24:], uint32(e.epoch))
	le.PutUint32(b[28:], e.crc)
	le.PutUint64(b[32:], uint64(e.base))
	le.PutUint64(b[40:], uint64(e.end))
	le.PutUint32(b[48:], e.pos)
	le.PutUint32(b[52:], e.len)
}

func getEntry(b []byte) (e entry) {
	_ = b[entrySize-1]
	le := binary.LittleEndian
	e.key.Shard.Stream = stream.StreamID(le.Uint64(b[0:]))
	e.key.Replica = stream.ReplicaID(le.Uint64(b[8:]))
	e.key.Shard.Number = le.Uint32(b[16:])
	e.typ = entryType(b[20])
	e.epoch = stream.Epoch(le.Uint32(b[24:]))
	e.crc = le.Uint32(b[28:])
	e.base = stream.Offset(le.Uint64(b[32:]))
	e.end = stream.Offset(le.Uint64(b[40:]))
	e.pos, e.len = le.Uint32(b[48:]), le.Uint32(b[52:])
	return e
}

type head struct {
	uuid       [16]byte
	file       uint64
	frame      uint64
	synced     uint64
	prev       uint32
	length     uint32
	entries    uint32
	dirCRC     uint32
	payloadPos uint32
	payloadLen uint32
	crc        uint32 // of the head itself, whichever copy it was read from
}

// put writes the head with one of the two magics and gives its checksum.
func (h *head) put(b []byte, magic uint32) uint32 {
	_ = b[headSize-1]
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[4:], formatVersion)
	copy(b[8:], h.uuid[:])
	le.PutUint64(b[24:], h.file)
	le.PutUint64(b[32:], h.frame)
	le.PutUint64(b[40:], h.synced)
	le.PutUint32(b[48:], h.prev)
	le.PutUint32(b[52:], h.length)
	le.PutUint32(b[56:], h.entries)
	le.PutUint32(b[60:], h.dirCRC)
	le.PutUint32(b[64:], h.payloadPos)
	le.PutUint32(b[68:], h.payloadLen)
	le.PutUint32(b[72:], 0)
	crc := crc32.Checksum(b[:76], castagnoli)
	le.PutUint32(b[76:], crc)
	return crc
}

// getHead reads a head or tail. newer says that it is sound, but written by a
// version that this code doesn't know.
func getHead(b []byte, magic uint32) (h head, ok, newer bool) {
	le := binary.LittleEndian
	if len(b) < headSize || le.Uint32(b) != magic || crc32.Checksum(b[:76], castagnoli) != le.Uint32(b[76:]) {
		return h, false, false
	}
	if le.Uint32(b[4:]) != formatVersion {
		return h, false, true
	}
	copy(h.uuid[:], b[8:])
	h.file, h.frame, h.synced = le.Uint64(b[24:]), le.Uint64(b[32:]), le.Uint64(b[40:])
	h.prev, h.length, h.entries, h.dirCRC = le.Uint32(b[48:]), le.Uint32(b[52:]), le.Uint32(b[56:]), le.Uint32(b[60:])
	h.payloadPos, h.payloadLen = le.Uint32(b[64:]), le.Uint32(b[68:])
	h.crc = le.Uint32(b[76:])
	if magic == tailMagic {
		var as [headSize]byte
		h.crc = h.put(as[:], headMagic)
	}
	dir := uint64(h.entries) * entrySize
	ok = h.length%pageSize == 0 && h.length > 0 && h.length <= maxFrame && h.entries <= maxFrame/entrySize &&
		2*headSize+2*dir+uint64(h.payloadLen) <= uint64(h.length) &&
		uint64(h.payloadPos) >= headSize+dir && uint64(h.payloadPos)+uint64(h.payloadLen)+dir+headSize <= uint64(h.length)
	return h, ok, false
}

// directory gives the entries from either copy, or false if both are damaged.
func (h *head) directory(frame []byte) ([]entry, bool) {
	size := int(h.entries) * entrySize
	for _, at := range [2]int{headSize, int(h.length) - headSize - size} {
		dir := frame[at : at+size]
		if crc32.Checksum(dir, castagnoli) != h.dirCRC {
			continue
		}
		entries := make([]entry, h.entries)
		for i := range entries {
			entries[i] = getEntry(dir[i*entrySize:])
		}
		return entries, true
	}
	return nil, false
}

// batch gives the verified batch of an Append entry, or an error of Kind Corrupt.
func (h *head) batch(frame []byte, e *entry) (stream.Batch, error) {
	if uint64(e.pos)+uint64(e.len) > uint64(h.payloadLen) {
		return nil, stream.Errorf(stream.Corrupt, "recordlog.Open", "a batch lies outside of its frame")
	}
	at := h.payloadPos + e.pos
	return checkEntry(frame[at:at+e.len], e)
}

// checkEntry verifies that the bytes are the batch that the entry describes.
func checkEntry(bytes []byte, e *entry) (stream.Batch, error) {
	b, err := stream.CheckBatch(bytes)
	if err != nil {
		return nil, err
	}
	if len(b) != int(e.len) || b.CRC() != e.crc || b.Base() != e.base || b.End() != e.end || b.Shard() != e.key.Shard {
		return nil, stream.Errorf(stream.Corrupt, "recordlog", "a batch is not the one that the directory names")
	}
	return b, nil
}

// frameBuf gathers a frame. The payload is copied in while the frame before is
// on its way to the disk; finish adds what is known only then.
type frameBuf struct {
	buf     []byte // aligned to pages for direct writes
	payload int    // bytes, from frameRoom on
	ops     []op
	entries int // of ops; the others are barriers
}

// frameRoom is where the payload gathers: the head and a directory of 71
// entries fit before it, so that large payloads need not be moved again.
const frameRoom = pageSize

// has room for another batch of that size, by the cap
func (f *frameBuf) hasRoom(size int) bool {
	return len(f.ops) == 0 || f.payload+size <= frameCap
}

func (f *frameBuf) add(o op) {
	if o.typ != 0 {
		f.entries++
	}
	if n := len(o.batch); n > 0 {
		f.grow(frameRoom + f.payload + n)
		o.pos = f.payload
		copy(f.buf[frameRoom+f.payload:], o.batch)
		f.payload += n
	}
	f.ops = append(f.ops, o)
}

// take empties the buffer and gives what was in it.
func (f *frameBuf) take() []op {
	ops := append([]op(nil), f.ops...)
	f.reset()
	return ops
}

func (f *frameBuf) grow(need int) {
	if need <= len(f.buf) {
		return
	}
	size := max(256<<10, len(f.buf)*2)
	for size < need {
		size *= 2
	}
	bigger := alignedBuffer(size)
	copy(bigger, f.buf)
	f.buf = bigger
}

func (f *frameBuf) reset() {
	clear(f.ops)
	f.ops, f.entries, f.payload = f.ops[:0], 0, 0
	if len(f.buf) > 4*frameCap {
		f.buf = nil // a rare giant; not worth its memory
	}
	if cap(f.ops) > 1<<16 {
		f.ops = nil
	}
}

// moveBelow is the payload size below which it is moved up to the directory:
// a small frame then takes one page less.
const moveBelow = 64 << 10

// finish lays the frame out and gives its bytes and the checksum of its head.
func (f *frameBuf) finish(h head) ([]byte, uint32) {
	dir := f.entries * entrySize
	at := headSize + dir
	end := at + f.payload + dir + headSize
	if at <= frameRoom && f.payload >= moveBelow {
		at = frameRoom
		end = at + f.payload + dir + headSize
	}
	length := (end + pageSize - 1) / pageSize * pageSize
	f.grow(max(length, frameRoom+f.payload))
	if at != frameRoom {
		copy(f.buf[at:], f.buf[frameRoom:frameRoom+f.payload])
	}
	frame := f.buf[:length]
	clear(frame[headSize+dir : at])
	second := length - headSize - dir
	clear(frame[at+f.payload : second])
	next := headSize
	for i := range f.ops {
		if f.ops[i].typ != 0 {
			e := f.ops[i].entry()
			e.put(frame[next:])
			next += entrySize
		}
	}
	copy(frame[second:], frame[headSize:headSize+dir])
	h.length, h.entries = uint32(length), uint32(f.entries)
	h.dirCRC = crc32.Checksum(frame[headSize:headSize+dir], castagnoli)
	h.payloadPos, h.payloadLen = uint32(at), uint32(f.payload)
	crc := h.put(frame, headMagic)
	h.put(frame[length-headSize:], tailMagic)
	return frame, crc
}

// size gives an upper bound of the frame's length.
func (f *frameBuf) size() int64 {
	return int64(frameRoom + f.payload + 2*(f.entries*entrySize+headSize) + pageSize)
}

// alignedBuffer gives memory that direct writes accept.
func alignedBuffer(size int) []byte {
	b := make([]byte, size+pageSize)
	skip := 0
	if off := int(uintptr(unsafe.Pointer(&b[0])) % pageSize); off != 0 {
		skip = pageSize - off
	}
	return b[skip : skip+size : skip+size]
}
