package raftfsm

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// world is a state with the clock and index that the next command gets.
type world struct {
	tb    testing.TB
	s     *State
	index uint64
	now   int64
}

// newWorld has an initialised cluster at time 1000 and the given live brokers.
func newWorld(tb testing.TB, nodes ...string) *world {
	w := &world{tb: tb, s: NewState(), now: 1000}
	w.must(initCmd(nil))
	for _, n := range nodes {
		w.must(register(n, "disk-"+n))
	}
	return w
}

func (w *world) do(c *pb.Command) *pb.CommandResult {
	w.index++
	c.TimeMs = w.now
	var res *pb.CommandResult
	w.s, res = w.s.Apply(w.index, c)
	if res.GetIndex() != w.index || w.s.Index() != w.index {
		w.tb.Fatalf("result of index %d, state of %d, applied at %d", res.GetIndex(), w.s.Index(), w.index)
	}
	return res
}

func (w *world) must(c *pb.Command) *pb.CommandResult {
	w.tb.Helper()
	res := w.do(c)
	if res.GetError() != 0 {
		w.tb.Fatalf("%v: %v", c, res)
	}
	return res
}

// refuses checks the kind, and that nothing but the index changed.
func (w *world) refuses(kind stream.Kind, c *pb.Command) *pb.CommandResult {
	w.tb.Helper()
	before := w.s
	w.now += 50 // must not show
	res := w.do(c)
	w.now -= 50
	if stream.Kind(res.GetError()) != kind {
		w.tb.Fatalf("%v: got %v, want %v", c, res, kind)
	}
	after := *w.s
	after.index = before.index
	if !sameParts(&after, before) {
		w.tb.Fatalf("%v: a refused command changed the state", c)
	}
	return res
}

func sameParts(a, b *State) bool {
	return a.cluster == b.cluster && a.table == b.table && a.names == b.names && a.open == b.open && len(a.brokers) == len(b.brokers)
}

func (w *world) active(name string, shards int, nodes ...string) uint64 {
	w.tb.Helper()
	id := w.must(create(name, shards, nodes...)).GetStreamId()
	w.createdAll(id)
	w.must(activate(id))
	return id
}

func (w *world) createdAll(id uint64) {
	w.tb.Helper()
	for _, b := range w.s.Brokers() {
		w.must(created(b.GetNodeId(), b.GetIncarnation(), w.refs(id, b.GetNodeId())...))
	}
}

func (w *world) refs(id uint64, node string) []*pb.ReplicaRef {
	var refs []*pb.ReplicaRef
	for _, sh := range w.s.Shards(id) {
		for _, r := range sh.GetReplicas() {
			if r.GetNodeId() == node {
				refs = append(refs, &pb.ReplicaRef{StreamId: id, Shard: sh.GetNumber(), ReplicaId: r.GetId()})
			}
		}
	}
	return refs
}

func initCmd(limits *pb.Limits) *pb.Command {
	return &pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
		ClusterId: "cluster", TokenKey: make([]byte, 32), AccountId: "000000000000", Limits: limits,
	}}}
}

func register(node, disk string) *pb.Command {
	return &pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{Broker: &pb.Broker{NodeId: node, DiskId: disk, Zone: "z"}}}}
}

func create(name string, shards int, nodes ...string) *pb.Command {
	c := &pb.CreateStream{Name: name, ShardCount: uint32(shards)}
	for range shards {
		c.Placement = append(c.Placement, &pb.ReplicaNodes{NodeIds: nodes})
	}
	return &pb.Command{Op: &pb.Command_CreateStream{CreateStream: c}}
}

func created(node string, incarnation uint64, refs ...*pb.ReplicaRef) *pb.Command {
	return &pb.Command{Op: &pb.Command_ReplicasCreated{ReplicasCreated: &pb.ReplicasCreated{NodeId: node, Incarnation: incarnation, Replicas: refs}}}
}

func activate(id uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_ActivateStream{ActivateStream: &pb.ActivateStream{StreamId: id}}}
}

