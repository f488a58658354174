package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// tailer reads a Tail.
type tailer struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[pb.TailEvent]
	end    context.CancelFunc
}

func startTail(t *testing.T, data pb.DataClient, s *pb.Stream, change ...func(*pb.TailRequest)) *tailer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req := &pb.TailRequest{Shard: &pb.ShardRef{StreamId: s.Id}}
	for _, f := range change {
		f(req)
	}
	c, err := data.Tail(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return &tailer{t, c, cancel}
}

func (r *tailer) event() *pb.TailEvent {
	r.t.Helper()
	e, err := r.stream.Recv()
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// records reads until so many records have come, and gives their data.
func (r *tailer) records(n int) string {
	r.t.Helper()
	var all []string
	for len(all) < n {
		e := r.event()
		for _, raw := range e.Batches {
			b, err := stream.CheckBatch(raw)
			if err != nil {
				r.t.Fatal(err)
			}
			if b.End() > stream.Offset(e.HighWatermark) {
				r.t.Errorf("I12: a batch up to %d, above the high watermark %d", b.End(), e.HighWatermark)
			}
			for _, record := range b.Records() {
				all = append(all, string(record.Data))
			}
		}
	}
	return strings.Join(all, " ")
}

// kind waits for the error that ends the stream.
func (r *tailer) kind() stream.Kind {
	r.t.Helper()
	for {
		_, err := r.stream.Recv()
		if err == nil {
			continue
		}
		for _, d := range status.Convert(err).Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				for _, k := range stream.Kinds() {
					if k.String() == info.Reason {
						return k
					}
				}
			}
		}
		r.t.Fatalf("ended with %v", err)
	}
}

// overBoth runs a test in the process and over gRPC.
func overBoth(t *testing.T, f func(t *testing.T, b *Broker, data pb.DataClient, stop func())) {
	t.Run("in process", func(t *testing.T) {
		b := open(t, t.TempDir())
		stop := sync.OnceFunc(func() { closeBroker(t, b) })
		defer stop()
		f(t, b, b.Data(), stop)
	})
	t.Run("gRPC", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		b, err := Open(t.Context(), Config{DataDir: t.TempDir(), DefaultNodeID: "test", Lone: true, GRPCListener: l, JournalBudget: 64 << 20, DiskReserve: 1})
		if err != nil {
			t.Fatal(err)
		}
		stop := sync.OnceFunc(func() { closeBroker(t, b) })
		defer stop()
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(64<<10))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		f(t, b, pb.NewDataClient(conn), stop)
	})
}

func TestTailPushesWhatIsCommitted(t *testing.T) {
	overBoth(t, func(t *testing.T, b *Broker, data pb.DataClient, _ func()) {
		s := streamNamed(t, b, "s", 1)
		put(t, b, s, 0, "0", "1")
		r := startTail(t, data, s)
		if got := r.records(2); got != "0 1" {
			t.Fatal(got)
		}
		empty := startTail(t, data, s, func(r *pb.TailRequest) { r.Offset = 2 })
		if e := empty.event(); len(e.Batches) > 0 || e.HighWatermark != 2 || e.LastArrivalMs == 0 || e.Ended {
			t.Fatalf("the first event: %v", e)
		}
		for i := range 100 { // each wakes both, or finds them at work
			put(t, b, s, 0, fmt.Sprint(i))
		}
		var want []string
		for i := range 100 {
			want = append(want, fmt.Sprint(i))
		}
		for _, r := range []*tailer{r, empty} {
			if got := r.records(100); got != strings.Join(want, " ") {
				t.Fatal(got)
			}
		}
	})
}

func TestTailSpeaksWhenItIsSilent(t *testing.T) {
	overBoth(t, func(t *testing.T, b *Broker, data pb.DataClient, _ func()) {
		s := streamNamed(t, b, "s", 1)
		r := startTail(t, data, s, func(r *pb.TailRequest) { r.MaxSilenceMs = 1 })
		for range 3 {
			if e := r.event(); len(e.Batches) > 0 {
				t.Fatal(e)
			}
		}
	})
}

// TestTailEnds: with its shard, its stream and its broker.
func TestTailEnds(t *testing.T) {
	overBoth(t, func(t *testing.T, b *Broker, data pb.DataClient, stop func()) {
		s := streamNamed(t, b, "s", 1)
		put(t, b, s, 0, "x")
		r, behind := startTail(t, data, s), startTail(t, data, s)
		r.records(1)
		propose(t, b, &pb.Command{Op: &pb.Command_Reshard{Reshard: &pb.Reshard{
			StreamId: s.Id, Kind: pb.ReshardKind_RESHARD_KIND_SPLIT, SplitAtHi: 1 << 63,
		}}})
		last := r.event()
		for !last.Ended {
			last = r.event()
		}
		if last.HighWatermark != 1 || len(last.Batches) > 0 {
			t.Fatal(last)
		}
		if _, err := r.stream.Recv(); err != io.EOF {
			t.Fatal(err)
		}
		for got := 0; ; { // who was behind gets all of it first
			e := behind.event()
			if got += len(e.Batches); e.Ended {
				if got != 1 {
					t.Fatalf("%d batches before the end", got)
				}
				break
			}
		}
		for _, offset := range []uint64{1, 2} {
			if e := startTail(t, data, s, func(r *pb.TailRequest) { r.Offset = offset }).event(); !e.Ended {
				t.Fatalf("from the end on: %v", e)
			}
		}

		other := streamNamed(t, b, "other", 1)
		r = startTail(t, data, other)
		r.event()
		propose(t, b, &pb.Command{Op: &pb.Command_DeleteStream{DeleteStream: &pb.DeleteStream{StreamId: other.Id}}})
		if k := r.kind(); k != stream.NotLeader && k != stream.NotFound {
			t.Fatal(k)
		}

		third := streamNamed(t, b, "third", 1)
		r = startTail(t, data, third)
		r.event()
		ended := make(chan stream.Kind, 1)
		go func() { ended <- r.kind() }()
		stop()
		if k := <-ended; k != stream.Unavailable && k != stream.NotLeader {
			t.Fatal(k)
		}
	})
}

