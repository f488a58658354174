package kinesis

import (
	"bytes"
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/segmentio/asm/base64"
)

const (
	maxEntries  = 500
	maxData     = 10 << 20 // bytes
	maxKeyChars = 256
	maxName     = 128
)

// PutScan reads the bodies of PutRecord and PutRecords without reflection and
// without an allocation per record. It is reusable; what it holds is good until
// the next scan, and as long as the body is left alone.
//
// A scan that reports true has found a body that Decode and Validate accept
// with these values, but for one thing: base64 text is looked at when it is
// decoded. Where Blob.AppendTo fails, the body is left to Decode and Validate
// as if the scan had reported false.
type PutScan struct {
	StreamName, StreamARN     string // "" absent
	SequenceNumberForOrdering string // PutRecord only; "" absent
	Entries                   []PutEntry

	scratch []byte // strings that had escapes
	blobs   int    // how many there were
	escapes bool   // whether one had escapes

	// The last good ones: most requests of a connection are for one stream.
	lastName, lastARN string
}

// PutEntry is one record to put.
type PutEntry struct {
	PartitionKey    []byte
	ExplicitHashKey []byte // nil absent; decimal, but not checked to be below 2^128
	Data            Blob
}

// Blob is the data of a record as it stands in the body: base64 text in JSON,
// plain bytes in CBOR.
type Blob struct {
	raw  []byte
	size int
	text bool
}

// Len gives the number of bytes of data.
func (b Blob) Len() int { return b.size }

var errBase64 = errors.New("kinesis: not base64")

var vectorBase64 = base64.StdEncoding.Strict()

// AppendTo appends the data, Len bytes of it. It fails for base64 text that is
// bad or unusual; Decode then has the exact error, or the data.
func (b Blob) AppendTo(dst []byte) ([]byte, error) {
	if !b.text {
		return append(dst, b.raw...), nil
	}
	from, room := len(dst), len(b.raw)/4*3
	dst = slices.Grow(dst, room)
	n, err := vectorBase64.Decode(dst[from:from+room], b.raw)
	// Decoders pass over line breaks, which Kinesis does not: fewer bytes come out.
	if err != nil || n != b.size {
		return dst, errBase64
	}
	return dst[:from+n], nil
}

// ScanPutRecords reads the body of a PutRecords. False says that it is in some
// way unusual or wrong, and left to Decode and Validate.
func (s *PutScan) ScanPutRecords(f Format, body []byte) bool {
	s.reset()
	if f == CBOR {
		return s.cborRequest(body, false)
	}
	return s.jsonRequest(body, false)
}

// ScanPutRecord reads the body of a PutRecord, whose record becomes Entries[0].
// False is as with ScanPutRecords.
func (s *PutScan) ScanPutRecord(f Format, body []byte) bool {
	s.reset()
	s.Entries = append(s.Entries, PutEntry{})
	if f == CBOR {
		return s.cborRequest(body, true)
	}
	return s.jsonRequest(body, true)
}

func (s *PutScan) reset() {
	s.StreamName, s.StreamARN, s.SequenceNumberForOrdering = "", "", ""
	s.Entries, s.scratch = s.Entries[:0], s.scratch[:0]
	s.blobs, s.escapes = 0, false
}

// field is a set of members that have been seen.
type field uint8

const (
	fieldName field = 1 << iota
	fieldARN
	fieldOrdering
	fieldRecords
	fieldData
	fieldKey
	fieldHash
)

// requestField gives the field of a member of the request, 0 for one that the
// scan does not know.
func requestField(name []byte, single bool) field {
	switch string(name) {
	case "StreamName":
		return fieldName
	case "StreamARN":
		return fieldARN
	case "Records":
		if !single {
			return fieldRecords
		}
	case "SequenceNumberForOrdering":
		if single {
			return fieldOrdering
		}
	default:
		if single {
			return entryField(name)
		}
	}
	return 0
}

// entryField gives the field of a member of a record.
func entryField(name []byte) field {
	switch string(name) {
	case "Data":
		return fieldData
	case "PartitionKey":
		return fieldKey
	case "ExplicitHashKey":
		return fieldHash
	}
	return 0
}

// see adds a field that was not there yet.
func (f *field) see(n field) bool {
	if n == 0 || *f&n != 0 {
		return false
	}
	*f |= n
	return true
}

func (f field) has(n field) bool { return f&n == n }

