package broker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	pb "shardstream/proto/shardstream/v1"
)

// The bounds of failure detection. Measured on machines with 16 busy processes
// on two cores: gaps between the beats of a live node reach 0.6 s and more, so
// the limit stretches with the lag that nodes report of themselves, and the
// detector's own lag never counts against anybody.
const (
	beatEvery    = 50 * time.Millisecond
	tickEvery    = 25 * time.Millisecond
	silenceLimit = 600 * time.Millisecond  // without a beat, before a node is fenced
	lagFactor    = 4                       // times the lag that the node reported
	silenceMax   = 2500 * time.Millisecond // however much lag it reports
	// fenceWindow is the time within which at most half of the nodes are
	// fenced: if more fall silent together, it is this node that is cut off.
	fenceWindow = silenceMax
	// A fenced node is asked back at its first beats, but leaderships move back
	// to it only after a while that doubles each time, until it was well for
	// long enough.
	returnDelay    = 10 * time.Second
	returnDelayMax = 5 * time.Minute
	forgetAfter    = 10 * time.Minute
	// returnBeats is how many beats a fenced node must send before it is live
	// again: one may have lain in a socket since before it was fenced.
	returnBeats = 2

	probeTimeout = 150 * time.Millisecond // on a machine that is not starved
)

// probeOutcome is what came of calling a node on a new connection.
type probeOutcome uint8

const (
	probeAnswered probeOutcome = iota // it lives
	probeRefused                      // nobody listens there: the process is dead
	probeSilent                       // nothing came back in time, which proves nothing
)

// detector decides which brokers are dead. It is a pure value: it does no I/O,
// has no goroutine and no clock, and is not safe for concurrent use; the
// controller feeds it and carries out what it says.
//
// It is a judge of liveness only. That a broker which it wrongly takes for dead
// can't do harm is the business of epochs and in-sync sets, not of this code.
type detector struct {
	self  string
	nodes map[string]*watched
	// lag is the time that the detector itself has overslept, in all, up to
	// lastTick. The difference of two readings is what to subtract from a
	// silence in between.
	lag      time.Duration
	lastTick time.Time
}

// watched is what the detector knows of one broker.
type watched struct {
	incarnation uint64
	state       pb.BrokerState
	since       time.Time // in this state and incarnation

	lastBeat    time.Time // or when the grace began
	lagAtBeat   time.Duration
	beats       int           // since it is in this state
	reportedLag time.Duration // in its last beat
	health      health

	probeDue bool // at the next tick
	probed   bool // since the last beat
	// unheard marks the former raft leader, whose silence is why there was an
	// election: an unanswered probe is enough to take it for dead.
	unheard bool
	dead    string // why it is taken for dead, "" if it isn't: evidence that a beat wipes out
	overdue bool   // it was too late at the last tick already
	fencing bool   // told to the controller, and not yet so in the metadata

	fencedAt   time.Time
	returns    int       // how often it came back lately
	eligibleAt time.Time // leaderships may move to it from then on
}

// health is what a node says of itself in a beat.
type health struct {
	stalled  bool // its disk hangs
	full     bool // its disk is almost full
	stopping bool // it was asked to stop
}

// beat is one proof of life.
type beat struct {
	node        string
	incarnation uint64
	lag         time.Duration // the sender's own scheduling lag
	health      health
}

// fence is the decision that a broker is dead.
type fence struct {
	node        string
	incarnation uint64
	reason      string
}

// probe is the wish to have a node called, and what was known when it was made.
type probe struct {
	node        string
	incarnation uint64
	beats       int
}

// verdict is what a tick has found to do, each list by node.
type verdict struct {
	probe   []probe
	fence   []fence
	unfence []fence // without a reason
}

// newDetector makes the detector of a controller on the node self. watch gives
// it the brokers; tick is then due every tickEvery.
func newDetector(self string, now time.Time) *detector {
	return &detector{self: self, nodes: make(map[string]*watched), lastTick: now}
}

// overslept gives how long the detector has slept in all, a tick that is
// overdue included: for as long it may have been unable to see beats that had come.
func (d *detector) overslept(now time.Time) time.Duration {
	return d.lag + max(0, now.Sub(d.lastTick)-tickEvery)
}

