//go:build linux

package network

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// world has two hosts, and an echo server on the second.
type world struct {
	*Network
	a, b *Host
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces take root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip(err)
	}
	n := New(1)
	t.Cleanup(n.Close)
	w := &world{Network: n}
	for _, h := range []**Host{&w.a, &w.b} {
		host, err := n.AddHost("host")
		if err != nil {
			t.Fatal(err)
		}
		*h = host
	}
	var l net.Listener
	if err := w.b.Inside(func() (err error) {
		l, err = net.Listen("tcp", w.b.Address+":7")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return w
}

func (w *world) dial(t *testing.T) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := w.a.Dial(ctx, "tcp", w.b.Address+":7")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// echo sends bytes there and back, within a time.
func echo(c net.Conn, data []byte, within time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		failed <- err
	}()
	back := make([]byte, len(data))
	_, err := io.ReadFull(c, back)
	if err = errors.Join(err, <-failed); err == nil && !bytes.Equal(back, data) {
		err = errors.New("another text came back")
	}
	return err
}

func TestPassesAndCuts(t *testing.T) {
	w := newWorld(t)
	c := w.dial(t)
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	if err := echo(c, large, time.Minute); err != nil {
		t.Fatal(err)
	}
	for name, cut := range map[string]func(){
		"both":  func() { w.Both(w.a, w.b, Rule{Cut: true}) },
		"there": func() { w.Set(w.a, w.b, Rule{Cut: true}) },
		"back":  func() { w.Set(w.b, w.a, Rule{Cut: true}) },
	} {
		cut()
		if err := echo(c, []byte("x"), 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("cut %s: %v", name, err)
		}
		w.Heal()
		c = w.dial(t)
		if err := echo(c, []byte("y"), time.Minute); err != nil {
			t.Errorf("healed after %s: %v", name, err)
		}
	}
}

func TestDelaysLosesAndReorders(t *testing.T) {
	w := newWorld(t)
	c := w.dial(t)
	w.Set(w.a, w.b, Rule{Delay: 50 * time.Millisecond})
	started := time.Now()
	if err := echo(c, []byte("x"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(started); took < 50*time.Millisecond {
		t.Errorf("there and back in %s", took)
	}
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	w.Both(w.a, w.b, Rule{Delay: time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.05, Reorder: 0.2})
	if err := echo(c, text, time.Minute); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	lost := w.Dropped
	w.mu.Unlock()
	for lost == 0 { // it is chance how many frames that took
		if err := echo(c, text, time.Minute); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		lost = w.Dropped
		w.mu.Unlock()
	}
	w.Both(w.a, w.b, Rule{Rate: 1 << 20})
	started = time.Now()
	if err := echo(c, text, time.Minute); err != nil {
		t.Fatal(err)
	}
	if took, least := time.Since(started), time.Duration(len(text))*time.Second>>20; took < least/2 {
		t.Errorf("%d bytes there and back in %s at 1 MiB/s", len(text), took)
	}
}
