package conformance

import (
	"fmt"
	"strings"
)

// The limits of 3.1, 4.2, 4.5, 5.1, 5.3 and 7.2, on nodes that impose AWS's.

var (
	// metered holds shards to their throughput.
	metered = &node{name: "metered", args: []string{"--transition-delay", "0s", "--shard-limits", "aws"}}
	// limited holds the account to its calls and quotas. Its clients try again
	// what only came too fast.
	limited = &node{name: "limited", patient: true, args: []string{"--transition-delay", "0s", "--account-limits", "aws"}}
	// withCommitment does too, for an account with a commitment.
	withCommitment = &node{name: "committed", patient: true, args: []string{"--transition-delay", "0s", "--account-limits", "aws"}}
	// crowded does too, and its transitions take a minute.
	crowded = &node{name: "crowded", patient: true, args: append([]string{"--transition-delay", "1m", "--account-limits", "aws"}, seedArgs()...)}
)

// tooFast reports whether a call was refused for coming too fast.
func tooFast(a answer) bool {
	message, _ := a.body["message"].(string)
	return a.body["__type"] == limitExceeded && strings.HasPrefix(message, "Rate exceeded for ")
}

// exceed makes calls until one is refused, and gives that answer.
func (c *caller) exceed(op string, in m) (refused answer) {
	c.Helper()
	c.impatient = true
	c.eventually(func() error {
		for range 25 {
			if refused = c.call(op, in); refused.status != 200 {
				return nil
			}
		}
		return fmt.Errorf("%s is never refused", op)
	})
	c.impatient = false
	return refused
}

const (
	throughputExceeded = "ProvisionedThroughputExceededException"
	shardRate          = "Rate exceeded for shard shardId-000000000000 in stream <S> under account <A>."
	streamRate         = "Rate exceeded for stream <S> under account <A>."
)

var meteredRows = []row{
	{"4.2 shard write/records a second", func(c *caller) {
		c.create(1)
		one := repeated(300, m{"PartitionKey": "k", "Data": []byte("x")})
		failed := m{"ErrorCode": throughputExceeded, "ErrorMessage": shardRate}
		c.eventually(func() error {
			out := c.ok("PutRecords", m{"StreamName": "<S>", "Records": one})
			n, _ := integer(out["FailedRecordCount"])
			records := out["Records"].(list)
			if len(records) != len(one) {
				c.Fatalf("%d results of %d", len(records), len(one))
			}
			// What is within the limit is stored; the rest says why not.
			for i, r := range records {
				want := m{"ShardId": shardID(0), "SequenceNumber": aSequence}
				if i >= len(one)-int(n) {
					want = failed
				}
				c.want(fmt.Sprintf("result %d of %d failed", i, n), want, r)
			}
			if n == 0 || n == int64(len(one)) {
				return fmt.Errorf("%d records failed", n)
			}
			return nil
		})
	}},
	{"4.2 shard write/bytes a second", func(c *caller) {
		c.create(1, m{"MaxRecordSizeInKiB": 10240})
		a := c.exceed("PutRecord", putIn("k", make([]byte, 9<<20), nil))
		c.refusal("PutRecord", a, throughputExceeded, shardRate)
	}},
	{"4.5 results/all failed is 200", func(c *caller) {
		c.create(1)
		large := repeated(5, m{"PartitionKey": "k", "Data": make([]byte, 1<<20-1)})
		c.eventually(func() error {
			out := c.ok("PutRecords", m{"StreamName": "<S>", "Records": large})
			if n, _ := integer(out["FailedRecordCount"]); n != 5 {
				return fmt.Errorf("%d records failed", n)
			}
			c.want("results", repeated(5, m{"ErrorCode": throughputExceeded, "ErrorMessage": shardRate}), out["Records"])
			return nil
		})
	}},
	{"5.1 GetShardIterator/rate", func(c *caller) {
		c.create(1)
		c.refusal("GetShardIterator", c.exceed("GetShardIterator", at("LATEST", nil)), throughputExceeded, shardRate)
	}},
	{"5.3 GetRecords/calls a second", func(c *caller) {
		c.create(1)
		a := c.exceed("GetRecords", m{"ShardIterator": c.iterator("0", "LATEST")})
		c.want("GetRecords", m{"__type": throughputExceeded, "message": like(c.text(
			`Rate exceeded for shard shardId-000000000000 in stream <S> under account <A>\.|Rate exceeded for Shard - <A>/<S>/shardId-000000000000`))}, a.body)
	}},
	{"5.3 GetRecords/bytes a second", func(c *caller) {
		c.create(1, m{"MaxRecordSizeInKiB": 10240})
		c.put("k", strings.Repeat("x", 9<<20))
		token := c.iterator("0", "TRIM_HORIZON")
		// 9 MiB are more than four seconds' worth: what comes next is refused.
		c.refusal("GetRecords", c.exceed("GetRecords", m{"ShardIterator": token}), throughputExceeded, shardRate)
	}},
}

