package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/fxamacker/cbor/v2"
	"github.com/prometheus/client_golang/prometheus"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// consumer registers an ACTIVE consumer in the fake's metadata, and gives its ARN.
func (e *env) consumer(name string, id uint64, status ...pb.ConsumerStatus) string {
	e.t.Helper()
	c := &pb.Consumer{Name: name, CreatedMs: e.clock.now().UnixMilli(), Status: pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE}
	if len(status) > 0 {
		c.Status = status[0]
	}
	e.broker.editStream(id, func(s *pb.Stream) { s.Consumers = append(s.Consumers, c) })
	return fmt.Sprintf("arn:aws:kinesis:us-east-1:%s:stream/%s/consumer/%s:%d", testAccount, e.broker.stream(id).Name, name, c.CreatedMs/1000)
}

func subscribeBody(arn, shard, kind string, more m) m {
	position := m{"Type": kind}
	for k, v := range more {
		position[k] = v
	}
	return m{"ConsumerARN": arn, "ShardId": shard, "StartingPosition": position}
}

// events reads one SubscribeToShard.
type events struct {
	t    testing.TB
	resp *http.Response
	d    *eventstream.Decoder
	stop context.CancelFunc
}

// subscribe opens a stream of events, which must be answered 200, and reads its
// initial response.
func (e *env) subscribe(arn, shard, kind string, more m) *events {
	e.t.Helper()
	body, err := json.Marshal(subscribeBody(arn, shard, kind, more))
	if err != nil {
		e.t.Fatal(err)
	}
	s := e.stream(e.request("Kinesis_20131202.SubscribeToShard", "application/x-amz-json-1.1", body))
	if first := s.frame(); first.Headers.Get(":event-type").String() != "initial-response" || string(first.Payload) != "{}" {
		e.t.Fatalf("the first frame: %v %s", first.Headers, first.Payload)
	}
	return s
}

func (e *env) stream(r *http.Request) *events {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.t.Context())
	e.t.Cleanup(cancel)
	resp, err := e.http.Do(r.WithContext(ctx))
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/vnd.amazon.eventstream" {
		raw, _ := io.ReadAll(resp.Body)
		e.t.Fatalf("%d %s %s", resp.StatusCode, resp.Header, raw)
	}
	return &events{e.t, resp, eventstream.NewDecoder(), cancel}
}

func (s *events) frame() eventstream.Message {
	s.t.Helper()
	f, err := s.d.Decode(s.resp.Body, nil)
	if err != nil {
		s.t.Fatalf("the stream ended: %v", err)
	}
	for _, h := range f.Headers {
		if _, isString := h.Value.(eventstream.StringValue); !isString {
			s.t.Errorf("header %s is no string", h.Name)
		}
	}
	return f
}

// event reads the next event.
func (s *events) event() map[string]any {
	s.t.Helper()
	f := s.frame()
	if kind := f.Headers.Get(":event-type"); kind == nil || kind.String() != "SubscribeToShardEvent" || f.Headers.Get(":message-type").String() != "event" {
		s.t.Fatalf("%v %s", f.Headers, f.Payload)
	}
	var out map[string]any
	d := json.NewDecoder(bytes.NewReader(f.Payload))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		s.t.Fatal(err)
	}
	continues, children := out["ContinuationSequenceNumber"] != nil, out["ChildShards"] != nil
	if continues == children || out["Records"] == nil || out["MillisBehindLatest"] == nil {
		s.t.Fatalf("an event that KCL refuses: %s", f.Payload)
	}
	return out
}

// records reads events until so many records have come, and gives their data and
// the last event.
func (s *events) records(n int) (string, map[string]any) {
	s.t.Helper()
	var all []string
	for {
		e := s.event()
		for _, r := range e["Records"].([]any) {
			b, err := base64.StdEncoding.DecodeString(r.(m)["Data"].(string))
			if err != nil {
				s.t.Fatal(err)
			}
			all = append(all, string(b))
		}
		if len(all) >= n {
			return strings.Join(all, " "), e
		}
	}
}

