package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"shardstream/gateway/kinesis"
	"shardstream/stream"
)

// The requests of SDKs over HTTP/1.1 look all the same, and net/http spends more
// on one than the storing of a record costs: a second goroutine that watches the
// connection, a map of headers, several deadlines and contexts. So they are served
// below it: from the first Read of a new connection on, plain requests are read,
// answered and not shown to net/http. With the first bytes that are no plain
// request the connection is net/http's for good, which sees them untouched and
// judges them: HTTP/2, TLS records, other methods and paths, chunked bodies, our
// own probes, and every mistake.
//
// What is plain is in quick_head.go. It is a strict part of what net/http takes,
// so that no request means one thing here and another there.

// quickBuffer holds a head, and the body if it fits behind it.
const quickBuffer = 4 << 10

// quickSet are the connections that are served here.
type quickSet struct {
	mu       sync.Mutex // protects all below
	conns    map[*quickConn]struct{}
	stopping bool
	drained  chan struct{} // closed when it is stopping and has no connections

	force atomic.Bool // Close does not wait for answers
}

// quickConn is a connection whose first reader, net/http, gets its bytes only
// once they are no plain request.
type quickConn struct {
	net.Conn
	g *Gateway

	// Of the one goroutine that reads.
	given    bool   // the connection is net/http's
	err      error  // that ended it before; net/http asks more than once
	buf      []byte // nil when nothing is left of it
	from, to int    // what is unread of it
	left     int    // of the body that is being read
	head     quickHead
	out      []byte // the answer's head, and its body if it is small
	served   bool   // a request has been
	readBy   time.Time
	writeBy  time.Time

	state atomic.Int32
}

// The states of a quickConn. Only an idle one may be closed by others.
const (
	quickIdle = iota
	quickBusy
	quickClosing // busy, and closed after its answer
	quickClosed
)

// quickListener gives quickConns.
type quickListener struct {
	net.Listener
	g *Gateway
}

func (l quickListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	q := &quickConn{Conn: c, g: l.g}
	if s := &l.g.quick; !s.add(q) {
		q.Close()
	}
	return q, nil
}

func newQuickSet() quickSet {
	return quickSet{conns: make(map[*quickConn]struct{}), drained: make(chan struct{})}
}

// add reports false when connections are no longer wanted.
func (s *quickSet) add(q *quickConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.conns[q] = struct{}{}
	return true
}

// remove forgets a connection that is closed, or net/http's.
func (s *quickSet) remove(q *quickConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.conns[q]; !there {
		return
	}
	delete(s.conns, q)
	if s.stopping && len(s.conns) == 0 {
		close(s.drained)
	}
}

// shutdown closes the idle connections, and lets the others be closed after
// their answers.
func (s *quickSet) shutdown() {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		if len(s.conns) == 0 {
			close(s.drained)
		}
	}
	all := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, q := range all {
		q.Close()
	}
}

// wait waits for the requests under way after shutdown, and cuts them off when
// ctx ends.
func (s *quickSet) wait(ctx context.Context) error {
	select {
	case <-s.drained:
		return nil
	case <-ctx.Done():
	}
	s.force.Store(true)
	s.shutdown()
	return ctx.Err()
}

// Close closes the connection; one whose request is under way, after its answer.
func (q *quickConn) Close() error {
	for {
		s, force := q.state.Load(), q.g.quick.force.Load()
		next := int32(quickClosed)
		switch {
		case s == quickClosed, s == quickClosing && !force:
			return nil
		case s == quickBusy && !force:
			next = quickClosing
		}
		if !q.state.CompareAndSwap(s, next) {
			continue
		}
		if next == quickClosing {
			return nil
		}
		q.g.quick.remove(q)
		return q.Conn.Close()
	}
}

// Read serves plain requests until there is something else, and gives that.
func (q *quickConn) Read(p []byte) (int, error) {
	if q.err != nil {
		return 0, q.err
	}
	if !q.given {
		if q.serve() != nil {
			// To net/http the connection has simply ended: it would answer
			// other errors, with a 400 that no SDK repeats.
			q.err = io.EOF
			return 0, q.err
		}
		q.given = true
		q.g.quick.remove(q)
		q.out, q.head = nil, quickHead{}
		// net/http has set its deadline for the head when the connection
		// was new; it shall have its time from now on.
		_ = q.Conn.SetReadDeadline(time.Now().Add(q.g.cfg.HeaderTimeout))
		_ = q.Conn.SetWriteDeadline(time.Time{})
	}
	if q.from < q.to {
		n := copy(p, q.buf[q.from:q.to])
		if q.from += n; q.from == q.to {
			q.buf = nil
		}
		return n, nil
	}
	return q.Conn.Read(p)
}

