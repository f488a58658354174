package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	pb "shardstream/proto/shardstream/v1"
)

// detectorWorld drives a detector by a clock of its own.
type detectorWorld struct {
	t       testing.TB
	d       *detector
	start   time.Time
	now     time.Time
	brokers []*pb.Broker
	silent  map[string]bool
	fenced  []string // in order, with what they were fenced for
	probed  []string
	last    probe
	raised  []string
}

// newDetectorWorld has live brokers a, b, c...; the detector runs on a.
func newDetectorWorld(t testing.TB, n int, formerLeader string) *detectorWorld {
	start := time.Unix(1_000_000, 0)
	w := &detectorWorld{t: t, d: newDetector("a", start), start: start, now: start, silent: map[string]bool{}}
	for i := range n {
		w.brokers = append(w.brokers, &pb.Broker{
			NodeId: string(rune('a' + i)), Incarnation: 1, State: pb.BrokerState_BROKER_STATE_LIVE,
		})
	}
	w.watch(formerLeader)
	return w
}

func (w *detectorWorld) watch(formerLeader string) {
	w.d.watch(w.now, w.now.UnixMilli(), w.brokers, formerLeader)
}

// set changes a broker in the metadata.
func (w *detectorWorld) set(node string, state pb.BrokerState, incarnation uint64) {
	for i, b := range w.brokers {
		if b.NodeId == node {
			w.brokers[i] = &pb.Broker{NodeId: node, Incarnation: incarnation, State: state, ChangedMs: w.now.UnixMilli()}
		}
	}
	w.watch("")
}

func (w *detectorWorld) incarnation(node string) uint64 {
	for _, b := range w.brokers {
		if b.NodeId == node {
			return b.Incarnation
		}
	}
	return 0
}

func (w *detectorWorld) beat(node string, lag time.Duration) bool {
	return w.d.beat(w.now, beat{node: node, incarnation: w.incarnation(node), lag: lag})
}

// tick judges once and takes the verdict into the metadata.
func (w *detectorWorld) tick() verdict {
	v := w.d.tick(w.now)
	for _, p := range v.probe {
		w.probed = append(w.probed, p.node)
		w.last = p
	}
	for _, f := range v.fence {
		w.fenced = append(w.fenced, f.node)
		w.set(f.node, pb.BrokerState_BROKER_STATE_FENCED, f.incarnation)
	}
	for _, f := range v.unfence {
		w.raised = append(w.raised, f.node)
		w.set(f.node, pb.BrokerState_BROKER_STATE_LIVE, f.incarnation)
	}
	return v
}

// run lets time pass: a tick each 25 ms, a beat each 50 ms of all but the silent.
func (w *detectorWorld) run(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(tickEvery)
		if w.now.Sub(w.start)%beatEvery == 0 {
			for _, b := range w.brokers {
				if !w.silent[b.NodeId] {
					w.beat(b.NodeId, 0)
				}
			}
		}
		w.tick()
	}
}

// until runs until a node was fenced, and gives how long that took.
func (w *detectorWorld) until(node string, limit time.Duration) time.Duration {
	w.t.Helper()
	from := w.now
	for !slices.Contains(w.fenced, node) {
		if w.now.Sub(from) > limit {
			w.t.Fatalf("%s is not fenced after %v", node, limit)
		}
		w.run(tickEvery)
	}
	return w.now.Sub(from)
}

func TestSilentNodeIsFencedAfterItsLimit(t *testing.T) {
	for _, c := range []struct {
		lag, least, most time.Duration
	}{
		{0, 600 * time.Millisecond, 650 * time.Millisecond},
		{100 * time.Millisecond, time.Second, 1050 * time.Millisecond},
		{time.Minute, 2500 * time.Millisecond, 2550 * time.Millisecond},
		{-time.Second, 600 * time.Millisecond, 650 * time.Millisecond}, // nonsense shortens nothing
	} {
		w := newDetectorWorld(t, 3, "")
		w.run(5 * time.Second)
		w.beat("b", c.lag)
		w.silent["b"] = true
		if took := w.until("b", 5*time.Second); took < c.least || took > c.most {
			t.Errorf("reported lag %v: fenced after %v, want %v to %v", c.lag, took, c.least, c.most)
		}
		if len(w.fenced) != 1 {
			t.Errorf("fenced: %v", w.fenced)
		}
	}
}

