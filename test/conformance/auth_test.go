package conformance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Section 1.9: signatures and what they allow, on a node that asks for them.

const keysFile = `
keys:
  - {access-key: ADMIN, secret-key: s}
  - {access-key: SESSION, secret-key: s, session-token: token}
  - {access-key: OVER, secret-key: s, session-token: token, expires: 2026-01-01T00:00:00Z}
  - {access-key: LISTER, secret-key: s, user: lister, actions: [List*]}
  - {access-key: FOREIGN, secret-key: s, user: "arn:aws:iam::111111111111:role/other"}
`

var guarded = &node{
	name: "guarded", files: map[string]string{"keys.yaml": keysFile},
	args: []string{"--transition-delay", "0s", "--auth", "sigv4", "--credentials", "<dir>/keys.yaml", "--auth-region", region},
}

// signing is how a request is signed; change is what happens to it afterwards.
type signing struct {
	access, secret, token, service, region string
	at                                     time.Duration // from now
	query                                  bool
	change                                 func(*http.Request)
}

func admin() signing {
	return signing{access: "ADMIN", secret: "s", service: "kinesis", region: region}
}

func (s signing) sign(r *http.Request, body []byte) error {
	sum := sha256.Sum256(body)
	hash, keys := hex.EncodeToString(sum[:]), aws.Credentials{AccessKeyID: s.access, SecretAccessKey: s.secret, SessionToken: s.token}
	at := time.Now().Add(s.at)
	if s.query {
		signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableHeaderHoisting = true })
		uri, _, err := signer.PresignHTTP(r.Context(), keys, r, hash, s.service, s.region, at)
		if err != nil {
			return err
		}
		signed, err := http.NewRequest(r.Method, uri, nil)
		if err != nil {
			return err
		}
		r.URL = signed.URL
	} else if err := v4.NewSigner().SignHTTP(r.Context(), keys, r, hash, s.service, s.region, at); err != nil {
		return err
	}
	if s.change != nil {
		s.change(r)
	}
	return nil
}

const (
	incompleteSignature = "IncompleteSignatureException"
	invalidSignature    = "InvalidSignatureException"
	unrecognized        = "UnrecognizedClientException"
	missingToken        = "MissingAuthenticationTokenException"

	mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	badToken = "The security token included in the request is invalid."
	needs    = "Authorization header requires '%s' parameter. "
	mustHave = "AWS query-string parameters must include '%s'. "
)

func header(value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", value) }
}

func withoutParameter(names ...string) func(*http.Request) {
	return func(r *http.Request) {
		q := r.URL.Query()
		for _, name := range names {
			q.Del(name)
		}
		r.URL.RawQuery = q.Encode()
	}
}

// refusedSignature is a way to sign that is refused. The message is a pattern
// where it holds times.
type refusedSignature struct {
	name           string
	how            func(*signing)
	class, message string
	times          bool
}

