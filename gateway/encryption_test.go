package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"shardstream/gateway/kms"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// testProvider wraps data keys by nothing at all, and refuses what it is told to.
type testProvider struct {
	version atomic.Uint64
	made    atomic.Int64

	mu      sync.Mutex
	refuses error
}

func (p *testProvider) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = err
	p.version.Add(1)
}

func (p *testProvider) get() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refuses
}

func (p *testProvider) GenerateDataKey(_ context.Context, keyID string, c kms.Context) (plain, wrapped []byte, err error) {
	if err := p.get(); err != nil {
		return nil, nil, err
	}
	plain = bytes.Repeat([]byte{byte(p.made.Add(1))}, kms.KeySize)
	return plain, fmt.Appendf(bytes.Clone(plain), "%v", c.Map()), nil
}

func (p *testProvider) Unwrap(_ context.Context, keyID string, wrapped []byte, c kms.Context) ([]byte, error) {
	if err := p.get(); err != nil {
		return nil, err
	}
	if string(wrapped[kms.KeySize:]) != fmt.Sprint(c.Map()) {
		return nil, stream.Errorf(stream.Corrupt, "test", "wrapped for %s, not for %v", wrapped[kms.KeySize:], c)
	}
	return bytes.Clone(wrapped[:kms.KeySize]), nil
}

func (p *testProvider) Version() uint64 { return p.version.Load() }

func withProvider(p kms.Provider) func(*Config, *fakeBroker) {
	return func(c *Config, _ *fakeBroker) { c.KeyProvider = p }
}

func (e *env) encrypt(name, keyID string) {
	e.t.Helper()
	if a := e.call("StartStreamEncryption", m{"StreamName": name, "EncryptionType": "KMS", "KeyId": keyID}); a.status != 200 || len(a.raw) > 0 {
		e.t.Fatalf("%d %s", a.status, a.raw)
	}
}

// typesOf gives the EncryptionType of each record of an answer, "-" for none.
func typesOf(out map[string]any) string {
	var all []string
	for _, r := range out["Records"].([]any) {
		t, there := fields(r)["EncryptionType"]
		if !there {
			t = "-"
		}
		all = append(all, t.(string))
	}
	return strings.Join(all, " ")
}

// fields gives the members of a map of either format.
func fields(v any) map[string]any {
	if j, ok := v.(m); ok {
		return j
	}
	out := m{}
	for k, v := range v.(map[any]any) {
		out[k.(string)] = v
	}
	return out
}