func TestRefusedDialAfterABrokenConnectionIsDeathAtOnce(t *testing.T) {
	w := newDetectorWorld(t, 3, "")
	w.run(time.Second)
	w.d.connectionBroken("b", 1)
	v := w.tick()
	if len(v.probe) != 1 || v.probe[0].node != "b" {
		t.Fatalf("%+v", v)
	}
	w.d.probeResult(v.probe[0], probeRefused)
	if v := w.tick(); len(v.fence) != 1 || v.fence[0].node != "b" {
		t.Fatalf("%+v", v)
	}
	if v := w.tick(); len(v.fence) != 0 {
		t.Fatalf("fenced twice: %+v", v)
	}
}

func TestEvidenceOfDeathIsOutdatedByABeat(t *testing.T) {
	for _, when := range []string{"before the result", "after it", "other incarnation"} {
		w := newDetectorWorld(t, 3, "")
		w.run(time.Second)
		w.d.connectionBroken("b", 1)
		p := w.tick().probe[0]
		switch when {
		case "before the result":
			w.beat("b", 0)
		case "other incarnation":
			p.incarnation = 7
		}
		w.d.probeResult(p, probeRefused)
		if when == "after it" {
			w.beat("b", 0)
		}
		if v := w.tick(); len(v.fence) != 0 {
			t.Errorf("a beat %s: %+v", when, v)
		}
	}
}

func TestAnAnsweredOrSilentProbeProvesNothing(t *testing.T) {
	for _, outcome := range []probeOutcome{probeAnswered, probeSilent} {
		w := newDetectorWorld(t, 3, "")
		w.run(time.Second)
		w.silent["b"] = true
		w.d.connectionBroken("b", 1)
		w.d.probeResult(w.tick().probe[0], outcome)
		if took := w.until("b", 5*time.Second); took < 500*time.Millisecond {
			t.Errorf("outcome %d: fenced after %v", outcome, took)
		}
	}
}

// A process that died without its connection telling is found by a probe at
// half of the limit.
func TestQuietNodeIsProbedBeforeItsLimit(t *testing.T) {
	w := newDetectorWorld(t, 3, "")
	w.run(time.Second)
	w.silent["b"] = true
	w.run(350 * time.Millisecond)
	if !slices.Equal(w.probed, []string{"b"}) {
		t.Fatalf("probed %v", w.probed)
	}
	w.d.probeResult(w.last, probeRefused)
	if took := w.until("b", time.Second); took > 2*tickEvery {
		t.Fatalf("fenced after %v", took)
	}
}

func TestNewControllerGivesAGraceButNotToTheFormerRaftLeader(t *testing.T) {
	for _, c := range []struct {
		outcome     probeOutcome
		least, most time.Duration
	}{
		{probeSilent, 0, 50 * time.Millisecond},
		{probeRefused, 0, 50 * time.Millisecond},
		{probeAnswered, 550 * time.Millisecond, 700 * time.Millisecond},
	} {
		w := newDetectorWorld(t, 5, "b")
		w.silent["b"], w.silent["c"] = true, true
		v := w.tick()
		if len(v.probe) != 1 || v.probe[0].node != "b" {
			t.Fatalf("%+v", v)
		}
		w.d.probeResult(v.probe[0], c.outcome)
		if took := w.until("b", 2*time.Second); took < c.least || took > c.most {
			t.Errorf("outcome %d: the former leader is fenced after %v", c.outcome, took)
		}
		w.until("c", 2*time.Second)
		if took := w.now.Sub(w.start); took < silenceLimit || took > silenceLimit+4*tickEvery {
			t.Errorf("another silent node is fenced after %v", took)
		}
	}
}

func TestAtMostHalfIsFencedWithinAWindow(t *testing.T) {
	for n, most := range map[int]int{1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 9: 4} {
		w := newDetectorWorld(t, n, "")
		for _, b := range w.brokers {
			w.silent[b.NodeId] = b.NodeId != "a"
		}
		w.run(fenceWindow)
		if len(w.fenced) != most {
			t.Errorf("%d of %d nodes are fenced within the window: %v", len(w.fenced), n, w.fenced)
		}
		if slices.Contains(w.fenced, "a") {
			t.Error("the controller fenced itself")
		}
	}
}

