package powerfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// order is one call over the control socket: a JSON value each way. Only what
// the call takes is set.
type order struct {
	Do      string
	Loss    Loss          `json:",omitzero"`
	Scope   Scope         `json:",omitempty"`
	Delay   time.Duration `json:",omitempty"`
	Left    int64         `json:",omitempty"`
	On      bool          `json:",omitempty"`
	Failure Failure       `json:",omitzero"`
	Pattern string        `json:",omitempty"`
	Seed    uint64        `json:",omitempty"`
}

type answer struct {
	Error string `json:",omitempty"`
	Flip  Flip   `json:",omitzero"`
	Cut   Cut    `json:",omitzero"`
	Stats Stats  `json:",omitzero"`
}

func (m *Mount) obey(o order) (a answer) {
	var err error
	switch o.Do {
	case "power-loss":
		err = m.PowerLoss(o.Loss)
	case "power-on":
		err = m.PowerOn()
	case "slow":
		err = m.Slow(o.Scope, o.Delay)
	case "hang":
		err = m.Hang(o.Scope)
	case "unhang":
		err = m.Unhang()
	case "full":
		err = m.Full(o.Left)
	case "lie":
		err = m.Lie(o.On)
	case "fail":
		err = m.Fail(o.Failure)
	case "heal":
		err = m.Heal()
	case "flip":
		a.Flip, err = m.FlipBit(o.Pattern, o.Seed)
	case "cut":
		a.Cut, err = m.CutFile(o.Pattern, o.Seed)
	case "stats":
		a.Stats, err = m.Stats()
	default:
		err = fmt.Errorf("there is no order %q", o.Do)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// Control takes orders from other processes.
type Control struct {
	mount    *Mount
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]bool
}

// Listen takes orders for a mount at a Unix socket, until Close.
func Listen(m *Mount, socket string) (*Control, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &Control{mount: m, listener: l, conns: map[net.Conn]bool{}}
	c.running.Go(c.accept)
	return c, nil
}

func (c *Control) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return // closed
		}
		c.mu.Lock()
		if c.closed {
			conn.Close()
		} else {
			c.conns[conn] = true
			c.running.Go(func() { c.serve(conn) })
		}
		c.mu.Unlock()
	}
}

// serve obeys one client, an order at a time.
func (c *Control) serve(conn net.Conn) {
	defer func() {
		c.mu.Lock()
		delete(c.conns, conn)
		c.mu.Unlock()
		conn.Close()
	}()
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	for {
		var o order
		if in.Decode(&o) != nil || out.Encode(c.mount.obey(o)) != nil {
			return // the client has gone, or talks nonsense
		}
	}
}

// Close ends all connections, and waits for their orders.
func (c *Control) Close() error {
	err := c.listener.Close()
	c.mu.Lock()
	c.closed = true
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.running.Wait()
	return err
}

// orderTimeout bounds an order. It is long: only what hangs should fail.
const orderTimeout = time.Minute

// Client orders a mount in another process. Its methods do what those of Mount
// do; they may be called concurrently, and one waits for another.
type Client struct {
	mu   sync.Mutex
	conn net.Conn
	in   *json.Decoder
}

// Dial connects to the control socket of a mount.
func Dial(socket string) (*Client, error) {
	conn, err := net.DialTimeout("unix", socket, orderTimeout)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, in: json.NewDecoder(conn)}, nil
}

// Close ends the connection; the mount goes on.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) do(o order) (answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var a answer
	if err := c.conn.SetDeadline(time.Now().Add(orderTimeout)); err != nil {
		return a, err
	}
	if err := json.NewEncoder(c.conn).Encode(o); err != nil {
		return a, fmt.Errorf("powerfs %s: %w", o.Do, err)
	}
	if err := c.in.Decode(&a); err != nil {
		return a, fmt.Errorf("powerfs %s: %w", o.Do, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("powerfs %s: %w", o.Do, errors.New(a.Error))
	}
	return a, nil
}

func (c *Client) only(o order) error {
	_, err := c.do(o)
	return err
}

// PowerLoss is Mount.PowerLoss.
func (c *Client) PowerLoss(loss Loss) error { return c.only(order{Do: "power-loss", Loss: loss}) }

// PowerOn is Mount.PowerOn.
func (c *Client) PowerOn() error { return c.only(order{Do: "power-on"}) }

// Slow is Mount.Slow.
func (c *Client) Slow(scope Scope, delay time.Duration) error {
	return c.only(order{Do: "slow", Scope: scope, Delay: delay})
}

// Hang is Mount.Hang.
func (c *Client) Hang(scope Scope) error { return c.only(order{Do: "hang", Scope: scope}) }

// Unhang is Mount.Unhang.
func (c *Client) Unhang() error { return c.only(order{Do: "unhang"}) }

// Full is Mount.Full.
func (c *Client) Full(left int64) error { return c.only(order{Do: "full", Left: left}) }

// Lie is Mount.Lie.
func (c *Client) Lie(on bool) error { return c.only(order{Do: "lie", On: on}) }

// Fail is Mount.Fail.
func (c *Client) Fail(f Failure) error {
	if f.Errno == 0 {
		f.Errno = syscall.EIO
	}
	return c.only(order{Do: "fail", Failure: f})
}

// Heal is Mount.Heal.
func (c *Client) Heal() error { return c.only(order{Do: "heal"}) }

// FlipBit is Mount.FlipBit.
func (c *Client) FlipBit(pattern string, seed uint64) (Flip, error) {
	a, err := c.do(order{Do: "flip", Pattern: pattern, Seed: seed})
	return a.Flip, err
}

// CutFile is Mount.CutFile.
func (c *Client) CutFile(pattern string, seed uint64) (Cut, error) {
	a, err := c.do(order{Do: "cut", Pattern: pattern, Seed: seed})
	return a.Cut, err
}

// Stats is Mount.Stats.
func (c *Client) Stats() (Stats, error) {
	a, err := c.do(order{Do: "stats"})
	return a.Stats, err
}
