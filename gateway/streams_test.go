package gateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// notFound etc. are the texts of the service, as clients have seen them.
const (
	rnf = "ResourceNotFoundException"
	riu = "ResourceInUseException"
	iae = "InvalidArgumentException"
	lee = "LimitExceededException"
)

func TestCreateStreamModes(t *testing.T) {
	e := newEnv(t)
	for _, c := range []struct {
		in     m
		shards int
		mode   string
	}{
		{m{"StreamName": "only-name"}, 4, "ON_DEMAND"},
		{m{"StreamName": "count", "ShardCount": 3}, 3, "PROVISIONED"},
		{m{"StreamName": "on-demand", "StreamModeDetails": m{"StreamMode": "ON_DEMAND"}}, 4, "ON_DEMAND"},
		{m{"StreamName": "provisioned", "ShardCount": 2, "StreamModeDetails": m{"StreamMode": "PROVISIONED"}}, 2, "PROVISIONED"},
	} {
		e.ok("CreateStream", c.in)
		s := e.ok("DescribeStreamSummary", m{"StreamName": c.in["StreamName"]})["StreamDescriptionSummary"].(m)
		if fmt.Sprint(s["OpenShardCount"]) != fmt.Sprint(c.shards) || s["StreamModeDetails"].(m)["StreamMode"] != c.mode {
			t.Errorf("%v: %v", c.in, s)
		}
	}
	e.refused("CreateStream", m{"StreamName": "x", "ShardCount": 1, "StreamModeDetails": m{"StreamMode": "ON_DEMAND"}},
		iae, "ShardCount is not expected for StreamMode=ON_DEMAND")
	e.refused("CreateStream", m{"StreamName": "x", "StreamModeDetails": m{"StreamMode": "PROVISIONED"}},
		iae, "ShardCount is a required field for StreamMode=PROVISIONED")
	e.refused("CreateStream", m{"StreamName": "count", "ShardCount": 1},
		riu, "Stream count under account 123456789012 already exists.")
	e.refused("CreateStream", m{"StreamName": "big", "ShardCount": 188}, lee,
		"This request would exceed the shard limit for the account 123456789012 in us-east-1. Current shard count for the account: 13. Limit: 200. Number of additional shards that would have resulted from this request: 188. Refer to the AWS Service Limits page (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to request higher limits.")
	e.ok("CreateStream", m{"StreamName": "third"})
	e.refused("CreateStream", m{"StreamName": "fourth"}, lee, "Limit of 3 on-demand streams exceeded for account 123456789012.")
	e.ok("CreateStream", m{"StreamName": "tagged", "ShardCount": 1, "Tags": m{"a": "b"}, "MaxRecordSizeInKiB": 2048})
	if s := e.ok("DescribeStreamSummary", m{"StreamName": "tagged"})["StreamDescriptionSummary"].(m); fmt.Sprint(s["MaxRecordSizeInKiB"]) != "2048" {
		t.Error(s)
	}
	if out := e.ok("ListTagsForStream", m{"StreamName": "tagged"}); !reflect.DeepEqual(out["Tags"], []any{m{"Key": "a", "Value": "b"}}) {
		t.Error(out)
	}
	if a := e.call("CreateStream", m{"StreamName": "warm", "WarmThroughputMiBps": 10}); a.body["__type"] != "ValidationException" {
		t.Errorf("warm throughput: %s", a.raw)
	}
}

