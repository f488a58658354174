package raftfsm

import (
	"time"

	"github.com/hashicorp/raft"
)

// Raft's timers. They are long, since shorter ones never settle when cores are
// starved; elections become quick by evidence.
const (
	raftTimeout = time.Second
	leaderLease = 500 * time.Millisecond

	// While the leader is suspected, a follower's patience goes from
	// suspectFrom down to the lease, below which raft does not let it go. Each
	// step makes the follower look again.
	suspectFrom  = leaderLease + 40*time.Millisecond
	suspectStep  = 2 * time.Millisecond
	suspectEvery = 25 * time.Millisecond
	suspectFor   = 4 * time.Second // at most, without an election
)

// LeaderSuspect tells the node that the raft leader's process is dead by some
// evidence, such as a refused dial: it then waits for no longer than the
// leader's lease. It does no harm if that is wrong: a leader that is heard is
// followed.
func (n *Node) LeaderSuspect() {
	select {
	case n.suspects <- struct{}{}:
	default:
	}
}

func (n *Node) suspectLoop() {
	for {
		select {
		case <-n.suspects:
		case <-n.done:
			return
		}
		n.hurry()
	}
}

// hurry lowers the timers until another term has a leader.
func (n *Node) hurry() {
	term := n.raft.CurrentTerm()
	defer n.setTimers(raftTimeout, raftTimeout)
	began := time.Now()
	// Two that ask for votes at the same moment get only their own; so each has
	// its own part of a step.
	select {
	case <-time.After(n.turn()):
	case <-n.done:
		return
	}
	ticker := time.NewTicker(suspectEvery)
	defer ticker.Stop()
	patience := suspectFrom
	for time.Since(began) < suspectFor {
		if r, _ := n.role.load(); r.leading || r.known && n.raft.CurrentTerm() > term {
			return
		}
		// A vote that was lost is repeated sooner, too.
		n.setTimers(patience, suspectFrom)
		patience = max(patience-suspectStep, leaderLease)
		select {
		case <-ticker.C:
		case <-n.done:
			return
		}
	}
}

// turn gives the node's own part of suspectEvery, by its place among the voters.
func (n *Node) turn() time.Duration {
	before, voters := 0, 1
	for _, s := range n.configuration().Servers {
		if s.Suffrage == raft.Voter && s.ID != n.id {
			voters++
			if s.ID < n.id {
				before++
			}
		}
	}
	return suspectEvery * time.Duration(before) / time.Duration(voters)
}

// setTimers changes raft's timers; a shorter patience counts at once.
func (n *Node) setTimers(heartbeat, election time.Duration) {
	r := n.raft.ReloadableConfig()
	r.HeartbeatTimeout, r.ElectionTimeout = heartbeat, election
	if err := n.raft.ReloadConfig(r); err != nil {
		n.failure.cfg.Logger.Error("raft refused its timers", "error", err)
	}
}

// electNow makes a node that needs nobody's vote lead at once.
func (n *Node) electNow() {
	if n.raft.State() == raft.Follower && n.soleVoter() {
		n.setTimers(raftTimeout-time.Millisecond, raftTimeout)
		n.setTimers(raftTimeout, raftTimeout)
	}
}
