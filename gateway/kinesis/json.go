package kinesis

import (
	"unicode/utf16"
	"unicode/utf8"
)

// jsonReader reads JSON strictly: RFC 8259 and nothing beyond it, in valid
// UTF-8, and no escaped surrogates without their partner.
type jsonReader struct {
	b []byte
	i int
}

func (r *jsonReader) space() {
	for r.i < len(r.b) {
		switch r.b[r.i] {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return
		}
	}
}

// peek gives the next byte behind white space, 0 at the end.
func (r *jsonReader) peek() byte {
	r.space()
	if r.i == len(r.b) {
		return 0
	}
	return r.b[r.i]
}

func (r *jsonReader) literal(s string) bool {
	if len(r.b)-r.i < len(s) || string(r.b[r.i:r.i+len(s)]) != s {
		return false
	}
	r.i += len(s)
	return true
}

func (r *jsonReader) next(t *token) bool {
	*t = token{}
	var ok bool
	switch c := r.peek(); c {
	case '{':
		t.kind = tokenMap
		r.i++
		return true
	case '[':
		t.kind = tokenList
		r.i++
		return true
	case '"':
		t.kind = tokenString
		t.text, ok = r.string()
		return ok
	case 't':
		t.kind, t.truth = tokenBool, true
		return r.literal("true")
	case 'f':
		t.kind = tokenBool
		return r.literal("false")
	case 'n':
		t.kind = tokenNull
		return r.literal("null")
	default:
		t.kind = tokenNumber
		t.num, ok = r.number()
		return ok
	}
}

func (r *jsonReader) more(t *token) (more, ok bool) {
	end := byte('}')
	if t.kind == tokenList {
		end = ']'
	}
	switch c := r.peek(); {
	case c == end:
		r.i++
		return false, true
	case !t.started:
		t.started = true
		return true, true
	case c == ',':
		r.i++
		return true, true
	}
	return false, false
}

func (r *jsonReader) key() ([]byte, bool) {
	if r.peek() != '"' {
		return nil, false
	}
	key, ok := r.string()
	if !ok || r.peek() != ':' {
		return nil, false
	}
	r.i++
	return key, true
}

func (r *jsonReader) rest() bool {
	r.space()
	return r.i < len(r.b)
}

// string reads the string that begins at r.i.
func (r *jsonReader) string() ([]byte, bool) {
	start := r.i + 1
	ascii := true
	for i := start; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"':
			r.i = i + 1
			s := r.b[start:i:i]
			return s, ascii || utf8.Valid(s)
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			return nil, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, false
}

// escaped reads a string with escapes, whose text begins at start.
func (r *jsonReader) escaped(start int) ([]byte, bool) {
	out, n, ok := appendUnescaped(nil, r.b[start:])
	r.i = start + n
	return out, ok
}

// appendUnescaped appends the value of the string whose text begins at b[0],
// and gives how many bytes it takes up with its closing quote.
func appendUnescaped(dst, b []byte) (out []byte, size int, ok bool) {
	from := len(dst)
	for i := 0; i < len(b); {
		c := b[i]
		switch {
		case c == '"':
			return dst, i + 1, utf8.Valid(dst[from:])
		case c < ' ':
			return dst, 0, false
		case c != '\\':
			dst = append(dst, c)
			i++
			continue
		}
		if i+1 == len(b) {
			return dst, 0, false
		}
		i += 2
		switch b[i-1] {
		case '"', '\\', '/':
			dst = append(dst, b[i-1])
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			u, ok := hex4(b[i:])
			if !ok {
				return dst, 0, false
			}
			i += 4
			if utf16.IsSurrogate(u) {
				if len(b)-i < 6 || b[i] != '\\' || b[i+1] != 'u' {
					return dst, 0, false
				}
				low, ok := hex4(b[i+2:])
				if u = utf16.DecodeRune(u, low); !ok || u == utf8.RuneError {
					return dst, 0, false
				}
				i += 6
			}
			dst = utf8.AppendRune(dst, u)
		default:
			return dst, 0, false
		}
	}
	return dst, 0, false
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (r *jsonReader) digits() []byte {
	start := r.i
	for r.i < len(r.b) && '0' <= r.b[r.i] && r.b[r.i] <= '9' {
		r.i++
	}
	return r.b[start:r.i]
}

func (r *jsonReader) accept(c byte) bool {
	if r.i == len(r.b) || r.b[r.i] != c {
		return false
	}
	r.i++
	return true
}

func (r *jsonReader) number() (n number, ok bool) {
	negative := r.accept('-')
	whole := r.digits()
	if len(whole) == 0 || len(whole) > 1 && whole[0] == '0' {
		return n, false
	}
	var fraction []byte
	if r.accept('.') {
		n.double = true
		if fraction = r.digits(); len(fraction) == 0 {
			return n, false
		}
	}
	exponent := 0
	if r.accept('e') || r.accept('E') {
		n.double = true
		down := r.accept('-')
		if !down {
			r.accept('+')
		}
		digits := r.digits()
		if len(digits) == 0 {
			return n, false
		}
		for _, c := range digits {
			// Far beyond the length of any body it makes no difference.
			exponent = min(exponent*10+int(c-'0'), 1<<40)
		}
		if down {
			exponent = -exponent
		}
	}
	n.floor, n.nonzero = floorDecimal(negative, whole, fraction, exponent)
	n.millis, _ = floorDecimal(negative, whole, fraction, exponent+3)
	return n, true
}

// limit is one more than the greatest int64.
const limit = 1 << 63

// floorDecimal gives the greatest integer not above ±whole.fraction * 10^exponent,
// or the end of the range where it lies outside.
func floorDecimal(negative bool, whole, fraction []byte, exponent int) (floor int64, nonzero bool) {
	point := len(whole) + exponent // digits before the point
	var n uint64
	rest := false
	digits := 0
	for _, part := range [...][]byte{whole, fraction} {
		for _, c := range part {
			if digits < point {
				n = saturate(n, c)
			} else if c != '0' {
				rest = true
			}
			digits++
		}
	}
	for ; digits < point && n != 0 && n < limit; digits++ {
		n = saturate(n, '0')
	}
	nonzero = n != 0 || rest
	switch {
	case !negative:
		return int64(min(n, limit-1)), nonzero
	case n >= limit:
		return -limit, nonzero
	case rest:
		return -int64(n) - 1, nonzero
	}
	return -int64(n), nonzero
}

// saturate gives n*10 and the digit, or 2^63 if that is less.
func saturate(n uint64, digit byte) uint64 {
	if n > limit/10 {
		return limit
	}
	return min(n*10+uint64(digit-'0'), limit)
}
