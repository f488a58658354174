package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// alterInSync changes in-sync sets as their leaders ask, each by
// compare-and-set (I10). A refused item is no error of the command.
func (d *draft) alterInSync(c *pb.AlterInSync) *pb.CommandResult {
	if res := d.checkIncarnation(c.GetNodeId(), c.GetIncarnation()); res != nil {
		return res
	}
	items := make([]pb.ErrorKind, len(c.GetChanges()))
	for i, change := range c.GetChanges() {
		items[i] = pb.ErrorKind(d.changeInSync(c.GetNodeId(), change))
	}
	return &pb.CommandResult{Items: items}
}

func (d *draft) changeInSync(node string, c *pb.InSyncChange) stream.Kind {
	sh := d.Shard(c.GetStreamId(), c.GetShard())
	switch {
	case sh == nil:
		return stream.NotFound
	case sh.GetEpoch() != c.GetEpoch(), sh.GetVersion() != c.GetVersion(),
		replica(sh, sh.GetLeader()).GetNodeId() != node:
		return stream.Stale
	case !validChange(sh, c):
		return stream.Invalid
	}
	if c.GetAdded() != 0 && !d.mayJoin(replica(sh, c.GetAdded()), c.GetAddedIncarnation()) {
		// The leader counts the newcomer until it reads a set newer than its
		// proposal (I3); a new version is what tells it that this was refused.
		d.editShard(sh.GetStreamId(), sh.GetNumber())
		return stream.Stale
	}
	setInSync(d.editShard(sh.GetStreamId(), sh.GetNumber()), slices.Clone(c.GetInSync()))
	return 0
}

// validChange checks the shape of the new set: members that the shard has, each
// once, the leader among them, not fewer than the floor (I1), and nobody new
// but the one that is named as added.
func validChange(sh *pb.Shard, c *pb.InSyncChange) bool {
	ids := c.GetInSync()
	if len(ids) < max(1, int(sh.GetMinInSync())) || !slices.Contains(ids, sh.GetLeader()) {
		return false
	}
	if c.GetAdded() != 0 && (!slices.Contains(ids, c.GetAdded()) || slices.Contains(sh.GetInSync(), c.GetAdded())) {
		return false
	}
	for i, id := range ids {
		if slices.Contains(ids[:i], id) || replica(sh, id) == nil ||
			id != c.GetAdded() && !slices.Contains(sh.GetInSync(), id) {
			return false
		}
	}
	return true
}

// mayJoin tells whether a replica that has caught up may count: the copy that
// did so is the one on the node's disk now (I11), it is undamaged, and the node
// is neither dead nor about to stop. One that is being drained counts until
// another has taken its place.
func (d *draft) mayJoin(r *pb.Replica, incarnation uint64) bool {
	b := d.Broker(r.GetNodeId())
	up := b.GetState() == pb.BrokerState_BROKER_STATE_LIVE || b.GetState() == pb.BrokerState_BROKER_STATE_DRAINING
	return r.GetState() == pb.ReplicaState_REPLICA_STATE_CREATED && up && b.GetIncarnation() == incarnation
}
