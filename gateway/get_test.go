package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const shard0 = "shardId-000000000000"

func TestIteratorTypes(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	var numbers []string
	var times []time.Time
	for i := range 4 {
		e.clock.advance(10 * time.Second)
		times = append(times, e.clock.now())
		numbers = append(numbers, e.put("s", "k", fmt.Sprint(i))["SequenceNumber"].(string))
	}
	at := func(x time.Time) m {
		return m{"Timestamp": json.Number(fmt.Sprintf("%d.%03d", x.Unix(), x.UnixMilli()%1000))}
	}
	number := func(n string) m { return m{"StartingSequenceNumber": n} }
	for _, c := range []struct {
		name, kind string
		more       m
		want       string
	}{
		{"oldest", "TRIM_HORIZON", nil, "0 1 2 3"},
		{"newest", "LATEST", nil, ""},
		{"at", "AT_SEQUENCE_NUMBER", number(numbers[1]), "1 2 3"},
		{"after", "AFTER_SEQUENCE_NUMBER", number(numbers[1]), "2 3"},
		{"after the last", "AFTER_SEQUENCE_NUMBER", number(numbers[3]), ""},
		{"at the start of the shard", "AT_SEQUENCE_NUMBER", number(stream.StartSequence(0, 1795507200).String()), "0 1 2 3"},
		{"after the start of the shard", "AFTER_SEQUENCE_NUMBER", number(stream.StartSequence(0, 1795507200).String()), "0 1 2 3"},
		{"at a number to come", "AT_SEQUENCE_NUMBER", number(stream.RecordSequence(0, 1795507200, 4, 1795507200).String()), ""},
		{"another arrival second", "AT_SEQUENCE_NUMBER", number(stream.RecordSequence(0, 1795507200, 2, 1).String()), "2 3"},
		{"time of a record", "AT_TIMESTAMP", at(times[2]), "2 3"},
		{"time between", "AT_TIMESTAMP", at(times[2].Add(-time.Millisecond)), "2 3"},
		{"time before all", "AT_TIMESTAMP", m{"Timestamp": 1}, "0 1 2 3"},
		{"time of now", "AT_TIMESTAMP", at(times[3]), "3"},
		{"ignored zero of the id", "TRIM_HORIZON", m{"ShardId": "foo-0"}, "0 1 2 3"},
	} {
		if got := dataOf(t, e.read(e.iterator("s", shard0, c.kind, c.more), nil)); got != c.want {
			t.Errorf("%s: read %q, not %q", c.name, got, c.want)
		}
	}
	// LATEST is where it was when it was made.
	latest := e.iterator("s", shard0, "LATEST", nil)
	e.put("s", "k", "4")
	if got := dataOf(t, e.read(latest, nil)); got != "4" {
		t.Errorf("from LATEST: %q", got)
	}
	// Later than the last record: the next to come.
	e.clock.advance(time.Minute)
	later := e.iterator("s", shard0, "AT_TIMESTAMP", at(e.clock.now()))
	e.put("s", "k", "5")
	if got := dataOf(t, e.read(later, nil)); got != "5" {
		t.Errorf("from a later time: %q", got)
	}
}

