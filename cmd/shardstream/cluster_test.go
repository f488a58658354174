package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "shardstream/proto/shardstream/v1"
)

// fakeBroker answers what operators ask, from a view.
type fakeBroker struct {
	pb.UnimplementedClusterServer
	address string
	view    *clusterView
	node    string
	silent  bool // NodeStatus hangs

	proposed []*pb.Command
}

func (f *fakeBroker) WatchMetadata(_ *pb.WatchMetadataRequest, out grpc.ServerStreamingServer[pb.MetadataEvent]) error {
	if f.view == nil {
		return status.Error(codes.Unavailable, "this broker has no cluster yet")
	}
	first := &pb.MetadataEvent{Index: 9, Reset_: true, More: true, Cluster: f.view.meta.cluster, Brokers: f.view.meta.brokers}
	second := &pb.MetadataEvent{Index: f.view.meta.index}
	for id, s := range f.view.meta.streams {
		first.Streams = append(first.Streams, s)
		second.Shards = append(second.Shards, f.view.meta.shards[id]...)
	}
	for _, e := range []*pb.MetadataEvent{first, second} {
		if err := out.Send(e); err != nil {
			return err
		}
	}
	<-out.Context().Done() // a watch does not end by itself
	return nil
}

func (f *fakeBroker) ListDamage(context.Context, *pb.ListDamageRequest) (*pb.ListDamageResponse, error) {
	return &pb.ListDamageResponse{ScanComplete: true}, nil
}

func (f *fakeBroker) NodeStatus(ctx context.Context, req *pb.NodeStatusRequest) (*pb.NodeStatusResponse, error) {
	if f.silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	answer := f.view.nodes[f.node].status
	for _, r := range answer.Replicas {
		if req.StreamId != 0 && r.Replica.StreamId != req.StreamId {
			return nil, status.Error(codes.Internal, "the fake has replicas of one stream only")
		}
	}
	return answer, nil
}

// serveView serves a view by one fake broker per node that has a status.
func serveView(t *testing.T, v *clusterView) map[string]*fakeBroker {
	t.Helper()
	fakes := make(map[string]*fakeBroker)
	for _, b := range v.meta.brokers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		b.GrpcAddress = l.Addr().String()
		if v.nodes[b.NodeId].status == nil {
			l.Close()
			continue
		}
		f := &fakeBroker{address: b.GrpcAddress, view: v, node: b.NodeId}
		fakes[b.NodeId] = f
		server := grpc.NewServer()
		pb.RegisterClusterServer(server, f)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(l) // ends with Stop
		}()
		t.Cleanup(func() {
			server.Stop()
			<-done
		})
	}
	return fakes
}

func TestClusterStatus(t *testing.T) {
	v := threeNodes(6)
	fakes := serveView(t, v)
	code, out, errs := runCLI(t, "", "cluster", "status", "--broker", fakes["node-2"].address)
	for _, want := range []string{"cluster cluster-1: healthy", "leader node-1, term 3, voters node-1, node-2, node-3", "6 of 1 stream", "node-3  live", "5.0 GiB"} {
		if code != exitOK || errs != "" || !strings.Contains(out, want) {
			t.Errorf("status %d, stderr %q, want %q in:\n%s", code, errs, want, out)
		}
	}
}

func TestClusterStatusSaysWhatIsWrong(t *testing.T) {
	v := threeNodes(6)
	dark(v, 1, 2)
	fakes := serveView(t, v)
	dead := v.meta.brokers[0].GrpcAddress
	// The first one named is down, so the next one is asked.
	code, out, errs := runCLI(t, "", "cluster", "status", "--broker", dead+","+fakes["node-3"].address)
	for _, want := range []string{"NOT HEALTHY", "the metadata has no majority", "do      start 1 of: node-1, node-2", "does not answer: dial tcp " + dead + ": connect: connection refused"} {
		if code != exitFailure || errs != "" || !strings.Contains(out, want) {
			t.Errorf("status %d, stderr %q, want %q in:\n%s", code, errs, want, out)
		}
	}
	code, out, errs = runCLI(t, "", "cluster", "status", "--json", "--broker", fakes["node-3"].address)
	var report statusReport
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if code != exitFailure || errs != "" || report.Healthy || report.Findings[0].Severity != critical ||
		report.Shards.Total != 6 || len(report.Nodes) != 3 || report.Nodes[0].Reachable || !report.Nodes[2].Reachable {
		t.Errorf("status %d, stderr %q, report %+v", code, errs, report)
	}
}

