package conformance

import (
	"fmt"
	"strings"
	"time"
)

// Section 3.7: consumers.

func register(name string) m { return m{"StreamARN": "<ARN>", "ConsumerName": name} }

var consumerARN = like(`arn:aws:kinesis:us-east-1:000000000000:stream/[a-zA-Z0-9_.-]+/consumer/[a-zA-Z0-9_.-]+:\d{10}`)

// consumerGone waits until a consumer is not there any more.
func (c *caller) consumerGone(arn string) {
	c.Helper()
	c.eventually(func() error {
		if a := c.call("DescribeStreamConsumer", m{"ConsumerARN": arn}); a.status == 200 {
			return fmt.Errorf("it is still there: %s", a.raw)
		}
		return nil
	})
}

var consumerRows = []row{
	{"3.7 RegisterStreamConsumer/answer", func(c *caller) {
		c.create(1)
		before := time.Now().Unix()
		got := c.gives("RegisterStreamConsumer", register("a.b_C-1"), m{"Consumer": m{
			"ConsumerName": "a.b_C-1", "ConsumerARN": consumerARN, "ConsumerStatus": "CREATING", "ConsumerCreationTimestamp": aTime,
		}})["Consumer"].(m)
		created, _ := instant(got["ConsumerCreationTimestamp"])
		if s := int64(created) / 1000; s < before || s > time.Now().Unix()+1 {
			c.Errorf("created at %v", created)
		}
		c.want("ARN", fmt.Sprintf("<ARN>/consumer/a.b_C-1:%d", created/1000), got["ConsumerARN"])
	}},
	{"3.7 RegisterStreamConsumer/becomes ACTIVE", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		c.want("summary", some{"ConsumerCount": 1}, c.summary())
		c.gives("DescribeStreamConsumer", m{"ConsumerARN": arn}, m{"ConsumerDescription": m{
			"ConsumerName": "c", "ConsumerARN": arn, "ConsumerStatus": "ACTIVE", "ConsumerCreationTimestamp": aTime, "StreamARN": "<ARN>",
		}})
	}},
	{"3.7 RegisterStreamConsumer/again has another ARN", func(c *caller) {
		c.create(1)
		first := c.consumer("c")
		c.empty("DeregisterStreamConsumer", m{"ConsumerARN": first})
		c.consumerGone(first)
		if second := c.consumer("c"); second == first {
			c.Errorf("%s twice", second)
		}
		c.refused("DescribeStreamConsumer", m{"ConsumerARN": first}, notFound, "Consumer "+first+", account <A> not found.")
	}},
	{"3.7 RegisterStreamConsumer/name taken", func(c *caller) {
		c.create(1)
		c.ok("RegisterStreamConsumer", register("c"))
		c.refused("RegisterStreamConsumer", register("c"), resourceInUse, "Consumer c under stream <S> already exists for account <A>.")
		c.consumer("d")
		c.refused("RegisterStreamConsumer", register("d"), resourceInUse, "Consumer d under stream <S> already exists for account <A>.")
	}},
	{"3.7 RegisterStreamConsumer/tags", func(c *caller) {
		c.create(1)
		arn := c.ok("RegisterStreamConsumer", with(register("c"), "Tags", m{"k": "v"}))["Consumer"].(m)["ConsumerARN"]
		c.gives("ListTagsForResource", m{"ResourceARN": arn}, m{"Tags": pairs("k", "v")})
		c.refused("RegisterStreamConsumer", with(register("d"), "Tags", m{"k;": "v"}), invalidArgument, invalidTags)
		many, _ := manyTags(51)
		c.refused("RegisterStreamConsumer", with(register("d"), "Tags", many), invalidArgument, tooManyTags)
	}},

	{"3.7 DescribeStreamConsumer/by ARN, by names, by all three", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		for _, in := range []m{{"ConsumerARN": arn}, register("c"), with(register("c"), "ConsumerARN", arn)} {
			c.gives("DescribeStreamConsumer", in, m{"ConsumerDescription": some{"ConsumerARN": arn, "StreamARN": "<ARN>"}})
		}
	}},
	{"3.7 consumer address/conflict", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		for _, in := range []m{
			{"ConsumerARN": arn, "ConsumerName": "d"},
			{"ConsumerARN": arn, "StreamARN": "<ARN>-b"},
			{"ConsumerARN": arn, "StreamARN": "<ARN>-b", "ConsumerName": "c"},
		} {
			for _, op := range []string{"DescribeStreamConsumer", "DeregisterStreamConsumer"} {
				c.refused(op, in, invalidArgument, "ConsumerARN "+arn+" does not match the given StreamARN and ConsumerName.")
			}
		}
	}},
	{"3.7 consumer address/regions are not compared", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		elsewhere := strings.NewReplacer("us-east-1", "eu-west-2")
		for _, in := range []m{
			{"ConsumerARN": elsewhere.Replace(arn)},
			{"ConsumerARN": arn, "StreamARN": elsewhere.Replace(c.arn(c.s)), "ConsumerName": "c"},
		} {
			c.gives("DescribeStreamConsumer", in, m{"ConsumerDescription": some{"ConsumerName": "c", "ConsumerARN": arn}})
		}
	}},
	{"3.7 consumer address/none", func(c *caller) {
		for _, in := range []m{{}, {"ConsumerName": "c"}, {"StreamARN": "<ARN>"}} {
			for _, op := range []string{"DescribeStreamConsumer", "DeregisterStreamConsumer"} {
				c.refused(op, in, invalidArgument, "Either ConsumerARN or both StreamARN and ConsumerName should be provided.")
			}
		}
	}},
	{"3.7 consumer/missing", func(c *caller) {
		c.create(1)
		const arn = "<ARN>/consumer/c:1700000000"
		for _, op := range []string{"DescribeStreamConsumer", "DeregisterStreamConsumer"} {
			c.refused(op, register("c"), notFound, "Consumer c, account <A> not found.")
			c.refused(op, m{"ConsumerARN": arn}, notFound, "Consumer "+arn+", account <A> not found.")
			c.refused(op, with(register("c"), "StreamARN", "<ARN>-b"), notFound, "Stream <S>-b under account <A> not found.")
		}
	}},

	{"3.7 ListStreamConsumers/shape and pages", func(c *caller) {
		c.create(1)
		c.gives("ListStreamConsumers", m{"StreamARN": "<ARN>"}, m{"Consumers": list{}})
		for _, name := range []string{"b", "a", "c"} {
			c.consumer(name)
		}
		shape := func(name string) m {
			return m{"ConsumerName": name, "ConsumerARN": consumerARN, "ConsumerStatus": "ACTIVE", "ConsumerCreationTimestamp": aTime}
		}
		page := c.gives("ListStreamConsumers", m{"StreamARN": "<ARN>", "MaxResults": 2}, m{"Consumers": list{shape("b"), shape("a")}, "NextToken": someText})
		c.gives("ListStreamConsumers", m{"StreamARN": "<ARN>", "MaxResults": 2, "NextToken": page["NextToken"]}, m{"Consumers": list{shape("c")}})
		c.gives("ListStreamConsumers", m{"StreamARN": "<ARN>", "MaxResults": 10000}, m{"Consumers": list{shape("b"), shape("a"), shape("c")}})
	}},
	{"3.7 ListStreamConsumers/at most 100", func(c *caller) {
		c.create(1)
		for i := range 101 {
			c.ok("RegisterStreamConsumer", register(fmt.Sprintf("c%03d", i)))
		}
		out := c.ok("ListStreamConsumers", m{"StreamARN": "<ARN>", "MaxResults": 10000})
		if n := len(out["Consumers"].(list)); n != 100 {
			c.Errorf("%d consumers", n)
		}
		out = c.ok("ListStreamConsumers", m{"StreamARN": "<ARN>", "NextToken": out["NextToken"]})
		if n := len(out["Consumers"].(list)); n != 1 {
			c.Errorf("%d consumers more", n)
		}
	}},
	{"3.7 ListStreamConsumers/StreamCreationTimestamp", func(c *caller) {
		c.create(1)
		created, _ := instant(c.summary()["StreamCreationTimestamp"])
		c.gives("ListStreamConsumers", m{"StreamARN": "<ARN>", "StreamCreationTimestamp": created}, m{"Consumers": list{}})
		c.refused("ListStreamConsumers", m{"StreamARN": "<ARN>", "StreamCreationTimestamp": created - 60_000}, notFound, "Stream <S> under account <A> not found.")
	}},
	{"3.7 ListStreamConsumers/tokens", func(c *caller) {
		c.create(1)
		c.consumer("a")
		c.consumer("b")
		token := c.ok("ListStreamConsumers", m{"StreamARN": "<ARN>", "MaxResults": 1})["NextToken"]
		c.refused("ListStreamConsumers", m{"StreamARN": "<ARN>", "NextToken": "x"}, invalidArgument, "Invalid NextToken.")
		c.refused("ListStreamConsumers", m{"StreamARN": "<ARN>", "NextToken": token, "StreamCreationTimestamp": moment(1700000000000)}, invalidArgument,
			"NextToken and StreamCreationTimestamp cannot be provided together.")
		c.s += "-b"
		c.create(1)
		c.refused("ListStreamConsumers", m{"StreamARN": "<ARN>", "NextToken": token}, invalidArgument, "Invalid NextToken.")
	}},

	{"3.7 DeregisterStreamConsumer/by names", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		c.empty("DeregisterStreamConsumer", register("c"))
		c.consumerGone(arn)
		c.want("summary", some{"ConsumerCount": 0}, c.summary())
		c.refused("DeregisterStreamConsumer", register("c"), notFound, "Consumer c, account <A> not found.")
	}},
}

