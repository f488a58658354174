package conformance

import (
	"fmt"
	"slices"
	"strings"
)

// Sections 1.6 and 1.7: the texts of wrong types and of constraints, where
// model_test.go does not come by: conversions, orders, several at once.

// typeRow is a JSON body of an operation, and what is said of it. The message is
// "" where the body is fine.
type typeRow struct{ name, op, body, message string }

const truncating = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to "

var typeTexts = []typeRow{
	{"String", "DescribeStream", `{"StreamName":true}`, "class java.lang.Boolean can not be converted to an String"},
	{"String", "DescribeStream", `{"StreamName":1.5}`, truncating + "an String"},
	{"Integer", "DescribeStream", `{"StreamName":"<S>","Limit":"5"}`, "class java.lang.String can not be converted to an Integer"},
	{"Integer", "DescribeStream", `{"StreamName":"<S>","Limit":false}`, "class java.lang.Boolean can not be converted to an Integer"},
	{"Boolean", "DeleteStream", `{"StreamName":"<S>","EnforceConsumerDeletion":0}`, truncating + "an Boolean"},
	{"Boolean", "DeleteStream", `{"StreamName":"<S>","EnforceConsumerDeletion":"maybe"}`, "'MAYBE' can not be converted to an Boolean"},
	{"Blob", "PutRecord", `{"Data":true}`, "class java.lang.Boolean can not be converted to a Blob"},
	{"Blob", "PutRecord", `{"Data":1}`, truncating + "a Blob"},
	{"Blob", "PutRecord", `{"Data":"abcde"}`, "'abcde' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 5"},
	{"Blob", "PutRecord", `{"Data":"=="}`, "'==' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 2"},
	{"Blob", "PutRecord", `{"Data":"&&&&"}`, "'&&&&' can not be converted to a Blob: Invalid Base64 character: '&'"},
	{"Blob", "PutRecord", `{"Data":"====="}`, "'=====' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 5"},
	{"Blob", "PutRecord", `{"Data":"+/+="}`, "'+/+=' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"},
	{"Blob", "PutRecords", `{"Records":[{"Data":"AA=="},{"Data":"A"}]}`, "'A' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 1"},
	{"Timestamp", "GetShardIterator", `{"Timestamp":"2016"}`, "class java.lang.String can not be converted to milliseconds since epoch"},
	{"Timestamp", "GetShardIterator", `{"Timestamp":true}`, "class java.lang.Boolean can not be converted to milliseconds since epoch"},
	{"List", "PutRecords", `{"Records":"x"}`, "Expected list or null"},
	{"List", "PutRecords", `{"Records":5}`, "Expected list or null"},
	{"List", "PutRecords", `{"Records":{}}`, "Start of structure or map found where not expected."},
	{"Map", "AddTagsToStream", `{"Tags":"x"}`, "Expected map or null"},
	{"Map", "AddTagsToStream", `{"Tags":[]}`, "Start of list found where not expected"},
	{"Map", "AddTagsToStream", `{"Tags":{"a":1}}`, truncating + "an String"},
	{"Structure", "CreateStream", `{"StreamModeDetails":"x"}`, "Expected null"},
	{"Structure", "CreateStream", `{"StreamModeDetails":[]}`, "Start of list found where not expected"},
	{"Structure", "PutRecords", `{"Records":["x"]}`, "Expected null"},
	{"any scalar", "DescribeStream", `{"StreamName":[]}`, "Start of list found where not expected"},
	{"any scalar", "DescribeStream", `{"Limit":{}}`, "Start of structure or map found where not expected."},
	{"any scalar", "PutRecord", `{"Data":[]}`, "Start of list found where not expected"},
	{"type errors win over missing members", "PutRecord", `{"PartitionKey":1}`, truncating + "an String"},
	{"type errors win over constraints", "DescribeStream", `{"StreamName":"","Limit":"x"}`, "class java.lang.String can not be converted to an Integer"},
}

// typeRows are in JSON; model_test.go has the types of CBOR.
func typeRows() (rows []row) {
	numbers := map[string]int{}
	for _, r := range typeTexts {
		numbers[r.name]++
		rows = append(rows, row{fmt.Sprintf("1.6 types/%s: %d", r.name, numbers[r.name]), func(c *caller) {
			c.refusal(r.body, c.callRaw(r.op, []byte(c.text(r.body))), serialization, r.message)
		}})
	}
	return rows
}

const twoErrors = "2 validation errors detected: "

// entries takes a ValidationException apart, into the sorted entries.
func (c *caller) entries(a answer) (head string, entries []string) {
	c.Helper()
	message, _ := a.body["message"].(string)
	if a.status != 400 || a.body["__type"] != validation || len(a.body) != 2 {
		c.Fatalf("%d %s", a.status, a.raw)
	}
	head, rest, _ := strings.Cut(message, ": ")
	entries = strings.Split(rest, "; ")
	slices.Sort(entries)
	return head, entries
}