func deleteName(name string, after int64) *pb.Command {
	return &pb.Command{Op: &pb.Command_DeleteStream{DeleteStream: &pb.DeleteStream{Name: name, TransitionAfterMs: after}}}
}

func deleteID(id uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_DeleteStream{DeleteStream: &pb.DeleteStream{StreamId: id}}}
}

func remove(id uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_RemoveStream{RemoveStream: &pb.RemoveStream{StreamId: id}}}
}

func retention(id uint64, hours uint32, increase bool) *pb.Command {
	return &pb.Command{Op: &pb.Command_SetRetention{SetRetention: &pb.SetRetention{StreamId: id, Hours: hours, Increase: increase}}}
}

func tag(id uint64, limit uint32, keys ...string) *pb.Command {
	tags := make(map[string]string)
	for _, k := range keys {
		tags[k] = "v"
	}
	return &pb.Command{Op: &pb.Command_AddTags{AddTags: &pb.AddTags{StreamId: id, Tags: tags, Limit: limit}}}
}

func untag(id uint64, keys ...string) *pb.Command {
	return &pb.Command{Op: &pb.Command_RemoveTags{RemoveTags: &pb.RemoveTags{StreamId: id, Keys: keys}}}
}

func suspect(node string, incarnation uint64, refs ...*pb.ReplicaRef) *pb.Command {
	return &pb.Command{Op: &pb.Command_MarkSuspect{MarkSuspect: &pb.MarkSuspect{NodeId: node, Incarnation: incarnation, Replicas: refs}}}
}

func acceptLoss(ranges ...*pb.LostRange) *pb.Command {
	return &pb.Command{Op: &pb.Command_AcceptLoss{AcceptLoss: &pb.AcceptLoss{By: "op", Ranges: ranges}}}
}

func TestInitCluster(t *testing.T) {
	w := &world{tb: t, s: NewState(), now: 1000}
	w.refuses(stream.Unavailable, register("a", "d"))
	w.refuses(stream.Invalid, &pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{ClusterId: "x"}}})
	w.refuses(stream.Invalid, &pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{TokenKey: make([]byte, 32)}}})
	w.must(initCmd(&pb.Limits{Shards: 3}))
	if c := w.s.Cluster(); c.GetNowMs() != 1000 || c.GetNextStreamId() != 1 || c.GetFormatVersion() != FormatVersion || c.GetLimits().GetShards() != 3 {
		t.Errorf("cluster %v", c)
	}
	w.refuses(stream.AlreadyExists, initCmd(nil))
}

func TestCreateStream(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	for name, c := range map[string]*pb.CreateStream{
		"no name":         {ShardCount: 1, Placement: []*pb.ReplicaNodes{{NodeIds: []string{"a"}}}},
		"no shard":        {Name: "s"},
		"no placement":    {Name: "s", ShardCount: 1},
		"no node":         {Name: "s", ShardCount: 1, Placement: []*pb.ReplicaNodes{{}}},
		"twice on a node": {Name: "s", ShardCount: 1, Placement: []*pb.ReplicaNodes{{NodeIds: []string{"a", "b", "a"}}}},
		"retention":       {Name: "s", ShardCount: 1, RetentionHours: 23, Placement: []*pb.ReplicaNodes{{NodeIds: []string{"a"}}}},
		"retention above": {Name: "s", ShardCount: 1, RetentionHours: 8761, Placement: []*pb.ReplicaNodes{{NodeIds: []string{"a"}}}},
		"huge":            {Name: "s", ShardCount: 1 << 31},
	} {
		t.Run(name, func(t *testing.T) {
			w.tb = t
			w.refuses(stream.Invalid, &pb.Command{Op: &pb.Command_CreateStream{CreateStream: c}})
		})
	}
	w.tb = t
	w.refuses(stream.Stale, create("s", 1, "nobody"))

	id := w.must(create("s", 3, "b", "c", "a")).GetStreamId()
	s := w.s.StreamByName("s")
	if s != w.s.Stream(id) || s.GetStatus() != pb.StreamStatus_STREAM_STATUS_CREATING || s.GetRetentionHours() != 24 ||
		s.GetCreatedMs() != 1000 || s.GetNextShardNumber() != 3 || s.GetMaxRecordKib() != 1024 || s.GetMode() != pb.StreamMode_STREAM_MODE_PROVISIONED {
		t.Errorf("stream %v", s)
	}
	for i, sh := range w.s.Shards(id) {
		first := uint64(1 + 3*i)
		if sh.GetNumber() != uint32(i) || sh.GetState() != pb.ShardState_SHARD_STATE_CREATING ||
			sh.GetLeader() != 0 || len(sh.GetInSync()) != 0 || sh.GetReplicas()[0].GetId() != first ||
			sh.GetReplicationFactor() != 3 || sh.GetMinInSync() != 2 || sh.GetReplicas()[0].GetNodeId() != "b" ||
			sh.GetReplicas()[0].GetState() != pb.ReplicaState_REPLICA_STATE_NEW || sh.GetCreatedMs() != 1000 {
			t.Errorf("shard %v", sh)
		}
	}
	if res := w.refuses(stream.AlreadyExists, create("s", 1, "a")); res.GetStreamId() != id {
		t.Errorf("result %v", res)
	}
	one := w.must(create("one", 1, "a")).GetStreamId()
	if sh := w.s.Shard(one, 0); sh.GetMinInSync() != 1 || sh.GetReplicationFactor() != 1 || w.s.Shard(one, 1) != nil {
		t.Errorf("shard %v", sh)
	}
	if w.s.OpenShards() != 4 {
		t.Errorf("%d open shards", w.s.OpenShards())
	}
}

