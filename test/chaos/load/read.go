package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/chaos/judge"
)

// follower reads one shard from its beginning until it ends or the context does,
// and gives the shard's children if it ended.
type follower func(ctx context.Context, reader, shard string) (children []string)

// followAll follows all shards of the stream, children once their parents are
// read to the end, as KCL does.
func (l *Load) followAll(ctx context.Context, reader string, follow follower) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex
	begun := make(map[string]bool)
	var begin func(shard string)
	begin = func(shard string) {
		mu.Lock()
		defer mu.Unlock()
		if begun[shard] {
			return
		}
		begun[shard] = true
		wg.Go(func() {
			for _, child := range follow(ctx, reader, shard) {
				begin(child)
			}
		})
	}
	for _, s := range l.listShards(ctx, 0) {
		if s.ParentShardId == nil {
			begin(*s.ShardId)
		}
	}
}

// pollShard follows a shard by GetRecords.
func (l *Load) pollShard(ctx context.Context, reader, shard string) []string {
	r := judge.Reading{Reader: reader, Shard: shard, From: judge.TrimHorizon}
	defer func() { l.rec.reading(r) }()
	p := &position{l: l, r: &r, n: rand.Int()}
	for ctx.Err() == nil {
		ended, children := p.step(ctx)
		if ended {
			return children
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return nil
}

// position is where a reader stands in a shard.
type position struct {
	l        *Load
	r        *judge.Reading
	n        int // of calls, to take the gateways in turn
	iterator *string
	last     string // sequence number of the last record got
}

// step makes one call. What fails is tried again, from behind the last record
// that was got.
func (p *position) step(ctx context.Context) (ended bool, children []string) {
	p.n++
	k := p.l.client(p.n)
	one, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if p.iterator == nil {
		in := &kinesis.GetShardIteratorInput{StreamName: &p.l.cfg.Stream, ShardId: &p.r.Shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
		switch {
		case p.last != "":
			in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAfterSequenceNumber, &p.last
		case p.r.From == judge.Latest:
			in.ShardIteratorType = types.ShardIteratorTypeLatest
		case p.r.From == judge.AtSequence:
			in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAtSequenceNumber, &p.r.Sequence
		case p.r.From == judge.AfterSequence:
			in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAfterSequenceNumber, &p.r.Sequence
		case p.r.From == judge.AtTimestamp:
			in.ShardIteratorType, in.Timestamp = types.ShardIteratorTypeAtTimestamp, aws.Time(time.UnixMilli(p.r.TimestampMs))
		}
		if p.last == "" {
			p.r.Started = p.l.Now()
		}
		out, err := k.GetShardIterator(one, in)
		if err != nil {
			p.l.readFailed(ctx, "GetShardIterator of "+p.r.Shard, err)
			return false, nil
		}
		p.iterator = out.ShardIterator
	}
	asked := p.l.Now()
	out, err := k.GetRecords(one, &kinesis.GetRecordsInput{ShardIterator: p.iterator})
	if err != nil {
		if !isExpired(err) {
			p.l.readFailed(ctx, "GetRecords of "+p.r.Shard, err)
		}
		// A LATEST that has got nothing yet may keep its place only.
		if p.last != "" || p.r.From != judge.Latest || isExpired(err) {
			p.iterator = nil
		}
		return false, nil
	}
	p.take(out.Records)
	if aws.ToInt64(out.MillisBehindLatest) == 0 {
		p.r.CaughtUp = asked
	}
	p.iterator = out.NextShardIterator
	if p.iterator != nil {
		return false, nil
	}
	for _, c := range out.ChildShards {
		children = append(children, *c.ShardId)
	}
	if len(children) == 0 {
		p.l.rec.complain("GetRecords", p.r.Shard+" ended without children")
	}
	return true, children
}

func (p *position) take(records []types.Record) {
	now := p.l.Now()
	for _, r := range records {
		p.r.Records = append(p.r.Records, judge.Record{
			Sequence: *r.SequenceNumber, Key: *r.PartitionKey, Value: shortened(r.Data), At: now,
			ArrivalMs: r.ApproximateArrivalTimestamp.UnixMilli(),
		})
		p.last = *r.SequenceNumber
	}
}

func isExpired(err error) bool {
	var e *types.ExpiredIteratorException
	return errors.As(err, &e)
}

func (l *Load) readFailed(ctx context.Context, what string, err error) {
	if _, complaint := judgeError(err); complaint != "" && ctx.Err() == nil {
		l.rec.complain(what, complaint)
	}
}

// glance reads here and there: a shard, a kind of beginning, a while.
func (l *Load) glance(ctx context.Context) {
	rnd := rand.New(rand.NewPCG(l.cfg.Seed, 0x61a9ce))
	for n := 0; ctx.Err() == nil; n++ {
		sleep(ctx, 200*time.Millisecond)
		shards := l.listShards(ctx, n)
		if len(shards) == 0 {
			continue
		}
		shard := *shards[rnd.IntN(len(shards))].ShardId
		r := judge.Reading{Reader: fmt.Sprintf("glance %d", n), Shard: shard, From: judge.From(rnd.IntN(5))}
		known := l.rec.sample(shard, rnd)
		switch r.From {
		case judge.AtSequence, judge.AfterSequence:
			if r.Sequence = known; known == "" {
				continue
			}
		case judge.AtTimestamp:
			r.TimestampMs = time.Now().Add(-time.Duration(rnd.IntN(60_000)) * time.Millisecond).UnixMilli()
			if r.TimestampMs < l.started.UnixMilli() {
				r.TimestampMs = l.started.UnixMilli()
			}
		}
		p := &position{l: l, r: &r, n: n}
		for range 1 + rnd.IntN(20) {
			if ended, _ := p.step(ctx); ended || ctx.Err() != nil {
				break
			}
			sleep(ctx, 20*time.Millisecond)
		}
		if r.Started != 0 {
			l.rec.reading(r)
		}
	}
}

// sample gives the number of a record that was acknowledged in a shard lately,
// "" if none.
func (r *recorder) sample(shard string, rnd *rand.Rand) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	skip := rnd.IntN(200)
	found := ""
	for i := len(r.puts) - 1; i >= 0 && i > len(r.puts)-5000; i-- {
		if p := r.puts[i]; p.Outcome == judge.Acknowledged && p.Place.Shard == shard {
			found = p.Place.Sequence
			if skip--; skip < 0 {
				break
			}
		}
	}
	return found
}

// listShards gives all shards of the stream, nothing if that fails.
func (l *Load) listShards(ctx context.Context, gateway int) []types.Shard {
	shards, err := l.allShards(ctx, l.client(gateway))
	if err != nil {
		l.readFailed(ctx, "ListShards", err)
	}
	return shards
}

func (l *Load) allShards(ctx context.Context, k *kinesis.Client) ([]types.Shard, error) {
	var shards []types.Shard
	in := &kinesis.ListShardsInput{StreamName: &l.cfg.Stream}
	for {
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		out, err := k.ListShards(one, in)
		cancel()
		if err != nil {
			return nil, err
		}
		shards = append(shards, out.Shards...)
		if out.NextToken == nil {
			return shards, nil
		}
		in = &kinesis.ListShardsInput{NextToken: out.NextToken}
	}
}

// Finish reads every shard to its end, when all is well again and nobody writes:
// the truth that the judge needs.
func (l *Load) Finish(ctx context.Context) error {
	// A reshard whose answer was lost may still be under way, and change the list.
	if err := l.awaitActive(ctx); err != nil {
		return err
	}
	var shards []types.Shard
	for {
		var err error
		if shards, err = l.allShards(ctx, l.clients[0]); err == nil {
			break
		} else if ctx.Err() != nil {
			return err
		}
		sleep(ctx, 100*time.Millisecond)
	}
	var list []judge.Shard
	for _, s := range shards {
		j := judge.Shard{ID: *s.ShardId}
		for _, p := range []*string{s.ParentShardId, s.AdjacentParentShardId} {
			if p != nil {
				j.Parents = append(j.Parents, *p)
			}
		}
		list = append(list, j)
	}
	l.rec.mu.Lock()
	l.rec.shards = list
	l.rec.mu.Unlock()
	for _, s := range list {
		r := judge.Reading{Reader: "final", Shard: s.ID, From: judge.TrimHorizon, Final: true}
		p := &position{l: l, r: &r}
		for {
			caughtUp := r.CaughtUp
			ended, children := p.step(ctx)
			if ended {
				if err := l.checkChildren(s.ID, list, children); err != nil {
					l.rec.complain("ListShards", err.Error())
				}
				break
			}
			// Twice, since the first may have been asked of a leader that is just new.
			if caughtUp > 0 && r.CaughtUp > caughtUp {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s can't be read to its end: %w", s.ID, ctx.Err())
			}
		}
		l.rec.reading(r)
	}
	return nil
}

// checkChildren compares a shard's children, as its end names them, with the list.
func (l *Load) checkChildren(shard string, list []judge.Shard, children []string) error {
	var listed []string
	for _, s := range list {
		if slices.Contains(s.Parents, shard) {
			listed = append(listed, s.ID)
		}
	}
	slices.Sort(listed)
	slices.Sort(children)
	if !slices.Equal(listed, children) {
		return fmt.Errorf("%s has the children %s, its end names %s", shard, strings.Join(listed, " "), strings.Join(children, " "))
	}
	return nil
}
