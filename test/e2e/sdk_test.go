package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"shardstream/test/history"
)

// client makes a Go SDK client as an application would.
func client(endpoint string, options ...func(*kinesis.Options)) *kinesis.Client {
	return kinesis.New(kinesis.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("dev", "dev", ""),
	}, options...)
}

// once makes every call a single attempt, for tests that count attempts.
func once(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} }

// createStream creates a stream and waits until it is ACTIVE.
func createStream(t *testing.T, c *kinesis.Client, name string, shards int32) {
	t.Helper()
	if _, err := c.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		out, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &name})
		if err != nil {
			return err
		}
		if status := out.StreamDescriptionSummary.StreamStatus; status != types.StreamStatusActive {
			return fmt.Errorf("the stream is %s", status)
		}
		return nil
	})
}

// readAll reads every shard from its oldest record to its end, parents before
// children.
func readAll(ctx context.Context, c *kinesis.Client, stream string) ([]history.Read, error) {
	listed, err := c.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &stream})
	if err != nil {
		return nil, err
	}
	var reads []history.Read
	for _, shard := range listed.Shards { // by number: parents come first
		it, err := c.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
			StreamName: &stream, ShardId: shard.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			return nil, err
		}
		for next := it.ShardIterator; next != nil; {
			out, err := c.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: next})
			if err != nil {
				return nil, err
			}
			for _, r := range out.Records {
				reads = append(reads, history.Read{
					Place: history.Place{ShardID: *shard.ShardId, SequenceNumber: *r.SequenceNumber},
					Key:   *r.PartitionKey, Value: string(r.Data),
				})
			}
			next = out.NextShardIterator
			if len(out.Records) == 0 && *out.MillisBehindLatest == 0 {
				break
			}
		}
	}
	return reads, nil
}

func mustReadAll(t *testing.T, c *kinesis.Client, stream string) []history.Read {
	t.Helper()
	reads, err := readAll(t.Context(), c, stream)
	if err != nil {
		t.Fatal(err)
	}
	return reads
}

// codeOf gives the AWS error code of an error, "" if it has none.
func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// TestGoSDK walks through the life of a stream as a Go application would.
func TestGoSDK(t *testing.T) {
	n := start(t, "--ephemeral", "--transition-delay", "0s")
	c := client(n.endpoint)
	ctx := t.Context()
	const name = "go-sdk"
	createStream(t, c, name, 3)

	_, err := c.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: aws.String(name), ShardCount: aws.Int32(1)})
	var inUse *types.ResourceInUseException
	if !errors.As(err, &inUse) {
		t.Errorf("a second CreateStream: %v, want ResourceInUseException", err)
	}

	before := time.Now().Add(-time.Second)
	h := history.New()
	var entries []types.PutRecordsRequestEntry
	for i := range 100 {
		key, value := fmt.Sprintf("key-%d", i%10), fmt.Sprintf("value-%d", i)
		h.Attempt(key, value)
		entries = append(entries, types.PutRecordsRequestEntry{Data: []byte(value), PartitionKey: &key})
	}
	put, err := c.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: aws.String(name), Records: entries})
	if err != nil || *put.FailedRecordCount != 0 {
		t.Fatalf("PutRecords: %v, %+v", err, put)
	}
	for i, r := range put.Records {
		h.Acknowledged(string(entries[i].Data), history.Place{ShardID: *r.ShardId, SequenceNumber: *r.SequenceNumber})
	}
	one, err := c.PutRecord(ctx, &kinesis.PutRecordInput{
		StreamName: aws.String(name), Data: []byte("routed"), PartitionKey: aws.String("x"), ExplicitHashKey: aws.String("0"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if *one.ShardId != "shardId-000000000000" {
		t.Errorf("hash key 0 went to %s", *one.ShardId)
	}
	h.Attempt("x", "routed")
	h.Acknowledged("routed", history.Place{ShardID: *one.ShardId, SequenceNumber: *one.SequenceNumber})

	reads := mustReadAll(t, c, name)
	if len(reads) != 101 {
		t.Errorf("%d records read, want 101", len(reads))
	}
	for _, v := range h.Check(reads) {
		t.Error(v)
	}

	it, err := c.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamName: aws.String(name), ShardId: one.ShardId, ShardIteratorType: types.ShardIteratorTypeAtSequenceNumber,
		StartingSequenceNumber: one.SequenceNumber,
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
	if err != nil || len(got.Records) != 1 || string(got.Records[0].Data) != "routed" {
		t.Fatalf("at the sequence number: %v, %+v", err, got)
	}
	if at := *got.Records[0].ApproximateArrivalTimestamp; at.Before(before) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("arrival %s", at)
	}

	_, err = c.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: aws.String("absent"), Data: []byte("x"), PartitionKey: aws.String("x")})
	var notFound *types.ResourceNotFoundException
	if !errors.As(err, &notFound) {
		t.Errorf("a put into no stream: %v, want ResourceNotFoundException", err)
	}

	if _, err := c.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: aws.String(name)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := c.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(name)})
		if codeOf(err) != "ResourceNotFoundException" {
			return fmt.Errorf("after DeleteStream: %v", err)
		}
		return nil
	})
}
