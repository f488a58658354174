package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"shardstream/cmd/shardstream/internal/benchclient"
)

// benchCmd is `shardstream bench`.
type benchCmd struct {
	Put       benchPut       `cmd:"" help:"PutRecord, one record a call."`
	PutBatch  benchPutBatch  `cmd:"" help:"PutRecords, many records a call."`
	Get       benchGet       `cmd:"" help:"Drain a stream with GetRecords."`
	E2E       benchE2E       `cmd:"" name:"e2e" help:"Time from put to get, with readers that poll."`
	Subscribe benchSubscribe `cmd:"" help:"Time from put to event, with any number of subscriptions (enhanced fan-out)."`
	Ceiling   benchCeiling   `cmd:"" help:"Puts against a server that stores nothing: the most this client and machine can show."`
}

// Help is what `shardstream bench --help` says below its first line.
func (benchCmd) Help() string {
	return `Load generator and server usually share a machine: the client therefore speaks plain HTTP/1.1 with requests
built beforehand, one request in flight on each connection. Compare figures within one run of one machine only.

Without an existing --stream a temporary one is created and deleted at the end. With --verify everything is read
back afterwards: no acknowledged record may be lost, come twice, out of order, damaged, or under another sequence
number than the one that was acknowledged. Exit status 1 if one is.

Examples:
  shardstream bench put --connections 16
  shardstream bench put-batch --batch 500 --shards 8 --verify
  shardstream bench e2e --rate 200 --json
  shardstream bench subscribe --consumers 20 --shards 50 --rate 500
  shardstream bench ceiling --batch 500`
}

// benchTarget are the flags that say what is measured.
type benchTarget struct {
	Endpoint   string `default:"http://127.0.0.1:4567" env:"SHARDSTREAM_ENDPOINT,AWS_ENDPOINT_URL_KINESIS,AWS_ENDPOINT_URL" placeholder:"URL" help:"Kinesis endpoint (${default})."`
	Region     string `default:"us-east-1" env:"SHARDSTREAM_REGION,AWS_REGION,AWS_DEFAULT_REGION" help:"Region to sign for (${default})."`
	Sign       bool   `help:"Sign every request with the AWS credentials of the environment, for endpoints that check."`
	Insecure   bool   `help:"Trust any certificate of an https endpoint."`
	StreamName string `name:"stream" default:"shardstream-bench" help:"Stream to use; created and deleted if it does not exist (${default})."`
	Shards     int    `default:"4" help:"Shards of a created stream (${default})."`
	Keep       bool   `help:"Do not delete a stream that was created."`
	JSON       bool   `name:"json" help:"Print the result as JSON."`
}

// benchLoad are the flags that say how much is put.
type benchLoad struct {
	Connections int           `short:"c" default:"4" help:"Connections, each with one request in flight (${default})."`
	Duration    time.Duration `short:"d" default:"10s" help:"How long to put (${default})."`
	Size        int           `default:"1024" help:"Size of a record's data in bytes, at least 30 (${default})."`
	Keys        int           `default:"1000" help:"Partition keys of each connection (${default})."`
	Rate        float64       `placeholder:"RECORDS" help:"Records a second over all connections; as many as possible if 0."`
	Verify      bool          `help:"Read everything back and check it."`
}

func (f *benchLoad) check() error {
	switch {
	case f.Connections < 1 || f.Connections > 100_000:
		return usagef("--connections %d: want 1 to 100000", f.Connections)
	case f.Duration <= 0:
		return usagef("--duration %s: want more than 0", f.Duration)
	case f.Size < benchclient.StampSize || f.Size > maxRecordBytes:
		return usagef("--size %d: want %d to %d", f.Size, benchclient.StampSize, maxRecordBytes)
	case f.Keys < 1 || f.Keys > 1<<16:
		return usagef("--keys %d: want 1 to %d", f.Keys, 1<<16)
	case f.Rate < 0:
		return usagef("--rate %v: want 0 or more", f.Rate)
	}
	return nil
}

func checkBatch(n int) error {
	if n < 1 || n > maxPutRecords {
		return usagef("--batch %d: want 1 to %d", n, maxPutRecords)
	}
	return nil
}

// open prepares the target and the stream, and gives a function that puts away
// what was made.
func (f *benchTarget) open(ctx context.Context) (target *benchclient.Target, s *benchStream, done func(), err error) {
	if f.Shards < 1 {
		return nil, nil, nil, usagef("--shards %d: want at least 1", f.Shards)
	}
	target, err = f.target(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	s, err = openBenchStream(ctx, target, f.StreamName, f.Shards)
	if err != nil {
		return nil, nil, nil, err
	}
	return target, s, func() {
		if s.created && !f.Keep {
			// Also after Ctrl-C: the stream was ours.
			deleting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_ = s.delete(deleting)
		}
		s.control.Close()
	}, nil
}

func (f *benchTarget) target(ctx context.Context) (*benchclient.Target, error) {
	target, err := benchclient.NewTarget(f.Endpoint)
	if err != nil {
		return nil, usagef("--endpoint %s: %v", f.Endpoint, err)
	}
	if f.Insecure {
		target.SkipVerify()
	}
	if f.Sign {
		cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(f.Region))
		if err != nil {
			return nil, err
		}
		if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
			return nil, fmt.Errorf("--sign needs AWS credentials: %w", err)
		}
		target.Sign(f.Region, cfg.Credentials)
	}
	return target, nil
}

type benchPut struct {
	benchTarget
	benchLoad
}

func (c *benchPut) Run(e *env) error {
	return runPuts(e, &c.benchTarget, &c.benchLoad, "put", 0)
}

