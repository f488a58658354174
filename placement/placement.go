// Package placement decides which brokers hold the replicas of shards. It is
// pure: the answer depends on the arguments alone, not on their order, on the
// clock or on chance.
//
// It is not for carrying a decision out, and knows nothing of raft. The
// invariant it keeps: no two replicas of one shard are on one broker.
package placement

import (
	"cmp"
	"slices"

	"shardstream/stream"
)

// Broker is a broker that may take replicas, with what it has already.
type Broker struct {
	Node     stream.NodeID
	Zone     string // brokers without a zone are all in one
	Replicas int    // replicas on it
	Leaders  int    // shards whose preferred leader it is
}

// Assign places new shards with rf replicas each, or with one on every broker
// if there are fewer brokers than that. It gives the nodes of each shard; the
// first is its preferred leader.
//
// Zones come first: a shard's replicas are in as many zones as there are, and
// evenly so. Then counts of replicas are evened out, then leaderships, and
// last, whom a leader's shards would go to if it failed. From an even start,
// counts of replicas stay within one in each zone, and leaderships within one
// over all if the zones are of one size.
func Assign(shards, rf int, brokers []Broker) [][]stream.NodeID {
	a := assigner{brokers: slices.Clone(brokers), behind: make(map[pair]int)}
	slices.SortFunc(a.brokers, func(x, y Broker) int { return cmp.Compare(x.Node, y.Node) })
	rf = min(rf, len(brokers))
	placed := make([][]stream.NodeID, shards)
	if rf <= 0 {
		return placed
	}
	for range shards {
		a.picks = append(a.picks, a.pick(rf))
	}
	a.choose()
	a.even()
	for i := range placed {
		placed[i] = a.order(i)
	}
	return placed
}

type assigner struct {
	brokers []Broker     // by node; their counts grow
	picks   [][]int      // by shard: positions of its brokers
	leaders []int        // by shard: position of its leader
	led     [][]int      // by broker: the shards that it leads
	behind  map[pair]int // how many shards of a leader have this broker next in line
}

type pair struct{ leader, next int }

// pick gives the positions of the brokers of the next shard.
func (a *assigner) pick(rf int) []int {
	var picked []int
	inZone := make(map[string]int)
	for range rf {
		best := -1
		for i, b := range a.brokers {
			if slices.Contains(picked, i) {
				continue
			}
			if best < 0 || a.before(b, a.brokers[best], inZone) {
				best = i
			}
		}
		picked = append(picked, best)
		inZone[a.brokers[best].Zone]++
		a.brokers[best].Replicas++
	}
	return picked
}

func (a *assigner) before(x, y Broker, inZone map[string]int) bool {
	return cmp.Or(
		cmp.Compare(inZone[x.Zone], inZone[y.Zone]),
		cmp.Compare(x.Replicas, y.Replicas),
		cmp.Compare(x.Leaders, y.Leaders),
		cmp.Compare(x.Node, y.Node)) < 0
}

// choose gives each shard the leader that has the fewest leaderships so far.
func (a *assigner) choose() {
	for _, picked := range a.picks {
		leader := slices.MinFunc(picked, func(x, y int) int {
			return cmp.Or(cmp.Compare(a.brokers[x].Leaders, a.brokers[y].Leaders), cmp.Compare(x, y))
		})
		a.leaders = append(a.leaders, leader)
		a.brokers[leader].Leaders++
	}
}

// even relieves brokers until no chain leads to one that has two fewer. Each
// step lowers the sum of the squares of their counts, so it ends.
func (a *assigner) even() {
	a.led = make([][]int, len(a.brokers))
	for shard, leader := range a.leaders {
		a.led[leader] = append(a.led[leader], shard)
	}
	for again := true; again; {
		again = false
		for from := range a.brokers {
			for a.relieve(from) {
				again = true
			}
		}
	}
}

// relieve takes a leadership from a broker and gives it, along a chain of
// shards that have replicas in common, to the nearest that has two fewer. It is
// false if there is none.
func (a *assigner) relieve(from int) bool {
	enough := a.brokers[from].Leaders - 2
	if !slices.ContainsFunc(a.brokers, func(b Broker) bool { return b.Leaders <= enough }) {
		return false
	}
	path := []step{{from, -1, -1}}
	seen := make([]bool, len(a.brokers))
	seen[from] = true
	for i := 0; i < len(path); i++ {
		for _, shard := range a.led[path[i].broker] {
			for _, next := range a.picks[shard] {
				if seen[next] {
					continue
				}
				seen[next] = true
				path = append(path, step{next, shard, i})
				if a.brokers[next].Leaders <= enough {
					a.follow(path)
					return true
				}
			}
		}
	}
	return false
}

// step of a chain: the broker took over the shard from that of path[prev].
type step struct{ broker, shard, prev int }

// follow hands over along the chain that the last step of the path ends.
func (a *assigner) follow(path []step) {
	last := len(path) - 1
	a.brokers[path[0].broker].Leaders--
	a.brokers[path[last].broker].Leaders++
	for at := last; at > 0; at = path[at].prev {
		shard, to, from := path[at].shard, path[at].broker, path[path[at].prev].broker
		a.leaders[shard] = to
		i := slices.Index(a.led[from], shard)
		a.led[from] = slices.Delete(a.led[from], i, i+1)
		a.led[to] = append(a.led[to], shard)
	}
}

// order gives a shard's nodes: its leader and behind it the one that is
// seldomest there.
func (a *assigner) order(shard int) []stream.NodeID {
	leader := a.leaders[shard]
	rest := slices.DeleteFunc(slices.Clone(a.picks[shard]), func(b int) bool { return b == leader })
	slices.SortFunc(rest, func(x, y int) int {
		return cmp.Or(cmp.Compare(a.behind[pair{leader, x}], a.behind[pair{leader, y}]), cmp.Compare(x, y))
	})
	if len(rest) > 0 {
		a.behind[pair{leader, rest[0]}]++
	}
	nodes := []stream.NodeID{a.brokers[leader].Node}
	for _, b := range rest {
		nodes = append(nodes, a.brokers[b].Node)
	}
	return nodes
}
