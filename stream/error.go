package stream

import (
	"errors"
	"fmt"
)

// Kind is the closed list of reasons for which anything in Shardstream fails.
// The numbers travel over the wire and never change.
type Kind uint8

// The kinds. Retryable ones say that the same call may succeed later.
const (
	Internal      Kind = 1  // a fault of ours; the text stays in the log
	NotFound      Kind = 2  // stream, shard or replica does not exist
	AlreadyExists Kind = 3  // a stream of that name exists
	WrongState    Kind = 4  // the stream is not in a state that allows it
	LimitExceeded Kind = 5  // a quota refuses it
	Invalid       Kind = 6  // the arguments can never be accepted
	NotLeader     Kind = 7  // retryable: ask the leader
	Offline       Kind = 8  // retryable: the shard has no leader that may serve
	Throttled     Kind = 9  // retryable: over a rate, or a queue is full
	DiskFull      Kind = 10 // retryable: below the disk reserve
	Unavailable   Kind = 11 // retryable: stopping, starting, or no majority
	Corrupt       Kind = 12 // stored data failed its checksum
	Stale         Kind = 13 // a compare-and-set met another version or epoch
	Gap           Kind = 14 // a batch does not begin at the log's end
	Timeout       Kind = 15 // retryable: the outcome is unknown
)

var kindNames = [...]string{
	Internal: "internal fault", NotFound: "not found", AlreadyExists: "already exists",
	WrongState: "wrong state", LimitExceeded: "limit exceeded", Invalid: "invalid",
	NotLeader: "not the leader", Offline: "offline", Throttled: "throttled",
	DiskFull: "disk almost full", Unavailable: "unavailable", Corrupt: "corrupt data",
	Stale: "stale version", Gap: "gap in offsets", Timeout: "timed out",
}

// Kinds lists every kind, for tests that must not forget one.
func Kinds() []Kind {
	kinds := make([]Kind, 0, len(kindNames)-1)
	for k := Internal; int(k) < len(kindNames); k++ {
		kinds = append(kinds, k)
	}
	return kinds
}

// String gives the kind's name in words.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind %d", k)
	}
	return kindNames[k]
}

// Error makes a Kind usable as the target of errors.Is.
func (k Kind) Error() string { return k.String() }

// Error is the one error type that crosses package and process borders.
type Error struct {
	Kind Kind
	Op   string // what was being done, "recordlog.Append"; may be empty
	Err  error  // the cause or the detail; may be nil
}

// Errorf makes an *Error with a formatted detail; %w wraps a cause.
func Errorf(kind Kind, op, format string, args ...any) *Error {
	return &Error{Kind: kind, Op: op, Err: fmt.Errorf(format, args...)}
}

// Error gives "op: kind: detail".
func (e *Error) Error() string {
	s := e.Kind.String()
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, stream.NotLeader) true for an error of that kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf gives the kind of an error: Internal for one that is not ours, 0 for nil.
func KindOf(err error) Kind {
	if err == nil {
		return 0
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Internal
}
