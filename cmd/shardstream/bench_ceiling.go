package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"shardstream/cmd/shardstream/internal/benchclient"
	"shardstream/gateway/kinesis"
	"shardstream/stream"
)

// benchCeiling is `shardstream bench ceiling`.
type benchCeiling struct {
	benchTarget
	benchLoad
	Batch int  `default:"100" help:"Records in one PutRecords, 1 to 500; 0 measures PutRecord (${default})."`
	Alone bool `help:"Measure only the ceiling, and no endpoint beside it."`
}

// Help is what `shardstream bench ceiling --help` says below its first line.
func (benchCeiling) Help() string {
	return `Puts first against a server inside this process, which reads, decodes and answers like the real one but stores
nothing, and then with the same client against the endpoint. The ratio says how near the endpoint comes to what this
client, HTTP and this machine allow.`
}

func (c *benchCeiling) Run(e *env) error {
	if c.Batch != 0 {
		if err := checkBatch(c.Batch); err != nil {
			return err
		}
	}
	if err := c.check(); err != nil {
		return err
	}
	if c.Verify {
		return usagef("--verify: the ceiling stores nothing that could be verified")
	}
	server, err := startCeiling()
	if err != nil {
		return err
	}
	target, err := benchclient.NewTarget(server.endpoint)
	if err != nil {
		return errors.Join(err, server.stop())
	}
	here := c.benchTarget
	here.Endpoint = server.endpoint
	load := newLoad(target, c.StreamName, &c.benchLoad, c.Batch)
	progress := startProgress(e.stderr, !c.JSON, load.progress("ceiling"))
	load.run(e.ctx)
	progress.stop()
	ceiling := load.result("ceiling", &here, &benchStream{})
	if err := errors.Join(server.stop(), ceiling.print(e.stdout, c.JSON), ceiling.verdict()); err != nil {
		return err
	}
	if c.Alone || e.ctx.Err() != nil {
		return nil
	}

	target, s, done, err := c.open(e.ctx)
	if err != nil {
		return err
	}
	defer done()
	mode := "put"
	if c.Batch > 0 {
		mode = "put-batch"
	}
	load = newLoad(target, c.StreamName, &c.benchLoad, c.Batch)
	progress = startProgress(e.stderr, !c.JSON, load.progress(mode))
	load.run(e.ctx)
	progress.stop()
	result := load.result(mode, &c.benchTarget, s)
	result.OfCeiling = result.RecordsPerSecond / ceiling.RecordsPerSecond
	if err := result.print(e.stdout, c.JSON); err != nil {
		return err
	}
	return result.verdict()
}

// ceilingServer takes puts and forgets them.
type ceilingServer struct {
	endpoint string
	http     *http.Server
	served   chan error
}

func startCeiling() (*ceilingServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &ceilingServer{
		endpoint: "http://" + l.Addr().String(),
		http:     &http.Server{Handler: http.HandlerFunc(forget), ReadHeaderTimeout: 10 * time.Second},
		served:   make(chan error, 1),
	}
	go func() { s.served <- s.http.Serve(l) }()
	return s, nil
}

// stop ends the server and waits for it.
func (s *ceilingServer) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// scratch is what a request needs of memory, kept for the next one.
type scratch struct {
	body, data, answer []byte
	scan               kinesis.PutScan
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// forget is the whole server: read, decode all of it to the last byte of data,
// hash the keys, answer.
func forget(w http.ResponseWriter, r *http.Request) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	size := int(r.ContentLength)
	if size < 0 || size > 16<<20 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if cap(s.body) < size {
		s.body = make([]byte, size)
	}
	s.body = s.body[:size]
	if _, err := io.ReadFull(r.Body, s.body); err != nil {
		return // the client is gone
	}
	batch := r.Header.Get("X-Amz-Target") == "Kinesis_20131202.PutRecords"
	var ok bool
	if batch {
		ok = s.scan.ScanPutRecords(kinesis.JSON, s.body)
	} else {
		ok = s.scan.ScanPutRecord(kinesis.JSON, s.body)
	}
	s.data = s.data[:0]
	for i := range s.scan.Entries {
		entry := &s.scan.Entries[i]
		stream.HashPartitionKey(entry.PartitionKey)
		var err error
		if s.data, err = entry.Data.AppendTo(s.data); err != nil {
			ok = false
		}
	}
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.answer = appendForgotten(s.answer[:0], len(s.scan.Entries), batch)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("Content-Length", strconv.Itoa(len(s.answer)))
	_, _ = w.Write(s.answer) // the client is gone if it fails
}

func appendForgotten(dst []byte, records int, batch bool) []byte {
	const record = `{"SequenceNumber":"%s","ShardId":"shardId-000000000000"}`
	number := stream.RecordSequence(0, 1_700_000_000, 0, 1_700_000_000)
	if !batch {
		return fmt.Appendf(dst, record, number)
	}
	dst = append(dst, `{"FailedRecordCount":0,"Records":[`...)
	for i := range records {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"SequenceNumber":"`...)
		number.Counter = uint64(i) + 1
		dst = number.Append(dst)
		dst = append(dst, `","ShardId":"shardId-000000000000"}`...)
	}
	return append(dst, "]}"...)
}