func TestQuota(t *testing.T) {
	w := &world{tb: t, s: NewState(), now: 1}
	w.must(initCmd(&pb.Limits{Shards: 5, OnDemandStreams: 1}))
	w.must(register("a", "d"))
	w.active("three", 3, "a")
	if res := w.refuses(stream.LimitExceeded, create("more", 3, "a")); res.GetCurrent() != 3 || res.GetLimit() != 5 {
		t.Errorf("result %v", res)
	}
	w.must(create("two", 2, "a"))
	w.must(deleteName("three", 0))
	if w.s.OpenShards() != 2 {
		t.Errorf("%d open shards after the deletion", w.s.OpenShards())
	}
	onDemand := create("od", 1, "a")
	onDemand.GetCreateStream().Mode = pb.StreamMode_STREAM_MODE_ON_DEMAND
	w.must(proto.CloneOf(onDemand))
	onDemand.GetCreateStream().Name = "od2"
	if res := w.refuses(stream.LimitExceeded, onDemand); res.GetCurrent() != 1 || res.GetLimit() != 1 {
		t.Errorf("result %v", res)
	}
}

func TestStreamLifecycle(t *testing.T) {
	w := newWorld(t, "a", "b")
	c := create("s", 2, "a", "b")
	c.GetCreateStream().TransitionAfterMs = 2000
	id := w.must(c).GetStreamId()

	w.refuses(stream.NotFound, activate(99))
	w.must(created("a", 1, w.refs(id, "a")...))
	w.now = 2000
	if res := w.refuses(stream.WrongState, activate(id)); res.GetStatus() != pb.StreamStatus_STREAM_STATUS_CREATING || !strings.Contains(res.GetDetail(), "on b") {
		t.Errorf("without b's replicas: %v", res)
	}
	// Not only replicas that are there, but ones of streams and shards that are not.
	refs := append(w.refs(id, "b"), &pb.ReplicaRef{StreamId: 99}, &pb.ReplicaRef{StreamId: id, Shard: 9}, &pb.ReplicaRef{StreamId: id, ReplicaId: 1 << 40})
	w.refuses(stream.Stale, created("b", 2, refs...))
	w.refuses(stream.Stale, created("nobody", 0, refs...))
	w.must(created("b", 1, refs...))
	w.now = 1000
	w.s.cluster.NowMs = 1000
	w.refuses(stream.WrongState, activate(id)) // too early
	w.now = 2000
	w.must(activate(id))
	for _, sh := range w.s.Shards(id) {
		if sh.GetState() != pb.ShardState_SHARD_STATE_OPEN || sh.GetLeader() != sh.GetReplicas()[0].GetId() || len(sh.GetInSync()) != 2 {
			t.Errorf("shard %v", sh)
		}
	}
	if res := w.refuses(stream.WrongState, activate(id)); res.GetStatus() != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		t.Errorf("result %v", res)
	}
	if res := w.refuses(stream.WrongState, remove(id)); res.GetStatus() != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		t.Errorf("result %v", res)
	}
	w.refuses(stream.NotFound, deleteName("other", 0))
	w.must(deleteName("s", 3000))
	for _, c := range []*pb.Command{deleteName("s", 0), deleteID(id), remove(id), activate(id), retention(id, 48, true), tag(id, 50, "k"), untag(id, "k")} {
		if res := w.refuses(stream.WrongState, c); res.GetStatus() != pb.StreamStatus_STREAM_STATUS_DELETING {
			t.Errorf("%v: %v", c, res)
		}
	}
	w.refuses(stream.AlreadyExists, create("s", 1, "a"))
	w.now = 3000
	w.must(remove(id))
	if w.s.Stream(id) != nil || w.s.StreamByName("s") != nil || len(w.s.Streams()) != 0 || w.s.Shards(id) != nil {
		t.Error("the stream is still there")
	}
	w.refuses(stream.NotFound, remove(id))
	if again := w.must(create("s", 1, "a")).GetStreamId(); again <= id {
		t.Errorf("id %d after %d", again, id)
	}
	w.must(deleteID(w.s.StreamByName("s").GetId())) // while CREATING
}

