package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func TestPutRecordAnswer(t *testing.T) {
	e := newEnv(t)
	e.create("s", 3)
	// The vectors of the service: fresh stream of three shards.
	for key, shard := range map[string]uint32{"a": 0, "b": 1, "e": 2, "f": 1} {
		out := e.put("s", key, "x")
		want := m{
			"ShardId":        fmt.Sprintf("shardId-%012d", shard),
			"SequenceNumber": out["SequenceNumber"],
		}
		if !reflect.DeepEqual(out, want) {
			t.Errorf("%s: %v, not %v", key, out, want)
		}
		n, err := stream.ParseSequence(out["SequenceNumber"].(string))
		if err != nil || len(out["SequenceNumber"].(string)) != 56 || n.Shard != shard || n.Created != 1795507200 || n.Arrival != 1795507200 {
			t.Errorf("%s: %v %+v %v", key, out, n, err)
		}
	}
	// Numbers of one shard rise.
	first, second := e.put("s", "a", "1")["SequenceNumber"].(string), e.put("s", "a", "2")["SequenceNumber"].(string)
	if first >= second {
		t.Errorf("%s, then %s", first, second)
	}
	if a := e.callCBOR("PutRecord", m{"StreamName": "s", "PartitionKey": "e", "Data": []byte{}}); a.status != 200 || a.body["ShardId"] != "shardId-000000000002" {
		t.Errorf("CBOR: %d %v", a.status, a.body)
	}
}

func TestPutRecordsAnswer(t *testing.T) {
	e := newEnv(t)
	e.create("s", 3)
	records := []m{
		{"PartitionKey": "a", "Data": []byte("0")},
		{"PartitionKey": "b", "Data": []byte("1")},
		{"PartitionKey": "b", "Data": []byte("2"), "ExplicitHashKey": "0"},
		{"PartitionKey": "e", "Data": []byte("")},
		{"PartitionKey": "a", "Data": []byte("4"), "ExplicitHashKey": "340282366920938463463374607431768211455"},
		{"PartitionKey": "a", "Data": []byte("5")},
	}
	for _, call := range []func(string, m) answer{func(op string, in m) answer { return e.call(op, in) }, e.callCBOR} {
		a := call("PutRecords", m{"StreamName": "s", "Records": records})
		if a.status != 200 || fmt.Sprint(a.body["FailedRecordCount"]) != "0" {
			t.Fatalf("%d %s", a.status, a.raw)
		}
		var shards []string
		for _, r := range a.body["Records"].([]any) {
			r := toMap(r)
			if len(r) != 2 || r["SequenceNumber"] == nil {
				t.Errorf("result %v", r)
			}
			shards = append(shards, r["ShardId"].(string)[19:])
		}
		if got := strings.Join(shards, ""); got != "010220" {
			t.Errorf("shards %s", got)
		}
	}
	// One Append for the one node, with a batch per shard, in the order of the request.
	if n := len(e.broker.appends); n != 2 || len(e.broker.appends[0].Batches) != 3 {
		t.Errorf("%d appends", n)
	}
	out := e.read(e.iterator("s", "0", "TRIM_HORIZON", nil), nil)
	if got := dataOf(t, out); got != "0 2 5 0 2 5" {
		t.Errorf("shard 0 holds %q", got)
	}
	if r := out["Records"].([]any)[1].(m); r["PartitionKey"] != "b" || r["ExplicitHashKey"] != nil || r["EncryptionType"] != nil {
		t.Errorf("record %v", r)
	}
}

// toMap takes the maps of both decoders.
func toMap(v any) m {
	if x, ok := v.(m); ok {
		return x
	}
	out := m{}
	for k, x := range v.(map[any]any) {
		out[k.(string)] = x
	}
	return out
}

