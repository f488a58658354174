package broker

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"shardstream/ondemand"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// What is written to on-demand shards is counted as limits count it, and told
// once; what could not be told is told with what comes later. Provisioned streams
// are not counted, and repeats are no load.
func TestLoadsAreTold(t *testing.T) {
	b := open(t, t.TempDir())
	defer closeBroker(t, b)
	provisioned := streamNamed(t, b, "provisioned", 1)
	response, err := b.Cluster().Propose(t.Context(), &pb.ProposeRequest{Command: &pb.Command{Op: &pb.Command_CreateStream{CreateStream: &pb.CreateStream{
		Name: "clicks", ShardCount: ondemand.MinShards, Mode: pb.StreamMode_STREAM_MODE_ON_DEMAND,
	}}}})
	if err != nil || response.Result.Error != 0 {
		t.Fatal(response, err)
	}
	clicks := streamNamed(t, b, "clicks", ondemand.MinShards) // waits for it

	var told []*pb.LoadReport
	refusal := error(nil)
	elapsed := time.Duration(0)
	r := &loadReporter{
		cluster: "c", node: "n", incarnation: 7, host: b.host, every: time.Hour, since: func() time.Duration { return elapsed },
		send: func(_ context.Context, report *pb.LoadReport) error {
			if refusal == nil {
				told = append(told, report)
			}
			return refusal
		},
		untold: make(map[stream.ShardID]*pb.ShardLoad),
	}
	tell := func() *pb.LoadReport {
		told = nil
		elapsed += 10 * time.Second
		r.tell(t.Context())
		if len(told) == 0 {
			return nil
		}
		return told[0]
	}
	want := func(got *pb.LoadReport, overMs int64, loads ...*pb.ShardLoad) {
		t.Helper()
		w := &pb.LoadReport{ClusterId: "c", NodeId: "n", Incarnation: 7, OverMs: overMs, Loads: loads}
		if !proto.Equal(got, w) {
			t.Errorf("told %v, want %v", got, w)
		}
	}
	put(t, b, provisioned, 0, "not counted")
	want(tell(), 10_000)
	put(t, b, clicks, 2, "four", "three") // with a key of one byte each
	want(tell(), 10_000, &pb.ShardLoad{StreamId: clicks.Id, Shard: 2, Bytes: 11, Records: 2})
	put(t, b, clicks, 2, "x")
	refusal = errors.New("nobody leads raft")
	tell()
	put(t, b, clicks, 2, "y")
	tell()
	refusal = nil
	want(tell(), 30_000, &pb.ShardLoad{StreamId: clicks.Id, Shard: 2, Bytes: 4, Records: 2})
	want(tell(), 10_000)
	for range 2 { // a request and its repeat
		batch := stream.NewBatch(nil, stream.ShardID{Stream: stream.StreamID(clicks.Id), Number: 1}, [16]byte{1}, [16]byte{2}, 1)
		batch = batch.AppendRecord(stream.Record{PartitionKey: []byte("k"), Data: []byte("once")})
		stream.FinishBatch(batch, 1)
		result, err := b.Data().Append(t.Context(), &pb.AppendRequest{Batches: []*pb.ShardBatch{{
			Shard: &pb.ShardRef{StreamId: clicks.Id, Shard: 1}, Batch: batch,
		}}})
		if err != nil || result.Results[0].Error != 0 || result.Results[0].BaseOffset != 0 {
			t.Fatal(result, err)
		}
	}
	want(tell(), 10_000, &pb.ShardLoad{StreamId: clicks.Id, Shard: 1, Bytes: 5, Records: 1})
}
