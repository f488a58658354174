package sigv4

import "time"

// Reason says why a request is refused, in the order in which it is looked for.
type Reason int

// The reasons.
const (
	Missing          Reason = iota + 1 // no signature
	Double                             // one in the header and one in the query
	Incomplete                         // parts of it are missing: see Lacks
	BadDate                            // the time can't be read: Value
	Expired                            // Time is too long ago
	NotYetCurrent                      // Time is too far ahead
	HostNotSigned                      // neither host nor :authority is signed
	UnknownAlgorithm                   // Value
	BadCredential                      // not five parts: Value
	WrongScope                         // signed for something else: see Scope
	UnknownKey                         // nobody has that access key
	Mismatch                           // the signature is wrong
	BadToken                           // the session token is not the key's
	KeyExpired                         // the key is no longer good
)

// Refusal is why a request is not let through. Which fields are set depends on
// the reason.
type Refusal struct {
	Reason Reason
	Header string    // the Authorization header; "" where the query is signed
	Lacks  Parts     // of Incomplete
	Value  string    // as sent
	Time   time.Time // of the request
	Scope  ScopeFaults

	// What should have been signed, of Mismatch, for a log that people read.
	Canonical, ToSign string
}

// Parts are parts of a signature.
type Parts struct{ Algorithm, Credential, Signature, SignedHeaders, Date bool }

// ScopeFaults are the wrong parts of a credential's scope as sent; "" for right
// ones.
type ScopeFaults struct{ Region, Service, Terminator, Day string }
