package raftfsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func registerConsumer(id uint64, name string, after int64) *pb.Command {
	return &pb.Command{Op: &pb.Command_RegisterConsumer{RegisterConsumer: &pb.RegisterConsumer{
		StreamId: id, Name: name, TransitionAfterMs: after, Limit: 3, CreatingLimit: 2,
	}}}
}

func deregisterConsumer(id uint64, name string, created, after int64) *pb.Command {
	return &pb.Command{Op: &pb.Command_DeregisterConsumer{DeregisterConsumer: &pb.DeregisterConsumer{
		StreamId: id, Consumer: &pb.ConsumerRef{Name: name, CreatedS: created}, TransitionAfterMs: after,
	}}}
}

func advanceConsumers(id uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_AdvanceConsumers{AdvanceConsumers: &pb.AdvanceConsumers{StreamId: id}}}
}

func update(u *pb.UpdateStream) *pb.Command {
	return &pb.Command{Op: &pb.Command_UpdateStream{UpdateStream: u}}
}

func setMode(id uint64, m pb.StreamMode, limit uint32) *pb.Command {
	return update(&pb.UpdateStream{StreamId: id, Change: &pb.UpdateStream_SetMode{SetMode: &pb.SetMode{Mode: m, DailyLimit: limit}}})
}

func startEncryption(id uint64, key string) *pb.Command {
	return update(&pb.UpdateStream{StreamId: id, Change: &pb.UpdateStream_StartEncryption{StartEncryption: &pb.StartEncryption{
		KeyId: key, Wrapped: []byte(key), DailyLimit: 3,
	}}})
}

func stopEncryption(id uint64) *pb.Command {
	return update(&pb.UpdateStream{StreamId: id, Change: &pb.UpdateStream_StopEncryption{StopEncryption: &pb.StopEncryption{}}})
}

func commit(enabled bool) *pb.Command {
	return &pb.Command{Op: &pb.Command_SetCommitment{SetCommitment: &pb.SetCommitment{Enabled: enabled, MinimumMs: dayMs}}}
}

func setPolicy(id uint64, consumer *pb.ConsumerRef, policy string) *pb.Command {
	return &pb.Command{Op: &pb.Command_SetPolicy{SetPolicy: &pb.SetPolicy{StreamId: id, Consumer: consumer, Policy: policy}}}
}

func endUpdate(id uint64) *pb.Command {
	return &pb.Command{Op: &pb.Command_EndUpdate{EndUpdate: &pb.EndUpdate{StreamId: id}}}
}

// drawSetting makes a command about a stream's settings or consumers.
func drawSetting(t *rapid.T, s *State, id uint64) *pb.Command {
	name := rapid.SampledFrom([]string{"k", "l", "m"}).Draw(t, "consumer")
	after := rapid.Int64Range(0, 200).Draw(t, "after")
	ref := &pb.ConsumerRef{Name: name}
	switch rapid.IntRange(0, 11).Draw(t, "setting") {
	case 0, 1:
		return registerConsumer(id, name, after)
	case 2:
		return deregisterConsumer(id, name, 0, after)
	case 3:
		return advanceConsumers(id)
	case 4:
		if rapid.Bool().Draw(t, "the stream's") {
			ref = nil
		}
		return setPolicy(id, ref, rapid.SampledFrom([]string{"", "{}"}).Draw(t, "policy"))
	case 5:
		c := tag(id, 3, rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "key"))
		c.GetAddTags().Consumer = ref
		return c
	case 6:
		return commit(rapid.Bool().Draw(t, "enabled"))
	case 7:
		return endUpdate(id)
	case 8:
		c := startEncryption(id, name)
		c.GetUpdateStream().TransitionAfterMs = after
		return c
	case 9:
		return stopEncryption(id)
	case 10:
		return setMode(id, pb.StreamMode(rapid.IntRange(0, 2).Draw(t, "mode")), 2)
	}
	return update(&pb.UpdateStream{StreamId: id, TransitionAfterMs: after, Change: &pb.UpdateStream_SetWarm{SetWarm: &pb.SetWarm{Mibps: 5}}})
}

// checkSettings holds for every stream of every state.
func checkSettings(t *rapid.T, st *pb.Stream) {
	names := make(map[string]bool)
	for _, c := range st.GetConsumers() {
		if names[c.GetName()] || c.GetStatus() == 0 {
			t.Fatalf("consumers of %q: %v", st.GetName(), st.GetConsumers())
		}
		names[c.GetName()] = true
	}
	inUse := uint32(0)
	for i, k := range st.GetDataKeys() {
		if i > 0 && k.GetId() <= st.GetDataKeys()[i-1].GetId() {
			t.Fatalf("data keys are not in order: %v", st.GetDataKeys())
		}
		if k.GetRetiredMs() == 0 {
			inUse = k.GetId()
		}
	}
	if inUse != st.GetDataKey() {
		t.Fatalf("data key %d is in use, %d is not retired", st.GetDataKey(), inUse)
	}
}

