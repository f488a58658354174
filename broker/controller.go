package broker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"shardstream/ondemand"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// idle is how long a controller may wait when nothing is due.
const idle = time.Hour

const (
	// rebalanceEvery is how often leaderships are evened out at most.
	rebalanceEvery = 5 * time.Second
	// planShare bounds the part of one core that planning may take: it waits
	// this many times as long as it took.
	planShare = 20
	// probesAtOnce bounds how many nodes are called at a time.
	probesAtOnce = 16
)

// controllerConfig says how a controller works.
type controllerConfig struct {
	ReplaceAfter time.Duration // of a dead broker's replicas; default 10 min
	OnDemand     ondemand.Rules
	// Holds tells that this node's disk has replicas of a stream.
	Holds func(stream uint64) bool
	// Lag is by how much this node's goroutines come too late; nil is not at all.
	Lag    func() time.Duration
	Logger *slog.Logger
}

// controller keeps the cluster as it should be while this node leads raft: it
// hears the brokers' beats, fences the dead, and proposes what makePlan finds.
//
// It is bound to one leadership: run ends with that, and with everything that
// it started. It decides nothing by itself that is not checked again in the raft
// FSM against the state at that moment, so that a controller which does not know
// yet that it was deposed can do no harm.
type controller struct {
	control *control
	servers raftServers // nil on a lone node
	cfg     controllerConfig
	term    uint64
	former  string        // who led raft before
	done    chan struct{} // closed when run ends
	kicks   chan struct{} // capacity 1: judge and plan now
	probes  chan struct{} // one token per probe under way
	scaler  *scaler

	mu       sync.Mutex // guards the fields below; nothing waits while it is held
	detector *detector
	clocks   clockTable
	seen     *raftfsm.State // what the detector knows of
	sessions map[string]uint64
	opened   uint64 // sessions in all
	frames   frameKeeper
	unwell   bool // a node's health has changed since the last plan

	// Owned by run.
	tasks     sync.WaitGroup
	planned   *raftfsm.State   // the state that was planned for last, nil to plan in any case
	nextPlan  time.Time        // when a plan is due though the state is the same
	restUntil time.Time        // no plan before that
	planning  chan planOutcome // capacity 1; nil while no plan is carried out
	evened    time.Time        // when leaderships were evened out last
	seats     seatKeeper
	seating   chan struct{} // closed when the change of voters under way is done; nil if none
	scaling   chan struct{} // closed when the scaling under way has been proposed; nil if none
	nextScale time.Time
}

// planOutcome is what came of a plan.
type planOutcome struct {
	state  *raftfsm.State // that it was made from
	next   time.Duration
	took   time.Duration
	moved  bool // leaderships, to even them out
	failed bool
}

func newController(ctl *control, servers raftServers, cfg controllerConfig, former string) *controller {
	if cfg.ReplaceAfter == 0 {
		cfg.ReplaceAfter = defaultReplaceAfter
	}
	now := time.Now()
	return &controller{
		control: ctl, servers: servers, cfg: cfg, term: ctl.meta.Status().Term, former: former,
		done: make(chan struct{}), kicks: make(chan struct{}, 1), probes: make(chan struct{}, probesAtOnce),
		detector: newDetector(ctl.node, now), clocks: clockTable{}, sessions: make(map[string]uint64),
		evened: now, seats: newSeatKeeper(), scaler: newScaler(cfg.OnDemand),
	}
}

// run works until the context ends or the leadership does.
func (c *controller) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		c.tasks.Wait()
		close(c.done)
	}()
	level := slog.LevelInfo
	if c.servers == nil {
		level = slog.LevelDebug // a lone node always leads
	}
	c.cfg.Logger.Log(ctx, level, "this node leads the metadata and controls the cluster", "term", c.term, "before", c.former)
	defer c.cfg.Logger.Log(ctx, level, "this node controls the cluster no more", "term", c.term)
	timer := time.NewTimer(tickEvery)
	defer timer.Stop()
	for c.control.meta.IsLeader() && c.control.meta.Status().Term == c.term {
		state, changed := c.control.meta.Watch()
		now := time.Now()
		c.judge(ctx, now, state)
		c.plan(ctx, now, state)
		c.keepSeats(ctx, now, state)
		c.noteFrames(ctx, now, state)
		c.scale(ctx, now, state)
		timer.Reset(c.nextLook(now, state))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-changed:
		case <-c.kicks:
		case out := <-c.planning:
			c.planEnded(time.Now(), out)
		case <-c.seating:
			c.seating = nil
		case <-c.scaling:
			c.scaling = nil
		}
	}
}

// nextLook is how long to wait if nothing happens. Without other brokers there
// is nobody to judge, and an idle node stays idle.
func (c *controller) nextLook(now time.Time, state *raftfsm.State) time.Duration {
	if len(state.Brokers()) > 1 || c.servers != nil && len(c.servers.Servers()) > 1 {
		return tickEvery
	}
	if c.planning != nil {
		return time.Second // its end wakes us
	}
	next := c.nextPlan
	if state != c.planned {
		next = c.restUntil
	}
	return min(max(next.Sub(now), time.Millisecond), time.Second)
}

// kick has run look at once.
func (c *controller) kick() {
	select {
	case c.kicks <- struct{}{}:
	default:
	}
}

