package gateway

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"google.golang.org/grpc"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// thinData answers at once, so that what a benchmark shows is the gateway's own.
type thinData struct {
	pb.DataClient
	read *pb.ReadResponse
}

func (d thinData) Append(_ context.Context, in *pb.AppendRequest, _ ...grpc.CallOption) (*pb.AppendResponse, error) {
	out := &pb.AppendResponse{Results: make([]*pb.AppendResult, len(in.Batches))}
	for i := range out.Results {
		out.Results[i] = &pb.AppendResult{ArrivalMs: 1795507200000}
	}
	return out, nil
}

func (d thinData) Read(context.Context, *pb.ReadRequest, ...grpc.CallOption) (*pb.ReadResponse, error) {
	return d.read, nil
}

func (d thinData) Locate(context.Context, *pb.LocateRequest, ...grpc.CallOption) (*pb.LocateResponse, error) {
	return &pb.LocateResponse{}, nil
}

// BenchmarkServe serves calls below HTTP and above the brokers.
func BenchmarkServe(b *testing.B) {
	batch := stream.NewBatch(nil, stream.ShardID{Stream: 1}, [16]byte{}, [16]byte{}, 0)
	for range 100 {
		batch = batch.AppendRecord(stream.Record{PartitionKey: []byte("key"), Data: make([]byte, 100)})
	}
	stream.FinishBatch(batch, 100)
	batch.Stamp(1, 0, 1795507200000)
	thin := thinData{read: &pb.ReadResponse{Batches: [][]byte{batch}, HighWatermark: 100, LastArrivalMs: 1795507200000}}
	e := newEnv(b, func(c *Config, _ *fakeBroker) {
		c.Data = func(string, string) (pb.DataClient, error) { return thin, nil }
	})
	e.create("s", 4)
	records := make([]m, 100)
	for i := range records {
		records[i] = m{"PartitionKey": string(rune('a' + i%26)), "Data": make([]byte, 100)}
	}
	for _, c := range []struct {
		op kinesis.Op
		in m
	}{
		{kinesis.PutRecord, m{"StreamName": "s", "PartitionKey": "k", "Data": make([]byte, 100)}},
		{kinesis.PutRecords, m{"StreamName": "s", "Records": records}},
		{kinesis.GetRecords, m{"ShardIterator": e.iterator("s", "shardId-000000000000", "TRIM_HORIZON", nil)}},
	} {
		body, err := json.Marshal(c.in)
		if err != nil {
			b.Fatal(err)
		}
		header := httpFields{e.request("Kinesis_20131202."+string(c.op), "application/x-amz-json-1.1", nil)}
		b.Run(string(c.op), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call := &call{g: e.g, parent: b.Context(), body: body, header: header, id: newRequestID()}
				if a := call.serve(time.Now()); a.status != 200 {
					b.Fatalf("%s", a.body)
				}
				call.release()
			}
		})
	}
}