// SetReadDeadline is for net/http, whose deadlines hold once the connection is its.
func (q *quickConn) SetReadDeadline(t time.Time) error {
	if !q.given {
		return nil
	}
	return q.Conn.SetReadDeadline(t)
}

// SetDeadline is as SetReadDeadline.
func (q *quickConn) SetDeadline(t time.Time) error {
	if !q.given {
		return nil
	}
	return q.Conn.SetDeadline(t)
}

// serve serves requests. It ends without an error when the unread bytes are
// for net/http, and with one when the connection is over.
func (q *quickConn) serve() error {
	q.buf = make([]byte, quickBuffer)
	for {
		size, err := q.awaitHead()
		if err != nil || size == 0 {
			return err
		}
		if !q.head.parse(q.buf[q.from:q.from+size]) || q.head.length > q.g.cfg.MaxBody {
			return nil
		}
		q.from += size
		if err := q.serveOne(); err != nil {
			return err
		}
		q.served = true
	}
}

var (
	quickStart = []byte("POST / HTTP/1.1\r\n")
	quickEnd   = []byte("\r\n\r\n")
)

// awaitHead reads until a whole head is in the buffer, and gives its size; 0 if
// what comes is for net/http.
func (q *quickConn) awaitHead() (int, error) {
	if q.from == q.to {
		q.from, q.to = 0, 0
	} else if q.from > 0 {
		q.to = copy(q.buf, q.buf[q.from:q.to])
		q.from = 0
	}
	begun, skipped := false, !q.served
	for {
		have := q.buf[q.from:q.to]
		if !skipped && len(have) > 0 {
			// Some clients send a line end behind a body. net/http passes
			// over up to four such bytes once it has four.
			if n := lineEnds(have); n == 0 || len(have) >= 4 {
				q.from, skipped = q.from+n, true
				continue
			}
		} else if n := min(len(have), len(quickStart)); !bytes.Equal(have[:n], quickStart[:n]) {
			return 0, nil
		}
		if i := bytes.Index(have, quickEnd); i >= 0 {
			return i + len(quickEnd), nil
		}
		if q.to == len(q.buf) {
			return 0, nil
		}
		switch {
		case len(have) == 0 && q.served:
			q.readWithin(q.g.cfg.IdleTimeout)
		case !begun:
			// From the connection's or the head's first byte on, however
			// slowly the others come.
			begun = len(have) > 0
			_ = q.Conn.SetReadDeadline(time.Now().Add(q.g.cfg.HeaderTimeout))
			q.readBy = time.Time{}
		}
		n, err := q.Conn.Read(q.buf[q.to:])
		q.to += n
		if n > 0 || err == nil {
			continue
		}
		if !skipped {
			q.from += lineEnds(q.buf[q.from:q.to])
		}
		if err == io.EOF && q.from < q.to {
			return 0, nil // net/http answers half a head
		}
		return 0, err
	}
}

// lineEnds counts the line ends at the head of b, up to four.
func lineEnds(b []byte) (n int) {
	for n < min(len(b), 4) && (b[n] == '\r' || b[n] == '\n') {
		n++
	}
	return n
}

// readWithin bounds the wait for the next byte, to within a quarter: a deadline
// that was set lately is left as it is.
func (q *quickConn) readWithin(d time.Duration) {
	by := time.Now().Add(d)
	if early := by.Sub(q.readBy); early < 0 || early > d/4 {
		_ = q.Conn.SetReadDeadline(by)
		q.readBy = by
	}
}

// quickBody reads a body's bytes: what is in the buffer first, and nothing of
// what follows the body.
type quickBody struct{ *quickConn }

func (b quickBody) Read(p []byte) (int, error) {
	q := b.quickConn
	p = p[:min(len(p), q.left)]
	n, err := 0, error(nil)
	if q.from < q.to {
		n = copy(p, q.buf[q.from:q.to])
		q.from += n
	} else {
		n, err = q.Conn.Read(p)
	}
	q.left -= n
	return n, err
}

