// Package credentials is what a gateway knows of its callers: the access keys of
// a credentials file, and what each may do. It is pure: reading the file, and
// reading it again, is the command line's business.
package credentials

import (
	"slices"
	"strings"

	"shardstream/gateway/policy"
	"shardstream/gateway/sigv4"
)

// Set is the content of a credentials file. It is immutable.
type Set struct{ byKey map[string]*Credential }

// Find gives the credential of an access key, nil if there is none.
func (s *Set) Find(accessKey []byte) *Credential { return s.byKey[string(accessKey)] }

// Len gives the number of access keys.
func (s *Set) Len() int { return len(s.byKey) }

// Credential is an access key and what its holder may do.
type Credential struct {
	AccessKey string
	Secret    sigv4.Secret

	user    string   // name or ARN
	actions []string // kinesis:PATTERN; nil: all
	streams []string // patterns of names or ARNs; nil: all
}

// Resource is what a call is about: a stream, a consumer of one, or the whole
// account.
type Resource struct {
	Name   string // of the stream; "" if it is not known
	ARN    string // of the stream or of the consumer
	Stream string // ARN of the stream
	// Account says that the call names no stream by its nature, such as ListStreams.
	Account bool
}

// Principal gives the caller's ARN, and the account that it belongs to. account
// is ours, in which users without an ARN of their own are.
func (c *Credential) Principal(account string) (arn, of string) {
	if !c.hasARN() {
		return "arn:aws:iam::" + account + ":user/" + c.user, account
	}
	return c.user, strings.SplitN(c.user, ":", 6)[4]
}

func (c *Credential) hasARN() bool { return strings.HasPrefix(c.user, "arn:") }

// IsFree reports whether the credential may do everything in that account, which
// is its own.
func (c *Credential) IsFree(account string) bool {
	if c.actions != nil || c.streams != nil {
		return false
	}
	if !c.hasARN() {
		return true
	}
	_, of := c.Principal(account)
	return of == account
}

// Allows reports whether the credential's own lists allow an action, such as
// kinesis:PutRecord. Calls about the whole account are allowed to a key with a
// list of streams only if its list of actions has them.
func (c *Credential) Allows(action string, r Resource) bool {
	if c.actions != nil && !slices.ContainsFunc(c.actions, func(p string) bool { return policy.MatchAction(p, action) }) {
		return false
	}
	if c.streams == nil {
		return true
	}
	if r.Account {
		return c.actions != nil
	}
	return slices.ContainsFunc(c.streams, func(p string) bool {
		if !strings.HasPrefix(p, "arn:") {
			return policy.Match(p, r.Name)
		}
		return policy.MatchARN(p, r.ARN) || policy.MatchARN(p, r.Stream)
	})
}
