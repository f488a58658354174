package broker

import (
	"context"
	"math"
	"sync"
	"time"

	"shardstream/ondemand"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// notePause is how many intervals pass at least between two commands that note
// what streams need.
const notePause = 5

// scaler keeps what the controller knows of the load of on-demand streams, and
// finds out which of them should have more shards or fewer.
type scaler struct {
	rules ondemand.Rules

	mu        sync.Mutex // guards the fields below; nothing waits while it is held
	histories map[uint64]*ondemand.History
	noteMs    int64 // when needs may be noted again, the cluster's time
}

func newScaler(rules ondemand.Rules) *scaler {
	return &scaler{rules: rules.WithDefaults(), histories: make(map[uint64]*ondemand.History)}
}

// hear takes a node's report. A shard that it leads and does not list got nothing.
func (s *scaler) hear(state *raftfsm.State, report *pb.LoadReport, nowMs int64) {
	over := time.Duration(report.OverMs) * time.Millisecond
	if over <= 0 {
		return
	}
	type shardID struct {
		stream uint64
		shard  uint32
	}
	got := make(map[shardID]*pb.ShardLoad, len(report.Loads))
	for _, l := range report.Loads {
		got[shardID{l.StreamId, l.Shard}] = l
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range state.Streams() {
		if !scalable(st) {
			continue
		}
		h := s.historyLocked(st)
		for _, shard := range state.Shards(st.Id) {
			if shard.State == pb.ShardState_SHARD_STATE_OPEN && leadingNode(shard) == report.NodeId {
				l := got[shardID{st.Id, shard.Number}]
				h.Measure(s.rules, shard.Number, ondemand.Written{Bytes: l.GetBytes(), Records: l.GetRecords(), Over: over}, nowMs)
			}
		}
	}
}

func scalable(s *pb.Stream) bool {
	return s.Mode == pb.StreamMode_STREAM_MODE_ON_DEMAND && s.Status != pb.StreamStatus_STREAM_STATUS_DELETING
}

// leadingNode gives the node that leads a shard, "" if none does.
func leadingNode(shard *pb.Shard) string {
	for _, r := range shard.Replicas {
		if r.Id == shard.Leader {
			return r.NodeId
		}
	}
	return ""
}

func (s *scaler) historyLocked(st *pb.Stream) *ondemand.History {
	h := s.histories[st.Id]
	if h == nil {
		h = ondemand.NewHistory(peaksOf(st))
		s.histories[st.Id] = h
	}
	return h
}

func peaksOf(st *pb.Stream) []ondemand.Peak {
	peaks := make([]ondemand.Peak, len(st.DemandPeaks))
	for i, p := range st.DemandPeaks {
		peaks[i] = ondemand.Peak{FromMs: p.FromMs, Demand: float64(p.Demand), Shards: int(p.Shards)}
	}
	return peaks
}

// newestPeak gives the newest that is noted of a stream, zero if none is.
func newestPeak(st *pb.Stream) (newest ondemand.Peak) {
	if peaks := peaksOf(st); len(peaks) > 0 {
		newest = peaks[len(peaks)-1]
	}
	return newest
}

// look gives the reshards that are due, and what to note; nil if nothing is.
func (s *scaler) look(state *raftfsm.State, nowMs int64) (reshards []*pb.Reshard, notes *pb.NoteDemand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	noting := nowMs >= s.noteMs
	room := math.MaxInt32
	if limit := int(state.Cluster().GetLimits().GetShards()); limit > 0 {
		room = limit - state.OpenShards()
	}
	known := make(map[uint64]*ondemand.History)
	for _, st := range state.Streams() {
		h := s.histories[st.Id]
		if h == nil || !scalable(st) {
			continue
		}
		known[st.Id] = h
		if st.Status == pb.StreamStatus_STREAM_STATUS_ACTIVE {
			need := ondemand.Need{Room: room}
			if raftfsm.CommitmentInForce(state.Cluster(), nowMs) {
				need.WarmRate = int64(st.WarmMibps) << 20
			}
			plan := h.Look(s.rules, openShards(state.Shards(st.Id)), need, nowMs)
			if re := reshardOf(st.Id, plan); re != nil {
				room -= len(plan.Splits)
				reshards = append(reshards, re)
			}
		}
		if !noting {
			continue
		}
		if peak, forget, due := h.Note(s.rules, newestPeak(st), nowMs); due {
			if notes == nil {
				notes = &pb.NoteDemand{}
				s.noteMs = nowMs + notePause*s.rules.Interval.Milliseconds()
			}
			notes.Notes = append(notes.Notes, &pb.DemandNote{
				StreamId: st.Id, ForgetBeforeMs: forget,
				Peak: &pb.DemandPeak{FromMs: peak.FromMs, Demand: uint64(math.Ceil(peak.Demand)), Shards: uint32(peak.Shards)},
			})
		}
	}
	s.histories = known
	return reshards, notes
}

func reshardOf(id uint64, plan ondemand.Plan) *pb.Reshard {
	if len(plan.Splits)+len(plan.Merges) == 0 {
		return nil
	}
	re := &pb.Reshard{StreamId: id, Kind: pb.ReshardKind_RESHARD_KIND_LIST, OnDemand: true, Splits: plan.Splits}
	for _, m := range plan.Merges {
		re.Merges = append(re.Merges, &pb.ShardPair{Low: m[0], High: m[1]})
	}
	return re
}

// openShards gives what the rules need to know of a stream's open shards.
func openShards(shards []*pb.Shard) []ondemand.Shard {
	var open []ondemand.Shard
	for _, shard := range shards {
		if shard.State != pb.ShardState_SHARD_STATE_OPEN {
			continue
		}
		o := ondemand.Shard{Number: shard.Number, Keys: keysOf(shard)}
		if from := bySplits(shards, shard, ondemand.Tries); from != nil {
			o.Origin, o.HasOrigin = keysOf(from), true
		}
		open = append(open, o)
	}
	return open
}

// bySplits gives the shard that another one came from by n splits, nil if it did
// not come so.
func bySplits(shards []*pb.Shard, shard *pb.Shard, n int) *pb.Shard {
	for range n {
		if len(shard.Parents) != 1 {
			return nil
		}
		shard = shards[shard.Parents[0]]
	}
	return shard
}

func keysOf(shard *pb.Shard) stream.HashRange {
	r := shard.GetRange()
	return stream.HashRange{Start: stream.HashKey{Hi: r.GetStartHi(), Lo: r.GetStartLo()}, End: stream.HashKey{Hi: r.GetEndHi(), Lo: r.GetEndLo()}}
}

// scale begins to look at the on-demand streams and to do what is due, unless
// that is under way or was a moment ago.
func (c *controller) scale(ctx context.Context, now time.Time, state *raftfsm.State) {
	if c.scaling != nil || now.Before(c.nextScale) {
		return
	}
	c.nextScale = now.Add(c.scaler.rules.Interval / reportsPerInterval)
	if !allHave(state, raftfsm.FeatureOnDemand) {
		return
	}
	done := make(chan struct{})
	c.scaling = done
	c.tasks.Go(func() {
		defer close(done)
		reshards, notes := c.scaler.look(state, c.control.clock.clusterMs())
		if notes != nil {
			// What is not noted by this is due the next time.
			_ = c.proposePlanned(ctx, &pb.Command{Op: &pb.Command_NoteDemand{NoteDemand: notes}})
		}
		for _, re := range reshards {
			c.reshardOnDemand(ctx, state.Stream(re.StreamId).GetName(), re)
		}
	})
}

func (c *controller) reshardOnDemand(ctx context.Context, name string, re *pb.Reshard) {
	proposing, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	result, err := c.control.proposeHere(proposing, &pb.Command{Op: &pb.Command_Reshard{Reshard: re}})
	switch {
	case ctx.Err() != nil:
	case err != nil || result.Error != pb.ErrorKind_ERROR_KIND_NONE:
		c.cfg.Logger.Info("an on-demand stream was not scaled; that is tried again", "stream", name, "error", err, "detail", result.GetDetail())
	default:
		c.cfg.Logger.Info("an on-demand stream follows its load", "stream", name, "splits", len(re.Splits), "merges", len(re.Merges))
	}
}

// ReportLoads takes what a node tells of the shards that it leads.
func (s *controllerService) ReportLoads(_ context.Context, report *pb.LoadReport) (*pb.LoadReportAnswer, error) {
	const op = "broker.ReportLoads"
	if err := s.sameCluster(op, report.ClusterId); err != nil {
		return nil, err
	}
	c, err := s.leading(op)
	if err != nil {
		return nil, err
	}
	state := c.control.meta.State()
	if known := state.Broker(report.NodeId); known.GetIncarnation() != report.Incarnation {
		return nil, stream.Errorf(stream.Stale, op, "node %s is not registered in incarnation %d", report.NodeId, report.Incarnation)
	}
	c.scaler.hear(state, report, c.control.clock.clusterMs())
	return &pb.LoadReportAnswer{}, nil
}
