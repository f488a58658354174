package conformance

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Sections 3.9 and 4: puts, where records go, how large they may be, and the
// numbers they get.

// putIn is the input of a PutRecord.
func putIn(key string, data []byte, more m) m {
	in := m{"StreamName": "<S>", "PartitionKey": key, "Data": data}
	for name, value := range more {
		in[name] = value
	}
	return in
}

func hashed(key string) m { return m{"ExplicitHashKey": key} }

const (
	tooLarge    = "Record size of %d bytes exceeds the maximum record size of %d bytes."
	badHashKey  = "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was "
	twoTo128    = "340282366920938463463374607431768211456"
	badOrdering = "ExclusiveMinimumSequenceNumber %s used in PutRecord on stream <S> under account <A> is invalid."
	maxData     = 10 << 20
)

var recordRows = []row{
	{"3.9 PutRecord/answer", func(c *caller) {
		c.create(1)
		c.gives("PutRecord", putIn("k", []byte("x"), nil), m{"ShardId": shardID(0), "SequenceNumber": aSequence})
	}},
	{"3.9 PutRecords/answer", func(c *caller) {
		c.create(1)
		one := m{"PartitionKey": "k", "Data": []byte("x")}
		stored := m{"ShardId": shardID(0), "SequenceNumber": aSequence}
		c.gives("PutRecords", m{"StreamName": "<S>", "Records": list{one, one}}, m{"FailedRecordCount": 0, "Records": list{stored, stored}})
	}},
	{"4.1 routing/by the partition key", func(c *caller) {
		c.create(3)
		records := list{}
		for key, shard := range map[string]int{"a": 0, "b": 1, "e": 2, "f": 1} {
			c.gives("PutRecord", putIn(key, []byte("x"), nil), some{"ShardId": shardID(shard)})
		}
		want := list{}
		for _, r := range []struct {
			key   string
			shard int
		}{{"a", 0}, {"b", 1}, {"e", 2}, {"f", 1}} {
			records = append(records, m{"PartitionKey": r.key, "Data": []byte("x")})
			want = append(want, some{"ShardId": shardID(r.shard)})
		}
		c.gives("PutRecords", m{"StreamName": "<S>", "Records": records}, some{"Records": want})
	}},
	{"4.1 routing/by the MD5 of a key in UTF-8", func(c *caller) {
		c.create(64)
		for _, key := range []string{"é", "漢字", "\U0001f600", strings.Repeat("ß", 256)} {
			hash := md5.Sum([]byte(key))
			c.gives("PutRecord", putIn(key, []byte("x"), nil), some{"ShardId": shardID(int(hash[0] >> 2))})
		}
	}},
	{"4.1 routing/ExplicitHashKey", func(c *caller) {
		c.create(3)
		for key, shard := range map[string]int{
			"0": 0, "113427455640312821154458202477256070484": 0, "113427455640312821154458202477256070485": 1,
			"226854911280625642308916404954512140969": 1, "226854911280625642308916404954512140970": 2, maxHash: 2,
		} {
			c.gives("PutRecord", putIn("a", []byte("x"), hashed(key)), some{"ShardId": shardID(shard)})
		}
	}},
	{"4.1 routing/ExplicitHashKey of 2^128 or more", func(c *caller) {
		c.create(1)
		for _, key := range []string{twoTo128, strings.Repeat("9", 39)} {
			c.refused("PutRecord", putIn("k", []byte("x"), hashed(key)), invalidArgument, badHashKey+key)
			good := m{"PartitionKey": "k", "Data": []byte("x")}
			c.refused("PutRecords", m{"StreamName": "<S>", "Records": list{good, with(good, "ExplicitHashKey", key)}}, invalidArgument, badHashKey+key)
		}
		if got := c.data(c.read(c.iterator("0", "TRIM_HORIZON"))); got != "" {
			c.Errorf("stored %q", got)
		}
	}},
	{"4.1 routing/to the open shard after a reshard", func(c *caller) {
		c.create(1)
		c.gives("PutRecord", putIn("k", []byte("x"), hashed("0")), some{"ShardId": shardID(0)})
		c.split(0)
		c.gives("PutRecord", putIn("k", []byte("x"), hashed("0")), some{"ShardId": shardID(1)})
		c.gives("PutRecord", putIn("k", []byte("x"), hashed(maxHash)), some{"ShardId": shardID(2)})
	}},

	{"4.2 sizes/data and key up to the stream's limit", func(c *caller) {
		c.create(1)
		data := make([]byte, 1<<20)
		c.ok("PutRecord", putIn("key", data[3:], nil))
		c.refused("PutRecord", putIn("key", data[2:], nil), invalidArgument, fmt.Sprintf(tooLarge, 1<<20+1, 1<<20))
		c.refused("PutRecord", putIn("é", data[1:], nil), invalidArgument, fmt.Sprintf(tooLarge, 1<<20+1, 1<<20))
		small := m{"PartitionKey": "k", "Data": []byte("x")}
		c.refused("PutRecords", m{"StreamName": "<S>", "Records": list{small, m{"PartitionKey": "key", "Data": data}}}, invalidArgument,
			fmt.Sprintf(tooLarge, 1<<20+3, 1<<20))
	}},
	{"4.2 sizes/large records", func(c *caller) {
		c.create(1, m{"MaxRecordSizeInKiB": 10240})
		data := make([]byte, maxData)
		copy(data, "large")
		c.ok("PutRecord", putIn("k", data[:maxData-1], nil))
		c.refused("PutRecord", putIn("k", data, nil), invalidArgument, fmt.Sprintf(tooLarge, maxData+1, maxData))
		record := c.read(c.iterator("0", "TRIM_HORIZON"))["Records"].(list)[0].(m)
		if got, ok := blob(c.format, record["Data"]); !ok || !bytes.Equal(got, data[:maxData-1]) {
			c.Errorf("%d bytes came back", len(got))
		}
	}},
	{"4.2 sizes/data over the model's maximum", func(c *caller) {
		c.create(1)
		data := make([]byte, maxData+1)
		constraint := "Member must have length less than or equal to 10485760"
		c.refused("PutRecord", putIn("k", data, nil), validation, "1 validation error detected: Value at 'data' failed to satisfy constraint: "+constraint)
		c.refused("PutRecords", m{"StreamName": "<S>", "Records": list{m{"PartitionKey": "k", "Data": []byte{}}, m{"PartitionKey": "k", "Data": data}}}, validation,
			"1 validation error detected: Value at 'records.2.member.data' failed to satisfy constraint: "+constraint)
	}},
	{"4.2 sizes/PutRecords of more than 10 MiB", func(c *caller) {
		c.create(1, m{"MaxRecordSizeInKiB": 10240})
		half := make([]byte, maxData/2)
		records := func(a, b []byte) m {
			return m{"StreamName": "<S>", "Records": list{m{"PartitionKey": "k", "Data": a}, m{"PartitionKey": "k", "Data": b}}}
		}
		c.ok("PutRecords", records(half[1:], half[1:]))
		c.refused("PutRecords", records(half[1:], half), invalidArgument, "Records size exceeds 10 MB limit")
	}},
	{"4.2 sizes/500 records", func(c *caller) {
		c.create(2)
		out := c.gives("PutRecords", m{"StreamName": "<S>", "Records": repeated(500, m{"PartitionKey": "k", "Data": []byte("x")})}, some{"FailedRecordCount": 0})
		if n := len(out["Records"].(list)); n != 500 {
			c.Errorf("%d results", n)
		}
	}},
	{"4.2 sizes/empty data", func(c *caller) {
		c.create(1)
		c.put("k", "")
		c.gives("GetRecords", m{"ShardIterator": c.iterator("0", "TRIM_HORIZON")}, some{"Records": list{some{"Data": []byte{}}}})
	}},
	{"4.2 sizes/partition key of 256 characters", func(c *caller) {
		c.create(1)
		key := strings.Repeat("漢", 256)
		c.put(key, "x")
		c.gives("GetRecords", m{"ShardIterator": c.iterator("0", "TRIM_HORIZON")}, some{"Records": list{some{"PartitionKey": key}}})
	}},
	{"4.2 sizes/a lower limit leaves what is stored", func(c *caller) {
		c.create(1, m{"MaxRecordSizeInKiB": 2048})
		c.put("k", strings.Repeat("x", 3<<19))
		c.empty("UpdateMaxRecordSize", m{"StreamARN": "<ARN>", "MaxRecordSizeInKiB": 1024})
		c.active()
		if got := len(c.data(c.read(c.iterator("0", "TRIM_HORIZON")))); got != 3<<19 {
			c.Errorf("%d bytes", got)
		}
	}},

	{"4.3 numbers/of a shard and its records", func(c *caller) {
		c.create(3)
		text := c.shards()[1]["SequenceNumberRange"].(m)["StartingSequenceNumber"].(string)
		start := parseSequence(c.T, text)
		last := integerOf(text)
		for i := range 5 {
			text := c.put("k", "x", hashed("113427455640312821154458202477256070485"))
			n := parseSequence(c.T, text)
			if n.shard != 1 || n.created != start.created || n.counter == 0 || n.arrival < n.created || integerOf(text).Cmp(last) <= 0 {
				c.Errorf("record %d: %+v behind %v of a shard that begins at %+v", i, n, last, start)
			}
			last = integerOf(text)
		}
	}},
	{"4.3 numbers/of neighbouring shards", func(c *caller) {
		c.create(3)
		want, _ := new(big.Int).SetString("22300745198530623141535718272648361505980432", 10)
		var starts []*big.Int
		for _, s := range c.shards() {
			starts = append(starts, integerOf(s["SequenceNumberRange"].(m)["StartingSequenceNumber"].(string)))
		}
		for i := range 2 {
			if got := new(big.Int).Sub(starts[i+1], starts[i]); got.Cmp(want) != 0 {
				c.Errorf("shards %d and %d differ by %v", i, i+1, got)
			}
		}
	}},
	{"4.3 numbers/and the time of arrival", func(c *caller) {
		c.create(1)
		n := parseSequence(c.T, c.put("k", "x"))
		at, _ := instant(c.read(c.iterator("0", "TRIM_HORIZON"))["Records"].(list)[0].(m)["ApproximateArrivalTimestamp"])
		if s := int64(at) / 1000; s < n.arrival || s > n.arrival+3 {
			c.Errorf("second %d in the number of a record that came at %v", n.arrival, at)
		}
	}},

	{"4.4 ordering/a number greater than the given one", func(c *caller) {
		c.create(1)
		last := c.put("k", "x")
		for range 3 {
			next := c.put("k", "x", m{"SequenceNumberForOrdering": last})
			if integerOf(next).Cmp(integerOf(last)) <= 0 {
				c.Errorf("%s after %s", next, last)
			}
			last = next
		}
	}},
	{"4.4 ordering/invalid", func(c *caller) {
		c.create(1)
		now := time.Now().Unix()
		good := sequence{major: 2, version: 2, created: now - 10, arrival: now - 10}
		for what, change := range map[string]func(*sequence){
			"version 3":                func(s *sequence) { s.version = 3 },
			"version 4":                func(s *sequence) { s.version = 4 },
			"version 0 in the layout":  func(s *sequence) { s.version = 0 },
			"another leading digit":    func(s *sequence) { s.major = 3 },
			"created far ahead":        func(s *sequence) { s.created = 16025175000 },
			"an arrival in the future": func(s *sequence) { s.arrival = now + 3600 },
			"a counter with top bit":   func(s *sequence) { s.counter = 1 << 63 },
		} {
			bad := good
			change(&bad)
			a := c.call("PutRecord", putIn("k", nil, m{"Data": []byte("x"), "SequenceNumberForOrdering": bad.String()}))
			c.refusal(what, a, invalidArgument, fmt.Sprintf(badOrdering, bad))
		}
		digits := strings.Repeat("9", 129)
		c.refused("PutRecord", putIn("k", []byte("x"), m{"SequenceNumberForOrdering": digits}), invalidArgument, fmt.Sprintf(badOrdering, digits))
	}},
	{"4.4 ordering/valid numbers of elsewhere", func(c *caller) {
		c.create(1)
		for what, s := range map[string]sequence{
			"another shard":        {major: 2, version: 2, created: 1700000000, arrival: 1700000001, shard: 77, counter: 5},
			"zero fields":          {major: 2, version: 2},
			"version 1":            {major: 2, version: 1},
			"a negative shard":     {major: 2, version: 2, shard: 1 << 31},
			"a counter that's old": {major: 2, version: 2, created: 1700000000, arrival: 1700000000, counter: 1<<63 - 1},
		} {
			if a := c.call("PutRecord", putIn("k", []byte("x"), m{"SequenceNumberForOrdering": s.String()})); a.status != 200 {
				c.Errorf("%s: %d %s", what, a.status, a.raw)
			}
		}
	}},

	{"4.5 results/in the order of the request", func(c *caller) {
		c.create(3)
		var records, want list
		for i := range 30 {
			key := []string{"0", "113427455640312821154458202477256070485", maxHash}[i*7%3]
			records = append(records, m{"PartitionKey": "k", "ExplicitHashKey": key, "Data": fmt.Appendf(nil, "%d", i)})
			want = append(want, m{"ShardId": shardID(i * 7 % 3), "SequenceNumber": aSequence})
		}
		out := c.gives("PutRecords", m{"StreamName": "<S>", "Records": records}, m{"FailedRecordCount": 0, "Records": want})
		// Each number reads back its own record.
		for i := 0; i < 30; i += 7 {
			r := out["Records"].(list)[i].(m)
			at := c.iterator(r["ShardId"].(string), "AT_SEQUENCE_NUMBER", m{"StartingSequenceNumber": r["SequenceNumber"]})
			c.gives("GetRecords", m{"ShardIterator": at, "Limit": 1}, some{"Records": list{some{"Data": fmt.Appendf(nil, "%d", i)}}})
		}
	}},

	{"4.6 reads/members of a record", func(c *caller) {
		c.create(1)
		number := c.put("key", "data", hashed("7"))
		c.gives("GetRecords", m{"ShardIterator": c.iterator("0", "TRIM_HORIZON")}, some{"Records": list{m{
			"SequenceNumber": number, "ApproximateArrivalTimestamp": aTime, "Data": []byte("data"), "PartitionKey": "key",
		}}})
	}},
	{"4.6 reads/aggregated records are not touched", func(c *caller) {
		c.create(1)
		data := append([]byte{0xf3, 0x89, 0x9a, 0xc2, 0x0a, 1, 'k', 0x1a, 0}, make([]byte, 16)...)
		c.put("k", string(data))
		c.gives("GetRecords", m{"ShardIterator": c.iterator("0", "TRIM_HORIZON")}, some{"Records": list{some{"Data": data}}})
	}},
}
