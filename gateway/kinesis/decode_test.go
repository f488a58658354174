package kinesis

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const truncating = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"

// TestTypeErrors holds the texts of SerializationException.
func TestTypeErrors(t *testing.T) {
	for _, c := range []struct {
		op   Op
		body string
		want string
	}{
		{CreateStream, `{"StreamName":true}`, "class java.lang.Boolean can not be converted to an String"},
		{CreateStream, `{"StreamName":1.5}`, truncating + " can not be converted to an String"},
		{CreateStream, `{"StreamName":["a"]}`, "Start of list found where not expected"},
		{CreateStream, `{"StreamName":{}}`, "Start of structure or map found where not expected."},
		{CreateStream, `{"ShardCount":"1"}`, "class java.lang.String can not be converted to an Integer"},
		{CreateStream, `{"ShardCount":false}`, "class java.lang.Boolean can not be converted to an Integer"},
		{CreateStream, `{"ShardCount":[]}`, "Start of list found where not expected"},
		{CreateStream, `{"ShardCount":{"a":1}}`, "Start of structure or map found where not expected."},
		{CreateStream, `{"Tags":1}`, "Expected map or null"},
		{CreateStream, `{"Tags":[]}`, "Start of list found where not expected"},
		{CreateStream, `{"Tags":{"a":1}}`, truncating + " can not be converted to an String"},
		{CreateStream, `{"StreamModeDetails":"x"}`, "Expected null"},
		{CreateStream, `{"StreamModeDetails":[]}`, "Start of list found where not expected"},
		{DeleteStream, `{"EnforceConsumerDeletion":1}`, truncating + " can not be converted to an Boolean"},
		{DeleteStream, `{"EnforceConsumerDeletion":"hellowtf"}`, "'HELLOWTF' can not be converted to an Boolean"},
		{PutRecord, `{"Data":1}`, truncating + " can not be converted to a Blob"},
		{PutRecord, `{"Data":true}`, "class java.lang.Boolean can not be converted to a Blob"},
		{PutRecord, `{"Data":[]}`, "Start of list found where not expected"},
		{PutRecord, `{"Data":"A"}`, "'A' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 1"},
		{PutRecord, `{"Data":"é\n"}`, "'é\n' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 2"},
		{PutRecord, `{"Data":"=aaa"}`, "'=aaa' can not be converted to a Blob: Invalid Base64 character: '='"},
		{PutRecord, `{"Data":"+/+YzP_0"}`, "'+/+YzP_0' can not be converted to a Blob: Invalid Base64 character: '_'"},
		{PutRecord, `{"Data":"aaa\n"}`, "'aaa\n' can not be converted to a Blob: Invalid Base64 character: '\n'"},
		{PutRecord, `{"Data":"AAAA\n\n\n\n"}`, "'AAAA\n\n\n\n' can not be converted to a Blob: Invalid Base64 character: '\n'"},
		{PutRecord, `{"Data":"+/+YzPr="}`, "'+/+YzPr=' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"},
		{PutRecord, `{"Data":"A==="}`, "'A===' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"},
		{PutRecord, `{"Data":"===="}`, "'====' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"},
		{PutRecords, `{"Records":"x"}`, "Expected list or null"},
		{PutRecords, `{"Records":{}}`, "Start of structure or map found where not expected."},
		{PutRecords, `{"Records":[1]}`, "Expected null"},
		{PutRecords, `{"Records":[[]]}`, "Start of list found where not expected"},
		{GetShardIterator, `{"Timestamp":"2016"}`, "class java.lang.String can not be converted to milliseconds since epoch"},
		{GetShardIterator, `{"Timestamp":true}`, "class java.lang.Boolean can not be converted to milliseconds since epoch"},
		{GetShardIterator, `{"Timestamp":[]}`, "Start of list found where not expected"},
		// The first in the body counts, and a type error wins over anything missing.
		{CreateStream, `{"x":[{"y":[]}],"ShardCount":"a","StreamName":1}`, "class java.lang.String can not be converted to an Integer"},
	} {
		_, err := Decode(c.op, JSON, []byte(c.body))
		if err == nil || err.Code != "SerializationException" || err.Status != 400 || !err.CapitalM || err.Message != c.want {
			t.Errorf("%s %s: got %v, want %s", c.op, c.body, err, c.want)
		}
	}
}