func requestComplete(seen field, single bool) bool {
	if single {
		return seen.has(fieldData | fieldKey)
	}
	return seen.has(fieldRecords)
}

// setText takes a string member of the request if it meets its constraints.
func (s *PutScan) setText(f field, text []byte) bool {
	switch f {
	case fieldName:
		if s.lastName == "" || s.lastName != string(text) {
			if !validName(text) {
				return false
			}
			s.lastName = string(text)
		}
		s.StreamName = s.lastName
	case fieldARN:
		if s.lastARN == "" || s.lastARN != string(text) {
			arn := string(text)
			if shapeStreamARN.stringViolations(arn, false) != nil {
				return false
			}
			s.lastARN = arn
		}
		s.StreamARN = s.lastARN
	case fieldOrdering:
		if !validDecimal(text, 129) {
			return false
		}
		s.SequenceNumberForOrdering = string(text)
	default:
		return false
	}
	return true
}

// setText takes a string member of a record if it meets its constraints.
func (e *PutEntry) setText(f field, text []byte) bool {
	switch f {
	case fieldKey:
		e.PartitionKey = text
		return len(text) > 0 && (len(text) <= maxKeyChars || utf8.RuneCount(text) <= maxKeyChars)
	case fieldHash:
		e.ExplicitHashKey = text
		return validDecimal(text, 39)
	}
	return false
}

