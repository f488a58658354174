package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/fxamacker/cbor/v2"

	"shardstream/gateway/credentials"
	"shardstream/gateway/sigv4"
)

const testKeys = `
keys:
  - {access-key: ADMIN, secret-key: s}
  - {access-key: SESSION, secret-key: s, session-token: token}
  - {access-key: OVER, secret-key: s, session-token: token, expires: 2026-11-24T07:00:00Z}
  - {access-key: WRITER, secret-key: s, user: writer, actions: [Put*, ListStreams], streams: [orders]}
  - {access-key: READER, secret-key: s, actions: ["kinesis:Get*", ListShards, DescribeStreamSummary], streams: ["arn:aws:kinesis:*:*:stream/orders"]}
  - {access-key: NOTHING, secret-key: s, user: "arn:aws:iam::123456789012:user/nothing", actions: []}
  - {access-key: OTHER, secret-key: s, user: "arn:aws:iam::222222222222:role/other"}
`

// newSignedEnv is a gateway that asks for signatures, and a client that signs as
// ADMIN.
func newSignedEnv(t testing.TB, change ...func(*Config, *fakeBroker)) *env {
	t.Helper()
	set, err := credentials.Parse([]byte(testKeys))
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t, append(change, func(c *Config, _ *fakeBroker) {
		c.Credentials = func() *credentials.Set { return set }
	})...)
	e.sign = e.signAs("ADMIN")
	return e
}

// as makes the same calls with another key.
func (e *env) as(accessKey string) *env {
	o := *e
	o.sign = e.signAs(accessKey)
	return &o
}

// signing is how a request is signed.
type signing struct {
	access, secret, token string
	at                    time.Time
	service, region       string
	query                 bool
}

func (e *env) signAs(accessKey string) func(*http.Request) {
	return func(r *http.Request) {
		e.signWith(r, signing{access: accessKey, secret: "s", at: e.clock.now(), service: "kinesis", region: "eu-west-1"})
	}
}

func (e *env) signWith(r *http.Request, s signing) {
	e.t.Helper()
	body := []byte{}
	if r.GetBody != nil {
		b, err := r.GetBody()
		if err == nil {
			body, err = io.ReadAll(b)
		}
		if err != nil {
			e.t.Fatal(err)
		}
	}
	sum := sha256.Sum256(body)
	keys := aws.Credentials{AccessKeyID: s.access, SecretAccessKey: s.secret, SessionToken: s.token}
	if !s.query {
		if err := v4.NewSigner().SignHTTP(e.t.Context(), keys, r, hex.EncodeToString(sum[:]), s.service, s.region, s.at); err != nil {
			e.t.Fatal(err)
		}
		return
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableHeaderHoisting = true })
	uri, _, err := signer.PresignHTTP(e.t.Context(), keys, r, hex.EncodeToString(sum[:]), s.service, s.region, s.at)
	if err != nil {
		e.t.Fatal(err)
	}
	signed, err := http.NewRequest(r.Method, uri, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	r.URL = signed.URL
}

// dropParameter takes a parameter out of a signed query.
func dropParameter(name string) func(*http.Request) {
	return func(r *http.Request) {
		q := r.URL.Query()
		q.Del(name)
		r.URL.RawQuery = q.Encode()
	}
}

