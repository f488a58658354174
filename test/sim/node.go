package sim

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"shardstream/broker/replica"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

type push struct {
	to   stream.NodeID
	lane replica.Lane
	key  stream.ReplicaKey
}

func (p push) less(q push) int {
	for _, c := range []int{compare(p.to, q.to), compare(p.lane, q.lane), compare(p.key.Shard.Number, q.key.Shard.Number), compare(p.key.Replica, q.key.Replica)} {
		if c != 0 {
			return c
		}
	}
	return 0
}

func compare[T interface {
	~string | ~uint8 | ~uint32 | ~uint64
}](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// node is a process with its disk.
type node struct {
	w     *world
	index int
	id    stream.NodeID
	disk  *disk
	skew  int64 // of its clock, ms

	up          bool
	life        int // counts processes
	registered  bool
	incarnation uint64
	seen        int // index into the world's states
	logs        map[stream.ReplicaKey]*log
	replicas    map[stream.ReplicaKey]*replica.Replica
	pushes      map[push]bool
	answers     map[push]bool
	ticking     map[stream.ReplicaKey]bool
}

// start begins a process on what the disk holds.
func (n *node) start() {
	n.up = true
	n.life++
	n.registered = false
	n.incarnation = 0
	n.logs = make(map[stream.ReplicaKey]*log)
	n.replicas = make(map[stream.ReplicaKey]*replica.Replica)
	n.pushes = make(map[push]bool)
	n.answers = make(map[push]bool)
	n.ticking = make(map[stream.ReplicaKey]bool)
	for _, key := range sortedKeys(n.disk.durable) {
		n.logs[key] = openLog(n.w, n.disk, key)
	}
}

func sortedKeys[V any](m map[stream.ReplicaKey]V) []stream.ReplicaKey {
	keys := make([]stream.ReplicaKey, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b stream.ReplicaKey) int { return push{key: a}.less(push{key: b}) })
	return keys
}

// register tells the metadata of this process; it does nothing before.
func (n *node) register() {
	r := n.w.commit(&pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
		Broker: &pb.Broker{
			NodeId: string(n.id), DiskId: string(rune('a' + n.disk.id)), GrpcAddress: string(n.id), FeatureLevel: 2, State: pb.BrokerState_BROKER_STATE_LIVE,
		},
		LastIncarnation: n.disk.incarnation,
	}}})
	if r.Error != 0 {
		n.w.fail("can't register %s: %s", n.id, r.Detail)
	}
	n.registered, n.incarnation, n.disk.incarnation = true, r.Incarnation, r.Incarnation
	n.seen = len(n.w.states) - 1
	for _, key := range sortedKeys(n.logs) {
		n.open(key)
	}
	n.look()
}

func (n *node) open(key stream.ReplicaKey) *replica.Replica {
	r := replica.New(key, n.id, n.incarnation, n.logs[key], env{n, n.life}, &replica.Memory{})
	n.replicas[key] = r
	return r
}

// learn brings the node's copy of the metadata up to an index.
func (n *node) learn(index int) {
	n.seen = max(n.seen, index)
	n.look()
}

// look makes the node's replicas what its copy of the metadata says.
func (n *node) look() {
	st := n.w.states[n.seen]
	for _, sh := range st.Shards(n.w.streamID) {
		for _, rep := range sh.Replicas {
			if rep.NodeId != string(n.id) || rep.State == pb.ReplicaState_REPLICA_STATE_LOST {
				continue
			}
			key := stream.ReplicaKey{Shard: stream.ShardID{Stream: stream.StreamID(sh.StreamId), Number: sh.Number}, Replica: stream.ReplicaID(rep.Id)}
			if n.logs[key] == nil {
				if rep.State != pb.ReplicaState_REPLICA_STATE_NEW {
					continue // named in a state that is not this disk's any more
				}
				n.disk.write(op{key: key, made: true})
				n.logs[key] = openLog(n.w, n.disk, key)
				n.open(key)
			}
			n.replicas[key].SetView(viewOf(st.Broker, sh))
		}
	}
	n.report()
}

// report tells of replicas that are on the disk.
func (n *node) report() {
	st := n.w.states[n.seen]
	var refs []*pb.ReplicaRef
	for _, sh := range st.Shards(n.w.streamID) {
		for _, rep := range sh.Replicas {
			if rep.NodeId == string(n.id) && rep.State == pb.ReplicaState_REPLICA_STATE_NEW {
				refs = append(refs, &pb.ReplicaRef{StreamId: sh.StreamId, Shard: sh.Number, ReplicaId: rep.Id})
			}
		}
	}
	if len(refs) > 0 {
		n.w.proposals = append(n.w.proposals, &pb.Command{Op: &pb.Command_ReplicasCreated{ReplicasCreated: &pb.ReplicasCreated{
			NodeId: string(n.id), Incarnation: n.incarnation, Replicas: refs,
		}}})
	}
}

