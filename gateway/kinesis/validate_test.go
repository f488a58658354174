package kinesis

import (
	"fmt"
	"strings"
	"testing"
)

const (
	namePattern   = "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
	needed        = "failed to satisfy constraint: Member must not be null"
	iteratorTypes = "[AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]"
)

func TestValidate(t *testing.T) {
	long := strings.Repeat("a", 129)
	sequence := `Member must satisfy regular expression pattern: 0|([1-9]\d{0,128})`
	hash := `Member must satisfy regular expression pattern: 0|([1-9]\d{0,38})`
	for _, c := range []struct {
		op   Op
		body string
		want []string // none: accepted
	}{
		{DescribeLimits, `{}`, nil},
		{DescribeStream, `{}`, nil},
		{CreateStream, `{"StreamName":"a","ShardCount":100000}`, nil},
		{CreateStream, `{}`, []string{"Value null at 'streamName' " + needed}},
		{CreateStream, `{"ShardCount":0,"StreamName":""}`, []string{
			"Value '0' at 'shardCount' failed to satisfy constraint: Member must have value greater than or equal to 1",
			"Value '' at 'streamName' failed to satisfy constraint: " + namePattern,
			"Value '' at 'streamName' failed to satisfy constraint: Member must have length greater than or equal to 1",
		}},
		{CreateStream, `{"ShardCount":100000000000,"StreamName":"` + long + `"}`, []string{
			"Value '2147483647' at 'shardCount' failed to satisfy constraint: Member must have value less than or equal to 100000",
			"Value '" + long + "' at 'streamName' failed to satisfy constraint: Member must have length less than or equal to 128",
		}},
		{CreateStream, `{"StreamName":"a","MaxRecordSizeInKiB":1023}`, []string{
			"Value '1023' at 'maxRecordSizeInKiB' failed to satisfy constraint: Member must have value greater than or equal to 1024",
		}},
		{CreateStream, `{"StreamName":"a","StreamModeDetails":{}}`, []string{"Value null at 'streamModeDetails.streamMode' " + needed}},
		{CreateStream, `{"StreamName":"a","StreamModeDetails":{"StreamMode":"x"}}`, []string{
			"Value 'x' at 'streamModeDetails.streamMode' failed to satisfy constraint: Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]",
		}},
		{UpdateShardCount, `{"TargetShardCount":100001,"ScalingType":"UNIFORM_SCALING"}`, []string{
			"Value '100001' at 'targetShardCount' failed to satisfy constraint: Member must have value less than or equal to 100000",
		}},
		{GetShardIterator, `{"StreamName":"!","ShardId":"","ShardIteratorType":"x","StartingSequenceNumber":"01"}`, []string{
			"Value '' at 'shardId' failed to satisfy constraint: " + namePattern,
			"Value '' at 'shardId' failed to satisfy constraint: Member must have length greater than or equal to 1",
			"Value 'x' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set: " + iteratorTypes,
			"Value '01' at 'startingSequenceNumber' failed to satisfy constraint: " + sequence,
			"Value '!' at 'streamName' failed to satisfy constraint: " + namePattern,
		}},
		{PutRecord, `{}`, []string{"Value null at 'partitionKey' " + needed, "Value null at 'data' " + needed}},
		{PutRecord, `{"StreamName":"","PartitionKey":"","Data":"","ExplicitHashKey":"","SequenceNumberForOrdering":""}`, []string{
			"Value '' at 'sequenceNumberForOrdering' failed to satisfy constraint: " + sequence,
			"Value '' at 'partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1",
			"Value '' at 'explicitHashKey' failed to satisfy constraint: " + hash,
			"Value '' at 'streamName' failed to satisfy constraint: " + namePattern,
			"Value '' at 'streamName' failed to satisfy constraint: Member must have length greater than or equal to 1",
		}},
		{SplitShard, `{"StreamName":"$","NewStartingHashKey":"-1"}`, []string{
			"Value '-1' at 'newStartingHashKey' failed to satisfy constraint: " + hash,
			"Value '$' at 'streamName' failed to satisfy constraint: " + namePattern,
			"Value null at 'shardToSplit' " + needed,
		}},
		{PutRecords, `{"Records":[]}`, []string{"Value at 'records' failed to satisfy constraint: Member must have length greater than or equal to 1"}},
		{PutRecords, `{"Records":[{"Data":"","PartitionKey":"a"},null]}`, []string{
			"Value null at 'records.2.member.partitionKey' " + needed,
			"Value null at 'records.2.member.data' " + needed,
		}},
		{PutRecords, `{"Records":[` + strings.Repeat(`{"PartitionKey":"a"},`, 11) + `{}]}`, func() (want []string) {
			for i := range 10 {
				want = append(want, fmt.Sprintf("Value null at 'records.%d.member.data' ", i+1)+needed)
			}
			return want
		}()},
		{RemoveTagsFromStream, `{"TagKeys":["a",""]}`, []string{
			"Value '[a, ]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]",
		}},
		{AddTagsToStream, `{"Tags":{"b":"` + strings.Repeat("x", 257) + `","":"a"}}`, []string{
			"Value '{=a, b=" + strings.Repeat("x", 257) + "}' at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]",
			"Value '{=a, b=" + strings.Repeat("x", 257) + "}' at 'tags' failed to satisfy constraint: Map value must satisfy constraint: [Member must have length less than or equal to 256, Member must have length greater than or equal to 0]",
		}},
		{AddTagsToStream, `{"Tags":{"":"a"}}`, []string{
			"Value '{=a}' at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]",
		}},
		{AddTagsToStream, `{"Tags":{}}`, []string{"Value '{}' at 'tags' failed to satisfy constraint: Member must have length greater than or equal to 1"}},
		{EnableEnhancedMonitoring, `{"ShardLevelMetrics":["ALL","x"]}`, []string{
			"Value '[ALL, x]' at 'shardLevelMetrics' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [IncomingBytes, IncomingRecords, OutgoingBytes, OutgoingRecords, WriteProvisionedThroughputExceeded, ReadProvisionedThroughputExceeded, IteratorAgeMilliseconds, ALL]]",
		}},
		{ListShards, `{"ShardFilter":{}}`, []string{"Value null at 'shardFilter.type' " + needed}},
		{GetRecords, `{"ShardIterator":"a","Limit":10001}`, []string{"Value '10001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000"}},
		{UpdateStreamMode, `{"StreamARN":"arn","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}`, []string{
			`Value 'arn' at 'streamARN' failed to satisfy constraint: Member must satisfy regular expression pattern: arn:aws.*:kinesis:.*:\d{12}:stream/\S+`,
		}},
		{DescribeStreamConsumer, `{"ConsumerARN":"arn:aws:kinesis:eu-west-1:000000000000:stream/a/consumer/b:1"}`, nil},
		{DescribeStreamConsumer, `{"ConsumerARN":"xarn:aws:kinesis:eu-west-1:000000000000:stream/a/consumer/b:1"}`, []string{
			`Value 'xarn:aws:kinesis:eu-west-1:000000000000:stream/a/consumer/b:1' at 'consumerARN' failed to satisfy constraint: Member must satisfy regular expression pattern: ^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+`,
		}},
		// Characters count, not bytes.
		{PutRecord, `{"Data":"","PartitionKey":"` + strings.Repeat("é", 256) + `"}`, nil},
	} {
		in, err := Decode(c.op, JSON, []byte(c.body))
		if err != nil {
			t.Errorf("%s %s: %v", c.op, c.body, err)
			continue
		}
		err = Validate(in)
		if c.want == nil {
			if err != nil {
				t.Errorf("%s %s: %v", c.op, c.body, err)
			}
			continue
		}
		plural := "s"
		if len(c.want) == 1 {
			plural = ""
		}
		want := fmt.Sprintf("%d validation error%s detected: %s", len(c.want), plural, strings.Join(c.want, "; "))
		if err == nil || err.Code != "ValidationException" || err.Status != 400 || err.CapitalM || err.Message != want {
			t.Errorf("%s %s:\n got %v\nwant %s", c.op, c.body, err, want)
		}
	}
}

func TestBlobTooLong(t *testing.T) {
	in := &PutRecordsInput{Records: []PutRecordsRequestEntry{
		{PartitionKey: new("a"), Data: make([]byte, maxData)},
		{PartitionKey: new("a"), Data: make([]byte, maxData+1)},
	}}
	want := "1 validation error detected: Value at 'records.2.member.data' failed to satisfy constraint: Member must have length less than or equal to 10485760"
	if err := Validate(in); err == nil || err.Message != want {
		t.Errorf("got %v", err)
	}
}
