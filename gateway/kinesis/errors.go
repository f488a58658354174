package kinesis

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The error texts of the service. An account is its 12 digits, a stream its
// bare name even where it was addressed by ARN, and a shard its full id.
// Texts that are not known are in choices.go.

// The exception classes.
const (
	CodeAccessDenied                  = "AccessDeniedException"
	CodeExpiredIterator               = "ExpiredIteratorException"
	CodeExpiredNextToken              = "ExpiredNextTokenException"
	CodeExpiredToken                  = "ExpiredTokenException"
	CodeIncompleteSignature           = "IncompleteSignatureException"
	CodeInternalFailure               = "InternalFailure"
	CodeInternalFailureException      = "InternalFailureException"
	CodeInvalidArgument               = "InvalidArgumentException"
	CodeInvalidSignature              = "InvalidSignatureException"
	CodeKMSAccessDenied               = "KMSAccessDeniedException"
	CodeKMSDisabled                   = "KMSDisabledException"
	CodeKMSInvalidState               = "KMSInvalidStateException"
	CodeKMSNotFound                   = "KMSNotFoundException"
	CodeKMSOptInRequired              = "KMSOptInRequired"
	CodeKMSThrottling                 = "KMSThrottlingException"
	CodeLimitExceeded                 = "LimitExceededException"
	CodeMissingAuthenticationToken    = "MissingAuthenticationTokenException"
	CodeProvisionedThroughputExceeded = "ProvisionedThroughputExceededException"
	CodeResourceInUse                 = "ResourceInUseException"
	CodeResourceNotFound              = "ResourceNotFoundException"
	CodeSerialization                 = "SerializationException"
	CodeServiceUnavailable            = "ServiceUnavailable"
	CodeUnknownOperation              = "UnknownOperationException"
	CodeUnrecognizedClient            = "UnrecognizedClientException"
	CodeValidation                    = "ValidationException"
)

func newError(code, format string, args ...any) *Error {
	message := format
	if len(args) > 0 {
		message = fmt.Sprintf(format, args...)
	}
	return &Error{Status: 400, Code: code, Message: message}
}

// Of the protocol.

// UnknownOperation answers a target that names no operation.
func UnknownOperation() *Error { return &Error{Status: 400, Code: CodeUnknownOperation} }

// MalformedBody answers a body that is no object.
func MalformedBody() *Error { return &Error{Status: 400, Code: CodeSerialization} }

func typeError(text string) *Error {
	return &Error{Status: 400, Code: CodeSerialization, Message: text, CapitalM: true}
}

// InternalFailure answers a fault of ours.
func InternalFailure() *Error { return &Error{Status: 500, Code: CodeInternalFailure} }

// ServiceUnavailable answers while we cannot serve; SDKs try again.
func ServiceUnavailable() *Error { return &Error{Status: 503, Code: CodeServiceUnavailable} }

// Of the constraints that need more than a look at the input.

// InvalidArgument answers an argument that has no text of its own.
func InvalidArgument(message string) *Error { return newError(CodeInvalidArgument, "%s", message) }

// Validation answers a request that the stream's mode or the account forbids,
// where no text of its own is known.
func Validation(message string) *Error { return newError(CodeValidation, "%s", message) }

// Limit answers a quota that has no text of its own.
func Limit(message string) *Error { return newError(CodeLimitExceeded, "%s", message) }

// Of authentication.

// The algorithm's query key, and the query keys that must stand beside it.
var queryAuthKeys = [...]string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"}

// MissingAuthenticationToken answers a request that carries no signature.
func MissingAuthenticationToken() *Error {
	return newError(CodeMissingAuthenticationToken, "Missing Authentication Token")
}

// DoubleAuthentication answers a request signed in the header and in the query.
func DoubleAuthentication() *Error {
	return newError(CodeInvalidSignature, "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.")
}

// HeaderParts says which parts of a signature in the Authorization header are there.
type HeaderParts struct{ Credential, Signature, SignedHeaders, Date bool }

