package broker

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const (
	// bubbleClientMachine is where all writers and readers run.
	bubbleClientMachine = "10.0.1.1"
	// bubblePace is how long a writer or reader waits before the next call,
	// and calmPace while nothing is going on that could go wrong.
	bubblePace = 10 * time.Millisecond
	calmPace   = 250 * time.Millisecond
	// bubbleCall bounds one call, as a gateway's own timeout does.
	bubbleCall = 2 * time.Second
)

// bubbleLoad is a stream with a writer and a reader for each of its shards. A
// writer puts one record after another, and each again under the same request
// id until it is acknowledged (I22).
type bubbleLoad struct {
	c      *bubbleCluster
	stream *pb.Stream
	shards []*bubbleShard
	conns  *conns

	writing atomic.Bool
	calm    atomic.Bool
	running sync.WaitGroup
	ctx     context.Context
	stop    context.CancelFunc
}

// bubbleShard is what is known of one shard.
type bubbleShard struct {
	number uint32

	mu   sync.Mutex
	put  map[string]*bubblePut // by value
	acks []bubbleAck
	read []string // by offset, as the reader got them
	told []string // by offset, as a Tail pushed them
}

// bubblePut is a value that was put at least once.
type bubblePut struct {
	writer string
	number int // by the writer, which puts one after another
	begun  time.Time
	must   bool // its writer goes on until it is acknowledged
}

type bubbleAck struct {
	value  string
	offset uint64
	at     time.Time
}

// load creates a stream and puts load on it.
func (c *bubbleCluster) load(shards uint32) *bubbleLoad {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.raftLeader().broker().EnsureStream(ctx, "s", shards); err != nil {
		c.t.Fatal(err)
	}
	l := &bubbleLoad{c: c, stream: c.state().StreamByName("s"), conns: newConns(c.net.dialer(bubbleClientMachine))}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.writing.Store(true)
	c.loads = append(c.loads, l)
	for i := range shards {
		s := &bubbleShard{number: i, put: make(map[string]*bubblePut)}
		l.shards = append(l.shards, s)
		l.running.Go(func() { l.write(s) })
		l.running.Go(func() { l.tail(s) })
		l.running.Go(func() { l.follow(s) })
	}
	return l
}

// pace waits before the next call.
func (l *bubbleLoad) pace() {
	if l.calm.Load() {
		pause(l.ctx, calmPace)
	} else {
		pause(l.ctx, bubblePace)
	}
}

// begin notes that a value is put for the first time, and gives its request id.
func (s *bubbleShard) begin(value string, p bubblePut) (request [16]byte) {
	p.begun = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put[value] = &p
	binary.BigEndian.PutUint32(request[:], s.number+1)
	binary.BigEndian.PutUint64(request[8:], uint64(len(s.put)))
	return request
}

func (s *bubbleShard) acknowledge(value string, offset uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acks = append(s.acks, bubbleAck{value, offset, time.Now()})
}

// leader gives the node that leads a shard by the newest metadata.
func (l *bubbleLoad) leader(shard uint32) string {
	s := l.c.state().Shard(l.stream.Id, shard)
	for _, r := range s.GetReplicas() {
		if r.Id == s.Leader {
			return r.NodeId
		}
	}
	return ""
}

// data gives a client of the shard's leader.
func (l *bubbleLoad) data(ctx context.Context, node string) (pb.DataClient, error) {
	n := l.c.node(node)
	if n == nil {
		return nil, stream.Errorf(stream.Offline, "bubble", "no leader")
	}
	conn, err := l.conns.to(ctx, node, n.machine+":7070")
	if err != nil {
		return nil, err
	}
	return pb.NewDataClient(conn), nil
}

// atLeader calls the shard's leader, and gives the call up when another leads.
func (l *bubbleLoad) atLeader(s *bubbleShard, f func(context.Context, pb.DataClient) error) error {
	node := l.leader(s.number)
	ctx, cancel := context.WithTimeout(l.ctx, bubbleCall)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		data, err := l.data(ctx, node)
		if err == nil {
			err = f(ctx, data)
		}
		done <- err
	}()
	ticker := time.NewTicker(bubblePace)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ticker.C:
			if l.leader(s.number) != node {
				cancel()
			}
		}
	}
}

func (l *bubbleLoad) write(s *bubbleShard) {
	for number := 0; l.writing.Load(); number++ {
		value := fmt.Sprintf("%d-%d", s.number, number)
		request := s.begin(value, bubblePut{writer: "load", number: number, must: true})
		for again := false; ; again = true {
			offset, ok := l.put(s, value, request, again)
			if ok {
				s.acknowledge(value, offset)
			}
			l.pace()
			if l.ctx.Err() != nil {
				return
			}
			if ok {
				break
			}
		}
	}
}

