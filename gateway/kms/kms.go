// Package kms gives the gateway the data keys with which records are encrypted.
//
// A stream's data key is 32 random bytes. The metadata keeps it wrapped, that is
// encrypted by a key that only a provider has: a keyring file on the gateways'
// machines, or AWS KMS or what speaks its API. A gateway asks the provider to
// unwrap it, and keeps what it got for a few minutes (Keys).
//
// The package knows nothing of streams' records and of metadata. The invariants
// it keeps: an unwrapped key is never on a disk nor in a log, and what a provider
// refuses, a cache does not go on giving: at once where the provider can tell
// that something has changed, else within KeyLife.
package kms

import (
	"context"
	"fmt"
)

// Provider makes and unwraps data keys with the keys that it holds.
//
// A keyID is what the caller of StartStreamEncryption gave: the id of a key, its
// ARN, "alias/NAME" or an alias's ARN. Refusals of the provider are of type
// *Error, or of Kind Corrupt if what was to be unwrapped is not what GenerateDataKey
// gave. All others mean that the provider was not reached. The caller owns the
// keys that it is given.
type Provider interface {
	// GenerateDataKey gives a new data key of KeySize bytes, and the same wrapped
	// by the key.
	GenerateDataKey(ctx context.Context, keyID string, c Context) (plain, wrapped []byte, err error)
	// Unwrap gives the data key that was wrapped by the key in the same context.
	Unwrap(ctx context.Context, keyID string, wrapped []byte, c Context) ([]byte, error)
	// Version changes whenever an Unwrap could have another outcome than before,
	// as far as the provider can know. It is called for each put and read.
	Version() uint64
}

// Context says what a data key is for. It is bound to the wrapped key, and shows
// in the audit log of a key service.
type Context struct {
	Cluster string // id of the cluster
	Stream  string // name of the stream

	// First says that nothing was ever encrypted: a provider may make its keys.
	// It is not bound to anything.
	First bool
}

// Map is the context as a key service's encryption context.
func (c Context) Map() map[string]string {
	return map[string]string{"shardstream:cluster": c.Cluster, "shardstream:stream": c.Stream}
}

// Reason says why a provider refused.
type Reason int

// The reasons, as the Kinesis API tells them apart.
const (
	AccessDenied Reason = iota + 1
	Disabled
	InvalidState
	NotFound
	OptInRequired
	Throttled
	// Unreachable is none of theirs: the provider has not answered.
	Unreachable
)

// String gives the reason as metrics name it.
func (r Reason) String() string {
	switch r {
	case AccessDenied:
		return "access_denied"
	case Disabled:
		return "disabled"
	case InvalidState:
		return "invalid_state"
	case NotFound:
		return "not_found"
	case OptInRequired:
		return "opt_in_required"
	case Throttled:
		return "throttled"
	case Unreachable:
		return "unreachable"
	}
	return "unknown"
}

// Error is a provider's refusal.
type Error struct {
	Reason  Reason
	Message string // for the client
	Err     error  // the cause, for the log; may be nil
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + " " + e.Err.Error()
	}
	return e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

func refusal(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Message: fmt.Sprintf(format, args...)}
}

// None is the provider of a gateway that was given none: it has no key.
type None struct{}

var errNone = refusal(NotFound, "No key service is set up here. Whoever runs the gateways gives all of them --kms-keyring or --kms-endpoint.")

// GenerateDataKey refuses.
func (None) GenerateDataKey(context.Context, string, Context) ([]byte, []byte, error) {
	return nil, nil, errNone
}

// Unwrap refuses.
func (None) Unwrap(context.Context, string, []byte, Context) ([]byte, error) { return nil, errNone }

// Version is always the same.
func (None) Version() uint64 { return 0 }
