package benchclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Timeout bounds a request from its first byte out to its last byte in.
const Timeout = 30 * time.Second

// Conn is one connection to a target. It dials when it is first used, and anew
// after an error. It is for one goroutine.
type Conn struct {
	target *Target
	net    net.Conn
	in     []byte // the answer; grows to the largest
}

// NewConn makes a connection that is not dialled yet.
func (t *Target) NewConn() *Conn { return &Conn{target: t, in: make([]byte, 64<<10)} }

// Close closes the connection, if it is open.
func (c *Conn) Close() {
	if c.net != nil {
		_ = c.net.Close()
		c.net = nil
	}
}

// Do sends the request and gives the answer's status and body, which is valid
// until the next call. After an error it is unknown whether the server acted.
func (c *Conn) Do(ctx context.Context, r *Request) (status int, body []byte, err error) {
	if c.net == nil {
		if err := c.dial(ctx); err != nil {
			return 0, nil, err
		}
	}
	status, body, keep, err := c.roundTrip(ctx, r)
	if err != nil || !keep {
		c.Close()
	}
	return status, body, err
}

func (c *Conn) dial(ctx context.Context) error {
	d := net.Dialer{Timeout: 5 * time.Second}
	n, err := d.DialContext(ctx, "tcp", c.target.address)
	if err != nil {
		return err
	}
	if c.target.tls != nil {
		s := tls.Client(n, c.target.tls)
		if err := s.HandshakeContext(ctx); err != nil {
			_ = n.Close()
			return err
		}
		n = s
	}
	c.net = n
	return nil
}

func (c *Conn) roundTrip(ctx context.Context, r *Request) (status int, body []byte, keep bool, err error) {
	_ = c.net.SetDeadline(time.Now().Add(Timeout)) // fails only on a closed connection, as the write then does
	if c.target.credentials == nil {
		_, err = c.net.Write(r.wire)
	} else {
		var header []byte
		if header, err = c.target.signedHeader(ctx, r.op, r.Body()); err != nil {
			return 0, nil, false, err
		}
		buffers := net.Buffers{header, r.Body()}
		_, err = buffers.WriteTo(c.net)
	}
	if err != nil {
		return 0, nil, false, err
	}
	return c.readResponse()
}

var (
	headerEnd = []byte("\r\n\r\n")
	lineEnd   = []byte("\r\n")
)

func (c *Conn) readResponse() (status int, body []byte, keep bool, err error) {
	have, end := 0, -1
	for end < 0 {
		if have == len(c.in) {
			c.grow(2 * have)
		}
		n, err := c.net.Read(c.in[have:])
		if err != nil {
			return 0, nil, false, unexpected(err)
		}
		from := max(0, have-len(headerEnd)+1)
		have += n
		if i := bytes.Index(c.in[from:have], headerEnd); i >= 0 {
			end = from + i
		}
	}
	h, err := parseHeader(c.in[:end])
	if err != nil {
		return 0, nil, false, err
	}
	start := end + len(headerEnd)
	if h.chunked {
		body, err = c.readChunks(start, have)
		return h.status, body, h.keep, err
	}
	if h.length < 0 || h.length > 64<<20 {
		return 0, nil, false, fmt.Errorf("answer of length %d", h.length)
	}
	if err := c.fill(have, start+h.length); err != nil {
		return 0, nil, false, err
	}
	return h.status, c.in[start : start+h.length], h.keep, nil
}

// fill reads until c.in holds want bytes, of which it has have.
func (c *Conn) fill(have, want int) error {
	if want <= have {
		return nil
	}
	if want > len(c.in) {
		c.grow(want)
	}
	_, err := io.ReadFull(c.net, c.in[have:want])
	return unexpected(err)
}

func (c *Conn) grow(size int) {
	grown := make([]byte, max(size, 2*len(c.in)))
	copy(grown, c.in)
	c.in = grown
}

// unexpected makes a plain end of the connection an error: there is a request
// without its answer.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readChunks reads a chunked body that begins at start, and joins the chunks in place.
func (c *Conn) readChunks(start, have int) ([]byte, error) {
	next, joined := start, start // of the raw bytes, and of the body so far
	for {
		var line []byte
		for line == nil {
			if i := bytes.Index(c.in[next:have], lineEnd); i >= 0 {
				line = c.in[next : next+i]
				break
			}
			if have == len(c.in) {
				c.grow(2 * have)
			}
			n, err := c.net.Read(c.in[have:])
			if err != nil {
				return nil, unexpected(err)
			}
			have += n
		}
		next += len(line) + len(lineEnd)
		digits, _, _ := bytes.Cut(line, []byte(";"))
		size, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 26)
		if err != nil {
			return nil, fmt.Errorf("chunk length %q", line)
		}
		want := next + int(size) + len(lineEnd) // the line end behind the chunk, or behind the empty trailer
		if err := c.fill(have, want); err != nil {
			return nil, err
		}
		have = max(have, want)
		joined += copy(c.in[joined:], c.in[next:next+int(size)])
		next = want
		if size == 0 {
			return c.in[start:joined], nil
		}
	}
}

type header struct {
	status  int
	length  int // of the body in bytes; -1 if not told
	chunked bool
	keep    bool // the connection serves another request
}

func parseHeader(b []byte) (header, error) {
	line, rest, _ := bytes.Cut(b, lineEnd)
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return header{}, fmt.Errorf("no HTTP/1 answer: %.40q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return header{}, fmt.Errorf("no HTTP/1 answer: %.40q", line)
	}
	h := header{status: status, length: -1, keep: line[7] == '1'}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, lineEnd)
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if h.length, err = strconv.Atoi(string(value)); err != nil {
				return header{}, fmt.Errorf("content length %q", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			h.chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			h.keep = bytes.EqualFold(value, []byte("keep-alive"))
		}
	}
	return h, nil
}
