package recordlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"

	"shardstream/stream"
)

// The manifest is the one truth about which replicas exist, what they have
// adopted and lost, which segments are theirs and how far those are synced,
// and from which journal file on recovery has to read. A checkpoint replaces
// it as a whole. It is kept twice, for one flipped bit must not stop a node:
//
//	magic "SSM1", version, length of the file 8, CRC32C of all but itself, then
//	journal uuid 16, first file 8, number of its first frame 8, replicas 4,
//	and each replica (see putReplica)
const (
	manifestMagic  = 0x314d5353 // "SSM1"
	manifestHeader = 20
)

var manifestNames = [2]string{"MANIFEST", "MANIFEST.copy"}

type manifest struct {
	uuid       [16]byte
	firstFile  uint64
	firstFrame uint64
	replicas   []replicaMeta
}

// replicaMeta is what the manifest says of a replica.
type replicaMeta struct {
	key     stream.ReplicaKey
	epoch   stream.Epoch
	start   stream.Offset
	flushed stream.Offset // the journal has what lies from here on
	end     stream.Offset
	startMs int64
	lastMs  int64
	hw      stream.Offset // a hint
	lastCut uint64        // journal frame of the last cut or restart that all this reflects
	epochs  []EpochStart
	holes   []stream.OffsetRange
	damage  []Damage
	segs    []segment
}

type encoder struct{ b []byte }

func (e *encoder) u32(v uint32) { e.b = binary.LittleEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, v) }
func (e *encoder) text(s string) {
	e.u32(uint32(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) putRange(r stream.OffsetRange) {
	e.u64(uint64(r.Start))
	e.u64(uint64(r.End))
}

func (e *encoder) putReplica(m *replicaMeta) {
	e.u64(uint64(m.key.Shard.Stream))
	e.u32(m.key.Shard.Number)
	e.u64(uint64(m.key.Replica))
	e.u32(uint32(m.epoch))
	e.u64(uint64(m.start))
	e.u64(uint64(m.flushed))
	e.u64(uint64(m.end))
	e.u64(uint64(m.startMs))
	e.u64(uint64(m.lastMs))
	e.u64(uint64(m.hw))
	e.u64(m.lastCut)
	e.u32(uint32(len(m.epochs)))
	e.u32(uint32(len(m.holes)))
	e.u32(uint32(len(m.damage)))
	e.u32(uint32(len(m.segs)))
	for _, s := range m.epochs {
		e.u32(uint32(s.Epoch))
		e.u64(uint64(s.First))
	}
	for _, h := range m.holes {
		e.putRange(h)
	}
	for i := range m.damage {
		d := &m.damage[i]
		e.putRange(d.Range)
		e.u64(uint64(d.Pos))
		e.u64(uint64(d.AfterMs))
		e.u64(uint64(d.BeforeMs))
		e.text(d.File)
		e.text(d.Reason)
	}
	for _, s := range m.segs {
		e.u64(uint64(s.base))
		e.u64(uint64(s.end))
		e.u64(uint64(s.bytes))
		e.u64(uint64(s.firstMs))
		e.u64(uint64(s.lastMs))
		e.u64(uint64(s.created))
		sealed := uint32(0)
		if s.sealed {
			sealed = 1
		}
		e.u32(sealed)
	}
}

func (m *manifest) encode() []byte {
	e := encoder{make([]byte, manifestHeader, 4096)}
	e.b = append(e.b, m.uuid[:]...)
	e.u64(m.firstFile)
	e.u64(m.firstFrame)
	e.u32(uint32(len(m.replicas)))
	for i := range m.replicas {
		e.putReplica(&m.replicas[i])
	}
	putManifestHeader(e.b)
	return e.b
}

func putManifestHeader(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], manifestMagic)
	le.PutUint32(b[4:], formatVersion)
	le.PutUint64(b[8:], uint64(len(b)))
	le.PutUint32(b[16:], manifestSum(b))
}

func manifestSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:16], castagnoli), castagnoli, b[manifestHeader:])
}

type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return make([]byte, 16)[:min(max(n, 0), 16)]
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }
func (d *decoder) offset() stream.Offset {
	return stream.Offset(d.u64())
}

// count reads a number of things of at least that size each, so that a wrong
// one can't make us allocate.
func (d *decoder) count(size int) int {
	n := int(d.u32())
	if n > len(d.b)/size {
		d.bad = true
		return 0
	}
	return n
}

func (d *decoder) text() string {
	n := d.count(1)
	return string(d.take(n)[:n])
}

func (d *decoder) offsets() stream.OffsetRange {
	start := d.offset()
	return stream.OffsetRange{Start: start, End: d.offset()}
}

