package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/chaos/judge"
)

// makers is how many clients make and delete streams of the same few names.
const makers = 3

// names gives the names in use: one takes another's place when nobody knows any
// more whether a call about it has happened, since that makes judging slow.
type names struct{ lives [2]int }

// makeStreams makes, deletes and describes streams of names that it shares with
// the other makers.
func (l *Load) makeStreams(ctx context.Context, maker int) {
	rnd := rand.New(rand.NewPCG(l.cfg.Seed, uint64(maker)+0x57a7))
	for n := maker; ctx.Err() == nil; n++ {
		sleep(ctx, time.Duration(50+rnd.IntN(200))*time.Millisecond)
		i := rnd.IntN(len(names{}.lives))
		op := judge.StreamOp{Client: maker, Name: l.rec.name(i), Call: judge.StreamCall(rnd.IntN(3))}
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		op.Called = l.Now()
		op.Answer = l.callStream(one, l.client(n), op)
		op.Returned = l.Now()
		cancel()
		if op.Answer == judge.NoAnswer {
			l.rec.rename(i, op.Name)
			if op.Call == judge.DescribeStream {
				continue // it changes nothing
			}
		}
		l.rec.streamOp(op)
	}
}

func (l *Load) callStream(ctx context.Context, k *kinesis.Client, op judge.StreamOp) judge.StreamAnswer {
	var err error
	status := types.StreamStatusActive
	switch op.Call {
	case judge.CreateStream:
		_, err = k.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: &op.Name, ShardCount: aws.Int32(1)})
	case judge.DeleteStream:
		_, err = k.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: &op.Name})
	case judge.DescribeStream:
		var out *kinesis.DescribeStreamSummaryOutput
		if out, err = k.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &op.Name}); err == nil {
			status = out.StreamDescriptionSummary.StreamStatus
		}
	}
	var missing *types.ResourceNotFoundException
	var taken *types.ResourceInUseException
	switch {
	case err == nil && op.Call != judge.DescribeStream:
		return judge.Done
	case err == nil && status == types.StreamStatusDeleting:
		return judge.Disappears
	case err == nil:
		return judge.Exists
	case errors.As(err, &missing):
		return judge.NotFound
	case errors.As(err, &taken):
		return judge.Exists
	}
	if _, complaint := judgeError(err); complaint != "" {
		l.rec.complain("a call about a stream", complaint)
	}
	return judge.NoAnswer
}

func (r *recorder) name(i int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("made-%d-%d", i, r.names.lives[i])
}

// rename puts a new name in the place of one, unless another maker has.
func (r *recorder) rename(i int, old string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old == fmt.Sprintf("made-%d-%d", i, r.names.lives[i]) {
		r.names.lives[i]++
	}
}

func (r *recorder) streamOp(op judge.StreamOp) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streamOps = append(r.streamOps, op)
}

// StreamOps gives the calls about streams so far.
func (l *Load) StreamOps() []judge.StreamOp {
	l.rec.mu.Lock()
	defer l.rec.mu.Unlock()
	return append([]judge.StreamOp(nil), l.rec.streamOps...)
}