// TestEachRecordKeepsItsType: through start, another key, stop and start, with
// records of all kinds in one shard and in one answer.
func TestEachRecordKeepsItsType(t *testing.T) {
	e := newEnv(t, withProvider(&testProvider{}))
	id := e.create("s", 1)
	describe := func(encryptionType string, keyID any) {
		t.Helper()
		for _, d := range []any{
			e.ok("DescribeStream", m{"StreamName": "s"})["StreamDescription"],
			e.ok("DescribeStreamSummary", m{"StreamName": "s"})["StreamDescriptionSummary"],
		} {
			if d := d.(m); d["EncryptionType"] != encryptionType || d["KeyId"] != keyID {
				t.Errorf("%v", d)
			}
		}
	}
	put := func(n int, encryptionType any) {
		t.Helper()
		for i, call := range []func(string, m) answer{func(op string, in m) answer { return e.call(op, in) }, e.callCBOR} {
			one := call("PutRecord", m{"StreamName": "s", "PartitionKey": "partition-key", "Data": fmt.Appendf(nil, "secret-%d-%d", n, i)})
			two := call("PutRecords", m{"StreamName": "s", "Records": []m{
				{"PartitionKey": "partition-key", "Data": fmt.Appendf(nil, "secret-%d-%d-a", n, i)},
				{"PartitionKey": "partition-key", "Data": fmt.Appendf(nil, "secret-%d-%d-b", n, i), "ExplicitHashKey": "7"},
			}})
			for _, a := range []answer{one, two} {
				if got, there := a.body["EncryptionType"]; a.status != 200 || there != (encryptionType != nil) || got != encryptionType {
					t.Errorf("put %d: %d %s", n, a.status, a.raw)
				}
			}
		}
	}
	describe("NONE", nil)
	put(0, nil)
	e.encrypt("s", "alias/aws/kinesis")
	describe("KMS", "alias/aws/kinesis")
	put(1, "KMS")
	e.encrypt("s", "arn:aws:kms:us-east-1:123456789012:key/k")
	describe("KMS", "arn:aws:kms:us-east-1:123456789012:key/k")
	put(2, "KMS")
	e.ok("StopStreamEncryption", m{"StreamName": "s", "EncryptionType": "KMS", "KeyId": "not looked at"})
	describe("NONE", nil)
	put(3, nil)
	e.ok("StopStreamEncryption", m{"StreamName": "s", "EncryptionType": "KMS", "KeyId": "k"}) // changes nothing
	e.encrypt("s", "k")
	put(4, "KMS")

	// What the broker has got of the encrypted ones says nothing.
	log := e.broker.logs[stream.ShardID{Stream: stream.StreamID(id)}].batches
	keys := ""
	for _, b := range log {
		keys += fmt.Sprint(b.DataKey())
		if hidden := !bytes.Contains(b, []byte("secret-")) && !bytes.Contains(b, []byte("partition-key")); hidden != b.Encrypted() {
			t.Errorf("encrypted %v, hidden %v: %q", b.Encrypted(), hidden, []byte(b))
		}
	}
	if want := "0000" + "1111" + "2222" + "0000" + "3333"; keys != want {
		t.Errorf("data keys %s, not %s", keys, want)
	}
	var data, types []string
	for n := range 5 {
		for i := range 2 {
			data = append(data, fmt.Sprintf("secret-%d-%d secret-%d-%d-a secret-%d-%d-b", n, i, n, i, n, i))
			types = append(types, []string{"- - -", "KMS KMS KMS", "KMS KMS KMS", "- - -", "KMS KMS KMS"}[n])
		}
	}
	it := e.iterator("s", "0", "TRIM_HORIZON", nil)
	out := e.read(it, nil)
	if got := dataOf(t, out); got != strings.Join(data, " ") || typesOf(out) != strings.Join(types, " ") {
		t.Errorf("got %s, %s", got, typesOf(out))
	}
	if got := typesOf(e.callCBOR("GetRecords", m{"ShardIterator": it}).body); got != strings.Join(types, " ") {
		t.Errorf("CBOR: %s", got)
	}
	// A read may begin and end within an encrypted batch.
	if got := dataOf(t, e.read(it, m{"Limit": 8})); !strings.HasSuffix(got, "secret-1-0 secret-1-0-a") {
		t.Error(got)
	}
	after := m{"StartingSequenceNumber": out["Records"].([]any)[7].(m)["SequenceNumber"]}
	if got := dataOf(t, e.read(e.iterator("s", "0", "AFTER_SEQUENCE_NUMBER", after), nil)); !strings.HasPrefix(got, "secret-1-0-b secret-1-1 ") {
		t.Error(got)
	}
}

