package gateway

import (
	"encoding/binary"
	"time"

	"shardstream/gateway/kinesis"
	"shardstream/stream"
)

// iterator is what a shard iterator says: a position in a shard, as an offset.
// It names the stream by its number, so that an iterator of a deleted stream
// never reads a re-created namesake, and by its name, for the error texts.
type iterator struct {
	shard    stream.ShardID
	offset   stream.Offset // of the first record wanted
	issuedMs int64
	name     string
}

const iteratorPurpose = "shard iterator"

// The sealed content: stream id, shard number, offset, issue time, name.
const iteratorFixed = 8 + 4 + 8 + 8

func (i iterator) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(i.shard.Stream))
	dst = binary.BigEndian.AppendUint32(dst, i.shard.Number)
	dst = binary.BigEndian.AppendUint64(dst, uint64(i.offset))
	dst = binary.BigEndian.AppendUint64(dst, uint64(i.issuedMs))
	return append(dst, i.name...)
}

func parseIterator(b []byte) (i iterator, ok bool) {
	if len(b) <= iteratorFixed {
		return i, false
	}
	return iterator{
		shard:    stream.ShardID{Stream: stream.StreamID(binary.BigEndian.Uint64(b)), Number: binary.BigEndian.Uint32(b[8:])},
		offset:   stream.Offset(binary.BigEndian.Uint64(b[12:])),
		issuedMs: int64(binary.BigEndian.Uint64(b[20:])),
		name:     string(b[iteratorFixed:]),
	}, true
}

// sealIterator makes an iterator that begins to age now.
func (c *call) sealIterator(m *metadata, i iterator) (string, *kinesis.Error) {
	i.issuedMs = c.g.cfg.Now().UnixMilli()
	s, err := c.g.sealer.seal(m.cluster.TokenKey, iteratorPurpose, i.append(make([]byte, 0, iteratorFixed+len(i.name))))
	if err != nil {
		return "", c.fail(err, subject{name: i.name})
	}
	return s, nil
}

// unsealIterator reads an iterator as a client sent it, of whatever age. AWS takes
// it in double quotes too, as the tutorial of the AWS CLI produces it.
func (c *call) unsealIterator(m *metadata, text string) (iterator, *kinesis.Error) {
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	plain, ok, err := c.g.sealer.open(m.cluster.TokenKey, iteratorPurpose, text)
	if err != nil {
		return iterator{}, c.fail(err, subject{})
	}
	i, parsed := parseIterator(plain)
	if !ok || !parsed {
		return iterator{}, kinesis.InvalidIterator()
	}
	return i, nil
}

// openIterator reads an iterator that is still good. One that seems to come from
// the future is another gateway's, whose clock is ahead.
func (c *call) openIterator(m *metadata, text string) (iterator, *kinesis.Error) {
	i, failure := c.unsealIterator(m, text)
	if failure != nil {
		return iterator{}, failure
	}
	now := c.g.cfg.Now()
	if issued := time.UnixMilli(i.issuedMs); now.Sub(issued) > kinesis.TokenLifetime {
		return iterator{}, kinesis.ExpiredIterator(issued, now)
	}
	return i, nil
}
