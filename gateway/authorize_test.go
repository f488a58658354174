package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
)

const (
	ordersARN   = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
	consumerOne = ordersARN + "/consumer/one:1795507200"
)

// newAuthorizingEnv has the streams orders, with the consumer one, and other.
func newAuthorizingEnv(t testing.TB, change ...func(*Config, *fakeBroker)) *env {
	e := newSignedEnv(t, change...)
	id := e.create("orders", 1)
	e.create("other", 1)
	e.broker.editStream(id, func(s *pb.Stream) {
		s.Consumers = []*pb.Consumer{{Name: "one", CreatedMs: 1795507200_000, Status: pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE}}
	})
	return e
}

// TestEveryOperationIsAuthorized: no operation is open to a key that may do
// nothing, nor to one that may do something else or somewhere else; each names
// the right resource.
func TestEveryOperationIsAuthorized(t *testing.T) {
	e := newAuthorizingEnv(t)
	iterator := e.iterator("orders", shard0, "TRIM_HORIZON", nil)
	token, failure := (&call{g: e.g}).sealToken(e.g.meta.load(), tokenShards, shardsToken{Stream: e.broker.streamID("orders"), Name: "orders"})
	if failure != nil {
		t.Fatal(failure)
	}
	name, arn := m{"StreamName": "orders"}, m{"StreamARN": ordersARN}
	resource, consumer := m{"ResourceARN": ordersARN}, m{"ConsumerARN": consumerOne}
	inputs := map[kinesis.Op][]m{
		kinesis.AddTagsToStream: {name, arn}, kinesis.CreateStream: {name}, kinesis.DecreaseStreamRetentionPeriod: {name, arn},
		kinesis.DeleteResourcePolicy: {resource, {"ResourceARN": consumerOne}}, kinesis.DeleteStream: {name, arn},
		kinesis.DeregisterStreamConsumer: {consumer, {"StreamARN": ordersARN, "ConsumerName": "one"}, {"StreamARN": ordersARN, "ConsumerName": "one", "ConsumerARN": consumerOne}},
		kinesis.DescribeAccountSettings:  {{}}, kinesis.DescribeLimits: {{}}, kinesis.DescribeStream: {name, arn},
		kinesis.DescribeStreamConsumer: {consumer, {"StreamARN": ordersARN, "ConsumerName": "one"}}, kinesis.DescribeStreamSummary: {name, arn},
		kinesis.DisableEnhancedMonitoring: {name, arn}, kinesis.EnableEnhancedMonitoring: {name, arn},
		kinesis.GetRecords: {{"ShardIterator": iterator}, {"ShardIterator": iterator, "StreamARN": ordersARN}}, kinesis.GetResourcePolicy: {resource},
		kinesis.GetShardIterator: {name, arn}, kinesis.IncreaseStreamRetentionPeriod: {name, arn},
		kinesis.ListShards: {name, arn, {"NextToken": token}}, kinesis.ListStreamConsumers: {arn}, kinesis.ListStreams: {{}},
		kinesis.ListTagsForResource: {resource, {"ResourceARN": consumerOne}}, kinesis.ListTagsForStream: {name, arn}, kinesis.MergeShards: {name, arn},
		kinesis.PutRecord: {name, arn, {"StreamName": "orders", "PartitionKey": "k", "Data": ""}}, kinesis.PutRecords: {name, arn, {"StreamARN": ordersARN, "Records": []m{{"PartitionKey": "k", "Data": ""}}}},
		kinesis.PutResourcePolicy: {resource}, kinesis.RegisterStreamConsumer: {arn, {"StreamARN": ordersARN, "ConsumerName": "new"}},
		kinesis.RemoveTagsFromStream: {name, arn}, kinesis.SplitShard: {name, arn},
		kinesis.StartStreamEncryption: {name, arn}, kinesis.StopStreamEncryption: {name, arn}, kinesis.SubscribeToShard: {consumer},
		kinesis.TagResource: {resource}, kinesis.UntagResource: {resource}, kinesis.UpdateAccountSettings: {{}},
		kinesis.UpdateMaxRecordSize: {arn}, kinesis.UpdateShardCount: {name, arn}, kinesis.UpdateStreamMode: {arn}, kinesis.UpdateStreamWarmThroughput: {name, arn},
	}
	for _, op := range kinesis.Ops() {
		if served[op] == nil {
			continue
		}
		if len(inputs[op]) == 0 {
			t.Errorf("%s is not in this table", op)
		}
		for _, in := range inputs[op] {
			about := ordersARN
			switch {
			case ofAccount[op]:
				about = "*"
			case in["ConsumerARN"] != nil, in["ResourceARN"] == consumerOne, in["ConsumerName"] == "one":
				about = consumerOne
			}
			text := fmt.Sprintf("User: arn:aws:iam::123456789012:user/nothing is not authorized to perform: kinesis:%[1]s on resource: %[2]s because no identity-based policy allows the kinesis:%[1]s action", op, about)
			e.as("NOTHING").refused(string(op), in, "AccessDeniedException", text)

			// Another may do it to this stream, unless it is of other ones.
			body, err := json.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			elsewhere := strings.ReplaceAll(string(body), "orders", "other")
			for user, allowed := range map[string]func() bool{
				"WRITER": func() bool { return op == kinesis.ListStreams || strings.HasPrefix(string(op), "Put") },
				"READER": func() bool {
					return strings.HasPrefix(string(op), "Get") || op == kinesis.ListShards || op == kinesis.DescribeStreamSummary
				},
			} {
				denied := func(body string) bool {
					e := e.as(user)
					a := e.do(e.request("Kinesis_20131202."+string(op), typeJSON, []byte(body)))
					return a.body["__type"] == "AccessDeniedException"
				}
				if denied(string(body)) == allowed() {
					t.Errorf("%s: %s %s: allowed %v", user, op, body, !allowed())
				}
				if elsewhere != string(body) && !denied(elsewhere) {
					t.Errorf("%s: %s %s: allowed", user, op, elsewhere)
				}
			}
		}
	}
}

