package placement

import (
	"cmp"
	"slices"

	"shardstream/stream"
)

// Member is a server that takes part in the metadata's raft.
type Member struct {
	ID     string // of the raft server
	Node   stream.NodeID
	Zone   string
	Voter  bool
	Well   bool // has been alive for a while
	Dead   bool // has not been for a while; neither, and it is too early to say
	Leader bool // leads raft: keeps its vote
}

// VoterChange is one step; at most one of the two is set.
type VoterChange struct {
	Promote, Demote string // ids of raft servers
}

// Seats gives how many of so many members vote: an odd number, since an even
// one needs one more to agree and bears no more deaths.
func Seats(members int) int {
	switch {
	case members >= 5:
		return 5
	case members >= 3:
		return 3
	}
	return 1
}

// Voters gives the next change of the voters, one at a time: enough of them,
// spread over the zones, dead ones replaced. A dead one keeps its vote until
// another has been promoted, since there is one more copy of the log meanwhile,
// and if there is nobody to promote it keeps it for good: one voter less makes
// nothing better.
func Voters(members []Member) VoterChange {
	members = slices.SortedFunc(slices.Values(members), func(x, y Member) int { return cmp.Compare(x.ID, y.ID) })
	v := voters{inZone: make(map[string]int)}
	for _, m := range members {
		switch {
		case m.Voter && m.Dead:
			v.dead = append(v.dead, m)
		case m.Voter:
			v.alive = append(v.alive, m)
			v.inZone[m.Zone]++
		case m.Well:
			v.waiting = append(v.waiting, m)
		}
	}
	seats := Seats(len(members))
	switch {
	case len(v.alive)+len(v.dead) > seats:
		return VoterChange{Demote: v.surplus()}
	case len(v.alive) < seats:
		return VoterChange{Promote: v.next(seats)}
	}
	return v.spread()
}

type voters struct {
	alive, dead []Member // that vote
	waiting     []Member // that could
	inZone      map[string]int
}

// next gives whom to promote: from the zone with fewest voters. Without a dead
// voter to replace, their number grows by two or not at all.
func (v voters) next(seats int) string {
	all := len(v.alive) + len(v.dead)
	if len(v.waiting) == 0 || len(v.dead) == 0 && all%2 == 1 && len(v.waiting) == 1 {
		return ""
	}
	return slices.MinFunc(v.waiting, func(x, y Member) int { return cmp.Compare(v.inZone[x.Zone], v.inZone[y.Zone]) }).ID
}

// surplus gives who votes no longer: a dead one, or one of the zone with most.
func (v voters) surplus() string {
	if len(v.dead) > 0 {
		return v.dead[len(v.dead)-1].ID
	}
	rest := slices.DeleteFunc(slices.Clone(v.alive), func(m Member) bool { return m.Leader })
	if len(rest) == 0 {
		return ""
	}
	return slices.MaxFunc(rest, func(x, y Member) int {
		return cmp.Or(cmp.Compare(v.inZone[x.Zone], v.inZone[y.Zone]), cmp.Compare(x.ID, y.ID))
	}).ID
}

// spread promotes a member of a zone that has two voters fewer than another;
// that other's surplus goes next.
func (v voters) spread() VoterChange {
	if len(v.dead) > 0 || len(v.waiting) == 0 {
		return VoterChange{}
	}
	crowded := 0
	for _, m := range v.alive {
		if !m.Leader || v.inZone[m.Zone] > 1 {
			crowded = max(crowded, v.inZone[m.Zone])
		}
	}
	best := slices.MinFunc(v.waiting, func(x, y Member) int { return cmp.Compare(v.inZone[x.Zone], v.inZone[y.Zone]) })
	if v.inZone[best.Zone]+2 <= crowded {
		return VoterChange{Promote: best.ID}
	}
	return VoterChange{}
}
