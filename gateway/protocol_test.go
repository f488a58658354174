package gateway

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"shardstream/gateway/kinesis"
)

const (
	typeJSON = "application/x-amz-json-1.1"
	typeCBOR = "application/x-amz-cbor-1.1"
	signed   = "AWS4-HMAC-SHA256 Credential=AKID/20261124/eu-west-2/kinesis/aws4_request, SignedHeaders=host, Signature=00"
)

// TestMalformedRequests is the table of malformed requests, row by row, over
// HTTP/1.1 and HTTP/2.
func TestMalformedRequests(t *testing.T) {
	const (
		deniedXML  = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n</AccessDeniedException>\n"
		missingXML = "<MissingAuthenticationTokenException>\n  <Message>Missing Authentication Token</Message>\n</MissingAuthenticationTokenException>\n"
		unknownXML = "<UnknownOperationException/>\n"
	)
	known, unknown := "Kinesis_20131202.ListStreams", "Kinesis_20131202.NoSuchOperation"
	const serialization, unknownOp = "SerializationException", "UnknownOperationException"
	for _, c := range []struct {
		name                      string
		method, target, ct, body  string
		auth                      string
		status                    int
		wantType, wantBody, class string // a whole body, or the class of an error without message
	}{
		{name: "GET signed", method: "GET", auth: signed, status: 403, wantBody: deniedXML},
		{name: "PUT signed", method: "PUT", auth: signed, body: "x", status: 403, wantBody: deniedXML},
		{name: "DELETE signed", method: "DELETE", auth: signed, status: 403, wantBody: deniedXML},
		{name: "OPTIONS without Origin, signed", method: "OPTIONS", auth: signed, status: 403, wantBody: deniedXML},
		{name: "GET unsigned", method: "GET", status: 403, wantBody: missingXML},
		{name: "GET a known target unsigned", method: "GET", target: known, ct: typeJSON, status: 403, wantBody: missingXML},

		{name: "empty body, no target", status: 400, wantType: typeCBOR, class: unknownOp},
		{name: "empty body, no target, JSON", ct: typeJSON, status: 400, wantType: typeJSON, class: unknownOp},
		{name: "empty body, no target, application/json", ct: "application/json", status: 400, wantType: typeCBOR, class: unknownOp},
		{name: "empty body, unknown target", target: unknown, ct: "text/plain", status: 400, wantType: typeCBOR, class: unknownOp},
		{name: "empty body, unknown service", target: "Kinesis_20990101.ListStreams", ct: typeJSON, status: 400, wantType: typeJSON, class: unknownOp},
		{name: "empty body, known target", target: known, status: 400, wantType: typeCBOR, class: serialization},
		{name: "empty body, known target, JSON", target: known, ct: typeJSON, status: 400, wantType: typeJSON, class: serialization},
		{name: "empty body, known target, CBOR", target: known, ct: typeCBOR, status: 400, wantType: typeCBOR, class: serialization},

		{name: "unknown type, no target", ct: "text/plain", body: "{}", status: 403, wantBody: deniedXML},
		{name: "no type, no target", body: "{}", status: 403, wantBody: deniedXML},
		{name: "unknown type, no operation", ct: "text/plain", target: "Kinesis_20131202", body: "{}", status: 403, wantBody: deniedXML},
		{name: "unknown type, empty operation", ct: "text/plain", target: "Kinesis_20131202.", body: "{}", status: 403, wantBody: deniedXML},
		{name: "unknown type, empty service", ct: "text/plain", target: ".ListStreams", body: "{}", status: 403, wantBody: deniedXML},
		{name: "unknown type, known target", ct: "text/plain", target: known, body: "{}", status: 404, wantBody: unknownXML},
		{name: "unknown type, some target", ct: "application/x-www-form-urlencoded", target: "a.b", body: "x", status: 404, wantBody: unknownXML},

		{name: "JSON true", target: known, ct: typeJSON, body: "true", status: 400, wantType: typeJSON, class: serialization},
		{name: "JSON null", target: known, ct: typeJSON, body: "null", status: 400, wantType: typeJSON, class: serialization},
		{name: "JSON text", target: known, ct: typeJSON, body: "hello", status: 400, wantType: typeJSON, class: serialization},
		{name: "JSON array", target: known, ct: typeJSON, body: "[]", status: 400, wantType: typeJSON, class: serialization},
		{name: "JSON broken off", target: known, ct: typeJSON, body: `{"Limit":1`, status: 400, wantType: typeJSON, class: serialization},
		{name: "JSON bad, unknown operation", target: unknown, ct: typeJSON, body: "hello", status: 400, wantType: typeJSON, class: serialization},
		{name: "CBOR true", target: known, ct: typeCBOR, body: "\xf5", status: 400, wantType: typeCBOR, class: serialization},
		{name: "CBOR bad, unknown operation", target: unknown, ct: typeCBOR, body: "\xbf", status: 400, wantType: typeCBOR, class: serialization},
		{name: "JSON put that is no object", target: "Kinesis_20131202.PutRecords", ct: typeJSON, body: "7", status: 400, wantType: typeJSON, class: serialization},

		{name: "JSON unknown operation", target: unknown, ct: typeJSON, body: "{}", status: 400, wantType: typeJSON, class: unknownOp},
		{name: "JSON wrong case", target: "Kinesis_20131202.listStreams", ct: typeJSON, body: "{}", status: 400, wantType: typeJSON, class: unknownOp},
		{name: "JSON unknown service", target: "DynamoDB_20120810.ListTables", ct: typeJSON, body: "{}", status: 400, wantType: typeJSON, class: unknownOp},
		{name: "JSON no target", ct: typeJSON, body: "{}", status: 400, wantType: typeJSON, class: unknownOp},
		{name: "CBOR unknown operation", target: unknown, ct: typeCBOR, body: "\xa0", status: 400, wantType: typeCBOR, class: unknownOp},
		{name: "type with parameters", target: unknown, ct: " " + typeJSON + " ; charset=utf-8", body: "{}", status: 400, wantType: typeJSON, class: unknownOp},

		{
			name: "application/json, bad body", target: known, ct: "application/json", body: "hello", status: 400, wantType: "application/json",
			wantBody: `{"Output":{"__type":"com.amazon.coral.service#SerializationException"},"Version":"1.0"}`,
		},
		{
			name: "application/json, good body", target: known, ct: "application/json", body: "{}", status: 404, wantType: "application/json",
			wantBody: `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t)
			for _, e := range []*env{e, e.overH2C()} {
				r := e.request(c.target, c.ct, []byte(c.body))
				if c.method != "" {
					r.Method = c.method
				}
				if c.auth != "" {
					r.Header.Set("Authorization", c.auth)
				}
				a := e.do(r)
				if a.status != c.status {
					t.Fatalf("status %d, not %d: %s", a.status, c.status, a.raw)
				}
				if got := a.header["Content-Type"]; c.wantType == "" && len(got) > 0 || c.wantType != "" && got[0] != c.wantType {
					t.Errorf("Content-Type %q, not %q", got, c.wantType)
				}
				if c.class != "" {
					if len(a.body) != 1 || a.body["__type"] != c.class {
						t.Errorf("body %v, not %s alone", a.body, c.class)
					}
				} else if string(a.raw) != c.wantBody {
					t.Errorf("body %q, not %q", a.raw, c.wantBody)
				}
				checkIDs(t, a)
			}
		})
	}
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func checkIDs(t *testing.T, a answer) {
	t.Helper()
	if id := a.header.Get("X-Amzn-Requestid"); !uuidForm.MatchString(id) {
		t.Errorf("x-amzn-RequestId %q", id)
	}
	if b, err := base64.StdEncoding.DecodeString(a.header.Get("X-Amz-Id-2")); err != nil || len(b) < 64 || len(b) > 80 {
		t.Errorf("x-amz-id-2 %q", a.header.Get("X-Amz-Id-2"))
	}
	for _, h := range []string{"Date", "Content-Length"} {
		if a.header.Get(h) == "" {
			t.Errorf("no %s", h)
		}
	}
	if a.header.Get("Connection") != "" {
		t.Errorf("Connection: %s", a.header.Get("Connection"))
	}
	if a.header.Get("X-Amzn-Errortype") != "" {
		t.Error("x-amzn-ErrorType is there")
	}
}

func TestHeadersOfAnswers(t *testing.T) {
	e := newEnv(t)
	seen := make(map[string]bool)
	for _, e := range []*env{e, e.overH2C()} {
		for _, ct := range []string{typeJSON, typeCBOR, typeJSON + "; charset=utf-8"} {
			body := []byte("{}")
			if ct == typeCBOR {
				body = []byte{0xbf, 0xff}
			}
			a := e.do(e.request("Kinesis_20131202.DescribeLimits", ct, body))
			want, _, _ := strings.Cut(ct, ";")
			if a.status != 200 || a.header.Get("Content-Type") != want {
				t.Errorf("%s: %d %q", ct, a.status, a.header.Get("Content-Type"))
			}
			checkIDs(t, a)
			id := a.header.Get("X-Amzn-Requestid")
			if seen[id] {
				t.Errorf("request id %s twice", id)
			}
			seen[id] = true
		}
	}
}

// TestEmptyOutputs: operations without an output answer with nothing at all.
func TestEmptyOutputs(t *testing.T) {
	e := newEnv(t)
	a := e.call("CreateStream", m{"StreamName": "s", "ShardCount": 1})
	if a.status != 200 || len(a.raw) != 0 || a.header.Get("Content-Length") != "0" || a.header.Get("Content-Type") != typeJSON {
		t.Errorf("%d %q, length %q, type %q", a.status, a.raw, a.header.Get("Content-Length"), a.header.Get("Content-Type"))
	}
	if a := e.callCBOR("DeleteStream", m{"StreamName": "s"}); len(a.raw) != 0 || a.header.Get("Content-Type") != typeCBOR {
		t.Errorf("%d %q %q", a.status, a.raw, a.header.Get("Content-Type"))
	}
}

func TestCORS(t *testing.T) {
	e := newEnv(t)
	r := e.request("", "", nil, "Origin", "http://page", "Access-Control-Request-Headers", "x-amz-target, content-type", "Access-Control-Request-Method", "POST")
	r.Method = http.MethodOptions
	a := e.do(r)
	want := map[string]string{
		"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "x-amz-target, content-type",
		"Access-Control-Allow-Methods": "POST", "Access-Control-Max-Age": "172800",
		"Content-Length": "0", "Content-Type": "", "X-Amz-Id-2": "", "Access-Control-Expose-Headers": "",
	}
	if a.status != 200 || len(a.raw) != 0 || a.header.Get("X-Amzn-Requestid") == "" {
		t.Errorf("preflight: %d %q %v", a.status, a.raw, a.header)
	}
	for name, value := range want {
		if got := a.header.Get(name); got != value {
			t.Errorf("preflight: %s: %q, not %q", name, got, value)
		}
	}
	r = e.request("", "", nil, "Origin", "http://page")
	r.Method = http.MethodOptions
	if a := e.do(r); a.header.Get("Access-Control-Allow-Methods") != "" || a.header.Get("Access-Control-Allow-Headers") != "" {
		t.Errorf("preflight allows what was not asked: %v", a.header)
	}
	a = e.call("ListStreams", m{}, "Origin", "http://page")
	if a.header.Get("Access-Control-Allow-Origin") != "*" ||
		a.header.Get("Access-Control-Expose-Headers") != "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date" {
		t.Errorf("call: %v", a.header)
	}
	if a := e.call("ListStreams", m{}); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("CORS headers without Origin")
	}
}

func TestBodyTooLarge(t *testing.T) {
	e := newEnv(t, func(c *Config, _ *fakeBroker) { c.MaxBody = 100_000 })
	for _, chunked := range []bool{false, true} {
		for _, size := range []int{100_000, 100_001, 3_000_000} {
			t.Run(fmt.Sprintf("chunked=%v size=%d", chunked, size), func(t *testing.T) {
				body := append([]byte(`{"x":"`), bytes.Repeat([]byte("y"), size-8)...)
				body = append(body, `"}`...)
				r := e.request("Kinesis_20131202.ListStreams", typeJSON, body)
				if chunked {
					r.ContentLength = -1
					r.Body = io.NopCloser(bytes.NewReader(body))
				}
				resp, err := e.http.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				got, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				if size <= 100_000 {
					if resp.StatusCode != 200 {
						t.Fatalf("%d %s", resp.StatusCode, got)
					}
					return
				}
				if resp.StatusCode != 413 || len(got) != 0 {
					t.Errorf("%d %q", resp.StatusCode, got)
				}
				if resp.Header.Get("X-Amzn-Requestid") != "" || resp.ContentLength != -1 {
					t.Errorf("headers %v, length %d", resp.Header, resp.ContentLength)
				}
			})
		}
	}
	e.allReleased()
}

