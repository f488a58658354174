package conformance

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// Section 3.10: the inputs of all operations by the service's model. Every
// member of every operation is sent absent, as null, of each wrong type, and in
// violation of each of its constraints, alone; the texts are those of 1.6 and
// 1.7.

// kind is what a value is of. The text of a wrong type speaks of it.
type kind int

const (
	aString kind = iota
	anInteger
	aBoolean
	aBlob
	aTimestamp
	aList
	aMap
	aStructure
)

// shape is what a member may hold.
type shape struct {
	kind  kind
	valid any
	bad   []violation // one for each constraint
}

// violation is a value that breaks constraints, as the error prints it and them.
type violation struct {
	value       any
	shown       string // "" where values are not printed
	constraints []string
}

func notLess(what string, n int) string {
	return fmt.Sprintf("Member must have %s greater than or equal to %d", what, n)
}

func notMore(what string, n int) string {
	return fmt.Sprintf("Member must have %s less than or equal to %d", what, n)
}

func pattern(p string) string { return "Member must satisfy regular expression pattern: " + p }

// text is a string of 1 to longest characters (0: of any length). What stem and
// more of its last character make is valid but for its length.
func text(valid, stem string, longest int, p, unfit string) shape {
	s := shape{kind: aString, valid: valid}
	empty := violation{"", "''", nil}
	if p != "" {
		s.bad = append(s.bad, violation{unfit, "'" + unfit + "'", []string{pattern(p)}})
		empty.constraints = append(empty.constraints, pattern(p))
	}
	if longest > 0 {
		empty.constraints = append(empty.constraints, notLess("length", 1))
		last := []rune(stem)[utf8.RuneCountInString(stem)-1]
		long := stem + strings.Repeat(string(last), longest+1-utf8.RuneCountInString(stem))
		s.bad = append(s.bad, violation{long, "'" + long + "'", []string{notMore("length", longest)}})
	}
	if len(empty.constraints) > 0 {
		s.bad = append(s.bad, empty)
	}
	return s
}

func name(valid string) shape { return text(valid, "n", 128, `[a-zA-Z0-9_.-]+`, "b*d name") }

// number is an integer within bounds; -1 for none.
func number(valid, least, most int) shape {
	s := shape{kind: anInteger, valid: valid}
	if least >= 0 {
		s.bad = append(s.bad, violation{least - 1, fmt.Sprintf("'%d'", least-1), []string{notLess("value", least)}})
	}
	if most >= 0 {
		s.bad = append(s.bad, violation{most + 1, fmt.Sprintf("'%d'", most+1), []string{notMore("value", most)}})
	}
	return s
}

func enum(values ...string) shape {
	all := "Member must satisfy enum value set: [" + strings.Join(values, ", ") + "]"
	return shape{kind: aString, valid: values[0], bad: []violation{
		{"NO_SUCH", "'NO_SUCH'", []string{all}},
		{"", "''", []string{all}},
	}}
}

const (
	hashKeyPattern  = `0|([1-9]\d{0,38})`
	streamIDPattern = `[a-z0-9]{20}-[a-z0-9]{3}`
	sequencePattern = `0|([1-9]\d{0,128})`
	tagKeyItem      = "[Member must have length less than or equal to 128, Member must have length greater than or equal to 1]"
	tagValueItem    = "[Member must have length less than or equal to 256, Member must have length greater than or equal to 0]"
	metricItem      = "[Member must satisfy enum value set: [IncomingBytes, IncomingRecords, OutgoingBytes, OutgoingRecords, WriteProvisionedThroughputExceeded, ReadProvisionedThroughputExceeded, IteratorAgeMilliseconds, ALL]]"
)

func repeated(n int, item any) (items list) {
	for range n {
		items = append(items, item)
	}
	return items
}

func printed(items list) string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(items)), ", "), "")
}

// tags are n different ones, and how errors print them.
func manyTags(n int) (tags m, shown string) {
	tags = m{}
	for i := range n {
		tags[fmt.Sprintf("k%03d", i)] = "v"
	}
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		pairs = append(pairs, key+"=v")
	}
	return tags, "'{" + strings.Join(pairs, ", ") + "}'"
}