// insist puts values through one node alone, as a gateway does that sees no
// other, to each shard that this node leads by its own word, until the context
// ends; and reads them. It gives what it was told by reads that began later
// than readable.
func (l *bubbleLoad) insist(ctx context.Context, n *bubbleNode, readable time.Time) (stale []string) {
	b := n.broker()
	for number := 0; ctx.Err() == nil; number++ {
		for _, shard := range leads(b.meta.State(), l.stream.Id, n.name) {
			s := l.shards[shard]
			ref := &pb.ShardRef{StreamId: l.stream.Id, Shard: shard}
			value := fmt.Sprintf("%d-%s-%d", shard, n.name, number)
			request := s.begin(value, bubblePut{writer: n.name, number: number})
			batch := newBubbleBatch(stream.ShardID{Stream: stream.StreamID(l.stream.Id), Number: shard}, request, value)
			call, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			r, err := b.Data().Append(call, &pb.AppendRequest{Batches: []*pb.ShardBatch{{Shard: ref, Batch: batch}}})
			cancel()
			if err == nil && r.Results[0].Error == 0 {
				s.acknowledge(value, r.Results[0].BaseOffset)
			}
			late := time.Now().After(readable)
			read, err := b.Data().Read(ctx, &pb.ReadRequest{Shard: ref, MaxRecords: 1, MaxBytes: 1})
			if late && err == nil && read.Error == 0 {
				stale = append(stale, fmt.Sprintf("shard %d was read through %s", shard, n.name))
			}
		}
		pause(ctx, bubblePace)
	}
	return stale
}

func newBubbleBatch(id stream.ShardID, request [16]byte, value string) stream.Batch {
	batch := stream.NewBatch(nil, id, request, [16]byte{}, 0)
	batch = batch.AppendRecord(stream.Record{PartitionKey: []byte("k"), Data: []byte(value)})
	stream.FinishBatch(batch, 1)
	return batch
}

func (l *bubbleLoad) put(s *bubbleShard, value string, request [16]byte, again bool) (offset uint64, ok bool) {
	batch := newBubbleBatch(stream.ShardID{Stream: stream.StreamID(l.stream.Id), Number: s.number}, request, value)
	err := l.atLeader(s, func(ctx context.Context, data pb.DataClient) error {
		r, err := data.Append(ctx, &pb.AppendRequest{Batches: []*pb.ShardBatch{{
			Shard: &pb.ShardRef{StreamId: l.stream.Id, Shard: s.number}, Batch: batch, Repeat: again,
		}}})
		if err == nil && r.Results[0].Error == 0 {
			offset, ok = r.Results[0].BaseOffset, true
		}
		return err
	})
	return offset, ok && err == nil
}

// tail reads the shard as it grows.
func (l *bubbleLoad) tail(s *bubbleShard) {
	for l.ctx.Err() == nil {
		s.mu.Lock()
		next := len(s.read)
		s.mu.Unlock()
		if values, err := l.readFrom(s, next); err == nil {
			s.mu.Lock()
			s.read = append(s.read, values...)
			s.mu.Unlock()
		}
		l.pace()
	}
}

// follow is told the shard's records, and goes on at its next leader when one
// falls silent or leads no more.
func (l *bubbleLoad) follow(s *bubbleShard) {
	for l.ctx.Err() == nil {
		l.followOnce(s)
		l.pace()
	}
}

func (l *bubbleLoad) followOnce(s *bubbleShard) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	quiet := time.AfterFunc(bubbleCall, cancel)
	defer quiet.Stop()
	data, err := l.data(ctx, l.leader(s.number))
	if err != nil {
		return
	}
	s.mu.Lock()
	next := len(s.told)
	s.mu.Unlock()
	events, err := data.Tail(ctx, &pb.TailRequest{
		Shard: &pb.ShardRef{StreamId: l.stream.Id, Shard: s.number}, Offset: uint64(next), MaxSilenceMs: uint32(bubbleCall.Milliseconds() / 2),
	})
	for err == nil {
		var e *pb.TailEvent
		if e, err = events.Recv(); err != nil {
			return
		}
		quiet.Reset(bubbleCall)
		var values []string
		if values, err = valuesOf(e.Batches, next); err != nil {
			l.c.t.Errorf("shard %d: a tail from %d: %v", s.number, next, err)
		}
		next += len(values)
		s.mu.Lock()
		s.told = append(s.told, values...)
		s.mu.Unlock()
	}
}

// readFrom gives the values from an offset on. Offsets are dense.
func (l *bubbleLoad) readFrom(s *bubbleShard, next int) (values []string, err error) {
	err = l.atLeader(s, func(ctx context.Context, data pb.DataClient) error {
		r, err := data.Read(ctx, &pb.ReadRequest{
			Shard: &pb.ShardRef{StreamId: l.stream.Id, Shard: s.number}, Offset: uint64(next), MaxRecords: 10_000, MaxBytes: 10 << 20,
		})
		if err != nil {
			return err
		}
		if r.Error != 0 {
			return stream.Errorf(stream.Kind(r.Error), "bubble.read", "%s", r.Detail)
		}
		values, err = valuesOf(r.Batches, next)
		return err
	})
	return values, err
}