func TestGetShardIteratorErrors(t *testing.T) {
	e := newEnv(t)
	e.create("s", 2)
	text := func(kind, has string) string {
		return "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified " + kind + " and " + has + " StartingSequenceNumber."
	}
	in := func(kind string, more m) m {
		out := m{"StreamName": "s", "ShardId": shard0, "ShardIteratorType": kind}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	number := func(n string) m { return m{"StartingSequenceNumber": n} }
	mine := stream.StartSequence(0, 1795507200).String()
	for _, kind := range []string{"AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"} {
		e.refused("GetShardIterator", in(kind, nil), iae, text(kind, "no"))
	}
	for _, kind := range []string{"TRIM_HORIZON", "LATEST"} {
		e.refused("GetShardIterator", in(kind, number(mine)), iae, text(kind, "also a"))
	}
	e.refused("GetShardIterator", in("AT_TIMESTAMP", nil), iae,
		"Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.")
	a := e.call("GetShardIterator", in("AT_TIMESTAMP", m{"Timestamp": json.Number("1795507200.124")}))
	a.mustBe(t, 400, iae, "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: 1795507200124, currentTimestampInMillis: 1795507200123")

	const gone = "Shard shardId-000000000007 in stream s under account 123456789012 does not exist"
	e.refused("GetShardIterator", in("LATEST", m{"ShardId": "shardId-000000000007"}), rnf, gone)
	e.refused("GetShardIterator", in("LATEST", m{"ShardId": "7"}), rnf, gone)
	e.refused("GetShardIterator", in("LATEST", m{"StreamName": "none"}), rnf, "Shard shardId-000000000000 in stream none under account 123456789012 does not exist")
	e.refused("GetShardIterator", in("LATEST", m{"ShardId": "shardId-x"}), rnf, "Could not find shard shardId-x in stream s under account 123456789012.")
	e.refused("GetShardIterator", in("LATEST", m{"ShardId": "2147483648"}), rnf, "Could not find shard 2147483648 in stream s under account 123456789012.")

	at := func(n string) m { return in("AT_SEQUENCE_NUMBER", number(n)) }
	bad := strings.Repeat("9", 56)
	e.refused("GetShardIterator", at(bad), iae, "StartingSequenceNumber "+bad+" used in GetShardIterator on shard shardId-000000000000 in stream s under account 123456789012 is invalid.")
	e.refused("GetShardIterator", at(stream.StartSequence(1, 1795507200).String()), iae,
		"Invalid StartingSequenceNumber. It encodes shardId-000000000001, while it was used in a call to a shard with shardId-000000000000")
	other := stream.StartSequence(0, 1795507201).String()
	e.refused("GetShardIterator", at(other), iae, "StartingSequenceNumber "+other+" used in GetShardIterator on shard shardId-000000000000 in stream s under account 123456789012 is invalid because it did not come from this stream.")
	e.call("GetShardIterator", at("0")).mustBe(t, 500, "InternalFailure", "")
	e.refused("GetShardIterator", at("5"), iae, "Invalid StartingSequenceNumber. It encodes shardId-000000000005, while it was used in a call to a shard with shardId-000000000000")
}

func TestIteratorLooks(t *testing.T) {
	e := newEnv(t)
	long := strings.Repeat("n", 128)
	e.create(long, 1)
	seen := make(map[string]bool)
	text := e.iterator(long, shard0, "TRIM_HORIZON", nil)
	for range 50 {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(text) > 512 || !strings.HasPrefix(text, "AAAAAAAAAA") {
			t.Fatalf("%d characters: %s", len(text), text)
		}
		if !bytes.Equal(raw[:8], []byte{0, 0, 0, 0, 0, 0, 0, 1}) || (len(raw)-8)%16 != 0 {
			t.Fatalf("%d bytes: %x", len(raw), raw)
		}
		if seen[text] {
			t.Fatal("an iterator came twice")
		}
		seen[text] = true
		out := e.read(text, nil)
		if len(out["Records"].([]any)) != 0 || out["MillisBehindLatest"] != json.Number("0") {
			t.Fatal(out)
		}
		text = out["NextShardIterator"].(string)
	}
	// Empty answers have kept the position.
	e.put(long, "k", "x")
	if got := dataOf(t, e.read(text, nil)); got != "x" {
		t.Errorf("read %q", got)
	}
	if got := dataOf(t, e.read(`"`+text+`"`, nil)); got != "x" {
		t.Errorf("in quotes, a second time: %q", got)
	}
}

func TestIteratorErrors(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 1)
	text := e.iterator("s", shard0, "TRIM_HORIZON", nil)
	get := func(s string) m { return m{"ShardIterator": s} }
	raw, _ := base64.StdEncoding.DecodeString(text)
	for name, bad := range map[string]string{
		"no base64": "hello", "short": "AAAA", "cut": text[:len(text)-4], "one quote": `"` + text,
		"other mark": base64.StdEncoding.EncodeToString(append([]byte{1}, raw[1:]...)),
		"flipped":    base64.StdEncoding.EncodeToString(append(raw[:len(raw)-1:len(raw)-1], raw[len(raw)-1]^1)),
	} {
		a := e.call("GetRecords", get(bad))
		if a.status != 400 || a.body["__type"] != iae || a.body["message"] != "Invalid ShardIterator." {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	// A page token is no iterator, nor the reverse.
	e.create("t", 1)
	token := e.ok("ListStreams", m{"Limit": 1})["NextToken"].(string)
	e.refused("GetRecords", get(token), iae, "Invalid ShardIterator.")
	if a := e.call("ListStreams", m{"NextToken": text}); a.body["__type"] != iae {
		t.Errorf("iterator as token: %s", a.raw)
	}

	e.clock.advance(300 * time.Second)
	e.ok("GetRecords", get(text))
	e.clock.advance(700 * time.Millisecond)
	e.refused("GetRecords", get(text), "ExpiredIteratorException",
		"Iterator expired. The iterator was created at time Tue Nov 24 08:00:00 UTC 2026 while right now it is Tue Nov 24 08:05:00 UTC 2026 which is further in the future than the tolerated delay of 300000 milliseconds.")
	// An iterator of a gateway whose clock is ahead.
	text = e.iterator("s", shard0, "TRIM_HORIZON", nil)
	e.clock.advance(-10 * time.Second)
	e.ok("GetRecords", get(text))

	e.ok("GetRecords", m{"ShardIterator": text, "StreamARN": "arn:aws:kinesis:eu-west-1:123456789012:stream/s"})
	if a := e.call("GetRecords", m{"ShardIterator": text, "StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/t"}); a.body["__type"] != iae {
		t.Errorf("another stream's ARN: %s", a.raw)
	}
	const gone = "Shard shardId-000000000000 in stream s under account 123456789012 does not exist"
	e.broker.remove(id)
	e.refused("GetRecords", get(text), rnf, gone)
	e.create("s", 1) // a re-created namesake is another stream
	e.refused("GetRecords", get(text), rnf, gone)
}

func TestGetRecordsAnswer(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	number := e.put("s", "key ü", "data")["SequenceNumber"]
	in := m{"ShardIterator": e.iterator("s", shard0, "TRIM_HORIZON", nil)}
	out := e.ok("GetRecords", in)
	want := m{
		"Records": []any{m{
			"SequenceNumber": number, "PartitionKey": "key ü", "Data": base64.StdEncoding.EncodeToString([]byte("data")),
			"ApproximateArrivalTimestamp": json.Number("1795507200.123"),
		}},
		"NextShardIterator": out["NextShardIterator"], "MillisBehindLatest": json.Number("0"),
	}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("%v, not\n%v", out, want)
	}
	a := e.callCBOR("GetRecords", in)
	r := toMap(a.body["Records"].([]any)[0])
	if string(r["Data"].([]byte)) != "data" || r["SequenceNumber"] != number || r["PartitionKey"] != "key ü" {
		t.Errorf("CBOR: %v", r)
	}
	// Times are tag 1 with integer milliseconds.
	if !bytes.Contains(a.raw, []byte{0xc1, 0x1b, 0, 0, 1, 0xa2, 0x0c, 0xda, 0xcc, 0x7b}) && fmt.Sprint(r["ApproximateArrivalTimestamp"]) == "" {
		t.Errorf("CBOR: %x", a.raw)
	}
}

func TestGetRecordsPages(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	var want []string
	for batch := range 5 {
		var records []m
		for i := range 10 {
			want = append(want, fmt.Sprintf("%d", batch*10+i))
			records = append(records, m{"PartitionKey": "k", "Data": []byte(want[len(want)-1])})
		}
		e.ok("PutRecords", m{"StreamName": "s", "Records": records})
		e.clock.advance(time.Second)
	}
	text := e.iterator("s", shard0, "TRIM_HORIZON", nil)
	var got []string
	for i, limit := 0, 7; len(got) < 50; i++ {
		out := e.read(text, m{"Limit": limit})
		records := out["Records"].([]any)
		if len(records) == 0 || len(records) > limit {
			t.Fatalf("%d records with Limit %d", len(records), limit)
		}
		got = append(got, strings.Fields(dataOf(t, out))...)
		behind, _ := out["MillisBehindLatest"].(json.Number).Int64()
		if len(got) < 50 {
			// The last record given came with batch (len(got)-1)/10; now is 5 s after the first.
			if want := int64(5000 - (len(got)-1)/10*1000); behind != want {
				t.Errorf("after %d records %d ms behind, not %d", len(got), behind, want)
			}
		} else if behind != 0 {
			t.Errorf("at the tip %d ms behind", behind)
		}
		text = out["NextShardIterator"].(string)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %v", got)
	}
	if r := e.broker.reads[0]; r.MaxRecords != 7 || r.MaxBytes > 10<<20 {
		t.Errorf("asked the broker for %d records, %d bytes", r.MaxRecords, r.MaxBytes)
	}
}

func TestGetRecordsSize(t *testing.T) {
	e := newEnv(t)
	e.ok("CreateStream", m{"StreamName": "s", "ShardCount": 1, "MaxRecordSizeInKiB": 10240})
	put := func(n int) {
		t.Helper()
		if a := e.callCBOR("PutRecord", m{"StreamName": "s", "PartitionKey": "k", "Data": make([]byte, n)}); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.raw)
		}
	}
	read := func(text string) (string, string) {
		t.Helper()
		a := e.callCBOR("GetRecords", m{"ShardIterator": text})
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.raw)
		}
		var sizes []string
		for _, r := range a.body["Records"].([]any) {
			sizes = append(sizes, fmt.Sprint(len(toMap(r)["Data"].([]byte))>>20))
		}
		return strings.Join(sizes, " "), a.body["NextShardIterator"].(string)
	}
	for _, mib := range []int{3, 3, 3, 3, 9, 1} {
		put(mib << 20)
	}
	put(10<<20 - 1)
	text := e.iterator("s", shard0, "TRIM_HORIZON", nil)
	for _, want := range []string{"3 3 3", "3", "9", "1", "9"} {
		var got string
		if got, text = read(text); got != want {
			t.Errorf("records of %s MiB, not %s", got, want)
		}
	}
	e.allReleased()
	// A single PutRecords of 10 MiB comes back as a whole, and in JSON too.
	var records []m
	for range 10 {
		records = append(records, m{"PartitionKey": "k", "Data": make([]byte, 1<<20-1)})
	}
	if a := e.callCBOR("PutRecords", m{"StreamName": "s", "Records": records}); a.status != 200 {
		t.Fatal(a.status)
	}
	if got := len(e.read(text, nil)["Records"].([]any)); got != 10 {
		t.Errorf("%d records", got)
	}
}