// exception reads up to the exception that ends the stream.
func (s *events) exception() (code, message string) {
	s.t.Helper()
	for {
		f := s.frame()
		if f.Headers.Get(":message-type").String() == "event" {
			continue
		}
		var body struct{ Message string }
		if err := json.Unmarshal(f.Payload, &body); err != nil {
			s.t.Fatal(err)
		}
		s.over()
		return f.Headers.Get(":exception-type").String(), body.Message
	}
}

func (s *events) mustFail(code, message string) {
	s.t.Helper()
	if c, m := s.exception(); c != code || m != message {
		s.t.Fatalf("%s %q, not %s %q", c, m, code, message)
	}
}

// over reads the rest, which must be nothing and end in order.
func (s *events) over() {
	s.t.Helper()
	if rest, err := io.ReadAll(s.resp.Body); err != nil || len(rest) > 0 {
		s.t.Fatalf("%q, %v behind the last frame", rest, err)
	}
}

// overAll runs a test over HTTP/1.1 and HTTP/2.
func overAll(t *testing.T, f func(t *testing.T, e *env), change ...func(*Config, *fakeBroker)) {
	t.Run("HTTP/1.1", func(t *testing.T) { f(t, newEnv(t, change...)) })
	t.Run("h2c", func(t *testing.T) { f(t, newEnv(t, change...).overH2C()) })
}

// quickly makes subscriptions speak often.
func quickly(c *Config, _ *fakeBroker) { c.SubscriptionBeat = 2 * time.Millisecond }

func TestFrames(t *testing.T) {
	const first = "0000007200000060ab820d9e0b3a6576656e742d74797065070010696e697469616c2d726573706f6e73650d3a636f6e74656e742d747970650700" +
		"1a6170706c69636174696f6e2f782d616d7a2d6a736f6e2d312e310d3a6d6573736167652d747970650700056576656e747b7dacae6b7d"
	if got := hex.EncodeToString(initialFrame()); got != first {
		t.Errorf("%s", got)
	}
}

func TestSubscribeToShard(t *testing.T) {
	overAll(t, func(t *testing.T, e *env) {
		id := e.create("s", 1)
		arn := e.consumer("c", id)
		e.put("s", "k", "0")
		s := e.subscribe(arn, shard0, "TRIM_HORIZON", nil)
		for _, h := range []string{"X-Amzn-Requestid", "X-Amz-Id-2", "Date"} {
			if s.resp.Header.Get(h) == "" {
				t.Errorf("no %s", h)
			}
		}
		if s.resp.ContentLength >= 0 {
			t.Error("a Content-Length")
		}
		got, event := s.records(1)
		record := event["Records"].([]any)[0].(m)
		if got != "0" || record["PartitionKey"] != "k" || record["SequenceNumber"] == nil || record["ApproximateArrivalTimestamp"] == nil || record["EncryptionType"] != nil {
			t.Fatalf("%v", event)
		}
		if event["MillisBehindLatest"] != json.Number("0") {
			t.Errorf("%v behind at the tip", event["MillisBehindLatest"])
		}
		for i := 1; i < 20; i++ { // at once: nothing else lets the beat come
			e.put("s", "k", fmt.Sprint(i))
			if got, _ := s.records(1); got != fmt.Sprint(i) {
				t.Fatalf("%q after %d", got, i)
			}
		}
		s.stop()
	}, func(c *Config, _ *fakeBroker) { c.SubscriptionBeat = time.Hour })
}

// TestSubscribeInCBOR: the events are JSON even then.
func TestSubscribeInCBOR(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 1)
	body, err := cbor.Marshal(subscribeBody(e.consumer("c", id), shard0, "LATEST", nil))
	if err != nil {
		t.Fatal(err)
	}
	s := e.stream(e.request("Kinesis_20131202.SubscribeToShard", "application/x-amz-cbor-1.1", body))
	s.frame()
	s.event()
	s.stop()
}

func TestStartingPositions(t *testing.T) {
	overAll(t, func(t *testing.T, e *env) {
		id := e.create("s", 1)
		arn := e.consumer("c", id)
		created := e.clock.now().Unix()
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
		number := func(n string) m { return m{"SequenceNumber": n} }
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
			{"at the start of the shard", "AT_SEQUENCE_NUMBER", number(stream.StartSequence(0, created).String()), "0 1 2 3"},
			{"time of a record", "AT_TIMESTAMP", at(times[2]), "2 3"},
			{"time long past", "AT_TIMESTAMP", m{"Timestamp": 1}, "0 1 2 3"},
		} {
			s := e.subscribe(arn, "0", c.kind, c.more)
			if c.want == "" {
				if got, _ := s.records(0); got != "" {
					t.Errorf("%s: %q", c.name, got)
				}
			} else if got, _ := s.records(len(strings.Fields(c.want))); got != c.want {
				t.Errorf("%s: %q", c.name, got)
			}
			s.stop()
		}
	})
}

