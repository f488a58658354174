package broker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"shardstream/broker/member"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// formGossip is what forming needs of member.Group.
type formGossip interface {
	Watch() ([]member.Member, <-chan struct{})
	Sought() <-chan struct{}
	UpdateFacts(func(*member.Facts)) error
}

// formPeers calls other nodes by their gRPC address.
type formPeers interface {
	Promise(ctx context.Context, address string, req *pb.PromiseRequest) (*pb.PromiseResponse, error)
	Join(ctx context.Context, address string, req *pb.JoinRequest) (*pb.JoinResponse, error)
}

// formStore keeps durably what forming must not forget. Each method returns
// when a crash can't undo it.
type formStore interface {
	SavePromise(*promise) error
	ClearPromise() error
	SaveCluster(id string) error
}

const (
	formSettle   = 300 * time.Millisecond // the members stay the same for so long before a list is made of them
	formRetry    = 250 * time.Millisecond
	formCall     = 2 * time.Second
	formRemind   = 30 * time.Second // how often the reason for waiting is logged again
	formParallel = 16
	// formTaken is how long others must say that a node of this name is alive
	// until that is believed: one that has just died is taken for alive for a
	// moment, and this may be the same one, on an emptied disk.
	formTaken = 5 * time.Second
)

// former finds this node its place: in a cluster that exists, or in a new one
// that it forms with others (see form_rules.go). It lives as long as the node,
// since others may still ask it about their list.
type former struct {
	// Set once.
	self   member.Facts
	gossip formGossip
	peers  formPeers
	store  formStore
	logger *slog.Logger
	wake   chan struct{} // capacity 1: the promise has changed
	taken  time.Time     // find's: since when the name is said to be another node's; zero if it isn't

	mu      sync.Mutex
	cluster string
	state   bool
	promise *promise
	sealed  bool // all are bound to the own list, and its cluster is being formed
}

// place is where a node belongs.
type place struct {
	clusterID string
	// bootstrap is set for the founder only: raft's first configuration. The
	// broker calls formed once it is on disk.
	bootstrap []*pb.Founder
	resumed   bool // raft's state was there already
	voter     bool // as far as is known
}

// newFormer takes up what the disk remembers: the cluster, whether there is
// raft state, and the promise, nil if there is none.
func newFormer(self member.Facts, gossip formGossip, peers formPeers, store formStore, cluster string, state bool, p *promise, logger *slog.Logger) *former {
	self.ClusterID, self.Founding, self.Founder = "", "", ""
	return &former{
		self: self, gossip: gossip, peers: peers, store: store, logger: logger,
		wake: make(chan struct{}, 1), cluster: cluster, state: state, promise: p,
	}
}

func (f *former) view(members []member.Member, settled bool) formView {
	v := formView{self: f.self, cluster: f.cluster, state: f.state, promise: f.promise, settled: settled}
	select {
	case <-f.gossip.Sought():
		v.sought = true
	default:
	}
	for _, m := range members {
		if m.NodeID != f.self.NodeID {
			v.members = append(v.members, m)
		}
	}
	return v
}