func TestRetention(t *testing.T) {
	w := newWorld(t, "a")
	id := w.must(create("s", 1, "a")).GetStreamId()
	w.refuses(stream.NotFound, retention(9, 24, true))
	if res := w.refuses(stream.WrongState, retention(id, 24, true)); res.GetStatus() != pb.StreamStatus_STREAM_STATUS_CREATING {
		t.Errorf("result %v", res)
	}
	w.createdAll(id)
	w.must(activate(id))
	w.must(retention(id, 48, true))
	for _, c := range []*pb.Command{
		retention(id, 23, false), retention(id, 8761, true), retention(id, 47, true), retention(id, 49, false), retention(id, 0, true),
	} {
		if res := w.refuses(stream.Invalid, c); res.GetCurrent() != 48 {
			t.Errorf("%v: %v", c, res)
		}
	}
	w.must(retention(id, 48, true))
	w.must(retention(id, 48, false))
	w.must(retention(id, 8760, true))
	w.must(retention(id, 24, false))
	if got := w.s.Stream(id).GetRetentionHours(); got != 24 {
		t.Errorf("%d hours", got)
	}
}

func TestTags(t *testing.T) {
	w := newWorld(t, "a")
	id := w.must(create("s", 1, "a")).GetStreamId()
	w.refuses(stream.WrongState, tag(id, 3, "k"))
	w.refuses(stream.NotFound, tag(9, 3, "k"))
	w.refuses(stream.NotFound, untag(9, "k"))
	w.createdAll(id)
	w.must(activate(id))
	w.must(tag(id, 3, "x", "y"))
	before := w.s.Stream(id)
	if res := w.refuses(stream.LimitExceeded, tag(id, 3, "x", "z", "w")); res.GetCurrent() != 2 || res.GetLimit() != 3 {
		t.Errorf("result %v", res)
	}
	w.must(tag(id, 3, "x", "z"))
	if len(w.s.Stream(id).GetTags()) != 3 || len(before.GetTags()) != 2 {
		t.Errorf("tags %v, before %v", w.s.Stream(id).GetTags(), before.GetTags())
	}
	w.must(untag(id, "x", "absent"))
	if _, there := w.s.Stream(id).GetTags()["x"]; there || len(w.s.Stream(id).GetTags()) != 2 {
		t.Errorf("tags %v", w.s.Stream(id).GetTags())
	}
}

