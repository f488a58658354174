package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// m is a structure or map of the API, list a list. Their values are strings,
// numbers, booleans, nil, []byte for blobs, moment for times, m and list.
type (
	m    = map[string]any
	list = []any
)

// moment is a time of the API in Unix milliseconds.
type moment int64

func (w moment) String() string { return time.UnixMilli(int64(w)).UTC().Format(time.RFC3339Nano) }

// format is one of the two forms of bodies.
type format struct {
	name, contentType string
	encode            func(any) []byte
	decode            func([]byte) (m, error)
}

var (
	inJSON = &format{"JSON", "application/x-amz-json-1.1", encodeJSON, decodeJSON}
	inCBOR = &format{"CBOR", "application/x-amz-cbor-1.1", encodeCBOR, decodeCBOR}
)

// encodeJSON writes a value as the SDKs do: blobs in base64, times as seconds
// with a fraction.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	appendJSON(&b, v)
	return b.Bytes()
}

func appendJSON(b *bytes.Buffer, v any) {
	switch v := v.(type) {
	case m:
		b.WriteByte('{')
		for i, key := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b.WriteByte(',')
			}
			appendJSON(b, key)
			b.WriteByte(':')
			appendJSON(b, v[key])
		}
		b.WriteByte('}')
	case list:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			appendJSON(b, e)
		}
		b.WriteByte(']')
	case moment:
		fmt.Fprintf(b, "%d.%03d", v/1000, v%1000)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		b.Write(text)
	}
}

func decodeJSON(body []byte) (m, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v m
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("there is something behind the object")
	}
	return v, nil
}

// encodeCBOR writes a value as Jackson does for the Java SDKs: maps and arrays
// of indefinite length, times as tag 1 with whole MILLIseconds.
func encodeCBOR(v any) []byte { return appendCBOR(nil, v) }

func appendCBOR(b []byte, v any) []byte {
	switch v := v.(type) {
	case m:
		b = append(b, 0xbf)
		for _, key := range slices.Sorted(maps.Keys(v)) {
			b = appendCBOR(appendCBOR(b, key), v[key])
		}
		return append(b, 0xff)
	case list:
		b = append(b, 0x9f)
		for _, e := range v {
			b = appendCBOR(b, e)
		}
		return append(b, 0xff)
	case string:
		return append(appendHead(b, 3, uint64(len(v))), v...)
	case []byte:
		return append(appendHead(b, 2, uint64(len(v))), v...)
	case int:
		if v < 0 {
			return appendHead(b, 1, uint64(-1-v))
		}
		return appendHead(b, 0, uint64(v))
	case moment:
		return binary.BigEndian.AppendUint64(append(b, 0xc1, 0x1b), uint64(v))
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 0xfb), math.Float64bits(v))
	case bool:
		if v {
			return append(b, 0xf5)
		}
		return append(b, 0xf4)
	case nil:
		return append(b, 0xf6)
	}
	panic(fmt.Sprintf("no CBOR for %T", v))
}

func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major<<5|byte(n))
	case n <= math.MaxUint8:
		return append(b, major<<5|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major<<5|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major<<5|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major<<5|27), n)
}

var cborReader = func() cbor.DecMode {
	d, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, TimeTag: cbor.DecTagIgnored,
		DefaultMapType: nil, IntDec: cbor.IntDecConvertSignedOrFail,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return d
}()

func decodeCBOR(body []byte) (m, error) {
	var raw map[string]cbor.RawMessage
	if err := cborReader.Unmarshal(body, &raw); err != nil {
		return nil, err
	}
	v := m{}
	for key, value := range raw {
		var err error
		if v[key], err = decodeCBORValue(value); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return v, nil
}

// decodeCBORValue reads one value. A time must be tag 1 with an integer: the
// Java SDKs read no other.
func decodeCBORValue(raw cbor.RawMessage) (any, error) {
	switch raw[0] >> 5 {
	case 4:
		var items []cbor.RawMessage
		if err := cborReader.Unmarshal(raw, &items); err != nil {
			return nil, err
		}
		values := list{}
		for _, item := range items {
			v, err := decodeCBORValue(item)
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
		return values, nil
	case 5:
		return decodeCBOR(raw)
	case 6:
		var tag cbor.RawTag
		if err := cborReader.Unmarshal(raw, &tag); err != nil {
			return nil, err
		}
		var ms int64
		if err := cborReader.Unmarshal(tag.Content, &ms); err != nil || tag.Number != 1 || tag.Content[0]>>5 != 0 {
			return nil, fmt.Errorf("tag %d of %x is no time in whole milliseconds", tag.Number, []byte(tag.Content))
		}
		return moment(ms), nil
	}
	var v any
	err := cborReader.Unmarshal(raw, &v)
	return v, err
}

// integer reads an integer of an answer.
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	case int64:
		return v, true
	case int:
		return int64(v), true
	}
	return 0, false
}

// instant reads a time of an answer: a number in JSON, a tagged one in CBOR.
func instant(v any) (moment, bool) {
	switch v := v.(type) {
	case moment:
		return v, true
	case json.Number:
		seconds, err := v.Float64()
		return moment(math.Round(seconds * 1000)), err == nil
	}
	return 0, false
}

// blob reads a blob of an answer: base64 in JSON, bytes in CBOR.
func blob(f *format, v any) ([]byte, bool) {
	if f == inJSON {
		text, ok := v.(string)
		if !ok {
			return nil, false
		}
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		return b, err == nil
	}
	b, ok := v.([]byte)
	return b, ok
}

// TestCodec holds the test's own CBOR against the bytes that the service is
// known to send for a time.
func TestCodec(t *testing.T) {
	at := moment(time.Date(2016, 4, 4, 19, 58, 46, 480e6, time.UTC).UnixMilli())
	if got, want := fmt.Sprintf("%X", encodeCBOR(at)), "C11B00000153E2DB26D0"; got != want {
		t.Errorf("CBOR %s, not %s", got, want)
	}
	if got, want := string(encodeJSON(m{"a": at, "b": []byte{0}})), `{"a":1459799926.480,"b":"AA=="}`; got != want {
		t.Errorf("JSON %s, not %s", got, want)
	}
	in := m{"t": at, "l": list{m{"b": []byte{1}}, "x", -1, nil, true}}
	out, err := decodeCBOR(encodeCBOR(in))
	if err != nil || strings.Join(differences(inCBOR, "", in, out), "; ") != "" {
		t.Errorf("%v came back as %v, %v", in, out, err)
	}
	if _, err := decodeCBOR([]byte{0xa1, 0x61, 't', 0xc1, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0}); err == nil {
		t.Error("a time as a float was taken")
	}
}