func TestConsumers(t *testing.T) {
	w := newWorld(t, "a")
	id := w.active("s", 1, "a")
	created := int64(w.must(registerConsumer(id, "k", w.now+100)).GetCurrent())
	if created != w.now {
		t.Fatalf("created at %d, it is %d", created, w.now)
	}
	if r := w.refuses(stream.AlreadyExists, registerConsumer(id, "k", 0)); r.GetRefusal() != pb.Refusal_REFUSAL_CONSUMER_EXISTS {
		t.Error(r)
	}
	w.must(registerConsumer(id, "l", w.now+100))
	if r := w.refuses(stream.LimitExceeded, registerConsumer(id, "m", 0)); r.GetRefusal() != pb.Refusal_REFUSAL_CREATING_LIMIT || r.GetLimit() != 2 {
		t.Error(r)
	}
	status := func(name string) pb.ConsumerStatus {
		for _, c := range w.s.Stream(id).GetConsumers() {
			if c.GetName() == name {
				return c.GetStatus()
			}
		}
		return 0
	}
	w.must(advanceConsumers(id))
	if status("k") != pb.ConsumerStatus_CONSUMER_STATUS_CREATING {
		t.Error("k is ACTIVE too early")
	}
	if r := w.refuses(stream.WrongState, setPolicy(id, &pb.ConsumerRef{Name: "k"}, "{}")); r.GetRefusal() != pb.Refusal_REFUSAL_CONSUMER_STATE {
		t.Error(r)
	}
	w.now += 100
	w.must(advanceConsumers(id))
	if status("k") != pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE || status("l") != pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE {
		t.Error(w.s.Stream(id).GetConsumers())
	}
	w.must(setPolicy(id, &pb.ConsumerRef{Name: "k"}, "{}"))
	w.must(registerConsumer(id, "m", 0)) // at once
	if status("m") != pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE {
		t.Error("m is not ACTIVE")
	}
	if r := w.refuses(stream.LimitExceeded, registerConsumer(id, "n", 0)); r.GetRefusal() != pb.Refusal_REFUSAL_CONSUMER_LIMIT || r.GetLimit() != 3 {
		t.Error(r)
	}
	if r := w.refuses(stream.NotFound, deregisterConsumer(id, "k", created/1000+1, 0)); r.GetRefusal() != pb.Refusal_REFUSAL_CONSUMER_UNKNOWN {
		t.Error(r)
	}
	if r := w.refuses(stream.WrongState, deleteName("s", 0)); r.GetRefusal() != pb.Refusal_REFUSAL_HAS_CONSUMERS {
		t.Error(r)
	}
	// The name is free once the consumer is gone, and never has the same ARN.
	w.must(deregisterConsumer(id, "k", created/1000, w.now+100))
	w.refuses(stream.AlreadyExists, registerConsumer(id, "k", 0))
	w.now += 100
	w.must(advanceConsumers(id))
	again := int64(w.must(registerConsumer(id, "k", 0)).GetCurrent())
	if again/1000 <= created/1000 {
		t.Errorf("created at %d, and again at %d", created, again)
	}
	c := deleteName("s", 0)
	c.GetDeleteStream().WithConsumers = true
	w.must(c)
}

func TestUpdates(t *testing.T) {
	w := newWorld(t, "a")
	id := w.active("s", 1, "a")
	status := func() pb.StreamStatus { return w.s.Stream(id).GetStatus() }
	slow := func(c *pb.Command) *pb.Command {
		c.GetUpdateStream().TransitionAfterMs = w.now + 100
		return c
	}
	size := func(kib uint32) *pb.Command {
		return update(&pb.UpdateStream{StreamId: id, Change: &pb.UpdateStream_MaxRecordKib{MaxRecordKib: kib}})
	}
	w.must(slow(size(1024))) // as it is
	if status() != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		t.Fatal("an update that changes nothing is under way")
	}
	w.must(slow(size(2048)))
	if status() != pb.StreamStatus_STREAM_STATUS_UPDATING || w.s.Stream(id).GetMaxRecordKib() != 2048 {
		t.Fatal(w.s.Stream(id))
	}
	w.refuses(stream.WrongState, size(1024))
	w.refuses(stream.WrongState, endUpdate(id))
	w.now += 100
	w.must(endUpdate(id))
	w.must(size(1024))
	if status() != pb.StreamStatus_STREAM_STATUS_ACTIVE {
		t.Fatal("an update without a transition is under way")
	}
	c := retention(id, 48, true)
	c.GetSetRetention().TransitionAfterMs = w.now + 100
	w.must(c)
	if status() != pb.StreamStatus_STREAM_STATUS_UPDATING {
		t.Fatal(w.s.Stream(id))
	}
	w.now += 100
	w.must(endUpdate(id))

	metrics := &pb.ShardMetrics{Metrics: []pb.ShardMetric{3, 1, 3}}
	w.must(update(&pb.UpdateStream{StreamId: id, Change: &pb.UpdateStream_ShardMetrics{ShardMetrics: metrics}}))
	if got := w.s.Stream(id).GetShardMetrics(); !slices.Equal(got, []pb.ShardMetric{1, 3}) {
		t.Error(got)
	}
}

