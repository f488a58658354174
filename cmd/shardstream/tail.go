package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// tailCmd is `shardstream tail STREAM`.
type tailCmd struct {
	StreamName string `arg:"" name:"stream" help:"Name of the stream."`
	endpointFlags
	From         string        `default:"latest" placeholder:"POSITION" help:"Where to begin: trim-horizon (the oldest record), latest (what comes from now on), or a time as RFC 3339 or Unix seconds (${default})."`
	NoFollow     bool          `aliases:"until-caught-up" help:"Stop when every shard is read to its end."`
	Format       string        `enum:"lines,json" default:"lines" help:"lines: the data and a line end. json: an object with key, sequence number, shard, arrival and data (${default})."`
	Count        int64         `short:"n" placeholder:"N" help:"Stop after N records."`
	PollInterval time.Duration `default:"200ms" help:"Pause before a shard that had nothing is asked again (${default}; AWS allows 5 calls a second and shard)."`
	Limit        int32         `default:"10000" help:"Most records in one GetRecords, 1 to 10000 (${default})."`
}

// Help is what `shardstream tail --help` says below its first line.
func (tailCmd) Help() string {
	return `Reads all shards at once and follows them, also over splits and merges: a child begins when its parents are
read to their end, so records of one partition key keep their order. Between shards there is no order.

Examples:
  shardstream tail logs
  shardstream tail orders --from trim-horizon --no-follow > orders.txt
  shardstream tail orders --from 2026-01-31T12:00:00Z --format json | jq -r .partitionKey`
}

func (c *tailCmd) Run(e *env) error {
	from, err := parsePosition(c.From)
	if err != nil {
		return err
	}
	if c.Limit < 1 || c.Limit > 10000 {
		return usagef("--limit %d: want 1 to 10000", c.Limit)
	}
	client, err := c.client(e.ctx)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(e.stdout, 64<<10)
	t := &tailer{cmd: c, from: from, client: client, stderr: e.stderr, out: out, shards: map[string]*tailShard{}}
	err = t.run(e.ctx)
	if flushErr := out.Flush(); err == nil {
		err = flushErr
	}
	return err
}

// position is where reading a shard begins.
type position struct {
	kind types.ShardIteratorType // LATEST, TRIM_HORIZON or AT_TIMESTAMP
	at   time.Time               // for AT_TIMESTAMP
}

func parsePosition(s string) (position, error) {
	switch s {
	case "latest":
		return position{kind: types.ShardIteratorTypeLatest}, nil
	case "trim-horizon":
		return position{kind: types.ShardIteratorTypeTrimHorizon}, nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return position{kind: types.ShardIteratorTypeAtTimestamp, at: at}, nil
	}
	if seconds, err := strconv.ParseFloat(s, 64); err == nil && seconds >= 0 && seconds < 1e11 {
		return position{kind: types.ShardIteratorTypeAtTimestamp, at: time.UnixMilli(int64(seconds * 1000))}, nil
	}
	return position{}, usagef("--from %s: want trim-horizon, latest, or a time like 2026-01-31T12:00:00Z or 1769860800", s)
}

// tailer reads a stream's shards, each in a goroutine of its own, all of which
// end before run returns.
type tailer struct {
	cmd    *tailCmd
	from   position
	client *kinesis.Client
	stderr io.Writer

	readers sync.WaitGroup

	mu      sync.Mutex // guards all below
	out     *bufio.Writer
	line    []byte
	printed int64
	shards  map[string]*tailShard
	stop    context.CancelCauseFunc
	warned  time.Time
}

// tailShard is what is known of a shard.
type tailShard struct {
	shard   types.Shard
	started bool
	ended   bool // read to its end, which only a closed shard has
}

// errDone ends a tail that has printed all it was asked for.
var errDone = errors.New("done")

