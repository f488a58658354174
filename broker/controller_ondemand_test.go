package broker

import (
	"context"
	"math"
	"testing"
	"time"

	"shardstream/ondemand"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// onDemandWorld is a cluster with one on-demand stream under a load, whose
// controller has the real rules and whose metadata is the real state.
type onDemandWorld struct {
	*planWorld
	scaler *scaler
	id     uint64
	load   onDemandLoad
	began  int64
	notes  int // commands that note needs

	splits, merges int
	hotFor         map[uint32]time.Duration // how long a shard has been above the split rate
	hottest        time.Duration            // the longest that one was, of those without the busy key
}

// onDemandLoad is in bytes per second: evenly spread, and of one key.
type onDemandLoad struct{ even, key float64 }

var busyKey = stream.HashKey{Hi: 5 << 60, Lo: 5}

func (l onDemandLoad) on(keys stream.HashRange) float64 {
	d := l.even * math.Ldexp(float64(keys.End.Sub(keys.Start).Hi)+1, -64)
	if keys.Contains(busyKey) {
		d += l.key
	}
	return d
}

func newOnDemandWorld(t *testing.T) *onDemandWorld {
	w := &onDemandWorld{planWorld: newPlanWorld(t, "a", "b", "c"), scaler: newScaler(ondemand.Rules{}), hotFor: map[uint32]time.Duration{}}
	w.nowMs = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC).UnixMilli()
	w.began = w.nowMs
	w.create("idle", 2)
	w.id = w.onDemand("clicks")
	return w
}

func (w *planWorld) onDemand(name string) uint64 {
	w.t.Helper()
	c := &pb.Command{Op: &pb.Command_CreateStream{CreateStream: &pb.CreateStream{
		Name: name, ShardCount: ondemand.MinShards, Mode: pb.StreamMode_STREAM_MODE_ON_DEMAND,
	}}}
	stampCommand(w.state, w.nowMs, c)
	id := w.apply(c).StreamId
	w.settle()
	return id
}

// tell has each node say that it has got so many bytes in a minute with each of
// its on-demand shards.
func (w *onDemandWorld) tell(bytes uint64) {
	w.nowMs += time.Minute.Milliseconds()
	for _, node := range []string{"a", "b", "c"} {
		report := &pb.LoadReport{NodeId: node, OverMs: time.Minute.Milliseconds()}
		for _, st := range w.state.Streams() {
			for _, shard := range w.state.Shards(st.Id) {
				report.Loads = append(report.Loads, &pb.ShardLoad{StreamId: st.Id, Shard: shard.Number, Bytes: bytes, Records: 1})
			}
		}
		w.scaler.hear(w.state, report, w.nowMs)
	}
}

func (w *onDemandWorld) open() []ondemand.Shard { return openShards(w.state.Shards(w.id)) }

func (w *onDemandWorld) since() time.Duration {
	return time.Duration(w.nowMs-w.began) * time.Millisecond
}

// pass lets time pass under the present load: nodes report, and the controller
// looks and has done what it finds.
func (w *onDemandWorld) pass(step time.Duration) {
	w.t.Helper()
	w.nowMs += step.Milliseconds()
	for _, node := range []string{"a", "b", "c"} {
		report := &pb.LoadReport{NodeId: node, OverMs: step.Milliseconds()}
		for _, shard := range w.state.Shards(w.id) {
			if shard.State == pb.ShardState_SHARD_STATE_OPEN && leadingNode(shard) == node {
				bytes := uint64(w.load.on(keysOf(shard)) * step.Seconds())
				report.Loads = append(report.Loads, &pb.ShardLoad{StreamId: w.id, Shard: shard.Number, Bytes: bytes, Records: bytes / 5000})
			}
		}
		w.scaler.hear(w.state, report, w.nowMs)
	}
	for _, s := range w.open() {
		if d := w.load.on(s.Keys); d <= float64(w.scaler.rules.SplitRate) {
			delete(w.hotFor, s.Number)
		} else if w.hotFor[s.Number] += step; !s.Keys.Contains(busyKey) {
			w.hottest = max(w.hottest, w.hotFor[s.Number])
		}
	}
	reshards, notes := w.scaler.look(w.state, w.nowMs)
	if notes != nil {
		w.notes++
		w.apply(&pb.Command{Op: &pb.Command_NoteDemand{NoteDemand: notes}})
	}
	for _, re := range reshards {
		w.splits, w.merges = w.splits+len(re.Splits), w.merges+len(re.Merges)
		w.reshard(re)
		w.settle()
		w.seal(w.id)
		w.settle()
		if s := w.state.Stream(w.id); s.Status != pb.StreamStatus_STREAM_STATUS_ACTIVE {
			w.t.Fatalf("the reshard has not ended: %v", s)
		}
	}
}

