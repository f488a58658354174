package main

import (
	"fmt"
	"slices"
)

// What the service does differently from its model.

// maxShards is the bound on shard counts that the service checks and the model
// leaves out.
const maxShards = 100000

// printedEnums gives the order in which the service prints the values, where
// that is known and not the model's.
var printedEnums = map[string][]string{
	"ShardIteratorType": {"AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"},
}

// printedOrders gives the order of constraint errors across members where that
// is known. Members that a list leaves out follow in the model's order. The
// order inside a PutRecords entry is that of PutRecord.
var printedOrders = map[string][]string{
	"CreateStreamInput":      {"ShardCount", "StreamName"},
	"GetShardIteratorInput":  {"ShardId", "ShardIteratorType", "StartingSequenceNumber", "StreamName"},
	"PutRecordInput":         {"SequenceNumberForOrdering", "PartitionKey", "ExplicitHashKey", "Data", "StreamName"},
	"PutRecordsRequestEntry": {"PartitionKey", "ExplicitHashKey", "Data"},
	"SplitShardInput":        {"NewStartingHashKey", "StreamName", "ShardToSplit"},
}

func (m *model) override() error {
	for name, values := range printedEnums {
		s := m.Shapes[name]
		a, b := slices.Clone(s.Enum), slices.Clone(values)
		slices.Sort(a)
		slices.Sort(b)
		if !slices.Equal(a, b) {
			return fmt.Errorf("the values of %s have changed: %v", name, s.Enum)
		}
		s.Enum = values
	}

	// Both operations that take a wanted number of shards bound it.
	bounded := *m.Shapes["PositiveIntegerObject"]
	bounded.Max = new(int64(maxShards))
	m.Shapes["ShardCount"] = &bounded
	for input, name := range map[string]string{"CreateStreamInput": "ShardCount", "UpdateShardCountInput": "TargetShardCount"} {
		s := m.Shapes[input]
		i := slices.IndexFunc(s.Members, func(mem member) bool { return mem.name == name })
		if i < 0 {
			return fmt.Errorf("%s has no %s", input, name)
		}
		s.Members[i].shape = "ShardCount"
	}

	// The last event of a closed shard has no continuation.
	event := m.Shapes["SubscribeToShardEvent"]
	event.Required = slices.DeleteFunc(event.Required, func(r string) bool { return r == "ContinuationSequenceNumber" })

	// The event stream travels in frames behind the output, not in it.
	out := m.Shapes["SubscribeToShardOutput"]
	out.Members, out.Required = nil, nil
	return nil
}

// checkOrder gives the indexes of a structure's members in the order in which
// they are checked, nil if that is the model's.
func checkOrder(name string, s *shape) []int {
	known := printedOrders[name]
	if known == nil {
		return nil
	}
	var order []int
	for _, k := range known {
		i := slices.IndexFunc(s.Members, func(mem member) bool { return mem.name == k })
		if i < 0 {
			panic(name + " has no " + k)
		}
		order = append(order, i)
	}
	for i := range s.Members {
		if !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	return order
}
