package gateway

import (
	"context"
	"time"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// subscription is one SubscribeToShard from its acceptance on. It works in the
// goroutine of its request; what comes from the shard's leader is asked for when
// the event before has been taken, so that a slow client costs one event.
type subscription struct {
	// Set once.
	c        *call
	consumer *pb.ConsumerRef
	arn      string
	metrics  *consumerMetrics
	ctx      context.Context // ends with the client, the gateway and the subscription's time
	cancel   context.CancelFunc
	unhook   func() bool

	t     readTarget // by the newest metadata that was looked at
	began time.Time  // when the leader took it; zero before
	tail  *tailCall  // nil while there is none
	next  stream.Offset

	pending *pb.TailEvent // what is to be given to the client, from next on
	ended   bool          // the leader says that pending is the shard's last
	refusal *kinesis.Error

	tip tip // of the leader's last word

	second int64 // of the last continuation
	given  bool  // an event has been written
}

func newSubscription(c *call, t readTarget, ref *pb.ConsumerRef, arn string, from stream.Offset) *subscription {
	s := &subscription{c: c, t: t, consumer: ref, arn: arn, next: from}
	s.metrics = c.g.metrics.ofConsumer(t.v.Name, ref.Name)
	s.ctx, s.cancel = context.WithTimeout(c.parent, c.g.cfg.SubscriptionLife)
	s.unhook = context.AfterFunc(c.g.draining, s.cancel)
	s.metrics.open.Inc()
	return s
}

func (s *subscription) close() {
	s.hangUp(nil)
	s.unhook()
	s.cancel()
	s.metrics.open.Dec()
}

// start has the shard's leader accept the subscription, and waits for its first
// word. An error is the answer to the call.
func (s *subscription) start() *kinesis.Error {
	if isAtEnd(s.t.s, s.next) {
		return nil // of no broker's concern; see onceAtLeader
	}
	c := s.c
	patience := patience{c: c}
	for {
		m := c.g.meta.load()
		e, err := s.receive(c.deadline)
		if err == nil {
			s.began = time.Now()
			s.heard(e)
			return nil
		}
		switch kind := kindOf(err); kind {
		case stream.AlreadyExists, stream.WrongState:
			s.refusal = s.another()
			return nil
		case stream.LimitExceeded:
			s.metrics.rateExceeded.Inc()
			return kinesis.SubscribeRateExceeded(s.consumer.Name, stream.ShardName(s.t.s.Number), s.t.v.Name, s.t.account)
		default:
			if !mayRetry(kind) || !patience.wait(m, kind) {
				return c.fail(err, s.t.subject())
			}
		}
	}
}

// another says that another subscription of the consumer has the shard.
func (s *subscription) another() *kinesis.Error {
	return kinesis.AnotherSubscription(s.t.account, s.t.v.Name, stream.ShardName(s.t.s.Number), s.consumer.Name)
}

// run writes the events until the subscription ends.
func (s *subscription) run(w *eventWriter) {
	failure := s.refusal
	if !w.write(initialFrame()) {
		return
	}
	var outage *patience
	for failure == nil && s.ctx.Err() == nil && !w.failed {
		var m *metadata
		if m, failure = s.look(); failure != nil {
			break
		}
		if s.pending != nil {
			failure = s.deliver(w)
			continue
		}
		if isAtEnd(s.t.s, s.next) {
			failure = s.finish(w)
			break
		}
		silence := w.spoke.Add(s.c.g.cfg.SubscriptionBeat + beatGrace)
		if s.ended {
			s.awaitEnd(silence)
		} else {
			e, err := s.receive(silence)
			kind := kindOf(err)
			switch {
			case err == nil:
				s.heard(e)
				outage = nil
				continue
			case s.ctx.Err() != nil:
				return
			case kind == stream.WrongState, kind == stream.AlreadyExists:
				failure = s.another()
			case mayRetry(kind), kind == stream.NotFound:
				// What does not exist is for the metadata to say, which then says
				// what of it; a broker may be behind it, or we.
				if outage == nil {
					outage = s.newOutage()
				}
				if !outage.wait(m, kind) && s.ctx.Err() == nil {
					failure = s.c.fail(err, s.t.subject())
				}
			default:
				failure = s.c.fail(err, s.t.subject())
			}
		}
		if failure == nil && time.Since(w.spoke) >= s.c.g.cfg.SubscriptionBeat {
			s.speak(w)
		}
	}
	if failure != nil && s.ctx.Err() == nil {
		w.write(exceptionFrame(failure))
	}
}

// look takes over what the metadata says now, and the error if that ends the
// subscription.
func (s *subscription) look() (*metadata, *kinesis.Error) {
	m := s.c.g.meta.load()
	if m == s.t.m {
		return m, nil
	}
	v := m.byID[s.t.v.Id]
	if v == nil || !s.stays(v) {
		return m, s.gone()
	}
	shard := v.shard(s.t.s.Number)
	if shard == nil || shard.State == pb.ShardState_SHARD_STATE_EXPIRED {
		return m, s.gone()
	}
	s.t.m, s.t.v, s.t.s = m, v, shard
	return m, nil
}

// stays reports whether the stream as it is in some metadata still has the
// consumer.
func (s *subscription) stays(v *streamView) bool {
	return v.Status != pb.StreamStatus_STREAM_STATUS_DELETING &&
		v.consumer(s.consumer).GetStatus() == pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE
}

// gone tells what is not there any more: the stream or the consumer.
func (s *subscription) gone() *kinesis.Error {
	v := s.c.g.meta.load().byID[s.t.v.Id]
	if v == nil || v.Status == pb.StreamStatus_STREAM_STATUS_DELETING {
		return kinesis.StreamNotFound(s.t.v.Name, s.t.account)
	}
	if !s.stays(v) {
		return kinesis.ConsumerNotFound(s.arn, s.t.account)
	}
	return kinesis.ShardDoesNotExist(stream.ShardName(s.t.s.Number), s.t.v.Name, s.t.account)
}

// heard takes over the leader's word.
func (s *subscription) heard(e *pb.TailEvent) {
	s.pending, s.ended = e, e.Ended
	s.tip = tip{stream.Offset(e.HighWatermark), e.LastArrivalMs, e.Settling}
}

// newOutage begins the patience with a leader that is not there.
func (s *subscription) newOutage() *patience {
	c := s.c
	if c.cancel != nil {
		c.cancel()
	}
	c.waiting, c.cancel = context.WithTimeout(s.ctx, c.g.cfg.RequestTimeout)
	return &patience{c: c}
}

// Bounds of one event.
const (
	maxEventRecords = 10_000
	// maxEventBytes, of data and partition keys. One record is always taken, so
	// that an event is less than 16 MiB of JSON.
	maxEventBytes = 1 << 20
	// smallEvent is what an event may take without asking for room.
	smallEvent = 16 << 10
	// largeEvent is what an event takes at most if its records are not larger than
	// those that a leader pushes together, or one shard takes in a second.
	largeEvent = 1 << 20

	// beatGrace is how much later than it should a leader may speak.
	beatGrace = 500 * time.Millisecond
)

// deliver gives the client an event of what is pending.
func (s *subscription) deliver(w *eventWriter) *kinesis.Error {
	e := s.pending
	run, err := choose(e.Batches, s.next, maxEventRecords, maxEventBytes, func(b stream.Batch) (stream.Batch, error) {
		return s.c.g.decrypt(s.ctx, s.t.m, s.t.v, b)
	})
	if err != nil {
		return s.c.fail(err, s.t.subject())
	}
	if run.records == 0 {
		s.pending = nil
		s.next = max(s.next, stream.Offset(e.LogStart))
		// A leader that has changed begins with nothing to say, which is news once.
		if s.given && time.Since(w.spoke) < s.c.g.cfg.SubscriptionBeat/2 {
			return nil
		}
	}
	size := run.bytes*4/3 + run.records*256 + 1024
	if size > smallEvent {
		raw := 0
		for _, b := range e.Batches {
			raw += len(b)
		}
		budget := s.c.g.events
		if size+raw > largeEvent {
			budget = s.c.g.largeEvents
		}
		held := min(int64(size+raw), budget.size)
		waiting, cancel := context.WithDeadline(s.ctx, w.spoke.Add(s.c.g.cfg.SubscriptionBeat))
		err := budget.acquire(waiting, held)
		cancel()
		if err != nil { // others have it all: later
			s.speak(w)
			return nil
		}
		defer budget.release(held)
	}
	next := s.next
	if run.records > 0 {
		next = run.to
	}
	behind := s.c.millisBehind(run, next, s.tip)
	s.event(w, size, &kinesis.SubscribeEvent{
		RecordRun: kinesis.RecordRun{
			Shard: s.t.s.Number, Created: createdSecond(s.t.s), Batches: run.batches, From: run.from, To: run.to,
		},
		ContinuationSequenceNumber: s.continuation(next),
		MillisBehindLatest:         behind,
	})
	if w.failed {
		return nil
	}
	s.next = next
	if n := len(e.Batches); n == 0 || run.records == 0 || s.next >= stream.Batch(e.Batches[n-1]).End() {
		s.pending = nil
	}
	s.metrics.records.Add(float64(run.records))
	s.metrics.bytes.Add(float64(run.bytes))
	s.metrics.behind.Set(float64(behind) / 1000)
	s.t.v.metrics.outRecords.Add(float64(run.records))
	s.t.v.metrics.outBytes.Add(float64(run.bytes))
	s.t.v.metrics.shard(s.t.s.Number).gave(run.records, run.bytes)
	return nil
}

// speak writes an event that says nothing new, since it is time for one.
func (s *subscription) speak(w *eventWriter) {
	s.event(w, 0, &kinesis.SubscribeEvent{
		ContinuationSequenceNumber: s.continuation(s.next),
		MillisBehindLatest:         s.c.millisBehind(readRun{}, s.next, s.tip),
	})
}

// awaitEnd waits until the metadata shows the end of the shard that its leader
// has told of: it names the children.
func (s *subscription) awaitEnd(until time.Time) {
	ctx, cancel := context.WithDeadline(s.ctx, until)
	defer cancel()
	id, number := s.t.v.Id, s.t.s.Number
	m, err := s.c.g.meta.await(ctx, func(m *metadata) bool {
		v := m.byID[id]
		if v == nil || !s.stays(v) {
			return true
		}
		shard := v.shard(number)
		return shard == nil || shard.State != pb.ShardState_SHARD_STATE_OPEN && shard.State != pb.ShardState_SHARD_STATE_SEALING
	})
	if err != nil {
		return
	}
	if v := m.byID[id]; v != nil && v.shard(number) != nil {
		// Nothing lies between the two but what was given up as lost.
		s.next = max(s.next, stream.Offset(v.shard(number).FinalOffset))
	}
}

// finish writes the last event of a closed shard.
func (s *subscription) finish(w *eventWriter) *kinesis.Error {
	children := childShards(s.t.v, s.t.s.Number)
	if children == nil { // it has expired with them
		return s.gone()
	}
	s.event(w, 0, &kinesis.SubscribeEvent{ChildShards: children})
	return nil
}

func (s *subscription) event(w *eventWriter, size int, e *kinesis.SubscribeEvent) {
	b := getBuffer(size)
	b = kinesis.AppendSubscribeEvent(beginFrame(b, subscribeEvent), e)
	b = endFrame(b, subscribeEvent)
	if w.write(b) {
		s.given = true
		s.metrics.events.Inc()
	}
	putBuffer(b)
}

// continuation gives a number behind all that has been given. It rises with time
// also when there is nothing to give.
func (s *subscription) continuation(next stream.Offset) string {
	s.second = max(s.second, s.c.g.cfg.Now().Unix())
	return stream.ContinuationSequence(s.t.s.Number, createdSecond(s.t.s), next, s.second).String()
}
