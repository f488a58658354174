package gateway

import (
	"slices"

	"shardstream/gateway/kinesis"
)

// Behaviour: ListStreams gives up to 100 streams of any state by name, from
// behind ExclusiveStartStreamName, which need not exist. NextToken is there
// whenever HasMoreStreams is true: boto3's paginator uses the two together. A
// token remembers where it stands; ExclusiveStartStreamName beside it is
// ignored.

const maxListedStreams = 100

func listStreams(c *call, in *kinesis.ListStreamsInput) (*kinesis.ListStreamsOutput, *kinesis.Error) {
	m, failure := c.linearizable()
	if failure != nil {
		return nil, failure
	}
	after := deref(in.ExclusiveStartStreamName)
	if in.NextToken != nil {
		var token streamsToken
		if failure := c.openToken(m, tokenStreams, *in.NextToken, &token); failure != nil {
			return nil, failure
		}
		after = token.After
	}
	limit := maxListedStreams
	if in.Limit != nil {
		limit = min(limit, int(*in.Limit))
	}
	first, found := slices.BinarySearch(m.names, after)
	if found {
		first++
	}
	last := min(len(m.names), first+limit)
	names := m.names[first:last]
	out := &kinesis.ListStreamsOutput{
		StreamNames: append([]string{}, names...), HasMoreStreams: last < len(m.names),
		StreamSummaries: make([]kinesis.StreamSummary, 0, len(names)),
	}
	for _, name := range names {
		v := m.byName[name]
		out.StreamSummaries = append(out.StreamSummaries, kinesis.StreamSummary{
			StreamName: name, StreamARN: v.arn(c.region(), m.cluster.AccountId), StreamStatus: statusName(v.Status),
			StreamModeDetails: modeDetails(v.Mode), StreamCreationTimestamp: new(kinesis.Timestamp(v.CreatedMs)),
		})
	}
	if out.HasMoreStreams {
		token, failure := c.sealToken(m, tokenStreams, streamsToken{After: names[len(names)-1]})
		if failure != nil {
			return nil, failure
		}
		out.NextToken = &token
	}
	return out, nil
}
