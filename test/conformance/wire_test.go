package conformance

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Section 1: requests, answers, encodings, and requests that are no calls.

const (
	deniedXML  = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n</AccessDeniedException>\n"
	missingXML = "<MissingAuthenticationTokenException>\n  <Message>Missing Authentication Token</Message>\n</MissingAuthenticationTokenException>\n"
	unknownXML = "<UnknownOperationException/>\n"

	coralSerialization = `{"Output":{"__type":"com.amazon.coral.service#SerializationException"},"Version":"1.0"}`
	coralUnknown       = `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}`

	signature = "AWS4-HMAC-SHA256 Credential=AKID/20261124/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00"

	known   = target + "ListStreams"
	unknown = target + "NoSuchOperation"
)

// malformed is a request that is no call, and its whole answer. Of want a class
// is an error without message in the form of the content type.
type malformed struct {
	name             string
	method           string // "" for POST
	target, ct, body string
	signed           bool
	status           int
	wantType, want   string
}

var malformedRequests = []malformed{
	{name: "not POST, signed", method: "GET", signed: true, status: 403, want: deniedXML},
	{name: "not POST, signed", method: "PUT", signed: true, target: known, ct: inJSON.contentType, body: "{}", status: 403, want: deniedXML},
	{name: "not POST, signed", method: "DELETE", signed: true, status: 403, want: deniedXML},
	{name: "not POST, unsigned", method: "GET", status: 403, want: missingXML},
	{name: "not POST, unsigned", method: "PUT", target: known, ct: inJSON.contentType, body: "{}", status: 403, want: missingXML},
	{name: "OPTIONS without Origin", method: "OPTIONS", signed: true, status: 403, want: deniedXML},
	{name: "OPTIONS without Origin", method: "OPTIONS", status: 403, want: missingXML},

	{name: "empty body, unknown target", status: 400, wantType: inCBOR.contentType, want: unknownOp},
	{name: "empty body, unknown target", ct: inJSON.contentType, status: 400, wantType: inJSON.contentType, want: unknownOp},
	{name: "empty body, unknown target", ct: "application/json", status: 400, wantType: inCBOR.contentType, want: unknownOp},
	{name: "empty body, unknown target", target: unknown, ct: "text/plain", status: 400, wantType: inCBOR.contentType, want: unknownOp},
	{name: "empty body, unknown target", target: unknown, ct: inCBOR.contentType, status: 400, wantType: inCBOR.contentType, want: unknownOp},
	{name: "empty body, known target", target: known, status: 400, wantType: inCBOR.contentType, want: serialization},
	{name: "empty body, known target", target: known, ct: inJSON.contentType, status: 400, wantType: inJSON.contentType, want: serialization},
	{name: "empty body, known target", target: known, ct: "application/json", status: 400, wantType: inCBOR.contentType, want: serialization},

	{name: "unknown content type, target lacks a part", ct: "text/plain", body: "{}", status: 403, want: deniedXML},
	{name: "unknown content type, target lacks a part", target: "Kinesis_20131202", body: "{}", status: 403, want: deniedXML},
	{name: "unknown content type, target lacks a part", target: "Kinesis_20131202.", ct: "text/plain", body: "{}", status: 403, want: deniedXML},
	{name: "unknown content type, target lacks a part", target: ".ListStreams", ct: "text/plain", body: "{}", status: 403, want: deniedXML},
	{name: "unknown content type, else", target: known, ct: "text/plain", body: "{}", status: 404, want: unknownXML},
	{name: "unknown content type, else", target: known, body: "{}", status: 404, want: unknownXML},
	{name: "unknown content type, else", target: "a.b", ct: "application/x-amz-json-1.0", body: "x", status: 404, want: unknownXML},

	{name: "body not an object", target: known, ct: inJSON.contentType, body: "hello", status: 400, wantType: inJSON.contentType, want: serialization},
	{name: "body not an object", target: known, ct: inJSON.contentType, body: "true", status: 400, wantType: inJSON.contentType, want: serialization},
	{name: "body not an object", target: known, ct: inJSON.contentType, body: "null", status: 400, wantType: inJSON.contentType, want: serialization},
	{name: "body not an object", target: known, ct: inJSON.contentType, body: "[]", status: 400, wantType: inJSON.contentType, want: serialization},
	{name: "body not an object", target: known, ct: inJSON.contentType, body: `{"Limit":1`, status: 400, wantType: inJSON.contentType, want: serialization},
	{name: "body not an object", target: unknown, ct: inJSON.contentType, body: "hello", status: 400, wantType: inJSON.contentType, want: serialization},
	{name: "body not an object", target: known, ct: inCBOR.contentType, body: "\xf5", status: 400, wantType: inCBOR.contentType, want: serialization},
	{name: "body not an object", target: known, ct: inCBOR.contentType, body: "\xf6", status: 400, wantType: inCBOR.contentType, want: serialization},
	{name: "body not an object", target: known, ct: inCBOR.contentType, body: "\xbf", status: 400, wantType: inCBOR.contentType, want: serialization},
	{name: "body not an object", target: target + "PutRecords", ct: inCBOR.contentType, body: "{}", status: 400, wantType: inCBOR.contentType, want: serialization},

	{name: "unknown operation", target: unknown, ct: inJSON.contentType, body: "{}", status: 400, wantType: inJSON.contentType, want: unknownOp},
	{name: "unknown operation", target: target + "listStreams", ct: inJSON.contentType, body: "{}", status: 400, wantType: inJSON.contentType, want: unknownOp},
	{name: "unknown operation", target: "DynamoDB_20120810.ListTables", ct: inJSON.contentType, body: "{}", status: 400, wantType: inJSON.contentType, want: unknownOp},
	{name: "unknown operation", ct: inJSON.contentType, body: "{}", status: 400, wantType: inJSON.contentType, want: unknownOp},
	{name: "unknown operation", target: unknown, ct: inCBOR.contentType, body: "\xbf\xff", status: 400, wantType: inCBOR.contentType, want: unknownOp},
	{name: "unknown operation", target: known + ".x", ct: inCBOR.contentType, body: "\xbf\xff", status: 400, wantType: inCBOR.contentType, want: unknownOp},

	{name: "application/json, bad body", target: known, ct: "application/json", body: "hello", status: 400, wantType: "application/json", want: coralSerialization},
	{name: "application/json, bad body", target: known, ct: "application/json", body: "null", status: 400, wantType: "application/json", want: coralSerialization},
	{name: "application/json, good body", target: known, ct: "application/json", body: "{}", status: 404, wantType: "application/json", want: coralUnknown},
	{name: "application/json, good body", target: unknown, ct: "application/json; charset=utf-8", body: "{}", status: 404, wantType: "application/json", want: coralUnknown},
}