func TestDescribeStream(t *testing.T) {
	e := newEnv(t)
	e.create("s", 2)
	created := json.Number("1795507200.123")
	out := e.ok("DescribeStream", m{"StreamName": "s"})
	start := func(n uint32) string { return stream.StartSequence(n, 1795507200).String() }
	want := m{"StreamDescription": m{
		"StreamName": "s", "StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/s", "StreamStatus": "ACTIVE",
		"StreamModeDetails": m{"StreamMode": "PROVISIONED"}, "HasMoreShards": false, "RetentionPeriodHours": json.Number("24"),
		"StreamCreationTimestamp": created, "EnhancedMonitoring": []any{m{"ShardLevelMetrics": []any{}}}, "EncryptionType": "NONE",
		"Shards": []any{
			m{
				"ShardId":             "shardId-000000000000",
				"HashKeyRange":        m{"StartingHashKey": "0", "EndingHashKey": "170141183460469231731687303715884105727"},
				"SequenceNumberRange": m{"StartingSequenceNumber": start(0)},
			},
			m{
				"ShardId":             "shardId-000000000001",
				"HashKeyRange":        m{"StartingHashKey": "170141183460469231731687303715884105728", "EndingHashKey": "340282366920938463463374607431768211455"},
				"SequenceNumberRange": m{"StartingSequenceNumber": start(1)},
			},
		},
	}}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("DescribeStream\n%v, not\n%v", out, want)
	}
	out = e.ok("DescribeStreamSummary", m{"StreamName": "s"})
	want = m{"StreamDescriptionSummary": m{
		"StreamName": "s", "StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/s", "StreamStatus": "ACTIVE",
		"StreamModeDetails": m{"StreamMode": "PROVISIONED"}, "RetentionPeriodHours": json.Number("24"),
		"StreamCreationTimestamp": created, "EnhancedMonitoring": []any{m{"ShardLevelMetrics": []any{}}}, "EncryptionType": "NONE",
		"OpenShardCount": json.Number("2"), "ConsumerCount": json.Number("0"), "MaxRecordSizeInKiB": json.Number("1024"),
	}}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("DescribeStreamSummary\n%v, not\n%v", out, want)
	}
}

func TestDescribeStreamPages(t *testing.T) {
	e := newEnv(t)
	e.create("s", 150)
	page := func(in m) (ids []string, more bool) {
		d := e.ok("DescribeStream", in)["StreamDescription"].(m)
		for _, s := range d["Shards"].([]any) {
			ids = append(ids, s.(m)["ShardId"].(string))
		}
		return ids, d["HasMoreShards"].(bool)
	}
	ids, more := page(m{"StreamName": "s", "Limit": 10000})
	if len(ids) != 100 || !more || ids[99] != "shardId-000000000099" {
		t.Fatalf("%d shards, more %v", len(ids), more)
	}
	ids, more = page(m{"StreamName": "s", "ExclusiveStartShardId": ids[99]})
	if len(ids) != 50 || more || ids[0] != "shardId-000000000100" {
		t.Fatalf("%d shards, more %v", len(ids), more)
	}
	ids, more = page(m{"StreamName": "s", "Limit": 1, "ExclusiveStartShardId": "shardId-7"})
	if len(ids) != 1 || !more || ids[0] != "shardId-000000000008" {
		t.Fatalf("%v, more %v", ids, more)
	}
	if ids, more = page(m{"StreamName": "s", "ExclusiveStartShardId": "9999"}); len(ids) != 0 || more {
		t.Fatalf("%v, more %v", ids, more)
	}
	e.refused("DescribeStream", m{"StreamName": "s", "ExclusiveStartShardId": "shardId-x"}, rnf,
		"Could not find shard shardId-x in stream s under account 123456789012.")
}

// TestAddressing: names, ARNs, both, and ARNs of others.
func TestAddressing(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	const arn = "arn:aws:kinesis:us-east-1:123456789012:stream/s"
	for _, in := range []m{
		{"StreamName": "s"},
		{"StreamARN": arn},
		{"StreamName": "s", "StreamARN": arn},
		{"StreamARN": "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/s"},
	} {
		e.ok("DescribeStreamSummary", in)
	}
	e.refused("DescribeStreamSummary", m{"StreamName": "none"}, rnf, "Stream none under account 123456789012 not found.")
	e.refused("DescribeStreamSummary", m{"StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/none"}, rnf, "Stream none under account 123456789012 not found.")
	e.refused("DescribeStreamSummary", m{"StreamARN": "arn:aws:kinesis:us-east-1:999999999999:stream/s"}, rnf, "Stream s under account 999999999999 not found.")
	if a := e.call("DescribeStreamSummary", m{"StreamName": "t", "StreamARN": arn}); a.body["__type"] != iae {
		t.Errorf("conflict: %s", a.raw)
	}
	e.refused("PutRecord", m{"StreamARN": "arn:aws:kinesis:us-east-1:999999999999:stream/s", "Data": []byte("x"), "PartitionKey": "k"},
		rnf, "Stream s under account 999999999999 not found.")
}

