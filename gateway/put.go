package gateway

import (
	"cmp"
	"crypto/cipher"
	"slices"
	"strconv"
	"strings"
	"sync"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// The way of a put, from the scanned body to the results: hash, route, count,
// build one batch per shard at its exact size, one Append per node. The data is
// decoded once, from the body straight into the batch.

// putRecordState is a record on its way.
type putRecordState struct {
	key      []byte
	explicit []byte // nil if the partition key routes it
	blob     kinesis.Blob
	data     []byte // in place of blob, if plain
	plain    bool

	hash  stream.HashKey
	group int32 // place in put.groups, of this attempt; -1 if it waits
	done  bool
	sent  bool // in an earlier attempt
	part  bool // the leader admits it and those before it, but not all
	// The shard that may have stored it, since no answer came: its number plus
	// one, 0 if there is none.
	perhapsIn int64
}

func (r *putRecordState) dataLen() int {
	if r.plain {
		return len(r.data)
	}
	return r.blob.Len()
}

func (r *putRecordState) appendData(dst []byte) ([]byte, error) {
	if r.plain {
		return append(dst, r.data...), nil
	}
	return r.blob.AppendTo(dst)
}

// putGroup is what one attempt sends to one shard.
type putGroup struct {
	shard *pb.Shard
	node  string
	count int
	size  int // of the batch, bytes
	batch stream.Batch
	// repeat says that some of its records were sent before, sent that it was
	// itself, and doubt that it may be stored though it failed.
	repeat, sent, doubt bool
	part                bool // it has the records that the leader admits

	kind     stream.Kind // 0: stored
	detail   string
	admitted int // if it was Throttled: so many of the first records would be stored
	base     stream.Offset
	second   int64 // of the arrival
}

// put is the state of one PutRecord or PutRecords, used again by later ones.
type put struct {
	scan    kinesis.PutScan
	records []putRecordState
	results []kinesis.PutResult

	groups []putGroup
	slots  []int32 // by route: 1 + place in groups, 0 if none yet
	order  []int32 // places in groups, by node

	// What the records are encrypted with: the stream's data key and its number,
	// nil and 0 if they are not.
	key   cipher.AEAD
	keyID uint32

	// The SDK's id of the request and the number of its attempt.
	invocation [16]byte
	attempt    uint16
	doubt      bool     // some record is perhaps stored somewhere
	asked      []uint32 // closed shards that have said what they have of the request
	held       []bool   // by route: it waits for such an answer
	parts      int      // attempts of which some group was admitted in part

	stored, storedBytes, failed int
	failure                     *kinesis.Error // of the last record that failed, as PutRecord answers it
}

var puts = sync.Pool{New: func() any { return new(put) }}

// recycle forgets what points into the request and gives the state back.
func (p *put) recycle() {
	clear(p.records)
	p.records = p.records[:0]
	clear(p.results)
	p.results = p.results[:0]
	clear(p.groups)
	p.groups = p.groups[:0]
	clear(p.scan.Entries)
	p.stored, p.storedBytes, p.failed, p.failure = 0, 0, 0, nil
	p.key, p.keyID = nil, 0
	p.doubt, p.asked, p.parts = false, p.asked[:0], 0
	p.scan.StreamName, p.scan.StreamARN, p.scan.SequenceNumberForOrdering = "", "", ""
	puts.Put(p)
}

// fromScan takes the records of the scan.
func (p *put) fromScan() {
	p.records = p.records[:0]
	for i := range p.scan.Entries {
		e := &p.scan.Entries[i]
		p.records = append(p.records, putRecordState{key: e.PartitionKey, explicit: e.ExplicitHashKey, blob: e.Data})
	}
}

// add takes a record that was decoded in the ordinary way.
func (p *put) add(key string, explicit *string, data []byte) {
	r := putRecordState{key: []byte(key), data: data, plain: true}
	if explicit != nil {
		r.explicit = []byte(*explicit)
	}
	p.records = append(p.records, r)
}

// target finds the stream of a put. A stream that the metadata at hand does not
// know, or shows as CREATING, is looked up again in metadata that shows
// everything. CREATING counts as missing.
func (c *call) putTarget(a address) (*metadata, *streamView, string, *kinesis.Error) {
	m, failure := c.cached()
	if failure != nil {
		return nil, nil, "", failure
	}
	takes := func(v *streamView) bool {
		return v != nil && v.Status != pb.StreamStatus_STREAM_STATUS_CREATING
	}
	v, account := a.find(m)
	if !takes(v) {
		if m, failure = c.linearizable(); failure != nil {
			return nil, nil, "", failure
		}
		if v, account = a.find(m); !takes(v) {
			return nil, nil, "", kinesis.StreamNotFound(a.name, account)
		}
	}
	return m, v, account, nil
}

// prepare checks the records against the stream's limits and hashes them.
func (p *put) prepare(v *streamView) *kinesis.Error {
	total, limit := 0, int(v.MaxRecordKib)<<10
	for i := range p.records {
		r := &p.records[i]
		if r.explicit != nil {
			k, ok := stream.ParseHashKey(r.explicit)
			if !ok {
				return kinesis.InvalidExplicitHashKey(string(r.explicit))
			}
			r.hash = k
		} else {
			r.hash = stream.HashPartitionKey(r.key)
		}
		size := r.dataLen() + len(r.key)
		if size > limit {
			return kinesis.RecordTooLarge(size, limit)
		}
		total += size
	}
	if total > kinesis.MaxRequestSize {
		return kinesis.RequestTooLarge()
	}
	p.results = slices.Grow(p.results[:0], len(p.records))[:len(p.records)]
	return nil
}

// store sends the records of a stream to its shards' leaders, and again those
// that found no leader, until all are stored or have failed, or the request has
// waited enough. Results then say how each fared. The error is that of data
// which cannot be decoded; nothing has been sent then.
func (c *call) store(p *put, m *metadata, v *streamView, account string) error {
	defer p.count(c, v)
	p.invocation, p.attempt = invocationOf(c)
	patience := patience{c: c}
	for {
		again := c.askParents(p, m, v)
		waiting, missing := p.route(v)
		if err := p.build(c, v); err != nil {
			return err
		}
		c.send(p, m, v)
		parts := p.parts
		again = longer(again, p.settle(c, v, account))
		if waiting > 0 {
			again = longer(again, stream.Unavailable)
		}
		if missing > 0 {
			again = longer(again, stream.Offline)
		}
		if again == 0 {
			if p.parts > parts {
				continue // with what is admitted
			}
			return nil
		}
		waited := patience.wait(m, again)
		m = c.g.meta.load()
		next := m.byID[v.Id]
		if !waited || next == nil {
			if next == nil {
				again = stream.NotFound
			}
			p.giveUp(v, account, again)
			return nil
		}
		v = next
	}
}

// longer gives that of two kinds, 0 for none, for which a request waits longer:
// Offline counts only if all are.
func longer(a, b stream.Kind) stream.Kind {
	if a == 0 || a == stream.Offline && b != 0 {
		return b
	}
	return a
}

// route groups the records that are not done by the shard that takes them, and
// counts the bytes of each group. It gives the numbers of records that wait for
// a shard's children, and that no shard takes.
func (p *put) route(v *streamView) (waiting, missing int) {
	if len(p.slots) < len(v.routes) {
		p.slots = make([]int32, len(v.routes))
	}
	clear(p.groups)
	p.groups = p.groups[:0]
	for i := range p.records {
		r := &p.records[i]
		if r.done {
			continue
		}
		to := v.route(r.hash)
		r.group = -1
		switch {
		case to == nil, to.sealing && to.node == "": // without a leader, nobody seals it
			missing++
			continue
		case to.sealing:
			waiting++
			continue
		case len(p.held) > 0 && p.held[to.index]:
			continue
		}
		slot := &p.slots[to.index]
		if *slot == 0 {
			p.groups = append(p.groups, putGroup{shard: to.shard, node: to.node, size: stream.BatchHeaderSize})
			*slot = int32(len(p.groups))
		}
		r.group = *slot - 1
		g := &p.groups[r.group]
		g.count++
		g.repeat, g.part = g.repeat || r.sent, g.part || r.part
		g.size += stream.RecordHeaderSize + len(r.key) + r.dataLen()
	}
	for i := range p.groups {
		p.slots[v.route(rangeOf(p.groups[i].shard).Start).index] = 0
	}
	return waiting, missing
}

// decodeSlack is what base64 decoding may touch behind the data.
const decodeSlack = 3

// build makes the batch of every group. The bytes will belong to the broker,
// which may go on using them after an attempt was given up, so they are neither
// pooled nor used a second time: the next attempt makes the same batch again,
// with the same ids, by which a leader knows what it has already (I22). Of an
// encrypted batch the bytes differ each time, since no nonce is used twice.
func (p *put) build(c *call, v *streamView) error {
	for i := range p.groups {
		g := &p.groups[i]
		id := stream.ShardID{Stream: stream.StreamID(v.Id), Number: g.shard.Number}
		if p.key != nil {
			size := g.size + stream.EncryptedSize(g.count)
			g.batch = stream.NewEncryptedBatch(make([]byte, 0, size+decodeSlack), id, c.id, p.invocation, p.attempt, p.keyID, g.count)
			continue
		}
		g.batch = stream.NewBatch(make([]byte, 0, g.size+decodeSlack), id, c.id, p.invocation, p.attempt)
	}
	for i := range p.records {
		r := &p.records[i]
		if r.done || r.group < 0 {
			continue
		}
		g := &p.groups[r.group]
		b := g.batch.AppendRecordHeader(r.key, uint16(i), r.explicit != nil, r.dataLen())
		before := len(b)
		bytes, err := r.appendData(b)
		if err != nil {
			return err
		}
		if len(bytes)-before != r.dataLen() {
			return stream.Errorf(stream.Internal, "gateway.put", "%d bytes of data, %d announced", len(bytes)-before, r.dataLen())
		}
		g.batch = bytes
	}
	for i := range p.groups {
		if g := &p.groups[i]; p.key != nil {
			g.batch = g.batch.Encrypt(p.key, g.count)
		} else {
			stream.FinishBatch(g.batch, g.count)
		}
	}
	return nil
}

// send gives every group its outcome: one Append per node, in parallel if there
// are several.
func (c *call) send(p *put, m *metadata, v *streamView) {
	p.order = p.order[:0]
	for i := range p.groups {
		p.order = append(p.order, int32(i))
	}
	node := func(i int32) string { return p.groups[i].node }
	slices.SortStableFunc(p.order, func(a, b int32) int { return cmp.Compare(node(a), node(b)) })
	var wg sync.WaitGroup
	for rest := p.order; len(rest) > 0; {
		n := 1
		for n < len(rest) && node(rest[n]) == node(rest[0]) {
			n++
		}
		groups := rest[:n]
		rest = rest[n:]
		if len(rest) == 0 {
			c.appendAt(m, v, p, groups)
		} else {
			wg.Go(func() { c.appendAt(m, v, p, groups) })
		}
	}
	wg.Wait()
}

// appendAt sends groups to their one node and notes their outcome.
func (c *call) appendAt(m *metadata, v *streamView, p *put, groups []int32) {
	fail := func(kind stream.Kind, detail string) {
		for _, i := range groups {
			p.groups[i].kind, p.groups[i].detail = kind, detail
		}
	}
	node := p.groups[groups[0]].node
	if node == "" {
		fail(stream.Offline, "no leader")
		return
	}
	data, err := c.g.client(m, node)
	if err != nil {
		fail(kindOf(err), err.Error())
		return
	}
	request := &pb.AppendRequest{Batches: make([]*pb.ShardBatch, len(groups))}
	batches, shards := make([]pb.ShardBatch, len(groups)), make([]pb.ShardRef, len(groups))
	note := &inflightCall{node: node, stream: v.Id, shards: make([]uint32, len(groups))}
	for n, i := range groups {
		g := &p.groups[i]
		shards[n].StreamId, shards[n].Shard = v.Id, g.shard.Number
		batches[n].Shard, batches[n].Batch, batches[n].Repeat, batches[n].Part = &shards[n], g.batch, g.repeat, g.part
		if p.key != nil && m.nodes[node].GetShardLimits() {
			batches[n].Sizes = p.sizes(i)
		}
		g.sent, g.doubt = true, true
		request.Batches[n] = &batches[n]
		note.shards[n] = g.shard.Number
		g.batch = nil // the broker's from here on
	}
	ctx := c.begin(m, note)
	response, err := data.Append(ctx, request)
	err = c.end(note, err)
	if err == nil && len(response.Results) != len(groups) {
		err = stream.Errorf(stream.Internal, "gateway.append", "%d results for %d batches", len(response.Results), len(groups))
	}
	if err != nil {
		fail(kindOf(err), err.Error())
		return
	}
	for n, i := range groups {
		g, r := &p.groups[i], response.Results[n]
		g.kind, g.detail, g.admitted = stream.Kind(r.Error), r.Detail, int(r.Admitted)
		// Before it appends a leader refuses so; it is not what it says of records
		// that it has taken.
		g.doubt = g.kind != stream.Unavailable && g.kind != stream.Offline
		g.base, g.second = stream.Offset(r.BaseOffset), r.ArrivalMs/1000
	}
}

// sizes gives the sizes of the records of a group, which an encrypted batch does
// not show.
func (p *put) sizes(group int32) (sizes []uint32) {
	for i := range p.records {
		if r := &p.records[i]; !r.done && r.group == group {
			sizes = append(sizes, uint32(len(r.key)+r.dataLen()))
		}
	}
	return sizes
}

// maxParts bounds the attempts of a put with what the leaders admit: others may
// take that meanwhile.
const maxParts = 3

// settle writes the results of the groups that are stored or have failed for
// good. It gives the kind for which the others should be tried again, 0 if there
// are none or only such as their leaders admit now. Only a broker's own word for
// the very batch makes a record stored (I19).
//
// Of a group that is over its shard's limits the leader admits the first records,
// perhaps. These are left for the next attempt, and the others have failed.
func (p *put) settle(c *call, v *streamView, account string) (again stream.Kind) {
	parts := p.parts
	for i := range p.groups {
		g := &p.groups[i]
		if g.kind != 0 && mayRetry(g.kind) {
			again = longer(again, g.kind)
		}
	}
	for i := range p.records {
		r := &p.records[i]
		if r.done || r.group < 0 {
			continue
		}
		g := &p.groups[r.group]
		switch {
		case g.kind == 0:
			p.succeed(v.metrics, i, stream.RecordSequence(g.shard.Number, createdSecond(g.shard), g.base, g.second))
			g.base++
		case g.kind == stream.Throttled && g.admitted > 0 && parts < maxParts:
			g.admitted--
			r.part = true
			p.parts = parts + 1
			// A retry is told so too of records that its first attempt has stored.
			r.perhapsIn, p.doubt = int64(g.shard.Number)+1, true
		case !mayRetry(g.kind):
			if g.kind == stream.Throttled {
				v.metrics.shard(g.shard.Number).writeExceeded()
			}
			p.fail(i, g.kind, subject{name: v.Name, account: account, shard: stream.ShardName(g.shard.Number)})
		default:
			r.sent = r.sent || g.sent
			if g.doubt {
				r.perhapsIn = int64(g.shard.Number) + 1
				p.doubt = true
			}
		}
	}
	for i := range p.groups {
		if g := &p.groups[i]; g.kind != 0 && !mayRetry(g.kind) {
			c.logFailure(g.kind, g.detail, v.Name, g.shard.Number)
		}
	}
	return again
}

// succeed notes that a record is stored, and where.
func (p *put) succeed(m *streamMetrics, i int, at stream.SequenceNumber) {
	r := &p.records[i]
	p.results[i] = kinesis.PutResult{Sequence: at}
	r.done = true
	size := len(r.key) + r.dataLen()
	p.stored++
	p.storedBytes += size
	m.shard(at.Shard).wrote(size)
}

// giveUp fails the records that are not done.
func (p *put) giveUp(v *streamView, account string, why stream.Kind) {
	for i := range p.records {
		r := &p.records[i]
		if r.done {
			continue
		}
		s := subject{name: v.Name, account: account}
		kind := why
		if r.group >= 0 {
			g := &p.groups[r.group]
			s.shard = stream.ShardName(g.shard.Number)
			if why != stream.NotFound && g.kind != 0 {
				kind = g.kind
			}
		}
		p.fail(i, kind, s)
	}
}

// fail notes why a record was not stored.
func (p *put) fail(i int, kind stream.Kind, s subject) {
	p.records[i].done = true
	p.failed++
	p.failure = answerKind(kind, s)
	p.results[i] = kinesis.PutResult{ErrorCode: kinesis.CodeInternalFailure, ErrorMessage: kinesis.RecordFailureMessage}
	switch kind {
	case stream.Throttled:
		p.results[i].ErrorCode, p.results[i].ErrorMessage = p.failure.Code, p.failure.Message
	case stream.DiskFull:
		p.results[i].ErrorMessage = diskFullMessage
	}
}

// logFailure logs a failure that is a fault of somebody's; the others are
// business as usual.
func (c *call) logFailure(kind stream.Kind, detail, name string, shard uint32) {
	switch kind {
	case stream.Throttled, stream.DiskFull, stream.NotFound, stream.Timeout:
		return
	}
	c.g.log.Error("put failed", "request", c.requestID(), "stream", name, "shard", shard, "kind", kind, "detail", detail)
}

// count counts what was stored and what was not.
func (p *put) count(c *call, v *streamView) {
	if p.stored+p.failed == 0 {
		return // its data could not be decoded
	}
	v.metrics.inRecords.Add(float64(p.stored))
	v.metrics.inBytes.Add(float64(p.storedBytes))
	op, throttled := opPutRecord, 0
	if c.op == kinesis.PutRecords {
		op = opPutRecords
	}
	if p.failed > 0 {
		throttled = p.countFailures(c)
	}
	c.g.metrics.ofOp(v, op).put(c.started, p.storedBytes, p.stored, throttled, p.failed-throttled)
}

// countFailures counts the records that were not stored, and gives how many of
// them were refused for throughput.
func (p *put) countFailures(c *call) (throttled int) {
	for i := range p.results {
		if code := p.results[i].ErrorCode; code != "" {
			c.g.metrics.failed.WithLabelValues(code).Inc()
			if code == kinesis.CodeProvisionedThroughputExceeded {
				throttled++
			}
		}
	}
	if throttled > 0 && c.op == kinesis.PutRecords { // a PutRecord is counted by its answer
		c.g.metrics.throttled.WithLabelValues(string(c.op)).Add(float64(throttled))
	}
	return throttled
}

// invocationOf gives the SDK's id of the call and the number of its attempt: the
// id stays the same over an SDK's own retries (I22). Both are zero for clients
// that send none, or an id that is no UUID.
func invocationOf(c *call) (id [16]byte, attempt uint16) {
	id, ok := parseID(c.header.Get("Amz-Sdk-Invocation-Id"))
	if !ok {
		return id, 0
	}
	for part := range strings.SplitSeq(c.header.Get("Amz-Sdk-Request"), ";") {
		if n, ok := strings.CutPrefix(strings.TrimSpace(part), "attempt="); ok {
			if n, err := strconv.ParseUint(n, 10, 16); err == nil {
				return id, uint16(n)
			}
		}
	}
	return id, 0
}
