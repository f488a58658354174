package gateway

import (
	"net/http"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
	"time"

	"shardstream/gateway/kinesis"
	"shardstream/gateway/sigv4"
)

// Who calls. With Config.Credentials each request has to be signed by one of
// their keys; without, nobody is asked. What a caller may do is in authorize.go.

const signingService = "kinesis"

// sessionToken finds the token in a canonical request, in a field and in the query.
var sessionToken = regexp.MustCompile(`(?im)(^x-amz-security-token:|[&\n]x-amz-security-token=)[^&\n]*`)

// authenticate finds out who calls, into c.who. It comes behind the look at the
// operation and before the types of members.
func (c *call) authenticate() *kinesis.Error {
	if c.g.cfg.Credentials == nil {
		return nil
	}
	set, now := c.g.cfg.Credentials(), c.g.cfg.Now()
	scope := sigv4.Scope{Service: signingService, Region: c.g.cfg.SigningRegion}
	r := sigv4.Request{Method: http.MethodPost, Path: c.path, Query: c.query, Fields: c.header, Body: c.body}
	refusal := scope.Verify(&r, func(accessKey []byte) *sigv4.Secret {
		if c.who = set.Find(accessKey); c.who == nil {
			return nil
		}
		return &c.who.Secret
	}, now)
	if refusal == nil {
		return nil
	}
	if refusal.Reason == sigv4.Mismatch && refusal.Canonical != "" {
		c.g.log.Debug("signature does not match", "request", c.requestID(), "access_key", c.who.AccessKey,
			"canonical", sessionToken.ReplaceAllString(refusal.Canonical, "$1(not shown)"), "to_sign", refusal.ToSign)
	}
	c.who = nil
	return refusals[refusal.Reason](refusal, now)
}

// refusals is the one table of why a signature is refused -> AWS answer.
var refusals = map[sigv4.Reason]func(*sigv4.Refusal, time.Time) *kinesis.Error{
	sigv4.Missing:    func(*sigv4.Refusal, time.Time) *kinesis.Error { return kinesis.MissingAuthenticationToken() },
	sigv4.Double:     func(*sigv4.Refusal, time.Time) *kinesis.Error { return kinesis.DoubleAuthentication() },
	sigv4.Incomplete: func(r *sigv4.Refusal, _ time.Time) *kinesis.Error { return incomplete(r) },
	sigv4.BadDate:    func(r *sigv4.Refusal, _ time.Time) *kinesis.Error { return kinesis.BadSignatureDate(r.Value) },
	sigv4.Expired: func(r *sigv4.Refusal, now time.Time) *kinesis.Error {
		return kinesis.SignatureExpired(r.Time, now)
	},
	sigv4.NotYetCurrent: func(r *sigv4.Refusal, now time.Time) *kinesis.Error {
		return kinesis.SignatureNotYetCurrent(r.Time, now)
	},
	sigv4.HostNotSigned: func(*sigv4.Refusal, time.Time) *kinesis.Error { return kinesis.HostNotSigned() },
	sigv4.UnknownAlgorithm: func(r *sigv4.Refusal, _ time.Time) *kinesis.Error {
		return kinesis.UnsupportedAlgorithm(r.Value)
	},
	sigv4.BadCredential: func(r *sigv4.Refusal, _ time.Time) *kinesis.Error { return kinesis.MalformedCredential(r.Value) },
	sigv4.WrongScope: func(r *sigv4.Refusal, _ time.Time) *kinesis.Error {
		return kinesis.WrongScope(kinesis.ScopeFaults(r.Scope), r.Time.Format("20060102T150405Z"))
	},
	sigv4.UnknownKey: func(*sigv4.Refusal, time.Time) *kinesis.Error { return kinesis.UnrecognizedClient() },
	sigv4.Mismatch:   func(*sigv4.Refusal, time.Time) *kinesis.Error { return kinesis.SignatureMismatch() },
	sigv4.BadToken:   func(*sigv4.Refusal, time.Time) *kinesis.Error { return kinesis.UnrecognizedClient() },
	sigv4.KeyExpired: func(*sigv4.Refusal, time.Time) *kinesis.Error { return kinesis.ExpiredToken() },
}

func incomplete(r *sigv4.Refusal) *kinesis.Error {
	if r.Header != "" {
		return kinesis.IncompleteHeader(kinesis.HeaderParts{
			Credential: !r.Lacks.Credential, Signature: !r.Lacks.Signature, SignedHeaders: !r.Lacks.SignedHeaders, Date: !r.Lacks.Date,
		}, r.Header)
	}
	lacks := map[string]bool{
		"X-Amz-Algorithm": r.Lacks.Algorithm, "X-Amz-Credential": r.Lacks.Credential, "X-Amz-Signature": r.Lacks.Signature,
		"X-Amz-SignedHeaders": r.Lacks.SignedHeaders, "X-Amz-Date": r.Lacks.Date,
	}
	return kinesis.IncompleteQuery(func(name string) bool { return !lacks[name] })
}

// asXML is how an error answers a request of an unknown content type.
func asXML(e *kinesis.Error) reply {
	text := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(e.Message)
	return reply{status: http.StatusForbidden, body: []byte("<" + e.Code + ">\n  <Message>" + text + "</Message>\n</" + e.Code + ">\n")}
}

// httpFields are the header fields of a request that net/http has read.
type httpFields struct{ *http.Request }

// Get gives the first value of a field, "" if there is none.
func (f httpFields) Get(name string) string { return f.Header.Get(name) }

// Append is sigv4.Fields. net/http keeps host and length apart from the others.
func (f httpFields) Append(dst, name []byte, i int) ([]byte, bool) {
	switch string(name) {
	case "host":
		return append(dst, f.Host...), i == 0
	case "content-length":
		if i == 0 && f.ContentLength >= 0 {
			return strconv.AppendInt(dst, f.ContentLength, 10), true
		}
		return dst, false
	}
	values := f.Header[textproto.CanonicalMIMEHeaderKey(string(name))]
	if i >= len(values) {
		return dst, false
	}
	return append(dst, values[i]...), true
}

// sentPath gives the path as the request line has it.
func sentPath(r *http.Request) string {
	if path, _, _ := strings.Cut(r.RequestURI, "?"); strings.HasPrefix(path, "/") {
		return path
	}
	return r.URL.EscapedPath() // of a request that names a whole URL
}

// Append is sigv4.Fields.
func (h *quickHead) Append(dst, name []byte, i int) ([]byte, bool) {
	for n := range h.fields {
		f := &h.fields[n]
		if len(f.name) != len(name) || !equalFold(f.name, name) {
			continue
		}
		if i == 0 {
			return append(dst, f.value...), true
		}
		i--
	}
	return dst, false
}