// TestStates is the table of what each state allows.
func TestStates(t *testing.T) {
	e := newEnv(t, func(_ *Config, f *fakeBroker) { f.creating = true })
	e.ok("CreateStream", m{"StreamName": "s", "ShardCount": 1})
	id := e.broker.streamID("s")
	const state = "Stream s under account 123456789012 not ACTIVE, instead in state "
	const missing = "Stream s under account 123456789012 not found."

	d := e.ok("DescribeStream", m{"StreamName": "s"})["StreamDescription"].(m)
	if d["StreamStatus"] != "CREATING" || len(d["Shards"].([]any)) != 0 || d["HasMoreShards"] != false {
		t.Errorf("CREATING: %v", d)
	}
	put := m{"StreamName": "s", "Data": []byte("x"), "PartitionKey": "k"}
	puts := m{"StreamName": "s", "Records": []m{{"Data": []byte("x"), "PartitionKey": "k"}}}
	iter := m{"StreamName": "s", "ShardId": "0", "ShardIteratorType": "LATEST"}
	e.refused("PutRecord", put, rnf, missing)
	e.refused("PutRecords", puts, rnf, missing)
	e.refused("GetShardIterator", iter, rnf, "Shard shardId-000000000000 in stream s under account 123456789012 does not exist")
	e.refused("ListShards", m{"StreamName": "s"}, riu, state+"CREATING")
	e.refused("AddTagsToStream", m{"StreamName": "s", "Tags": m{"a": "b"}}, riu, state+"CREATING")
	e.refused("IncreaseStreamRetentionPeriod", m{"StreamName": "s", "RetentionPeriodHours": 48}, riu, state+"CREATING")
	e.refused("CreateStream", m{"StreamName": "s", "ShardCount": 1}, riu, "Stream s under account 123456789012 already exists.")
	e.ok("ListTagsForStream", m{"StreamName": "s"})
	if names := e.ok("ListStreams", m{})["StreamNames"]; !reflect.DeepEqual(names, []any{"s"}) {
		t.Error(names)
	}

	e.broker.activate(id)
	e.ok("PutRecord", put)
	e.ok("PutRecords", puts)
	e.ok("GetShardIterator", iter)
	e.ok("ListShards", m{"StreamName": "s"})

	e.broker.editStream(id, func(s *pb.Stream) { s.Status = pb.StreamStatus_STREAM_STATUS_UPDATING })
	e.ok("PutRecord", put)
	e.ok("GetShardIterator", iter)
	e.ok("ListShards", m{"StreamName": "s"})
	e.refused("IncreaseStreamRetentionPeriod", m{"StreamName": "s", "RetentionPeriodHours": 48}, riu, state+"UPDATING")

	e.ok("DeleteStream", m{"StreamName": "s"})
	e.ok("DeleteStream", m{"StreamName": "s"}) // a second one changes nothing
	d = e.ok("DescribeStream", m{"StreamName": "s"})["StreamDescription"].(m)
	if d["StreamStatus"] != "DELETING" || len(d["Shards"].([]any)) != 1 {
		t.Errorf("DELETING: %v", d)
	}
	e.refused("DecreaseStreamRetentionPeriod", m{"StreamName": "s", "RetentionPeriodHours": 24}, riu, state+"DELETING")

	e.broker.remove(id)
	for op, in := range map[string]m{
		"DescribeStream": {}, "DescribeStreamSummary": {}, "ListShards": {}, "DeleteStream": {}, "ListTagsForStream": {},
		"AddTagsToStream": {"Tags": m{"a": "b"}}, "RemoveTagsFromStream": {"TagKeys": []string{"a"}},
		"IncreaseStreamRetentionPeriod": {"RetentionPeriodHours": 24}, "DecreaseStreamRetentionPeriod": {"RetentionPeriodHours": 24},
	} {
		in["StreamName"] = "s"
		e.refused(op, in, rnf, missing)
	}
	e.refused("PutRecord", put, rnf, missing)
	e.refused("PutRecords", puts, rnf, missing)
	e.refused("GetShardIterator", iter, rnf, "Shard shardId-000000000000 in stream s under account 123456789012 does not exist")

	// Deleted while CREATING: no shards are shown.
	e.ok("CreateStream", m{"StreamName": "s", "ShardCount": 1})
	e.ok("DeleteStream", m{"StreamName": "s"})
	if d = e.ok("DescribeStream", m{"StreamName": "s"})["StreamDescription"].(m); len(d["Shards"].([]any)) != 0 {
		t.Errorf("deleted while CREATING: %v", d)
	}
}

