package kinesis

import (
	"reflect"
	"slices"
	"strconv"

	"github.com/segmentio/asm/base64"

	"shardstream/stream"
)

// PutResult is the outcome of one record of a PutRecord or PutRecords.
type PutResult struct {
	Sequence stream.SequenceNumber // of a record that was stored; holds its shard
	// ErrorCode is empty for a record that was stored; else it and the message
	// take the place of the number.
	ErrorCode, ErrorMessage string
}

// RecordRun is a run of records of one shard as an answer holds it: those of
// the batches whose offsets lie in [From, To).
type RecordRun struct {
	Shard    uint32         // number of the shard
	Created  int64          // creation time of the shard, epoch seconds
	Batches  []stream.Batch // decrypted; each tells whether it was stored encrypted
	From, To stream.Offset
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

// AppendPutRecordOutput appends the answer of a PutRecord whose record was
// stored. An empty encryption type is left out.
func AppendPutRecordOutput(dst []byte, f Format, sequence stream.SequenceNumber, encryptionType string) []byte {
	var w sequenceWriter
	if f == CBOR {
		if encryptionType == "" {
			dst = appendCBORHead(dst, cborMap, 2)
		} else {
			dst = appendCBORHead(dst, cborMap, 3)
			dst = appendCBORString(append(dst, cborKeyEncryptionType...), encryptionType)
		}
		return w.appendCBORPut(dst, sequence)
	}
	dst = append(dst, '{')
	if encryptionType != "" {
		dst = append(appendJSONString(append(dst, `"EncryptionType":`...), encryptionType), ',')
	}
	return append(w.appendJSONPut(dst, sequence), '}')
}

// AppendPutRecordsOutput appends the answer of a PutRecords: one result for
// each record, in order. An empty encryption type is left out.
func AppendPutRecordsOutput(dst []byte, f Format, results []PutResult, encryptionType string) []byte {
	failed := uint64(0)
	for i := range results {
		if results[i].ErrorCode != "" {
			failed++
		}
	}
	dst = slices.Grow(dst, 64+len(results)*(jsonPutSize+3))
	var w sequenceWriter
	if f == CBOR {
		if encryptionType == "" {
			dst = appendCBORHead(dst, cborMap, 2)
		} else {
			dst = appendCBORHead(dst, cborMap, 3)
			dst = appendCBORString(append(dst, cborKeyEncryptionType...), encryptionType)
		}
		dst = appendCBORHead(appendCBORString(dst, "FailedRecordCount"), cborUint, failed)
		dst = appendCBORHead(appendCBORString(dst, "Records"), cborArray, uint64(len(results)))
		for i := range results {
			r := &results[i]
			dst = appendCBORHead(dst, cborMap, 2)
			if r.ErrorCode == "" {
				dst = w.appendCBORPut(dst, r.Sequence)
				continue
			}
			dst = appendCBORString(appendCBORString(dst, "ErrorCode"), r.ErrorCode)
			dst = appendCBORString(appendCBORString(dst, "ErrorMessage"), r.ErrorMessage)
		}
		return dst
	}
	dst = append(dst, '{')
	if encryptionType != "" {
		dst = append(appendJSONString(append(dst, `"EncryptionType":`...), encryptionType), ',')
	}
	dst = append(dst, `"FailedRecordCount":`...)
	dst = append(strconv.AppendUint(dst, failed, 10), `,"Records":[`...)
	for i := range results {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		if r := &results[i]; r.ErrorCode == "" {
			dst = w.appendJSONPut(dst, r.Sequence)
		} else {
			dst = appendJSONString(append(dst, `"ErrorCode":`...), r.ErrorCode)
			dst = appendJSONString(append(dst, `,"ErrorMessage":`...), r.ErrorMessage)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']', '}')
}

// jsonPut is what the answer says of a stored record, with room for the numbers.
const (
	jsonPutSequence = `"SequenceNumber":"`
	jsonPutShard    = `","ShardId":"shardId-`
	jsonPutSize     = len(jsonPutSequence) + sequenceDigits + len(jsonPutShard) + shardDigits + 1
)

func (w *sequenceWriter) appendJSONPut(dst []byte, n stream.SequenceNumber) []byte {
	dst = w.append(append(dst, jsonPutSequence...), n)
	return append(appendShardDigits(append(dst, jsonPutShard...), n.Shard), '"')
}

func (w *sequenceWriter) appendCBORPut(dst []byte, n stream.SequenceNumber) []byte {
	dst = w.append(append(dst, cborKeySequenceNumber...), n)
	return appendShardDigits(append(dst, cborKeyShardID...), n.Shard)
}

// Keys of CBOR maps; those of numbers go on to the head of their value.
var (
	cborKeyEncryptionType = appendCBORString(nil, "EncryptionType")
	cborKeyArrival        = appendCBORString(nil, "ApproximateArrivalTimestamp")
	cborKeyData           = appendCBORString(nil, "Data")
	cborKeyPartitionKey   = appendCBORString(nil, "PartitionKey")
	cborKeySequenceNumber = appendCBORHead(appendCBORString(nil, "SequenceNumber"), cborText, sequenceDigits)
	cborKeyShardID        = append(appendCBORHead(appendCBORString(nil, "ShardId"), cborText, uint64(len("shardId-"))+shardDigits), "shardId-"...)
)

// AppendGetRecordsOutput appends the answer of a GetRecords.
func AppendGetRecordsOutput(dst []byte, f Format, a *GetRecordsAnswer) []byte {
	if f == CBOR {
		members := uint64(2)
		for _, there := range [...]bool{a.NextShardIterator != "", a.ChildShards != nil} {
			if there {
				members++
			}
		}
		dst = appendCBORHead(dst, cborMap, members)
		if a.ChildShards != nil {
			dst = appendCBORValue(appendCBORString(dst, "ChildShards"), shapeChildShardList, reflect.ValueOf(a.ChildShards))
		}
		dst = appendCBORInt(appendCBORString(dst, "MillisBehindLatest"), a.MillisBehindLatest)
		if a.NextShardIterator != "" {
			dst = appendCBORString(appendCBORString(dst, "NextShardIterator"), a.NextShardIterator)
		}
		return a.appendCBOR(appendCBORString(dst, "Records"))
	}
	dst = append(dst, '{')
	dst = appendJSONPosition(dst, a.ChildShards, a.MillisBehindLatest)
	if a.NextShardIterator != "" {
		dst = append(appendJSONString(append(dst, `"NextShardIterator":`...), a.NextShardIterator), ',')
	}
	return append(a.appendJSON(append(dst, `"Records":`...)), '}')
}

// AppendSubscribeEvent appends the payload of an event, which is JSON whatever
// the format of the request.
func AppendSubscribeEvent(dst []byte, e *SubscribeEvent) []byte {
	dst = appendJSONPosition(append(dst, '{'), e.ChildShards, e.MillisBehindLatest)
	if e.ContinuationSequenceNumber != "" {
		dst = append(appendJSONString(append(dst, `"ContinuationSequenceNumber":`...), e.ContinuationSequenceNumber), ',')
	}
	return append(e.appendJSON(append(dst, `"Records":`...)), '}')
}

func appendJSONPosition(dst []byte, children []ChildShard, behind int64) []byte {
	if children != nil {
		dst = append(dst, `"ChildShards":`...)
		dst = append(appendJSONValue(dst, shapeChildShardList, reflect.ValueOf(children)), ',')
	}
	dst = strconv.AppendInt(append(dst, `"MillisBehindLatest":`...), behind, 10)
	return append(dst, ',')
}

// records calls each for the run's records, in order.
func (a *RecordRun) records(each func(o stream.Offset, b stream.Batch, r stream.Record)) {
	for _, b := range a.Batches {
		if b.End() <= a.From || b.Base() >= a.To {
			continue
		}
		for o, r := range b.Records() {
			if o >= a.From && o < a.To {
				each(o, b, r)
			}
		}
	}
}

// size gives the number of records and of their bytes.
func (a *RecordRun) size() (count, size int) {
	a.records(func(_ stream.Offset, _ stream.Batch, r stream.Record) {
		count++
		size += len(r.Data) + len(r.PartitionKey)
	})
	return count, size
}

// recordOverhead is about what an answer needs for a record beside its data and
// key.
const recordOverhead = 200

func (a *RecordRun) sequence(o stream.Offset, b stream.Batch) stream.SequenceNumber {
	return stream.RecordSequence(a.Shard, a.Created, o, b.Arrival()/1000)
}

func (a *RecordRun) appendJSON(dst []byte) []byte {
	count, size := a.size()
	dst = slices.Grow(dst, count*recordOverhead+size+size/3)
	dst = append(dst, '[')
	var w sequenceWriter
	comma := false
	a.records(func(o stream.Offset, b stream.Batch, r stream.Record) {
		if comma {
			dst = append(dst, ',')
		}
		comma = true
		dst = appendSeconds(append(dst, `{"ApproximateArrivalTimestamp":`...), Timestamp(b.Arrival()))
		dst = appendBase64(append(dst, `,"Data":"`...), r.Data)
		if b.DataKey() != 0 {
			dst = append(dst, `","EncryptionType":"`+EncryptionTypeKMS+`","PartitionKey":`...)
		} else {
			dst = append(dst, `","PartitionKey":`...)
		}
		dst = appendJSONString(dst, r.PartitionKey)
		dst = w.append(append(dst, `,"SequenceNumber":"`...), a.sequence(o, b))
		dst = append(dst, '"', '}')
	})
	return append(dst, ']')
}

func (a *RecordRun) appendCBOR(dst []byte) []byte {
	count, size := a.size()
	dst = slices.Grow(dst, count*recordOverhead+size)
	dst = appendCBORHead(dst, cborArray, uint64(count))
	var w sequenceWriter
	a.records(func(o stream.Offset, b stream.Batch, r stream.Record) {
		members := uint64(4)
		if b.DataKey() != 0 {
			members++
		}
		dst = appendCBORHead(dst, cborMap, members)
		dst = appendCBORTime(append(dst, cborKeyArrival...), Timestamp(b.Arrival()))
		dst = appendCBORBytes(append(dst, cborKeyData...), r.Data)
		if b.DataKey() != 0 {
			dst = appendCBORString(append(dst, cborKeyEncryptionType...), EncryptionTypeKMS)
		}
		dst = appendCBORString(append(dst, cborKeyPartitionKey...), r.PartitionKey)
		dst = w.append(append(dst, cborKeySequenceNumber...), a.sequence(o, b))
	})
	return dst
}

// appendBase64 appends base64 text.
func appendBase64(dst, data []byte) []byte {
	from, n := len(dst), (len(data)+2)/3*4
	dst = slices.Grow(dst, n)[:from+n]
	base64.StdEncoding.Encode(dst[from:], data)
	return dst
}
