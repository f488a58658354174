package broker

import (
	"sync"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// The rules of subscriptions, as the leader of their shard keeps them for all
// gateways: a consumer has one subscription to a shard; a call within takeoverAfter
// of one that succeeded is refused, a later one takes over; and of calls there is
// one a second. They are no part of the metadata. With another leader they begin
// anew, but for the subscriptions that go on there, which say how old they are.

const (
	takeoverAfter = 5 * time.Second
	// A consumer may call once a second, and once more after a while without: the
	// second of two calls is to hear of the first, and not of the rate.
	callEvery = time.Second
	callBurst = 2
)

// consumerID is a registered consumer of a stream; another of the same name that
// is registered later has another second.
type consumerID struct {
	name     string
	createdS int64
}

// seats are the subscriptions to one shard.
type seats struct {
	mu         sync.Mutex
	byConsumer map[consumerID]*seat
}

// seat is what is known of a consumer's subscription, all guarded by seats.mu.
type seat struct {
	holder *holder
	id     [16]byte
	// When the call succeeded, by a clock that only goes forward; it counts also
	// when the subscription has ended. succeeded is false if there was none.
	succeeded bool
	begun     time.Duration
	full      time.Duration // when callBurst calls are allowed again
}

// holder is a subscription that goes on.
type holder struct {
	displaced chan struct{} // closed when another one has taken over
}

// take gives the seat of a consumer to a subscription. Kinds: LimitExceeded,
// AlreadyExists, and WrongState for one that was resumed after another had taken
// over.
func (s *seats) take(sub *pb.Subscription, now time.Duration) (*holder, error) {
	const op = "broker.subscribe"
	if len(sub.Id) != 16 {
		return nil, stream.Errorf(stream.Invalid, op, "a subscription's id of %d bytes", len(sub.Id))
	}
	id, key := [16]byte(sub.Id), consumerID{sub.Consumer, sub.ConsumerCreatedS}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byConsumer[key]
	if t == nil {
		t = s.addLocked(key, now)
	}
	begun := now - time.Duration(sub.AgeMs)*time.Millisecond
	switch {
	case t.succeeded && t.id == id:
		begun = t.begun // the same one, over another connection
	case sub.Resumed && t.succeeded && t.begun > begun:
		return nil, errDisplaced
	case sub.Resumed:
	case !t.mayCall(now):
		return nil, stream.Errorf(stream.LimitExceeded, op, "consumer %s calls more than once a second", sub.Consumer)
	case t.succeeded && now-t.begun < takeoverAfter:
		return nil, stream.Errorf(stream.AlreadyExists, op, "consumer %s has subscribed just now", sub.Consumer)
	}
	if t.holder != nil {
		close(t.holder.displaced)
	}
	t.holder = &holder{displaced: make(chan struct{})}
	t.succeeded, t.id, t.begun = true, id, begun
	return t.holder, nil
}

var errDisplaced = stream.Errorf(stream.WrongState, "broker.subscribe", "another subscription of the consumer has taken over")

// mayCall counts a call, unless it is one too many.
func (t *seat) mayCall(now time.Duration) bool {
	full := max(t.full, now) + callEvery
	if full > now+callBurst*callEvery {
		return false
	}
	t.full = full
	return true
}

// addLocked makes a seat, and forgets those that say nothing any more.
func (s *seats) addLocked(key consumerID, now time.Duration) *seat {
	if s.byConsumer == nil {
		s.byConsumer = make(map[consumerID]*seat)
	}
	for k, t := range s.byConsumer {
		if t.holder == nil && (!t.succeeded || now-t.begun >= takeoverAfter) && t.full <= now {
			delete(s.byConsumer, k)
		}
	}
	t := new(seat)
	s.byConsumer[key] = t
	return t
}

// leave frees the seat of a subscription that has ended. One that never began to
// be served did not succeed.
func (s *seats) leave(sub *pb.Subscription, h *holder, served bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byConsumer[consumerID{sub.Consumer, sub.ConsumerCreatedS}]
	if t == nil || t.holder != h {
		return // another has it
	}
	t.holder = nil
	if !served {
		t.succeeded = false
	}
}