// watch takes over what the metadata says of the brokers. A broker that is new
// to the detector has a fresh grace, but not formerLeader, which led raft
// before this controller did: it is called at once. clusterMs is the cluster's
// time, in which the metadata says when a broker's state changed.
func (d *detector) watch(now time.Time, clusterMs int64, brokers []*pb.Broker, formerLeader string) {
	known := make(map[string]bool, len(brokers))
	for _, b := range brokers {
		if b.State == pb.BrokerState_BROKER_STATE_GONE {
			continue
		}
		known[b.NodeId] = true
		d.watchOne(now, clusterMs, b, formerLeader)
	}
	maps.DeleteFunc(d.nodes, func(node string, _ *watched) bool { return !known[node] })
}

func (d *detector) watchOne(now time.Time, clusterMs int64, b *pb.Broker, formerLeader string) {
	old := d.nodes[b.NodeId]
	if old != nil && old.incarnation == b.Incarnation && old.state == b.State {
		return
	}
	w := &watched{incarnation: b.Incarnation, state: b.State, since: now, lastBeat: now, lagAtBeat: d.overslept(now)}
	d.nodes[b.NodeId] = w
	switch {
	case old == nil:
		// Another controller may have unfenced it a moment ago.
		ago := time.Duration(clusterMs-b.ChangedMs) * time.Millisecond
		w.eligibleAt = now.Add(min(max(0, returnDelay-ago), returnDelay))
		w.unheard = b.NodeId == formerLeader
		w.probeDue = w.unheard && w.alive()
		return
	case old.incarnation == b.Incarnation:
		w.reportedLag, w.health = old.reportedLag, old.health
		w.lastBeat, w.lagAtBeat = old.lastBeat, old.lagAtBeat
	}
	w.fencedAt, w.returns, w.eligibleAt = old.fencedAt, old.returns, old.eligibleAt
	switch {
	case !w.alive():
		if old.alive() {
			w.fencedAt = now
			if now.Sub(old.since) >= forgetAfter {
				w.returns = 0
			}
		}
	case !old.alive() || old.incarnation != b.Incarnation:
		// It is back. Its grace begins anew, and leaderships come later.
		w.lastBeat, w.lagAtBeat = now, d.overslept(now)
		w.eligibleAt = now.Add(min(returnDelay<<min(w.returns, 10), returnDelayMax))
		w.returns++
	}
}

// alive tells that the metadata counts on the node, so that its silence matters.
func (w *watched) alive() bool {
	switch w.state {
	case pb.BrokerState_BROKER_STATE_LIVE, pb.BrokerState_BROKER_STATE_DRAINING, pb.BrokerState_BROKER_STATE_STOPPING:
		return true
	}
	return false
}

// beat notes a proof of life. It is false if the broker is not known in this
// incarnation: another process has taken its name, or the sender is one that
// should have ended.
func (d *detector) beat(now time.Time, b beat) bool {
	w := d.nodes[b.node]
	if w == nil || w.incarnation != b.incarnation {
		return false
	}
	w.lastBeat, w.lagAtBeat = now, d.overslept(now)
	w.beats++
	w.reportedLag, w.health = b.lag, b.health
	w.probed, w.probeDue, w.unheard, w.dead, w.overdue = false, false, false, "", false
	return true
}

// connectionBroken notes that the node's session ended without being replaced
// by another: it is called at once, since a refused dial is death known within
// milliseconds.
func (d *detector) connectionBroken(node string, incarnation uint64) {
	if w := d.nodes[node]; w != nil && w.incarnation == incarnation && w.alive() && node != d.self {
		w.probeDue = true
	}
}

// probeResult notes what came of a probe that a verdict asked for. A beat that
// came since says more than any probe.
func (d *detector) probeResult(p probe, outcome probeOutcome) {
	w := d.nodes[p.node]
	if w == nil || w.incarnation != p.incarnation || w.beats != p.beats || !w.alive() {
		return
	}
	switch {
	case outcome == probeRefused:
		w.dead = "its process is gone: the connection broke and a new one is refused"
	case outcome == probeSilent && w.unheard:
		w.dead = "it led raft until the election, and does not answer a call"
	}
	w.unheard = false
}

// fenceFailed lets a fencing that could not be proposed be decided again.
func (d *detector) fenceFailed(node string) {
	if w := d.nodes[node]; w != nil {
		w.fencing = false
	}
}

