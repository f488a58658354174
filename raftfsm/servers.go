package raftfsm

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"shardstream/stream"
)

// Server is a member of raft's cluster: a node with one disk.
type Server struct {
	ID     string // ServerID of node and disk
	NodeID string
	Addr   string // as the raft log has it; empty for a node without a network
	Voter  bool
}

// ServerID names a node and its disk: a node whose disk was emptied is another
// server, and cannot vote twice in one term (I18).
func ServerID(node, disk string) string { return node + "/" + disk[:min(8, len(disk))] }

// NodeOf gives the node of a server.
func NodeOf(serverID string) string {
	if i := strings.LastIndexByte(serverID, '/'); i >= 0 {
		return serverID[:i]
	}
	return serverID
}

// Servers gives the members by this node's copy of the raft log; the last
// change may not be committed yet.
func (n *Node) Servers() []Server {
	var all []Server
	for _, s := range n.configuration().Servers {
		_, addr := splitPeer(s.Address)
		all = append(all, Server{ID: string(s.ID), NodeID: NodeOf(string(s.ID)), Addr: addr, Voter: s.Suffrage == raft.Voter})
	}
	return all
}

func (n *Node) configuration() raft.Configuration {
	// Not a question to raft's main loop: the future is answered already.
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return raft.Configuration{}
	}
	return f.Configuration()
}

// alone tells that no other server takes part.
func (n *Node) alone() bool { return len(n.configuration().Servers) <= 1 }

// soleVoter tells that this node needs nobody's vote.
func (n *Node) soleVoter() bool {
	voters, mine := 0, false
	for _, s := range n.configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
			mine = mine || s.ID == n.id
		}
	}
	return voters == 1 && mine
}

// AddServer adds a server, makes a nonvoter a voter, or notes a server's new
// address. To make a voter a nonvoter takes DemoteServer. Only the raft leader
// can; one change at a time.
func (n *Node) AddServer(ctx context.Context, id, addr string, voter bool) error {
	const op = "raftfsm.AddServer"
	server, address := raft.ServerID(id), peerAddress(raft.ServerID(id), addr)
	for _, s := range n.configuration().Servers {
		if s.ID == server && s.Address == address && (s.Suffrage == raft.Voter || !voter) {
			return n.mustLead(op)
		}
	}
	return n.change(ctx, op, func(wait time.Duration) raft.Future {
		if voter {
			return n.raft.AddVoter(server, address, 0, wait)
		}
		return n.raft.AddNonvoter(server, address, 0, wait)
	})
}

// DemoteServer makes a voter a nonvoter.
func (n *Node) DemoteServer(ctx context.Context, id string) error {
	return n.change(ctx, "raftfsm.DemoteServer", func(wait time.Duration) raft.Future {
		return n.raft.DemoteVoter(raft.ServerID(id), 0, wait)
	})
}

// RemoveServer removes a server. It is not told; since it is no member any
// longer, nobody votes for it.
func (n *Node) RemoveServer(ctx context.Context, id string) error {
	return n.change(ctx, "raftfsm.RemoveServer", func(wait time.Duration) raft.Future {
		return n.raft.RemoveServer(raft.ServerID(id), 0, wait)
	})
}

func (n *Node) mustLead(op string) error {
	if r, _ := n.role.load(); !r.leading {
		return stream.Errorf(stream.NotLeader, op, "this node does not lead raft")
	}
	return nil
}

// change carries out a change of the members. It fails as Propose does.
func (n *Node) change(ctx context.Context, op string, begin func(wait time.Duration) raft.Future) error {
	if err := n.mustLead(op); err != nil {
		return err
	}
	answered := make(chan error, 1)
	wait := timeLeft(ctx)
	if !n.start(func() { answered <- n.await(begin(wait)) }) {
		return errClosed(op)
	}
	select {
	case err := <-answered:
		if err != nil {
			return applyError(op, err)
		}
		return nil
	case <-ctx.Done():
		return stream.Errorf(stream.Timeout, op, "the outcome is unknown: %w", context.Cause(ctx))
	}
}

