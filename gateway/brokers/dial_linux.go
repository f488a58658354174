package brokers

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged bounds how long sent bytes may stay unacknowledged.
// Keepalive does not look at a connection with such bytes, and retransmission
// alone gives up after a quarter of an hour.
func limitUnacknowledged(_ context.Context, _, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}
