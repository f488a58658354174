package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// bubbleNet is a network of machines in one process, on fake time: TCP as its
// users see it. A machine is named by its IP. What is sent over a link that is
// cut waits for the link, as the kernel repeats it until then.
type bubbleNet struct {
	mu      sync.Mutex
	changed chan struct{}            // closed and replaced when any link changes
	ports   map[string]*bubblePort   // by address
	conns   map[*bubbleConn]struct{} // both ends of each
	cut     map[[2]string]bool       // from, to
	off     map[string]bool          // machines without power: nothing answers
	life    map[string]int           // by machine: counts the processes that have ended
}

// bubbleLatency is how long bytes are under way.
const bubbleLatency = 200 * time.Microsecond

// bubbleWindow bounds what a sender may have under way.
const bubbleWindow = 1 << 20

func newBubbleNet() *bubbleNet {
	return &bubbleNet{
		changed: make(chan struct{}), ports: make(map[string]*bubblePort), conns: make(map[*bubbleConn]struct{}),
		cut: make(map[[2]string]bool), off: make(map[string]bool), life: make(map[string]int),
	}
}

func (n *bubbleNet) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// setCut cuts or restores the link from one machine to another, one way.
func (n *bubbleNet) setCut(from, to string, cut bool) {
	n.change(func() { n.cut[[2]string{from, to}] = cut })
}

// blocked tells whether nothing comes through, and when to look again.
func (n *bubbleNet) blocked(from, to string) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[[2]string{from, to}] || n.off[from] || n.off[to], n.changed
}

// endProcess has the machine's kernel close all that a process had open: whoever
// dials is refused.
func (n *bubbleNet) endProcess(machine string) { n.drop(machine, syscall.ECONNRESET) }

// powerOff makes the machine fall silent.
func (n *bubbleNet) powerOff(machine string) { n.change(func() { n.off[machine] = true }) }

// powerOn brings an empty machine back: it knows of no connection.
func (n *bubbleNet) powerOn(machine string) {
	n.drop(machine, syscall.ECONNRESET)
	n.change(func() { n.off[machine] = false })
}