func TestTypeErrorsOfCBOR(t *testing.T) {
	for _, c := range []struct {
		op   Op
		body string // hexadecimal; keys are given as text in angle brackets
		want string
	}{
		{CreateStream, "a1<StreamName>01", truncating + " can not be converted to an String"},
		{CreateStream, "a1<StreamName>4161", "class java.nio.HeapByteBuffer can not be converted to an String"},
		{CreateStream, "a1<StreamName>f5", "class java.lang.Boolean can not be converted to an String"},
		{CreateStream, "a1<ShardCount>6161", "class java.lang.String can not be converted to an Integer"},
		{CreateStream, "a1<ShardCount>80", "Start of list found where not expected"},
		{CreateStream, "a1<ShardCount>bfff", "Start of structure or map found where not expected."},
		{CreateStream, "a1<Tags>9fff", "Start of list found where not expected"},
		{PutRecord, "a1<Data>6161", "class java.lang.String can not be converted to a Blob"},
		{PutRecords, "a1<Records>f4", "Expected list or null"},
		{GetShardIterator, "a1<Timestamp>01", truncating + " can not be converted to milliseconds since epoch"},
		{GetShardIterator, "a1<Timestamp>c1fb3ff0000000000000", truncating + " can not be converted to milliseconds since epoch"},
		{CreateStream, "a1<ShardCount>c101", "class java.util.Date can not be converted to an Integer"},
	} {
		_, err := Decode(c.op, CBOR, unhex(t, c.body))
		if err == nil || err.Code != "SerializationException" || !err.CapitalM || err.Message != c.want {
			t.Errorf("%s %s: got %v, want %s", c.op, c.body, err, c.want)
		}
	}
}

// unhex reads hexadecimal with text strings in angle brackets.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var b []byte
	for s != "" {
		if text, rest, ok := strings.Cut(s, ">"); ok && s[0] == '<' {
			b = appendCBORString(b, text[1:])
			s = rest
			continue
		}
		digits, _, _ := strings.Cut(s, "<")
		d, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		b, s = append(b, d...), s[len(digits):]
	}
	return b
}

