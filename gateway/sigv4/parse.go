package sigv4

import (
	"bytes"
	"strings"
	"time"
)

const isoBasic = "20060102T150405Z"

// param is a parameter of the query, decoded.
type param struct{ name, value string }

// Names of fields, and the query keys of a signature.
var (
	fieldAuthorization = []byte("authorization")
	fieldAmzDate       = []byte("x-amz-date")
	fieldDate          = []byte("date")
	fieldToken         = []byte("x-amz-security-token")
	fieldHash          = []byte("x-amz-content-sha256")
	fieldHost          = []byte("host")
	fieldAuthority     = []byte(":authority")
)

const (
	queryAlgorithm = "X-Amz-Algorithm"
	queryHash      = "X-Amz-Content-Sha256"
	querySignature = "X-Amz-Signature"
)

// read finds the signature, in whichever form, and takes it apart.
func (w *work) read(r *Request) *Refusal {
	w.params = appendParams(w.params, r.Query)
	_, w.query = w.find(queryAlgorithm)
	w.header, _ = r.Fields.Append(w.header, fieldAuthorization, 0)
	switch {
	case len(w.header) > 0 && w.query:
		return &Refusal{Reason: Double}
	case len(w.header) > 0:
		return w.readHeader(r)
	case w.query:
		return w.readQuery()
	}
	return &Refusal{Reason: Missing}
}

// readHeader reads ALGORITHM Credential=…, SignedHeaders=…, Signature=…, in any
// order, with commas or blanks between.
func (w *work) readHeader(r *Request) *Refusal {
	var rest []byte
	w.algorithm, rest, _ = bytes.Cut(w.header, []byte{' '})
	for len(rest) > 0 {
		part := rest
		if i := bytes.IndexAny(rest, ", "); i >= 0 {
			part, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		name, value, _ := bytes.Cut(part, []byte{'='})
		switch string(name) {
		case "Credential":
			w.credential = value
		case "SignedHeaders":
			w.signed = value
		case "Signature":
			w.signature = value
		}
	}
	for _, name := range [...][]byte{fieldAmzDate, fieldDate} {
		if w.date, _ = r.Fields.Append(w.date[:0], name, 0); len(w.date) > 0 {
			break
		}
	}
	lacks := Parts{
		Credential: len(w.credential) == 0, Signature: len(w.signature) == 0, SignedHeaders: len(w.signed) == 0,
		Date: len(w.date) == 0,
	}
	if lacks != (Parts{}) {
		return &Refusal{Reason: Incomplete, Lacks: lacks, Header: string(w.header)}
	}
	w.token, _ = r.Fields.Append(nil, fieldToken, 0)
	return nil
}

func (w *work) readQuery() *Refusal {
	get := func(name string) []byte {
		value, _ := w.find(name)
		return []byte(value)
	}
	w.algorithm, w.credential, w.signature = get(queryAlgorithm), get("X-Amz-Credential"), get(querySignature)
	w.signed, w.date, w.token = get("X-Amz-SignedHeaders"), get("X-Amz-Date"), get("X-Amz-Security-Token")
	lacks := Parts{
		Algorithm: len(w.algorithm) == 0, Credential: len(w.credential) == 0, Signature: len(w.signature) == 0,
		SignedHeaders: len(w.signed) == 0, Date: len(w.date) == 0,
	}
	if lacks != (Parts{}) {
		return &Refusal{Reason: Incomplete, Lacks: lacks}
	}
	return nil
}

// find gives the first parameter of that name.
func (w *work) find(name string) (string, bool) {
	for i := range w.params {
		if w.params[i].name == name {
			return w.params[i].value, true
		}
	}
	return "", false
}

// appendParams decodes a query. What has no meaning as an escape stays as it is.
func appendParams(dst []param, query string) []param {
	for query != "" {
		var part string
		part, query, _ = strings.Cut(query, "&")
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		dst = append(dst, param{unescape(name), unescape(value)})
	}
	return dst
}

// unescape decodes a name or a value of a query. A plus is a blank, as for forms.
func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			b = append(b, ' ')
		case c == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0:
			b = append(b, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i += 2
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// parseTime reads ISO 8601 in its basic form, or a Date header as HTTP has it.
func parseTime(b []byte) (time.Time, bool) {
	if len(b) != len(isoBasic) {
		t, err := time.Parse(time.RFC1123, string(b))
		return t.UTC(), err == nil
	}
	if b[8] != 'T' || b[15] != 'Z' {
		return time.Time{}, false
	}
	number := func(b []byte) (n int) {
		for _, c := range b {
			if c < '0' || c > '9' {
				return -1 << 31
			}
			n = 10*n + int(c-'0')
		}
		return n
	}
	year, month, day := number(b[:4]), number(b[4:6]), number(b[6:8])
	hour, minute, second := number(b[9:11]), number(b[11:13]), number(b[13:15])
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	// Date makes a date of anything: only one that is there comes out as it went in.
	var back [len(isoBasic)]byte
	return t, bytes.Equal(t.AppendFormat(back[:0], isoBasic), b)
}

// signsHost reports whether host or :authority is among the signed headers.
func signsHost(signed []byte) bool {
	for len(signed) > 0 {
		var name []byte
		name, signed, _ = bytes.Cut(signed, []byte{';'})
		if bytes.EqualFold(name, fieldHost) || bytes.EqualFold(name, fieldAuthority) {
			return true
		}
	}
	return false
}