type benchPutBatch struct {
	benchTarget
	benchLoad
	Batch int `default:"100" help:"Records in one PutRecords, 1 to 500 (${default})."`
}

func (c *benchPutBatch) Run(e *env) error {
	if err := checkBatch(c.Batch); err != nil {
		return err
	}
	return runPuts(e, &c.benchTarget, &c.benchLoad, "put-batch", c.Batch)
}

// runPuts is bench put and put-batch; batch 0 means PutRecord.
func runPuts(e *env, t *benchTarget, l *benchLoad, mode string, batch int) error {
	if err := l.check(); err != nil {
		return err
	}
	target, s, done, err := t.open(e.ctx)
	if err != nil {
		return err
	}
	defer done()
	load := newLoad(target, t.StreamName, l, batch)
	progress := startProgress(e.stderr, !t.JSON, load.progress(mode))
	load.run(e.ctx)
	progress.stop()
	result := load.result(mode, t, s)
	if l.Verify {
		if result.Verified, err = verify(context.WithoutCancel(e.ctx), e, target, s, load); err != nil {
			return err
		}
	}
	if err := result.print(e.stdout, t.JSON); err != nil {
		return err
	}
	return result.verdict()
}

// verdict is the error with which a measurement ends that went wrong.
func (r *benchResult) verdict() error {
	if r.Verified != nil && !r.Verified.OK {
		return errors.New("what was read back is not what was acknowledged")
	}
	if r.Records == 0 {
		return fmt.Errorf("no request succeeded: %s", r.errorList())
	}
	return nil
}

type benchGet struct {
	benchTarget
	Connections int           `short:"c" default:"4" help:"Readers, each with one connection; the shards are shared out among them (${default})."`
	Duration    time.Duration `short:"d" default:"30s" help:"Stop after that time even if the end is not reached (${default})."`
	Limit       int           `default:"10000" help:"Most records in one GetRecords, 1 to 10000 (${default})."`
	Records     int           `default:"200000" help:"Records put beforehand into a stream that was created (${default})."`
	Size        int           `default:"1024" help:"Their size in bytes (${default})."`
}

func (c *benchGet) Run(e *env) error {
	fill := benchLoad{Connections: 4, Duration: time.Hour, Size: c.Size, Keys: 1000}
	if err := fill.check(); err != nil {
		return err
	}
	if c.Connections < 1 || c.Limit < 1 || c.Limit > 10000 || c.Records < 0 {
		return usagef("want --connections of at least 1, --limit of 1 to 10000, --records of at least 0")
	}
	target, s, done, err := c.open(e.ctx)
	if err != nil {
		return err
	}
	defer done()
	if s.created {
		load := newLoad(target, c.StreamName, &fill, maxPutRecords)
		load.most = int64(c.Records)
		progress := startProgress(e.stderr, !c.JSON, load.progress("filling"))
		load.run(e.ctx)
		progress.stop()
		if err := load.result("filling", &c.benchTarget, s).verdict(); err != nil && c.Records > 0 {
			return err
		}
	}
	drain := newDrain(target, s, c.Connections, c.Limit)
	progress := startProgress(e.stderr, !c.JSON, drain.progress)
	ctx, cancel := context.WithTimeout(e.ctx, c.Duration)
	defer cancel()
	err = drain.run(ctx)
	progress.stop()
	if err != nil {
		return err
	}
	result := drain.result(&c.benchTarget)
	if err := result.print(e.stdout, c.JSON); err != nil {
		return err
	}
	return result.verdict()
}

type benchE2E struct {
	benchTarget
	Connections int           `short:"c" default:"1" help:"Connections that put; each shard has one more that reads (${default})."`
	Duration    time.Duration `short:"d" default:"10s" help:"How long to put (${default})."`
	Size        int           `default:"1024" help:"Size of a record's data in bytes, at least 30 (${default})."`
	Keys        int           `default:"1000" help:"Partition keys of each connection (${default})."`
	Rate        float64       `default:"200" placeholder:"RECORDS" help:"Records a second over all connections (${default}); as many as possible if 0."`
	Poll        time.Duration `default:"1ms" help:"Pause of a reader after an empty answer (${default}; AWS allows 5 calls a second and shard)."`
	Verify      bool          `help:"Read everything back and check it."`
}

func (c *benchE2E) Run(e *env) error {
	l := &benchLoad{c.Connections, c.Duration, c.Size, c.Keys, c.Rate, c.Verify}
	if err := l.check(); err != nil {
		return err
	}
	if c.Poll < 0 {
		return usagef("--poll %s: want 0 or more", c.Poll)
	}
	target, s, done, err := c.open(e.ctx)
	if err != nil {
		return err
	}
	defer done()
	load := newLoad(target, c.StreamName, l, 0)
	readers, err := startArrivals(e.ctx, target, s, load, c.Poll)
	if err != nil {
		return err
	}
	progress := startProgress(e.stderr, !c.JSON, load.progress("e2e"))
	load.run(e.ctx)
	readers.finish(load.acknowledged.Load())
	progress.stop()
	result := load.result("e2e", &c.benchTarget, s)
	readers.report(result)
	if c.Verify {
		if result.Verified, err = verify(context.WithoutCancel(e.ctx), e, target, s, load); err != nil {
			return err
		}
	}
	if err := result.print(e.stdout, c.JSON); err != nil {
		return err
	}
	if result.EndToEnd.Records < result.Records {
		return fmt.Errorf("of %s records put only %s arrived", decimal(result.Records), decimal(result.EndToEnd.Records))
	}
	return result.verdict()
}
