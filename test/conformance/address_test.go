package conformance

import (
	"strings"
	"time"
)

// Section 3.1: how calls name streams and shards, and the texts that all
// operations have in common.

// streamCalls are the operations that take a StreamName or a StreamARN, with the
// members that a call needs beside it.
func streamCalls() map[string]m {
	calls := map[string]m{}
	for _, op := range operations {
		if !strings.Contains(" "+op.members+" ", " StreamName ") {
			continue
		}
		in := m{}
		for _, f := range fields(op.members) {
			if f.required {
				in[f.name] = f.shape.valid
			}
		}
		calls[op.name] = in
	}
	return calls
}

var addressRows = []row{
	{"3.1 addressing/by name, by ARN, by both", func(c *caller) {
		c.create(1)
		for _, address := range []m{{"StreamName": "<S>"}, {"StreamARN": "<ARN>"}, {"StreamName": "<S>", "StreamARN": "<ARN>"}} {
			got := c.ok("DescribeStreamSummary", address)["StreamDescriptionSummary"]
			c.want("summary", some{"StreamName": "<S>", "StreamARN": "<ARN>", "StreamStatus": "ACTIVE"}, got)
			c.is(1, c.ok("ListShards", address))
			in := with(address, "PartitionKey", "k")
			in["Data"] = []byte("x")
			c.ok("PutRecord", in)
		}
	}},
	{"3.1 addressing/region and partition of an ARN are the client's", func(c *caller) {
		c.create(1)
		arn := "arn:aws-cn:kinesis:cn-north-1:<A>:stream/<S>"
		c.want("summary", some{"StreamName": "<S>"}, c.ok("DescribeStreamSummary", m{"StreamARN": arn})["StreamDescriptionSummary"])
	}},
	{"3.1 addressing/ARNs in answers are of the client's region", func(c *caller) {
		c.create(1)
		for want, headers := range map[string][]string{
			"eu-west-2": {"Authorization", strings.ReplaceAll(signature, "us-east-1", "eu-west-2")},
			"us-east-1": nil,
		} {
			a := c.send("POST", target+"DescribeStreamSummary", c.format.contentType, c.format.encode(m{"StreamName": c.s}), headers...)
			body, err := c.format.decode(a.raw)
			if err != nil {
				c.Fatal(err)
			}
			c.want("summary", m{"StreamDescriptionSummary": some{"StreamARN": "arn:aws:kinesis:" + want + ":<A>:stream/<S>"}}, body)
		}
	}},
	{"3.1 addressing/an ARN that the pattern takes and that is none", func(c *caller) {
		const arn = "arn:aws:kinesis:x:y:000000000000:stream/s"
		text := "The ARN " + arn + " does not name a resource of this account and region."
		c.refused("DescribeStream", m{"StreamARN": arn}, invalidArgument, text)
		c.refused("TagResource", m{"ResourceARN": arn, "Tags": m{"a": "b"}}, invalidArgument, text)
		c.refused("DescribeStreamConsumer", m{"StreamARN": arn, "ConsumerName": "c"}, invalidArgument, text)
		const consumer = arn + "/consumer/c:1700000000"
		text = "The ARN " + consumer + " does not name a resource of this account and region."
		c.refused("DescribeStreamConsumer", m{"ConsumerARN": consumer}, invalidArgument, text)
		c.refused("SubscribeToShard", position(consumer, "0", "LATEST", nil), invalidArgument, text)
	}},
	{"3.1 addressing/neither", func(c *caller) {
		for op, in := range streamCalls() {
			if op == "ListShards" { // 3.4 has its text
				continue
			}
			c.refused(op, in, validation, "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null")
		}
	}},
	{"3.1 addressing/conflict", func(c *caller) {
		c.create(1)
		c.refused("DescribeStream", m{"StreamName": "other", "StreamARN": "<ARN>"}, invalidArgument, "StreamName other does not match the stream in StreamARN <ARN>.")
	}},
	{"3.1 not found/by name and by ARN the text has the name", func(c *caller) {
		for op, in := range streamCalls() {
			text := "Stream <S> under account <A> not found."
			if op == "GetShardIterator" {
				text = "Shard shardId-000000000000 in stream <S> under account <A> does not exist"
			}
			c.refused(op, with(in, "StreamName", "<S>"), notFound, text)
			c.refused(op, with(in, "StreamARN", "<ARN>"), notFound, text)
		}
	}},
	{"3.1 not found/another account", func(c *caller) {
		c.create(1)
		c.refused("DescribeStream", m{"StreamARN": "arn:aws:kinesis:<R>:111111111111:stream/<S>"}, notFound, "Stream <S> under account 111111111111 not found.")
	}},
	{"3.1 order/shard id, stream, shard, arguments", func(c *caller) {
		split := func(shard string) m {
			return m{"StreamName": "<S>", "ShardToSplit": shard, "NewStartingHashKey": "0"}
		}
		c.refused("SplitShard", split("x"), notFound, "Could not find shard x in stream <S> under account <A>.")
		c.refused("SplitShard", split("7"), notFound, "Stream <S> under account <A> not found.")
		c.create(1)
		c.refused("SplitShard", split("7"), notFound, "Could not find shard shardId-000000000007 in stream <S> under account <A>.")
		c.refused("SplitShard", split("0"), invalidArgument,
			"NewStartingHashKey 0 used in SplitShard() on shard shardId-000000000000 in stream <S> under account <A> is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's EndingHashKey 340282366920938463463374607431768211455.")
		merge := func(a, b string) m {
			return m{"StreamName": "<S>", "ShardToMerge": a, "AdjacentShardToMerge": b}
		}
		c.refused("MergeShards", merge("0", "x"), notFound, "Could not find shard x in stream <S> under account <A>.")
		c.refused("MergeShards", merge("x", "y"), notFound, "Could not find shard x in stream <S> under account <A>.")
		c.refused("MergeShards", merge("5", "6"), notFound, "Could not find shard shardId-000000000005 in stream <S> under account <A>.")
	}},
	{"3.1 shard ids/read leniently", func(c *caller) {
		c.create(2)
		for _, id := range []string{"shardId-000000000001", "shardId-1", "1", "foo-1", "a-00000000001", "shardId-00000000000000000000001"} {
			c.ok("GetShardIterator", m{"StreamName": "<S>", "ShardId": id, "ShardIteratorType": "LATEST"})
		}
		for _, id := range []string{"shardId-x", "x", "shardId-", "shardId-1-1", "shardId-2147483648", "shardId--1", "shardId-1.0", "99999999999999999999"} {
			c.refused("GetShardIterator", m{"StreamName": "<S>", "ShardId": id, "ShardIteratorType": "LATEST"}, notFound,
				"Could not find shard "+id+" in stream <S> under account <A>.")
		}
		c.refused("GetShardIterator", m{"StreamName": "<S>", "ShardId": "foo-2147483647", "ShardIteratorType": "LATEST"}, notFound,
			"Shard shardId-002147483647 in stream <S> under account <A> does not exist")
	}},
	{"3.1 shard ids/ExclusiveStartShardId", func(c *caller) {
		c.create(2)
		for _, op := range []string{"ListShards", "DescribeStream"} {
			c.ok(op, m{"StreamName": "<S>", "ExclusiveStartShardId": "shardid-000000000000"})
			c.refused(op, m{"StreamName": "<S>", "ExclusiveStartShardId": "x"}, notFound, "Could not find shard x in stream <S> under account <A>.")
		}
	}},
	{"3.1 tokens/not ours", func(c *caller) {
		c.create(2)
		iterator := c.iterator("0", "LATEST")
		for _, token := range []string{"x", "AAAAAAAAAAE=", iterator} {
			c.refused("ListShards", m{"NextToken": token}, invalidArgument, "Invalid NextToken.")
			c.refused("ListStreams", m{"NextToken": token}, invalidArgument, "Invalid NextToken.")
		}
		shards := c.ok("ListShards", m{"StreamName": "<S>", "MaxResults": 1})["NextToken"].(string)
		c.refused("ListStreams", m{"NextToken": shards}, invalidArgument, "Invalid NextToken.")
		c.refused("ListShards", m{"NextToken": shards[:len(shards)-8] + "AAAAAAA="}, invalidArgument, "Invalid NextToken.")
	}},
	{"3.1 throttled/Date is always sent", func(c *caller) {
		// callRaw looks for it in every answer; here it is now.
		a := c.call("DescribeLimits", m{})
		at, err := time.Parse(time.RFC1123, a.header.Get("Date"))
		if err != nil || time.Since(at).Abs() > time.Hour {
			c.Errorf("Date %q, %v", a.header.Get("Date"), err)
		}
	}},
}