func TestModesAndWarmThroughput(t *testing.T) {
	w := newWorld(t, "a")
	id := w.active("s", 1, "a")
	const provisioned, onDemand = pb.StreamMode_STREAM_MODE_PROVISIONED, pb.StreamMode_STREAM_MODE_ON_DEMAND
	warm := update(&pb.UpdateStream{StreamId: id, Change: &pb.UpdateStream_SetWarm{SetWarm: &pb.SetWarm{Mibps: 5}}})
	w.must(setMode(id, onDemand, 2))
	w.must(setMode(id, onDemand, 2)) // as it is: not counted
	if r := w.refuses(stream.Invalid, warm); r.GetRefusal() != pb.Refusal_REFUSAL_WARM_THROUGHPUT {
		t.Error(r)
	}
	w.must(commit(true))
	w.must(warm)
	w.must(setMode(id, provisioned, 2))
	if w.s.Stream(id).GetWarmMibps() != 0 {
		t.Error("a provisioned stream has warm throughput")
	}
	if r := w.refuses(stream.LimitExceeded, setMode(id, onDemand, 2)); r.GetRefusal() != pb.Refusal_REFUSAL_DAILY_LIMIT {
		t.Error(r)
	}
	w.now += dayMs
	w.must(setMode(id, onDemand, 2))
}

// TestCommitment: it lasts a day at least, and its end can be taken back till then.
func TestCommitment(t *testing.T) {
	w := newWorld(t, "a")
	w.must(commit(false)) // as it is
	w.must(commit(true))
	started := w.s.Cluster().GetCommitment().GetStartedMs()
	w.now = started + dayMs - 1
	w.must(commit(false))
	if c := w.s.Cluster().GetCommitment(); c.GetEnabled() || c.GetEndedMs() != started+dayMs || !CommitmentInForce(w.s.Cluster(), w.now) {
		t.Error(c)
	}
	w.must(commit(true))
	if c := w.s.Cluster().GetCommitment(); !c.GetEnabled() || c.GetEndedMs() != 0 || c.GetStartedMs() != started {
		t.Error(c)
	}
	w.now++
	w.must(commit(false))
	if CommitmentInForce(w.s.Cluster(), w.now) {
		t.Error("the commitment did not end")
	}
	w.must(commit(true))
	if c := w.s.Cluster().GetCommitment(); c.GetStartedMs() != w.now {
		t.Error(c)
	}
}

// TestDataKeys: every encrypted record that can still be read has its key.
func TestDataKeys(t *testing.T) {
	w := newWorld(t, "a")
	id := w.active("s", 1, "a")
	keys := func() (ids []uint32) {
		for _, k := range w.s.Stream(id).GetDataKeys() {
			ids = append(ids, k.GetId())
		}
		return ids
	}
	w.must(stopEncryption(id)) // as it is
	w.must(startEncryption(id, "one"))
	w.must(startEncryption(id, "two"))
	w.must(stopEncryption(id))
	if s := w.s.Stream(id); s.GetDataKey() != 0 || !slices.Equal(keys(), []uint32{1, 2}) {
		t.Fatal(s)
	}
	w.now += 2*dayMs + 1 // retention and a day
	w.must(startEncryption(id, "three"))
	if s := w.s.Stream(id); s.GetDataKey() != 3 || !slices.Equal(keys(), []uint32{2, 3}) {
		t.Fatal(s)
	}
	w.must(startEncryption(id, "four"))
	w.must(startEncryption(id, "five"))
	if r := w.refuses(stream.LimitExceeded, startEncryption(id, "six")); r.GetRefusal() != pb.Refusal_REFUSAL_DAILY_LIMIT {
		t.Error(r)
	}
	if !slices.Equal(keys(), []uint32{3, 4, 5}) {
		t.Error(keys())
	}
}