func TestTransitionDelay(t *testing.T) {
	e := newEnv(t, func(c *Config, f *fakeBroker) { c.TransitionDelay, f.creating = 3*time.Second, true })
	e.ok("CreateStream", m{"StreamName": "s", "ShardCount": 1})
	id := e.broker.streamID("s")
	want := e.clock.now().UnixMilli() + 3000
	if got := e.broker.streams[id].TransitionAfterMs; got != want {
		t.Errorf("create: %d, not %d", got, want)
	}
	e.clock.advance(time.Minute)
	e.ok("DeleteStream", m{"StreamName": "s"})
	if got := e.broker.streams[id].TransitionAfterMs; got != want+60_000 {
		t.Errorf("delete: %d, not %d", got, want+60_000)
	}
}

func TestListStreams(t *testing.T) {
	e := newEnv(t)
	var all []string
	for i := range 120 {
		name := fmt.Sprintf("s%03d", i)
		e.create(name, 1)
		all = append(all, name)
	}
	page := func(in m) (names []string, more bool, token any) {
		out := e.ok("ListStreams", in)
		for i, n := range out["StreamNames"].([]any) {
			names = append(names, n.(string))
			s := out["StreamSummaries"].([]any)[i].(m)
			if s["StreamName"] != n || s["StreamARN"] != "arn:aws:kinesis:us-east-1:123456789012:stream/"+n.(string) || s["StreamStatus"] != "ACTIVE" ||
				s["StreamModeDetails"].(m)["StreamMode"] != "PROVISIONED" || s["StreamCreationTimestamp"] == nil {
				t.Fatalf("summary %v", s)
			}
		}
		return names, out["HasMoreStreams"].(bool), out["NextToken"]
	}
	for _, in := range []m{{}, {"Limit": 10000}} {
		names, more, token := page(in)
		if !slices.Equal(names, all[:100]) || !more || token == nil {
			t.Fatalf("%v: %d names, more %v, token %v", in, len(names), more, token)
		}
	}
	names, more, token := page(m{"Limit": 7})
	var got []string
	for got = names; more; got = append(got, names...) {
		names, more, token = page(m{"Limit": 7, "NextToken": token})
	}
	if !slices.Equal(got, all) || token != nil {
		t.Errorf("by token: %v, last token %v", got, token)
	}
	// The start need not exist.
	if names, _, _ = page(m{"ExclusiveStartStreamName": "s1"}); !slices.Equal(names, all[100:]) {
		t.Errorf("after s1: %v", names)
	}
	if names, more, _ = page(m{"ExclusiveStartStreamName": "s119"}); len(names) != 0 || more {
		t.Errorf("after the last: %v", names)
	}
	_, _, token = page(m{"Limit": 1})
	e.clock.advance(301 * time.Second)
	if a := e.call("ListStreams", m{"NextToken": token}); a.body["__type"] != "ExpiredNextTokenException" {
		t.Errorf("old token: %s", a.raw)
	}
	if a := e.call("ListStreams", m{"NextToken": "AAAA"}); a.body["__type"] != iae {
		t.Errorf("bad token: %s", a.raw)
	}
}

