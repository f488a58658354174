package conformance

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The exception classes of the service.
const (
	invalidArgument = "InvalidArgumentException"
	limitExceeded   = "LimitExceededException"
	resourceInUse   = "ResourceInUseException"
	notFound        = "ResourceNotFoundException"
	validation      = "ValidationException"
	serialization   = "SerializationException"
	unknownOp       = "UnknownOperationException"
	expiredIterator = "ExpiredIteratorException"
	expiredToken    = "ExpiredNextTokenException"
)

const (
	accountID = "000000000000"
	region    = "us-east-1"
	target    = "Kinesis_20131202."
)

// caller is a client for one run of one row.
type caller struct {
	*testing.T
	node   *node
	way    string
	format *format
	http   *http.Client
	url    string
	s      string                                   // the row's stream
	sign   func(r *http.Request, body []byte) error // nil: requests are not signed

	impatient bool // on a patient node: takes a refusal for what it is
}

// way is how a row's calls travel.
type way struct {
	name   string // in names of streams too
	format *format
	http   *http.Client
}

// ways are those of the CLI and of the Java SDKs, and in the long form the other
// two: JSON over HTTP/2 as of the JavaScript SDK, CBOR over HTTP/1.1 as of Java's
// first.
var ways = func() []way {
	over1, over2 := newClient(false), newClient(true)
	all := []way{{"JSON", inJSON, over1}, {"CBOR", inCBOR, over2}}
	if os.Getenv("SHARDSTREAM_LONG") != "" {
		all = append(all, way{"JSON-HTTP2", inJSON, over2}, way{"CBOR-HTTP1", inCBOR, over1})
	}
	return all
}()

func newClient(h2c bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), MaxIdleConnsPerHost: 8, DisableCompression: true}
	tr.Protocols.SetHTTP1(!h2c)
	tr.Protocols.SetUnencryptedHTTP2(h2c)
	return &http.Client{Transport: tr}
}

func newCaller(t *testing.T, n *node, w way, stream string) *caller {
	t.Helper()
	c := &caller{T: t, node: n, way: w.name, format: w.format, http: w.http, url: n.url(t), s: stream}
	if n == guarded {
		c.sign = admin().sign
	}
	return c
}

// text puts the row's names into a text.
func (c *caller) text(s string) string {
	if !strings.Contains(s, "<") {
		return s
	}
	return strings.NewReplacer("<S>", c.s, "<A>", accountID, "<R>", region, "<ARN>", c.arn(c.s)).Replace(s)
}

func (c *caller) arn(stream string) string {
	return "arn:aws:kinesis:" + region + ":" + accountID + ":stream/" + stream
}

// fill puts the row's names into all strings of a value.
func (c *caller) fill(v any) any {
	switch v := v.(type) {
	case string:
		return c.text(v)
	case m:
		filled := m{}
		for key, value := range v {
			filled[key] = c.fill(value)
		}
		return filled
	case some:
		return some(c.fill(m(v)).(m))
	case list:
		filled := make(list, len(v))
		for i := range v {
			filled[i] = c.fill(v[i])
		}
		return filled
	}
	return v
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   m // of answers in the call's format; nil if empty
}