// TestContinuation: the number of any event goes on where it was given, with
// AFTER_ and with AT_SEQUENCE_NUMBER, also for GetShardIterator, and rises with
// time and with each record.
func TestContinuation(t *testing.T) {
	e := newEnv(t, quickly)
	id := e.create("s", 1)
	arn := e.consumer("c", id)
	s := e.subscribe(arn, shard0, "LATEST", nil)
	type place struct {
		number string
		before int // records
	}
	var places []place
	last := ""
	note := func(event map[string]any, records int) {
		n := event["ContinuationSequenceNumber"].(string)
		if len(n) != 56 || n < last {
			t.Fatalf("%s after %s", n, last)
		}
		last = n
		places = append(places, place{n, records})
	}
	rises := func(records int) {
		for before := last; last == before; {
			note(s.event(), records)
			e.clock.advance(time.Second)
		}
	}
	note(s.event(), 0)
	rises(0)
	var numbers []string
	for i := range 3 {
		numbers = append(numbers, e.put("s", "k", fmt.Sprint(i))["SequenceNumber"].(string))
		if last >= numbers[i] {
			t.Errorf("continuation %s is not below the record behind it, %s", last, numbers[i])
		}
		_, event := s.records(1)
		note(event, i+1)
		if last <= numbers[i] {
			t.Errorf("continuation %s is not above its record %s", last, numbers[i])
		}
		rises(i + 1)
	}
	s.stop()
	all := []string{"0", "1", "2"}
	for _, p := range places {
		want := strings.Join(all[p.before:], " ")
		for _, kind := range []string{"AFTER_SEQUENCE_NUMBER", "AT_SEQUENCE_NUMBER"} {
			if got := dataOf(t, e.read(e.iterator("s", shard0, kind, m{"StartingSequenceNumber": p.number}), nil)); got != want {
				t.Errorf("an iterator %s behind %d records: %q", kind, p.before, got)
			}
			s := e.subscribe(arn, shard0, kind, m{"SequenceNumber": p.number})
			if got, _ := s.records(3 - p.before); got != want {
				t.Errorf("%s behind %d records: %q", kind, p.before, got)
			}
			s.stop()
		}
	}
}

func TestSubscribeRefused(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 1)
	arn := e.consumer("c", id)
	refused := func(in m, code, message string) {
		t.Helper()
		e.refused("SubscribeToShard", in, code, message)
		e.overH2C().refused("SubscribeToShard", in, code, message)
	}
	latest := func(arn, shard string) m { return subscribeBody(arn, shard, "LATEST", nil) }
	const prefix = "arn:aws:kinesis:us-east-1:123456789012:stream/"

	unknown := prefix + "s/consumer/other:1795507200"
	refused(latest(unknown, "0"), rnf, "Consumer "+unknown+", account 123456789012 not found.")
	former := prefix + "s/consumer/c:1795507100"
	refused(latest(former, "0"), rnf, "Consumer "+former+", account 123456789012 not found.")
	elsewhere := prefix + "none/consumer/c:1795507200"
	refused(latest(elsewhere, "0"), rnf, "Consumer "+elsewhere+", account 123456789012 not found.")

	for _, status := range []pb.ConsumerStatus{pb.ConsumerStatus_CONSUMER_STATUS_CREATING, pb.ConsumerStatus_CONSUMER_STATUS_DELETING} {
		name := strings.ToLower(status.String())
		refused(latest(e.consumer(name, id, status), "0"), "ResourceInUseException",
			"Consumer "+name+" with creation timestamp 1795507200 under stream: s , account 123456789012 is not in ACTIVE status.")
	}

	refused(latest(arn, "shardId-000000000007"), rnf, "Shard shardId-000000000007 in stream s under account 123456789012 does not exist")
	refused(latest(arn, "shardId-x"), rnf, "Could not find shard shardId-x in stream s under account 123456789012.")

	const text = "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified "
	refused(subscribeBody(arn, "0", "AT_SEQUENCE_NUMBER", nil), iae, text+"AT_SEQUENCE_NUMBER and no StartingSequenceNumber.")
	refused(subscribeBody(arn, "0", "LATEST", m{"SequenceNumber": "1"}), iae, text+"LATEST and also a StartingSequenceNumber.")
	refused(subscribeBody(arn, "0", "AT_TIMESTAMP", nil), iae,
		"Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.")
	refused(m{"ConsumerARN": arn, "ShardId": "0"}, "ValidationException",
		"1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null")
	refused(subscribeBody(arn, "0", "NOW", nil), "ValidationException",
		"1 validation error detected: Value 'NOW' at 'startingPosition.type' failed to satisfy constraint: Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]")
}

