package kinesis

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"shardstream/stream"
)

const (
	sequenceDigits = 56
	shardDigits    = 12
)

// sequenceWriter prints sequence numbers as stream.SequenceNumber.Append does,
// faster where many have their creation and arrival second in common. It works
// in limbs of 19 decimal digits, least significant first: what the two seconds
// add to the number is kept, and the counter (times 2^80), the nibble (times
// 2^144) and the shard (times 16) are added to it.
type sequenceWriter struct {
	ready            bool
	created, arrival int64
	base             [3]uint64

	// The highest limb printed last and its digits, by nibble: it is nearly
	// always the same, for it takes a counter of 8*10^13 to change it.
	tops [16]struct {
		limb   uint64
		digits [18]byte
	}
}

const (
	limb = 1e19

	// 2^80 in limbs.
	counterLow, counterHigh = 5819614629174706176, 120892
)

// nibbles holds n * 2^144 in limbs, n the low four bits of a shard's number.
var nibbles = func() (table [16][3]uint64) {
	for n := 1; n < len(table); n++ {
		var carry uint64
		for i, l := range [3]uint64{8272648361505980416, 4519853062314153571, 223007} {
			sum, over := bits.Add64(table[n-1][i], l, carry)
			carry, table[n][i] = bits.Div64(over, sum, limb)
		}
	}
	return table
}()

// prepare computes the part of the number that the two seconds give.
func (w *sequenceWriter) prepare(created, arrival int64) {
	var buf [sequenceDigits]byte
	digits := stream.SequenceNumber{Created: created, Arrival: arrival}.Append(buf[:0])
	w.base = [3]uint64{}
	for i, c := range digits {
		l := &w.base[(sequenceDigits-1-i)/19]
		*l = *l*10 + uint64(c-'0')
	}
	w.ready, w.created, w.arrival = true, created, arrival
}

// append appends the 56 digits of a record's number.
func (w *sequenceWriter) append(dst []byte, n stream.SequenceNumber) []byte {
	if !w.ready || w.created != n.Created || w.arrival != n.Arrival {
		w.prepare(n.Created, n.Arrival)
	}
	nibble := &nibbles[n.Shard&0xf]

	high, low := bits.Mul64(n.Counter, counterLow)
	low, carry := bits.Add64(low, w.base[0], 0)
	high += carry
	low, carry = bits.Add64(low, nibble[0]+uint64(n.Shard)<<4, 0)
	carry, low0 := bits.Div64(high+carry, low, limb)

	high, low = bits.Mul64(n.Counter, counterHigh)
	low, over := bits.Add64(low, w.base[1], 0)
	high += over
	low, over = bits.Add64(low, nibble[1], 0)
	high += over
	low, over = bits.Add64(low, carry, 0)
	carry, low1 := bits.Div64(high+over, low, limb)

	low2 := w.base[2] + nibble[2] + carry

	from := len(dst)
	dst = slices.Grow(dst, sequenceDigits)[:from+sequenceDigits]
	d := dst[from:]
	top := &w.tops[n.Shard&0xf]
	if top.limb != low2 {
		top.limb = low2
		put2(top.digits[:], low2/1e16)
		put16(top.digits[2:], low2%1e16)
	}
	copy(d, top.digits[:])
	put3(d[18:], low1/1e16)
	put16(d[21:], low1%1e16)
	put3(d[37:], low0/1e16)
	put16(d[40:], low0%1e16)
	return dst
}

// appendShardDigits appends the twelve digits of a shard's name.
func appendShardDigits(dst []byte, shard uint32) []byte {
	from := len(dst)
	dst = slices.Grow(dst, shardDigits)[:from+shardDigits]
	put2(dst[from:], 0)
	put2(dst[from+2:], uint64(shard)/1e8)
	put8(dst[from+4:], uint64(shard)%1e8)
	return dst
}

func put2(d []byte, n uint64) {
	_ = d[1]
	d[0], d[1] = byte('0'+n/10), byte('0'+n%10)
}

func put3(d []byte, n uint64) {
	_ = d[2]
	d[0], d[1], d[2] = byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10)
}

func put16(d []byte, n uint64) {
	put8(d, n/1e8)
	put8(d[8:], n%1e8)
}

// put8 prints eight digits at once: it splits the number into fours, twos and
// ones in lanes of one word.
func put8(d []byte, n uint64) {
	fours := n/10000 | n%10000<<32
	hundreds := fours * 10486 >> 20 & 0x7f_0000_007f
	twos := hundreds | (fours-100*hundreds)<<16
	tens := twos * 103 >> 10 & 0xf_000f_000f_000f
	binary.LittleEndian.PutUint64(d, tens|(twos-10*tens)<<8|0x3030303030303030)
}