func TestListShardsTokens(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 5)
	page := func(in m) (ids []string, token any) {
		out := e.ok("ListShards", in)
		for _, s := range out["Shards"].([]any) {
			ids = append(ids, strings.TrimPrefix(s.(m)["ShardId"].(string), "shardId-00000000000"))
		}
		return ids, out["NextToken"]
	}
	ids, token := page(m{"StreamName": "s", "MaxResults": 2, "ExclusiveStartShardId": "shardId-000000000000", "ShardFilter": m{"Type": "AT_LATEST"}})
	if !slices.Equal(ids, []string{"1", "2"}) || token == nil {
		t.Fatal(ids, token)
	}
	// KPL sends MaxResults, KCL StreamId beside the token.
	ids, last := page(m{"NextToken": token, "MaxResults": 10000, "StreamId": "abcdefghijklmnopqrst-abc"})
	if !slices.Equal(ids, []string{"3", "4"}) || last != nil {
		t.Fatal(ids, last)
	}
	// The filter is in the token.
	e.broker.editShard(id, 4, func(s *pb.Shard) {
		s.State, s.ClosedMs = pb.ShardState_SHARD_STATE_CLOSED, e.clock.now().UnixMilli()
	})
	if ids, _ = page(m{"NextToken": token}); !slices.Equal(ids, []string{"3"}) {
		t.Fatal(ids)
	}
	for member, value := range map[string]any{
		"StreamName": "s", "ShardFilter": m{"Type": "AT_LATEST"}, "ExclusiveStartShardId": "shardId-000000000000",
		"StreamCreationTimestamp": 1, "StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/s",
	} {
		a := e.call("ListShards", m{"NextToken": token, member: value})
		a.mustBe(t, 400, iae, "NextToken and "+member+" cannot be provided together.")
	}
	e.refused("ListShards", m{}, iae, "Either NextToken or StreamName should be provided.")

	e.broker.remove(id)
	e.refused("ListShards", m{"NextToken": token}, rnf, "Stream s under account 123456789012 not found.")
	e.create("s", 1) // another stream of that name is not the token's
	e.refused("ListShards", m{"NextToken": token}, rnf, "Stream s under account 123456789012 not found.")
	e.clock.advance(301 * time.Second)
	if a := e.call("ListShards", m{"NextToken": token}); a.body["__type"] != "ExpiredNextTokenException" {
		t.Errorf("old token: %s", a.raw)
	}
	list, _ := page(m{"StreamName": "s", "StreamCreationTimestamp": json.Number("1795507200.123")})
	if len(list) != 1 {
		t.Error(list)
	}
	e.refused("ListShards", m{"StreamName": "s", "ExclusiveStartShardId": "x"}, rnf, "Could not find shard x in stream s under account 123456789012.")
	if a := e.call("ListShards", m{"StreamName": "s", "StreamCreationTimestamp": 17}); a.body["__type"] != rnf {
		t.Errorf("another creation time: %s", a.raw)
	}
}