// A restarted process never resumes an epoch (I4): another member leads, or if
// there is none, it leads at a new epoch.
func TestRegisterRaisesEpochs(t *testing.T) {
	w := newWorld(t, "a", "b")
	id := w.active("s", 2, "a", "b")
	other := w.active("t", 1, "b", "a")
	alone := w.active("alone", 1, "a")
	before, followed, single := w.s.Shard(id, 0), w.s.Shard(other, 0), w.s.Shard(alone, 0)
	was := before.GetEpoch()
	if res := w.must(register("a", "disk-a")); res.GetIncarnation() != 2 {
		t.Errorf("result %v", res)
	}
	for _, sh := range w.s.Shards(id) {
		if sh.GetEpoch() != was+1 || sh.GetLeader() != sh.GetReplicas()[1].GetId() || sh.GetVersion() <= before.GetVersion() {
			t.Errorf("led shard %v", sh)
		}
	}
	if sh := w.s.Shard(other, 0); sh != followed {
		t.Errorf("followed shard %v", sh)
	}
	if sh := w.s.Shard(alone, 0); sh.GetEpoch() <= single.GetEpoch() || sh.GetLeader() != single.GetLeader() {
		t.Errorf("shard of its own %v", sh)
	}
	if before.GetEpoch() != was {
		t.Error("an older state changed")
	}
	w.refuses(stream.Stale, suspect("a", 1))
	w.refuses(stream.Invalid, register("", "d"))
	w.refuses(stream.Invalid, register("a", ""))
}

