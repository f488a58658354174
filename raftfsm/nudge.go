package raftfsm

import (
	"github.com/hashicorp/raft"

	pb "shardstream/proto/shardstream/v1"
)

// urgent tells whether followers must hear at once that a command is committed.
// They learn that from the leader's next message only, which in quiet times
// comes up to two CommitTimeouts later.
func urgent(c *pb.Command) bool {
	switch c.GetOp().(type) {
	case *pb.Command_FenceBroker, *pb.Command_UnfenceBroker, *pb.Command_StopBroker, *pb.Command_RegisterBroker,
		*pb.Command_AlterInSync, *pb.Command_MoveLeaders, *pb.Command_MarkSuspect:
		return true
	}
	return false
}

// Nudge makes the followers hear soon of all that is committed now. Propose
// does it by itself after what is urgent.
func (n *Node) Nudge() {
	select {
	case n.nudges <- struct{}{}:
	default: // one is waiting to begin, which will do for this one too
	}
}

// nudgeLoop appends an entry without content for each nudge, one at a time: the
// message that carries it has the commit index.
func (n *Node) nudgeLoop() {
	for {
		select {
		case <-n.nudges:
		case <-n.done:
			return
		}
		if r, _ := n.role.load(); r.leading && !n.alone() {
			_ = n.barrier() // who lost the leadership has nothing to tell
		}
	}
}

// barrier waits until everything before it is in the state. Raft does not tell
// the FSM of its entry, which changes no metadata; without noting it, readers
// would wait for an index that the state never gets.
func (n *Node) barrier() error {
	b := n.raft.Barrier(0)
	if err := n.await(b); err != nil {
		return err
	}
	n.fsm.reached(b.(raft.IndexFuture).Index())
	return nil
}
