package kms

import (
	"context"
	"crypto/cipher"
	"errors"
	"sync"
	"time"

	"shardstream/stream"
)

// Times of the cache.
const (
	// KeyLife is how long an unwrapped key is used without asking the provider.
	KeyLife = 5 * time.Minute
	// renewBefore is how long before the end of its life a key that is in use is
	// unwrapped again, beside the requests.
	renewBefore = time.Minute
	// refusalLife is how long a refusal or failure is answered without asking again:
	// clients retry, and the provider counts calls.
	refusalLife = time.Second
	// callTimeout bounds a call of the provider, its own retries included.
	callTimeout = 5 * time.Second
)

// maxKeys bounds the cached keys. Streams have one or a few each; above it some
// are unwrapped more often.
const maxKeys = 10_000

// DataKey is a wrapped data key of a stream, as the metadata has it.
type DataKey struct {
	Stream  uint64 // id of the stream
	ID      uint32 // of the key within the stream
	KeyID   string // of the wrapping key
	Wrapped []byte
	Context Context
}

// Keys gives unwrapped data keys, and keeps them for KeyLife. Each key is
// unwrapped by one call at a time, for all who wait for it.
type Keys struct {
	provider Provider
	now      func() time.Time
	observe  func(call, outcome string)

	ctx    context.Context // of the calls; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex            // protects all below
	entries map[keyName]*keyEntry // at most maxKeys
	closed  bool
}

type keyName struct {
	stream uint64
	id     uint32
}

// keyEntry is a data key in the cache, or why there is none.
type keyEntry struct {
	version uint64      // of the provider when it was asked
	aead    cipher.AEAD // nil: none
	until   time.Time   // aead is good until then
	renew   time.Time   // and is unwrapped again from then on, if it is asked for
	err     error       // without aead: why; good until retry
	retry   time.Time
	call    *unwrapCall // under way, else nil
}

type unwrapCall struct {
	version uint64
	done    chan struct{} // closed when the others are set
	aead    cipher.AEAD
	err     error
}

// NewKeys makes the cache of a provider. now is the clock. observe is told of
// each call of the provider, "generate" or "unwrap", and of its outcome: "ok", a
// Reason, or "failed". Close ends it.
func NewKeys(p Provider, now func() time.Time, observe func(call, outcome string)) *Keys {
	ctx, cancel := context.WithCancel(context.Background())
	return &Keys{provider: p, now: now, observe: observe, ctx: ctx, cancel: cancel, entries: make(map[keyName]*keyEntry)}
}

// Close ends the calls under way and waits for them.
func (k *Keys) Close() {
	k.mu.Lock()
	k.closed = true
	clear(k.entries)
	k.mu.Unlock()
	k.cancel()
	k.wg.Wait()
}

// Generate makes a data key and gives it wrapped. Errors are of type *Error, or of
// Kind Corrupt.
func (k *Keys) Generate(ctx context.Context, keyID string, c Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	plain, wrapped, err := k.provider.GenerateDataKey(ctx, keyID, c)
	if err == nil && len(plain) != KeySize {
		err = stream.Errorf(stream.Corrupt, "kms.Generate", "a data key of %d bytes", len(plain))
	}
	clear(plain)
	if err = kinded(err); err != nil {
		wrapped = nil
	}
	k.observe("generate", outcome(err))
	return wrapped, err
}

