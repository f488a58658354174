package sigv4

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// The canonical request:
//
//	METHOD \n
//	path, without dot segments and double slashes, escaped once more \n
//	query, decoded and escaped anew, sorted, without X-Amz-Signature \n
//	name:value \n                 for each signed header
//	\n
//	SignedHeaders \n
//	hash of the body

// appendCanonical writes the canonical request. False says that there is none
// that could have been signed.
func (w *work) appendCanonical(r *Request) bool {
	b := append(w.canonical[:0], r.Method...)
	b = append(b, '\n')
	b = appendPath(b, r.Path)
	b = append(b, '\n')
	if len(w.params) > 0 {
		b = appendQuery(b, w.params, w.query)
	}
	b = append(b, '\n')
	for rest, more := w.signed, true; more; {
		var name []byte
		name, rest, more = bytes.Cut(rest, []byte{';'})
		if !isFieldName(name) {
			return false
		}
		b = appendField(b, r.Fields, name)
	}
	b = append(b, '\n')
	b = append(b, w.signed...)
	b = append(b, '\n')
	b, ok := w.appendHash(b, r)
	w.canonical = b
	return ok
}

// appendHash appends the hash of the body. Where the request says what the hash
// is, it must be that.
func (w *work) appendHash(dst []byte, r *Request) ([]byte, bool) {
	from := len(dst)
	dst, said := r.Fields.Append(dst, fieldHash, 0)
	if !said && w.query {
		var value string
		value, said = w.find(queryHash)
		dst = append(dst, value...)
	}
	if said && string(dst[from:]) == unsignedPayload {
		return dst, true
	}
	var text [2 * sha256.Size]byte
	sum := sha256.Sum256(r.Body)
	hex.Encode(text[:], sum[:])
	if said {
		return dst, bytes.Equal(dst[from:], text[:])
	}
	return append(dst, text[:]...), true
}

// appendField appends "name:value\n". The values of several fields of that name
// stand behind each other with commas between. A field that is not there has an
// empty value.
func appendField(dst []byte, fields Fields, name []byte) []byte {
	dst = append(dst, name...)
	dst = append(dst, ':')
	if bytes.Equal(name, fieldAuthority) {
		name = fieldHost
	}
	for i := 0; ; i++ {
		from := len(dst)
		if i > 0 {
			dst = append(dst, ',')
		}
		begin := len(dst)
		var there bool
		if dst, there = fields.Append(dst, name, i); !there {
			return append(dst[:from], '\n')
		}
		dst = dst[:begin+fold(dst[begin:])]
	}
}

// fold trims a value and makes one blank of each run of blanks and tabs, in
// place. It gives the new length.
func fold(b []byte) (n int) {
	blank := false
	for _, c := range b {
		if c == ' ' || c == '\t' {
			blank = n > 0
			continue
		}
		if blank {
			b[n] = ' '
			n++
			blank = false
		}
		b[n] = c
		n++
	}
	return n
}

// isFieldName reports whether a name can be that of a header field, in lower
// case. Names that came in the query could hold anything, a line end too.
func isFieldName(name []byte) bool {
	if bytes.Equal(name, fieldAuthority) {
		return true
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f || c == ':' || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return len(name) > 0
}

// appendPath appends the canonical form of a path that was sent.
func appendPath(dst []byte, path string) []byte {
	if path == "/" || path == "" {
		return append(dst, '/')
	}
	var segments []string
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "", ".":
		case "..":
			segments = segments[:max(0, len(segments)-1)]
		default:
			segments = append(segments, segment)
		}
	}
	for _, segment := range segments {
		dst = append(dst, '/')
		dst = appendEscaped(dst, segment)
	}
	last := path[strings.LastIndexByte(path, '/')+1:]
	if last == "" || last == "." || last == ".." {
		dst = append(dst, '/')
	}
	return dst
}

// appendQuery appends the canonical query.
func appendQuery(dst []byte, params []param, signed bool) []byte {
	escaped := make([]param, 0, len(params))
	for _, p := range params {
		if signed && p.name == querySignature {
			continue
		}
		escaped = append(escaped, param{string(appendEscaped(nil, p.name)), string(appendEscaped(nil, p.value))})
	}
	slices.SortFunc(escaped, func(a, b param) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.value, b.value))
	})
	for i, p := range escaped {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = append(dst, p.name...)
		dst = append(dst, '=')
		dst = append(dst, p.value...)
	}
	return dst
}

// appendEscaped escapes all but the unreserved characters of RFC 3986.
func appendEscaped(dst []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '~':
			dst = append(dst, c)
		default:
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}
