package stream

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
)

// A batch whose records are encrypted has FlagEncrypted and the number of the
// stream's data key in its header, and behind the header:
//
//	off size
//	 88  2*n  ordinals of the n records
//	      24  nonce, random
//	          records as drawn above, encrypted
//	      16  tag
//
// Brokers never see the key. What they need is in the clear: how many records
// there are, for offsets, and which of the request, for retries (I22). Partition
// keys are not, nor how long each record is: a leader that holds its shard to
// limits is told that beside the batch, and does not keep it.
//
// The header but for what the leader stamps, and the ordinals, are authenticated
// with the records: a batch can't be taken for one of another stream, shard,
// request or data key. Its epoch, offset and arrival time are the leader's word.
const (
	encryptedNonce = 24
	encryptedTag   = 16
)

// EncryptedSize gives how many bytes longer a batch of count records is when it
// is encrypted.
func EncryptedSize(count int) int { return 2*count + encryptedNonce + encryptedTag }

// NewEncryptedBatch appends to dst what stands before the records of a batch of
// count records that will be encrypted with the data key of that number, which
// is not 0. Records follow as they do in any batch, and Encrypt completes it.
// dst should have length 0.
func NewEncryptedBatch(dst []byte, shard ShardID, request, invocation [16]byte, attempt uint16, key uint32, count int) Batch {
	b := NewBatch(dst, shard, request, invocation, attempt)
	b[13] = FlagEncrypted
	binary.LittleEndian.PutUint32(b[52:], key)
	n := 2*count + encryptedNonce
	return slices.Grow(b, n)[:len(b)+n]
}

// Encrypt completes a batch that NewEncryptedBatch began: it encrypts the count
// records in place and writes what the header has of them. The AEAD takes random
// nonces of 24 bytes and has a tag of 16. Without room for the tag the batch is
// copied.
func (b Batch) Encrypt(aead cipher.AEAD, count int) Batch {
	from := BatchHeaderSize + 2*count + encryptedNonce
	rest := b[from:]
	for i := range count {
		r, n, ok := nextRecord(rest)
		if !ok {
			panic(fmt.Sprintf("stream: record %d of %d to encrypt is not there", i, count))
		}
		binary.LittleEndian.PutUint16(b[BatchHeaderSize+2*i:], r.Ordinal)
		rest = rest[n:]
	}
	binary.LittleEndian.PutUint32(b[48:], uint32(count))
	nonce := b[from-encryptedNonce : from]
	rand.Read(nonce) // never fails
	b = aead.Seal(b[:from], nonce, b[from:], b.bound())
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return b
}

// Decrypt gives the batch with its records in the clear, appended to dst, which
// is not b's memory. DataKey still tells how it was stored; CheckBatch would not
// accept it: it is for reading only. Errors have Kind Corrupt: the batch, or the
// key, is not what it was encrypted with.
func (b Batch) Decrypt(dst []byte, aead cipher.AEAD) (Batch, error) {
	const op = "stream.Decrypt"
	count := b.Count()
	from := BatchHeaderSize + 2*count + encryptedNonce
	begin := len(dst)
	dst = append(slices.Grow(dst, BatchHeaderSize+b.RecordBytes()), b[:BatchHeaderSize]...)
	out, err := aead.Open(dst, b[from-encryptedNonce:from], b[from:], b.bound())
	if err != nil {
		return nil, Errorf(Corrupt, op, "%d records of shard %s at offset %d: %w", count, b.Shard(), b.Base(), err)
	}
	plain := Batch(out[begin:len(out):len(out)])
	plain[13] &^= FlagEncrypted
	FinishBatch(plain, count)
	if err := plain.walkRecords(); err != nil {
		return nil, &Error{Kind: Corrupt, Op: op, Err: err}
	}
	return plain, nil
}

// bound gives what is authenticated with the records.
func (b Batch) bound() []byte {
	ordinals := b[BatchHeaderSize : BatchHeaderSize+2*b.Count()]
	data := make([]byte, 0, BatchHeaderSize-12-20+len(ordinals))
	data = append(data, b[12:28]...) // version to shard number
	data = append(data, b[48:BatchHeaderSize]...)
	return append(data, ordinals...)
}

// Encrypted reports whether the records are encrypted.
func (b Batch) Encrypted() bool { return b[13]&FlagEncrypted != 0 }

// DataKey gives the number of the stream's data key with which the records are
// or, in a batch that Decrypt has given, were encrypted; 0 if they never were.
func (b Batch) DataKey() uint32 { return binary.LittleEndian.Uint32(b[52:]) }

// RecordBytes gives the size of the records in the clear, bytes.
func (b Batch) RecordBytes() int {
	n := len(b) - BatchHeaderSize
	if b.Encrypted() {
		n -= EncryptedSize(b.Count())
	}
	return n
}

// Ordinals gives the records' places in their request, encrypted or not.
func (b Batch) Ordinals() func(yield func(uint16) bool) {
	return func(yield func(uint16) bool) {
		if !b.Encrypted() {
			for _, r := range b.Records() {
				if !yield(r.Ordinal) {
					return
				}
			}
			return
		}
		for i := range b.Count() {
			if !yield(binary.LittleEndian.Uint16(b[BatchHeaderSize+2*i:])) {
				return
			}
		}
	}
}
