package conformance

import (
	"fmt"
	"math/big"
	"slices"
)

// Sections 3.4 and 6: lists of shards, hash ranges, splits and merges.

const lowHalf = "170141183460469231731687303715884105728" // 2^127, where shard 1 of 2 begins

func listed(more m) m { return with(more, "StreamName", "<S>") }

// page gives the numbers of the shards of a page, and its token, nil if none.
func (c *caller) page(in m) (shards []int, token any) {
	c.Helper()
	out := c.ok("ListShards", in)
	return numbers(out["Shards"]), out["NextToken"]
}

// split splits a shard of the row's stream at the middle, and waits.
func (c *caller) split(shard int) {
	c.Helper()
	for _, s := range c.shards() {
		if s["ShardId"] == shardID(shard) {
			r := s["HashKeyRange"].(m)
			c.splitAt(shard, middle(r["StartingHashKey"].(string), r["EndingHashKey"].(string)))
			return
		}
	}
	c.Fatalf("no shard %d", shard)
}

func (c *caller) splitAt(shard int, key string) {
	c.Helper()
	c.empty("SplitShard", m{"StreamName": "<S>", "ShardToSplit": shardID(shard), "NewStartingHashKey": key})
	c.active()
}

func (c *caller) merge(low, high int) {
	c.Helper()
	c.empty("MergeShards", m{"StreamName": "<S>", "ShardToMerge": shardID(low), "AdjacentShardToMerge": shardID(high)})
	c.active()
}

func integerOf(text string) *big.Int {
	n, ok := new(big.Int).SetString(text, 10)
	if !ok {
		panic(text)
	}
	return n
}

// middle gives the first key of the upper half of a range.
func middle(start, end string) string {
	n := new(big.Int).Add(integerOf(start), integerOf(end))
	return n.Add(n, big.NewInt(1)).Rsh(n, 1).String()
}

func keys(start, end string) m { return m{"StartingHashKey": start, "EndingHashKey": end} }

// covers holds that the ranges of open shards cover the hash space once.
func (c *caller) covers(shards []m) {
	c.Helper()
	var open []m
	for _, s := range shards {
		if s["SequenceNumberRange"].(m)["EndingSequenceNumber"] == nil {
			open = append(open, s["HashKeyRange"].(m))
		}
	}
	slices.SortFunc(open, func(a, b m) int {
		return integerOf(a["StartingHashKey"].(string)).Cmp(integerOf(b["StartingHashKey"].(string)))
	})
	next := new(big.Int)
	for _, r := range open {
		if integerOf(r["StartingHashKey"].(string)).Cmp(next) != 0 {
			c.Fatalf("a range begins at %v, not %v", r["StartingHashKey"], next)
		}
		next.Add(integerOf(r["EndingHashKey"].(string)), big.NewInt(1))
	}
	if next.BitLen() != 129 {
		c.Fatalf("the ranges end before %v", next)
	}
}

