package benchclient

import (
	"bytes"
	"strconv"
)

// PutResult is one record's part of a PutRecords answer. The slices point into
// the answer.
type PutResult struct {
	ShardID, SequenceNumber []byte
	ErrorCode               []byte // empty: stored
}

// AllStored reports whether a PutRecords answer says that no record failed,
// without a look at the records.
func AllStored(body []byte) bool {
	key := []byte(`"FailedRecordCount"`)
	i := bytes.Index(body[:min(len(body), 128)], key)
	if i < 0 {
		i = bytes.LastIndex(body, key)
	}
	if i < 0 {
		return false
	}
	rest := bytes.TrimLeft(body[i+len(key):], ": \t\r\n")
	return len(rest) >= 2 && rest[0] == '0' && (rest[1] < '0' || rest[1] > '9')
}

// ScanPutRecords gives the results of a PutRecords answer in order.
func ScanPutRecords(body []byte, yield func(PutResult)) bool {
	s := scanner{b: body}
	return s.object(func(key []byte) bool {
		if string(key) != "Records" {
			return s.skip()
		}
		return s.array(func() bool {
			r, ok := s.putResult()
			if ok {
				yield(r)
			}
			return ok
		})
	})
}

// ScanPutRecord gives the result of a PutRecord answer.
func ScanPutRecord(body []byte) (PutResult, bool) {
	s := scanner{b: body}
	r, ok := s.putResult()
	return r, ok && len(r.SequenceNumber) > 0
}

func (s *scanner) putResult() (r PutResult, ok bool) {
	ok = s.object(func(key []byte) bool {
		switch string(key) {
		case "ShardId":
			return s.text(&r.ShardID)
		case "SequenceNumber":
			return s.text(&r.SequenceNumber)
		case "ErrorCode":
			return s.text(&r.ErrorCode)
		}
		return s.skip()
	})
	return r, ok
}

// Got is one record of a GetRecords answer. The slices point into the answer;
// Data is base64.
type Got struct {
	Data, PartitionKey, SequenceNumber []byte
}

// GotRecords is what a GetRecords answer or an event says besides its records.
type GotRecords struct {
	Next         []byte // iterator or number to go on with; empty at the end of a closed shard
	BehindMillis int64
}

// ScanGetRecords gives the records of a GetRecords answer, or of an event of a
// SubscribeToShard, in order.
func ScanGetRecords(body []byte, yield func(Got)) (g GotRecords, ok bool) {
	s := scanner{b: body}
	ok = s.object(func(key []byte) bool {
		switch string(key) {
		case "NextShardIterator", "ContinuationSequenceNumber":
			return s.text(&g.Next)
		case "MillisBehindLatest":
			var number []byte
			ok := s.literal(&number)
			g.BehindMillis, _ = strconv.ParseInt(string(number), 10, 64)
			return ok
		case "Records":
			return s.array(func() bool {
				var r Got
				ok := s.object(func(key []byte) bool {
					switch string(key) {
					case "Data":
						return s.text(&r.Data)
					case "PartitionKey":
						return s.text(&r.PartitionKey)
					case "SequenceNumber":
						return s.text(&r.SequenceNumber)
					}
					return s.skip()
				})
				if ok {
					yield(r)
				}
				return ok
			})
		}
		return s.skip()
	})
	return g, ok
}

// scanner walks over JSON once, forward. It takes valid JSON as it is and may
// take some that is not. Strings come as they stand, escapes and all: what is
// compared here (ids, numbers, base64) has none.
type scanner struct {
	b []byte
	i int
}

// peek skips white space and gives the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for ; s.i < len(s.b); s.i++ {
		if c := s.b[s.i]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

// object calls member for each member, which must read its value.
func (s *scanner) object(member func(key []byte) bool) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		key, ok := s.string()
		if !ok || !s.take(':') || !member(key) {
			return false
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// array calls element for each element, which must read it.
func (s *scanner) array(element func() bool) bool {
	if !s.take('[') {
		return false
	}
	if s.take(']') {
		return true
	}
	for {
		if !element() {
			return false
		}
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) string() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	start := s.i
	for {
		n := bytes.IndexByte(s.b[s.i:], '"')
		if n < 0 {
			return nil, false
		}
		s.i += n + 1
		// A quote behind an odd number of backslashes is part of the string.
		back := s.i - 2
		for back >= start && s.b[back] == '\\' {
			back--
		}
		if (s.i-2-back)%2 == 0 {
			return s.b[start : s.i-1], true
		}
	}
}

// text reads a string or null.
func (s *scanner) text(dst *[]byte) bool {
	if s.peek() != '"' {
		*dst = nil
		var null []byte
		return s.literal(&null)
	}
	v, ok := s.string()
	*dst = v
	return ok
}

// literal reads a number, true, false or null.
func (s *scanner) literal(dst *[]byte) bool {
	s.peek()
	start := s.i
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c == '-', c == '+', c == '.', c == 'E':
			continue
		}
		break
	}
	*dst = s.b[start:s.i]
	return s.i > start
}

func (s *scanner) skip() bool {
	switch s.peek() {
	case '{':
		return s.object(func([]byte) bool { return s.skip() })
	case '[':
		return s.array(s.skip)
	case '"':
		_, ok := s.string()
		return ok
	}
	var literal []byte
	return s.literal(&literal)
}

// ErrorCode gives the AWS error code of an answer that is no success: what
// stands behind the last "#" of __type. "" if there is none.
func ErrorCode(body []byte) string {
	s := scanner{b: body}
	var code []byte
	if !s.object(func(key []byte) bool {
		if string(key) == "__type" {
			return s.text(&code)
		}
		return s.skip()
	}) {
		return ""
	}
	return string(code[bytes.LastIndexByte(code, '#')+1:])
}
