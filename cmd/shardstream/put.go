package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// putCmd is `shardstream put STREAM`.
type putCmd struct {
	StreamName string `arg:"" name:"stream" help:"Name of the stream."`
	endpointFlags
	keyFlags
	Create      int           `placeholder:"SHARDS" help:"Create the stream with that many shards if it does not exist."`
	Batch       int           `default:"500" help:"Most records in one PutRecords, 1 to 500 (${default})."`
	Concurrency int           `default:"8" help:"PutRecords calls in flight (${default}). All lines of one key go through the same one, in order."`
	GiveUpAfter time.Duration `default:"2m" help:"How long a batch is tried before put gives up (${default})."`
	Quiet       bool          `short:"q" help:"No progress and no summary."`
}

// Help is what `shardstream put --help` says below its first line.
func (putCmd) Help() string {
	return `Each line of stdin becomes one record, without its line end. The key decides the shard and the order:
records of one key keep their order. Without a --key option the key is a hash of the line, which spreads evenly.
Failed records are put again, before any later record of their key. Exit status 1 if any could not be put.

Examples:
  tail -F app.log | shardstream put logs
  shardstream put orders --create 4 --key-field 1 --key-separator , < orders.csv
  shardstream put events --key-regexp '"user":"([^"]*)"' < events.jsonl
  shardstream put clicks --endpoint aws --region eu-central-1 < clicks.txt`
}

// Limits of one PutRecords. AWS takes 5 MiB a request by default; the margin
// is for the partition keys' and the JSON's own size.
const (
	maxPutRecords   = 500
	maxRequestBytes = 4 << 20
	maxRecordBytes  = 10 << 20
)

func (c *putCmd) Run(e *env) error {
	switch {
	case c.Batch < 1 || c.Batch > maxPutRecords:
		return usagef("--batch %d: want 1 to %d", c.Batch, maxPutRecords)
	case c.Concurrency < 1 || c.Concurrency > 1000:
		return usagef("--concurrency %d: want 1 to 1000", c.Concurrency)
	case c.KeyField < 0:
		return usagef("--key-field %d: fields are counted from 1", c.KeyField)
	case c.KeySeparator != "" && c.KeyField == 0:
		return usagef("--key-separator goes with --key-field")
	case c.Create < 0:
		return usagef("--create %d: want at least 1 shard", c.Create)
	}
	client, err := c.client(e.ctx)
	if err != nil {
		return err
	}
	if err := c.ensureStream(e.ctx, client); err != nil {
		return err
	}
	p := newPutter(c, client)
	progress := startProgress(e.stderr, !c.Quiet, p.progress)
	readErr := p.run(e.ctx, e.stdin)
	progress.stop()
	if !c.Quiet {
		fmt.Fprintln(e.stderr, p.summary(c.StreamName))
	}
	n := p.counts()
	switch {
	case p.fatal() != nil:
		return fmt.Errorf("gave up, %s of the %s records read could not be put: %w", decimal(n.failed), decimal(n.read), p.fatal())
	case readErr != nil:
		return readErr
	case n.failed > 0:
		return fmt.Errorf("%s of %s records could not be put; last error: %w", decimal(n.failed), decimal(n.read), n.lastErr)
	}
	return nil
}

// ensureStream waits until the stream takes records, and creates it if asked to.
func (c *putCmd) ensureStream(ctx context.Context, client *kinesis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, c.GiveUpAfter)
	defer cancel()
	created := false
	for {
		out, err := client.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &c.StreamName}, fewAttempts)
		switch {
		case err == nil:
			status := out.StreamDescriptionSummary.StreamStatus
			if status == types.StreamStatusActive || status == types.StreamStatusUpdating {
				return nil
			}
			if status == types.StreamStatusDeleting {
				return fmt.Errorf("stream %s is being deleted", c.StreamName)
			}
		case errorCode(err) == "ResourceNotFoundException" && c.Create > 0 && !created:
			_, err := client.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: &c.StreamName, ShardCount: aws.Int32(int32(c.Create))})
			if err != nil && errorCode(err) != "ResourceInUseException" {
				return plainError(err)
			}
			created = true
		case errorCode(err) == "ResourceNotFoundException" && !created:
			return fmt.Errorf("no stream %s at %s (--create SHARDS makes it)", c.StreamName, c.Endpoint)
		case errorCode(err) != "ResourceNotFoundException":
			return plainError(err)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// putter carries lines from one reader to the stream through a fixed number of