// valuesOf gives the values of batches that must follow each other from an
// offset on.
func valuesOf(batches [][]byte, next int) (values []string, err error) {
	for _, raw := range batches {
		batch, err := stream.CheckBatch(raw)
		if err != nil {
			return nil, err
		}
		for offset, record := range batch.Records() {
			switch at := int(offset); {
			case at < next:
			case at == next:
				values = append(values, string(record.Data))
				next++
			default:
				return nil, stream.Errorf(stream.Corrupt, "bubble.read", "offset %d is missing", next)
			}
		}
	}
	return values, nil
}

// recovered gives, for each shard, how long after the given moment the first put
// was acknowledged that began after it.
func (l *bubbleLoad) recovered(fault time.Time) map[uint32]time.Duration {
	took := make(map[uint32]time.Duration)
	l.c.await("each shard takes writes again", func() bool {
		for _, s := range l.shards {
			s.mu.Lock()
			for i := len(s.acks) - 1; i >= 0 && s.acks[i].at.After(fault); i-- {
				if s.put[s.acks[i].value].begun.After(fault) {
					took[s.number] = s.acks[i].at.Sub(fault)
				}
			}
			s.mu.Unlock()
		}
		return len(took) == len(l.shards)
	})
	return took
}

// finish stops the load, each writer after its present record, and gives what
// is wrong with what was acknowledged, as far as it is known within patience.
func (l *bubbleLoad) finish(patience time.Duration) (violations []string) {
	l.writing.Store(false)
	over := time.Now().Add(patience)
	for _, s := range l.shards {
		violations = append(violations, l.check(s, over)...)
	}
	l.end()
	return violations
}

// end stops everything at once.
func (l *bubbleLoad) end() {
	l.stop()
	l.running.Wait()
	l.conns.close()
}

// check compares what a shard's writer was told with what is read:
//   - each acknowledged record is there once, at the offset that was
//     acknowledged (I1, I19, I22), and no other more than once,
//   - in the order of the puts,
//   - and readers that came earlier got the same (I2).
func (l *bubbleLoad) check(s *bubbleShard, over time.Time) (violations []string) {
	bad := func(format string, args ...any) {
		violations = append(violations, fmt.Sprintf("shard %d: ", s.number)+fmt.Sprintf(format, args...))
	}
	var all []string
	for {
		s.mu.Lock()
		missing := 0
		for _, p := range s.put {
			if p.must {
				missing++
			}
		}
		for _, a := range s.acks {
			if s.put[a.value].must {
				missing--
			}
		}
		s.mu.Unlock()
		values, err := l.readFrom(s, 0)
		if missing == 0 && err == nil {
			all = values
			break
		}
		if time.Now().After(over) {
			bad("%d puts are not acknowledged; reading: %v", missing, err)
			break
		}
		pause(l.ctx, bubblePace)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	places := make(map[string]int)
	last := make(map[string]int) // by writer
	for offset, value := range all {
		if first, twice := places[value]; twice {
			bad("%s is there twice, at %d and %d", value, first, offset)
		}
		places[value] = offset
		p := s.put[value]
		if p == nil {
			bad("%s at %d was never put", value, offset)
			continue
		}
		if p.number < last[p.writer] {
			bad("%s at %d comes after a later one", value, offset)
		}
		last[p.writer] = p.number
	}
	for _, a := range s.acks {
		if at, there := places[a.value]; !there || uint64(at) != a.offset {
			bad("%s was acknowledged at %d, and is at %d (there: %v)", a.value, a.offset, at, there)
		}
	}
	if len(s.read) > len(all) || !slices.Equal(s.read, all[:len(s.read)]) {
		bad("an earlier reader got something else")
	}
	if len(s.told) == 0 && len(all) > 0 || len(s.told) > len(all) || !slices.Equal(s.told, all[:len(s.told)]) {
		bad("a tail told something else")
	}
	return violations
}

// acknowledged counts the records.
func (l *bubbleLoad) acknowledged() (n int) {
	for _, s := range l.shards {
		s.mu.Lock()
		n += len(s.acks)
		s.mu.Unlock()
	}
	return n
}

// copiesDiffer tells of copies that are not alike: with the cluster whole and no
// writer left, all of a shard's are, byte for byte.
func (l *bubbleLoad) copiesDiffer() (differences []string) {
	for _, shard := range l.c.state().Shards(l.stream.Id) {
		var first []stream.Batch
		for i, r := range shard.Replicas {
			key := stream.ReplicaKey{
				Shard: stream.ShardID{Stream: stream.StreamID(shard.StreamId), Number: shard.Number}, Replica: stream.ReplicaID(r.Id),
			}
			copied := l.c.node(r.NodeId).broker().records.Replica(key)
			batches, err := copied.Read(0, copied.End(), 1<<30)
			if err != nil {
				differences = append(differences, err.Error())
				continue
			}
			if i == 0 {
				first = batches
			} else if !slices.EqualFunc(first, batches, slices.Equal) {
				differences = append(differences, fmt.Sprintf("shard %d: %s has another copy than %s", shard.Number, r.NodeId, shard.Replicas[0].NodeId))
			}
		}
	}
	return differences
}