// day gives the load at a time of the day.
func (w *onDemandWorld) day(at time.Duration) onDemandLoad {
	within := func(from, to time.Duration) bool { return at >= from && at < to }
	l := onDemandLoad{even: 1e6 + 9e6*max(0, -math.Cos(2*math.Pi*at.Hours()/24))}
	if within(15*time.Hour, 15*time.Hour+10*time.Minute) {
		l.even = 25e6 // a spike
	}
	if within(18*time.Hour, 20*time.Hour) {
		l.key = 0.9e6
	}
	return l
}

// A day of on-demand load: the shards follow it, and they never flap. A night, a
// second day and another controller change nothing more. When the peaks are past
// the window, the stream is back at four shards.
func TestDayOfOnDemandLoad(t *testing.T) {
	w := newOnDemandWorld(t)
	const step = 20 * time.Second
	t.Log("hour  load MB/s  key MB/s  shards  splits  merges  busiest KB/s")
	most, peak := 0, 0.0
	for day := range 2 {
		splits := w.splits
		for at := time.Duration(0); at < 24*time.Hour; at += step {
			w.load = w.day(at)
			peak = max(peak, w.load.even+w.load.key)
			w.pass(step)
			n := len(w.open())
			if n < most {
				t.Fatalf("day %d, %v: from %d to %d shards", day, at, most, n)
			}
			most = n
			if at%(2*time.Hour) == 15*time.Minute || at == 15*time.Hour+9*time.Minute {
				busiest := 0.0
				for _, s := range w.open() {
					busiest = max(busiest, w.load.on(s.Keys))
				}
				t.Logf("%d %02d:%02d %8.1f %9.1f %7d %7d %7d %13.0f", day, int(at.Hours()), int(at.Minutes())%60,
					w.load.even/1e6, w.load.key/1e6, n, w.splits, w.merges, busiest/1e3)
			}
		}
		if day == 0 {
			continue
		}
		if w.splits != splits || w.merges != 0 {
			t.Errorf("the second day brought %d splits, %d merges in all", w.splits-splits, w.merges)
		}
	}
	want := int(math.Ceil(peak / float64(w.scaler.rules.SplitRate)))
	if most < want || most > 2*want || w.hottest > 15*time.Minute {
		t.Errorf("%d shards for a peak of %.1f MB/s, want %d or a few more; one was above the split rate for %v", most, peak/1e6, want, w.hottest)
	}
	if w.notes > 80 {
		t.Errorf("%d commands to note what one stream needs", w.notes)
	}
	w.load, w.scaler = onDemandLoad{even: 1e4}, newScaler(ondemand.Rules{}) // another node controls the cluster
	for w.since() < 30*24*time.Hour {
		w.pass(5 * time.Minute)
	}
	if n := len(w.open()); n < want {
		t.Errorf("%d shards while the peak is within the window", n)
	}
	for w.since() < 45*24*time.Hour {
		w.pass(5 * time.Minute)
	}
	if n := len(w.open()); n != ondemand.MinShards {
		t.Errorf("%d shards long after the last peak", n)
	}
	t.Logf("quiet from the third day on: %d shards after %v, %d splits, %d merges, %d notes", len(w.open()), w.since(), w.splits, w.merges, w.notes)
}

