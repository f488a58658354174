package gateway

import (
	"context"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: GetRecords gives the records from the iterator's position on, up to
// Limit (10,000) and 10 MiB, and at least one if there is any.
//
//   - NextShardIterator stands behind the last record given, and is new also when
//     there is none. It is left out when the shard is closed and everything in it
//     has been given; ChildShards is there then, and only then. The last records
//     and the end may come in one answer.
//   - MillisBehindLatest is 0 at the tip, else how far behind now the last record
//     given is.
//   - An iterator may be used more than once, and may stand in double quotes.
//   - With shard limits a shard takes five calls and gives 2 MiB a second. After
//     2 MiB or more in one second it takes none until that is made up for: after
//     10 MiB for five seconds. Others are answered with
//     ProvisionedThroughputExceededException. Behind the end of a closed shard, where
//     the metadata says it all, no calls are counted.
//   - A position that is no longer there moves to the oldest record. One above
//     the leader's high watermark gets an empty answer and stays.

const (
	maxReadRecords = 10_000
	maxReadBytes   = 10 << 20
)

func getRecords(c *call) *kinesis.Error {
	in, failure := decode[kinesis.GetRecordsInput](c)
	if failure != nil {
		return failure
	}
	m, failure := c.cached()
	if failure != nil {
		return failure
	}
	i, failure := c.openIterator(m, *in.ShardIterator)
	if failure != nil {
		return failure
	}
	if in.StreamARN != nil {
		a, ok := parseARN(*in.StreamARN)
		if !ok || a.name != i.name || a.account != m.cluster.AccountId {
			return kinesis.IteratorOfOtherStream()
		}
	}
	t, failure := c.iteratorTarget(m, i)
	if failure != nil {
		return failure
	}
	limit := maxReadRecords
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	return c.read(t, i, limit)
}

// iteratorTarget finds the shard of an iterator, by the stream's number: a
// re-created namesake is another stream.
func (c *call) iteratorTarget(m *metadata, i iterator) (readTarget, *kinesis.Error) {
	if t := c.findTarget(m, i); t.s != nil {
		return t, nil
	}
	// The iterator may come from a gateway that knows more than this one. Only
	// what shows everything says that a shard does not exist: consumers take that
	// for its end.
	m, failure := c.linearizable()
	if failure != nil {
		return readTarget{}, failure
	}
	t := c.findTarget(m, i)
	if t.s == nil {
		return t, kinesis.ShardDoesNotExist(stream.ShardName(i.shard.Number), i.name, t.account)
	}
	return t, nil
}

// findTarget gives the shard of an iterator in m, without one if it is not there.
func (c *call) findTarget(m *metadata, i iterator) readTarget {
	t := readTarget{m: m, v: m.byID[uint64(i.shard.Stream)], account: m.cluster.AccountId}
	if t.v == nil {
		return t
	}
	if s := t.v.shard(i.shard.Number); s != nil && isListed(t.v, s, c.g.cfg.Now().UnixMilli()) {
		t.s = s
	}
	return t
}

// read reads from the shard's leader, writes the answer, and counts it.
func (c *call) read(t readTarget, i iterator, limit int) *kinesis.Error {
	run, behindMs, failure := c.answerRead(t, i, limit)
	op, shard := c.g.metrics.ofOp(t.v, opGetRecords), t.v.metrics.shard(t.s.Number)
	if failure != nil {
		op.get(c.started, 0, 0, failure.Code)
		if failure.Code == kinesis.CodeProvisionedThroughputExceeded {
			shard.readExceeded()
		}
		return failure
	}
	op.get(c.started, run.records, run.bytes, "")
	shard.gave(run.records, run.bytes)
	shard.behind(behindMs)
	t.v.metrics.outRecords.Add(float64(run.records))
	t.v.metrics.outBytes.Add(float64(run.bytes))
	t.v.metrics.age.Set(float64(behindMs) / 1000)
	return nil
}

// answerRead gives also what the answer holds, and how far behind now that ends.
func (c *call) answerRead(t readTarget, i iterator, limit int) (run readRun, behindMs int64, failure *kinesis.Error) {
	request := &pb.ReadRequest{
		Shard:  &pb.ShardRef{StreamId: t.v.Id, Shard: t.s.Number},
		Offset: uint64(i.offset), MaxRecords: uint32(limit), MaxBytes: maxReadBytes,
	}
	response := &pb.ReadResponse{}
	// Behind the end of a closed shard the metadata says it all. Shards between the
	// parents and the children of an UpdateShardCount have no replicas to ask.
	if !isAtEnd(t.s, i.offset) {
		err := c.atLeader(t.id(), func(ctx context.Context, data pb.DataClient) (pb.ErrorKind, string, error) {
			r, err := data.Read(ctx, request)
			response = r
			return r.GetError(), r.GetDetail(), err
		})
		if err != nil {
			return run, 0, c.fail(err, t.subject())
		}
	}
	run, err := choose(response.Batches, i.offset, limit, maxReadBytes, func(b stream.Batch) (stream.Batch, error) {
		return c.g.decrypt(c.ctx(), t.m, t.v, b)
	})
	if err != nil {
		return run, 0, c.fail(err, t.subject())
	}
	next := max(i.offset, stream.Offset(response.LogStart))
	if run.records > 0 {
		next = run.to
	}
	answer := kinesis.GetRecordsAnswer{
		RecordRun: kinesis.RecordRun{
			Shard: t.s.Number, Created: createdSecond(t.s), Batches: run.batches, From: run.from, To: run.to,
		},
		MillisBehindLatest: c.millisBehind(run, next, tip{stream.Offset(response.HighWatermark), response.LastArrivalMs, response.Settling}),
	}
	if isAtEnd(t.s, next) {
		answer.ChildShards = childShards(t.v, t.s.Number)
	}
	if answer.ChildShards == nil {
		text, failure := c.sealIterator(t.m, iterator{shard: i.shard, offset: next, name: i.name})
		if failure != nil {
			return run, 0, failure
		}
		answer.NextShardIterator = text
	}
	// Base64 and the members' names around each record.
	if failure := c.reserve(run.bytes*4/3 + run.records*256 + 1024); failure != nil {
		return run, 0, failure
	}
	c.out = kinesis.AppendGetRecordsOutput(c.out[:0], c.format, &answer)
	return run, answer.MillisBehindLatest, nil
}

// isAtEnd reports whether a position is behind the last record that the shard
// will ever have (I21).
func isAtEnd(s *pb.Shard, o stream.Offset) bool {
	return s.State == pb.ShardState_SHARD_STATE_CLOSED && o >= stream.Offset(s.FinalOffset)
}

// readRun is the part of what was read that an answer gives.
type readRun struct {
	batches  []stream.Batch // decrypted
	from, to stream.Offset  // of the records given
	records  int
	bytes    int   // of data and partition keys
	arrival  int64 // of the last record given, Unix ms
}

// choose checks the batches and takes the records from offset on, up to limit
// records and so many bytes, at least one if there is any. A batch that does not
// hold what its checksum says is never served (I14). Of batches that are
// encrypted it takes what decrypt gives.
func choose(batches [][]byte, offset stream.Offset, limit, maxBytes int, decrypt func(stream.Batch) (stream.Batch, error)) (readRun, error) {
	run := readRun{from: offset, to: offset, batches: make([]stream.Batch, 0, len(batches))}
	for _, raw := range batches {
		b, err := stream.CheckBatch(raw)
		if err != nil {
			return run, err
		}
		if b.End() <= offset {
			continue
		}
		if run.records == limit { // nothing of it would be given
			return run, nil
		}
		if b.Encrypted() {
			b, err = decrypt(b)
			if err != nil && run.records > 0 {
				return run, nil // what comes before can be read; the next call meets it first
			}
			if err != nil {
				return run, err
			}
		}
		run.batches = append(run.batches, b)
		for o, r := range b.Records() {
			if o < offset {
				continue
			}
			size := len(r.Data) + len(r.PartitionKey)
			if run.records == limit || run.records > 0 && run.bytes+size > maxBytes {
				return run, nil
			}
			run.records++
			run.bytes += size
			run.to = o + 1
			run.arrival = b.Arrival()
		}
	}
	return run, nil
}

// tip is what a leader says of the end of its shard: its high watermark, the
// arrival of the last record below it, and that more may be committed.
type tip struct {
	high     stream.Offset
	arrival  int64
	settling bool
}

// millisBehind says how far the position behind an answer is behind now. At a
// leader that is new nobody is told that there is nothing further.
func (c *call) millisBehind(run readRun, next stream.Offset, t tip) int64 {
	switch {
	case next >= t.high && t.settling:
		return 1
	case next >= t.high:
		return 0
	}
	at := run.arrival
	if run.records == 0 {
		at = t.arrival
	}
	return max(1, c.g.cfg.Now().UnixMilli()-at)
}
