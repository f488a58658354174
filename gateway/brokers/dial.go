package brokers

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"shardstream/stream"
)

const (
	// maxMessage is what a broker may send and takes: a PutRecords, or a read
	// of 16 MiB and one batch more.
	maxMessage = 16<<20 + stream.MaxBatchSize + 1<<20

	// Windows are fixed: the automatic ones begin at 64 KiB, and a PutRecords
	// of 10 MiB would wait for them round by round.
	streamWindow = 4 << 20
	connWindow   = 16 << 20
	// tailWindow is what each subscription may have here before it is asked for.
	tailWindow = 128 << 10

	// A broker that comes back is found again within half a second.
	minRedial   = 20 * time.Millisecond
	maxRedial   = 500 * time.Millisecond
	dialTimeout = 2 * time.Second

	// deadAfter is when a peer whose machine is gone, so that no packet says
	// it, is given up.
	deadAfter = 3 * time.Second
)

func dialOptions(cfg Config) []grpc.DialOption {
	secure := insecure.NewCredentials()
	if cfg.TLS != nil {
		secure = credentials.NewTLS(cfg.TLS)
	}
	dial := cfg.Dial
	if dial == nil {
		dial = dialTCP
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(secure),
		grpc.WithContextDialer(dial),
		grpc.WithNoProxy(),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		// We route and retry ourselves, and know better what is safe.
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minRedial, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxRedial},
			MinConnectTimeout: dialTimeout,
		}),
	}
}

// dialTCP connects, with the kernel's own watch over the peer: it works without
// the peer's program, so that a paused broker is not cut off, and needs no
// permission of the server as gRPC's pings do.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: int(deadAfter / time.Second)},
		ControlContext:  limitUnacknowledged,
	}
	return d.DialContext(ctx, "tcp", address)
}
