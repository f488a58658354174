package benchclient

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
)

// EventClient opens streams of events: over HTTP/1.1 with a connection each, or
// many over one connection of HTTP/2.
type EventClient struct {
	target *Target
	http   *http.Client
}

// NewEventClient makes a client; Close ends its connections.
func (t *Target) NewEventClient(http2 bool) *EventClient {
	tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: t.tls.Clone(), DisableCompression: true}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetHTTP2(http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	if tr.TLSClientConfig != nil {
		tr.TLSClientConfig.NextProtos = nil
	}
	return &EventClient{t, &http.Client{Transport: tr}}
}

// Close ends the connections that carry nothing any more.
func (c *EventClient) Close() { c.http.CloseIdleConnections() }

// Events is an open SubscribeToShard.
type Events struct {
	body io.ReadCloser
	r    *bufio.Reader
	buf  []byte
}

// Subscribe opens a stream of events by a SubscribeToShard of that JSON. ctx ends
// the stream too. An answer that is no stream is an error with its status and code.
func (c *EventClient) Subscribe(ctx context.Context, body []byte) (*Events, error) {
	const op = "SubscribeToShard"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.target.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Amz-Target", "Kinesis_20131202."+op)
	if c.target.credentials != nil {
		if err := c.target.sign(ctx, r, body); err != nil {
			return nil, err
		}
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // what there is of it
		return nil, fmt.Errorf("%s: HTTP %d %s", op, resp.StatusCode, ErrorCode(answer))
	}
	return &Events{body: resp.Body, r: bufio.NewReaderSize(resp.Body, 4<<10)}, nil
}

// Close ends the stream.
func (e *Events) Close() { _ = e.body.Close() } // there is nobody to tell

// maxEvent bounds an event, bytes.
const maxEvent = 20 << 20

// Next gives the payload of the next event, valid until the next call; io.EOF
// when the stream has ended in order. An exception in the stream is an error.
func (e *Events) Next() ([]byte, error) {
	for {
		var prelude [12]byte
		if _, err := io.ReadFull(e.r, prelude[:]); err != nil {
			return nil, err
		}
		total, headers := binary.BigEndian.Uint32(prelude[:]), binary.BigEndian.Uint32(prelude[4:])
		if total < 16 || total > maxEvent || headers > total-16 {
			return nil, fmt.Errorf("a frame of %d bytes with headers of %d", total, headers)
		}
		if n := int(total) - len(prelude); n > cap(e.buf) {
			e.buf = make([]byte, n)
		} else {
			e.buf = e.buf[:n]
		}
		if _, err := io.ReadFull(e.r, e.buf); err != nil {
			return nil, io.ErrUnexpectedEOF
		}
		head, payload := e.buf[:headers], e.buf[headers:len(e.buf)-4]
		switch {
		case bytes.Contains(head, []byte("SubscribeToShardEvent")):
			return payload, nil
		case !bytes.Contains(head, []byte("initial-response")):
			return nil, fmt.Errorf("in the stream: %s", payload)
		}
	}
}