// TestRulesAsClientsSeeThem: what the shard's leader decides, in AWS's words.
func TestRulesAsClientsSeeThem(t *testing.T) {
	const text = "Another active subscription exists for this consumer: 123456789012:s:shardId-000000000000:c"
	overAll(t, func(t *testing.T, e *env) {
		id := e.create("s", 1)
		arn := e.consumer("c", id)
		refuse := func(k stream.Kind) {
			e.broker.mu.Lock()
			defer e.broker.mu.Unlock()
			e.broker.onTail = func(string, *pb.TailRequest) stream.Kind { return k }
		}
		refuse(stream.AlreadyExists) // in the stream, as AWS does
		e.subscribe(arn, shard0, "LATEST", nil).mustFail("ResourceInUseException", text)
		refuse(stream.LimitExceeded)
		e.refused("SubscribeToShard", subscribeBody(arn, shard0, "LATEST", nil), "LimitExceededException",
			"Rate exceeded for consumer c of shard shardId-000000000000 in stream s under account 123456789012.")
		refuse(0)
		s := e.subscribe(arn, shard0, "LATEST", nil)
		s.event()
		e.broker.breakTails(stream.WrongState) // another one takes over
		s.mustFail("ResourceInUseException", text)

		e.broker.mu.Lock()
		defer e.broker.mu.Unlock()
		for _, in := range e.broker.tails {
			if sub := in.Subscription; sub.Consumer != "c" || sub.ConsumerCreatedS != e.clock.now().Unix() || len(sub.Id) != 16 || sub.Resumed {
				t.Errorf("the leader was told %v", sub)
			}
		}
	})
}

// TestSubscriptionSpeaks: also when there is nothing to say, and when its leader
// says nothing.
func TestSubscriptionSpeaks(t *testing.T) {
	for _, silent := range []bool{false, true} {
		overAll(t, func(t *testing.T, e *env) {
			id := e.create("s", 1)
			e.put("s", "k", "x")
			s := e.subscribe(e.consumer("c", id), shard0, "LATEST", nil)
			s.event()
			e.broker.mu.Lock()
			e.broker.silentTails = silent
			e.broker.mu.Unlock()
			for range 3 {
				if got, event := s.records(0); got != "" || event["MillisBehindLatest"] != json.Number("0") {
					t.Fatal(event)
				}
			}
			s.stop()
		}, quickly)
	}
}

// TestSilentLeaderIsAskedAgain: the same subscription, older.
func TestSilentLeaderIsAskedAgain(t *testing.T) {
	e := newEnv(t, quickly)
	id := e.create("s", 1)
	s := e.subscribe(e.consumer("c", id), shard0, "LATEST", nil)
	s.event()
	e.broker.mu.Lock()
	e.broker.silentTails = true
	e.broker.mu.Unlock()
	for {
		s.event()
		e.broker.mu.Lock()
		tails := slices.Clone(e.broker.tails)
		e.broker.silentTails = len(tails) < 3
		e.broker.mu.Unlock()
		if len(tails) < 3 {
			continue
		}
		for _, in := range tails[1:] {
			if sub := in.Subscription; !sub.Resumed || !bytes.Equal(sub.Id, tails[0].Subscription.Id) || sub.AgeMs == 0 {
				t.Fatalf("%v after %v", sub, tails[0].Subscription)
			}
		}
		break
	}
	e.put("s", "k", "x")
	if got, _ := s.records(1); got != "x" {
		t.Fatal(got)
	}
	s.stop()
}