// The account's quota is shared by all streams, and never a reason to fail.
func TestOnDemandWithinTheQuota(t *testing.T) {
	w := newOnDemandWorld(t)
	limit := uint32(w.state.OpenShards() + 3)
	w.state.Cluster().Limits.Shards = limit // the state is this test's own
	w.load.even = 30e6
	for range 100 {
		w.pass(10 * time.Second)
	}
	if n := len(w.open()); n != ondemand.MinShards+3 {
		t.Errorf("%d shards with room for three more", n)
	}
	w = newOnDemandWorld(t)
	w.onDemand("views")
	w.state.Cluster().Limits.Shards = uint32(w.state.OpenShards() + 5)
	w.tell(1e9)
	reshards, _ := w.scaler.look(w.state, w.nowMs)
	if len(reshards) != 2 || len(reshards[0].Splits)+len(reshards[1].Splits) != 5 {
		t.Errorf("of two streams with room for five more: %v", reshards)
	}
}

// What streams need is noted for all of them at once, and not again at once.
func TestNeedsAreNotedTogether(t *testing.T) {
	w := newOnDemandWorld(t)
	w.onDemand("views")
	for minute, want := range []int{2, 0, 0, 0, 0, 2, 0} {
		w.tell(uint64(minute+1) * 60e6)
		if _, notes := w.scaler.look(w.state, w.nowMs); len(notes.GetNotes()) != want {
			t.Errorf("minute %d: %v", minute, notes)
		}
	}
}

// Streams of provisioned mode and those in transition are left alone; a stream
// that was deleted is forgotten.
func TestWhatIsScaled(t *testing.T) {
	w := newOnDemandWorld(t)
	w.load.even = 30e6
	for range 6 {
		w.pass(9 * time.Second) // not yet an interval
	}
	w.apply(&pb.Command{Op: &pb.Command_DeleteStream{DeleteStream: &pb.DeleteStream{StreamId: w.id}}})
	w.pass(time.Minute)
	if reshards, notes := w.scaler.look(w.state, w.nowMs); len(w.scaler.histories) != 0 || reshards != nil || notes != nil {
		t.Errorf("of a deleted stream: %v, %v, %v", w.scaler.histories, reshards, notes)
	}
}

// inOnDemandCluster runs f in a bubble with a cluster that node a controls, and
// with an active on-demand stream.
func inOnDemandCluster(t *testing.T, f func(w *controlWorld, id uint64)) {
	inControlWorld(t, func(w *controlWorld) {
		create := &pb.Command{Op: &pb.Command_CreateStream{CreateStream: &pb.CreateStream{Name: "s", ShardCount: 4, Mode: pb.StreamMode_STREAM_MODE_ON_DEMAND}}}
		w.await("the cluster has a controller", func() bool { return w.nodes["a"].service.current.Load() != nil })
		result, err := w.nodes["a"].control.Propose(w.ctx, create)
		if err != nil || result.Error != 0 {
			t.Fatal(result, err)
		}
		for _, node := range []string{"a", "b", "c"} {
			c := &pb.ReplicasCreated{NodeId: node, Incarnation: w.broker(node).Incarnation}
			for _, shard := range w.nodes["a"].meta.State().Shards(result.StreamId) {
				for _, r := range shard.Replicas {
					if r.NodeId == node {
						c.Replicas = append(c.Replicas, &pb.ReplicaRef{StreamId: result.StreamId, Shard: shard.Number, ReplicaId: r.Id})
					}
				}
			}
			w.raft.apply(&pb.Command{Op: &pb.Command_ReplicasCreated{ReplicasCreated: c}})
		}
		w.await("the stream is active", func() bool {
			return w.nodes["a"].meta.State().Stream(result.StreamId).Status == pb.StreamStatus_STREAM_STATUS_ACTIVE
		})
		f(w, result.StreamId)
	})
}

