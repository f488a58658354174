package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Clients that mean no good, or have died: what they cost is bounded, and the
// others are served meanwhile.

// dial opens a bare connection to the gateway.
func (e *env) dial() net.Conn {
	e.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	return c
}

// closedByServer waits until the server has closed the connection.
func closedByServer(t *testing.T, c net.Conn) {
	t.Helper()
	// The far deadline only turns a hang into a failure.
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); os.IsTimeout(err) {
		t.Fatal("the connection is still open")
	}
}

// TestHalfOpenConnections: clients that connect and say nothing, or stop in the
// middle of a header, of HTTP/2's preface or of a body, take all connections
// there may be; the next client is served once their time is over.
func TestHalfOpenConnections(t *testing.T) {
	starts := []string{
		"",
		"P",
		"POST / HTTP/1.1\r\nHost: x\r\n",
		"PRI * HTTP/2.0\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{",
	}
	e := newEnv(t, func(c *Config, _ *fakeBroker) {
		c.MaxConnections = len(starts)
		c.HeaderTimeout, c.IdleTimeout, c.BodyGrace = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	})
	var conns []net.Conn
	for _, s := range starts {
		c := e.dial()
		if _, err := c.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if a := e.call("ListStreams", m{}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	for _, c := range conns {
		closedByServer(t, c)
	}
	e.allReleased()
}

// TestSlowloris: a client that sends a byte now and then is cut off, in its
// header as in its body, however long it would go on.
func TestSlowloris(t *testing.T) {
	for name, start := range map[string]string{
		"header":       "POST / HTTP/1.1\r\nHost: x\r\nX: ",
		"body":         "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n",
		"chunked body": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n989680\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, func(c *Config, _ *fakeBroker) {
				c.HeaderTimeout, c.BodyGrace, c.BodyRate = 100*time.Millisecond, 100*time.Millisecond, 1<<20
			})
			c := e.dial()
			if _, err := c.Write([]byte(start)); err != nil {
				t.Fatal(err)
			}
			stopped := make(chan struct{})
			go func() { // ends when the server has closed the connection
				defer close(stopped)
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for range tick.C {
					if _, err := c.Write([]byte("x")); err != nil {
						return
					}
				}
			}()
			closedByServer(t, c)
			c.Close()
			<-stopped
			e.allReleased()
		})
	}
}

// TestReaderWhoTakesNothing: an answer that nobody takes in does not keep its
// memory.
func TestReaderWhoTakesNothing(t *testing.T) {
	e := newEnv(t, func(c *Config, _ *fakeBroker) { c.BodyGrace, c.BodyRate = 100*time.Millisecond, 1<<30 })
	e.create("s", 1)
	for range 10 {
		e.callCBOR("PutRecord", m{"StreamName": "s", "PartitionKey": "k", "Data": make([]byte, 1<<20-10)})
	}
	body := fmt.Sprintf(`{"ShardIterator":%q}`, e.iterator("s", "shardId-000000000000", "TRIM_HORIZON", nil))
	c := e.dial()
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Kinesis_20131202.GetRecords\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := bufio.NewReader(c).Peek(1); err != nil { // the answer has begun
		t.Fatal(err)
	}
	e.allReleased()
}

// TestDeclaredLengthIsNoMemory: many requests that declare a huge body and send
// little of it hold no more than the first part.
func TestDeclaredLengthIsNoMemory(t *testing.T) {
	const clients = 20
	e := newEnv(t)
	for range clients {
		c := e.dial()
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n{", 16<<20)
	}
	for e.g.budget.inUse() < clients*firstRead {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	if n := e.g.budget.inUse(); n != clients*firstRead {
		t.Errorf("%d bytes are set aside", n)
	}
}

// TestDistinctNamesCostNothing: names of streams that don't exist, of operations
// and services, error codes and regions leave nothing behind: no series, no entry
// of a map. The long form has a million of them.
func TestDistinctNamesCostNothing(t *testing.T) {
	count := 5_000
	if os.Getenv("SHARDSTREAM_LONG") != "" {
		count = 1_000_000
	}
	registry := prometheus.NewRegistry()
	e := newEnv(t, func(c *Config, _ *fakeBroker) { c.Registerer = registry })
	h := e.g.Handler()
	name := func(i int) string { return fmt.Sprintf("%0128d", i) }
	round := func(from, to int) {
		for i := from; i < to; i++ {
			n := name(i)
			for target, body := range map[string]string{
				"Kinesis_20131202.PutRecord":             `{"StreamName":"` + n + `","PartitionKey":"k","Data":""}`,
				"Kinesis_20131202.DescribeStreamSummary": `{"StreamName":"` + n + `"}`,
				"Kinesis_20131202." + n:                  `{}`,
				n + ".PutRecord":                         `{}`,
			} {
				r := httptest.NewRequest(http.MethodPost, "/"+n, bytes.NewReader([]byte(body)))
				r.Header.Set("X-Amz-Target", target)
				r.Header.Set("Content-Type", typeJSON)
				r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=k/20261124/r"+n[100:]+"/kinesis/aws4_request")
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != http.StatusBadRequest {
					t.Fatalf("%s: %d %s", target, w.Code, w.Body)
				}
			}
		}
	}
	series := func() (n int) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			n += len(f.Metric)
		}
		return n
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // pools let go in two steps
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	const first = 100
	round(0, first)
	seriesBefore, heapBefore := series(), heap()
	round(first, count)
	if n := series(); n != seriesBefore {
		t.Errorf("%d series after %d names, %d after %d", seriesBefore, first, n, count)
	}
	// A map of the names alone would take 128 bytes for each.
	if grown := int64(heap()) - int64(heapBefore); grown > int64(count)*64 {
		t.Errorf("the heap has grown by %d bytes over %d names", grown, count)
	}
}

// TestABodyThatBreaksOffGetsNoAnswer: least of all one that tells an SDK that
// the request itself was wrong.
func TestABodyThatBreaksOffGetsNoAnswer(t *testing.T) {
	e := newEnv(t, func(c *Config, _ *fakeBroker) {
		c.BodyGrace, c.BodyRate = 50*time.Millisecond, 1<<20
	})
	c := e.dial()
	defer c.Close()
	head := "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Kinesis_20131202.PutRecord\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 100000\r\n\r\n{"
	if _, err := c.Write([]byte(head)); err != nil {
		t.Fatal(err)
	}
	if out, _ := io.ReadAll(c); len(out) > 0 {
		t.Errorf("answered %q", out)
	}
	e.allReleased()
}