// TestSubscriptionReachesTheEndOfItsShard: its records, then one event without any that names the children.
func TestSubscriptionReachesTheEndOfItsShard(t *testing.T) {
	overAll(t, func(t *testing.T, e *env) {
		id := e.create("s", 2)
		arn := e.consumer("c", id)
		e.put("s", "e", "0") // shard 1
		e.ok("PutRecord", m{"StreamName": "s", "PartitionKey": "k", "ExplicitHashKey": "0", "Data": []byte("1")})
		live := e.subscribe(arn, shard0, "TRIM_HORIZON", nil)
		live.records(1)
		e.ok("SplitShard", m{"StreamName": "s", "ShardToSplit": shard0, "NewStartingHashKey": "1000"})
		children := func(event map[string]any) string {
			var all []string
			for _, c := range event["ChildShards"].([]any) {
				if c.(m)["HashKeyRange"] == nil {
					t.Errorf("%v", c)
				}
				all = append(all, fmt.Sprint(c.(m)["ShardId"], c.(m)["ParentShards"]))
			}
			return strings.Join(all, " ")
		}
		last := func(s *events) map[string]any {
			t.Helper()
			for {
				if event := s.event(); event["ChildShards"] != nil {
					if n := len(event["Records"].([]any)); n > 0 {
						t.Errorf("%d records in the last event", n)
					}
					s.over()
					return event
				}
			}
		}
		const ofSplit = "shardId-000000000002[shardId-000000000000] shardId-000000000003[shardId-000000000000]"
		if got := children(last(live)); got != ofSplit {
			t.Fatal(got)
		}
		late := e.subscribe(arn, shard0, "TRIM_HORIZON", nil)
		got, event := late.records(1)
		if got != "1" || children(last(late)) != ofSplit {
			t.Fatal(got)
		}
		for _, s := range []*events{
			e.subscribe(arn, shard0, "LATEST", nil),
			e.subscribe(arn, shard0, "AFTER_SEQUENCE_NUMBER", m{"SequenceNumber": event["ContinuationSequenceNumber"]}),
		} {
			if event := s.event(); event["ChildShards"] == nil || event["MillisBehindLatest"] != json.Number("0") {
				t.Fatal(event)
			}
			s.over()
		}

		e.ok("MergeShards", m{"StreamName": "s", "ShardToMerge": "shardId-000000000002", "AdjacentShardToMerge": "shardId-000000000003"})
		for _, shard := range []string{"2", "3"} {
			if got := children(last(e.subscribe(arn, shard, "TRIM_HORIZON", nil))); got != "shardId-000000000004[shardId-000000000002 shardId-000000000003]" {
				t.Fatal(got)
			}
		}
	})
}

// TestEndIsToldOnceTheMetadataHasIt: the leader knows of the end first.
func TestEndIsToldOnceTheMetadataHasIt(t *testing.T) {
	e := newEnv(t, quickly, func(_ *Config, f *fakeBroker) { f.resharding = true })
	id := e.create("s", 1)
	e.put("s", "k", "x")
	s := e.subscribe(e.consumer("c", id), shard0, "TRIM_HORIZON", nil)
	s.records(1)
	e.ok("SplitShard", m{"StreamName": "s", "ShardToSplit": shard0, "NewStartingHashKey": "1000"})
	e.broker.seal(id)
	e.broker.mu.Lock()
	e.broker.lags = true
	e.broker.mu.Unlock()
	var finishing sync.WaitGroup
	finishing.Go(func() { e.broker.finish(id) }) // which waits until it shows
	for range 3 {
		if event := s.event(); event["ChildShards"] != nil {
			t.Fatal("children that the metadata does not show")
		}
	}
	if _, err := e.broker.ReadIndex(t.Context(), nil); err != nil { // shows what was kept back
		t.Fatal(err)
	}
	for s.event()["ChildShards"] == nil {
	}
	s.over()
	finishing.Wait()
}