func TestSuspectAndAcceptLoss(t *testing.T) {
	w := newWorld(t, "a", "b")
	alone := w.active("alone", 2, "a")
	both := w.active("both", 1, "a", "b")
	refs := append(w.refs(alone, "a")[:1], w.refs(both, "a")...)
	w.must(suspect("a", 1, append(refs, &pb.ReplicaRef{StreamId: 77})...))

	sh := w.s.Shard(alone, 0)
	if sh.GetLeader() != 0 || sh.GetEpoch() != 3 || len(sh.GetInSync()) != 1 {
		t.Errorf("without another copy: %v", sh)
	}
	if sh := w.s.Shard(alone, 1); sh.GetLeader() == 0 || sh.GetEpoch() != 2 {
		t.Errorf("an undamaged shard: %v", sh)
	}
	if sh := w.s.Shard(both, 0); sh.GetLeader() != sh.GetReplicas()[1].GetId() || sh.GetEpoch() != 3 {
		t.Errorf("with another copy: %v", sh)
	}
	version := sh.GetVersion()
	w.must(suspect("a", 1, refs...))
	if got := w.s.Shard(alone, 0).GetVersion(); got != version {
		t.Errorf("version %d after a repeat, %d before", got, version)
	}
	w.must(register("a", "disk-a"))
	if sh := w.s.Shard(alone, 0); sh.GetLeader() != 0 {
		t.Errorf("a damaged replica was elected: %v", sh)
	}

	lost := &pb.LostRange{Replica: refs[0], Start: 5, End: 9, Reason: "checksum"}
	w.refuses(stream.NotFound, acceptLoss(lost, &pb.LostRange{Replica: &pb.ReplicaRef{StreamId: alone, ReplicaId: 1 << 40}}))
	w.refuses(stream.Invalid, acceptLoss(lost, &pb.LostRange{Replica: refs[0], Start: 2, End: 1}))
	w.now = 1234
	w.must(acceptLoss(lost, &pb.LostRange{Replica: refs[0], Start: 20, End: 21}))
	sh = w.s.Shard(alone, 0)
	if sh.GetLeader() != refs[0].GetReplicaId() || sh.GetEpoch() != 4 || sh.GetReplicas()[0].GetState() != pb.ReplicaState_REPLICA_STATE_CREATED {
		t.Errorf("after the word: %v", sh)
	}
	if r := sh.GetRecoveries(); len(r) != 2 || r[0].GetAtMs() != 1234 || r[0].GetBy() != "op" || r[0].GetStart() != 5 || r[0].GetEnd() != 9 || r[0].GetReason() != "checksum" {
		t.Errorf("recoveries %v", r)
	}
	w.must(acceptLoss(&pb.LostRange{Replica: refs[1], Start: 0, End: 1}))
	if sh := w.s.Shard(both, 0); sh.GetLeader() != sh.GetReplicas()[1].GetId() || sh.GetEpoch() != 3 {
		t.Errorf("a healthy leader was replaced: %v", sh)
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	w := newWorld(t, "a")
	w.now = 5000
	w.must(create("s", 1, "a"))
	w.now = 10
	w.must(create("t", 1, "a"))
	if got := w.s.StreamByName("t").GetCreatedMs(); got != 5000 || w.s.Cluster().GetNowMs() != 5000 {
		t.Errorf("created at %d, now %d", got, w.s.Cluster().GetNowMs())
	}
}

func TestStreamsByName(t *testing.T) {
	w := newWorld(t, "a")
	for _, name := range []string{"b", "c", "a", "ab", "B"} {
		w.must(create(name, 1, "a"))
	}
	names := func(list []*pb.Stream) (s string) {
		for _, st := range list {
			s += st.GetName() + " "
		}
		return s
	}
	if got := names(w.s.Streams()); got != "B a ab b c " {
		t.Error(got)
	}
	for from, want := range map[string]string{"": "B a ", "a": "ab b ", "aa": "ab b ", "b": "c ", "c": "", "~": ""} {
		if got := names(w.s.StreamsAfter(from, 2)); got != want {
			t.Errorf("after %q: %q", from, got)
		}
	}
}

// The copies are written out by hand: a field that is added to the messages
// and forgotten there would be lost with the next change.
func TestCopiesAreWhole(t *testing.T) {
	sh, st := new(pb.Shard), new(pb.Stream)
	fill(sh.ProtoReflect())
	fill(st.ProtoReflect())
	if got := copyShard(sh); !proto.Equal(got, sh) {
		t.Errorf("got %v, want %v", got, sh)
	}
	if got := copyStream(st); !proto.Equal(got, st) {
		t.Errorf("got %v, want %v", got, st)
	}
	d := &draft{State: State{cluster: new(pb.ClusterInfo)}}
	fill(d.cluster.ProtoReflect())
	want := d.cluster
	if got := d.editCluster(); !proto.Equal(got, want) || got == want {
		t.Errorf("got %v, want %v", got, want)
	}
	b := new(pb.Broker)
	fill(b.ProtoReflect())
	d = &draft{State: State{brokers: []*pb.Broker{b}}, now: b.GetChangedMs()}
	if d.setBrokerState(b.GetNodeId(), b.GetState(), b.GetReason()); !proto.Equal(d.brokers[0], b) || d.brokers[0] == b {
		t.Errorf("got %v, want %v", d.brokers[0], b)
	}
}

// fill gives every field of a message a value other than its zero value.
func fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
		case f.IsList() && f.Message() != nil:
			fill(m.Mutable(f).List().AppendMutable().Message())
		case f.IsList():
			m.Mutable(f).List().Append(scalar(f.Kind()))
		case f.Message() != nil:
			fill(m.Mutable(f).Message())
		default:
			m.Set(f, scalar(f.Kind()))
		}
	}
}

func scalar(k protoreflect.Kind) protoreflect.Value {
	switch k {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("x")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{1})
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	}
	panic(k)
}

func TestDecodeCommandRefuses(t *testing.T) {
	marshal := func(c *pb.Command) []byte {
		data, err := proto.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := marshal(activate(3))
	if _, err := DecodeCommand(good); err != nil {
		t.Fatal(err)
	}
	unknown := []byte{0x98, 0x06, 1} // field 99, varint
	inner := activate(3)
	inner.GetActivateStream().ProtoReflect().SetUnknown(unknown)
	for name, data := range map[string][]byte{
		"empty":            {},
		"no op":            marshal(&pb.Command{TimeMs: 3}),
		"unknown op":       unknown,
		"field beside op":  append(good[:len(good):len(good)], unknown...),
		"field inside op":  marshal(inner),
		"torn":             good[:len(good)-1],
		"not a protobuf":   []byte("hello"),
		"invalid encoding": {0xff},
	} {
		if _, err := DecodeCommand(data); stream.KindOf(err) != stream.Corrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
}