func (t *tailer) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	t.stop = stop
	shards, err := t.list(ctx, fewAttempts)
	if err != nil {
		if errorCode(err) == "ResourceNotFoundException" {
			return fmt.Errorf("no stream %s at %s", t.cmd.StreamName, t.cmd.Endpoint)
		}
		return plainError(err)
	}
	t.mu.Lock()
	t.learnLocked(shards)
	if t.from.kind == types.ShardIteratorTypeLatest {
		for _, s := range t.shards {
			if s.shard.SequenceNumberRange.EndingSequenceNumber != nil {
				s.started, s.ended = true, true // nothing new comes to a closed shard
			}
		}
	}
	n := t.startReadersLocked(ctx, t.from)
	t.mu.Unlock()
	if t.cmd.Format == "lines" && isTerminal(t.stderr) {
		fmt.Fprintf(t.stderr, "reading %d shards of %s from %s; Ctrl-C stops\n", n, t.cmd.StreamName, t.cmd.From)
	}
	t.readers.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, errDone) {
		return err
	}
	return nil
}

// list gives all shards of the stream.
func (t *tailer) list(ctx context.Context, options ...func(*kinesis.Options)) ([]types.Shard, error) {
	var shards []types.Shard
	in := &kinesis.ListShardsInput{StreamName: &t.cmd.StreamName}
	for {
		out, err := t.client.ListShards(ctx, in, options...)
		if err != nil {
			return nil, err
		}
		shards = append(shards, out.Shards...)
		if out.NextToken == nil {
			return shards, nil
		}
		in = &kinesis.ListShardsInput{NextToken: out.NextToken}
	}
}

func (t *tailer) learnLocked(shards []types.Shard) {
	for _, s := range shards {
		if t.shards[*s.ShardId] == nil {
			t.shards[*s.ShardId] = &tailShard{shard: s}
		}
	}
}

// startReadersLocked starts a reader for each shard whose parents have been
// read to their end (or are gone), and gives their number.
func (t *tailer) startReadersLocked(ctx context.Context, from position) (n int) {
	for _, s := range t.shards {
		if s.started || !t.endedLocked(s.shard.ParentShardId) || !t.endedLocked(s.shard.AdjacentParentShardId) {
			continue
		}
		s.started = true
		n++
		t.readers.Go(func() { t.follow(ctx, s, from) })
	}
	return n
}

func (t *tailer) endedLocked(id *string) bool {
	return id == nil || t.shards[*id] == nil || t.shards[*id].ended
}

// follow reads one shard until its end, the end of the tail, or an error that
// ends the whole tail.
func (t *tailer) follow(ctx context.Context, s *tailShard, from position) {
	ended, err := t.readShard(ctx, *s.shard.ShardId, from)
	if err != nil {
		t.stop(err)
		return
	}
	if !ended {
		return // caught up, and asked for no more
	}
	shards, err := t.list(ctx)
	if err != nil {
		t.stop(plainError(err))
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.ended = true
	t.learnLocked(shards)
	if from.kind == types.ShardIteratorTypeLatest {
		// A child's records are all later than the tail's begin.
		from = position{kind: types.ShardIteratorTypeTrimHorizon}
	}
	t.startReadersLocked(ctx, from)
}

// readShard prints the shard's records. It gives ended = true at the end of a
// closed shard, and false when it has caught up and is not to follow.
func (t *tailer) readShard(ctx context.Context, id string, from position) (ended bool, err error) {
	var iterator *string
	last := "" // sequence number of the last record printed
	backoff := time.Duration(0)
	for {
		if iterator == nil {
			if iterator, err = t.iterator(ctx, id, from, last); err != nil {
				return false, t.plain(ctx, err)
			}
		}
		out, err := t.client.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator, Limit: &t.cmd.Limit}, fewAttempts)
		if err != nil {
			switch errorCode(err) {
			case "ExpiredIteratorException":
				iterator = nil
				continue
			case "ResourceNotFoundException", "InvalidArgumentException", "ValidationException", "AccessDeniedException",
				"UnrecognizedClientException", "InvalidSignatureException", "MissingAuthenticationTokenException":
				return false, t.plain(ctx, err)
			}
			// Throttled, or the server is away: it comes back.
			t.warn(ctx, id, err)
			backoff = min(max(2*backoff, t.cmd.PollInterval), 5*time.Second)
			if pause(ctx, backoff) != nil {
				return false, context.Cause(ctx)
			}
			continue
		}
		backoff = 0
		if err := t.print(id, out.Records); err != nil {
			return false, err
		}
		if n := len(out.Records); n > 0 {
			last = *out.Records[n-1].SequenceNumber
		}
		if out.NextShardIterator == nil {
			return true, nil
		}
		iterator = out.NextShardIterator
		if len(out.Records) > 0 || aws.ToInt64(out.MillisBehindLatest) > 0 {
			continue
		}
		if t.cmd.NoFollow {
			return false, nil
		}
		if pause(ctx, t.cmd.PollInterval) != nil {
			return false, context.Cause(ctx)
		}
	}
}