// send makes a request with any body and headers ("Name", "value", ...), and
// holds its answer against what all answers have in common.
func (c *caller) send(method, target, contentType string, body []byte, headers ...string) answer {
	c.Helper()
	r, err := http.NewRequestWithContext(c.Context(), method, c.url+"/", bytes.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	if target != "" {
		r.Header.Set("X-Amz-Target", target)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if c.sign != nil {
		if err := c.sign(r, body); err != nil {
			c.Fatal(err)
		}
	}
	return c.do(r)
}

func (c *caller) do(r *http.Request) answer {
	c.Helper()
	resp, err := c.http.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	return answer{status: resp.StatusCode, header: resp.Header, raw: raw}
}

var requestID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// wantHeaders holds an answer's headers against those that all answers have.
func (c *caller) wantHeaders(a answer, contentType string) {
	c.Helper()
	if id := a.header.Get("x-amzn-RequestId"); !requestID.MatchString(id) {
		c.Errorf("x-amzn-RequestId %q", id)
	}
	if id, err := base64.StdEncoding.DecodeString(a.header.Get("x-amz-id-2")); err != nil || len(id) < 64 || len(id) > 80 {
		c.Errorf("x-amz-id-2 %q", a.header.Get("x-amz-id-2"))
	}
	if got := a.header.Values("Content-Type"); contentType == "" && len(got) > 0 || contentType != "" && (len(got) != 1 || got[0] != contentType) {
		c.Errorf("Content-Type %q, not %q", got, contentType)
	}
	if got := a.header.Get("Content-Length"); got != strconv.Itoa(len(a.raw)) {
		c.Errorf("Content-Length %q of %d bytes", got, len(a.raw))
	}
	if _, err := http.ParseTime(a.header.Get("Date")); err != nil {
		c.Errorf("Date: %v", err)
	}
	if got, there := a.header["Connection"]; there {
		c.Errorf("Connection: %q", got)
	}
}

// call calls an operation.
func (c *caller) call(op string, in m) answer {
	c.Helper()
	body := c.format.encode(c.fill(in))
	a := c.callRaw(op, body)
	if c.node.patient && !c.impatient && tooFast(a) {
		c.eventually(func() error {
			if a = c.callRaw(op, body); tooFast(a) {
				return fmt.Errorf("%s: %s", op, a.raw)
			}
			return nil
		})
	}
	return a
}

// callRaw calls an operation with a body as it is.
func (c *caller) callRaw(op string, body []byte) answer {
	c.Helper()
	a := c.send(http.MethodPost, target+op, c.format.contentType, body)
	c.wantHeaders(a, c.format.contentType)
	if len(a.raw) > 0 {
		var err error
		if a.body, err = c.format.decode(a.raw); err != nil {
			c.Fatalf("%s answered %q: %v", op, a.raw, err)
		}
	}
	return a
}

// ok makes a call that must succeed with a body.
func (c *caller) ok(op string, in m) m {
	c.Helper()
	a := c.call(op, in)
	if a.status != http.StatusOK || a.body == nil {
		c.Fatalf("%s %v: %d %s", op, c.fill(in), a.status, a.raw)
	}
	return a.body
}

// gives makes a call that must give exactly these members.
func (c *caller) gives(op string, in m, want any) m {
	c.Helper()
	got := c.ok(op, in)
	c.want(op, c.fill(want), got)
	return got
}

// want holds a value of an answer against what is wanted.
func (c *caller) want(what string, want, got any) {
	c.Helper()
	for _, d := range differences(c.format, "", c.fill(want), got) {
		c.Errorf("%s %s", what, d)
	}
}

// empty makes a call that must succeed with nothing: no body, not even "{}".
func (c *caller) empty(op string, in m) {
	c.Helper()
	if a := c.call(op, in); a.status != http.StatusOK || len(a.raw) != 0 {
		c.Fatalf("%s %v: %d %q, not 200 and nothing", op, c.fill(in), a.status, a.raw)
	}
}

// refused makes a call that must fail with status 400, that class and exactly
// that message.
func (c *caller) refused(op string, in m, class, message string) {
	c.Helper()
	c.refusal(op, c.call(op, in), class, message)
}

func (c *caller) refusal(what string, a answer, class, message string) {
	c.Helper()
	want := m{"__type": class, "message": c.text(message)}
	if class == serialization {
		want = m{"__type": class, "Message": message}
	}
	if a.status != http.StatusBadRequest {
		c.Errorf("%s: status %d %s, not 400 %s", what, a.status, a.raw, class)
		return
	}
	c.want(what, want, a.body)
}

// refusedLike is refused with a pattern for the message, for texts that hold a
// time.
func (c *caller) refusedLike(op string, in m, class, pattern string) {
	c.Helper()
	a := c.call(op, in)
	if a.status != http.StatusBadRequest {
		c.Fatalf("%s: status %d %s, not 400 %s", op, a.status, a.raw, class)
	}
	c.want(op, m{"__type": class, "message": like(c.text(pattern))}, a.body)
}

// eventually calls check until it gives nil. For what the node does in its own
// time.
func (c *caller) eventually(check func() error) {
	c.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			c.Fatalf("not even after %s: %v", patience, err)
		}
	}
}

// create makes the row's stream with so many shards, and waits until it is
// ACTIVE. more are further members.
func (c *caller) create(shards int, more ...m) {
	c.Helper()
	in := m{"StreamName": "<S>", "ShardCount": shards}
	for _, more := range more {
		for key, value := range more {
			in[key] = value
		}
	}
	c.empty("CreateStream", in)
	c.active()
}

// active waits until the row's stream is ACTIVE.
func (c *caller) active() {
	c.Helper()
	c.eventually(func() error {
		if got := c.summary()["StreamStatus"]; got != "ACTIVE" {
			return fmt.Errorf("stream %s is %v", c.s, got)
		}
		return nil
	})
}

// gone waits until the row's stream is not there any more.
func (c *caller) gone() {
	c.Helper()
	c.eventually(func() error {
		if a := c.call("DescribeStreamSummary", m{"StreamName": "<S>"}); a.status == http.StatusOK {
			return fmt.Errorf("stream %s is still there: %s", c.s, a.raw)
		}
		return nil
	})
}

// summary gives the StreamDescriptionSummary of the row's stream.
func (c *caller) summary() m {
	c.Helper()
	return c.ok("DescribeStreamSummary", m{"StreamName": "<S>"})["StreamDescriptionSummary"].(m)
}

// shards gives the shards of the row's stream as ListShards shows them.
func (c *caller) shards() []m {
	c.Helper()
	var all []m
	for _, s := range c.ok("ListShards", m{"StreamName": "<S>"})["Shards"].(list) {
		all = append(all, s.(m))
	}
	return all
}

// put stores a record and gives its sequence number.
func (c *caller) put(key, data string, more ...m) string {
	c.Helper()
	in := m{"StreamName": "<S>", "PartitionKey": key, "Data": []byte(data)}
	for _, more := range more {
		for key, value := range more {
			in[key] = value
		}
	}
	return c.ok("PutRecord", in)["SequenceNumber"].(string)
}

// iterator gives an iterator of a shard of the row's stream.
func (c *caller) iterator(shard, kind string, more ...m) string {
	c.Helper()
	in := m{"StreamName": "<S>", "ShardId": shard, "ShardIteratorType": kind}
	for _, more := range more {
		for key, value := range more {
			in[key] = value
		}
	}
	return c.ok("GetShardIterator", in)["ShardIterator"].(string)
}

// read gives the answer of GetRecords.
func (c *caller) read(iterator string) m {
	c.Helper()
	return c.ok("GetRecords", m{"ShardIterator": iterator})
}

// data gives the data of the records of an answer, joined by blanks.
func (c *caller) data(out m) string {
	c.Helper()
	var all []string
	for _, r := range out["Records"].(list) {
		b, ok := blob(c.format, r.(m)["Data"])
		if !ok {
			c.Fatalf("record %v", r)
		}
		all = append(all, string(b))
	}
	return strings.Join(all, " ")
}

// shardID gives the id of a shard.
func shardID(n int) string { return fmt.Sprintf("shardId-%012d", n) }
