//go:build !linux

package brokers

import (
	"context"
	"syscall"
)

// limitUnacknowledged does nothing: there is no portable option.
func limitUnacknowledged(context.Context, string, string, syscall.RawConn) error { return nil }
