package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/history"
)

// scaledInSeconds are flags of a node that counts in seconds what others count in
// days.
var scaledInSeconds = []string{
	"--transition-delay", "0s", "--on-demand-split-rate", "50000", "--on-demand-interval", "1s", "--on-demand-peak-window", "6s", "--on-demand-quiet", "3s",
}

// steadyLoad has four writers put until stop, far more than ten times the split
// rate of scaledInSeconds.
func steadyLoad(t *testing.T, n *node, stream string, h *history.History) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var longest [4]atomic.Int64
	for w := range longest {
		load.Go(func() {
			if err := writeSteadily(ctx, client(n.endpoint, patient), stream, h, strings.Repeat("w", w+1), &longest[w]); err != nil {
				t.Error(err)
			}
		})
	}
	stop = func() {
		cancel()
		load.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// awaitMore waits until so many more values were acknowledged.
func awaitMore(t *testing.T, h *history.History, more int) {
	t.Helper()
	before, _ := h.Counts()
	eventually(t, func() error {
		if now, _ := h.Counts(); now < before+more {
			return fmt.Errorf("%d values, then %d", before, now)
		}
		return nil
	})
}

// TestOnDemandStreamFollowsItsLoad puts to an on-demand stream: its shards are split
// under the load, and merged when it is over. Every record is there once, in its
// key's order.
func TestOnDemandStreamFollowsItsLoad(t *testing.T) {
	const most = 10
	n := startIn(t, t.TempDir(), append(scaledInSeconds, "--on-demand-max-shards", fmt.Sprint(most))...)
	const name = "clicks"
	c := client(n.endpoint, patient)
	if _, err := c.CreateStream(t.Context(), &kinesis.CreateStreamInput{
		StreamName: aws.String(name), StreamModeDetails: &types.StreamModeDetails{StreamMode: types.StreamModeOnDemand},
	}); err != nil {
		t.Fatal(err)
	}
	awaitActive(t, c, name, 4)
	h := history.New()
	stop := steadyLoad(t, n, name, h)
	awaitActive(t, c, name, most)
	awaitMore(t, h, 200) // the last children take records too
	stop()
	awaitActive(t, c, name, 4)

	reads, walked, err := walk(t.Context(), c, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range h.Check(reads) {
		t.Error(v)
	}
	acknowledged, _ := h.Counts()
	if len(reads) != acknowledged {
		t.Errorf("%d records for %d acknowledged values", len(reads), acknowledged)
	}
	t.Logf("%d records in %d shards that there were in all", len(reads), len(walked))
	if err := coversOnce(t.Context(), c, name, &types.ShardFilter{Type: types.ShardFilterTypeAtLatest}); err != nil {
		t.Error(err)
	}
}

// TestModesOfAStream switches a stream under load to on-demand mode, which splits
// it, and back, which leaves it to its caller.
func TestModesOfAStream(t *testing.T) {
	n := start(t, append(scaledInSeconds, "--ephemeral", "--on-demand-max-shards", "6")...)
	const name = "modes"
	c := client(n.endpoint, patient)
	createStream(t, c, name, 1)
	h := history.New()
	steadyLoad(t, n, name, h)
	awaitMore(t, h, 500)
	awaitActive(t, c, name, 1)
	summary, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(name)})
	if err != nil {
		t.Fatal(err)
	}
	become := func(mode types.StreamMode) {
		t.Helper()
		// Refused while the stream is UPDATING, as it may be at any moment.
		eventually(t, func() error {
			_, err := c.UpdateStreamMode(t.Context(), &kinesis.UpdateStreamModeInput{
				StreamARN: summary.StreamDescriptionSummary.StreamARN, StreamModeDetails: &types.StreamModeDetails{StreamMode: mode},
			})
			return err
		})
	}
	become(types.StreamModeOnDemand)
	awaitActive(t, c, name, 6)
	become(types.StreamModeProvisioned)
	awaitActive(t, c, name, 6)
	if _, err := c.UpdateShardCount(t.Context(), &kinesis.UpdateShardCountInput{
		StreamName: aws.String(name), TargetShardCount: aws.Int32(3), ScalingType: types.ScalingTypeUniformScaling,
	}); err != nil {
		t.Fatal(err)
	}
	awaitActive(t, c, name, 3)
	awaitMore(t, h, 500)
	awaitActive(t, c, name, 3)
}
