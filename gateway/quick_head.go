package gateway

import "bytes"

// quickHead is the head of a plain request:
//
//   - "POST / HTTP/1.1", lines that end in CRLF, no folded line;
//   - field names of letters, digits and '-', with the colon right behind them;
//     values of printable ASCII and blanks;
//   - one Host, one Content-Length of digits that is not 0, and no field twice
//     that we look at;
//   - not SubscribeToShard, whose client is watched while nothing is written;
//   - no field that says how the message is framed or what becomes of the
//     connection, but "Connection: keep-alive", and none of a browser.
type quickHead struct {
	fields []quickField // point into the connection's buffer
	length int          // of the body
}

type quickField struct{ name, value []byte }

var quickStreams = []byte(".SubscribeToShard")

// maxQuickFields bounds the fields of a plain request.
const maxQuickFields = 64

// foreign are the fields of requests that are not plain.
var foreign = map[string]bool{
	"transfer-encoding": true, "te": true, "trailer": true, "upgrade": true, "expect": true, "http2-settings": true,
	"content-encoding": true, "proxy-connection": true, "keep-alive": true, "origin": true,
}

// single are the fields that must not come twice.
var single = map[string]bool{
	"host": true, "content-length": true, "connection": true, "content-type": true, "authorization": true,
	"x-amz-target": true, "x-amz-date": true, "x-amz-content-sha256": true, "x-amz-security-token": true,
	"amz-sdk-invocation-id": true, "amz-sdk-request": true,
}

// parse reads a head that begins with quickStart and ends with quickEnd. It
// reports false for one that is not plain.
func (h *quickHead) parse(b []byte) bool {
	h.fields, h.length = h.fields[:0], 0
	host := false
	b = b[len(quickStart) : len(b)-2]
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\r')
		if end < 0 || end+1 >= len(b) || b[end+1] != '\n' || len(h.fields) == maxQuickFields {
			return false
		}
		line := b[:end]
		b = b[end+2:]
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			return false
		}
		var lower [32]byte
		name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
		for i, c := range name {
			switch {
			case 'A' <= c && c <= 'Z':
				c += 'a' - 'A'
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
			default:
				return false
			}
			if i < len(lower) {
				lower[i] = c
			}
		}
		for _, c := range value {
			if (c < ' ' || c > '~') && c != '\t' {
				return false
			}
		}
		if len(name) <= len(lower) {
			known := lower[:len(name)]
			if foreign[string(known)] || single[string(known)] && h.find(name) != nil {
				return false
			}
			switch string(known) {
			case "host":
				if host = isPlainHost(value); !host {
					return false
				}
			case "content-length":
				if h.length = parseLength(value); h.length == 0 {
					return false
				}
			case "x-amz-target":
				if bytes.HasSuffix(value, quickStreams) {
					return false
				}
			case "connection":
				if !bytes.EqualFold(value, []byte("keep-alive")) {
					return false
				}
			}
		}
		h.fields = append(h.fields, quickField{name, value})
	}
	return host && h.length > 0
}

// isPlainHost reports whether a Host is a name or an address with or without a
// port; net/http judges any other.
func isPlainHost(b []byte) bool {
	for _, c := range b {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != ':' && c != '[' && c != ']' {
			return false
		}
	}
	return len(b) > 0
}

// parseLength reads a length, 0 if it is none, or one that is not plain.
func parseLength(b []byte) int {
	if len(b) == 0 || len(b) > 9 || b[0] == '0' {
		return 0
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// find gives the value of a field, nil if it is not there.
func (h *quickHead) find(name []byte) []byte {
	for i := range h.fields {
		if f := &h.fields[i]; len(f.name) == len(name) && bytes.EqualFold(f.name, name) {
			return f.value
		}
	}
	return nil
}

// Get gives the first value of a field, "" if there is none.
func (h *quickHead) Get(name string) string {
	for i := range h.fields {
		if f := &h.fields[i]; len(f.name) == len(name) && equalFold(f.name, name) {
			return string(f.value)
		}
	}
	return ""
}

// equalFold compares names, which are ASCII.
func equalFold[T string | []byte](a []byte, b T) bool {
	for i := range a {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}
