package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const halfKey = "170141183460469231731687303715884105728"

// shape gives a listed shard as id<parents>[e]: e if it has an end.
func shapeOf(s any) string {
	sh := s.(m)
	short := func(id any) string { return strings.TrimLeft(id.(string)[8:], "0") }
	out := "s" + short(sh["ShardId"])
	if p := sh["ParentShardId"]; p != nil {
		out += "<s" + short(p)
	}
	if p := sh["AdjacentParentShardId"]; p != nil {
		out += "+s" + short(p)
	}
	if sh["SequenceNumberRange"].(m)["EndingSequenceNumber"] != nil {
		out += "."
	}
	return out
}

func shapesOf(shards any) string {
	var all []string
	for _, s := range shards.([]any) {
		all = append(all, shapeOf(s))
	}
	return strings.Join(all, " ")
}

// shows checks what every list shows of a stream.
func (e *env) shows(name, status, all, latest string, open int) {
	e.t.Helper()
	d := e.ok("DescribeStream", m{"StreamName": name})["StreamDescription"].(m)
	if got := shapesOf(d["Shards"]); got != all || d["StreamStatus"] != status {
		e.t.Errorf("DescribeStream: %v, %s, not %s, %s", d["StreamStatus"], got, status, all)
	}
	if got := shapesOf(e.ok("ListShards", m{"StreamName": name})["Shards"]); got != all {
		e.t.Errorf("ListShards: %s, not %s", got, all)
	}
	if got := shapesOf(e.ok("ListShards", m{"StreamName": name, "ShardFilter": m{"Type": "AT_LATEST"}})["Shards"]); got != latest {
		e.t.Errorf("AT_LATEST: %s, not %s", got, latest)
	}
	s := e.ok("DescribeStreamSummary", m{"StreamName": name})["StreamDescriptionSummary"].(m)
	if s["OpenShardCount"] != json.Number(fmt.Sprint(open)) || s["StreamStatus"] != status {
		e.t.Errorf("summary: %v", s)
	}
}

