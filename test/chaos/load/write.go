package load

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"shardstream/test/chaos/judge"
)

// write puts one request after the other. Half of the writers let the SDK retry;
// what it was told then is only known for a success.
func (l *Load) write(ctx context.Context, writer int) {
	rnd := rand.New(rand.NewPCG(l.cfg.Seed, uint64(writer)+1))
	retries := writer%2 == 1
	ticker := time.NewTicker(l.cfg.Pace)
	defer ticker.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		count := 1
		if n%2 == 1 {
			count = 1 + rnd.IntN(l.cfg.Batch)
		}
		entries := make([]types.PutRecordsRequestEntry, count)
		for i := range entries {
			key := fmt.Sprintf("w%d-%d", writer, i)
			value := fmt.Sprintf("%s/%d/%s", key, n, strings.Repeat("x", rnd.IntN(l.cfg.Padding)))
			entries[i] = types.PutRecordsRequestEntry{PartitionKey: &key, Data: []byte(value)}
		}
		k := l.client(writer + n)
		if retries {
			k = l.retries[(writer+n)%len(l.retries)]
		}
		// A request under way is finished: its outcome matters.
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		l.rec.put(l.putAll(one, k, entries, retries)...)
		cancel()
	}
}

// putAll puts the records in one request and gives what became of each.
func (l *Load) putAll(ctx context.Context, k *kinesis.Client, entries []types.PutRecordsRequestEntry, retries bool) []judge.Put {
	puts := make([]judge.Put, len(entries))
	called := l.Now()
	var results []types.PutRecordsResultEntry
	var err error
	if len(entries) == 1 {
		var out *kinesis.PutRecordOutput
		out, err = k.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &l.cfg.Stream, PartitionKey: entries[0].PartitionKey, Data: entries[0].Data, ExplicitHashKey: entries[0].ExplicitHashKey})
		if err == nil {
			results = []types.PutRecordsResultEntry{{ShardId: out.ShardId, SequenceNumber: out.SequenceNumber}}
		}
	} else {
		var out *kinesis.PutRecordsOutput
		out, err = k.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &l.cfg.Stream, Records: entries})
		if err == nil {
			results = out.Records
		}
	}
	returned := l.Now()
	refused := false
	if err != nil {
		var complaint string
		if refused, complaint = judgeError(err); complaint != "" {
			l.rec.complain("put", complaint)
		}
		refused = refused && !retries // an attempt before may have been stored
	} else if len(results) != len(entries) {
		l.rec.complain("put", fmt.Sprintf("%d results for %d records", len(results), len(entries)))
	}
	for i, e := range entries {
		puts[i] = judge.Put{Key: *e.PartitionKey, Value: shortened(e.Data), Called: called, Returned: returned}
		switch {
		case refused:
			puts[i].Outcome = judge.Refused
		case i < len(results) && results[i].SequenceNumber != nil:
			puts[i].Outcome = judge.Acknowledged
			puts[i].Place = judge.Place{Shard: *results[i].ShardId, Sequence: *results[i].SequenceNumber}
		}
	}
	return puts
}

// probe puts one record after the other to where a hash key belongs.
func (l *Load) probe(ctx context.Context, name, hashKey string) {
	ticker := time.NewTicker(l.cfg.Probe)
	defer ticker.Stop()
	key := "rhythm-" + name
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		entry := types.PutRecordsRequestEntry{PartitionKey: &key, Data: fmt.Appendf(nil, "%s/%d", key, n), ExplicitHashKey: &hashKey}
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		l.rec.put(l.putAll(one, l.client(n), []types.PutRecordsRequestEntry{entry}, false)...)
		cancel()
	}
}

// shortened is how a history keeps a record's data: its beginning, and a hash of
// all of it if it is long.
func shortened(data []byte) string {
	const most = 64
	if len(data) <= most {
		return string(data)
	}
	sum := sha256.Sum256(data)
	return string(data[:most-16]) + hex.EncodeToString(sum[:8])
}

// Writable puts a record into every open shard; its error says which took none
// until the context's end.
func (l *Load) Writable(ctx context.Context) error {
	for n := 0; ; n++ {
		missing, err := l.notWritable(ctx, n)
		if len(missing) == 0 && err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no put succeeds in %v: %w", missing, err)
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

func (l *Load) notWritable(ctx context.Context, n int) (missing []string, last error) {
	shards, err := l.allShards(ctx, l.client(n))
	if err != nil {
		return []string{"unknown shards"}, err
	}
	for _, s := range shards {
		if s.SequenceNumberRange.EndingSequenceNumber != nil {
			continue
		}
		key, value := "probe-"+*s.ShardId, fmt.Sprintf("probe-%s/%d", *s.ShardId, n)
		one, cancel := context.WithTimeout(ctx, 15*time.Second)
		p := judge.Put{Key: key, Value: shortened([]byte(value)), Called: l.Now()}
		out, err := l.client(n).PutRecord(one, &kinesis.PutRecordInput{
			StreamName: &l.cfg.Stream, PartitionKey: &key, Data: []byte(value), ExplicitHashKey: s.HashKeyRange.StartingHashKey,
		})
		cancel()
		p.Returned = l.Now()
		if err != nil {
			missing, last = append(missing, *s.ShardId), err
		} else {
			p.Outcome, p.Place = judge.Acknowledged, judge.Place{Shard: *out.ShardId, Sequence: *out.SequenceNumber}
		}
		l.rec.put(p)
	}
	return missing, last
}
