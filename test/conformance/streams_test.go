package conformance

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Section 3.3: the life of streams.

var streamRows = []row{
	{"3.3 CreateStream/only a name", func(c *caller) {
		c.empty("CreateStream", m{"StreamName": "<S>"})
		c.active()
		c.want("summary", some{"StreamModeDetails": m{"StreamMode": "ON_DEMAND"}, "OpenShardCount": 4}, c.summary())
	}},
	{"3.3 CreateStream/a count and no mode", func(c *caller) {
		c.create(3)
		c.want("summary", some{"StreamModeDetails": m{"StreamMode": "PROVISIONED"}, "OpenShardCount": 3}, c.summary())
	}},
	{"3.3 CreateStream/ON_DEMAND has 4 shards", func(c *caller) {
		c.empty("CreateStream", m{"StreamName": "<S>", "StreamModeDetails": m{"StreamMode": "ON_DEMAND"}})
		c.active()
		c.want("summary", some{"StreamModeDetails": m{"StreamMode": "ON_DEMAND"}, "OpenShardCount": 4}, c.summary())
	}},
	{"3.3 CreateStream/ON_DEMAND and a count", func(c *caller) {
		c.refused("CreateStream", m{"StreamName": "<S>", "StreamModeDetails": m{"StreamMode": "ON_DEMAND"}, "ShardCount": 1}, invalidArgument,
			"ShardCount is not expected for StreamMode=ON_DEMAND")
	}},
	{"3.3 CreateStream/PROVISIONED without a count", func(c *caller) {
		c.refused("CreateStream", m{"StreamName": "<S>", "StreamModeDetails": m{"StreamMode": "PROVISIONED"}}, invalidArgument,
			"ShardCount is a required field for StreamMode=PROVISIONED")
	}},
	{"3.3 CreateStream/exists", func(c *caller) {
		c.create(1)
		c.refused("CreateStream", m{"StreamName": "<S>", "ShardCount": 1}, resourceInUse, "Stream <S> under account <A> already exists.")
		c.refused("CreateStream", m{"StreamName": "<S>"}, resourceInUse, "Stream <S> under account <A> already exists.")
	}},
	{"3.3 CreateStream/times", func(c *caller) {
		before := time.Now().Unix()
		c.create(2)
		created, _ := instant(c.summary()["StreamCreationTimestamp"])
		if at := int64(created) / 1000; at < before || at > time.Now().Unix() {
			c.Errorf("created at %v", created)
		}
		for i, s := range c.shards() {
			n := parseSequence(c.T, s["SequenceNumberRange"].(m)["StartingSequenceNumber"].(string))
			if n.shard != int64(i) || n.counter != 0 || n.arrival != n.created || n.created > int64(created)/1000 || n.created < int64(created)/1000-7 {
				c.Errorf("shard %d of a stream created at %v starts at %+v", i, created, n)
			}
		}
	}},
	{"3.3 CreateStream/tags and record size", func(c *caller) {
		c.create(1, m{"Tags": m{"k": "v"}, "MaxRecordSizeInKiB": 2048})
		c.want("summary", some{"MaxRecordSizeInKiB": 2048}, c.summary())
		c.gives("ListTagsForStream", m{"StreamName": "<S>"}, m{"Tags": list{m{"Key": "k", "Value": "v"}}, "HasMoreTags": false})
		tags, _ := manyTags(51)
		c.refused("CreateStream", m{"StreamName": "<S>-b", "ShardCount": 1, "Tags": tags}, invalidArgument,
			"Failed to add tags to stream <S>-b under account <A> because a given stream cannot have more than 10 tags associated with it.")
	}},
	{"3.3 CreateStream/tags with invalid characters", func(c *caller) {
		c.refused("CreateStream", m{"StreamName": "<S>", "ShardCount": 1, "Tags": m{"a;": "b"}}, invalidArgument, invalidTags)
		c.refused("CreateStream", m{"StreamName": "<S>", "ShardCount": 1, "Tags": m{"a": "%"}}, invalidArgument, tagsNotAdded)
		c.refused("DescribeStream", m{"StreamName": "<S>"}, notFound, "Stream <S> under account <A> not found.")
	}},
	{"3.3 CreateStream/warm throughput", func(c *caller) {
		c.refused("CreateStream", m{"StreamName": "<S>", "ShardCount": 1, "WarmThroughputMiBps": 1}, validation,
			"Warm throughput is not available for stream <S> under account <A>.")
		c.create(1, m{"WarmThroughputMiBps": 0})
	}},

	{"3.3 DescribeStream/shape", func(c *caller) {
		c.create(1)
		c.gives("DescribeStream", m{"StreamName": "<S>"}, m{"StreamDescription": m{
			"StreamName": "<S>", "StreamARN": "<ARN>", "StreamStatus": "ACTIVE", "StreamModeDetails": m{"StreamMode": "PROVISIONED"},
			"Shards": list{m{
				"ShardId": shardID(0), "HashKeyRange": m{"StartingHashKey": "0", "EndingHashKey": maxHash},
				"SequenceNumberRange": m{"StartingSequenceNumber": aSequence},
			}},
			"HasMoreShards": false, "RetentionPeriodHours": 24, "StreamCreationTimestamp": aTime,
			"EnhancedMonitoring": list{m{"ShardLevelMetrics": list{}}}, "EncryptionType": "NONE",
		}})
	}},
	{"3.3 DescribeStream/pages", func(c *caller) {
		c.create(5)
		page := func(in m, more bool, want ...int) {
			c.Helper()
			d := c.ok("DescribeStream", with(in, "StreamName", "<S>"))["StreamDescription"].(m)
			if got := numbers(d["Shards"]); !slices.Equal(got, want) || d["HasMoreShards"] != more {
				c.Errorf("%v: shards %v, more %v; not %v, %v", in, got, d["HasMoreShards"], want, more)
			}
		}
		page(m{"Limit": 2}, true, 0, 1)
		page(m{"Limit": 2, "ExclusiveStartShardId": shardID(1)}, true, 2, 3)
		page(m{"Limit": 2, "ExclusiveStartShardId": shardID(3)}, false, 4)
		page(m{"Limit": 5}, false, 0, 1, 2, 3, 4)
		page(m{"ExclusiveStartShardId": shardID(77)}, false)
		page(m{"Limit": 10000}, false, 0, 1, 2, 3, 4)
	}},
	{"3.3 DescribeStream/at most 100 shards", func(c *caller) {
		c.create(101)
		for _, in := range []m{{"StreamName": "<S>"}, {"StreamName": "<S>", "Limit": 10000}} {
			d := c.ok("DescribeStream", in)["StreamDescription"].(m)
			if c.is(100, d); d["HasMoreShards"] != true {
				c.Errorf("HasMoreShards %v", d["HasMoreShards"])
			}
		}
	}},
	{"3.3 DescribeStreamSummary/shape", func(c *caller) {
		c.create(3)
		c.gives("DescribeStreamSummary", m{"StreamName": "<S>"}, m{"StreamDescriptionSummary": m{
			"StreamName": "<S>", "StreamARN": "<ARN>", "StreamStatus": "ACTIVE", "StreamModeDetails": m{"StreamMode": "PROVISIONED"},
			"RetentionPeriodHours": 24, "StreamCreationTimestamp": aTime, "EnhancedMonitoring": list{m{"ShardLevelMetrics": list{}}},
			"EncryptionType": "NONE", "OpenShardCount": 3, "ConsumerCount": 0, "MaxRecordSizeInKiB": 1024,
		}})
	}},

	{"3.3 DeleteStream/in CREATING", func(c *caller) {
		c.empty("CreateStream", m{"StreamName": "<S>", "ShardCount": 1})
		c.empty("DeleteStream", m{"StreamARN": "<ARN>"})
		c.gone()
	}},
	{"3.3 DeleteStream/consumers", func(c *caller) {
		c.create(1)
		c.ok("RegisterStreamConsumer", m{"StreamARN": "<ARN>", "ConsumerName": "c"})
		text := "DeleteStream can’t delete <A>:<S> because there are consumers associated with this data stream. To delete <S> anyway, set the EnforceConsumerDeletion parameter to true to force the deletion of all the consumers that are associated with it."
		c.refused("DeleteStream", m{"StreamName": "<S>"}, resourceInUse, text)
		c.refused("DeleteStream", m{"StreamName": "<S>", "EnforceConsumerDeletion": false}, resourceInUse, text)
		c.empty("DeleteStream", m{"StreamName": "<S>", "EnforceConsumerDeletion": true})
		c.gone()
	}},

	{"3.3 retention/bounds", func(c *caller) {
		c.create(1)
		const short, long = "Minimum allowed retention period is 24 hours. Requested retention period (%d hours) is too short.",
			"Maximum allowed retention period is 8760 hours. Requested retention period (%d hours) is too long."
		for _, op := range []string{"IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod"} {
			for _, n := range []int{23, 0, -5} {
				c.refused(op, hours(n), invalidArgument, fmt.Sprintf(short, n))
			}
			c.refused(op, hours(8761), invalidArgument, fmt.Sprintf(long, 8761))
		}
		c.empty("IncreaseStreamRetentionPeriod", hours(8760))
	}},
	{"3.3 retention/the other operation", func(c *caller) {
		c.create(1)
		c.empty("IncreaseStreamRetentionPeriod", hours(48))
		c.active()
		c.refused("IncreaseStreamRetentionPeriod", hours(47), invalidArgument,
			"Requested retention period (47 hours) for stream <S> can not be shorter than existing retention period (48 hours). Use DecreaseRetentionPeriod API.")
		c.refused("DecreaseStreamRetentionPeriod", hours(49), invalidArgument,
			"Requested retention period (49 hours) for stream <S> can not be longer than existing retention period (48 hours). Use IncreaseRetentionPeriod API.")
		c.empty("DecreaseStreamRetentionPeriod", hours(24))
		c.active()
		c.want("summary", some{"RetentionPeriodHours": 24}, c.summary())
	}},
	{"3.3 retention/equal to current", func(c *caller) {
		c.create(1)
		c.empty("IncreaseStreamRetentionPeriod", hours(24))
		c.active()
		c.empty("DecreaseStreamRetentionPeriod", hours(24))
		c.active()
		c.want("summary", some{"RetentionPeriodHours": 24}, c.summary())
	}},
}