var shapes = func() map[string]shape {
	longKey, longValue := strings.Repeat("k", 129), strings.Repeat("v", 257)
	tags201, tags201Shown := manyTags(201)
	keys51, metrics8 := repeated(51, "k"), repeated(8, "ALL")
	record := m{"Data": []byte("x"), "PartitionKey": "k"}
	return map[string]shape{
		"StreamName":   name("<S>"),
		"ConsumerName": name("consumer"),
		"ShardId":      name("shardId-000000000000"),
		"StreamARN":    text("<ARN>", "arn:aws:kinesis:us-east-1:000000000000:stream/s", 2048, `arn:aws.*:kinesis:.*:\d{12}:stream/\S+`, "arn:aws:kinesis:r:1:stream/s"),
		"ResourceARN":  text("<ARN>", "arn:aws:kinesis:us-east-1:000000000000:stream/s", 2048, `arn:aws.*:kinesis:.*:\d{12}:.*stream/\S+`, "<S>"),
		"ConsumerARN":  text("<ARN>/consumer/c:1700000000", "arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/c:1", 2048, `^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+`, "<ARN>"),
		"StreamId": {kind: aString, valid: "abcdefghijklmnopqrst-abc", bad: []violation{
			{"ABCDEFGHIJKLMNOPQRST-ABC", "'ABCDEFGHIJKLMNOPQRST-ABC'", []string{pattern(streamIDPattern)}},
			{"", "''", []string{pattern(streamIDPattern), notLess("length", 1)}},
			{"abcdefghijklmnopqrst-abcd", "'abcdefghijklmnopqrst-abcd'", []string{pattern(streamIDPattern), notMore("length", 24)}},
		}},
		"PartitionKey":   text("key", "é", 256, "", ""),
		"KeyId":          text("alias/aws/kinesis", "k", 2048, "", ""),
		"TagKey":         text("key", "k", 128, "", ""),
		"ShardIterator":  text("AAAAAAAAAAE", "A", 512, "", ""),
		"HashKey":        text("7", "7", 0, hashKeyPattern, "01"),
		"SequenceNumber": text("7", "7", 0, sequencePattern, "-1"),
		"NextToken":      text("token", "t", 1<<20, "", ""),
		"Policy":         {kind: aString, valid: "{}"},

		"Limit10000":         number(10, 1, 10000),
		"Limit50":            number(10, 1, 50),
		"ShardCount":         number(1, 1, 100000),
		"RetentionHours":     number(24, -1, -1),
		"MaxRecordSizeInKiB": number(1024, 1024, 10240),
		"Throughput":         number(0, 0, -1),

		"EncryptionType":    enum("NONE", "KMS"),
		"ScalingType":       enum("UNIFORM_SCALING"),
		"ShardIteratorType": enum("AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"),

		"Boolean":   {kind: aBoolean, valid: false},
		"Data":      {kind: aBlob, valid: []byte("data")},
		"Timestamp": {kind: aTimestamp, valid: moment(1700000000123)},

		"TagMap": {kind: aMap, valid: m{"key": "value"}, bad: []violation{
			{m{}, "'{}'", []string{notLess("length", 1)}},
			{tags201, tags201Shown, []string{notMore("length", 200)}},
			{m{"": "v"}, "'{=v}'", []string{"Map keys must satisfy constraint: " + tagKeyItem}},
			{m{longKey: "v"}, "'{" + longKey + "=v}'", []string{"Map keys must satisfy constraint: " + tagKeyItem}},
			{m{"k": longValue}, "'{k=" + longValue + "}'", []string{"Map value must satisfy constraint: " + tagValueItem}},
		}},
		"TagKeyList": {kind: aList, valid: list{"key"}, bad: []violation{
			{list{}, "'[]'", []string{notLess("length", 1)}},
			{keys51, "'" + printed(keys51) + "'", []string{notMore("length", 50)}},
			{list{""}, "'[]'", []string{"Member must satisfy constraint: " + tagKeyItem}},
			{list{longKey}, "'[" + longKey + "]'", []string{"Member must satisfy constraint: " + tagKeyItem}},
		}},
		"MetricsNameList": {kind: aList, valid: list{"IncomingBytes"}, bad: []violation{
			{list{}, "'[]'", []string{notLess("length", 1)}},
			{metrics8, "'" + printed(metrics8) + "'", []string{notMore("length", 7)}},
			{list{"IncomingBytes", "x"}, "'[IncomingBytes, x]'", []string{"Member must satisfy constraint: " + metricItem}},
		}},
		"Records": {kind: aList, valid: list{record}, bad: []violation{
			{list{}, "", []string{notLess("length", 1)}},
			{repeated(501, record), "", []string{notMore("length", 500)}},
		}},
		"StreamModeDetails":                  {kind: aStructure, valid: m{"StreamMode": "PROVISIONED"}},
		"ShardFilter":                        {kind: aStructure, valid: m{"Type": "AT_LATEST"}},
		"StartingPosition":                   {kind: aStructure, valid: m{"Type": "LATEST"}},
		"MinimumThroughputBillingCommitment": {kind: aStructure, valid: m{"Status": "DISABLED"}},
	}
}()

