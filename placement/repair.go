package placement

import (
	"cmp"
	"slices"

	"shardstream/stream"
)

// Place puts a new replica of a shard on a broker.
type Place struct {
	Shard stream.ShardID
	Node  stream.NodeID
}

// Limits bounds what Repair begins at a time.
type Limits struct {
	Total     int // replicas in one call
	PerBroker int // replicas of one broker that are under way, those before counted
}

// Repair gives new replicas to shards that have fewer lasting ones than their
// factor: one for each shard and call, those first that miss most. brokers are
// the ones that may take replicas; underway counts, for each, the replicas that
// it is still filling.
//
// The new one goes to a zone that has fewest of the shard's lasting replicas,
// and there to the broker that has fewest. A shard whose best zone has no
// broker free at the moment waits: another zone would be for good.
func Repair(shards []Shard, brokers []Broker, underway map[stream.NodeID]int, limits Limits) []Place {
	shards = slices.SortedFunc(slices.Values(shards), func(x, y Shard) int {
		return cmp.Or(cmp.Compare(y.missing(), x.missing()), compareIDs(x.ID, y.ID))
	})
	r := repairer{
		brokers: slices.SortedFunc(slices.Values(brokers), func(x, y Broker) int { return cmp.Compare(x.Node, y.Node) }),
		zones:   make(map[stream.NodeID]string), busy: make(map[stream.NodeID]int), limit: limits.PerBroker,
	}
	for _, b := range brokers {
		r.zones[b.Node], r.busy[b.Node] = b.Zone, underway[b.Node]
	}
	var places []Place
	for _, sh := range shards {
		if sh.missing() <= 0 || len(places) >= limits.Total {
			break
		}
		if node, ok := r.place(sh); ok {
			places = append(places, Place{sh.ID, node})
		}
	}
	return places
}

// missing gives how many replicas the shard lacks.
func (s Shard) missing() int {
	lasting := 0
	for _, r := range s.Replicas {
		if !r.Lost {
			lasting++
		}
	}
	return s.Factor - lasting
}

type repairer struct {
	brokers []Broker // by node; their counts grow
	zones   map[stream.NodeID]string
	busy    map[stream.NodeID]int
	limit   int
}

func (r *repairer) place(sh Shard) (stream.NodeID, bool) {
	inZone := make(map[string]int)
	for _, old := range sh.Replicas {
		if zone, known := r.zones[old.Node]; known && !old.Lost {
			inZone[zone]++
		}
	}
	best := -1
	for i, b := range r.brokers {
		// Not even beside a lost copy of its own: that one comes back with its disk.
		if slices.ContainsFunc(sh.Replicas, func(old Replica) bool { return old.Node == b.Node }) {
			continue
		}
		if best < 0 || cmp.Or(
			cmp.Compare(inZone[b.Zone], inZone[r.brokers[best].Zone]),
			compareBool(r.busy[b.Node] >= r.limit, r.busy[r.brokers[best].Node] >= r.limit),
			cmp.Compare(b.Replicas, r.brokers[best].Replicas),
			cmp.Compare(b.Leaders, r.brokers[best].Leaders)) < 0 {
			best = i
		}
	}
	if best < 0 || r.busy[r.brokers[best].Node] >= r.limit {
		return "", false
	}
	b := &r.brokers[best]
	b.Replicas++
	r.busy[b.Node]++
	return b.Node, true
}

func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case y:
		return -1
	}
	return 1
}