// TestNamesThatDisagree: whichever name an operation goes by, the caller must be
// allowed all that it gives.
func TestNamesThatDisagree(t *testing.T) {
	e := newAuthorizingEnv(t)
	other := strings.Replace(ordersARN, "orders", "other", 1)
	iterator := e.iterator("other", shard0, "TRIM_HORIZON", nil)
	for _, c := range []struct {
		user, op string
		in       m
	}{
		{"WRITER", "PutRecord", m{"StreamName": "orders", "StreamARN": other, "PartitionKey": "k", "Data": ""}},
		{"WRITER", "PutRecord", m{"StreamName": "other", "StreamARN": ordersARN, "PartitionKey": "k", "Data": ""}},
		{"WRITER", "PutRecords", m{"StreamName": "orders", "StreamARN": other, "Records": []m{{"PartitionKey": "k", "Data": ""}}}},
		{"READER", "GetRecords", m{"ShardIterator": iterator, "StreamARN": ordersARN}},
		{"READER", "GetRecords", m{"ShardIterator": iterator}},
		{"READER", "GetRecords", m{"ShardIterator": "rubbish"}},
		{"READER", "GetRecords", m{}},
		{"READER", "GetShardIterator", m{"ShardId": shard0, "ShardIteratorType": "LATEST"}},
		{"READER", "ListShards", m{"NextToken": "rubbish"}},
		{"READER", "GetResourcePolicy", m{"ResourceARN": strings.Replace(consumerOne, "orders", "other", 1)}},
		{"READER", "GetResourcePolicy", m{"ResourceARN": "arn:aws:kinesis:eu-west-1:123456789012:stream/orders/other"}},
	} {
		if a := e.as(c.user).call(c.op, c.in); a.body["__type"] != "AccessDeniedException" {
			t.Errorf("%s: %s %v: %d %s", c.user, c.op, c.in, a.status, a.raw)
		}
	}
	// An iterator that has grown old says so, whoever asks.
	old := e.iterator("orders", shard0, "TRIM_HORIZON", nil)
	e.clock.advance(301 * time.Second)
	if a := e.as("READER").call("GetRecords", m{"ShardIterator": old}); a.body["__type"] != "ExpiredIteratorException" {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

// TestDuplicateMembers: of a member that is there twice the same one counts for
// the judgement and for the operation.
func TestDuplicateMembers(t *testing.T) {
	e := newAuthorizingEnv(t)
	for _, body := range []string{
		`{"StreamName":"orders","PartitionKey":"k","Data":"","StreamName":"other"}`,
		`{"StreamName":"other","PartitionKey":"k","Data":"","StreamName":"orders"}`,
		`{"StreamName":"orders","PartitionKey":"k","Data":"","Stream\u004eame":"other"}`,
	} {
		w := e.as("WRITER")
		w.do(w.request("Kinesis_20131202.PutRecord", typeJSON, []byte(body)))
	}
	if got := dataOf(t, e.read(e.iterator("other", shard0, "TRIM_HORIZON", nil), nil)); got != "" {
		t.Errorf("other has %q", got)
	}
	if n := len(e.read(e.iterator("other", shard0, "TRIM_HORIZON", nil), nil)["Records"].([]any)); n != 0 {
		t.Errorf("other has %d records", n)
	}
}

// TestResourcePolicies: what the policies of streams and consumers add to and
// take from the keys' own lists.
func TestResourcePolicies(t *testing.T) {
	const everyone, nothing, other = `"*"`, `{"AWS":"arn:aws:iam::123456789012:user/nothing"}`, `{"AWS":"arn:aws:iam::222222222222:role/other"}`
	const ours, theirs = `{"AWS":"123456789012"}`, `{"AWS":"222222222222"}`
	statement := func(effect, principal string) string {
		return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":%q,"Principal":%s,"Action":"kinesis:Put*","Resource":%q}]}`, effect, principal, ordersARN)
	}
	const own, shared, forbidden = "because no identity-based policy allows the kinesis:PutRecord action", "because no resource-based policy allows the kinesis:PutRecord action", "with an explicit deny in a resource-based policy"
	for _, c := range []struct {
		name, policy, user, want string // want "" is allowed
	}{
		{"none, free key", "", "ADMIN", ""},
		{"none, key without rights", "", "NOTHING", own},
		{"none, another account", "", "OTHER", shared},
		{"allow everyone, key without rights", statement("Allow", everyone), "NOTHING", ""},
		{"allow it by name", statement("Allow", nothing), "NOTHING", ""},
		{"allow another by name", statement("Allow", other), "NOTHING", own},
		{"allow our account: it has to be said who", statement("Allow", ours), "NOTHING", own},
		{"allow another account", statement("Allow", theirs), "OTHER", ""},
		{"allow another account's user", statement("Allow", other), "OTHER", ""},
		{"allow only ours", statement("Allow", ours), "OTHER", shared},
		{"deny everyone, free key", statement("Deny", everyone), "ADMIN", forbidden},
		{"deny everyone, key with rights", statement("Deny", everyone), "WRITER", forbidden},
		{"deny our account", statement("Deny", ours), "ADMIN", forbidden},
		{"deny another", statement("Deny", other), "ADMIN", ""},
		{"damaged", "{", "ADMIN", forbidden},
	} {
		var log bytes.Buffer
		e := newAuthorizingEnv(t, func(c *Config, _ *fakeBroker) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		e.broker.editStream(e.broker.streamID("orders"), func(s *pb.Stream) { s.Policy = c.policy })
		for _, in := range []m{
			{"StreamName": "orders", "PartitionKey": "k", "Data": []byte("x")},
			{"StreamARN": strings.Replace(ordersARN, "eu-west-1", "us-west-2", 1), "PartitionKey": "k", "Data": []byte("x")},
		} {
			a := e.as(c.user).call("PutRecord", in)
			if c.want == "" && a.status != 200 || c.want != "" && (a.body["__type"] != "AccessDeniedException" || !strings.HasSuffix(a.body["message"].(string), ordersARN+" "+c.want)) {
				t.Errorf("%s: %d %s, not %q", c.name, a.status, a.raw, c.want)
			}
		}
		// Other streams are nobody's business.
		if a := e.as("ADMIN").call("PutRecord", m{"StreamName": "other", "PartitionKey": "k", "Data": []byte("x")}); a.status != 200 {
			t.Errorf("%s: other: %d %s", c.name, a.status, a.raw)
		}
		if c.name == "damaged" {
			if a := e.as("ADMIN").call("GetResourcePolicy", m{"ResourceARN": ordersARN}); a.status != 200 {
				t.Errorf("%d %s", a.status, a.raw)
			}
			if !strings.Contains(log.String(), "denies all until it is put anew") {
				t.Errorf("log: %s", &log)
			}
		}
	}
}

// TestPolicyOfConsumer: a consumer's policy is about the consumer, its stream's
// about the stream; an iterator is judged by the stream that it was made for.
func TestPolicyOfConsumer(t *testing.T) {
	e := newAuthorizingEnv(t)
	iterator := e.iterator("orders", shard0, "TRIM_HORIZON", nil)
	deny := `{"Statement":{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}}`
	denied := func(op string, in m) bool { return e.call(op, in).body["__type"] == "AccessDeniedException" }
	byARN, byName, stream := m{"ConsumerARN": consumerOne}, m{"StreamARN": ordersARN, "ConsumerName": "one"}, m{"StreamName": "orders"}
	id := e.broker.streamID("orders")
	e.broker.editStream(id, func(s *pb.Stream) { s.Consumers[0].Policy = deny })
	if !denied("DescribeStreamConsumer", byARN) || !denied("DescribeStreamConsumer", byName) || denied("DescribeStream", stream) || denied("GetRecords", m{"ShardIterator": iterator}) {
		t.Error("the consumer's policy")
	}
	if e.call("DescribeStreamConsumer", m{"ConsumerARN": ordersARN + "/consumer/one:1"}).body["__type"] != "ResourceNotFoundException" {
		t.Error("the policy of a consumer that is gone")
	}
	e.broker.editStream(id, func(s *pb.Stream) { s.Consumers[0].Policy, s.Policy = "", deny })
	if denied("DescribeStreamConsumer", byARN) || !denied("DescribeStream", stream) || !denied("GetRecords", m{"ShardIterator": iterator}) || !denied("GetRecords", m{"ShardIterator": `"` + iterator + `"`}) {
		t.Error("the stream's policy")
	}
}

// TestNobodyIsAsked: without credentials policies are not in force.
func TestNobodyIsAsked(t *testing.T) {
	e := newEnv(t)
	id := e.create("s", 1)
	e.broker.editStream(id, func(s *pb.Stream) {
		s.Policy = `{"Statement":{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}}`
	})
	e.put("s", "k", "x")
}