// inner are the members of structures inside inputs, by the structure's path.
var inner = map[string]string{
	"StreamModeDetails":                  "StreamMode*:StreamMode",
	"ShardFilter":                        "Type*:ShardFilterType ShardId Timestamp",
	"StartingPosition":                   "Type*:ShardIteratorType SequenceNumber Timestamp",
	"MinimumThroughputBillingCommitment": "Status*:CommitmentStatus",
	"Records":                            "Data* PartitionKey* ExplicitHashKey:HashKey",
}

func init() {
	shapes["StreamMode"] = enum("PROVISIONED", "ON_DEMAND")
	shapes["ShardFilterType"] = enum("AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP", "FROM_TIMESTAMP")
	shapes["CommitmentStatus"] = enum("ENABLED", "DISABLED")
}

// operation is what an operation takes: members with "*" are required, and have
// the shape behind ":" or that of their own name. With address members a call is
// about a stream or consumer that is not there.
type operation struct {
	name    string
	address string // the member that names what the call is about, "" for none
	members string
	class   string // of the answer to a valid call, "" for success
}

var operations = []operation{
	{"AddTagsToStream", "StreamName", "StreamName Tags*:TagMap StreamARN StreamId", notFound},
	{"CreateStream", "", "StreamName* ShardCount StreamModeDetails Tags:TagMap WarmThroughputMiBps:Throughput MaxRecordSizeInKiB", resourceInUse},
	{"DecreaseStreamRetentionPeriod", "StreamName", "StreamName RetentionPeriodHours*:RetentionHours StreamARN StreamId", notFound},
	{"DeleteResourcePolicy", "", "ResourceARN* StreamId", notFound},
	{"DeleteStream", "StreamName", "StreamName EnforceConsumerDeletion:Boolean StreamARN StreamId", notFound},
	{"DeregisterStreamConsumer", "ConsumerARN", "StreamARN ConsumerName ConsumerARN StreamId", notFound},
	{"DescribeAccountSettings", "", "", ""},
	{"DescribeLimits", "", "", ""},
	{"DescribeStream", "StreamName", "StreamName Limit:Limit10000 ExclusiveStartShardId:ShardId StreamARN StreamId", notFound},
	{"DescribeStreamConsumer", "ConsumerARN", "StreamARN ConsumerName ConsumerARN StreamId", notFound},
	{"DescribeStreamSummary", "StreamName", "StreamName StreamARN StreamId", notFound},
	{"DisableEnhancedMonitoring", "StreamName", "StreamName ShardLevelMetrics*:MetricsNameList StreamARN StreamId", notFound},
	{"EnableEnhancedMonitoring", "StreamName", "StreamName ShardLevelMetrics*:MetricsNameList StreamARN StreamId", notFound},
	{"GetRecords", "", "ShardIterator* Limit:Limit10000 StreamARN StreamId", invalidArgument},
	{"GetResourcePolicy", "", "ResourceARN* StreamId", notFound},
	{"GetShardIterator", "StreamName", "StreamName ShardId* ShardIteratorType* StartingSequenceNumber:SequenceNumber Timestamp StreamARN StreamId", notFound},
	{"IncreaseStreamRetentionPeriod", "StreamName", "StreamName RetentionPeriodHours*:RetentionHours StreamARN StreamId", notFound},
	{"ListShards", "StreamName", "StreamName NextToken ExclusiveStartShardId:ShardId MaxResults:Limit10000 StreamCreationTimestamp:Timestamp ShardFilter StreamARN StreamId", notFound},
	{"ListStreamConsumers", "", "StreamARN* NextToken MaxResults:Limit10000 StreamCreationTimestamp:Timestamp StreamId", notFound},
	{"ListStreams", "", "Limit:Limit10000 ExclusiveStartStreamName:StreamName NextToken", ""},
	{"ListTagsForResource", "", "ResourceARN* StreamId", notFound},
	{"ListTagsForStream", "StreamName", "StreamName ExclusiveStartTagKey:TagKey Limit:Limit50 StreamARN StreamId", notFound},
	{"MergeShards", "StreamName", "StreamName ShardToMerge*:ShardId AdjacentShardToMerge*:ShardId StreamARN StreamId", notFound},
	{"PutRecord", "StreamName", "StreamName Data* PartitionKey* ExplicitHashKey:HashKey SequenceNumberForOrdering:SequenceNumber StreamARN StreamId", notFound},
	{"PutRecords", "StreamName", "Records* StreamName StreamARN StreamId", notFound},
	{"PutResourcePolicy", "", "ResourceARN* StreamId Policy*", notFound},
	{"RegisterStreamConsumer", "", "StreamARN* ConsumerName* StreamId Tags:TagMap", notFound},
	{"RemoveTagsFromStream", "StreamName", "StreamName TagKeys*:TagKeyList StreamARN StreamId", notFound},
	{"SplitShard", "StreamName", "StreamName ShardToSplit*:ShardId NewStartingHashKey*:HashKey StreamARN StreamId", notFound},
	{"StartStreamEncryption", "StreamName", "StreamName EncryptionType* KeyId* StreamARN StreamId", notFound},
	{"StopStreamEncryption", "StreamName", "StreamName EncryptionType* KeyId* StreamARN StreamId", notFound},
	{"SubscribeToShard", "", "ConsumerARN* StreamId ShardId* StartingPosition*", notFound},
	{"TagResource", "", "Tags*:TagMap ResourceARN* StreamId", notFound},
	{"UntagResource", "", "TagKeys*:TagKeyList ResourceARN* StreamId", notFound},
	{"UpdateAccountSettings", "", "MinimumThroughputBillingCommitment*", ""},
	{"UpdateMaxRecordSize", "StreamARN", "StreamARN StreamId MaxRecordSizeInKiB*", notFound},
	{"UpdateShardCount", "StreamName", "StreamName TargetShardCount*:ShardCount ScalingType* StreamARN StreamId", notFound},
	{"UpdateStreamMode", "", "StreamARN* StreamId StreamModeDetails* WarmThroughputMiBps:Throughput", notFound},
	{"UpdateStreamWarmThroughput", "StreamName", "StreamARN StreamName StreamId WarmThroughputMiBps*:Throughput", notFound},
}