func TestPutLimits(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	const tooBig = "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was 340282366920938463463374607431768211456"
	over := "340282366920938463463374607431768211456"
	e.refused("PutRecord", m{"StreamName": "s", "PartitionKey": "k", "Data": []byte("x"), "ExplicitHashKey": over}, iae, tooBig)
	e.refused("PutRecords", m{"StreamName": "s", "Records": []m{
		{"PartitionKey": "k", "Data": []byte("x")}, {"PartitionKey": "k", "Data": []byte("x"), "ExplicitHashKey": over},
	}}, iae, tooBig)

	data := make([]byte, 1<<20)
	put := func(n int) m { return m{"StreamName": "s", "PartitionKey": "key", "Data": data[:n]} }
	e.ok("PutRecord", put(1<<20-3))
	if a := e.call("PutRecord", put(1<<20-2)); a.status != 400 || a.body["__type"] != iae {
		t.Errorf("a byte too much: %d %s", a.status, a.raw)
	}
	big := m{"StreamName": "s"}
	var records []m
	for range 11 {
		records = append(records, m{"PartitionKey": "key", "Data": data[:1<<20-3]})
	}
	big["Records"] = records[:10]
	if a := e.callCBOR("PutRecords", big); a.status != 200 {
		t.Errorf("10 MiB: %d %s", a.status, a.raw)
	}
	big["Records"] = append(records[:10:10], m{"PartitionKey": "k", "Data": []byte{}})
	if a := e.call("PutRecords", big); a.status != 400 || a.body["__type"] != iae {
		t.Errorf("10 MiB and a byte: %d %s", a.status, a.raw)
	}
	if n := len(e.broker.appends); n != 2 {
		t.Errorf("%d appends, refused ones among them", n)
	}
	many := make([]m, 501)
	for i := range many {
		many[i] = m{"PartitionKey": "k", "Data": []byte{}}
	}
	e.ok("PutRecords", m{"StreamName": "s", "Records": many[:500]})
	if a := e.call("PutRecords", m{"StreamName": "s", "Records": many}); a.body["__type"] != "ValidationException" {
		t.Errorf("501 records: %s", a.raw)
	}
	// Larger records where the stream allows them.
	e.ok("CreateStream", m{"StreamName": "large", "ShardCount": 1, "MaxRecordSizeInKiB": 2048})
	a := e.callCBOR("PutRecord", m{"StreamName": "large", "PartitionKey": "key", "Data": make([]byte, 2<<20-3)})
	if a.status != 200 {
		t.Errorf("2 MiB record: %d %s", a.status, a.raw)
	}
}

func TestSequenceNumberForOrdering(t *testing.T) {
	e := newEnv(t)
	e.create("s", 2)
	put := func(number string) answer {
		return e.call("PutRecord", m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("x"), "SequenceNumberForOrdering": number})
	}
	mine := e.put("s", "a", "x")["SequenceNumber"].(string)
	now := e.clock.now().Unix()
	for _, ok := range []string{
		mine,
		stream.StartSequence(1, now).String(), // another shard
		stream.RecordSequence(77, now-5, 3, now).String(),
		(stream.SequenceNumber{}).String(), // all zero, version 2
		"5",                                // version 0 in the short layout
	} {
		if a := put(ok); a.status != 200 {
			t.Errorf("%s: %d %s", ok, a.status, a.raw)
		}
	}
	for _, bad := range []string{
		stream.RecordSequence(0, now, 3, now+1).String(),            // arrives in the future
		stream.StartSequence(0, 16025175000).String(),               // huge date
		strings.Repeat("9", 56),                                     // wrong leading digit
		"49674026002850188218576229259473476449429298564223254595",  // version 3
		"99674026002850188218576229259473476449429298564223254594",  // leading digit
		"496740260028501882185762292594734764494292985642232545940", // too long
		"49674026002850188218576229259473476449429298564223254592",  // version 0 in the long layout
	} {
		put(bad).mustBe(t, 400, iae, "ExclusiveMinimumSequenceNumber "+bad+" used in PutRecord on stream s under account 123456789012 is invalid.")
	}
}

