package cluster

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/history"
)

// TestLimitsOfManyGateways writes far too much to one shard through two gateways,
// which act as one, and has its leader killed meanwhile: the next one begins with a
// full share, and no more. What was refused is not there, what was not is there
// once.
func TestLimitsOfManyGateways(t *testing.T) {
	t.Setenv("SHARDSTREAM_SHARD_LIMITS", "aws")
	c := startCluster(t, 3)
	port := freePorts(t, 1)
	second := &process{
		name: "gateway-2", log: filepath.Join(c.dir, "gateway-2.log"), ready: "http://" + hostPort(port) + "/_shardstream/readyz",
		args: []string{"gateway", "--listen", hostPort(port), "--brokers", c.brokers(), "--http-listen", ""},
	}
	second.start(t)
	second.awaitReady(t)
	c.createStream(t, stream, 1)
	gateways := []*kinesis.Client{c.client(), clientOf("http://"+hostPort(port), aws.NopRetryer{})}

	h, name := history.New(), stream
	var accepted, refused atomic.Int64
	put := func(k *kinesis.Client, writer string, n int) {
		entries := make([]types.PutRecordsRequestEntry, 500)
		for i := range entries {
			key, data := fmt.Sprintf("%s-%d", writer, n), fmt.Sprintf("%s %d %d", writer, n, i)
			entries[i] = types.PutRecordsRequestEntry{PartitionKey: &key, Data: []byte(data)}
			h.Attempt(key, data)
		}
		out, err := k.PutRecords(t.Context(), &kinesis.PutRecordsInput{StreamName: &name, Records: entries})
		if err != nil {
			t.Logf("%s, request %d: %v", writer, n, err)
			return
		}
		for i, r := range out.Records {
			data := string(entries[i].Data)
			switch aws.ToString(r.ErrorCode) {
			case "":
				accepted.Add(1)
				h.Acknowledged(data, history.Place{ShardID: *r.ShardId, SequenceNumber: *r.SequenceNumber})
			case "ProvisionedThroughputExceededException":
				refused.Add(1)
				h.Refused(data)
			}
		}
	}
	began := time.Now()
	var done sync.WaitGroup
	half := make(chan struct{}, writers)
	for w := range writers {
		done.Go(func() {
			for n := range 40 {
				if n == 20 {
					half <- struct{}{}
				}
				put(gateways[w%2], fmt.Sprintf("w%d", w), n)
			}
		})
	}
	<-half
	leader, _, _ := c.placement(t)
	victim := c.named(leader)
	victim.kill(t)
	done.Wait()
	took := time.Since(began)
	if most := 2 * (1000 + int64(1000*took.Seconds())); accepted.Load() > most {
		t.Errorf("%d records in %v, by two leaders", accepted.Load(), took)
	}
	if refused.Load() == 0 {
		t.Error("nothing was refused: the test has shown nothing")
	}
	t.Logf("%d records accepted and %d refused in %v", accepted.Load(), refused.Load(), took)
	patient := clientOf(c.endpoint, retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = 20 }))
	for _, v := range h.Check(readAllBy(t, patient, stream)) {
		t.Error(v)
	}
}
