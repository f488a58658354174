package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// output is what a command has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// started is a command that runs until the test ends or stop is called.
type started struct {
	t        *testing.T
	out, err output
	stop     context.CancelFunc
	ended    chan struct{}
	status   int
}

func startCommand(t *testing.T, args ...string) *started {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &started{t: t, stop: cancel, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.status = run(ctx, args, strings.NewReader(""), &s.out, &s.err)
	}()
	t.Cleanup(func() { cancel(); <-s.ended })
	return s
}

// printed waits until the command has printed what the expression means, and
// gives its group.
func (s *started) printed(expression string) string {
	s.t.Helper()
	re := regexp.MustCompile(expression)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if found := re.FindStringSubmatch(s.out.String() + s.err.String()); found != nil {
			return found[len(found)-1]
		}
		select {
		case <-tick.C:
		case <-s.ended:
			s.t.Fatalf("ended with %d before it printed %q\n%s%s", s.status, expression, s.out.String(), s.err.String())
		case <-s.t.Context().Done():
			s.t.Fatalf("has not printed %q\n%s%s", expression, s.out.String(), s.err.String())
		}
	}
}

func statusOf(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func callKinesis(t *testing.T, endpoint, op, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, endpoint, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "Kinesis_20131202."+op)
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

// TestGatewayCommand: a gateway in front of a node started by another command
// serves its streams; it starts before the node, and says when it is ready.
func TestGatewayCommand(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	grpc := free.Addr().String()
	free.Close()
	g := startCommand(t, "gateway", "--brokers", grpc, "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--transition-delay", "0")
	admin := g.printed(`admin: +(http://\S+)/metrics`)
	endpoint := g.printed(`endpoint: (\S+)`)
	if code, why := statusOf(t, admin+"/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("ready without a broker: %d %s", code, why)
	}
	if code, _ := statusOf(t, admin+"/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}

	dev := startCommand(t, "dev", "--listen", "127.0.0.1:0", "--grpc-listen", grpc, "--ephemeral", "--stream", "s:2", "--transition-delay", "0")
	dev.printed(`endpoint: (\S+)`) // its stream is there by then
	g.printed(`(?m)^(ready)$`)
	if code, why := statusOf(t, admin+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz: %d %s", code, why)
	}
	if code, body := callKinesis(t, endpoint, "PutRecord", `{"StreamName":"s","PartitionKey":"k","Data":"eA=="}`); code != 200 || !strings.Contains(body, "SequenceNumber") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := callKinesis(t, endpoint, "ListStreams", `{}`); code != 200 || !strings.Contains(body, `"s"`) {
		t.Errorf("%d %s", code, body)
	}
	g.stop()
	<-g.ended
	if g.status != exitOK {
		t.Errorf("status %d: %s", g.status, g.err.String())
	}
	if strings.Contains(g.err.String(), "NOT AUTHENTICATED") || strings.Contains(g.err.String(), "ANYONE") {
		t.Errorf("a warning about loopback: %s", g.err.String())
	}
}

func TestGatewayMistakes(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		text   string
	}{
		{nil, exitUsage, "--brokers"},
		{[]string{"--brokers", "a"}, exitUsage, `broker "a": it must be HOST:PORT`},
		{[]string{"--brokers", "a:1", "--tls-cert", empty}, exitUsage, "go together"},
		{[]string{"--brokers", "a:1", "--tls-cert", empty, "--tls-key", empty}, exitFailure, "--tls-cert"},
		{[]string{"--brokers", "a:1", "--max-in-flight", "5"}, exitUsage, "cannot hold a body"},
		{[]string{"--brokers", "a:1", "--auth", "sigv4"}, exitUsage, "--auth sigv4 needs --credentials FILE"},
		{[]string{"--brokers", "a:1", "--credentials", empty}, exitUsage, "give --auth sigv4 too"},
		{[]string{"--brokers", "a:1", "--auth-region", "x"}, exitUsage, "give --auth sigv4 too"},
		{[]string{"--brokers", "a:1", "--auth", "sigv4", "--credentials", empty}, exitUsage, "--credentials " + empty + ": there is no list \"keys\""},
		{[]string{"--brokers", "a:1", "--auth", "sigv4", "--credentials", "no/such"}, exitUsage, "--credentials no/such: no such file"},
	} {
		var out, errs output
		status := run(t.Context(), append([]string{"gateway", "--listen", "127.0.0.1:0", "--http-listen", ""}, c.args...), strings.NewReader(""), &out, &errs)
		if status != c.status || !strings.Contains(errs.String(), c.text) || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%q: %d %s", c.args, status, errs.String())
		}
	}
}

// TestLoudWithoutAuthentication: a gateway that others than this machine reach
// says what that means.
func TestLoudWithoutAuthentication(t *testing.T) {
	g := startCommand(t, "gateway", "--brokers", "127.0.0.1:1", "--listen", ":0", "--http-listen", "")
	g.printed(`(ANYONE WHO REACHES THIS PORT)`)
}

// TestRenewedCertificate: a certificate that is replaced is served without a
// restart, and half of a replacement leaves the former in use.
func TestRenewedCertificate(t *testing.T) {
	dir := t.TempDir()
	certPath, keyPath := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	var versions int
	write := func(both bool) []byte {
		t.Helper()
		cert, key, err := newCertificate("x")
		if err != nil {
			t.Fatal(err)
		}
		versions++
		when := time.Unix(int64(1e9+versions), 0)
		if both {
			if err := os.WriteFile(keyPath, key, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(certPath, cert, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{certPath, keyPath} {
			if err := os.Chtimes(p, when, when); err != nil {
				t.Fatal(err)
			}
		}
		return cert
	}
	write(true)
	var log output
	r := &reloader{certPath: certPath, keyPath: keyPath, logger: slog.New(slog.NewTextHandler(&log, nil))}
	if err := r.load(); err != nil {
		t.Fatal(err)
	}
	serial := func() string {
		t.Helper()
		r.mu.Lock()
		r.lastLook = time.Time{} // the next look is due
		r.mu.Unlock()
		c, err := r.certificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(c.Leaf.SerialNumber)
	}
	first := serial()
	write(false)
	if serial() != first || !strings.Contains(log.String(), "the former stays") {
		t.Errorf("half of a replacement is in use, or nobody was told: %s", log.String())
	}
	write(true)
	if serial() == first {
		t.Error("the new certificate is not in use")
	}
	if err := os.Remove(certPath); err != nil {
		t.Fatal(err)
	}
	if serial() == first {
		t.Error("a certificate from before is in use")
	}
}
