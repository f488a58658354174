package conformance

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Section 5: iterators and GetRecords.

// at is the input of a GetShardIterator of shard 0.
func at(kind string, more m) m {
	in := m{"StreamName": "<S>", "ShardId": "shardId-000000000000", "ShardIteratorType": kind}
	for name, value := range more {
		in[name] = value
	}
	return in
}

func from(number string) m { return m{"StartingSequenceNumber": number} }

const (
	mustSpecify = "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified %s and %s StartingSequenceNumber."
	startOf     = "StartingSequenceNumber %s used in GetShardIterator on shard shardId-000000000000 in stream <S> under account <A> is invalid"
	noShard     = "Shard shardId-%012d in stream <S> under account <A> does not exist"
)

// readFrom reads from a position in shard 0.
func (c *caller) readFrom(kind string, more m) string {
	c.Helper()
	return c.data(c.read(c.ok("GetShardIterator", at(kind, more))["ShardIterator"].(string)))
}

// start gives the StartingSequenceNumber of shard 0.
func (c *caller) start() string {
	c.Helper()
	return c.shards()[0]["SequenceNumberRange"].(m)["StartingSequenceNumber"].(string)
}

// tick waits until the clock has passed a moment.
func (c *caller) tick(past moment) {
	c.Helper()
	c.eventually(func() error {
		if now := moment(time.Now().UnixMilli()); now <= past {
			return fmt.Errorf("it is %v, not past %v", now, past)
		}
		return nil
	})
}

// arrival gives the time of a record.
func arrival(record any) moment {
	t, _ := instant(record.(m)["ApproximateArrivalTimestamp"])
	return t
}