// tick judges all nodes. An early tick, because something happened, is welcome;
// the time by which one comes late counts against nobody.
func (d *detector) tick(now time.Time) verdict {
	d.lag, d.lastTick = d.overslept(now), now
	var v verdict
	var doomed []fence
	for _, node := range slices.Sorted(maps.Keys(d.nodes)) {
		w := d.nodes[node]
		switch {
		case node == d.self:
		case w.state == pb.BrokerState_BROKER_STATE_FENCED:
			fresh := d.silence(w, now) < silenceLimit
			if w.beats >= returnBeats && fresh && !w.health.stalled && !w.fencing {
				w.fencing = true
				v.unfence = append(v.unfence, fence{node: node, incarnation: w.incarnation})
			}
		case w.alive():
			if reason := d.judge(w, now); reason != "" && !w.fencing {
				doomed = append(doomed, fence{node, w.incarnation, reason})
			}
			if w.probeDue && !w.fencing {
				w.probeDue, w.probed = false, true
				v.probe = append(v.probe, probe{node, w.incarnation, w.beats})
			}
		}
	}
	v.fence = d.atMostHalf(now, doomed)
	for _, f := range v.fence {
		d.nodes[f.node].fencing = true
	}
	return v
}

// silence is for how long nothing was heard of the node, as far as the
// detector was awake to hear it.
func (d *detector) silence(w *watched, now time.Time) time.Duration {
	return now.Sub(w.lastBeat) - (d.lag - w.lagAtBeat)
}

// limit is how long the node may be silent.
func (w *watched) limit() time.Duration {
	return min(silenceLimit+lagFactor*max(0, w.reportedLag), silenceMax)
}

// judge gives the reason why the node is dead, or "".
func (d *detector) judge(w *watched, now time.Time) string {
	if w.dead != "" {
		return w.dead
	}
	silent := d.silence(w, now)
	if silent > w.limit()/2 && !w.probed {
		w.probeDue = true // a process that died unseen is found before the limit
	}
	late := silent > w.limit()
	// The first tick that finds it late may have come just before the
	// goroutine that has its beat in hand: those get one more turn.
	again := late && w.overdue
	w.overdue = late
	if !again {
		return ""
	}
	return fmt.Sprintf("no beat for %v; its limit is %v", silent.Round(time.Millisecond), w.limit())
}

// atMostHalf holds fencings back that would take out more than half of the
// nodes within a window; they are decided again at the next tick. Nodes that
// are known to be gone come first, then those silent for longest.
func (d *detector) atMostHalf(now time.Time, doomed []fence) []fence {
	if len(doomed) == 0 {
		return nil
	}
	total, taken := 0, 0
	for _, w := range d.nodes {
		switch {
		case w.alive():
			total++
			if w.fencing {
				taken++
			}
		case !w.fencedAt.IsZero() && now.Sub(w.fencedAt) < fenceWindow:
			total++
			taken++
		}
	}
	slices.SortStableFunc(doomed, func(a, b fence) int {
		x, y := d.nodes[a.node], d.nodes[b.node]
		return cmp.Or(
			cmp.Compare(min(1, len(y.dead)), min(1, len(x.dead))),
			x.lastBeat.Compare(y.lastBeat))
	})
	doomed = doomed[:min(len(doomed), max(0, total/2-taken))]
	slices.SortFunc(doomed, func(a, b fence) int { return cmp.Compare(a.node, b.node) })
	return doomed
}

// eligibleForLeaderships tells whether leaderships may be moved to the node to
// even them out. An election never asks: it takes whom it can get.
func (d *detector) eligibleForLeaderships(node string, now time.Time) bool {
	w := d.nodes[node]
	return w != nil && w.state == pb.BrokerState_BROKER_STATE_LIVE && w.health == (health{}) && w.dead == "" &&
		!w.overdue && !now.Before(w.eligibleAt)
}

// heard tells that the node's beats come at present.
func (d *detector) heard(node string, incarnation uint64, now time.Time) bool {
	w := d.nodes[node]
	return w != nil && w.incarnation == incarnation && w.beats > 0 && w.dead == "" && d.silence(w, now) <= w.limit()
}

// healthOf gives what the node said of itself last.
func (d *detector) healthOf(node string) health {
	if w := d.nodes[node]; w != nil {
		return w.health
	}
	return health{}
}
