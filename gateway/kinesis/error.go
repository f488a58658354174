package kinesis

import "strconv"

// Error is an error as a client sees it. It is the body of an answer, not the
// reason for it: what lies behind an InternalFailure stays in the log.
type Error struct {
	Status   int    // HTTP status
	Code     string // the exception's class, "__type" on the wire
	Message  string // "" leaves the member out
	CapitalM bool   // the member is called "Message", as type errors have it
}

// Error gives "code: message".
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code + " (" + strconv.Itoa(e.Status) + ")"
	}
	return e.Code + ": " + e.Message
}

// AppendBody appends the error in that format.
func (e *Error) AppendBody(dst []byte, f Format) []byte {
	key := "message"
	if e.CapitalM {
		key = "Message"
	}
	if f == CBOR {
		if e.Message == "" {
			dst = appendCBORHead(dst, cborMap, 1)
		} else {
			dst = appendCBORHead(dst, cborMap, 2)
		}
		dst = appendCBORString(appendCBORString(dst, "__type"), e.Code)
		if e.Message != "" {
			dst = appendCBORString(appendCBORString(dst, key), e.Message)
		}
		return dst
	}
	dst = appendJSONString(append(dst, `{"__type":`...), e.Code)
	if e.Message != "" {
		dst = append(append(append(dst, `,"`...), key...), `":`...)
		dst = appendJSONString(dst, e.Message)
	}
	return append(dst, '}')
}
