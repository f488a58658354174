package gateway

import "shardstream/gateway/kinesis"

// handler runs one operation: it reads c.body and leaves the answer in c.out.
type handler func(c *call) *kinesis.Error

// served are the operations of the API.
var served = map[kinesis.Op]handler{
	kinesis.AddTagsToStream:               typed(addTagsToStream),
	kinesis.CreateStream:                  typed(createStream),
	kinesis.DecreaseStreamRetentionPeriod: typed(decreaseRetention),
	kinesis.DeleteResourcePolicy:          typed(deleteResourcePolicy),
	kinesis.DeleteStream:                  typed(deleteStream),
	kinesis.DeregisterStreamConsumer:      typed(deregisterStreamConsumer),
	kinesis.DescribeAccountSettings:       typed(describeAccountSettings),
	kinesis.DescribeLimits:                typed(describeLimits),
	kinesis.DescribeStream:                typed(describeStream),
	kinesis.DescribeStreamConsumer:        typed(describeStreamConsumer),
	kinesis.DescribeStreamSummary:         typed(describeStreamSummary),
	kinesis.DisableEnhancedMonitoring:     typed(disableEnhancedMonitoring),
	kinesis.EnableEnhancedMonitoring:      typed(enableEnhancedMonitoring),
	kinesis.GetRecords:                    getRecords,
	kinesis.GetResourcePolicy:             typed(getResourcePolicy),
	kinesis.GetShardIterator:              typed(getShardIterator),
	kinesis.IncreaseStreamRetentionPeriod: typed(increaseRetention),
	kinesis.ListShards:                    typed(listShards),
	kinesis.ListStreamConsumers:           typed(listStreamConsumers),
	kinesis.ListStreams:                   typed(listStreams),
	kinesis.ListTagsForResource:           typed(listTagsForResource),
	kinesis.ListTagsForStream:             typed(listTagsForStream),
	kinesis.MergeShards:                   typed(mergeShards),
	kinesis.PutRecord:                     putRecord,
	kinesis.PutRecords:                    putRecords,
	kinesis.PutResourcePolicy:             typed(putResourcePolicy),
	kinesis.RegisterStreamConsumer:        typed(registerStreamConsumer),
	kinesis.RemoveTagsFromStream:          typed(removeTagsFromStream),
	kinesis.SplitShard:                    typed(splitShard),
	kinesis.StartStreamEncryption:         typed(startStreamEncryption),
	kinesis.StopStreamEncryption:          typed(stopStreamEncryption),
	kinesis.SubscribeToShard:              subscribeToShard,
	kinesis.TagResource:                   typed(tagResource),
	kinesis.UntagResource:                 typed(untagResource),
	kinesis.UpdateAccountSettings:         typed(updateAccountSettings),
	kinesis.UpdateMaxRecordSize:           typed(updateMaxRecordSize),
	kinesis.UpdateShardCount:              typed(updateShardCount),
	kinesis.UpdateStreamMode:              typed(updateStreamMode),
	kinesis.UpdateStreamWarmThroughput:    typed(updateStreamWarmThroughput),
}

// decode reads and checks the body of a call, and that the caller may make it.
func decode[In any](c *call) (*In, *kinesis.Error) {
	in, failure := kinesis.Decode(c.op, c.format, c.body)
	if failure = c.permit(in, failure); failure != nil {
		return nil, failure
	}
	if failure := kinesis.Validate(in); failure != nil {
		return nil, failure
	}
	return in.(*In), nil
}

// typed makes a handler of a function between the operation's own types. Out is
// a pointer to an output, or nothing.
func typed[In, Out any](f func(*call, *In) (*Out, *kinesis.Error)) handler {
	return func(c *call) *kinesis.Error {
		in, failure := decode[In](c)
		if failure != nil {
			return failure
		}
		if failure := c.countCall(in); failure != nil {
			return failure
		}
		out, failure := f(c, in)
		if failure != nil {
			return failure
		}
		if out != nil {
			c.out = kinesis.AppendOutput(c.out[:0], c.format, out)
		}
		return nil
	}
}

// empty is the output of operations that answer with nothing.
type empty struct{}
