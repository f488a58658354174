package gateway

import (
	"fmt"
	"testing"
	"time"

	"shardstream/gateway/kinesis"
)

// TestCallRates makes calls of each operation at one moment until one is refused,
// in JSON and in CBOR. Whether they are good for anything else does not matter.
func TestCallRates(t *testing.T) {
	arn := func(name string) string { return "arn:aws:kinesis:us-east-1:" + testAccount + ":stream/" + name }
	byName := func(more m) func(string) m {
		return func(name string) m {
			in := m{"StreamName": name}
			for k, v := range more {
				in[k] = v
			}
			return in
		}
	}
	byARN := func(member string, more m) func(string) m {
		return func(name string) m {
			in := m{member: arn(name)}
			for k, v := range more {
				in[k] = v
			}
			return in
		}
	}
	nameless := func(in m) func(string) m { return func(string) m { return in } }
	consumer := func(name string) m { return m{"ConsumerARN": arn(name) + "/consumer/c:1700000000"} }
	key := m{"EncryptionType": "KMS", "KeyId": "k"}
	metrics := m{"ShardLevelMetrics": []string{"ALL"}}
	for op, c := range map[kinesis.Op]struct {
		calls     int // in a second
		perStream bool
		in        func(stream string) m
	}{
		kinesis.AddTagsToStream:               {5, false, byName(m{"Tags": m{"k": "v"}})},
		kinesis.CreateStream:                  {5, false, byName(m{"ShardCount": 1})},
		kinesis.DecreaseStreamRetentionPeriod: {5, false, byName(m{"RetentionPeriodHours": 24})},
		kinesis.DeleteResourcePolicy:          {5, false, byARN("ResourceARN", nil)},
		kinesis.DeleteStream:                  {5, false, byARN("StreamARN", nil)},
		kinesis.DeregisterStreamConsumer:      {5, true, consumer},
		kinesis.DescribeAccountSettings:       {5, false, nameless(m{})},
		kinesis.DescribeLimits:                {1, false, nameless(m{})},
		kinesis.DescribeStream:                {10, false, byName(nil)},
		kinesis.DescribeStreamConsumer:        {20, true, consumer},
		kinesis.DescribeStreamSummary:         {20, false, byARN("StreamARN", nil)},
		kinesis.DisableEnhancedMonitoring:     {5, false, byName(metrics)},
		kinesis.EnableEnhancedMonitoring:      {5, false, byName(metrics)},
		kinesis.GetResourcePolicy:             {5, false, byARN("ResourceARN", nil)},
		kinesis.IncreaseStreamRetentionPeriod: {5, false, byName(m{"RetentionPeriodHours": 24})},
		kinesis.ListShards:                    {1000, true, byName(nil)},
		kinesis.ListStreamConsumers:           {5, true, byARN("StreamARN", nil)},
		kinesis.ListStreams:                   {5, false, nameless(m{})},
		kinesis.ListTagsForResource:           {5, false, byARN("ResourceARN", nil)},
		kinesis.ListTagsForStream:             {5, false, byName(nil)},
		kinesis.MergeShards:                   {5, false, byName(m{"ShardToMerge": "0", "AdjacentShardToMerge": "1"})},
		kinesis.PutResourcePolicy:             {5, false, byARN("ResourceARN", m{"Policy": "{}"})},
		kinesis.RegisterStreamConsumer:        {5, true, byARN("StreamARN", m{"ConsumerName": "c"})},
		kinesis.RemoveTagsFromStream:          {5, false, byName(m{"TagKeys": []string{"k"}})},
		kinesis.SplitShard:                    {5, false, byName(m{"ShardToSplit": "0", "NewStartingHashKey": "1"})},
		kinesis.TagResource:                   {5, false, byARN("ResourceARN", m{"Tags": m{"k": "v"}})},
		kinesis.UntagResource:                 {5, false, byARN("ResourceARN", m{"TagKeys": []string{"k"}})},
		kinesis.UpdateAccountSettings:         {5, false, nameless(m{"MinimumThroughputBillingCommitment": m{"Status": "DISABLED"}})},
		kinesis.UpdateMaxRecordSize:           {5, false, byARN("StreamARN", m{"MaxRecordSizeInKiB": 1024})},
		kinesis.UpdateShardCount:              {10, false, byName(m{"TargetShardCount": 1, "ScalingType": "UNIFORM_SCALING"})},
		kinesis.UpdateStreamMode:              {5, false, byARN("StreamARN", m{"StreamModeDetails": m{"StreamMode": "PROVISIONED"}})},
		kinesis.UpdateStreamWarmThroughput:    {5, false, byName(m{"WarmThroughputMiBps": 1})},

		// These have limits for 24 hours, or of their shards.
		kinesis.StartStreamEncryption: {0, false, byName(key)},
		kinesis.StopStreamEncryption:  {0, false, byName(key)},
		kinesis.PutRecord:             {0, false, byName(m{"PartitionKey": "k", "Data": []byte("d")})},
		kinesis.PutRecords:            {0, false, byName(m{"Records": []m{{"PartitionKey": "k", "Data": []byte("d")}}})},
		kinesis.GetRecords:            {0, false, nameless(m{"ShardIterator": "i"})},
		kinesis.GetShardIterator:      {0, false, byName(m{"ShardId": "0", "ShardIteratorType": "LATEST"})},
		kinesis.SubscribeToShard:      {0, false, consumer},
	} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, func(c *Config, _ *fakeBroker) { c.AccountLimits = true })
			isOver := func(a answer) bool {
				text, _ := a.body["message"].(string)
				return a.body["__type"] == "LimitExceededException" && len(text) > 4 && text[:4] == "Rate"
			}
			if c.calls == 0 {
				for range 30 {
					if a := e.call(string(op), c.in("s")); isOver(a) {
						t.Fatal("it has a limit")
					}
				}
				return
			}
			for i := range c.calls {
				if a := e.call(string(op), c.in("s")); isOver(a) {
					t.Fatalf("call %d: %s", i, a.raw)
				} else if a.body["__type"] == "ValidationException" && op != kinesis.UpdateStreamWarmThroughput {
					t.Fatalf("a bad test: %s", a.raw)
				}
			}
			text := "Rate exceeded for account " + testAccount + "."
			if fmt.Sprint(c.in("s")) != fmt.Sprint(c.in("another")) {
				text = "Rate exceeded for stream s under account " + testAccount + "."
			}
			e.refused(string(op), c.in("s"), "LimitExceededException", text)
			if passes := !isOver(e.call(string(op), c.in("another"))); passes != c.perStream {
				t.Errorf("a call about another stream passes: %v", passes)
			}
			e.clock.advance(time.Second / time.Duration(c.calls))
			if a := e.call(string(op), c.in("s")); isOver(a) {
				t.Errorf("it does not pass a while later: %s", a.raw)
			}
		})
	}
}

