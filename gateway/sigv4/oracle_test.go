package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"pgregory.net/rapid"
)

var testNow = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)

// sent are the fields of a request, by their canonical names, as a server has them.
type sent struct {
	http.Header
	host string
}

func (f sent) Append(dst, name []byte, i int) ([]byte, bool) {
	values := f.Values(textproto.CanonicalMIMEHeaderKey(string(name)))
	if string(name) == "host" {
		values = []string{f.host}
	}
	if i >= len(values) {
		return dst, false
	}
	return append(dst, values[i]...), true
}

// received makes of a request of the SDK what arrives of it.
func received(r *http.Request, body []byte) *Request {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	h := r.Header.Clone()
	if r.ContentLength > 0 {
		h.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	return &Request{Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Fields: sent{h, host}, Body: body}
}

func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// one finds a single key.
func one(accessKey string, s *Secret) func([]byte) *Secret {
	return func(b []byte) *Secret {
		if string(b) != accessKey {
			return nil
		}
		return s
	}
}

// signedCase is a random request that the SDK has signed.
type signedCase struct {
	scope  Scope
	access string
	secret *Secret
	at     time.Time
	r      *Request
	signed []string // names of signed headers
}

func drawSigned(t *rapid.T) signedCase {
	word := rapid.StringMatching(`[A-Za-z0-9]{1,12}`)
	any := rapid.StringMatching(`[ -~é漢]{0,20}`)
	c := signedCase{
		scope:  Scope{Service: "kinesis"},
		access: rapid.StringMatching(`[A-Z0-9]{4,20}`).Draw(t, "access"),
		secret: &Secret{Key: rapid.StringMatching(`[!-~]{1,80}`).Draw(t, "secret")},
		at:     testNow.Add(time.Duration(rapid.IntRange(-300, 300).Draw(t, "skew")) * time.Second),
	}
	if rapid.Bool().Draw(t, "session") {
		c.secret.Token = rapid.StringMatching(`[A-Za-z0-9+/=]{1,100}`).Draw(t, "token")
	}
	method := rapid.SampledFrom([]string{"POST", "GET", "PUT"}).Draw(t, "method")
	path := ""
	for range rapid.IntRange(0, 3).Draw(t, "segments") {
		path += "/" + rapid.StringMatching(`[a-z0-9~_ %é漢=:+]{1,8}`).Draw(t, "segment")
	}
	if path == "" || rapid.Bool().Draw(t, "slash") {
		path += "/"
	}
	body := []byte(any.Draw(t, "body"))
	u := &url.URL{Scheme: "http", Host: word.Draw(t, "host") + ":4567", Path: path}
	query := url.Values{}
	for range rapid.IntRange(0, 3).Draw(t, "params") {
		query.Add(word.Draw(t, "param"), any.Draw(t, "value"))
	}
	u.RawQuery = query.Encode()
	r, err := http.NewRequest(method, u.String(), strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(0, 4).Draw(t, "headers") {
		r.Header.Add("X-"+word.Draw(t, "name"), strings.TrimSpace(any.Draw(t, "field")))
	}
	r.Header.Set("X-Amz-Target", "Kinesis_20131202.PutRecord")
	hash := hashOf(body)
	switch rapid.IntRange(0, 2).Draw(t, "hash") {
	case 1:
		r.Header.Set("X-Amz-Content-Sha256", hash)
	case 2:
		hash = unsignedPayload
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	region := rapid.StringMatching(`[a-z]{2}-[a-z]{4,9}-[1-9]`).Draw(t, "region")
	if rapid.Bool().Draw(t, "one region") {
		c.scope.Region = region
	}
	keys := aws.Credentials{AccessKeyID: c.access, SecretAccessKey: c.secret.Key, SessionToken: c.secret.Token}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableHeaderHoisting = true })
	names := ""
	if rapid.Bool().Draw(t, "presigned") {
		uri, headers, err := signer.PresignHTTP(t.Context(), keys, r, hash, "kinesis", region, c.at)
		if err != nil {
			t.Fatal(err)
		}
		p, err := http.NewRequest(method, uri, strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		headers.Del("Host")
		p.Header = headers
		r, names = p, p.URL.Query().Get("X-Amz-SignedHeaders")
	} else {
		if err := signer.SignHTTP(t.Context(), keys, r, hash, "kinesis", region, c.at); err != nil {
			t.Fatal(err)
		}
		_, names, _ = strings.Cut(r.Header.Get("Authorization"), "SignedHeaders=")
		names, _, _ = strings.Cut(names, ",")
	}
	c.r, c.signed = received(r, body), strings.Split(names, ";")
	return c
}

func (c signedCase) verify() *Refusal {
	return c.scope.Verify(c.r, one(c.access, c.secret), testNow)
}

// TestOracle: what the SDK's signer signs is let through, and no longer once one
// byte of what it signed is another, or with another secret.
func TestOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawSigned(t)
		for range 2 { // the second time with the kept key
			if refusal := c.verify(); refusal != nil {
				t.Fatalf("refused: %+v", refusal)
			}
		}
		if refusal := c.scope.Verify(c.r, one(c.access, &Secret{Key: c.secret.Key + "x", Token: c.secret.Token}), testNow); refusal == nil || refusal.Reason != Mismatch {
			t.Fatalf("another secret: %+v", refusal)
		}
		what := c.spoil(t)
		if refusal := c.verify(); refusal == nil {
			t.Fatalf("let through with %s changed", what)
		}
	})
}

// spoil changes one byte of a random part of what was signed.
func (c *signedCase) spoil(t *rapid.T) string {
	change := func(s string) string {
		if s == "" {
			return "x"
		}
		i := rapid.IntRange(0, len(s)-1).Draw(t, "at")
		with := byte('x') // no hexadecimal digit: escapes change, too
		if s[i] == with {
			with = 'y'
		}
		return s[:i] + string(with) + s[i+1:]
	}
	fields := c.r.Fields.(sent)
	parts := []string{"method", "path", "host", "query"}
	unsigned := fields.Get("X-Amz-Content-Sha256") == unsignedPayload
	if !unsigned {
		parts = append(parts, "body")
	}
	if fields.Get("Authorization") != "" {
		parts = append(parts, "Authorization")
	}
	for _, name := range c.signed {
		if name != "host" {
			parts = append(parts, name)
		}
	}
	switch part := rapid.SampledFrom(parts).Draw(t, "part"); part {
	case "method":
		c.r.Method = change(c.r.Method)
		return part
	case "path":
		c.r.Path = change(c.r.Path)
		return part
	case "query":
		c.r.Query = change(c.r.Query)
		return part
	case "host":
		fields.host = change(fields.host)
		c.r.Fields = fields
		return part
	case "body":
		c.r.Body = []byte(change(string(c.r.Body)))
		return part
	default:
		values := fields.Values(part)
		i := rapid.IntRange(0, len(values)-1).Draw(t, "value")
		before := values[i]
		if part == "Authorization" {
			// The names of its parts and the blanks between are nobody's concern.
			name := rapid.SampledFrom([]string{"AWS4-HMAC-SHA256", "Credential=", "SignedHeaders=", "Signature="}).Draw(t, "of it")
			head, tail, _ := strings.Cut(before, name)
			value, rest, _ := strings.Cut(tail, ",")
			if name == "AWS4-HMAC-SHA256" {
				values[i] = head + change(name) + tail
			} else {
				values[i] = head + name + change(value)
				if rest != "" {
					values[i] += "," + rest
				}
			}
		} else {
			values[i] = change(before)
		}
		return fmt.Sprintf("%s from %q to %q", part, before, values[i])
	}
}
