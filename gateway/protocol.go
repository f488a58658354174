package gateway

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"shardstream/gateway/credentials"
	"shardstream/gateway/kinesis"
	"shardstream/gateway/sigv4"
	"shardstream/stream"
)

// What stands between HTTP and an operation: headers, the order of the checks,
// and the answers to requests that are no Kinesis calls.
//
// Behaviour: CORS, method, body and content type, parse, operation, signature and
// what the caller may do, types, constraints, semantics, in this order.

const (
	contentTypePlainJSON = "application/json"
	defaultRegion        = "us-east-1"

	exposedHeaders = "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date"
	preflightAge   = "172800"

	xmlAccessDenied = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n</AccessDeniedException>\n"
	xmlMissingToken = "<MissingAuthenticationTokenException>\n  <Message>Missing Authentication Token</Message>\n</MissingAuthenticationTokenException>\n"
	xmlUnknown      = "<UnknownOperationException/>\n"

	coralSerialization = `{"Output":{"__type":"com.amazon.coral.service#SerializationException"},"Version":"1.0"}`
	coralUnknown       = `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}`
)

// headers are the header fields of a request.
type headers interface {
	Get(name string) string // by the canonical name
	sigv4.Fields
}

// call is one call of an operation.
type call struct {
	g        *Gateway
	parent   context.Context
	started  time.Time
	deadline time.Time
	op       kinesis.Op
	format   kinesis.Format
	body     []byte
	header   headers
	path     string                  // as sent
	query    string                  // of the URL, as sent
	id       [16]byte                // request id; puts carry it to the brokers
	who      *credentials.Credential // nil: nobody was asked

	// waiting is the context of the call's waits, nil until there is one: most
	// puts wait for nothing but their Append.
	waiting context.Context
	cancel  context.CancelFunc

	// streams says that the answer may be a stream of events; events is then what
	// a SubscribeToShard answers.
	streams bool
	events  *subscription

	out []byte // the answer's body; starts empty, may be replaced
	// held is what the answer takes of the budget.
	held int64
}

// ctx gives the context that ends with the call's time.
func (c *call) ctx() context.Context {
	if c.waiting == nil {
		c.waiting, c.cancel = context.WithDeadline(c.parent, c.deadline)
	}
	return c.waiting
}

// region gives the region that the client works in.
func (c *call) region() string { return regionOf(c.header, c.query) }

// reply is an answer as HTTP has it.
type reply struct {
	status      int
	contentType string // "" for none
	body        []byte
}

func (g *Gateway) serveKinesis(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	id := newRequestID()
	h := w.Header()
	setIDs(h, id)
	setCORS(h, r)

	if r.Method == http.MethodOptions && r.Header.Get("Origin") != "" {
		servePreflight(h, r)
		g.finish(w, r, reply{status: http.StatusOK})
		return
	}
	if r.Method != http.MethodPost {
		text := xmlMissingToken
		if isSigned(r) {
			text = xmlAccessDenied
		}
		g.finish(w, r, reply{status: http.StatusForbidden, body: []byte(text)})
		g.metrics.observe("none", "BadMethod", started)
		return
	}

	var b body
	defer g.releaseBody(&b)
	if err := g.readBody(r.Context(), httpBody{r.Body, http.NewResponseController(w)}, r.ContentLength, &b); err != nil {
		g.refuseBody(w, r, err, started)
		return
	}
	c := &call{g: g, parent: r.Context(), body: b.bytes, header: httpFields{r}, path: sentPath(r), query: r.URL.RawQuery, id: id, streams: true}
	defer c.release()
	answer := c.serve(started)
	if c.events == nil {
		g.finish(w, r, answer)
		return
	}
	defer c.events.close()
	if c.events.refusal == nil {
		c.events.metrics.begun.Inc()
	}
	g.releaseBody(&b) // it goes on for minutes
	putBuffer(c.out)
	c.body, c.out = nil, nil
	g.serveEvents(w, c.events)
}

// serve judges and runs a call whose body is here. The answer is the call's, and
// must be written before its release.
func (c *call) serve(started time.Time) reply {
	t := parseTarget(c.header.Get("X-Amz-Target"))
	format, answer := sortOut(c.header.Get("Content-Type"), t, c.body, c.authenticate)
	if answer.status != 0 {
		c.g.metrics.observe(t.label(), "BadRequest", started)
		return answer
	}
	c.op, c.format, c.out, c.started = t.op, format, getBuffer(0), started
	c.deadline = time.Now().Add(c.g.cfg.RequestTimeout)
	failure := c.run()
	code := "ok"
	answer = reply{status: http.StatusOK, contentType: format.ContentType()}
	if failure != nil {
		code = failure.Code
		answer.status = failure.Status
		c.out = failure.AppendBody(c.out[:0], format)
	}
	answer.body = c.out
	// Seen before it is written: a slow reader is not a slow operation.
	c.g.metrics.observe(string(t.op), code, started)
	return answer
}