// report has every node say that its shards get this much, for some minutes.
func (w *controlWorld) report(id uint64, bytes uint64, minutes int) {
	w.t.Helper()
	for range 6 * minutes {
		pass(10 * time.Second)
		for name, n := range w.nodes {
			r := &pb.LoadReport{ClusterId: "c", NodeId: name, Incarnation: w.broker(name).Incarnation, OverMs: 10_000}
			for number := range uint32(4) {
				r.Loads = append(r.Loads, &pb.ShardLoad{StreamId: id, Shard: number, Bytes: 10 * bytes, Records: 1})
			}
			b := &Broker{control: n.control, conns: n.control.conns, controller: n.service}
			if err := b.sendLoads(w.ctx, r); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// Nodes tell the controller of their loads, and it proposes one reshard.
func TestLoadsReachTheController(t *testing.T) {
	inOnDemandCluster(t, func(w *controlWorld, id uint64) {
		w.report(id, 100_000, 10)
		if n := w.raft.times("Reshard"); n != 0 {
			t.Errorf("%d reshards under a load that is no reason for one", n)
		}
		w.report(id, 600_000, 3)
		if re := w.nodes["a"].meta.State().Stream(id).Reshard; re == nil || len(re.Children) == 0 || w.raft.times("Reshard") != 1 {
			t.Errorf("%v after %d reshards", re, w.raft.times("Reshard"))
		}
		if len(w.nodes["a"].meta.State().Stream(id).DemandPeaks) == 0 {
			t.Error("what the stream needs was not noted")
		}
	})
}

// A broker of an older version would stop at the commands.
func TestOlderBrokersHoldScalingUp(t *testing.T) {
	inOnDemandCluster(t, func(w *controlWorld, id uint64) {
		w.raft.apply(&pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
			Broker: &pb.Broker{NodeId: "old", DiskId: "disk of old", FeatureLevel: raftfsm.FeatureIncarnation},
		}}})
		w.report(id, 2_000_000, 5)
		if w.raft.times("Reshard") != 0 || w.raft.times("NoteDemand") != 0 {
			t.Error(w.raft.commands)
		}
	})
}

func TestLoadReportsRefused(t *testing.T) {
	inOnDemandCluster(t, func(w *controlWorld, _ uint64) {
		ctx := context.Background()
		good := func() *pb.LoadReport {
			return &pb.LoadReport{ClusterId: "c", NodeId: "b", Incarnation: w.broker("b").Incarnation, OverMs: 10_000}
		}
		for name, test := range map[string]struct {
			to     string
			change func(*pb.LoadReport)
			want   stream.Kind
		}{
			"good":            {"a", func(*pb.LoadReport) {}, 0},
			"to a follower":   {"b", func(*pb.LoadReport) {}, stream.NotLeader},
			"another cluster": {"a", func(r *pb.LoadReport) { r.ClusterId = "d" }, stream.Invalid},
			"a former self":   {"a", func(r *pb.LoadReport) { r.Incarnation-- }, stream.Stale},
			"nobody":          {"a", func(r *pb.LoadReport) { r.NodeId = "z" }, stream.Stale},
		} {
			r := good()
			test.change(r)
			if _, err := w.nodes[test.to].service.ReportLoads(ctx, r); stream.KindOf(err) != test.want {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Only the controller scales on-demand streams.
func TestOnDemandReshardIsNotForCallers(t *testing.T) {
	for onDemand, want := range map[bool]bool{false: true, true: false} {
		c := &pb.Command{Op: &pb.Command_Reshard{Reshard: &pb.Reshard{OnDemand: onDemand}}}
		if fromAPI(c) != want {
			t.Errorf("on demand %v: from the API: %v", onDemand, !want)
		}
	}
	if fromAPI(&pb.Command{Op: &pb.Command_NoteDemand{}}) || fromOperator(&pb.Command{Op: &pb.Command_NoteDemand{}}) {
		t.Error("what streams need is not for callers to note")
	}
}
