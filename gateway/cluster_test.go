package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"shardstream/gateway/brokers"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Gateways in front of several brokers, over real gRPC. The brokers share the
// one fake cluster, and each can fail in its own way.

// fakeNode serves the fake cluster as one of its brokers.
type fakeNode struct {
	pb.UnimplementedClusterServer
	pb.UnimplementedDataServer

	id      string
	cluster *fakeBroker
	address string

	mu      sync.Mutex // protects all below
	server  *grpc.Server
	served  chan struct{}
	stopped chan struct{}
	frozen  bool // its watches say nothing
	cut     bool // from the other brokers: nothing new, and no leader of the metadata
	opened  int  // count of the cluster's watches when its last was opened
	// appending is called before an Append, if set.
	appending func(context.Context, *pb.AppendRequest) error
	// reading is called before a Read, if set.
	reading func(context.Context)
	// proposing answers a Propose in place of the cluster, if it gives an error.
	proposing func() error
}

// start serves, at the address of the time before if there was one.
func (n *fakeNode) start(t *testing.T) {
	t.Helper()
	address := n.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.address, n.stopped, n.served = l.Addr().String(), make(chan struct{}), make(chan struct{})
	n.server = grpc.NewServer()
	pb.RegisterClusterServer(n.server, n)
	pb.RegisterDataServer(n.server, n)
	go func(s *grpc.Server, done chan struct{}) {
		defer close(done)
		_ = s.Serve(l)
	}(n.server, n.served)
}

// kill breaks all connections, as the end of the process does.
func (n *fakeNode) kill() {
	n.mu.Lock()
	server, served, stopped := n.server, n.served, n.stopped
	n.server = nil
	n.mu.Unlock()
	if server != nil {
		close(stopped)
		server.Stop()
		<-served
	}
}

func (n *fakeNode) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func statusOf(err error) error {
	if err == nil {
		return nil
	}
	s, _ := status.New(codes.Unknown, err.Error()).WithDetails(&errdetails.ErrorInfo{Domain: "shardstream", Reason: stream.KindOf(err).String()})
	return s.Err()
}

func (n *fakeNode) WatchMetadata(in *pb.WatchMetadataRequest, out grpc.ServerStreamingServer[pb.MetadataEvent]) error {
	client, err := n.cluster.WatchMetadata(out.Context(), in)
	if err != nil {
		return err
	}
	w := client.(*fakeWatch)
	var stopped chan struct{}
	n.cluster.mu.Lock()
	opened := n.cluster.watches
	n.cluster.mu.Unlock()
	n.set(func() { n.opened = opened; stopped = n.stopped })
	index := uint64(0)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		var frozen bool
		var err error
		// Under the lock: what happens after a cut must not be sent.
		n.set(func() {
			frozen = n.frozen
			for more := !frozen && !(n.cut && index > 0); more && err == nil; {
				select {
				case e := <-w.events:
					index = e.Index
					err = out.Send(e)
				default:
					more = false
				}
			}
		})
		if err != nil {
			return err
		}
		if !frozen {
			if err := out.Send(&pb.MetadataEvent{Index: index}); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-stopped:
			return statusOf(stream.Errorf(stream.Unavailable, "test", "stopping"))
		case <-out.Context().Done():
			return out.Context().Err()
		}
	}
}

func (n *fakeNode) ReadIndex(ctx context.Context, in *pb.ReadIndexRequest) (*pb.ReadIndexResponse, error) {
	var cut bool
	n.set(func() { cut = n.cut })
	if cut {
		return nil, statusOf(stream.Errorf(stream.Unavailable, "test", "no majority"))
	}
	out, err := n.cluster.ReadIndex(ctx, in)
	return out, statusOf(err)
}

func (n *fakeNode) Propose(ctx context.Context, in *pb.ProposeRequest) (*pb.ProposeResponse, error) {
	var refuse func() error
	n.set(func() { refuse = n.proposing })
	if refuse != nil {
		if err := refuse(); err != nil {
			return nil, err
		}
	}
	out, err := n.cluster.Propose(ctx, in)
	return out, statusOf(err)
}

