//go:build linux

package statefulset

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// network is a switch, and the namespaces plugged into it. All of its addresses
// are of one /24 that exists nowhere else.
type network struct {
	prefix string // of the namespaces' names
	lan    string // "10.231.77."

	mu    sync.Mutex
	next  int               // last number of an address
	hosts map[string]string // name of a pod by address: what DNS knows
	all   []*namespace
}

// namespace is where one pod's process lives: its address and its hosts file.
type namespace struct {
	name, address string
}

const service = "shardstream-broker" // the headless Service of the manifests

func ip(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// newNetwork makes the switch: a bridge in a namespace of its own.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{prefix: fmt.Sprintf("shardstream-%d-", os.Getpid()), lan: "10.231.77.", hosts: map[string]string{}}
	ip(t, "netns", "add", n.prefix+"switch")
	t.Cleanup(func() { ip(t, "netns", "del", n.prefix+"switch") })
	ip(t, "-n", n.prefix+"switch", "link", "add", "br0", "type", "bridge")
	ip(t, "-n", n.prefix+"switch", "link", "set", "br0", "up")
	return n
}

// plug makes a namespace with the next address, which was never used before.
func (n *network) plug(t *testing.T, what string) *namespace {
	t.Helper()
	n.mu.Lock()
	n.next++
	number := strconv.Itoa(n.next)
	s := &namespace{name: n.prefix + what + "-" + number, address: n.lan + number}
	n.all = append(n.all, s)
	n.mu.Unlock()
	ip(t, "netns", "add", s.name)
	t.Cleanup(func() { n.unplug(t, s) })
	ip(t, "-n", s.name, "link", "add", "eth0", "type", "veth", "peer", "name", "port"+number, "netns", n.prefix+"switch")
	ip(t, "-n", n.prefix+"switch", "link", "set", "port"+number, "master", "br0", "up")
	ip(t, "-n", s.name, "addr", "add", s.address+"/24", "dev", "eth0")
	ip(t, "-n", s.name, "link", "set", "eth0", "up")
	ip(t, "-n", s.name, "link", "set", "lo", "up")
	// `ip netns exec` lays these over /etc.
	if err := os.MkdirAll(s.etc(), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hosts", "resolv.conf"} {
		if err := os.WriteFile(filepath.Join(s.etc(), name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n.tell(t)
	return s
}

func (s *namespace) etc() string { return filepath.Join("/etc/netns", s.name) }

// unplug takes the namespace away, and with it its address: who sends there gets
// no answer at all. Nothing of it must be running. A second call does nothing.
func (n *network) unplug(t *testing.T, s *namespace) {
	t.Helper()
	n.mu.Lock()
	there := false
	for i, other := range n.all {
		if other == s {
			n.all = append(n.all[:i], n.all[i+1:]...)
			there = true
			break
		}
	}
	n.mu.Unlock()
	if !there {
		return
	}
	ip(t, "netns", "del", s.name)
	if err := os.RemoveAll(s.etc()); err != nil {
		t.Error(err)
	}
	_ = os.Remove("/etc/netns") // if it is empty
}

// publish has DNS know a pod of the Service from now on; forget ends that.
func (n *network) publish(t *testing.T, s *namespace) {
	t.Helper()
	n.mu.Lock()
	n.hosts[s.address] = service
	n.mu.Unlock()
	n.tell(t)
}

func (n *network) forget(t *testing.T, s *namespace) {
	t.Helper()
	n.mu.Lock()
	delete(n.hosts, s.address)
	n.mu.Unlock()
	n.tell(t)
}

// tell writes what DNS knows into everybody's hosts file. In place: the files
// are mounted.
func (n *network) tell(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	text := "127.0.0.1 localhost\n"
	for address, name := range n.hosts {
		text += address + " " + name + "\n"
	}
	for _, s := range n.all {
		if err := os.WriteFile(filepath.Join(s.etc(), "hosts"), []byte(text), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// command runs the program in the namespace. The process is the program itself.
func (s *namespace) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", s.name, program}, args...)...)
}

// dial connects from inside the namespace.
func (s *namespace) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		own, openErr := os.Open("/proc/thread-self/ns/net")
		if openErr != nil {
			err = openErr
			return
		}
		defer own.Close()
		target, openErr := os.Open("/run/netns/" + s.name)
		if openErr != nil {
			err = openErr
			return
		}
		defer target.Close()
		if err = unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		// A socket stays in the namespace in which it was made. For one address it
		// is made in this very thread.
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // else the thread ends with the goroutine
		}
	}()
	<-done
	return c, err
}

// client is an HTTP client inside the namespace.
func (s *namespace) client(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{DialContext: s.dial, MaxIdleConnsPerHost: 64}}
}