// TestWhatTheProviderRefuses: is the answer, of starts, puts and reads; and no
// longer when it is allowed again.
func TestWhatTheProviderRefuses(t *testing.T) {
	p := &testProvider{}
	e := newEnv(t, withProvider(p))
	e.create("s", 1)
	e.put("s", "k", "plain")
	e.encrypt("s", "k")
	e.put("s", "k", "hidden")
	start := m{"StreamName": "s", "EncryptionType": "KMS", "KeyId": "k"}
	put := m{"StreamName": "s", "PartitionKey": "k", "Data": []byte("x")}
	puts := m{"StreamName": "s", "Records": []m{{"PartitionKey": "k", "Data": []byte("x")}}}
	first := e.iterator("s", "0", "TRIM_HORIZON", nil)
	second := e.read(first, m{"Limit": 1})["NextShardIterator"].(string)
	for reason, code := range map[kms.Reason]string{
		kms.AccessDenied: "KMSAccessDeniedException", kms.Disabled: "KMSDisabledException", kms.InvalidState: "KMSInvalidStateException",
		kms.NotFound: "KMSNotFoundException", kms.OptInRequired: "KMSOptInRequired", kms.Throttled: "KMSThrottlingException",
	} {
		p.set(&kms.Error{Reason: reason, Message: "k is not for you."})
		e.refused("StartStreamEncryption", start, code, "k is not for you.")
		e.refused("PutRecord", put, code, "k is not for you.")
		e.refused("PutRecords", puts, code, "k is not for you.")
		e.refused("GetRecords", m{"ShardIterator": second}, code, "k is not for you.")
		// What comes before can be read.
		if got := dataOf(t, e.read(first, nil)); got != "plain" {
			t.Errorf("%s: read %s", code, got)
		}
		p.set(nil)
		if got := dataOf(t, e.read(second, nil)); got != "hidden" {
			t.Errorf("after %s: read %s", code, got)
		}
	}
	for _, away := range []error{errors.New("connection refused"), &kms.Error{Reason: kms.Unreachable, Message: "The key service did not answer."}} {
		p.set(away)
		for op, in := range map[string]m{"StartStreamEncryption": start, "PutRecord": put, "PutRecords": puts, "GetRecords": {"ShardIterator": second}} {
			e.call(op, in).mustBe(t, 503, "ServiceUnavailable", "The key service did not answer.")
		}
	}
	p.set(nil)
	e.put("s", "k", "again")
	// A key that is not the one it was wrapped as is nobody's fault but ours.
	e.broker.editStream(1, func(s *pb.Stream) {
		k := s.DataKeys[0]
		s.DataKeys = []*pb.DataKey{{Id: 1, KeyId: k.KeyId, Wrapped: bytes.Repeat([]byte{9}, 40)}}
	})
	p.set(nil)
	e.call("GetRecords", m{"ShardIterator": second}).mustBe(t, 500, "InternalFailure", "")
}

// TestStartEncryptionChecks: in their order, and before the provider is asked.
func TestStartEncryptionChecks(t *testing.T) {
	p := &testProvider{}
	e := newEnv(t, withProvider(p))
	id := e.create("s", 1)
	for _, op := range []string{"StartStreamEncryption", "StopStreamEncryption"} {
		e.refused(op, m{"StreamName": "s"}, "ValidationException",
			"2 validation errors detected: Value null at 'encryptionType' failed to satisfy constraint: Member must not be null; Value null at 'keyId' failed to satisfy constraint: Member must not be null")
		e.refused(op, m{"StreamName": "s", "EncryptionType": "KMS", "KeyId": ""}, "ValidationException",
			"1 validation error detected: Value '' at 'keyId' failed to satisfy constraint: Member must have length greater than or equal to 1")
		e.refused(op, m{"StreamName": "s", "EncryptionType": "NONE", "KeyId": "k"}, iae, "EncryptionType NONE is not valid for this operation.")
		e.refused(op, m{"StreamName": "none", "EncryptionType": "NONE", "KeyId": "k"}, rnf, "Stream none under account 123456789012 not found.")
		e.refused(op, m{"StreamName": "none", "EncryptionType": "KMS", "KeyId": "k"}, rnf, "Stream none under account 123456789012 not found.")
		e.broker.editStream(id, func(s *pb.Stream) { s.Status = pb.StreamStatus_STREAM_STATUS_UPDATING })
		e.refused(op, m{"StreamName": "s", "EncryptionType": "KMS", "KeyId": "k"}, riu,
			"Stream s under account 123456789012 not ACTIVE, instead in state UPDATING")
		e.broker.editStream(id, func(s *pb.Stream) { s.Status = pb.StreamStatus_STREAM_STATUS_ACTIVE })
	}
	if n := p.made.Load(); n != 0 {
		t.Errorf("%d data keys were made", n)
	}
	// By ARN too.
	e.ok("StartStreamEncryption", m{"StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/s", "EncryptionType": "KMS", "KeyId": "k"})
	e.ok("StopStreamEncryption", m{"StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/s", "EncryptionType": "KMS", "KeyId": "k"})
}

// TestEncryptionWithoutAProvider: the text says what to do.
func TestEncryptionWithoutAProvider(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	e.refused("StartStreamEncryption", m{"StreamName": "s", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}, "KMSNotFoundException",
		"No key service is set up here. Whoever runs the gateways gives all of them --kms-keyring or --kms-endpoint.")
}

