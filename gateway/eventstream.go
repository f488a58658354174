package gateway

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"

	"shardstream/gateway/kinesis"
)

// The frames of application/vnd.amazon.eventstream, big-endian:
//
//	total length u32 | length of the headers u32 | CRC-32 of these eight bytes
//	headers: length of the name u8 | name | 7 | length of the value u16 | value
//	payload
//	CRC-32 of everything before
//
// Type 7 is a string. Java's SDK fails on headers of any other type.

const (
	contentTypeEventStream = "application/vnd.amazon.eventstream"

	preludeSize  = 12
	frameTrailer = 4
)

// frameHeaders are the headers of a frame as they stand in it.
type frameHeaders []byte

func newFrameHeaders(pairs ...string) (h frameHeaders) {
	for i := 0; i < len(pairs); i += 2 {
		name, value := pairs[i], pairs[i+1]
		h = append(append(h, byte(len(name))), name...)
		h = binary.BigEndian.AppendUint16(append(h, 7), uint16(len(value)))
		h = append(h, value...)
	}
	return h
}

func eventHeaders(event string) frameHeaders {
	return newFrameHeaders(":event-type", event, ":content-type", kinesis.JSON.ContentType(), ":message-type", "event")
}

var (
	// Clients take nothing before the initial response: botocore fails without it.
	initialResponse = eventHeaders("initial-response")
	subscribeEvent  = eventHeaders("SubscribeToShardEvent")
)

// beginFrame begins a frame in an empty buffer. The payload is appended next.
func beginFrame(dst []byte, h frameHeaders) []byte {
	return append(append(dst[:0], make([]byte, preludeSize)...), h...)
}

// endFrame completes the one frame that is in the buffer.
func endFrame(frame []byte, h frameHeaders) []byte {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)+frameTrailer))
	binary.BigEndian.PutUint32(frame[4:], uint32(len(h)))
	binary.BigEndian.PutUint32(frame[8:], crc32.ChecksumIEEE(frame[:8]))
	return binary.BigEndian.AppendUint32(frame, crc32.ChecksumIEEE(frame))
}

// initialFrame gives the first frame of every stream.
func initialFrame() []byte {
	return endFrame(append(beginFrame(nil, initialResponse), "{}"...), initialResponse)
}

// exceptionFrame gives the frame that tells of an error and ends the stream.
func exceptionFrame(e *kinesis.Error) []byte {
	code := e.Code
	if code == kinesis.CodeInternalFailure || code == kinesis.CodeServiceUnavailable {
		code = kinesis.CodeInternalFailureException // the class that the model has for a stream
	}
	h := newFrameHeaders(":exception-type", code, ":content-type", kinesis.JSON.ContentType(), ":message-type", "exception")
	payload, err := json.Marshal(struct {
		Message string `json:"message"`
	}{e.Message})
	if err != nil { // a string can always be written
		panic(err)
	}
	return endFrame(append(beginFrame(nil, h), payload...), h)
}
