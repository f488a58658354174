package gateway

import (
	"encoding/json"
	"time"

	"shardstream/gateway/kinesis"
)

// Page tokens carry all that the next page needs, so that any gateway gives it.
// They are good for kinesis.TokenLifetime.

// The purposes of page tokens.
const (
	tokenShards  = "ListShards token"
	tokenStreams = "ListStreams token"

	tokenConsumers = "ListStreamConsumers token"
)

// shardsToken is where a ListShards goes on.
type shardsToken struct {
	Stream uint64 // number of the stream
	Name   string
	After  int64 // number of the last shard given
	Filter shardFilter
}

// streamsToken is where a ListStreams goes on.
type streamsToken struct {
	After string // last name given
}

// consumersToken is where a ListStreamConsumers goes on: behind the consumer of
// that time and name.
type consumersToken struct {
	Stream    uint64 // number of the stream
	CreatedMs int64
	Name      string
}

type datedToken struct {
	IssuedMs int64
	Content  json.RawMessage
}

func (c *call) sealToken(m *metadata, purpose string, content any) (string, *kinesis.Error) {
	inner, err := json.Marshal(content)
	if err != nil {
		return "", c.fail(err, subject{})
	}
	plain, err := json.Marshal(datedToken{c.g.cfg.Now().UnixMilli(), inner})
	if err != nil {
		return "", c.fail(err, subject{})
	}
	s, err := c.g.sealer.seal(m.cluster.TokenKey, purpose, plain)
	if err != nil {
		return "", c.fail(err, subject{})
	}
	return s, nil
}

// openToken reads a token that is still good.
func (c *call) openToken(m *metadata, purpose, text string, content any) *kinesis.Error {
	issued, failure := c.unsealToken(m, purpose, text, content)
	if failure == nil && c.g.cfg.Now().Sub(issued) > kinesis.TokenLifetime {
		return kinesis.ExpiredNextToken()
	}
	return failure
}

// unsealToken reads a token of whatever age.
func (c *call) unsealToken(m *metadata, purpose, text string, content any) (issued time.Time, failure *kinesis.Error) {
	plain, ok, err := c.g.sealer.open(m.cluster.TokenKey, purpose, text)
	if err != nil {
		return issued, c.fail(err, subject{})
	}
	var t datedToken
	if !ok || json.Unmarshal(plain, &t) != nil || json.Unmarshal(t.Content, content) != nil {
		return issued, kinesis.InvalidNextToken()
	}
	return time.UnixMilli(t.IssuedMs), nil
}
