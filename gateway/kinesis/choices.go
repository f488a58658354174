package kinesis

import "fmt"

// What could not be established about the service, and what we do there. Each
// is one line to change when somebody knows better.

// Of bodies.
//
//   - JSON is read strictly (RFC 8259): text that is not UTF-8, an escaped
//     surrogate without its partner, anything behind the object, and nesting
//     deeper than maxDepth make a body malformed.
//   - A null element of a list counts as an element without members, or as an
//     empty string; a null value of a map takes its key away.
//   - Of two members of the wrong type the first in the body is reported.
//   - Lengths of strings are counted in characters (code points).
//   - CBOR: map keys must be text; a text string is no blob, a byte string no
//     string; a time is a tagged integer and nothing else.
//   - Of a list or map only the first maxElements elements are kept, and a
//     pattern is not matched against more than 64 KiB: both are too long anyway.
//   - Violations across members whose order is not known come in the model's
//     order; the entries of a printed map are sorted by key.

// Of subscriptions.
//
//   - A call within five seconds of one that succeeded is told so in the stream,
//     where it was seen; one too many in a second is an answer, since the model
//     has no such exception for streams.
//   - Two calls may come at once before the rate counts, so that the second hears
//     of the first.
//   - Who is displaced by another subscription gets the same ResourceInUse.
//   - The first event comes at once, one of silence after four seconds. The last
//     event of a shard has no records.
//   - An event holds up to 1 MiB of data and keys, or one record.

// classOfBytes and classOfTimes name the types that only CBOR has in type errors.
const (
	classOfBytes = "java.nio.HeapByteBuffer"
	classOfTimes = "java.util.Date"
)

// Texts and classes.

// classOfShardCountErrors: InvalidArgumentException or ValidationException.
const classOfShardCountErrors = CodeInvalidArgument

// NoStreamAddress answers a call with neither StreamName nor StreamARN: the text
// of the time when the name was required.
func NoStreamAddress() *Error {
	return newError(CodeValidation, "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null")
}

// NoStreamARN answers a call without the StreamARN by which alone it could name a
// stream.
func NoStreamARN() *Error {
	return newError(CodeValidation, "1 validation error detected: Value null at 'streamARN' failed to satisfy constraint: Member must not be null")
}

// StreamAddressConflict answers a StreamName and a StreamARN of different streams.
func StreamAddressConflict(name, arn string) *Error {
	return newError(CodeInvalidArgument, "StreamName %s does not match the stream in StreamARN %s.", name, arn)
}

// ForeignARN answers an ARN of another account, region or service.
func ForeignARN(arn string) *Error {
	return newError(CodeInvalidArgument, "The ARN %s does not name a resource of this account and region.", arn)
}

// ExpiredNextToken answers a page token older than TokenLifetime.
func ExpiredNextToken() *Error {
	return newError(CodeExpiredNextToken, "The specified NextToken has expired.")
}

// InvalidNextToken answers a page token that we did not make.
func InvalidNextToken() *Error { return newError(CodeInvalidArgument, "Invalid NextToken.") }

// IteratorOfOtherStream answers GetRecords with a StreamARN that is not the
// iterator's.
func IteratorOfOtherStream() *Error {
	return newError(CodeInvalidArgument, "The ShardIterator does not belong to the stream in StreamARN.")
}

// FilterMemberRequired and FilterMemberNotExpected answer a ShardFilter of a
// type that needs a member, or knows none of that name.
func FilterMemberRequired(filterType, member string) *Error {
	return newError(CodeInvalidArgument, "%s is a required parameter for ShardFilter type %s.", member, filterType)
}

// FilterMemberNotExpected is described at FilterMemberRequired.
func FilterMemberNotExpected(filterType, member string) *Error {
	return newError(CodeInvalidArgument, "%s is not expected for ShardFilter type %s.", member, filterType)
}

// TooManyCreating answers CreateStream beyond the streams in CREATING.
func TooManyCreating(account string, limit int) *Error {
	return newError(CodeLimitExceeded, "Limit of %d streams in CREATING state exceeded for account %s.", limit, account)
}

// TooManyOnDemand answers on-demand streams beyond the account's limit.
func TooManyOnDemand(account string, limit int) *Error {
	return newError(CodeLimitExceeded, "Limit of %d on-demand streams exceeded for account %s.", limit, account)
}

// TooManyModeUpdates answers a third UpdateStreamMode in 24 hours.
func TooManyModeUpdates(name, account string) *Error {
	return newError(CodeLimitExceeded, "Stream %s under account %s can switch its mode only 2 times in 24 hours.", name, account)
}

