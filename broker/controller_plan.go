package broker

import (
	"cmp"
	"slices"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
)

const (
	defaultReplaceAfter = 10 * time.Minute
	// addsPerNode bounds how many replicas a node is given at a time that are
	// not yet in sync. The bytes that they draw are bounded elsewhere; this
	// keeps a node that joins from opening everything at once.
	addsPerNode = 16
	// itemsPerCommand bounds a raft entry: a replica's change is some 30 bytes.
	itemsPerCommand = 20_000
)

// planView is what the controller knows beside the metadata when it plans.
type planView struct {
	nowMs        int64 // the cluster's time
	replaceAfter time.Duration
	// eligible nodes may be given leaderships to even them out.
	eligible map[string]bool
	health   map[string]health
	// holds tells that this node has replicas of the stream on its disk.
	holds func(stream uint64) bool
	// mayExpire says that the cluster's time is good enough to end shards by.
	mayExpire bool
	inRaft    map[string]bool // nodes that raft has servers of
	// rebalance allows moving leaderships that could stay where they are.
	rebalance bool
}

// planned is what there is to do now, and when to look again though nothing has
// changed by then.
type planned struct {
	commands []*pb.Command
	next     time.Duration
	evens    bool // some of it moves leaderships that could stay where they are
}

// makePlan compares the metadata with what it should be and gives the commands
// that lead there, one for each cause however many shards it concerns. It is a
// pure function: the same arguments give the same plan. Every command carries
// the versions that it was made from and is checked against them when it is
// applied, so a plan of a moment ago can do no harm.
//
// No shard is in two commands of one plan, since the first would make the
// second stale.
func makePlan(state *raftfsm.State, view planView) planned {
	p := &planner{
		state: state, view: view, next: idle, brokers: make(map[string]*pb.Broker),
		adding: make(map[string]int), replicas: make(map[string]int), touched: make(map[string]bool),
	}
	for _, b := range state.Brokers() {
		p.brokers[b.NodeId] = b
		if b.State == pb.BrokerState_BROKER_STATE_LIVE {
			p.live++
		}
	}
	p.repeatStops()
	p.forget()
	for _, s := range state.Streams() {
		p.stream(s)
	}
	p.weigh()
	for _, s := range p.settled {
		for _, shard := range state.Shards(s.Id) {
			p.shard(shard)
		}
	}
	p.repair()
	p.balance()
	p.spread()
	return planned{commands: p.commands(), next: p.next, evens: len(p.evenMoves) > 0}
}

type planner struct {
	state   *raftfsm.State
	view    planView
	brokers map[string]*pb.Broker
	live    int
	next    time.Duration

	settled  []*pb.Stream    // whose shards may be changed
	touched  map[string]bool // nodes whose shards a command changes already
	adding   map[string]int  // replicas by node that are not in sync yet
	replicas map[string]int  // replicas by node
	wanting  []*pb.Shard     // shards with too few replicas
	quiet    []*pb.Shard     // shards that nothing else was planned for

	first     []*pb.Command // stops and transitions
	moves     []*pb.ReplicaChange
	unformed  []*pb.ReplicaChange
	factors   []*pb.FactorChange
	places    []*pb.ReplicaPlace
	drops     []*pb.ReplicaChange
	evenMoves []*pb.ReplicaChange
}

// commands gives what was found, the urgent first.
func (p *planner) commands() []*pb.Command {
	all := p.first
	all = inParts(all, p.moves, moveCommand)
	all = inParts(all, p.unformed, dropCommand)
	all = inParts(all, p.factors, factorCommand)
	all = inParts(all, p.places, addCommand)
	all = inParts(all, p.drops, dropCommand)
	return inParts(all, p.evenMoves, moveCommand)
}

// inParts appends one command with all the items, or a few if there are so many
// that raft's entry would grow too large.
func inParts[T any](all []*pb.Command, items []T, command func([]T) *pb.Command) []*pb.Command {
	for part := range slices.Chunk(items, itemsPerCommand) {
		all = append(all, command(part))
	}
	return all
}

// dueIn asks to be called again when a moment of the cluster's time has come.
// It is true if it has come already.
func (p *planner) dueIn(ms int64) bool {
	wait := time.Duration(ms-p.view.nowMs) * time.Millisecond
	if wait <= 0 {
		return true
	}
	p.next = min(p.next, wait)
	return false
}