func viewOf(broker func(string) *pb.Broker, sh *pb.Shard) replica.View {
	v := replica.View{
		Version: sh.Version, Epoch: stream.Epoch(sh.Epoch), Leader: stream.ReplicaID(sh.Leader), MinInSync: int(sh.MinInSync),
		CreatedMs: sh.CreatedMs,
		Open:      sh.State == pb.ShardState_SHARD_STATE_OPEN, Sealing: sh.State == pb.ShardState_SHARD_STATE_SEALING && !sh.Sealed,
	}
	for _, id := range sh.InSync {
		v.InSync = append(v.InSync, stream.ReplicaID(id))
	}
	for _, r := range sh.Replicas {
		if r.State == pb.ReplicaState_REPLICA_STATE_LOST {
			continue
		}
		v.Members = append(v.Members, replica.Member{
			ID: stream.ReplicaID(r.Id), Node: stream.NodeID(r.NodeId),
			Eligible: r.State == pb.ReplicaState_REPLICA_STATE_CREATED && broker(r.NodeId).GetState() == pb.BrokerState_BROKER_STATE_LIVE,
		})
	}
	return v
}

// crash ends the process. Of what was not synced, a first part may survive.
func (n *node) crash() {
	n.w.Counts.Crashes++
	n.disk.crash(n.w.rng.IntN(len(n.disk.journal) + 1))
	n.up = false
	n.logs, n.replicas, n.pushes, n.answers, n.ticking = nil, nil, nil, nil, nil
	for _, m := range n.w.nodes {
		n.w.cut(n, m)
		n.w.cut(m, n)
	}
}

func (n *node) loseDisk() {
	n.w.Counts.Losses++
	n.disk = newDisk(n.disk.id + len(n.w.nodes))
}

// cut breaks the connection from one node to another. What was under way is
// lost, or comes late, beside what a new connection brings.
func (w *world) cut(from, to *node) {
	wire := w.wires[[2]int{from.index, to.index}]
	if w.chance(50) {
		wire.late = append(wire.late, wire.frames...)
	}
	wire.up, wire.frames = false, nil
}

func (n *node) replicaOf(shard stream.ShardID, target uint64) []*replica.Replica {
	var out []*replica.Replica
	for _, key := range sortedKeys(n.replicas) {
		if key.Shard == shard && (target == 0 || uint64(key.Replica) == target) {
			out = append(out, n.replicas[key])
		}
	}
	return out
}

func shardID(streamID uint64, number uint32) stream.ShardID {
	return stream.ShardID{Stream: stream.StreamID(streamID), Number: number}
}

// sendPush puts a frame on the wire if the replica has anything to say.
func (n *node) sendPush(p push) {
	delete(n.pushes, p)
	to := n.w.nodeOf(p.to)
	wire := n.w.wires[[2]int{n.index, to.index}]
	if !wire.up {
		return // greeted again when it is
	}
	f := &pb.PushFrame{}
	_, more := n.replicas[p.key].Fill(p.to, p.lane, f, 1+n.w.rng.IntN(600))
	if more {
		n.pushes[p] = true
	}
	add := func(m proto.Message, what func(t *node, r *replica.Replica)) {
		n.w.logf("%s -> %s: %T %v", n.id, p.to, m, brief(m))
		var d delivery = func() {
			if to.up && to.registered {
				for _, r := range to.replicaOf(p.key.Shard, target(m)) {
					n.w.logf("%s handles %T of %s", to.id, m, n.id)
					what(to, r)
				}
			}
		}
		wire.frames = append(wire.frames, d)
	}
	for _, m := range f.Hands {
		add(m, func(_ *node, r *replica.Replica) { r.HandleHand(n.id, m) })
	}
	for _, m := range f.Cuts {
		add(m, func(_ *node, r *replica.Replica) { r.HandleCut(n.id, m) })
	}
	for _, m := range f.Appends {
		m := proto.Clone(m).(*pb.AppendBatch)
		add(m, func(_ *node, r *replica.Replica) { r.HandleAppend(n.id, m) })
	}
	for _, m := range f.Marks {
		add(m, func(_ *node, r *replica.Replica) { r.HandleMark(n.id, m) })
	}
}

func target(m proto.Message) uint64 {
	switch m := m.(type) {
	case *pb.Hand:
		return m.Target
	case *pb.Cut:
		return m.Target
	case *pb.AppendBatch:
		return m.Target
	case *pb.HighWatermark:
		return m.Target
	}
	return 0
}

func brief(m proto.Message) any {
	if a, ok := m.(*pb.AppendBatch); ok {
		b := stream.Batch(a.Batch)
		return []any{"epoch", a.Epoch, "session", a.Session, "batch", b.Epoch(), b.Base(), b.End(), "hw", a.HighWatermark}
	}
	return m
}

// sendAnswer puts a replica's answers on the wire.
func (n *node) sendAnswer(p push) {
	delete(n.answers, p)
	to := n.w.nodeOf(p.to)
	r := n.replicas[p.key]
	if to == nil || r == nil {
		return
	}
	f := &pb.AnswerFrame{}
	r.FillAnswer(p.to, f)
	wire := n.w.wires[[2]int{n.index, to.index}]
	add := func(m proto.Message, what func(r *replica.Replica)) {
		n.w.logf("%s -> %s: %T %v", n.id, p.to, m, m)
		if !n.w.wires[[2]int{to.index, n.index}].up { // answers come back on the other's stream
			return
		}
		wire.frames = append(wire.frames, func() {
			if to.up && to.registered {
				for _, r := range to.replicaOf(p.key.Shard, 0) {
					what(r)
				}
			}
		})
	}
	for _, m := range f.Replies {
		add(m, func(r *replica.Replica) { r.HandleReply(n.id, m) })
	}
	for _, m := range f.Acks {
		add(m, func(r *replica.Replica) { r.HandleAck(n.id, m) })
	}
	for _, m := range f.Nacks {
		add(m, func(r *replica.Replica) { r.HandleNack(n.id, m) })
	}
}
