package kinesis

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a body, and with it the stack. The API's
// deepest input has three levels.
const maxDepth = 64

// maxElements is how many elements of a list or map are kept, many times what
// any input may have. The rest is read, and judged by its types, but takes no
// memory: a body of nulls must not grow twentyfold.
const maxElements = 10000

// tokenKind is what a reader met.
type tokenKind uint8

const (
	tokenNull tokenKind = iota
	tokenBool
	tokenNumber
	tokenString
	tokenBytes // CBOR only
	tokenTime  // CBOR only: tag 1 with an integer
	tokenList
	tokenMap
)

// token is a scalar, or the beginning of a list or map.
type token struct {
	kind  tokenKind
	truth bool
	text  []byte // of strings and bytes; points into the body unless it had to be put together
	num   number // of numbers; of times the milliseconds in num.floor

	// How far a list or map has been read.
	started, indefinite bool
	left                uint64
}

// number is what the API can want of a number. Values out of range saturate.
type number struct {
	floor   int64 // the greatest integer not above it
	millis  int64 // the same of the thousandfold
	double  bool  // written with a fraction or an exponent
	nonzero bool
}

// reader reads a body token by token. Its methods report false for ok where
// the body is malformed, and then for ever.
type reader interface {
	// next reads a scalar, or the beginning of a list or map.
	next(t *token) (ok bool)
	// more reports whether a list or map that next began has another element.
	more(t *token) (more, ok bool)
	// key reads the key before a map's element.
	key() (key []byte, ok bool)
	// rest reports whether anything is left behind the value.
	rest() bool
}

func newReader(f Format, body []byte) reader {
	if f == CBOR {
		return &cborReader{b: body}
	}
	return &jsonReader{b: body}
}

// CheckSyntax reads through a body and reports whether it is one whole object
// of that format. It comes before the signature is looked at, and Decode after.
func CheckSyntax(f Format, body []byte) *Error {
	r := newReader(f, body)
	var t token
	if !r.next(&t) || t.kind != tokenMap || !skip(r, &t, 1) || r.rest() {
		return MalformedBody()
	}
	return nil
}

// skip reads the rest of a value that next began.
func skip(r reader, t *token, depth int) bool {
	if t.kind != tokenList && t.kind != tokenMap {
		return true
	}
	if depth > maxDepth {
		return false
	}
	for {
		more, ok := r.more(t)
		if !ok || !more {
			return ok
		}
		if t.kind == tokenMap {
			if _, ok := r.key(); !ok {
				return false
			}
		}
		var e token
		if !r.next(&e) || !skip(r, &e, depth+1) {
			return false
		}
	}
}

// decode reads a body into v, a structure of that shape.
func decode(s *shape, f Format, body []byte, v reflect.Value) *Error {
	// A malformed body is that and nothing else, even where a member of the
	// wrong type comes first.
	if err := CheckSyntax(f, body); err != nil {
		return err
	}
	r := newReader(f, body)
	var t token
	if !r.next(&t) {
		return MalformedBody()
	}
	return decodeStructure(s, r, &t, v)
}

const (
	foundList = "Start of list found where not expected"
	foundMap  = "Start of structure or map found where not expected."
)

// class gives the name of the Java class that the service's errors call a
// scalar's type by.
func (t *token) class() string {
	switch t.kind {
	case tokenBool:
		return "java.lang.Boolean"
	case tokenNumber:
		return "com.amazon.coral.value.json.numbers.TruncatingBigNumber"
	case tokenBytes:
		return classOfBytes
	case tokenTime:
		return classOfTimes
	}
	return "java.lang.String"
}

func (t *token) cannotBe(what string) *Error {
	return typeError("class " + t.class() + " can not be converted to " + what)
}

// decodeValue reads the value that t begins into v. A null never comes here.
func decodeValue(s *shape, r reader, t *token, v reflect.Value) *Error {
	switch s.kind {
	case kindList:
		return decodeList(s, r, t, v)
	case kindMap:
		return decodeMap(s, r, t, v)
	case kindStructure:
		if v.Kind() == reflect.Pointer {
			p := reflect.New(v.Type().Elem())
			v.Set(p)
			v = p.Elem()
		} else {
			v.SetZero()
		}
		return decodeStructure(s, r, t, v)
	}
	switch t.kind {
	case tokenList:
		return typeError(foundList)
	case tokenMap:
		return typeError(foundMap)
	}
	if s.kind == kindBlob {
		data, err := t.blob(r)
		if err == nil {
			v.SetBytes(data)
		}
		return err
	}
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		v.Set(p)
		v = p.Elem()
	}
	switch s.kind {
	case kindString:
		if t.kind != tokenString {
			return t.cannotBe("an String")
		}
		v.SetString(string(t.text))
	case kindInteger, kindLong:
		if t.kind != tokenNumber {
			if s.kind == kindLong {
				return t.cannotBe("an Long")
			}
			return t.cannotBe("an Integer")
		}
		n := t.num.floor
		if s.kind == kindInteger {
			n = min(max(n, -1<<31), 1<<31-1)
		}
		v.SetInt(n)
	case kindBoolean:
		truth, err := t.boolean()
		if err != nil {
			return err
		}
		v.SetBool(truth)
	case kindTimestamp:
		ms, err := t.timestamp(r)
		if err != nil {
			return err
		}
		v.SetInt(ms)
	default:
		panic(fmt.Sprintf("kinesis: kind %d of %s", s.kind, s.name))
	}
	return nil
}

// decodeElement reads the next element of a list or map into v, which must be
// the zero value. A null leaves it so.
func decodeElement(s *shape, r reader, v reflect.Value) (null bool, err *Error) {
	var t token
	if !r.next(&t) {
		return false, MalformedBody()
	}
	if t.kind == tokenNull {
		return true, nil
	}
	return false, decodeValue(s, r, &t, v)
}