func TestMalformedJSON(t *testing.T) {
	deep := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	for _, body := range []string{
		"", " ", "{", "}", "true", "null", "1", `"a"`, "[]", "[{}]", "{}x", "{}{}", "{,}", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1 "b":2}`,
		`{a:1}`, `{'a':1}`, `{"a":01}`, `{"a":1.}`, `{"a":.1}`, `{"a":+1}`, `{"a":-}`, `{"a":1e}`, `{"a":1e+}`, `{"a":0x1}`, `{"a":NaN}`,
		`{"a":tru}`, `{"a":"\x"}`, `{"a":"\u12g4"}`, `{"a":"\ud800"}`, `{"a":"\ud800\u0041"}`, `{"a":"\udc00"}`, `{"a":"` + "\n" + `"}`,
		"{\"a\":\"\xff\"}", "{\"a\":\"\\n\xff\"}", "{\"a\":\"\xed\xa0\x80\"}", "\ufeff{}", `{"a":"`, `{"a":"\`, `{"a":"\u00`, `{"a":[1,]}`, `{"a":[1}`,
		`{"StreamName":1,"ShardCount":}`, // malformed wins over a wrong type before it
		`{"a":` + deep + `}`,
	} {
		if _, err := Decode(CreateStream, JSON, []byte(body)); err == nil || *err != *MalformedBody() {
			t.Errorf("%q: got %v", body, err)
		}
		if err := CheckSyntax(JSON, []byte(body)); err == nil {
			t.Errorf("%q: syntax accepted", body)
		}
	}
	if _, err := Decode(CreateStream, JSON, []byte(`{"a":`+deep[1:len(deep)-1]+`}`)); err != nil {
		t.Errorf("the deepest nesting allowed: %v", err)
	}
}

func TestMalformedCBOR(t *testing.T) {
	for _, body := range []string{
		"", "f6", "80", "01", "6161", "a1", "a101f6", "a14161f6", "bf", "bf6161", "a16161", "a0a0", "bfffff",
		"a1<a>ff", "a1<a>1c", "a1<a>18", "a1<a>1b00", "a1<a>5f01ff", "a1<a>5f5f4161ffff", "a1<a>7f4161ff", "a1<a>61ff", "a1<a>7f61c361a9ff",
		"a1<a>e0", "a1<a>f820", "a1<a>9f", "a1<a>1f", "a1<a>c1",
		"bb7fffffffffffffff", "a1<a>9b7fffffffffffffff01", "a1<a>5b7fffffffffffffff00", "a1<a>7bffffffffffffffff00",
		"a1<a>" + strings.Repeat("81", maxDepth) + "01", "a1<a>" + strings.Repeat("9f", 100000), "a1<a>" + strings.Repeat("c1", 100000),
	} {
		if _, err := Decode(CreateStream, CBOR, unhex(t, body)); err == nil || *err != *MalformedBody() {
			t.Errorf("%.80s: got %v", body, err)
		}
	}
}

func TestDecodeJSON(t *testing.T) {
	for _, c := range []struct {
		body string
		op   Op
		want any
	}{
		{"\t{ }\r\n", DescribeLimits, &DescribeLimitsInput{}},
		{`{"StreamName":null,"Nope":{"a":[1,"x",null,{}]},"ShardCount":3}`, CreateStream, &CreateStreamInput{ShardCount: new(int32(3))}},
		{`{"StreamName":"a","StreamName":"b"}`, CreateStream, &CreateStreamInput{StreamName: new("b")}},
		{`{"StreamName":"a","StreamName":null}`, CreateStream, &CreateStreamInput{}},
		{`{"StreamModeDetails":{"StreamMode":"A"},"StreamModeDetails":{}}`, CreateStream, &CreateStreamInput{StreamModeDetails: &StreamModeDetails{}}},
		{`{"StreamName":"\u00e9\ud83d\ude00\"\\\/\b\f\n\r\t"}`, CreateStream, &CreateStreamInput{StreamName: new("é😀\"\\/\b\f\n\r\t")}},
		{`{"ShardCount":100000000000}`, CreateStream, &CreateStreamInput{ShardCount: new(int32(math.MaxInt32))}},
		{`{"ShardCount":-1e999999999999999999999}`, CreateStream, &CreateStreamInput{ShardCount: new(int32(math.MinInt32))}},
		{`{"ShardCount":5.9}`, CreateStream, &CreateStreamInput{ShardCount: new(int32(5))}},
		{`{"ShardCount":-5.1}`, CreateStream, &CreateStreamInput{ShardCount: new(int32(-6))}},
		{`{"ShardCount":1e-5}`, CreateStream, &CreateStreamInput{ShardCount: new(int32(0))}},
		{`{"ShardCount":0.00012e5}`, CreateStream, &CreateStreamInput{ShardCount: new(int32(12))}},
		{`{"Tags":{"a":"1","b":null,"a":"2"}}`, CreateStream, &CreateStreamInput{Tags: map[string]string{"a": "2"}}},
		{`{"Tags":{}}`, CreateStream, &CreateStreamInput{Tags: map[string]string{}}},
		{`{"Timestamp":1459799926.480}`, GetShardIterator, &GetShardIteratorInput{Timestamp: new(Timestamp(1459799926480))}},
		{`{"Timestamp":1.441215410867E9}`, GetShardIterator, &GetShardIteratorInput{Timestamp: new(Timestamp(1441215410867))}},
		{`{"Timestamp":1459799926.4809999}`, GetShardIterator, &GetShardIteratorInput{Timestamp: new(Timestamp(1459799926480))}},
		{`{"Timestamp":-0.0001}`, GetShardIterator, &GetShardIteratorInput{Timestamp: new(Timestamp(-1))}},
		{`{"Timestamp":1e300}`, GetShardIterator, &GetShardIteratorInput{Timestamp: new(Timestamp(math.MaxInt64))}},
		{`{"EnforceConsumerDeletion":"yes"}`, DeleteStream, &DeleteStreamInput{EnforceConsumerDeletion: new(true)}},
		{`{"EnforceConsumerDeletion":"False"}`, DeleteStream, &DeleteStreamInput{EnforceConsumerDeletion: new(false)}},
		{`{"EnforceConsumerDeletion":0.5}`, DeleteStream, &DeleteStreamInput{EnforceConsumerDeletion: new(true)}},
		{`{"Data":""}`, PutRecord, &PutRecordInput{Data: []byte{}}},
		{`{"Data":"AAA\/"}`, PutRecord, &PutRecordInput{Data: []byte{0, 0, 0x3f}}},
		{`{"Records":[]}`, PutRecords, &PutRecordsInput{Records: []PutRecordsRequestEntry{}}},
		{`{"Records":[null,{"PartitionKey":"a"}]}`, PutRecords, &PutRecordsInput{Records: []PutRecordsRequestEntry{{}, {PartitionKey: new("a")}}}},
		{`{"TagKeys":["a",null]}`, UntagResource, &UntagResourceInput{TagKeys: []string{"a", ""}}},
	} {
		got, err := Decode(c.op, JSON, []byte(c.body))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v", c.body, got, err)
		}
	}
}