// timeLeft gives the time until the context's deadline, 0 if it has none: raft
// takes that for no limit.
func timeLeft(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), time.Nanosecond)
	}
	return 0
}

// noteOwnAddress puts this node's address into the raft log if another one is
// there: it had no network before, or has moved.
func (n *Node) noteOwnAddress() {
	if n.layer == nil {
		return
	}
	for _, s := range n.configuration().Servers {
		if want := peerAddress(n.id, n.layer.advertise); s.ID == n.id && s.Suffrage == raft.Voter && s.Address != want {
			// If it fails, the next leadership tries again; nothing depends on it
			// while the address book has the node.
			_ = n.await(n.raft.AddVoter(n.id, want, 0, 0))
			return
		}
	}
}

// Leader gives the raft leader's node and raft address, both empty if none is
// known.
func (n *Node) Leader() (node, addr string) {
	address, id := n.raft.LeaderWithID()
	_, addr = splitPeer(address)
	return NodeOf(string(id)), addr
}

// ID gives this node's server id.
func (n *Node) ID() string { return string(n.id) }

// Status is what raft knows of itself.
type Status struct {
	Term     uint64
	Last     uint64 // index of the last entry in the log
	Commit   uint64 // highest index known to be committed
	Applied  uint64 // highest index that the state has
	Leading  bool
	LeaderID string // server id; empty: none is known
}

// Status gives figures for people.
func (n *Node) Status() Status {
	_, leader := n.raft.LeaderWithID()
	r, _ := n.role.load()
	seen, _ := n.fsm.seen.load()
	return Status{
		Term: n.raft.CurrentTerm(), Last: n.raft.LastIndex(), Commit: n.raft.CommitIndex(), Applied: seen,
		Leading: r.leading, LeaderID: string(leader),
	}
}

// transferLimit is how long a leadership transfer may take: raft gives up
// after its election timeout, unless it is stuck.
const transferLimit = 5 * time.Second

// TransferLeadership gives the raft leadership to the voter that has most of
// the log. For a controlled stop only: it has no effect on another than the
// leader. A transfer that gets stuck stops the node, since raft would refuse
// all commands for ever while it leads.
func (n *Node) TransferLeadership(ctx context.Context) error {
	const op = "raftfsm.TransferLeadership"
	if r, _ := n.role.load(); !r.leading {
		return nil
	}
	answered := make(chan error, 1)
	n.closing.Lock()
	select {
	case <-n.done:
		n.closing.Unlock()
		return errClosed(op)
	default:
	}
	// Not one of the calls that Close waits for before it stops raft: that is
	// what ends a stuck one.
	n.wg.Go(func() { answered <- n.transfer() })
	n.closing.Unlock()
	select {
	case err := <-answered:
		if err != nil {
			return stream.Errorf(stream.Unavailable, op, "%w", err)
		}
		return nil
	case <-ctx.Done():
		return stream.Errorf(stream.Timeout, op, "%w", context.Cause(ctx))
	}
}

var errStuck = errors.New("raft's leadership transfer is stuck")

func (n *Node) transfer() error {
	answered := make(chan error, 1)
	future := n.raft.LeadershipTransfer()
	go func() { answered <- future.Error() }() // lost if raft is stuck: see await
	limit := time.NewTimer(transferLimit)
	defer limit.Stop()
	select {
	case err := <-answered:
		if errors.Is(err, raft.ErrNotLeader) {
			return nil // lost already
		}
		return err
	case <-n.stopped:
		return raft.ErrRaftShutdown
	case <-limit.C:
		n.failure.tell(stream.Errorf(stream.Internal, "raftfsm.TransferLeadership", "%w", errStuck))
		return errStuck
	}
}
