package sim

import (
	"encoding/binary"
	"slices"
	"time"

	"shardstream/broker/replica"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// move is one kind of thing that can happen next.
type move struct {
	weight int
	do     func()
}

func (w *world) moves() []move {
	return []move{
		{30, w.deliver},
		{2, w.deliverLate},
		{30, w.send},
		{20, w.answer},
		{20, w.syncDisk},
		{12, w.put},
		{6, w.tick},
		{8, w.learn},
		{6, w.decide},
		{2, w.connect},
		{1, w.disconnect},
		{1, w.crash},
		{3, w.restart},
		{1, w.fence},
		{2, w.unfence},
		{1, w.moveLeader},
		{1, w.expire},
		{1, w.loseDisk},
		{1, w.repeatProposal},
		{1, w.reshard},
		{2, w.sealParents},
	}
}

func (w *world) anyNode() *node { return w.nodes[w.rng.IntN(len(w.nodes))] }

func (w *world) deliver() {
	var full []*wire
	for i := range w.nodes {
		for j := range w.nodes {
			if wire := w.wires[[2]int{i, j}]; len(wire.frames) > 0 {
				full = append(full, wire)
			}
		}
	}
	if len(full) == 0 {
		return
	}
	wire := full[w.rng.IntN(len(full))]
	d := wire.frames[0]
	wire.frames = slices.Delete(wire.frames, 0, 1)
	if w.chance(3) {
		return // lost
	}
	if w.chance(3) {
		wire.late = append(wire.late, d) // and once more, later
	}
	d()
}

func (w *world) deliverLate() {
	i, j := w.rng.IntN(len(w.nodes)), w.rng.IntN(len(w.nodes))
	wire := w.wires[[2]int{i, j}]
	if len(wire.late) == 0 {
		return
	}
	k := w.rng.IntN(len(wire.late))
	d := wire.late[k]
	wire.late = slices.Delete(wire.late, k, k+1)
	w.logf("late:")
	d()
}

func pick(w *world, m map[push]bool) (push, bool) {
	if len(m) == 0 {
		return push{}, false
	}
	keys := make([]push, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, push.less)
	return keys[w.rng.IntN(len(keys))], true
}

func (w *world) send() {
	n := w.anyNode()
	if p, ok := pick(w, n.pushes); ok && n.up {
		n.sendPush(p)
	}
}

func (w *world) answer() {
	n := w.anyNode()
	if p, ok := pick(w, n.answers); ok && n.up {
		n.sendAnswer(p)
	}
}

func (w *world) syncDisk() {
	n := w.anyNode()
	if k := len(n.disk.journal); n.up && k > 0 {
		n.disk.sync(1 + w.rng.IntN(k))
	}
}

// put appends at whoever believes that it leads.
func (w *world) put() {
	n := w.anyNode()
	if !n.up || len(n.replicas) == 0 {
		return
	}
	keys := sortedKeys(n.replicas)
	r := n.replicas[keys[w.rng.IntN(len(keys))]]
	w.values++
	value := binary.LittleEndian.AppendUint64(nil, w.values)
	b := stream.NewBatch(nil, r.Key().Shard, [16]byte{}, [16]byte{}, 0)
	count := 1 + w.rng.IntN(2)
	for i := range count {
		b = b.AppendRecord(stream.Record{PartitionKey: []byte("k"), Data: value, Ordinal: uint16(i)})
	}
	stream.FinishBatch(b, count)
	var base stream.Offset
	base, _, err := r.Append(b, replica.How{}, func(err error) {
		if err == nil {
			w.checkSeal(r.Key().Shard, b)
			w.logf("%s acknowledges %d of %s", n.id, base, r.Key())
			w.Counts.Acked++
			w.acked[r.Key().Shard]++
			w.commitAt(r.Key().Shard, b)
		}
	})
	if err == nil {
		w.logf("%s appends %d (value %d) to %s in epoch %d", n.id, base, w.values, r.Key(), b.Epoch())
	}
}

func (w *world) tick() {
	w.clock += time.Duration(w.rng.IntN(300)) * time.Millisecond
	for _, n := range w.nodes {
		if !n.up {
			continue
		}
		for _, key := range sortedKeys(n.ticking) {
			if !n.replicas[key].Tick() {
				delete(n.ticking, key)
			}
		}
	}
}

func (w *world) learn() {
	if n := w.anyNode(); n.up && n.registered && n.seen < len(w.states)-1 {
		n.learn(n.seen + 1 + w.rng.IntN(len(w.states)-1-n.seen))
		w.logf("%s has learned %d", n.id, n.seen)
	}
}

// decide lets raft take a proposal, in any order.
func (w *world) decide() {
	if len(w.proposals) == 0 {
		return
	}
	i := w.rng.IntN(len(w.proposals))
	if w.chance(10) {
		w.proposals = slices.Delete(w.proposals, i, i+1)
		return
	}
	w.propose(i)
}

func (w *world) repeatProposal() {
	if len(w.proposals) > 0 && len(w.proposals) < 10 {
		w.proposals = append(w.proposals, w.proposals[w.rng.IntN(len(w.proposals))])
	}
}

func (w *world) connect() {
	a, b := w.anyNode(), w.anyNode()
	wire := w.wires[[2]int{a.index, b.index}]
	if a == b || wire.up || !a.up || !b.up || !a.registered || !b.registered {
		return
	}
	wire.up = true
	w.logf("%s connects to %s", a.id, b.id)
	for _, key := range sortedKeys(a.replicas) {
		a.replicas[key].PeerUp(b.id)
	}
}

func (w *world) disconnect() {
	a, b := w.anyNode(), w.anyNode()
	if w.wires[[2]int{a.index, b.index}].up {
		w.Counts.Breaks++
		w.logf("%s is cut from %s", a.id, b.id)
		w.cut(a, b)
	}
}

func (w *world) crash() {
	if n := w.anyNode(); n.up && w.crashes < w.Crashes {
		w.crashes++
		w.logf("%s crashes", n.id)
		n.crash()
	}
}

func (w *world) restart() {
	n := w.anyNode()
	switch {
	case !n.up:
		w.logf("%s starts", n.id)
		n.start()
	case !n.registered:
		w.logf("%s registers", n.id)
		n.register()
	}
}

// fence takes a node out, rightly or not: the controller may be wrong.
func (w *world) fence() {
	n := w.anyNode()
	b := w.state().Broker(string(n.id))
	fenced := 0
	for _, b := range w.state().Brokers() {
		if b.State == pb.BrokerState_BROKER_STATE_FENCED {
			fenced++
		}
	}
	if b.GetState() == pb.BrokerState_BROKER_STATE_LIVE && 2*(fenced+1) <= len(w.nodes) && (!n.up || w.chance(20)) {
		w.commit(&pb.Command{Op: &pb.Command_FenceBroker{FenceBroker: &pb.FenceBroker{NodeId: b.NodeId, Incarnation: b.Incarnation, Reason: "silent"}}})
	}
}

func (w *world) unfence() {
	n := w.anyNode()
	if b := w.state().Broker(string(n.id)); n.up && n.registered && b.GetState() == pb.BrokerState_BROKER_STATE_FENCED {
		w.commit(&pb.Command{Op: &pb.Command_UnfenceBroker{UnfenceBroker: &pb.UnfenceBroker{NodeId: b.NodeId, Incarnation: b.Incarnation}}})
	}
}

func (w *world) anyShard() *pb.Shard {
	shards := w.state().Shards(w.streamID)
	return shards[w.rng.IntN(len(shards))]
}

func (w *world) moveLeader() {
	sh := w.anyShard()
	if len(sh.InSync) == 0 {
		return
	}
	w.commit(&pb.Command{Op: &pb.Command_MoveLeaders{MoveLeaders: &pb.MoveLeaders{Moves: []*pb.ReplicaChange{{
		StreamId: sh.StreamId, Shard: sh.Number, Version: sh.Version, ReplicaId: sh.InSync[w.rng.IntN(len(sh.InSync))],
	}}}}})
}

// reshard begins a split or a merge.
func (w *world) reshard() {
	if w.Counts.Reshards >= w.Reshards {
		return
	}
	c := &pb.Reshard{StreamId: w.streamID, Kind: pb.ReshardKind_RESHARD_KIND_SPLIT}
	sh := w.anyShard()
	c.Shard = sh.Number
	mid := sh.Range.StartHi/2 + sh.Range.EndHi/2
	c.SplitAtHi, c.SplitAtLo = mid, 12345
	children := 2
	if w.chance(40) {
		other := w.anyShard()
		c.Kind, c.AdjacentShard, children = pb.ReshardKind_RESHARD_KIND_MERGE, other.Number, 1
	}
	for i := range children {
		nodes := &pb.ReplicaNodes{}
		for j := range 3 {
			nodes.NodeIds = append(nodes.NodeIds, string(nodeID((i+j+w.rng.IntN(2))%w.Nodes)))
		}
		slices.Sort(nodes.NodeIds)
		nodes.NodeIds = slices.Compact(nodes.NodeIds)
		c.Placement = append(c.Placement, nodes)
	}
	if r := w.commit(&pb.Command{Op: &pb.Command_Reshard{Reshard: c}}); r.Error == 0 {
		w.Counts.Reshards++
	}
}

// sealParents is the controller's: the FSM refuses it when it is too early.
func (w *world) sealParents() {
	if w.state().Stream(w.streamID).GetReshard() != nil {
		w.commit(&pb.Command{Op: &pb.Command_SealParents{SealParents: &pb.SealParents{StreamId: w.streamID}}})
	}
}

// expire trims at a leader.
func (w *world) expire() {
	n := w.anyNode()
	for _, key := range sortedKeys(n.replicas) {
		r := n.replicas[key]
		if n.up && r.Status().Leading {
			start, err := r.Start(w.nowMs() - int64(w.rng.IntN(20_000)))
			if err == nil && start > w.low[key.Shard] {
				w.logf("%s expires %s below %d", n.id, key, start)
				w.low[key.Shard] = start
			}
		}
	}
}

// loseDisk empties the disk of a node that is down. Any one disk may be lost at
// any time, and the next when all in-sync sets are whole again (I1).
func (w *world) loseDisk() {
	n := w.anyNode()
	if n.up || w.losses >= w.Losses || !w.whole() {
		return
	}
	w.losses++
	w.logf("%s loses its disk", n.id)
	n.loseDisk()
}

// whole reports whether every in-sync replica is on its disk, so that one of
// the disks may be lost.
func (w *world) whole() bool {
	for _, sh := range w.state().Shards(w.streamID) {
		for _, rep := range sh.Replicas {
			m := w.nodeOf(stream.NodeID(rep.NodeId))
			key := stream.ReplicaKey{Shard: shardID(sh.StreamId, sh.Number), Replica: stream.ReplicaID(rep.Id)}
			if slices.Contains(sh.InSync, rep.Id) && (rep.State != pb.ReplicaState_REPLICA_STATE_CREATED || m.disk.durable[key] == nil) {
				return false
			}
		}
	}
	return true
}
