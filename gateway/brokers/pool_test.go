package brokers

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a broker that answers as it is told.
type node struct {
	pb.UnimplementedClusterServer
	pb.UnimplementedDataServer
	address string

	readIndex func(context.Context) (uint64, error)
	propose   func() error
	members   []*pb.Broker
}

func serve(t *testing.T, n *node) *node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.address = l.Addr().String()
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	pb.RegisterClusterServer(s, n)
	pb.RegisterDataServer(s, n)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return n
}

func (n *node) ReadIndex(ctx context.Context, _ *pb.ReadIndexRequest) (*pb.ReadIndexResponse, error) {
	i, err := n.readIndex(ctx)
	return &pb.ReadIndexResponse{Index: i}, err
}

func (n *node) Propose(context.Context, *pb.ProposeRequest) (*pb.ProposeResponse, error) {
	if err := n.propose(); err != nil {
		return nil, err
	}
	return &pb.ProposeResponse{Result: &pb.CommandResult{Index: 1}}, nil
}

func (n *node) WatchMetadata(_ *pb.WatchMetadataRequest, out grpc.ServerStreamingServer[pb.MetadataEvent]) error {
	if err := out.Send(&pb.MetadataEvent{Index: 1, Reset_: true, Brokers: n.members}); err != nil {
		return err
	}
	<-out.Context().Done()
	return nil
}

func (n *node) Append(_ context.Context, in *pb.AppendRequest) (*pb.AppendResponse, error) {
	size := 0
	for _, b := range in.Batches {
		size += len(b.Batch)
	}
	return &pb.AppendResponse{Results: []*pb.AppendResult{{BaseOffset: uint64(size)}}}, nil
}

func newPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestSeedsAreChecked(t *testing.T) {
	for _, seeds := range [][]string{nil, {"host"}, {":7070"}, {"host:"}, {"a:1", "b"}} {
		if _, err := New(Config{Seeds: seeds}); !errors.Is(err, stream.Invalid) {
			t.Errorf("%q: %v", seeds, err)
		}
	}
	_, err := New(Config{Seeds: []string{"a:1", "b", "c"}})
	if err == nil || !strings.Contains(err.Error(), `"b"`) || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("not all mistakes are named: %v", err)
	}
}

