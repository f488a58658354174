package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// net/http lingers half a second on a connection whose client it has cut off.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// clock is a clock that tests set.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(time.Date(2026, 11, 24, 8, 0, 0, 123e6, time.UTC).UnixMilli())
	return c
}

func (c *clock) now() time.Time          { return time.UnixMilli(c.ms.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// env is a gateway in front of a fake broker, behind a real port.
type env struct {
	t      testing.TB
	clock  *clock
	broker *fakeBroker
	g      *Gateway
	url    string
	http   *http.Client
	h2c    bool
	sign   func(*http.Request) // nil: requests are not signed
}

func newEnv(t testing.TB, change ...func(*Config, *fakeBroker)) *env {
	t.Helper()
	e := &env{t: t, clock: newClock()}
	e.broker = newFakeBroker(e.clock.now)
	cfg := Config{Cluster: e.broker, Data: e.broker.data, Now: e.clock.now, WatchSilence: time.Hour}
	for _, f := range change {
		f(&cfg, e.broker)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.g = g
	e.broker.mu.Lock()
	e.broker.shown = func(index uint64) {
		if _, err := g.meta.awaitIndex(t.Context(), index); err != nil {
			t.Errorf("waiting for index %d: %v", index, err)
		}
	}
	e.broker.mu.Unlock()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(l, nil) }()
	e.url = "http://" + l.Addr().String()
	e.http = newClient(false)
	t.Cleanup(func() {
		e.http.CloseIdleConnections()
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nothing is under way any more; what is, is cut off
		if err := g.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return e
}

func newClient(h2c bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!h2c)
	tr.Protocols.SetUnencryptedHTTP2(h2c)
	return &http.Client{Transport: tr}
}

// overH2C makes the same calls over HTTP/2 with prior knowledge.
func (e *env) overH2C() *env {
	o := *e
	o.h2c, o.http = true, newClient(true)
	e.t.Cleanup(o.http.CloseIdleConnections)
	return &o
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any // of JSON and CBOR answers with one
}

func (e *env) do(r *http.Request) answer {
	e.t.Helper()
	if e.sign != nil {
		e.sign(r)
	}
	resp, err := e.http.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: raw}
	if len(raw) > 0 {
		switch resp.Header.Get("Content-Type") {
		case "application/x-amz-cbor-1.1":
			err = cborDecoder.Unmarshal(raw, &a.body)
		case "application/x-amz-json-1.1":
			d := json.NewDecoder(bytes.NewReader(raw))
			d.UseNumber()
			err = d.Decode(&a.body)
		}
	}
	if err != nil {
		e.t.Fatalf("answer %q: %v", raw, err)
	}
	return a
}

// cborDecoder gives maps with string keys, and times as AWS means them.
var cborDecoder = func() cbor.DecMode {
	m, err := cbor.DecOptions{DefaultMapType: nil, TimeTag: cbor.DecTagIgnored}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// request makes a call with any body.
func (e *env) request(target, contentType string, body []byte, headers ...string) *http.Request {
	e.t.Helper()
	r, err := http.NewRequest(http.MethodPost, e.url+"/", bytes.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	if target != "" {
		r.Header.Set("X-Amz-Target", target)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

type m = map[string]any

// call makes a call in JSON; []byte members become base64.
func (e *env) call(op string, in m, headers ...string) answer {
	e.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		e.t.Fatal(err)
	}
	return e.do(e.request("Kinesis_20131202."+op, "application/x-amz-json-1.1", body, headers...))
}

// callCBOR makes the same call in CBOR.
func (e *env) callCBOR(op string, in m) answer {
	e.t.Helper()
	body, err := cbor.Marshal(in)
	if err != nil {
		e.t.Fatal(err)
	}
	return e.do(e.request("Kinesis_20131202."+op, "application/x-amz-cbor-1.1", body))
}

// ok makes a call that must succeed.
func (e *env) ok(op string, in m) map[string]any {
	e.t.Helper()
	a := e.call(op, in)
	if a.status != 200 {
		e.t.Fatalf("%s: %d %s", op, a.status, a.raw)
	}
	return a.body
}

// refused makes a call that must fail with that class and text, in both formats.
func (e *env) refused(op string, in m, code, message string) {
	e.t.Helper()
	e.call(op, in).mustBe(e.t, 400, code, message)
	e.callCBOR(op, in).mustBe(e.t, 400, code, message)
}

func (a answer) mustBe(t testing.TB, status int, code, message string) {
	t.Helper()
	if a.status != status || a.body["__type"] != code {
		t.Fatalf("%d %s, not %d %s", a.status, a.raw, status, code)
	}
	got, there := a.body["message"]
	if message == "" && there || message != "" && got != message {
		t.Fatalf("message\n  %v, not\n  %s", got, message)
	}
}

// create makes an active stream.
func (e *env) create(name string, shards int) uint64 {
	e.t.Helper()
	e.ok("CreateStream", m{"StreamName": name, "ShardCount": shards})
	return e.broker.streamID(name)
}

func (e *env) put(name, key, data string) map[string]any {
	e.t.Helper()
	return e.ok("PutRecord", m{"StreamName": name, "PartitionKey": key, "Data": []byte(data)})
}

func (e *env) iterator(name, shard, kind string, more m) string {
	e.t.Helper()
	in := m{"StreamName": name, "ShardId": shard, "ShardIteratorType": kind}
	for k, v := range more {
		in[k] = v
	}
	return e.ok("GetShardIterator", in)["ShardIterator"].(string)
}

func (e *env) read(iterator string, more m) map[string]any {
	e.t.Helper()
	in := m{"ShardIterator": iterator}
	for k, v := range more {
		in[k] = v
	}
	return e.ok("GetRecords", in)
}

// dataOf gives the data of the records of a JSON answer, joined by blanks.
func dataOf(t testing.TB, out map[string]any) string {
	t.Helper()
	var all []string
	for _, r := range out["Records"].([]any) {
		b, err := base64.StdEncoding.DecodeString(r.(m)["Data"].(string))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	return strings.Join(all, " ")
}

// allReleased waits until no request holds any of the budget, which is taken
// as a whole for that.
func (e *env) allReleased() {
	e.t.Helper()
	if err := e.g.budget.acquire(e.t.Context(), e.g.budget.size); err != nil {
		e.t.Fatal(err)
	}
	e.g.budget.release(e.g.budget.size)
}