// TestAuthentication is the table of authentication errors, row by row: in JSON
// and CBOR, over HTTP/1.1 below net/http, over HTTP/2, and as XML where the
// content type is not known.
func TestAuthentication(t *testing.T) {
	e := newSignedEnv(t)
	e.create("s", 1)
	now := e.clock.now()
	good := signing{access: "ADMIN", secret: "s", at: now, service: "kinesis", region: "eu-west-1"}
	with := func(change func(*signing)) signing {
		s := good
		change(&s)
		return s
	}
	inQuery := with(func(s *signing) { s.query = true })
	const incomplete, invalid, unknown = "IncompleteSignatureException", "InvalidSignatureException", "UnrecognizedClientException"
	const mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	header := func(h string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", h) }
	}
	for _, c := range []struct {
		name          string
		signed        signing
		change        func(*http.Request) // after it was signed
		code, message string              // code "" is let through
	}{
		{name: "in the header", signed: good},
		{name: "in the query", signed: inQuery},
		{name: "with a session token", signed: with(func(s *signing) { s.access, s.token = "SESSION", "token" })},
		{name: "with a session token in the query", signed: with(func(s *signing) { s.access, s.token, s.query = "SESSION", "token", true })},
		{name: "5 minutes ago", signed: with(func(s *signing) { s.at = now.Add(-5 * time.Minute) })},
		{name: "in 5 minutes", signed: with(func(s *signing) { s.at = now.Add(5 * time.Minute) })},

		{name: "nothing", change: func(r *http.Request) { r.Header.Del("Authorization") }, signed: good, code: "MissingAuthenticationTokenException", message: "Missing Authentication Token"},
		{
			name: "both", signed: good, change: func(r *http.Request) { r.URL.RawQuery = "X-Amz-Algorithm" }, code: invalid,
			message: "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
		},
		{
			name: "header of nothing", signed: good, code: incomplete,
			change: func(r *http.Request) { r.Header.Set("Authorization", "X"); r.Header.Del("X-Amz-Date") },
			message: "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. " +
				"Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=X",
		},
		{name: "header without Credential", signed: good, change: header("X SignedHeaders=a Signature=b"), code: incomplete, message: "Authorization header requires 'Credential' parameter. Authorization=X SignedHeaders=a Signature=b"},
		{name: "header without Signature", signed: good, change: header("X Credential=a,SignedHeaders=b"), code: incomplete, message: "Authorization header requires 'Signature' parameter. Authorization=X Credential=a,SignedHeaders=b"},
		{name: "header without SignedHeaders", signed: good, change: header("X Credential=a, Signature=b"), code: incomplete, message: "Authorization header requires 'SignedHeaders' parameter. Authorization=X Credential=a, Signature=b"},
		{
			name: "query with an empty algorithm alone", signed: good, code: incomplete,
			change: func(r *http.Request) { r.Header.Del("Authorization"); r.URL.RawQuery = "X-Amz-Algorithm=" },
			message: "AWS query-string parameters must include 'X-Amz-Algorithm'. AWS query-string parameters must include 'X-Amz-Credential'. AWS query-string parameters must include 'X-Amz-Signature'. " +
				"AWS query-string parameters must include 'X-Amz-SignedHeaders'. AWS query-string parameters must include 'X-Amz-Date'. Re-examine the query-string parameters.",
		},
		{name: "query without X-Amz-Credential", signed: inQuery, change: dropParameter("X-Amz-Credential"), code: incomplete, message: "AWS query-string parameters must include 'X-Amz-Credential'. Re-examine the query-string parameters."},
		{name: "query without X-Amz-Date", signed: inQuery, change: dropParameter("X-Amz-Date"), code: incomplete, message: "AWS query-string parameters must include 'X-Amz-Date'. Re-examine the query-string parameters."},
		{name: "query without its signature", signed: inQuery, change: dropParameter("X-Amz-Signature"), code: incomplete, message: "AWS query-string parameters must include 'X-Amz-Signature'. Re-examine the query-string parameters."},

		{name: "unknown key", signed: with(func(s *signing) { s.access = "NOBODY" }), code: unknown, message: "The security token included in the request is invalid."},
		{name: "bad session token", signed: with(func(s *signing) { s.access, s.token = "SESSION", "Token" }), code: unknown, message: "The security token included in the request is invalid."},
		{name: "no session token", signed: with(func(s *signing) { s.access = "SESSION" }), code: unknown, message: "The security token included in the request is invalid."},
		{name: "a session token too many", signed: with(func(s *signing) { s.token = "token" }), code: unknown, message: "The security token included in the request is invalid."},
		{name: "expired session token", signed: with(func(s *signing) { s.access, s.token = "OVER", "token" }), code: "ExpiredTokenException", message: "The security token included in the request is expired"},
		{
			name: "too old", signed: with(func(s *signing) { s.at = now.Add(-301 * time.Second) }), code: invalid,
			message: "Signature expired: 20261124T075459Z is now earlier than 20261124T075500Z (20261124T080000Z - 5 min.)",
		},
		{
			name: "in the future", signed: with(func(s *signing) { s.at = now.Add(301 * time.Second) }), code: invalid,
			message: "Signature not yet current: 20261124T080501Z is still later than 20261124T080500Z (20261124T080000Z + 5 min.)",
		},
		{name: "wrong secret", signed: with(func(s *signing) { s.secret = "S" }), code: invalid, message: mismatch},
		{name: "wrong secret in the query", signed: with(func(s *signing) { s.secret, s.query = "S", true }), code: invalid, message: mismatch},
		{name: "another operation", signed: good, change: func(r *http.Request) { r.Header.Set("X-Amz-Target", "Kinesis_20131202.ListStreams") }, code: invalid, message: mismatch},
		{name: "another host", signed: good, change: func(r *http.Request) { r.Host = "elsewhere" }, code: invalid, message: mismatch},
		{name: "another query", signed: inQuery, change: func(r *http.Request) { r.URL.RawQuery += "&x=y" }, code: invalid, message: mismatch},
		{name: "wrong service", signed: with(func(s *signing) { s.service = "s3" }), code: invalid, message: "Credential should be scoped to correct service: 'kinesis'. "},
		{
			name: "the date of yesterday", signed: good, code: invalid,
			change: func(r *http.Request) {
				r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "20261124", "20261123", 1))
			},
			message: "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20261123' != '20261124', from '20261124T080000Z'.",
		},
		{name: "a date that is none", signed: good, change: func(r *http.Request) { r.Header.Set("X-Amz-Date", "201") }, code: incomplete, message: "Date must be in ISO-8601 'basic format'. Got '201'. See http://en.wikipedia.org/wiki/ISO_8601"},
		{name: "host not signed", signed: good, change: header("AWS4-HMAC-SHA256 Credential=ADMIN/20261124/r/kinesis/aws4_request, SignedHeaders=x-amz-date, Signature=0"), code: invalid, message: "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."},
		{name: "another algorithm", signed: good, change: header("AWS4 Credential=ADMIN/20261124/r/kinesis/aws4_request, SignedHeaders=host, Signature=0"), code: incomplete, message: "Unsupported AWS 'algorithm': 'AWS4' (only AWS4-HMAC-SHA256 for now). "},
		{name: "half a credential", signed: good, change: header("AWS4-HMAC-SHA256 Credential=ADMIN/20261124, SignedHeaders=host, Signature=0"), code: incomplete, message: "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'ADMIN/20261124'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, e := range []*env{e, e.overH2C()} {
				o := *e
				o.sign = func(r *http.Request) {
					o.signWith(r, c.signed)
					if c.change != nil {
						c.change(r)
					}
				}
				in := m{"StreamName": "s", "PartitionKey": "k", "Data": []byte("x")}
				for format, a := range map[string]answer{"JSON": o.call("PutRecord", in), "CBOR": o.callCBOR("PutRecord", in)} {
					if c.code == "" {
						if a.status != 200 {
							t.Errorf("%s: %d %s", format, a.status, a.raw)
						}
					} else if a.status != 400 || a.body["__type"] != c.code || a.body["message"] != c.message {
						t.Errorf("%s: %d %s, not %s: %s", format, a.status, a.raw, c.code, c.message)
					}
				}
				a := o.do(o.request("Kinesis_20131202.PutRecord", "text/plain", []byte("{}")))
				status, want := 403, "<"+c.code+">\n  <Message>"+c.message+"</Message>\n</"+c.code+">\n"
				if c.code == "" {
					status, want = 404, "<UnknownOperationException/>\n"
				}
				if a.status != status || string(a.raw) != want || len(a.header["Content-Type"]) > 0 {
					t.Errorf("XML: %d %s %v, not %s", a.status, a.raw, a.header["Content-Type"], want)
				}
			}
		})
	}
}