// TestPutFailures: what each kind of failure looks like to a client.
func TestPutFailures(t *testing.T) {
	for _, c := range []struct {
		kind           stream.Kind
		status         int
		class, message string // of PutRecord
		code, inRecord string // of a record of PutRecords
	}{
		{
			stream.Throttled, 400, "ProvisionedThroughputExceededException", "Rate exceeded for shard shardId-000000000000 in stream s under account 123456789012.",
			"ProvisionedThroughputExceededException", "Rate exceeded for shard shardId-000000000000 in stream s under account 123456789012.",
		},
		{stream.DiskFull, 503, "ServiceUnavailable", "The disk of the broker is almost full.", "InternalFailure", "The disk of the broker is almost full."},
		{stream.Internal, 500, "InternalFailure", "", "InternalFailure", "Internal service failure."},
		{stream.Corrupt, 500, "InternalFailure", "", "InternalFailure", "Internal service failure."},
	} {
		t.Run(c.kind.String(), func(t *testing.T) {
			e := newEnv(t, func(_ *Config, f *fakeBroker) {
				f.onAppend = func(_ string, s stream.ShardID) (stream.Kind, error) {
					if s.Number == 0 {
						return c.kind, nil
					}
					return 0, nil
				}
			})
			e.create("s", 3)
			a := e.call("PutRecord", m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("x")})
			a.mustBe(t, c.status, c.class, c.message)
			out := e.ok("PutRecords", m{"StreamName": "s", "Records": []m{
				{"PartitionKey": "b", "Data": []byte("x")}, {"PartitionKey": "a", "Data": []byte("x")}, {"PartitionKey": "e", "Data": []byte("x")},
			}})
			if out["FailedRecordCount"] != json.Number("1") {
				t.Errorf("%v", out)
			}
			results := out["Records"].([]any)
			if want := (m{"ErrorCode": c.code, "ErrorMessage": c.inRecord}); !reflect.DeepEqual(results[1], want) {
				t.Errorf("failed record: %v, not %v", results[1], want)
			}
			for _, i := range []int{0, 2} {
				if r := results[i].(m); len(r) != 2 || r["SequenceNumber"] == nil || r["ShardId"] == nil {
					t.Errorf("stored record: %v", r)
				}
			}
		})
	}
}

// TestPutAllFailed: 200 also then.
func TestPutAllFailed(t *testing.T) {
	e := newEnv(t, func(_ *Config, f *fakeBroker) {
		f.onAppend = func(string, stream.ShardID) (stream.Kind, error) { return 0, errors.New("wire cut") }
	})
	e.create("s", 2)
	out := e.ok("PutRecords", m{"StreamName": "s", "Records": []m{{"PartitionKey": "b", "Data": []byte("x")}, {"PartitionKey": "a", "Data": []byte("x")}}})
	if out["FailedRecordCount"] != json.Number("2") {
		t.Errorf("%v", out)
	}
	e.call("PutRecord", m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("x")}).mustBe(t, 500, "InternalFailure", "")
}