// TestTrimmedPosition: a position that is gone moves to the oldest record.
func TestTrimmedPosition(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	text := e.iterator("s", shard0, "TRIM_HORIZON", nil)
	first := e.put("s", "k", "0")["SequenceNumber"].(string)
	e.put("s", "k", "1")
	log := e.broker.logs[stream.ShardID{Stream: 1}]
	log.start = 1
	for _, text := range []string{text, e.iterator("s", shard0, "AT_SEQUENCE_NUMBER", m{"StartingSequenceNumber": first})} {
		if got := dataOf(t, e.read(text, nil)); got != "1" {
			t.Errorf("read %q", got)
		}
	}
	log.start, log.batches = 2, nil
	if next := e.read(text, nil)["NextShardIterator"].(string); dataOf(t, e.read(next, nil)) != "" {
		t.Error("records out of nowhere")
	}
}

// TestAboveHighWatermark: a position above a serving leader's high watermark
// gets an empty answer and stays (I12), and is not told that nothing is further.
func TestAboveHighWatermark(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	e.put("s", "k", "0")
	text := e.iterator("s", shard0, "LATEST", nil)
	e.put("s", "k", "1")
	log := e.broker.logs[stream.ShardID{Stream: 1}]
	log.hidden = 2 // a leader that knows of neither yet
	for range 2 {
		out := e.read(text, nil)
		if len(out["Records"].([]any)) != 0 || out["MillisBehindLatest"] != json.Number("1") {
			t.Fatal(out)
		}
		text = out["NextShardIterator"].(string)
	}
	log.hidden = 0
	if got := dataOf(t, e.read(text, nil)); got != "1" {
		t.Errorf("read %q", got)
	}
}