func TestDecodeCBOR(t *testing.T) {
	for _, c := range []struct {
		body string
		op   Op
		want any
	}{
		{"bfff", DescribeLimits, &DescribeLimitsInput{}},
		{"d9d9f7a0", DescribeLimits, &DescribeLimitsInput{}},
		{"bf<StreamName>7f<a><b>ff<ShardCount>1903e8ff", CreateStream, &CreateStreamInput{StreamName: new("ab"), ShardCount: new(int32(1000))}},
		{"bf7f<Stream><Name>ff<a>ff", CreateStream, &CreateStreamInput{StreamName: new("a")}},
		{"a2<StreamName>f6<ShardCount>f7", CreateStream, &CreateStreamInput{}},
		{"a1<ShardCount>1bffffffffffffffff", CreateStream, &CreateStreamInput{ShardCount: new(int32(math.MaxInt32))}},
		{"a1<ShardCount>3bffffffffffffffff", CreateStream, &CreateStreamInput{ShardCount: new(int32(math.MinInt32))}},
		{"a1<ShardCount>c249010000000000000000", CreateStream, &CreateStreamInput{ShardCount: new(int32(math.MaxInt32))}},
		{"a1<ShardCount>c2420102", CreateStream, &CreateStreamInput{ShardCount: new(int32(258))}},
		{"a1<ShardCount>c2430000ff", CreateStream, &CreateStreamInput{ShardCount: new(int32(255))}},
		{"a1<ShardCount>fbfff0000000000000", CreateStream, &CreateStreamInput{ShardCount: new(int32(math.MinInt32))}},
		{"a1<ShardCount>c3420102", CreateStream, &CreateStreamInput{ShardCount: new(int32(-259))}},
		{"a1<ShardCount>20", CreateStream, &CreateStreamInput{ShardCount: new(int32(-1))}},
		{"a1<ShardCount>f94580", CreateStream, &CreateStreamInput{ShardCount: new(int32(5))}},
		{"a1<ShardCount>fac0a33333", CreateStream, &CreateStreamInput{ShardCount: new(int32(-6))}},
		{"a1<ShardCount>fb7ff0000000000000", CreateStream, &CreateStreamInput{ShardCount: new(int32(math.MaxInt32))}},
		{"a1<ShardCount>f97e00", CreateStream, &CreateStreamInput{ShardCount: new(int32(0))}},
		{"a1<Timestamp>c11b00000153e2db26d0", GetShardIterator, &GetShardIteratorInput{Timestamp: new(Timestamp(1459799926480))}},
		{"a1<Timestamp>c11903e8", GetShardIterator, &GetShardIteratorInput{Timestamp: new(Timestamp(1000))}},
		{"a1<Data>40", PutRecord, &PutRecordInput{Data: []byte{}}},
		{"a1<Data>5f41014102ff", PutRecord, &PutRecordInput{Data: []byte{1, 2}}},
		{"a1<Records>9fa1<PartitionKey><a>f6ff", PutRecords, &PutRecordsInput{Records: []PutRecordsRequestEntry{{PartitionKey: new("a")}, {}}}},
		{"bf<Tags>bf<a><1>ffff", CreateStream, &CreateStreamInput{Tags: map[string]string{"a": "1"}}},
		{"a1<Unknown>9fc1fb3ff0000000000000d8401aa0a0a0a081a1<x>5f4100ffff", DescribeLimits, &DescribeLimitsInput{}},
	} {
		got, err := Decode(c.op, CBOR, unhex(t, c.body))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v", c.body, got, err)
		}
	}
}