// TestReshardShows: lists show a stream as it was before until all its parents
// are closed.
func TestReshardShows(t *testing.T) {
	e := newEnv(t, func(c *Config, f *fakeBroker) {
		c.TransitionDelay = time.Minute
		f.resharding = true
	})
	id := e.create("s", 2)
	over := func(all, latest string, open int) {
		t.Helper()
		if after := e.broker.stream(id).TransitionAfterMs; after != e.clock.now().Add(time.Minute).UnixMilli() {
			t.Errorf("transition after %d", after)
		}
		e.broker.seal(id)
		before := e.broker.stream(id).Reshard
		e.refused("SplitShard", m{"StreamName": "s", "ShardToSplit": "0", "NewStartingHashKey": "2"}, riu,
			"Stream s under account 123456789012 not ACTIVE, instead in state UPDATING")
		if before != e.broker.stream(id).Reshard {
			t.Error("the refused one changed something")
		}
		e.broker.finish(id)
		e.shows("s", "ACTIVE", all, latest, open)
	}
	if a := e.call("SplitShard", m{"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "2"}); a.status != 200 || len(a.raw) != 0 {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	e.shows("s", "UPDATING", "s s1", "s s1", 2)
	over("s. s1 s2<s s3<s", "s1 s2<s s3<s", 3)

	if a := e.callCBOR("MergeShards", m{"StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/s", "ShardToMerge": "3", "AdjacentShardToMerge": "shard-1"}); a.status != 200 || len(a.raw) != 0 {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	e.shows("s", "UPDATING", "s. s1 s2<s s3<s", "s1 s2<s s3<s", 3)
	over("s. s1. s2<s s3<s. s4<s3+s1", "s2<s s4<s3+s1", 2)

	out := e.ok("UpdateShardCount", m{"StreamName": "s", "TargetShardCount": 3, "ScalingType": "UNIFORM_SCALING"})
	want := m{
		"StreamName": "s", "StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/s",
		"CurrentShardCount": json.Number("2"), "TargetShardCount": json.Number("3"),
	}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("%v", out)
	}
	over("s. s1. s2<s. s3<s. s4<s3+s1. s5<s2 s6<s2. s7<s4. s8<s4 s9<s6+s7", "s5<s2 s8<s4 s9<s6+s7", 3)
}

// refuseNext has the next Reshard refused.
func (f *fakeBroker) refuseNext(r *pb.CommandResult) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = r
}

func TestReshardRefusals(t *testing.T) {
	e := newEnv(t)
	e.create("s", 2)
	split := m{"StreamName": "s", "ShardToSplit": "shardId-1", "NewStartingHashKey": "7"}
	merge := m{"StreamName": "s", "ShardToMerge": "1", "AdjacentShardToMerge": "shardId-000000000000"}
	count := m{"StreamName": "s", "TargetShardCount": 9, "ScalingType": "UNIFORM_SCALING"}
	refusal := func(k stream.Kind, why pb.Refusal, edit func(*pb.CommandResult)) *pb.CommandResult {
		r := &pb.CommandResult{Error: pb.ErrorKind(k), Refusal: why, Shard: 1, Current: 3, Limit: 4, Additional: 5}
		if edit != nil {
			edit(r)
		}
		return r
	}
	const under = " in stream s under account 123456789012"
	for _, c := range []struct {
		op            string
		in            m
		refusal       *pb.CommandResult
		code, message string
	}{
		{
			"SplitShard", split, refusal(stream.WrongState, 0, func(r *pb.CommandResult) { r.Status = pb.StreamStatus_STREAM_STATUS_DELETING }), riu,
			"Stream s under account 123456789012 not ACTIVE, instead in state DELETING",
		},
		{"SplitShard", split, refusal(stream.NotFound, 0, nil), rnf, "Stream s under account 123456789012 not found."},
		{
			"SplitShard", split, refusal(stream.Invalid, pb.Refusal_REFUSAL_ON_DEMAND, nil), "ValidationException",
			"Request is invalid. Stream s under account 123456789012 is in On-Demand mode.",
		},
		{
			"SplitShard", split, refusal(stream.NotFound, pb.Refusal_REFUSAL_SHARD_UNKNOWN, nil), rnf,
			"Could not find shard shardId-000000000001" + under + ".",
		},
		{
			"SplitShard", split, refusal(stream.Invalid, pb.Refusal_REFUSAL_SHARD_NOT_OPEN, nil), iae,
			"Shard shardId-000000000001" + under + " has already been merged or split, and thus is not eligible for merging or splitting.",
		},
		{
			"SplitShard", split, refusal(stream.LimitExceeded, pb.Refusal_REFUSAL_SHARD_QUOTA, nil), "LimitExceededException",
			"This request would exceed the shard limit for the account 123456789012 in us-east-1. Current shard count for the account: 3. Limit: 4. Number of additional shards that would have resulted from this request: 5. Refer to the AWS Service Limits page (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to request higher limits.",
		},
		{
			"SplitShard", split, refusal(stream.Invalid, pb.Refusal_REFUSAL_SPLIT_POINT, nil), iae,
			"NewStartingHashKey 7 used in SplitShard() on shard shardId-000000000001" + under + " is not both greater than one plus the shard's StartingHashKey " + halfKey + " and less than the shard's EndingHashKey 340282366920938463463374607431768211455.",
		},
		{
			"MergeShards", merge, refusal(stream.Invalid, pb.Refusal_REFUSAL_NOT_ADJACENT, nil), iae,
			"Shards shardId-000000000001 and shardId-000000000000" + under + " are not an adjacent pair of shards eligible for merging",
		},
		{
			"UpdateShardCount", count, refusal(stream.LimitExceeded, pb.Refusal_REFUSAL_ABOVE_DOUBLE, nil), "LimitExceededException",
			"UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: 3, Target shard count: 9",
		},
		{
			"UpdateShardCount", count, refusal(stream.LimitExceeded, pb.Refusal_REFUSAL_BELOW_HALF, nil), "LimitExceededException",
			"UpdateShardCount cannot scale down below half your current open shard count. Current open shard count: 3, Target shard count: 9",
		},
		{
			"UpdateShardCount", count, refusal(stream.LimitExceeded, pb.Refusal_REFUSAL_ABOVE_MAXIMUM, nil), "LimitExceededException",
			"Target shard count or number of open shards cannot be greater than 4. Current open shard count: 3, Target shard count: 9",
		},
		{
			"UpdateShardCount", count, refusal(stream.Invalid, pb.Refusal_REFUSAL_SPLIT_POINT, nil), iae,
			"Shard shardId-000000000001" + under + " has too few hash keys to be split.",
		},
	} {
		e.broker.refuseNext(c.refusal)
		e.call(c.op, c.in).mustBe(t, 400, c.code, c.message)
		e.broker.refuseNext(c.refusal)
		e.callCBOR(c.op, c.in).mustBe(t, 400, c.code, c.message)
	}
	// A key of 2^128 or more is no key of any shard.
	e.broker.refuseNext(refusal(stream.Invalid, pb.Refusal_REFUSAL_SPLIT_POINT, nil))
	a := e.call("SplitShard", m{"StreamName": "s", "ShardToSplit": "1", "NewStartingHashKey": "340282366920938463463374607431768211456"})
	if a.status != 400 || !strings.HasPrefix(fmt.Sprint(a.body["message"]), "NewStartingHashKey 340282366920938463463374607431768211456 used in SplitShard() on shard") {
		t.Errorf("%d %s", a.status, a.raw)
	}
	if c := e.broker.proposed; c.SplitAtHi != stream.MaxHashKey.Hi || c.SplitAtLo != stream.MaxHashKey.Lo {
		t.Errorf("proposed %v", c)
	}
	// A shard id that can't be read comes before the stream.
	e.refused("SplitShard", m{"StreamName": "t", "ShardToSplit": "x", "NewStartingHashKey": "2"}, rnf, "Could not find shard x in stream t under account 123456789012.")
	e.refused("MergeShards", m{"StreamName": "s", "ShardToMerge": "0", "AdjacentShardToMerge": "shard-y"}, rnf, "Could not find shard shard-y"+under+".")
	e.refused("UpdateShardCount", m{"StreamName": "t", "TargetShardCount": 1, "ScalingType": "UNIFORM_SCALING"}, rnf, "Stream t under account 123456789012 not found.")
	e.refused("UpdateShardCount", m{"StreamName": "s", "TargetShardCount": 0, "ScalingType": "UNIFORM_SCALING"}, "ValidationException",
		"1 validation error detected: Value '0' at 'targetShardCount' failed to satisfy constraint: Member must have value greater than or equal to 1")
}

// TestPassingShards: the shards between parents and children of an
// UpdateShardCount have no replicas, and nobody is asked for them.
func TestPassingShards(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 2)
	e.ok("UpdateShardCount", m{"StreamName": "s", "TargetShardCount": 3, "ScalingType": "UNIFORM_SCALING"})
	e.clock.advance(time.Hour)
	e.broker.onRead = func(s stream.ShardID) stream.Kind {
		t.Errorf("asked for shard %d", s.Number)
		return stream.Offline
	}
	const passing = "shardId-000000000003" // halves: 2, 3, 4, 5; 3 and 4 merged into 6
	if s := e.g.meta.load().byID[id].shard(3); len(s.Replicas) != 0 || s.State != pb.ShardState_SHARD_STATE_CLOSED {
		t.Fatalf("shard 3 is %v", s)
	}
	listed := e.ok("ListShards", m{"StreamName": "s"})["Shards"].([]any)[3].(m)["SequenceNumberRange"].(m)
	for _, r := range []m{
		{"ShardIteratorType": "TRIM_HORIZON"},
		{"ShardIteratorType": "LATEST"},
		{"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1},
		{"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": listed["StartingSequenceNumber"]},
		{"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": listed["EndingSequenceNumber"]},
	} {
		out := e.read(e.iterator("s", passing, r["ShardIteratorType"].(string), r), nil)
		children, _ := out["ChildShards"].([]any)
		if out["NextShardIterator"] != nil || len(out["Records"].([]any)) != 0 || len(children) != 1 {
			t.Fatalf("%v: %v", r, out)
		}
		if c := children[0].(m); c["ShardId"] != "shardId-000000000006" || !reflect.DeepEqual(c["ParentShards"], []any{passing, "shardId-000000000004"}) {
			t.Errorf("%v: %v", r, c)
		}
	}
}

// TestShardListsCoverOnce: at any moment the shards that were open cover the hash
// space once, over resharding, expiry, and a clock of ours that is behind.
func TestShardListsCoverOnce(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 2)
	start := e.clock.now()
	moments := []int64{start.UnixMilli()}
	for i, target := range []int{3, 4, 2, 3} {
		if i > 0 { // the first comes in the second of the creation
			e.clock.advance(7 * time.Hour)
		}
		e.ok("UpdateShardCount", m{"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"})
		for _, s := range e.g.meta.load().byID[id].shards {
			moments = append(moments, s.CreatedMs, s.ClosedMs)
		}
	}
	covers := func(filter m) {
		t.Helper()
		f := shardFilter{Type: filter["Type"].(string)}
		if at, ok := filter["Timestamp"]; ok {
			f.AtMs = at.(int64)
		}
		v := e.g.meta.load().byID[id]
		var keys []stream.HashRange
		for _, s := range v.shards {
			if now := e.clock.now().UnixMilli(); isListed(v, s, now) && f.takes(v, s, now) {
				keys = append(keys, rangeOf(s))
			}
		}
		at, more := stream.HashKey{}, true
		for range keys {
			for _, r := range keys {
				if more && r.Start == at {
					at, more = r.End.Next(), r.End != stream.MaxHashKey
				}
			}
		}
		total := stream.HashKey{}
		for _, r := range keys {
			total = total.Add(r.End.Sub(r.Start)).Next()
		}
		if more || total != (stream.HashKey{}) { // 2^128 is 0
			t.Errorf("%v at %v: %v", filter, e.clock.now(), keys)
		}
	}
	all := func() {
		t.Helper()
		covers(m{"Type": "AT_LATEST"})
		covers(m{"Type": "AT_TRIM_HORIZON"})
		for _, at := range moments {
			for d := int64(-1); d <= 1; d++ {
				covers(m{"Type": "AT_TIMESTAMP", "Timestamp": at + d})
			}
		}
	}
	all()
	// Every moment of the trim horizon that matters.
	const day = 24 * time.Hour
	for _, at := range moments {
		for d := int64(-1); d <= 1; d++ {
			if ms := at + d + day.Milliseconds(); ms > e.clock.now().UnixMilli() {
				e.clock.ms.Store(ms)
				all()
			}
		}
	}
	// The metadata's clock is ahead of ours: it has expired what we would show.
	e.clock.ms.Store(start.Add(day).UnixMilli())
	for n, s := range e.g.meta.load().byID[id].shards {
		if s.ClosedMs > 0 && s.ClosedMs < start.Add(8*time.Hour).UnixMilli() {
			e.broker.editShard(id, uint32(n), func(s *pb.Shard) {
				s.State, s.Replicas, s.Leader = pb.ShardState_SHARD_STATE_EXPIRED, nil, 0
			})
		}
	}
	all()
	a := e.call("GetShardIterator", m{"StreamName": "s", "ShardId": "0", "ShardIteratorType": "LATEST"})
	a.mustBe(t, 400, rnf, "Shard shardId-000000000000 in stream s under account 123456789012 does not exist")
}