// run runs the operation, if we know who calls. A panic in it is a fault of this
// one request.
func (c *call) run() (failure *kinesis.Error) {
	defer func() {
		if p := recover(); p != nil {
			c.g.log.Error("panic in an operation", "operation", c.op, "request", c.requestID(), "panic", p, "stack", string(debug.Stack()))
			failure = kinesis.InternalFailure()
		}
	}()
	if failure := c.authenticate(); failure != nil {
		if !isObject(c.format, c.body) {
			return kinesis.MalformedBody() // parsing comes first
		}
		return failure
	}
	return served[c.op](c)
}

func (c *call) requestID() string { return formatID(c.id) }

func (c *call) release() {
	if c.cancel != nil {
		c.cancel()
	}
	putBuffer(c.out)
	c.out = nil
	c.g.budget.release(c.held)
	c.held = 0
}

// reserve makes room for an answer of about n bytes, which large answers ask
// for before they are built.
func (c *call) reserve(n int) *kinesis.Error {
	if n <= cap(c.out) {
		return nil
	}
	b := getBuffer(n)
	need := min(int64(cap(b)), c.g.budget.size)
	if err := c.g.acquire(c.ctx, need); err != nil {
		putBuffer(b)
		return c.fail(err, subject{})
	}
	c.held += need
	putBuffer(c.out)
	c.out = b
	return nil
}

// refuseBody answers a request whose body could not be read.
func (g *Gateway) refuseBody(w http.ResponseWriter, r *http.Request, err error, started time.Time) {
	code := "BodyFailed"
	switch {
	case errors.Is(err, errBodyTooLarge):
		// As AWS: no body, no request id, no length.
		code = "BodyTooLarge"
		h := w.Header()
		for name := range h {
			h.Del(name)
			delete(h, name)
		}
		h["Content-Type"] = nil
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_ = http.NewResponseController(w).Flush() // makes it chunked
	case errors.Is(err, stream.Throttled):
		code = kinesis.CodeServiceUnavailable
		format := formatOf(mediaType(r.Header.Get("Content-Type")))
		e := busy()
		w.Header().Set("Connection", "close")
		g.finish(w, r, reply{e.Status, format.ContentType(), e.AppendBody(nil, format)})
	default:
		// Too slow or broken off: there is nobody to tell.
		g.metrics.observe("none", code, started)
		panic(http.ErrAbortHandler)
	}
	g.metrics.observe("none", code, started)
}

// finish writes an answer. The time it may take grows with its length, so that
// a reader who takes nothing in is cut off.
func (g *Gateway) finish(w http.ResponseWriter, r *http.Request, a reply) {
	h := w.Header()
	if a.contentType == "" {
		h["Content-Type"] = nil // keeps net/http from guessing one
	} else {
		h["Content-Type"] = []string{a.contentType}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(a.body))}
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(g.newPace().deadline(len(a.body)))
	w.WriteHeader(a.status)
	_, err := w.Write(a.body)
	if r.ProtoMajor < 2 {
		// The rest is written within the deadline, which ends with this
		// answer; an HTTP/2 stream's ends with the stream.
		if err == nil {
			err = rc.Flush()
		}
		_ = rc.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		g.log.Debug("answer not taken", "error", err)
	}
}

// sortOut judges what a request is before it is looked into: its format, or the
// answer to one that is no call. An answer with status 0 means: go on, with the
// caller not yet asked who it is.
func sortOut(contentType string, t target, b []byte, authenticate func() *kinesis.Error) (kinesis.Format, reply) {
	contentType = mediaType(contentType)
	if len(b) == 0 {
		// In CBOR, unless the request speaks the JSON of AWS.
		f := kinesis.CBOR
		if contentType == kinesis.JSON.ContentType() {
			f = kinesis.JSON
		}
		e := kinesis.UnknownOperation()
		if t.known {
			e = kinesis.MalformedBody()
		}
		return f, errorReply(e, f)
	}
	switch contentType {
	case kinesis.JSON.ContentType(), kinesis.CBOR.ContentType():
	case contentTypePlainJSON:
		if !isObject(kinesis.JSON, b) {
			return 0, reply{http.StatusBadRequest, contentTypePlainJSON, []byte(coralSerialization)}
		}
		return 0, reply{http.StatusNotFound, contentTypePlainJSON, []byte(coralUnknown)}
	default:
		if t.service == "" || t.operation == "" {
			return 0, reply{status: http.StatusForbidden, body: []byte(xmlAccessDenied)}
		}
		if failure := authenticate(); failure != nil {
			return 0, asXML(failure)
		}
		return 0, reply{status: http.StatusNotFound, body: []byte(xmlUnknown)}
	}
	f := formatOf(contentType)
	if t.known && served[t.op] != nil {
		return f, reply{} // the operation's own decoder judges the body
	}
	if !isObject(f, b) {
		return f, errorReply(kinesis.MalformedBody(), f)
	}
	return f, errorReply(kinesis.UnknownOperation(), f)
}

