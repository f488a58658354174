package placement

import (
	"cmp"
	"slices"

	"shardstream/stream"
)

// Spread gives shards that have all their replicas another one each, on a
// broker that has too few, so that the one on the fullest of its brokers
// can be dropped once the new one is in sync. It gives none when nothing is left
// to even out.
//
// Zones come first: a replica moves out of a zone that has two more of its shard
// than another. Then, without harm to that, replicas move from brokers that have
// at least two more than the one they go to; so counts are within one in each
// zone when it ends, where the shards allow that.
//
// shards are all that there are; those that have a replica too many already
// count as if it were dropped, and only those of their factor move. underway and
// limits are as for Repair.
func Spread(shards []Shard, brokers []Broker, underway map[stream.NodeID]int, limits Limits) []Place {
	s := newSpreader(shards, brokers, underway, limits.PerBroker)
	for _, out := range []func() bool{s.zoneMove, s.countMove} {
		for len(s.places) < limits.Total && out() {
		}
	}
	return s.places
}

type spreader struct {
	repairer
	at     map[stream.NodeID]int // position in brokers
	shards []spread              // that may move
	places []Place
}

// spread is a shard with the positions of its replicas' brokers.
type spread struct {
	Shard
	on     []int
	zones  map[string]int
	leader int // -1: none of these
	moved  bool
}

func newSpreader(shards []Shard, brokers []Broker, underway map[stream.NodeID]int, limit int) *spreader {
	s := &spreader{at: make(map[stream.NodeID]int)}
	s.brokers = slices.SortedFunc(slices.Values(brokers), func(x, y Broker) int { return cmp.Compare(x.Node, y.Node) })
	s.busy, s.limit = make(map[stream.NodeID]int), limit
	for i := range s.brokers {
		b := &s.brokers[i]
		s.at[b.Node], s.busy[b.Node], b.Replicas = i, underway[b.Node], 0
	}
	shards = slices.SortedFunc(slices.Values(shards), func(x, y Shard) int { return compareIDs(x.ID, y.ID) })
	for _, sh := range shards {
		for _, r := range sh.Replicas {
			if i, known := s.at[r.Node]; known && !r.Lost {
				s.brokers[i].Replicas++
			}
		}
	}
	for _, sh := range shards {
		sp := spread{Shard: sh, zones: make(map[string]int), leader: -1}
		whole := len(sh.Replicas) == sh.Factor
		for _, r := range sh.Replicas {
			i, known := s.at[r.Node]
			if !known || r.Lost {
				whole = false
				continue
			}
			sp.on = append(sp.on, i)
			sp.zones[s.brokers[i].Zone]++
			if r.Leader {
				sp.leader = i
			}
			whole = whole && r.Able
		}
		if len(sp.on) > sh.Factor {
			s.brokers[s.fullest(sp)].Replicas--
		}
		if whole && len(sp.on) > 0 {
			s.shards = append(s.shards, sp)
		}
	}
	return s
}

// fullest gives the broker that has the shard and can do without it best.
func (s *spreader) fullest(sp spread) int {
	return slices.MinFunc(sp.on, func(x, y int) int {
		bx, by := s.brokers[x], s.brokers[y]
		return cmp.Or(-cmp.Compare(sp.zones[bx.Zone], sp.zones[by.Zone]), -cmp.Compare(bx.Replicas, by.Replicas), cmp.Compare(x, y))
	})
}

// zoneMove begins one move that spreads a shard over zones more evenly.
func (s *spreader) zoneMove() bool {
	for i := range s.shards {
		sp := &s.shards[i]
		if sp.moved {
			continue
		}
		from := s.fullest(*sp)
		to := s.emptiest(sp, func(b Broker) bool { return sp.zones[b.Zone]+1 < sp.zones[s.brokers[from].Zone] })
		if to >= 0 {
			s.move(sp, from, to)
			return true
		}
	}
	return false
}

// emptiest gives the broker with the fewest replicas of those that don't have
// the shard, are free and satisfy ok; -1 if there is none.
func (s *spreader) emptiest(sp *spread, ok func(Broker) bool) int {
	best := -1
	for i, b := range s.brokers {
		if s.busy[b.Node] >= s.limit || slices.Contains(sp.on, i) || !ok(b) {
			continue
		}
		if best < 0 || cmp.Or(cmp.Compare(sp.zones[b.Zone], sp.zones[s.brokers[best].Zone]), cmp.Compare(b.Replicas, s.brokers[best].Replicas)) < 0 {
			best = i
		}
	}
	return best
}

// countMove begins one move between the two brokers furthest apart that have a
// shard which can move; one that the giving broker does not lead, if possible.
func (s *spreader) countMove() bool {
	order := make([]int, len(s.brokers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(s.brokers[x].Replicas, s.brokers[y].Replicas) })
	for _, to := range order {
		b := s.brokers[to]
		if s.busy[b.Node] >= s.limit {
			continue
		}
		for _, from := range slices.Backward(order) {
			if s.brokers[from].Replicas < b.Replicas+2 {
				break
			}
			if sp := s.movable(from, to); sp != nil {
				s.move(sp, from, to)
				return true
			}
		}
	}
	return false
}

func (s *spreader) movable(from, to int) (best *spread) {
	zoneFrom, zoneTo := s.brokers[from].Zone, s.brokers[to].Zone
	for i := range s.shards {
		sp := &s.shards[i]
		switch {
		case sp.moved || !slices.Contains(sp.on, from) || slices.Contains(sp.on, to):
		case zoneFrom != zoneTo && sp.zones[zoneTo] >= sp.zones[zoneFrom]:
		case sp.leader != from:
			return sp
		case best == nil:
			best = sp
		}
	}
	return best
}

func (s *spreader) move(sp *spread, from, to int) {
	sp.moved = true
	s.brokers[from].Replicas--
	s.brokers[to].Replicas++
	s.busy[s.brokers[to].Node]++
	s.places = append(s.places, Place{sp.ID, s.brokers[to].Node})
}