func (n *fakeNode) Append(ctx context.Context, in *pb.AppendRequest) (*pb.AppendResponse, error) {
	var before func(context.Context, *pb.AppendRequest) error
	n.set(func() { before = n.appending })
	if before != nil {
		if err := before(ctx, in); err != nil {
			return nil, statusOf(err)
		}
	}
	out, err := fakeData{n.cluster, n.id}.Append(ctx, in)
	return out, statusOf(err)
}

func (n *fakeNode) Read(ctx context.Context, in *pb.ReadRequest) (*pb.ReadResponse, error) {
	var before func(context.Context)
	n.set(func() { before = n.reading })
	if before != nil {
		before(ctx)
	}
	out, err := fakeData{n.cluster, n.id}.Read(ctx, in)
	return out, statusOf(err)
}

func (n *fakeNode) Tail(in *pb.TailRequest, out grpc.ServerStreamingServer[pb.TailEvent]) error {
	t, err := fakeData{n.cluster, n.id}.Tail(out.Context(), in)
	for err == nil {
		var e *pb.TailEvent
		if e, err = t.Recv(); err == nil {
			err = out.Send(e)
		}
	}
	if err == io.EOF {
		return nil
	}
	return statusOf(err)
}

func (n *fakeNode) Locate(ctx context.Context, in *pb.LocateRequest) (*pb.LocateResponse, error) {
	out, err := fakeData{n.cluster, n.id}.Locate(ctx, in)
	return out, statusOf(err)
}

// clusterEnv is a gateway in front of brokers n1, n2, ...
type clusterEnv struct {
	*env
	nodes []*fakeNode
}

func newCluster(t *testing.T, count int, change ...func(*Config, *fakeBroker)) *clusterEnv {
	t.Helper()
	ce := &clusterEnv{}
	var pool *brokers.Pool
	t.Cleanup(func() {
		if pool != nil {
			pool.Close()
		}
	})
	wire := func(c *Config, f *fakeBroker) {
		var seeds []string
		f.nodes = nil
		for i := range count {
			n := &fakeNode{id: "n" + string(rune('1'+i)), cluster: f}
			n.start(t)
			t.Cleanup(n.kill)
			ce.nodes = append(ce.nodes, n)
			seeds = append(seeds, n.address)
			f.nodes = append(f.nodes, &pb.Broker{NodeId: n.id, GrpcAddress: n.address, State: pb.BrokerState_BROKER_STATE_LIVE})
		}
		var err error
		if pool, err = brokers.New(brokers.Config{Seeds: seeds}); err != nil {
			t.Fatal(err)
		}
		c.Cluster, c.Data, c.WatchSilence = pool, pool.Data, 100*time.Millisecond
	}
	ce.env = newEnv(t, append([]func(*Config, *fakeBroker){wire}, change...)...)
	return ce
}

// lead makes a node the leader of a stream's first shard.
func (ce *clusterEnv) lead(id uint64, node string) {
	ce.broker.editShard(id, 0, func(s *pb.Shard) {
		replica := uint64(node[1]) + 100
		s.Replicas = append(s.Replicas, &pb.Replica{Id: replica, NodeId: node})
		s.Leader, s.Epoch = replica, s.Epoch+1
	})
}

// watched gives the node whose watch the gateway follows: the one opened last.
func (ce *clusterEnv) watched() *fakeNode {
	ce.t.Helper()
	if err := ce.g.Ready(ce.t.Context()); err != nil {
		ce.t.Fatal(err)
	}
	last, opened := ce.nodes[0], 0
	for _, n := range ce.nodes {
		n.set(func() {
			if n.opened > opened {
				last, opened = n, n.opened
			}
		})
	}
	return last
}

func (ce *clusterEnv) stored(want string) {
	ce.t.Helper()
	if got := dataOf(ce.t, ce.read(ce.iterator("s", "0", "TRIM_HORIZON", nil), nil)); got != want {
		ce.t.Errorf("the shard holds %q, not %q", got, want)
	}
}

func putX(ce *clusterEnv) <-chan answer {
	got := make(chan answer, 1)
	go func() { got <- ce.call("PutRecord", m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("x")}) }()
	return got
}

