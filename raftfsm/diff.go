package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
)

// eventSize bounds one event of Diff, in bytes, roughly: far below the message
// limit of gRPC, and large enough that 10,000 shards are a few events.
const eventSize = 256 << 10

// Diff gives the events that bring a copy of old to new, to be applied as one:
// all but the last have More set. With old nil, the events begin with a reset
// and hold everything. They share their messages with the states. The same
// state twice gives none; states that differ in their index only give an event
// that carries the index.
//
// The cost is that of what changed: parts that the states share are skipped by
// comparing pointers.
func Diff(old, new *State) []*pb.MetadataEvent {
	if old == new {
		return nil
	}
	d := differ{index: new.index}
	d.next()
	if old == nil {
		d.event().Reset_ = true
		old = NewState()
	}
	if old.cluster != new.cluster {
		d.event().Cluster = new.cluster
	}
	if !slices.Equal(old.brokers, new.brokers) {
		d.event().Brokers = new.brokers
	}
	if old.table != new.table {
		for i := range new.table {
			d.bucket(old.table[i], new.table[i])
		}
	}
	for _, e := range d.events[:len(d.events)-1] {
		e.More = true
	}
	return d.events
}

type differ struct {
	index  uint64
	events []*pb.MetadataEvent
	size   int // of the last event, bytes
}

func (d *differ) next() {
	d.events = append(d.events, &pb.MetadataEvent{Index: d.index})
	d.size = 0
}

func (d *differ) event() *pb.MetadataEvent { return d.events[len(d.events)-1] }

// room gives the event that takes another message of so many bytes.
func (d *differ) room(size int) *pb.MetadataEvent {
	if d.size > 0 && d.size+size > eventSize {
		d.next()
	}
	d.size += size
	return d.event()
}

// bucket merges two lists that are both ordered by stream id.
func (d *differ) bucket(old, new bucket) {
	if len(old) == len(new) && (len(old) == 0 || &old[0] == &new[0]) {
		return
	}
	for len(old) > 0 || len(new) > 0 {
		switch {
		case len(new) == 0 || len(old) > 0 && old[0].stream.GetId() < new[0].stream.GetId():
			e := d.room(10)
			e.RemovedStreams = append(e.RemovedStreams, old[0].stream.GetId())
			old = old[1:]
		case len(old) == 0 || new[0].stream.GetId() < old[0].stream.GetId():
			d.entry(&entry{}, new[0])
			new = new[1:]
		default:
			if old[0] != new[0] {
				d.entry(old[0], new[0])
			}
			old, new = old[1:], new[1:]
		}
	}
}

func (d *differ) entry(old, new *entry) {
	if old.stream != new.stream {
		e := d.room(streamSize(new.stream))
		e.Streams = append(e.Streams, new.stream)
	}
	for i, sh := range new.shards {
		if i < len(old.shards) && old.shards[i] == sh {
			continue
		}
		e := d.room(shardSize(sh))
		e.Shards = append(e.Shards, sh)
	}
}

// streamSize and shardSize are upper estimates of encoded sizes; computing the
// exact ones would cost as much as encoding.
func streamSize(s *pb.Stream) int {
	re := s.GetReshard()
	size := 128 + len(s.GetName()) + 5*(len(re.GetParents())+len(re.GetChildren())+len(re.GetPassing()))
	size += tagsSize(s.GetTags()) + len(s.GetPolicy()) + 8*len(s.GetShardMetrics())
	size += 10 * (len(s.GetModeChangesMs()) + len(s.GetCountChangesMs()) + len(s.GetEncryptionStartsMs()) + len(s.GetEncryptionStopsMs()))
	size += 32 * len(s.GetDemandPeaks())
	for _, c := range s.GetConsumers() {
		size += consumerSize(c)
	}
	for _, k := range s.GetDataKeys() {
		size += dataKeySize(k)
	}
	return size
}

func consumerSize(c *pb.Consumer) int {
	return 64 + len(c.GetName()) + tagsSize(c.GetTags()) + len(c.GetPolicy())
}

func dataKeySize(k *pb.DataKey) int { return 48 + len(k.GetKeyId()) + len(k.GetWrapped()) }

func tagsSize(tags map[string]string) int {
	size := 0
	for k, v := range tags {
		size += 16 + len(k) + len(v)
	}
	return size
}

func shardSize(s *pb.Shard) int {
	size := 160 + 16*len(s.GetParents())
	for _, r := range s.GetReplicas() {
		size += 32 + len(r.GetNodeId())
	}
	for _, r := range s.GetRecoveries() {
		size += 64 + len(r.GetBy()) + len(r.GetReason()) + 10*len(r.GetEnded())
	}
	return size
}
