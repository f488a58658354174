//go:build linux

// Package network is a network for tests that one can break: hosts are network
// namespaces, and between them stands a switch of ours that cuts, delays, loses
// and reorders frames by rules for each direction of each pair. It needs root,
// and /dev/net/tun; nothing of it outlives the process.
//
// It knows nothing of what the hosts say to each other.
package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Rule says what becomes of the frames from one host to another. The zero value
// lets them pass.
type Rule struct {
	Cut    bool          // nothing passes, and nobody is told
	Delay  time.Duration // of each frame
	Jitter time.Duration // up to that much more; frames keep their order unless Reorder
	Loss   float64       // share of frames that vanish
	// Reorder is the share of frames that skip Delay and Jitter, and so overtake
	// the ones before.
	Reorder float64
	Rate    int // bytes per second; 0: as many as come
}

// Network is hosts and the switch between them.
type Network struct {
	subnet byte // hosts are 10.231.subnet.1 and so on

	mu    sync.Mutex
	hosts []*Host
	rules map[pair]Rule
	noise *rand.Rand // loss, jitter, reordering

	Dropped, Passed int64 // frames, under mu
}

type pair struct{ from, to int } // indexes of hosts

// mtu keeps the number of frames, and so the switch's share of the processor,
// low.
const mtu = 9000

// New makes an empty network. seed decides which frames are lost and delayed how
// long.
func New(seed uint64) *Network {
	return &Network{
		subnet: byte(os.Getpid()), rules: make(map[pair]Rule),
		noise: rand.New(rand.NewPCG(seed, 0)),
	}
}

// Host is a namespace with one address.
type Host struct {
	Name    string
	Address string // IPv4

	network *Network
	index   int
	ns      *os.File // the namespace
	tap     *os.File // its cable's end in the switch
	queue   *queue   // frames on their way to it
	ports   sync.WaitGroup
}

// AddHost makes a namespace and plugs it in.
func (n *Network) AddHost(name string) (*Host, error) {
	n.mu.Lock()
	index := len(n.hosts)
	n.mu.Unlock()
	if index > 200 {
		return nil, errors.New("network: too many hosts")
	}
	h := &Host{Name: name, Address: fmt.Sprintf("10.231.%d.%d", n.subnet, index+1), network: n, index: index, queue: newQueue()}
	if err := inOwnThread(func() error { return h.build() }); err != nil {
		h.close()
		return nil, fmt.Errorf("network: %s: %w", name, err)
	}
	n.mu.Lock()
	n.hosts = append(n.hosts, h)
	n.mu.Unlock()
	h.ports.Go(h.receive)
	h.ports.Go(h.deliver)
	return h, nil
}

// inOwnThread runs f in a thread that ends with it, since its namespace is not
// the one of the others.
func inOwnThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		result <- f()
	}()
	return <-result
}

// build makes the namespace of the calling thread, with its interfaces up.
func (h *Host) build() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("a network namespace: %w", err)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	h.ns = ns
	tap, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq("eth0")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(tap, unix.TUNSETIFF, request); err != nil {
		return errors.Join(fmt.Errorf("a tap: %w", err), unix.Close(tap))
	}
	// Now, since the poller can't wait on one that is not attached.
	h.tap = os.NewFile(uintptr(tap), "tap of "+h.Name)
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return errors.Join(
		setHardware(s, h.index),
		setUint32(s, unix.SIOCSIFMTU, mtu),
		setAddress(s, unix.SIOCSIFADDR, net.ParseIP(h.Address)),
		setAddress(s, unix.SIOCSIFNETMASK, net.IPv4(255, 255, 255, 0)),
		up(s, "eth0"), up(s, "lo"),
	)
}

func setAddress(s int, what uint, ip net.IP) error {
	r, err := unix.NewIfreq("eth0")
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(ip.To4()); err != nil {
		return err
	}
	return unix.IoctlIfreq(s, what, r)
}

func setUint32(s int, what uint, v uint32) error {
	r, err := unix.NewIfreq("eth0")
	if err != nil {
		return err
	}
	r.SetUint32(v)
	return unix.IoctlIfreq(s, what, r)
}

func up(s int, name string) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

// Inside runs f in a thread that is in the host's namespace: sockets that it
// makes and processes that it starts are the host's.
func (h *Host) Inside(f func() error) error {
	return inOwnThread(func() error {
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// Start starts a process on the host.
func (h *Host) Start(c *exec.Cmd) error { return h.Inside(c.Start) }

// Dial connects from the host to an address of the network. It is for one
// numeric address, whose socket the dialer makes in the calling thread.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = h.Inside(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Set gives the rule for frames from one host to another.
func (n *Network) Set(from, to *Host, r Rule) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r == (Rule{}) {
		delete(n.rules, pair{from.index, to.index})
		return
	}
	n.rules[pair{from.index, to.index}] = r
}

// Both sets the rule for both directions.
func (n *Network) Both(a, b *Host, r Rule) {
	n.Set(a, b, r)
	n.Set(b, a, r)
}

// Heal takes all rules back.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.rules)
}

// Close unplugs all hosts. Processes on them must have ended.
func (n *Network) Close() {
	n.mu.Lock()
	hosts := n.hosts
	n.hosts = nil
	n.mu.Unlock()
	for _, h := range hosts {
		h.close()
	}
	for _, h := range hosts {
		h.ports.Wait()
	}
}

func (h *Host) close() {
	h.queue.close()
	if h.tap != nil {
		_ = h.tap.Close()
	}
	if h.ns != nil {
		_ = h.ns.Close()
	}
}
