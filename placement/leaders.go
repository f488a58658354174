package placement

import (
	"cmp"
	"slices"

	"shardstream/stream"
)

// Shard is a shard that exists, as placement sees it.
type Shard struct {
	ID       stream.ShardID
	Factor   int       // replicas that it should have
	Replicas []Replica // as placed: the first one's broker is its preferred leader
}

// Replica is one copy of a shard.
type Replica struct {
	Node   stream.NodeID
	Leader bool
	// Able says that it may be given the leadership now: in sync, undamaged, on
	// a broker that is well and wanted.
	Able bool
	// Lost says that it will not be there for long: its disk is gone, or its
	// broker is dead or leaves. Another one has to take its place.
	Lost bool
}

// Move gives the leadership of a shard to its replica on a broker.
type Move struct {
	Shard stream.ShardID
	To    stream.NodeID
}

// PreferredLeaders gives the moves that bring leaderships back to where they
// should be: to the first replica in the order of placement that is able, or,
// where that would burden one broker with two more than another that could
// lead in its place, along the shortest way to that one.
//
// Where a shard should be led does not depend on where it is led now. So a
// shard that is led by the right one is left alone, and once the moves are
// done, there are none to make.
func PreferredLeaders(shards []Shard) []Move {
	shards = slices.SortedFunc(slices.Values(shards), func(x, y Shard) int { return compareIDs(x.ID, y.ID) })
	a := assigner{brokers: ableBrokers(shards)}
	var movable []Shard
	for _, sh := range shards {
		var able []int
		for _, r := range sh.Replicas {
			if r.Able {
				able = append(able, a.position(r.Node))
			}
		}
		if len(able) == 0 {
			continue // an election is not for this
		}
		movable = append(movable, sh)
		a.picks = append(a.picks, able)
		a.leaders = append(a.leaders, able[0])
		a.brokers[able[0]].Leaders++
	}
	a.even()
	var moves []Move
	for i, sh := range movable {
		to := a.brokers[a.leaders[i]].Node
		if !slices.ContainsFunc(sh.Replicas, func(r Replica) bool { return r.Leader && r.Node == to }) {
			moves = append(moves, Move{sh.ID, to})
		}
	}
	return moves
}

// ableBrokers gives all brokers that some shard could be led by, by node.
func ableBrokers(shards []Shard) []Broker {
	var nodes []stream.NodeID
	for _, sh := range shards {
		for _, r := range sh.Replicas {
			if r.Able {
				nodes = append(nodes, r.Node)
			}
		}
	}
	slices.Sort(nodes)
	var brokers []Broker
	for _, node := range slices.Compact(nodes) {
		brokers = append(brokers, Broker{Node: node})
	}
	return brokers
}

func (a *assigner) position(node stream.NodeID) int {
	i, _ := slices.BinarySearchFunc(a.brokers, node, func(b Broker, n stream.NodeID) int { return cmp.Compare(b.Node, n) })
	return i
}

func compareIDs(x, y stream.ShardID) int {
	return cmp.Or(cmp.Compare(x.Stream, y.Stream), cmp.Compare(x.Number, y.Number))
}