// TestDataKeysAreBounded: by number, and the old ones make room in time.
func TestDataKeysAreBounded(t *testing.T) {
	w := newWorld(t, "a")
	id := w.active("s", 1, "a")
	start := func() *pb.Command {
		c := startEncryption(id, "k")
		c.GetUpdateStream().GetStartEncryption().DailyLimit = 0
		return c
	}
	for range maxDataKeys {
		w.must(start())
	}
	w.refuses(stream.LimitExceeded, start())
	w.must(stopEncryption(id))
	w.now += 3 * dayMs
	w.must(start())
	if s := w.s.Stream(id); s.GetDataKey() != maxDataKeys+1 || len(s.GetDataKeys()) != 2 {
		t.Errorf("key %d of %d", s.GetDataKey(), len(s.GetDataKeys()))
	}
}

func TestUpdateShardCountDailyLimit(t *testing.T) {
	w := newWorld(t, "a")
	id := w.active("s", 2, "a")
	count := func(n uint32) *pb.Command {
		return &pb.Command{Op: &pb.Command_Reshard{Reshard: &pb.Reshard{
			StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_COUNT, TargetCount: n, DailyLimit: 1,
			Placement: []*pb.ReplicaNodes{{NodeIds: []string{"a"}}, {NodeIds: []string{"a"}}, {NodeIds: []string{"a"}}},
		}}}
	}
	w.must(count(2)) // as it is: not counted
	w.must(count(3))
	w.s = w.s.with(func(s *pb.Stream) { s.Status, s.Reshard = pb.StreamStatus_STREAM_STATUS_ACTIVE, nil }, id)
	if r := w.refuses(stream.LimitExceeded, count(4)); r.GetRefusal() != pb.Refusal_REFUSAL_DAILY_LIMIT {
		t.Error(r)
	}
}

// with gives the state with one stream changed as no command would.
func (s *State) with(change func(*pb.Stream), id uint64) *State {
	d := newDraft(s, s.index, 0)
	change(d.editStream(id))
	return d.finish()
}

func TestCopyConsumer(t *testing.T) {
	c := new(pb.Consumer)
	fill(c.ProtoReflect())
	if got := copyConsumer(c); !proto.Equal(got, c) {
		t.Errorf("%v, not %v", got, c)
	}
}

// TestStreamIsBounded: consumers, tags and policies add up to a bound, above which
// no message of Diff could carry the stream.
func TestStreamIsBounded(t *testing.T) {
	w := newWorld(t, "a")
	id := w.active("s", 1, "a")
	policy := strings.Repeat("p", maxStreamBytes/4)
	refused := 0
	for i := range 8 {
		name := fmt.Sprint("c", i)
		r := w.do(&pb.Command{Op: &pb.Command_RegisterConsumer{RegisterConsumer: &pb.RegisterConsumer{
			StreamId: id, Name: name, Tags: map[string]string{"t": policy},
		}}})
		if r.GetError() != 0 {
			refused++
			continue
		}
		ref := &pb.ConsumerRef{Name: name}
		if w.do(setPolicy(id, ref, policy)).GetError() != 0 {
			refused++
		}
		tags := tag(id, 50, "u")
		tags.GetAddTags().Consumer, tags.GetAddTags().Tags["u"] = ref, policy
		if w.do(tags).GetError() != 0 {
			refused++
		}
	}
	s := w.s.Stream(id)
	if size := proto.Size(s); size > maxStreamBytes || size < maxStreamBytes/2 || refused == 0 {
		t.Errorf("%d bytes, %d refused", size, refused)
	}
	// What makes it smaller passes.
	for _, c := range []*pb.Command{setPolicy(id, &pb.ConsumerRef{Name: "c0"}, ""), setPolicy(id, nil, "p")} {
		if r := w.do(c); r.GetError() != 0 {
			t.Error(r.GetDetail())
		}
	}
}

// TestStreamSizeIsEnough: the estimate is of all that a stream can have.
func TestStreamSizeIsEnough(t *testing.T) {
	s := new(pb.Stream)
	fill(s.ProtoReflect())
	for range 64 {
		s.DemandPeaks = append(s.DemandPeaks, &pb.DemandPeak{FromMs: 1 << 50, Demand: 1 << 40, Shards: 1 << 20})
	}
	if got, exact := streamSize(s), proto.Size(s); got < exact {
		t.Errorf("%d for %d bytes", got, exact)
	}
}
