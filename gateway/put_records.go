package gateway

import "shardstream/gateway/kinesis"

// Behaviour: PutRecords stores up to 500 records, 10 MiB of data and partition
// keys together, each in the open shard whose range holds the MD5 of its
// partition key, or its ExplicitHashKey. Records of one shard keep their order
// in the request.
//
//   - 200 even if all records failed. A stored record has SequenceNumber and
//     ShardId, a failed one ErrorCode and ErrorMessage, in the order of the
//     request; FailedRecordCount is there also when it is 0.
//   - ErrorCode is ProvisionedThroughputExceededException or InternalFailure.
//     Of the records for a shard that is over its limits the first that fit are
//     stored, and all behind them fail, so that their order holds.
//     The message of a disk that is almost full says so.
//   - A hash key of 2^128 or more, or a record over the stream's limit, fails the
//     whole request.
//   - A stream that is CREATING does not exist yet.

func putRecords(c *call) *kinesis.Error {
	p := puts.Get().(*put)
	defer p.recycle()
	if p.scan.ScanPutRecords(c.format, c.body) {
		p.fromScan()
		done, failure := c.putAll(p, p.scan.StreamName, p.scan.StreamARN)
		if done {
			return nil
		}
		if failure != nil {
			return exactFailure[kinesis.PutRecordsInput](c, failure)
		}
	}
	// The exact way: it gives the texts for whatever the scan refuses.
	in, failure := decode[kinesis.PutRecordsInput](c)
	if failure != nil {
		return failure
	}
	p.records = p.records[:0]
	for i := range in.Records {
		r := &in.Records[i]
		p.add(*r.PartitionKey, r.ExplicitHashKey, r.Data)
	}
	_, failure = c.putAll(p, deref(in.StreamName), deref(in.StreamARN))
	return failure
}

// putAll stores the records and writes the answer. done is false, with nothing
// stored, if the scanned data of a record cannot be decoded.
func (c *call) putAll(p *put, name, arn string) (done bool, failure *kinesis.Error) {
	if denied := c.authorizeStream(name, arn); denied != nil {
		return false, denied
	}
	a, failure := addressOf(name, arn)
	if failure != nil {
		return false, failure
	}
	m, v, account, failure := c.putTarget(a)
	if failure != nil {
		return false, failure
	}
	if failure := p.prepare(v); failure != nil {
		return false, failure
	}
	if failure := c.takeKey(p, m, v, account); failure != nil {
		return false, failure
	}
	if err := c.store(p, m, v, account); err != nil {
		return false, nil
	}
	c.out = kinesis.AppendPutRecordsOutput(c.out[:0], c.format, p.results, p.encryptionType())
	return true, nil
}

// exactFailure gives the failure of a request that was only scanned. The scan
// looks at base64 text last, Kinesis before it looks at streams.
func exactFailure[In any](c *call, failure *kinesis.Error) *kinesis.Error {
	if _, exact := decode[In](c); exact != nil {
		return exact
	}
	return failure
}
