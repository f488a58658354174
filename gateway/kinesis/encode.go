package kinesis

import (
	"encoding/base64"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf8"
)

// left reports whether a member is left out of an answer: an optional one that
// is absent. A required list without elements is an empty list.
func (m *member) left(v reflect.Value) bool {
	return absent(v) && (!m.required || v.Kind() == reflect.Pointer)
}

func appendJSONValue(dst []byte, s *shape, v reflect.Value) []byte {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch s.kind {
	case kindString:
		return appendJSONString(dst, v.String())
	case kindInteger, kindLong:
		return strconv.AppendInt(dst, v.Int(), 10)
	case kindBoolean:
		return strconv.AppendBool(dst, v.Bool())
	case kindTimestamp:
		return appendSeconds(dst, Timestamp(v.Int()))
	case kindBlob:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), v.Bytes()), '"')
	case kindList:
		dst = append(dst, '[')
		for i := range v.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSONValue(dst, s.elem, v.Index(i))
		}
		return append(dst, ']')
	case kindMap:
		m := v.Interface().(map[string]string)
		dst = append(dst, '{')
		for i, k := range slices.Sorted(maps.Keys(m)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSONString(append(appendJSONString(dst, k), ':'), m[k])
		}
		return append(dst, '}')
	case kindStructure:
		dst = append(dst, '{')
		comma := false
		for i := range s.members {
			m := &s.members[i]
			field := v.Field(m.field)
			if m.left(field) {
				continue
			}
			if comma {
				dst = append(dst, ',')
			}
			comma = true
			dst = append(append(append(dst, '"'), m.name...), `":`...)
			dst = appendJSONValue(dst, m.shape, field)
		}
		return append(dst, '}')
	}
	panic(fmt.Sprintf("kinesis: kind %d of %s", s.kind, s.name))
}

func appendCBORValue(dst []byte, s *shape, v reflect.Value) []byte {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch s.kind {
	case kindString:
		return appendCBORString(dst, v.String())
	case kindInteger, kindLong:
		return appendCBORInt(dst, v.Int())
	case kindBoolean:
		return appendCBORBool(dst, v.Bool())
	case kindTimestamp:
		return appendCBORTime(dst, Timestamp(v.Int()))
	case kindBlob:
		return appendCBORBytes(dst, v.Bytes())
	case kindList:
		dst = appendCBORHead(dst, cborArray, uint64(v.Len()))
		for i := range v.Len() {
			dst = appendCBORValue(dst, s.elem, v.Index(i))
		}
		return dst
	case kindMap:
		m := v.Interface().(map[string]string)
		dst = appendCBORHead(dst, cborMap, uint64(len(m)))
		for _, k := range slices.Sorted(maps.Keys(m)) {
			dst = appendCBORString(appendCBORString(dst, k), m[k])
		}
		return dst
	case kindStructure:
		n := 0
		for i := range s.members {
			if !s.members[i].left(v.Field(s.members[i].field)) {
				n++
			}
		}
		dst = appendCBORHead(dst, cborMap, uint64(n))
		for i := range s.members {
			m := &s.members[i]
			if field := v.Field(m.field); !m.left(field) {
				dst = appendCBORValue(appendCBORString(dst, m.name), m.shape, field)
			}
		}
		return dst
	}
	panic(fmt.Sprintf("kinesis: kind %d of %s", s.kind, s.name))
}

func appendCBORBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, cborTrue)
	}
	return append(dst, cborFalse)
}

// appendSeconds appends a time as plain decimal seconds, with milliseconds
// where it has any.
func appendSeconds(dst []byte, t Timestamp) []byte {
	ms := uint64(t)
	if t < 0 {
		dst = append(dst, '-')
		ms = -ms
	}
	dst = strconv.AppendUint(dst, ms/1000, 10)
	if ms %= 1000; ms != 0 {
		dst = append(dst, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	}
	return dst
}

// appendJSONString appends a JSON string. It escapes what must be escaped and
// nothing else; bytes that are not UTF-8 become U+FFFD.
func appendJSONString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	clean := 0 // s[clean:i] needs no escape
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[clean:i]...), "\ufffd"...)
				clean = i + 1
			}
			i += n
			continue
		}
		i++
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[clean:i-1]...)
		clean = i
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	return append(append(dst, s[clean:]...), '"')
}
