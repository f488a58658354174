//go:build linux

package network

import (
	"container/heap"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The switch. Each host has a goroutine that takes its frames in, and one that
// hands out what is due to it.

// maxQueued bounds the bytes on their way to one host; a switch drops what its
// buffers can't hold.
const maxQueued = 8 << 20

// maxWait bounds how long frames wait for a slow cable, so that what is urgent is
// not minutes behind what is not: TCP finds its rate by what is dropped.
const maxWait = 200 * time.Millisecond

// A host's hardware address ends with its index.
func setHardware(s, index int) error {
	// struct ifreq with a struct sockaddr: the family and 14 bytes.
	var request struct {
		name [unix.IFNAMSIZ]byte
		addr unix.RawSockaddr
		_    [8]byte
	}
	copy(request.name[:], "eth0")
	request.addr.Family = unix.ARPHRD_ETHER
	for i, b := range []byte{2, 0, 0, 0, 0, byte(index)} {
		request.addr.Data[i] = int8(b)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}

// receive takes the host's frames in until its cable is pulled.
func (h *Host) receive() {
	buf := make([]byte, mtu+64)
	for {
		n, err := h.tap.Read(buf)
		if err != nil {
			return
		}
		if n >= 14 {
			h.network.forward(h.index, buf[:n])
		}
	}
}

// forward puts a frame on its way: to the host that it is addressed to, or to
// all others if that is many.
func (n *Network) forward(from int, frame []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if many := frame[0]&1 == 1; many {
		for _, to := range n.hosts {
			if to.index != from {
				n.passLocked(from, to, frame)
			}
		}
		return
	}
	if to := int(frame[5]); to < len(n.hosts) && to != from {
		n.passLocked(from, n.hosts[to], frame)
	}
}

func (n *Network) passLocked(from int, to *Host, frame []byte) {
	r := n.rules[pair{from, to.index}]
	if r.Cut || r.Loss > 0 && n.noise.Float64() < r.Loss {
		n.Dropped++
		return
	}
	delay := time.Duration(0)
	if r.Reorder == 0 || n.noise.Float64() >= r.Reorder {
		delay = r.Delay
		if r.Jitter > 0 {
			delay += time.Duration(n.noise.Int64N(int64(r.Jitter)))
		}
	}
	if !to.queue.put(from, frame, delay, r) {
		n.Dropped++
		return
	}
	n.Passed++
}

// deliver hands the host what is due, until it is closed.
func (h *Host) deliver() {
	for {
		frame, ok := h.queue.take()
		if !ok {
			return
		}
		if _, err := h.tap.Write(frame); err != nil && h.queue.isClosed() {
			return
		}
	}
}

// queue holds the frames on their way to one host, by when they arrive.
type queue struct {
	mu     sync.Mutex
	frames arrivals
	bytes  int
	number uint64
	last   map[int]time.Time // by sender: arrival of its last frame that kept the order
	closed bool
	wake   chan struct{} // capacity 1: something has changed
}

func newQueue() *queue {
	return &queue{last: make(map[int]time.Time), wake: make(chan struct{}, 1)}
}

type arrival struct {
	at     time.Time
	number uint64
	frame  []byte
}

// put adds a copy of a frame; false if there is no room.
func (q *queue) put(from int, frame []byte, delay time.Duration, r Rule) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes+len(frame) > maxQueued {
		return false
	}
	at := time.Now().Add(delay)
	if last := q.last[from]; delay > 0 || r.Reorder == 0 {
		if r.Rate > 0 {
			last = last.Add(time.Duration(len(frame)) * time.Second / time.Duration(r.Rate))
			if time.Until(last) > maxWait {
				return false
			}
		}
		if at.Before(last) {
			at = last
		}
		q.last[from] = at
	}
	q.number++
	q.bytes += len(frame)
	heap.Push(&q.frames, arrival{at, q.number, append([]byte(nil), frame...)})
	if q.frames[0].number == q.number {
		q.notify()
	}
	return true
}

// take waits for the next frame that is due; false once the queue is closed.
func (q *queue) take() ([]byte, bool) {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return nil, false
		}
		wait := time.Hour
		if len(q.frames) > 0 {
			if wait = time.Until(q.frames[0].at); wait <= 0 {
				a := heap.Pop(&q.frames).(arrival)
				q.bytes -= len(a.frame)
				q.mu.Unlock()
				return a.frame, true
			}
		}
		q.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-q.wake:
			timer.Stop()
		}
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.notify()
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func (q *queue) notify() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// arrivals is a heap: the earliest first, of equals the one that came first.
type arrivals []arrival

func (a arrivals) Len() int { return len(a) }
func (a arrivals) Less(i, j int) bool {
	if !a[i].at.Equal(a[j].at) {
		return a[i].at.Before(a[j].at)
	}
	return a[i].number < a[j].number
}
func (a arrivals) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *arrivals) Push(x any)   { *a = append(*a, x.(arrival)) }
func (a *arrivals) Pop() any {
	last := len(*a) - 1
	x := (*a)[last]
	(*a)[last] = arrival{}
	*a = (*a)[:last]
	return x
}
