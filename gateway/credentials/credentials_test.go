package credentials

import (
	"strings"
	"testing"
	"time"
)

const account = "000000000000"

func stream(name string) Resource {
	arn := "arn:aws:kinesis:eu-west-1:" + account + ":stream/" + name
	return Resource{Name: name, ARN: arn, Stream: arn}
}

func consumer(name, of string) Resource {
	r := stream(of)
	r.ARN += "/consumer/" + name + ":1795507200"
	return r
}

// TestAllows: what the lists of a key allow.
func TestAllows(t *testing.T) {
	whole := Resource{ARN: "*", Stream: "*", Account: true}
	for _, c := range []struct {
		name, lists, action string
		about               Resource
		want                bool
	}{
		{"no lists", ``, "DeleteStream", stream("orders"), true},
		{"no lists, account", ``, "ListStreams", whole, true},
		{"no actions at all", `actions: []`, "PutRecord", stream("orders"), false},
		{"no streams at all", `streams: []`, "PutRecord", stream("orders"), false},
		{"action", `actions: [PutRecord]`, "PutRecord", stream("orders"), true},
		{"action with its service", `actions: ["kinesis:PutRecord"]`, "PutRecord", stream("orders"), true},
		{"another action", `actions: [PutRecord]`, "PutRecords", stream("orders"), false},
		{"pattern of actions", `actions: [ListShards, "Put*"]`, "PutRecords", stream("orders"), true},
		{"any action", `actions: ["*"]`, "PutRecords", stream("orders"), true},
		{"stream", `streams: [orders]`, "PutRecords", stream("orders"), true},
		{"another stream", `streams: [orders]`, "PutRecords", stream("orders2"), false},
		{"pattern of streams", `streams: [x, "ord*"]`, "PutRecords", stream("orders2"), true},
		{"its consumer", `streams: [orders]`, "SubscribeToShard", consumer("c", "orders"), true},
		{"another's consumer", `streams: [orders]`, "SubscribeToShard", consumer("orders", "x"), false},
		{"ARN", `streams: ["arn:aws:kinesis:us-east-1:000000000000:stream/orders"]`, "PutRecord", stream("orders"), true},
		{"ARN of another", `streams: ["arn:aws:kinesis:us-east-1:000000000000:stream/orders"]`, "PutRecord", stream("orders2"), false},
		{"ARN of another account", `streams: ["arn:aws:kinesis:us-east-1:111111111111:stream/orders"]`, "PutRecord", stream("orders"), false},
		{"ARN, its consumer", `streams: ["arn:aws:kinesis:*:*:stream/orders"]`, "SubscribeToShard", consumer("c", "orders"), true},
		{"ARN of a consumer", `streams: ["arn:aws:kinesis:*:*:stream/orders/consumer/c:*"]`, "SubscribeToShard", consumer("c", "orders"), true},
		{"ARN of another consumer", `streams: ["arn:aws:kinesis:*:*:stream/orders/consumer/d:*"]`, "SubscribeToShard", consumer("c", "orders"), false},
		{"a consumer's ARN is not its stream", `streams: ["arn:aws:kinesis:*:*:stream/orders/consumer/c:*"]`, "PutRecord", stream("orders"), false},
		{"unknown stream", `streams: [orders]`, "PutRecord", Resource{ARN: "*", Stream: "*"}, false},
		{"account with streams", `streams: ["*"]`, "ListStreams", whole, false},
		{"account with streams and actions", `{streams: [orders], actions: [ListStreams]}`, "ListStreams", whole, true},
		{"both, one wrong", `{streams: [orders], actions: [PutRecord]}`, "PutRecord", stream("x"), false},
		{"both, other wrong", `{streams: [orders], actions: [PutRecord]}`, "GetRecords", stream("orders"), false},
	} {
		lists := strings.TrimSuffix(strings.TrimPrefix(c.lists, "{"), "}")
		s, err := Parse([]byte("keys: [{access-key: k, secret-key: s, " + lists + "}]"))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := s.Find([]byte("k")).Allows("kinesis:"+c.action, c.about); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestParse(t *testing.T) {
	s, err := Parse([]byte(`
keys:
  - access-key: A1
    secret-key: 0123
    session-token: t
    expires: 2027-01-01T00:00:00Z
    user: alice
  - {access-key: A2, secret-key: s, user: "arn:aws:iam::111111111111:role/r"}
  - {access-key: A3, secret-key: s, actions: [PutRecord]}
`))
	if err != nil {
		t.Fatal(err)
	}
	a := s.Find([]byte("A1"))
	if s.Len() != 3 || a.Secret.Key != "0123" || a.Secret.Token != "t" || !a.Secret.Expires.Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%d keys, %+v", s.Len(), a.AccessKey)
	}
	for key, want := range map[string]struct {
		arn, account string
		free         bool
	}{
		"A1": {"arn:aws:iam::000000000000:user/alice", account, true},
		"A2": {"arn:aws:iam::111111111111:role/r", "111111111111", false},
		"A3": {"arn:aws:iam::000000000000:user/A3", account, false},
	} {
		c := s.Find([]byte(key))
		if arn, of := c.Principal(account); arn != want.arn || of != want.account || c.IsFree(account) != want.free {
			t.Errorf("%s: %s of %s, free %v", key, arn, of, c.IsFree(account))
		}
	}
	if s.Find([]byte("A4")) != nil {
		t.Error("a key is found that is not there")
	}
	if s, err := Parse([]byte("keys: []")); err != nil || s.Len() != 0 {
		t.Errorf("all keys revoked: %v", err)
	}
}

// TestMistakes: one line each, with nothing secret.
func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                              `there is no list "keys"`,
		"keys:":                         `there is no list "keys"`,
		"key: []":                       "field key not found",
		"keys: hunter2":                 "line 1",
		"keys: [hunter2]":               "line 1",
		"keys: [{access-key: a]":        "did not find expected",
		"keys: []\n---\nkeys: []":       "second document",
		"keys: [{secret-key: hunter2}]": "key 1: access-key is missing",
		"keys: [{access-key: a}]":       "secret-key of a is missing",
		"keys: [{access-key: a/b, secret-key: hunter2}]":                                      "access-key must be",
		"keys: [{access-key: a, secret-key: hunter2}, {access-key: a, secret-key: hunter2}]":  "key 2: access-key a is there twice",
		"keys: [{access-key: a, secret-key: hunter2, secret-key: hunter2}]":                   "already defined",
		"keys: [{access-key: a, secret-key: hunter2, secret: x}]":                             "field secret not found",
		"keys: [{access-key: a, secret-key: [hunter2]}]":                                      "line 1",
		"keys: [{access-key: a, secret-key: hunter2, expires: soon}]":                         "expires of a is no time",
		"keys: [{access-key: a, secret-key: hunter2, user: 'x y'}]":                           `user "x y" of a must be`,
		"keys: [{access-key: a, secret-key: hunter2, user: 'arn:aws:kinesis:x:y'}]":           "is no ARN of a user",
		"keys: [{access-key: a, secret-key: hunter2, actions: [PutRecrod]}]":                  `action "kinesis:PutRecrod" of a`,
		"keys: [{access-key: a, secret-key: hunter2, actions: ['s3:*']}]":                     `action "s3:*" of a`,
		"keys: [{access-key: a, secret-key: hunter2, actions: PutRecord}]":                    "line 1",
		"keys: [{access-key: a, secret-key: hunter2, streams: ['a b']}]":                      `stream "a b" of a`,
		"keys: [{access-key: a, secret-key: hunter2, streams: ['arn:aws:kinesis:stream/x']}]": `stream "arn:aws:kinesis:stream/x" of a`,
	} {
		s, err := Parse([]byte(text))
		if err == nil || s != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
			continue
		}
		for _, never := range []string{"hunter2", "\n", "credentials."} {
			if strings.Contains(err.Error(), never) {
				t.Errorf("%q: %q is in %v", text, never, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("keys: [{access-key: a, secret-key: s, expires: 2027-01-01T00:00:00Z, actions: ['*'], streams: ['*']}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text)
		if (s == nil) != (err != nil) {
			t.Fatalf("%v, %v", s, err)
		}
	})
}