func TestCallRatesAreOfAllOperations(t *testing.T) {
	others := map[kinesis.Op]bool{
		kinesis.StartStreamEncryption: true, kinesis.StopStreamEncryption: true,
		kinesis.PutRecord: true, kinesis.PutRecords: true, kinesis.GetRecords: true, kinesis.GetShardIterator: true, kinesis.SubscribeToShard: true,
	}
	for _, op := range kinesis.Ops() {
		if _, limited := callRates[op]; limited == others[op] {
			t.Errorf("%s is limited: %v", op, limited)
		}
	}
}

func TestNoCallRatesByDefault(t *testing.T) {
	e := newEnv(t)
	for range 20 {
		e.ok("DescribeLimits", m{})
	}
}

// TestPagesOfShardsCountForTheirStream: the token has its name.
func TestPagesOfShardsCountForTheirStream(t *testing.T) {
	e := newEnv(t, func(c *Config, _ *fakeBroker) { c.AccountLimits = true })
	e.create("s", 2)
	e.create("another", 2)
	token := e.ok("ListShards", m{"StreamName": "s", "MaxResults": 1})["NextToken"]
	for range 999 {
		if !e.g.calls.pass(kinesis.ListShards, "s") {
			t.Fatal("refused")
		}
	}
	e.refused("ListShards", m{"NextToken": token}, "LimitExceededException", "Rate exceeded for stream s under account "+testAccount+".")
	e.ok("ListShards", m{"StreamName": "another"})
}
