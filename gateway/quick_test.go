package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"shardstream/stream"
)

// raw is a request as bytes.
func raw(op, body string, fields ...string) string {
	s := "POST / HTTP/1.1\r\nHost: localhost:4567\r\n"
	for _, f := range fields {
		s += f + "\r\n"
	}
	return s + fmt.Sprintf("X-Amz-Target: Kinesis_20131202.%s\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n%s", op, len(body), body)
}

// wrongPut is a call that is refused for what its body says, and waits for nothing.
func wrongPut(name string) string { return fmt.Sprintf(`{"StreamName":"%s!"}`, name) }

// plainHeads and foreignHeads are heads on both sides of the border.
var plainHeads = []string{
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n",
	"POST / HTTP/1.1\r\nhost:x:1\r\ncontent-length:\t2 \r\nX: a\tb  \r\nEmpty:\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: [::1]:4567\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\nX: 1\r\nX: 2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nAmz-Sdk-Request: attempt=1; max=3\r\nAuthorization: AWS4-HMAC-SHA256 Credential=k/20261124/eu-west-1/kinesis/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n",
}

var foreignHeads = []string{
	"POST / HTTP/1.1\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
	"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 02\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nHost: x\r\nContent-Length: 2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nhOsT: y\r\nContent-Length: 2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x/y\r\nContent-Length: 2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding : chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n Transfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX: y\r\n folded\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX: \x00\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX_Y: z\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n: y\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: keep-alive, x\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nUpgrade: h2c\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nOrigin: http://y\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX-Amz-Target: a\r\nX-Amz-Target: b\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX: \xff\r\n\r\n",
}

func TestPlainHeads(t *testing.T) {
	var h quickHead
	for _, s := range plainHeads {
		if !h.parse([]byte(s)) {
			t.Errorf("not plain: %q", s)
		}
		if h.length != 2 {
			t.Errorf("length %d: %q", h.length, s)
		}
	}
	for _, s := range foreignHeads {
		if h.parse([]byte(s)) {
			t.Errorf("plain: %q", s)
		}
	}
	many := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" + strings.Repeat("X: y\r\n", maxQuickFields-1) + "\r\n"
	if h.parse([]byte(many)) {
		t.Error("too many fields are plain")
	}
}

// FuzzQuickHead: what counts as plain, net/http takes, and understands as we do:
// the length of the body, every field, and nothing about framing.
func FuzzQuickHead(f *testing.F) {
	for _, s := range append(plainHeads, foreignHeads...) {
		f.Add([]byte(strings.TrimPrefix(s, string(quickStart))))
	}
	f.Fuzz(func(t *testing.T, rest []byte) {
		b := append(bytes.Clone(quickStart), rest...)
		i := bytes.Index(b, quickEnd)
		if i < 0 {
			return
		}
		b = b[:i+len(quickEnd)]
		var h quickHead
		if !h.parse(b) {
			return
		}
		in := bufio.NewReader(io.MultiReader(bytes.NewReader(b), strings.NewReader(strings.Repeat("b", min(h.length, 1<<16))+"next")))
		r, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("plain, but net/http says %v: %q", err, b)
		}
		if r.Method != http.MethodPost || r.URL.String() != "/" || r.ContentLength != int64(h.length) || r.Close ||
			len(r.TransferEncoding) > 0 || len(r.Trailer) > 0 || r.Host != h.Get("Host") {
			t.Fatalf("%+v: %q", r, b)
		}
		fields := 1 // Host is not among net/http's
		for _, values := range r.Header {
			fields += len(values)
		}
		if fields != len(h.fields) {
			t.Fatalf("%d fields, not %d: %q", len(h.fields), fields, b)
		}
		for _, field := range h.fields {
			name := string(field.name)
			if got := h.Get(name); !strings.EqualFold(name, "host") && got != r.Header.Get(name) {
				t.Fatalf("%s is %q, not %q", name, got, r.Header.Get(name))
			}
			// What a signature covers is the same in both.
			name = strings.ToLower(name)
			for i, more := 0, true; more; i++ {
				var got, want []byte
				var ok bool
				got, more = h.Append(nil, []byte(name), i)
				if want, ok = (httpFields{r}).Append(nil, []byte(name), i); more != ok || more && !bytes.Equal(got, want) {
					t.Fatalf("%s %d is %q %v, not %q %v", name, i, got, more, want, ok)
				}
			}
		}
		if h.length < 1<<16 {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Fatal(err)
			}
			if next, err := in.Peek(4); err != nil || string(next) != "next" {
				t.Fatalf("behind the body: %q, %v", next, err)
			}
		}
	})
}

// twoServers are the gateway as it is, and behind net/http alone.
func twoServers(t testing.TB) (quick, plain string, e *env) {
	e = newEnv(t, func(c *Config, _ *fakeBroker) { c.MaxBody = 100_000 })
	if err := e.g.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := e.g.newServer()
	s.ConnState = nil
	h := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// net/http cuts a call off when the client has sent its last byte.
		h.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
	})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return strings.TrimPrefix(e.url, "http://"), l.Addr().String(), e
}

// exchange sends bytes in pieces and gives all answers, without what differs
// from call to call.
func exchange(t testing.TB, address string, in []byte, pieces int) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := make(chan struct{})
	go func() { // ends when the server has closed the connection, or taken all
		defer close(sent)
		for i := range pieces {
			if _, err := c.Write(in[len(in)*i/pieces : len(in)*(i+1)/pieces]); err != nil {
				return
			}
			runtime.Gosched()
		}
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	var out strings.Builder
	r := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			break
		}
		// An answer that ends with the connection may end in a reset, as net/http
		// does not take in what it has refused.
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		for _, name := range []string{"X-Amzn-Requestid", "X-Amz-Id-2", "Date"} {
			if v := resp.Header.Get(name); v != "" {
				resp.Header.Set(name, fmt.Sprint(len(v)))
			}
		}
		fmt.Fprintf(&out, "%d %v %v %d %q\n", resp.StatusCode, resp.Header, resp.Close, resp.ContentLength, body)
	}
	c.Close()
	<-sent
	return out.String()
}