func (n *bubbleNet) drop(machine string, why error) {
	n.mu.Lock()
	n.life[machine]++
	var ports []*bubblePort
	for _, p := range n.ports {
		if p.machine == machine {
			ports = append(ports, p)
		}
	}
	var conns []*bubbleConn
	for c := range n.conns {
		if c.local == machine || c.remote == machine {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	for _, p := range ports {
		_ = p.Close()
	}
	for _, c := range conns {
		c.in.end(why, false)
		c.out.end(why, false)
	}
}

// listen opens a port of a machine.
func (n *bubbleNet) listen(machine string, port int) *bubblePort {
	p := &bubblePort{
		net: n, machine: machine, at: &net.TCPAddr{IP: net.ParseIP(machine), Port: port},
		backlog: make(chan net.Conn, 128), closed: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[p.at.String()] = p
	return p
}

// dialer gives what the machine's present process dials with.
func (n *bubbleNet) dialer(machine string) dialer {
	n.mu.Lock()
	life := n.life[machine]
	n.mu.Unlock()
	return func(ctx context.Context, address string) (net.Conn, error) {
		to, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		fail := func(err error) (net.Conn, error) { return nil, fmt.Errorf("dial %s: %w", address, err) }
		for {
			there, changed := n.blocked(machine, to)
			back, _ := n.blocked(to, machine)
			if !there && !back {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return fail(ctx.Err())
			}
		}
		pause(ctx, 2*bubbleLatency)
		n.mu.Lock()
		p := n.ports[address]
		if p == nil || n.life[machine] != life {
			n.mu.Unlock()
			return fail(syscall.ECONNREFUSED)
		}
		there, back := newBubblePipe(n, machine, to), newBubblePipe(n, to, machine)
		mine := &bubbleConn{net: n, local: machine, remote: to, in: back, out: there}
		theirs := &bubbleConn{net: n, local: to, remote: machine, in: there, out: back}
		n.conns[mine], n.conns[theirs] = struct{}{}, struct{}{}
		n.mu.Unlock()
		select {
		case p.backlog <- theirs:
			return mine, nil
		case <-p.closed:
		}
		_ = mine.Close()
		_ = theirs.Close()
		return fail(syscall.ECONNREFUSED)
	}
}

// bubblePort is a listener.
type bubblePort struct {
	net     *bubbleNet
	machine string
	at      *net.TCPAddr
	backlog chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (p *bubblePort) Accept() (net.Conn, error) {
	select {
	case <-p.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-p.backlog:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *bubblePort) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.net.mu.Lock()
		if p.net.ports[p.at.String()] == p {
			delete(p.net.ports, p.at.String())
		}
		p.net.mu.Unlock()
		for {
			select {
			case c := <-p.backlog:
				_ = c.Close()
				continue
			default:
			}
			return
		}
	})
	return nil
}

func (p *bubblePort) Addr() net.Addr { return p.at }

// bubblePipe is one direction of a connection.
type bubblePipe struct {
	net      *bubbleNet
	from, to string

	mu      sync.Mutex
	changed chan struct{} // closed and replaced by each change
	chunks  []bubbleChunk
	size    int
	err     error // after an end: what senders get, and readers behind the last chunk
}

type bubbleChunk struct {
	due   time.Time
	bytes []byte
}

func newBubblePipe(n *bubbleNet, from, to string) *bubblePipe {
	return &bubblePipe{net: n, from: from, to: to, changed: make(chan struct{})}
}

func (p *bubblePipe) noteLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// end closes the direction; what is under way arrives only if keep is given.
func (p *bubblePipe) end(err error, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !keep {
		p.chunks, p.size = nil, 0
	}
	if p.err == nil || err == net.ErrClosed { // the reader's own word is the last
		p.err = err
	}
	p.noteLocked()
}

func (p *bubblePipe) write(b []byte, d *bubbleDeadline) (written int, err error) {
	for {
		deadline, moved := d.get()
		blocked, _ := p.net.blocked(p.from, p.to)
		p.mu.Lock()
		switch {
		case p.err == net.ErrClosed && blocked: // the other end closed, which nobody here knows
			p.mu.Unlock()
			return len(b), nil
		case p.err != nil:
			err := errors.Join(syscall.EPIPE, p.err)
			p.mu.Unlock()
			return written, err
		case !deadline.IsZero() && !time.Now().Before(deadline):
			p.mu.Unlock()
			return written, os.ErrDeadlineExceeded
		}
		if fits := min(bubbleWindow-p.size, len(b)); fits > 0 {
			p.chunks = append(p.chunks, bubbleChunk{time.Now().Add(bubbleLatency), append([]byte(nil), b[:fits]...)})
			p.size += fits
			written, b = written+fits, b[fits:]
			p.noteLocked()
		}
		changed := p.changed
		p.mu.Unlock()
		if len(b) == 0 {
			return written, nil
		}
		bubbleWait(deadline, changed, moved, nil)
	}
}

func (p *bubblePipe) read(b []byte, d *bubbleDeadline) (int, error) {
	for {
		deadline, moved := d.get()
		blocked, link := p.net.blocked(p.from, p.to)
		until := deadline
		p.mu.Lock()
		if !blocked && len(p.chunks) > 0 {
			first := &p.chunks[0]
			if !time.Now().Before(first.due) {
				n := copy(b, first.bytes)
				if first.bytes = first.bytes[n:]; len(first.bytes) == 0 {
					p.chunks = p.chunks[1:]
				}
				p.size -= n
				p.noteLocked()
				p.mu.Unlock()
				return n, nil
			}
			if until.IsZero() || first.due.Before(until) {
				until = first.due
			}
		}
		if p.err != nil && len(p.chunks) == 0 && (!blocked || p.err != io.EOF) {
			err := p.err
			p.mu.Unlock()
			return 0, err
		}
		changed := p.changed
		p.mu.Unlock()
		if !deadline.IsZero() && !time.Now().Before(deadline) {
			return 0, os.ErrDeadlineExceeded
		}
		bubbleWait(until, changed, moved, link)
	}
}

// bubbleWait waits for any of its reasons to look again.
func bubbleWait(until time.Time, a, b, c <-chan struct{}) {
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-a:
	case <-b:
	case <-c:
	case <-due:
	}
}

// bubbleDeadline is that of reads or of writes.
type bubbleDeadline struct {
	mu    sync.Mutex
	at    time.Time
	moved chan struct{}
}

func (d *bubbleDeadline) get() (time.Time, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moved == nil {
		d.moved = make(chan struct{})
	}
	return d.at, d.moved
}

func (d *bubbleDeadline) set(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = at
	if d.moved != nil {
		close(d.moved)
		d.moved = nil
	}
}

// bubbleConn is one end of a connection.
type bubbleConn struct {
	net           *bubbleNet
	local, remote string // machines
	in, out       *bubblePipe
	reads, writes bubbleDeadline
}

func (c *bubbleConn) Read(b []byte) (int, error)  { return c.in.read(b, &c.reads) }
func (c *bubbleConn) Write(b []byte) (int, error) { return c.out.write(b, &c.writes) }

// Close lets what was sent arrive. The other end finds out over the link.
func (c *bubbleConn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	c.in.end(net.ErrClosed, false)
	c.out.end(io.EOF, true)
	return nil
}

func (c *bubbleConn) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.ParseIP(c.local)} }
func (c *bubbleConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.remote)} }

func (c *bubbleConn) SetDeadline(t time.Time) error {
	c.reads.set(t)
	c.writes.set(t)
	return nil
}

func (c *bubbleConn) SetReadDeadline(t time.Time) error  { c.reads.set(t); return nil }
func (c *bubbleConn) SetWriteDeadline(t time.Time) error { c.writes.set(t); return nil }