// TestIteratorOfUnknownShard: an iterator from a gateway that is ahead is no
// reason to say that its shard does not exist.
func TestIteratorOfUnknownShard(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 1)
	e.put("s", "k", "0")
	e.broker.mu.Lock()
	e.broker.lags = true
	e.broker.reshardLocked(&pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_SPLIT, SplitAtLo: 2})
	e.broker.publishLocked(&pb.MetadataEvent{Streams: []*pb.Stream{e.broker.streams[id]}, Shards: e.broker.shards[id]})
	e.broker.mu.Unlock()
	i := iterator{shard: stream.ShardID{Stream: stream.StreamID(id), Number: 2}, name: "s", issuedMs: e.clock.now().UnixMilli()}
	text, err := e.g.sealer.seal(e.g.meta.load().cluster.TokenKey, iteratorPurpose, i.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if out := e.read(text, nil); out["NextShardIterator"] == nil {
		t.Errorf("%v", out)
	}
}

// logged gives the data in a shard's log.
func (f *fakeBroker) logged(id uint64, number uint32) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, b := range f.logs[stream.ShardID{Stream: stream.StreamID(id), Number: number}].batches {
		for _, r := range b.Records() {
			all = append(all, string(r.Data))
		}
	}
	return strings.Join(all, " ")
}