// reshard makes: 0 (open), 1 closed into 2 and 3, of which 2 and 3 merged into 4.
// Times after the creation: split at 1 h, merge at 2 h.
func (e *env) reshard(id uint64) {
	at := func(h time.Duration) int64 { return e.clock.now().Add(h).UnixMilli() }
	whole := stream.UniformRanges(4)
	add := func(number uint32, from, to int, created int64, parents ...uint32) *pb.Shard {
		return &pb.Shard{
			StreamId: id, Number: number, State: pb.ShardState_SHARD_STATE_OPEN, CreatedMs: created, Parents: parents,
			Range:    &pb.HashRange{StartHi: whole[from].Start.Hi, StartLo: whole[from].Start.Lo, EndHi: whole[to].End.Hi, EndLo: whole[to].End.Lo},
			Replicas: []*pb.Replica{{Id: 90, NodeId: "n1"}}, Leader: 90,
		}
	}
	shut := func(number uint32, when int64) {
		e.broker.editShard(id, number, func(s *pb.Shard) {
			s.State, s.ClosedMs = pb.ShardState_SHARD_STATE_CLOSED, when
			s.FinalOffset = uint64(e.broker.logs[stream.ShardID{Stream: stream.StreamID(id), Number: number}].end)
		})
	}
	for n := uint32(2); n < 5; n++ {
		e.broker.mu.Lock()
		e.broker.logs[stream.ShardID{Stream: stream.StreamID(id), Number: n}] = &fakeLog{}
		e.broker.mu.Unlock()
	}
	shut(1, at(time.Hour))
	e.broker.addShard(id, add(2, 2, 2, at(time.Hour)+1000, 1))
	e.broker.addShard(id, add(3, 3, 3, at(time.Hour)+1000, 1))
	shut(2, at(2*time.Hour))
	shut(3, at(2*time.Hour))
	e.broker.addShard(id, add(4, 2, 3, at(2*time.Hour)+1000, 2, 3))
}

func TestListShardsFilters(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 2)
	start := e.clock.now()
	e.reshard(id)
	secs := func(d time.Duration) any { return json.Number(fmt.Sprint(start.Add(d).UnixMilli()/1000) + ".123") }
	list := func(filter m) string {
		in := m{"StreamName": "s"}
		if filter != nil {
			in["ShardFilter"] = filter
		}
		var ids []string
		for _, s := range e.ok("ListShards", in)["Shards"].([]any) {
			ids = append(ids, s.(m)["ShardId"].(string)[19:])
		}
		return strings.Join(ids, "")
	}
	check := func(name string, filter m, want string) {
		t.Helper()
		if got := list(filter); got != want {
			t.Errorf("%s: shards %s, not %s", name, got, want)
		}
	}
	e.clock.advance(3 * time.Hour)
	check("none", nil, "01234")
	check("FROM_TRIM_HORIZON", m{"Type": "FROM_TRIM_HORIZON"}, "01234")
	check("AT_TRIM_HORIZON, young stream", m{"Type": "AT_TRIM_HORIZON"}, "01")
	check("AT_LATEST", m{"Type": "AT_LATEST"}, "04")
	check("AFTER_SHARD_ID", m{"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000002"}, "34")
	check("AT_TIMESTAMP before all", m{"Type": "AT_TIMESTAMP", "Timestamp": 1}, "01")
	check("AT_TIMESTAMP 30 min", m{"Type": "AT_TIMESTAMP", "Timestamp": secs(30 * time.Minute)}, "01")
	check("AT_TIMESTAMP 90 min", m{"Type": "AT_TIMESTAMP", "Timestamp": secs(90 * time.Minute)}, "023")
	check("AT_TIMESTAMP of the close", m{"Type": "AT_TIMESTAMP", "Timestamp": secs(time.Hour)}, "01")
	check("AT_TIMESTAMP future", m{"Type": "AT_TIMESTAMP", "Timestamp": secs(99 * time.Hour)}, "04")
	check("FROM_TIMESTAMP before all", m{"Type": "FROM_TIMESTAMP", "Timestamp": 1}, "01234")
	check("FROM_TIMESTAMP 90 min", m{"Type": "FROM_TIMESTAMP", "Timestamp": secs(90 * time.Minute)}, "0234")
	check("FROM_TIMESTAMP future", m{"Type": "FROM_TIMESTAMP", "Timestamp": secs(99 * time.Hour)}, "04")

	// The trim horizon at 90 minutes: 24 h later. Shard 1's data has expired.
	e.clock.advance(24*time.Hour - 90*time.Minute)
	check("none, trimmed", nil, "0234")
	check("AT_TRIM_HORIZON, trimmed", m{"Type": "AT_TRIM_HORIZON"}, "023")
	check("AT_TIMESTAMP before the horizon", m{"Type": "AT_TIMESTAMP", "Timestamp": 1}, "023")
	check("FROM_TIMESTAMP before the horizon", m{"Type": "FROM_TIMESTAMP", "Timestamp": 1}, "0234")

	for _, f := range []m{
		{"Type": "AFTER_SHARD_ID"},
		{"Type": "AT_TIMESTAMP"},
		{"Type": "FROM_TIMESTAMP"},
		{"Type": "AT_LATEST", "ShardId": "shardId-000000000000"},
		{"Type": "AT_LATEST", "Timestamp": 1},
	} {
		if a := e.call("ListShards", m{"StreamName": "s", "ShardFilter": f}); a.body["__type"] != iae {
			t.Errorf("%v: %s", f, a.raw)
		}
	}
}

