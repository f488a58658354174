package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"shardstream/cmd/shardstream/internal/benchclient"
)

// benchStream is the stream under load, and the connection for the calls that
// are not measured.
type benchStream struct {
	target  *benchclient.Target
	control *benchclient.Conn
	name    string
	created bool
	shards  []string // ids of all shards
}

// apiError is an answer of the endpoint that is no success.
type apiError struct {
	op, code string
	status   int
}

func (e *apiError) Error() string { return fmt.Sprintf("%s: HTTP %d %s", e.op, e.status, e.code) }

// openBenchStream finds the stream, or creates it, and waits until it takes records.
func openBenchStream(ctx context.Context, target *benchclient.Target, name string, shards int) (*benchStream, error) {
	s := &benchStream{target: target, control: target.NewConn(), name: name}
	err := s.await(ctx, shards)
	if err == nil {
		err = s.list(ctx)
	}
	if err != nil {
		s.control.Close()
		return nil, err
	}
	return s, nil
}

// await waits until the stream is ACTIVE, and creates it if it is absent. One
// that is being deleted, as by the run before, is waited for.
func (s *benchStream) await(ctx context.Context, shards int) error {
	for {
		status, err := s.status(ctx)
		switch {
		case err != nil:
			return err
		case status == "ACTIVE" || status == "UPDATING":
			return nil
		case status == "" && s.created:
			return fmt.Errorf("stream %s has vanished", s.name)
		case status == "":
			if err := s.call(ctx, "CreateStream", map[string]any{"StreamName": s.name, "ShardCount": shards}, nil); err != nil {
				return err
			}
			s.created = true
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// status gives the stream's status, "" if there is no such stream.
func (s *benchStream) status(ctx context.Context) (string, error) {
	var out struct {
		StreamDescriptionSummary struct{ StreamStatus string }
	}
	err := s.call(ctx, "DescribeStreamSummary", map[string]any{"StreamName": s.name}, &out)
	var api *apiError
	if errors.As(err, &api) && api.code == "ResourceNotFoundException" {
		return "", nil
	}
	return out.StreamDescriptionSummary.StreamStatus, err
}

func (s *benchStream) list(ctx context.Context) error {
	in := map[string]any{"StreamName": s.name}
	for {
		var out struct {
			Shards    []struct{ ShardId string } //nolint:revive // the API's spelling
			NextToken string
		}
		if err := s.call(ctx, "ListShards", in, &out); err != nil {
			return err
		}
		for _, shard := range out.Shards {
			s.shards = append(s.shards, shard.ShardId)
		}
		if out.NextToken == "" {
			return nil
		}
		in = map[string]any{"NextToken": out.NextToken}
	}
}

func (s *benchStream) delete(ctx context.Context) error {
	return s.call(ctx, "DeleteStream", map[string]any{"StreamName": s.name, "EnforceConsumerDeletion": true}, nil)
}

// call makes an unmeasured call; an answer that is no success is an *apiError.
func (s *benchStream) call(ctx context.Context, op string, in, out any) error {
	return call(ctx, s.target, s.control, op, in, out)
}

func call(ctx context.Context, target *benchclient.Target, conn *benchclient.Conn, op string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	status, answer, err := conn.Do(ctx, target.NewRequest(op, body))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", op, err)
	case status != 200:
		return &apiError{op, benchclient.ErrorCode(answer), status}
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// shardCursor reads one shard over a connection.
type shardCursor struct {
	target   *benchclient.Target
	conn     *benchclient.Conn
	limit    int
	iterator string // as it stands in JSON, escapes and all; "" at the end of a closed shard
}

// cursor begins to read a shard at TRIM_HORIZON or LATEST.
func (s *benchStream) cursor(ctx context.Context, conn *benchclient.Conn, shard, from string, limit int) (*shardCursor, error) {
	var out struct{ ShardIterator json.RawMessage }
	err := call(ctx, s.target, conn, "GetShardIterator",
		map[string]any{"StreamName": s.name, "ShardId": shard, "ShardIteratorType": from}, &out)
	return &shardCursor{s.target, conn, limit, strings.Trim(string(out.ShardIterator), `"`)}, err
}

// next gets the next records, which are valid until the next call on the
// connection. caughtUp is true when there is nothing behind them for now.
func (c *shardCursor) next(ctx context.Context, yield func(benchclient.Got)) (n int, caughtUp bool, err error) {
	body := fmt.Appendf(nil, `{"ShardIterator":"%s","Limit":%d}`, c.iterator, c.limit)
	status, answer, err := c.conn.Do(ctx, c.target.NewRequest("GetRecords", body))
	if err != nil {
		return 0, false, err
	}
	if status != 200 {
		return 0, false, &apiError{"GetRecords", benchclient.ErrorCode(answer), status}
	}
	got, ok := benchclient.ScanGetRecords(answer, func(r benchclient.Got) {
		n++
		yield(r)
	})
	if !ok {
		return n, false, fmt.Errorf("GetRecords: an answer that can't be read: %.80q", answer)
	}
	c.iterator = string(got.Next)
	return n, c.iterator == "" || n == 0 && got.BehindMillis == 0, nil
}