var shardRows = []row{
	{"3.4 ListShards/shape", func(c *caller) {
		c.create(1)
		c.gives("ListShards", listed(m{}), m{"Shards": list{m{
			"ShardId": shardID(0), "HashKeyRange": keys("0", maxHash), "SequenceNumberRange": m{"StartingSequenceNumber": aSequence},
		}}})
	}},
	{"3.4 ListShards/neither token nor stream", func(c *caller) {
		c.refused("ListShards", m{}, invalidArgument, "Either NextToken or StreamName should be provided.")
	}},
	{"3.4 ListShards/token and what it remembers", func(c *caller) {
		c.create(2)
		_, token := c.page(listed(m{"MaxResults": 1}))
		for member, value := range map[string]any{
			"StreamName": "<S>", "StreamARN": "<ARN>", "ShardFilter": m{"Type": "AT_LATEST"},
			"ExclusiveStartShardId": shardID(0), "StreamCreationTimestamp": moment(1700000000000),
		} {
			c.refused("ListShards", m{"NextToken": token, member: value}, invalidArgument, "NextToken and "+member+" cannot be provided together.")
		}
	}},
	{"3.4 ListShards/token with MaxResults and StreamId", func(c *caller) {
		c.create(3)
		_, token := c.page(listed(m{"MaxResults": 1}))
		shards, token := c.page(m{"NextToken": token, "MaxResults": 1, "StreamId": "abcdefghijklmnopqrst-abc"})
		if !slices.Equal(shards, []int{1}) || token == nil {
			c.Errorf("%v, token %v", shards, token)
		}
		if shards, token = c.page(m{"NextToken": token}); !slices.Equal(shards, []int{2}) || token != nil {
			c.Errorf("%v, token %v", shards, token)
		}
	}},
	{"3.4 ListShards/filter and start are in the token", func(c *caller) {
		c.create(3)
		c.split(1) // into 3 and 4
		shards, token := c.page(listed(m{"MaxResults": 1, "ExclusiveStartShardId": shardID(0), "ShardFilter": m{"Type": "AT_LATEST"}}))
		for token != nil {
			var more []int
			more, token = c.page(m{"NextToken": token, "MaxResults": 1})
			shards = append(shards, more...)
		}
		if !slices.Equal(shards, []int{2, 3, 4}) {
			c.Errorf("%v", shards)
		}
	}},
	{"3.4 ListShards/at most 1000", func(c *caller) {
		c.create(1001)
		for _, in := range []m{{}, {"MaxResults": 10000}} {
			out := c.ok("ListShards", listed(in))
			if c.is(1000, out); out["NextToken"] == nil {
				c.Error("no NextToken")
			}
			c.is(1, c.ok("ListShards", m{"NextToken": out["NextToken"]}))
		}
	}},
	{"3.4 ListShards/StreamCreationTimestamp", func(c *caller) {
		c.create(1)
		created, _ := instant(c.summary()["StreamCreationTimestamp"])
		c.is(1, c.ok("ListShards", listed(m{"StreamCreationTimestamp": created})))
		c.refused("ListShards", listed(m{"StreamCreationTimestamp": created - 60_000}), notFound, "Stream <S> under account <A> not found.")
	}},
	{"3.4 ListShards/token of a stream that is gone", func(c *caller) {
		c.create(2)
		_, token := c.page(listed(m{"MaxResults": 1}))
		c.empty("DeleteStream", m{"StreamName": "<S>"})
		c.gone()
		c.refused("ListShards", m{"NextToken": token}, notFound, "Stream <S> under account <A> not found.")
	}},

	{"6.1 ranges/of new streams", func(c *caller) {
		c.create(3)
		for i, want := range []m{
			keys("0", "113427455640312821154458202477256070484"),
			keys("113427455640312821154458202477256070485", "226854911280625642308916404954512140969"),
			keys("226854911280625642308916404954512140970", maxHash),
		} {
			c.want(shardID(i), some{"ShardId": shardID(i), "HashKeyRange": want}, c.shards()[i])
		}
	}},
	{"6.1 ranges/cover the space", func(c *caller) {
		c.create(7)
		c.covers(c.shards())
		c.split(3)
		c.covers(c.shards())
		c.merge(1, 2)
		c.covers(c.shards())
	}},
	{"6.1 ids/increase for ever", func(c *caller) {
		c.create(2)
		c.split(0)    // into 2 and 3
		c.merge(2, 3) // into 4
		c.split(4)    // into 5 and 6
		shards, _ := c.page(listed(m{}))
		if !slices.Equal(shards, []int{0, 1, 2, 3, 4, 5, 6}) {
			c.Errorf("%v", shards)
		}
	}},
	{"6.1 ON_DEMAND/no resharding by hand", func(c *caller) {
		c.empty("CreateStream", m{"StreamName": "<S>"})
		c.active()
		for _, op := range []string{"SplitShard", "MergeShards", "UpdateShardCount"} {
			c.refused(op, structural[op], validation, "Request is invalid. Stream <S> under account <A> is in On-Demand mode.")
		}
	}},

	{"6.2 SplitShard/shape", func(c *caller) {
		c.create(1)
		c.splitAt(0, "1000")
		shards := c.shards()
		c.want("parent", m{
			"ShardId": shardID(0), "HashKeyRange": keys("0", maxHash),
			"SequenceNumberRange": m{"StartingSequenceNumber": aSequence, "EndingSequenceNumber": aSequence},
		}, shards[0])
		c.want("lower child", m{
			"ShardId": shardID(1), "ParentShardId": shardID(0), "HashKeyRange": keys("0", "999"),
			"SequenceNumberRange": m{"StartingSequenceNumber": aSequence},
		}, shards[1])
		c.want("upper child", m{
			"ShardId": shardID(2), "ParentShardId": shardID(0), "HashKeyRange": keys("1000", maxHash),
			"SequenceNumberRange": m{"StartingSequenceNumber": aSequence},
		}, shards[2])
	}},
	{"6.2 MergeShards/shape", func(c *caller) {
		c.create(3)
		c.merge(1, 2)
		shards := c.shards()
		c.want("child", m{
			"ShardId": shardID(3), "ParentShardId": shardID(1), "AdjacentParentShardId": shardID(2),
			"HashKeyRange":        keys("113427455640312821154458202477256070485", maxHash),
			"SequenceNumberRange": m{"StartingSequenceNumber": aSequence},
		}, shards[3])
	}},
	{"6.2 SplitShard/shard unknown", func(c *caller) {
		c.create(1)
		c.refused("SplitShard", m{"StreamName": "<S>", "ShardToSplit": "5", "NewStartingHashKey": "2"}, notFound,
			"Could not find shard shardId-000000000005 in stream <S> under account <A>.")
	}},
	{"6.2 SplitShard/key out of range", func(c *caller) {
		c.create(2)
		text := "NewStartingHashKey %s used in SplitShard() on shard %s in stream <S> under account <A> is not both greater than one plus the shard's StartingHashKey %s and less than the shard's EndingHashKey %s."
		end := "170141183460469231731687303715884105727"
		for _, key := range []string{"0", "1", end, lowHalf, maxHash, "999999999999999999999999999999999999999"} {
			c.refused("SplitShard", m{"StreamName": "<S>", "ShardToSplit": shardID(0), "NewStartingHashKey": key}, invalidArgument,
				fmt.Sprintf(text, key, shardID(0), "0", end))
		}
		for _, key := range []string{"5", lowHalf, "170141183460469231731687303715884105729", maxHash} {
			c.refused("SplitShard", m{"StreamName": "<S>", "ShardToSplit": shardID(1), "NewStartingHashKey": key}, invalidArgument,
				fmt.Sprintf(text, key, shardID(1), lowHalf, maxHash))
		}
		c.splitAt(0, "2")
		c.splitAt(1, "340282366920938463463374607431768211454")
	}},
	{"6.2 SplitShard/shard closed", func(c *caller) {
		c.create(2)
		c.split(0)
		text := "Shard shardId-000000000000 in stream <S> under account <A> has already been merged or split, and thus is not eligible for merging or splitting."
		c.refused("SplitShard", m{"StreamName": "<S>", "ShardToSplit": "0", "NewStartingHashKey": "7"}, invalidArgument, text)
		c.refused("MergeShards", m{"StreamName": "<S>", "ShardToMerge": "0", "AdjacentShardToMerge": "1"}, invalidArgument, text)
	}},
	{"6.2 MergeShards/not adjacent", func(c *caller) {
		c.create(4)
		for _, pair := range [][2]int{{0, 2}, {1, 0}, {3, 0}, {2, 2}} {
			a, b := shardID(pair[0]), shardID(pair[1])
			c.refused("MergeShards", m{"StreamName": "<S>", "ShardToMerge": a, "AdjacentShardToMerge": b}, invalidArgument,
				"Shards "+a+" and "+b+" in stream <S> under account <A> are not an adjacent pair of shards eligible for merging")
		}
	}},
	{"6.2 MergeShards/shard unknown", func(c *caller) {
		c.create(1)
		c.refused("MergeShards", m{"StreamName": "<S>", "ShardToMerge": "0", "AdjacentShardToMerge": "foo-9"}, notFound,
			"Could not find shard shardId-000000000009 in stream <S> under account <A>.")
	}},

	{"6.3 UpdateShardCount/answer", func(c *caller) {
		c.create(2)
		c.gives("UpdateShardCount", scaled(4), m{"StreamName": "<S>", "StreamARN": "<ARN>", "CurrentShardCount": 2, "TargetShardCount": 4})
		c.active()
		c.want("summary", some{"OpenShardCount": 4}, c.summary())
	}},
	{"6.3 UpdateShardCount/same count", func(c *caller) {
		c.create(2)
		c.gives("UpdateShardCount", scaled(2), m{"StreamName": "<S>", "StreamARN": "<ARN>", "CurrentShardCount": 2, "TargetShardCount": 2})
		c.active()
		c.is(2, c.ok("ListShards", listed(m{})))
	}},
	{"6.3 UpdateShardCount/more than double", func(c *caller) {
		c.create(2)
		c.refused("UpdateShardCount", scaled(5), limitExceeded,
			"UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: 2, Target shard count: 5")
	}},
	{"6.3 UpdateShardCount/less than half", func(c *caller) {
		c.create(5)
		c.refused("UpdateShardCount", scaled(2), limitExceeded,
			"UpdateShardCount cannot scale down below half your current open shard count. Current open shard count: 5, Target shard count: 2")
	}},
	{"6.3 UpdateShardCount/counts open shards only", func(c *caller) {
		c.create(1)
		c.split(0) // 3 shards, 2 of them open
		c.refused("UpdateShardCount", scaled(5), limitExceeded,
			"UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: 2, Target shard count: 5")
		c.gives("UpdateShardCount", scaled(4), some{"CurrentShardCount": 2})
		c.active()
	}},
	{"6.3 UpdateShardCount/a shard of one hash key", func(c *caller) {
		c.create(1)
		c.splitAt(0, "2") // 0 and 1, and the rest
		c.ok("UpdateShardCount", scaled(4))
		c.active()
		c.refused("UpdateShardCount", scaled(8), invalidArgument,
			"Shard shardId-000000000003 in stream <S> under account <A> has too few hash keys to be split.")
	}},
	{"6.3 UpdateShardCount/more than 10,000", func(c *caller) {
		c.create(5_001)
		c.refused("UpdateShardCount", scaled(10_001), limitExceeded,
			"Target shard count or number of open shards cannot be greater than 10000. Current open shard count: 5001, Target shard count: 10001")
	}},
	{"6.3 UpdateShardCount/more than 100,000", func(c *caller) {
		c.refused("UpdateShardCount", scaled(100_001), validation,
			"1 validation error detected: Value '100001' at 'targetShardCount' failed to satisfy constraint: Member must have value less than or equal to 100000")
	}},
	{"6.3 UpdateShardCount/split points are in the middle", func(c *caller) {
		c.create(1)
		c.ok("UpdateShardCount", scaled(2))
		c.active()
		c.want("lower half", some{"HashKeyRange": keys("0", "170141183460469231731687303715884105727")}, c.shards()[1])
		c.want("upper half", some{"HashKeyRange": keys(lowHalf, maxHash)}, c.shards()[2])
	}},

	{"6.4 filters/of a stream that was resharded", func(c *caller) {
		c.create(2)
		created, _ := instant(c.summary()["StreamCreationTimestamp"])
		c.split(1)    // into 2 and 3
		c.merge(2, 3) // into 4
		merged := parseSequence(c.T, c.shards()[4]["SequenceNumberRange"].(m)["StartingSequenceNumber"].(string))
		later := moment(merged.created+1) * 1000
		for _, f := range []struct {
			filter m
			want   []int
		}{
			{m{"Type": "FROM_TRIM_HORIZON"}, []int{0, 1, 2, 3, 4}},
			{m{"Type": "AT_TRIM_HORIZON"}, []int{0, 1}},
			{m{"Type": "AT_LATEST"}, []int{0, 4}},
			{m{"Type": "AFTER_SHARD_ID", "ShardId": shardID(2)}, []int{3, 4}},
			{m{"Type": "AFTER_SHARD_ID", "ShardId": shardID(99)}, nil},
			{m{"Type": "AT_TIMESTAMP", "Timestamp": moment(1000)}, []int{0, 1}},
			{m{"Type": "AT_TIMESTAMP", "Timestamp": created}, []int{0, 1}},
			// Before the second in which shard 4 began there were its parents.
			{m{"Type": "AT_TIMESTAMP", "Timestamp": moment(merged.created)*1000 - 1}, []int{0, 2, 3}},
			{m{"Type": "FROM_TIMESTAMP", "Timestamp": moment(merged.created)*1000 - 1}, []int{0, 2, 3, 4}},
			{m{"Type": "AT_TIMESTAMP", "Timestamp": later + 3600_000}, []int{0, 4}},
			{m{"Type": "FROM_TIMESTAMP", "Timestamp": moment(1000)}, []int{0, 1, 2, 3, 4}},
			{m{"Type": "FROM_TIMESTAMP", "Timestamp": created}, []int{0, 1, 2, 3, 4}},
			{m{"Type": "FROM_TIMESTAMP", "Timestamp": later + 3600_000}, []int{0, 4}},
		} {
			if got, _ := c.page(listed(m{"ShardFilter": f.filter})); !slices.Equal(got, f.want) {
				c.Errorf("%v: %v, not %v", f.filter, got, f.want)
			}
		}
	}},
	{"6.4 filters/members that are missing or too many", func(c *caller) {
		c.create(1)
		for _, f := range []struct {
			filter m
			text   string
		}{
			{m{"Type": "AFTER_SHARD_ID"}, "ShardId is a required parameter for ShardFilter type AFTER_SHARD_ID."},
			{m{"Type": "AT_TIMESTAMP"}, "Timestamp is a required parameter for ShardFilter type AT_TIMESTAMP."},
			{m{"Type": "FROM_TIMESTAMP"}, "Timestamp is a required parameter for ShardFilter type FROM_TIMESTAMP."},
			{m{"Type": "AT_LATEST", "ShardId": shardID(0)}, "ShardId is not expected for ShardFilter type AT_LATEST."},
			{m{"Type": "AT_TRIM_HORIZON", "Timestamp": moment(1000)}, "Timestamp is not expected for ShardFilter type AT_TRIM_HORIZON."},
		} {
			c.refused("ListShards", listed(m{"ShardFilter": f.filter}), invalidArgument, f.text)
		}
	}},

	{"6.5 lifecycle/closed shards stay readable", func(c *caller) {
		c.create(1)
		c.put("k", "one")
		c.split(0)
		at := c.iterator("0", "TRIM_HORIZON")
		if got := c.data(c.read(at)); got != "one" {
			c.Errorf("read %q", got)
		}
	}},
	{"6.5 lifecycle/children begin after their parents' end", func(c *caller) {
		c.create(1)
		c.split(0)
		shards := c.shards()
		ending := shards[0]["SequenceNumberRange"].(m)["EndingSequenceNumber"].(string)
		if end := parseSequence(c.T, ending); end.counter != 1<<63-1 || end.arrival < end.created {
			c.Errorf("the end is %+v", end)
		}
		for _, child := range shards[1:] {
			starting := child["SequenceNumberRange"].(m)["StartingSequenceNumber"].(string)
			if begin := parseSequence(c.T, starting); begin.arrival != begin.created || begin.counter != 0 {
				c.Errorf("a child begins at %+v", begin)
			}
			if starting <= ending { // of one length
				c.Errorf("the parent ends at %s, a child begins at %s", ending, starting)
			}
			if end := parseSequence(c.T, ending); parseSequence(c.T, starting).created != end.arrival+1 {
				c.Errorf("the parent ends at %+v, a child begins at %s", end, starting)
			}
		}
	}},
}

// scalingRows hold how many shards there are after a scaling, closed ones too.
func scalingRows() (rows []row) {
	for i, s := range []struct{ from, to, total int }{{2, 4, 6}, {4, 5, 15}, {10, 13, 37}, {4, 2, 6}, {5, 3, 7}} {
		rows = append(rows, row{fmt.Sprintf("6.3 UpdateShardCount/shards afterwards: %d", i+1), func(c *caller) {
			c.create(s.from)
			c.ok("UpdateShardCount", scaled(s.to))
			c.active()
			shards := c.shards()
			c.want("summary", some{"OpenShardCount": s.to}, c.summary())
			if c.covers(shards); len(shards) != s.total {
				c.Errorf("%d to %d: %d shards, not %d", s.from, s.to, len(shards), s.total)
			}
		}})
	}
	return rows
}

func scaled(target int) m {
	return m{"StreamName": "<S>", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"}
}
