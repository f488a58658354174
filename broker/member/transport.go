package member

import (
	"context"
	"fmt"
	"log"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/go-sockaddr"
	"github.com/hashicorp/memberlist"

	"shardstream/stream"
)

// transport is memberlist's own, but for dialling, which ends with ctx, so that
// Close need not wait for an address that doesn't answer.
type transport struct {
	*memberlist.NetTransport
	ctx  context.Context
	bind net.IP // nil: all addresses
}

var _ memberlist.NodeAwareTransport = transport{}

func listen(ctx context.Context, bind string, logger *log.Logger) (transport, error) {
	host, portText, err := net.SplitHostPort(bind)
	if err != nil {
		return transport{}, inUse(bind, fmt.Errorf("want HOST:PORT"))
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return transport{}, inUse(bind, fmt.Errorf("port %q is no number below 65536", portText))
	}
	t := transport{ctx: ctx}
	if host != "" {
		// memberlist takes a name for "all addresses".
		a, err := net.ResolveIPAddr("ip", host)
		if err != nil {
			return transport{}, inUse(bind, err)
		}
		t.bind = a.IP
		host = a.IP.String()
	}
	// With port 0, the port that is free for TCP may be taken for UDP.
	for range 10 {
		t.NetTransport, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{host}, BindPort: int(port), Logger: logger,
		})
		if err == nil || port != 0 {
			break
		}
	}
	if err != nil {
		return transport{}, inUse(bind, err)
	}
	return t, nil
}

// ip gives the address that others may use: the bound one, or the machine's
// private one.
func (t transport) ip() (net.IP, error) {
	if t.bind != nil && !t.bind.IsUnspecified() {
		return t.bind, nil
	}
	return PrivateIP()
}

// PrivateIP gives the machine's private address, under which nodes on other
// machines reach it by default.
func PrivateIP() (net.IP, error) {
	text, err := sockaddr.GetPrivateIP()
	if err == nil && text == "" {
		err = fmt.Errorf("this machine has no private address")
	}
	if err != nil {
		return nil, stream.Errorf(stream.Invalid, "member.Open", "%w: say with --advertise how others reach this node", err)
	}
	return net.ParseIP(text), nil
}

func (t transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(t.ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(t.ctx, func() { c.Close() })
	return &dialled{Conn: c, stop: stop}, nil
}

func (t transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// dialled forgets the context when it is closed.
type dialled struct {
	net.Conn
	stop func() bool
}

func (c *dialled) Close() error {
	c.stop()
	return c.Conn.Close()
}
