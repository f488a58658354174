package kms

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"shardstream/stream"
)

// fakeProvider unwraps what it is told to, and counts.
type fakeProvider struct {
	version atomic.Uint64
	calls   atomic.Int64
	hold    chan struct{} // unless nil: an Unwrap waits until it is closed

	mu   sync.Mutex
	fail error
}

func (p *fakeProvider) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

func (p *fakeProvider) GenerateDataKey(context.Context, string, Context) (plain, wrapped []byte, err error) {
	return bytes.Repeat([]byte{1}, KeySize), []byte("wrapped"), nil
}

func (p *fakeProvider) Unwrap(ctx context.Context, keyID string, wrapped []byte, c Context) ([]byte, error) {
	p.calls.Add(1)
	if p.hold != nil {
		select {
		case <-p.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Repeat([]byte{1}, KeySize), p.fail
}

func (p *fakeProvider) Version() uint64 { return p.version.Load() }

func newTestKeys(t *testing.T, p Provider) *Keys {
	k := NewKeys(p, time.Now, func(string, string) {})
	t.Cleanup(k.Close)
	return k
}

var testKey = DataKey{Stream: 1, ID: 1, KeyID: "k", Wrapped: []byte("wrapped")}

// get gives the reason of the refusal, 0 if there was none.
func get(t *testing.T, k *Keys, d DataKey) Reason {
	t.Helper()
	aead, err := k.Get(t.Context, d)
	var refused *Error
	switch {
	case err == nil && aead != nil:
		return 0
	case errors.As(err, &refused) && aead == nil:
		return refused.Reason
	}
	t.Fatalf("%v, %v", aead, err)
	return 0
}

func TestKeysAreKeptForTheirLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProvider{}
		k := NewKeys(p, time.Now, func(string, string) {})
		defer k.Close()
		calls := func(want int64) {
			t.Helper()
			synctest.Wait()
			if got := p.calls.Load(); got != want {
				t.Fatalf("%d calls, not %d", got, want)
			}
		}
		for range 3 {
			get(t, k, testKey)
		}
		calls(1)
		time.Sleep(KeyLife - renewBefore)
		get(t, k, testKey) // in use near its end: unwrapped again, beside
		calls(2)
		time.Sleep(KeyLife - renewBefore - time.Second)
		get(t, k, testKey)
		calls(2)
		time.Sleep(KeyLife) // not in use: ends
		get(t, k, testKey)
		calls(3)
		// Another key of the stream is another entry.
		other := testKey
		other.ID = 2
		get(t, k, other)
		calls(4)
	})
}

// TestWhatIsRefusedEnds: at the next renewal, or at once if the provider says
// that it has changed.
func TestWhatIsRefusedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProvider{}
		k := NewKeys(p, time.Now, func(string, string) {})
		defer k.Close()
		get(t, k, testKey)
		p.set(refusal(Disabled, "off"))
		if r := get(t, k, testKey); r != 0 {
			t.Fatalf("a key in its life: %v", r)
		}
		time.Sleep(KeyLife - renewBefore)
		get(t, k, testKey)
		synctest.Wait()
		if r := get(t, k, testKey); r != Disabled {
			t.Fatalf("after the renewal: %v", r)
		}
		// Asked again once a second only.
		before := p.calls.Load()
		p.set(nil)
		if r := get(t, k, testKey); r != Disabled || p.calls.Load() != before {
			t.Fatalf("within the second: %v, %d calls", r, p.calls.Load()-before)
		}
		time.Sleep(refusalLife)
		if r := get(t, k, testKey); r != 0 {
			t.Fatalf("enabled again: %v", r)
		}
		// Both ways at once when the provider has changed.
		for _, fail := range []error{refusal(InvalidState, "gone"), nil, stream.Errorf(stream.Corrupt, "", "x"), nil} {
			p.set(fail)
			p.version.Add(1)
			if _, err := k.Get(t.Context, testKey); (err == nil) != (fail == nil) {
				t.Fatalf("got %v, not %v", err, fail)
			}
		}
	})
}

// TestAProviderThatIsAwayTakesNoKeysAway: until the end of their life.
func TestAProviderThatIsAwayTakesNoKeysAway(t *testing.T) {
	for _, away := range []error{errors.New("connection refused"), refusal(Throttled, "slowly")} {
		synctest.Test(t, func(t *testing.T) {
			p := &fakeProvider{}
			k := NewKeys(p, time.Now, func(string, string) {})
			defer k.Close()
			get(t, k, testKey)
			p.set(away)
			time.Sleep(KeyLife - renewBefore)
			for range 59 {
				if r := get(t, k, testKey); r != 0 {
					t.Fatalf("%v: %v", away, r)
				}
				time.Sleep(time.Second)
			}
			if n := p.calls.Load(); n < 30 {
				t.Errorf("%d calls: it is not tried again", n)
			}
			time.Sleep(time.Second)
			if r := get(t, k, testKey); r != Unreachable && r != Throttled {
				t.Fatalf("%v, after its life: %v", away, r)
			}
			p.set(nil)
			time.Sleep(refusalLife)
			if r := get(t, k, testKey); r != 0 {
				t.Fatalf("back again: %v", r)
			}
		})
	}
}

func TestOneCallForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProvider{hold: make(chan struct{})}
		k := NewKeys(p, time.Now, func(string, string) {})
		defer k.Close()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { get(t, k, testKey) })
		}
		synctest.Wait()
		// Who can't wait any longer does not end the call of the others.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := k.Get(func() context.Context { return ctx }, testKey); !errors.Is(err, stream.Timeout) {
			t.Errorf("given up: %v", err)
		}
		close(p.hold)
		wg.Wait()
		if n := p.calls.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// TestCallsEnd: with their time, and with the cache.
func TestCallsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProvider{hold: make(chan struct{})}
		k := NewKeys(p, time.Now, func(string, string) {})
		started := time.Now()
		if r := get(t, k, testKey); r != Unreachable || time.Since(started) != callTimeout {
			t.Errorf("%v after %v", r, time.Since(started))
		}
		time.Sleep(refusalLife)
		done := make(chan Reason)
		go func() { done <- get(t, k, testKey) }()
		synctest.Wait()
		k.Close()
		if r := <-done; r != Unreachable {
			t.Errorf("%v", r)
		}
		if _, err := k.Get(t.Context, testKey); !errors.Is(err, stream.Unavailable) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestKeysAreBounded(t *testing.T) {
	k := newTestKeys(t, &fakeProvider{})
	for i := range uint32(maxKeys + 100) {
		d := testKey
		d.ID = i + 1
		get(t, k, d)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.entries); n != maxKeys {
		t.Errorf("%d keys", n)
	}
}

func BenchmarkGet(b *testing.B) {
	k := NewKeys(&fakeProvider{}, time.Now, func(string, string) {})
	defer k.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Get(b.Context, testKey); err != nil {
			b.Fatal(err)
		}
	}
}