var errorRows = []row{
	{"1.6 numbers/fractions are floored", func(c *caller) {
		c.create(2)
		for limit, want := range map[float64]int{1.9: 1, 2.5: 2} {
			c.is(want, c.ok("DescribeStream", m{"StreamName": "<S>", "Limit": limit})["StreamDescription"].(m))
		}
		c.refused("DescribeStream", m{"StreamName": "<S>", "Limit": 0.9}, validation,
			"1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1")
		c.refused("DescribeStream", m{"StreamName": "<S>", "Limit": -0.1}, validation,
			"1 validation error detected: Value '-1' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1")
	}},
	{"1.6 numbers/saturate", func(c *caller) {
		c.refused("DescribeStream", m{"StreamName": "<S>", "Limit": 100_000_000_000}, validation,
			"1 validation error detected: Value '2147483647' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000")
		c.refused("DescribeStream", m{"StreamName": "<S>", "Limit": -100_000_000_000}, validation,
			"1 validation error detected: Value '-2147483648' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1")
	}},
	{"1.6 types/Boolean as a string or double", func(c *caller) {
		for _, truth := range []any{true, false, "true", "FALSE", "yes", "no", "1", "0", 1.5} {
			c.refused("DeleteStream", m{"StreamName": "<S>", "EnforceConsumerDeletion": truth}, notFound, "Stream <S> under account <A> not found.")
		}
	}},

	{"1.7 constraints/known orders of members", func(c *caller) {
		for op, r := range map[string]struct {
			in    m
			paths []string
		}{
			"CreateStream":     {m{"StreamName": "", "ShardCount": 0}, []string{"shardCount", "streamName", "streamName"}},
			"GetShardIterator": {m{"StreamName": "*", "ShardId": "*", "ShardIteratorType": "x", "StartingSequenceNumber": "x"}, []string{"shardId", "shardIteratorType", "startingSequenceNumber", "streamName"}},
			"PutRecord": {
				m{"StreamName": "*", "PartitionKey": "", "ExplicitHashKey": "x", "SequenceNumberForOrdering": "x"},
				[]string{"sequenceNumberForOrdering", "partitionKey", "explicitHashKey", "data", "streamName"},
			},
			"SplitShard": {m{"StreamName": "*", "NewStartingHashKey": "x", "ShardToSplit": "*"}, []string{"newStartingHashKey", "streamName", "shardToSplit"}},
		} {
			message := fmt.Sprint(c.call(op, r.in).body["message"])
			var paths []string
			for _, entry := range strings.Split(message, "; ") {
				_, rest, _ := strings.Cut(entry, " at '")
				path, _, _ := strings.Cut(rest, "'")
				paths = append(paths, path)
			}
			if head := fmt.Sprintf("%d validation errors detected: ", len(r.paths)); !slices.Equal(paths, r.paths) || !strings.HasPrefix(message, head) {
				c.Errorf("%s: %v, not %v in %s", op, paths, r.paths, message)
			}
		}
	}},
	{"1.7 constraints/pattern before length", func(c *caller) {
		c.refused("DescribeStream", m{"StreamName": ""}, validation, twoErrors+
			"Value '' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; "+
			"Value '' at 'streamName' failed to satisfy constraint: Member must have length greater than or equal to 1")
	}},
	{"1.7 constraints/several members", func(c *caller) {
		head, entries := c.entries(c.call("MergeShards", m{"StreamName": "a b"}))
		want := []string{
			"Value 'a b' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
			"Value null at 'adjacentShardToMerge' failed to satisfy constraint: Member must not be null",
			"Value null at 'shardToMerge' failed to satisfy constraint: Member must not be null",
		}
		if head != "3 validation errors detected" || !slices.Equal(entries, want) {
			c.Errorf("%s: %q", head, entries)
		}
	}},
	{"1.7 constraints/at most 10 entries", func(c *caller) {
		head, entries := c.entries(c.call("PutRecords", m{"StreamName": "", "Records": repeated(20, m{})}))
		if head != "10 validation errors detected" || len(entries) != 10 {
			c.Errorf("%s, %d entries", head, len(entries))
		}
	}},
	{"1.7 paths/elements of lists and maps", func(c *caller) {
		good := m{"Data": []byte("x"), "PartitionKey": "k"}
		c.refused("PutRecords", m{"StreamName": "<S>", "Records": list{good, with(good, "PartitionKey", ""), with(good, "ExplicitHashKey", "-")}}, validation, twoErrors+
			"Value '' at 'records.2.member.partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1; "+
			"Value '-' at 'records.3.member.explicitHashKey' failed to satisfy constraint: Member must satisfy regular expression pattern: 0|([1-9]\\d{0,38})")
	}},
	{"1.7 values/lists, maps, null", func(c *caller) {
		c.refused("RemoveTagsFromStream", m{"StreamName": "<S>", "TagKeys": list{"a", "", "b"}}, validation,
			"1 validation error detected: Value '[a, , b]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: "+tagKeyItem)
		c.refused("AddTagsToStream", m{"StreamName": "<S>", "Tags": m{"a": "b", "": "c"}}, validation,
			"1 validation error detected: Value '{=c, a=b}' at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: "+tagKeyItem)
		c.refused("SplitShard", m{"StreamName": "<S>", "ShardToSplit": "0"}, validation,
			"1 validation error detected: Value null at 'newStartingHashKey' failed to satisfy constraint: Member must not be null")
	}},
	{"1.7 values/blobs and lists of structures are left out", func(c *caller) {
		c.refused("PutRecords", m{"StreamName": "<S>", "Records": list{}}, validation,
			"1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length greater than or equal to 1")
		c.refused("PutRecords", m{"StreamName": "<S>", "Records": repeated(501, m{"Data": []byte{}, "PartitionKey": "k"})}, validation,
			"1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length less than or equal to 500")
	}},
	{"1.7 enums/order of ShardIteratorType", func(c *caller) {
		c.refused("GetShardIterator", m{"StreamName": "<S>", "ShardId": "0", "ShardIteratorType": "x"}, validation,
			"1 validation error detected: Value 'x' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]")
	}},
	{"1.7 patterns/are anchored", func(c *caller) {
		for _, key := range []string{"1 ", "01", "+1", "1.0", strings.Repeat("1", 40)} {
			c.refused("PutRecord", putIn("k", []byte("x"), hashed(key)), validation,
				"1 validation error detected: Value '"+key+"' at 'explicitHashKey' failed to satisfy constraint: Member must satisfy regular expression pattern: 0|([1-9]\\d{0,38})")
		}
	}},
}
