package raftfsm

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "shardstream/proto/shardstream/v1"
)

// drawCommand makes a command that often fits the state and sometimes doesn't.
func drawCommand(t *rapid.T, s *State) *pb.Command {
	node := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	name := rapid.SampledFrom([]string{"s", "t", "u", "v"})
	id := rapid.Custom(func(t *rapid.T) uint64 {
		if st := s.StreamByName(name.Draw(t, "name")); st != nil {
			return st.GetId()
		}
		return rapid.Uint64Range(0, 9).Draw(t, "id")
	})
	refs := func(node string) []*pb.ReplicaRef {
		w := &world{s: s}
		all := w.refs(id.Draw(t, "of"), node)
		keep := rapid.IntRange(0, len(all)).Draw(t, "keep")
		return all[:keep]
	}
	incarnation := func(node string) uint64 {
		if rapid.IntRange(0, 9).Draw(t, "stale") == 0 {
			return 0
		}
		return s.Broker(node).GetIncarnation()
	}
	var c *pb.Command
	switch rapid.IntRange(0, 43).Draw(t, "op") {
	case 38, 39, 40, 41, 42, 43:
		c = drawSetting(t, s, id.Draw(t, "id"))
	case 28, 29, 30, 31, 32, 33, 34, 35, 36, 37:
		c = drawReshard(t, s, node.Draw(t, "node"), id.Draw(t, "id"))
	case 0:
		c = initCmd(&pb.Limits{Shards: 12, OnDemandStreams: 2})
	case 1:
		n := node.Draw(t, "node")
		disk := rapid.SampledFrom([]string{"d1", "d1", "d1", "d2"}).Draw(t, "disk")
		c = rejoin(n, disk, incarnation(n))
		c.GetRegisterBroker().JournalFrame = rapid.Uint64Range(0, 3).Draw(t, "journal")
	case 2, 3, 4:
		nodes := rapid.SliceOfNDistinct(node, 1, 3, rapid.ID[string]).Draw(t, "nodes")
		c = create(name.Draw(t, "name"), rapid.IntRange(1, 5).Draw(t, "shards"), nodes...)
		c.GetCreateStream().Mode = pb.StreamMode(rapid.IntRange(0, 2).Draw(t, "mode"))
	case 5, 6:
		n := node.Draw(t, "node")
		c = created(n, incarnation(n), refs(n)...)
	case 7, 8:
		c = activate(id.Draw(t, "id"))
	case 9:
		c = deleteName(name.Draw(t, "name"), rapid.Int64Range(0, 100).Draw(t, "after"))
	case 10:
		c = remove(id.Draw(t, "id"))
	case 11:
		c = retention(id.Draw(t, "id"), rapid.Uint32Range(20, 60).Draw(t, "hours"), rapid.Bool().Draw(t, "up"))
	case 12:
		c = tag(id.Draw(t, "id"), 3, rapid.SampledFrom([]string{"x", "y", "z", "w"}).Draw(t, "key"))
		if rapid.Bool().Draw(t, "untag") {
			c = untag(id.Draw(t, "id"), "x", "y")
		}
	case 13:
		n := node.Draw(t, "node")
		c = suspect(n, incarnation(n), refs(n)...)
	case 14:
		var lost []*pb.LostRange
		for _, ref := range refs(node.Draw(t, "node")) {
			lost = append(lost, &pb.LostRange{Replica: ref, Start: 1, End: rapid.Uint64Range(0, 3).Draw(t, "end")})
		}
		c = acceptLoss(lost...)
	default:
		c = drawClusterCommand(t, s, node.Draw(t, "node"), id.Draw(t, "id"), incarnation)
	}
	c.TimeMs = rapid.Int64Range(0, 200).Draw(t, "time")
	if c.GetExpireShards() != nil && rapid.Bool().Draw(t, "long after") {
		c.TimeMs = s.now() + 70*3_600_000
	}
	return c
}

