// Package stream is Shardstream's vocabulary: the nouns every other package
// speaks in, and the pure arithmetic on them (hash keys, sequence numbers, the
// encoding of record batches, the closed list of error kinds).
//
// It is not a place for behaviour with I/O, clocks or goroutines, and it
// imports only the standard library. The one invariant it keeps: distinct
// things have distinct types, so that an offset can never be passed as an
// epoch, nor a stream's id as a replica's.
package stream

import (
	"fmt"
	"strconv"
	"strings"
)

// StreamID numbers a stream for ever. It is never used twice, so that data of
// a deleted stream cannot be taken for data of a re-created namesake.
type StreamID uint64

// NodeID names a broker. It is stable over restarts and address changes.
type NodeID string

// ReplicaID names one copy of one shard on one disk, and is unique for ever.
// In-sync sets, leadership and acknowledgements speak of replica ids, never of
// nodes, so an emptied or swapped disk is outside every set by construction (I8).
type ReplicaID uint64

// Epoch counts the leaderships of a shard; it rises with every election.
type Epoch uint32

// Offset numbers a record in a shard's log, from 0. An exclusive end is the
// offset after the last record.
type Offset uint64

// ShardID names a shard in the cluster: the stream's numeric id and the
// shard's number in it.
type ShardID struct {
	Stream StreamID
	Number uint32
}

// String gives "stream/number", as the data directory and log lines show it.
func (s ShardID) String() string { return fmt.Sprintf("%d/%d", s.Stream, s.Number) }

// ReplicaKey names a replica together with the shard it is a copy of.
type ReplicaKey struct {
	Shard   ShardID
	Replica ReplicaID
}

// String gives "stream/number-replica", the replica's folder below shards/.
func (k ReplicaKey) String() string { return fmt.Sprintf("%s-%d", k.Shard, k.Replica) }

// OffsetRange is the half-open range [Start, End) of offsets.
type OffsetRange struct{ Start, End Offset }

// String gives "[start,end)".
func (r OffsetRange) String() string { return fmt.Sprintf("[%d,%d)", r.Start, r.End) }

// ShardName gives the Kinesis id of the shard with this number:
// "shardId-" and 12 digits.
func ShardName(number uint32) string { return fmt.Sprintf("shardId-%012d", number) }

// ParseShardName reads a shard id as leniently as Kinesis does: the part after
// the first "-" (the whole if there is none) must be a decimal number in
// 0..2147483647.
func ParseShardName(s string) (number uint32, ok bool) {
	if _, after, found := strings.Cut(s, "-"); found {
		s = after
	}
	if s == "" {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, false
	}
	return uint32(n), true
}