// TestPutFollowsTheLeader: a put that finds its leader gone goes to the next as
// soon as the metadata names it, with the same request id and ordinals (I22).
func TestPutFollowsTheLeader(t *testing.T) {
	var e *env
	var once sync.Once
	var nodes []string
	e = newEnv(t, func(_ *Config, f *fakeBroker) {
		f.onAppend = func(node string, s stream.ShardID) (stream.Kind, error) {
			if s.Number != 0 {
				return 0, nil
			}
			nodes = append(nodes, node)
			if node == "n1" {
				go once.Do(func() {
					f.addNode("n2")
					f.editShard(uint64(s.Stream), 0, func(sh *pb.Shard) {
						sh.Replicas = append(sh.Replicas, &pb.Replica{Id: 50, NodeId: "n2"})
						sh.Leader, sh.Epoch = 50, 2
					})
				})
				return stream.NotLeader, nil
			}
			return 0, nil
		}
	})
	e.create("s", 3)
	out := e.ok("PutRecords", m{"StreamName": "s", "Records": []m{
		{"PartitionKey": "b", "Data": []byte("0")}, {"PartitionKey": "a", "Data": []byte("1")}, {"PartitionKey": "a", "Data": []byte("2")},
	}})
	if out["FailedRecordCount"] != json.Number("0") {
		t.Fatal(out)
	}
	if nodes[0] != "n1" || nodes[len(nodes)-1] != "n2" {
		t.Errorf("asked %v", nodes)
	}
	first, last := e.broker.appends[0], e.broker.appends[len(e.broker.appends)-1]
	if len(first.Batches) != 2 || len(last.Batches) != 1 || last.Batches[0].Shard.Shard != 0 {
		t.Errorf("last append %v", last)
	}
	request := stream.Batch(first.Batches[0].Batch).RequestID()
	if request == ([16]byte{}) || stream.Batch(last.Batches[0].Batch).RequestID() != request {
		t.Errorf("request ids differ")
	}
	if got := dataOf(t, e.read(e.iterator("s", "0", "TRIM_HORIZON", nil), nil)); got != "1 2" {
		t.Errorf("shard 0 holds %q", got)
	}
	for o, r := range e.broker.logs[stream.ShardID{Stream: 1, Number: 0}].batches[0].Records() {
		if int(r.Ordinal) != int(o)+1 {
			t.Errorf("record %d has ordinal %d", o, r.Ordinal)
		}
	}
}

// TestPutWaitsForALeader: an offline shard is waited for, but not for ever.
func TestPutWaitsForALeader(t *testing.T) {
	e := newEnv(t, func(c *Config, _ *fakeBroker) { c.OfflineWait = 20 * time.Millisecond })
	id := e.create("s", 1)
	e.broker.editShard(id, 0, func(s *pb.Shard) { s.Leader = 0 })
	a := e.call("PutRecord", m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("x")})
	a.mustBe(t, 503, "ServiceUnavailable", "The shard is offline.")
	if len(e.broker.appends) != 0 {
		t.Error("a shard without leader was sent to")
	}
	out := e.ok("PutRecords", m{"StreamName": "s", "Records": []m{{"PartitionKey": "a", "Data": []byte("x")}}})
	if want := []any{m{"ErrorCode": "InternalFailure", "ErrorMessage": "Internal service failure."}}; !reflect.DeepEqual(out["Records"], want) {
		t.Error(out)
	}

	patient := newEnv(t, func(c *Config, _ *fakeBroker) { c.OfflineWait, c.RequestTimeout = time.Hour, time.Hour })
	id = patient.create("s", 1)
	patient.broker.editShard(id, 0, func(s *pb.Shard) { s.Leader = 0 })
	if err := patient.g.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored := make(chan answer)
	go func() {
		stored <- patient.call("PutRecord", m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("x")})
	}()
	patient.broker.editShard(id, 0, func(s *pb.Shard) { s.Leader = s.Replicas[0].Id })
	if a := <-stored; a.status != 200 {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

// TestPutGivesUpInTime: a leader that never leads costs RequestTimeout, not more.
func TestPutGivesUpInTime(t *testing.T) {
	e := newEnv(t, func(c *Config, f *fakeBroker) {
		c.RequestTimeout = 50 * time.Millisecond
		f.onAppend = func(string, stream.ShardID) (stream.Kind, error) { return stream.NotLeader, nil }
	})
	e.create("s", 1)
	e.call("PutRecord", m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("x")}).
		mustBe(t, 503, "ServiceUnavailable", "The leader of the shard is not known yet.")
	if len(e.broker.appends) < 2 {
		t.Error("it was not tried again")
	}
}