var refusedSignatures = []refusedSignature{
	{name: "no signature", how: func(s *signing) { s.change = func(r *http.Request) { r.Header.Del("Authorization") } }, class: missingToken, message: "Missing Authentication Token"},
	{
		name: "in the header and in the query", how: func(s *signing) { s.change = func(r *http.Request) { r.URL.RawQuery = "X-Amz-Algorithm=" } },
		class: invalidSignature, message: "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
	},
	{
		name: "header incomplete", class: incompleteSignature,
		how: func(s *signing) {
			s.change = func(r *http.Request) {
				r.Header.Set("Authorization", "AWS4-HMAC-SHA256 x=y")
				r.Header.Del("X-Amz-Date")
			}
		},
		message: fmt.Sprintf(needs+needs+needs, "Credential", "Signature", "SignedHeaders") +
			"Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-HMAC-SHA256 x=y",
	},
	{
		name: "header incomplete", how: func(s *signing) { s.change = header("X Signature=b, SignedHeaders=c") }, class: incompleteSignature,
		message: fmt.Sprintf(needs, "Credential") + "Authorization=X Signature=b, SignedHeaders=c",
	},
	{
		name: "header incomplete", how: func(s *signing) { s.change = header("X Credential=a SignedHeaders=c") }, class: incompleteSignature,
		message: fmt.Sprintf(needs, "Signature") + "Authorization=X Credential=a SignedHeaders=c",
	},
	{
		name: "header incomplete", how: func(s *signing) { s.change = header("X Credential=a,Signature=b") }, class: incompleteSignature,
		message: fmt.Sprintf(needs, "SignedHeaders") + "Authorization=X Credential=a,Signature=b",
	},
	{
		name: "query incomplete", class: incompleteSignature,
		how: func(s *signing) {
			s.query, s.change = true, withoutParameter("X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date")
		},
		message: fmt.Sprintf(mustHave+mustHave+mustHave+mustHave, "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date") + "Re-examine the query-string parameters.",
	},
	{
		name: "query incomplete", class: incompleteSignature,
		how: func(s *signing) {
			s.change = func(r *http.Request) { r.Header.Del("Authorization"); r.URL.RawQuery = "X-Amz-Algorithm" }
		},
		message: fmt.Sprintf(mustHave+mustHave+mustHave+mustHave+mustHave, "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date") + "Re-examine the query-string parameters.",
	},
	{
		name: "query incomplete", how: func(s *signing) { s.query, s.change = true, withoutParameter("X-Amz-Date") }, class: incompleteSignature,
		message: fmt.Sprintf(mustHave, "X-Amz-Date") + "Re-examine the query-string parameters.",
	},
	{name: "unknown key or bad session token", how: func(s *signing) { s.access = "NOBODY" }, class: unrecognized, message: badToken},
	{name: "unknown key or bad session token", how: func(s *signing) { s.access, s.token = "SESSION", "wrong" }, class: unrecognized, message: badToken},
	{name: "unknown key or bad session token", how: func(s *signing) { s.access = "SESSION" }, class: unrecognized, message: badToken},
	{name: "expired session token", how: func(s *signing) { s.access, s.token = "OVER", "token" }, class: "ExpiredTokenException", message: "The security token included in the request is expired"},
	{
		name: "date too old", how: func(s *signing) { s.at = -6 * time.Minute }, class: invalidSignature, times: true,
		message: `Signature expired: \d{8}T\d{6}Z is now earlier than \d{8}T\d{6}Z \(\d{8}T\d{6}Z - 5 min\.\)`,
	},
	{
		name: "date in the future", how: func(s *signing) { s.at = 6 * time.Minute }, class: invalidSignature, times: true,
		message: `Signature not yet current: \d{8}T\d{6}Z is still later than \d{8}T\d{6}Z \(\d{8}T\d{6}Z \+ 5 min\.\)`,
	},
	{name: "wrong signature", how: func(s *signing) { s.secret = "t" }, class: invalidSignature, message: mismatch},
	{name: "wrong signature", how: func(s *signing) { s.secret, s.query = "t", true }, class: invalidSignature, message: mismatch},
	{
		name: "wrong signature", how: func(s *signing) {
			s.change = func(r *http.Request) { r.Header.Set("X-Amz-Target", target+"ListStreams") }
		},
		class: invalidSignature, message: mismatch,
	},
	{
		name: "not readable", how: func(s *signing) { s.change = func(r *http.Request) { r.Header.Set("X-Amz-Date", "yesterday") } },
		class: incompleteSignature, message: "Date must be in ISO-8601 'basic format'. Got 'yesterday'. See http://en.wikipedia.org/wiki/ISO_8601",
	},
	{
		name: "not readable", how: func(s *signing) {
			s.change = header("AWS4-HMAC-SHA512 Credential=ADMIN/20261124/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=0")
		},
		class: incompleteSignature, message: "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA512' (only AWS4-HMAC-SHA256 for now). ",
	},
	{
		name: "not readable", how: func(s *signing) {
			s.change = header("AWS4-HMAC-SHA256 Credential=ADMIN/us-east-1, SignedHeaders=host, Signature=0")
		},
		class: incompleteSignature, message: "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'ADMIN/us-east-1'",
	},
	{
		name: "host not signed", how: func(s *signing) {
			s.change = header("AWS4-HMAC-SHA256 Credential=ADMIN/20261124/us-east-1/kinesis/aws4_request, SignedHeaders=x-amz-date, Signature=0")
		},
		class: invalidSignature, message: "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
	},
	{name: "wrong scope", how: func(s *signing) { s.region = "eu-west-2" }, class: invalidSignature, message: "Credential should be scoped to a valid region, not 'eu-west-2'. "},
	{name: "wrong scope", how: func(s *signing) { s.service = "dynamodb" }, class: invalidSignature, message: "Credential should be scoped to correct service: 'kinesis'. "},
}

