package broker

import (
	"testing"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func TestRulesOfSubscriptions(t *testing.T) {
	const taken = stream.Kind(0)
	type step struct {
		at      time.Duration
		id      byte
		resumed bool
		age     time.Duration
		end     byte // ends this subscription first
		want    stream.Kind
		ends    byte // whose seat it takes
	}
	for name, steps := range map[string][]step{
		"a call within 5 s of one that succeeded is refused": {
			{id: 1},
			{at: 1 * time.Second, id: 2, want: stream.AlreadyExists},
			{at: 4999 * time.Millisecond, id: 3, want: stream.AlreadyExists},
		},
		"a later one takes over": {
			{id: 1},
			{at: 5 * time.Second, id: 2, ends: 1},
			{at: 9 * time.Second, id: 3, want: stream.AlreadyExists},
			{at: 10 * time.Second, id: 3, ends: 2},
		},
		"refused calls don't count for the 5 s": {
			{id: 1},
			{at: 4 * time.Second, id: 2, want: stream.AlreadyExists},
			{at: 5 * time.Second, id: 3, ends: 1},
		},
		"the 5 s count also when the client is gone": {
			{id: 1},
			{at: 3 * time.Second, id: 2, end: 1, want: stream.AlreadyExists},
			{at: 5 * time.Second, id: 2},
		},
		"one call a second": {
			{id: 1},
			{id: 2, want: stream.AlreadyExists},
			{id: 3, want: stream.LimitExceeded},
			{at: 999 * time.Millisecond, id: 4, want: stream.LimitExceeded},
			{at: 1 * time.Second, id: 5, want: stream.AlreadyExists},
			{at: 1500 * time.Millisecond, id: 6, want: stream.LimitExceeded},
			{at: 2 * time.Second, id: 7, want: stream.AlreadyExists},
		},
		"the same subscription over another connection": {
			{id: 1},
			{at: 2 * time.Second, id: 1, ends: 1},
			{at: 4 * time.Second, id: 1, resumed: true, age: 4 * time.Second, ends: 1},
			{at: 4900 * time.Millisecond, id: 2, want: stream.AlreadyExists},
			{at: 5900 * time.Millisecond, id: 2, ends: 1},
		},
		"resumed at a new leader": {
			{at: 100 * time.Second, id: 1, resumed: true, age: 2 * time.Second},
			{at: 102 * time.Second, id: 2, want: stream.AlreadyExists},
			{at: 103 * time.Second, id: 2, ends: 1},
		},
		"resumed after another has taken over": {
			{at: 100 * time.Second, id: 2},
			{at: 101 * time.Second, id: 1, resumed: true, age: 60 * time.Second, want: stream.WrongState},
			{at: 103 * time.Second, id: 1, end: 2, resumed: true, age: 62 * time.Second, want: stream.WrongState},
		},
		"resumed, and younger than who is there": {
			{at: 100 * time.Second, id: 1, resumed: true, age: 60 * time.Second},
			{at: 101 * time.Second, id: 2, resumed: true, age: 50 * time.Second, ends: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s seats
			holders := make(map[byte]*holder)
			sub := func(st step) *pb.Subscription {
				id := [16]byte{st.id}
				return &pb.Subscription{Consumer: "c", ConsumerCreatedS: 7, Id: id[:], Resumed: st.resumed, AgeMs: uint64(st.age.Milliseconds())}
			}
			for _, st := range steps {
				if st.end != 0 {
					s.leave(sub(step{id: st.end}), holders[st.end], true)
				}
				before := holders[st.ends]
				h, err := s.take(sub(st), time.Hour+st.at)
				if got := stream.KindOf(err); err == nil && st.want != taken || err != nil && got != st.want {
					t.Fatalf("at %v, %d: %v, want %v", st.at, st.id, err, st.want)
				}
				for id, o := range holders {
					select {
					case <-o.displaced:
						if o != before {
							t.Fatalf("at %v, %d: %d was displaced", st.at, st.id, id)
						}
						delete(holders, id)
					default:
						if o == before {
							t.Fatalf("at %v, %d: %d was not displaced", st.at, st.id, id)
						}
					}
				}
				if err == nil {
					holders[st.id] = h
				}
			}
		})
	}
}

func TestSubscriptionThatWasNeverServedDidNotSucceed(t *testing.T) {
	var s seats
	sub := func(id byte) *pb.Subscription {
		return &pb.Subscription{Consumer: "c", Id: append(make([]byte, 15), id)}
	}
	h, err := s.take(sub(1), 0)
	if err != nil {
		t.Fatal(err)
	}
	s.leave(sub(1), h, false)
	if _, err := s.take(sub(2), 0); err != nil {
		t.Fatal(err)
	}
}

func TestSeatsAreOfOneConsumerAndForgotten(t *testing.T) {
	var s seats
	for i := range int64(1000) {
		now := time.Duration(i) * time.Second
		sub := &pb.Subscription{Consumer: "c", ConsumerCreatedS: i, Id: make([]byte, 16)}
		h, err := s.take(sub, now)
		if err != nil { // of one name, but another consumer each
			t.Fatal(err)
		}
		s.leave(sub, h, true)
	}
	if n := len(s.byConsumer); n > 10 {
		t.Fatalf("%d seats are remembered", n)
	}
}