// TestNumbers compares the floors with those of math/big.
func TestNumbers(t *testing.T) {
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?`)
	rapid.Check(t, func(t *rapid.T) {
		text := number.Draw(t, "number")
		r := jsonReader{b: []byte(text)}
		got, ok := r.number()
		exact, _ := new(big.Rat).SetString(text)
		if !ok || r.i != len(text) {
			t.Fatalf("%s is not read", text)
		}
		thousandfold := new(big.Rat).Mul(exact, big.NewRat(1000, 1))
		if want := floorRat(exact); got.floor != want {
			t.Fatalf("floor of %s: got %d, want %d", text, got.floor, want)
		}
		if want := floorRat(thousandfold); got.millis != want {
			t.Fatalf("millis of %s: got %d, want %d", text, got.millis, want)
		}
		if got.nonzero != (exact.Sign() != 0) {
			t.Fatalf("%s: nonzero %v", text, got.nonzero)
		}
	})
}

func floorRat(r *big.Rat) int64 {
	// Euclid's division is the floor for a positive divisor.
	n := new(big.Int).Div(r.Num(), r.Denom())
	switch {
	case n.IsInt64():
		return n.Int64()
	case n.Sign() < 0:
		return math.MinInt64
	}
	return math.MaxInt64
}

func TestHalfFloats(t *testing.T) {
	for text, want := range map[uint16]float64{
		0: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: 5.960464477539063e-8, 0x0400: 0.00006103515625, 0x7c00: math.Inf(1), 0xfc00: math.Inf(-1),
	} {
		if got := halfFloat(text); got != want {
			t.Errorf("%04x: got %v, want %v", text, got, want)
		}
	}
	if got := halfFloat(0x7e00); got == got {
		t.Errorf("NaN is %v", got)
	}
}

func TestOps(t *testing.T) {
	if n := len(Ops()); n != 39 {
		t.Errorf("%d operations", n)
	}
	for _, op := range Ops() {
		if got, ok := LookupOp(string(op)); !ok || got != op {
			t.Errorf("%s is not found", op)
		}
		in, err := Decode(op, JSON, []byte("{}"))
		if err != nil {
			t.Errorf("%s: %v", op, err)
		}
		if got, want := fmt.Sprintf("%T", in), "*kinesis."+string(op)+"Input"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, ok := LookupOp("putRecord"); ok {
		t.Error("operations are not case sensitive")
	}
	if _, err := Decode("Nope", JSON, []byte("{}")); err == nil || err.Code != CodeUnknownOperation {
		t.Errorf("unknown operation: %v", err)
	}
}

// TestBodiesDoNotGrow: what a body says it holds, or holds too much of, takes
// no memory beyond measure.
func TestBodiesDoNotGrow(t *testing.T) {
	const n = 200000
	list := `{"Records":[` + strings.Repeat("null,", n) + `{"PartitionKey":1}]}`
	if _, err := Decode(PutRecords, JSON, []byte(list)); err == nil || err.Message != truncating+" can not be converted to an String" {
		t.Errorf("the type of the last element: %v", err)
	}
	in, err := Decode(PutRecords, JSON, []byte(strings.Replace(list, `"PartitionKey":1`, "", 1)))
	if err != nil || len(in.(*PutRecordsInput).Records) != maxElements {
		t.Fatalf("%v", err)
	}
	const want = "10 validation errors detected: Value at 'records' failed to satisfy constraint: Member must have length less than or equal to 500; "
	if err := Validate(in); err == nil || !strings.HasPrefix(err.Message, want) {
		t.Errorf("%v", err)
	}
	var tags strings.Builder
	for i := range n {
		fmt.Fprintf(&tags, `"%d":"",`, i)
	}
	in, err = Decode(TagResource, JSON, []byte(`{"Tags":{`+tags.String()+`"7":"last"}}`))
	if err != nil || len(in.(*TagResourceInput).Tags) != maxElements || in.(*TagResourceInput).Tags["7"] != "last" {
		t.Errorf("%v", err)
	}
	name := strings.Repeat("!", 1<<20)
	err = Validate(&CreateStreamInput{StreamName: &name})
	if err == nil || strings.Count(err.Message, ";") != 0 || !strings.HasSuffix(err.Message, "Member must have length less than or equal to 128") {
		t.Errorf("a name of a megabyte: %.200v", err)
	}
}
