package raftfsm

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"shardstream/stream"
)

// snapStore keeps raft's snapshots, one file each in a directory:
//
//	magic "SHSNAP01" | n u32 | n bytes of JSON: raft's own facts (meta) | CRC32C u32 over these
//	the snapshot, as raft sends it to other nodes
//	CRC32C u32 over everything before
//
// Numbers are big-endian. It stands in for raft.FileSnapshotStore, whose index,
// term and configuration have no checksum, and which passes over a damaged
// snapshot to an older one. Here a file with damage is an error that names it.
type snapStore struct {
	dir   string
	fatal func(error) // told of each error of a write, and of damage (I15)
}

var _ raft.SnapshotStore = (*snapStore)(nil)

const (
	snapMagic  = "SHSNAP01"
	snapSuffix = ".snap"
	tmpSuffix  = ".tmp"
	snapRetain = 2
	maxMeta    = 1 << 20 // bytes
)

// snapMeta is the JSON of the header.
type snapMeta struct {
	Version            raft.SnapshotVersion
	Index, Term        uint64
	Configuration      raft.Configuration
	ConfigurationIndex uint64
}

// openSnapStore opens the directory, creating it if there is none, removes
// what a crash left half written, and verifies every snapshot whole.
func openSnapStore(dir string, fatal func(error)) (*snapStore, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &snapStore{dir: dir, fatal: fatal}
	names, err := s.names(tmpSuffix)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	if names, err = s.names(snapSuffix); err != nil {
		return nil, err
	}
	for _, name := range names {
		f, err := s.open(name)
		if err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// names gives the files with the suffix, the newest snapshot first.
func (s *snapStore) names(suffix string) ([]string, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		if strings.HasSuffix(f.Name(), suffix) {
			names = append(names, f.Name())
		}
	}
	slices.Reverse(names)
	return names, nil
}

// snapName sorts by term and then index.
func snapName(term, index uint64) string {
	return fmt.Sprintf("%016x-%016x%s", term, index, snapSuffix)
}

// List gives the snapshots, the newest first.
func (s *snapStore) List() ([]*raft.SnapshotMeta, error) {
	names, err := s.names(snapSuffix)
	if err != nil {
		return nil, err
	}
	var metas []*raft.SnapshotMeta
	for _, name := range names {
		f, err := os.Open(filepath.Join(s.dir, name))
		if err != nil {
			return nil, err
		}
		meta, _, err := readSnapHead(f, name)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		metas = append(metas, meta)
	}
	return metas, nil
}

// Open verifies a snapshot from end to end and gives its contents.
func (s *snapStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	f, err := s.open(id)
	if err != nil {
		s.fatal(err)
		return nil, nil, err
	}
	return f.meta, f, nil
}

// snapFile reads the contents of a verified snapshot.
type snapFile struct {
	io.Reader
	*os.File
	meta *raft.SnapshotMeta
}

func (f *snapFile) Read(p []byte) (int, error) { return f.Reader.Read(p) }

func (s *snapStore) open(id string) (_ *snapFile, err error) {
	path := filepath.Join(s.dir, id)
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	meta, head, err := readSnapHead(file, id)
	if err != nil {
		return nil, err
	}
	if want := snapName(meta.Term, meta.Index); id != want {
		return nil, damaged(path, "it holds the snapshot %s", want)
	}
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, head+meta.Size)); err != nil {
		return nil, err
	}
	var want [4]byte
	if _, err := file.ReadAt(want[:], head+meta.Size); err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(want[:]) != sum.Sum32() {
		return nil, damaged(path, "it fails its checksum")
	}
	body := io.NewSectionReader(file, head, meta.Size)
	return &snapFile{Reader: bufio.NewReader(body), File: file, meta: meta}, nil
}