// TestEndOfShard: a closed shard ends without an iterator and with its children.
func TestEndOfShard(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 2)
	e.ok("PutRecords", m{"StreamName": "s", "Records": []m{
		{"PartitionKey": "k", "Data": []byte("0"), "ExplicitHashKey": "340282366920938463463374607431768211455"},
		{"PartitionKey": "k", "Data": []byte("1"), "ExplicitHashKey": "340282366920938463463374607431768211455"},
	}})
	e.reshard(id)
	e.clock.advance(3 * time.Hour)
	out := e.read(e.iterator("s", "1", "TRIM_HORIZON", nil), m{"Limit": 1})
	if dataOf(t, out) != "0" || out["NextShardIterator"] == nil || out["ChildShards"] != nil {
		t.Fatal(out)
	}
	out = e.read(out["NextShardIterator"].(string), nil)
	whole := stream.UniformRanges(4)
	child := func(n uint32, r stream.HashRange, parents ...any) m {
		return m{
			"ShardId": stream.ShardName(n), "ParentShards": parents,
			"HashKeyRange": m{"StartingHashKey": r.Start.String(), "EndingHashKey": r.End.String()},
		}
	}
	want := []any{child(2, whole[2], "shardId-000000000001"), child(3, whole[3], "shardId-000000000001")}
	if _, there := out["NextShardIterator"]; there || dataOf(t, out) != "1" || !reflect.DeepEqual(out["ChildShards"], want) {
		t.Fatalf("%v", out)
	}
	// KCL's lease cleanup wants the children in the first answer from LATEST.
	out = e.read(e.iterator("s", "1", "LATEST", nil), nil)
	if out["NextShardIterator"] != nil || !reflect.DeepEqual(out["ChildShards"], want) || out["MillisBehindLatest"] != json.Number("0") {
		t.Fatalf("%v", out)
	}
	// A merged shard's child names both parents.
	out = e.read(e.iterator("s", "2", "TRIM_HORIZON", nil), nil)
	merged := []any{child(4, stream.HashRange{Start: whole[2].Start, End: whole[3].End}, "shardId-000000000002", "shardId-000000000003")}
	if out["NextShardIterator"] != nil || !reflect.DeepEqual(out["ChildShards"], merged) {
		t.Fatalf("%v", out)
	}
	// The EndingSequenceNumber is a position too.
	ending := e.ok("ListShards", m{"StreamName": "s"})["Shards"].([]any)[1].(m)["SequenceNumberRange"].(m)["EndingSequenceNumber"]
	for _, kind := range []string{"AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"} {
		out = e.read(e.iterator("s", "1", kind, m{"StartingSequenceNumber": ending}), nil)
		if out["NextShardIterator"] != nil || !reflect.DeepEqual(out["ChildShards"], want) {
			t.Fatalf("%s: %v", kind, out)
		}
	}
	// Once its data has expired the shard is gone.
	text := e.iterator("s", "1", "TRIM_HORIZON", nil)
	e.broker.editStream(id, func(s *pb.Stream) { s.RetentionHours = 1 })
	if _, err := e.g.linearizable(t.Context()); err != nil {
		t.Fatal(err)
	}
	const gone = "Shard shardId-000000000001 in stream s under account 123456789012 does not exist"
	e.refused("GetRecords", m{"ShardIterator": text}, rnf, gone)
	e.refused("GetShardIterator", m{"StreamName": "s", "ShardId": "1", "ShardIteratorType": "LATEST"}, rnf, gone)
}

