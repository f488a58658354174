package gateway

import (
	"fmt"
	"slices"
	"testing"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const exceeded = "ProvisionedThroughputExceededException"

func rateText(shard int) string {
	return fmt.Sprintf("Rate exceeded for shard shardId-%012d in stream s under account %s.", shard, testAccount)
}

// admit lets a shard take so many records in all.
func (e *env) admit(left map[uint32]int) {
	e.broker.mu.Lock()
	defer e.broker.mu.Unlock()
	e.broker.admits = func(id stream.ShardID, n int) int {
		have, limited := left[id.Number]
		if !limited {
			return n
		}
		if n <= have {
			left[id.Number] -= n
		}
		return min(n, have)
	}
}

func TestPutRecordThrottled(t *testing.T) {
	e := newEnv(t)
	e.create("s", 3)
	e.admit(map[uint32]int{1: 0})
	e.refused("PutRecord", m{"StreamName": "s", "PartitionKey": "b", "Data": []byte("x")}, exceeded, rateText(1))
	e.put("s", "a", "x")
}

// TestPutRecordsThrottledInPart: one result per record, in the order of the
// request, the first of a shard's records stored and the others not.
func TestPutRecordsThrottledInPart(t *testing.T) {
	keys := []string{"b", "a", "b", "f", "a", "b", "e"} // shards 1 0 1 1 0 1 2
	for name, call := range map[string]func(*env, string, m) answer{
		"json": func(e *env, op string, in m) answer { return e.call(op, in) },
		"cbor": func(e *env, op string, in m) answer { return e.callCBOR(op, in) },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.create("s", 3)
			e.admit(map[uint32]int{1: 2, 2: 0})
			var records []m
			for i, k := range keys {
				records = append(records, m{"PartitionKey": k, "Data": []byte(fmt.Sprint(i))})
			}
			a := call(e, "PutRecords", m{"StreamName": "s", "Records": records})
			if a.status != 200 || fmt.Sprint(a.body["FailedRecordCount"]) != "3" {
				t.Fatalf("%d %v", a.status, a.body)
			}
			for i, r := range a.body["Records"].([]any) {
				got := toMap(r)
				switch i {
				case 3, 5:
					if len(got) != 2 || got["ErrorCode"] != exceeded || got["ErrorMessage"] != rateText(1) {
						t.Errorf("record %d: %v", i, got)
					}
				case 6:
					if len(got) != 2 || got["ErrorCode"] != exceeded || got["ErrorMessage"] != rateText(2) {
						t.Errorf("record %d: %v", i, got)
					}
				default:
					if len(got) != 2 || got["SequenceNumber"] == nil || got["ShardId"] == nil {
						t.Errorf("record %d: %v", i, got)
					}
				}
			}
			if got := dataOf(t, e.read(e.iterator("s", "shardId-000000000001", "TRIM_HORIZON", nil), nil)); got != "0 2" {
				t.Errorf("shard 1 has %q", got)
			}
			// What the leader admits is sent once more, alone, with the same id.
			if n := len(e.broker.appends); n != 2 || len(e.broker.appends[1].Batches) != 1 {
				t.Fatalf("%d appends", n)
			}
			first, again := e.broker.appends[0].Batches[0], e.broker.appends[1].Batches[0]
			b := stream.Batch(again.Batch)
			if first.Part || !again.Part || again.Repeat || b.Count() != 2 || b.RequestID() != stream.Batch(first.Batch).RequestID() {
				t.Errorf("part: %v, then %v, repeat: %v, %d records", first.Part, again.Part, again.Repeat, b.Count())
			}
		})
	}
}

