package replica

import "shardstream/stream"

// serving gives the high watermark if this replica may answer reads, and whether
// that shows at least all that the leaders before have shown: a leader knows once
// it has committed what it was elected with (I12).
func (r *Replica) serving(op string) (hw stream.Offset, settled bool, err error) {
	r.mu.Lock()
	defer r.unlock()
	if r.role != leading {
		return 0, false, stream.Errorf(stream.NotLeader, op, "this node does not lead shard %s", r.key.Shard)
	}
	return r.hw, r.hw >= r.lead.epochStart, nil
}

// settled is serving for what only a settled leader may say.
func (r *Replica) settled(op string) (stream.Offset, error) {
	hw, settled, err := r.serving(op)
	if err == nil && !settled {
		err = stream.Errorf(stream.Unavailable, op, "the new leader of shard %s waits for its replicas", r.key.Shard)
	}
	return hw, err
}

// Latest gives the offset behind the last committed record. Kinds: NotLeader;
// Unavailable while a new leader's high watermark may still be behind the old
// one's (I12).
func (r *Replica) Latest() (stream.Offset, error) { return r.settled("replica.Latest") }

// Start gives the oldest visible offset, after expiring all that is committed
// and arrived before the cutoff (Unix ms) (I17).
func (r *Replica) Start(cutoff int64) (stream.Offset, error) {
	hw, _, err := r.serving("replica.Start")
	if err != nil {
		return 0, err
	}
	return r.expire(cutoff, hw), nil
}

// Expire drops what is committed and arrived before the cutoff (Unix ms), if
// this replica leads. Followers are told the start by their leader. In any role
// it forgets old requests, which count against the memory of all shards.
func (r *Replica) Expire(cutoff int64) {
	r.mu.Lock()
	r.repeats.expire(r.env.Now())
	r.unlock()
	if hw, _, err := r.serving("replica.Expire"); err == nil {
		r.expire(cutoff, hw)
	}
}

func (r *Replica) expire(cutoff int64, hw stream.Offset) stream.Offset {
	return r.log.TrimBefore(cutoff, hw)
}

// ReadResult is what a read found.
type ReadResult struct {
	Batches       []stream.Batch
	Start         stream.Offset // oldest visible offset
	HighWatermark stream.Offset
	LastArrival   int64 // of the newest record, Unix ms; 0 if there was never one
	// Settling says that more may be committed than HighWatermark shows: the
	// leader is new, and that a reader has come to its end says nothing.
	Settling bool
}

// readStep bounds what one look into the log fetches, so that a read for few
// records does not fetch megabytes.
const readStep = 1 << 20

// Read gives whole batches from the offset on, until they hold maxRecords
// records or maxBytes bytes, at least one if there is any, none above the high
// watermark (I12). An offset below the visible start is moved there; one above
// the high watermark gives no batches, which is never an error. Kinds:
// NotLeader, and those of the log.
func (r *Replica) Read(from stream.Offset, cutoff int64, maxRecords, maxBytes int) (ReadResult, error) {
	hw, settled, err := r.serving("replica.Read")
	if err != nil {
		return ReadResult{}, err
	}
	res := ReadResult{Start: r.expire(cutoff, hw), HighWatermark: hw, LastArrival: r.log.LastArrival(), Settling: !settled}
	from = max(from, res.Start)
	for from < hw && maxRecords > 0 && (maxBytes > 0 || len(res.Batches) == 0) {
		batches, err := r.log.Read(from, hw, min(maxBytes, readStep))
		if err != nil {
			return ReadResult{}, err
		}
		if len(batches) == 0 {
			break // only a hole that was given up lies behind
		}
		for _, b := range batches {
			if len(res.Batches) > 0 && (maxBytes < len(b) || maxRecords <= 0) {
				return res, nil
			}
			res.Batches = append(res.Batches, b)
			maxBytes -= len(b)
			maxRecords -= int(b.End() - max(from, b.Base()))
			from = b.End()
		}
	}
	return res, nil
}

// FindTime gives the first visible offset that arrived at or after the time
// (Unix ms), or the high watermark if there is none. Kinds: as of Latest.
func (r *Replica) FindTime(ms, cutoff int64) (stream.Offset, error) {
	hw, err := r.settled("replica.FindTime")
	if err != nil {
		return 0, err
	}
	o, err := r.log.FindTime(ms)
	if err != nil {
		return 0, err
	}
	return min(max(o, r.expire(cutoff, hw)), hw), nil
}
