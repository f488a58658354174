package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A record batch is the unit of storage, replication, checksum and index: what
// the gateway builds, the leader stamps, the journal and segments hold and a
// reader gets is one and the same run of bytes. Integers are little-endian.
//
//	off size
//	  0    4  magic "SSB1"
//	  4    4  length of the whole batch, header included, bytes
//	  8    4  CRC32C of bytes 12..length
//	 12    1  version (1)
//	 13    1  flags: 1 = records are encrypted (encrypted.go)
//	 14    2  attempt of the SDK (amz-sdk-request), 0 if it sent none
//	 16    8  stream id
//	 24    4  shard number
//	 28    4  epoch                       stamped by the leader
//	 32    8  base offset                 stamped by the leader
//	 40    8  arrival time, Unix ms       stamped by the leader
//	 48    4  number of records
//	 52    4  number of the data key within the stream, 0 if not encrypted
//	 56   16  request id of the gateway
//	 72   16  invocation id of the SDK (amz-sdk-invocation-id), 0 if none
//	 88       records
//
// and each record:
//
//	0    4  length of the data, bytes
//	4    2  length of the partition key, bytes
//	6    2  ordinal of the record in its request, from 0
//	8    1  flags: 1 = routed by an explicit hash key
//	9       partition key, then data
//
// All records of a batch share the arrival time, so retention by time is exact
// to the batch.
const (
	BatchMagic       = 0x31425353 // "SSB1", little-endian
	BatchVersion     = 1
	BatchHeaderSize  = 88
	RecordHeaderSize = 9

	// MaxBatchSize bounds a batch: a PutRecords of 10 MiB and its headers. A
	// length above it is damage, and never a reason to allocate.
	MaxBatchSize = 12 << 20

	// FlagExplicitHash marks a record routed by an explicit hash key.
	FlagExplicitHash = 1

	// FlagEncrypted marks a batch whose records are encrypted.
	FlagEncrypted = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is an encoded record batch. The methods that read fields presume a
// batch that CheckBatch has accepted.
type Batch []byte

// NewBatch appends an empty, unstamped batch header to dst; records follow
// with AppendRecord and FinishBatch completes it. dst should have length 0.
func NewBatch(dst []byte, shard ShardID, request, invocation [16]byte, attempt uint16) Batch {
	var h [BatchHeaderSize]byte
	binary.LittleEndian.PutUint32(h[0:], BatchMagic)
	h[12] = BatchVersion
	binary.LittleEndian.PutUint16(h[14:], attempt)
	binary.LittleEndian.PutUint64(h[16:], uint64(shard.Stream))
	binary.LittleEndian.PutUint32(h[24:], shard.Number)
	copy(h[56:], request[:])
	copy(h[72:], invocation[:])
	return append(dst, h[:]...)
}

// AppendRecordHeader appends a record's header and partition key; the caller
// appends exactly dataLen bytes of data right after it.
func (b Batch) AppendRecordHeader(key []byte, ordinal uint16, explicitHash bool, dataLen int) Batch {
	var h [RecordHeaderSize]byte
	binary.LittleEndian.PutUint32(h[0:], uint32(dataLen))
	binary.LittleEndian.PutUint16(h[4:], uint16(len(key)))
	binary.LittleEndian.PutUint16(h[6:], ordinal)
	if explicitHash {
		h[8] = FlagExplicitHash
	}
	return append(append(b, h[:]...), key...)
}

// AppendRecord appends a whole record.
func (b Batch) AppendRecord(r Record) Batch {
	return append(b.AppendRecordHeader(r.PartitionKey, r.Ordinal, r.ExplicitHash, len(r.Data)), r.Data...)
}

// FinishBatch writes the length and the number of records into the header.
// The checksum comes with Stamp.
func FinishBatch(b Batch, count int) {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[48:], uint32(count))
}

// Stamp writes what only the leader knows, and the checksum over everything.
func (b Batch) Stamp(epoch Epoch, base Offset, arrivalMs int64) {
	binary.LittleEndian.PutUint32(b[28:], uint32(epoch))
	binary.LittleEndian.PutUint64(b[32:], uint64(base))
	binary.LittleEndian.PutUint64(b[40:], uint64(arrivalMs))
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
}

// Len gives the length in the header: the size of the whole batch in bytes.
func (b Batch) Len() int { return int(binary.LittleEndian.Uint32(b[4:])) }

// CRC gives the stored checksum.
func (b Batch) CRC() uint32 { return binary.LittleEndian.Uint32(b[8:]) }

// Attempt gives the SDK's attempt number, 0 if it sent none.
func (b Batch) Attempt() uint16 { return binary.LittleEndian.Uint16(b[14:]) }

// Shard gives the shard the batch belongs to.
func (b Batch) Shard() ShardID {
	return ShardID{StreamID(binary.LittleEndian.Uint64(b[16:])), binary.LittleEndian.Uint32(b[24:])}
}

// Epoch gives the epoch of the leader that stamped it.
func (b Batch) Epoch() Epoch { return Epoch(binary.LittleEndian.Uint32(b[28:])) }

// Base gives the offset of the first record.
func (b Batch) Base() Offset { return Offset(binary.LittleEndian.Uint64(b[32:])) }

// End gives the offset after the last record.
func (b Batch) End() Offset { return b.Base() + Offset(b.Count()) }

// Arrival gives the arrival time of all its records, Unix milliseconds.
func (b Batch) Arrival() int64 { return int64(binary.LittleEndian.Uint64(b[40:])) }