func TestEncryptionLimit(t *testing.T) {
	e := newEnv(t, withProvider(&testProvider{}), func(c *Config, _ *fakeBroker) { c.AccountLimits = true })
	e.create("s", 1)
	for range 25 {
		e.encrypt("s", "k")
		e.clock.advance(time.Second) // the calls are limited too
	}
	e.refused("StartStreamEncryption", m{"StreamName": "s", "EncryptionType": "KMS", "KeyId": "k"}, lee,
		"Stream s under account 123456789012 can start or stop encryption only 25 times in 24 hours.")
}

// dying is a leader that stores the first Append and dies before it answers;
// another one has its log.
type dying struct {
	pb.DataClient
	node string
	die  func()
	seen func(node string, b stream.Batch)
}

func (d dying) Append(ctx context.Context, in *pb.AppendRequest, o ...grpc.CallOption) (*pb.AppendResponse, error) {
	d.seen(d.node, slices.Clone(in.Batches[0].Batch))
	out, err := d.DataClient.Append(ctx, in, o...)
	if d.node == "n1" {
		d.die()
		return nil, stream.Errorf(stream.Timeout, "test", "it is dead")
	}
	return out, err
}

// TestEncryptedRetry: an attempt whose answer was lost is repeated under the same
// ids in other bytes, at another leader, and stored once (I22).
func TestEncryptedRetry(t *testing.T) {
	var broker *fakeBroker
	var nodes []string
	var sent []stream.Batch
	e := newEnv(t, withProvider(&testProvider{}), func(c *Config, f *fakeBroker) {
		broker = f
		c.Data = func(node, address string) (pb.DataClient, error) {
			d, err := f.data(node, address)
			return dying{d, node, func() {
				broker.editShard(1, 0, func(s *pb.Shard) {
					s.Replicas = append(slices.Clone(s.Replicas), &pb.Replica{Id: 77, NodeId: "n2"})
					s.Leader = 77
				})
			}, func(node string, b stream.Batch) { nodes, sent = append(nodes, node), append(sent, b) }}, err
		}
	})
	e.create("s", 1)
	e.broker.addNode("n2")
	e.encrypt("s", "k")
	records := []m{{"PartitionKey": "a", "Data": []byte("1")}, {"PartitionKey": "b", "Data": []byte("2")}}
	out := e.ok("PutRecords", m{"StreamName": "s", "Records": records})
	if fmt.Sprint(out["FailedRecordCount"]) != "0" || out["EncryptionType"] != "KMS" || e.broker.repeats != 1 || fmt.Sprint(nodes) != "[n1 n2]" {
		t.Fatalf("%v; %d repeats, calls of %v", out, e.broker.repeats, nodes)
	}
	a, b := sent[0], sent[1]
	if a.RequestID() != b.RequestID() || a.RecordBytes() != b.RecordBytes() || !slices.Equal(slices.Collect(a.Ordinals()), slices.Collect(b.Ordinals())) {
		t.Error("the repeat is another batch")
	}
	if nonce := a[stream.BatchHeaderSize+4:][:24]; bytes.Contains(b, nonce) {
		t.Error("a nonce was used twice")
	}
	if got := dataOf(t, e.read(e.iterator("s", "0", "TRIM_HORIZON", nil), nil)); got != "1 2" {
		t.Errorf("the shard holds %q", got)
	}
}

// TestEncryptedRetryAcrossAReshard: the closed parent tells what it has of the
// request, though it can't read it.
func TestEncryptedRetryAcrossAReshard(t *testing.T) {
	e := newEnv(t, withProvider(&testProvider{}))
	id := e.create("s", 1)
	e.encrypt("s", "k")
	e.broker.mu.Lock()
	e.broker.loses = func(*pb.AppendRequest) bool {
		e.broker.loses = nil
		_, ev := e.broker.reshardLocked(&pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_SPLIT, SplitAtHi: 1 << 63})
		e.broker.publishLocked(ev)
		return true
	}
	e.broker.mu.Unlock()
	records := []m{{"PartitionKey": "a", "Data": []byte("1"), "ExplicitHashKey": "0"}, {"PartitionKey": "b", "Data": []byte("2"), "ExplicitHashKey": "340282366920938463463374607431768211455"}}
	out := e.ok("PutRecords", m{"StreamName": "s", "Records": records})
	for _, r := range out["Records"].([]any) {
		if r.(m)["ShardId"] != "shardId-000000000000" {
			t.Errorf("%v", r)
		}
	}
	if got := dataOf(t, e.read(e.iterator("s", "0", "TRIM_HORIZON", nil), nil)); got != "1 2" {
		t.Errorf("the parent holds %q", got)
	}
}