// IncompleteHeader answers an Authorization header that lacks parts.
func IncompleteHeader(p HeaderParts, header string) *Error {
	var b strings.Builder
	for _, part := range []struct {
		name string
		ok   bool
	}{{"Credential", p.Credential}, {"Signature", p.Signature}, {"SignedHeaders", p.SignedHeaders}} {
		if !part.ok {
			b.WriteString("Authorization header requires '" + part.name + "' parameter. ")
		}
	}
	if !p.Date {
		b.WriteString("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ")
	}
	b.WriteString("Authorization=" + header)
	return newError(CodeIncompleteSignature, "%s", b.String())
}

// IncompleteQuery answers a signature in the query that lacks parts; has
// reports whether a query parameter has a value.
func IncompleteQuery(has func(name string) bool) *Error {
	var b strings.Builder
	for _, name := range queryAuthKeys {
		if !has(name) {
			b.WriteString("AWS query-string parameters must include '" + name + "'. ")
		}
	}
	b.WriteString("Re-examine the query-string parameters.")
	return newError(CodeIncompleteSignature, "%s", b.String())
}

// UnrecognizedClient answers an unknown access key.
func UnrecognizedClient() *Error {
	return newError(CodeUnrecognizedClient, "The security token included in the request is invalid.")
}

// ExpiredToken answers a session token that has expired.
func ExpiredToken() *Error {
	return newError(CodeExpiredToken, "The security token included in the request is expired")
}

// ClockSkew is how far a request's time may be from ours.
const ClockSkew = 5 * time.Minute

const signatureTime = "20060102T150405Z"

// SignatureExpired answers a request whose time is more than ClockSkew ago.
func SignatureExpired(request, now time.Time) *Error {
	request, now = request.UTC(), now.UTC()
	return newError(CodeInvalidSignature, "Signature expired: %s is now earlier than %s (%s - 5 min.)",
		request.Format(signatureTime), now.Add(-ClockSkew).Format(signatureTime), now.Format(signatureTime))
}

// SignatureNotYetCurrent answers a request whose time is more than ClockSkew ahead.
func SignatureNotYetCurrent(request, now time.Time) *Error {
	request, now = request.UTC(), now.UTC()
	return newError(CodeInvalidSignature, "Signature not yet current: %s is still later than %s (%s + 5 min.)",
		request.Format(signatureTime), now.Add(ClockSkew).Format(signatureTime), now.Format(signatureTime))
}