var iteratorRows = []row{
	{"5.1 GetShardIterator/TRIM_HORIZON and LATEST", func(c *caller) {
		c.create(1)
		c.put("k", "old")
		horizon, latest := c.iterator("0", "TRIM_HORIZON"), c.iterator("0", "LATEST")
		c.put("k", "new")
		if old, new := c.data(c.read(horizon)), c.data(c.read(latest)); old != "old new" || new != "new" {
			c.Errorf("%q and %q", old, new)
		}
	}},
	{"5.1 GetShardIterator/AT_ and AFTER_SEQUENCE_NUMBER", func(c *caller) {
		c.create(1)
		c.put("k", "1")
		second := c.put("k", "2")
		last := c.put("k", "3")
		for _, r := range []struct{ kind, number, want string }{
			{"AT_SEQUENCE_NUMBER", second, "2 3"},
			{"AFTER_SEQUENCE_NUMBER", second, "3"},
			{"AT_SEQUENCE_NUMBER", last, "3"},
			{"AFTER_SEQUENCE_NUMBER", last, ""},
		} {
			if got := c.readFrom(r.kind, from(r.number)); got != r.want {
				c.Errorf("%s: %q, not %q", r.kind, got, r.want)
			}
		}
	}},
	{"5.1 GetShardIterator/numbers of no record", func(c *caller) {
		c.create(1)
		start := c.start()
		for _, kind := range []string{"AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"} {
			before := c.iterator("0", kind, from(start))
			if c.put("k", "x"); !strings.HasPrefix(c.data(c.read(before)), "x") {
				c.Errorf("%s of the shard's start", kind)
			}
		}
		// Numbers to come: one counter and some seconds on, as continuations are.
		n := parseSequence(c.T, c.put("k", "last"))
		n.arrival++
		if got := c.readFrom("AFTER_SEQUENCE_NUMBER", from(n.String())); got != "" {
			c.Errorf("after the last number %q", got)
		}
	}},
	{"5.1 GetShardIterator/AT_TIMESTAMP", func(c *caller) {
		c.create(1)
		c.put("k", "a")
		first := arrival(c.read(c.iterator("0", "TRIM_HORIZON"))["Records"].(list)[0])
		c.tick(first)
		c.put("k", "b")
		second := arrival(c.read(c.iterator("0", "TRIM_HORIZON"))["Records"].(list)[1])
		c.tick(second)
		for _, r := range []struct {
			at   moment
			want string
		}{{0, "a b"}, {first - 3600_000, "a b"}, {first, "a b"}, {first + 1, "b"}, {second, "b"}, {second + 1, ""}} {
			if got := c.readFrom("AT_TIMESTAMP", m{"Timestamp": r.at}); got != r.want {
				c.Errorf("%d ms from the first record: %q, not %q", r.at-first, got, r.want)
			}
		}
		behind := c.iterator("0", "AT_TIMESTAMP", m{"Timestamp": second + 1})
		c.put("k", "c")
		if got := c.data(c.read(behind)); got != "c" {
			c.Errorf("next to arrive: %q", got)
		}
	}},
	{"5.1 GetShardIterator/AT_TIMESTAMP without a time", func(c *caller) {
		c.create(1)
		c.refused("GetShardIterator", at("AT_TIMESTAMP", nil), invalidArgument,
			"Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.")
	}},
	{"5.1 GetShardIterator/AT_TIMESTAMP in the future", func(c *caller) {
		c.create(1)
		future := moment(time.Now().Add(time.Hour).UnixMilli())
		c.refusedLike("GetShardIterator", at("AT_TIMESTAMP", m{"Timestamp": future}), invalidArgument, fmt.Sprintf(
			`The timestampInMillis parameter cannot be greater than the currentTimestampInMillis\. timestampInMillis: %d, currentTimestampInMillis: \d{13}`, future))
	}},
	{"5.1 GetShardIterator/number missing or too many", func(c *caller) {
		c.create(1)
		for _, kind := range []string{"AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"} {
			c.refused("GetShardIterator", at(kind, nil), invalidArgument, fmt.Sprintf(mustSpecify, kind, "no"))
		}
		for _, kind := range []string{"TRIM_HORIZON", "LATEST"} {
			c.refused("GetShardIterator", at(kind, from("5")), invalidArgument, fmt.Sprintf(mustSpecify, kind, "also a"))
		}
	}},
	{"5.1 sequence checks/cannot be read", func(c *caller) {
		c.create(1)
		s := parseSequence(c.T, c.start())
		s.version = 3
		for _, number := range []string{s.String(), strings.Repeat("9", 129), strings.Repeat("9", 57)} {
			c.refused("GetShardIterator", at("AT_SEQUENCE_NUMBER", from(number)), invalidArgument, fmt.Sprintf(startOf, number)+".")
		}
	}},
	{"5.1 sequence checks/another shard", func(c *caller) {
		c.create(2)
		s := parseSequence(c.T, c.start())
		for shard, name := range map[int64]string{1: "shardId-000000000001", 77: "shardId-000000000077", 1 << 31: "shardId--02147483648"} {
			s.shard = shard
			c.refused("GetShardIterator", at("AFTER_SEQUENCE_NUMBER", from(s.String())), invalidArgument,
				"Invalid StartingSequenceNumber. It encodes "+name+", while it was used in a call to a shard with shardId-000000000000")
		}
		// 5 is of the oldest layout, and of shard 5.
		c.refused("GetShardIterator", at("AT_SEQUENCE_NUMBER", from("5")), invalidArgument,
			"Invalid StartingSequenceNumber. It encodes shardId-000000000005, while it was used in a call to a shard with shardId-000000000000")
	}},
	{"5.1 sequence checks/another stream", func(c *caller) {
		c.create(1)
		s := parseSequence(c.T, c.start())
		s.created -= 5
		c.refused("GetShardIterator", at("AT_SEQUENCE_NUMBER", from(s.String())), invalidArgument, fmt.Sprintf(startOf, s)+" because it did not come from this stream.")
		s.created, s.version = s.created+5, 1
		c.refused("GetShardIterator", at("AT_SEQUENCE_NUMBER", from(s.String())), invalidArgument, fmt.Sprintf(startOf, s)+" because it did not come from this stream.")
	}},
	{"5.1 sequence checks/version 0", func(c *caller) {
		c.create(1)
		a := c.call("GetShardIterator", at("AT_SEQUENCE_NUMBER", from("0")))
		if a.status != 500 {
			c.Errorf("status %d", a.status)
		}
		c.want("body", m{"__type": "InternalFailure"}, a.body)
	}},
	{"5.1 GetShardIterator/stream or shard missing", func(c *caller) {
		c.refused("GetShardIterator", at("LATEST", nil), notFound, fmt.Sprintf(noShard, 0))
		c.create(1)
		c.refused("GetShardIterator", at("LATEST", m{"ShardId": "7"}), notFound, fmt.Sprintf(noShard, 7))
		c.refused("GetShardIterator", at("LATEST", m{"ShardId": "none"}), notFound, "Could not find shard none in stream <S> under account <A>.")
	}},
	{"5.1 GetShardIterator/closed shards", func(c *caller) {
		c.create(1)
		number := c.put("k", "1")
		c.put("k", "2")
		c.split(0)
		for kind, want := range map[string]string{"TRIM_HORIZON": "1 2", "LATEST": ""} {
			if got := c.readFrom(kind, nil); got != want {
				c.Errorf("%s: %q", kind, got)
			}
		}
		if got := c.readFrom("AFTER_SEQUENCE_NUMBER", from(number)); got != "2" {
			c.Errorf("AFTER_SEQUENCE_NUMBER: %q", got)
		}
	}},

	{"5.2 iterator/form", func(c *caller) {
		c.create(1)
		token := c.iterator("0", "LATEST")
		raw, err := base64.StdEncoding.DecodeString(token)
		if err != nil || len(token) > 512 || !strings.HasPrefix(token, "AAAAAAAAAA") || (len(raw)-8)%16 != 0 {
			c.Errorf("%q, %v", token, err)
		}
	}},
	{"5.2 iterator/the next differs, and each may be used again", func(c *caller) {
		c.create(1)
		first := c.iterator("0", "LATEST")
		seen := []string{first}
		for token, i := first, 0; i < 3; i++ {
			token = c.read(token)["NextShardIterator"].(string)
			if slices.Contains(seen, token) {
				c.Errorf("%s again", token)
			}
			seen = append(seen, token)
		}
		c.put("k", "x")
		for _, token := range append(seen, first) {
			if got := c.data(c.read(token)); got != "x" {
				c.Errorf("%q", got)
			}
		}
	}},
	{"5.2 iterator/in double quotes", func(c *caller) {
		c.create(1)
		c.put("k", "x")
		if got := c.data(c.read(`"` + c.iterator("0", "TRIM_HORIZON") + `"`)); got != "x" {
			c.Errorf("%q", got)
		}
	}},
	{"5.2 iterator/malformed", func(c *caller) {
		c.create(2)
		good := c.iterator("0", "LATEST")
		raw, _ := base64.StdEncoding.DecodeString(good)
		raw[len(raw)-1] ^= 1
		page := c.ok("ListShards", m{"StreamName": "<S>", "MaxResults": 1})["NextToken"].(string)
		for _, bad := range []string{"x", "AAAAAAAAAAE=", good[4:], good + "AAAA", `"` + good, base64.StdEncoding.EncodeToString(raw), page[:min(512, len(page))]} {
			c.refused("GetRecords", m{"ShardIterator": bad}, invalidArgument, "Invalid ShardIterator.")
		}
	}},
	{"5.2 iterator/of a re-created namesake", func(c *caller) {
		c.create(1)
		old := c.iterator("0", "TRIM_HORIZON")
		c.empty("DeleteStream", m{"StreamName": "<S>"})
		c.gone()
		c.create(1)
		c.put("k", "x")
		c.refused("GetRecords", m{"ShardIterator": old}, notFound, fmt.Sprintf(noShard, 0))
	}},
	{"5.2 iterator/StreamARN beside it", func(c *caller) {
		c.create(1)
		token := c.iterator("0", "LATEST")
		c.ok("GetRecords", m{"ShardIterator": token, "StreamARN": "<ARN>"})
		for _, arn := range []string{"<ARN>-b", "arn:aws:kinesis:<R>:111111111111:stream/<S>"} {
			c.refused("GetRecords", m{"ShardIterator": token, "StreamARN": arn}, invalidArgument, "The ShardIterator does not belong to the stream in StreamARN.")
		}
	}},

	{"5.3 GetRecords/Limit", func(c *caller) {
		c.create(1)
		for i := range 5 {
			c.put("k", fmt.Sprint(i))
		}
		var got []string
		for token := c.iterator("0", "TRIM_HORIZON"); len(got) < 3; {
			out := c.ok("GetRecords", m{"ShardIterator": token, "Limit": 2})
			got = append(got, c.data(out))
			token = out["NextShardIterator"].(string)
		}
		if !slices.Equal(got, []string{"0 1", "2 3", "4"}) {
			c.Errorf("%q", got)
		}
	}},
	{"5.3 GetRecords/at most 10,000", func(c *caller) {
		c.create(1)
		for range 21 {
			c.ok("PutRecords", m{"StreamName": "<S>", "Records": repeated(500, m{"PartitionKey": "k", "Data": []byte{}})})
		}
		out := c.read(c.iterator("0", "TRIM_HORIZON"))
		if n := len(out["Records"].(list)); n != 10_000 {
			c.Errorf("%d records", n)
		}
		if n := len(c.read(out["NextShardIterator"].(string))["Records"].(list)); n != 500 {
			c.Errorf("%d records more", n)
		}
	}},
	{"5.3 GetRecords/at most 10 MiB, and one record at least", func(c *caller) {
		c.create(1, m{"MaxRecordSizeInKiB": 10240})
		for _, size := range []int{6 << 20, 4<<20 - 4096, 8192, 10<<20 - 1} {
			c.put("k", strings.Repeat("x", size))
		}
		token := c.iterator("0", "TRIM_HORIZON")
		for _, want := range []int{2, 1, 1, 0} {
			out := c.read(token)
			if n := len(out["Records"].(list)); n != want {
				c.Errorf("%d records, not %d", n, want)
			}
			token = out["NextShardIterator"].(string)
		}
	}},
	{"5.3 GetRecords/nothing there", func(c *caller) {
		c.create(1)
		c.gives("GetRecords", m{"ShardIterator": c.iterator("0", "LATEST")}, m{"Records": list{}, "NextShardIterator": someText, "MillisBehindLatest": 0})
	}},
	{"5.3 GetRecords/MillisBehindLatest", func(c *caller) {
		c.create(1)
		c.put("k", "1")
		c.put("k", "2")
		token := c.iterator("0", "TRIM_HORIZON")
		c.gives("GetRecords", m{"ShardIterator": token, "Limit": 1}, some{"MillisBehindLatest": atLeast(1)})
		c.gives("GetRecords", m{"ShardIterator": token}, some{"MillisBehindLatest": 0})
	}},
	{"5.3 GetRecords/end of a shard that was split", func(c *caller) {
		c.create(1)
		c.put("k", "x")
		before := c.iterator("0", "LATEST")
		c.splitAt(0, "1000")
		children := list{
			m{"ShardId": shardID(1), "ParentShards": list{shardID(0)}, "HashKeyRange": keys("0", "999")},
			m{"ShardId": shardID(2), "ParentShards": list{shardID(0)}, "HashKeyRange": keys("1000", maxHash)},
		}
		for _, token := range []string{before, c.iterator("0", "LATEST")} {
			c.gives("GetRecords", m{"ShardIterator": token}, m{"Records": list{}, "MillisBehindLatest": 0, "ChildShards": children})
		}
		// The last records and the end may come together.
		c.gives("GetRecords", m{"ShardIterator": c.iterator("0", "TRIM_HORIZON")},
			m{"Records": list{some{"Data": []byte("x")}}, "MillisBehindLatest": 0, "ChildShards": children})
	}},
	{"5.3 GetRecords/end of shards that were merged", func(c *caller) {
		c.create(2)
		c.merge(0, 1)
		child := m{"ShardId": shardID(2), "ParentShards": list{shardID(0), shardID(1)}, "HashKeyRange": keys("0", maxHash)}
		for _, parent := range []string{"0", "1"} {
			c.gives("GetRecords", m{"ShardIterator": c.iterator(parent, "LATEST")}, m{"Records": list{}, "MillisBehindLatest": 0, "ChildShards": list{child}})
		}
	}},
	{"5.3 GetRecords/no end before everything is read", func(c *caller) {
		c.create(1)
		c.put("k", "1")
		c.put("k", "2")
		c.split(0)
		out := c.ok("GetRecords", m{"ShardIterator": c.iterator("0", "TRIM_HORIZON"), "Limit": 1})
		c.want("first page", m{"Records": list{some{"Data": []byte("1")}}, "NextShardIterator": someText, "MillisBehindLatest": atLeast(1)}, out)
		c.gives("GetRecords", m{"ShardIterator": out["NextShardIterator"]},
			m{"Records": list{some{"Data": []byte("2")}}, "MillisBehindLatest": 0, "ChildShards": list{anything, anything}})
	}},
	{"5.3 GetRecords/children can be read when they are named", func(c *caller) {
		c.create(1)
		c.split(0)
		for _, child := range c.read(c.iterator("0", "LATEST"))["ChildShards"].(list) {
			c.read(c.iterator(child.(m)["ShardId"].(string), "TRIM_HORIZON"))
		}
	}},
}
