package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// Buffers of bodies come in these sizes and are used again. A body up to
// firstRead gets its whole buffer at once; a larger one has to have sent
// firstRead bytes before more is set aside for it, so that a declared length
// alone costs us little.
var bufferSizes = [...]int{16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20}

const firstRead = 1 << 20

var bufferPools [len(bufferSizes)]sync.Pool

// sizeClass gives the place in bufferSizes for n bytes, len(bufferSizes) if n
// is larger than all.
func sizeClass(n int) int {
	for i, size := range bufferSizes {
		if n <= size {
			return i
		}
	}
	return len(bufferSizes)
}

func getBuffer(n int) []byte {
	class := sizeClass(n)
	if class == len(bufferSizes) {
		return make([]byte, 0, n)
	}
	if b, ok := bufferPools[class].Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, bufferSizes[class])
}

func putBuffer(b []byte) {
	// A buffer that has grown by append fits the class below its capacity.
	class := sizeClass(cap(b)+1) - 1
	if class < 0 {
		return
	}
	b = b[:0]
	bufferPools[class].Put(&b)
}

var (
	errBodyTooLarge = errors.New("body too large")
	errSlowBody     = errors.New("body came too slowly")
)

// body is a request's body and what it holds of the budget.
type body struct {
	bytes []byte
	held  int64
}

func (g *Gateway) releaseBody(b *body) {
	if b.bytes != nil {
		putBuffer(b.bytes)
		b.bytes = nil
	}
	g.budget.release(b.held)
	b.held = 0
}

// bodyReader is where a body comes from.
type bodyReader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// httpBody is the body of a request of net/http.
type httpBody struct {
	io.Reader
	*http.ResponseController
}

// readBody reads the whole body into a pooled buffer. The body must be released
// in any case. Errors: errBodyTooLarge, errSlowBody, Kind Throttled when the
// budget is used up, or that of the connection.
func (g *Gateway) readBody(ctx context.Context, r bodyReader, length int64, b *body) error {
	limit := g.cfg.MaxBody
	if length > int64(limit) {
		return errBodyTooLarge
	}
	if length == 0 {
		return nil
	}
	want := limit
	if length > 0 {
		want = int(length)
	} else {
		want = min(limit, bufferSizes[0])
	}
	pace := g.newPace()
	if err := g.growBody(ctx, b, min(want, firstRead)); err != nil {
		return err
	}
	var err error
	for length < 0 || len(b.bytes) < int(length) {
		if len(b.bytes) == cap(b.bytes) {
			if len(b.bytes) >= limit {
				// Full to the brim: it fits only if nothing follows.
				var one [1]byte
				n, e := io.ReadFull(r, one[:])
				if n > 0 {
					err = errBodyTooLarge
				} else if e != io.EOF {
					err = e
				}
				break
			}
			next := min(limit, 4*cap(b.bytes))
			if length > 0 {
				next = max(want, cap(b.bytes)+1)
			}
			if err = g.growBody(ctx, b, next); err != nil {
				break
			}
		}
		// The deadline follows the progress, so that a long body may take
		// long and a trickle may not. Not every writer has deadlines.
		_ = r.SetReadDeadline(pace.deadline(len(b.bytes)))
		room := b.bytes[len(b.bytes):min(cap(b.bytes), len(b.bytes)+256<<10)]
		n, e := r.Read(room)
		b.bytes = b.bytes[:len(b.bytes)+n]
		if e == io.EOF && int64(len(b.bytes)) >= length {
			break
		}
		if e != nil {
			err = e
			break
		}
	}
	switch {
	case err == nil && len(b.bytes) > limit:
		err = errBodyTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errSlowBody
	}
	if err == nil {
		// The server's own read for a closed connection must not run into it.
		_ = r.SetReadDeadline(time.Time{})
	}
	return err
}

// acquire takes n bytes of the budget, and waits for them within ctx and
// RequestTimeout. ctx is only asked for when there is something to wait for.
func (g *Gateway) acquire(ctx func() context.Context, n int64) error {
	if g.budget.tryAcquire(n) {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx(), g.cfg.RequestTimeout)
	defer cancel()
	return g.budget.acquire(waiting, n)
}

// growBody makes room for n bytes in all.
func (g *Gateway) growBody(ctx context.Context, b *body, n int) error {
	larger := getBuffer(n)
	need := int64(cap(larger))
	if need > g.budget.size {
		need = g.budget.size
	}
	if err := g.acquire(func() context.Context { return ctx }, need-b.held); err != nil {
		putBuffer(larger)
		return err
	}
	b.held = need
	if b.bytes != nil {
		larger = append(larger, b.bytes...)
		putBuffer(b.bytes)
	}
	b.bytes = larger
	return nil
}

// pace says until when n bytes must have passed.
type pace struct {
	start time.Time
	grace time.Duration
	rate  int
}

func (g *Gateway) newPace() pace {
	// Deadlines of connections are times of the real clock.
	return pace{start: time.Now(), grace: g.cfg.BodyGrace, rate: g.cfg.BodyRate}
}

func (p pace) deadline(n int) time.Time {
	return p.start.Add(p.grace + time.Duration(n)*time.Second/time.Duration(p.rate))
}