// TooManyShardCountUpdates answers an eleventh UpdateShardCount in 24 hours.
func TooManyShardCountUpdates(name, account string) *Error {
	return newError(CodeLimitExceeded, "Stream %s under account %s can be scaled only 10 times in 24 hours.", name, account)
}

// ShardNotDivisible answers UpdateShardCount of a stream with a shard that has
// too few hash keys to be split.
func ShardNotDivisible(shard, name, account string) *Error {
	return newError(CodeInvalidArgument, "Shard %s in stream %s under account %s has too few hash keys to be split.", shard, name, account)
}

// TooManyEncryptionChanges answers a 26th start or stop in 24 hours.
func TooManyEncryptionChanges(name, account string) *Error {
	return newError(CodeLimitExceeded, "Stream %s under account %s can start or stop encryption only 25 times in 24 hours.", name, account)
}

// TooManyConsumers answers RegisterStreamConsumer beyond the stream's limit.
func TooManyConsumers(name, account string, limit int) *Error {
	return newError(CodeLimitExceeded, "Limit of %d consumers exceeded for stream %s under account %s.", limit, name, account)
}

// TooManyCreatingConsumers answers RegisterStreamConsumer beyond those in CREATING.
func TooManyCreatingConsumers(name, account string, limit int) *Error {
	return newError(CodeLimitExceeded, "Limit of %d consumers in CREATING state exceeded for stream %s under account %s.", limit, name, account)
}

// NoConsumerAddress answers a call with neither ConsumerARN nor StreamARN and
// ConsumerName.
func NoConsumerAddress() *Error {
	return newError(CodeInvalidArgument, "Either ConsumerARN or both StreamARN and ConsumerName should be provided.")
}

// ConsumerAddressConflict answers a ConsumerARN that contradicts the names
// beside it.
func ConsumerAddressConflict(arn string) *Error {
	return newError(CodeInvalidArgument, "ConsumerARN %s does not match the given StreamARN and ConsumerName.", arn)
}

// SubscribeRateExceeded answers more than one SubscribeToShard a second of a
// consumer to a shard.
func SubscribeRateExceeded(consumer, shard, name, account string) *Error {
	return newError(CodeLimitExceeded, "Rate exceeded for consumer %s of shard %s in stream %s under account %s.", consumer, shard, name, account)
}

// WarmThroughputRefused answers warm throughput on a stream that cannot have it.
func WarmThroughputRefused(name, account string) *Error {
	return newError(CodeValidation, "Warm throughput is not available for stream %s under account %s.", name, account)
}

// WarmThroughputTooHigh answers more warm throughput than a stream can have.
func WarmThroughputTooHigh(mibps, limit uint32) *Error {
	return newError(CodeValidation, "Warm throughput of %d MiB/s exceeds the maximum of %d MiB/s.", mibps, limit)
}

// RecordTooLarge answers a record whose data and partition key together are
// over the stream's maximum.
func RecordTooLarge(size, limit int) *Error {
	return newError(CodeInvalidArgument, "Record size of %d bytes exceeds the maximum record size of %d bytes.", size, limit)
}

// MaxRequestSize is the most that a PutRecords may hold, data and partition
// keys together, bytes.
const MaxRequestSize = 10 << 20

// RequestTooLarge answers a PutRecords over MaxRequestSize; the text is that of
// the former limit with the number of today's.
func RequestTooLarge() *Error {
	return newError(CodeInvalidArgument, "Records size exceeds 10 MB limit")
}

// EncryptionTypeRefused answers a start or stop of encryption with another type
// than KMS, the only one that the service has.
func EncryptionTypeRefused(encryptionType string) *Error {
	return newError(CodeInvalidArgument, "EncryptionType %s is not valid for this operation.", encryptionType)
}

// KMS answers a failure of the key service with one of the six classes.
func KMS(code, message string) *Error { return newError(code, "%s", message) }

// MaxPolicySize is the most bytes that a resource policy may have.
const MaxPolicySize = 20 << 10

// PolicyTooLarge answers a resource policy over MaxPolicySize.
func PolicyTooLarge(size int) *Error {
	return InvalidPolicy(fmt.Sprintf("it has %d bytes and must not have more than %d", size, MaxPolicySize))
}

// InvalidPolicy answers a resource policy that cannot be read.
func InvalidPolicy(why string) *Error {
	return newError(CodeInvalidArgument, "The resource policy is not valid: %s.", why)
}
