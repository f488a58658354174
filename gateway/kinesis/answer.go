package kinesis

import "shardstream/stream"

// PutResult is the outcome of one record of a PutRecord or PutRecords.
type PutResult struct {
	Shard    uint32                // number of the shard, when stored
	Sequence stream.SequenceNumber // when stored
	// ErrorCode is empty for a record that was stored; else it and the message
	// take the place of the numbers.
	ErrorCode, ErrorMessage string
}

// RecordRun is a run of records of one shard as an answer holds it: those of
// the batches whose offsets lie in [From, To).
type RecordRun struct {
	Shard          uint32 // number of the shard
	Created        int64  // creation time of the shard, epoch seconds
	Batches        []stream.Batch
	From, To       stream.Offset
	EncryptionType string // "" leaves it out
}

// GetRecordsAnswer is what a GetRecords answers.
type GetRecordsAnswer struct {
	RecordRun
	NextShardIterator  string // "" at the end of a closed shard
	MillisBehindLatest int64
	ChildShards        []ChildShard // nil leaves it out
}

// SubscribeEvent is one event of a SubscribeToShard.
type SubscribeEvent struct {
	RecordRun
	ContinuationSequenceNumber string // "" in the last event of a closed shard
	MillisBehindLatest         int64
	ChildShards                []ChildShard // nil leaves it out
}