// TestPutToDeletedStream: a stream that goes while a put waits is not found.
func TestPutToDeletedStream(t *testing.T) {
	e := newEnv(t, func(c *Config, f *fakeBroker) { c.RequestTimeout, c.OfflineWait = time.Hour, time.Hour })
	id := e.create("s", 1)
	e.broker.editShard(id, 0, func(s *pb.Shard) { s.Leader = 0 })
	got := make(chan answer)
	go func() { got <- e.call("PutRecord", m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("x")}) }()
	e.broker.remove(id)
	(<-got).mustBe(t, 400, rnf, "Stream s under account 123456789012 not found.")
}

// lossy loses the answer to the first Append, whose batches are stored.
type lossy struct {
	pb.DataClient
	once *sync.Once
}

func (d lossy) Append(ctx context.Context, in *pb.AppendRequest, o ...grpc.CallOption) (*pb.AppendResponse, error) {
	out, err := d.DataClient.Append(ctx, in, o...)
	d.once.Do(func() { out, err = nil, stream.Errorf(stream.Timeout, "test", "lost") })
	return out, err
}

// TestUnknownOutcome: an Append whose answer was lost is repeated with the same
// bytes, by which the leader knows it (I22), in both formats.
func TestUnknownOutcome(t *testing.T) {
	for _, kind := range []string{"JSON", "CBOR"} {
		t.Run(kind, func(t *testing.T) {
			var once sync.Once
			e := newEnv(t, func(c *Config, f *fakeBroker) {
				c.Data = func(node, address string) (pb.DataClient, error) {
					d, err := f.data(node, address)
					return lossy{d, &once}, err
				}
			})
			e.create("s", 1)
			in := m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("x")}
			call := func(op string, in m) answer { return e.call(op, in) }
			if kind == "CBOR" {
				call = e.callCBOR
			}
			if a := call("PutRecord", in); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.raw)
			}
			if e.broker.repeats != 1 || len(e.broker.appends) != 2 {
				t.Errorf("%d repeats in %d calls", e.broker.repeats, len(e.broker.appends))
			}
			if got := dataOf(t, e.read(e.iterator("s", "0", "TRIM_HORIZON", nil), nil)); got != "x" {
				t.Errorf("the shard holds %q", got)
			}
		})
	}
}

// TestPutIdentities: the batch carries the request's id as the client sees it,
// and the SDK's invocation id and attempt.
func TestPutIdentities(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	in := m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("x")}
	a := e.call("PutRecord", in, "amz-sdk-invocation-id", "01234567-89AB-cdef-0123-456789abcdef", "amz-sdk-request", "ttl=20261124T081513Z; attempt=3; max=5")
	b := stream.Batch(e.broker.appends[0].Batches[0].Batch)
	if got := formatID(b.RequestID()); got != a.header.Get("X-Amzn-Requestid") {
		t.Errorf("request id %s, the answer says %s", got, a.header.Get("X-Amzn-Requestid"))
	}
	if got := formatID(b.InvocationID()); got != "01234567-89ab-cdef-0123-456789abcdef" || b.Attempt() != 3 {
		t.Errorf("invocation %s, attempt %d", got, b.Attempt())
	}
	for _, bad := range []string{"", "x", "01234567-89ab-cdef-0123-456789abcdeg", "0123456789abcdef0123456789abcdef0000"} {
		e.call("PutRecord", in, "amz-sdk-invocation-id", bad, "amz-sdk-request", "attempt=2")
		b := stream.Batch(e.broker.appends[len(e.broker.appends)-1].Batches[0].Batch)
		if b.InvocationID() != ([16]byte{}) || b.Attempt() != 0 {
			t.Errorf("%q: %x %d", bad, b.InvocationID(), b.Attempt())
		}
	}
}