func TestConsumerOrStreamGoes(t *testing.T) {
	overAll(t, func(t *testing.T, e *env) {
		id := e.create("s", 1)
		arn, other := e.consumer("c", id), e.consumer("d", id)
		s, o := e.subscribe(arn, shard0, "LATEST", nil), e.subscribe(other, shard0, "LATEST", nil)
		s.event()
		o.event()
		e.broker.editStream(id, func(s *pb.Stream) { s.Consumers[0].Status = pb.ConsumerStatus_CONSUMER_STATUS_DELETING })
		s.mustFail(rnf, "Consumer "+arn+", account 123456789012 not found.")
		e.put("s", "k", "x")
		if got, _ := o.records(1); got != "x" {
			t.Fatalf("the other consumer got %q", got)
		}
		e.broker.editStream(id, func(s *pb.Stream) { s.Status = pb.StreamStatus_STREAM_STATUS_DELETING })
		o.mustFail(rnf, "Stream s under account 123456789012 not found.")

		id = e.create("t", 1)
		s = e.subscribe(e.consumer("c", id), shard0, "LATEST", nil)
		s.event()
		e.broker.remove(id)
		s.mustFail(rnf, "Stream t under account 123456789012 not found.")
	}, func(c *Config, _ *fakeBroker) { c.SubscriptionBeat = time.Hour })
}

func TestSubscriptionEndsInOrder(t *testing.T) {
	t.Run("after its time", func(t *testing.T) {
		overAll(t, func(t *testing.T, e *env) {
			id := e.create("s", 1)
			s := e.subscribe(e.consumer("c", id), shard0, "LATEST", nil)
			s.event()
			s.over()
		}, func(c *Config, _ *fakeBroker) { c.SubscriptionLife = 50 * time.Millisecond })
	})
	t.Run("with the gateway", func(t *testing.T) {
		overAll(t, func(t *testing.T, e *env) {
			id := e.create("s", 1)
			s := e.subscribe(e.consumer("c", id), shard0, "LATEST", nil)
			s.event()
			if err := e.g.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.over()
		})
	})
}

// TestClientThatGoesIsNoticed while nothing is written.
func TestClientThatGoesIsNoticed(t *testing.T) {
	overAll(t, func(t *testing.T, e *env) {
		id := e.create("s", 1)
		s := e.subscribe(e.consumer("c", id), shard0, "LATEST", nil)
		s.event()
		s.stop()
		e.awaitTails(0)
	}, func(c *Config, _ *fakeBroker) { c.SubscriptionBeat = time.Hour })
}

func (e *env) awaitTails(n int) {
	e.t.Helper()
	for e.broker.openTails() != n {
		select {
		case <-time.After(time.Millisecond):
		case <-e.t.Context().Done():
			e.t.Fatal("tails are open")
		}
	}
}

// TestSlowSubscriberIsCutOff: one who takes nothing in, while there is more for it
// than the network holds.
func TestSlowSubscriberIsCutOff(t *testing.T) {
	overAll(t, func(t *testing.T, e *env) {
		id := e.create("s", 1)
		ref := &pb.ShardRef{StreamId: id}
		for i := range 20 {
			b := stream.NewBatch(nil, shardOf(ref), [16]byte{byte(i + 1)}, [16]byte{}, 0)
			b = b.AppendRecord(stream.Record{PartitionKey: []byte("k"), Data: make([]byte, 1<<20-1)})
			stream.FinishBatch(b, 1)
			request := &pb.AppendRequest{Batches: []*pb.ShardBatch{{Shard: ref, Batch: b}}}
			if _, err := (fakeData{e.broker, "n1"}).Append(t.Context(), request); err != nil {
				t.Fatal(err)
			}
		}
		s := e.subscribe(e.consumer("c", id), shard0, "TRIM_HORIZON", nil)
		e.awaitTails(0)
		if err := e.g.largeEvents.acquire(t.Context(), e.g.largeEvents.size); err != nil { // it holds nothing any more
			t.Fatal(err)
		}
		s.stop()
	}, func(c *Config, _ *fakeBroker) {
		c.BodyGrace, c.BodyRate, c.SubscriptionBeat = 50*time.Millisecond, 1<<30, time.Millisecond
	})
}

