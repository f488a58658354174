package gateway

import (
	"shardstream/gateway/kinesis"
	"shardstream/stream"
)

// Behaviour: PutRecord stores one record as PutRecords does, and answers a
// failure as an error of the whole request.
//
// SequenceNumberForOrdering asks for a number greater than the given one. Within
// a shard every new number is greater than all before it, so that it only has to
// be checked: any number that can be read and does not come from the future is
// fine, also one of another shard.

func putRecord(c *call) *kinesis.Error {
	p := puts.Get().(*put)
	defer p.recycle()
	if p.scan.ScanPutRecord(c.format, c.body) {
		p.fromScan()
		done, failure := c.putOne(p, p.scan.StreamName, p.scan.StreamARN, p.scan.SequenceNumberForOrdering)
		if done {
			return nil
		}
		if failure != nil {
			return exactFailure[kinesis.PutRecordInput](c, failure)
		}
	}
	in, failure := decode[kinesis.PutRecordInput](c)
	if failure != nil {
		return failure
	}
	p.records = p.records[:0]
	p.add(*in.PartitionKey, in.ExplicitHashKey, in.Data)
	_, failure = c.putOne(p, deref(in.StreamName), deref(in.StreamARN), deref(in.SequenceNumberForOrdering))
	return failure
}

// putOne stores the record and writes the answer. done is false, with nothing
// stored, if the scanned data cannot be decoded.
func (c *call) putOne(p *put, name, arn, ordering string) (done bool, failure *kinesis.Error) {
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
	if ordering != "" {
		if !mayOrder(ordering, c.g.cfg.Now().Unix()) {
			return false, kinesis.InvalidOrderingSequence(ordering, v.Name, account)
		}
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
	if p.failed > 0 {
		return false, p.failure
	}
	c.out = kinesis.AppendPutRecordOutput(c.out[:0], c.format, p.results[0].Sequence, p.encryptionType())
	return true, nil
}

// maxShortSequence is the most decimal digits of a number below 2^129: the
// layout of version 0. Longer ones have the 47 hexadecimal digits of the others.
const maxShortSequence = 39

// mayOrder reports whether a number can be asked to be exceeded: it can be read,
// is not of version 0 in the long layout, and does not come from the future.
func mayOrder(number string, now int64) bool {
	n, err := stream.ParseSequence(number)
	return err == nil && (n.Version != 0 || len(number) <= maxShortSequence) && n.Arrival <= now
}