// TestPutsToSeveralNodes: one Append for each, at the same time.
func TestPutsToSeveralNodes(t *testing.T) {
	var arrived sync.WaitGroup
	arrived.Add(2)
	e := newEnv(t)
	e.broker.addNode("n2")
	id := e.create("s", 4)
	for n := uint32(0); n < 4; n += 2 {
		e.broker.editShard(id, n, func(s *pb.Shard) { s.Replicas[0].NodeId = "n2" })
	}
	// Each node answers only when both have been asked.
	inner := e.g.cfg.Data
	e.g.cfg.Data = func(node, address string) (pb.DataClient, error) {
		d, err := inner(node, address)
		return meeting{d, &arrived}, err
	}
	var records []m
	for i := range 4 {
		records = append(records, m{"PartitionKey": "k", "Data": []byte{byte('0' + i)}, "ExplicitHashKey": stream.UniformRanges(4)[i].Start.String()})
	}
	out := e.ok("PutRecords", m{"StreamName": "s", "Records": records})
	if out["FailedRecordCount"] != json.Number("0") || len(e.broker.appends) != 2 {
		t.Errorf("%v in %d appends", out, len(e.broker.appends))
	}
	for i, r := range out["Records"].([]any) {
		if r.(m)["ShardId"] != stream.ShardName(uint32(i)) {
			t.Errorf("record %d: %v", i, r)
		}
	}
}

// TestConcurrentPuts: pooled state never mixes requests.
func TestConcurrentPuts(t *testing.T) {
	e := newEnv(t)
	e.create("s", 8)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				var records []m
				for j := range 1 + (w*7+i)%30 {
					records = append(records, m{"PartitionKey": fmt.Sprintf("%d-%d-%d", w, i, j), "Data": fmt.Appendf(nil, "%d-%d-%d", w, i, j)})
				}
				a := e.call("PutRecords", m{"StreamName": "s", "Records": records})
				if a.status != 200 || len(a.body["Records"].([]any)) != len(records) {
					t.Errorf("%d %s", a.status, a.raw)
				}
			}
		})
	}
	wg.Wait()
	seen := 0
	for id, log := range e.broker.logs {
		for _, b := range log.batches {
			for _, r := range b.Records() {
				if string(r.Data) != string(r.PartitionKey) {
					t.Fatalf("shard %v: key %s, data %s", id, r.PartitionKey, r.Data)
				}
				seen++
			}
		}
	}
	if want := 8 * 20; seen < want {
		t.Errorf("%d records", seen)
	}
}

func TestRouteAgainstSearch(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 7)
	if err := e.g.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := e.g.meta.load().byID[id]
	keys := []stream.HashKey{{}, stream.MaxHashKey}
	for _, r := range stream.UniformRanges(7) {
		keys = append(keys, r.Start, r.End, r.Start.Next())
	}
	for i := range 100 {
		keys = append(keys, stream.HashPartitionKey(fmt.Append(nil, i)))
	}
	for _, k := range keys {
		i := slices.IndexFunc(v.shards, func(s *pb.Shard) bool { return rangeOf(s).Contains(k) })
		if got := v.route(k); got == nil || got.shard != v.shards[i] {
			t.Errorf("%v: %v, not shard %d", k, got, i)
		}
	}
	e.broker.editShard(id, 3, func(s *pb.Shard) { s.State = pb.ShardState_SHARD_STATE_SEALING })
	if _, err := e.g.linearizable(t.Context()); err != nil {
		t.Fatal(err)
	}
	v = e.g.meta.load().byID[id]
	r := stream.UniformRanges(7)[3]
	for k, sealing := range map[stream.HashKey]bool{r.Start: true, r.End: true, r.Start.Prev(): false, r.End.Next(): false} {
		if to := v.route(k); to == nil || to.sealing != sealing {
			t.Errorf("%v, around a sealing shard: %+v", k, to)
		}
	}
	if v.openShards() != 7 {
		t.Errorf("%d open shards", v.openShards())
	}
}