func (e *env) logs(id uint64, want ...string) {
	e.t.Helper()
	for n, w := range want {
		if got := e.broker.logged(id, uint32(n)); got != w {
			e.t.Errorf("shard %d has %q, not %q", n, got, w)
		}
	}
}

// lowAndHigh are records of one shard, around the middle of the hash space.
func lowAndHigh(data ...string) m {
	records := make([]m, len(data))
	for i, d := range data {
		records[i] = m{"PartitionKey": "k", "Data": []byte(d), "ExplicitHashKey": []string{"0", halfKey}[i%2]}
	}
	return m{"StreamName": "s", "Records": records}
}

// places gives the shards of the records' results.
func places(out m) (shards string) {
	for _, r := range out["Records"].([]any) {
		shards += r.(m)["ShardId"].(string)[19:]
	}
	return shards
}

func splitHalf(f *fakeBroker, id uint64) {
	_, e := f.reshardLocked(&pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_SPLIT, SplitAtHi: 1 << 63})
	f.publishLocked(e)
}

// TestPutWaitsForChildren: records of a shard that is being closed wait, and go
// to its children; the others do not wait for them.
func TestPutWaitsForChildren(t *testing.T) {
	registry := prometheus.NewRegistry()
	e := newEnv(t, func(c *Config, f *fakeBroker) {
		f.resharding = true
		c.Registerer = registry
		c.OfflineWait = 1 // is not for them
	})
	id := e.create("s", 1)
	e.ok("PutRecords", lowAndHigh("a", "b"))
	e.ok("SplitShard", m{"StreamName": "s", "ShardToSplit": "0", "NewStartingHashKey": halfKey})
	e.ok("PutRecords", lowAndHigh("c", "d")) // the parent still takes them
	e.broker.seal(id)
	appends := len(e.broker.appends)
	done := make(chan answer)
	go func() { done <- e.call("PutRecords", lowAndHigh("e", "f", "g", "h")) }()
	// It has been waiting for a while.
	e.retried(registry, 3)
	e.broker.mu.Lock()
	if len(e.broker.appends) != appends {
		t.Error("a shard that is being closed was sent records")
	}
	e.broker.mu.Unlock()
	e.broker.finish(id)
	if a := <-done; a.status != 200 || places(a.body) != "1212" {
		t.Errorf("%d %s", a.status, a.raw)
	}
	e.logs(id, "a b c d", "e g", "f h")
	for _, b := range e.broker.appends[appends].Batches {
		if b.Repeat {
			t.Error("what was sent the first time is called a repeat")
		}
	}
}