func decodeStructure(s *shape, r reader, t *token, v reflect.Value) *Error {
	switch t.kind {
	case tokenMap:
	case tokenList:
		return typeError(foundList)
	default:
		return typeError("Expected null")
	}
	for {
		more, ok := r.more(t)
		if !ok {
			return MalformedBody()
		}
		if !more {
			return nil
		}
		name, ok := r.key()
		if !ok {
			return MalformedBody()
		}
		m := s.lookup(name)
		if m == nil {
			var e token
			if !r.next(&e) || !skip(r, &e, 1) {
				return MalformedBody()
			}
			continue
		}
		field := v.Field(m.field)
		field.SetZero() // of a member named twice the last counts, and be it null
		if _, err := decodeElement(m.shape, r, field); err != nil {
			return err
		}
	}
}

func decodeList(s *shape, r reader, t *token, v reflect.Value) *Error {
	switch t.kind {
	case tokenList:
	case tokenMap:
		return typeError(foundMap)
	default:
		return typeError("Expected list or null")
	}
	// The list grows as elements come: a length that a body claims is never
	// a reason to allocate.
	list := reflect.MakeSlice(v.Type(), 0, 0)
	zero := reflect.Zero(v.Type().Elem())
	for {
		more, ok := r.more(t)
		if !ok {
			return MalformedBody()
		}
		if !more {
			v.Set(list)
			return nil
		}
		if list.Len() == maxElements {
			if _, err := decodeElement(s.elem, r, reflect.New(zero.Type()).Elem()); err != nil {
				return err
			}
			continue
		}
		list = reflect.Append(list, zero)
		if _, err := decodeElement(s.elem, r, list.Index(list.Len()-1)); err != nil {
			return err
		}
	}
}

func decodeMap(s *shape, r reader, t *token, v reflect.Value) *Error {
	switch t.kind {
	case tokenMap:
	case tokenList:
		return typeError(foundList)
	default:
		return typeError("Expected map or null")
	}
	m := map[string]string{}
	for {
		more, ok := r.more(t)
		if !ok {
			return MalformedBody()
		}
		if !more {
			v.Set(reflect.ValueOf(m))
			return nil
		}
		name, ok := r.key()
		if !ok {
			return MalformedBody()
		}
		key := string(name)
		var value string
		null, err := decodeElement(s.elem, r, reflect.ValueOf(&value).Elem())
		if err != nil {
			return err
		}
		if null {
			delete(m, key)
		} else if _, there := m[key]; there || len(m) < maxElements {
			m[key] = value
		}
	}
}

// boolean gives a boolean, or what the service takes for one.
func (t *token) boolean() (bool, *Error) {
	switch {
	case t.kind == tokenBool:
		return t.truth, nil
	case t.kind == tokenNumber && t.num.double:
		return t.num.nonzero, nil
	case t.kind == tokenString:
		upper := strings.ToUpper(string(t.text))
		switch upper {
		case "TRUE", "YES", "1":
			return true, nil
		case "FALSE", "NO", "0":
			return false, nil
		}
		return false, typeError("'" + upper + "' can not be converted to an Boolean")
	}
	return false, t.cannotBe("an Boolean")
}

// timestamp gives a time in Unix milliseconds: in JSON a number of seconds, in
// CBOR a tagged number of milliseconds.
func (t *token) timestamp(r reader) (int64, *Error) {
	if t.kind == tokenTime {
		return t.num.floor, nil
	}
	if _, json := r.(*jsonReader); json && t.kind == tokenNumber {
		return t.num.millis, nil
	}
	return 0, t.cannotBe("milliseconds since epoch")
}

// blob gives a copy of the data of a blob: in JSON base64 text, in CBOR bytes.
func (t *token) blob(r reader) ([]byte, *Error) {
	if t.kind == tokenBytes {
		return append([]byte{}, t.text...), nil
	}
	if _, json := r.(*jsonReader); json && t.kind == tokenString {
		return decodeBlob(t.text)
	}
	return nil, t.cannotBe("a Blob")
}

// decodeBlob decodes base64 text with the service's errors.
func decodeBlob(text []byte) ([]byte, *Error) {
	if len(text)%4 == 0 {
		data := make([]byte, len(text)/4*3)
		// Decoders pass over line breaks; then fewer bytes come out.
		if n, err := vectorBase64.Decode(data, text); err == nil && n == decodedLen(text) {
			return data[:n], nil
		}
	}
	return nil, blobError(text)
}

// decodedLen gives the number of bytes in base64 text of whole quanta.
func decodedLen(text []byte) int {
	n := len(text) / 4 * 3
	if n > 0 && text[len(text)-1] == '=' {
		n--
		if text[len(text)-2] == '=' {
			n--
		}
	}
	return n
}

// blobError says what is wrong with base64 text.
func blobError(text []byte) *Error {
	fail := func(why string) *Error {
		return typeError("'" + string(text) + "' can not be converted to a Blob: " + why)
	}
	// Lengths are Java's: UTF-16 units.
	length := 0
	for rest := text; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		length += utf16.RuneLen(r)
		rest = rest[n:]
	}
	if length%4 != 0 {
		return fail(fmt.Sprintf("Base64 encoded length is expected a multiple of 4 bytes but found: %d", length))
	}
	body := bytes.TrimRight(text, "=")
	for i, r := range string(body) {
		// What follows an "=" that is not at the end makes that the bad character.
		if !isBase64(r) {
			return fail("Invalid Base64 character: '" + string(body[i:i+utf8.RuneLen(r)]) + "'")
		}
	}
	return fail("Invalid last non-pad Base64 character dectected")
}

func isBase64(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '+' || r == '/'
}