func TestShardShapes(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 2)
	e.reshard(id)
	e.clock.advance(3 * time.Hour)
	shards := e.ok("ListShards", m{"StreamName": "s"})["Shards"].([]any)
	created := e.clock.now().Add(-3 * time.Hour).Unix()
	split := shards[1].(m)
	if got := split["SequenceNumberRange"].(m)["EndingSequenceNumber"]; got != stream.EndSequence(1, created, created+3599).String() {
		t.Errorf("closed shard: %v", split)
	}
	child, merged := shards[2].(m), shards[4].(m)
	if child["ParentShardId"] != "shardId-000000000001" || child["AdjacentParentShardId"] != nil {
		t.Errorf("child: %v", child)
	}
	if merged["ParentShardId"] != "shardId-000000000002" || merged["AdjacentParentShardId"] != "shardId-000000000003" {
		t.Errorf("merged: %v", merged)
	}
	if open := shards[0].(m); open["ParentShardId"] != nil || open["SequenceNumberRange"].(m)["EndingSequenceNumber"] != nil {
		t.Errorf("open: %v", open)
	}
}

func TestRetention(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	inc := func(h int) m { return m{"StreamName": "s", "RetentionPeriodHours": h} }
	e.refused("IncreaseStreamRetentionPeriod", inc(23), iae, "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.")
	e.refused("DecreaseStreamRetentionPeriod", inc(1), iae, "Minimum allowed retention period is 24 hours. Requested retention period (1 hours) is too short.")
	e.refused("IncreaseStreamRetentionPeriod", inc(8761), iae, "Maximum allowed retention period is 8760 hours. Requested retention period (8761 hours) is too long.")
	e.ok("IncreaseStreamRetentionPeriod", inc(24)) // Terraform always does
	e.ok("IncreaseStreamRetentionPeriod", inc(48))
	hours := func() string {
		return fmt.Sprint(e.ok("DescribeStreamSummary", m{"StreamName": "s"})["StreamDescriptionSummary"].(m)["RetentionPeriodHours"])
	}
	if hours() != "48" {
		t.Error(hours())
	}
	e.refused("IncreaseStreamRetentionPeriod", inc(47), iae, "Requested retention period (47 hours) for stream s can not be shorter than existing retention period (48 hours). Use DecreaseRetentionPeriod API.")
	e.refused("DecreaseStreamRetentionPeriod", inc(49), iae, "Requested retention period (49 hours) for stream s can not be longer than existing retention period (48 hours). Use IncreaseRetentionPeriod API.")
	e.ok("DecreaseStreamRetentionPeriod", inc(48))
	e.ok("DecreaseStreamRetentionPeriod", inc(24))
	if hours() != "24" {
		t.Error(hours())
	}
}

