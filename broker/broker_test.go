package broker

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *Broker {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b, err := Open(ctx, Config{DataDir: dir, DefaultNodeID: "test", Lone: true, JournalBudget: 64 << 20, DiskReserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func closeBroker(t *testing.T, b *Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func streamNamed(t *testing.T, b *Broker, name string, shards uint32) *pb.Stream {
	t.Helper()
	if err := b.EnsureStream(t.Context(), name, shards); err != nil {
		t.Fatal(err)
	}
	return b.meta.State().StreamByName(name)
}

// put appends as a gateway does: again while the node has not yet followed the
// metadata.
func put(t *testing.T, b *Broker, s *pb.Stream, shard uint32, data ...string) *pb.AppendResult {
	t.Helper()
	for {
		batch := stream.NewBatch(nil, stream.ShardID{Stream: stream.StreamID(s.Id), Number: shard}, [16]byte{}, [16]byte{}, 0)
		for i, d := range data {
			batch = batch.AppendRecord(stream.Record{PartitionKey: []byte("k"), Data: []byte(d), Ordinal: uint16(i)})
		}
		stream.FinishBatch(batch, len(data))
		r, err := b.Data().Append(t.Context(), &pb.AppendRequest{Batches: []*pb.ShardBatch{{
			Shard: &pb.ShardRef{StreamId: s.Id, Shard: shard}, Batch: batch,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if kind := stream.Kind(r.Results[0].Error); kind != stream.Unavailable && kind != stream.NotLeader {
			return r.Results[0]
		}
		time.Sleep(time.Millisecond)
	}
}

// awaitRole waits until the node leads all that the metadata gives it.
func awaitRole(t *testing.T, b *Broker) {
	t.Helper()
	if err := b.host.awaitLeading(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, b *Broker, s *pb.Stream, shard uint32) (found []string, err pb.ErrorKind) {
	t.Helper()
	awaitRole(t, b)
	r, rpcErr := b.Data().Read(t.Context(), &pb.ReadRequest{
		Shard: &pb.ShardRef{StreamId: s.Id, Shard: shard}, MaxRecords: 10_000, MaxBytes: 10 << 20,
	})
	if rpcErr != nil {
		t.Fatal(rpcErr)
	}
	for _, raw := range r.Batches {
		batch, err := stream.CheckBatch(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range batch.Records() {
			found = append(found, string(rec.Data))
		}
	}
	return found, r.Error
}

func TestRecordsAndStreamsSurviveARestart_I1(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	s := streamNamed(t, b, "orders", 3)
	for i := range 10 {
		if r := put(t, b, s, uint32(i%3), fmt.Sprint(i), fmt.Sprint(i, "b")); r.Error != 0 {
			t.Fatal(r)
		}
	}
	epoch := b.meta.State().Shard(s.Id, 0).Epoch
	closeBroker(t, b)

	b = open(t, dir)
	defer closeBroker(t, b)
	if now := b.meta.State().Shard(s.Id, 0).Epoch; now <= epoch {
		t.Fatalf("I4: epoch %d after a restart, %d before", now, epoch)
	}
	for shard := range uint32(3) {
		var want []string
		for i := int(shard); i < 10; i += 3 {
			want = append(want, fmt.Sprint(i), fmt.Sprint(i, "b"))
		}
		if got, _ := readAll(t, b, s, shard); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("shard %d: %v, want %v", shard, got, want)
		}
	}
	if r := put(t, b, s, 0, "after"); r.Error != 0 || r.BaseOffset != 8 {
		t.Fatal(r)
	}
}

func TestUnknownShardIsNotFound(t *testing.T) {
	b := open(t, t.TempDir())
	defer closeBroker(t, b)
	if r := put(t, b, &pb.Stream{Id: 99}, 0, "x"); stream.Kind(r.Error) != stream.NotFound {
		t.Fatal(r)
	}
}

func TestDeletedStreamFreesItsDiskAndItsName(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	defer closeBroker(t, b)
	s := streamNamed(t, b, "gone", 1)
	put(t, b, s, 0, "x")
	if _, err := b.Cluster().Propose(t.Context(), &pb.ProposeRequest{Command: &pb.Command{
		Op: &pb.Command_DeleteStream{DeleteStream: &pb.DeleteStream{Name: "gone"}},
	}}); err != nil {
		t.Fatal(err)
	}
	for {
		state, changed := b.meta.Watch()
		if state.StreamByName("gone") == nil {
			break
		}
		<-changed
	}
	if n := len(b.records.Replicas()); n != 0 {
		t.Fatalf("%d replicas are still on disk", n)
	}
	again := streamNamed(t, b, "gone", 1)
	if again.Id == s.Id {
		t.Fatal("a stream id was used twice")
	}
	if got, _ := readAll(t, b, again, 0); len(got) != 0 {
		t.Fatalf("the new stream shows %v of the old one", got)
	}
}

func TestOutsideCallersCannotProposeBrokersCommands(t *testing.T) {
	b := open(t, t.TempDir())
	defer closeBroker(t, b)
	_, err := b.Cluster().Propose(t.Context(), &pb.ProposeRequest{Command: &pb.Command{
		Op: &pb.Command_AcceptLoss{AcceptLoss: &pb.AcceptLoss{}},
	}})
	if err == nil {
		t.Fatal("taken")
	}
}

// Damage in the journal takes the shard offline with the range named, and an
// operator's word brings it back without the lost range (I13, I14).
func TestDamagedShardIsOfflineUntilItsLossIsAccepted_I13(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	s := streamNamed(t, b, "hurt", 2)
	for i := range 5 {
		put(t, b, s, 0, fmt.Sprintf("value-%d", i))
		put(t, b, s, 1, fmt.Sprintf("other-%d", i))
	}
	closeBroker(t, b)
	flip(t, dir, "value-2")

	b = open(t, dir)
	if _, kind := readAll(t, b, s, 0); stream.Kind(kind) != stream.Offline {
		t.Fatalf("the damaged shard answers %v", stream.Kind(kind))
	}
	if got, kind := readAll(t, b, s, 1); kind != 0 || len(got) != 5 {
		t.Fatalf("the undamaged shard: %v, %v", got, kind)
	}
	listed, err := b.Cluster().ListDamage(t.Context(), &pb.ListDamageRequest{})
	if err != nil || len(listed.Damage) != 1 || listed.Damage[0].StreamName != "hurt" || listed.Damage[0].Start != 2 || listed.Damage[0].End != 3 {
		t.Fatal(listed, err)
	}
	if _, err := b.Cluster().AcceptDamage(t.Context(), &pb.AcceptDamageRequest{By: "test", Damage: listed.Damage}); err != nil {
		t.Fatal(err)
	}
	want := "[value-0 value-1 value-3 value-4]"
	for {
		_, changed := b.meta.Watch()
		got, kind := readAll(t, b, s, 0)
		if kind == 0 {
			if fmt.Sprint(got) != want {
				t.Fatal(got)
			}
			break
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond): // the host acts after the state has changed
		}
	}
	if r := put(t, b, s, 0, "new"); r.Error != 0 || r.BaseOffset != 5 {
		t.Fatal(r)
	}
	closeBroker(t, b)
	b = open(t, dir)
	defer closeBroker(t, b)
	if got, kind := readAll(t, b, s, 0); kind != 0 || fmt.Sprint(got) != "[value-0 value-1 value-3 value-4 new]" {
		t.Fatal(got, kind)
	}
	if len(b.meta.State().Shard(s.Id, 0).Recoveries) != 1 {
		t.Fatal("no record of the accepted loss")
	}
}

// TestEncryptedBatches_I22: the broker stores and gives them as they are, and
// knows a repeat in other bytes.
func TestEncryptedBatches_I22(t *testing.T) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithNonceSize(block, 24)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := open(t, dir)
	s := streamNamed(t, b, "hidden", 1)
	put(t, b, s, 0, "plain")
	shard := &pb.ShardRef{StreamId: s.Id}
	request := [16]byte{1}
	send := func() *pb.AppendResult {
		batch := stream.NewEncryptedBatch(nil, shardOf(shard), request, [16]byte{}, 0, 3, 2)
		for i := range 2 {
			batch = batch.AppendRecord(stream.Record{PartitionKey: []byte("k"), Data: []byte("secret"), Ordinal: uint16(7 + i)})
		}
		r, err := b.Data().Append(t.Context(), &pb.AppendRequest{Batches: []*pb.ShardBatch{{
			Shard: shard, Batch: batch.Encrypt(aead, 2), Repeat: true,
		}}})
		if err != nil || r.Results[0].Error != 0 {
			t.Fatal(r, err)
		}
		return r.Results[0]
	}
	for range 2 {
		if r := send(); r.BaseOffset != 1 {
			t.Fatalf("stored at %d", r.BaseOffset)
		}
	}
	closeBroker(t, b)
	b = open(t, dir)
	defer closeBroker(t, b)
	awaitRole(t, b)
	for {
		found, err := b.Data().FindRepeat(t.Context(), &pb.FindRepeatRequest{Shard: shard, RequestId: request[:], InvocationId: make([]byte, 16)})
		if err != nil {
			t.Fatal(err)
		}
		if stream.Kind(found.Error) == stream.Unavailable { // it is reading back what it knew
			time.Sleep(time.Millisecond)
			continue
		}
		if found.BaseOffset != 1 || fmt.Sprint(found.Ordinals) != "[7 8]" {
			t.Fatal(found)
		}
		break
	}
	r, err := b.Data().Read(t.Context(), &pb.ReadRequest{Shard: shard, Offset: 1, MaxRecords: 10, MaxBytes: 1 << 20})
	if err != nil || len(r.Batches) != 1 || bytes.Contains(r.Batches[0], []byte("secret")) {
		t.Fatal(r, err)
	}
	batch, err := stream.CheckBatch(r.Batches[0])
	if err != nil {
		t.Fatal(err)
	}
	plain, err := batch.Decrypt(nil, aead)
	if err != nil {
		t.Fatal(err)
	}
	for o, record := range plain.Records() {
		if string(record.Data) != "secret" || int(record.Ordinal) != 6+int(o) {
			t.Errorf("at %d: %+v", o, record)
		}
	}
}

// flip changes one bit of the only place in the journal that holds the text.
func flip(t *testing.T, dir, text string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "journal", "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(content) - len(text) {
			if string(content[i:i+len(text)]) == text {
				content[i] ^= 1
				if err := os.WriteFile(path, content, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
	}
	t.Fatalf("%q is not in the journal", text)
}
