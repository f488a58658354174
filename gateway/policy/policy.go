// Package policy reads resource policies, as PutResourcePolicy takes them, and
// says what they decide. It is pure: it knows neither streams nor keys.
//
// What it has of IAM's language: Effect, Principal and NotPrincipal, Action and
// NotAction, Resource and NotResource, with * and ? in actions and resources. It
// has no conditions. The invariant it keeps is that this never opens anything: a
// statement with a Condition never allows, and always denies what it would deny
// without.
package policy

import "slices"

// Request is what a policy decides about.
type Request struct {
	Principal string // ARN of the caller
	Account   string // of the caller, 12 digits
	Action    string // kinesis:PutRecord
	Resource  string // ARN
}

// Decision is what a policy says to a request.
type Decision int

// The decisions. A Deny in any statement wins.
const (
	None         Decision = iota // nothing in it is about the request
	AllowAccount                 // the caller's account may, and has to say itself who in it
	Allow                        // the caller may
	Deny
)

// Document is a policy that has been read. It is immutable.
type Document struct{ statements []statement }

type statement struct {
	deny        bool
	conditional bool
	principals  principals
	notPrincip  bool // all but principals
	actions     []string
	notAction   bool
	resources   []string
	notResource bool
}

// principals are those whom a statement names. Services and federated users are
// never among our callers.
type principals struct {
	everyone bool
	accounts []string // 12 digits
	arns     []string
}

// Evaluate decides. A nil document says nothing.
func (d *Document) Evaluate(r Request) Decision {
	decision := None
	if d == nil {
		return decision
	}
	for i := range d.statements {
		s := &d.statements[i]
		who := s.names(r)
		if who == None || !s.isAbout(r) {
			continue
		}
		switch {
		case s.deny:
			return Deny
		case !s.conditional:
			decision = max(decision, who)
		}
	}
	return decision
}

// names says how a statement names the caller: Allow by name or as everyone,
// AllowAccount by the account alone, None not at all.
func (s *statement) names(r Request) Decision {
	p := &s.principals
	by := None
	switch {
	case p.everyone, slices.Contains(p.arns, r.Principal):
		by = Allow
	case slices.Contains(p.accounts, r.Account):
		by = AllowAccount
	}
	if !s.notPrincip {
		return by
	}
	if by == None {
		return Allow
	}
	return None
}

func (s *statement) isAbout(r Request) bool {
	action := slices.ContainsFunc(s.actions, func(p string) bool { return MatchAction(p, r.Action) })
	resource := slices.ContainsFunc(s.resources, func(p string) bool { return MatchARN(p, r.Resource) })
	return action != s.notAction && resource != s.notResource
}
