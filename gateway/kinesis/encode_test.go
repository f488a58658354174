package kinesis

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"
)

func TestAppendOutput(t *testing.T) {
	for _, c := range []struct {
		out        any
		json, cbor string // cbor: see unhex
	}{
		{nil, "", ""},
		{&SubscribeToShardOutput{}, "{}", "a0"},
		{
			DescribeLimitsOutput{ShardLimit: 1000},
			`{"ShardLimit":1000,"OpenShardCount":0,"OnDemandStreamCount":0,"OnDemandStreamCountLimit":0}`,
			"a4<ShardLimit>1903e8<OpenShardCount>00<OnDemandStreamCount>00<OnDemandStreamCountLimit>00",
		},
		// A required list is there without elements, an optional one is not.
		{&ListStreamsOutput{}, `{"StreamNames":[],"HasMoreStreams":false}`, "a2<StreamNames>80<HasMoreStreams>f4"},
		{&ListShardsOutput{}, "{}", "a0"},
		{
			&ListShardsOutput{Shards: []Shard{}, NextToken: new("<&>\u2028é\"\x01")}, "{\"Shards\":[],\"NextToken\":\"<&>\u2028é\\\"\\u0001\"}",
			"a2<Shards>80<NextToken>" + "6a3c263e" + "e280a8" + "c3a9" + "2201",
		},
		{&PutRecordsOutput{FailedRecordCount: new(int32(0))}, `{"FailedRecordCount":0,"Records":[]}`, "a2<FailedRecordCount>00<Records>80"},
		{
			&Record{Data: []byte{0xfb, 0xff}, ApproximateArrivalTimestamp: new(Timestamp(1459799926480)), PartitionKey: "a", SequenceNumber: "1"},
			`{"SequenceNumber":"1","ApproximateArrivalTimestamp":1459799926.480,"Data":"+/8=","PartitionKey":"a"}`,
			"a4<SequenceNumber><1><ApproximateArrivalTimestamp>c11b00000153e2db26d0<Data>42fbff<PartitionKey><a>",
		},
		{&CreateStreamInput{Tags: map[string]string{"b": "2", "a": "1"}}, `{"Tags":{"a":"1","b":"2"}}`, "a1<Tags>a2<a><1><b><2>"},
	} {
		if got := string(AppendOutput(nil, JSON, c.out)); got != c.json {
			t.Errorf("%+v:\n got %s\nwant %s", c.out, got, c.json)
		}
		if got, want := hex.EncodeToString(AppendOutput(nil, CBOR, c.out)), hex.EncodeToString(unhex(t, c.cbor)); got != want {
			t.Errorf("%+v:\n got %s\nwant %s", c.out, got, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for ms, want := range map[Timestamp]string{
		0: "0", 1: "0.001", -1: "-0.001", 999: "0.999", 1000: "1", 1441215410867: "1441215410.867", 1441215410000: "1441215410",
		1441215410070: "1441215410.070", math.MinInt64: "-9223372036854775.808", math.MaxInt64: "9223372036854775.807",
	} {
		if got := string(appendSeconds(nil, ms)); got != want {
			t.Errorf("%d: got %s, want %s", ms, got, want)
		}
	}
}

func TestErrorBodies(t *testing.T) {
	for _, c := range []struct {
		err        *Error
		json, cbor string
	}{
		{MalformedBody(), `{"__type":"SerializationException"}`, "a1<__type><SerializationException>"},
		{UnknownOperation(), `{"__type":"UnknownOperationException"}`, "a1<__type><UnknownOperationException>"},
		{InternalFailure(), `{"__type":"InternalFailure"}`, "a1<__type><InternalFailure>"},
		{typeError("Expected null"), `{"__type":"SerializationException","Message":"Expected null"}`, "a2<__type><SerializationException><Message><Expected null>"},
		{
			StreamExists("a", "000000000000"), `{"__type":"ResourceInUseException","message":"Stream a under account 000000000000 already exists."}`,
			"a2<__type><ResourceInUseException><message>7833" + hex.EncodeToString([]byte("Stream a under account 000000000000 already exists.")),
		},
	} {
		if got := string(c.err.AppendBody(nil, JSON)); got != c.json {
			t.Errorf("got %s, want %s", got, c.json)
		}
		if got, want := hex.EncodeToString(c.err.AppendBody(nil, CBOR)), hex.EncodeToString(unhex(t, c.cbor)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestJSONStrings compares with encoding/json, which reads what we write.
func TestJSONStrings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "string")
		text := appendJSONString(nil, s)
		var got string
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if want := replaceInvalid(s); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		if !utf8.Valid(text) || strings.Contains(string(text), `\u00`) != strings.ContainsAny(s, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f") {
			t.Fatalf("%q is escaped as %s", s, text)
		}
	})
}

// replaceInvalid makes every byte that is not UTF-8 into U+FFFD.
func replaceInvalid(s string) string { return string([]rune(s)) }

// TestCBORHeads compares with an independent implementation.
func TestCBORHeads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64().Draw(t, "n")
		want, err := cbor.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendCBORInt(nil, n); string(got) != string(want) {
			t.Fatalf("%d: got %x, want %x", n, got, want)
		}
		r := cborReader{b: appendCBORTime(nil, Timestamp(n))}
		var tok token
		if !r.next(&tok) || tok.kind != tokenTime || tok.num.floor != n {
			t.Fatalf("time %d: got %+v", n, tok)
		}
	})
}

func TestContentTypes(t *testing.T) {
	if JSON.ContentType() != "application/x-amz-json-1.1" || CBOR.ContentType() != "application/x-amz-cbor-1.1" {
		t.Error(JSON.ContentType(), CBOR.ContentType())
	}
}
