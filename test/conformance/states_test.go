package conformance

import "maps"

// Section 3.2: what the state of a stream allows. On the slow node a transition
// takes a minute; its seeds are ACTIVE.

const halfOfHash = "85070591730234615865843651857942052864" // the middle of shard 0 of 2

// structural are the calls that need the stream to be ACTIVE.
var structural = map[string]m{
	"SplitShard":                    {"StreamName": "<S>", "ShardToSplit": "0", "NewStartingHashKey": halfOfHash},
	"MergeShards":                   {"StreamName": "<S>", "ShardToMerge": "0", "AdjacentShardToMerge": "1"},
	"UpdateShardCount":              {"StreamName": "<S>", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"},
	"IncreaseStreamRetentionPeriod": {"StreamName": "<S>", "RetentionPeriodHours": 48},
	"DecreaseStreamRetentionPeriod": {"StreamName": "<S>", "RetentionPeriodHours": 24},
	"UpdateStreamMode":              {"StreamARN": "<ARN>", "StreamModeDetails": m{"StreamMode": "ON_DEMAND"}},
	"UpdateMaxRecordSize":           {"StreamARN": "<ARN>", "MaxRecordSizeInKiB": 2048},
	"EnableEnhancedMonitoring":      {"StreamName": "<S>", "ShardLevelMetrics": list{"ALL"}},
	"DisableEnhancedMonitoring":     {"StreamName": "<S>", "ShardLevelMetrics": list{"ALL"}},
	"StartStreamEncryption":         {"StreamName": "<S>", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"},
	"StopStreamEncryption":          {"StreamName": "<S>", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"},
	"RegisterStreamConsumer":        {"StreamARN": "<ARN>", "ConsumerName": "c"},
}

// tagging are the calls that need the stream to have been created.
var tagging = map[string]m{
	"AddTagsToStream":      {"StreamName": "<S>", "Tags": m{"a": "b"}},
	"RemoveTagsFromStream": {"StreamName": "<S>", "TagKeys": list{"a"}},
	"TagResource":          {"ResourceARN": "<ARN>", "Tags": m{"a": "b"}},
	"UntagResource":        {"ResourceARN": "<ARN>", "TagKeys": list{"a"}},
}

// creating makes the row's stream CREATING.
func (c *caller) creating() {
	c.Helper()
	c.empty("CreateStream", m{"StreamName": "<S>", "ShardCount": 2})
}

// updating makes a seed the row's stream, and lets it be split: it is UPDATING.
func (c *caller) updating() {
	c.Helper()
	c.s = c.node.seed(c.T)
	c.empty("SplitShard", structural["SplitShard"])
}

// deleting makes a seed the row's stream, and deletes it.
func (c *caller) deleting() {
	c.Helper()
	c.s = c.node.seed(c.T)
	c.empty("DeleteStream", m{"StreamName": "<S>"})
}

func (c *caller) allRefused(calls map[string]m, state string) {
	c.Helper()
	for op, in := range calls {
		c.refused(op, in, resourceInUse, "Stream <S> under account <A> not ACTIVE, instead in state "+state)
	}
}

var stateRows = []row{
	{"3.2 CREATING/allowed", func(c *caller) {
		c.creating()
		c.want("description", some{"StreamStatus": "CREATING", "Shards": list{}, "HasMoreShards": false},
			c.ok("DescribeStream", m{"StreamName": "<S>"})["StreamDescription"])
		c.want("summary", some{"StreamStatus": "CREATING"}, c.summary())
		c.gives("ListTagsForStream", m{"StreamName": "<S>"}, m{"Tags": list{}, "HasMoreTags": false})
		c.gives("ListTagsForResource", m{"ResourceARN": "<ARN>"}, m{"Tags": list{}})
		before := c.s[:len(c.s)-1]
		c.want("summaries", some{"StreamName": "<S>", "StreamStatus": "CREATING"},
			c.ok("ListStreams", m{"ExclusiveStartStreamName": before, "Limit": 1})["StreamSummaries"].(list)[0])
		c.empty("DeleteStream", m{"StreamName": "<S>"})
	}},
	{"3.2 CREATING/puts", func(c *caller) {
		c.creating()
		c.refused("PutRecord", m{"StreamName": "<S>", "PartitionKey": "k", "Data": []byte("x")}, notFound, "Stream <S> under account <A> not found.")
		c.refused("PutRecords", m{"StreamName": "<S>", "Records": list{m{"PartitionKey": "k", "Data": []byte("x")}}}, notFound, "Stream <S> under account <A> not found.")
	}},
	{"3.2 CREATING/GetShardIterator", func(c *caller) {
		c.creating()
		c.refused("GetShardIterator", m{"StreamName": "<S>", "ShardId": "1", "ShardIteratorType": "LATEST"}, notFound,
			"Shard shardId-000000000001 in stream <S> under account <A> does not exist")
	}},
	{"3.2 CREATING/ListShards", func(c *caller) {
		c.creating()
		c.refused("ListShards", m{"StreamName": "<S>"}, resourceInUse, "Stream <S> under account <A> not ACTIVE, instead in state CREATING")
	}},
	{"3.2 CREATING/ListStreamConsumers", func(c *caller) {
		c.creating()
		c.refused("ListStreamConsumers", m{"StreamARN": "<ARN>"}, resourceInUse, "Stream <S> under account <A> not ACTIVE, instead in state CREATING")
	}},
	{"3.2 CREATING/structural changes", func(c *caller) {
		c.creating()
		c.allRefused(structural, "CREATING")
	}},
	{"3.2 CREATING/tag updates", func(c *caller) {
		c.creating()
		c.allRefused(tagging, "CREATING")
	}},
	{"3.2 UPDATING/reads, writes and lists", func(c *caller) {
		c.updating()
		c.want("summary", some{"StreamStatus": "UPDATING", "OpenShardCount": 2}, c.summary())
		c.is(2, c.ok("DescribeStream", m{"StreamName": "<S>"})["StreamDescription"].(m))
		c.is(2, c.ok("ListShards", m{"StreamName": "<S>"}))
		at := c.iterator("0", "LATEST")
		out := c.ok("PutRecord", m{"StreamName": "<S>", "PartitionKey": "k", "ExplicitHashKey": "0", "Data": []byte("x")})
		c.want("put", some{"ShardId": shardID(0)}, out)
		if got := c.data(c.read(at)); got != "x" {
			c.Errorf("read %q", got)
		}
		c.ok("ListTagsForStream", m{"StreamName": "<S>"})
	}},
	{"3.2 UPDATING/structural changes", func(c *caller) {
		c.updating()
		c.allRefused(structural, "UPDATING")
	}},
	{"3.2 UPDATING/DeleteStream", func(c *caller) {
		c.updating()
		c.empty("DeleteStream", m{"StreamName": "<S>"})
		c.want("summary", some{"StreamStatus": "DELETING"}, c.summary())
	}},
	{"3.2 UPDATING/tag updates", func(c *caller) {
		c.updating()
		for _, op := range []string{"AddTagsToStream", "TagResource", "RemoveTagsFromStream", "UntagResource"} {
			c.empty(op, maps.Clone(tagging[op]))
		}
	}},
	{"3.2 DELETING/allowed", func(c *caller) {
		c.deleting()
		c.want("description", some{"StreamStatus": "DELETING"}, c.ok("DescribeStream", m{"StreamName": "<S>"})["StreamDescription"])
		c.want("summary", some{"StreamStatus": "DELETING"}, c.summary())
		c.empty("DeleteStream", m{"StreamName": "<S>"}) // again
	}},
	{"3.2 DELETING/structural changes", func(c *caller) {
		c.deleting()
		c.allRefused(structural, "DELETING")
	}},
	{"3.2 DELETING/the name is not free", func(c *caller) {
		c.deleting()
		c.refused("CreateStream", m{"StreamName": "<S>", "ShardCount": 1}, resourceInUse, "Stream <S> under account <A> already exists.")
	}},
	{"3.2 DELETING/deleted while CREATING", func(c *caller) {
		c.creating()
		c.empty("DeleteStream", m{"StreamName": "<S>"})
		c.want("description", some{"StreamStatus": "DELETING", "Shards": list{}, "HasMoreShards": false},
			c.ok("DescribeStream", m{"StreamName": "<S>"})["StreamDescription"])
	}},
}

// goneRows are about streams whose deletion has ended.
var goneRows = []row{
	{"3.2 DELETING/gone, and the name is free", func(c *caller) {
		c.create(2)
		c.put("k", "old")
		old := c.iterator("0", "TRIM_HORIZON")
		c.empty("DeleteStream", m{"StreamName": "<S>"})
		c.gone()
		for op, in := range streamCalls() {
			if op != "GetShardIterator" {
				c.refused(op, with(in, "StreamName", "<S>"), notFound, "Stream <S> under account <A> not found.")
			}
		}
		c.refused("GetRecords", m{"ShardIterator": old}, notFound, "Shard shardId-000000000000 in stream <S> under account <A> does not exist")
		c.create(1)
		if got := c.data(c.read(c.iterator("0", "TRIM_HORIZON"))); got != "" {
			c.Errorf("the new stream has %q", got)
		}
	}},
	{"3.2 ACTIVE/after each change", func(c *caller) {
		c.create(2)
		for _, op := range []string{
			"SplitShard", "IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod", "EnableEnhancedMonitoring",
			"DisableEnhancedMonitoring", "UpdateMaxRecordSize", "StartStreamEncryption", "StopStreamEncryption", "UpdateShardCount", "UpdateStreamMode",
		} {
			if a := c.call(op, structural[op]); a.status != 200 {
				c.Errorf("%s: %d %s", op, a.status, a.raw)
			}
			c.active()
		}
	}},
}
