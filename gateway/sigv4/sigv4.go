// Package sigv4 verifies AWS Signature Version 4, in the Authorization header and
// in the query, as services other than S3 do. It is the receiving side only, and
// pure: it knows neither HTTP servers nor files nor clocks.
//
// The invariant it keeps: a request that is let through has, in every part that
// its signature covers, the very bytes that whoever has the secret key signed,
// and a time within Skew of now. What is covered is the signer's choice but for
// method, path, query, host, time and body, which always are; UNSIGNED-PAYLOAD in
// x-amz-content-sha256 leaves the body out. A signature in the query is good for
// Skew as any other: X-Amz-Expires is not looked at.
//
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
package sigv4

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"sync"
	"time"
)

// Skew is how far the time of a request may be from ours.
const Skew = 5 * time.Minute

const (
	algorithm       = "AWS4-HMAC-SHA256"
	terminator      = "aws4_request"
	unsignedPayload = "UNSIGNED-PAYLOAD"
)

// Fields are the header fields of a request.
type Fields interface {
	// Append appends the value of the i-th field of that lower-case name, as it
	// was sent; false if there are no more. "host" is there also where HTTP/2 had
	// :authority.
	Append(dst, name []byte, i int) ([]byte, bool)
}

// Request is a request as it was received.
type Request struct {
	Method string
	Path   string // as sent, with its escapes
	Query  string // as sent, without the question mark
	Fields Fields
	Body   []byte
}

// Scope is what signatures have to be for.
type Scope struct {
	Service string
	Region  string // "": any
}

// Verify checks the signature of a request; nil lets it through. find gives the
// secret of an access key, nil if there is none; it must not keep its argument.
// The checks come in AWS's order.
func (s Scope) Verify(r *Request, find func(accessKey []byte) *Secret, now time.Time) *Refusal {
	w := works.Get().(*work)
	defer works.Put(w)
	w.reset()
	if refusal := w.read(r); refusal != nil {
		return refusal
	}
	if refusal := s.judge(w, now.UTC().Truncate(time.Second)); refusal != nil {
		return refusal
	}
	secret := find(w.accessKey)
	if secret == nil {
		return &Refusal{Reason: UnknownKey}
	}
	if refusal := w.verify(r, secret, s.Service); refusal != nil {
		return refusal
	}
	return secret.admit(w.token, now)
}

// work is what one verification needs. It is used again, so that verifying does
// not allocate.
type work struct {
	header    []byte  // the Authorization header; empty for the query form
	params    []param // of the query, decoded
	date      []byte  // as sent; then as the string to sign has it
	canonical []byte

	// Point into header, or into memory of params.
	algorithm, credential, signed, signature, token []byte
	// Of credential.
	accessKey, day, region []byte

	time  time.Time
	query bool // signed in the query
}

var works = sync.Pool{New: func() any { return new(work) }}

// maxKept bounds the buffers that are kept for the next request.
const maxKept = 16 << 10

func (w *work) reset() {
	keep := func(b []byte) []byte {
		if cap(b) > maxKept {
			return nil
		}
		return b[:0]
	}
	params := w.params[:0]
	clear(w.params)
	*w = work{header: keep(w.header), date: keep(w.date), canonical: keep(w.canonical), params: params}
}

// judge checks what needs no secret.
func (s Scope) judge(w *work, now time.Time) *Refusal {
	var ok bool
	if w.time, ok = parseTime(w.date); !ok {
		return &Refusal{Reason: BadDate, Value: string(w.date)}
	}
	w.date = w.time.AppendFormat(w.date[:0], isoBasic)
	if w.time.Before(now.Add(-Skew)) {
		return &Refusal{Reason: Expired, Time: w.time}
	}
	if w.time.After(now.Add(Skew)) {
		return &Refusal{Reason: NotYetCurrent, Time: w.time}
	}
	if !signsHost(w.signed) {
		return &Refusal{Reason: HostNotSigned}
	}
	if string(w.algorithm) != algorithm {
		return &Refusal{Reason: UnknownAlgorithm, Value: string(w.algorithm)}
	}
	return s.judgeCredential(w)
}

// judgeCredential takes KEY/DATE/REGION/SERVICE/aws4_request apart.
func (s Scope) judgeCredential(w *work) *Refusal {
	rest := bytes.TrimRight(w.credential, "/")
	var parts [5][]byte
	for i := range parts {
		part, more, found := bytes.Cut(rest, []byte{'/'})
		if len(part) == 0 || found != (i < len(parts)-1) {
			return &Refusal{Reason: BadCredential, Value: string(w.credential)}
		}
		parts[i], rest = part, more
	}
	w.accessKey, w.day, w.region = parts[0], parts[1], parts[2]
	var wrong ScopeFaults
	if s.Region != "" && string(w.region) != s.Region || !isRegion(w.region) {
		wrong.Region = string(w.region)
	}
	if string(parts[3]) != s.Service {
		wrong.Service = string(parts[3])
	}
	if string(parts[4]) != terminator {
		wrong.Terminator = string(parts[4])
	}
	if day := w.date[:len("20060102")]; !bytes.Equal(w.day, day) {
		wrong.Day = string(w.day)
	}
	if wrong != (ScopeFaults{}) {
		return &Refusal{Reason: WrongScope, Scope: wrong, Time: w.time}
	}
	return nil
}

// isRegion bounds what can be a region, where any will do.
func isRegion(b []byte) bool {
	for _, c := range b {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 32
}

// verify computes the signature and compares.
func (w *work) verify(r *Request, secret *Secret, service string) *Refusal {
	if !w.appendCanonical(r) {
		return &Refusal{Reason: Mismatch}
	}
	hash := sha256.Sum256(w.canonical)
	request := len(w.canonical)
	w.canonical = append(w.canonical, algorithm+"\n"...)
	w.canonical = append(w.canonical, w.date...)
	w.canonical = append(w.canonical, '\n')
	w.canonical = append(w.canonical, w.credential[len(w.accessKey)+1:]...)
	w.canonical = bytes.TrimRight(w.canonical, "/")
	w.canonical = append(w.canonical, '\n')
	w.canonical = hex.AppendEncode(w.canonical, hash[:])
	key := secret.key(service, w.day, w.region)
	var sum [sha256.Size]byte
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], key.sign(sum[:0], w.canonical[request:]))
	if subtle.ConstantTimeCompare(text[:], w.signature) != 1 {
		return &Refusal{Reason: Mismatch, Canonical: string(w.canonical[:request]), ToSign: string(w.canonical[request:])}
	}
	secret.keep(key)
	return nil
}