func TestNoBrokerAnswers(t *testing.T) {
	v := threeNodes(0)
	dark(v, 1, 2, 3)
	serveView(t, v)
	var addresses []string
	for _, b := range v.meta.brokers {
		addresses = append(addresses, b.GrpcAddress)
	}
	for _, command := range [][]string{{"cluster", "status"}, {"cluster", "members"}, {"stream", "list"}, {"stream", "describe", "orders"}} {
		code, out, errs := runCLI(t, "", append(command, "--broker", strings.Join(addresses, ","))...)
		if code != exitFailure || out != "" || strings.Count(errs, "\n") != 1 || strings.Count(errs, "connection refused") != 3 || !strings.Contains(errs, addresses[2]) {
			t.Errorf("%v: status %d, stdout %q, stderr %q; want one line that names all three", command, code, out, errs)
		}
	}
}

func TestABrokerWithoutAClusterSaysSo(t *testing.T) {
	v := threeNodes(0)
	fakes := serveView(t, v)
	fakes["node-1"].view = nil
	code, _, errs := runCLI(t, "", "cluster", "status", "--broker", fakes["node-1"].address)
	if code != exitFailure || !strings.Contains(errs, "has no cluster yet") {
		t.Errorf("status %d, stderr %q", code, errs)
	}
}

// TestASilentNodeDelaysNobody has one node hang: its figures are missing, the
// others' are there.
func TestASilentNodeDelaysNobody(t *testing.T) {
	v := threeNodes(3)
	fakes := serveView(t, v)
	fakes["node-2"].silent = true
	code, out, _ := runCLI(t, "", "cluster", "status", "--broker", fakes["node-1"].address)
	if code != exitFailure || !strings.Contains(out, "broker node-2 at "+fakes["node-2"].address+" does not answer: no answer in time") {
		t.Errorf("status %d:\n%s", code, out)
	}
}

func TestAnotherNodeAtTheAddress(t *testing.T) {
	v := threeNodes(0)
	fakes := serveView(t, v)
	v.meta.brokers[1].GrpcAddress = fakes["node-3"].address
	code, out, _ := runCLI(t, "", "cluster", "status", "--broker", fakes["node-1"].address)
	if code != exitFailure || !strings.Contains(out, "node node-3 answers at "+fakes["node-3"].address) {
		t.Errorf("status %d:\n%s", code, out)
	}
}

