package broker

import (
	"context"
	"time"

	"shardstream/placement"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

const (
	// seatPatience is how long a node must have been well to vote, and a voter
	// gone to lose its vote.
	seatPatience = 30 * time.Second
	// seatSwapPatience is that of a node which has come back with another disk,
	// whose old server is gone for certain, and of all who don't vote while the
	// number of voters is even: until there is one more, the metadata bears one
	// death less.
	seatSwapPatience = 2 * time.Second
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

func (k seatKeeper) has(node string, well bool, now time.Time, patience time.Duration) bool {
	s, known := k.since[node]
	return known && s.well == well && now.Sub(s.at) >= patience
}

// next gives the next change, one at a time: who votes is placement's to say,
// of what is known of the servers here. self leads raft, and keeps its seat.
//
// A server on another disk than its node has registered (I18) is one that was
// emptied or one that is about to register. Once the node is well, it can only
// be the former, and is removed; until then its vote is that of a dead one.
func (k seatKeeper) next(now time.Time, self string, brokers []*pb.Broker, servers []raftfsm.Server) seatChange {
	byNode := make(map[string]*pb.Broker, len(brokers))
	for _, b := range brokers {
		byNode[b.NodeId] = b
	}
	var members []placement.Member
	byID := make(map[string]raftfsm.Server, len(servers))
	patience := make(map[string]time.Duration)
	voters := 0
	for _, s := range servers {
		if s.Voter {
			voters++
		}
	}
	for _, s := range servers {
		b := byNode[s.NodeID]
		if patience[s.NodeID] == 0 {
			patience[s.NodeID] = seatPatience
		}
		if !s.Voter && voters%2 == 0 {
			patience[s.NodeID] = seatSwapPatience
		}
		if b != nil && s.ID != raftfsm.ServerID(b.NodeId, b.DiskId) {
			patience[s.NodeID] = seatSwapPatience
		}
	}
	for _, s := range servers {
		b := byNode[s.NodeID]
		otherDisk := b != nil && s.ID != raftfsm.ServerID(b.NodeId, b.DiskId)
		switch {
		case b.GetState() == pb.BrokerState_BROKER_STATE_GONE:
			return seatChange{seatRemove, s, "its broker was removed from the cluster"}
		case otherDisk && k.has(s.NodeID, true, now, patience[s.NodeID]):
			return seatChange{seatRemove, s, "its node has another disk now"}
		case otherDisk && !s.Voter:
			continue
		}
		byID[s.ID] = s
		members = append(members, placement.Member{
			ID: s.ID, Node: stream.NodeID(s.NodeID), Zone: b.GetZone(), Voter: s.Voter, Leader: s.NodeID == self && !otherDisk,
			Well: !otherDisk && k.has(s.NodeID, true, now, patience[s.NodeID]), Dead: otherDisk || k.has(s.NodeID, false, now, seatPatience),
		})
	}
	switch change := placement.Voters(members); {
	case change.Promote != "":
		return seatChange{seatPromote, byID[change.Promote], "there are too few voters that are well, or too many in one zone"}
	case change.Demote != "":
		return seatChange{seatDemote, byID[change.Demote], "there are more voters than needed"}
	}
	return seatChange{}
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
