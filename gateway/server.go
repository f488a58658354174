package gateway

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// newServer makes the HTTP server: HTTP/1.1 and HTTP/2 by its preface on the
// same port.
func (g *Gateway) newServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           g.Handler(),
		Protocols:         protocols,
		ReadHeaderTimeout: g.cfg.HeaderTimeout,
		IdleTimeout:       g.cfg.IdleTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			// KCL holds one stream per shard that it is subscribed to.
			MaxConcurrentStreams: 5000,
			// A connection whose client takes nothing in is given up.
			WriteByteTimeout: g.cfg.BodyGrace,
			SendPingTimeout:  time.Minute,
		},
		ConnState: g.countConnections,
	}
}

func (g *Gateway) countConnections(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		g.metrics.connections.Inc()
	case http.StateClosed, http.StateHijacked:
		g.metrics.connections.Dec()
	}
}

// Serve serves connections of l until Shutdown; nil after that. With a tls
// configuration it offers h2 and http/1.1; without one, plain HTTP/1.1 and
// HTTP/2 with prior knowledge. It closes l.
func (g *Gateway) Serve(l net.Listener, config *tls.Config) error {
	l = &boundedListener{Listener: l, slots: make(chan struct{}, g.cfg.MaxConnections), closed: make(chan struct{})}
	if config != nil {
		config = config.Clone()
		for _, proto := range []string{"h2", "http/1.1"} {
			if !slices.Contains(config.NextProtos, proto) {
				config.NextProtos = append(config.NextProtos, proto)
			}
		}
		l = tlsListener{l, config}
	}
	if err := g.server.Serve(quickListener{l, g}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// tlsListener ends TLS below the HTTP server, which so takes HTTP/2 by its
// preface here too: older Java SDKs send it without having offered ALPN. The
// handshake comes with the first read, within HeaderTimeout.
type tlsListener struct {
	net.Listener
	config *tls.Config
}

func (l tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	// The wrapper hides from net/http that this is TLS.
	return struct{ net.Conn }{tls.Server(c, l.config)}, nil
}

// boundedListener accepts no more connections than it has slots.
type boundedListener struct {
	net.Listener
	slots  chan struct{} // holds one for each open connection
	closed chan struct{}
	once   sync.Once
}

func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &boundedConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type boundedConn struct {
	net.Conn
	release func()
}

func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// Handler gives the whole of the gateway as an http.Handler: the Kinesis API,
// and our own paths below /_shardstream/.
func (g *Gateway) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			// A stream of events leaves its deadline, for its last bytes.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		}
		if isOwnPath(r.URL.Path) {
			g.serveOwn(w, r)
			return
		}
		g.serveKinesis(w, r)
	})
}

const ownPrefix = "/_shardstream/"

func isOwnPath(path string) bool {
	return len(path) >= len(ownPrefix) && path[:len(ownPrefix)] == ownPrefix
}

// serveOwn answers the probes: healthz says that the process lives, readyz that
// it can serve.
func (g *Gateway) serveOwn(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, text string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text + "\n"))
	}
	switch r.URL.Path[len(ownPrefix):] {
	case "healthz":
		answer(http.StatusOK, "ok")
	case "readyz":
		if err := g.Unready(); err != nil {
			answer(http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(http.StatusOK, "ready")
	default:
		answer(http.StatusNotFound, "not found")
	}
}
