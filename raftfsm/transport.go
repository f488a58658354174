package raftfsm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	dialTimeout  = time.Second
	helloTimeout = 5 * time.Second
	// rpcTimeout bounds one message and its answer; a snapshot gets more by its size.
	rpcTimeout = 5 * time.Second
	connPool   = 3 // idle connections per peer

	helloMagic = "SHR1"
	maxHello   = 512 // bytes of a server id
)

var errMuted = errors.New("muted: this node's own raft store does not answer")

// layer is raft's network: connections that begin with the id of the server
// that the caller means. Raft's messages don't say that, and addresses change
// hands: an acknowledgement by another server than the one that was asked would
// count for a copy that does not exist.
//
// On the wire: magic "SHR1" | length u16 big-endian | server id, then raft's own
// messages in both directions.
type layer struct {
	id        raft.ServerID
	listener  net.Listener
	advertise string
	dial      func(ctx context.Context, addr string) (net.Conn, error)
	logger    *slog.Logger

	mu     sync.Mutex
	muted  bool
	closed bool
	conns  map[*peerConn]struct{}
}

var _ raft.StreamLayer = (*layer)(nil)

func newLayer(cfg Config) *layer {
	l := &layer{
		id: cfg.serverID(), listener: cfg.Listener, advertise: cfg.Advertise, dial: cfg.Dial,
		logger: cfg.Logger, conns: make(map[*peerConn]struct{}),
	}
	if l.advertise == "" {
		l.advertise = l.listener.Addr().String()
	}
	if l.dial == nil {
		l.dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	return l
}

// peerAddress puts a server's id and address into what raft takes for an
// address. Raft wants no address twice; so a node whose disk was replaced can
// be added while its former self is still listed.
func peerAddress(id raft.ServerID, addr string) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + addr)
}

// splitPeer is the reverse; an address without an id is from a node that had no
// network, and can't be dialled.
func splitPeer(a raft.ServerAddress) (id raft.ServerID, addr string) {
	if i := strings.LastIndexByte(string(a), '@'); i >= 0 {
		return raft.ServerID(a[:i]), string(a[i+1:])
	}
	return "", ""
}

// Dial is part of raft.StreamLayer.
func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, addr := splitPeer(address)
	if addr == "" {
		return nil, fmt.Errorf("no address of raft server %q is known", address)
	}
	if l.isMuted() {
		return nil, errMuted
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(timeout, dialTimeout))
	defer cancel()
	raw, err := l.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	hello := binary.BigEndian.AppendUint16([]byte(helloMagic), uint16(len(id)))
	hello = append(hello, id...)
	_ = raw.SetDeadline(time.Now().Add(helloTimeout))
	if _, err := raw.Write(hello); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	_ = raw.SetDeadline(time.Time{})
	return l.track(&peerConn{Conn: raw, layer: l, greeted: true})
}

// Accept is part of raft.StreamLayer. What a caller says first is read with the
// first message, on that connection's own goroutine.
func (l *layer) Accept() (net.Conn, error) {
	for {
		raw, err := l.listener.Accept()
		if err != nil {
			return nil, err
		}
		c, err := l.track(&peerConn{Conn: raw, layer: l})
		if err == nil {
			return c, nil
		}
	}
}

// Close ends the listener and all connections, so that raft's handlers end too.
func (l *layer) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	err := l.listener.Close()
	l.drop()
	return err
}

// Addr is part of raft.StreamLayer: the address that others know.
func (l *layer) Addr() net.Addr { return netAddr(peerAddress(l.id, l.advertise)) }

type netAddr string

func (a netAddr) Network() string { return "tcp" }

func (a netAddr) String() string { return string(a) }

// mute makes this node silent on raft's network, or ends that.
func (l *layer) mute(on bool) {
	l.mu.Lock()
	l.muted = on
	l.mu.Unlock()
	if on {
		l.drop()
	}
}

func (l *layer) isMuted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.muted
}

func (l *layer) track(c *peerConn) (net.Conn, error) {
	l.mu.Lock()
	refused := l.muted || l.closed
	if !refused {
		l.conns[c] = struct{}{}
	}
	l.mu.Unlock()
	if refused {
		return nil, errors.Join(errMuted, c.Conn.Close())
	}
	return c, nil
}

func (l *layer) drop() {
	l.mu.Lock()
	all := l.conns
	l.conns = make(map[*peerConn]struct{})
	l.mu.Unlock()
	for c := range all {
		_ = c.Conn.Close()
	}
}

// peerConn is a connection to or from a peer.
type peerConn struct {
	net.Conn
	layer   *layer
	greeted bool // only used by the goroutine that reads
}

// Read checks first whom a caller means.
func (c *peerConn) Read(p []byte) (int, error) {
	if !c.greeted {
		if err := c.hello(); err != nil {
			return 0, errors.Join(err, c.Close())
		}
		c.greeted = true
	}
	return c.Conn.Read(p)
}

func (c *peerConn) hello() error {
	_ = c.SetReadDeadline(time.Now().Add(helloTimeout))
	var head [len(helloMagic) + 2]byte
	if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint16(head[len(helloMagic):])
	if string(head[:len(helloMagic)]) != helloMagic || size > maxHello {
		return fmt.Errorf("%v speaks something else than raft to the raft port", c.RemoteAddr())
	}
	meant := make([]byte, size)
	if _, err := io.ReadFull(c.Conn, meant); err != nil {
		return err
	}
	if raft.ServerID(meant) != c.layer.id {
		return fmt.Errorf("%v looks for raft server %s, but this is %s: it has an address that is out of date",
			c.RemoteAddr(), meant, c.layer.id)
	}
	return c.SetReadDeadline(time.Time{})
}

// Close also forgets the connection.
func (c *peerConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}

// addressBook finds servers by what is known of them now, and not by what the
// raft log said when they were added.
type addressBook struct {
	layer  *layer
	lookup func(id string) (string, bool)
}

// ServerAddr is part of raft.ServerAddressProvider.
func (b addressBook) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if id == b.layer.id {
		return peerAddress(id, b.layer.advertise), nil
	}
	if addr, ok := b.lookup(string(id)); ok {
		return peerAddress(id, addr), nil
	}
	return "", fmt.Errorf("nobody knows where %s is now", id)
}

func newTransport(cfg Config, l *layer) raft.Transport {
	lookup := cfg.AddressOf
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: l, MaxPool: connPool, Timeout: rpcTimeout,
		// No pipelining: in raft 1.7.3 a pipeline whose follower refuses an entry
		// while the next is being sent never ends. A leader then sends this
		// follower heartbeats and nothing else, and can't shut down. Metadata is
		// in no such hurry.
		MaxRPCsInFlight:       1,
		ServerAddressProvider: addressBook{l, lookup},
		Logger:                newHclog(cfg.Logger, false),
	})
}
