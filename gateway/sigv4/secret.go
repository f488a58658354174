package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"sync"
	"sync/atomic"
	"time"
)

// Secret is what belongs to an access key. It must not be copied: it keeps the
// keys that it has derived.
type Secret struct {
	// Set once.
	Key     string
	Token   string    // session token that must come with the key; "" for none
	Expires time.Time // zero: never

	derived atomic.Pointer[[]*signingKey] // immutable; the newest last
}

// maxDerived bounds the keys that are kept of one secret: two days, some regions.
const maxDerived = 8

// signingKey is a secret's key for one day, region and service. The service is
// the one of the process.
type signingKey struct {
	day, region string
	macs        sync.Pool // hash.Hash that begin with the key
}

// key gives the key of a day and region: one that is kept, or a new one. New ones
// are kept only once a right signature has used them, so that whoever merely
// knows an access key can't push out the others.
func (s *Secret) key(service string, day, region []byte) *signingKey {
	for _, k := range s.kept() {
		if k.day == string(day) && k.region == string(region) {
			return k
		}
	}
	key := derive(s.Key, string(day), string(region), service)
	k := &signingKey{day: string(day), region: string(region)}
	k.macs.New = func() any { return hmac.New(sha256.New, key) }
	return k
}

func (s *Secret) kept() []*signingKey {
	if p := s.derived.Load(); p != nil {
		return *p
	}
	return nil
}

// keep keeps a key for the next request. Of two that are kept at the same time
// one may be lost, and is derived again.
func (s *Secret) keep(k *signingKey) {
	old := s.derived.Load()
	var list []*signingKey
	if old != nil {
		list = *old
	}
	for _, have := range list {
		if have.day == k.day && have.region == k.region {
			return
		}
	}
	next := append(make([]*signingKey, 0, maxDerived), list[max(0, len(list)-maxDerived+1):]...)
	next = append(next, k)
	s.derived.CompareAndSwap(old, &next)
}

func derive(secret, day, region, service string) []byte {
	key := []byte("AWS4" + secret)
	for _, part := range []string{day, region, service, terminator} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return key
}

// sign appends the signature of text.
func (k *signingKey) sign(dst, text []byte) []byte {
	mac := k.macs.Get().(hash.Hash)
	mac.Reset()
	mac.Write(text)
	dst = mac.Sum(dst)
	k.macs.Put(mac)
	return dst
}

// admit checks the session token of a request with a right signature, and that
// the key is still good.
func (s *Secret) admit(token []byte, now time.Time) *Refusal {
	if subtle.ConstantTimeCompare(token, []byte(s.Token)) != 1 {
		return &Refusal{Reason: BadToken}
	}
	if !s.Expires.IsZero() && !now.Before(s.Expires) {
		return &Refusal{Reason: KeyExpired}
	}
	return nil
}