// TestLeaderMovesDuringAppend: an Append that hangs at a node is given up as soon
// as the metadata names another leader, and repeated there under the same id.
func TestLeaderMovesDuringAppend(t *testing.T) {
	for _, stored := range []bool{false, true} {
		ce := newCluster(t, 2, func(c *Config, _ *fakeBroker) { c.RequestTimeout = time.Hour })
		id := ce.create("s", 1)
		arrived, left := make(chan struct{}), make(chan struct{})
		ce.nodes[0].set(func() {
			ce.nodes[0].appending = func(ctx context.Context, in *pb.AppendRequest) error {
				if stored { // and replicated, but the answer does not come
					if _, err := (fakeData{ce.broker, "n1"}).Append(ctx, in); err != nil {
						t.Error(err)
					}
				}
				close(arrived)
				<-ctx.Done()
				close(left)
				return ctx.Err()
			}
		})
		got := putX(ce)
		<-arrived
		ce.lead(id, "n2")
		if a := <-got; a.status != 200 {
			t.Fatalf("%d %s", a.status, a.raw)
		}
		<-left // the old leader was told that nobody waits
		ce.stored("x")
		if stored != (ce.broker.repeats == 1) {
			t.Errorf("%d repeats", ce.broker.repeats)
		}
	}
}

// TestReadLeavesAHangingLeader: so is a read.
func TestReadLeavesAHangingLeader(t *testing.T) {
	ce := newCluster(t, 2, func(c *Config, _ *fakeBroker) { c.RequestTimeout = time.Hour })
	id := ce.create("s", 1)
	ce.put("s", "a", "x")
	iterator := ce.iterator("s", "0", "TRIM_HORIZON", nil)
	arrived := make(chan struct{})
	ce.nodes[0].set(func() {
		ce.nodes[0].reading = func(ctx context.Context) { close(arrived); <-ctx.Done() }
	})
	reads := make(chan map[string]any, 1)
	go func() { reads <- ce.read(iterator, nil) }()
	<-arrived
	ce.lead(id, "n2")
	if got := dataOf(t, <-reads); got != "x" {
		t.Errorf("%q", got)
	}
}