// The window is no more than that: if it was the others who died, they are
// fenced one after the other.
func TestNodesBeyondHalfAreFencedLater(t *testing.T) {
	w := newDetectorWorld(t, 5, "")
	w.silent["b"], w.silent["c"], w.silent["d"] = true, true, true
	w.run(2 * fenceWindow)
	if len(w.fenced) != 3 {
		t.Fatalf("fenced: %v", w.fenced)
	}
}

func TestTheSurelyDeadGoFirst(t *testing.T) {
	w := newDetectorWorld(t, 3, "")
	w.run(time.Second)
	w.silent["b"], w.silent["c"] = true, true
	w.run(silenceLimit) // both are at their limit, and were probed
	w.d.probeResult(w.last, probeRefused)
	w.run(2 * tickEvery)
	if !slices.Equal(w.fenced, []string{"c"}) {
		t.Fatalf("fenced: %v", w.fenced)
	}
}

func TestFencedNodeComesBackWithItsBeats(t *testing.T) {
	w := newDetectorWorld(t, 3, "")
	w.run(time.Second)
	w.silent["b"] = true
	w.until("b", time.Second)
	w.run(time.Minute)
	if len(w.raised) != 0 {
		t.Fatal("unfenced without a beat")
	}
	if w.d.beat(w.now, beat{node: "b", incarnation: 9}) {
		t.Fatal("a beat of another incarnation was taken")
	}
	if !w.beat("b", 0) {
		t.Fatal("a beat of a fenced node was refused")
	}
	if v := w.tick(); len(v.unfence) != 0 {
		t.Fatal("one beat may have lain in a socket since before")
	}
	w.silent["b"] = false
	w.run(3 * beatEvery)
	if !slices.Equal(w.raised, []string{"b"}) {
		t.Fatalf("unfenced: %v", w.raised)
	}
	if len(w.fenced) != 1 {
		t.Fatalf("fenced again: %v", w.fenced)
	}
}

func TestFencedNodeWithAHungDiskStaysOut(t *testing.T) {
	w := newDetectorWorld(t, 3, "")
	w.run(time.Second)
	w.set("b", pb.BrokerState_BROKER_STATE_FENCED, 1)
	w.silent["b"] = true
	for range 10 {
		w.now = w.now.Add(beatEvery)
		w.d.beat(w.now, beat{node: "b", incarnation: 1, health: health{stalled: true}})
		w.tick()
	}
	if len(w.raised) != 0 {
		t.Fatal("unfenced")
	}
}

func TestLeadershipsMoveBackLaterEachTime(t *testing.T) {
	w := newDetectorWorld(t, 3, "")
	w.run(time.Minute)
	if !w.d.eligibleForLeaderships("b", w.now) {
		t.Fatal("a node that was always well is not eligible")
	}
	for i, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute} {
		w.set("b", pb.BrokerState_BROKER_STATE_FENCED, 1)
		if w.d.eligibleForLeaderships("b", w.now) {
			t.Fatal("a fenced node is eligible")
		}
		w.run(time.Second)
		from := w.now.Add(-time.Second) // it beats, so it was back at once
		for !w.d.eligibleForLeaderships("b", w.now) {
			w.run(100 * time.Millisecond)
		}
		if took := w.now.Sub(from); took < want || took > want+time.Second {
			t.Fatalf("return %d: eligible after %v, want %v", i, took, want)
		}
	}
	w.run(forgetAfter)
	w.set("b", pb.BrokerState_BROKER_STATE_LIVE, 2) // restarted
	w.run(time.Second)
	if w.d.eligibleForLeaderships("b", w.now) {
		t.Fatal("a restarted node is eligible at once")
	}
}

func TestReturnsAreForgottenAfterHealth(t *testing.T) {
	w := newDetectorWorld(t, 3, "")
	w.run(time.Minute)
	for range 3 {
		w.set("b", pb.BrokerState_BROKER_STATE_FENCED, 1)
		w.run(time.Second)
	}
	w.run(forgetAfter)
	w.set("b", pb.BrokerState_BROKER_STATE_FENCED, 1)
	w.run(returnDelay + time.Second)
	if !w.d.eligibleForLeaderships("b", w.now) {
		t.Fatal("returns of long ago count")
	}
}

