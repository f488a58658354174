package broker

import (
	"cmp"
	"context"
	"slices"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
)

const (
	// seatPatience is how long a node must have been well to vote, and a voter
	// gone to lose its vote.
	seatPatience = 30 * time.Second
	// seatPause is the least time between two changes of the voters.
	seatPause = time.Second
	// seatTimeout bounds one change.
	seatTimeout = 10 * time.Second
)

// seatAction is what to do with a raft server.
type seatAction uint8

const (
	seatNone seatAction = iota
	seatPromote
	seatDemote
	seatRemove
)

// seatChange is one step towards the voters that the cluster should have.
type seatChange struct {
	action seatAction
	server raftfsm.Server
	reason string
}

// seatKeeper decides who votes in the metadata's raft. It is pure and holds
// only since when nodes have been as they are.
type seatKeeper struct {
	since map[string]seatState
}

type seatState struct {
	well bool
	at   time.Time
}

func newSeatKeeper() seatKeeper { return seatKeeper{since: make(map[string]seatState)} }

// observe notes how the nodes are. One that is seen for the first time has been
// so from now on.
func (k seatKeeper) observe(now time.Time, well map[string]bool) {
	for node, is := range well {
		if old, known := k.since[node]; !known || old.well != is {
			k.since[node] = seatState{is, now}
		}
	}
	for node := range k.since {
		if _, known := well[node]; !known {
			delete(k.since, node)
		}
	}
}

func (k seatKeeper) has(node string, well bool, now time.Time) bool {
	s, known := k.since[node]
	return known && s.well == well && now.Sub(s.at) >= seatPatience
}

// seatsFor is how many nodes vote: an odd number, since an even one needs one
// more to agree and bears no more deaths.
func seatsFor(brokers int) int {
	switch {
	case brokers >= 5:
		return 5
	case brokers >= 3:
		return 3
	}
	return 1
}

// next gives the next change, one at a time. self leads raft, and keeps its seat.
//
// A dead voter stays until another has been promoted: in between both ways
// bear no further death, but this one has one more copy of the log. A server on
// another disk than its node has registered (I18) is one that was emptied or one
// that is about to register; once the node is well, it can only be the former.
func (k seatKeeper) next(now time.Time, self string, brokers []*pb.Broker, servers []raftfsm.Server) seatChange {
	byNode := make(map[string]*pb.Broker, len(brokers))
	counted := make(map[string]bool)
	for _, s := range servers {
		counted[s.NodeID] = true // founders vote before they have registered
	}
	for _, b := range brokers {
		byNode[b.NodeId] = b
		if b.State != pb.BrokerState_BROKER_STATE_GONE {
			counted[b.NodeId] = true
		}
	}
	servers = slices.SortedFunc(slices.Values(servers), func(a, b raftfsm.Server) int { return cmp.Compare(a.ID, b.ID) })
	var voters, others []raftfsm.Server
	former := make(map[string]bool) // ids of servers on another disk than their node's
	for _, s := range servers {
		b := byNode[s.NodeID]
		switch {
		case b != nil && b.State == pb.BrokerState_BROKER_STATE_GONE:
			return seatChange{seatRemove, s, "its broker was removed from the cluster"}
		case b != nil && s.ID != raftfsm.ServerID(b.NodeId, b.DiskId):
			if k.has(s.NodeID, true, now) {
				return seatChange{seatRemove, s, "its node has another disk now"}
			}
			if s.Voter {
				voters = append(voters, s)
				former[s.ID] = true
			}
		case s.Voter:
			voters = append(voters, s)
		default:
			others = append(others, s)
		}
	}
	zones := make(map[string]int)
	dead := 0
	for _, v := range voters {
		if former[v.ID] || k.has(v.NodeID, false, now) {
			dead++
		} else {
			zones[byNode[v.NodeID].GetZone()]++
		}
	}
	seats := seatsFor(len(counted))
	if len(voters) > seats {
		return k.oneTooMany(now, self, voters, byNode, zones)
	}
	if len(voters)-dead >= seats {
		return seatChange{}
	}
	var best raftfsm.Server
	candidates := 0
	for _, s := range others {
		if !k.has(s.NodeID, true, now) {
			continue
		}
		candidates++
		if best.ID == "" || zones[byNode[s.NodeID].GetZone()] < zones[byNode[best.NodeID].GetZone()] {
			best = s
		}
	}
	// An odd number grows by two, one right after the other.
	if candidates == 0 || candidates == 1 && dead == 0 && len(voters)%2 == 1 {
		return seatChange{}
	}
	return seatChange{seatPromote, best, "there are too few voters that are well"}
}

// oneTooMany chooses who votes no more: a dead one, else one of the zone that
// has most, never the leader.
func (k seatKeeper) oneTooMany(now time.Time, self string, voters []raftfsm.Server, byNode map[string]*pb.Broker, zones map[string]int) seatChange {
	var best raftfsm.Server
	rank := func(s raftfsm.Server) int {
		if k.has(s.NodeID, false, now) {
			return len(voters) + 1
		}
		return zones[byNode[s.NodeID].GetZone()]
	}
	for _, s := range voters {
		if s.NodeID != self && (best.ID == "" || rank(s) >= rank(best)) {
			best = s
		}
	}
	if best.ID == "" {
		return seatChange{}
	}
	return seatChange{seatDemote, best, "there are more voters than needed"}
}

// keepSeats begins the next change of the voters, if there is one to make.
func (c *controller) keepSeats(ctx context.Context, now time.Time, state *raftfsm.State) {
	if c.servers == nil || c.seating != nil {
		return
	}
	well := make(map[string]bool)
	c.mu.Lock()
	for _, b := range state.Brokers() {
		well[b.NodeId] = b.State == pb.BrokerState_BROKER_STATE_LIVE && (b.NodeId == c.control.node || c.detector.heard(b.NodeId, b.Incarnation, now))
	}
	c.mu.Unlock()
	c.seats.observe(now, well)
	change := c.seats.next(now, c.control.node, state.Brokers(), c.servers.Servers())
	if change.action == seatNone {
		return
	}
	done := make(chan struct{})
	c.seating = done
	c.tasks.Go(func() {
		defer close(done)
		c.seat(ctx, change)
		pause(ctx, seatPause)
	})
}

func (c *controller) seat(ctx context.Context, change seatChange) {
	ctx, cancel := context.WithTimeout(ctx, seatTimeout)
	defer cancel()
	var err error
	what := ""
	switch s := change.server; change.action {
	case seatPromote:
		what, err = "promoted", c.servers.AddServer(ctx, s.ID, s.Addr, true)
	case seatDemote:
		what, err = "demoted", c.servers.DemoteServer(ctx, s.ID)
	case seatRemove:
		what, err = "removed", c.servers.RemoveServer(ctx, s.ID)
	}
	switch {
	case err == nil:
		c.cfg.Logger.Info("the voters of the metadata have changed", "server", change.server.ID, "is", what, "because", change.reason)
	case ctx.Err() == nil:
		c.cfg.Logger.Warn("the voters of the metadata could not be changed yet; it is tried again", "server", change.server.ID, "not", what, "error", err)
	}
}
