package placement

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"shardstream/stream"
)

func TestSpreadTable(t *testing.T) {
	three := func(n int) (shards []Shard) {
		for i := range n {
			shards = append(shards, shard(uint32(i), 2, "a*", "b"))
		}
		return shards
	}
	noZones := []Broker{{Node: "a"}, {Node: "b"}, {Node: "c"}}
	for _, c := range []struct {
		name    string
		shards  []Shard
		brokers []Broker
		limit   int
		want    string
	}{
		{"nothing", nil, noZones, 9, "[]"},
		{"one is within one", three(1), noZones, 9, "[]"},
		{"onto the empty one", three(3), noZones, 9, "[0 to c 1 to c]"},
		{"no more than it can take", three(6), noZones, 2, "[0 to c 1 to c]"},
		{"a shard without all of its replicas stays", []Shard{shard(0, 2, "a*", "b!"), shard(1, 2, "a*", "b-"), shard(2, 2, "a*", "b")}, noZones, 9, "[2 to c]"},
		{"what will be dropped is dropped", []Shard{shard(0, 2, "a*", "b", "c"), shard(1, 2, "a*", "b", "c"), shard(2, 2, "a*", "b")}, noZones, 9, "[]"},
		{"not out of its zone", three(9), []Broker{{Node: "a", Zone: "x"}, {Node: "b", Zone: "y"}, {Node: "c", Zone: "y"}}, 9, "[0 to c 1 to c 2 to c 3 to c]"},
		{"into another zone", three(1), []Broker{{Node: "a", Zone: "x"}, {Node: "b", Zone: "x"}, {Node: "c", Zone: "y"}}, 9, "[0 to c]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, p := range Spread(c.shards, c.brokers, nil, Limits{Total: 100, PerBroker: c.limit}) {
				got = append(got, fmt.Sprintf("%d to %s", p.Shard.Number, p.Node))
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

// TestSpreadProperties grows a cluster whose shards were placed evenly, and
// spreads until nothing is left to do.
func TestSpreadProperties(tb *testing.T) {
	rapid.Check(tb, func(t *rapid.T) {
		zones := rapid.IntRange(1, 3).Draw(t, "zones")
		old, all := rapid.IntRange(1, 6).Draw(t, "old"), rapid.IntRange(1, 9).Draw(t, "all")
		all = max(all, old)
		var brokers []Broker
		for i := range all {
			brokers = append(brokers, Broker{Node: nodeName(i), Zone: fmt.Sprint(i % zones)})
		}
		factor := min(rapid.IntRange(1, 3).Draw(t, "factor"), old)
		var shards []Shard
		for i, nodes := range Assign(rapid.IntRange(0, 40).Draw(t, "shards"), factor, brokers[:old]) {
			sh := Shard{ID: stream.ShardID{Stream: 1, Number: uint32(i)}, Factor: factor}
			for j, n := range nodes {
				sh.Replicas = append(sh.Replicas, Replica{Node: n, Leader: j == 0, Able: true})
			}
			shards = append(shards, sh)
		}
		limits := Limits{Total: rapid.IntRange(1, 100).Draw(t, "total"), PerBroker: rapid.IntRange(1, 16).Draw(t, "per broker")}
		moves := 0
		for {
			before := clone(shards)
			places := Spread(shards, brokers, nil, limits)
			if !reflect.DeepEqual(before, shards) {
				t.Fatal("the arguments were changed")
			}
			shuffled := clone(shards)
			slices.Reverse(shuffled)
			if again := Spread(shuffled, brokers, nil, limits); !reflect.DeepEqual(places, again) {
				t.Fatalf("another order gives %v instead of %v", again, places)
			}
			if len(places) == 0 {
				break
			}
			taking := make(map[stream.NodeID]int)
			for _, p := range places {
				taking[p.Node]++
				sh := &shards[p.Shard.Number]
				if slices.ContainsFunc(sh.Replicas, func(r Replica) bool { return r.Node == p.Node }) {
					t.Fatalf("a second replica on %s: %v", p.Node, sh)
				}
				sh.Replicas = append(sh.Replicas, Replica{Node: p.Node, Able: true})
			}
			for node, n := range taking {
				if n > limits.PerBroker {
					t.Fatalf("%d at once for %s", n, node)
				}
			}
			for _, p := range places {
				dropFullest(&shards[p.Shard.Number], shards, brokers)
			}
			if moves += len(places); moves > 2*len(shards)*factor {
				t.Fatalf("%d moves and no end: %v", moves, places)
			}
		}
		if zones == 1 {
			counts := countOn(shards, brokers)
			if lo, hi := slices.Min(counts), slices.Max(counts); hi-lo > 1 {
				t.Fatalf("uneven: %v", counts)
			}
		}
		for _, sh := range shards {
			in := make(map[string]int)
			for _, r := range sh.Replicas {
				in[zoneOf(r.Node, brokers)]++
			}
			if len(in) < min(factor, zones, all) {
				t.Fatalf("%d of %d zones: %v", len(in), zones, sh)
			}
		}
	})
}

// dropFullest takes off the replica that a controller would.
func dropFullest(sh *Shard, shards []Shard, brokers []Broker) {
	in := make(map[string]int)
	for _, r := range sh.Replicas {
		in[zoneOf(r.Node, brokers)]++
	}
	counts := countOn(shards, brokers)
	worst := 0
	for i, r := range sh.Replicas {
		w := sh.Replicas[worst]
		zr, zw := in[zoneOf(r.Node, brokers)], in[zoneOf(w.Node, brokers)]
		if zr > zw || zr == zw && counts[nodeNumber(r.Node)] > counts[nodeNumber(w.Node)] {
			worst = i
		}
	}
	sh.Replicas = slices.Delete(slices.Clone(sh.Replicas), worst, worst+1)
}

func countOn(shards []Shard, brokers []Broker) []int {
	counts := make([]int, len(brokers))
	for _, sh := range shards {
		for _, r := range sh.Replicas {
			counts[nodeNumber(r.Node)]++
		}
	}
	return counts
}

func nodeNumber(n stream.NodeID) int { return int(n[1] - '0') }

func zoneOf(n stream.NodeID, brokers []Broker) string { return brokers[nodeNumber(n)].Zone }