func (d *decoder) replica() (m replicaMeta) {
	m.key.Shard.Stream = stream.StreamID(d.u64())
	m.key.Shard.Number = d.u32()
	m.key.Replica = stream.ReplicaID(d.u64())
	m.epoch = stream.Epoch(d.u32())
	m.start, m.flushed, m.end = d.offset(), d.offset(), d.offset()
	m.startMs, m.lastMs = int64(d.u64()), int64(d.u64())
	m.hw, m.lastCut = d.offset(), d.u64()
	m.epochs = make([]EpochStart, d.count(12))
	m.holes = make([]stream.OffsetRange, d.count(16))
	m.damage = make([]Damage, d.count(48))
	m.segs = make([]segment, d.count(52))
	for i := range m.epochs {
		m.epochs[i] = EpochStart{stream.Epoch(d.u32()), d.offset()}
	}
	for i := range m.holes {
		m.holes[i] = d.offsets()
	}
	for i := range m.damage {
		x := &m.damage[i]
		x.Key, x.Range = m.key, d.offsets()
		x.Pos, x.AfterMs, x.BeforeMs = int64(d.u64()), int64(d.u64()), int64(d.u64())
		x.File, x.Reason = d.text(), d.text()
	}
	for i := range m.segs {
		s := &m.segs[i]
		s.base, s.end, s.bytes = d.offset(), d.offset(), int64(d.u64())
		s.firstMs, s.lastMs, s.created = int64(d.u64()), int64(d.u64()), int64(d.u64())
		s.sealed = d.u32() == 1
	}
	return m
}

// minReplica is the least that a replica takes in the manifest, bytes.
const minReplica = 96

// decodeManifest reads a manifest. Errors have Kind Corrupt, or Unavailable
// for a version that this code doesn't know.
func decodeManifest(b []byte) (*manifest, error) {
	const op = "recordlog.Open"
	le := binary.LittleEndian
	if len(b) < manifestHeader || le.Uint32(b) != manifestMagic || le.Uint64(b[8:]) != uint64(len(b)) ||
		manifestSum(b) != le.Uint32(b[16:]) {
		return nil, stream.Errorf(stream.Corrupt, op, "the manifest fails its checksum")
	}
	if v := le.Uint32(b[4:]); v != formatVersion {
		if v < formatVersion {
			return nil, stream.Errorf(stream.Corrupt, op, "the manifest has version %d", v)
		}
		return nil, stream.Errorf(stream.Unavailable, op, "the manifest has version %d, written by a newer shardstream", v)
	}
	d := decoder{b: b[manifestHeader:]}
	m := &manifest{}
	copy(m.uuid[:], d.take(16))
	m.firstFile, m.firstFrame = d.u64(), d.u64()
	n := d.count(minReplica)
	m.replicas = make([]replicaMeta, 0, n)
	for range n {
		m.replicas = append(m.replicas, d.replica())
	}
	if d.bad || len(d.b) != 0 {
		return nil, stream.Errorf(stream.Corrupt, op, "the manifest does not add up")
	}
	return m, nil
}

// readManifest gives the manifest, and the damaged copies with their errors.
// It gives nil if there is none at all.
func readManifest(fsys FS, dir string) (m *manifest, damaged []string, err error) {
	var first error
	for _, name := range manifestNames {
		name = path.Join(dir, name)
		b, err := readFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var got *manifest
		if err == nil {
			got, err = decodeManifest(b)
		}
		if errors.Is(err, stream.Unavailable) {
			return nil, nil, err
		}
		if err != nil {
			damaged = append(damaged, name)
			if first == nil {
				first = fmt.Errorf("%s: %w", name, err)
			}
			continue
		}
		// The first copy is written first, so it is never the older one; if
		// only the second is left, retire keeps what it points to.
		if m == nil {
			m = got
		}
	}
	if m == nil && first != nil {
		return nil, damaged, first
	}
	return m, damaged, nil
}

func readFile(fsys FS, name string) (_ []byte, err error) {
	f, err := fsys.Open(name, ReadOnly)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		return nil, err
	}
	return b, nil
}

// writeManifest replaces both copies. It returns when they are durable.
func writeManifest(fsys FS, dir string, m *manifest) error {
	b := m.encode()
	for _, name := range manifestNames {
		if err := replaceFile(fsys, dir, name, b); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile puts a file in place as a whole: temporary name, sync, rename,
// sync of the directory.
func replaceFile(fsys FS, dir, name string, content []byte) error {
	tmp := path.Join(dir, name+".tmp")
	f, err := fsys.Open(tmp, Create|Write)
	if err != nil {
		return err
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(content, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, fsys.Remove(tmp))
	}
	if err := fsys.Rename(tmp, path.Join(dir, name)); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}