// repeatStops begins the leaving of brokers that say so, and goes on with it
// when something has become movable. It also takes dead brokers out of in-sync
// sets that the floor has kept them in, once another member was added.
func (p *planner) repeatStops() {
	movable, kept := p.leftovers()
	for _, b := range p.state.Brokers() {
		stopping := p.view.health[b.NodeId].stopping
		switch b.State {
		case pb.BrokerState_BROKER_STATE_LIVE, pb.BrokerState_BROKER_STATE_DRAINING:
			if stopping {
				p.leave(b, stopCommand(b))
			}
		case pb.BrokerState_BROKER_STATE_STOPPING:
			if movable[b.NodeId] {
				p.leave(b, stopCommand(b))
			}
		case pb.BrokerState_BROKER_STATE_FENCED:
			if kept[b.NodeId] {
				p.leave(b, fenceCommand(fence{b.NodeId, b.Incarnation, b.Reason}))
			}
		}
	}
}

// leave plans a command that changes all shards with replicas on the broker.
func (p *planner) leave(b *pb.Broker, c *pb.Command) {
	p.touched[b.NodeId] = true
	p.first = append(p.first, c)
}

// leftovers tells which stopping nodes hold a leadership or membership that
// could go elsewhere now, and which dead nodes a membership.
func (p *planner) leftovers() (movable, kept map[string]bool) {
	leaving := make(map[string]bool)
	dead := make(map[string]bool)
	for node, b := range p.brokers {
		leaving[node] = b.State == pb.BrokerState_BROKER_STATE_STOPPING
		dead[node] = b.State == pb.BrokerState_BROKER_STATE_FENCED
	}
	movable, kept = make(map[string]bool), make(map[string]bool)
	if !anyTrue(leaving) && !anyTrue(dead) {
		return movable, kept
	}
	for _, s := range p.state.Streams() {
		if s.Status == pb.StreamStatus_STREAM_STATUS_DELETING {
			continue
		}
		for _, shard := range p.state.Shards(s.Id) {
			if shard.Leader == 0 {
				continue
			}
			above := len(shard.InSync) > int(shard.MinInSync)
			for _, r := range shard.Replicas {
				switch {
				case leaving[r.NodeId] && (r.Id == shard.Leader && p.successor(shard, nil) != 0 || r.Id != shard.Leader && above && inSync(shard, r)):
					movable[r.NodeId] = true
				case dead[r.NodeId] && above && inSync(shard, r):
					kept[r.NodeId] = true
				}
			}
		}
	}
	return movable, kept
}

func anyTrue(m map[string]bool) bool {
	for _, v := range m {
		if v {
			return true
		}
	}
	return false
}

// successor gives the first in-sync replica on a live node, other than the
// leader, that the shard's leadership can go to; 0 if there is none. unfit nodes
// are passed over.
func (p *planner) successor(shard *pb.Shard, unfit func(node string) bool) uint64 {
	for _, r := range shard.Replicas {
		if r.Id != shard.Leader && r.State == pb.ReplicaState_REPLICA_STATE_CREATED && inSync(shard, r) &&
			p.brokers[r.NodeId].GetState() == pb.BrokerState_BROKER_STATE_LIVE && (unfit == nil || !unfit(r.NodeId)) {
			return r.Id
		}
	}
	return 0
}

func inSync(shard *pb.Shard, r *pb.Replica) bool { return slices.Contains(shard.InSync, r.Id) }

// stream ends CREATING and DELETING when everything is done and the time has
// come. CREATING ends when every first replica is on its disk.
//
// DELETING is the explicit tombstone by which brokers drop their replicas (I16).
// It ends though a broker is down, since its name must become free; that broker
// frees the data when it returns: see deletedStream.
func (p *planner) stream(s *pb.Stream) {
	if s.Status == pb.StreamStatus_STREAM_STATUS_DELETING {
		switch {
		case !p.dueIn(s.TransitionAfterMs):
		case p.view.holds(s.Id):
			p.next = min(p.next, retryDelay)
		default:
			p.first = append(p.first, &pb.Command{Op: &pb.Command_RemoveStream{RemoveStream: &pb.RemoveStream{StreamId: s.Id}}})
		}
		return
	}
	if s.Status == pb.StreamStatus_STREAM_STATUS_CREATING && allFormed(p.state.Shards(s.Id)) && p.dueIn(s.TransitionAfterMs) {
		p.first = append(p.first, &pb.Command{Op: &pb.Command_ActivateStream{ActivateStream: &pb.ActivateStream{StreamId: s.Id}}})
		return // its shards are changed by that
	}
	p.consumers(s)
	if s.Status == pb.StreamStatus_STREAM_STATUS_UPDATING && s.Reshard == nil && p.dueIn(s.TransitionAfterMs) {
		p.first = append(p.first, &pb.Command{Op: &pb.Command_EndUpdate{EndUpdate: &pb.EndUpdate{StreamId: s.Id}}})
	}
	if !p.reshard(s) {
		p.settled = append(p.settled, s)
	}
}

