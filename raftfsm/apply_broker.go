package raftfsm

import (
	"slices"

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

// registerBroker makes a broker live under a new incarnation, and brings the
// shards with replicas on it into the state in which a new process finds them:
// no epoch that the old process led goes on (I4), and replica ids of another
// disk name copies that this broker does not have (I8).
func (d *draft) registerBroker(c *pb.RegisterBroker) *pb.CommandResult {
	b := c.GetBroker()
	if b.GetNodeId() == "" || b.GetDiskId() == "" {
		return refuse(stream.Invalid, "a broker needs a node id and a disk id")
	}
	var old *pb.Broker
	i, known := d.findBroker(b.GetNodeId())
	if known {
		old = d.brokers[i]
	}
	renewed := &pb.Broker{
		NodeId: b.GetNodeId(), Incarnation: old.GetIncarnation() + 1, DiskId: b.GetDiskId(),
		GrpcAddress: b.GetGrpcAddress(), RaftAddress: b.GetRaftAddress(), Zone: b.GetZone(),
		State: pb.BrokerState_BROKER_STATE_LIVE, FeatureLevel: b.GetFeatureLevel(),
	}
	d.brokers = slices.Clone(d.brokers)
	if known {
		d.brokers[i] = renewed
	} else {
		d.brokers = slices.Insert(d.brokers, i, renewed)
	}
	otherDisk := known && old.GetDiskId() != b.GetDiskId()

	before := d.State
	before.each(func(e *entry) {
		for _, sh := range e.shards {
			d.renewShard(sh, b.GetNodeId(), otherDisk)
		}
	})
	return &pb.CommandResult{Incarnation: renewed.GetIncarnation()}
}

func (d *draft) renewShard(sh *pb.Shard, node string, otherDisk bool) {
	i := slices.IndexFunc(sh.GetReplicas(), func(r *pb.Replica) bool { return r.GetNodeId() == node })
	if i < 0 || finished(sh) {
		return
	}
	r := sh.GetReplicas()[i]
	suspect := r.GetState() == pb.ReplicaState_REPLICA_STATE_SUSPECT
	switch {
	case otherDisk && !suspect:
		sh = d.editShard(sh.GetStreamId(), sh.GetNumber())
		setReplica(sh, i, pb.ReplicaState_REPLICA_STATE_SUSPECT)
		if sh.GetLeader() == r.GetId() || sh.GetLeader() == 0 {
			d.elect(sh)
		}
	case sh.GetLeader() == r.GetId():
		d.editShard(sh.GetStreamId(), sh.GetNumber()).Epoch++
	case sh.GetLeader() == 0 && !suspect && d.candidate(sh) != 0:
		d.elect(d.editShard(sh.GetStreamId(), sh.GetNumber()))
	}
}
