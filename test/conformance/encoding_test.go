package conformance

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Sections 1.3 and 1.4: what is of one of the two forms only.

var jsonRows = []row{
	{"1.3 JSON/blob", func(c *caller) {
		c.create(1)
		at := c.iterator("0", "TRIM_HORIZON")
		body := c.text(`{"StreamName":"<S>","PartitionKey":"k","Data":"%s"}`)
		for _, good := range []string{"", "AA==", "AAE=", "AAEC", "-_AA"} {
			a := c.callRaw("PutRecord", fmt.Appendf(nil, body, good))
			if good == "-_AA" { // not the standard's alphabet
				c.refusal(good, a, serialization, "'-_AA' can not be converted to a Blob: Invalid Base64 character: '-'")
			} else if a.status != http.StatusOK {
				c.Errorf("%q: %d %s", good, a.status, a.raw)
			}
		}
		for i, want := range []string{"", "AA==", "AAE=", "AAEC"} {
			if got := c.read(at)["Records"].(list)[i].(m)["Data"]; got != want {
				c.Errorf("%q came back as %v", want, got)
			}
		}
	}},
	{"1.3 JSON/timestamp in", func(c *caller) {
		c.create(1)
		body := c.text(`{"StreamName":"<S>","ShardId":"0","ShardIteratorType":"AT_TIMESTAMP","Timestamp":%s}`)
		for _, good := range []string{"1459799926.480", "1459799926", "1.459799926480E9", "0"} {
			if a := c.callRaw("GetShardIterator", fmt.Appendf(nil, body, good)); a.status != http.StatusOK {
				c.Errorf("%s: %d %s", good, a.status, a.raw)
			}
		}
		c.refusal("a string", c.callRaw("GetShardIterator", fmt.Appendf(nil, body, `"2016-04-04T19:58:46.480Z"`)), serialization,
			"class java.lang.String can not be converted to milliseconds since epoch")
	}},
	{"1.3 JSON/timestamp out", timesOut},
	{"1.3 JSON/white space and escapes", func(c *caller) {
		c.create(1)
		body := c.text("\t{ \"StreamName\" : \"<S>\",\r\n\"Partition\\u004bey\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\ude00\", \"Data\":\"+\\/+\\u002f\" }\n")
		if a := c.callRaw("PutRecord", []byte(body)); a.status != http.StatusOK {
			c.Fatalf("%d %s", a.status, a.raw)
		}
		c.gives("GetRecords", m{"ShardIterator": c.iterator("0", "TRIM_HORIZON")}, some{"Records": list{
			some{"PartitionKey": "\"\\/\b\f\n\r\té\U0001f600", "Data": []byte{0xfb, 0xff, 0xbf}},
		}})
	}},
	{"1.3 JSON/malformed", func(c *caller) {
		for _, bad := range []string{
			`{"a":1,}`, `{"a" 1}`, `{a:1}`, `{"a":01}`, `{"a":1.}`, `{"a":1e}`, `{"a":.5}`, `{"a":+1}`, `{"a":"x}`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\ud800"}`,
			`{"a":"\ud800\u0041"}`, "{\"a\":\"\n\"}", "{\"a\":\"\xff\"}", `{"a":tru}`, `{"a":[1}`, `{}{}`, `{} x`, `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
		} {
			for _, op := range []string{"DescribeLimits", "PutRecord"} {
				a := c.callRaw(op, []byte(bad))
				if a.status != http.StatusBadRequest || len(a.body) != 1 || a.body["__type"] != serialization {
					c.Errorf("%s %q: %d %s", op, bad, a.status, a.raw)
				}
			}
		}
	}},
}

var cborRows = []row{
	{"1.4 CBOR/timestamp", timesOut},
	{"1.4 CBOR/numbers", func(c *caller) {
		c.create(3)
		limit := func(n ...byte) []byte {
			return slices.Concat([]byte{0xa2}, encodeCBOR("StreamName"), encodeCBOR(c.s), encodeCBOR("Limit"), n)
		}
		for what, n := range map[string][]byte{
			"a half float": {0xf9, 0x40, 0x80}, "a float": {0xfa, 0x40, 0x10, 0, 0}, "a double": {0xfb, 0x40, 0x02, 0, 0, 0, 0, 0, 0}, "a big number": {0xc2, 0x42, 0, 2},
		} {
			a := c.callRaw("DescribeStream", limit(n...))
			if a.status != http.StatusOK {
				c.Errorf("%s: %d %q", what, a.status, a.raw)
				continue
			}
			c.is(2, a.body["StreamDescription"].(m))
		}
		for shown, n := range map[string][]byte{
			"2147483647' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000": {0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0},
			"-2147483648' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1": {0xc3, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0},
			"0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1":           {0xf9, 0x7e, 0},
			"-1' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1":          {0xf9, 0x80, 1},
		} {
			c.refusal(shown, c.callRaw("DescribeStream", limit(n...)), validation, "1 validation error detected: Value '"+shown)
		}
	}},
	{"1.4 CBOR/malformed", func(c *caller) {
		for _, bad := range []string{
			"", "\xa1", "\xa1\x61a", "\xa1\x01\x01", "\xbf\x61a\x01", "\xa1\x61a\x62a", "\xa1\x61a\x61\xff", "\xa1\x61a\x7f\x41a\xff", "\xa1\x61a\x1c", "\xa0\xa0", "\xff",
			"\xa1\x61a" + strings.Repeat("\x81", 100) + "\x01",
		} {
			for _, op := range []string{"DescribeLimits", "PutRecord"} {
				a := c.callRaw(op, []byte(bad))
				if a.status != http.StatusBadRequest || len(a.body) != 1 || a.body["__type"] != serialization {
					c.Errorf("%s %x: %d %q", op, bad, a.status, a.raw)
				}
			}
		}
	}},
	{"1.4 CBOR/accepted forms", func(c *caller) {
		c.create(1)
		name := c.s
		text := func(s string) []byte { return appendCBOR(nil, s) }
		chunked := func(major byte, parts ...string) []byte {
			b := []byte{major<<5 | 31}
			for _, p := range parts {
				b = append(appendHead(b, major, uint64(len(p))), p...)
			}
			return append(b, 0xff)
		}
		join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
		key, data, part := text("StreamName"), text("Data"), text("PartitionKey")
		for what, body := range map[string][]byte{
			"a map of definite length":   join([]byte{0xa3}, key, text(name), data, []byte{0x41, 'x'}, part, text("k")),
			"a map of indefinite length": join([]byte{0xbf}, key, text(name), data, []byte{0x41, 'x'}, part, text("k"), []byte{0xff}),
			"lengths that are too wide":  join([]byte{0xb8, 3}, key, []byte{0x7a, 0, 0, 0, byte(len(name))}, []byte(name), data, []byte{0x59, 0, 1, 'x'}, part, text("k")),
			"strings in chunks":          join([]byte{0xbf}, chunked(3, "Stream", "Name"), chunked(3, name[:1], name[1:]), data, chunked(2, "x", ""), part, chunked(3, "k"), []byte{0xff}),
			"null and undefined":         join([]byte{0xbf}, key, text(name), data, []byte{0x41, 'x'}, part, text("k"), text("ExplicitHashKey"), []byte{0xf6}, text("StreamARN"), []byte{0xf7, 0xff}),
		} {
			if a := c.callRaw("PutRecord", body); a.status != http.StatusOK {
				c.Errorf("%s: %d %x", what, a.status, a.raw)
			}
		}
		for what, n := range map[string][]byte{"in the head": {0x05}, "8 bits": {0x18, 5}, "16 bits": {0x19, 0, 5}, "32 bits": {0x1a, 0, 0, 0, 5}, "64 bits": {0x1b, 0, 0, 0, 0, 0, 0, 0, 5}} {
			if a := c.callRaw("ListStreams", join([]byte{0xa1}, text("Limit"), n)); a.status != http.StatusOK {
				c.Errorf("an integer %s: %d %x", what, a.status, a.raw)
			}
		}
		records := join([]byte{0xbf}, key, text(name), text("Records"), []byte{0x9f, 0xbf}, data, []byte{0x41, 'y'}, part, text("k"), []byte{0xff, 0xff, 0xff})
		if a := c.callRaw("PutRecords", records); a.status != http.StatusOK {
			c.Errorf("an array of indefinite length: %d %x", a.status, a.raw)
		}
		c.want("all records", "x x x x x y", c.data(c.read(c.iterator("0", "TRIM_HORIZON"))))
	}},
	{"1.4 CBOR/empty input", func(c *caller) {
		if a := c.callRaw("DescribeLimits", []byte{0xbf, 0xff}); a.status != http.StatusOK {
			c.Errorf("%d %x", a.status, a.raw)
		}
	}},
}

// timesOut holds the form of times in answers; the decoder holds CBOR's.
func timesOut(c *caller) {
	before := moment(time.Now().UnixMilli())
	c.create(1)
	created, ok := instant(c.summary()["StreamCreationTimestamp"])
	if !ok || created/1000 < before/1000 || created > moment(time.Now().UnixMilli()) {
		c.Errorf("created at %v, asked for at %v", created, before)
	}
	before = moment(time.Now().UnixMilli())
	c.put("k", "data")
	record := c.read(c.iterator("0", "TRIM_HORIZON"))["Records"].(list)[0].(m)
	if came, ok := instant(record["ApproximateArrivalTimestamp"]); !ok || came < before || came > moment(time.Now().UnixMilli()) {
		c.Errorf("came at %v, put at %v", record["ApproximateArrivalTimestamp"], before)
	}
}
