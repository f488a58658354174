package stream

import (
	"crypto/md5"
	"encoding/binary"
	"math/bits"
)

// HashKey is a 128-bit unsigned integer: a position in the hash space that the
// open shards of a stream share out among themselves.
type HashKey struct{ Hi, Lo uint64 }

// MaxHashKey is 2^128-1, the end of the last shard's range.
var MaxHashKey = HashKey{^uint64(0), ^uint64(0)}

// HashRange is a shard's part of the hash space; both ends are inclusive.
type HashRange struct{ Start, End HashKey }

// HashPartitionKey gives the MD5 of the partition key's UTF-8 bytes as a
// 128-bit big-endian integer, as Kinesis routes by it.
func HashPartitionKey(key []byte) HashKey {
	sum := md5.Sum(key)
	return HashKey{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:])}
}

// Compare gives -1, 0 or +1 as k is less than, equal to or greater than o.
func (k HashKey) Compare(o HashKey) int {
	switch {
	case k.Hi < o.Hi || k.Hi == o.Hi && k.Lo < o.Lo:
		return -1
	case k == o:
		return 0
	}
	return 1
}

// Less reports whether k < o.
func (k HashKey) Less(o HashKey) bool { return k.Compare(o) < 0 }

// Add gives k+o modulo 2^128.
func (k HashKey) Add(o HashKey) HashKey {
	lo, carry := bits.Add64(k.Lo, o.Lo, 0)
	hi, _ := bits.Add64(k.Hi, o.Hi, carry)
	return HashKey{hi, lo}
}

// Sub gives k-o modulo 2^128.
func (k HashKey) Sub(o HashKey) HashKey {
	lo, borrow := bits.Sub64(k.Lo, o.Lo, 0)
	hi, _ := bits.Sub64(k.Hi, o.Hi, borrow)
	return HashKey{hi, lo}
}

// Next gives k+1 modulo 2^128.
func (k HashKey) Next() HashKey { return k.Add(HashKey{0, 1}) }

// Prev gives k-1 modulo 2^128.
func (k HashKey) Prev() HashKey { return k.Sub(HashKey{0, 1}) }

// mul64 gives k*m modulo 2^128.
func (k HashKey) mul64(m uint64) HashKey {
	hi, lo := bits.Mul64(k.Lo, m)
	return HashKey{hi + k.Hi*m, lo}
}

// divmod64 gives the quotient and remainder of k by d; d must not be 0.
func (k HashKey) divmod64(d uint64) (HashKey, uint64) {
	hi, r := k.Hi/d, k.Hi%d
	lo, r := bits.Div64(r, k.Lo, d)
	return HashKey{hi, lo}, r
}

// String gives the decimal form without leading zeros.
func (k HashKey) String() string { return string(k.AppendDecimal(nil)) }

// AppendDecimal appends the decimal form to dst.
func (k HashKey) AppendDecimal(dst []byte) []byte {
	var buf [39]byte
	i := len(buf)
	for {
		var r uint64
		k, r = k.divmod64(10)
		i--
		buf[i] = byte('0' + r)
		if k == (HashKey{}) {
			return append(dst, buf[i:]...)
		}
	}
}

// ParseHashKey reads a decimal hash key. It fails for an empty string, a
// non-digit, a superfluous leading zero, and a value of 2^128 or more.
func ParseHashKey[T string | []byte](s T) (k HashKey, ok bool) {
	if len(s) == 0 || len(s) > 39 || len(s) > 1 && s[0] == '0' {
		return HashKey{}, false
	}
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return HashKey{}, false
		}
		// k*10 overflows when k > 2^128/10.
		if q, _ := MaxHashKey.divmod64(10); q.Less(k) {
			return HashKey{}, false
		}
		k = k.mul64(10)
		next := k.Add(HashKey{0, uint64(c - '0')})
		if next.Less(k) {
			return HashKey{}, false
		}
		k = next
	}
	return k, true
}

// Contains reports whether k lies in the range.
func (r HashRange) Contains(k HashKey) bool { return !k.Less(r.Start) && !r.End.Less(k) }

// UniformRanges shares the whole hash space out among n shards as CreateStream
// does: w = floor(2^128/n), shard i has [i*w, (i+1)*w-1], and the last ends at
// 2^128-1. n must be at least 1.
func UniformRanges(n int) []HashRange {
	// floor(2^128/n): one more than the quotient of 2^128-1 when that leaves n-1.
	w, r := MaxHashKey.divmod64(uint64(n))
	if r == uint64(n)-1 {
		w = w.Next() // for n = 1 this wraps to 0, and no boundary uses it
	}
	ranges := make([]HashRange, n)
	for i := range ranges {
		ranges[i] = HashRange{w.mul64(uint64(i)), w.mul64(uint64(i + 1)).Prev()}
	}
	ranges[n-1].End = MaxHashKey
	return ranges
}
