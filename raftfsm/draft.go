package raftfsm

import (
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix"

	pb "shardstream/proto/shardstream/v1"
)

// draft is the next state while one command builds it. It copies what it
// changes once and shares the rest with the state it began from; nothing of
// that state is ever written to. A refused command drops its draft.
type draft struct {
	State
	now     int64 // the cluster's time with this command, Unix ms
	ownTbl  bool
	ownBkt  [buckets]bool
	edited  map[uint64]*entry // entries made by this draft; only looked up, never ranged over
	nameTxn *iradix.Txn
	ownInfo bool   // cluster is this draft's own
	before  *State // what it began from
}

func newDraft(s *State, index uint64, timeMs int64) *draft {
	d := &draft{State: *s, before: s, now: max(s.now(), timeMs)}
	d.index = index
	return d
}

// finish gives the new state, with the cluster's time raised to the command's.
func (d *draft) finish() *State {
	if d.cluster.GetNowMs() != d.now {
		d.editCluster().NowMs = d.now
	}
	if d.nameTxn != nil {
		d.names = d.nameTxn.Commit()
	}
	s := d.State
	return &s
}

// editCluster gives a copy of the cluster's facts that may be changed.
func (d *draft) editCluster() *pb.ClusterInfo {
	if d.ownInfo {
		return d.cluster
	}
	c := d.cluster
	d.ownInfo = true
	d.cluster = &pb.ClusterInfo{
		Id: c.GetId(), FormatVersion: c.GetFormatVersion(), TokenKey: c.GetTokenKey(), NowMs: c.GetNowMs(),
		NextStreamId: c.GetNextStreamId(), NextReplicaId: c.GetNextReplicaId(),
		AccountId: c.GetAccountId(), Limits: c.GetLimits(), RebalancingSinceMs: c.GetRebalancingSinceMs(),
		Commitment: c.GetCommitment(),
	}
	return d.cluster
}

// editStream gives a copy of the stream that may be changed. Its shards stay
// shared: see editShard.
func (d *draft) editStream(id uint64) *pb.Stream {
	e := d.edit(d.entry(id))
	e.stream = copyStream(e.stream)
	return e.stream
}

// editShard gives a copy of the shard that may be changed, its version raised.
func (d *draft) editShard(id uint64, number uint32) *pb.Shard {
	e := d.edit(d.entry(id))
	sh := copyShard(e.shards[number])
	sh.Version++
	e.shards[number] = sh
	return sh
}

// edit gives this draft's own copy of an entry.
func (d *draft) edit(e *entry) *entry {
	id := e.stream.GetId()
	if own := d.edited[id]; own != nil {
		return own
	}
	own := &entry{stream: e.stream, shards: slices.Clone(e.shards), open: e.open}
	d.put(own)
	return own
}

// put stores an entry that this draft made.
func (d *draft) put(e *entry) {
	id := e.stream.GetId()
	b := d.ownBucket(id)
	if i, ok := b.find(id); ok {
		(*b)[i] = e
	} else {
		*b = slices.Insert(*b, i, e)
	}
	if d.edited == nil {
		d.edited = make(map[uint64]*entry)
	}
	d.edited[id] = e
}

// remove forgets a stream and its shards and frees its name.
func (d *draft) remove(id uint64) {
	b := d.ownBucket(id)
	if i, ok := b.find(id); ok {
		e := (*b)[i]
		d.open -= e.open
		d.ownNames().Delete([]byte(e.stream.GetName()))
		*b = slices.Delete(*b, i, i+1)
		delete(d.edited, id)
	}
}

func (d *draft) ownNames() *iradix.Txn {
	if d.nameTxn == nil {
		d.nameTxn = d.names.Txn()
	}
	return d.nameTxn
}

func (d *draft) ownBucket(id uint64) *bucket {
	if !d.ownTbl {
		t := *d.table
		d.table, d.ownTbl = &t, true
	}
	i := id % buckets
	if !d.ownBkt[i] {
		d.table[i], d.ownBkt[i] = slices.Clone(d.table[i]), true
	}
	return &d.table[i]
}

// copyStream copies the message, not its tags and lists: who changes one
// replaces it.
func copyStream(s *pb.Stream) *pb.Stream {
	return &pb.Stream{
		Id: s.GetId(), Name: s.GetName(), Status: s.GetStatus(), Mode: s.GetMode(), CreatedMs: s.GetCreatedMs(),
		RetentionHours: s.GetRetentionHours(), Tags: s.GetTags(), MaxRecordKib: s.GetMaxRecordKib(),
		NextShardNumber: s.GetNextShardNumber(), TransitionAfterMs: s.GetTransitionAfterMs(), Reshard: s.GetReshard(),
		Consumers: s.GetConsumers(), NextConsumerMs: s.GetNextConsumerMs(), Policy: s.GetPolicy(),
		ShardMetrics: s.GetShardMetrics(), DataKeys: s.GetDataKeys(), DataKey: s.GetDataKey(), WarmMibps: s.GetWarmMibps(),
		ModeChangesMs: s.GetModeChangesMs(), CountChangesMs: s.GetCountChangesMs(),
		EncryptionStartsMs: s.GetEncryptionStartsMs(), EncryptionStopsMs: s.GetEncryptionStopsMs(),
		DemandPeaks: s.GetDemandPeaks(),
	}
}

// copyShard copies the message, not its lists: who changes one replaces it.
// A reflective clone of 10,000 shards would take tens of milliseconds.
func copyShard(s *pb.Shard) *pb.Shard {
	return &pb.Shard{
		StreamId: s.GetStreamId(), Number: s.GetNumber(), Range: s.GetRange(), Parents: s.GetParents(),
		State: s.GetState(), FinalOffset: s.GetFinalOffset(), CreatedMs: s.GetCreatedMs(), ClosedMs: s.GetClosedMs(),
		ReplicationFactor: s.GetReplicationFactor(), MinInSync: s.GetMinInSync(), Replicas: s.GetReplicas(),
		Leader: s.GetLeader(), Epoch: s.GetEpoch(), InSync: s.GetInSync(), Version: s.GetVersion(),
		Recoveries: s.GetRecoveries(), Sealed: s.GetSealed(), LastArrivalMs: s.GetLastArrivalMs(),
	}
}

// setReplica replaces the state of the i-th replica of a shard being edited.
func setReplica(sh *pb.Shard, i int, to pb.ReplicaState) {
	old := sh.GetReplicas()[i]
	sh.Replicas = slices.Clone(sh.GetReplicas())
	sh.Replicas[i] = &pb.Replica{Id: old.GetId(), NodeId: old.GetNodeId(), State: to}
}