// TestTypeErrors: SerializationException has "Message", others have "message".
func TestTypeErrors(t *testing.T) {
	e := newEnv(t)
	for _, c := range []struct{ op, in, message string }{
		{"DescribeStream", `{"StreamName":true}`, "class java.lang.Boolean can not be converted to an String"},
		{"DescribeStream", `{"StreamName":1}`, "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String"},
		{"CreateStream", `{"ShardCount":"x"}`, "class java.lang.String can not be converted to an Integer"},
		{"PutRecord", `{"Data":"abc","PartitionKey":"k","StreamName":"none"}`, "'abc' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 3"},
		{"PutRecord", `{"Data":"ab$=","PartitionKey":"k","StreamName":"none"}`, "'ab$=' can not be converted to a Blob: Invalid Base64 character: '$'"},
		{"PutRecords", `{"Records":[{"Data":"YQ==","PartitionKey":"k"},{"Data":"a===","PartitionKey":"k"}],"StreamName":"none"}`, ""},
		{"PutRecords", `{"Records":{},"StreamName":"none"}`, "Start of structure or map found where not expected."},
	} {
		a := e.do(e.request("Kinesis_20131202."+c.op, typeJSON, []byte(c.in)))
		if a.status != 400 || a.body["__type"] != "SerializationException" || c.message != "" && a.body["Message"] != c.message {
			t.Errorf("%s %s: %d %s", c.op, c.in, a.status, a.raw)
		}
		if _, lower := a.body["message"]; lower {
			t.Errorf("%s %s: lower-case message: %s", c.op, c.in, a.raw)
		}
	}
	body, err := cbor.Marshal(m{"StreamName": 5})
	if err != nil {
		t.Fatal(err)
	}
	a := e.do(e.request("Kinesis_20131202.DescribeStream", typeCBOR, body))
	if a.status != 400 || a.body["__type"] != "SerializationException" || a.body["Message"] == nil {
		t.Errorf("CBOR: %d %v", a.status, a.body)
	}
}

