package gateway

import (
	"context"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: GetShardIterator gives a position in a shard, good for 300 seconds.
//
//	TRIM_HORIZON           the oldest record
//	LATEST                 behind the newest record at the time of the call
//	AT_SEQUENCE_NUMBER     that record, AFTER_SEQUENCE_NUMBER the next
//	AT_TIMESTAMP           the first record that came at or after that time
//
// A sequence number need not belong to a record: the start of a shard, a trimmed
// record's or one to come all work, since the position is in the number itself.
// It must be one of this shard of this stream. A missing stream is reported as a
// missing shard, and a stream that is CREATING as missing. Closed shards work;
// LATEST there is the end.
//
// With shard limits an open shard takes five calls a second, and answers others
// with ProvisionedThroughputExceededException. What the metadata says of a closed
// one is not counted.

func getShardIterator(c *call, in *kinesis.GetShardIteratorInput) (*kinesis.GetShardIteratorOutput, *kinesis.Error) {
	a, failure := addressOf(deref(in.StreamName), deref(in.StreamARN))
	if failure != nil {
		return nil, failure
	}
	number, ok := stream.ParseShardName(*in.ShardId)
	if !ok {
		return nil, c.shardNotFound(*in.ShardId, a)
	}
	t, failure := c.readShard(a, number)
	if failure != nil {
		return nil, failure
	}
	offset, failure := c.position(t, *in.ShardIteratorType, in.StartingSequenceNumber, in.Timestamp)
	if failure != nil {
		return nil, failure
	}
	if in.StartingSequenceNumber != nil {
		if failure := c.countIterator(t); failure != nil {
			return nil, failure
		}
	}
	text, failure := c.sealIterator(t.m, iterator{shard: t.id(), offset: offset, name: t.v.Name})
	if failure != nil {
		return nil, failure
	}
	return &kinesis.GetShardIteratorOutput{ShardIterator: &text}, nil
}

// countIterator lets the leader of an open shard count a call that it is not
// asked a position for, if it counts them.
func (c *call) countIterator(t readTarget) *kinesis.Error {
	if t.s.State == pb.ShardState_SHARD_STATE_CLOSED || !t.m.nodes[leaderNode(t.s)].GetShardLimits() {
		return nil
	}
	_, failure := c.locateOffset(t, pb.Position_POSITION_NONE, 0)
	return failure
}

// readTarget is the shard that a read is for.
type readTarget struct {
	m       *metadata
	v       *streamView
	s       *pb.Shard
	account string
}

func (t readTarget) id() stream.ShardID {
	return stream.ShardID{Stream: stream.StreamID(t.v.Id), Number: t.s.Number}
}

func (t readTarget) subject() subject {
	return subject{name: t.v.Name, account: t.account, shard: stream.ShardName(t.s.Number), read: true}
}

// readShard finds a shard to read. A stream or shard that the metadata at hand
// does not know may be very young, so that only metadata which shows everything
// says that it does not exist.
func (c *call) readShard(a address, number uint32) (readTarget, *kinesis.Error) {
	m, failure := c.cached()
	if failure != nil {
		return readTarget{}, failure
	}
	find := func() (readTarget, string) {
		v, account := a.find(m)
		if v == nil || v.Status == pb.StreamStatus_STREAM_STATUS_CREATING {
			return readTarget{}, account
		}
		s := v.shard(number)
		if s == nil || !isListed(v, s, c.g.cfg.Now().UnixMilli()) {
			return readTarget{}, account
		}
		return readTarget{m, v, s, account}, account
	}
	t, _ := find()
	if t.s == nil {
		if m, failure = c.linearizable(); failure != nil {
			return readTarget{}, failure
		}
		var account string
		if t, account = find(); t.s == nil {
			return readTarget{}, kinesis.ShardDoesNotExist(stream.ShardName(number), a.name, account)
		}
	}
	return t, nil
}

// position gives the offset that an iterator or a subscription of that type
// begins at.
func (c *call) position(t readTarget, kind string, number *string, at *kinesis.Timestamp) (stream.Offset, *kinesis.Error) {
	switch kind {
	case kinesis.ShardIteratorTypeAtSequenceNumber, kinesis.ShardIteratorTypeAfterSequenceNumber:
		if number == nil {
			return 0, kinesis.IteratorTypeMismatch(kind, false)
		}
		return offsetOf(t, *number, kind == kinesis.ShardIteratorTypeAfterSequenceNumber)
	case kinesis.ShardIteratorTypeTrimHorizon:
		if number != nil {
			return 0, kinesis.IteratorTypeMismatch(kind, true)
		}
		return c.locateOffset(t, pb.Position_POSITION_TRIM_HORIZON, 0)
	case kinesis.ShardIteratorTypeLatest:
		if number != nil {
			return 0, kinesis.IteratorTypeMismatch(kind, true)
		}
		return c.locateOffset(t, pb.Position_POSITION_LATEST, 0)
	}
	if at == nil {
		return 0, kinesis.TimestampRequired()
	}
	if now := kinesis.Timestamp(c.g.cfg.Now().UnixMilli()); *at > now {
		return 0, kinesis.TimestampInFuture(*at, now)
	}
	return c.locateOffset(t, pb.Position_POSITION_AT_TIME, int64(*at))
}

// offsetOf gives the offset that a sequence number of this shard stands for.
// The counter is the offset plus one, and 0 at the start of the shard.
func offsetOf(t readTarget, text string, after bool) (stream.Offset, *kinesis.Error) {
	shard := stream.ShardName(t.s.Number)
	n, err := stream.ParseSequence(text)
	switch {
	case err != nil:
		return 0, kinesis.InvalidStartingSequence(text, shard, t.v.Name, t.account)
	case n.Shard64 != int64(t.s.Number):
		return 0, kinesis.ForeignShardSequence(n.Shard64, shard)
	case n.Version == 0:
		return 0, kinesis.InternalFailure()
	case n.Version != 2 || n.Created != createdSecond(t.s):
		return 0, kinesis.ForeignStreamSequence(text, shard, t.v.Name, t.account)
	case n.Counter == 0:
		return 0, nil
	case after, n.Behind:
		return stream.Offset(n.Counter), nil
	}
	return stream.Offset(n.Counter - 1), nil
}

// locateOffset asks the shard's leader where a position is, unless the metadata
// knows: a closed shard has its end there.
func (c *call) locateOffset(t readTarget, p pb.Position, ms int64) (stream.Offset, *kinesis.Error) {
	if end := stream.Offset(t.s.FinalOffset); isAtEnd(t.s, end) && (end == 0 || p == pb.Position_POSITION_LATEST) {
		return end, nil
	}
	var offset stream.Offset
	request := &pb.LocateRequest{
		Shard: &pb.ShardRef{StreamId: t.v.Id, Shard: t.s.Number}, Position: p, TimeMs: ms,
		Iterator: c.op == kinesis.GetShardIterator,
	}
	err := c.atLeader(t.id(), func(ctx context.Context, data pb.DataClient) (pb.ErrorKind, string, error) {
		r, err := data.Locate(ctx, request)
		offset = stream.Offset(r.GetOffset())
		return r.GetError(), r.GetDetail(), err
	})
	if err != nil {
		return 0, c.fail(err, t.subject())
	}
	return offset, nil
}
