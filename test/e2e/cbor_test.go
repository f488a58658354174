package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// The CBOR that the Java SDKs, and with them the KCL, speak: maps and arrays of
// indefinite length, blobs as byte strings, and times as tag 1 with whole
// MILLIseconds, against the standard.

// cborMap is a map in the order in which its members are written.
type cborMap []cborMember

type cborMember struct {
	key   string
	value any
}

// cborMillis is a time.
type cborMillis int64

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

// appendCBOR writes a value as Jackson does.
func appendCBOR(b []byte, v any) []byte {
	switch v := v.(type) {
	case cborMap:
		b = append(b, 0xbf)
		for _, m := range v {
			b = appendCBOR(appendCBOR(b, m.key), m.value)
		}
		return append(b, 0xff)
	case []cborMap:
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
		return appendHead(b, 0, uint64(v))
	case cborMillis:
		return binary.BigEndian.AppendUint64(append(b, 0xc1, 0x1b), uint64(v))
	case nil:
		return append(b, 0xf6)
	}
	panic(fmt.Sprintf("no CBOR for %T", v))
}

const cborType = "application/x-amz-cbor-1.1"

// callCBOR makes a call, and gives the answer's status and body.
func callCBOR(t *testing.T, endpoint, op string, in cborMap) (status int, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, bytes.NewReader(appendCBOR(nil, in)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", cborType)
	req.Header.Set("X-Amz-Target", "Kinesis_20131202."+op)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); got != cborType {
		t.Errorf("%s: content type %q", op, got)
	}
	return resp.StatusCode, body
}

func TestCBOR(t *testing.T) {
	n := start(t, "--ephemeral", "--transition-delay", "0s", "--stream", "cbor:2")
	stream := cborMember{"StreamName", "cbor"}
	call := func(out any, op string, in ...cborMember) {
		t.Helper()
		status, body := callCBOR(t, n.endpoint, op, in)
		if status != http.StatusOK {
			t.Fatalf("%s: status %d, body %q", op, status, body)
		}
		if err := cbor.Unmarshal(body, out); err != nil {
			t.Fatalf("%s: %v in %x", op, err, body)
		}
	}

	var limits struct{ OpenShardCount int }
	if call(&limits, "DescribeLimits"); limits.OpenShardCount != 2 { // its input is BF FF
		t.Errorf("%d open shards, want 2", limits.OpenShardCount)
	}
	began := time.Now().UnixMilli()
	data := []byte{0, 1, 2, 255}
	var put struct{ FailedRecordCount *int }
	call(&put, "PutRecords", stream, cborMember{"Records", []cborMap{
		{{"Data", data}, {"PartitionKey", "a"}, {"ExplicitHashKey", "0"}},
		{{"PartitionKey", "b"}, {"ExplicitHashKey", "0"}, {"Data", []byte{}}, {"Unknown", nil}},
	}})
	if put.FailedRecordCount == nil || *put.FailedRecordCount != 0 {
		t.Fatalf("PutRecords: %+v", put)
	}

	type page struct {
		Records []struct {
			Data                        []byte
			ApproximateArrivalTimestamp cbor.RawTag
		}
	}
	read := func(start ...cborMember) (p page) {
		t.Helper()
		var iterator struct{ ShardIterator string }
		call(&iterator, "GetShardIterator", append(start, stream, cborMember{"ShardId", "shardId-000000000000"})...)
		call(&p, "GetRecords", cborMember{"ShardIterator", iterator.ShardIterator}, cborMember{"Limit", 10})
		return p
	}
	got := read(cborMember{"ShardIteratorType", "TRIM_HORIZON"})
	if len(got.Records) != 2 || !slices.Equal(got.Records[0].Data, data) || len(got.Records[1].Data) != 0 {
		t.Fatalf("read %+v, want the bytes %v and none", got, data)
	}
	at := got.Records[0].ApproximateArrivalTimestamp
	var millis int64
	if err := cbor.Unmarshal(at.Content, &millis); at.Number != 1 || err != nil || at.Content[0]>>5 != 0 ||
		millis < began-1000 || millis > time.Now().UnixMilli()+1000 {
		t.Errorf("arrival: tag %d of %x, want tag 1 of a whole number near %d", at.Number, []byte(at.Content), began)
	}

	// A time as input: well before the records, and just behind them. One that
	// is still to come is refused, as by AWS.
	if err := cbor.Unmarshal(got.Records[1].ApproximateArrivalTimestamp.Content, &millis); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if now := time.Now().UnixMilli(); now <= millis {
			return fmt.Errorf("it is %d, not yet behind %d", now, millis)
		}
		return nil
	})
	for _, c := range []struct {
		at   int64
		want int
	}{{began - 60_000, 2}, {millis + 1, 0}} {
		got := read(cborMember{"ShardIteratorType", "AT_TIMESTAMP"}, cborMember{"Timestamp", cborMillis(c.at)})
		if len(got.Records) != c.want {
			t.Errorf("%d records at %d ms from the puts, want %d", len(got.Records), c.at-began, c.want)
		}
	}
	future := cborMillis(time.Now().UnixMilli() + 600_000)
	if status, body := callCBOR(t, n.endpoint, "GetShardIterator", cborMap{
		stream, {"ShardId", "shardId-000000000000"}, {"ShardIteratorType", "AT_TIMESTAMP"}, {"Timestamp", future},
	}); status != http.StatusBadRequest || !strings.Contains(string(body), "InvalidArgumentException") {
		t.Errorf("a time to come: status %d, %q, want 400 and InvalidArgumentException", status, body)
	}

	status, body := callCBOR(t, n.endpoint, "DescribeStream", cborMap{{"StreamName", "absent"}})
	var failure struct {
		Type    string `cbor:"__type"`
		Message string `cbor:"message"`
	}
	if err := cbor.Unmarshal(body, &failure); status != http.StatusBadRequest || err != nil ||
		failure.Type != "ResourceNotFoundException" || failure.Message != "Stream absent under account 000000000000 not found." {
		t.Errorf("an absent stream: status %d, %+v, %v", status, failure, err)
	}
}