func TestConstraints(t *testing.T) {
	e := newEnv(t)
	e.refused("DescribeStream", m{"StreamName": "s!"}, "ValidationException",
		"1 validation error detected: Value 's!' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+")
	e.refused("GetRecords", m{"Limit": 0, "ShardIterator": "x"}, "ValidationException",
		"1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1")
	e.refused("PutRecord", m{"StreamName": "s", "Data": []byte("x")}, "ValidationException",
		"1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: Member must not be null")
	e.refused("PutRecords", m{"StreamName": "s", "Records": []m{}}, "ValidationException",
		"1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length greater than or equal to 1")
	e.refused("DescribeStream", m{}, "ValidationException",
		"1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null")
	e.refused("PutRecord", m{"Data": []byte("x"), "PartitionKey": "k"}, "ValidationException",
		"1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null")
}

func TestEveryOperationIsServed(t *testing.T) {
	if len(served) != 39 {
		t.Errorf("%d operations, not 39", len(served))
	}
	for _, op := range kinesis.Ops() {
		if served[op] == nil {
			t.Errorf("%s is not", op)
		}
	}
}

func TestRegionOfCredentialScope(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	arn := func(a answer) string {
		return a.body["StreamDescriptionSummary"].(m)["StreamARN"].(string)
	}
	in := m{"StreamName": "s"}
	if got := arn(e.call("DescribeStreamSummary", in)); got != "arn:aws:kinesis:us-east-1:123456789012:stream/s" {
		t.Error(got)
	}
	if got := arn(e.call("DescribeStreamSummary", in, "Authorization", signed)); got != "arn:aws:kinesis:eu-west-2:123456789012:stream/s" {
		t.Error(got)
	}
	if got := arn(e.call("DescribeStreamSummary", in, "Authorization", "AWS4-HMAC-SHA256 Credential=A/1/<evil>/kinesis/x")); got != "arn:aws:kinesis:us-east-1:123456789012:stream/s" {
		t.Error(got)
	}
	r := e.request("Kinesis_20131202.DescribeStreamSummary", typeJSON, []byte(`{"StreamName":"s"}`))
	r.URL.RawQuery = "X-Amz-Credential=AKID%2F20261124%2Fap-south-1%2Fkinesis%2Faws4_request"
	if got := arn(e.do(r)); got != "arn:aws:kinesis:ap-south-1:123456789012:stream/s" {
		t.Error(got)
	}
}

func TestOwnPaths(t *testing.T) {
	e := newEnv(t)
	get := func(path string) int {
		r := e.request("", "", nil)
		r.Method, r.URL.Path = http.MethodGet, path
		return e.do(r).status
	}
	if err := e.g.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/_shardstream/healthz": 200, "/_shardstream/readyz": 200, "/_shardstream/other": 404,
		"/healthz": 403, "/_shardstream": 403,
	} {
		if got := get(path); got != want {
			t.Errorf("%s: %d, not %d", path, got, want)
		}
	}
	// Any path is fine for a call.
	r := e.request("Kinesis_20131202.ListStreams", typeJSON, []byte("{}"))
	r.URL.Path = "/some/where"
	if a := e.do(r); a.status != 200 {
		t.Errorf("call at another path: %d", a.status)
	}
}

func TestNotReadyWithoutMetadata(t *testing.T) {
	e := newEnv(t, func(_ *Config, f *fakeBroker) { f.silentWatches = true })
	r := e.request("", "", nil)
	r.Method, r.URL.Path = http.MethodGet, "/_shardstream/readyz"
	if a := e.do(r); a.status != 503 {
		t.Errorf("readyz: %d", a.status)
	}
}
