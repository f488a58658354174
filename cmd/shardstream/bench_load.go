package main

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"shardstream/cmd/shardstream/internal/benchclient"
)

// load puts records over a number of connections, one writer each.
type load struct {
	flags  *benchLoad
	stream string
	target *benchclient.Target
	format *benchclient.Format
	batch  int   // records in a PutRecords; 0: PutRecord
	most   int64 // stop after that many records; 0: only by time

	began   time.Time
	took    time.Duration
	writers []*writer

	acknowledged atomic.Int64 // records
}

// writer is one connection's part of a load. Only its goroutine touches it
// until the load has ended.
type writer struct {
	load     *load
	put      *benchclient.Put
	latency  *hdrhistogram.Histogram // microseconds
	requests int64                   // that succeeded, at least for one record
	errors   map[string]int64        // by code: records of PutRecords, else requests

	// For --verify: a hash of where each record went, by its number; 0 if it
	// was not acknowledged.
	acks []uint64
	last map[string]string // by shard, the greatest sequence number acknowledged
	bad  []string          // what was wrong with acknowledgements
}

func newLatency() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(2*benchclient.Timeout/time.Microsecond), 3)
}

func newLoad(target *benchclient.Target, stream string, flags *benchLoad, batch int) *load {
	l := &load{flags: flags, stream: stream, target: target, format: benchclient.NewFormat(flags.Size), batch: batch}
	for i := range flags.Connections {
		w := &writer{load: l, latency: newLatency(), errors: map[string]int64{}, last: map[string]string{}}
		if batch == 0 {
			w.put = target.NewPutRecord(l.format, stream, uint32(i), flags.Keys)
		} else {
			w.put = target.NewPutRecords(l.format, stream, uint32(i), flags.Keys, batch)
		}
		l.writers = append(l.writers, w)
	}
	return l
}

// run puts until the time is up or ctx ends, and waits for the last answers.
func (l *load) run(ctx context.Context) {
	l.began = time.Now()
	ctx, cancel := context.WithDeadline(ctx, l.began.Add(l.flags.Duration))
	defer cancel()
	var wg sync.WaitGroup
	for i, w := range l.writers {
		wg.Go(func() { w.run(ctx, i) })
	}
	wg.Wait()
	l.took = time.Since(l.began)
}

func (w *writer) run(ctx context.Context, number int) {
	l := w.load
	conn := l.target.NewConn()
	defer conn.Close()
	var interval time.Duration // between two requests of this connection
	if l.flags.Rate > 0 {
		perRequest := float64(w.put.Count()*l.flags.Connections) / l.flags.Rate
		interval = time.Duration(perRequest * float64(time.Second))
	}
	// The connections' requests are spread over the interval.
	due := l.began.Add(interval * time.Duration(number) / time.Duration(l.flags.Connections))
	for ctx.Err() == nil && (l.most == 0 || l.acknowledged.Load() < l.most) {
		start := time.Now()
		if interval > 0 {
			if wait := due.Sub(start); wait > 0 {
				if pause(ctx, wait) != nil {
					return
				}
				start = time.Now()
			} else {
				start = due // late because the server was: that time counts
			}
			due = due.Add(interval)
		}
		first := w.put.Next(int64(time.Since(l.began)))
		// Not under ctx: a request that is out is waited for, else its outcome is unknown.
		status, answer, err := conn.Do(context.WithoutCancel(ctx), w.put.Request)
		switch {
		case err != nil:
			w.errors["(connection)"]++
			w.note(first, nil)
			_ = pause(ctx, 20*time.Millisecond) // the loop sees when ctx has ended
			continue
		case status != 200:
			code := benchclient.ErrorCode(answer)
			if code == "" {
				code = fmt.Sprintf("HTTP %d", status)
			}
			w.errors[code]++
			w.note(first, nil)
			continue
		}
		_ = w.latency.RecordValue(max(1, time.Since(start).Microseconds())) // fails only beyond the timeout
		w.requests++
		l.acknowledged.Add(w.note(first, answer))
	}
}

// note takes a success's answer apart, and gives the number of records it
// acknowledges. A nil answer acknowledges none.
func (w *writer) note(first uint64, answer []byte) (stored int64) {
	verify := w.load.flags.Verify
	if verify {
		for range w.put.Count() {
			w.acks = append(w.acks, 0)
		}
	}
	switch {
	case answer == nil:
		return 0
	case w.load.batch == 0:
		if !verify {
			return 1
		}
		r, ok := benchclient.ScanPutRecord(answer)
		if !ok {
			w.errors["(unreadable answer)"]++
			return 0
		}
		w.acknowledge(first, r)
		return 1
	case !verify && benchclient.AllStored(answer):
		return int64(w.put.Count())
	}
	n := uint64(0)
	ok := benchclient.ScanPutRecords(answer, func(r benchclient.PutResult) {
		n++
		switch {
		case len(r.ErrorCode) > 0:
			w.errors[string(r.ErrorCode)]++
			return
		case verify && n <= uint64(w.put.Count()):
			w.acknowledge(first+n-1, r)
		}
		stored++
	})
	if !ok || n != uint64(w.put.Count()) {
		w.errors["(unreadable answer)"]++
	}
	return stored
}

var ackSeed = maphash.MakeSeed()

// place stands for where a record is: 64 bits of hash, never 0, in place of
// the 76 characters of a shard's id and a sequence number.
func place(shard, sequence []byte) uint64 {
	return maphash.Bytes(ackSeed, sequence) ^ 3*maphash.Bytes(ackSeed, shard) | 1
}

