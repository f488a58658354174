package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const (
	dayMs = 24 * 3600 * 1000
	// notedChanges is how many changes of a kind a stream remembers: more than
	// any of the limits.
	notedChanges = 32
	// maxDataKeys bounds the data keys of a stream, which are kept as long as their
	// records. Who starts encryption ten times a day for three months gets there.
	maxDataKeys = 1000
	// maxStreamBytes bounds what the metadata has of a stream but for its shards:
	// that is one message to all who watch, and is sent again at each change.
	maxStreamBytes = 8 << 20
)

// mayGrow refuses to let a stream grow by so many bytes, if they are too many.
func mayGrow(s *pb.Stream, bytes int) *pb.CommandResult {
	if size := streamSize(s); bytes > 0 && size+bytes > maxStreamBytes {
		return refuse(stream.LimitExceeded, "stream %q has %d bytes of settings, tags and policies, and %d more exceed the limit of %d", s.GetName(), size, bytes, maxStreamBytes)
	}
	return nil
}

// updateStream changes a stream's settings. What they mean is in force at once;
// UPDATING is what AWS's clients expect to see for a while.
func (d *draft) updateStream(c *pb.UpdateStream) *pb.CommandResult {
	s := d.Stream(c.GetStreamId())
	switch {
	case s == nil:
		return refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	case s.GetStatus() != pb.StreamStatus_STREAM_STATUS_ACTIVE:
		return wrongState(s)
	}
	var changed bool
	var res *pb.CommandResult
	switch change := c.GetChange().(type) {
	case *pb.UpdateStream_SetMode:
		changed, res = d.setMode(s, change.SetMode)
	case *pb.UpdateStream_MaxRecordKib:
		if changed = change.MaxRecordKib != s.GetMaxRecordKib(); changed {
			d.editStream(s.GetId()).MaxRecordKib = change.MaxRecordKib
		}
	case *pb.UpdateStream_SetWarm:
		changed, res = d.setWarm(s, change.SetWarm)
	case *pb.UpdateStream_ShardMetrics:
		metrics := slices.Compact(slices.Sorted(slices.Values(change.ShardMetrics.GetMetrics())))
		if changed = !slices.Equal(metrics, s.GetShardMetrics()); changed {
			d.editStream(s.GetId()).ShardMetrics = metrics
		}
	case *pb.UpdateStream_StartEncryption:
		changed, res = d.startEncryption(s, change.StartEncryption)
	case *pb.UpdateStream_StopEncryption:
		changed, res = d.stopEncryption(s, change.StopEncryption)
	default:
		return refuse(stream.Invalid, "an update of stream %q that changes nothing", s.GetName())
	}
	if res != nil {
		return res
	}
	if changed {
		d.beginUpdate(d.editStream(s.GetId()), c.GetTransitionAfterMs())
	}
	return &pb.CommandResult{StreamId: s.GetId()}
}

// beginUpdate makes a stream that this draft edits UPDATING until the time, if
// that is still to come.
func (d *draft) beginUpdate(s *pb.Stream, until int64) {
	if until > d.now {
		s.Status, s.TransitionAfterMs = pb.StreamStatus_STREAM_STATUS_UPDATING, until
	}
}

func (d *draft) endUpdate(c *pb.EndUpdate) *pb.CommandResult {
	s := d.Stream(c.GetStreamId())
	switch {
	case s == nil:
		return refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	case s.GetStatus() != pb.StreamStatus_STREAM_STATUS_UPDATING || s.GetReshard() != nil || d.now < s.GetTransitionAfterMs():
		return wrongState(s)
	}
	s = d.editStream(s.GetId())
	s.Status, s.TransitionAfterMs = pb.StreamStatus_STREAM_STATUS_ACTIVE, 0
	return &pb.CommandResult{StreamId: s.GetId()}
}

func (d *draft) setMode(s *pb.Stream, c *pb.SetMode) (bool, *pb.CommandResult) {
	if c.GetWarmMibps() > 0 {
		if res := d.checkWarm(c.GetMode()); res != nil {
			return false, res
		}
	}
	if c.GetMode() == s.GetMode() && (c.GetWarmMibps() == 0 || c.GetWarmMibps() == s.GetWarmMibps()) {
		return false, nil
	}
	if c.GetMode() != s.GetMode() {
		switch c.GetMode() {
		case pb.StreamMode_STREAM_MODE_PROVISIONED:
		case pb.StreamMode_STREAM_MODE_ON_DEMAND:
			if res := d.checkOnDemand(); res != nil {
				return false, res
			}
		default:
			return false, refuse(stream.Invalid, "mode %d", c.GetMode())
		}
		changes, res := d.noteChange(s.GetModeChangesMs(), c.GetDailyLimit())
		if res != nil {
			return false, res
		}
		s = d.editStream(s.GetId())
		s.Mode, s.ModeChangesMs = c.GetMode(), changes
	}
	d.editStream(s.GetId()).WarmMibps = c.GetWarmMibps()
	return true, nil
}

func (d *draft) setWarm(s *pb.Stream, c *pb.SetWarm) (bool, *pb.CommandResult) {
	if res := d.checkWarm(s.GetMode()); res != nil {
		return false, res
	}
	if c.GetMibps() == s.GetWarmMibps() {
		return false, nil
	}
	d.editStream(s.GetId()).WarmMibps = c.GetMibps()
	return true, nil
}