// find waits until the node's place is certain. It logs what it waits for, and
// ends with an error only if ctx does, the disk fails, or an operator is needed.
func (f *former) find(ctx context.Context) (place, error) {
	var (
		stable time.Time // since when the members are the same
		last   []member.Member
		told   string
		toldAt time.Time
	)
	for {
		if err := f.tellGossip(); err != nil {
			return place{}, err
		}
		members, changed := f.gossip.Watch()
		now := time.Now()
		if stable.IsZero() || !slices.Equal(members, last) {
			last, stable = members, now
		}
		f.mu.Lock()
		step := nextStep(f.view(members, now.Sub(stable) >= formSettle))
		f.mu.Unlock()
		say := func(why string) {
			if why != "" && (why != told || time.Since(toldAt) >= formRemind) {
				told, toldAt = why, time.Now()
				f.logger.Info("forming: " + why)
			}
		}
		say(step.why)
		found, why, err := f.take(ctx, step, members)
		if err != nil || found != nil {
			if err == nil {
				err = f.tellGossip()
			}
			if err != nil {
				return place{}, err
			}
			return *found, nil
		}
		say(why)
		timer := time.NewTimer(formRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return place{}, stream.Errorf(stream.Unavailable, "broker.form", "%s: %w", told, context.Cause(ctx))
		case <-changed:
		case <-f.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// take does one step. It gives the place if that is certain now, else why not.
func (f *former) take(ctx context.Context, step formStep, members []member.Member) (*place, string, error) {
	switch step.action {
	case formResume:
		return f.resume()
	case formBroken:
		return nil, "", stream.Errorf(stream.WrongState, "broker.form", "%s", step.why)
	case formJoin:
		return f.join(ctx, step.cluster, members)
	case formListed:
		if err := f.formed(step.cluster); err != nil {
			return nil, "", err
		}
		return &place{clusterID: step.cluster, voter: true}, "", nil
	case formFound:
		return f.found(ctx, step.list, members)
	case formAbandon:
		return nil, "", f.abandon()
	case formAwait:
		return nil, "", f.askFounder(ctx, members)
	}
	return nil, "", nil
}

// resume is for a node whose raft state is there. The cluster id may be missing
// only if a crash came right behind raft's first write.
func (f *former) resume() (*place, string, error) {
	f.mu.Lock()
	cluster := f.cluster
	if cluster == "" && f.promise != nil {
		cluster = f.promise.ClusterID
	}
	f.mu.Unlock()
	if cluster == "" {
		return nil, "", stream.Errorf(stream.Corrupt, "broker.form", "there is raft state, but identity.json names no cluster: restore that file")
	}
	if err := f.formed(cluster); err != nil {
		return nil, "", err
	}
	return &place{clusterID: cluster, resumed: true}, "", nil
}

// formed notes durably that the node has this cluster. The founder's broker
// calls it when raft's first configuration is on disk.
func (f *former) formed(cluster string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cluster == cluster {
		return nil
	}
	if err := f.store.SaveCluster(cluster); err != nil {
		return fmt.Errorf("can't note the cluster on disk: %w", err)
	}
	f.cluster = cluster
	return nil
}

// settled forgets the promise: raft has brought the cluster's first command.
func (f *former) settled() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = true
	if f.promise == nil {
		return nil
	}
	if err := f.store.ClearPromise(); err != nil {
		return fmt.Errorf("can't remove the founding promise: %w", err)
	}
	f.promise = nil
	return nil
}

func (f *former) abandon() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.promise == nil || f.sealed {
		return nil
	}
	if err := f.store.ClearPromise(); err != nil {
		return fmt.Errorf("can't remove the founding promise: %w", err)
	}
	f.promise = nil
	return nil
}

// join asks the cluster's nodes for admission: only its raft leader grants it.
func (f *former) join(ctx context.Context, cluster string, members []member.Member) (*place, string, error) {
	req := &pb.JoinRequest{NodeId: string(f.self.NodeID), DiskId: f.self.DiskID, RaftAddress: f.self.Raft}
	f.mu.Lock()
	req.ClusterId = f.cluster
	f.mu.Unlock()
	asked, why := 0, ""
	var taken error
	for _, m := range members {
		if m.State != member.Alive || m.ClusterID != cluster || m.NodeID == f.self.NodeID {
			continue
		}
		asked++
		call, cancel := context.WithTimeout(ctx, formCall)
		answer, err := f.peers.Join(call, m.GRPC, req)
		cancel()
		if err != nil {
			if stream.KindOf(err) == stream.AlreadyExists {
				taken = err
			}
			if stream.KindOf(err) != stream.NotLeader || why == "" {
				why = fmt.Sprintf("node %s does not admit this node yet: %v", m.NodeID, err)
			}
			continue
		}
		if answer.ClusterId != cluster {
			why = fmt.Sprintf("node %s admits to cluster %s, but says by gossip that it has %s", m.NodeID, answer.ClusterId, cluster)
			continue
		}
		if err := f.formed(cluster); err != nil {
			return nil, "", err
		}
		return &place{clusterID: cluster, voter: answer.Voter}, "", nil
	}
	switch {
	case taken == nil:
		f.taken = time.Time{}
	case f.taken.IsZero():
		f.taken = time.Now()
	case time.Since(f.taken) >= formTaken:
		return nil, "", taken
	}
	if asked == 0 {
		why = fmt.Sprintf("no node of cluster %s is in sight", cluster)
	}
	return nil, why, nil
}

// found binds this node to its list, unless it is already, and gets the
// promises of the others.
func (f *former) found(ctx context.Context, list []*pb.Founder, members []member.Member) (*place, string, error) {
	p, err := f.bind(list)
	if err != nil || p == nil {
		return nil, "", err
	}
	if err := f.tellGossip(); err != nil {
		return nil, "", err
	}
	if why := f.collect(ctx, p, members); why != "" {
		return nil, why, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.promise != p {
		return nil, "", nil // a smaller founder was faster
	}
	f.sealed = true
	return &place{clusterID: p.ClusterID, bootstrap: p.voters(), voter: true}, "", nil
}

// bind gives the own list, made durable now if there is none yet; nil if the
// node is bound to another by now.
func (f *former) bind(list []*pb.Founder) (*promise, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.promise == nil && list != nil:
		p := &promise{ClusterID: newClusterID(), Founders: list}
		if err := f.store.SavePromise(p); err != nil {
			return nil, fmt.Errorf("can't write the founding promise: %w", err)
		}
		f.promise = p
	case f.promise == nil || list != nil || f.promise.founder().NodeId != string(f.self.NodeID):
		return nil, nil
	}
	return f.promise, nil
}

// collect asks all on the list. It gives "" if each is bound to it and has no
// cluster, else what is missing.
func (f *former) collect(ctx context.Context, p *promise, members []member.Member) string {
	ctx, cancel := context.WithTimeout(ctx, formCall)
	defer cancel()
	refusals := make([]string, len(p.Founders))
	slots := make(chan struct{}, formParallel)
	var calls sync.WaitGroup
	for i, n := range p.Founders[1:] {
		address := grpcOf(members, n.NodeId)
		if address == "" {
			refusals[i] = fmt.Sprintf("node %s, which is on the list, is not in sight", n.NodeId)
			continue
		}
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			answer, err := f.peers.Promise(ctx, address, &pb.PromiseRequest{ClusterId: p.ClusterID, Founders: p.Founders})
			switch {
			case err != nil:
				refusals[i] = fmt.Sprintf("node %s at %s does not answer: %v", n.NodeId, address, err)
			case !answer.Promised:
				refusals[i] = answer.Detail
			}
		})
	}
	calls.Wait()
	for _, r := range refusals {
		if r != "" {
			return r
		}
	}
	return ""
}