// readSnapHead gives raft's facts and the header's size in bytes.
func readSnapHead(f *os.File, id string) (*raft.SnapshotMeta, int64, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	start := make([]byte, len(snapMagic)+4)
	if _, err := io.ReadFull(f, start); err != nil {
		return nil, 0, damaged(f.Name(), "header: %w", noEOF(err))
	}
	n := binary.BigEndian.Uint32(start[len(snapMagic):])
	if string(start[:len(snapMagic)]) != snapMagic || n > maxMeta {
		return nil, 0, damaged(f.Name(), "it does not begin like a snapshot")
	}
	rest := make([]byte, n+4)
	if _, err := io.ReadFull(f, rest); err != nil {
		return nil, 0, damaged(f.Name(), "header: %w", noEOF(err))
	}
	text := rest[:n]
	if crc32.Update(crc32.Checksum(start, castagnoli), castagnoli, text) != binary.BigEndian.Uint32(rest[n:]) {
		return nil, 0, damaged(f.Name(), "its header fails its checksum")
	}
	var m snapMeta
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, 0, damaged(f.Name(), "header: %w", err)
	}
	head := int64(len(start) + len(rest))
	size := info.Size() - head - 4
	if size < 0 {
		return nil, 0, damaged(f.Name(), "it is too short")
	}
	return &raft.SnapshotMeta{
		Version: m.Version, ID: id, Index: m.Index, Term: m.Term,
		Configuration: m.Configuration, ConfigurationIndex: m.ConfigurationIndex, Size: size,
	}, head, nil
}

// Create begins a snapshot. Nothing is seen of it until its sink is closed.
func (s *snapStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	text, err := json.Marshal(snapMeta{version, index, term, configuration, configurationIndex})
	if err != nil {
		return nil, err
	}
	id := snapName(term, index)
	f, err := os.OpenFile(filepath.Join(s.dir, id+tmpSuffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, s.fail(err)
	}
	k := &snapSink{store: s, id: id, file: f, sum: crc32.New(castagnoli)}
	k.out = bufio.NewWriterSize(io.MultiWriter(f, k.sum), 64<<10)
	head := binary.BigEndian.AppendUint32([]byte(snapMagic), uint32(len(text)))
	head = append(head, text...)
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
	if _, err := k.Write(head); err != nil {
		return nil, errors.Join(err, k.Cancel())
	}
	return k, nil
}

func (s *snapStore) fail(err error) error {
	err = stream.Errorf(stream.Internal, "raftfsm", "snapshot: %w", err)
	s.fatal(err)
	return err
}

// snapSink is a snapshot being written.
type snapSink struct {
	store *snapStore
	id    string
	file  *os.File
	sum   hash.Hash32
	out   *bufio.Writer
	done  bool
}

// ID names the snapshot for Open.
func (k *snapSink) ID() string { return k.id }

// Write appends to the contents.
func (k *snapSink) Write(p []byte) (int, error) {
	n, err := k.out.Write(p)
	if err != nil {
		return n, k.store.fail(err)
	}
	return n, nil
}

// Close makes the snapshot durable and visible, and removes older ones.
func (k *snapSink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	err := k.out.Flush()
	if err == nil {
		_, err = k.file.Write(binary.BigEndian.AppendUint32(nil, k.sum.Sum32()))
	}
	if err == nil {
		err = k.file.Sync()
	}
	if err := errors.Join(err, k.file.Close()); err != nil {
		return k.store.fail(err)
	}
	path := filepath.Join(k.store.dir, k.id)
	if err := os.Rename(path+tmpSuffix, path); err != nil {
		return k.store.fail(err)
	}
	if err := syncDir(k.store.dir); err != nil {
		return k.store.fail(err)
	}
	names, err := k.store.names(snapSuffix)
	for i := snapRetain; err == nil && i < len(names); i++ {
		err = os.Remove(filepath.Join(k.store.dir, names[i]))
	}
	if err != nil {
		return k.store.fail(err)
	}
	return nil
}

// Cancel drops the snapshot.
func (k *snapSink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	return errors.Join(k.file.Close(), os.Remove(k.file.Name()))
}
