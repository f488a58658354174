package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"shardstream/broker"
	"shardstream/gateway"
	pb "shardstream/proto/shardstream/v1"
)

// Rows about minutes and days run on a node inside the test, whose gateway has a
// clock that can be put forward.

// ahead is how far that clock is ahead of the real one.
var ahead atomic.Int64

// forward puts the clock forward, until the end of the row.
func (c *caller) forward(d time.Duration) {
	ahead.Add(int64(d))
	c.Cleanup(func() { ahead.Store(0) })
}

var clocked = &node{name: "clocked", run: runClocked}

// runClocked serves until stop is called.
func runClocked(dir string) (endpoint string, stop func(), err error) {
	grpc, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, errors.Join(err, grpc.Close())
	}
	b, err := broker.Open(context.Background(), broker.Config{DataDir: filepath.Join(dir, "data"), Lone: true, GRPCListener: grpc})
	if err != nil {
		return "", nil, errors.Join(err, api.Close(), grpc.Close())
	}
	g, err := gateway.New(gateway.Config{
		Cluster: b.Cluster(), Data: func(string, string) (pb.DataClient, error) { return b.Data(), nil },
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		return "", nil, errors.Join(err, b.Close(context.Background()), api.Close())
	}
	served := make(chan struct{})
	go func() { // ends with Shutdown
		defer close(served)
		_ = g.Serve(api, nil) // rows see what it does
	}()
	return "http://" + api.Addr().String(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = g.Shutdown(ctx) // the test is over
		<-served
		_ = b.Close(ctx)
	}, nil
}

// clockRows run one by one.
var clockRows = []row{
	{"5.2 iterator/expires after 300 seconds", func(c *caller) {
		c.create(1)
		first := c.iterator("0", "LATEST")
		c.forward(200 * time.Second)
		next := c.read(first)["NextShardIterator"].(string)
		c.forward(101 * time.Second)
		const when = `[A-Z][a-z]{2} [A-Z][a-z]{2} \d{2} \d{2}:\d{2}:\d{2} UTC \d{4}`
		c.refusedLike("GetRecords", m{"ShardIterator": first}, expiredIterator, fmt.Sprintf(
			`Iterator expired\. The iterator was created at time %s while right now it is %s which is further in the future than the tolerated delay of 300000 milliseconds\.`, when, when))
		c.read(next) // its life began later
	}},
	{"3.1 tokens/expire after 300 seconds", func(c *caller) {
		c.create(2)
		c.s += "-b"
		c.create(2)
		shards := c.ok("ListShards", m{"StreamName": "<S>", "MaxResults": 1})["NextToken"]
		streams := c.ok("ListStreams", m{"Limit": 1})["NextToken"]
		c.ok("RegisterStreamConsumer", m{"StreamARN": "<ARN>", "ConsumerName": "a"})
		c.ok("RegisterStreamConsumer", m{"StreamARN": "<ARN>", "ConsumerName": "b"})
		consumers := c.ok("ListStreamConsumers", m{"StreamARN": "<ARN>", "MaxResults": 1})["NextToken"]
		c.forward(299 * time.Second)
		c.ok("ListShards", m{"NextToken": shards})
		c.ok("ListStreams", m{"NextToken": streams})
		c.ok("ListStreamConsumers", m{"StreamARN": "<ARN>", "NextToken": consumers})
		c.forward(2 * time.Second)
		const expired = "The specified NextToken has expired."
		c.refused("ListShards", m{"NextToken": shards}, expiredToken, expired)
		c.refused("ListStreams", m{"NextToken": streams}, expiredToken, expired)
		c.refused("ListStreamConsumers", m{"StreamARN": "<ARN>", "NextToken": consumers}, expiredToken, expired)
	}},
	{"3.3 account settings/the end of a commitment", func(c *caller) {
		c.ok("UpdateAccountSettings", commitment("ENABLED"))
		c.gives("UpdateAccountSettings", commitment("DISABLED"), m{"MinimumThroughputBillingCommitment": some{"Status": "ENABLED_UNTIL_EARLIEST_ALLOWED_END"}})
		c.forward(25 * time.Hour)
		c.gives("DescribeAccountSettings", m{}, committed(m{"Status": "DISABLED", "StartedAt": aTime, "EndedAt": aTime}))
	}},
	{"6.4 filters/of a stream that is older than its retention", func(c *caller) {
		c.create(2)
		c.split(1)
		c.forward(25 * time.Hour)
		for kind, want := range map[string]string{
			"FROM_TRIM_HORIZON": "[0 2 3]", "AT_TRIM_HORIZON": "[0 2 3]", "AT_LATEST": "[0 2 3]",
			"AT_TIMESTAMP": "[0 2 3]", "FROM_TIMESTAMP": "[0 2 3]",
		} {
			filter := m{"Type": kind}
			if kind == "AT_TIMESTAMP" || kind == "FROM_TIMESTAMP" {
				filter["Timestamp"] = moment(1000) // moved to the horizon
			}
			if got, _ := c.page(listed(m{"ShardFilter": filter})); fmt.Sprint(got) != want {
				c.Errorf("%s: %v, not %s", kind, got, want)
			}
		}
	}},
	{"6.5 lifecycle/expired shards vanish", func(c *caller) {
		c.create(1)
		c.split(0)
		old := c.iterator("0", "TRIM_HORIZON")
		c.is(3, c.ok("ListShards", listed(m{})))
		c.forward(25 * time.Hour)
		shards := c.shards()
		if len(shards) != 2 || shards[0]["ParentShardId"] != shardID(0) || shards[1]["ParentShardId"] != shardID(0) {
			c.Errorf("%v", shards)
		}
		c.is(2, c.ok("DescribeStream", m{"StreamName": "<S>"})["StreamDescription"].(m))
		c.refused("GetShardIterator", at("TRIM_HORIZON", nil), notFound, fmt.Sprintf(noShard, 0))
		// Who still has an iterator of it has one that is too old.
		c.refusedLike("GetRecords", m{"ShardIterator": old}, expiredIterator, `Iterator expired\..*`)
		c.covers(shards)
	}},
}
