package gateway

import (
	"reflect"
	"strings"
	"sync"
	"time"

	"shardstream/gateway/kinesis"
	"shardstream/throttle"
)

// How often an account may call an operation, as AWS has it: imposed if
// Config.AccountLimits says so. Each gateway counts for itself, so that n of them
// let n times as many calls pass. Calls that carry records have limits per shard
// instead, which the shard's leader keeps.

// callRate is how many calls a second pass, and at once after a pause.
type callRate struct {
	perSecond int64
	perStream bool // or else of the account
}

func (r callRate) rate() throttle.Rate {
	return throttle.Rate{PerSecond: r.perSecond, Burst: r.perSecond}
}

// callRates has the operations that are limited. AWS publishes no figure for
// those below the line; they get that of their like. StartStreamEncryption and
// StopStreamEncryption have a limit for 24 hours instead.
var callRates = map[kinesis.Op]callRate{
	kinesis.AddTagsToStream:               {perSecond: 5},
	kinesis.CreateStream:                  {perSecond: 5},
	kinesis.DecreaseStreamRetentionPeriod: {perSecond: 5},
	kinesis.DeleteStream:                  {perSecond: 5},
	kinesis.DeregisterStreamConsumer:      {perSecond: 5, perStream: true},
	kinesis.DescribeAccountSettings:       {perSecond: 5},
	kinesis.DescribeLimits:                {perSecond: 1},
	kinesis.DescribeStream:                {perSecond: 10},
	kinesis.DescribeStreamConsumer:        {perSecond: 20, perStream: true},
	kinesis.DescribeStreamSummary:         {perSecond: 20},
	kinesis.DisableEnhancedMonitoring:     {perSecond: 5},
	kinesis.EnableEnhancedMonitoring:      {perSecond: 5},
	kinesis.IncreaseStreamRetentionPeriod: {perSecond: 5},
	kinesis.ListShards:                    {perSecond: 1000, perStream: true},
	kinesis.ListStreamConsumers:           {perSecond: 5, perStream: true},
	kinesis.ListStreams:                   {perSecond: 5},
	kinesis.ListTagsForStream:             {perSecond: 5},
	kinesis.MergeShards:                   {perSecond: 5},
	kinesis.RegisterStreamConsumer:        {perSecond: 5, perStream: true},
	kinesis.RemoveTagsFromStream:          {perSecond: 5},
	kinesis.SplitShard:                    {perSecond: 5},
	kinesis.UpdateAccountSettings:         {perSecond: 5},
	kinesis.UpdateShardCount:              {perSecond: 10},
	kinesis.UpdateStreamWarmThroughput:    {perSecond: 5},

	kinesis.DeleteResourcePolicy: {perSecond: 5},
	kinesis.GetResourcePolicy:    {perSecond: 5},
	kinesis.ListTagsForResource:  {perSecond: 5},
	kinesis.PutResourcePolicy:    {perSecond: 5},
	kinesis.TagResource:          {perSecond: 5},
	kinesis.UntagResource:        {perSecond: 5},
	kinesis.UpdateMaxRecordSize:  {perSecond: 5},
	kinesis.UpdateStreamMode:     {perSecond: 5},
}

// callKey is what calls are counted by.
type callKey struct {
	op     kinesis.Op
	stream string // "" for those of the account
}

// calls counts the calls of the account at this gateway.
type calls struct {
	now   func() time.Time
	start time.Time

	mu     sync.Mutex
	counts throttle.Table[callKey, callCount, *callCount] // guarded by mu
}

type callCount struct {
	rate   throttle.Rate
	bucket throttle.Bucket
}

// Idle reports whether it may be forgotten.
func (c *callCount) Idle(now time.Duration) bool { return c.bucket.Full(c.rate, now) }

func newCalls(now func() time.Time) *calls { return &calls{now: now, start: now()} }

// pass counts a call, and reports whether it is within its rate.
func (s *calls) pass(op kinesis.Op, stream string) bool {
	r, limited := callRates[op]
	if !limited {
		return true
	}
	key := callKey{op: op}
	if r.perStream {
		key.stream = stream
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().Sub(s.start)
	count := s.counts.At(key, now)
	count.rate = r.rate()
	return count.bucket.Take(count.rate, now, 1)
}

// countCall refuses a call over its rate. The text names the stream if the call
// does, whatever it is counted by.
func (c *call) countCall(in any) *kinesis.Error {
	if c.g.calls == nil {
		return nil
	}
	m, failure := c.cached()
	if failure != nil {
		return failure
	}
	name := namedStream(in)
	if list, ok := in.(*kinesis.ListShardsInput); ok && list.NextToken != nil {
		var t shardsToken
		if c.openToken(m, tokenShards, *list.NextToken, &t) == nil {
			name = t.Name
		}
	}
	switch account := m.cluster.AccountId; {
	case c.g.calls.pass(c.op, name):
		return nil
	case name == "":
		return kinesis.AccountRateExceeded(account)
	default:
		return kinesis.StreamRateExceeded(name, account)
	}
}

// namedStream gives the name of the stream that an input speaks of, by name or
// by an ARN, its own or a consumer's; "" if there is none.
func namedStream(in any) string {
	v := reflect.ValueOf(in).Elem()
	for _, member := range []string{"StreamName", "StreamARN", "ResourceARN", "ConsumerARN"} {
		field := v.FieldByName(member)
		if !field.IsValid() {
			continue
		}
		text, ok := field.Interface().(*string)
		if !ok || text == nil {
			continue
		}
		if member == "StreamName" {
			return *text
		}
		if a, ok := parseARN(*text); ok {
			name, _, _ := strings.Cut(a.name, "/")
			return name
		}
	}
	return ""
}