// TestSeedStandsForAllAddresses: a name is resolved each time a broker is looked
// for, as the pods behind it come and go.
func TestSeedStandsForAllAddresses(t *testing.T) {
	found := []string{"127.0.0.2", "127.0.0.3"}
	p := newPool(t, Config{
		Seeds: []string{"brokers:7070", "10.0.0.1:7071", "unknown:1"},
		Lookup: func(_ context.Context, host string) ([]string, error) {
			if host != "brokers" {
				return nil, errors.New("no such host")
			}
			return found, nil
		},
	})
	sorted := func() []string { return slices.Sorted(slices.Values(p.candidates(t.Context(), false))) }
	if got, want := sorted(), []string{"10.0.0.1:7071", "127.0.0.2:7070", "127.0.0.3:7070", "unknown:1"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	found = []string{"127.0.0.4"}
	if got, want := sorted(), []string{"10.0.0.1:7071", "127.0.0.4:7070", "unknown:1"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// Once members are known and answer, names are left alone.
	p.learn([]*pb.Broker{{GrpcAddress: "m1:1", State: pb.BrokerState_BROKER_STATE_LIVE}, {GrpcAddress: "gone:1", State: pb.BrokerState_BROKER_STATE_GONE}, {}})
	p.alive("m1:1")
	if got := sorted(); !slices.Equal(got, []string{"m1:1"}) {
		t.Errorf("%q", got)
	}
	// And asked again when none of them does.
	p.chosen("m1:1")
	if got := sorted(); len(got) != 4 {
		t.Errorf("%q", got)
	}
}

// TestTurns: whoever was tried longest ago comes first, but for calls to the
// broker whose watch is alive.
func TestTurns(t *testing.T) {
	p := newPool(t, Config{Seeds: []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}})
	seen := make(map[string]int)
	for range 9 {
		a := p.candidates(t.Context(), true)[0]
		p.chosen(a)
		seen[a]++
	}
	for a, n := range seen {
		if n != 3 {
			t.Errorf("%s was tried %d times of 9", a, n)
		}
	}
	p.alive("127.0.0.1:2")
	p.chosen("127.0.0.1:2")
	if a := p.candidates(t.Context(), false)[0]; a != "127.0.0.1:2" {
		t.Errorf("a call goes to %s", a)
	}
	if a := p.candidates(t.Context(), true)[0]; a == "127.0.0.1:2" {
		t.Error("a new watch goes to the broker of the old one")
	}
	p.lost("127.0.0.1:2")
	if a := p.candidates(t.Context(), false)[0]; a == "127.0.0.1:2" {
		t.Error("a call goes to the broker that fell silent")
	}
}

// TestReadIndexLeavesADeadBroker: one that does not answer, refuses or is not
// there costs a part of the time only.
func TestReadIndexLeavesADeadBroker(t *testing.T) {
	silent := serve(t, &node{readIndex: func(ctx context.Context) (uint64, error) { <-ctx.Done(); return 0, ctx.Err() }})
	refusing := serve(t, &node{readIndex: func(context.Context) (uint64, error) { return 0, status.Error(codes.Unavailable, "x") }})
	good := serve(t, &node{readIndex: func(context.Context) (uint64, error) { return 42, nil }})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	p := newPool(t, Config{Seeds: []string{closed.Addr().String(), refusing.address, silent.address, good.address}})
	for range 2 {
		r, err := p.ReadIndex(t.Context(), &pb.ReadIndexRequest{})
		if err != nil || r.Index != 42 {
			t.Fatalf("%v, %v", r, err)
		}
	}
}

// TestNoBroker: the error says which and why, and comes when the caller's time
// is over.
func TestNoBroker(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	p := newPool(t, Config{Seeds: []string{closed.Addr().String()}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.ReadIndex(ctx, &pb.ReadIndexRequest{}); KindOf(err) != stream.Unavailable || !strings.Contains(err.Error(), closed.Addr().String()) {
		t.Errorf("%v", err)
	}
	p.Close()
	if _, err := p.ReadIndex(t.Context(), &pb.ReadIndexRequest{}); KindOf(err) != stream.Unavailable {
		t.Errorf("closed: %v", err)
	}
	if _, err := p.Data("n", "127.0.0.1:1"); KindOf(err) != stream.Unavailable {
		t.Errorf("closed: %v", err)
	}
}

// TestProposeWaitsForAConnection: a broker that cannot be reached has certainly
// not taken the command.
func TestProposeWaitsForAConnection(t *testing.T) {
	var mu sync.Mutex
	calls := 0
	good := serve(t, &node{propose: func() error { mu.Lock(); defer mu.Unlock(); calls++; return nil }})
	var seeds []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		seeds = append(seeds, l.Addr().String())
	}
	p := newPool(t, Config{Seeds: append(seeds, good.address)})
	if _, err := p.Propose(t.Context(), &pb.ProposeRequest{}); err != nil || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// TestLearn: the watch teaches who the brokers are; connections to those that
// are gone are closed, and calls at the others go on.
func TestLearn(t *testing.T) {
	b := serve(t, &node{})
	a := serve(t, &node{members: []*pb.Broker{{NodeId: "b", GrpcAddress: b.address, State: pb.BrokerState_BROKER_STATE_LIVE}}})
	p := newPool(t, Config{Seeds: []string{a.address}})
	gone, err := p.Data("a", a.address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Append(t.Context(), &pb.AppendRequest{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := p.WatchMetadata(ctx, &pb.WatchMetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Append(t.Context(), &pb.AppendRequest{}); err == nil {
		t.Error("the connection to a broker that is no member is still open")
	}
	// The watch stays, though its broker is spelled otherwise as a seed.
	if got := p.candidates(t.Context(), false); !slices.Contains(got, b.address) {
		t.Errorf("%q", got)
	}
	cancel()
	if _, err := w.Recv(); KindOf(err) != stream.Timeout {
		t.Errorf("a watch given up: %v", err)
	}
}

// TestLargestMessage: a PutRecords of the largest size goes through the windows.
func TestLargestMessage(t *testing.T) {
	n := serve(t, &node{})
	p := newPool(t, Config{Seeds: []string{n.address}})
	d, err := p.Data("n", n.address)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Append(t.Context(), &pb.AppendRequest{Batches: []*pb.ShardBatch{{Batch: make([]byte, stream.MaxBatchSize)}}})
	if err != nil || r.Results[0].BaseOffset != stream.MaxBatchSize {
		t.Errorf("%v, %v", r, err)
	}
}

// TestKinds: every kind comes over the wire as itself, and what gRPC says alone
// is no word of a broker.
func TestKinds(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind stream.Kind
		said stream.Kind
	}{
		{nil, 0, 0},
		{stream.Errorf(stream.Stale, "x", "y"), stream.Stale, stream.Stale},
		{context.Canceled, stream.Timeout, 0},
		{context.DeadlineExceeded, stream.Timeout, 0},
		{status.Error(codes.Unavailable, "x"), stream.Unavailable, 0},
		{status.Error(codes.DeadlineExceeded, "x"), stream.Timeout, 0},
		{status.Error(codes.Canceled, "x"), stream.Timeout, 0},
		{status.Error(codes.Internal, "x"), stream.Internal, 0},
		{errors.New("x"), stream.Internal, 0},
	} {
		if got := KindOf(c.err); got != c.kind {
			t.Errorf("%v: kind %v", c.err, got)
		}
		if c.err != nil && said(c.err) != c.said {
			t.Errorf("%v: said %v", c.err, said(c.err))
		}
	}
}