// field is a member of an input.
type field struct {
	name     string
	required bool
	shape    shape
}

func fields(members string) (all []field) {
	for _, f := range strings.Fields(members) {
		name, shapeName, given := strings.Cut(f, ":")
		name, required := strings.CutSuffix(name, "*")
		if !given {
			shapeName = name
		}
		s, known := shapes[shapeName]
		if !known {
			panic("no shape " + shapeName)
		}
		all = append(all, field{name, required, s})
	}
	return all
}

// pathOf is how errors name a member.
func pathOf(name string) string { return strings.ToLower(name[:1]) + name[1:] }

// wrongTypes gives values of each wrong type, and what is said of them.
func wrongTypes(f *format, k kind) map[string]any {
	const numberClass = "com.amazon.coral.value.json.numbers.TruncatingBigNumber"
	class := func(class, as string) string { return "class " + class + " can not be converted to " + as }
	switch k {
	case aList:
		return map[string]any{"Expected list or null": "x", "Start of structure or map found where not expected.": m{}}
	case aMap:
		return map[string]any{"Expected map or null": 1, "Start of list found where not expected": list{}}
	case aStructure:
		return map[string]any{"Expected null": true, "Start of list found where not expected": list{}}
	}
	wrong := map[string]any{
		"Start of list found where not expected":              list{},
		"Start of structure or map found where not expected.": m{},
	}
	switch k {
	case aString:
		wrong[class("java.lang.Boolean", "an String")] = true
		wrong[class(numberClass, "an String")] = 5
	case anInteger:
		wrong[class("java.lang.String", "an Integer")] = "5"
		wrong[class("java.lang.Boolean", "an Integer")] = true
	case aBoolean:
		wrong[class(numberClass, "an Boolean")] = 1
		wrong["'MAYBE' can not be converted to an Boolean"] = "maybe"
	case aBlob:
		wrong[class("java.lang.Boolean", "a Blob")] = false
		wrong[class(numberClass, "a Blob")] = 5
		if f == inCBOR {
			wrong[class("java.lang.String", "a Blob")] = "eA=="
		}
	case aTimestamp:
		wrong[class("java.lang.String", "milliseconds since epoch")] = "2016-04-04"
		wrong[class("java.lang.Boolean", "milliseconds since epoch")] = true
		if f == inCBOR {
			wrong[class(numberClass, "milliseconds since epoch")] = 1700000000
		}
	}
	return wrong
}