// Count gives the number of records.
func (b Batch) Count() int { return int(binary.LittleEndian.Uint32(b[48:])) }

// RequestID gives the gateway's id of the request the records came in.
func (b Batch) RequestID() [16]byte { return [16]byte(b[56:72]) }

// InvocationID gives the SDK's id of the invocation, all zero if it sent none.
func (b Batch) InvocationID() [16]byte { return [16]byte(b[72:88]) }

// Record is one record of a batch. Its slices point into the batch.
type Record struct {
	PartitionKey []byte
	Data         []byte
	Ordinal      uint16 // place in the request it came with, from 0
	ExplicitHash bool   // routed by an explicit hash key
}

// Records gives the records in order, with their offsets. The batch must be
// one that CheckBatch has accepted, and not encrypted: it would panic, since to
// give none would be to lose them.
func (b Batch) Records() func(yield func(Offset, Record) bool) {
	if b.Encrypted() {
		panic("stream: the records of an encrypted batch")
	}
	return func(yield func(Offset, Record) bool) {
		rest, offset := b[BatchHeaderSize:], b.Base()
		for range b.Count() {
			r, n, ok := nextRecord(rest)
			if !ok || !yield(offset, r) {
				return
			}
			rest = rest[n:]
			offset++
		}
	}
}

func nextRecord(b []byte) (r Record, size int, ok bool) {
	if len(b) < RecordHeaderSize {
		return r, 0, false
	}
	data, key := int(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint16(b[4:]))
	size = RecordHeaderSize + key + data
	if size > len(b) || b[8]&^FlagExplicitHash != 0 {
		return r, 0, false
	}
	return Record{
		PartitionKey: b[RecordHeaderSize : RecordHeaderSize+key : RecordHeaderSize+key],
		Data:         b[RecordHeaderSize+key : size : size],
		Ordinal:      binary.LittleEndian.Uint16(b[6:]),
		ExplicitHash: b[8]&FlagExplicitHash != 0,
	}, size, true
}

// PeekBatch checks the start of a batch at the head of b: magic, version and a
// length between a header's and MaxBatchSize. It gives the whole length, which
// may exceed len(b). Errors have Kind Corrupt.
func PeekBatch(b []byte) (length int, err error) {
	const op = "stream.PeekBatch"
	if len(b) < BatchHeaderSize {
		return 0, Errorf(Corrupt, op, "%d bytes are too few for a header", len(b))
	}
	if m := binary.LittleEndian.Uint32(b); m != BatchMagic {
		return 0, Errorf(Corrupt, op, "magic %#x", m)
	}
	if b[12] != BatchVersion {
		return 0, Errorf(Corrupt, op, "version %d", b[12])
	}
	n := Batch(b).Len()
	if n < BatchHeaderSize || n > MaxBatchSize {
		return 0, Errorf(Corrupt, op, "length %d", n)
	}
	return n, nil
}

// CheckBatch verifies the batch at the head of b down to its last record, and
// gives it without what follows. Errors have Kind Corrupt: a batch that fails
// is never served, replicated or kept as truth (I14).
func CheckBatch(b []byte) (Batch, error) {
	const op = "stream.CheckBatch"
	n, err := PeekBatch(b)
	if err != nil {
		return nil, err
	}
	if n > len(b) {
		return nil, Errorf(Corrupt, op, "length %d, but %d bytes are there", n, len(b))
	}
	batch := Batch(b[:n:n])
	if sum := crc32.Checksum(batch[12:], castagnoli); sum != batch.CRC() {
		return nil, Errorf(Corrupt, op, "checksum %08x, stored %08x", sum, batch.CRC())
	}
	if err := batch.checkRecords(); err != nil {
		return nil, &Error{Kind: Corrupt, Op: op, Err: err}
	}
	return batch, nil
}

// CheckUnstamped verifies a batch as a leader receives it from a gateway: all
// that CheckBatch does but the checksum, which is not there yet. Errors have
// Kind Invalid.
func CheckUnstamped(b []byte) (Batch, error) {
	const op = "stream.CheckUnstamped"
	n, err := PeekBatch(b)
	if err == nil && n != len(b) {
		err = fmt.Errorf("length %d, but %d bytes are there", n, len(b))
	}
	if err == nil {
		err = Batch(b).checkRecords()
	}
	if err != nil {
		return nil, &Error{Kind: Invalid, Op: op, Err: err}
	}
	return Batch(b), nil
}

// checkRecords looks at what the checksum does not tell: that the records fill
// the batch.
func (b Batch) checkRecords() error {
	if b[13]&^FlagEncrypted != 0 || b.Encrypted() != (b.DataKey() != 0) {
		return fmt.Errorf("flags %#x with data key %d", b[13], b.DataKey())
	}
	if !b.Encrypted() {
		return b.walkRecords()
	}
	if count := b.Count(); count == 0 || b.RecordBytes() < count*RecordHeaderSize {
		return fmt.Errorf("%d encrypted records in %d bytes", count, b.RecordBytes())
	}
	return nil
}

func (b Batch) walkRecords() error {
	count, rest := b.Count(), b[BatchHeaderSize:]
	if count == 0 {
		return fmt.Errorf("no records")
	}
	for i := range count {
		_, n, ok := nextRecord(rest)
		if !ok {
			return fmt.Errorf("record %d of %d does not fit", i, count)
		}
		rest = rest[n:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%d bytes behind the last record", len(rest))
	}
	return nil
}