// retries tells how often requests were tried again.
func retries(t *testing.T, r *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasSuffix(f.GetName(), "retries_total") {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// retried waits until requests were tried again n times.
func (e *env) retried(r *prometheus.Registry, n float64) {
	e.t.Helper()
	for retries(e.t.(*testing.T), r) < n {
		select {
		case <-e.t.Context().Done():
			e.t.Fatal("it is not tried again")
		case <-time.After(time.Millisecond):
		}
	}
}

// TestSealedBeforeWeKnow: the leader of a shard knows first that it takes no
// more. What it refused goes to the children without a question.
func TestSealedBeforeWeKnow(t *testing.T) {
	e := newEnv(t, func(_ *Config, f *fakeBroker) { f.resharding = true })
	id := e.create("s", 1)
	refusals := 0
	e.broker.onAppend = func(_ string, s stream.ShardID) (stream.Kind, error) {
		if s.Number > 0 {
			return 0, nil
		}
		if refusals++; refusals == 2 {
			splitHalf(e.broker, id)
			e.broker.publishLocked(e.broker.finishLocked(id))
		}
		return stream.Unavailable, nil
	}
	if out := e.ok("PutRecords", lowAndHigh("a", "b")); places(out) != "12" {
		t.Errorf("%v", out)
	}
	e.logs(id, "", "a", "b")
	if len(e.broker.finds) != 0 {
		t.Errorf("asked %v", e.broker.finds)
	}
	for i, r := range e.broker.appends {
		for _, b := range r.Batches {
			if b.Repeat != (i > 0) {
				t.Errorf("append %d: repeat %v", i, b.Repeat)
			}
		}
	}
}

// TestLostAnswerAndSplit: the parent has stored the records, nobody knows, and
// the shard is split. They are not stored again (I22).
func TestLostAnswerAndSplit(t *testing.T) {
	for _, stored := range []bool{true, false} {
		e := newEnv(t)
		id := e.create("s", 1)
		e.put("s", "k", "before")
		e.broker.loses = func(in *pb.AppendRequest) bool {
			e.broker.loses = nil
			if !stored {
				e.broker.logs[stream.ShardID{Stream: stream.StreamID(id)}] = &fakeLog{}
			}
			splitHalf(e.broker, id)
			return true
		}
		silent := 2
		e.broker.onFind = func(stream.ShardID) stream.Kind {
			if silent--; silent >= 0 {
				return []stream.Kind{stream.NotLeader, stream.Unavailable}[silent]
			}
			return 0
		}
		out := e.ok("PutRecords", lowAndHigh("a", "b", "c"))
		if stored {
			if places(out) != "000" {
				t.Errorf("%v", out)
			}
			e.logs(id, "before a b c", "", "")
			// The numbers are those under which they are read.
			read := e.read(e.iterator("s", "0", "TRIM_HORIZON", nil), nil)["Records"].([]any)
			for i, r := range out["Records"].([]any) {
				if r.(m)["SequenceNumber"] != read[i+1].(m)["SequenceNumber"] {
					t.Errorf("record %d: %v, read as %v", i, r, read[i+1])
				}
			}
		} else {
			if places(out) != "121" {
				t.Errorf("%v", out)
			}
			e.logs(id, "", "a c", "b")
		}
		if len(e.broker.finds) != 3 {
			t.Errorf("asked %v", e.broker.finds)
		}
	}
}

// TestLostAnswerAndMerge: one parent has stored its records, the other has not.
func TestLostAnswerAndMerge(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 2)
	e.broker.onAppend = func(_ string, s stream.ShardID) (stream.Kind, error) {
		if s.Number == 1 {
			return stream.NotLeader, nil // as after an append, for all we know
		}
		return 0, nil
	}
	e.broker.loses = func(*pb.AppendRequest) bool {
		e.broker.loses = nil
		_, ev := e.broker.reshardLocked(&pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_MERGE, AdjacentShard: 1})
		e.broker.publishLocked(ev)
		return true
	}
	if out := e.ok("PutRecords", lowAndHigh("a", "b", "c", "d")); places(out) != "0202" {
		t.Errorf("%v", out)
	}
	e.logs(id, "a c", "", "b d")
}

