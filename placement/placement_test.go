package placement

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"shardstream/stream"
)

func TestAssignTable(t *testing.T) {
	for _, c := range []struct {
		name    string
		shards  int
		rf      int
		brokers []Broker
		want    string
	}{
		{"alone", 2, 3, []Broker{{Node: "a"}}, "[[a] [a]]"},
		{"nobody", 1, 3, nil, "[[]]"},
		{"leadership goes round", 3, 3, []Broker{{Node: "c"}, {Node: "a"}, {Node: "b"}}, "[[a b c] [b a c] [c a b]]"},
		{"successors go round", 4, 3, []Broker{{Node: "a"}, {Node: "b", Leaders: 9}, {Node: "c", Leaders: 9}}, "[[a b c] [a c b] [a b c] [a c b]]"},
		{"the emptier first", 1, 1, []Broker{{Node: "a", Replicas: 2}, {Node: "b", Replicas: 1}}, "[[b]]"},
		{"a zone beats a count", 1, 2, []Broker{{Node: "a", Zone: "x"}, {Node: "b", Zone: "x"}, {Node: "c", Zone: "y", Replicas: 100}}, "[[a c]]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := fmt.Sprint(Assign(c.shards, c.rf, c.brokers)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestAssignProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "brokers")
		zones := rapid.IntRange(1, 4).Draw(t, "zones")
		fresh := rapid.Bool().Draw(t, "fresh")
		brokers := make([]Broker, n)
		zoneOf := make(map[stream.NodeID]string)
		for i := range brokers {
			b := Broker{Node: stream.NodeID(fmt.Sprintf("n%d", i)), Zone: fmt.Sprint(rapid.IntRange(1, zones).Draw(t, "zone"))}
			if !fresh {
				b.Replicas, b.Leaders = rapid.IntRange(0, 20).Draw(t, "replicas"), rapid.IntRange(0, 20).Draw(t, "leaders")
			}
			brokers[i], zoneOf[b.Node] = b, b.Zone
		}
		rf, shards := rapid.IntRange(1, 5).Draw(t, "rf"), rapid.IntRange(0, 40).Draw(t, "shards")
		input := slices.Clone(brokers)
		got := Assign(shards, rf, brokers)

		if !reflect.DeepEqual(input, brokers) {
			t.Fatal("the argument was changed")
		}
		if again := Assign(shards, rf, rapid.Permutation(brokers).Draw(t, "order")); !reflect.DeepEqual(got, again) {
			t.Fatalf("depends on the order of the brokers:\n%v\n%v", got, again)
		}
		allZones := len(countZones(slices.Collect(maps.Keys(zoneOf)), zoneOf))
		for _, nodes := range got {
			if len(nodes) != min(rf, n) {
				t.Fatalf("%d replicas of %d on %d brokers", len(nodes), rf, n)
			}
			if len(slices.Compact(slices.Sorted(slices.Values(nodes)))) != len(nodes) {
				t.Fatalf("two replicas on a broker: %v", nodes)
			}
			if used := len(countZones(nodes, zoneOf)); used != min(allZones, len(nodes)) {
				t.Fatalf("%v in %d of %d zones", nodes, used, allZones)
			}
		}
		if fresh {
			for z := range zones {
				checkEven(t, got, zoneOf, fmt.Sprint(z+1))
			}
		}
	})
}

// checkEven: within a zone, the counts of replicas differ by one at most.
func checkEven(t *rapid.T, got [][]stream.NodeID, zoneOf map[stream.NodeID]string, zone string) {
	counts := make(map[stream.NodeID]int)
	for _, nodes := range got {
		for _, node := range nodes {
			counts[node]++
		}
	}
	lo, hi := math.MaxInt, 0
	for node, z := range zoneOf {
		if z == zone {
			lo, hi = min(lo, counts[node]), max(hi, counts[node])
		}
	}
	if lo != math.MaxInt && hi-lo > 1 {
		t.Fatalf("zone %s has between %d and %d replicas a broker: %v", zone, lo, hi, got)
	}
}

// Without zones, or with zones of equal size, leaderships come out even too.
func TestAssignLeadersEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones, perZone := rapid.IntRange(1, 3).Draw(t, "zones"), rapid.IntRange(1, 4).Draw(t, "per zone")
		var brokers []Broker
		for i := range zones * perZone {
			brokers = append(brokers, Broker{Node: stream.NodeID(fmt.Sprintf("n%02d", i)), Zone: fmt.Sprint(i % zones)})
		}
		rf, shards := rapid.IntRange(1, 3).Draw(t, "rf"), rapid.IntRange(1, 200).Draw(t, "shards")
		leads := make(map[stream.NodeID]int)
		for _, nodes := range Assign(shards, rf, brokers) {
			leads[nodes[0]]++
		}
		lo, hi := math.MaxInt, 0
		for _, b := range brokers {
			lo, hi = min(lo, leads[b.Node]), max(hi, leads[b.Node])
		}
		if hi-lo > 1 {
			t.Fatalf("between %d and %d leaderships a broker for %d shards, rf %d: %v", lo, hi, shards, rf, leads)
		}
	})
}

func countZones(nodes []stream.NodeID, zoneOf map[stream.NodeID]string) map[string]int {
	zones := make(map[string]int)
	for _, node := range nodes {
		zones[zoneOf[node]]++
	}
	return zones
}

func BenchmarkAssign10kShards(b *testing.B) {
	brokers := make([]Broker, 12)
	for i := range brokers {
		brokers[i] = Broker{Node: stream.NodeID(fmt.Sprint(i)), Zone: fmt.Sprint(i % 3)}
	}
	for b.Loop() {
		Assign(10_000, 3, brokers)
	}
}