func (w *writer) acknowledge(seq uint64, r benchclient.PutResult) {
	w.acks[seq] = place(r.ShardID, r.SequenceNumber)
	last := w.last[string(r.ShardID)]
	if !lessSequence(last, string(r.SequenceNumber)) && len(w.bad) < 10 {
		w.bad = append(w.bad, fmt.Sprintf("%s acknowledged sequence number %s after %s", r.ShardID, r.SequenceNumber, last))
	}
	w.last[string(r.ShardID)] = string(r.SequenceNumber)
}

// lessSequence compares sequence numbers as whole numbers; "" is below all.
func lessSequence(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

func (l *load) progress(mode string) func(time.Duration) string {
	last := int64(0)
	return func(since time.Duration) string {
		n := l.acknowledged.Load()
		rate := perSecond(n-last, since)
		last = n
		return fmt.Sprintf("%s: %s records, now %s/s", mode, decimal(n), decimal(rate))
	}
}

func (l *load) result(mode string, t *benchTarget, s *benchStream) *benchResult {
	r := &benchResult{
		Mode: mode, Endpoint: t.Endpoint, Stream: l.stream, Shards: len(s.shards), Connections: l.flags.Connections,
		Size: l.flags.Size, Batch: l.batch, Rate: l.flags.Rate,
		Seconds: l.took.Seconds(), Records: l.acknowledged.Load(), Errors: map[string]int64{},
	}
	latency := newLatency()
	for _, w := range l.writers {
		latency.Merge(w.latency)
		r.Requests += w.requests
		for code, n := range w.errors {
			r.Errors[code] += n
		}
	}
	r.Bytes = r.Records * int64(l.flags.Size)
	r.Latency = summarize(latency)
	r.rates()
	return r
}

// drain reads a stream from its beginning to its end.
type drain struct {
	target  *benchclient.Target
	stream  *benchStream
	limit   int
	readers []*drainReader
	took    time.Duration

	records, bytes atomic.Int64
}

type drainReader struct {
	shards   []string
	latency  *hdrhistogram.Histogram // microseconds
	requests int64
	errors   map[string]int64
	failed   error
}

func newDrain(target *benchclient.Target, s *benchStream, connections, limit int) *drain {
	d := &drain{target: target, stream: s, limit: limit}
	for i := range min(connections, len(s.shards)) {
		r := &drainReader{latency: newLatency(), errors: map[string]int64{}}
		for j := i; j < len(s.shards); j += connections {
			r.shards = append(r.shards, s.shards[j])
		}
		d.readers = append(d.readers, r)
	}
	return d
}

func (d *drain) run(ctx context.Context) error {
	began := time.Now()
	var wg sync.WaitGroup
	for _, r := range d.readers {
		wg.Go(func() { r.failed = d.read(ctx, r) })
	}
	wg.Wait()
	d.took = time.Since(began)
	var errs []error
	for _, r := range d.readers {
		errs = append(errs, r.failed)
	}
	return errors.Join(errs...)
}

func (d *drain) read(ctx context.Context, r *drainReader) error {
	conn := d.target.NewConn()
	defer conn.Close()
	for _, shard := range r.shards {
		cursor, err := d.stream.cursor(ctx, conn, shard, "TRIM_HORIZON", d.limit)
		if err != nil {
			return stopped(ctx, err)
		}
		for caughtUp := false; !caughtUp && ctx.Err() == nil; {
			var n int
			var size int64
			start := time.Now()
			n, caughtUp, err = cursor.next(ctx, func(g benchclient.Got) { size += int64(decodedSize(g.Data)) })
			if err != nil {
				var api *apiError
				if !errors.As(err, &api) || api.code != "ProvisionedThroughputExceededException" {
					return stopped(ctx, err)
				}
				r.errors[api.code]++
				_ = pause(ctx, 200*time.Millisecond) // the loop sees when ctx has ended
				continue
			}
			_ = r.latency.RecordValue(max(1, time.Since(start).Microseconds()))
			r.requests++
			d.records.Add(int64(n))
			d.bytes.Add(size)
		}
	}
	return nil
}

// stopped gives err, or nil if it only says that the time was up.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// decodedSize gives the size of what base64 text stands for.
func decodedSize(text []byte) int {
	n := len(text) / 4 * 3
	for i := len(text) - 1; i >= 0 && text[i] == '='; i-- {
		n--
	}
	return n
}

func (d *drain) progress(time.Duration) string {
	return fmt.Sprintf("get: %s records, %s", decimal(d.records.Load()), byteSize(d.bytes.Load()))
}

func (d *drain) result(t *benchTarget) *benchResult {
	r := &benchResult{
		Mode: "get", Endpoint: t.Endpoint, Stream: d.stream.name, Shards: len(d.stream.shards), Connections: len(d.readers),
		Seconds: d.took.Seconds(), Records: d.records.Load(), Bytes: d.bytes.Load(), Errors: map[string]int64{},
	}
	latency := newLatency()
	for _, reader := range d.readers {
		latency.Merge(reader.latency)
		r.Requests += reader.requests
		for code, n := range maps.All(reader.errors) {
			r.Errors[code] += n
		}
	}
	if r.Records > 0 {
		r.Size = int(r.Bytes / r.Records)
	}
	r.Latency = summarize(latency)
	r.rates()
	return r
}
