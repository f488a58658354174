package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
)

// events is the answer of one SubscribeToShard.
type events struct {
	*caller
	body   io.ReadCloser
	cancel context.CancelFunc
}

// frame is a frame of application/vnd.amazon.eventstream.
type frame struct {
	headers map[string]string
	payload []byte
}

func position(consumer, shard, kind string, more m) m {
	at := m{"Type": kind}
	for name, value := range more {
		at[name] = value
	}
	return m{"ConsumerARN": consumer, "ShardId": shard, "StartingPosition": at}
}

// subscribe opens a stream of events. Its first frame has been read.
func (c *caller) subscribe(consumer, shard, kind string, more m) *events {
	c.Helper()
	e, refusal := c.trySubscribe(position(consumer, shard, kind, more))
	if refusal != nil {
		c.Fatalf("%d %s", refusal.status, refusal.raw)
	}
	return e
}

// trySubscribe gives a stream of events, or the ordinary answer to a call that
// is refused.
func (c *caller) trySubscribe(in m) (*events, *answer) {
	c.Helper()
	ctx, cancel := context.WithCancel(c.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(c.format.encode(c.fill(in))))
	if err != nil {
		c.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", target+"SubscribeToShard")
	r.Header.Set("Content-Type", c.format.contentType)
	resp, err := c.http.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { cancel(); resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		defer cancel()
		a := answer{status: resp.StatusCode, header: resp.Header}
		if a.raw, err = io.ReadAll(resp.Body); err != nil {
			c.Fatal(err)
		}
		if a.body, err = c.format.decode(a.raw); err != nil {
			c.Fatalf("%q: %v", a.raw, err)
		}
		return nil, &a
	}
	if got := resp.Header.Get("Content-Type"); got != "application/vnd.amazon.eventstream" || resp.Header.Get("Content-Length") != "" ||
		!requestID.MatchString(resp.Header.Get("x-amzn-RequestId")) || resp.Header.Get("x-amz-id-2") == "" || resp.Header.Get("Date") == "" {
		c.Errorf("headers %v", resp.Header)
	}
	e := &events{caller: c, body: resp.Body, cancel: cancel}
	first, err := e.read()
	if err != nil {
		c.Fatal(err)
	}
	if string(first.payload) != "{}" || first.headers[":event-type"] != "initial-response" || first.headers[":message-type"] != "event" || len(first.headers) != 3 {
		c.Fatalf("the first frame is %v %s", first.headers, first.payload)
	}
	return e, nil
}

// read reads a frame, and holds its form.
func (e *events) read() (frame, error) {
	var head [12]byte
	if _, err := io.ReadFull(e.body, head[:]); err != nil {
		return frame{}, err
	}
	total, headersLen := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
	if sum := crc32.ChecksumIEEE(head[:8]); sum != binary.BigEndian.Uint32(head[8:]) || total < 16+headersLen || total > 16<<20 {
		return frame{}, fmt.Errorf("a frame of %d bytes, %d of headers, checksum %x", total, headersLen, sum)
	}
	raw := append(head[:], make([]byte, total-12)...)
	if _, err := io.ReadFull(e.body, raw[12:]); err != nil {
		return frame{}, errors.Join(err, errors.New("inside a frame"))
	}
	if crc32.ChecksumIEEE(raw[:total-4]) != binary.BigEndian.Uint32(raw[total-4:]) {
		return frame{}, errors.New("a wrong checksum")
	}
	f := frame{headers: map[string]string{}, payload: raw[12+headersLen : total-4]}
	for h := raw[12 : 12+headersLen]; len(h) > 0; {
		n := int(h[0])
		name, rest := string(h[1:1+n]), h[1+n:]
		if rest[0] != 7 {
			return f, fmt.Errorf("header %s is of type %d, which Java's SDK can't read", name, rest[0])
		}
		size := int(binary.BigEndian.Uint16(rest[1:]))
		f.headers[name], h = string(rest[3:3+size]), rest[3+size:]
	}
	return f, nil
}

// next reads the next event, and holds what the KCL asks of all events. Events
// are JSON, whatever the request was.
func (e *events) next() m {
	e.Helper()
	f, err := e.read()
	if err != nil {
		e.Fatal(err)
	}
	if f.headers[":message-type"] != "event" || f.headers[":event-type"] != "SubscribeToShardEvent" || f.headers[":content-type"] != inJSON.contentType {
		e.Fatalf("%v %s", f.headers, f.payload)
	}
	event, err := decodeJSON(f.payload)
	if err != nil {
		e.Fatal(err)
	}
	_, continues := event["ContinuationSequenceNumber"]
	children, ends := event["ChildShards"].(list)
	if continues == ends || ends && len(children) == 0 || event["Records"] == nil || event["MillisBehindLatest"] == nil {
		e.Fatalf("an event that the KCL refuses: %s", f.payload)
	}
	return event
}

// records reads events until n records have come, and gives their data and the
// last event.
func (e *events) records(n int) (data []string, last m) {
	e.Helper()
	for {
		last = e.next()
		for _, r := range last["Records"].(list) {
			b, ok := blob(inJSON, r.(m)["Data"])
			if !ok {
				e.Fatalf("record %v", r)
			}
			data = append(data, string(b))
		}
		if len(data) >= n {
			return data, last
		}
	}
}

// end reads up to the last event of a closed shard.
func (e *events) end() m {
	e.Helper()
	for {
		if event := e.next(); event["ChildShards"] != nil {
			e.over()
			return event
		}
	}
}

// over holds that nothing follows, and that the stream ends in order.
func (e *events) over() {
	e.Helper()
	if f, err := e.read(); err != io.EOF {
		e.Errorf("%v %s, %v behind the last frame", f.headers, f.payload, err)
	}
}

// exception reads up to the exception that ends the stream.
func (e *events) exception() (class, message string) {
	e.Helper()
	for {
		f, err := e.read()
		if err != nil {
			e.Fatal(err)
		}
		if f.headers[":message-type"] != "exception" {
			continue
		}
		var body struct{ Message string }
		if err := json.Unmarshal(f.payload, &body); err != nil {
			e.Fatal(err)
		}
		e.over()
		return f.headers[":exception-type"], body.Message
	}
}

func (e *events) fails(class, message string) {
	e.Helper()
	if c, text := e.exception(); c != class || text != e.text(message) {
		e.Errorf("%s %q, not %s %q", c, text, class, e.text(message))
	}
}
