package gateway

import "shardstream/gateway/kinesis"

// handler runs one operation: it reads c.body and leaves the answer in c.out.
type handler func(c *call) *kinesis.Error

// served are the operations that we serve. The others of the API are known, and
// answered as if they were not: see unserved.
var served = map[kinesis.Op]handler{
	kinesis.AddTagsToStream:               typed(addTagsToStream),
	kinesis.CreateStream:                  typed(createStream),
	kinesis.DecreaseStreamRetentionPeriod: typed(decreaseRetention),
	kinesis.DeleteStream:                  typed(deleteStream),
	kinesis.DescribeLimits:                typed(describeLimits),
	kinesis.DescribeStream:                typed(describeStream),
	kinesis.DescribeStreamSummary:         typed(describeStreamSummary),
	kinesis.GetRecords:                    getRecords,
	kinesis.GetShardIterator:              typed(getShardIterator),
	kinesis.IncreaseStreamRetentionPeriod: typed(increaseRetention),
	kinesis.ListShards:                    typed(listShards),
	kinesis.ListStreams:                   typed(listStreams),
	kinesis.ListTagsForResource:           typed(listTagsForResource),
	kinesis.ListTagsForStream:             typed(listTagsForStream),
	kinesis.MergeShards:                   typed(mergeShards),
	kinesis.PutRecord:                     putRecord,
	kinesis.PutRecords:                    putRecords,
	kinesis.RemoveTagsFromStream:          typed(removeTagsFromStream),
	kinesis.SplitShard:                    typed(splitShard),
	kinesis.TagResource:                   typed(tagResource),
	kinesis.UntagResource:                 typed(untagResource),
	kinesis.UpdateShardCount:              typed(updateShardCount),
}

// unserved are the operations of the API that answer UnknownOperationException.
var unserved = []kinesis.Op{
	kinesis.DeleteResourcePolicy,
	kinesis.DeregisterStreamConsumer,
	kinesis.DescribeAccountSettings,
	kinesis.DescribeStreamConsumer,
	kinesis.DisableEnhancedMonitoring,
	kinesis.EnableEnhancedMonitoring,
	kinesis.GetResourcePolicy,
	kinesis.ListStreamConsumers,
	kinesis.PutResourcePolicy,
	kinesis.RegisterStreamConsumer,
	kinesis.StartStreamEncryption,
	kinesis.StopStreamEncryption,
	kinesis.SubscribeToShard,
	kinesis.UpdateAccountSettings,
	kinesis.UpdateMaxRecordSize,
	kinesis.UpdateStreamMode,
	kinesis.UpdateStreamWarmThroughput,
}

// decode reads and checks the body of a call.
func decode[In any](c *call) (*In, *kinesis.Error) {
	in, failure := kinesis.Decode(c.op, c.format, c.body)
	if failure != nil {
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