func encode(t interface{ Fatal(...any) }, s *State) []byte {
	var buf bytes.Buffer
	if err := s.WriteSnapshot(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestStateProperties(tb *testing.T) {
	rapid.Check(tb, func(t *rapid.T) {
		s, _ := NewState().Apply(1, initCmd(&pb.Limits{Shards: 12, OnDemandStreams: 2}))
		for i, node := range []string{"a", "b", "c", "d"} {
			s, _ = s.Apply(uint64(2+i), rejoin(node, "d1", 0))
		}
		if rapid.Bool().Draw(t, "begun") { // past the steps that random ones seldom find
			w := &world{tb: tb, s: s, index: 5}
			w.active("s", 1, "a", "b", "c")
			w.active("t", 2, "b", "c")
			w.active("u", 1, "d")
			s = w.s
		}
		first := s.Index() + 1
		steps := rapid.IntRange(1, 40).Draw(t, "steps")
		restoreAt := rapid.IntRange(0, steps).Draw(t, "restore at")
		restored := s // takes the same commands, through a snapshot in between
		var replay []*pb.Command
		began := s
		history := &history{}
		for i := range steps {
			c := drawCommand(t, s)
			replay = append(replay, c)
			before, bytesBefore := s, encode(t, s)
			var res, res2 *pb.CommandResult
			s, res = s.Apply(first+uint64(i), c)
			if !bytes.Equal(encode(t, before), bytesBefore) {
				t.Fatalf("%v changed the state that it was applied to", c)
			}
			if i == restoreAt {
				again, err := ReadSnapshot(bytes.NewReader(encode(t, restored)))
				if err != nil {
					t.Fatal(err)
				}
				restored = again
			}
			restored, res2 = restored.Apply(first+uint64(i), c)
			if !proto.Equal(res, res2) || !bytes.Equal(encode(t, s), encode(t, restored)) {
				t.Fatalf("after %v: %v, but %v when restored", c, res, res2)
			}
			checkRefusal(t, before, s, res)
			checkState(t, s)
			history.check(t, before, s, c)
			checkDiff(t, before, s)
		}
		checkDiff(t, nil, s)
		checkDiff(t, began, s)
		checkDiff(t, s, restored) // no pointer in common
		again := began
		for i, c := range replay {
			again, _ = again.Apply(first+uint64(i), c)
		}
		if !bytes.Equal(encode(t, s), encode(t, again)) {
			t.Fatal("a replay gave another state")
		}
	})
}

func checkRefusal(t *rapid.T, before, after *State, res *pb.CommandResult) {
	if res.GetError() == 0 {
		return
	}
	same := *after
	same.index = before.index
	if !bytes.Equal(encode(t, &same), encode(t, before)) {
		t.Fatalf("refused with %v, but changed", res)
	}
}

// checkState checks what holds of every state.
func checkState(t *rapid.T, s *State) {
	open := 0
	for _, st := range s.Streams() {
		if s.StreamByName(st.GetName()) != st {
			t.Fatalf("the name %q leads elsewhere", st.GetName())
		}
		open += countOpen(st, s.Shards(st.GetId()))
		for _, sh := range s.Shards(st.GetId()) {
			checkLeader(t, s, st, sh)
		}
		checkCover(t, s, st)
		checkSettings(t, st)
	}
	if open != s.OpenShards() {
		t.Fatalf("%d open shards, counted %d", s.OpenShards(), open)
	}
}

func checkLeader(t *rapid.T, s *State, st *pb.Stream, sh *pb.Shard) {
	isMember := func(id uint64) bool { return slices.Contains(sh.GetInSync(), id) }
	up := func(r *pb.Replica) bool { return electable(s.Broker(r.GetNodeId())) > 0 }
	leads, canLead := sh.GetLeader() == 0, false
	hosts := make(map[string]bool)
	members := 0
	for _, r := range sh.GetReplicas() {
		able := r.GetState() == pb.ReplicaState_REPLICA_STATE_CREATED && up(r) && isMember(r.GetId())
		leads = leads || able && r.GetId() == sh.GetLeader()
		canLead = canLead || able
		if isMember(r.GetId()) {
			members++
		}
		if r.GetState() == pb.ReplicaState_REPLICA_STATE_LOST {
			if !isMember(r.GetId()) {
				t.Fatalf("a lost replica that nobody needs: %v", sh)
			}
			continue
		}
		if hosts[r.GetNodeId()] {
			t.Fatalf("two replicas on %s: %v", r.GetNodeId(), sh)
		}
		hosts[r.GetNodeId()] = true
	}
	switch {
	case !leads:
		t.Fatalf("the leader is not in sync, undamaged and up (I2): %v", sh)
	case sh.GetLeader() == 0 && canLead:
		t.Fatalf("offline with an electable replica: %v", sh)
	case members != len(sh.GetInSync()):
		t.Fatalf("in-sync members that are no replicas: %v", sh)
	case len(sh.GetInSync()) > 0 && len(sh.GetInSync()) < int(sh.GetMinInSync()) && len(sh.GetRecoveries()) == 0:
		t.Fatalf("in-sync set below the floor (I1): %v", sh)
	case len(sh.GetInSync()) == 0 && (sh.GetState() == pb.ShardState_SHARD_STATE_OPEN || sh.GetState() == pb.ShardState_SHARD_STATE_SEALING):
		t.Fatalf("open without an in-sync set: %v", sh)
	case len(sh.GetInSync()) > 1 && sh.GetReplicationFactor() > 1 && sh.GetMinInSync() < 2:
		t.Fatalf("one disk is enough to lose records (I1): %v", sh)
	case sh.GetState() == pb.ShardState_SHARD_STATE_OPEN && st.GetStatus() == pb.StreamStatus_STREAM_STATUS_CREATING:
		t.Fatalf("open in a stream that is not: %v", sh)
	}
}

// history checks what holds between states.
type history struct{ streams, replicas uint64 }

func (h *history) check(t *rapid.T, before, after *State, c *pb.Command) {
	if after.now() < before.now() {
		t.Fatalf("time went from %d back to %d", before.now(), after.now())
	}
	highest := h.replicas
	for _, st := range after.Streams() {
		if before.Stream(st.GetId()) == nil {
			if st.GetId() <= h.streams {
				t.Fatalf("stream id %d was used before", st.GetId())
			}
			h.streams = st.GetId()
		}
		for i, sh := range after.Shards(st.GetId()) {
			old := before.Shard(st.GetId(), uint32(i))
			for _, r := range sh.GetReplicas() {
				// An operator may go back to a copy that was taken off the list.
				if replica(old, r.GetId()) == nil && r.GetId() <= h.replicas && c.GetRecoverShard().GetReplicaId() != r.GetId() {
					t.Fatalf("replica id %d was used before (I8)", r.GetId())
				}
				highest = max(highest, r.GetId())
			}
			if old != nil && old != sh {
				checkStep(t, before, old, sh, c)
			}
		}
	}
	h.replicas = highest
	for _, b := range after.Brokers() {
		old := before.Broker(b.GetNodeId())
		if draining := b.GetState() == pb.BrokerState_BROKER_STATE_DRAINING; draining && !b.GetDraining() ||
			b.GetDraining() && b.GetState() == pb.BrokerState_BROKER_STATE_LIVE {
			t.Fatalf("state and wish don't agree: %v", b)
		}
		if c.GetRegisterBroker().GetBroker().GetNodeId() != b.GetNodeId() || b == old {
			if b.GetIncarnation() != old.GetIncarnation() {
				t.Fatalf("incarnation of %v without a registration", b)
			}
			continue
		}
		if b.GetIncarnation() != old.GetIncarnation()+1 {
			t.Fatalf("incarnation %d after %d", b.GetIncarnation(), old.GetIncarnation())
		}
		before.each(func(e *entry) {
			for i, sh := range e.shards {
				now := after.Shard(e.stream.GetId(), uint32(i))
				if replica(sh, sh.GetLeader()).GetNodeId() == b.GetNodeId() && now.GetEpoch() <= sh.GetEpoch() {
					t.Fatalf("%s restarted and goes on in epoch %d (I4)", b.GetNodeId(), sh.GetEpoch())
				}
			}
		})
	}
}

// checkStep checks one change of a shard.
func checkStep(t *rapid.T, before *State, old, sh *pb.Shard, c *pb.Command) {
	switch {
	case sh.GetVersion() <= old.GetVersion() || sh.GetEpoch() < old.GetEpoch():
		t.Fatalf("changed without a new version: %v after %v", sh, old)
	case sh.GetLeader() != old.GetLeader() && sh.GetEpoch() == old.GetEpoch():
		t.Fatalf("two leaders in epoch %d: %v after %v", sh.GetEpoch(), sh, old)
	case sh.GetMinInSync() < old.GetMinInSync() && c.GetSetFactors() == nil && formed(old):
		t.Fatalf("the floor fell: %v after %v", sh, old)
	}
	checkEnds(t, old, sh)
	if !formed(old) || sh.GetState() == pb.ShardState_SHARD_STATE_EXPIRED {
		return
	}
	for _, id := range sh.GetInSync() {
		if slices.Contains(old.GetInSync(), id) || c.GetRecoverShard().GetReplicaId() == id && old.GetLeader() == 0 {
			continue
		}
		// Nothing but the leader's word lets a copy join (I9), and only one that
		// is there and will stay (I11).
		r := replica(old, id)
		if c.GetAlterInSync() == nil || r.GetState() != pb.ReplicaState_REPLICA_STATE_CREATED ||
			electable(before.Broker(r.GetNodeId())) == 0 || before.Broker(r.GetNodeId()).GetState() == pb.BrokerState_BROKER_STATE_STOPPING {
			t.Fatalf("replica %d joined: %v after %v", id, sh, old)
		}
	}
	gone := 0
	for _, id := range old.GetInSync() {
		if !slices.Contains(sh.GetInSync(), id) {
			gone++
		}
	}
	if sh.GetLeader() == 0 && gone > 0 && c.GetRegisterBroker() == nil {
		t.Fatalf("the set of an offline shard shrank: %v after %v", sh, old)
	}
}

// mirror is what a gateway keeps of a watch.
type mirror struct {
	index   uint64
	cluster *pb.ClusterInfo
	brokers []*pb.Broker
	streams map[uint64]*pb.Stream
	shards  map[string]*pb.Shard
}

func (m *mirror) apply(e *pb.MetadataEvent) {
	if e.GetReset_() {
		*m = mirror{streams: make(map[uint64]*pb.Stream), shards: make(map[string]*pb.Shard)}
	}
	m.index = e.GetIndex()
	if e.GetCluster() != nil {
		m.cluster = e.GetCluster()
	}
	if len(e.GetBrokers()) > 0 {
		m.brokers = e.GetBrokers()
	}
	for _, id := range e.GetRemovedStreams() {
		for i := range m.streams[id].GetNextShardNumber() {
			delete(m.shards, fmt.Sprint(id, "/", i))
		}
		delete(m.streams, id)
	}
	for _, s := range e.GetStreams() {
		m.streams[s.GetId()] = s
	}
	for _, sh := range e.GetShards() {
		m.shards[fmt.Sprint(sh.GetStreamId(), "/", sh.GetNumber())] = sh
	}
}

func mirrorOf(s *State) *mirror {
	m := &mirror{index: s.Index(), cluster: s.Cluster(), brokers: s.Brokers(), streams: make(map[uint64]*pb.Stream), shards: make(map[string]*pb.Shard)}
	for _, st := range s.Streams() {
		m.streams[st.GetId()] = st
		for _, sh := range s.Shards(st.GetId()) {
			m.shards[fmt.Sprint(sh.GetStreamId(), "/", sh.GetNumber())] = sh
		}
	}
	return m
}

func checkDiff(t *rapid.T, old, new *State) {
	events := Diff(old, new)
	m := &mirror{}
	if old != nil {
		m = mirrorOf(old)
	}
	for i, e := range events {
		if e.GetMore() != (i < len(events)-1) {
			t.Fatalf("event %d of %d has more = %v", i, len(events), e.GetMore())
		}
		m.apply(e)
	}
	if want := mirrorOf(new); !reflect.DeepEqual(m, want) {
		t.Fatalf("the events lead to\n%v\ninstead of\n%v", m, want)
	}
}

func TestDiffSize(t *testing.T) {
	w := newWorld(t, "a")
	before := w.s
	id := w.must(create("big", 10_000, "a")).GetStreamId()
	events := Diff(before, w.s)
	shards := 0
	for _, e := range events {
		if size := proto.Size(e); size > eventSize {
			t.Errorf("an event of %d bytes", size)
		}
		shards += len(e.GetShards())
	}
	if shards != 10_000 || len(events) < 2 {
		t.Errorf("%d shards in %d events", shards, len(events))
	}
	before = w.s
	w.must(created("a", 1, w.refs(id, "a")[7]))
	if events := Diff(before, w.s); len(events) != 1 || len(events[0].GetShards()) != 1 || len(events[0].GetStreams()) != 0 {
		t.Errorf("one changed shard gives %v", events)
	}
	if events := Diff(w.s, w.s); events != nil {
		t.Errorf("no change gives %v", events)
	}
	before = w.s
	w.do(activate(99))
	if events := Diff(before, w.s); len(events) != 1 || events[0].GetIndex() != w.index || events[0].GetCluster() != nil {
		t.Errorf("a refusal gives %v", events)
	}
}