func TestNodeUnwellIsNotGivenLeaderships(t *testing.T) {
	w := newDetectorWorld(t, 3, "")
	w.run(time.Minute)
	for _, h := range []health{{stalled: true}, {full: true}, {stopping: true}} {
		w.d.beat(w.now, beat{node: "b", incarnation: 1, health: h})
		if w.d.eligibleForLeaderships("b", w.now) {
			t.Errorf("%+v is eligible", h)
		}
		if w.d.healthOf("b") != h {
			t.Errorf("%+v is told as %+v", h, w.d.healthOf("b"))
		}
	}
}

// However the detector is starved, it fences no node whose beats reach its
// socket within the bounds; and one that falls silent it does fence, after its
// limit and the time that the detector itself was not running.
func TestStarvedDetectorFencesNoLiveNode_Property(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newDetectorWorld(t, 3, "")
		lag := time.Duration(rapid.IntRange(0, 800).Draw(rt, "lagMs")) * time.Millisecond
		limit := min(silenceLimit+lagFactor*lag, silenceMax)
		dies := w.start.Add(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "diesMs")) * time.Millisecond)
		const life = 6 * time.Second

		// By how many ticks the detector may be late to read a beat that has
		// reached its socket. One it bears at any time, more only while there
		// is room up to the limit.
		readLate := rapid.SampledFrom([]int{1, 3}).Draw(rt, "readLate")
		slack := time.Duration(readLate-1) * 2 * tickEvery

		// When b's beats reach the socket; the first one comes at once.
		arrivals := []time.Time{w.start}
		for {
			gap := limit - slack // the longest is the most interesting one
			if rapid.Bool().Draw(rt, "sooner") {
				gap = time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(gap)).Draw(rt, "gap"))
			}
			next := arrivals[len(arrivals)-1].Add(gap)
			if next.After(dies) {
				break
			}
			arrivals = append(arrivals, next)
		}
		last := arrivals[len(arrivals)-1]

		// The detector ticks every 25 ms of its own waking time, and after each
		// it may be frozen. What came meanwhile is read some ticks later.
		var frozen time.Duration
		next := 0
		oneIn := rapid.SampledFrom([]int{3, 10, 40, 1000}).Draw(rt, "frozenOneIn")
		read := func(upTo time.Time) {
			for next < len(arrivals) && !arrivals[next].After(upTo) {
				w.beat("b", lag)
				next++
			}
		}
		ticks := make([]time.Time, readLate) // the last ones, the oldest first
		for i := range ticks {
			ticks[i] = w.start
		}
		for w.now.Before(w.start.Add(life)) {
			overslept := time.Duration(0)
			if rapid.IntRange(1, oneIn).Draw(rt, "frozen") == oneIn {
				overslept = time.Duration(rapid.IntRange(0, 3000).Draw(rt, "forMs")) * time.Millisecond
			}
			due := w.now.Add(tickEvery)
			w.now = due
			w.beat("c", 0)
			read(ticks[0])
			w.now = due.Add(overslept)
			if late := rapid.IntRange(0, readLate).Draw(rt, "late"); late > 0 {
				read(ticks[readLate-late])
			} else {
				read(w.now)
			}
			if !w.now.After(last) {
				frozen = 0
			}
			frozen += overslept
			copy(ticks, ticks[1:])
			ticks[readLate-1] = w.now
			w.tick()
			fenced := slices.Contains(w.fenced, "b")
			if fenced && w.now.Before(last.Add(limit)) {
				rt.Fatalf("fenced at %v; its beats came at %v, its limit is %v", w.now.Sub(w.start), ago(arrivals, w.start), limit)
			}
			if deadline := last.Add(limit + frozen + time.Duration(readLate+6)*tickEvery); !fenced && w.now.After(deadline) {
				rt.Fatalf("silent since %v, limit %v, the detector slept %v: not fenced at %v", last.Sub(w.start), limit, frozen, w.now.Sub(w.start))
			}
		}
	})
}

func ago(times []time.Time, start time.Time) (text string) {
	for _, at := range times {
		text += fmt.Sprint(at.Sub(start), " ")
	}
	return text
}