const maxHash = "340282366920938463463374607431768211455"

func hours(n int) m { return m{"StreamName": "<S>", "RetentionPeriodHours": n} }

// numbers gives the numbers of a list of shards.
func numbers(shards any) (ns []int) {
	for _, s := range shards.(list) {
		var n int
		fmt.Sscanf(s.(m)["ShardId"].(string), "shardId-%d", &n) //nolint:errcheck // 0 shows
		ns = append(ns, n)
	}
	return ns
}

// accountRows see all streams of the account, one row after the other.
var accountRows = []row{
	{"3.3 ListStreams/pages", func(c *caller) {
		c.clean()
		var all []string
		for i := range 3 {
			all = append(all, fmt.Sprintf("list-%d", i))
			c.s = all[i]
			c.create(1)
		}
		out := c.gives("ListStreams", m{"Limit": 2}, m{
			"StreamNames": list{all[0], all[1]}, "HasMoreStreams": true, "NextToken": someText,
			"StreamSummaries": list{summaryOf(all[0]), summaryOf(all[1])},
		})
		c.gives("ListStreams", m{"Limit": 2, "NextToken": out["NextToken"]}, m{
			"StreamNames": list{all[2]}, "HasMoreStreams": false, "StreamSummaries": list{summaryOf(all[2])},
		})
		c.gives("ListStreams", m{"Limit": 10000}, some{"StreamNames": list{all[0], all[1], all[2]}, "HasMoreStreams": false})
	}},
	{"3.3 ListStreams/ExclusiveStartStreamName need not exist", func(c *caller) {
		c.clean()
		for _, c.s = range []string{"B", "a", "a.b", "b"} {
			c.create(1)
		}
		for after, want := range map[string]list{"A": {"B", "a", "a.b", "b"}, "B": {"a", "a.b", "b"}, "a": {"a.b", "b"}, "a-": {"a.b", "b"}, "b": {}, "zz": {}} {
			c.gives("ListStreams", m{"ExclusiveStartStreamName": after}, some{"StreamNames": want, "HasMoreStreams": false})
		}
	}},
	{"3.3 ListStreams/no streams", func(c *caller) {
		c.clean()
		c.gives("ListStreams", m{}, m{"StreamNames": list{}, "HasMoreStreams": false, "StreamSummaries": list{}})
	}},
	{"3.3 ListStreams/at most 100", func(c *caller) {
		c.clean()
		for i := range 101 {
			c.s = fmt.Sprintf("many-%03d", i)
			c.empty("CreateStream", m{"StreamName": "<S>", "ShardCount": 1})
		}
		for _, in := range []m{{}, {"Limit": 10000}} {
			out := c.ok("ListStreams", in)
			if got := len(out["StreamNames"].(list)); got != 100 || out["HasMoreStreams"] != true || out["NextToken"] == nil {
				c.Errorf("%v: %d streams, more %v", in, got, out["HasMoreStreams"])
			}
		}
	}},
	{"3.3 DescribeLimits/shape", func(c *caller) {
		c.clean()
		before := m{"ShardLimit": atLeast(200), "OpenShardCount": 0, "OnDemandStreamCount": 0, "OnDemandStreamCountLimit": atLeast(50)}
		c.gives("DescribeLimits", m{}, before)
		c.create(3)
		c.s += "-b"
		c.empty("CreateStream", m{"StreamName": "<S>"})
		c.active()
		c.gives("DescribeLimits", m{}, some{"OpenShardCount": 7, "OnDemandStreamCount": 1})
	}},
	{"3.3 DescribeLimits/counts open shards", func(c *caller) {
		c.clean()
		c.create(3)
		c.split(0)
		c.merge(1, 2)
		c.gives("DescribeLimits", m{}, some{"OpenShardCount": 3})
		c.empty("DeleteStream", m{"StreamName": "<S>"})
		c.gone()
		c.gives("DescribeLimits", m{}, some{"OpenShardCount": 0})
	}},
	{"3.3 CreateStream/shard quota", func(c *caller) {
		c.clean()
		c.create(2)
		limit, _ := integer(c.ok("DescribeLimits", m{})["ShardLimit"])
		if limit > 100_000 {
			c.Skipf("a stream of the most shards does not exceed the limit of %d", limit)
		}
		c.refused("CreateStream", m{"StreamName": "<S>-b", "ShardCount": int(limit)}, limitExceeded, fmt.Sprintf(
			"This request would exceed the shard limit for the account <A> in <R>. Current shard count for the account: 2. Limit: %d. Number of additional shards that would have resulted from this request: %d. Refer to the AWS Service Limits page (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to request higher limits.",
			limit, limit))
	}},
}

func summaryOf(name string) m {
	return m{
		"StreamName": name, "StreamARN": "arn:aws:kinesis:<R>:<A>:stream/" + name, "StreamStatus": "ACTIVE",
		"StreamModeDetails": m{"StreamMode": "PROVISIONED"}, "StreamCreationTimestamp": aTime,
	}
}

// clean deletes all streams.
func (c *caller) clean() {
	c.Helper()
	c.eventually(func() error {
		names := c.ok("ListStreams", m{})["StreamNames"].(list)
		for _, name := range names {
			c.call("DeleteStream", m{"StreamName": name, "EnforceConsumerDeletion": true})
		}
		if len(names) > 0 {
			return fmt.Errorf("there are still %d streams, %v first", len(names), names[0])
		}
		return nil
	})
	c.s = strings.ReplaceAll(c.s, "<", "")
}
