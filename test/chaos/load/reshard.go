package load

import (
	"context"
	"errors"
	"math/big"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// Reshard splits or merges something, or scales the stream, within from and to
// open shards, and waits until the stream is ACTIVE again.
func (l *Load) Reshard(ctx context.Context, rnd *rand.Rand, from, to int) error {
	var open []types.Shard
	for _, s := range l.listShards(ctx, rnd.IntN(1<<20)) {
		if s.SequenceNumberRange.EndingSequenceNumber == nil {
			open = append(open, s)
		}
	}
	if len(open) == 0 {
		return errors.New("no open shard is listed")
	}
	k := l.client(rnd.IntN(1 << 20))
	one, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var err error
	switch what := rnd.IntN(3); {
	case what == 0 && len(open) < to:
		s := open[rnd.IntN(len(open))]
		_, err = k.SplitShard(one, &kinesis.SplitShardInput{
			StreamName: &l.cfg.Stream, ShardToSplit: s.ShardId, NewStartingHashKey: aws.String(middle(s.HashKeyRange)),
		})
	case what == 1 && len(open) > from:
		low, high := neighbours(open, rnd)
		_, err = k.MergeShards(one, &kinesis.MergeShardsInput{StreamName: &l.cfg.Stream, ShardToMerge: low, AdjacentShardToMerge: high})
	default:
		least, most := max(from, (len(open)+1)/2), min(to, 2*len(open))
		if most < least {
			return nil
		}
		_, err = k.UpdateShardCount(one, &kinesis.UpdateShardCountInput{
			StreamName: &l.cfg.Stream, TargetShardCount: aws.Int32(int32(least + rnd.IntN(most-least+1))), ScalingType: types.ScalingTypeUniformScaling,
		})
	}
	var busy *types.ResourceInUseException
	if errors.As(err, &busy) {
		return nil // one whose answer was lost is under way
	}
	if err != nil {
		return err
	}
	return l.awaitActive(ctx)
}

func middle(r *types.HashKeyRange) string {
	a, _ := new(big.Int).SetString(*r.StartingHashKey, 10)
	b, _ := new(big.Int).SetString(*r.EndingHashKey, 10)
	return a.Add(a, b).Rsh(a, 1).String()
}

// neighbours gives two shards that touch.
func neighbours(open []types.Shard, rnd *rand.Rand) (low, high *string) {
	starts := make(map[string]*string)
	for _, s := range open {
		starts[*s.HashKeyRange.StartingHashKey] = s.ShardId
	}
	for {
		s := open[rnd.IntN(len(open))]
		end, _ := new(big.Int).SetString(*s.HashKeyRange.EndingHashKey, 10)
		if next := starts[end.Add(end, big.NewInt(1)).String()]; next != nil {
			return s.ShardId, next
		}
	}
}
