package raftfsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// A snapshot of the state is a stream of length-delimited SnapshotChunks and
// a checksum:
//
//	header          format version, raft index, ClusterInfo (absent before InitCluster)
//	brokers         by node id
//	stream, shards  each stream by id, behind it its shards by number
//	end             how many there were of each
//	CRC32C          4 bytes, big-endian, over everything before
//
// The same state always gives the same bytes.

const maxChunk = 16 << 20 // bytes; a stream's or shard's message is far smaller

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteSnapshot writes the state to w.
func (s *State) WriteSnapshot(w io.Writer) error {
	sum := crc32.New(castagnoli)
	buffered := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	opts := protodelim.MarshalOptions{MarshalOptions: proto.MarshalOptions{Deterministic: true}}
	put := func(c *pb.SnapshotChunk) error {
		_, err := opts.MarshalTo(buffered, c)
		return err
	}
	var end pb.SnapshotEnd
	err := put(&pb.SnapshotChunk{Part: &pb.SnapshotChunk_Header{Header: &pb.SnapshotHeader{
		FormatVersion: FormatVersion, Cluster: s.cluster, Index: s.index,
	}}})
	for _, b := range s.brokers {
		end.Brokers++
		err = errors.Join(err, put(&pb.SnapshotChunk{Part: &pb.SnapshotChunk_Broker{Broker: b}}))
	}
	for _, e := range s.byID() {
		end.Streams++
		err = errors.Join(err, put(&pb.SnapshotChunk{Part: &pb.SnapshotChunk_Stream{Stream: e.stream}}))
		for _, sh := range e.shards {
			end.Shards++
			err = errors.Join(err, put(&pb.SnapshotChunk{Part: &pb.SnapshotChunk_Shard{Shard: sh}}))
		}
		if err != nil {
			return err
		}
	}
	err = errors.Join(err, put(&pb.SnapshotChunk{Part: &pb.SnapshotChunk_End{End: &end}}), buffered.Flush())
	if err != nil {
		return err
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

func (s *State) byID() []*entry {
	var all []*entry
	s.each(func(e *entry) { all = append(all, e) })
	slices.SortFunc(all, func(a, b *entry) int {
		if a.stream.GetId() < b.stream.GetId() {
			return -1
		}
		return 1
	})
	return all
}

// ReadSnapshot reads what WriteSnapshot wrote. It fails with Kind Corrupt for
// anything else, and with Kind Invalid for a format newer than FormatVersion.
func ReadSnapshot(r io.Reader) (*State, error) {
	const op = "raftfsm.ReadSnapshot"
	in := &sumReader{r: bufio.NewReaderSize(r, 64<<10), sum: crc32.New(castagnoli)}
	l := loader{state: NewState()}
	for !l.done {
		chunk := new(pb.SnapshotChunk)
		if err := (protodelim.UnmarshalOptions{MaxSize: maxChunk}).UnmarshalFrom(in, chunk); err != nil {
			return nil, stream.Errorf(stream.Corrupt, op, "chunk %d: %w", l.chunks, noEOF(err))
		}
		if h := chunk.GetHeader(); l.chunks == 0 && h.GetFormatVersion() > FormatVersion {
			return nil, stream.Errorf(stream.Invalid, op, "metadata snapshot has format %d, this program reads up to %d",
				h.GetFormatVersion(), FormatVersion)
		}
		if !l.add(chunk) {
			return nil, stream.Errorf(stream.Corrupt, op, "chunk %d does not fit the ones before", l.chunks)
		}
		l.chunks++
	}
	want := in.sum.Sum32()
	var got [4]byte
	if _, err := io.ReadFull(in.r, got[:]); err != nil {
		return nil, stream.Errorf(stream.Corrupt, op, "checksum: %w", noEOF(err))
	}
	if binary.BigEndian.Uint32(got[:]) != want {
		return nil, stream.Errorf(stream.Corrupt, op, "checksum does not match")
	}
	if _, err := in.r.ReadByte(); err != io.EOF {
		return nil, stream.Errorf(stream.Corrupt, op, "something follows the checksum: %w", err)
	}
	l.finish()
	return l.state, nil
}

// loader builds a state from chunks, in the order in which they are written.
type loader struct {
	state  *State
	last   *entry // that the next shard belongs to
	chunks int
	end    pb.SnapshotEnd
	done   bool
	names  *iradix.Txn
}

// add takes the next chunk; false if it cannot stand here.
func (l *loader) add(c *pb.SnapshotChunk) bool {
	s := l.state
	switch part := c.GetPart().(type) {
	case *pb.SnapshotChunk_Header:
		s.cluster, s.index = part.Header.GetCluster(), part.Header.GetIndex()
		l.names = s.names.Txn()
		return l.chunks == 0 && part.Header.GetFormatVersion() != 0
	case *pb.SnapshotChunk_Broker:
		b := part.Broker
		ordered := len(s.brokers) == 0 || s.brokers[len(s.brokers)-1].GetNodeId() < b.GetNodeId()
		s.brokers = append(s.brokers, b)
		l.end.Brokers++
		return l.chunks > 0 && l.last == nil && ordered
	case *pb.SnapshotChunk_Stream:
		id := part.Stream.GetId()
		if l.chunks == 0 || l.last != nil && l.last.stream.GetId() >= id {
			return false
		}
		l.last = &entry{stream: part.Stream}
		s.table[id%buckets] = append(s.table[id%buckets], l.last)
		_, taken := l.names.Insert([]byte(part.Stream.GetName()), id)
		l.end.Streams++
		return !taken
	case *pb.SnapshotChunk_Shard:
		sh := part.Shard
		if l.last == nil || sh.GetStreamId() != l.last.stream.GetId() || int(sh.GetNumber()) != len(l.last.shards) {
			return false
		}
		l.last.shards = append(l.last.shards, sh)
		l.end.Shards++
		return true
	case *pb.SnapshotChunk_End:
		l.done = true
		return l.chunks > 0 && part.End.GetStreams() == l.end.Streams &&
			part.End.GetShards() == l.end.Shards && part.End.GetBrokers() == l.end.Brokers
	}
	return false
}

func (l *loader) finish() {
	l.state.names = l.names.Commit()
	l.state.each(func(e *entry) {
		e.shards = slices.Clip(e.shards)
		e.open = countOpen(e.stream, e.shards)
		l.state.open += e.open
	})
}

// sumReader sums exactly what its reader took, however much is buffered below.
type sumReader struct {
	r   *bufio.Reader
	sum hash.Hash32
}

func (s *sumReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	return n, err
}

func (s *sumReader) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum.Write([]byte{b})
	}
	return b, err
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