var limitedRows = []row{
	{"3.1 throttled/calls about the account", func(c *caller) {
		c.refusal("DescribeLimits", c.exceed("DescribeLimits", m{}), limitExceeded, "Rate exceeded for account <A>.")
	}},
	{"3.1 throttled/calls about a stream", func(c *caller) {
		c.create(1)
		c.refusal("ListStreamConsumers", c.exceed("ListStreamConsumers", m{"StreamARN": "<ARN>"}), limitExceeded, streamRate)
		c.refusal("ListTagsForStream", c.exceed("ListTagsForStream", m{"StreamName": "<S>"}), limitExceeded, streamRate)
	}},
	{"3.3 UpdateStreamMode/twice in 24 hours", func(c *caller) {
		c.create(1)
		for _, mode := range []string{"ON_DEMAND", "PROVISIONED"} {
			c.empty("UpdateStreamMode", m{"StreamARN": "<ARN>", "StreamModeDetails": m{"StreamMode": mode}})
			c.active()
		}
		c.refused("UpdateStreamMode", m{"StreamARN": "<ARN>", "StreamModeDetails": m{"StreamMode": "ON_DEMAND"}}, limitExceeded,
			"Stream <S> under account <A> can switch its mode only 2 times in 24 hours.")
	}},
	{"6.3 UpdateShardCount/ten times in 24 hours", func(c *caller) {
		c.create(1)
		for i := range 10 {
			c.ok("UpdateShardCount", scaled(2-i%2))
			c.active()
		}
		c.refused("UpdateShardCount", scaled(2), limitExceeded, "Stream <S> under account <A> can be scaled only 10 times in 24 hours.")
	}},
	{"3.6 encryption/25 starts and stops in 24 hours", func(c *caller) {
		c.create(1)
		for range 25 {
			c.empty("StartStreamEncryption", encryption("alias/aws/kinesis"))
			c.active()
		}
		c.refused("StartStreamEncryption", encryption("alias/aws/kinesis"), limitExceeded, "Stream <S> under account <A> can start or stop encryption only 25 times in 24 hours.")
		c.empty("StopStreamEncryption", encryption("alias/aws/kinesis")) // counted for itself
	}},
	{"3.7 RegisterStreamConsumer/20 of a stream", func(c *caller) {
		c.create(1)
		for i := range 20 {
			c.consumer(fmt.Sprintf("c%d", i))
		}
		c.refused("RegisterStreamConsumer", register("one-more"), limitExceeded, "Limit of 20 consumers exceeded for stream <S> under account <A>.")
	}},
}

var withCommitmentRows = []row{
	{"3.7 RegisterStreamConsumer/50 with a commitment", func(c *caller) {
		c.ok("UpdateAccountSettings", commitment("ENABLED"))
		c.create(1)
		for i := range 50 {
			c.consumer(fmt.Sprintf("c%d", i))
		}
		c.refused("RegisterStreamConsumer", register("one-more"), limitExceeded, "Limit of 50 consumers exceeded for stream <S> under account <A>.")
	}},
}

// crowdedRows run one by one.
var crowdedRows = []row{
	{"3.3 CreateStream/5 in CREATING", func(c *caller) {
		var made []string
		for i := range 5 {
			c.s = fmt.Sprintf("%s-%d", c.way, i)
			c.empty("CreateStream", m{"StreamName": "<S>", "ShardCount": 1})
			made = append(made, c.s)
		}
		c.refused("CreateStream", m{"StreamName": "one-more", "ShardCount": 1}, limitExceeded, "Limit of 5 streams in CREATING state exceeded for account <A>.")
		for _, c.s = range made { // then they are no longer CREATING
			c.empty("DeleteStream", m{"StreamName": "<S>"})
		}
	}},
	{"3.7 RegisterStreamConsumer/5 in CREATING", func(c *caller) {
		c.s = c.node.seed(c.T)
		for i := range 5 {
			c.ok("RegisterStreamConsumer", register(fmt.Sprintf("c%d", i)))
		}
		c.refused("RegisterStreamConsumer", register("one-more"), limitExceeded, "Limit of 5 consumers in CREATING state exceeded for stream <S> under account <A>.")
	}},
}