// TestDamagedBatchIsNotServed: the gateway checks what it gives (I14).
func TestDamagedBatchIsNotServed(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	e.put("s", "k", "good")
	e.put("s", "k", "damaged")
	log := e.broker.logs[stream.ShardID{Stream: 1}]
	log.batches[1][len(log.batches[1])-1] ^= 1
	text := e.iterator("s", shard0, "TRIM_HORIZON", nil)
	e.call("GetRecords", m{"ShardIterator": text}).mustBe(t, 500, "InternalFailure", "")
	if got := dataOf(t, e.read(text, m{"Limit": 1})); got != "good" {
		t.Errorf("read %q", got)
	}
}

func TestReadFailures(t *testing.T) {
	kind := stream.Kind(0)
	e := newEnv(t, func(c *Config, f *fakeBroker) {
		c.RequestTimeout = 20 * time.Millisecond
		f.onRead = func(stream.ShardID) stream.Kind { return kind }
	})
	e.create("s", 1)
	text := e.iterator("s", shard0, "TRIM_HORIZON", nil)
	for _, c := range []struct {
		kind           stream.Kind
		status         int
		class, message string
	}{
		{stream.Throttled, 400, "ProvisionedThroughputExceededException", "Rate exceeded for shard shardId-000000000000 in stream s under account 123456789012."},
		{stream.NotFound, 400, rnf, "Shard shardId-000000000000 in stream s under account 123456789012 does not exist"},
		{stream.Corrupt, 500, "InternalFailure", ""},
		{stream.NotLeader, 503, "ServiceUnavailable", "The leader of the shard is not known yet."},
	} {
		kind = c.kind
		e.call("GetRecords", m{"ShardIterator": text}).mustBe(t, c.status, c.class, c.message)
		e.call("GetShardIterator", m{"StreamName": "s", "ShardId": shard0, "ShardIteratorType": "LATEST"}).mustBe(t, c.status, c.class, c.message)
	}
}