// with gives a copy of an input with one member changed; what is inside a
// structure or the first record is named by its path.
func with(in m, path string, value any) m {
	out := maps.Clone(in)
	outer, inside, nested := strings.Cut(path, ".")
	if !nested {
		out[outer] = value
		return out
	}
	if records, ok := in[outer].(list); ok {
		out[outer] = list{with(records[0].(m), inside, value)}
	} else {
		out[outer] = with(in[outer].(m), inside, value)
	}
	return out
}

func without(in m, path string) m {
	outer, inside, nested := strings.Cut(path, ".")
	if !nested {
		out := maps.Clone(in)
		delete(out, outer)
		return out
	}
	if records, ok := in[outer].(list); ok {
		return with(in, outer, list{without(records[0].(m), inside)})
	}
	return with(in, outer, without(in[outer].(m), inside))
}

func modelRows() (rows []row) {
	for _, op := range operations {
		rows = append(rows, row{"3.10 model/" + op.name, func(c *caller) { checkModel(c, op) }})
	}
	return rows
}

func checkModel(c *caller, op operation) {
	all := fields(op.members)
	valid := m{}
	for _, f := range all {
		if f.required || f.name == op.address {
			valid[f.name] = f.shape.valid
		}
	}
	if op.name == "CreateStream" {
		c.create(1)
	}
	check := &modelCheck{caller: c, op: op, valid: valid}
	check.same("a valid call", valid)
	check.same("an unknown member", with(valid, "Unknown", m{"x": list{nil}}))
	for _, f := range all {
		check.member(f, f.name, pathOf(f.name))
		if members, nested := inner[f.name]; nested {
			if !f.required {
				check.valid = with(valid, f.name, f.shape.valid)
			}
			path := pathOf(f.name)
			if f.shape.kind == aList {
				path += ".1.member"
			}
			for _, in := range fields(members) {
				check.member(in, f.name+"."+in.name, path+"."+pathOf(in.name))
			}
			check.valid = valid
		}
	}
}

// modelCheck holds one operation against its model.
type modelCheck struct {
	*caller
	op    operation
	valid m
}

// same holds that a call gets the answer of a valid one.
func (c *modelCheck) same(what string, in m) {
	c.Helper()
	a := c.call(c.op.name, in)
	if c.op.class == "" && a.status != http.StatusOK || c.op.class != "" && (a.status != http.StatusBadRequest || a.body["__type"] != c.op.class) {
		c.Errorf("%s: %d %s, not %s", what, a.status, a.raw, c.op.class)
	}
}

// member sends one member in each way that it must not be.
func (c *modelCheck) member(f field, at, path string) {
	c.Helper()
	null := with(c.valid, at, nil)
	switch {
	case f.required:
		text := "1 validation error detected: Value null at '" + path + "' failed to satisfy constraint: Member must not be null"
		c.refusal(at+" null", c.call(c.op.name, null), validation, text)
		c.refusal(at+" absent", c.call(c.op.name, without(c.valid, at)), validation, text)
	case f.name != c.op.address:
		c.same(at+" null", null)
	}
	for message, value := range wrongTypes(c.format, f.shape.kind) {
		in := with(c.valid, at, value)
		c.refusal(fmt.Sprintf("%s of a wrong type, %v", at, value), c.call(c.op.name, in), serialization, message)
	}
	for _, bad := range f.shape.bad {
		value := c.text(bad.shown)
		if value != "" {
			value += " "
		}
		var entries []string
		for _, constraint := range bad.constraints {
			entries = append(entries, "Value "+value+"at '"+path+"' failed to satisfy constraint: "+constraint)
		}
		text := fmt.Sprintf("%d validation errors detected: ", len(entries))
		if len(entries) == 1 {
			text = "1 validation error detected: "
		}
		c.refusal(fmt.Sprintf("%s = %.40v", at, bad.value), c.call(c.op.name, with(c.valid, at, bad.value)), validation, text+strings.Join(entries, "; "))
	}
}