// consumers ends the CREATING and DELETING of a stream's consumers.
func (p *planner) consumers(s *pb.Stream) {
	due := false
	for _, c := range s.Consumers {
		if c.Status != pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE && p.dueIn(c.TransitionAfterMs) {
			due = true
		}
	}
	if due {
		p.first = append(p.first, &pb.Command{Op: &pb.Command_AdvanceConsumers{AdvanceConsumers: &pb.AdvanceConsumers{StreamId: s.Id}}})
	}
}

// deletedStream tells that a stream of this cluster was deleted, and not merely
// never heard of: ids are given out in order and never twice, so an id below the
// next one that the metadata does not have had its RemoveStream. The metadata
// must be of the cluster that the data is of, which the identity of the data
// directory is checked for, and verified: raft's log and snapshots carry
// checksums, and a snapshot counts its streams.
//
// That is knowledge from an absence all the same, so whoever frees data by it
// does so in two steps: rename it to trash, and remove that after a day and at
// a newer raft index (I16).
func deletedStream(state *raftfsm.State, id uint64) bool {
	return id != 0 && id < state.Cluster().GetNextStreamId() && state.Stream(id) == nil
}

func formed(shard *pb.Shard) bool { return len(shard.InSync) > 0 }

// allFormed tells that every shard had its first replicas, all on their disks.
func allFormed(shards []*pb.Shard) bool {
	for _, s := range shards {
		if !formed(s) {
			return false
		}
	}
	return true
}

// weigh counts what each node has.
func (p *planner) weigh() {
	for _, s := range p.settled {
		for _, shard := range p.state.Shards(s.Id) {
			for _, r := range shard.Replicas {
				p.replicas[r.NodeId]++
				if formed(shard) && !inSync(shard, r) && p.brokers[r.NodeId].GetState() == pb.BrokerState_BROKER_STATE_LIVE {
					p.adding[r.NodeId]++
				}
			}
		}
	}
}

// shard plans at most one change of a shard, the most urgent one.
func (p *planner) shard(shard *pb.Shard) {
	if shard.State == pb.ShardState_SHARD_STATE_EXPIRED || slices.ContainsFunc(shard.Replicas, func(r *pb.Replica) bool { return p.touched[r.NodeId] }) {
		return
	}
	switch {
	case !formed(shard):
		p.unstick(shard)
	case shard.Leader == 0:
		// Nothing can be added without a leader to copy from, and whatever is
		// there may be needed.
	case p.giveAway(shard):
	case p.replaceSuspect(shard):
	case p.raiseFactor(shard):
	case p.dropSurplus(shard):
	case p.healthyReplicas(shard) < int(shard.ReplicationFactor):
		p.wanting = append(p.wanting, shard)
	default:
		p.quiet = append(p.quiet, shard)
	}
}

// unstick lets a shard form whose first replicas wait for a dead broker.
func (p *planner) unstick(shard *pb.Shard) {
	var dead *pb.Replica
	usable := 0
	for _, r := range shard.Replicas {
		switch p.brokers[r.NodeId].GetState() {
		case pb.BrokerState_BROKER_STATE_LIVE, pb.BrokerState_BROKER_STATE_DRAINING, pb.BrokerState_BROKER_STATE_STOPPING:
			if r.State != pb.ReplicaState_REPLICA_STATE_LOST {
				usable++
			}
		default:
			if r.State != pb.ReplicaState_REPLICA_STATE_CREATED {
				dead = r
			}
		}
	}
	switch {
	case dead == nil:
	case usable > 0:
		p.unformed = append(p.unformed, change(shard, dead.Id))
	default:
		p.wanting = append(p.wanting, shard)
	}
}

func change(shard *pb.Shard, replica uint64) *pb.ReplicaChange {
	return &pb.ReplicaChange{StreamId: shard.StreamId, Shard: shard.Number, Version: shard.Version, ReplicaId: replica}
}

// giveAway moves a leadership off a node whose disk hangs or is full, or that is
// being drained. Hysteresis does not matter here: any member is better.
func (p *planner) giveAway(shard *pb.Shard) bool {
	i := slices.IndexFunc(shard.Replicas, func(r *pb.Replica) bool { return r.Id == shard.Leader })
	if i < 0 {
		return false
	}
	node := shard.Replicas[i].NodeId
	if !p.unfit(node) {
		return false
	}
	to := p.successor(shard, p.unfit)
	if to == 0 {
		return false
	}
	p.moves = append(p.moves, change(shard, to))
	return true
}

