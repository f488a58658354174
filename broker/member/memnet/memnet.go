// Package memnet is a network for gossip inside one process, for tests: whole
// groups of members run in a testing/synctest bubble on it, and its links can
// be cut.
//
// It is not for production, and imitates no timing. The invariant it keeps:
// whatever can't be delivered at once is dropped, so no sender ever waits for a
// dead peer.
package memnet

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// Network connects its transports by their addresses. The zero value is empty
// and ready.
type Network struct {
	mu  sync.Mutex
	at  map[string]*Transport
	cut map[[2]string]bool
}

// Transport opens an address, IP:PORT, until Shutdown.
func (n *Network) Transport(address string) *Transport {
	host, _, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) == nil {
		panic("memnet: not IP:PORT: " + address)
	}
	t := &Transport{net: n, address: address, packets: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn, 64)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		n.at = make(map[string]*Transport)
	}
	if n.at[address] != nil {
		panic("memnet: in use: " + address)
	}
	n.at[address] = t
	return t
}

// Cut stops, or with broken false restores, all traffic from one address to
// another, one way.
func (n *Network) Cut(from, to string, broken bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut == nil {
		n.cut = make(map[[2]string]bool)
	}
	n.cut[[2]string{from, to}] = broken
}

// route gives the transport at an address: nil if nobody listens there;
// reached is false if the link is cut, either way with both.
func (n *Network) route(from, to string, both bool) (t *Transport, reached bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at[to], !n.cut[[2]string{from, to}] && !(both && n.cut[[2]string{to, from}])
}

// Transport is one node's end.
type Transport struct {
	net     *Network
	address string
	packets chan *memberlist.Packet
	streams chan net.Conn
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

type addr string

func (addr) Network() string { return "memnet" }

func (a addr) String() string { return string(a) }

// FinalAdvertiseAddr gives the transport's own address.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	a, err := net.ResolveTCPAddr("tcp", t.address)
	if err != nil {
		return nil, 0, err
	}
	return a.IP, a.Port, nil
}

// WriteTo sends a packet, or loses it.
func (t *Transport) WriteTo(b []byte, to string) (time.Time, error) {
	now := time.Now()
	if dest, reached := t.net.route(t.address, to, false); dest != nil && reached {
		select {
		case dest.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: addr(t.address), Timestamp: now}:
		default:
		}
	}
	return now, nil
}

// WriteToAddress is WriteTo.
func (t *Transport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, to.Addr)
}

// PacketCh gives the packets that arrive.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout connects. Nobody there refuses at once; behind a cut link the
// time runs out.
func (t *Transport) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	dest, reached := t.net.route(t.address, to, true)
	switch {
	case !reached:
		time.Sleep(timeout)
		return nil, fmt.Errorf("dial %s: %w", to, syscall.ETIMEDOUT)
	case dest == nil:
		return nil, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
	ours, theirs := net.Pipe()
	select {
	case dest.streams <- theirs:
		return ours, nil
	default:
		return nil, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
}

// DialAddressTimeout is DialTimeout.
func (t *Transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(to.Addr, timeout)
}

// StreamCh gives the connections that arrive.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown closes the address.
func (t *Transport) Shutdown() error {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	if t.net.at[t.address] == t {
		delete(t.net.at, t.address)
	}
	return nil
}
