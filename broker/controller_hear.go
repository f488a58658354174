package broker

import (
	"context"
	"errors"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// heldSession is a broker's session with a controller.
type heldSession struct {
	controller  *controller
	node        string
	incarnation uint64
	number      uint64 // 0: within the process, which can't break
}

// open begins a session; a former one of the same node counts no more.
func (c *controller) open(node string, incarnation uint64) *heldSession {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened++
	c.sessions[node] = c.opened
	return &heldSession{controller: c, node: node, incarnation: incarnation, number: c.opened}
}

// broken tells the detector that a session has ended, if the node has not begun
// another meanwhile.
func (h *heldSession) broken() {
	if h == nil {
		return
	}
	c := h.controller
	c.mu.Lock()
	current := c.sessions[h.node] == h.number
	if current {
		delete(c.sessions, h.node)
		c.detector.connectionBroken(h.node, h.incarnation)
	}
	c.mu.Unlock()
	if current {
		c.kick()
	}
}

// hear takes a beat and answers it.
func (c *controller) hear(h *heldSession, b *pb.Beat) (*pb.BeatAnswer, error) {
	const op = "broker.Session"
	state := c.control.meta.State()
	known := state.Broker(h.node)
	switch {
	case known == nil || known.Incarnation < h.incarnation:
		return nil, stream.Errorf(stream.Unavailable, op, "node %s is not registered in incarnation %d", h.node, h.incarnation)
	case known.State == pb.BrokerState_BROKER_STATE_GONE:
		return nil, stream.Errorf(stream.Stale, op, "node %s was removed from the cluster", h.node)
	case known.Incarnation > h.incarnation:
		return nil, stream.Errorf(stream.Stale, op, "another process has registered as node %s: two must not run under one name", h.node)
	}
	now, wall := time.Now(), c.control.clock.wall()
	said := health{stalled: b.DiskStalled, full: b.DiskFull, stopping: b.Stopping}
	c.mu.Lock()
	c.learnLocked(now, state) // it may have registered since the last tick
	changed := c.detector.healthOf(h.node) != said
	if !c.detector.beat(now, beat{node: h.node, incarnation: h.incarnation, lag: time.Duration(b.LagUs) * time.Microsecond, health: said}) {
		c.mu.Unlock()
		return nil, stream.Errorf(stream.Unavailable, op, "node %s is not one of the cluster's", h.node)
	}
	c.clocks.note(h.node, b.ClockMs, wall)
	c.frames.hear(h.node, h.incarnation, b.JournalFrame)
	offset, ok := c.clocks.median(c.countedLocked(), c.control.clock.clusterMs()-wall)
	c.unwell = c.unwell || changed
	c.mu.Unlock()
	fenced := known.State == pb.BrokerState_BROKER_STATE_FENCED
	if changed || fenced {
		c.kick()
	}
	answer := &pb.BeatAnswer{Number: b.Number, RaftIndex: state.Index(), Fenced: fenced}
	if ok {
		answer.ClusterMs = wall + offset
	}
	return answer, nil
}

// countedLocked is of how many nodes a majority makes the cluster's time.
func (c *controller) countedLocked() int {
	n := 0
	for _, b := range c.seen.Brokers() {
		if b.State != pb.BrokerState_BROKER_STATE_FENCED && b.State != pb.BrokerState_BROKER_STATE_GONE {
			n++
		}
	}
	return n
}

// nameIsFree refuses a second node under the name of one that is alive.
func (c *controller) nameIsFree(node, disk string) error {
	known := c.control.meta.State().Broker(node)
	if known.GetState() == pb.BrokerState_BROKER_STATE_GONE && known.DiskId == disk {
		return stream.Errorf(stream.AlreadyExists, "broker.Join",
			"node %s was removed from the cluster: to add it again, start it with an empty data directory", node)
	}
	if known == nil || known.DiskId == disk {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.detector.heard(node, known.Incarnation, time.Now()) {
		return nameTaken(node)
	}
	return nil
}

func nameTaken(node string) error {
	return stream.Errorf(stream.AlreadyExists, "broker.Join",
		"a node called %s is alive and has another disk: give this one another --node-id, or stop that one", node)
}

// mayPropose tells whether a broker may have a command applied: one that a
// caller of the Kinesis API gave it, or one in which it speaks of itself.
func (c *controller) mayPropose(node string, cmd *pb.Command) error {
	const op = "broker.Submit"
	about := ""
	switch o := cmd.GetOp().(type) {
	case *pb.Command_RegisterBroker:
		about = o.RegisterBroker.GetBroker().GetNodeId()
		if err := c.nameIsFree(about, o.RegisterBroker.GetBroker().GetDiskId()); err != nil {
			return err
		}
	case *pb.Command_ReplicasCreated:
		about = o.ReplicasCreated.GetNodeId()
	case *pb.Command_MarkSuspect:
		about = o.MarkSuspect.GetNodeId()
	case *pb.Command_AlterInSync:
		about = o.AlterInSync.GetNodeId()
	case *pb.Command_SealShards:
		about = o.SealShards.GetNodeId()
	case *pb.Command_StopBroker:
		about = o.StopBroker.GetNodeId()
	case *pb.Command_AcceptLoss: // an operator's, of a damage that the node has
		return nil
	case *pb.Command_InitCluster: // whichever founder comes first
		if id := c.control.clusterID(); o.InitCluster.GetClusterId() != id {
			return stream.Errorf(stream.Invalid, op, "this is cluster %s, not %s", id, o.InitCluster.GetClusterId())
		}
		return nil
	default:
		if fromAPI(cmd) || fromOperator(cmd) {
			return nil
		}
		return stream.Errorf(stream.Invalid, op, "command %s is not for brokers to propose", commandName(cmd))
	}
	if about != node {
		return stream.Errorf(stream.Invalid, op, "node %s speaks of node %q", node, about)
	}
	return nil
}

// probe calls a node on a new connection: a process that is gone refuses it at
// once, one that lives answers, and anything else proves nothing.
func (c *controller) probe(ctx context.Context, p probe) {
	select {
	case c.probes <- struct{}{}:
		defer func() { <-c.probes }()
	case <-ctx.Done():
		return
	}
	outcome := c.call(ctx, p.node)
	c.mu.Lock()
	c.detector.probeResult(p, outcome)
	c.mu.Unlock()
	c.kick()
}

// probeAgain is how long after a connection that broke the next is tried.
const probeAgain = 10 * time.Millisecond

// patience is how long a probe may take: longer where cores are starved, so that
// a former raft leader which lost its leadership for that is not taken for dead.
func (c *controller) patience() time.Duration {
	if c.cfg.Lag == nil {
		return probeTimeout
	}
	return min(probeTimeout+lagFactor*c.cfg.Lag(), silenceMax)
}

// call finds out, as long as patience lasts, whether a process listens and
// answers. A process that is being killed may lose its connections before its
// listener: so a connection that breaks says nothing, and the next is tried.
func (c *controller) call(ctx context.Context, node string) probeOutcome {
	ctx, cancel := context.WithTimeout(ctx, c.patience())
	defer cancel()
	address := c.control.address(node)
	if address == "" {
		return probeSilent
	}
	for {
		outcome := c.callOnce(ctx, address)
		if outcome != probeSilent || ctx.Err() != nil {
			return outcome
		}
		pause(ctx, probeAgain)
	}
}

func (c *controller) callOnce(ctx context.Context, address string) probeOutcome {
	raw, err := c.control.conns.dial(ctx, address)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return probeRefused
	}
	if err != nil {
		return probeSilent
	}
	defer raw.Close() // in case that gRPC never takes it
	conn, err := newClientConn(address, onlyOnce(raw))
	if err != nil {
		return probeSilent
	}
	defer conn.Close()
	// The kernel accepts connections for a process that is frozen, so only an
	// answer counts. Any does: it need not know the question.
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch status.Code(err) {
	case codes.DeadlineExceeded, codes.Unavailable, codes.Canceled:
		return probeSilent
	}
	return probeAnswered
}