// checkWarm refuses warm throughput for a stream of that mode, or without a
// commitment.
func (d *draft) checkWarm(mode pb.StreamMode) *pb.CommandResult {
	if mode == pb.StreamMode_STREAM_MODE_ON_DEMAND && CommitmentInForce(d.cluster, d.now) {
		return nil
	}
	return because(pb.Refusal_REFUSAL_WARM_THROUGHPUT, refuse(stream.Invalid, "warm throughput takes an on-demand stream and a commitment"))
}

func (d *draft) startEncryption(s *pb.Stream, c *pb.StartEncryption) (bool, *pb.CommandResult) {
	if c.GetKeyId() == "" || len(c.GetWrapped()) == 0 {
		return false, refuse(stream.Invalid, "encryption takes a key")
	}
	starts, res := d.noteChange(s.GetEncryptionStartsMs(), c.GetDailyLimit())
	if res != nil {
		return false, res
	}
	kept, last := d.retireKeys(s), uint32(0)
	if n := len(kept); n >= maxDataKeys {
		return false, refuse(stream.LimitExceeded, "stream %q has %d data keys", s.GetName(), n)
	} else if n > 0 {
		last = kept[n-1].GetId()
	}
	made := &pb.DataKey{Id: last + 1, KeyId: c.GetKeyId(), Wrapped: c.GetWrapped(), CreatedMs: d.now}
	if res := mayGrow(s, dataKeySize(made)); res != nil {
		return false, res
	}
	s = d.editStream(s.GetId())
	s.EncryptionStartsMs, s.DataKeys = starts, kept
	s.DataKey, s.DataKeys = made.GetId(), append(s.DataKeys, made)
	return true, nil
}

func (d *draft) stopEncryption(s *pb.Stream, c *pb.StopEncryption) (bool, *pb.CommandResult) {
	if s.GetDataKey() == 0 {
		return false, nil
	}
	stops, res := d.noteChange(s.GetEncryptionStopsMs(), c.GetDailyLimit())
	if res != nil {
		return false, res
	}
	s = d.editStream(s.GetId())
	s.EncryptionStopsMs, s.DataKeys, s.DataKey = stops, d.retireKeys(s), 0
	return true, nil
}

// retireKeys gives a new list of a stream's data keys, all of them retired, and
// without those that no visible record can need any more: of records older than
// the retention nobody has a copy, a day more covers gateways and brokers that
// lag behind. The last key stays: its id says which comes next.
func (d *draft) retireKeys(s *pb.Stream) []*pb.DataKey {
	var kept []*pb.DataKey
	oldest := d.now - int64(s.GetRetentionHours())*3600*1000 - dayMs
	for i, k := range s.GetDataKeys() {
		if k.GetRetiredMs() != 0 && k.GetRetiredMs() < oldest && i < len(s.GetDataKeys())-1 {
			continue
		}
		if k.GetRetiredMs() == 0 {
			k = &pb.DataKey{Id: k.GetId(), KeyId: k.GetKeyId(), Wrapped: k.GetWrapped(), CreatedMs: k.GetCreatedMs(), RetiredMs: d.now}
		}
		kept = append(kept, k)
	}
	return kept
}

// noteChange adds the present to the times of changes of one kind, refused if
// there were as many as the limit within 24 hours; limit 0 is none.
func (d *draft) noteChange(times []int64, limit uint32) ([]int64, *pb.CommandResult) {
	var recent []int64
	for _, t := range times {
		if t > d.now-dayMs {
			recent = append(recent, t)
		}
	}
	if limit > 0 && len(recent) >= int(limit) {
		return nil, limited(pb.Refusal_REFUSAL_DAILY_LIMIT, uint64(len(recent)), limit, "changes within 24 hours")
	}
	recent = append(recent, d.now)
	return recent[max(0, len(recent)-notedChanges):], nil
}

func (d *draft) setCommitment(c *pb.SetCommitment) *pb.CommandResult {
	old := d.cluster.GetCommitment()
	var to *pb.Commitment
	switch inForce := CommitmentInForce(d.cluster, d.now); {
	case c.GetEnabled() == old.GetEnabled():
		return &pb.CommandResult{}
	case c.GetEnabled() && inForce: // it had been asked to end, and is not after all
		to = &pb.Commitment{Enabled: true, StartedMs: old.GetStartedMs(), EarliestEndMs: old.GetEarliestEndMs()}
	case c.GetEnabled():
		to = &pb.Commitment{Enabled: true, StartedMs: d.now, EarliestEndMs: d.now + c.GetMinimumMs()}
	default:
		to = &pb.Commitment{StartedMs: old.GetStartedMs(), EarliestEndMs: old.GetEarliestEndMs(), EndedMs: max(d.now, old.GetEarliestEndMs())}
	}
	d.editCluster().Commitment = to
	return &pb.CommandResult{}
}

// CommitmentInForce tells whether the account's commitment holds at that time,
// Unix ms.
func CommitmentInForce(c *pb.ClusterInfo, nowMs int64) bool {
	m := c.GetCommitment()
	return m.GetEnabled() || nowMs < m.GetEndedMs()
}