func errorReply(e *kinesis.Error, f kinesis.Format) reply {
	return reply{e.Status, f.ContentType(), e.AppendBody(nil, f)}
}

// isObject reports whether a body is a well-formed object: an operation without
// members takes any.
func isObject(f kinesis.Format, b []byte) bool {
	_, err := kinesis.Decode(kinesis.DescribeLimits, f, b)
	return err == nil
}

// mediaType gives a Content-Type without its parameters.
func mediaType(s string) string {
	s, _, _ = strings.Cut(s, ";")
	return strings.TrimSpace(s)
}

func formatOf(contentType string) kinesis.Format {
	if contentType == kinesis.CBOR.ContentType() {
		return kinesis.CBOR
	}
	return kinesis.JSON
}

// target is the X-Amz-Target header, split at the first dot.
type target struct {
	service, operation string
	op                 kinesis.Op
	known              bool // service and operation are of this API
}

func parseTarget(s string) target {
	var t target
	t.service, t.operation, _ = strings.Cut(s, ".")
	if t.service == kinesis.TargetPrefix {
		t.op, t.known = kinesis.LookupOp(t.operation)
	}
	return t
}

// label is the operation for metrics, of a bounded set.
func (t target) label() string {
	if t.known {
		return string(t.op)
	}
	return "none"
}

// isSigned reports whether a request claims to be signed.
func isSigned(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" || r.URL.Query().Has("X-Amz-Algorithm")
}

// regionOf gives the region of a request's credential scope,
// KEY/DATE/REGION/SERVICE/aws4_request.
func regionOf(h headers, query string) string {
	_, scope, ok := strings.Cut(h.Get("Authorization"), "Credential=")
	if ok {
		scope, _, _ = strings.Cut(scope, ",")
	} else if query != "" {
		values, _ := url.ParseQuery(query) // what can be read of it
		scope = values.Get("X-Amz-Credential")
	}
	parts := strings.SplitN(strings.TrimSpace(scope), "/", 4)
	if len(parts) < 4 || !isRegion(parts[2]) {
		return defaultRegion
	}
	return parts[2]
}

func isRegion(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// newRequestID gives a random UUID. The generator is seeded by the system for
// every process, so that ids of different gateways never meet.
func newRequestID() (id [16]byte) {
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// formatID gives an id in the form 8-4-4-4-12.
func formatID(id [16]byte) string { return string(appendID(nil, id)) }

func appendID(dst []byte, id [16]byte) []byte {
	var s [36]byte
	hex.Encode(s[0:8], id[0:4])
	hex.Encode(s[9:13], id[4:6])
	hex.Encode(s[14:18], id[6:8])
	hex.Encode(s[19:23], id[8:10])
	hex.Encode(s[24:], id[10:])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return append(dst, s[:]...)
}

// parseID reads an id in the form 8-4-4-4-12, any case.
func parseID(s string) (id [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return [16]byte{}, false
	}
	return id, true
}

// setIDs sets the two ids that every answer carries, in AWS's spelling.
func setIDs(h http.Header, id [16]byte) {
	h["x-amzn-RequestId"] = []string{formatID(id)}
	h["x-amz-id-2"] = []string{string(appendExtendedID(nil))}
}

// appendExtendedID appends a new x-amz-id-2.
func appendExtendedID(dst []byte) []byte {
	var extended [72]byte
	for i := 0; i < len(extended); i += 8 {
		binary.LittleEndian.PutUint64(extended[i:], rand.Uint64())
	}
	return base64.StdEncoding.AppendEncode(dst, extended[:])
}

func setCORS(h http.Header, r *http.Request) {
	if r.Header.Get("Origin") == "" {
		return
	}
	h.Set("Access-Control-Allow-Origin", "*")
	if r.Method != http.MethodOptions {
		h.Set("Access-Control-Expose-Headers", exposedHeaders)
	}
}

// servePreflight sets the headers that answer a browser's question.
func servePreflight(h http.Header, r *http.Request) {
	delete(h, "x-amz-id-2")
	if v := r.Header.Get("Access-Control-Request-Headers"); v != "" {
		h.Set("Access-Control-Allow-Headers", v)
	}
	if v := r.Header.Get("Access-Control-Request-Method"); v != "" {
		h.Set("Access-Control-Allow-Methods", v)
	}
	h.Set("Access-Control-Max-Age", preflightAge)
}