func (b quickBody) SetReadDeadline(t time.Time) error {
	b.readBy = t
	return b.Conn.SetReadDeadline(t)
}

// serveOne serves the request whose head has been read.
func (q *quickConn) serveOne() (err error) {
	if !q.state.CompareAndSwap(quickIdle, quickBusy) {
		return net.ErrClosed
	}
	defer func() {
		// If it has been asked to close meanwhile, it now may be.
		if !q.state.CompareAndSwap(quickBusy, quickIdle) {
			q.state.CompareAndSwap(quickClosing, quickIdle)
			err = errors.Join(err, net.ErrClosed)
		}
	}()
	g, started := q.g, time.Now()
	id := newRequestID()
	var b body
	defer g.releaseBody(&b)
	if q.head.length <= q.to-q.from {
		b.bytes = q.buf[q.from : q.from+q.head.length]
		q.from += q.head.length
		defer func() { b.bytes = nil }() // it is no pooled buffer
	} else {
		q.left = q.head.length
		if err := g.readBody(context.Background(), quickBody{q}, int64(q.head.length), &b); err != nil {
			if !errors.Is(err, stream.Throttled) {
				g.metrics.observe("none", "BodyFailed", started)
				return err // too slow or broken off: there is nobody to tell
			}
			e, format := busy(), formatOf(mediaType(q.head.Get("Content-Type")))
			g.metrics.observe("none", kinesis.CodeServiceUnavailable, started)
			_ = q.answer(id, reply{e.Status, format.ContentType(), e.AppendBody(nil, format)}, true)
			return err
		}
	}
	c := &call{g: g, parent: context.Background(), body: b.bytes, header: &q.head, path: "/", id: id}
	defer c.release()
	return q.answer(id, c.serve(started), false)
}

// smallAnswer is what is written together with its head.
const smallAnswer = 16 << 10

// answer writes an answer; closing says that the connection ends with it.
func (q *quickConn) answer(id [16]byte, a reply, closing bool) error {
	closing = closing || q.state.Load() == quickClosing
	out := append(q.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(a.status), 10)
	out = append(out, ' ')
	out = append(out, http.StatusText(a.status)...)
	out = append(out, "\r\nx-amzn-RequestId: "...)
	out = appendID(out, id)
	out = append(out, "\r\nx-amz-id-2: "...)
	out = appendExtendedID(out)
	if a.contentType != "" {
		out = append(out, "\r\nContent-Type: "...)
		out = append(out, a.contentType...)
	}
	out = append(out, "\r\nContent-Length: "...)
	out = strconv.AppendInt(out, int64(len(a.body)), 10)
	out = append(out, "\r\nDate: "...)
	now := time.Now()
	out = appendDate(out, now)
	if closing {
		out = append(out, "\r\nConnection: close"...)
	}
	out = append(out, quickEnd...)

	// The time that writing may take grows with the length, as for net/http. A
	// deadline that is far enough is left as it is.
	by := pace{now, q.g.cfg.BodyGrace, q.g.cfg.BodyRate}.deadline(len(a.body))
	if left := q.writeBy.Sub(by); left < 0 || left > q.g.cfg.BodyGrace {
		q.writeBy = by.Add(q.g.cfg.BodyGrace / 2)
		if err := q.Conn.SetWriteDeadline(q.writeBy); err != nil {
			return err
		}
	}
	var err error
	if len(a.body) <= smallAnswer {
		out = append(out, a.body...)
		_, err = q.Conn.Write(out)
	} else {
		_, err = (&net.Buffers{out, a.body}).WriteTo(q.Conn)
	}
	q.out = out
	if err != nil {
		q.g.log.Debug("answer not taken", "error", err)
	}
	return err
}

// datedSecond is a second as headers print it.
type datedSecond struct {
	unix int64
	text string
}

var lastDate atomic.Pointer[datedSecond]

func appendDate(dst []byte, now time.Time) []byte {
	d := lastDate.Load()
	if d == nil || d.unix != now.Unix() {
		d = &datedSecond{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastDate.Store(d)
	}
	return append(dst, d.text...)
}