// TestSigningRegion: a region is asked for only where one is set.
func TestSigningRegion(t *testing.T) {
	e := newSignedEnv(t, func(c *Config, _ *fakeBroker) { c.SigningRegion = "us-east-1" })
	const text = "Credential should be scoped to a valid region, not 'eu-west-1'. "
	e.refused("ListStreams", m{}, "InvalidSignatureException", text)
	e.sign = func(r *http.Request) {
		e.signWith(r, signing{access: "ADMIN", secret: "s", at: e.clock.now(), service: "s3", region: "eu-west-1"})
	}
	e.refused("ListStreams", m{}, "InvalidSignatureException", text+"Credential should be scoped to correct service: 'kinesis'. ")
	e.sign = func(r *http.Request) {
		e.signWith(r, signing{access: "ADMIN", secret: "s", at: e.clock.now(), service: "kinesis", region: "us-east-1"})
	}
	e.ok("ListStreams", m{})
}

// logText is a log that a test reads.
type logText struct {
	mu   sync.Mutex
	text []byte
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	return len(b), nil
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// TestMismatchIsLoggedWithoutTokens: the log of a wrong signature has what should
// have been signed, but no session token.
func TestMismatchIsLoggedWithoutTokens(t *testing.T) {
	for _, query := range []bool{false, true} {
		log := &logText{}
		e := newSignedEnv(t, func(c *Config, _ *fakeBroker) {
			c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		e.sign = func(r *http.Request) {
			e.signWith(r, signing{access: "SESSION", secret: "wrong", token: "t0ken/+", at: e.clock.now(), service: "kinesis", region: "us-east-1", query: query})
		}
		if code := e.call("ListStreams", m{}).body["__type"]; code != "InvalidSignatureException" {
			t.Fatal(code)
		}
		text := strings.ToLower(log.String())
		if !strings.Contains(text, "signature does not match") || !strings.Contains(text, "x-amz-date") || !strings.Contains(text, "x-amz-security-token") {
			t.Errorf("in the query %v: the log does not tell what should have been signed: %s", query, text)
		}
		if strings.Contains(text, "t0ken") {
			t.Errorf("in the query %v: a session token in the log: %s", query, text)
		}
	}
}

// TestOrderOfChecks: what comes before authentication is answered to anybody,
// what comes behind it to those who may know.
func TestOrderOfChecks(t *testing.T) {
	e := newSignedEnv(t)
	e.create("orders", 1)
	nobody, writer := *e, e.as("WRITER")
	nobody.sign = nil
	const missing, denied = "MissingAuthenticationTokenException", "AccessDeniedException"
	put := "Kinesis_20131202.PutRecord"
	for _, c := range []struct {
		name             string
		e                *env
		target, ct, body string
		status           int
		code             string
	}{
		{"unsigned, no object", &nobody, put, typeJSON, "true", 400, "SerializationException"},
		{"unsigned, no object in CBOR", &nobody, put, typeCBOR, "\xf5", 400, "SerializationException"},
		{"unsigned, broken", &nobody, put, typeJSON, "{", 400, "SerializationException"},
		{"unsigned, empty", &nobody, put, typeJSON, "", 400, "SerializationException"},
		{"unsigned, unknown operation", &nobody, "Kinesis_20131202.Nothing", typeJSON, "{}", 400, "UnknownOperationException"},
		{"unsigned, wrong type", &nobody, put, typeJSON, `{"StreamName":1}`, 400, missing},
		{"unsigned, constraint", &nobody, put, typeJSON, `{"StreamName":"s!"}`, 400, missing},
		{"unsigned", &nobody, put, typeCBOR, "\xbf\xff", 400, missing},
		{"signed, no object", e, put, typeJSON, "true", 400, "SerializationException"},
		{"allowed, wrong type", writer, put, typeJSON, `{"StreamName":"orders","PartitionKey":1}`, 400, "SerializationException"},
		{"allowed, wrong base64", writer, put, typeJSON, `{"StreamName":"orders","PartitionKey":"k","Data":"?"}`, 400, "SerializationException"},
		{"allowed, constraint", writer, put, typeJSON, `{"StreamName":"orders"}`, 400, "ValidationException"},
		{"denied, wrong type", writer, put, typeJSON, `{"StreamName":"other","PartitionKey":1}`, 400, denied},
		{"denied, wrong type in CBOR", writer, put, typeCBOR, "\xa2\x6aStreamName\x65other\x6cPartitionKey\x01", 400, denied},
		{"denied, wrong base64", writer, put, typeJSON, `{"StreamName":"other","PartitionKey":"k","Data":"?"}`, 400, denied},
		{"denied, constraint", writer, put, typeJSON, `{"StreamName":"other"}`, 400, denied},
		{"denied, no object", writer, "Kinesis_20131202.DeleteStream", typeJSON, `[]`, 400, "SerializationException"},
	} {
		a := c.e.do(c.e.request(c.target, c.ct, []byte(c.body)))
		if a.status != c.status || a.body["__type"] != c.code {
			t.Errorf("%s: %d %s, not %s", c.name, a.status, a.raw, c.code)
		}
	}
}

// TestRefusals: every reason has its answer.
func TestRefusals(t *testing.T) {
	for reason := sigv4.Missing; reason <= sigv4.KeyExpired; reason++ {
		if refusals[reason] == nil {
			t.Errorf("reason %d has no answer", reason)
		}
	}
	if len(refusals) != int(sigv4.KeyExpired) {
		t.Errorf("%d answers", len(refusals))
	}
}

// TestSignedStaysBelowHTTP: a signed request over HTTP/1.1 is a plain one.
func TestSignedStaysBelowHTTP(t *testing.T) {
	e := newSignedEnv(t)
	e.create("s", 1)
	e.put("s", "k", "x")
	e.g.quick.mu.Lock()
	defer e.g.quick.mu.Unlock()
	if len(e.g.quick.conns) != 1 {
		t.Errorf("%d connections are served below net/http", len(e.g.quick.conns))
	}
}

// TestCredentialsChange: the next request sees other credentials.
func TestCredentialsChange(t *testing.T) {
	var now atomic.Pointer[credentials.Set]
	set := func(text string) {
		s, err := credentials.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		now.Store(s)
	}
	set("keys: [{access-key: A, secret-key: s}]")
	e := newEnv(t, func(c *Config, _ *fakeBroker) { c.Credentials = now.Load })
	e = e.as("A")
	e.ok("ListStreams", m{})
	set("keys: [{access-key: A, secret-key: other}]")
	e.refused("ListStreams", m{}, "InvalidSignatureException", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	set("keys: []")
	e.refused("ListStreams", m{}, "UnrecognizedClientException", "The security token included in the request is invalid.")
}

// BenchmarkAuthenticate is what a signature costs of a PutRecord of 1 KiB.
func BenchmarkAuthenticate(b *testing.B) {
	e := newSignedEnv(b)
	body, err := cbor.Marshal(m{"StreamName": "s", "PartitionKey": "k", "Data": bytes.Repeat([]byte("x"), 1<<10)})
	if err != nil {
		b.Fatal(err)
	}
	r := e.request("Kinesis_20131202.PutRecord", typeCBOR, body)
	e.sign(r)
	var out bytes.Buffer
	if err := r.Write(&out); err != nil {
		b.Fatal(err)
	}
	var h quickHead
	raw := out.Bytes()
	if !h.parse(raw[:bytes.Index(raw, quickEnd)+len(quickEnd)]) {
		b.Fatalf("not plain: %q", raw)
	}
	c := &call{g: e.g, parent: b.Context(), body: body, header: &h, path: "/"}
	b.ReportAllocs()
	for b.Loop() {
		if failure := c.authenticate(); failure != nil {
			b.Fatal(failure)
		}
	}
}