// Get gives the AEAD of a data key. Errors are of type *Error, or of Kind Corrupt,
// Unavailable after Close, and Timeout when the context ends first. It is called
// for if there is something to wait for, which is rare.
func (k *Keys) Get(ctx func() context.Context, d DataKey) (cipher.AEAD, error) {
	version, now := k.provider.Version(), k.now()
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil, stream.Errorf(stream.Unavailable, "kms.Get", "the gateway is stopping")
	}
	e := k.entryLocked(keyName{d.Stream, d.ID}, now)
	if e.version == version {
		switch {
		case e.aead != nil && now.Before(e.until):
			if e.call == nil && !now.Before(e.renew) {
				k.unwrapLocked(e, d, version)
			}
			aead := e.aead
			k.mu.Unlock()
			return aead, nil
		case e.err != nil && now.Before(e.retry):
			err := e.err
			k.mu.Unlock()
			return nil, err
		}
	}
	if e.call == nil || e.call.version != version {
		k.unwrapLocked(e, d, version)
	}
	call := e.call
	k.mu.Unlock()
	waiting := ctx()
	select {
	case <-call.done:
		return call.aead, call.err
	case <-waiting.Done():
		return nil, stream.Errorf(stream.Timeout, "kms.Get", "waiting for a data key: %w", context.Cause(waiting))
	}
}

// entryLocked gives the key's entry, and makes it if there is none. Of a full
// cache it drops what has ended, else any.
func (k *Keys) entryLocked(name keyName, now time.Time) *keyEntry {
	if e := k.entries[name]; e != nil {
		return e
	}
	if len(k.entries) >= maxKeys {
		for n, e := range k.entries {
			if e.call == nil && !now.Before(e.until) && !now.Before(e.retry) {
				delete(k.entries, n)
			}
		}
	}
	for n := range k.entries {
		if len(k.entries) < maxKeys {
			break
		}
		delete(k.entries, n)
	}
	e := &keyEntry{}
	k.entries[name] = e
	return e
}

// unwrapLocked starts the key's unwrapping.
func (k *Keys) unwrapLocked(e *keyEntry, d DataKey, version uint64) {
	call := &unwrapCall{version: version, done: make(chan struct{})}
	e.call = call
	k.wg.Go(func() {
		ctx, cancel := context.WithTimeout(k.ctx, callTimeout)
		defer cancel()
		call.aead, call.err = k.unwrap(ctx, d)
		k.observe("unwrap", outcome(call.err))
		k.mu.Lock()
		defer k.mu.Unlock()
		defer close(call.done)
		if e.call == call { // else the provider has changed, and was asked again
			e.take(call, k.now())
		}
	})
}

func (k *Keys) unwrap(ctx context.Context, d DataKey) (cipher.AEAD, error) {
	plain, err := k.provider.Unwrap(ctx, d.KeyID, d.Wrapped, d.Context)
	if err != nil {
		return nil, kinded(err)
	}
	defer clear(plain)
	aead, err := NewXAES(plain)
	if err != nil {
		return nil, stream.Errorf(stream.Corrupt, "kms.Unwrap", "%w", err)
	}
	return aead, nil
}

// take notes how a call ended. A provider that was not reached takes no key
// away, but what it refuses is gone.
func (e *keyEntry) take(call *unwrapCall, now time.Time) {
	e.call = nil
	switch {
	case call.err == nil:
		e.aead, e.until, e.renew = call.aead, now.Add(KeyLife), now.Add(KeyLife-renewBefore)
		e.err = nil
	case !isRefusal(call.err) && e.aead != nil && e.version == call.version && now.Before(e.until):
		e.renew = now.Add(refusalLife)
	default:
		e.aead = nil
		e.err, e.retry = call.err, now.Add(refusalLife)
	}
	e.version = call.version
}

// isRefusal tells the provider's word about the key from the failure to get it.
func isRefusal(err error) bool {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Reason != Throttled && refused.Reason != Unreachable
	}
	return true
}

// kinded gives errors that have neither a Reason nor a Kind the Reason
// Unreachable.
func kinded(err error) error {
	var refused *Error
	var known *stream.Error
	if err == nil || errors.As(err, &refused) || errors.As(err, &known) {
		return err
	}
	return &Error{Unreachable, "The key service did not answer.", err}
}

func outcome(err error) string {
	var refused *Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &refused):
		return refused.Reason.String()
	}
	return "failed"
}
