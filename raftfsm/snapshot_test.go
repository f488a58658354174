package raftfsm

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func smallWorld(tb testing.TB) *world {
	w := newWorld(tb, "a", "b")
	w.active("s", 3, "a", "b")
	w.must(tag(1, 9, "k", "l", "m"))
	w.must(create("t", 1, "b"))
	w.must(suspect("a", 1, w.refs(1, "a")[0]))
	w.must(acceptLoss(&pb.LostRange{Replica: w.refs(1, "a")[0], End: 3, Reason: "r"}))
	w.must(w.placed(merge(1, 1, 2), "a"))
	w.createdAll(1)
	w.must(sealParents(1))
	w.sealOne(1, 1)
	return w
}

func TestSnapshotRestores(t *testing.T) {
	for name, s := range map[string]*State{"empty": NewState(), "small": smallWorld(t).s} {
		data := encode(t, s)
		got, err := ReadSnapshot(iotest.OneByteReader(bytes.NewReader(data)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.Index() != s.Index() || got.OpenShards() != s.OpenShards() || !bytes.Equal(encode(t, got), data) {
			t.Errorf("%s: got another state", name)
		}
	}
}

func TestSnapshotNewerFormat(t *testing.T) {
	var buf bytes.Buffer
	_, err := protodelim.MarshalTo(&buf, &pb.SnapshotChunk{Part: &pb.SnapshotChunk_Header{Header: &pb.SnapshotHeader{FormatVersion: FormatVersion + 1}}})
	if err != nil {
		t.Fatal(err)
	}
	buf.WriteString("whatever the future writes")
	_, err = ReadSnapshot(&buf)
	if stream.KindOf(err) != stream.Invalid || !strings.Contains(err.Error(), "format 2") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

func TestSnapshotDamage(t *testing.T) {
	data := encode(t, smallWorld(t).s)
	for i := range data {
		for bit := range 8 {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << bit
			if _, err := ReadSnapshot(bytes.NewReader(bad)); err == nil {
				t.Fatalf("bit %d of byte %d was flipped and nobody noticed", bit, i)
			}
		}
		if _, err := ReadSnapshot(bytes.NewReader(data[:i])); stream.KindOf(err) != stream.Corrupt {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := ReadSnapshot(bytes.NewReader(append(data, 0))); stream.KindOf(err) != stream.Corrupt {
		t.Errorf("a byte more: %v", err)
	}
}

func TestSnapshotWriteFails(t *testing.T) {
	s := smallWorld(t).s
	size := len(encode(t, s))
	for n := range size {
		if err := s.WriteSnapshot(&fullWriter{left: n}); err == nil {
			t.Fatalf("no error with room for %d of %d bytes", n, size)
		}
	}
}

type fullWriter struct{ left int }

func (w *fullWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return w.left, io.ErrShortWrite
	}
	w.left -= len(p)
	return len(p), nil
}

func FuzzReadSnapshot(f *testing.F) {
	data := encode(f, smallWorld(f).s)
	f.Add(data)
	f.Add(encode(f, NewState()))
	f.Add(data[:len(data)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadSnapshot(bytes.NewReader(data))
		if err != nil {
			if k := stream.KindOf(err); k != stream.Corrupt && k != stream.Invalid {
				t.Fatal(err)
			}
			return
		}
		again, err := ReadSnapshot(bytes.NewReader(encode(t, s)))
		if err != nil || !bytes.Equal(encode(t, again), encode(t, s)) {
			t.Fatalf("what was read cannot be written and read: %v", err)
		}
	})
}

// Whatever bytes are in the raft log, they are refused or applied, and give
// the same each time.
func FuzzCommand(f *testing.F) {
	for _, c := range []*pb.Command{
		initCmd(nil), register("a", "d"), create("x", 2, "a"), created("a", 1), activate(2), deleteName("s", 1), remove(1),
		retention(1, 48, true), tag(1, 3, "q"), untag(1, "k"), suspect("a", 1), acceptLoss(&pb.LostRange{Replica: &pb.ReplicaRef{StreamId: 1, ReplicaId: 1}}),
		sealParents(1), seals("a", 1, &pb.Seal{StreamId: 1, Shard: 2, Epoch: 2, Version: 5, FinalOffset: 3}), expire(1, 1), drain("a"), undrain("a"),
		removeBroker("b", true),
		{Op: &pb.Command_Reshard{Reshard: count(1, 2)}},
		{Op: &pb.Command_Reshard{Reshard: split(1, 0, stream.HashKey{Hi: 9})}},
	} {
		data, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	s := smallWorld(f).s
	before := encode(f, s)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeCommand(data)
		if err != nil {
			if stream.KindOf(err) != stream.Corrupt {
				t.Fatal(err)
			}
			return
		}
		one, res := s.Apply(100, c)
		two, res2 := s.Apply(100, c)
		if res.String() != res2.String() || !bytes.Equal(encode(t, one), encode(t, two)) {
			t.Fatal("two outcomes")
		}
		if !bytes.Equal(encode(t, s), before) {
			t.Fatal("the state was changed")
		}
	})
}

// A snapshot of a single node, written before there were clusters, restores,
// and its stream that was being made then becomes ACTIVE.
func TestSnapshotOfSingleNodeRestores(t *testing.T) {
	data, err := os.ReadFile("testdata/single-node.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadSnapshot(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Brokers()) != 2 || len(s.Streams()) != 2 || !bytes.Equal(encode(t, s), data) {
		t.Errorf("brokers %v, streams %v", s.Brokers(), s.Streams())
	}
	w := &world{tb: t, s: s, index: s.Index(), now: 9000}
	w.looks(1, "a b*")
	w.must(rejoin("a", "disk-a", 0))
	w.must(rejoin("b", "disk-b", 0))
	w.looks(1, "a* b")
	id := s.StreamByName("t").GetId()
	w.refuses(stream.WrongState, activate(id))
	w.createdAll(id)
	w.looks(id, "b*")
	w.must(activate(id))
}

// So does one of a cluster without resharding, and its streams can be resharded.
func TestSnapshotOfClusterRestores(t *testing.T) {
	data, err := os.ReadFile("testdata/cluster.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadSnapshot(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Brokers()) != 3 || len(s.Streams()) != 2 || s.OpenShards() != 3 || !bytes.Equal(encode(t, s), data) {
		t.Errorf("brokers %v, streams %v", s.Brokers(), s.Streams())
	}
	w := &world{tb: t, s: s, index: s.Index(), now: 9000}
	w.must(unfence("a", 1))
	w.must(rejoin("c", "disk-c", 1))
	id := s.StreamByName("s").GetId()
	w.resharded(count(id, 3), "a", "b", "c")
	if got := w.tree(id); got != "0 closed; 1 closed; 2<0 open; 3<0 closed; 4<1 closed; 5<1 open; 6<3,4 open" {
		t.Error(got)
	}
	again, err := ReadSnapshot(bytes.NewReader(encode(t, w.s)))
	if err != nil || again.OpenShards() != w.s.OpenShards() || !bytes.Equal(encode(t, again), encode(t, w.s)) {
		t.Errorf("after the reshard: %v", err)
	}
}