// TestLargeBatchIsGivenInParts, each of a bounded size, in order.
func TestLargeBatchIsGivenInParts(t *testing.T) {
	overAll(t, func(t *testing.T, e *env) {
		id := e.create("s", 1)
		var records []m
		for i := range 300 {
			records = append(records, m{"PartitionKey": "k", "Data": append(bytes.Repeat([]byte("x"), 30<<10), fmt.Sprint(i)...)})
		}
		e.ok("PutRecords", m{"StreamName": "s", "Records": records})
		e.put("s", "k", "last")
		s := e.subscribe(e.consumer("c", id), shard0, "TRIM_HORIZON", nil)
		for i := 0; i < 301; {
			event := s.event()
			size := 0
			for _, r := range event["Records"].([]any) {
				b, err := base64.StdEncoding.DecodeString(r.(m)["Data"].(string))
				if err != nil {
					t.Fatal(err)
				}
				want := fmt.Sprint(i)
				if i == 300 {
					want = "last"
				}
				if got := strings.TrimLeft(string(b), "x"); got != want {
					t.Fatalf("%s, not %s", got, want)
				}
				size += len(b)
				i++
			}
			if size > maxEventBytes {
				t.Fatalf("an event of %d bytes", size)
			}
			if behind := event["MillisBehindLatest"] != json.Number("0"); behind != (i < 301) {
				t.Errorf("%v behind after %d records", event["MillisBehindLatest"], i)
			}
		}
		s.stop()
	}, func(c *Config, _ *fakeBroker) { c.SubscriptionBeat = time.Hour })
}

// TestSubscribersWaitForRoom: with all room for events taken, a subscription
// speaks and gives its records later.
func TestSubscribersWaitForRoom(t *testing.T) {
	e := newEnv(t, quickly)
	id := e.create("s", 1)
	if err := e.g.events.acquire(t.Context(), e.g.events.size); err != nil {
		t.Fatal(err)
	}
	e.ok("PutRecord", m{"StreamName": "s", "PartitionKey": "k", "Data": bytes.Repeat([]byte("x"), 100<<10)})
	s := e.subscribe(e.consumer("c", id), shard0, "TRIM_HORIZON", nil)
	for range 3 {
		if event := s.event(); len(event["Records"].([]any)) > 0 || event["MillisBehindLatest"] == json.Number("0") {
			t.Fatal(event)
		}
	}
	e.g.events.release(e.g.events.size)
	if got, _ := s.records(1); len(got) != 100<<10 {
		t.Fatalf("%d bytes", len(got))
	}
	s.stop()
}

// TestLargeEventsTakeNoRoomFromOthers: when those who read large records slowly
// hold all the room for these, other subscriptions don't wait.
func TestLargeEventsTakeNoRoomFromOthers(t *testing.T) {
	e := newEnv(t, quickly)
	id := e.create("s", 1)
	if err := e.g.largeEvents.acquire(t.Context(), e.g.largeEvents.size); err != nil {
		t.Fatal(err)
	}
	e.ok("PutRecord", m{"StreamName": "s", "PartitionKey": "k", "Data": bytes.Repeat([]byte("x"), 256<<10)})
	s := e.subscribe(e.consumer("c", id), shard0, "TRIM_HORIZON", nil)
	if got, _ := s.records(1); len(got) != 256<<10 {
		t.Fatalf("%d bytes", len(got))
	}
	e.ok("PutRecord", m{"StreamName": "s", "PartitionKey": "k", "Data": bytes.Repeat([]byte("y"), 900<<10)})
	for behind := 0; behind < 3; { // it knows of the record, and has no room
		event := s.event()
		if len(event["Records"].([]any)) > 0 {
			t.Fatal("a large event without room")
		}
		if event["MillisBehindLatest"] != json.Number("0") {
			behind++
		}
	}
	e.g.largeEvents.release(e.g.largeEvents.size)
	if got, _ := s.records(1); len(got) != 900<<10 {
		t.Fatalf("%d bytes", len(got))
	}
	s.stop()
}

// TestNothingAboveTheHighWatermark_I12 is given.
func TestNothingAboveTheHighWatermark_I12(t *testing.T) {
	e := newEnv(t, quickly)
	id := e.create("s", 1)
	e.put("s", "k", "0")
	e.put("s", "k", "1")
	e.broker.hide(id, 0, 1)
	s := e.subscribe(e.consumer("c", id), shard0, "TRIM_HORIZON", nil)
	if got, _ := s.records(1); got != "0" {
		t.Fatal(got)
	}
	if got, _ := s.records(0); got != "" {
		t.Fatal(got)
	}
	e.broker.hide(id, 0, 0)
	if got, _ := s.records(1); got != "1" {
		t.Fatal(got)
	}
	s.stop()
}

