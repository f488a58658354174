// Package raftfsm holds the cluster's metadata as a replicated value: State,
// the function that applies a command to it, its snapshots and differences,
// and the hashicorp/raft node that carries it.
//
// It is not the place where anything happens because the metadata changed:
// applying a command makes a new value and does nothing else, and whoever must
// act watches the value. It stores no records.
//
// The invariant it keeps: State is a pure function of the commands in the raft
// log, the same on every node; what was read from disk and failed its checksum
// never becomes part of it (I13, I14).
package raftfsm

import (
	"slices"
	"sort"

	iradix "github.com/hashicorp/go-immutable-radix"

	pb "shardstream/proto/shardstream/v1"
)

// State is the metadata after one raft index. It is immutable: readers share
// it without locks, and all messages reached through it are read-only.
//
// Streams are spread over a fixed table of buckets by their id, so that an
// apply copies one bucket, and Diff skips what two states share by comparing
// pointers.
type State struct {
	index   uint64
	cluster *pb.ClusterInfo // nil until InitCluster
	brokers []*pb.Broker    // by node id
	table   *table
	names   *iradix.Tree // stream name → id, for lookups and for the order of Streams
	open    int          // sum of entry.open
}

const buckets = 256

type table [buckets]bucket

// bucket has the streams with id % buckets == its position, by id.
type bucket []*entry

// entry is one stream with its shards; immutable once in a State.
type entry struct {
	stream *pb.Stream
	shards []*pb.Shard // shards[i].Number == i
	open   int         // shards that count against the quota
}

// NewState gives the state before the first command.
func NewState() *State { return &State{table: new(table), names: iradix.New()} }

// Index gives the raft index of the last command in the state.
func (s *State) Index() uint64 { return s.index }

// Cluster gives the cluster's own facts; nil before InitCluster.
func (s *State) Cluster() *pb.ClusterInfo { return s.cluster }

// Brokers gives all brokers by node id.
func (s *State) Brokers() []*pb.Broker { return s.brokers }

// Broker gives one broker, nil if it never registered.
func (s *State) Broker(node string) *pb.Broker {
	if i, ok := s.findBroker(node); ok {
		return s.brokers[i]
	}
	return nil
}

// StreamByName gives a stream, nil if there is none of that name.
func (s *State) StreamByName(name string) *pb.Stream {
	if id, ok := s.names.Get([]byte(name)); ok {
		return s.Stream(id.(uint64))
	}
	return nil
}

// Stream gives the stream with this id, nil if there is none.
func (s *State) Stream(id uint64) *pb.Stream {
	if e := s.entry(id); e != nil {
		return e.stream
	}
	return nil
}

// Streams gives all streams by name.
func (s *State) Streams() []*pb.Stream {
	all := make([]*pb.Stream, 0, s.names.Len())
	s.names.Root().Walk(func(_ []byte, id any) bool {
		all = append(all, s.Stream(id.(uint64)))
		return false
	})
	return all
}

// StreamsAfter gives at most limit streams by name, beginning strictly behind
// the given name, which need not exist.
func (s *State) StreamsAfter(name string, limit int) []*pb.Stream {
	var found []*pb.Stream
	it := s.names.Root().Iterator()
	it.SeekLowerBound([]byte(name))
	for len(found) < limit {
		key, id, ok := it.Next()
		if !ok {
			break
		}
		if string(key) != name {
			found = append(found, s.Stream(id.(uint64)))
		}
	}
	return found
}

// Shards gives a stream's shards by number; nil if there is no such stream.
func (s *State) Shards(streamID uint64) []*pb.Shard {
	if e := s.entry(streamID); e != nil {
		return e.shards
	}
	return nil
}

// Shard gives one shard, nil if it does not exist.
func (s *State) Shard(streamID uint64, number uint32) *pb.Shard {
	if e := s.entry(streamID); e != nil && int(number) < len(e.shards) {
		return e.shards[number]
	}
	return nil
}

// OpenShards gives the number of shards that count against the account's
// quota: those that take records or soon will, of streams not being deleted.
func (s *State) OpenShards() int { return s.open }

// now gives the cluster's time, Unix ms.
func (s *State) now() int64 { return s.cluster.GetNowMs() }

func (s *State) entry(id uint64) *entry {
	b := s.table[id%buckets]
	if i, ok := b.find(id); ok {
		return b[i]
	}
	return nil
}

// each calls f for all streams in an order that only depends on their ids.
func (s *State) each(f func(*entry)) {
	for _, b := range s.table {
		for _, e := range b {
			f(e)
		}
	}
}

func (s *State) findBroker(node string) (int, bool) {
	return sort.Find(len(s.brokers), func(i int) int {
		switch other := s.brokers[i].GetNodeId(); {
		case node < other:
			return -1
		case node > other:
			return 1
		}
		return 0
	})
}

func (b bucket) find(id uint64) (int, bool) {
	return slices.BinarySearchFunc(b, id, func(e *entry, id uint64) int {
		switch {
		case e.stream.GetId() < id:
			return -1
		case e.stream.GetId() > id:
			return 1
		}
		return 0
	})
}

// countOpen tells how many shards of the stream count against the quota.
func countOpen(stream *pb.Stream, shards []*pb.Shard) int {
	if stream.GetStatus() == pb.StreamStatus_STREAM_STATUS_DELETING {
		return 0
	}
	n := 0
	for _, sh := range shards {
		switch sh.GetState() {
		case pb.ShardState_SHARD_STATE_CREATING, pb.ShardState_SHARD_STATE_OPEN, pb.ShardState_SHARD_STATE_SEALING:
			n++
		}
	}
	return n
}
