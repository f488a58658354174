package kinesis

import (
	"testing"
	"time"
)

// TestErrorTexts holds the texts as clients see them.
func TestErrorTexts(t *testing.T) {
	const account = "000000000000"
	at := time.Date(2016, 2, 4, 13, 39, 20, 0, time.FixedZone("", 3600)).Add(time.Hour)
	for _, c := range []struct {
		err  *Error
		code string
		want string
	}{
		{StreamNotFound("s", account), CodeResourceNotFound, "Stream s under account 000000000000 not found."},
		{StreamState("s", account, "CREATING"), CodeResourceInUse, "Stream s under account 000000000000 not ACTIVE, instead in state CREATING"},
		{ShardLimitExceeded(account, "us-east-1", 3, 10, 8), CodeLimitExceeded, "This request would exceed the shard limit for the account 000000000000 in us-east-1. Current shard count for the account: 3. Limit: 10. Number of additional shards that would have resulted from this request: 8. Refer to the AWS Service Limits page (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to request higher limits."},
		{StreamHasConsumers("s", account), CodeResourceInUse, "DeleteStream can’t delete 000000000000:s because there are consumers associated with this data stream. To delete s anyway, set the EnforceConsumerDeletion parameter to true to force the deletion of all the consumers that are associated with it."},
		{RetentionTooShort(23), CodeInvalidArgument, "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short."},
		{RetentionTooLong(8761), CodeInvalidArgument, "Maximum allowed retention period is 8760 hours. Requested retention period (8761 hours) is too long."},
		{RetentionBelowCurrent("s", 25, 26), CodeInvalidArgument, "Requested retention period (25 hours) for stream s can not be shorter than existing retention period (26 hours). Use DecreaseRetentionPeriod API."},
		{RetentionAboveCurrent("s", 26, 25), CodeInvalidArgument, "Requested retention period (26 hours) for stream s can not be longer than existing retention period (25 hours). Use IncreaseRetentionPeriod API."},
		{ShardNotFound("x", "s", account), CodeResourceNotFound, "Could not find shard x in stream s under account 000000000000."},
		{ShardDoesNotExist("shardId-000000000001", "s", account), CodeResourceNotFound, "Shard shardId-000000000001 in stream s under account 000000000000 does not exist"},
		{TokenTogetherWith("StreamName"), CodeInvalidArgument, "NextToken and StreamName cannot be provided together."},
		{InvalidTagCharacters(), CodeInvalidArgument, "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % @."},
		{IllegalTagsAdded("s", account), CodeInvalidArgument, "Failed to add tags to stream s under account 000000000000 because some tags contained illegal characters. The allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@'."},
		{TooManyTags("s", account), CodeInvalidArgument, "Failed to add tags to stream s under account 000000000000 because a given stream cannot have more than 10 tags associated with it."},
		{InvalidExplicitHashKey("340282366920938463463374607431768211456"), CodeInvalidArgument, "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was 340282366920938463463374607431768211456"},
		{ShardRateExceeded("shardId-000000000001", "s", account), CodeProvisionedThroughputExceeded, "Rate exceeded for shard shardId-000000000001 in stream s under account 000000000000."},
		{IteratorTypeMismatch("LATEST", true), CodeInvalidArgument, "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified LATEST and also a StartingSequenceNumber."},
		{IteratorTypeMismatch("AT_SEQUENCE_NUMBER", false), CodeInvalidArgument, "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified AT_SEQUENCE_NUMBER and no StartingSequenceNumber."},
		{ForeignShardSequence(-2147483648, "shardId-000000000000"), CodeInvalidArgument, "Invalid StartingSequenceNumber. It encodes shardId--02147483648, while it was used in a call to a shard with shardId-000000000000"},
		{ForeignShardSequence(5, "shardId-000000000000"), CodeInvalidArgument, "Invalid StartingSequenceNumber. It encodes shardId-000000000005, while it was used in a call to a shard with shardId-000000000000"},
		{ExpiredIterator(at, at.Add(400*time.Second)), CodeExpiredIterator, "Iterator expired. The iterator was created at time Thu Feb 04 13:39:20 UTC 2016 while right now it is Thu Feb 04 13:46:00 UTC 2016 which is further in the future than the tolerated delay of 300000 milliseconds."},
		{ConsumerNotActive("c", 12, "s", account), CodeResourceInUse, "Consumer c with creation timestamp 12 under stream: s , account 000000000000 is not in ACTIVE status."},
		{IncompleteHeader(HeaderParts{Signature: true}, "AWS4 x"), CodeIncompleteSignature, "Authorization header requires 'Credential' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4 x"},
		{IncompleteQuery(func(name string) bool { return name != "X-Amz-Algorithm" && name != "X-Amz-Date" }), CodeIncompleteSignature, "AWS query-string parameters must include 'X-Amz-Algorithm'. AWS query-string parameters must include 'X-Amz-Date'. Re-examine the query-string parameters."},
		{SignatureExpired(at.Add(-301*time.Second), at), CodeInvalidSignature, "Signature expired: 20160204T133419Z is now earlier than 20160204T133420Z (20160204T133920Z - 5 min.)"},
		{SignatureNotYetCurrent(at.Add(301*time.Second), at), CodeInvalidSignature, "Signature not yet current: 20160204T134421Z is still later than 20160204T134420Z (20160204T133920Z + 5 min.)"},
		{TimestampInFuture(2, 1), CodeInvalidArgument, "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: 2, currentTimestampInMillis: 1"},
	} {
		if c.err.Status != 400 || c.err.Code != c.code || c.err.Message != c.want || c.err.CapitalM {
			t.Errorf("got %d %v, want %s: %s", c.err.Status, c.err, c.code, c.want)
		}
	}
	if e := InternalFailure(); e.Status != 500 || e.Message != "" {
		t.Errorf("%+v", e)
	}
	if e := ServiceUnavailable(); e.Status != 503 {
		t.Errorf("%+v", e)
	}
}