// TestBrokerDiesDuringAppend: the put waits for the next leader, and finds it.
func TestBrokerDiesDuringAppend(t *testing.T) {
	ce := newCluster(t, 3, func(c *Config, _ *fakeBroker) { c.RequestTimeout = time.Hour })
	id := ce.create("s", 1)
	arrived := make(chan struct{})
	ce.nodes[0].set(func() {
		ce.nodes[0].appending = func(ctx context.Context, _ *pb.AppendRequest) error {
			close(arrived)
			<-ctx.Done()
			return ctx.Err()
		}
	})
	got := putX(ce)
	<-arrived
	ce.nodes[0].kill()
	ce.lead(id, "n3")
	if a := <-got; a.status != 200 {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	ce.stored("x")
}

// TestSilentWatch: a broker that says nothing any more is left for the next, and
// what happens is seen there.
func TestSilentWatch(t *testing.T) {
	ce := newCluster(t, 3)
	ce.create("s", 1)
	n := ce.watched()
	n.set(func() { n.frozen = true })
	ce.create("t", 1) // waits until the gateway shows it
	if a := ce.call("DescribeStreamSummary", m{"StreamName": "t"}); a.status != 200 {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

// TestWatchOfACutOffBroker: a broker that goes on beating but hears nothing from
// the others is left when another names an index that it does not reach.
func TestWatchOfACutOffBroker(t *testing.T) {
	ce := newCluster(t, 3, func(c *Config, _ *fakeBroker) { c.RequestTimeout = time.Hour })
	ce.create("s", 1)
	n := ce.watched()
	n.set(func() { n.cut = true })
	// Created behind the gateway's back.
	ce.broker.mu.Lock()
	_, e := ce.broker.createLocked(&pb.CreateStream{Name: "t", ShardCount: 1})
	ce.broker.publishLocked(e)
	ce.broker.mu.Unlock()
	if a := ce.call("DescribeStreamSummary", m{"StreamName": "t"}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	if ce.watched() == n {
		t.Error("the watch is still the old one")
	}
}

// TestMetadataNeverGoesBack: a broker that is behind what was seen does not show
// until it has caught up.
func TestMetadataNeverGoesBack(t *testing.T) {
	ce := newCluster(t, 1)
	ce.create("s", 1)
	seen := ce.g.meta.load().index
	// The same broker comes back with an older state.
	ce.nodes[0].kill()
	ce.broker.mu.Lock()
	index, id := ce.broker.index, ce.broker.streamLocked("s").Id
	streams, shards := ce.broker.streams[id], ce.broker.shards[id]
	ce.broker.index = 3
	delete(ce.broker.streams, id)
	ce.broker.mu.Unlock()
	ce.nodes[0].start(t)
	for opened := 0; opened < 2; {
		ce.nodes[0].set(func() { opened = ce.nodes[0].opened })
		runtime.Gosched()
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		if m := ce.g.meta.load(); m.index < seen || m.byName["s"] == nil {
			t.Fatalf("back at index %d", m.index)
		}
	}
	ce.put("s", "a", "x")
	// It catches up, and goes on.
	ce.broker.mu.Lock()
	ce.broker.index = index
	ce.broker.streams[id] = streams
	next := ce.broker.publishLocked(&pb.MetadataEvent{Streams: []*pb.Stream{streams}, Shards: shards})
	ce.broker.mu.Unlock()
	if _, err := ce.g.meta.awaitIndex(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	ce.stored("x")
}

// TestAllBrokersDown: callers get the error that SDKs try again, once the request
// has waited enough; when the brokers are back, everything is.
func TestAllBrokersDown(t *testing.T) {
	ce := newCluster(t, 2, func(c *Config, _ *fakeBroker) { c.RequestTimeout = 200 * time.Millisecond })
	ce.create("s", 1)
	ce.put("s", "a", "x")
	for _, n := range ce.nodes {
		n.kill()
	}
	for _, r := range []struct {
		op string
		in m
	}{
		{"PutRecord", m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("y")}},
		{"DescribeStreamSummary", m{"StreamName": "s"}},
		{"CreateStream", m{"StreamName": "t", "ShardCount": 1}},
	} {
		a := ce.call(r.op, r.in)
		if code := a.body["__type"]; code != "ServiceUnavailable" && code != "InternalFailure" || a.status < 500 {
			t.Errorf("%s: %d %s", r.op, a.status, a.raw)
		}
	}
	out := ce.ok("PutRecords", m{"StreamName": "s", "Records": []m{{"PartitionKey": "a", "Data": []byte("y")}}})
	if got := out["Records"].([]any)[0].(m)["ErrorCode"]; got != "InternalFailure" {
		t.Errorf("%v", out)
	}
	for _, n := range ce.nodes {
		n.start(t)
	}
	for a := (answer{}); a.status != 200; { // each waits RequestTimeout
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		a = ce.call("PutRecord", m{"StreamName": "s", "PartitionKey": "a", "Data": []byte("z")})
	}
	ce.stored("x z")
}

// TestProposals: a command goes to another broker only if the first says that it
// has not taken it.
func TestProposals(t *testing.T) {
	for _, c := range []struct {
		refusal error
		again   bool
	}{
		{statusOf(stream.NotLeader), true},
		{statusOf(stream.Unavailable), true},
		{statusOf(stream.Timeout), false},
		{status.Error(codes.Unavailable, "the connection broke"), false}, // gRPC's own word
		{statusOf(stream.Invalid), false},
	} {
		ce := newCluster(t, 2)
		ce.create("s", 1)
		var calls int
		var mu sync.Mutex
		for _, n := range ce.nodes {
			n.set(func() {
				n.proposing = func() error {
					mu.Lock()
					defer mu.Unlock()
					if calls++; calls == 1 {
						return c.refusal
					}
					return nil
				}
			})
		}
		a := ce.call("CreateStream", m{"StreamName": "t", "ShardCount": 1})
		if want := map[bool]int{true: 2, false: 1}[c.again]; calls != want || c.again != (a.status == 200) {
			t.Errorf("%v: %d calls, answer %d %s", c.refusal, calls, a.status, a.raw)
		}
	}
}

// TestReadIndexIsShared: callers who come while an index is being asked for are
// served by one more call, and none by the one that began before they came.
func TestReadIndexIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		defer wg.Wait()
		let := make(chan struct{})
		calls := uint64(0)
		r := &indexReader{owner: &wg, ask: func() (uint64, error) {
			calls++
			n := calls
			<-let
			return n, nil
		}}
		read := func(to chan uint64) {
			i, err := r.read(t.Context())
			if err != nil {
				t.Error(err)
			}
			to <- i
		}
		const late = 20
		first, others := make(chan uint64, 1), make(chan uint64, late)
		go read(first)
		synctest.Wait()
		for range late {
			go read(others)
		}
		synctest.Wait()
		close(let)
		if i := <-first; i != 1 {
			t.Errorf("the first got %d", i)
		}
		for range late {
			if i := <-others; i != 2 {
				t.Errorf("a later caller got %d", i)
			}
		}
	})
}

// TestBrokenWatch: a watch that ends is opened again, and nothing is missed.
func TestBrokenWatch(t *testing.T) {
	e := newEnv(t)
	e.create("s", 1)
	e.broker.breakWatches()
	e.create("t", 1)
	e.put("t", "a", "x")
}

// TestUnready: a gateway without any broker says so to its load balancer, after
// a while in which the next broker could have been found.
func TestUnready(t *testing.T) {
	ce := newCluster(t, 1)
	ce.watched()
	if err := ce.g.Unready(); err != nil {
		t.Fatal(err)
	}
	ce.nodes[0].kill()
	w := &ce.g.watching
	lost := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.started
	}
	for !lost() {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	if err := ce.g.Unready(); err != nil {
		t.Errorf("at once: %v", err)
	}
	w.mu.Lock()
	w.lost = w.lost.Add(-readyGrace)
	w.mu.Unlock()
	r, err := http.NewRequest(http.MethodGet, ce.url+"/_shardstream/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if a := ce.do(r); a.status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

// TestMirrorHidesTheOlder: the whole metadata of a broker that lags changes
// nothing until later steps have brought it up; another cluster's is taken.
func TestMirrorHidesTheOlder(t *testing.T) {
	metrics, err := newMetrics(nil, newBudget(1))
	if err != nil {
		t.Fatal(err)
	}
	r := newMirror(metrics)
	whole := func(index uint64, cluster string, names ...string) *pb.MetadataEvent {
		e := &pb.MetadataEvent{Index: index, Reset_: true, Cluster: &pb.ClusterInfo{Id: cluster}}
		for i, n := range names {
			e.Streams = append(e.Streams, &pb.Stream{Id: uint64(i) + 1, Name: n})
		}
		return e
	}
	shows := func(index uint64, names ...string) {
		t.Helper()
		if m := r.load(); m.index != index || !slices.Equal(m.names, names) {
			t.Errorf("shows %d %q, not %d %q", m.index, m.names, index, names)
		}
	}
	r.begin()
	r.apply(whole(10, "c", "a", "b"))
	shows(10, "a", "b")

	r.begin()
	if m := r.apply(whole(3, "c", "a")); m != nil {
		t.Errorf("an older state is news: %d", m.index)
	}
	shows(10, "a", "b")
	r.apply(&pb.MetadataEvent{Index: 9, Streams: []*pb.Stream{{Id: 2, Name: "b"}}})
	shows(10, "a", "b")
	r.apply(&pb.MetadataEvent{Index: 9}) // a beat
	shows(10, "a", "b")
	r.apply(&pb.MetadataEvent{Index: 11, Streams: []*pb.Stream{{Id: 3, Name: "c"}}})
	shows(11, "a", "b", "c")

	r.begin()
	r.apply(&pb.MetadataEvent{Index: 20, Reset_: true}) // a broker that knows no cluster
	shows(11, "a", "b", "c")
	r.begin()
	r.apply(whole(2, "another", "z"))
	shows(2, "z")
}
