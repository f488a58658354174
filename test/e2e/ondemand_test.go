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

// TestOnDemandStreamFollowsItsLoad puts to an on-demand stream of a node that
// counts in seconds what others count in days: its shards are split under the
// load, and merged when it is over. Every record is there once, in its key's order.
func TestOnDemandStreamFollowsItsLoad(t *testing.T) {
	const most = 10
	n := startIn(t, t.TempDir(), "--transition-delay", "0s", "--on-demand-split-rate", "50000", "--on-demand-max-shards", fmt.Sprint(most),
		"--on-demand-interval", "1s", "--on-demand-peak-window", "6s", "--on-demand-quiet", "3s")
	const name = "clicks"
	c := client(n.endpoint, patient)
	if _, err := c.CreateStream(t.Context(), &kinesis.CreateStreamInput{
		StreamName: aws.String(name), StreamModeDetails: &types.StreamModeDetails{StreamMode: types.StreamModeOnDemand},
	}); err != nil {
		t.Fatal(err)
	}
	awaitActive(t, c, name, 4)
	h := history.New()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	var longest [4]atomic.Int64
	failed := make(chan error, len(longest))
	for w := range longest {
		load.Go(func() {
			if err := writeSteadily(ctx, client(n.endpoint, patient), name, h, strings.Repeat("w", w+1), &longest[w]); err != nil {
				failed <- err
			}
		})
	}
	awaitActive(t, c, name, most) // far more than ten times the split rate
	before, _ := h.Counts()
	eventually(t, func() error { // the last children take records too
		if now, _ := h.Counts(); now < before+200 {
			return fmt.Errorf("%d values, then %d", before, now)
		}
		return nil
	})
	stop()
	load.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
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
