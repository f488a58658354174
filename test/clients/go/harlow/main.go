// The program consumes a stream with harlow/kinesis-consumer, which stands on
// the AWS SDK for Go 1. ENDPOINT and STREAM say what.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/kinesis"
	consumer "github.com/harlow/kinesis-consumer"
	store "github.com/harlow/kinesis-consumer/store/memory"

	"shardstream-test-clients/events"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	s, err := session.NewSession(&aws.Config{Endpoint: aws.String(os.Getenv("ENDPOINT")), Region: aws.String("us-east-1")})
	if err != nil {
		return err
	}
	c, err := consumer.New(os.Getenv("STREAM"),
		consumer.WithClient(kinesis.New(s)),
		consumer.WithShardIteratorType(kinesis.ShardIteratorTypeTrimHorizon),
		consumer.WithStore(store.New()),
		consumer.WithShardClosedHandler(func(_, shard string) error { events.Ended(shard); return nil }),
	)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the input, or with the process
		events.AwaitEnd()
		cancel()
	}()
	return c.Scan(ctx, func(r *consumer.Record) error {
		events.Record(r.ShardID, *r.SequenceNumber, *r.PartitionKey, r.Data)
		return nil
	})
}