// TestSilentParent: while the parent can't be asked nothing of the request goes
// to the child, and it fails in the end; another shard's records are stored.
func TestSilentParent(t *testing.T) {
	e := newEnv(t, func(c *Config, _ *fakeBroker) { c.RequestTimeout = 150 * time.Millisecond })
	id := e.create("s", 2)
	e.broker.loses = func(*pb.AppendRequest) bool {
		e.broker.loses = nil
		// The half of the one that is not split is not stored either.
		e.broker.logs[stream.ShardID{Stream: stream.StreamID(id), Number: 1}] = &fakeLog{}
		_, ev := e.broker.reshardLocked(&pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_SPLIT, SplitAtLo: 2})
		e.broker.publishLocked(ev)
		return true
	}
	e.broker.onFind = func(stream.ShardID) stream.Kind { return stream.Corrupt }
	out := e.ok("PutRecords", lowAndHigh("a", "b"))["Records"].([]any)
	if out[0].(m)["ErrorCode"] != "InternalFailure" || out[1].(m)["ShardId"] != "shardId-000000000001" {
		t.Errorf("%v", out)
	}
	e.logs(id, "a", "b", "", "")
}

// TestSDKRetryAfterReshard: an SDK repeats a call, perhaps at another gateway,
// after the stream was resharded, more than once. Its first call is not asked
// for, nor is anything long after.
func TestSDKRetryAfterReshard(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 1)
	put := func(in m, attempt int, invocation string) m {
		t.Helper()
		a := e.call("PutRecords", in, "Amz-Sdk-Invocation-Id", invocation, "Amz-Sdk-Request", fmt.Sprintf("attempt=%d; max=3", attempt))
		if a.status != 200 || a.body["FailedRecordCount"] != json.Number("0") {
			t.Fatalf("%d %s", a.status, a.raw)
		}
		return a.body
	}
	const one, two = "11111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-666666666666"
	first := put(lowAndHigh("a", "b"), 1, one)
	e.clock.advance(2 * time.Second)
	// By way of passing shards, and twice.
	for _, n := range []int{2, 3} {
		e.ok("UpdateShardCount", m{"StreamName": "s", "TargetShardCount": n, "ScalingType": "UNIFORM_SCALING"})
		e.clock.advance(2 * time.Second)
	}
	if again := put(lowAndHigh("a", "b"), 2, one); !reflect.DeepEqual(again, first) {
		t.Errorf("%v, not %v", again, first)
	}
	if len(e.broker.finds) != 1 { // of the shard that had records
		t.Errorf("asked %v", e.broker.finds)
	}
	e.logs(id, "a b", "", "")
	put(lowAndHigh("c", "d"), 1, two)
	if len(e.broker.finds) != 1 {
		t.Errorf("a first attempt asked %v", e.broker.finds)
	}
	put(lowAndHigh("c", "d"), 2, two) // known to the children
	e.clock.advance(time.Hour)
	put(lowAndHigh("e", "f"), 2, one)
	if len(e.broker.finds) != 2 {
		t.Errorf("asked %v", e.broker.finds)
	}
}

// TestPutRecordAcrossReshard: the one record of a PutRecord too.
func TestPutRecordAcrossReshard(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 1)
	e.broker.loses = func(*pb.AppendRequest) bool {
		e.broker.loses = nil
		splitHalf(e.broker, id)
		return true
	}
	if out := e.put("s", "k", "a"); out["ShardId"] != "shardId-000000000000" {
		t.Errorf("%v", out)
	}
	var all bytes.Buffer
	for n := range uint32(3) {
		all.WriteString(e.broker.logged(id, n))
	}
	if all.String() != "a" {
		t.Errorf("stored %q", all.String())
	}
}
