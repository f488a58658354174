package raftfsm

import (
	"slices"

	"google.golang.org/protobuf/proto"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// FormatVersion is the version of the metadata that this program writes and
// the newest that it reads.
const FormatVersion = 1

const tokenKeySize = 32

func (d *draft) initCluster(c *pb.InitCluster) *pb.CommandResult {
	switch {
	case d.cluster != nil:
		return refuse(stream.AlreadyExists, "the cluster is %s already", d.cluster.GetId())
	case c.GetClusterId() == "":
		return refuse(stream.Invalid, "no cluster id")
	case len(c.GetTokenKey()) != tokenKeySize:
		return refuse(stream.Invalid, "token key of %d bytes instead of %d", len(c.GetTokenKey()), tokenKeySize)
	}
	d.cluster = &pb.ClusterInfo{
		Id: c.GetClusterId(), FormatVersion: FormatVersion, TokenKey: c.GetTokenKey(), NowMs: d.now,
		NextStreamId: 1, NextReplicaId: 1, AccountId: c.GetAccountId(), Limits: c.GetLimits(),
	}
	return &pb.CommandResult{}
}

// FeatureIncarnation is the first feature level of brokers that persist the
// incarnation of each registration and give it with the next one. A broker
// that registered below it had nothing to persist, so its disk id alone says
// whether its copies are still there.
const FeatureIncarnation = 2

// registerBroker makes a broker live under a new incarnation. Whether the
// process before was fenced or not, none of its leaderships goes on in its
// epoch (I4), and if the disk is not the one that was registered last, none of
// its replica ids names anything any longer (I8, I11).
//
// Two running brokers under one name can't be told from a restart here; that is
// for those who hear them beat.
func (d *draft) registerBroker(c *pb.RegisterBroker) *pb.CommandResult {
	b := c.GetBroker()
	if b.GetNodeId() == "" || b.GetDiskId() == "" {
		return refuse(stream.Invalid, "a broker needs a node id and a disk id")
	}
	old := d.Broker(b.GetNodeId())
	renewed := &pb.Broker{
		NodeId: b.GetNodeId(), Incarnation: old.GetIncarnation() + 1, DiskId: b.GetDiskId(),
		GrpcAddress: b.GetGrpcAddress(), RaftAddress: b.GetRaftAddress(), GossipAddress: b.GetGossipAddress(),
		HttpAddress: b.GetHttpAddress(), Zone: b.GetZone(), FeatureLevel: b.GetFeatureLevel(), ShardLimits: b.GetShardLimits(),
		State: pb.BrokerState_BROKER_STATE_FENCED, ChangedMs: d.now, NotedFrame: c.GetJournalFrame(),
	}
	if old.GetState() == pb.BrokerState_BROKER_STATE_GONE && old.GetDiskId() == b.GetDiskId() {
		return refuse(stream.WrongState, "broker %q was removed from the cluster: to add it again, start it with an empty data directory", b.GetNodeId())
	}
	if old.GetState() != pb.BrokerState_BROKER_STATE_GONE {
		renewed.Draining = old.GetDraining()
	}
	d.putBroker(renewed)
	gone := old != nil && !sameDisk(old, c)
	hosted := d.shardsOn(b.GetNodeId())
	for _, at := range hosted {
		d.vacate(d.at(at), b.GetNodeId())
		if gone {
			d.void(d.at(at), b.GetNodeId())
		}
	}
	// The message is not part of any state yet.
	renewed.State, renewed.Reason = upState(renewed)
	for _, at := range hosted {
		d.electOffline(d.at(at))
	}
	return &pb.CommandResult{Incarnation: renewed.GetIncarnation()}
}

// sameDisk tells whether a registration comes from the disk of the last one,
// in the state in which that one left it or later.
func sameDisk(old *pb.Broker, c *pb.RegisterBroker) bool {
	if old.GetDiskId() != c.GetBroker().GetDiskId() {
		return false
	}
	if c.GetLastIncarnation() == 0 && old.GetFeatureLevel() < FeatureIncarnation {
		return true
	}
	return c.GetLastIncarnation() == old.GetIncarnation() && c.GetJournalFrame() >= old.GetNotedFrame()
}

// noteFrames records how far journals are durable, so that a disk which knows
// less when it returns is known to be a copy from an earlier time.
func (d *draft) noteFrames(c *pb.NoteFrames) *pb.CommandResult {
	for _, note := range c.GetNotes() {
		old := d.Broker(note.GetNodeId())
		if old == nil || old.GetIncarnation() != note.GetIncarnation() || old.GetNotedFrame() >= note.GetFrame() {
			continue
		}
		b := proto.Clone(old).(*pb.Broker)
		b.NotedFrame = note.GetFrame()
		d.putBroker(b)
	}
	return &pb.CommandResult{}
}

// void takes the copies of a disk that is gone out of a shard. One that the
// in-sync set can't do without stays as LOST, to be swapped out; so what
// remains are all the copies that may be elected, and the floor holds (I1). In
// either case the node gets a new replica under a new id (I8), in the same
// place of the list, since that place says whose shard it is by preference.
func (d *draft) void(sh *pb.Shard, node string) {
	if finished(sh) {
		return
	}
	sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
	var kept, lost []*pb.Replica
	place := -1
	for _, r := range sh.GetReplicas() {
		switch {
		case r.GetNodeId() != node:
			kept = append(kept, r)
			continue
		case !slices.Contains(sh.GetInSync(), r.GetId()):
		case aboveFloor(sh):
			sh.InSync = without(sh.GetInSync(), r.GetId())
		default:
			lost = append(lost, &pb.Replica{Id: r.GetId(), NodeId: node, State: pb.ReplicaState_REPLICA_STATE_LOST})
		}
		if place < 0 {
			place = len(kept)
		}
	}
	if d.Stream(sh.GetStreamId()).GetStatus() != pb.StreamStatus_STREAM_STATUS_DELETING {
		kept = slices.Insert(kept, place, d.newReplica(node))
	}
	sh.Replicas = append(kept, lost...)
}

// newReplica makes a replica under an id that was never used before (I8).
func (d *draft) newReplica(node string) *pb.Replica {
	cluster := d.editCluster()
	id := cluster.GetNextReplicaId()
	cluster.NextReplicaId++
	return &pb.Replica{Id: id, NodeId: node, State: pb.ReplicaState_REPLICA_STATE_NEW}
}

// putBroker stores a broker that this draft made.
func (d *draft) putBroker(b *pb.Broker) {
	i, known := d.findBroker(b.GetNodeId())
	d.brokers = slices.Clone(d.brokers)
	if known {
		d.brokers[i] = b
	} else {
		d.brokers = slices.Insert(d.brokers, i, b)
	}
}

// setBrokerState gives a known broker another state.
func (d *draft) setBrokerState(node string, to pb.BrokerState, reason string) {
	b := proto.CloneOf(d.Broker(node))
	b.State, b.ChangedMs, b.Reason = to, d.now, reason
	d.putBroker(b)
}

// place is a shard's position in the state.
type place struct {
	stream uint64
	shard  uint32
}

func (d *draft) at(p place) *pb.Shard { return d.Shard(p.stream, p.shard) }

// shardsOn gives the shards with a replica on the node, in an order that only
// depends on their ids.
func (d *draft) shardsOn(node string) []place {
	var found []place
	d.each(func(e *entry) {
		for i, sh := range e.shards {
			for _, r := range sh.GetReplicas() {
				if r.GetNodeId() == node {
					found = append(found, place{e.stream.GetId(), uint32(i)})
					break
				}
			}
		}
	})
	return found
}