// lanes. Each key belongs to one lane, and a lane has one call in flight, so
// the order of a key's records is that of the lines. Its queues are bounded:
// the reader waits for the slowest lane.
type putter struct {
	cmd    *putCmd
	client putRecordsAPI
	lanes  []chan types.PutRecordsRequestEntry
	stop   context.CancelCauseFunc // ends the reading and all lanes

	mu    sync.Mutex
	n     putCounts
	cause error // why it stopped early
	began time.Time
}

// putRecordsAPI is the part of the SDK's client that a putter uses.
type putRecordsAPI interface {
	PutRecords(context.Context, *kinesis.PutRecordsInput, ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error)
}

type putCounts struct {
	read, put, again, failed, disordered int64 // records
	bytes                                int64 // of data put
	lastErr                              error
}

func newPutter(cmd *putCmd, client putRecordsAPI) *putter {
	p := &putter{cmd: cmd, client: client, began: time.Now()}
	for range cmd.Concurrency {
		p.lanes = append(p.lanes, make(chan types.PutRecordsRequestEntry, 2*cmd.Batch))
	}
	return p
}

// run puts every line of in, and returns when all are put or have failed. When
// ctx ends it reads no more, puts what it has read, and gives nil.
func (p *putter) run(ctx context.Context, in io.Reader) error {
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	p.stop = stop
	var wg sync.WaitGroup
	for _, lane := range p.lanes {
		wg.Go(func() { p.runLane(lane) })
	}
	err := p.read(reading, in)
	for _, lane := range p.lanes {
		close(lane)
	}
	wg.Wait()
	return err
}