func validName(name []byte) bool {
	for _, c := range name {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return len(name) > 0 && len(name) <= maxName
}

// validDecimal reports whether text is 0, or digits that begin with another.
func validDecimal(text []byte, most int) bool {
	if len(text) == 0 || len(text) > most || text[0] == '0' && len(text) > 1 {
		return false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func (s *PutScan) jsonRequest(body []byte, single bool) bool {
	r := jsonReader{b: body}
	if r.peek() != '{' {
		return false
	}
	r.i++
	t := token{kind: tokenMap}
	var seen field
	for {
		more, ok := r.more(&t)
		if !ok {
			return false
		}
		if !more {
			return requestComplete(seen, single) && !r.rest()
		}
		name, ok := r.key()
		if !ok {
			return false
		}
		f := requestField(name, single)
		if !seen.see(f) {
			return false
		}
		switch f {
		case fieldRecords:
			if !s.jsonRecords(&r) {
				return false
			}
		case fieldData, fieldKey, fieldHash:
			if !s.jsonEntryField(&r, f, &s.Entries[0]) {
				return false
			}
		default:
			text, ok := s.jsonText(&r)
			if !ok || !s.setText(f, text) {
				return false
			}
		}
	}
}

func (s *PutScan) jsonRecords(r *jsonReader) bool {
	if r.peek() != '[' {
		return false
	}
	r.i++
	t := token{kind: tokenList}
	for {
		more, ok := r.more(&t)
		if !ok || !more {
			return ok && len(s.Entries) > 0
		}
		if len(s.Entries) == maxEntries {
			return false
		}
		s.Entries = append(s.Entries, PutEntry{})
		if !s.jsonEntry(r, &s.Entries[len(s.Entries)-1]) {
			return false
		}
	}
}

func (s *PutScan) jsonEntry(r *jsonReader, e *PutEntry) bool {
	if r.peek() != '{' {
		return false
	}
	r.i++
	t := token{kind: tokenMap}
	var seen field
	for {
		more, ok := r.more(&t)
		if !ok {
			return false
		}
		if !more {
			return seen.has(fieldData | fieldKey)
		}
		name, ok := r.key()
		if !ok {
			return false
		}
		f := entryField(name)
		if !seen.see(f) || !s.jsonEntryField(r, f, e) {
			return false
		}
	}
}

func (s *PutScan) jsonEntryField(r *jsonReader, f field, e *PutEntry) bool {
	if f == fieldData {
		return s.jsonBlob(r, &e.Data)
	}
	text, ok := s.jsonText(r)
	return ok && e.setText(f, text)
}

// jsonText reads a string. One with escapes is put together in the scratch.
func (s *PutScan) jsonText(r *jsonReader) ([]byte, bool) {
	if r.peek() != '"' {
		return nil, false
	}
	start := r.i + 1
	ascii := true
	for i := start; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"':
			r.i = i + 1
			text := r.b[start:i:i]
			return text, ascii || utf8.Valid(text)
		case c == '\\':
			return s.unescape(r, start)
		case c < ' ':
			return nil, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, false
}

func (s *PutScan) unescape(r *jsonReader, start int) ([]byte, bool) {
	from := len(s.scratch)
	scratch, size, ok := appendUnescaped(s.scratch, r.b[start:])
	s.scratch = scratch
	r.i = start + size
	return scratch[from:len(scratch):len(scratch)], ok
}

// jsonBlob reads base64 text, whose characters are left to the decoder. Some
// clients escape "/"; they are told by the first record and by short ones,
// which saves a second look at long ones. An escape overlooked fails in the
// decoder, so that even a text cut short at an escaped quote is never taken for
// whole.
func (s *PutScan) jsonBlob(r *jsonReader, b *Blob) bool {
	if r.peek() != '"' {
		return false
	}
	start := r.i + 1
	n := bytes.IndexByte(r.b[start:], '"')
	if n < 0 {
		return false
	}
	text := r.b[start : start+n : start+n]
	r.i = start + n + 1
	const short = 256
	if s.blobs++; (s.escapes || s.blobs == 1 || n < short) && bytes.IndexByte(text, '\\') >= 0 {
		s.escapes = true
		var ok bool
		if text, ok = s.unescape(r, start); !ok {
			return false
		}
	}
	if len(text)%4 != 0 {
		return false
	}
	size := decodedLen(text)
	*b = Blob{raw: text, size: size, text: true}
	return size <= maxData
}

func (s *PutScan) cborRequest(body []byte, single bool) bool {
	r := cborReader{b: body}
	var t token
	if !r.container(&t, cborMap) {
		return false
	}
	var seen field
	for {
		more, ok := r.more(&t)
		if !ok {
			return false
		}
		if !more {
			return requestComplete(seen, single) && !r.rest()
		}
		name, ok := r.plainString(cborText)
		if !ok {
			return false
		}
		f := requestField(name, single)
		if !seen.see(f) {
			return false
		}
		switch f {
		case fieldRecords:
			if !s.cborRecords(&r) {
				return false
			}
		case fieldData, fieldKey, fieldHash:
			if !r.entryField(f, &s.Entries[0]) {
				return false
			}
		default:
			text, ok := r.plainString(cborText)
			if !ok || !utf8.Valid(text) || !s.setText(f, text) {
				return false
			}
		}
	}
}

func (s *PutScan) cborRecords(r *cborReader) bool {
	var t token
	if !r.container(&t, cborArray) {
		return false
	}
	for {
		more, ok := r.more(&t)
		if !ok || !more {
			return ok && len(s.Entries) > 0
		}
		if len(s.Entries) == maxEntries {
			return false
		}
		s.Entries = append(s.Entries, PutEntry{})
		if !r.entry(&s.Entries[len(s.Entries)-1]) {
			return false
		}
	}
}

func (r *cborReader) entry(e *PutEntry) bool {
	var t token
	if !r.container(&t, cborMap) {
		return false
	}
	var seen field
	for {
		more, ok := r.more(&t)
		if !ok {
			return false
		}
		if !more {
			return seen.has(fieldData | fieldKey)
		}
		name, ok := r.plainString(cborText)
		if !ok {
			return false
		}
		f := entryField(name)
		if !seen.see(f) || !r.entryField(f, e) {
			return false
		}
	}
}

func (r *cborReader) entryField(f field, e *PutEntry) bool {
	if f == fieldData {
		data, ok := r.plainString(cborBytes)
		e.Data = Blob{raw: data, size: len(data)}
		return ok && len(data) <= maxData
	}
	text, ok := r.plainString(cborText)
	return ok && utf8.Valid(text) && e.setText(f, text)
}

// container begins an untagged map or array.
func (r *cborReader) container(t *token, want byte) bool {
	major, info, arg, ok := r.head()
	t.indefinite, t.left = info == 31, arg
	return ok && major == want
}

// plainString reads an untagged string in one piece.
func (r *cborReader) plainString(want byte) ([]byte, bool) {
	// Short ones, which names and keys are, need no more than one byte of head.
	if r.i < len(r.b) {
		if size := int(r.b[r.i] - want); size < 24 && size < len(r.b)-r.i {
			s := r.b[r.i+1 : r.i+1+size : r.i+1+size]
			r.i += 1 + size
			return s, true
		}
	}
	major, info, size, ok := r.head()
	if !ok || major != want || info == 31 {
		return nil, false
	}
	return r.stringBody(major, info, size)
}
