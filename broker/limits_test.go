package broker

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"slices"
	"testing"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// limited opens a node that holds its shards to limits, by a clock of the test's.
func limited(t *testing.T) (b *Broker, s *pb.Stream, now *time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b, err := Open(ctx, Config{DataDir: t.TempDir(), DefaultNodeID: "test", Lone: true, JournalBudget: 64 << 20, DiskReserve: 1, ShardLimits: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBroker(t, b) })
	now = new(time.Duration)
	b.host.limits = newLimits(func() time.Duration { return *now })
	s = streamNamed(t, b, "orders", 2)
	if err := b.host.awaitServed(t.Context(), s.Id); err != nil {
		t.Fatal(err)
	}
	if !b.meta.State().Broker("test").ShardLimits {
		t.Fatal("the metadata does not say that the node has limits")
	}
	return b, s, now
}

func id16(n byte) (id [16]byte) {
	id[0] = n
	return id
}

// send appends count records of a size in one batch, again while the node has
// not yet followed the metadata.
func send(t *testing.T, b *Broker, s *pb.Stream, request, invocation byte, attempt uint16, count, size int, part bool) *pb.AppendResult {
	t.Helper()
	for {
		batch := stream.NewBatch(nil, stream.ShardID{Stream: stream.StreamID(s.Id)}, id16(request), id16(invocation), attempt)
		for i := range count {
			batch = batch.AppendRecord(stream.Record{PartitionKey: []byte("k"), Data: bytes.Repeat([]byte("d"), size-1), Ordinal: uint16(i)})
		}
		stream.FinishBatch(batch, count)
		r, err := b.Data().Append(t.Context(), &pb.AppendRequest{Batches: []*pb.ShardBatch{{
			Shard: &pb.ShardRef{StreamId: s.Id}, Batch: batch, Part: part,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if r.Results[0].Error != pb.ErrorKind_ERROR_KIND_UNAVAILABLE {
			return r.Results[0]
		}
		time.Sleep(time.Millisecond)
	}
}

func mustStore(t *testing.T, r *pb.AppendResult, base uint64) {
	t.Helper()
	if r.Error != 0 || r.BaseOffset != base {
		t.Fatalf("%v, not stored at %d", r, base)
	}
}

func mustAdmit(t *testing.T, r *pb.AppendResult, records uint32) {
	t.Helper()
	if r.Error != pb.ErrorKind_ERROR_KIND_THROTTLED || r.Admitted != records {
		t.Fatalf("%v, not %d records admitted", r, records)
	}
}

func TestWritesAreLimited(t *testing.T) {
	b, s, now := limited(t)
	mustStore(t, send(t, b, s, 1, 0, 0, 600, 10, false), 0)
	mustAdmit(t, send(t, b, s, 2, 0, 0, 500, 10, false), 400)
	mustStore(t, send(t, b, s, 2, 0, 0, 400, 10, true), 600)
	mustAdmit(t, send(t, b, s, 3, 0, 0, 1, 10, false), 0)
	if r := put(t, b, s, 1, "another shard"); r.Error != 0 {
		t.Fatal(r)
	}
	*now += time.Second
	mustStore(t, send(t, b, s, 4, 0, 0, 4, 256<<10, false), 1000)
	mustAdmit(t, send(t, b, s, 5, 0, 0, 1, 10, false), 0)
}

// TestRepeatsPassTheLimits: what is stored is answered whatever the limits say,
// and what was stored in part is stored no second time.
func TestRepeatsPassTheLimits_I22(t *testing.T) {
	b, s, now := limited(t)
	mustStore(t, send(t, b, s, 1, 0, 0, 600, 10, false), 0)
	mustAdmit(t, send(t, b, s, 2, 9, 1, 500, 10, false), 400)
	mustStore(t, send(t, b, s, 2, 9, 1, 400, 10, true), 600)
	mustStore(t, send(t, b, s, 2, 9, 1, 400, 10, true), 600) // its answer was lost
	mustStore(t, send(t, b, s, 1, 0, 0, 600, 10, false), 0)

	// The SDK tries again, as a whole, when there would be room for all.
	*now += time.Second
	mustAdmit(t, send(t, b, s, 3, 9, 2, 500, 10, false), 400)
	mustStore(t, send(t, b, s, 3, 9, 2, 400, 10, true), 600)

	// Between the leader's word and the part that it admits the SDK's next attempt comes,
	// and is admitted as a whole.
	mustStore(t, send(t, b, s, 4, 0, 0, 600, 10, false), 1000)
	mustAdmit(t, send(t, b, s, 5, 8, 1, 500, 10, false), 400)
	*now += time.Second
	mustStore(t, send(t, b, s, 6, 8, 2, 500, 10, false), 1600)
	mustStore(t, send(t, b, s, 5, 8, 1, 400, 10, true), 1600)

	awaitRole(t, b)
	*now += time.Minute
	if records, kind := readAll(t, b, s, 0); kind != 0 || len(records) != 2100 {
		t.Errorf("%d records, %v", len(records), kind)
	}
}

func TestReadsAreLimited(t *testing.T) {
	b, s, now := limited(t)
	for i, size := range []int{10 << 20, 5 << 20, 10} {
		mustStore(t, send(t, b, s, byte(i+1), 0, 0, 1, size, false), uint64(i))
		*now += time.Minute
	}
	read := func(from uint64, records uint32) pb.ErrorKind {
		t.Helper()
		r, err := b.Data().Read(t.Context(), &pb.ReadRequest{
			Shard: &pb.ShardRef{StreamId: s.Id}, Offset: from, MaxRecords: records, MaxBytes: 10 << 20,
		})
		if err != nil {
			t.Fatal(err)
		}
		return r.Error
	}
	const throttled = pb.ErrorKind_ERROR_KIND_THROTTLED
	for i := range 6 {
		if got, want := read(3, 10), i == 5; (got == throttled) != want {
			t.Fatalf("empty read %d: %v", i, got)
		}
	}
	*now += time.Minute
	for i, want := range []pb.ErrorKind{0, throttled} {
		if got := read(0, 10_000); got != want {
			t.Fatalf("read %d of 10 MiB: %v", i, got)
		}
	}
	*now += 5*time.Second - 1
	if got := read(3, 1); got != throttled {
		t.Fatalf("before five seconds are over: %v", got)
	}
	*now++
	// Of the batches that were read only what the answer holds counts.
	if got := read(1, 1); got != 0 {
		t.Fatal(got)
	}
	*now += 2500*time.Millisecond - 1
	if got := read(3, 1); got != throttled {
		t.Fatalf("before the 5 MiB are made up for: %v", got)
	}
	*now++
	if got := read(3, 1); got != 0 {
		t.Fatal(got)
	}
}

func TestIteratorsAreLimited(t *testing.T) {
	b, s, now := limited(t)
	locate := func(p pb.Position, iterator bool) pb.ErrorKind {
		t.Helper()
		r, err := b.Data().Locate(t.Context(), &pb.LocateRequest{Shard: &pb.ShardRef{StreamId: s.Id}, Position: p, Iterator: iterator})
		if err != nil {
			t.Fatal(err)
		}
		return r.Error
	}
	for i := range 6 {
		position := pb.Position_POSITION_NONE
		if i%2 == 0 {
			position = pb.Position_POSITION_LATEST
		}
		if got, want := locate(position, true), i == 5; (got == pb.ErrorKind_ERROR_KIND_THROTTLED) != want {
			t.Errorf("call %d: %v", i, got)
		}
	}
	if got := locate(pb.Position_POSITION_LATEST, false); got != 0 {
		t.Errorf("what is no GetShardIterator: %v", got)
	}
	*now += time.Second / 5
	if got := locate(pb.Position_POSITION_TRIM_HORIZON, true); got != 0 {
		t.Error(got)
	}
}

// TestSubscriptionsAreLimited: what is pushed waits, and nothing is refused.
func TestSubscriptionsAreLimited(t *testing.T) {
	b, s, now := limited(t)
	const size = 128 << 10
	for i := range 48 { // 6 MiB
		mustStore(t, send(t, b, s, byte(i+1), 0, 0, 1, size, false), uint64(i))
		*now += time.Second
	}
	subscribed := func(consumer string) *tailer {
		return startTail(t, b.Data(), s, func(r *pb.TailRequest) {
			r.MaxSilenceMs = 1
			r.Subscription = &pb.Subscription{Consumer: consumer, ConsumerCreatedS: 1, Id: make([]byte, 16)}
		})
	}
	// upTo counts the records that come until there is an event without.
	upTo := func(r *tailer) (n int) {
		for {
			e := r.event()
			if len(e.Batches) == 0 {
				return n
			}
			n += len(e.Batches)
		}
	}
	r := subscribed("a")
	// An event has up to 256 KiB, and the last one may go over the share.
	for _, want := range []int{2 << 20 / size, 0} {
		if n := upTo(r); n < want || n > want+1 {
			t.Fatalf("%d records, not %d", n, want)
		}
	}
	if n := upTo(subscribed("b")); n < 2<<20/size {
		t.Errorf("another consumer gets %d records", n)
	}
	all := startTail(t, b.Data(), s)
	all.records(48) // no subscription, no share
	total := 16
	for range 3 {
		*now += time.Second
		total += upTo(r)
	}
	if total < 47 || total > 48 {
		t.Errorf("%d records in three seconds more", total)
	}
}

// sized gives a batch of records of these sizes, and the same encrypted.
func sized(t *testing.T, base stream.Offset, sizes ...int) (plain, encrypted stream.Batch) {
	t.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithNonceSize(block, 24)
	if err != nil {
		t.Fatal(err)
	}
	id := stream.ShardID{Stream: 1}
	plain = stream.NewBatch(nil, id, [16]byte{}, [16]byte{}, 0)
	encrypted = stream.NewEncryptedBatch(nil, id, [16]byte{}, [16]byte{}, 0, 1, len(sizes))
	for _, size := range sizes {
		r := stream.Record{PartitionKey: []byte("k"), Data: bytes.Repeat([]byte("d"), size-1)}
		plain, encrypted = plain.AppendRecord(r), encrypted.AppendRecord(r)
	}
	stream.FinishBatch(plain, len(sizes))
	encrypted = encrypted.Encrypt(aead, len(sizes))
	plain.Stamp(1, base, 0)
	encrypted.Stamp(1, base, 0)
	return plain, encrypted
}

func TestBytesGiven(t *testing.T) {
	p1, e1 := sized(t, 10, 1, 2, 4)
	p2, e2 := sized(t, 13, 8, 16)
	for _, c := range []struct {
		from              stream.Offset
		records, maxBytes int
		want, encrypted   int // in shares of 2, 2, 3 and 12, 12
	}{
		{0, 100, 100, 31, 31},
		{10, 100, 100, 31, 31},
		{11, 100, 100, 30, 29},
		{13, 100, 100, 24, 24},
		{15, 100, 100, 0, 0},
		{10, 2, 100, 3, 4},
		{12, 2, 100, 12, 15},
		{10, 100, 7, 7, 7},
		{10, 100, 14, 7, 7},
		{10, 100, 15, 15, 7},
		{14, 100, 1, 16, 12},
	} {
		if got := bytesGiven([]stream.Batch{p1, p2}, c.from, c.records, c.maxBytes); got != c.want {
			t.Errorf("from %d, %d records, %d bytes: %d, want %d", c.from, c.records, c.maxBytes, got, c.want)
		}
		if got := bytesGiven([]stream.Batch{e1, e2}, c.from, c.records, c.maxBytes); got != c.encrypted {
			t.Errorf("encrypted, from %d, %d records, %d bytes: %d, want %d", c.from, c.records, c.maxBytes, got, c.encrypted)
		}
	}
}

func TestSizesOfEncryptedRecords(t *testing.T) {
	plain, encrypted := sized(t, 0, 1, 2, 4)
	for _, c := range []struct {
		b    stream.Batch
		told []uint32
		want []int // nil: refused
	}{
		{plain, nil, []int{1, 2, 4}},
		{plain, []uint32{9}, []int{1, 2, 4}},
		{encrypted, []uint32{1, 2, 4}, []int{1, 2, 4}},
		{encrypted, nil, []int{2, 2, 3}},
		{encrypted, []uint32{1, 2, 3}, nil},
		{encrypted, []uint32{3, 4}, nil},
	} {
		sizes, err := recordSizes(c.b, c.told)
		if c.want == nil {
			if !errors.Is(err, stream.Invalid) {
				t.Errorf("told %v: %v", c.told, err)
			}
			continue
		}
		if got := slices.Collect(sizes); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("told %v: %v, %v", c.told, got, err)
		}
	}
}