// askFounder frees this node from a list that its founder has left.
func (f *former) askFounder(ctx context.Context, members []member.Member) error {
	f.mu.Lock()
	p := f.promise
	f.mu.Unlock()
	if p == nil {
		return nil
	}
	address := grpcOf(members, p.founder().NodeId)
	if address == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, formCall)
	defer cancel()
	answer, err := f.peers.Promise(ctx, address, &pb.PromiseRequest{ClusterId: p.ClusterID, Founders: p.Founders})
	if err != nil || answer.Promised {
		return nil // not a no: the founder may be down, or have lost the disk that knows
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.promise != p {
		return nil
	}
	f.logger.Info("forming: free again, the founder has left its list", "founder", p.founder().NodeId, "answer", answer.Detail)
	if err := f.store.ClearPromise(); err != nil {
		return fmt.Errorf("can't remove the founding promise: %w", err)
	}
	f.promise = nil
	return nil
}

// Promise answers a founder, or a node that asks whether its founder still
// wants to. What it says yes to is on disk before.
func (f *former) Promise(_ context.Context, req *pb.PromiseRequest) (*pb.PromiseResponse, error) {
	asked := &promise{ClusterID: req.GetClusterId(), Founders: req.GetFounders()}
	members, _ := f.gossip.Watch()
	f.mu.Lock()
	defer f.mu.Unlock()
	answer, keep, err := answerTo(f.view(members, true), f.sealed, asked)
	if err != nil || keep == nil {
		return answer, err
	}
	if err := f.store.SavePromise(keep); err != nil {
		return nil, stream.Errorf(stream.Internal, "broker.Promise", "can't write the promise: %w", err)
	}
	f.promise = keep
	f.logger.Info("forming: bound to a founding list", "founder", keep.founder().NodeId, "nodes", names(keep.Founders), "cluster", keep.ClusterID)
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return answer, nil
}

// tellGossip shows the others where this node stands.
func (f *former) tellGossip() error {
	f.mu.Lock()
	told := f.self
	f.self.ClusterID, f.self.Founding, f.self.Founder = f.cluster, "", ""
	if f.cluster == "" && f.promise != nil {
		f.self.Founding, f.self.Founder = f.promise.ClusterID, stream.NodeID(f.promise.founder().NodeId)
	}
	now := f.self
	f.mu.Unlock()
	if told == now {
		return nil
	}
	return f.gossip.UpdateFacts(func(facts *member.Facts) {
		facts.ClusterID, facts.Founding, facts.Founder = now.ClusterID, now.Founding, now.Founder
	})
}

func grpcOf(members []member.Member, id string) string {
	for _, m := range members {
		if string(m.NodeID) == id && m.State == member.Alive {
			return m.GRPC
		}
	}
	return ""
}
