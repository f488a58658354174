package raftfsm

import (
	"strings"
	"testing"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func TestDrain(t *testing.T) {
	w := newCluster(t, "a", "b", "c")
	id := w.active("s", 1, "a", "b", "c")
	res := w.refuses(stream.WrongState, drain("a"))
	if !strings.Contains(res.GetDetail(), "would leave 2 brokers") || strings.Contains(res.GetDetail(), "\n") || res.GetCurrent() != 2 || res.GetLimit() != 3 {
		t.Error(res)
	}
	w.must(rejoin("d", "disk-d", 0))
	w.now = 4000
	w.must(drain("a"))
	if b := w.s.Broker("a"); w.broker("a") != "DRAINING 1" || !b.GetDraining() || b.GetChangedMs() != 4000 || b.GetReason() == "" {
		t.Errorf("broker %v", b)
	}
	drained := w.s.Broker("a")
	w.now = 5000
	w.must(drain("a"))
	if w.s.Broker("a") != drained {
		t.Error("a repeat changes something")
	}
	w.refuses(stream.WrongState, drain("b")) // two at a time would leave too few
	w.refuses(stream.NotFound, drain("x"))
	w.looks(id, "a* b c") // it serves until others have taken over
	if got := w.items(add(placeOn(w.s.Shard(id, 0), "d"))); got != "NONE" {
		t.Error(got)
	}
	w.must(created("d", 1, w.refs(id, "d")...))
	w.refuses(stream.Stale, w.placed(split(id, 0, stream.HashKey{Hi: 9}), "a", "b", "c"))

	// Through death and return, through stop and restart.
	w.must(fence("a", 1))
	if w.broker("a") != "FENCED 1" || !w.s.Broker("a").GetDraining() {
		t.Error(w.s.Broker("a"))
	}
	w.must(unfence("a", 1))
	if w.broker("a") != "DRAINING 1" {
		t.Error(w.broker("a"))
	}
	w.must(stop("a", 1))
	if w.broker("a") != "STOPPING 1" {
		t.Error(w.broker("a"))
	}
	w.must(rejoin("a", "disk-a", 1))
	if w.broker("a") != "DRAINING 2" || w.s.Broker("a").GetReason() == "" {
		t.Error(w.s.Broker("a"))
	}
	// What it has counts as long as it is needed.
	w.looks(id, "[a] b* c [d]")
	sh := w.s.Shard(id, 0)
	if got := w.items(alter("b", 1, adding(inSync(sh, "a", "b", "c"), sh, "a", 2))); got != "NONE" {
		t.Error(got)
	}
	w.looks(id, "a b* c [d]")

	w.must(undrain("a"))
	if w.broker("a") != "LIVE 2" || w.s.Broker("a").GetDraining() || w.s.Broker("a").GetReason() != "" {
		t.Error(w.s.Broker("a"))
	}
	same := w.s.Broker("a")
	w.must(undrain("a"))
	if w.s.Broker("a") != same {
		t.Error("a repeat changes something")
	}
	w.refuses(stream.NotFound, undrain("x"))
	// The wish can be changed while the broker is down.
	w.must(fence("a", 2))
	w.must(drain("a"))
	if w.broker("a") != "FENCED 2" {
		t.Error(w.broker("a"))
	}
	w.must(undrain("a"))
	w.must(unfence("a", 2))
	if w.broker("a") != "LIVE 2" {
		t.Error(w.broker("a"))
	}
}

// A dead broker is none that shards could go to.
func TestDrainCountsLivingBrokers(t *testing.T) {
	w := newCluster(t, "a", "b", "c")
	w.active("s", 1, "a", "b")
	w.must(fence("c", 1))
	w.refuses(stream.WrongState, drain("a"))
	w.must(unfence("c", 1))
	w.must(drain("a"))

	alone := newCluster(t, "a")
	alone.refuses(stream.WrongState, drain("a"))
}

func TestRemoveBroker(t *testing.T) {
	w := newCluster(t, "a", "b", "c")
	id := w.active("s", 1, "a", "b")
	w.refuses(stream.NotFound, removeBroker("x", false))
	if res := w.refuses(stream.WrongState, removeBroker("c", false)); !strings.Contains(res.GetDetail(), "drain it first") {
		t.Error(res)
	}
	w.must(drain("a"))
	if res := w.refuses(stream.WrongState, removeBroker("a", false)); !strings.Contains(res.GetDetail(), "still holds replicas of 1 shards") {
		t.Error(res)
	}
	w.must(fence("a", 1))
	w.refuses(stream.WrongState, removeBroker("a", false))
	w.must(unfence("a", 1))
	w.must(add(placeOn(w.s.Shard(id, 0), "c")))
	w.must(created("c", 1, w.refs(id, "c")...))
	sh := w.s.Shard(id, 0)
	w.must(alter("b", 1, adding(inSync(sh, "a", "b", "c"), sh, "c", 1)))
	w.must(drop(changeOf(w.s.Shard(id, 0), "a")))
	w.looks(id, "b* c")
	w.refuses(stream.WrongState, removeBroker("a", true))
	w.must(removeBroker("a", false))
	w.must(removeBroker("a", false))
	if w.broker("a") != "GONE 1" {
		t.Error(w.broker("a"))
	}
	for _, c := range []*pb.Command{drain("a"), undrain("a"), fence("a", 1), rejoin("a", "disk-a", 1)} {
		w.refuses(stream.WrongState, c)
	}
	w.must(unfence("a", 1))
	if w.broker("a") != "GONE 1" {
		t.Error(w.broker("a"))
	}
	// Its name may go to a new one, which nobody wants drained.
	renewed := w.s
	w.must(rejoin("a", "disk-a2", 0))
	if w.broker("a") != "LIVE 2" || w.s.Broker("a").GetDraining() {
		t.Error(w.s.Broker("a"))
	}
	w.s = renewed
	w.must(removeBroker("a", true))
	if w.s.Broker("a") != nil || len(w.s.Brokers()) != 2 {
		t.Error(w.s.Brokers())
	}
	w.refuses(stream.NotFound, removeBroker("a", true))

	// A dead one that has been replaced needs no drain.
	w.must(rejoin("d", "disk-d", 0))
	w.must(fence("d", 1))
	w.must(removeBroker("d", false))
}
