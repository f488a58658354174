package gateway

import (
	"reflect"
	"strconv"
	"strings"

	"shardstream/gateway/credentials"
	"shardstream/gateway/kinesis"
	"shardstream/gateway/policy"
	pb "shardstream/proto/shardstream/v1"
)

// What a caller may do: what the lists of its key allow, and the policies of the
// streams and consumers that the request names.
//
//   - A Deny in a resource's policy wins over all.
//   - A key of our own account needs its lists' word or the policy's.
//   - A key whose user is of another account needs both.
//
// Every stream and consumer that a request names is looked at, whichever of them
// the operation goes by in the end: by name, by ARN, inside an iterator or inside
// a page token. Who names none where one is needed is taken for naming them all.

// ofAccount are the operations that concern no single stream.
var ofAccount = map[kinesis.Op]bool{
	kinesis.ListStreams: true, kinesis.DescribeLimits: true,
	kinesis.DescribeAccountSettings: true, kinesis.UpdateAccountSettings: true,
}

// mention is a stream or a consumer that a request names.
type mention struct {
	address
	id       uint64          // of the stream, where an iterator names it; 0 else
	consumer *pb.ConsumerRef // nil: the stream itself
}

// policy gives the policy of what is mentioned, "" if it has none or is not there.
func (n mention) policy(m *metadata) string {
	v, _ := n.find(m)
	if n.id != 0 {
		v = m.byID[n.id]
	}
	if v == nil || n.consumer == nil {
		return v.policy()
	}
	return v.consumer(n.consumer).GetPolicy()
}

func (v *streamView) policy() string {
	if v == nil {
		return ""
	}
	return v.Policy
}

// resource gives what is mentioned as the lists of keys know it.
func (n mention) resource(region, ours string) credentials.Resource {
	if n.name == "" {
		return credentials.Resource{ARN: "*", Stream: "*"}
	}
	account := n.account
	if account == "" {
		account = ours
	}
	r := credentials.Resource{Name: n.name, Stream: "arn:aws:kinesis:" + region + ":" + account + ":stream/" + n.name}
	r.ARN = r.Stream
	if n.consumer != nil {
		r.ARN += "/consumer/" + n.consumer.Name
		if n.consumer.CreatedS != 0 {
			r.ARN += ":" + strconv.FormatInt(n.consumer.CreatedS, 10)
		}
	}
	return r
}

// authorizeStream judges a call that names one stream.
func (c *call) authorizeStream(name, arn string) *kinesis.Error {
	if c.who == nil {
		return nil
	}
	m, failure := c.cached()
	if failure != nil {
		return failure
	}
	var all [2]mention
	return c.authorizeAll(m, appendStreams(all[:0], name, arn))
}

// permit judges a call by its input, or by what can be read of one with a member
// of the wrong type: failure is what is wrong with it, and answered to those who
// may call.
func (c *call) permit(in any, failure *kinesis.Error) *kinesis.Error {
	if c.who == nil || failure != nil && !failure.CapitalM {
		return failure // no object at all: that comes first
	}
	m, unready := c.cached()
	if unready != nil {
		return unready
	}
	if denied := c.authorizeAll(m, c.mentions(m, in)); denied != nil {
		return denied
	}
	return failure
}

func (c *call) authorizeAll(m *metadata, all []mention) *kinesis.Error {
	if len(all) == 0 {
		all = []mention{{}}
	}
	for _, n := range all {
		if denied := c.authorize(m, n); denied != nil {
			return denied
		}
	}
	return nil
}