// slowConsumerRows are about consumers that are CREATING or DELETING.
var slowConsumerRows = []row{
	{"3.7 consumer states/CREATING", func(c *caller) {
		c.s = c.node.seed(c.T)
		arn := c.ok("RegisterStreamConsumer", register("c"))["Consumer"].(m)["ConsumerARN"]
		c.gives("DescribeStreamConsumer", m{"ConsumerARN": arn}, m{"ConsumerDescription": some{"ConsumerStatus": "CREATING"}})
		c.gives("ListStreamConsumers", m{"StreamARN": "<ARN>"}, m{"Consumers": list{some{"ConsumerStatus": "CREATING"}}})
		c.want("summary", some{"StreamStatus": "ACTIVE"}, c.summary())
	}},
	{"3.7 consumer states/DELETING", func(c *caller) {
		c.s = c.node.seed(c.T)
		arn := c.ok("RegisterStreamConsumer", register("c"))["Consumer"].(m)["ConsumerARN"]
		c.empty("DeregisterStreamConsumer", m{"ConsumerARN": arn})
		c.gives("DescribeStreamConsumer", m{"ConsumerARN": arn}, m{"ConsumerDescription": some{"ConsumerStatus": "DELETING"}})
		c.refused("RegisterStreamConsumer", register("c"), resourceInUse, "Consumer c under stream <S> already exists for account <A>.")
	}},
	{"3.8 policies/of a consumer that is not ACTIVE", func(c *caller) {
		c.s = c.node.seed(c.T)
		arn := c.ok("RegisterStreamConsumer", register("c"))["Consumer"].(m)["ConsumerARN"].(string)
		seconds := arn[strings.LastIndex(arn, ":")+1:]
		c.refused("PutResourcePolicy", m{"ResourceARN": arn, "Policy": policyOf(arn, "kinesis:SubscribeToShard")}, resourceInUse,
			"Consumer c with creation timestamp "+seconds+" under stream: <S> , account <A> is not in ACTIVE status.")
	}},
}
