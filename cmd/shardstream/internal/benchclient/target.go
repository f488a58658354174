// Package benchclient is the Kinesis client that the load generator measures
// with: HTTP/1.1 over kept-alive connections, with requests built once and
// patched in place, so that the client takes as little as it can of the
// processors that it shares with the server under test.
//
// It is no client for applications: one request at a time on a connection, no
// retries, and of every answer only what a measurement needs. The invariant it
// keeps: nothing is sent twice, so a record found twice was stored twice.
package benchclient

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Target is an endpoint to measure.
type Target struct {
	url     *url.URL
	address string // host and port to dial
	tls     *tls.Config

	// Signing, all unset for an endpoint that checks no signatures.
	region      string
	credentials aws.CredentialsProvider
}

// NewTarget makes a target of a URL, http or https.
func NewTarget(endpoint string) (*Target, error) {
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("want http://HOST:PORT or https://HOST:PORT")
	}
	t := &Target{url: u, address: u.Host}
	if u.Port() == "" {
		t.address = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	if u.Scheme == "https" {
		t.tls = &tls.Config{ServerName: u.Hostname(), NextProtos: []string{"http/1.1"}}
	}
	return t, nil
}

// SkipVerify makes https connections trust any certificate.
func (t *Target) SkipVerify() {
	if t.tls != nil {
		t.tls.InsecureSkipVerify = true
	}
}

// Sign makes every request carry a true SigV4 signature. That costs the client
// a hash of the whole body.
func (t *Target) Sign(region string, credentials aws.CredentialsProvider) {
	t.region, t.credentials = region, credentials
}

// Request is a request as it goes over the wire. Its body may be changed in
// place between two sendings.
type Request struct {
	op   string
	wire []byte
	body int // where the body begins in wire
}

// Body gives the request's body, to be patched in place.
func (r *Request) Body() []byte { return r.wire[r.body:] }

// NewRequest makes a request of an operation's name and its JSON.
func (t *Target) NewRequest(op string, body []byte) *Request {
	r := &Request{op: op}
	r.wire = t.appendHeader(nil, op, len(body))
	if t.credentials == nil {
		// Some emulators look whether there is a signature, and no further.
		r.wire = fmt.Appendf(r.wire, "X-Amz-Date: 20200101T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 "+
			"Credential=bench/20200101/us-east-1/kinesis/aws4_request, SignedHeaders=host;x-amz-date, Signature=%064d\r\n", 0)
	}
	r.wire = append(r.wire, "\r\n"...)
	r.body = len(r.wire)
	r.wire = append(r.wire, body...)
	return r
}

const contentType = "application/x-amz-json-1.1"

func (t *Target) appendHeader(dst []byte, op string, bodyLen int) []byte {
	path := t.url.EscapedPath()
	if path == "" {
		path = "/"
	}
	dst = append(dst, "POST "+path+" HTTP/1.1\r\nHost: "+t.url.Host+"\r\nContent-Type: "+contentType+
		"\r\nX-Amz-Target: Kinesis_20131202."+op+"\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(bodyLen), 10)
	return append(dst, "\r\n"...)
}

// signedHeader gives the whole header for a body, signed now.
func (t *Target) signedHeader(ctx context.Context, op string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Amz-Target", "Kinesis_20131202."+op)
	if err := t.sign(ctx, r, body); err != nil {
		return nil, err
	}
	header := t.appendHeader(nil, op, len(body))
	for _, name := range []string{"X-Amz-Date", "X-Amz-Security-Token", "Authorization"} {
		if v := r.Header.Get(name); v != "" {
			header = append(header, name+": "+v+"\r\n"...)
		}
	}
	return append(header, "\r\n"...), nil
}

func (t *Target) sign(ctx context.Context, r *http.Request, body []byte) error {
	credentials, err := t.credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	return v4.NewSigner().SignHTTP(ctx, credentials, r, hex.EncodeToString(sum[:]), "kinesis", t.region, time.Now())
}