// TestPutGivesUpOnAShardThatShrinks: others are quicker again and again.
func TestPutGivesUpOnAShardThatShrinks(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	var asked []int
	e.broker.mu.Lock()
	e.broker.admits = func(_ stream.ShardID, n int) int {
		asked = append(asked, n)
		return n - 1
	}
	e.broker.mu.Unlock()
	records := slices.Repeat([]m{{"PartitionKey": "a", "Data": []byte("x")}}, 10)
	a := e.call("PutRecords", m{"StreamName": "s", "Records": records})
	if a.status != 200 || fmt.Sprint(a.body["FailedRecordCount"]) != "10" {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	if fmt.Sprint(asked) != "[10 9 8 7]" {
		t.Errorf("asked for %v", asked)
	}
}

// TestAdmittedRecordsFollowTheLeader: it is gone when what it admitted is sent.
func TestAdmittedRecordsFollowTheLeader(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	e.admit(map[uint32]int{0: 2})
	calls := 0
	e.broker.mu.Lock()
	e.broker.onAppend = func(string, stream.ShardID) (stream.Kind, error) {
		if calls++; calls == 2 {
			return stream.NotLeader, nil
		}
		return 0, nil
	}
	e.broker.mu.Unlock()
	records := slices.Repeat([]m{{"PartitionKey": "a", "Data": []byte("x")}}, 3)
	a := e.call("PutRecords", m{"StreamName": "s", "Records": records})
	if a.status != 200 || fmt.Sprint(a.body["FailedRecordCount"]) != "1" {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	if last := e.broker.appends[2].Batches[0]; !last.Part || !last.Repeat {
		t.Errorf("part: %v, repeat: %v", last.Part, last.Repeat)
	}
}

func TestReadsThrottled(t *testing.T) {
	e := newEnv(t)
	e.create("s", 2)
	iterator := e.iterator("s", "shardId-000000000001", "TRIM_HORIZON", nil)
	e.broker.mu.Lock()
	e.broker.onRead = func(stream.ShardID) stream.Kind { return stream.Throttled }
	e.broker.mu.Unlock()
	e.refused("GetRecords", m{"ShardIterator": iterator}, exceeded, rateText(1))
	e.refused("GetShardIterator", m{"StreamName": "s", "ShardId": "1", "ShardIteratorType": "LATEST"}, exceeded, rateText(1))
}

// TestIteratorsAreCounted: the leader counts them all if it has limits, and is
// not asked without need if it has none.
func TestIteratorsAreCounted(t *testing.T) {
	for _, limits := range []bool{false, true} {
		e := newEnv(t, func(_ *Config, f *fakeBroker) { f.nodes[0].ShardLimits = limits })
		id := e.create("s", 2)
		number := e.put("s", "a", "x")["SequenceNumber"].(string)
		for kind, more := range map[string]m{
			"TRIM_HORIZON": nil, "LATEST": nil, "AT_TIMESTAMP": {"Timestamp": 1},
			"AT_SEQUENCE_NUMBER":    {"StartingSequenceNumber": number},
			"AFTER_SEQUENCE_NUMBER": {"StartingSequenceNumber": number},
		} {
			e.broker.locates = nil
			e.iterator("s", "shardId-000000000000", kind, more)
			want := 1
			if more["StartingSequenceNumber"] != nil && !limits {
				want = 0
			}
			if n := len(e.broker.locates); n != want || n > 0 && !e.broker.locates[0].Iterator {
				t.Errorf("%s with limits %v: %d questions, %v", kind, limits, n, e.broker.locates)
			}
		}
		e.broker.editShard(id, 0, func(s *pb.Shard) {
			s.State, s.FinalOffset, s.ClosedMs = pb.ShardState_SHARD_STATE_CLOSED, 1, e.clock.now().UnixMilli()
		})
		e.broker.locates = nil
		e.iterator("s", "shardId-000000000000", "AT_SEQUENCE_NUMBER", m{"StartingSequenceNumber": number})
		if len(e.broker.locates) != 0 {
			t.Error("a closed shard is asked")
		}
	}
}

// TestAdmittedRecordsMeetAReshard: that the leader admits the first records may
// mean that it has them, from another attempt of the SDK's. So it is asked before
// they go to its children (I22).
func TestAdmittedRecordsMeetAReshard(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 1)
	e.admit(map[uint32]int{0: 3})
	calls := 0
	e.broker.mu.Lock()
	e.broker.onAppend = func(_ string, shard stream.ShardID) (stream.Kind, error) {
		if calls++; calls == 2 {
			splitHalf(e.broker, id)
			return stream.Unavailable, nil
		}
		return 0, nil
	}
	e.broker.mu.Unlock()
	a := e.call("PutRecords", lowAndHigh("a", "b", "c", "d"))
	if a.status != 200 || fmt.Sprint(a.body["FailedRecordCount"]) != "1" {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	e.logs(id, "", "a c", "b")
	if len(e.broker.finds) != 1 || e.broker.finds[0].Number != 0 {
		t.Errorf("asked: %v", e.broker.finds)
	}
}
