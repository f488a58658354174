package kinesis

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// seeds gives each operation's empty body and a few full ones.
func seeds(f *testing.F, format Format) {
	for i := range operations {
		f.Add(uint8(i), AppendOutput(nil, format, reflect.New(operations[i].input.goType).Interface()))
	}
	record := PutRecordsRequestEntry{Data: []byte("data\xff"), PartitionKey: new("é\"\\"), ExplicitHashKey: new("1")}
	for _, in := range []any{
		&PutRecordsInput{StreamName: new("a"), Records: []PutRecordsRequestEntry{record, record}},
		&PutRecordInput{StreamName: new("a"), Data: record.Data, PartitionKey: record.PartitionKey, SequenceNumberForOrdering: new("0")},
		&CreateStreamInput{StreamName: new("a"), ShardCount: new(int32(2)), Tags: map[string]string{"k": "v"}, StreamModeDetails: &StreamModeDetails{new("ON_DEMAND")}},
		&GetShardIteratorInput{Timestamp: new(Timestamp(1459799926480))},
	} {
		for i := range operations {
			if operations[i].input == shapeOf(reflect.TypeOf(in).Elem()) {
				f.Add(uint8(i), AppendOutput(nil, format, in))
			}
		}
	}
}

// fuzzBody holds what must be true of every body: nothing panics, what is
// accepted survives a round trip through both formats, and the quick way agrees.
func fuzzBody(t *testing.T, scan *PutScan, f Format, which uint8, body []byte) {
	o := &operations[int(which)%len(operations)]
	in, err := Decode(o.op, f, body)
	if syntax := CheckSyntax(f, body); (syntax != nil) != (err != nil && err.Message == "") {
		t.Fatalf("syntax %v, decoded %v", syntax, err)
	}
	if err == nil {
		Validate(in)
		fillRequired(o.input, reflect.ValueOf(in).Elem())
		for _, to := range []Format{JSON, CBOR} {
			again, err := Decode(o.op, to, AppendOutput(nil, to, in))
			if err != nil || !reflect.DeepEqual(again, in) {
				t.Fatalf("%+v: again %+v, %v", in, again, err)
			}
		}
	}
	checkScan(t, scan, f, body, false)
	checkScan(t, scan, f, body, true)
}

func FuzzJSON(f *testing.F) {
	seeds(f, JSON)
	f.Add(uint8(1), []byte(`{"a":[1.5e-3,"\ud83d\ude00",true,false,null,{"b":{}}],"ShardCount":1e2}`))
	var s PutScan
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		fuzzBody(t, &s, JSON, which, body)
		// Whatever we take for JSON, others do.
		if CheckSyntax(JSON, body) == nil && !json.Valid(body) {
			t.Fatalf("%q is no JSON", body)
		}
	})
}

func FuzzCBOR(f *testing.F) {
	seeds(f, CBOR)
	f.Add(uint8(1), unhex(f, "bf<Unknown>9fc1fb3ff0000000000000d8401aa0a0a0a081a1<x>5f4100ffff<ShardCount>c2420102ff"))
	mode, err := cbor.DecOptions{MaxNestedLevels: 65535, MaxArrayElements: 1 << 30, MaxMapPairs: 1 << 30}.DecMode()
	if err != nil {
		f.Fatal(err)
	}
	var s PutScan
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		fuzzBody(t, &s, CBOR, which, body)
		if CheckSyntax(CBOR, body) == nil && mode.Wellformed(body) != nil {
			t.Fatalf("%x is no CBOR: %v", body, mode.Wellformed(body))
		}
	})
}
