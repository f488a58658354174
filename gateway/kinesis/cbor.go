package kinesis

import (
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// The major types of CBOR, in place.
const (
	cborUint   = 0 << 5
	cborNegint = 1 << 5
	cborBytes  = 2 << 5
	cborText   = 3 << 5
	cborArray  = 4 << 5
	cborMap    = 5 << 5
	cborTag    = 6 << 5
	cborSimple = 7 << 5

	cborBreak     = 0xff
	cborFalse     = 0xf4
	cborTrue      = 0xf5
	cborNull      = 0xf6
	cborUndefined = 0xf7
	cborTagTime   = 0xc1
)

// cborReader reads CBOR (RFC 8949) as Kinesis speaks it: integers, floats,
// strings, arrays and maps in every length form, null and undefined. Map keys
// must be text. Tag 1 on an integer is a time in milliseconds, tags 2 and 3 on
// a byte string are big numbers, other tags are passed over.
type cborReader struct {
	b []byte
	i int
}

// head reads the head of a data item.
func (r *cborReader) head() (major, info byte, arg uint64, ok bool) {
	if r.i == len(r.b) {
		return 0, 0, 0, false
	}
	c := r.b[r.i]
	r.i++
	major, info = c&0xe0, c&0x1f
	rest := r.b[r.i:]
	switch {
	case info < 24:
		return major, info, uint64(info), true
	case info == 24 && len(rest) >= 1:
		r.i++
		return major, info, uint64(rest[0]), true
	case info == 25 && len(rest) >= 2:
		r.i += 2
		return major, info, uint64(binary.BigEndian.Uint16(rest)), true
	case info == 26 && len(rest) >= 4:
		r.i += 4
		return major, info, uint64(binary.BigEndian.Uint32(rest)), true
	case info == 27 && len(rest) >= 8:
		r.i += 8
		return major, info, binary.BigEndian.Uint64(rest), true
	case info == 31:
		// Of indefinite length; or the break, which nobody asks for here.
		return major, info, 0, major >= cborBytes && major <= cborMap
	}
	return 0, 0, 0, false
}

func (r *cborReader) next(t *token) bool {
	*t = token{}
	tag, tags := uint64(0), 0
	for {
		major, info, arg, ok := r.head()
		if !ok {
			return false
		}
		if major == cborTag {
			// The innermost tag is the one that speaks of the value.
			if tags++; tags > maxDepth {
				return false
			}
			tag = arg
			continue
		}
		return r.item(t, major, info, arg, tag)
	}
}

func (r *cborReader) item(t *token, major, info byte, arg, tag uint64) (ok bool) {
	switch major {
	case cborUint, cborNegint:
		t.kind = tokenNumber
		if tag == 1 {
			t.kind = tokenTime
		}
		t.num = integerNumber(major == cborNegint, arg)
	case cborBytes, cborText:
		if t.text, ok = r.stringBody(major, info, arg); !ok {
			return false
		}
		t.kind = tokenString
		if major == cborBytes {
			t.kind = tokenBytes
			if tag == 2 || tag == 3 {
				t.kind, t.num, t.text = tokenNumber, bigNumber(tag == 3, t.text), nil
			}
		} else if !utf8.Valid(t.text) {
			return false
		}
	case cborArray, cborMap:
		t.kind = tokenList
		if major == cborMap {
			t.kind = tokenMap
		}
		t.indefinite, t.left = info == 31, arg
	default:
		return r.simple(t, info, arg)
	}
	return true
}

func (r *cborReader) simple(t *token, info byte, arg uint64) bool {
	switch info {
	case cborFalse & 0x1f, cborTrue & 0x1f:
		t.kind, t.truth = tokenBool, info == cborTrue&0x1f
	case cborNull & 0x1f, cborUndefined & 0x1f:
		t.kind = tokenNull
	case 25:
		t.kind, t.num = tokenNumber, floatNumber(halfFloat(uint16(arg)))
	case 26:
		t.kind, t.num = tokenNumber, floatNumber(float64(math.Float32frombits(uint32(arg))))
	case 27:
		t.kind, t.num = tokenNumber, floatNumber(math.Float64frombits(arg))
	default:
		return false
	}
	return true
}

// stringBody reads what follows the head of a byte or text string. A string in
// chunks is put together.
func (r *cborReader) stringBody(major, info byte, size uint64) ([]byte, bool) {
	if info != 31 {
		if size > uint64(len(r.b)-r.i) {
			return nil, false
		}
		s := r.b[r.i : r.i+int(size) : r.i+int(size)]
		r.i += int(size)
		return s, true
	}
	s := []byte{}
	for r.i < len(r.b) {
		if r.b[r.i] == cborBreak {
			r.i++
			return s, true
		}
		chunkMajor, chunkInfo, size, ok := r.head()
		if !ok || chunkMajor != major || chunkInfo == 31 {
			return nil, false
		}
		chunk, ok := r.stringBody(major, chunkInfo, size)
		if !ok || major == cborText && !utf8.Valid(chunk) {
			return nil, false
		}
		s = append(s, chunk...)
	}
	return nil, false
}

func (r *cborReader) more(t *token) (more, ok bool) {
	if t.indefinite {
		if r.i == len(r.b) {
			return false, false
		}
		if r.b[r.i] == cborBreak {
			r.i++
			return false, true
		}
		return true, true
	}
	if t.left == 0 {
		return false, true
	}
	t.left--
	return true, true
}

func (r *cborReader) key() ([]byte, bool) {
	major, info, size, ok := r.head()
	if !ok || major != cborText {
		return nil, false
	}
	key, ok := r.stringBody(major, info, size)
	return key, ok && utf8.Valid(key)
}

func (r *cborReader) rest() bool { return r.i < len(r.b) }

// integerNumber gives n, or -1-n.
func integerNumber(negative bool, n uint64) number {
	v := int64(min(n, limit-1))
	if negative {
		return number{floor: -1 - v, millis: saturatedMillis(-1 - v), nonzero: true}
	}
	return number{floor: v, millis: saturatedMillis(v), nonzero: v != 0}
}

func saturatedMillis(n int64) int64 {
	switch {
	case n > math.MaxInt64/1000:
		return math.MaxInt64
	case n < math.MinInt64/1000:
		return math.MinInt64
	}
	return n * 1000
}

// bigNumber gives the big-endian number in b, or -1 minus it.
func bigNumber(negative bool, b []byte) number {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	n := uint64(math.MaxUint64)
	if len(b) <= 8 {
		n = 0
		for _, c := range b {
			n = n<<8 | uint64(c)
		}
	}
	return integerNumber(negative, n)
}

func floatNumber(f float64) number {
	return number{floor: floorFloat(f), millis: floorFloat(f * 1000), double: true, nonzero: f != 0}
}

func floorFloat(f float64) int64 {
	switch f = math.Floor(f); {
	case f != f:
		return 0
	case f >= limit:
		return math.MaxInt64
	case f < -limit:
		return math.MinInt64
	}
	return int64(f)
}

func halfFloat(h uint16) float64 {
	exponent, mantissa := int(h>>10&0x1f), float64(h&0x3ff)
	var f float64
	switch exponent {
	case 0:
		f = math.Ldexp(mantissa, -24)
	case 31:
		f = math.Inf(1)
		if mantissa != 0 {
			f = math.NaN()
		}
	default:
		f = math.Ldexp(mantissa+1024, exponent-25)
	}
	if h>>15 == 1 {
		return -f
	}
	return f
}

// appendCBORHead appends the head of a data item in its shortest form.
func appendCBORHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

func appendCBORInt(dst []byte, n int64) []byte {
	if n < 0 {
		return appendCBORHead(dst, cborNegint, uint64(-1-n))
	}
	return appendCBORHead(dst, cborUint, uint64(n))
}

func appendCBORString[T string | []byte](dst []byte, s T) []byte {
	return append(appendCBORHead(dst, cborText, uint64(len(s))), s...)
}

func appendCBORBytes(dst, b []byte) []byte {
	return append(appendCBORHead(dst, cborBytes, uint64(len(b))), b...)
}

// appendCBORTime appends tag 1 and milliseconds in eight bytes, as the service
// does.
func appendCBORTime(dst []byte, ms Timestamp) []byte {
	if ms < 0 {
		return binary.BigEndian.AppendUint64(append(dst, cborTagTime, cborNegint|27), uint64(-1-ms))
	}
	return binary.BigEndian.AppendUint64(append(dst, cborTagTime, cborUint|27), uint64(ms))
}