// unfit nodes should not lead anything.
func (p *planner) unfit(node string) bool {
	h := p.view.health[node]
	return h.stalled || h.full || p.brokers[node].GetState() == pb.BrokerState_BROKER_STATE_DRAINING
}

// raiseFactor follows brokers that join: three replicas, or as many as there
// are brokers. It is never lowered by itself.
func (p *planner) raiseFactor(shard *pb.Shard) bool {
	want := uint32(min(defaultReplicationFactor, p.live))
	if shard.ReplicationFactor >= want {
		return false
	}
	p.factors = append(p.factors, &pb.FactorChange{
		StreamId: shard.StreamId, Shard: shard.Number, Version: shard.Version, ReplicationFactor: want,
	})
	return true
}

// lasting tells that a replica counts: its broker is up, or will be back before
// it is worth while to copy everything.
func (p *planner) lasting(r *pb.Replica) bool {
	if r.State == pb.ReplicaState_REPLICA_STATE_LOST || r.State == pb.ReplicaState_REPLICA_STATE_LEAVING || r.State == pb.ReplicaState_REPLICA_STATE_SUSPECT {
		return false
	}
	b := p.brokers[r.NodeId]
	if b.GetDraining() {
		return false // whether it is up or down
	}
	switch b.GetState() {
	case pb.BrokerState_BROKER_STATE_LIVE:
		return true
	case pb.BrokerState_BROKER_STATE_FENCED, pb.BrokerState_BROKER_STATE_STOPPING:
		return !p.dueIn(b.ChangedMs + p.view.replaceAfter.Milliseconds())
	}
	return false
}

func (p *planner) healthyReplicas(shard *pb.Shard) int {
	n := 0
	for _, r := range shard.Replicas {
		if p.lasting(r) {
			n++
		}
	}
	return n
}

// dropSurplus takes off a replica that is not needed any more, once as many as
// the factor asks for are in sync on live brokers: first those that will not
// come back, then those that are behind, then the one on the fullest node.
func (p *planner) dropSurplus(shard *pb.Shard) bool {
	good := 0
	for _, r := range shard.Replicas {
		if p.sound(shard, r) {
			good++
		}
	}
	factor := int(shard.ReplicationFactor)
	if good < factor || len(shard.Replicas) <= factor {
		return false
	}
	zones := make(map[string]int)
	for _, r := range shard.Replicas {
		if p.sound(shard, r) {
			zones[p.brokers[r.NodeId].GetZone()]++
		}
	}
	rank := func(r *pb.Replica) int {
		switch {
		case !p.lasting(r):
			return 0
		case !p.sound(shard, r):
			return 1
		}
		return 2
	}
	var worst *pb.Replica
	for _, r := range shard.Replicas {
		if r.Id == shard.Leader && !p.rebalancing() || inSync(shard, r) && len(shard.InSync) <= int(shard.MinInSync) {
			continue
		}
		if worst == nil || cmp.Or(
			cmp.Compare(rank(r), rank(worst)),
			-cmp.Compare(zones[p.brokers[r.NodeId].GetZone()], zones[p.brokers[worst.NodeId].GetZone()]),
			-cmp.Compare(p.replicas[r.NodeId], p.replicas[worst.NodeId]),
			compareBool(r.Id == shard.Leader, worst.Id == shard.Leader),
			cmp.Compare(r.Id, worst.Id)) < 0 {
			worst = r
		}
	}
	switch {
	case worst == nil, p.sound(shard, worst) && good == factor:
		return false
	case p.rebalancing() && p.lasting(worst) && !p.sound(shard, worst):
		return false // it is to take the place of another one
	}
	if worst.Id == shard.Leader { // it goes next time
		to := p.successor(shard, p.unfit)
		if to != 0 {
			p.moves = append(p.moves, change(shard, to))
		}
		return to != 0
	}
	p.replicas[worst.NodeId]--
	p.drops = append(p.drops, change(shard, worst.Id))
	return true
}

// sound replicas are in sync, on a live broker that is there to stay.
func (p *planner) sound(shard *pb.Shard, r *pb.Replica) bool {
	return r.State == pb.ReplicaState_REPLICA_STATE_CREATED && inSync(shard, r) &&
		p.brokers[r.NodeId].GetState() == pb.BrokerState_BROKER_STATE_LIVE
}
