package conformance

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Section 2: SubscribeToShard.

const (
	anotherSubscription = "Another active subscription exists for this consumer: <A>:<S>:shardId-000000000000:c"
	subscribeRate       = "Rate exceeded for consumer c of shard shardId-000000000000 in stream <S> under account <A>."
)

// refusedSubscription holds a subscription that is refused before any frame.
func (c *caller) refusedSubscription(in m, class, message string) {
	c.Helper()
	e, refusal := c.trySubscribe(in)
	if e != nil {
		c.Errorf("%v is served", in)
		return
	}
	c.refusal("SubscribeToShard", *refusal, class, message)
}

var subscribeRows = []row{
	{"2.2 initial response/headers and first frame", func(c *caller) {
		c.create(1)
		c.subscribe(c.consumer("c"), "0", "LATEST", nil) // holds both
	}},
	{"2.2 initial response/errors before the first frame are ordinary answers", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		c.refusedSubscription(position(arn+"x", "0", "LATEST", nil), validation,
			`1 validation error detected: Value '`+arn+`x' at 'consumerARN' failed to satisfy constraint: Member must satisfy regular expression pattern: ^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+`)
		c.refusedSubscription(m{"ConsumerARN": arn, "ShardId": "0"}, validation,
			"1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null")
	}},
	{"2.3 frames/data", func(c *caller) {
		c.create(1)
		e := c.subscribe(c.consumer("c"), "0", "TRIM_HORIZON", nil)
		number := c.put("key", "data")
		_, event := e.records(1)
		for _, d := range differences(inJSON, "", m{
			"Records":                    list{m{"SequenceNumber": number, "ApproximateArrivalTimestamp": aTime, "Data": []byte("data"), "PartitionKey": "key"}},
			"ContinuationSequenceNumber": aSequence, "MillisBehindLatest": atLeast(0),
		}, event) {
			c.Error(d)
		}
	}},
	{"2.4 event/records come as they are put", func(c *caller) {
		c.create(1)
		e := c.subscribe(c.consumer("c"), "0", "LATEST", nil)
		for i := range 5 {
			want := fmt.Sprint(i)
			c.put("k", want)
			if got, _ := e.records(1); !slices.Equal(got, []string{want}) {
				c.Errorf("%q, not %q", got, want)
			}
		}
	}},
	{"2.4 event/continuation advances without records", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		e := c.subscribe(arn, "0", "LATEST", nil)
		first := e.next()["ContinuationSequenceNumber"].(string)
		second := e.next()["ContinuationSequenceNumber"].(string)
		if integerOf(second).Cmp(integerOf(first)) <= 0 {
			c.Errorf("%s after %s", second, first)
		}
		c.put("k", "x")
		for _, kind := range []string{"AFTER_SEQUENCE_NUMBER", "AT_SEQUENCE_NUMBER"} {
			for _, number := range []string{first, second} {
				if got := c.readFrom(kind, from(number)); got != "x" {
					c.Errorf("%s: %q", kind, got)
				}
			}
		}
	}},
	{"2.4 event/continuation behind records", func(c *caller) {
		c.create(1)
		e := c.subscribe(c.consumer("c"), "0", "TRIM_HORIZON", nil)
		c.put("k", "1")
		_, event := e.records(1)
		c.put("k", "2")
		if got := c.readFrom("AFTER_SEQUENCE_NUMBER", from(event["ContinuationSequenceNumber"].(string))); got != "2" {
			c.Errorf("%q", got)
		}
	}},
	{"2.4 event/MillisBehindLatest at the tip", func(c *caller) {
		c.create(1)
		e := c.subscribe(c.consumer("c"), "0", "LATEST", nil)
		if got, ok := integer(e.next()["MillisBehindLatest"]); !ok || got != 0 {
			c.Errorf("%v", got)
		}
	}},
	{"2.4 event/an event also while nothing comes", func(c *caller) {
		c.create(1)
		e := c.subscribe(c.consumer("c"), "0", "LATEST", nil)
		for range 3 {
			if event := e.next(); len(event["Records"].(list)) != 0 {
				c.Errorf("%v", event)
			}
		}
	}},
	{"2.4 event/the last of a shard that was split", func(c *caller) {
		c.create(1)
		e := c.subscribe(c.consumer("c"), "0", "TRIM_HORIZON", nil)
		c.put("k", "x")
		c.splitAt(0, "1000")
		if got, _ := e.records(1); !slices.Equal(got, []string{"x"}) {
			c.Errorf("%q", got)
		}
		c.want("children", list{
			m{"ShardId": shardID(1), "ParentShards": list{shardID(0)}, "HashKeyRange": keys("0", "999")},
			m{"ShardId": shardID(2), "ParentShards": list{shardID(0)}, "HashKeyRange": keys("1000", maxHash)},
		}, e.end()["ChildShards"])
	}},
	{"2.4 event/the last of shards that were merged", func(c *caller) {
		c.create(2)
		arn := c.consumer("c")
		c.merge(0, 1)
		for shard := range 2 {
			c.want("children", list{m{"ShardId": shardID(2), "ParentShards": list{shardID(0), shardID(1)}, "HashKeyRange": keys("0", maxHash)}},
				c.subscribe(arn, shardID(shard), "TRIM_HORIZON", nil).end()["ChildShards"])
		}
	}},

	{"2.5 one subscription/the rules", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		first := c.subscribe(arn, "0", "LATEST", nil)
		// A call is refused in the stream for five seconds and then takes over; more
		// than one call a second are refused before.
		var second *events
		c.eventually(func() error {
			e, refusal := c.trySubscribe(position(arn, "0", "LATEST", nil))
			if refusal != nil {
				c.want("a call too soon", m{"__type": limitExceeded, "message": subscribeRate}, refusal.body)
				return fmt.Errorf("%s", refusal.raw)
			}
			f, err := e.read()
			if err != nil {
				c.Fatal(err)
			}
			if f.headers[":message-type"] == "exception" {
				if f.headers[":exception-type"] != resourceInUse || !strings.Contains(string(f.payload), c.text(anotherSubscription)) {
					c.Fatalf("%v %s", f.headers, f.payload)
				}
				return fmt.Errorf("%s", f.payload)
			}
			second = e
			return nil
		})
		first.fails(resourceInUse, anotherSubscription)
		c.put("k", "x")
		if got, _ := second.records(1); !slices.Equal(got, []string{"x"}) {
			c.Errorf("%q", got)
		}
	}},
	{"2.5 one subscription/others have their own", func(c *caller) {
		c.create(2)
		a, b := c.consumer("a"), c.consumer("b")
		all := []*events{c.subscribe(a, "0", "LATEST", nil), c.subscribe(a, "1", "LATEST", nil), c.subscribe(b, "0", "LATEST", nil), c.subscribe(b, "1", "LATEST", nil)}
		c.put("k", "low", hashed("0"))
		c.put("k", "high", hashed(maxHash))
		for i, e := range all {
			want := []string{"low", "high"}[i%2]
			if got, _ := e.records(1); !slices.Equal(got, []string{want}) {
				c.Errorf("%q, not %q", got, want)
			}
		}
	}},
	{"2.5 one subscription/a client that leaves frees its place", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		c.subscribe(arn, "0", "LATEST", nil).cancel()
		c.eventually(func() error {
			e, refusal := c.trySubscribe(position(arn, "0", "LATEST", nil))
			if refusal != nil {
				return fmt.Errorf("%s", refusal.raw)
			}
			f, err := e.read()
			if err != nil || f.headers[":message-type"] != "event" {
				return fmt.Errorf("%s, %v", f.payload, err)
			}
			return nil
		})
	}},
	{"2.5 ends/consumer deregistered", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		e := c.subscribe(arn, "0", "LATEST", nil)
		c.empty("DeregisterStreamConsumer", m{"ConsumerARN": arn})
		e.fails(notFound, "Consumer "+arn+", account <A> not found.")
	}},
	{"2.5 ends/stream deleted", func(c *caller) {
		c.create(1)
		e := c.subscribe(c.consumer("c"), "0", "LATEST", nil)
		c.empty("DeleteStream", m{"StreamName": "<S>", "EnforceConsumerDeletion": true})
		if class, message := e.exception(); class != notFound {
			c.Errorf("%s %s", class, message)
		}
	}},
	{"2.5 consumer/unknown", func(c *caller) {
		c.create(1)
		const arn = "<ARN>/consumer/c:1700000000"
		c.refusedSubscription(position(arn, "0", "LATEST", nil), notFound, "Consumer "+arn+", account <A> not found.")
	}},
	{"2.5 consumer/unknown shard", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		c.refusedSubscription(position(arn, "7", "LATEST", nil), notFound, fmt.Sprintf(noShard, 7))
		c.refusedSubscription(position(arn, "x", "LATEST", nil), notFound, "Could not find shard x in stream <S> under account <A>.")
	}},

	{"2.6 position/all types", func(c *caller) {
		c.create(1)
		first := c.put("k", "1")
		record := c.read(c.iterator("0", "TRIM_HORIZON"))["Records"].(list)[0]
		c.tick(arrival(record))
		c.put("k", "2")
		for name, p := range map[string]struct {
			kind string
			more m
			want []string
		}{
			"horizon": {"TRIM_HORIZON", nil, []string{"1", "2"}},
			"start":   {"AT_SEQUENCE_NUMBER", m{"SequenceNumber": c.start()}, []string{"1", "2"}},
			"at":      {"AT_SEQUENCE_NUMBER", m{"SequenceNumber": first}, []string{"1", "2"}},
			"after":   {"AFTER_SEQUENCE_NUMBER", m{"SequenceNumber": first}, []string{"2"}},
			"long":    {"AT_TIMESTAMP", m{"Timestamp": moment(1000)}, []string{"1", "2"}},
			"time":    {"AT_TIMESTAMP", m{"Timestamp": arrival(record) + 1}, []string{"2"}},
		} {
			e := c.subscribe(c.consumer(name), "0", p.kind, p.more)
			if got, _ := e.records(len(p.want)); !slices.Equal(got, p.want) {
				c.Errorf("%s: %q, not %q", name, got, p.want)
			}
		}
	}},
	{"2.6 position/texts are those of GetShardIterator", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		c.refusedSubscription(position(arn, "0", "AT_SEQUENCE_NUMBER", nil), invalidArgument, fmt.Sprintf(mustSpecify, "AT_SEQUENCE_NUMBER", "no"))
		c.refusedSubscription(position(arn, "0", "LATEST", m{"SequenceNumber": "5"}), invalidArgument, fmt.Sprintf(mustSpecify, "LATEST", "also a"))
		c.refusedSubscription(position(arn, "0", "AT_TIMESTAMP", nil), invalidArgument,
			"Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.")
		future := moment(time.Now().Add(time.Hour).UnixMilli())
		if e, refusal := c.trySubscribe(position(arn, "0", "AT_TIMESTAMP", m{"Timestamp": future})); e != nil || refusal.body["__type"] != invalidArgument {
			c.Errorf("a time to come: %v", refusal)
		}
	}},
	{"2.6 position/LATEST in a closed shard", func(c *caller) {
		c.create(1)
		c.put("k", "x")
		arn := c.consumer("c")
		c.split(0)
		event := c.subscribe(arn, "0", "LATEST", nil).end()
		if n := len(event["Records"].(list)); n != 0 || len(event["ChildShards"].(list)) != 2 {
			c.Errorf("%v", event)
		}
	}},
}

// slowSubscribeRows are about consumers that may not subscribe yet.
var slowSubscribeRows = []row{
	{"2.5 consumer/not ACTIVE", func(c *caller) {
		c.s = c.node.seed(c.T)
		arn := c.ok("RegisterStreamConsumer", register("c"))["Consumer"].(m)["ConsumerARN"].(string)
		c.refusedSubscription(position(arn, "0", "LATEST", nil), resourceInUse,
			"Consumer c with creation timestamp "+arn[strings.LastIndex(arn, ":")+1:]+" under stream: <S> , account <A> is not in ACTIVE status.")
	}},
}