// judge lets the detector decide and carries out what it says.
func (c *controller) judge(ctx context.Context, now time.Time, state *raftfsm.State) {
	c.mu.Lock()
	c.learnLocked(now, state)
	verdict := c.detector.tick(now)
	c.mu.Unlock()
	for _, p := range verdict.probe {
		c.tasks.Go(func() { c.probe(ctx, p) })
	}
	for _, f := range verdict.fence {
		c.cfg.Logger.Warn("a broker is taken for dead: its leaderships move, and its replicas leave the in-sync sets",
			"node", f.node, "incarnation", f.incarnation, "reason", f.reason)
		c.tasks.Go(func() { c.decide(ctx, f, fenceCommand(f)) })
	}
	for _, f := range verdict.unfence {
		c.cfg.Logger.Info("a broker that was taken for dead is heard again", "node", f.node, "incarnation", f.incarnation)
		c.tasks.Go(func() { c.decide(ctx, f, unfenceCommand(f)) })
	}
}

// learnLocked takes the brokers over from the metadata, of which its callers may
// have an older copy than the one that was learnt last.
func (c *controller) learnLocked(now time.Time, state *raftfsm.State) {
	if c.seen != nil && state.Index() <= c.seen.Index() {
		return
	}
	first := c.seen == nil
	c.seen = state
	former := ""
	if first {
		former = c.former
	}
	c.detector.watch(now, c.control.clock.clusterMs(), state.Brokers(), former)
	counted := make(map[string]bool)
	for _, b := range state.Brokers() {
		counted[b.NodeId] = b.State != pb.BrokerState_BROKER_STATE_FENCED && b.State != pb.BrokerState_BROKER_STATE_GONE
	}
	c.clocks.keep(counted)
}

// decide proposes what the detector has decided of a node.
func (c *controller) decide(ctx context.Context, f fence, cmd *pb.Command) {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	result, err := c.control.proposeHere(ctx, cmd)
	if err == nil && result.Error == pb.ErrorKind_ERROR_KIND_NONE {
		return
	}
	if ctx.Err() == nil {
		c.cfg.Logger.Warn("what was decided of a broker could not be done; it is decided again", "node", f.node, "error", err, "detail", result.GetDetail())
	}
	pause(ctx, retryDelay)
	c.mu.Lock()
	c.detector.fenceFailed(f.node)
	c.mu.Unlock()
	c.kick()
}

// plan begins to carry out what there is to do, unless that is under way, or
// was a moment ago, or nothing has changed since.
func (c *controller) plan(ctx context.Context, now time.Time, state *raftfsm.State) {
	if c.planning != nil {
		return
	}
	c.mu.Lock()
	if c.unwell {
		c.unwell, c.planned = false, nil
	}
	c.mu.Unlock()
	if now.Before(c.restUntil) || state == c.planned && now.Before(c.nextPlan) {
		return
	}
	view, waiting := c.view(now, state)
	out := make(chan planOutcome, 1)
	c.planning = out
	c.tasks.Go(func() { out <- c.carryOut(ctx, state, view, waiting) })
}

// view gathers what the plan needs to know. waiting tells that a live node will
// become eligible for leaderships later, which no change of the state says.
func (c *controller) view(now time.Time, state *raftfsm.State) (view planView, waiting bool) {
	view = planView{
		nowMs: c.control.clock.clusterMs(), replaceAfter: c.cfg.ReplaceAfter, holds: c.cfg.Holds,
		mayExpire: c.mayExpire(state.Brokers()), inRaft: c.inRaft(),
		eligible: make(map[string]bool), health: make(map[string]health),
		rebalance: now.Sub(c.evened) >= rebalanceEvery || state.Cluster().GetRebalancingSinceMs() != 0,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range state.Brokers() {
		view.health[b.NodeId] = c.detector.healthOf(b.NodeId)
		view.eligible[b.NodeId] = c.detector.eligibleForLeaderships(b.NodeId, now)
		waiting = waiting || b.State == pb.BrokerState_BROKER_STATE_LIVE && !view.eligible[b.NodeId]
	}
	return view, waiting || !view.rebalance
}

// carryOut makes the plan and proposes its commands one after the other.
func (c *controller) carryOut(ctx context.Context, state *raftfsm.State, view planView, waiting bool) planOutcome {
	began := time.Now()
	p := makePlan(state, view)
	out := planOutcome{state: state, next: p.next, took: time.Since(began), moved: p.evens}
	if waiting && len(state.Brokers()) > 1 {
		out.next = min(out.next, time.Second)
	}
	for _, cmd := range p.commands {
		if err := c.proposePlanned(ctx, cmd); err != nil {
			out.failed = true
			if ctx.Err() == nil {
				c.cfg.Logger.Warn("a change that the cluster needs could not be made yet; it is tried again", "change", commandName(cmd), "error", err)
			}
			return out
		}
	}
	return out
}

func (c *controller) proposePlanned(ctx context.Context, cmd *pb.Command) error {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	result, err := c.control.proposeHere(ctx, cmd)
	if err != nil {
		return err
	}
	switch kind := stream.Kind(result.Error); kind {
	case 0, stream.WrongState, stream.NotFound, stream.Stale:
		// Refused: the state has moved on since the plan. The next one sees it.
		return nil
	default:
		return stream.Errorf(kind, "broker.controller", "%s", result.Detail)
	}
}

// planEnded notes when to plan again: at a change of the state, which includes
// what the plan itself has changed, or when something is due.
func (c *controller) planEnded(now time.Time, out planOutcome) {
	c.planning = nil
	c.planned, c.nextPlan = out.state, now.Add(out.next)
	c.restUntil = now.Add(planShare * out.took)
	if out.moved {
		c.evened = now
	}
	if out.failed {
		c.planned, c.restUntil = nil, now.Add(max(planShare*out.took, retryDelay))
	}
}
