// The program is one worker of an application of vmware-go-kcl-v2. It takes its
// settings from the variables that ../../java/kcl's Worker takes.
package main

import (
	"fmt"
	"os"

	"github.com/vmware/vmware-go-kcl-v2/clientlibrary/config"
	"github.com/vmware/vmware-go-kcl-v2/clientlibrary/interfaces"
	"github.com/vmware/vmware-go-kcl-v2/clientlibrary/worker"

	"shardstream-test-clients/events"
)

func main() {
	cfg := config.NewKinesisClientLibConfig(os.Getenv("APPLICATION"), os.Getenv("STREAM"), "us-east-1", os.Getenv("WORKER")).
		WithKinesisEndpoint(os.Getenv("ENDPOINT")).
		WithDynamoDBEndpoint(os.Getenv("DYNAMODB")).
		WithInitialPositionInStream(config.TRIM_HORIZON).
		WithShardSyncIntervalMillis(1000).
		WithFailoverTimeMillis(10000).
		WithLeaseRefreshPeriodMillis(5000)
	if os.Getenv("RETRIEVAL") == "fanout" {
		cfg = cfg.WithEnhancedFanOutConsumer(true)
	}
	w := worker.NewWorker(factory{}, cfg)
	if err := w.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	events.AwaitEnd()
	w.Shutdown()
}

type factory struct{}

func (factory) CreateProcessor() interfaces.IRecordProcessor { return &processor{} }

// processor works on one shard.
type processor struct{ shard string }

func (p *processor) Initialize(in *interfaces.InitializationInput) {
	p.shard = in.ShardId
	events.Leased(p.shard)
}

func (p *processor) ProcessRecords(in *interfaces.ProcessRecordsInput) {
	for _, r := range in.Records {
		events.Record(p.shard, *r.SequenceNumber, *r.PartitionKey, r.Data)
	}
	if n := len(in.Records); n > 0 {
		p.checkpoint(in.Checkpointer, in.Records[n-1].SequenceNumber)
	}
}

func (p *processor) Shutdown(in *interfaces.ShutdownInput) {
	if in.ShutdownReason != interfaces.TERMINATE {
		events.Lost(p.shard)
	} else if p.checkpoint(in.Checkpointer, nil) { // nil is the shard's end
		events.Ended(p.shard)
	}
}

// checkpoint notes how far the shard was processed. One that fails is made up
// for by the next.
func (p *processor) checkpoint(c interfaces.IRecordProcessorCheckpointer, number *string) bool {
	err := c.Checkpoint(number)
	if err != nil {
		fmt.Fprintln(os.Stderr, p.shard, err)
	}
	return err == nil
}