func TestTags(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	const arn = "arn:aws:kinesis:us-east-1:123456789012:stream/s"
	if out := e.ok("ListTagsForStream", m{"StreamName": "s"}); !reflect.DeepEqual(out, m{"Tags": []any{}, "HasMoreTags": false}) {
		t.Error(out)
	}
	e.ok("AddTagsToStream", m{"StreamName": "s", "Tags": m{"b": "1", "a": "", "Z": "x y", "ü/=+-@_.:": "3"}})
	e.ok("TagResource", m{"ResourceARN": arn, "Tags": m{"b": "2", "c": "c"}})
	tags := func(out m) string {
		var all []string
		for _, x := range out["Tags"].([]any) {
			all = append(all, x.(m)["Key"].(string)+"="+x.(m)["Value"].(string))
		}
		return strings.Join(all, ",")
	}
	if got := tags(e.ok("ListTagsForResource", m{"ResourceARN": arn})); got != "Z=x y,a=,b=2,c=c,ü/=+-@_.:=3" {
		t.Error(got)
	}
	out := e.ok("ListTagsForStream", m{"StreamName": "s", "Limit": 2, "ExclusiveStartTagKey": "Zz"})
	if tags(out) != "a=,b=2" || out["HasMoreTags"] != true {
		t.Error(out)
	}
	e.ok("RemoveTagsFromStream", m{"StreamName": "s", "TagKeys": []string{"a", "unknown"}})
	e.ok("UntagResource", m{"ResourceARN": arn, "TagKeys": []string{"b", "Z"}})
	if got := tags(e.ok("ListTagsForStream", m{"StreamName": "s"})); got != "c=c,ü/=+-@_.:=3" {
		t.Error(got)
	}

	const invalid = "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % @."
	for _, bad := range []m{{"a\tb": ""}, {"a": "\n"}, {"a,b": ""}, {"a": ";"}, {"a%": ";"}, {"a\u00a0b": ""}} {
		e.refused("AddTagsToStream", m{"StreamName": "s", "Tags": bad}, iae, invalid)
	}
	e.refused("RemoveTagsFromStream", m{"StreamName": "s", "TagKeys": []string{"a;"}}, iae, invalid)
	const illegal = " because some tags contained illegal characters. The allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@'."
	e.refused("AddTagsToStream", m{"StreamName": "s", "Tags": m{"a%": ""}}, iae, "Failed to add tags to stream s under account 123456789012"+illegal)
	e.refused("RemoveTagsFromStream", m{"StreamName": "s", "TagKeys": []string{"a%"}}, iae, "Failed to remove tags from stream s under account 123456789012"+illegal)
	// The stream is looked for first.
	e.refused("AddTagsToStream", m{"StreamName": "none", "Tags": m{"a;": ""}}, rnf, "Stream none under account 123456789012 not found.")

	many := m{}
	for i := range 49 {
		many[fmt.Sprintf("k%d", i)] = "v"
	}
	e.refused("AddTagsToStream", m{"StreamName": "s", "Tags": many}, iae,
		"Failed to add tags to stream s under account 123456789012 because a given stream cannot have more than 10 tags associated with it.")
	delete(many, "k0")
	e.ok("AddTagsToStream", m{"StreamName": "s", "Tags": many})
	if got := len(e.ok("ListTagsForResource", m{"ResourceARN": arn})["Tags"].([]any)); got != 50 {
		t.Errorf("%d tags", got)
	}
}

func TestDescribeLimits(t *testing.T) {
	e := newEnv(t)
	e.create("a", 3)
	e.ok("CreateStream", m{"StreamName": "b"})
	e.create("gone", 5)
	e.ok("DeleteStream", m{"StreamName": "gone"})
	want := map[string]any{
		"ShardLimit": json.Number("200"), "OpenShardCount": json.Number("7"),
		"OnDemandStreamCount": json.Number("1"), "OnDemandStreamCountLimit": json.Number("3"),
	}
	if out := e.ok("DescribeLimits", m{}); !maps.Equal(out, want) {
		t.Errorf("%v, not %v", out, want)
	}
	if a := e.callCBOR("DescribeLimits", m{}); fmt.Sprint(a.body["OpenShardCount"]) != "7" {
		t.Error(a.body)
	}
}