// read deals the lines out to the lanes. The reading itself happens in a
// goroutine of its own, as a read from a terminal or pipe can't be interrupted;
// it is the one goroutine that may outlive its owner, blocked in Read.
func (p *putter) read(ctx context.Context, in io.Reader) error {
	lines, failed := make(chan []byte, 256), make(chan error, 1)
	go func() {
		defer close(lines)
		failed <- readLines(in, func(line []byte) bool {
			select {
			case lines <- line:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, more := <-lines:
			if !more {
				return <-failed
			}
			p.add(func(n *putCounts) { n.read++ })
			if len(line) > maxRecordBytes {
				p.add(func(n *putCounts) {
					n.failed++
					n.lastErr = fmt.Errorf("a line of %s bytes is longer than a record may be", decimal(int64(len(line))))
				})
				continue
			}
			key := p.cmd.of(line)
			select {
			case p.lanes[lane(key, len(p.lanes))] <- types.PutRecordsRequestEntry{Data: line, PartitionKey: &key}:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// readLines calls yield with each line, without its "\n" or "\r\n". A last line
// without an end counts too. Each line's bytes are yield's to keep.
func readLines(in io.Reader, yield func([]byte) bool) error {
	r := bufio.NewReaderSize(in, 256<<10)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("reading stdin: %w", err)
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if !yield(line) {
			return nil
		}
	}
}

// runLane puts what comes through the lane, batch by batch, until it closes. A
// batch is as large as what is waiting allows, and never waits for more.
func (p *putter) runLane(in <-chan types.PutRecordsRequestEntry) {
	var held *types.PutRecordsRequestEntry // did not fit into the batch before
	for {
		var batch []types.PutRecordsRequestEntry
		size := 0
		if held != nil {
			batch, size, held = append(batch, *held), entrySize(held), nil
		} else {
			r, more := <-in
			if !more {
				return
			}
			batch, size = append(batch, r), entrySize(&r)
		}
	gather:
		for len(batch) < p.cmd.Batch {
			select {
			case r, more := <-in:
				if !more {
					break gather
				}
				if size += entrySize(&r); size > maxRequestBytes {
					held = &r
					break gather
				}
				batch = append(batch, r)
			default:
				break gather
			}
		}
		p.put(batch)
	}
}

func entrySize(r *types.PutRecordsRequestEntry) int { return len(r.Data) + len(*r.PartitionKey) }

// put puts a batch, and what failed of it again, until all is put or time is
// up. It returns only then, so no later record of these keys can overtake.
//
// Kinesis may fail one record of a key and take a later one of the same
// request; nothing that a client can do afterwards repairs that order, so it
// is counted and told. (Shardstream takes or refuses all records of a request
// for one shard together.)
func (p *putter) put(batch []types.PutRecordsRequestEntry) {
	ctx, cancel := context.WithTimeout(context.Background(), p.cmd.GiveUpAfter)
	defer cancel()
	backoff := 50 * time.Millisecond
	for {
		if p.fatal() != nil {
			p.fail(len(batch), p.fatal())
			return
		}
		out, err := p.client.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &p.cmd.StreamName, Records: batch})
		if err != nil {
			// The SDK has tried until the time was up, or it is no use trying:
			// what comes behind would fail for the same reason.
			err = plainError(err)
			p.abort(err)
			p.fail(len(batch), err)
			return
		}
		batch, err = p.failedOf(batch, out.Records)
		if len(batch) == 0 {
			return
		}
		p.add(func(n *putCounts) { n.lastErr = err })
		if pause(ctx, backoff) != nil {
			p.abort(err)
			p.fail(len(batch), err)
			return
		}
		backoff = min(2*backoff, 2*time.Second)
		p.add(func(n *putCounts) { n.again += int64(len(batch)) })
	}
}

// failedOf gives the records that failed, in order, with the last one's error.
func (p *putter) failedOf(batch []types.PutRecordsRequestEntry, results []types.PutRecordsResultEntry) (failed []types.PutRecordsRequestEntry, err error) {
	if len(results) != len(batch) {
		err := fmt.Errorf("%d results for %d records", len(results), len(batch))
		p.abort(err)
		return nil, err
	}
	var put putCounts
	var broken map[string]bool // keys of which a record failed
	for i := range batch {
		if code := aws.ToString(results[i].ErrorCode); code != "" {
			if broken == nil {
				broken = map[string]bool{}
			}
			broken[*batch[i].PartitionKey] = true
			failed = append(failed, batch[i])
			err = fmt.Errorf("%s: %s", code, aws.ToString(results[i].ErrorMessage))
			continue
		}
		put.put++
		put.bytes += int64(len(batch[i].Data))
		if broken[*batch[i].PartitionKey] {
			put.disordered++
		}
	}
	p.add(func(n *putCounts) {
		n.put += put.put
		n.bytes += put.bytes
		n.disordered += put.disordered
	})
	return failed, err
}

func (p *putter) fail(records int, err error) {
	p.add(func(n *putCounts) { n.failed += int64(records); n.lastErr = err })
}

// abort stops reading: what comes would fail for the same reason.
func (p *putter) abort(err error) {
	p.mu.Lock()
	if p.cause == nil {
		p.cause = err
	}
	p.mu.Unlock()
	p.stop(err)
}

func (p *putter) fatal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause
}

func (p *putter) add(f func(*putCounts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.n)
}

func (p *putter) counts() putCounts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

func (p *putter) progress(time.Duration) string {
	n := p.counts()
	s := fmt.Sprintf("%s records, %s, %s/s", decimal(n.put), byteSize(n.bytes), decimal(perSecond(n.put, time.Since(p.began))))
	if n.again > 0 {
		s += fmt.Sprintf(", %s tried again", decimal(n.again))
	}
	return s
}

func (p *putter) summary(stream string) string {
	n, took := p.counts(), time.Since(p.began)
	s := fmt.Sprintf("%s records (%s) put into %s in %s, %s/s", decimal(n.put), byteSize(n.bytes), stream,
		took.Round(time.Millisecond), decimal(perSecond(n.put, took)))
	if n.again > 0 {
		s += fmt.Sprintf("; %s tried again", decimal(n.again))
	}
	if n.failed > 0 {
		s += fmt.Sprintf("; %s FAILED", decimal(n.failed))
	}
	if n.disordered > 0 {
		s += fmt.Sprintf("; %s came before an earlier record of their key", decimal(n.disordered))
	}
	return s
}
