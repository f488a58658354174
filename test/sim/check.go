package sim

import (
	"slices"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

func records(b stream.Batch, f func(stream.Offset, string)) {
	for o, r := range b.Records() {
		f(o, string(r.Data)+string(rune(r.Ordinal)))
	}
}

// sawBatch checks I4: an epoch and an offset name one record, ever.
func (w *world) sawBatch(key stream.ReplicaKey, b stream.Batch) {
	records(b, func(o stream.Offset, v string) {
		k := at{key.Shard, b.Epoch(), o}
		if old, ok := w.payloads[k]; ok && old != v {
			w.fail("I4: epoch %d, offset %d of %s names two records", b.Epoch(), o, key.Shard)
		}
		w.payloads[k] = v
	})
}

// commitAt notes that a batch was shown to be committed.
func (w *world) commitAt(shard stream.ShardID, b stream.Batch) {
	m := w.committed[shard]
	if m == nil {
		m = make(map[stream.Offset]string)
		w.committed[shard] = m
	}
	records(b, func(o stream.Offset, v string) {
		if old, ok := m[o]; ok && old != v {
			w.fail("I12: the committed record at offset %d of %s has changed", o, shard)
		}
		m[o] = v
	})
}

// check holds the invariants against what is there now.
func (w *world) check() {
	w.checkMatching()
	w.checkInSync()
	w.checkClosed()
	w.checkTips()
}

// checkTips holds the other half of I12: a leader that says of itself that it has
// settled shows all that was ever shown as committed.
func (w *world) checkTips() {
	for _, sh := range w.state().Shards(w.streamID) {
		shard := shardID(sh.StreamId, sh.Number)
		for _, n := range w.nodes {
			r := n.replicas[stream.ReplicaKey{Shard: shard, Replica: stream.ReplicaID(sh.Leader)}]
			if r == nil || r.Status().Epoch != stream.Epoch(sh.Epoch) {
				continue
			}
			tip, err := r.Read(0, 0, 0, 0)
			if err != nil || tip.Settling {
				continue
			}
			for o := range w.committed[shard] {
				if o >= tip.HighWatermark {
					w.fail("I12: the leader of %s in epoch %d shows %d as the end, and offset %d was committed", shard, sh.Epoch, tip.HighWatermark, o)
				}
			}
		}
	}
}

// checkMatching holds I5: the same epoch at the same offset in two logs means
// the same records before.
func (w *world) checkMatching() {
	type one struct {
		key stream.ReplicaKey
		c   *content
	}
	logs := make(map[stream.ShardID][]one)
	for _, n := range w.nodes {
		for _, key := range sortedKeys(n.logs) {
			logs[key.Shard] = append(logs[key.Shard], one{key, n.logs[key].mem})
		}
	}
	for shard, all := range logs {
		for i := range all {
			for j := range i {
				a, b := flatten(all[i].c), flatten(all[j].c)
				same := false
				low := max(all[i].c.start, all[j].c.start)
				for o := min(all[i].c.end(), all[j].c.end()); o > low; o-- {
					x, y := a[o-1], b[o-1]
					same = same || x.epoch == y.epoch
					if same && x != y {
						w.fail("I5: %s and %s of %s have an epoch in common above offset %d, where they differ", all[i].key, all[j].key, shard, o-1)
					}
				}
			}
		}
	}
}

type record struct {
	epoch stream.Epoch
	value string
}

func flatten(c *content) map[stream.Offset]record {
	m := make(map[stream.Offset]record)
	for _, b := range c.batches {
		records(b, func(o stream.Offset, v string) { m[o] = record{b.Epoch(), v} })
	}
	return m
}

// checkInSync holds I2: whoever could be elected next has everything that was
// shown as committed, on its disk.
func (w *world) checkInSync() {
	for _, sh := range w.state().Shards(w.streamID) {
		shard := shardID(sh.StreamId, sh.Number)
		for _, rep := range sh.Replicas {
			if rep.State != pb.ReplicaState_REPLICA_STATE_CREATED || !slices.Contains(sh.InSync, rep.Id) {
				continue
			}
			n := w.nodeOf(stream.NodeID(rep.NodeId))
			key := stream.ReplicaKey{Shard: shard, Replica: stream.ReplicaID(rep.Id)}
			c := n.disk.durable[key]
			if c == nil {
				if !n.registered || n.disk.incarnation != w.state().Broker(string(n.id)).GetIncarnation() {
					continue // lost, and not yet known to be
				}
				w.fail("I8: in-sync replica %s is on no disk", key)
			}
			have := flatten(c)
			for o, v := range w.committed[shard] {
				if o >= max(c.start, w.low[shard]) && have[o].value != v {
					w.fail("I2: in-sync replica %s lacks the committed record at offset %d on its disk", key, o)
				}
			}
		}
	}
}

// checkSeal holds I21 when a batch is acknowledged: it does not stand behind the
// end of a closed shard, and no child takes records before its parents have
// their ends.
func (w *world) checkSeal(shard stream.ShardID, b stream.Batch) {
	sh := w.state().Shard(uint64(shard.Stream), shard.Number)
	if sh.State == pb.ShardState_SHARD_STATE_CLOSED && uint64(b.End()) > sh.FinalOffset {
		w.fail("I21: offset %d of %s is acknowledged, which was closed at %d", b.End(), shard, sh.FinalOffset)
	}
	if b.Arrival() < sh.CreatedMs {
		w.fail("I21: a record of %s arrived at %d, and the shard was created at %d", shard, b.Arrival(), sh.CreatedMs)
	}
	for _, p := range sh.Parents {
		if parent := w.state().Shard(sh.StreamId, p); parent.LastArrivalMs > parent.ClosedMs {
			w.fail("I21: %s has a record of %d, and was closed at %d", shardID(sh.StreamId, p), parent.LastArrivalMs, parent.ClosedMs)
		}
		if parent := w.state().Shard(sh.StreamId, p); parent.State != pb.ShardState_SHARD_STATE_CLOSED {
			w.fail("I21: %s takes records while its parent %d is %s", shard, p, parent.State)
		}
	}
}

// checkClosed holds that what is committed of a closed shard ends at its end.
func (w *world) checkClosed() {
	for _, sh := range w.state().Shards(w.streamID) {
		if sh.State != pb.ShardState_SHARD_STATE_CLOSED {
			continue
		}
		committed := w.committed[shardID(sh.StreamId, sh.Number)]
		for o := range committed {
			if uint64(o) >= sh.FinalOffset {
				w.fail("I21: offset %d of shard %d is committed, which was closed at %d", o, sh.Number, sh.FinalOffset)
			}
		}
	}
}

// checkMetadata holds what must be true of every step of the metadata.
func (w *world) checkMetadata(before, after *raftfsm.State) {
	for _, sh := range after.Shards(w.streamID) {
		old := before.Shard(sh.StreamId, sh.Number)
		switch {
		case old == nil:
			continue
		case sh.Epoch < old.Epoch || sh.Version < old.Version:
			w.fail("epoch or version of shard %d goes back", sh.Number)
		case sh.Leader != old.Leader && sh.Epoch == old.Epoch:
			w.fail("the leader of shard %d changes in epoch %d", sh.Number, sh.Epoch)
		case sh.State == pb.ShardState_SHARD_STATE_OPEN && len(sh.InSync) < int(sh.MinInSync):
			w.fail("I1: the in-sync set of shard %d is %v, the floor is %d", sh.Number, sh.InSync, sh.MinInSync)
		case sh.Leader != 0 && !slices.Contains(sh.InSync, sh.Leader):
			w.fail("the leader of shard %d is not in sync", sh.Number)
		}
		if sh.Epoch != old.Epoch {
			w.Counts.Elections++
		}
		if !slices.Equal(sh.InSync, old.InSync) {
			w.Counts.InSyncChanges++
		}
	}
}

// heal lets everything return and holds that the shards come back: they take
// a put each, everything committed is there, and all replicas are equal.
func (w *world) heal() {
	for _, n := range w.nodes {
		if !n.up {
			n.start()
		}
		if !n.registered {
			n.register()
		}
		w.commit(&pb.Command{Op: &pb.Command_UnfenceBroker{UnfenceBroker: &pb.UnfenceBroker{NodeId: string(n.id), Incarnation: n.incarnation}}})
	}
	wrong := ""
	for round := range 400 {
		w.clock += 200 * time.Millisecond
		if round > 100 { // what was evicted again and again waits for minutes
			w.clock += 2 * time.Second
		}
		for range 4 {
			w.settle()
		}
		w.check()
		if wrong = w.healed(); wrong == "" {
			return
		}
	}
	w.fail("does not heal: %s", wrong)
}

// settle does all that can be done now, without any fault.
func (w *world) settle() {
	for i, a := range w.nodes {
		for j := range w.nodes {
			if wire := w.wires[[2]int{i, j}]; i != j && !wire.up {
				wire.up = true
				for _, key := range sortedKeys(a.replicas) {
					a.replicas[key].PeerUp(nodeID(j))
				}
			}
		}
	}
	for len(w.proposals) > 0 {
		w.propose(0)
	}
	for _, n := range w.nodes {
		n.learn(len(w.states) - 1)
		n.disk.sync(len(n.disk.journal))
		for len(n.pushes) > 0 {
			p, _ := pick(w, n.pushes)
			n.sendPush(p)
		}
		for len(n.answers) > 0 {
			p, _ := pick(w, n.answers)
			n.sendAnswer(p)
		}
	}
	for i := range w.nodes {
		for j := range w.nodes {
			wire := w.wires[[2]int{i, j}]
			for len(wire.frames) > 0 {
				d := wire.frames[0]
				wire.frames = slices.Delete(wire.frames, 0, 1)
				d()
			}
		}
	}
	w.step++
	w.sealParents()
	for _, n := range w.nodes {
		for _, key := range sortedKeys(n.ticking) {
			if !n.replicas[key].Tick() {
				delete(n.ticking, key)
			}
		}
	}
}

// healed says what is not well yet, "" if everything is.
func (w *world) healed() string {
	if w.state().Stream(w.streamID).GetReshard() != nil {
		return "a reshard has not ended"
	}
	for _, sh := range w.state().Shards(w.streamID) {
		shard := shardID(sh.StreamId, sh.Number)
		if len(sh.InSync) < len(sh.Replicas) {
			return "the in-sync set is not whole"
		}
		var leader *content
		for _, rep := range sh.Replicas {
			n := w.nodeOf(stream.NodeID(rep.NodeId))
			key := stream.ReplicaKey{Shard: shard, Replica: stream.ReplicaID(rep.Id)}
			if rep.Id == sh.Leader && n.replicas[key] != nil {
				s := n.replicas[key].Status()
				if !s.Leading || s.HighWatermark != s.End {
					return "the leader has not committed everything"
				}
				leader = n.logs[key].mem
			}
		}
		if leader == nil {
			return "there is no leader"
		}
		have := flatten(leader)
		for o, v := range w.committed[shard] {
			if o >= leader.start && have[o].value != v {
				w.fail("I1: the committed record at offset %d of %s is lost", o, shard)
			}
		}
		if leader.start > w.low[shard] {
			w.fail("I17: %s begins at %d, expired was %d", shard, leader.start, w.low[shard])
		}
		for _, rep := range sh.Replicas {
			n := w.nodeOf(stream.NodeID(rep.NodeId))
			l := n.logs[stream.ReplicaKey{Shard: shard, Replica: stream.ReplicaID(rep.Id)}]
			if l == nil || l.mem.end() != leader.end() { // a lost one has left the list
				return "a replica is behind"
			}
		}
	}
	return ""
}