// TestTailsLeaveNothingBehind: clients that come and go on a shard where nothing
// happens.
func TestTailsLeaveNothingBehind(t *testing.T) {
	overBoth(t, func(t *testing.T, b *Broker, data pb.DataClient, _ func()) {
		s := streamNamed(t, b, "s", 1)
		for range 20 {
			r := startTail(t, data, s)
			r.event()
			ended := make(chan error, 1)
			go func() { _, err := r.stream.Recv(); ended <- err }()
			r.end()
			if err := <-ended; err == nil {
				t.Fatal("an event after the end")
			}
		}
		r := b.host.shard(stream.ShardID{Stream: stream.StreamID(s.Id)})
		for deadline := time.Now().Add(time.Minute); r.Watches() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d watches are left", r.Watches())
			}
		}
	})
}

// TestSlowTailIsBounded: a reader that takes nothing keeps no more than some
// events in memory, whatever is put.
func TestSlowTailIsBounded(t *testing.T) {
	overBoth(t, func(t *testing.T, b *Broker, data pb.DataClient, _ func()) {
		s := streamNamed(t, b, "s", 1)
		big := strings.Repeat("x", 100<<10)
		const puts = 200
		for range puts {
			put(t, b, s, 0, big)
		}
		r := startTail(t, data, s)
		events, records := 0, 0
		for records < puts {
			e := r.event()
			size := 0
			for _, raw := range e.Batches {
				size += len(raw)
			}
			if size > maxTailBytes {
				t.Fatalf("an event of %d bytes", size)
			}
			events++
			records += len(e.Batches)
		}
		if records != puts || events < puts/3 {
			t.Fatalf("%d records in %d events", records, events)
		}
	})
}

func TestSubscriptionsAtTheLeader(t *testing.T) {
	overBoth(t, func(t *testing.T, b *Broker, data pb.DataClient, _ func()) {
		s := streamNamed(t, b, "s", 1)
		as := func(id byte, name string) func(*pb.TailRequest) {
			return func(r *pb.TailRequest) {
				r.Subscription = &pb.Subscription{Consumer: name, ConsumerCreatedS: 5, Id: append(make([]byte, 15), id)}
			}
		}
		first := startTail(t, data, s, as(1, "c"))
		first.event()
		startTail(t, data, s, as(9, "d")).event() // another consumer
		if k := refusedTail(t, data, s, as(2, "c")); k != stream.AlreadyExists {
			t.Fatal(k)
		}
		if k := refusedTail(t, data, s, as(3, "c")); k != stream.LimitExceeded {
			t.Fatal(k)
		}
		// One that goes on from another gateway and is younger.
		younger := startTail(t, data, s, func(r *pb.TailRequest) { as(4, "c")(r); r.Subscription.Resumed = true })
		younger.event()
		if k := first.kind(); k != stream.WrongState {
			t.Fatal(k)
		}
	})
}

// TestDisplacedWithMuchToRead: who has been taken over from gets nothing more,
// however much there is to read.
func TestDisplacedWithMuchToRead(t *testing.T) {
	b := open(t, t.TempDir())
	defer closeBroker(t, b)
	s := streamNamed(t, b, "s", 1)
	for range 20 {
		put(t, b, s, 0, strings.Repeat("x", 100<<10))
	}
	as := func(id byte) func(*pb.TailRequest) {
		return func(r *pb.TailRequest) {
			r.Subscription = &pb.Subscription{Consumer: "c", ConsumerCreatedS: 5, Id: append(make([]byte, 15), id), Resumed: true}
		}
	}
	first := startTail(t, b.Data(), s, as(1))
	first.event()
	startTail(t, b.Data(), s, as(2)).event()
	if e, err := first.stream.Recv(); err == nil {
		t.Fatalf("an event of %d batches after another subscription took over", len(e.Batches))
	}
}

func refusedTail(t *testing.T, data pb.DataClient, s *pb.Stream, change func(*pb.TailRequest)) stream.Kind {
	t.Helper()
	req := &pb.TailRequest{Shard: &pb.ShardRef{StreamId: s.Id}}
	change(req)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, err := data.Tail(ctx, req)
	if err == nil {
		return (&tailer{t, c, cancel}).kind()
	}
	return (&tailer{t, failed{nil, err}, cancel}).kind()
}

// failed is a stream that was refused at once.
type failed struct {
	grpc.ClientStream
	err error
}

func (f failed) Recv() (*pb.TailEvent, error) { return nil, f.err }

func propose(t *testing.T, b *Broker, c *pb.Command) {
	t.Helper()
	r, err := b.Cluster().Propose(t.Context(), &pb.ProposeRequest{Command: c})
	if err == nil && r.Result.Error != 0 {
		err = errors.New(r.Result.Detail)
	}
	if err != nil {
		t.Fatal(err)
	}
}
