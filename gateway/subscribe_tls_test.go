package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestSubscribeWithoutALPN: older Java SDKs begin HTTP/2 on TLS with its preface,
// and negotiate nothing.
func TestSubscribeWithoutALPN(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 1)
	arn := e.consumer("c", id)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(Config{Cluster: e.broker, Data: e.broker.data, Now: e.clock.now, WatchSilence: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- g.Serve(l, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}})
	}()
	over := *e
	over.url, over.http = "http://"+l.Addr().String(), newClient(true)
	over.http.Transport.(*http.Transport).DialContext = func(_ context.Context, network, address string) (net.Conn, error) {
		c, err := tls.Dial(network, address, &tls.Config{InsecureSkipVerify: true})
		return struct{ net.Conn }{c}, err // net/http is not to see that it is TLS
	}
	s := over.subscribe(arn, shard0, "LATEST", nil)
	e.put("s", "k", "x")
	if got, _ := s.records(1); got != "x" || s.resp.ProtoMajor != 2 {
		t.Errorf("%q over %s", got, s.resp.Proto)
	}
	s.stop()
	over.http.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