// conversations are what a connection may carry.
func conversations() []string {
	put := raw("PutRecord", wrongPut("a"))
	long := raw("PutRecords", wrongPut(strings.Repeat("b", 20_000)))
	list := []string{
		"", put, put + put + put, long, put + long + put,
		put + "GET /_shardstream/healthz HTTP/1.1\r\nHost: x\r\n\r\n" + put,
		put + "OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: y\r\n\r\n",
		put + "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + put,
		put + "POST / HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
		put + "post / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
		put[:len(put)-3], put + put[:40], put + "\r\n" + put, put + "\n" + put, put + "\r\n\r\n\r\n" + put, "\r\n" + put, put + "\r\n", put + "rubbish",
		raw("PutRecord", wrongPut("c"), "Connection: close") + put,
		raw("Nothing", "{}"), raw("PutRecord", "[]"), raw("PutRecord", "{"),
		strings.Replace(put, "x-amz-json-1.1", "x-amz-cbor-1.1", 1),
		strings.Replace(put, "x-amz-json-1.1", "json", 1), strings.Replace(put, "x-amz-json-1.1", "x", 1),
		raw("PutRecord", strings.Repeat("x", 100_001)) + put,
		raw("PutRecord", wrongPut("d"), "X-Long: "+strings.Repeat("y", 5000)) + put,
	}
	for _, h := range append(plainHeads, foreignHeads...) {
		list = append(list, put+h+"{}"+put)
	}
	return list
}

// TestQuickAnswersAsHTTP: whatever comes over a connection, and in whatever
// pieces, gets the answers that net/http alone would give.
func TestQuickAnswersAsHTTP(t *testing.T) {
	quick, plain, _ := twoServers(t)
	for _, in := range conversations() {
		for _, pieces := range []int{1, 2, 7} {
			got, want := exchange(t, quick, []byte(in), pieces), exchange(t, plain, []byte(in), pieces)
			if got != want {
				t.Fatalf("%.300q in %d pieces:\n%s\nnet/http:\n%s", in, pieces, got, want)
			}
		}
	}
}

func FuzzQuickAnswersAsHTTP(f *testing.F) {
	for _, in := range conversations() {
		if len(in) < 5000 {
			f.Add([]byte(in), uint8(1))
		}
	}
	quick, plain, _ := twoServers(f)
	f.Fuzz(func(t *testing.T, in []byte, pieces uint8) {
		if bytes.Contains(in, []byte("CreateStream")) {
			return // it is another call the second time
		}
		n := max(1, int(pieces)%16)
		if got, want := exchange(t, quick, in, n), exchange(t, plain, in, n); got != want {
			t.Fatalf("%q:\n%s\nnet/http:\n%s", in, got, want)
		}
	})
}

// TestPlainRequestsStayBelowHTTP: the quick way is the one that is gone.
func TestPlainRequestsStayBelowHTTP(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	c := e.dial()
	r := bufio.NewReader(c)
	count := func() int {
		e.g.quick.mu.Lock()
		defer e.g.quick.mu.Unlock()
		return len(e.g.quick.conns)
	}
	e.http.CloseIdleConnections()
	for i, size := range []int{10, 3000, 500_000, 10} {
		body := fmt.Sprintf(`{"StreamName":"s","PartitionKey":"k","Data":"%s"}`, strings.Repeat("AAAA", size/4))
		if _, err := io.WriteString(c, raw("PutRecord", body)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%d: %d, %v", i, resp.StatusCode, err)
		}
	}
	if count() == 0 {
		t.Error("the connection went to net/http")
	}
	if _, err := io.WriteString(c, "GET /_shardstream/readyz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
}

// TestShutdownFinishesAnswers: a request under way is answered, with word that
// the connection ends; idle connections end at once; one that takes too long is
// cut off.
func TestShutdownFinishesAnswers(t *testing.T) {
	for _, late := range []bool{false, true} {
		arrived, let := make(chan struct{}), make(chan struct{})
		e := newEnv(t, func(c *Config, f *fakeBroker) {
			f.onAppend = func(string, stream.ShardID) (stream.Kind, error) {
				close(arrived)
				<-let
				return 0, nil
			}
		})
		e.create("s", 1)
		idle, busy := e.dial(), e.dial()
		if _, err := io.WriteString(busy, raw("PutRecord", `{"StreamName":"s","PartitionKey":"k","Data":""}`)); err != nil {
			t.Fatal(err)
		}
		<-arrived
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- e.g.Shutdown(ctx) }()
		closedByServer(t, idle)
		if late {
			cancel()
			closedByServer(t, busy)
			close(let)
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("shutdown: %v", err)
			}
			continue
		}
		select {
		case err := <-ended:
			t.Fatalf("over before its request: %v", err)
		case <-time.After(20 * time.Millisecond): // a chance to be wrong
		}
		close(let)
		resp, err := http.ReadResponse(bufio.NewReader(busy), nil)
		if err != nil || resp.StatusCode != 200 || !resp.Close {
			t.Fatalf("%+v, %v", resp, err)
		}
		if err := <-ended; err != nil {
			t.Errorf("shutdown: %v", err)
		}
	}
}