func malformedRows() (rows []row) {
	numbers := map[string]int{}
	for _, r := range malformedRequests {
		numbers[r.name]++
		rows = append(rows, row{fmt.Sprintf("1.5 malformed/%s: %d", r.name, numbers[r.name]), func(c *caller) {
			method, headers := r.method, []string(nil)
			if method == "" {
				method = http.MethodPost
			}
			if r.signed {
				headers = []string{"Authorization", signature}
			}
			a := c.send(method, r.target, r.ct, []byte(r.body), headers...)
			c.wantHeaders(a, r.wantType)
			want := r.want
			if want == unknownOp || want == serialization {
				want = string(inJSON.encode(m{"__type": r.want}))
				if r.wantType == inCBOR.contentType {
					body, err := decodeCBOR(a.raw)
					if err != nil {
						c.Fatalf("%q: %v", a.raw, err)
					}
					want = string(a.raw)
					c.want("CBOR", m{"__type": r.want}, body)
				}
			}
			if a.status != r.status || string(a.raw) != want {
				c.Errorf("%d %q, not %d %q", a.status, a.raw, r.status, want)
			}
		}})
	}
	return rows
}

const exposedHeaders = "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date"

var wireRows = []row{
	{"1.1 request/path is ignored", func(c *caller) {
		r, err := http.NewRequestWithContext(c.Context(), http.MethodPost, c.url+"/any/path?x=y", bytes.NewReader(c.format.encode(m{})))
		if err != nil {
			c.Fatal(err)
		}
		r.Header.Set("Content-Type", c.format.contentType)
		r.Header.Set("X-Amz-Target", target+"DescribeLimits")
		if a := c.do(r); a.status != http.StatusOK {
			c.Errorf("%d %s", a.status, a.raw)
		}
	}},
	{"1.1 request/content type with parameters and blanks", func(c *caller) {
		for _, ct := range []string{c.format.contentType + ";charset=utf-8", " " + c.format.contentType + " ; x=y "} {
			a := c.send(http.MethodPost, target+"DescribeLimits", ct, c.format.encode(m{}))
			if c.wantHeaders(a, c.format.contentType); a.status != http.StatusOK {
				c.Errorf("%q: %d %s", ct, a.status, a.raw)
			}
		}
	}},
	{"1.1 request/bodies in chunks and after 100-continue", func(c *caller) {
		for _, expect := range []string{"", "100-continue"} {
			for _, body := range [][]byte{c.format.encode(m{}), c.format.encode(m{"Unknown": strings.Repeat("x", 100_000)})} {
				for _, length := range []int64{int64(len(body)), -1} {
					r, err := http.NewRequestWithContext(c.Context(), http.MethodPost, c.url, io.NopCloser(bytes.NewReader(body)))
					if err != nil {
						c.Fatal(err)
					}
					r.ContentLength = length
					r.Header.Set("Content-Type", c.format.contentType)
					r.Header.Set("X-Amz-Target", target+"DescribeLimits")
					if expect != "" {
						r.Header.Set("Expect", expect)
					}
					if a := c.do(r); a.status != http.StatusOK {
						c.Errorf("%q, %d of %d bytes: %d %s", expect, length, len(body), a.status, a.raw)
					}
				}
			}
		}
	}},
	{"1.1 request/unknown and null members are absent", func(c *caller) {
		c.create(1)
		c.is(1, c.ok("ListShards", m{
			"StreamName": "<S>", "NextToken": nil, "ShardFilter": nil, "MaxResults": nil, "StreamARN": nil, "StreamId": nil,
			"ExclusiveStartShardId": nil, "StreamCreationTimestamp": nil, "NoSuchMember": m{"a": list{1, "x", nil, m{}}},
		}))
		c.refused("DescribeStream", m{"StreamName": nil, "Unknown": "x"}, validation,
			"1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null")
	}},
	{"1.2 headers/of answers and errors", func(c *caller) {
		// callRaw holds the headers of every answer; here ids differ between calls.
		a, b := c.call("DescribeLimits", m{}), c.call("DescribeStream", m{"StreamName": "<S>"})
		if a.header.Get("x-amzn-RequestId") == b.header.Get("x-amzn-RequestId") || a.header.Get("x-amz-id-2") == b.header.Get("x-amz-id-2") {
			c.Error("two answers with one id")
		}
		if got := b.header.Get("x-amzn-ErrorType"); got != "" && got != notFound {
			c.Errorf("x-amzn-ErrorType %q", got)
		}
	}},
	{"1.2 headers/operations without output have no body", func(c *caller) {
		c.create(1) // holds it for CreateStream
		c.empty("AddTagsToStream", m{"StreamName": "<S>", "Tags": m{"a": "b"}})
		c.empty("DeleteStream", m{"StreamName": "<S>"})
	}},
	{"1.4 CBOR/blob", func(c *caller) {
		c.create(1)
		data := string([]byte{0, 1, 2, 0xff})
		c.put("k", data)
		if got := c.data(c.read(c.iterator("0", "TRIM_HORIZON"))); got != data {
			c.Errorf("%q", got)
		}
	}},
	{"1.4 CBOR/errors", func(c *caller) {
		c.refused("DescribeStream", m{"StreamName": "<S>"}, notFound, "Stream <S> under account <A> not found.")
	}},
	{"1.5 malformed/CORS", func(c *caller) {
		headers := []string{"Origin", "http://page", "Access-Control-Request-Headers", "a, b", "Access-Control-Request-Method", "PUT"}
		a := c.send(http.MethodOptions, "", "", nil, headers...)
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "a, b", "Access-Control-Allow-Methods": "PUT",
			"Access-Control-Max-Age": "172800", "Content-Length": "0", "Content-Type": "", "x-amz-id-2": "", "Access-Control-Expose-Headers": "",
		} {
			if got := a.header.Get(name); got != want || a.status != http.StatusOK {
				c.Errorf("preflight: %d, %s %q, not %q", a.status, name, got, want)
			}
		}
		if !requestID.MatchString(a.header.Get("x-amzn-RequestId")) {
			c.Errorf("preflight: id %q", a.header.Get("x-amzn-RequestId"))
		}
		a = c.send(http.MethodOptions, "", "", nil, "Origin", "http://page")
		if a.header.Get("Access-Control-Allow-Headers") != "" || a.header.Get("Access-Control-Allow-Methods") != "" {
			c.Errorf("preflight allows what was not asked for: %v", a.header)
		}
		for what, a := range map[string]answer{
			"a call":   c.send(http.MethodPost, known, c.format.contentType, c.format.encode(m{}), "Origin", "http://page"),
			"an error": c.send(http.MethodGet, "", "", nil, "Origin", "http://page"),
		} {
			if a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Access-Control-Expose-Headers") != exposedHeaders {
				c.Errorf("%s: %v", what, a.header)
			}
		}
		if a := c.call("ListStreams", m{}); a.header.Get("Access-Control-Allow-Origin") != "" {
			c.Errorf("without Origin: %v", a.header)
		}
	}},
	{"1.5 malformed/HEAD", func(c *caller) {
		if a := c.send(http.MethodHead, "", "", nil); a.status != http.StatusForbidden || len(a.raw) != 0 {
			c.Errorf("%d %q", a.status, a.raw)
		}
	}},
	{"1.5 malformed/body too large", func(c *caller) {
		size := int64(16<<20 + 1)
		r, err := http.NewRequestWithContext(c.Context(), http.MethodPost, c.url, io.LimitReader(endless{}, size))
		if err != nil {
			c.Fatal(err)
		}
		r.ContentLength = size
		r.Header.Set("X-Amz-Target", known)
		r.Header.Set("Content-Type", c.format.contentType)
		resp, err := c.http.Do(r)
		if err != nil {
			c.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || len(body) != 0 {
			c.Errorf("%d %q, %v", resp.StatusCode, body, err)
		}
		if resp.Header.Get("x-amzn-RequestId") != "" || resp.ContentLength != -1 {
			c.Errorf("%v, length %d", resp.Header, resp.ContentLength)
		}
	}},
	{"1.5 malformed/large bodies that are allowed", func(c *caller) {
		// A put of a record of 10 MiB comes as some 14 MiB of JSON.
		body := c.format.encode(m{"Unknown": strings.Repeat("x", 14<<20)})
		if a := c.callRaw("DescribeLimits", body); a.status != http.StatusOK {
			c.Errorf("%d %s", a.status, a.raw)
		}
	}},
	{"1.8 status/500 InternalFailure without a message", func(c *caller) {
		c.create(1)
		a := c.call("GetShardIterator", m{"StreamName": "<S>", "ShardId": "0", "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "0"})
		if a.status != http.StatusInternalServerError {
			c.Errorf("status %d", a.status)
		}
		c.want("body", m{"__type": "InternalFailure"}, a.body)
	}},
	{"1.10 StreamId/taken and ignored, never given", func(c *caller) {
		c.create(1)
		id := "abcdefghijklmnopqrst-abc"
		c.ok("DescribeStream", m{"StreamName": "<S>", "StreamId": id})
		if got, there := c.ok("DescribeStreamSummary", m{"StreamName": "<S>", "StreamId": id})["StreamDescriptionSummary"].(m)["StreamId"]; there {
			c.Errorf("StreamId %v", got)
		}
		c.refused("DescribeStream", m{"StreamName": "<S>", "StreamId": "x"}, validation,
			"1 validation error detected: Value 'x' at 'streamId' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-z0-9]{20}-[a-z0-9]{3}")
	}},
}

// endless is a body of blanks.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// is holds the number of shards of an answer.
func (c *caller) is(shards int, out m) {
	c.Helper()
	if got := len(out["Shards"].(list)); got != shards {
		c.Errorf("%d shards, not %d", got, shards)
	}
}
