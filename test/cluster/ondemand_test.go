package cluster

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/history"
)

// TestOnDemand has an on-demand stream grow while the broker that controls the
// cluster is killed, by loads that all brokers tell the next one, and shrink when
// the load is over. Nothing that was acknowledged is lost.
func TestOnDemand(t *testing.T) {
	const most = 8
	for name, value := range map[string]string{
		"SPLIT_RATE": "100000", "MAX_SHARDS": fmt.Sprint(most), "INTERVAL": "1s", "PEAK_WINDOW": "6s", "QUIET": "3s",
	} {
		t.Setenv("SHARDSTREAM_ON_DEMAND_"+name, value)
	}
	c := startCluster(t, 3)
	const stream = "clicks"
	k := c.client()
	name := stream
	if _, err := k.CreateStream(t.Context(), &kinesis.CreateStreamInput{
		StreamName: &name, StreamModeDetails: &types.StreamModeDetails{StreamMode: types.StreamModeOnDemand},
	}); err != nil {
		t.Fatal(err)
	}
	shards := func(want int) {
		t.Helper()
		eventually(t, func() error {
			out, err := k.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &name})
			if err != nil {
				return err
			}
			if s := out.StreamDescriptionSummary; s.StreamStatus != types.StreamStatusActive || int(*s.OpenShardCount) != want {
				return fmt.Errorf("%s with %d shards, not %d", s.StreamStatus, *s.OpenShardCount, want)
			}
			return nil
		})
	}
	shards(4)
	victim := c.named(c.awaitHealthy(t).Raft.Leader)
	h := history.New()
	l := c.startLoad(t, stream, h, 8)
	victim.kill(t)
	shards(most)
	victim.start(t)
	victim.awaitReady(t)
	c.awaitHealthy(t)
	l.stop()
	shards(4)
	t.Log(l)
	c.check(t, stream, h)
}
