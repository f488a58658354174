package sigv4

import (
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// The keys and the time of AWS's published examples.
const (
	exampleAccess = "AKIDEXAMPLE"
	exampleSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

var exampleTime = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)

// TestExamples: requests that AWS has published with their signatures.
func TestExamples(t *testing.T) {
	for _, c := range []struct{ name, method, path, query, signature string }{
		{"get-vanilla", "GET", "/", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-vanilla-query-order-key-case", "GET", "/", "Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{"get-relative", "GET", "/example/..", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-relative-relative", "GET", "/example1/example2/../..", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-slash", "GET", "//", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-slash-dot-slash", "GET", "/./", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"post-vanilla", "POST", "/", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
	} {
		h := http.Header{
			"X-Amz-Date":    {"20150830T123600Z"},
			"Authorization": {"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + c.signature},
		}
		r := &Request{Method: c.method, Path: c.path, Query: c.query, Fields: sent{h, "example.amazonaws.com"}}
		if refusal := (Scope{Service: "service"}).Verify(r, one(exampleAccess, &Secret{Key: exampleSecret}), exampleTime); refusal != nil {
			t.Errorf("%s: %+v", c.name, refusal)
		}
	}
	if key := hex.EncodeToString(derive(exampleSecret, "20150830", "us-east-1", "iam")); key != "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9" {
		t.Errorf("the key of the documentation's example is %s", key)
	}
}

// TestCanonicalFields: blanks and several values.
func TestCanonicalFields(t *testing.T) {
	f := sent{http.Header{
		"X-A": {"  a   b\t \tc  "}, "X-B": {"1 ", " 2", ""}, "X-Empty": {""},
	}, "h:1"}
	for name, want := range map[string]string{
		"x-a": "x-a:a b c\n", "x-b": "x-b:1,2,\n", "x-empty": "x-empty:\n", "x-none": "x-none:\n", "host": "host:h:1\n", ":authority": ":authority:h:1\n",
	} {
		if got := string(appendField(nil, f, []byte(name))); got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
	}
}

func TestCanonicalPath(t *testing.T) {
	for path, want := range map[string]string{
		"": "/", "/": "/", "//": "/", "/.": "/", "/..": "/", "/a": "/a", "/a/": "/a/", "/a//b": "/a/b", "/a/./b": "/a/b", "/a/../b": "/b",
		"/a/..": "/", "/a/b/..": "/a/", "/../a": "/a", "/a%20b": "/a%2520b", "/a b": "/a%20b", "/%2e%2E/": "/%252e%252E/", "/~_-.": "/~_-.",
	} {
		if got := string(appendPath(nil, path)); got != want {
			t.Errorf("%q: %q, not %q", path, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	want := time.Date(2026, 11, 24, 8, 0, 1, 0, time.UTC)
	for _, s := range []string{"20261124T080001Z", "Tue, 24 Nov 2026 08:00:01 GMT"} {
		if got, ok := parseTime([]byte(s)); !ok || !got.Equal(want) {
			t.Errorf("%s: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "x", "20261124T080001", "20261124T080001z", "20261324T080001Z", "20260230T080001Z", "20261124T250001Z", "2026112 T080001Z", "+0261124T080001Z", "2026-11-24T08:00:01Z"} {
		if got, ok := parseTime([]byte(s)); ok {
			t.Errorf("%q is read as %v", s, got)
		}
	}
}

// signedPut is a PutRecord as the Go SDK signs it.
func signedPut(t testing.TB, body string, change ...func(*http.Request)) *Request {
	t.Helper()
	r, err := http.NewRequest("POST", "http://localhost:4567/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "Kinesis_20131202.PutRecord")
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("Amz-Sdk-Invocation-Id", "1b2c3d4e-0000-4000-8000-000000000000")
	r.Header.Set("Amz-Sdk-Request", "attempt=1; max=3")
	for _, f := range change {
		f(r)
	}
	keys := aws.Credentials{AccessKeyID: exampleAccess, SecretAccessKey: exampleSecret, SessionToken: r.Header.Get("X-Amz-Security-Token")}
	if err := v4.NewSigner().SignHTTP(t.Context(), keys, r, hashOf([]byte(body)), "kinesis", "us-east-1", testNow); err != nil {
		t.Fatal(err)
	}
	return received(r, []byte(body))
}

// TestOrder: of several faults the one that AWS looks for first is reported. Each
// row has its own fault and those of all rows below that can be with it.
func TestOrder(t *testing.T) {
	faulty := func(authorization string, more http.Header, query string) *Request {
		h := http.Header{"X-Amz-Date": {"20261124T080000Z"}}
		if authorization != "" {
			h.Set("Authorization", authorization)
		}
		for name, values := range more {
			h[name] = values
		}
		return &Request{Method: "POST", Path: "/", Query: query, Fields: sent{h, "h"}, Body: []byte("b")}
	}
	const all = "HMAC Credential=nobody/20000101/R/s3/end, SignedHeaders=x-amz-date, Signature=00"
	for _, c := range []struct {
		name   string
		r      *Request
		reason Reason
		value  string
	}{
		{"nothing", faulty("", nil, ""), Missing, ""},
		{"both", faulty("x", nil, "X-Amz-Algorithm"), Double, ""},
		{"incomplete", faulty("HMAC SignedHeaders=x", http.Header{"X-Amz-Date": {"x"}}, ""), Incomplete, ""},
		{"incomplete query", faulty("", nil, "X-Amz-Algorithm=&X-Amz-Date=x"), Incomplete, ""},
		{"date", faulty(all, http.Header{"X-Amz-Date": {"201"}}, ""), BadDate, "201"},
		{"too old", faulty(all, http.Header{"X-Amz-Date": {"20261124T075459Z"}}, ""), Expired, ""},
		{"too young", faulty(all, http.Header{"X-Amz-Date": {"20261124T080501Z"}}, ""), NotYetCurrent, ""},
		{"host", faulty(all, nil, ""), HostNotSigned, ""},
		{"algorithm", faulty(strings.Replace(all, "SignedHeaders=", "SignedHeaders=Host;", 1), nil, ""), UnknownAlgorithm, "HMAC"},
		{"credential", faulty("AWS4-HMAC-SHA256 Credential=a/b/c/d SignedHeaders=:authority Signature=0", nil, ""), BadCredential, "a/b/c/d"},
		{"credential of six", faulty("AWS4-HMAC-SHA256 Credential=a/b/c/d/e/f SignedHeaders=host Signature=0", nil, ""), BadCredential, "a/b/c/d/e/f"},
		{"scope", faulty(strings.Replace(all, "HMAC Credential=", "AWS4-HMAC-SHA256 SignedHeaders=host,Credential=", 1)+",SignedHeaders=host", nil, ""), WrongScope, ""},
		{"key", faulty("AWS4-HMAC-SHA256 Credential=nobody/20261124/r/kinesis/aws4_request/,SignedHeaders=host,Signature=0", nil, ""), UnknownKey, ""},
		{"signature", faulty("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261124/r/kinesis/aws4_request,SignedHeaders=host,Signature=0", nil, ""), Mismatch, ""},
	} {
		refusal := Scope{Service: "kinesis"}.Verify(c.r, one(exampleAccess, &Secret{Key: exampleSecret, Token: "t"}), testNow)
		if refusal == nil || refusal.Reason != c.reason || refusal.Value != c.value {
			t.Errorf("%s: %+v, not reason %d %q", c.name, refusal, c.reason, c.value)
		}
		if c.reason == WrongScope && refusal.Scope != (ScopeFaults{"R", "s3", "end", "20000101"}) {
			t.Errorf("%s: %+v", c.name, refusal.Scope)
		}
	}
}

// TestSecrets: tokens and the end of a key, looked at behind the signature.
func TestSecrets(t *testing.T) {
	withToken := signedPut(t, "b", func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "t") })
	plain := signedPut(t, "b")
	for _, c := range []struct {
		name   string
		r      *Request
		secret *Secret
		reason Reason
	}{
		{"none, none", plain, &Secret{Key: exampleSecret}, 0},
		{"the token", withToken, &Secret{Key: exampleSecret, Token: "t"}, 0},
		{"no token", plain, &Secret{Key: exampleSecret, Token: "t"}, BadToken},
		{"another token", withToken, &Secret{Key: exampleSecret, Token: "T"}, BadToken},
		{"a token too many", withToken, &Secret{Key: exampleSecret}, BadToken},
		{"not over yet", plain, &Secret{Key: exampleSecret, Expires: testNow.Add(1)}, 0},
		{"over", plain, &Secret{Key: exampleSecret, Expires: testNow}, KeyExpired},
		{"over, wrong", plain, &Secret{Key: "x", Expires: testNow}, Mismatch},
	} {
		refusal := Scope{Service: "kinesis"}.Verify(c.r, one(exampleAccess, c.secret), testNow)
		if refusal == nil && c.reason != 0 || refusal != nil && refusal.Reason != c.reason {
			t.Errorf("%s: %+v", c.name, refusal)
		}
	}
}

// TestBody: what x-amz-content-sha256 says must be so.
func TestBody(t *testing.T) {
	for _, c := range []struct {
		name, hash string
		ok         bool
	}{
		{"hash", hashOf([]byte("body")), true},
		{"not signed at all", unsignedPayload, true},
		{"of another body", hashOf([]byte("x")), false},
		{"chunks", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", false},
		{"nothing", "", false},
	} {
		r, err := http.NewRequest("POST", "http://localhost:4567/", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Content-Sha256", c.hash)
		keys := aws.Credentials{AccessKeyID: exampleAccess, SecretAccessKey: exampleSecret}
		if err := v4.NewSigner().SignHTTP(t.Context(), keys, r, c.hash, "kinesis", "us-east-1", testNow); err != nil {
			if c.hash != "" {
				t.Fatal(err)
			}
		}
		if refusal := (Scope{Service: "kinesis"}).Verify(received(r, []byte("body")), one(exampleAccess, &Secret{Key: exampleSecret}), testNow); (refusal == nil) != c.ok {
			t.Errorf("%s: %+v", c.name, refusal)
		}
	}
}

// TestKeptKeys: only keys that have been used rightly are kept, and not too many.
func TestKeptKeys(t *testing.T) {
	s := &Secret{Key: exampleSecret}
	wrong := signedPut(t, "b")
	wrong.Body = []byte("c")
	if refusal := (Scope{Service: "kinesis"}).Verify(wrong, one(exampleAccess, s), testNow); refusal == nil || len(s.kept()) != 0 {
		t.Errorf("%+v, %d keys kept", refusal, len(s.kept()))
	}
	for i := range 3 * maxDerived {
		k := s.key("kinesis", []byte("20261124"), []byte{'a' + byte(i)})
		s.keep(k)
		s.keep(k)
		if got := s.key("kinesis", []byte("20261124"), []byte{'a' + byte(i)}); got != k {
			t.Fatal("a kept key is derived again")
		}
	}
	if n := len(s.kept()); n != maxDerived {
		t.Errorf("%d keys are kept", n)
	}
}

// FuzzVerify: whatever comes is refused, without a fault.
func FuzzVerify(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261124/us-east-1/kinesis/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "20261124T080000Z", "", "/")
	f.Add("", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261124%2Fa%2Fkinesis%2Faws4_request&X-Amz-Date=20261124T080000Z&X-Amz-SignedHeaders=host%0a&X-Amz-Signature=0", "/a/../b")
	f.Add("x", "Tue, 24 Nov 2026 08:00:00 GMT", "X-Amz-Algorithm", "//")
	f.Fuzz(func(t *testing.T, authorization, date, query, path string) {
		h := http.Header{"Authorization": {authorization}, "X-Amz-Date": {date}, "Date": {date}}
		r := &Request{Method: "POST", Path: path, Query: query, Fields: sent{h, "h"}, Body: []byte("b")}
		if refusal := (Scope{Service: "kinesis"}).Verify(r, one(exampleAccess, &Secret{Key: exampleSecret}), testNow); refusal == nil || refusal.Reason == 0 {
			t.Fatalf("%+v", refusal)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		b.Run(map[int]string{1 << 10: "1KiB", 1 << 20: "1MiB"}[size], func(b *testing.B) {
			r := signedPut(b, strings.Repeat("x", size))
			r.Fields = newFlat(r.Fields.(sent))
			find := one(exampleAccess, &Secret{Key: exampleSecret})
			scope := Scope{Service: "kinesis"}
			b.ReportAllocs()
			for b.Loop() {
				if refusal := scope.Verify(r, find, testNow); refusal != nil {
					b.Fatalf("%+v", refusal)
				}
			}
		})
	}
}

// flat has its fields in a list, as the gateway's quick way has them.
type flat struct{ names, values [][]byte }

func newFlat(f sent) *flat {
	l := &flat{names: [][]byte{[]byte("host")}, values: [][]byte{[]byte(f.host)}}
	for name, values := range f.Header {
		l.names, l.values = append(l.names, []byte(strings.ToLower(name))), append(l.values, []byte(values[0]))
	}
	return l
}

func (f *flat) Append(dst, name []byte, i int) ([]byte, bool) {
	for n := range f.names {
		if string(f.names[n]) == string(name) && i == 0 {
			return append(dst, f.values[n]...), true
		}
	}
	return dst, false
}