func (t *tailer) iterator(ctx context.Context, id string, from position, last string) (*string, error) {
	in := &kinesis.GetShardIteratorInput{StreamName: &t.cmd.StreamName, ShardId: &id, ShardIteratorType: from.kind}
	if from.kind == types.ShardIteratorTypeAtTimestamp {
		in.Timestamp = &from.at
	}
	if last != "" {
		in.ShardIteratorType, in.StartingSequenceNumber, in.Timestamp = types.ShardIteratorTypeAfterSequenceNumber, &last, nil
	}
	out, err := t.client.GetShardIterator(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.ShardIterator, nil
}

// plain gives the reason for which ctx ended if it has, else err for people.
func (t *tailer) plain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return plainError(err)
}

// warn tells of a passing trouble, at most every ten seconds.
func (t *tailer) warn(ctx context.Context, id string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ctx.Err() == nil && time.Since(t.warned) > 10*time.Second {
		t.warned = time.Now()
		fmt.Fprintf(t.stderr, "shardstream tail: %s: %v; trying again\n", id, plainError(err))
	}
}

// tailRecord is a record as --format json prints it. Exactly one of Data and
// DataBase64 is set: text as it is, anything else in base64.
type tailRecord struct {
	PartitionKey   string    `json:"partitionKey"`
	SequenceNumber string    `json:"sequenceNumber"`
	ShardID        string    `json:"shardId"`
	Arrival        time.Time `json:"arrival"`
	Data           *string   `json:"data,omitempty"`
	DataBase64     []byte    `json:"dataBase64,omitempty"`
}

// print writes records of one shard, all or none of them between two of
// another shard, and flushes.
func (t *tailer) print(id string, records []types.Record) error {
	if len(records) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range records {
		if t.cmd.Count > 0 && t.printed == t.cmd.Count {
			break
		}
		t.printed++
		if err := t.appendLocked(id, &records[i]); err != nil {
			return err
		}
		if _, err := t.out.Write(t.line); err != nil {
			return err
		}
	}
	if err := t.out.Flush(); err != nil {
		return err
	}
	if t.cmd.Count > 0 && t.printed == t.cmd.Count {
		return errDone
	}
	return nil
}

func (t *tailer) appendLocked(id string, r *types.Record) error {
	if t.cmd.Format == "lines" {
		t.line = append(append(t.line[:0], r.Data...), '\n')
		return nil
	}
	j := tailRecord{
		PartitionKey: aws.ToString(r.PartitionKey), SequenceNumber: aws.ToString(r.SequenceNumber),
		ShardID: id, Arrival: aws.ToTime(r.ApproximateArrivalTimestamp).UTC(),
	}
	if utf8.Valid(r.Data) {
		text := string(r.Data)
		j.Data = &text
	} else {
		j.DataBase64 = r.Data
	}
	line, err := json.Marshal(j)
	if err != nil {
		return err
	}
	t.line = append(append(t.line[:0], line...), '\n')
	return nil
}
