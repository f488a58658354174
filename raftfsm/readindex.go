package raftfsm

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"

	"shardstream/stream"
)

type readResult struct {
	index uint64
	err   error
}

// ReadIndex gives an index with this promise: a copy of the state that has
// reached it shows everything that was committed when ReadIndex was called. The
// raft leader asks a majority for each answer; callers that wait at the same
// time share one question. It fails with Kind NotLeader or Unavailable.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	const op = "raftfsm.ReadIndex"
	reply := make(chan readResult, 1)
	select {
	case n.reads <- reply:
	case <-ctx.Done():
		return 0, stream.Errorf(stream.Unavailable, op, "%w", context.Cause(ctx))
	case <-n.done:
		return 0, errClosed(op)
	}
	select {
	case r := <-reply:
		return r.index, r.err
	case <-ctx.Done():
		return 0, stream.Errorf(stream.Unavailable, op, "%w", context.Cause(ctx))
	case <-n.done:
		return 0, errClosed(op)
	}
}

// readLoop answers all the callers that wait with one verification, begun
// after the last of them came.
func (n *Node) readLoop() {
	var waiting []chan readResult
	for {
		select {
		case reply := <-n.reads:
			waiting = append(waiting[:0], reply)
		case <-n.done:
			return
		}
		for more := true; more; {
			select {
			case reply := <-n.reads:
				waiting = append(waiting, reply)
			default:
				more = false
			}
		}
		index, err := n.verifiedIndex()
		for _, reply := range waiting {
			reply <- readResult{index, err}
		}
	}
}

func (n *Node) verifiedIndex() (uint64, error) {
	const op = "raftfsm.ReadIndex"
	if r, _ := n.role.load(); !r.leading {
		return 0, stream.Errorf(stream.NotLeader, op, "this node does not lead raft")
	} else if !r.ready {
		// A leader does not know what is committed before its first own entry is.
		return 0, stream.Errorf(stream.Unavailable, op, notReady)
	}
	committed := n.raft.CommitIndex()
	if err := n.await(n.raft.VerifyLeader()); err != nil {
		kind := stream.Unavailable
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) {
			kind = stream.NotLeader
		}
		return 0, stream.Errorf(kind, op, "%w", err)
	}
	// The commit index may be that of an entry that changes no metadata, so it
	// is not what is answered: no other copy would ever reach it.
	for {
		seen, changed := n.fsm.seen.load()
		if seen >= committed {
			return n.State().Index(), nil
		}
		select {
		case <-changed:
		case <-n.done:
			return 0, errClosed(op)
		}
	}
}