// TestDataKeyOfANewerMetadata: another gateway has used a key of which this one
// has not heard.
func TestDataKeyOfANewerMetadata(t *testing.T) {
	p := &testProvider{}
	e := newEnv(t, withProvider(p))
	id := e.create("s", 1)
	e.encrypt("s", "k")
	e.put("s", "k", "x")
	known := e.broker.streams[id]
	e.broker.editStream(id, func(s *pb.Stream) { s.DataKeys, s.DataKey = nil, 0 })
	it := e.iterator("s", "0", "TRIM_HORIZON", nil)
	e.call("GetRecords", m{"ShardIterator": it}).mustBe(t, 500, "InternalFailure", "")
	e.broker.mu.Lock()
	e.broker.lags = true
	e.broker.streams[id] = known
	e.broker.publishLocked(&pb.MetadataEvent{Streams: []*pb.Stream{known}})
	e.broker.mu.Unlock()
	if got := dataOf(t, e.read(it, nil)); got != "x" {
		t.Error(got)
	}
}

// TestPutsAskForAKeyOnce: not once each.
func TestPutsAskForAKeyOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	e := newEnv(t, withProvider(&testProvider{}), func(c *Config, _ *fakeBroker) { c.Registerer = registry })
	e.create("s", 1)
	e.encrypt("s", "k")
	calls := func(want string) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range families {
			if f.GetName() != "shardstream_gateway_key_service_calls_total" {
				continue
			}
			for _, m := range f.GetMetric() {
				got = append(got, fmt.Sprintf("%s %s %v", m.GetLabel()[0].GetValue(), m.GetLabel()[1].GetValue(), m.GetCounter().GetValue()))
			}
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("calls: %s; want %s", got, want)
		}
	}
	for range 5 {
		e.put("s", "k", "x")
	}
	calls("generate ok 1, unwrap ok 1")
	e.clock.advance(kms.KeyLife + time.Second)
	e.put("s", "k", "x")
	calls("generate ok 1, unwrap ok 2")
}

// TestSubscriptionsDecrypt: each record tells its type in events too, and what the
// provider refuses ends the subscription.
func TestSubscriptionsDecrypt(t *testing.T) {
	p := &testProvider{}
	e := newEnv(t, withProvider(p))
	id := e.create("s", 1)
	e.put("s", "k", "plain")
	e.encrypt("s", "k")
	e.put("s", "k", "hidden")
	s := e.subscribe(e.consumer("c", id), shard0, "TRIM_HORIZON", nil)
	var data, types []string
	for len(types) < 2 {
		event := s.event()
		if len(event["Records"].([]any)) > 0 {
			data, types = append(data, dataOf(t, event)), append(types, strings.Fields(typesOf(event))...)
		}
	}
	if strings.Join(data, " ") != "plain hidden" || strings.Join(types, " ") != "- KMS" {
		t.Errorf("%v, %v", data, types)
	}
	e.put("s", "k", "more")
	if got, _ := s.records(1); got != "more" {
		t.Error(got)
	}
	e.ok("StopStreamEncryption", m{"StreamName": "s", "EncryptionType": "KMS", "KeyId": "k"})
	e.put("s", "k", "open")
	if got, event := s.records(1); got != "open" || typesOf(event) != "-" {
		t.Error(got, event)
	}
	e.encrypt("s", "k")
	e.put("s", "k", "last")
	if got, _ := s.records(1); got != "last" {
		t.Error(got)
	}
	s.stop()

	p.set(&kms.Error{Reason: kms.Disabled, Message: "k is disabled."})
	s = e.subscribe(e.consumer("d", id), shard0, "TRIM_HORIZON", nil)
	if got, _ := s.records(1); got != "plain" {
		t.Error(got)
	}
	s.mustFail("KMSDisabledException", "k is disabled.")
}