// TestDamagedBatchIsNotGiven_I14: the stream ends with an error.
func TestDamagedBatchIsNotGiven_I14(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 1)
	e.put("s", "k", "x")
	e.broker.mu.Lock()
	b := e.broker.logs[stream.ShardID{Stream: stream.StreamID(id)}].batches[0]
	b[len(b)-1] ^= 1
	e.broker.mu.Unlock()
	s := e.subscribe(e.consumer("c", id), shard0, "TRIM_HORIZON", nil)
	if code, _ := s.exception(); code != "InternalFailureException" {
		t.Fatal(code)
	}
}

// TestSubscriptionOutlivesItsLeader: it goes on at the next one, from where it is.
func TestSubscriptionOutlivesItsLeader(t *testing.T) {
	for _, how := range []string{"moved", "killed"} {
		t.Run(how, func(t *testing.T) {
			ce := newCluster(t, 2, func(c *Config, _ *fakeBroker) { c.SubscriptionBeat, c.RequestTimeout = time.Hour, time.Hour })
			id := ce.create("s", 1)
			ce.put("s", "k", "0")
			s := ce.subscribe(ce.consumer("c", id), shard0, "TRIM_HORIZON", nil)
			if got, _ := s.records(1); got != "0" {
				t.Fatal(got)
			}
			if how == "killed" {
				ce.nodes[0].kill()
			}
			ce.lead(id, "n2")
			for i := 1; i < 4; i++ {
				ce.put("s", "k", fmt.Sprint(i))
				if got, _ := s.records(1); got != fmt.Sprint(i) {
					t.Fatalf("%q after %d", got, i)
				}
			}
			ce.broker.mu.Lock()
			last := ce.broker.tails[len(ce.broker.tails)-1]
			ce.broker.mu.Unlock()
			if !last.Subscription.Resumed || last.Offset != 1 {
				t.Errorf("resumed with %v", last)
			}
			s.stop()
		})
	}
}

// TestSubscriptionSpeaksWithoutALeader, and ends when it has waited enough.
func TestSubscriptionSpeaksWithoutALeader(t *testing.T) {
	e := newEnv(t, quickly, func(c *Config, _ *fakeBroker) { c.OfflineWait = 200 * time.Millisecond })
	id := e.create("s", 1)
	s := e.subscribe(e.consumer("c", id), shard0, "LATEST", nil)
	s.event()
	e.broker.editShard(id, 0, func(s *pb.Shard) { s.Leader = 0 })
	for range 3 {
		s.event()
	}
	if code, _ := s.exception(); code != "InternalFailureException" {
		t.Fatal(code)
	}
}

func TestSubscriptionMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	e := newEnv(t, func(c *Config, _ *fakeBroker) { c.Registerer = registry })
	id := e.create("s", 1)
	s := e.subscribe(e.consumer("c", id), shard0, "LATEST", nil)
	e.put("s", "kk", "abc")
	s.records(1)
	read := func(name string) (v float64, there bool) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "shardstream_gateway_"+name {
				for _, m := range f.GetMetric() {
					if m.Label[0].GetValue() == "c" && m.Label[1].GetValue() == "s" {
						return m.GetCounter().GetValue() + m.GetGauge().GetValue(), true
					}
				}
			}
		}
		return 0, false
	}
	for name, want := range map[string]float64{"subscriptions": 1, "subscribe_total": 1, "subscribe_records_total": 1, "subscribe_bytes_total": 5} {
		if got, _ := read(name); got != want {
			t.Errorf("%s is %v, not %v", name, got, want)
		}
	}
	e.broker.editStream(id, func(s *pb.Stream) { s.Consumers = nil })
	s.exception()
	for _, name := range []string{"subscriptions", "subscribe_records_total", "subscribe_behind_seconds"} {
		if _, there := read(name); there {
			t.Errorf("%s of a consumer that is gone", name)
		}
	}
}
