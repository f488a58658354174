package stream

import (
	"math/big"
)

// SequenceNumber is what an AWS sequence number of the current layout
// (version 2) says. As hexadecimal it has 47 digits: "2", 36 bits creation
// second of the shard, the low nibble of the shard's index, 64 bits counter
// (top bit 0), 8 zero bits, 36 bits arrival second, 32 bits shard index, and
// the version "2". The zero bits are 1 in numbers between records (Behind).
// Printed in decimal it always has 56 digits, so that numbers
// of one shard sort as strings and as integers alike.
//
// The counter dominates the arrival second, so the order in a shard is the
// order of the counters. Our counter is the record's offset plus one; 0 is the
// shard's start and MaxCounter its end.
type SequenceNumber struct {
	Created int64  // creation time of the shard, epoch seconds
	Shard   uint32 // number of the shard
	Counter uint64 // offset + 1
	Arrival int64  // arrival time of the record, epoch seconds
	// Behind says that the number is no record's: it is greater than that of the
	// record with this counter, and less than that of the next, whatever Arrival.
	Behind bool
}

// MaxCounter is the counter in the EndingSequenceNumber of a closed shard.
const MaxCounter = 1<<63 - 1

// maxCreated is the first creation second that no number may have: parsing
// refuses it, as AWS does.
const maxCreated = 16025175000

// StartSequence gives the StartingSequenceNumber of a shard.
func StartSequence(shard uint32, created int64) SequenceNumber {
	return SequenceNumber{Created: created, Shard: shard, Arrival: created}
}

// EndSequence gives the EndingSequenceNumber of a shard closed at that second.
func EndSequence(shard uint32, created, closed int64) SequenceNumber {
	return SequenceNumber{Created: created, Shard: shard, Counter: MaxCounter, Arrival: closed}
}

// RecordSequence gives the number of the record at that offset.
func RecordSequence(shard uint32, created int64, o Offset, arrival int64) SequenceNumber {
	return SequenceNumber{Created: created, Shard: shard, Counter: uint64(o) + 1, Arrival: arrival}
}

// ContinuationSequence gives a number behind all records below the offset, and
// before the record there. It rises with the second, which is that of now.
func ContinuationSequence(shard uint32, created int64, next Offset, second int64) SequenceNumber {
	return SequenceNumber{Created: created, Shard: shard, Counter: uint64(next), Arrival: second, Behind: true}
}

// String gives the 56-digit decimal form.
func (s SequenceNumber) String() string { return string(s.Append(nil)) }

// Append appends the 56-digit decimal form to dst, without other allocations.
func (s SequenceNumber) Append(dst []byte) []byte {
	// The 188-bit value in three words, least significant first:
	// bits 0-3 version, 4-35 shard, 36-71 arrival, 72-79 behind, 80-143 counter,
	// 144-147 nibble, 148-183 created, 184-187 "2".
	created, arrival := uint64(s.Created)&(1<<36-1), uint64(s.Arrival)&(1<<36-1)
	w0 := uint64(2) | uint64(s.Shard)<<4 | arrival<<36
	w1 := arrival>>28 | s.Counter<<16
	if s.Behind {
		w1 |= 1 << 8
	}
	w2 := s.Counter>>48 | uint64(s.Shard&0xf)<<16 | created<<20 | 2<<56

	// Three divisions by 10^19 leave at most 19 digits each.
	var digits [57]byte
	i := len(digits)
	words := [3]uint64{w0, w1, w2}
	for range 3 {
		var r uint64
		hi, rh := HashKey{0, words[2]}.divmod64(1e19)
		words[2] = hi.Lo
		mid, rm := HashKey{rh, words[1]}.divmod64(1e19)
		words[1] = mid.Lo
		low, rl := HashKey{rm, words[0]}.divmod64(1e19)
		words[0], r = low.Lo, rl
		for range 19 {
			i--
			digits[i] = byte('0' + r%10)
			r /= 10
		}
	}
	return append(dst, digits[1:]...)
}

// SequenceError says why a string is no sequence number.
type SequenceError struct{ Reason string }

func (e *SequenceError) Error() string { return "invalid sequence number: " + e.Reason }

// ParsedSequence is a parsed sequence number of any layout. Only Version 2
// numbers can name a record of ours; the older ones are read because Kinesis
// accepts them in some places and answers them with particular errors in others.
type ParsedSequence struct {
	SequenceNumber
	Version int   // 0, 1 or 2
	Shard64 int64 // the shard's index, which the older layouts can make negative
}

var (
	two124 = new(big.Int).Lsh(big.NewInt(1), 124)
	two129 = new(big.Int).Lsh(big.NewInt(1), 129)
	two185 = new(big.Int).Lsh(big.NewInt(1), 185)
	leads3 = new(big.Int).Lsh(big.NewInt(3), 184) // the first of 47 hexadecimal digits is 3
)

// ParseSequence reads a sequence number as Kinesis does: version 0 for values
// below 2^129, else 47 hexadecimal digits that begin with 2 and end with the
// version, 0 to 2. Errors are *SequenceError: no decimal number, wrong leading
// digit, unknown version, creation second of 16025175000 or more, a counter
// with its top bit set.
func ParseSequence(s string) (ParsedSequence, error) {
	if s == "" || len(s) > 129 || len(s) > 1 && s[0] == '0' {
		return ParsedSequence{}, &SequenceError{"not a decimal number"}
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return ParsedSequence{}, &SequenceError{"not a decimal number"}
		}
	}
	n, _ := new(big.Int).SetString(s, 10)
	if n.Cmp(two124) < 0 {
		n.Add(n, two124)
	}
	field := func(shift, width uint) uint64 {
		f := new(big.Int).Rsh(n, shift)
		return f.And(f, new(big.Int).SetUint64(1<<width-1)).Uint64()
	}
	var p ParsedSequence
	if n.Cmp(two129) < 0 {
		// Version 0: "1" or more, 36 bits created, 16 bits sequence, then
		// the shard's 32-bit index (kinesalite's reading of 2013 numbers).
		h := n.Text(16)
		if h[0] > '1' {
			return ParsedSequence{}, &SequenceError{"wrong leading digit"}
		}
		p.Created = int64(field(88, 36))
		p.Shard64 = int64(int32(field(0, 32)))
		p.Shard = uint32(p.Shard64)
		p.Counter = field(32, 56)
		if p.Created >= maxCreated {
			return ParsedSequence{}, &SequenceError{"creation time out of range"}
		}
		return p, nil
	}
	if n.Cmp(two185) < 0 || n.Cmp(leads3) >= 0 {
		return ParsedSequence{}, &SequenceError{"wrong leading digit"}
	}
	p.Version = int(field(0, 4))
	switch p.Version {
	case 2:
		p.Counter = field(80, 63)
		if field(143, 1) == 1 {
			return ParsedSequence{}, &SequenceError{"counter out of range"}
		}
		p.Arrival = int64(field(36, 36))
		p.Behind = field(72, 8) != 0
	case 1:
		p.Arrival = int64(field(100, 36))
		p.Counter = field(44, 56)
	default:
		if p.Version > 2 {
			return ParsedSequence{}, &SequenceError{"unknown version"}
		}
	}
	p.Created = int64(field(148, 36))
	p.Shard64 = int64(int32(field(4, 32)))
	p.Shard = uint32(p.Shard64)
	if p.Created >= maxCreated {
		return ParsedSequence{}, &SequenceError{"creation time out of range"}
	}
	return p, nil
}
