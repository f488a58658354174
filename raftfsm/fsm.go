package raftfsm

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// fsm lends the state to raft. Its methods run on raft's FSM goroutine.
type fsm struct {
	state *latest[*State]
	// seen is the last index of which all effects are in state. It runs ahead
	// of the state's index by the entries that are no commands.
	seen   *latest[uint64]
	broken error // a command that cannot be applied; nothing is applied behind it
	fatal  func(error)
}

var (
	_ raft.BatchingFSM        = (*fsm)(nil)
	_ raft.ConfigurationStore = (*fsm)(nil)
)

func newFSM(fatal func(error)) *fsm {
	return &fsm{state: newLatest(NewState()), seen: newLatest(uint64(0)), fatal: fatal}
}

// Apply is part of raft.FSM.
func (f *fsm) Apply(log *raft.Log) any { return f.ApplyBatch([]*raft.Log{log})[0] }

// ApplyBatch applies committed entries. The answer to a command is a
// *pb.CommandResult, or an error if the node cannot go on. The state is
// published before raft answers the proposer, so that whoever has the answer
// finds its effect.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	before, _ := f.state.load()
	state, seen := before, uint64(0)
	results := make([]any, len(logs))
	for i, log := range logs {
		if f.broken == nil && log.Type == raft.LogCommand {
			state, results[i] = f.applyOne(state, log)
		}
		if f.broken != nil {
			results[i] = f.broken
			continue
		}
		seen = log.Index
	}
	if state != before {
		f.state.publish(state)
	}
	f.reached(seen)
	return results
}

func (f *fsm) applyOne(s *State, log *raft.Log) (*State, *pb.CommandResult) {
	c, err := DecodeCommand(log.Data)
	if err != nil {
		f.broken = fmt.Errorf("raft log entry %d cannot be applied: %w", log.Index, err)
		f.fatal(f.broken)
		return s, nil
	}
	return s.Apply(log.Index, c)
}

// StoreConfiguration notes an entry that changes raft's own configuration.
func (f *fsm) StoreConfiguration(index uint64, _ raft.Configuration) { f.reached(index) }

// reached raises seen.
func (f *fsm) reached(index uint64) {
	f.seen.update(func(seen uint64) uint64 { return max(seen, index) })
}

// Snapshot only takes the pointer: the state never changes.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.broken != nil {
		return nil, f.broken
	}
	s, _ := f.state.load()
	return snapshot{s}, nil
}

// Restore replaces the state by that of a snapshot and tells the watchers.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	s, err := ReadSnapshot(r)
	if err != nil {
		f.fatal(err)
		return err
	}
	f.state.publish(s)
	f.reached(s.index)
	return nil
}

// snapshot is a state on its way to disk or to another node.
type snapshot struct{ *State }

// Persist is part of raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.WriteSnapshot(sink); err != nil {
		_ = sink.Cancel()
		return stream.Errorf(stream.Internal, "raftfsm.Persist", "%w", err)
	}
	return sink.Close()
}

// Release is part of raft.FSMSnapshot.
func (s snapshot) Release() {}