func signatureRows() (rows []row) {
	numbers := map[string]int{}
	for _, r := range refusedSignatures {
		numbers[r.name]++
		rows = append(rows, row{fmt.Sprintf("1.9 signatures/%s: %d", r.name, numbers[r.name]), func(c *caller) {
			s := admin()
			r.how(&s)
			c.sign = s.sign
			if r.times {
				c.refusedLike("DescribeLimits", m{}, r.class, r.message)
			} else {
				c.refused("DescribeLimits", m{}, r.class, r.message)
			}
			// The same as XML where the content type is not known.
			a := c.send(http.MethodPost, target+"DescribeLimits", "text/plain", []byte("x"))
			c.wantHeaders(a, "")
			message := like(`(?s).*`)
			if !r.times {
				message = like(`(?s)\Q` + r.message + `\E`)
			}
			text := string(a.raw)
			inner := strings.TrimSuffix(strings.TrimPrefix(text, "<"+r.class+">\n  <Message>"), "</Message>\n</"+r.class+">\n")
			if a.status != http.StatusForbidden || len(inner) == len(text) {
				c.Fatalf("%d %q", a.status, text)
			}
			c.want("XML", message, inner)
		}})
	}
	return append(rows, authRows...)
}

var authRows = []row{
	{"1.9 signatures/taken", func(c *caller) {
		for what, how := range map[string]func(*signing){
			"in the header":                     func(*signing) {},
			"in the query":                      func(s *signing) { s.query = true },
			"4 minutes old":                     func(s *signing) { s.at = -4 * time.Minute },
			"4 minutes ahead":                   func(s *signing) { s.at = 4 * time.Minute },
			"with a session token":              func(s *signing) { s.access, s.token = "SESSION", "token" },
			"with a session token in the query": func(s *signing) { s.access, s.token, s.query = "SESSION", "token", true },
			"blanks instead of commas": func(s *signing) {
				s.change = func(r *http.Request) {
					r.Header.Set("Authorization", strings.ReplaceAll(r.Header.Get("Authorization"), ", ", " "))
				}
			},
			"commas without blanks": func(s *signing) {
				s.change = func(r *http.Request) {
					r.Header.Set("Authorization", strings.ReplaceAll(r.Header.Get("Authorization"), ", ", ","))
				}
			},
		} {
			s := admin()
			how(&s)
			c.sign = s.sign
			if a := c.call("DescribeLimits", m{}); a.status != http.StatusOK {
				c.Errorf("%s: %d %s", what, a.status, a.raw)
			}
		}
	}},
	{"1.9 signatures/not allowed", func(c *caller) {
		c.create(1)
		s := admin()
		s.access = "LISTER"
		c.sign = s.sign
		c.is(1, c.ok("ListShards", m{"StreamName": "<S>"}))
		c.refused("DescribeStream", m{"StreamName": "<S>"}, "AccessDeniedException",
			"User: arn:aws:iam::<A>:user/lister is not authorized to perform: kinesis:DescribeStream on resource: <ARN> because no identity-based policy allows the kinesis:DescribeStream action")
	}},
	{"1.9 resource policies/a caller of another account", func(c *caller) {
		c.create(1)
		consumer := c.consumer("c")
		admin, foreign := c.sign, signing{access: "FOREIGN", secret: "s", service: "kinesis", region: region}.sign
		const denied = "AccessDeniedException"
		text := func(op, arn, why string) string {
			return "User: arn:aws:iam::111111111111:role/other is not authorized to perform: kinesis:" + op + " on resource: " + arn + " " + why
		}
		put := func(arn, policy string) {
			c.Helper()
			c.sign = admin
			c.empty("PutResourcePolicy", m{"ResourceARN": arn, "Policy": policy})
			c.sign = foreign
		}
		put("<ARN>", policyOf(c.arn(c.s), "kinesis:Describe*"))
		c.refused("PutRecord", putIn("k", []byte("x"), nil), denied, text("PutRecord", "<ARN>", "because no resource-based policy allows the kinesis:PutRecord action"))
		c.ok("DescribeStream", m{"StreamARN": "<ARN>"})
		put("<ARN>", policyOf(c.arn(c.s), "kinesis:PutRecord"))
		c.ok("PutRecord", putIn("k", []byte("x"), nil))
		c.refused("DescribeStreamConsumer", m{"ConsumerARN": consumer}, denied,
			text("DescribeStreamConsumer", consumer, "because no resource-based policy allows the kinesis:DescribeStreamConsumer action"))
		put(consumer, policyOf(consumer, "kinesis:DescribeStreamConsumer"))
		c.ok("DescribeStreamConsumer", m{"ConsumerARN": consumer})
		put("<ARN>", strings.Replace(policyOf(c.arn(c.s), "kinesis:PutRecord"), "Allow", "Deny", 1))
		c.refused("PutRecord", putIn("k", []byte("x"), nil), denied, text("PutRecord", "<ARN>", "with an explicit deny in a resource-based policy"))
	}},
	{"1.5 order/parsing and the operation come before the signature", func(c *caller) {
		c.sign = nil
		for _, r := range []struct{ target, body, want string }{
			{known, "hello", serialization},
			{known, "true", serialization},
			{unknown, "", unknownOp},
			{known, "", serialization},
		} {
			a := c.send(http.MethodPost, r.target, c.format.contentType, []byte(r.body))
			body, err := c.format.decode(a.raw)
			if err != nil || a.status != http.StatusBadRequest {
				c.Fatalf("%v: %d %q, %v", r, a.status, a.raw, err)
			}
			c.want(r.body, m{"__type": r.want}, body)
		}
		a := c.send(http.MethodPost, unknown, c.format.contentType, c.format.encode(m{}))
		if body, err := c.format.decode(a.raw); err != nil || body["__type"] != unknownOp {
			c.Errorf("%q, %v", a.raw, err)
		}
	}},
	{"1.5 order/the signature comes before types and constraints", func(c *caller) {
		c.sign = nil
		c.refused("DescribeStream", m{"StreamName": true}, missingToken, "Missing Authentication Token")
		c.refused("DescribeStream", m{"StreamName": ""}, missingToken, "Missing Authentication Token")
		c.refused("DescribeStream", m{"StreamName": "<S>"}, missingToken, "Missing Authentication Token")
	}},
	{"1.5 order/CORS comes before the signature", func(c *caller) {
		c.sign = nil
		if a := c.send(http.MethodOptions, "", "", nil, "Origin", "http://page"); a.status != http.StatusOK {
			c.Errorf("%d %q", a.status, a.raw)
		}
	}},
	{"1.5 order/methods", func(c *caller) {
		c.sign = nil
		a := c.send(http.MethodGet, "", "", nil)
		if a.status != http.StatusForbidden || string(a.raw) != missingXML {
			c.Errorf("%d %q", a.status, a.raw)
		}
	}},
}