// SignatureMismatch answers a wrong signature.
func SignatureMismatch() *Error {
	return newError(CodeInvalidSignature, "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
}

// Of streams.

// StreamNotFound answers a stream that does not exist, and puts to one that is
// still being created.
func StreamNotFound(name, account string) *Error {
	return newError(CodeResourceNotFound, "Stream %s under account %s not found.", name, account)
}

// StreamState answers a call that needs the stream to be ACTIVE.
func StreamState(name, account, state string) *Error {
	return newError(CodeResourceInUse, "Stream %s under account %s not ACTIVE, instead in state %s", name, account, state)
}

// StreamExists answers CreateStream with a name that is taken.
func StreamExists(name, account string) *Error {
	return newError(CodeResourceInUse, "Stream %s under account %s already exists.", name, account)
}

// ShardLimitExceeded answers a request for more shards than the account may have.
func ShardLimitExceeded(account, region string, current, limit, additional int) *Error {
	return newError(CodeLimitExceeded, "This request would exceed the shard limit for the account %s in %s. Current shard count for the account: %d. Limit: %d. Number of additional shards that would have resulted from this request: %d. Refer to the AWS Service Limits page (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to request higher limits.",
		account, region, current, limit, additional)
}

// ShardCountNotExpected answers CreateStream of an on-demand stream with a shard count.
func ShardCountNotExpected() *Error {
	return newError(classOfShardCountErrors, "ShardCount is not expected for StreamMode=ON_DEMAND")
}

// ShardCountRequired answers CreateStream of a provisioned stream without one.
func ShardCountRequired() *Error {
	return newError(classOfShardCountErrors, "ShardCount is a required field for StreamMode=PROVISIONED")
}

// StreamHasConsumers answers DeleteStream that does not enforce the deletion of
// consumers.
func StreamHasConsumers(name, account string) *Error {
	return newError(CodeResourceInUse, "DeleteStream can\u2019t delete %s:%s because there are consumers associated with this data stream. To delete %s anyway, set the EnforceConsumerDeletion parameter to true to force the deletion of all the consumers that are associated with it.",
		account, name, name)
}

// OnDemandStream answers resharding calls on an on-demand stream.
func OnDemandStream(name, account string) *Error {
	return newError(CodeValidation, "Request is invalid. Stream %s under account %s is in On-Demand mode.", name, account)
}

// StreamRateExceeded answers too many control calls on one stream.
func StreamRateExceeded(name, account string) *Error {
	return newError(CodeLimitExceeded, "Rate exceeded for stream %s under account %s.", name, account)
}

// AccountRateExceeded answers too many control calls of an account.
func AccountRateExceeded(account string) *Error {
	return newError(CodeLimitExceeded, "Rate exceeded for account %s.", account)
}

// Of retention. The names of the two operations lack "Stream" in AWS's texts.

// MinRetentionHours and MaxRetentionHours bound the retention period.
const (
	MinRetentionHours = 24
	MaxRetentionHours = 8760
)

// RetentionTooShort answers a period below the minimum.
func RetentionTooShort(hours int32) *Error {
	return newError(CodeInvalidArgument, "Minimum allowed retention period is %d hours. Requested retention period (%d hours) is too short.", MinRetentionHours, hours)
}

// RetentionTooLong answers a period above the maximum.
func RetentionTooLong(hours int32) *Error {
	return newError(CodeInvalidArgument, "Maximum allowed retention period is %d hours. Requested retention period (%d hours) is too long.", MaxRetentionHours, hours)
}

// RetentionBelowCurrent answers an increase to less than the current period.
func RetentionBelowCurrent(name string, hours, current int32) *Error {
	return newError(CodeInvalidArgument, "Requested retention period (%d hours) for stream %s can not be shorter than existing retention period (%d hours). Use DecreaseRetentionPeriod API.", hours, name, current)
}

// RetentionAboveCurrent answers a decrease to more than the current period.
func RetentionAboveCurrent(name string, hours, current int32) *Error {
	return newError(CodeInvalidArgument, "Requested retention period (%d hours) for stream %s can not be longer than existing retention period (%d hours). Use IncreaseRetentionPeriod API.", hours, name, current)
}

// Of shards.

// ShardNotFound answers a shard id that cannot be read (id as given) or, in
// resharding calls, names no shard (id normalised).
func ShardNotFound(id, name, account string) *Error {
	return newError(CodeResourceNotFound, "Could not find shard %s in stream %s under account %s.", id, name, account)
}

// ShardDoesNotExist answers reads of a shard, or of a stream, that is not there.
func ShardDoesNotExist(shard, name, account string) *Error {
	return newError(CodeResourceNotFound, "Shard %s in stream %s under account %s does not exist", shard, name, account)
}

// NoTokenNorStream answers ListShards with neither.
func NoTokenNorStream() *Error {
	return newError(CodeInvalidArgument, "Either NextToken or StreamName should be provided.")
}

// TokenTogetherWith answers a NextToken beside a member that the token already
// remembers.
func TokenTogetherWith(member string) *Error {
	return newError(CodeInvalidArgument, "NextToken and %s cannot be provided together.", member)
}

// SplitKeyOutOfRange answers SplitShard at a key that leaves a child empty.
func SplitKeyOutOfRange(key, shard, name, account, start, end string) *Error {
	return newError(CodeInvalidArgument, "NewStartingHashKey %s used in SplitShard() on shard %s in stream %s under account %s is not both greater than one plus the shard's StartingHashKey %s and less than the shard's EndingHashKey %s.",
		key, shard, name, account, start, end)
}

// ShardAlreadyClosed answers the split or merge of a closed shard.
func ShardAlreadyClosed(shard, name, account string) *Error {
	return newError(CodeInvalidArgument, "Shard %s in stream %s under account %s has already been merged or split, and thus is not eligible for merging or splitting.", shard, name, account)
}

// ShardsNotAdjacent answers MergeShards of shards whose ranges do not meet in
// that order.
func ShardsNotAdjacent(shard, adjacent, name, account string) *Error {
	return newError(CodeInvalidArgument, "Shards %s and %s in stream %s under account %s are not an adjacent pair of shards eligible for merging", shard, adjacent, name, account)
}

// ScaleUpTooFar answers UpdateShardCount to more than twice the open shards.
func ScaleUpTooFar(open, target int32) *Error {
	return newError(CodeLimitExceeded, "UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: %d, Target shard count: %d", open, target)
}

// ScaleDownTooFar answers UpdateShardCount to less than half the open shards.
func ScaleDownTooFar(open, target int32) *Error {
	return newError(CodeLimitExceeded, "UpdateShardCount cannot scale down below half your current open shard count. Current open shard count: %d, Target shard count: %d", open, target)
}

// TargetOverLimit answers UpdateShardCount beyond the limit of a stream.
func TargetOverLimit(limit, open, target int32) *Error {
	return newError(CodeLimitExceeded, "Target shard count or number of open shards cannot be greater than %d. Current open shard count: %d, Target shard count: %d", limit, open, target)
}

// Of tags.

// InvalidTagCharacters answers tags with characters that no tag may hold.
func InvalidTagCharacters() *Error {
	return InvalidArgument("Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % @.")
}

const illegalTags = "because some tags contained illegal characters. The allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@'."

// IllegalTagsAdded answers added tags with a "%", which passes the first check
// and fails the second.
func IllegalTagsAdded(name, account string) *Error {
	return newError(CodeInvalidArgument, "Failed to add tags to stream %s under account %s %s", name, account, illegalTags)
}

// IllegalTagsRemoved is IllegalTagsAdded for the removal.
func IllegalTagsRemoved(name, account string) *Error {
	return newError(CodeInvalidArgument, "Failed to remove tags from stream %s under account %s %s", name, account, illegalTags)
}

// TooManyTags answers tags beyond the limit of 50. The text has said 10 since
// that was the limit.
func TooManyTags(name, account string) *Error {
	return newError(CodeInvalidArgument, "Failed to add tags to stream %s under account %s because a given stream cannot have more than 10 tags associated with it.", name, account)
}

// Of consumers.

// ConsumerExists answers RegisterStreamConsumer with a name that is taken.
func ConsumerExists(consumer, name, account string) *Error {
	return newError(CodeResourceInUse, "Consumer %s under stream %s already exists for account %s.", consumer, name, account)
}

// ConsumerNotFound answers a consumer, by name or ARN, that is not there.
func ConsumerNotFound(consumer, account string) *Error {
	return newError(CodeResourceNotFound, "Consumer %s, account %s not found.", consumer, account)
}

// ConsumerNotActive answers SubscribeToShard by a consumer that is not ACTIVE;
// created is its creation time in epoch seconds.
func ConsumerNotActive(consumer string, created int64, name, account string) *Error {
	return newError(CodeResourceInUse, "Consumer %s with creation timestamp %d under stream: %s , account %s is not in ACTIVE status.", consumer, created, name, account)
}

// AnotherSubscription answers a second subscription of a consumer to a shard.
func AnotherSubscription(account, name, shard, consumer string) *Error {
	return newError(CodeResourceInUse, "Another active subscription exists for this consumer: %s:%s:%s:%s", account, name, shard, consumer)
}

// Of resource policies.

// PolicyNotFound answers the deletion of a policy that is not there.
func PolicyNotFound(arn string) *Error {
	return newError(CodeResourceNotFound, "No resource policy found for resource ARN %s.", arn)
}

// Of puts.

// InvalidExplicitHashKey answers a hash key of 2^128 or more. It fails a whole
// PutRecords.
func InvalidExplicitHashKey(key string) *Error {
	return newError(CodeInvalidArgument, "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was %s", key)
}

// InvalidOrderingSequence answers a SequenceNumberForOrdering that is no number
// of ours or lies in the future.
func InvalidOrderingSequence(number, name, account string) *Error {
	return newError(CodeInvalidArgument, "ExclusiveMinimumSequenceNumber %s used in PutRecord on stream %s under account %s is invalid.", number, name, account)
}

// ShardRateExceeded answers reads and writes over a shard's throughput; in
// PutRecords its code and message stand in the record's result.
func ShardRateExceeded(shard, name, account string) *Error {
	return newError(CodeProvisionedThroughputExceeded, "Rate exceeded for shard %s in stream %s under account %s.", shard, name, account)
}

// RecordFailureMessage is the message beside the code InternalFailure in a
// record's result.
const RecordFailureMessage = "Internal service failure."

// Of iterators.

// IteratorTypeMismatch answers an iterator type that needs a
// StartingSequenceNumber and has none, or the reverse.
func IteratorTypeMismatch(iteratorType string, hasNumber bool) *Error {
	has := "no"
	if hasNumber {
		has = "also a"
	}
	return newError(CodeInvalidArgument, "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified %s and %s StartingSequenceNumber.", iteratorType, has)
}

// TimestampRequired answers AT_TIMESTAMP without a timestamp.
func TimestampRequired() *Error {
	return newError(CodeInvalidArgument, "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.")
}

// TimestampInFuture answers AT_TIMESTAMP later than now.
func TimestampInFuture(at, now Timestamp) *Error {
	return newError(CodeInvalidArgument, "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: %d, currentTimestampInMillis: %d", at, now)
}

// InvalidStartingSequence answers a number that cannot be read.
func InvalidStartingSequence(number, shard, name, account string) *Error {
	return newError(CodeInvalidArgument, "StartingSequenceNumber %s used in GetShardIterator on shard %s in stream %s under account %s is invalid.", number, shard, name, account)
}

// ForeignShardSequence answers a number that encodes another shard, whose
// number the old layouts can make negative.
func ForeignShardSequence(encoded int64, shard string) *Error {
	return newError(CodeInvalidArgument, "Invalid StartingSequenceNumber. It encodes shardId-%s, while it was used in a call to a shard with %s", twelveDigits(encoded), shard)
}

// twelveDigits pads as Java's %012d does: the sign counts.
func twelveDigits(n int64) string {
	s := strconv.FormatInt(n, 10)
	if n < 0 {
		return "-" + strings.Repeat("0", max(0, 12-len(s))) + s[1:]
	}
	return strings.Repeat("0", max(0, 12-len(s))) + s
}

// ForeignStreamSequence answers a number of another stream, or of the same
// name's earlier life.
func ForeignStreamSequence(number, shard, name, account string) *Error {
	return newError(CodeInvalidArgument, "StartingSequenceNumber %s used in GetShardIterator on shard %s in stream %s under account %s is invalid because it did not come from this stream.", number, shard, name, account)
}

// InvalidIterator answers an iterator that we did not make.
func InvalidIterator() *Error { return newError(CodeInvalidArgument, "Invalid ShardIterator.") }

// TokenLifetime is how long iterators and page tokens are good for.
const TokenLifetime = 300 * time.Second

// ExpiredIterator answers an iterator older than TokenLifetime.
func ExpiredIterator(created, now time.Time) *Error {
	const layout = "Mon Jan 02 15:04:05 UTC 2006"
	return newError(CodeExpiredIterator, "Iterator expired. The iterator was created at time %s while right now it is %s which is further in the future than the tolerated delay of %d milliseconds.",
		created.UTC().Format(layout), now.UTC().Format(layout), TokenLifetime.Milliseconds())
}