func (c *call) authorize(m *metadata, n mention) *kinesis.Error {
	ours, text := m.cluster.AccountId, n.policy(m)
	if text == "" && c.who.IsFree(ours) {
		return nil
	}
	about := n.resource(c.region(), ours)
	about.Account = ofAccount[c.op]
	user, account := c.who.Principal(ours)
	action := "kinesis:" + string(c.op)
	decision := policy.None
	if text != "" {
		decision = c.g.policies.of(text).Evaluate(policy.Request{Principal: user, Account: account, Action: action, Resource: about.ARN})
	}
	own, same := c.who.Allows(action, about), account == ours
	switch {
	case decision == policy.Deny:
		return kinesis.AccessForbidden(user, c.op, about.ARN)
	case same && (own || decision == policy.Allow):
		return nil
	case same || !own:
		return kinesis.AccessDenied(user, c.op, about.ARN)
	case decision == policy.None:
		return kinesis.AccessNotShared(user, c.op, about.ARN)
	}
	return nil
}

// mentions gives what a decoded input names. in is nil for a body with a member
// of the wrong type, of which we take what can be read.
func (c *call) mentions(m *metadata, in any) (all []mention) {
	if in == nil {
		for _, op := range []kinesis.Op{kinesis.DescribeStreamSummary, kinesis.DescribeStreamConsumer, kinesis.GetResourcePolicy} {
			if in, failure := kinesis.Decode(op, c.format, c.body); failure == nil {
				all = append(all, c.mentions(m, in)...)
			}
		}
		return all
	}
	v := reflect.ValueOf(in).Elem()
	all = appendStreams(all, member(v, "StreamName"), member(v, "StreamARN"))
	if arn := member(v, "ResourceARN"); arn != "" {
		all = append(all, mentionOf(arn))
	}
	if arn := member(v, "ConsumerARN"); arn != "" {
		n := mentionOf(arn)
		if len(all) > 0 && all[0].address == n.address {
			all = all[:0] // its own stream, which says less
		}
		all = append(all, n)
	} else if name := member(v, "ConsumerName"); name != "" && c.op != kinesis.RegisterStreamConsumer && len(all) > 0 {
		// A consumer by its name, of the stream beside it.
		n := &all[0]
		n.consumer = &pb.ConsumerRef{Name: name}
		if stream, _ := n.find(m); stream != nil {
			if known := stream.consumer(n.consumer); known != nil {
				n.consumer.CreatedS = known.CreatedMs / 1000
			}
		}
	}
	if text := member(v, "ShardIterator"); text != "" {
		n := mention{}
		if i, failure := c.unsealIterator(m, text); failure == nil {
			n = mention{address: address{name: i.name}, id: uint64(i.shard.Stream)}
		}
		all = append(all, n)
	}
	if text := member(v, "NextToken"); text != "" && c.op == kinesis.ListShards {
		var t shardsToken
		_, failure := c.unsealToken(m, tokenShards, text, &t)
		n := mention{}
		if failure == nil {
			n = mention{address: address{name: t.Name}, id: t.Stream}
		}
		all = append(all, n)
	}
	return all
}

// member gives a string member of an input, "" if there is none.
func member(v reflect.Value, name string) string {
	f := v.FieldByName(name)
	if f.Kind() == reflect.Pointer {
		f = f.Elem()
	}
	if f.Kind() != reflect.String {
		return ""
	}
	return f.String()
}

// appendStreams adds the stream of a name and that of an ARN, once if they are one.
func appendStreams(dst []mention, name, arn string) []mention {
	if name != "" {
		dst = append(dst, mention{address: address{name: name}})
	}
	if arn == "" {
		return dst
	}
	n := mentionOf(arn)
	if name != "" && n.name == name {
		dst = dst[:len(dst)-1] // the ARN says more
	}
	return append(dst, n)
}

// mentionOf reads the ARN of a stream or of a consumer; of one that can't be read
// nothing is known.
func mentionOf(arn string) mention {
	if a, ref, ok := parseConsumerARN(arn); ok {
		return mention{address: a, consumer: ref}
	}
	a, ok := parseARN(arn)
	if !ok || strings.Contains(a.name, "/") {
		return mention{}
	}
	return mention{address: a}
}