func TestWatchEndsWhenAsked(t *testing.T) {
	v := threeNodes(1)
	fakes := serveView(t, v)
	ctx, cancel := context.WithCancel(t.Context())
	looks := make(chan struct{}, 100)
	out := writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte(`"healthy":true`)) {
			looks <- struct{}{}
		}
		return len(p), nil
	})
	done := make(chan int)
	go func() {
		done <- run(ctx, []string{"cluster", "status", "--watch", "--json", "--interval", "1ms", "--broker", fakes["node-1"].address}, strings.NewReader(""), out, out)
	}()
	for range 3 {
		<-looks
	}
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("status %d", code)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestClusterMembers(t *testing.T) {
	v := threeNodes(0)
	v.meta.brokers[1].State = pb.BrokerState_BROKER_STATE_FENCED
	v.meta.brokers[1].Zone = "rack-b"
	v.nodes["node-3"].status.Members = []*pb.Member{
		{NodeId: "node-1", State: "alive", Address: "10.0.0.1:7072"},
		{NodeId: "node-2", State: "dead", Address: "10.0.0.2:7072"},
		{NodeId: "node-4", State: "alive", Address: "10.0.0.4:7072", GrpcAddress: "10.0.0.4:7070", Zone: "rack-d"},
	}
	fakes := serveView(t, v)
	code, out, errs := runCLI(t, "", "cluster", "members", "--json", "--broker", fakes["node-1"].address)
	var report struct {
		Cluster string
		Members []memberRow
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitOK || errs != "" {
		t.Fatalf("status %d, stderr %q, %v", code, errs, err)
	}
	want := []memberRow{
		{Node: "node-1", State: "live", Gossip: "alive", GRPC: fakes["node-1"].address, GossipAt: "10.0.0.1:7072", Role: "leader"},
		{Node: "node-2", State: "fenced", Gossip: "dead", Zone: "rack-b", GRPC: fakes["node-2"].address, GossipAt: "10.0.0.2:7072", Role: "voter"},
		{Node: "node-3", State: "live", GRPC: fakes["node-3"].address, Role: "voter"},
		{Node: "node-4", Gossip: "alive", Zone: "rack-d", GRPC: "10.0.0.4:7070", GossipAt: "10.0.0.4:7072"},
	}
	if report.Cluster != "cluster-1" || !slices.Equal(report.Members, want) {
		t.Errorf("got %+v", report)
	}
	if code, out, _ := runCLI(t, "", "cluster", "members", "--broker", fakes["node-1"].address); code != exitOK || strings.Count(out, "\n") != 5 {
		t.Errorf("status %d:\n%s", code, out)
	}
}

func TestStreamListAndDescribe(t *testing.T) {
	v := threeNodes(3)
	v.meta.streams[7] = &pb.Stream{Id: 7, Name: "a-first", Status: pb.StreamStatus_STREAM_STATUS_CREATING, CreatedMs: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMilli()}
	last := v.meta.shards[1][2]
	last.Leader = 0
	last.Range = &pb.HashRange{EndHi: 1}
	first := v.meta.shards[1][0]
	first.InSync = first.InSync[:2]
	v.nodes["node-1"].status.Replicas = []*pb.ReplicaStatus{{
		Replica: &pb.ReplicaRef{StreamId: 1, ReplicaId: first.Leader}, Role: pb.ReplicaRole_REPLICA_ROLE_LEADER,
		Start: 5, HighWatermark: 17, End: 20,
		Followers: []*pb.FollowerStatus{{ReplicaId: 2, DurableEnd: 17}, {ReplicaId: 3, NodeId: "node-3", DurableEnd: 8, CatchingUp: true, RemainingBytes: 3 << 20, TotalBytes: 9 << 20}},
	}}
	fakes := serveView(t, v)
	broker := []string{"--broker", fakes["node-1"].address}

	code, out, errs := runCLI(t, "", append([]string{"stream", "list"}, broker...)...)
	lines := strings.Split(out, "\n")
	if code != exitOK || errs != "" || len(lines) != 4 || !strings.HasPrefix(lines[1], "a-first  CREATING") || !strings.HasPrefix(lines[2], "orders   ACTIVE    3            3           1        24h") {
		t.Errorf("status %d, stderr %q:\n%s", code, errs, out)
	}
	code, out, errs = runCLI(t, "", append([]string{"stream", "describe", "orders"}, broker...)...)
	for _, want := range []string{"stream orders (id 1): ACTIVE, 3 of 3 shards open", "node-3 (3.0 MiB left)  5      17  20", "OFFLINE", "node-2   1"} {
		if code != exitOK || errs != "" || !strings.Contains(out, want) {
			t.Errorf("status %d, stderr %q, want %q in:\n%s", code, errs, want, out)
		}
	}
	code, out, errs = runCLI(t, "", append([]string{"stream", "describe", "orders", "--json"}, broker...)...)
	var report struct {
		streamRow
		ShardList []shardRow
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitOK || errs != "" {
		t.Fatalf("status %d, stderr %q, %v", code, errs, err)
	}
	s := report.ShardList[0]
	if report.Name != "orders" || s.Leader != "node-1" || *s.HW != 17 || !slices.Equal(s.InSync, []string{"node-1", "node-2"}) || s.Replicas[2].Remaining != 3<<20 || *s.Replicas[1].DurableEnd != 17 {
		t.Errorf("%+v", report)
	}
	if s := report.ShardList[2]; s.Leader != "" || s.HW != nil || s.HashRange != [2]string{"0", "18446744073709551616"} {
		t.Errorf("%+v", s)
	}
	code, _, errs = runCLI(t, "", append([]string{"stream", "describe", "none"}, broker...)...)
	if code != exitFailure || !strings.Contains(errs, "there is no stream none") {
		t.Errorf("status %d, stderr %q", code, errs)
	}
}
