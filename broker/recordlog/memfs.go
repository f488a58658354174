package recordlog

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// MemFS is a file system in memory that fails as real ones do. What was
// written since a file's last Sync, and what happened in a directory since its
// last SyncDir, may or may not survive CrashClone. Safe for concurrent use.
type MemFS struct {
	mu       sync.Mutex
	root     *memNode
	capacity int64 // bytes of file content; 0 is no bound
	used     int64

	writes, syncs   int64 // so far
	failWrite       int64 // number of the write that fails; 0 none
	failSync        int64
	failErr         error
	dead            bool // after Kill nothing works any more
	ignoreSync      bool
	onSync, onWrite func()
}

const memBlock = 4096

// memNode is a file or a directory.
type memNode struct {
	children map[string]*memNode // nil for a file
	ops      []memOp             // changes of children that are not durable

	data       []byte
	syncedSize int64
	old        map[int64][]byte // content of blocks before they were written, since the last sync
	stuck      map[int64]bool   // blocks that a failed sync left volatile for ever
}

// memOp is one change in a directory, with the way back.
type memOp struct {
	name     string
	from, to *memNode // what the name meant before and after; nil is nothing
	joined   bool     // happens together with the op before it: a rename's second half
	twin     *memNode // the other directory of a rename across directories
	twinName string
}

// NewMemFS gives an empty file system with its root directory.
func NewMemFS() *MemFS {
	return &MemFS{root: &memNode{children: map[string]*memNode{}}}
}

// SetCapacity bounds the bytes of all files together; 0 is no bound.
func (m *MemFS) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// Used gives the bytes of all files together.
func (m *MemFS) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// Syncs counts the calls of Sync and SyncDir so far.
func (m *MemFS) Syncs() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.syncs
}

// Writes counts the calls of WriteAt so far.
func (m *MemFS) Writes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

// FailSync lets the n-th Sync or SyncDir from now fail, once, with EIO. What
// it should have made durable stays volatile for ever, as pages do that the
// kernel has marked clean after a failed write.
func (m *MemFS) FailSync(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failSync, m.failErr = m.syncs+n, unix.EIO
}

// FailWrite lets the n-th WriteAt from now fail, once, with EIO, half written.
func (m *MemFS) FailWrite(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failWrite, m.failErr = m.writes+n, unix.EIO
}

// OnSync sets a function that is called before each Sync and SyncDir, outside
// of the file system's lock: a place to crash, or to hold the disk still.
func (m *MemFS) OnSync(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onSync = f
}

// OnWrite sets a function that is called before each WriteAt, like OnSync.
func (m *MemFS) OnWrite(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onWrite = f
}

// IgnoreSync makes Sync and SyncDir do nothing and report success: a disk that
// lies, or a program without fsync.
func (m *MemFS) IgnoreSync(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ignoreSync = on
}

// Flip inverts one bit of a file, durably.
func (m *MemFS) Flip(name string, bit int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(name)
	if n == nil || n.children != nil || bit/8 >= int64(len(n.data)) {
		return fmt.Errorf("no bit %d in %s", bit, name)
	}
	n.data[bit/8] ^= 1 << (bit % 8)
	if old := n.old[bit/8/memBlock]; old != nil {
		old[bit/8%memBlock] ^= 1 << (bit % 8)
	}
	return nil
}

// CrashClone gives the file system as it could be found after a power cut at
// this instant. Of each file, every 4 KiB block that was not synced is kept,
// lost or torn at a sector, by the seed; of each directory a first part of the
// changes that were not synced is kept. With keep false all of that is lost.
func (m *MemFS) CrashClone(seed uint64, keep bool) *MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &crash{rng: rand.New(rand.NewPCG(seed, 7)), keep: keep, clones: map[*memNode]*memNode{}}
	clone := NewMemFS()
	clone.capacity = m.capacity
	clone.root = c.clone(m.root)
	clone.used = clone.root.bytes()
	return clone
}

// Clone gives a copy of the file system as it is, all of it durable: what a
// process finds that was killed and started again.
func (m *MemFS) Clone() *MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	clone := NewMemFS()
	clone.capacity, clone.used = m.capacity, m.used
	clone.root = m.root.copy()
	return clone
}

// Kill makes every later operation fail, so that a log which was crashed can
// be closed without touching anything.
func (m *MemFS) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
}

// Files gives the names of all files, with their sizes.
func (m *MemFS) Files() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	files := map[string]int64{}
	var walk func(dir string, n *memNode)
	walk = func(dir string, n *memNode) {
		for name, child := range n.children {
			if child.children != nil {
				walk(path.Join(dir, name), child)
			} else {
				files[path.Join(dir, name)] = int64(len(child.data))
			}
		}
	}
	walk("/", m.root)
	return files
}

func (n *memNode) copy() *memNode {
	c := &memNode{}
	if n.children == nil {
		c.data = append([]byte(nil), n.data...)
		c.syncedSize = int64(len(c.data))
		return c
	}
	c.children = map[string]*memNode{}
	for name, child := range n.children {
		c.children[name] = child.copy()
	}
	return c
}

func (n *memNode) bytes() int64 {
	total := int64(len(n.data))
	for _, child := range n.children {
		total += child.bytes()
	}
	return total
}

type crash struct {
	rng    *rand.Rand
	keep   bool
	clones map[*memNode]*memNode
}

func (c *crash) clone(n *memNode) *memNode {
	if done := c.clones[n]; done != nil {
		return done
	}
	clone := &memNode{}
	c.clones[n] = clone
	if n.children == nil {
		c.cloneFile(n, clone)
		return clone
	}
	// Back from what is there to what was durable, then forth a part of the way.
	state := map[string]*memNode{}
	for name, child := range n.children {
		state[name] = child
	}
	kept := 0
	if c.keep {
		for kept = c.rng.IntN(len(n.ops) + 1); kept < len(n.ops) && n.ops[kept].joined; {
			kept++
		}
	}
	for i := len(n.ops) - 1; i >= kept; i-- {
		set(state, n.ops[i].name, n.ops[i].from)
	}
	clone.children = map[string]*memNode{}
	names := make([]string, 0, len(state))
	for name := range state {
		names = append(names, name)
	}
	slices.Sort(names) // the seed alone decides
	for _, name := range names {
		clone.children[name] = c.clone(state[name])
	}
	return clone
}

func (c *crash) cloneFile(n, clone *memNode) {
	size := int64(len(n.data))
	if size != n.syncedSize && (!c.keep || c.rng.IntN(2) == 0) {
		size = n.syncedSize
	}
	clone.data = make([]byte, size)
	clone.syncedSize = size
	copy(clone.data, n.data)
	blocks := max(int64(len(n.data)), size)/memBlock + 1
	if len(n.old) == 0 {
		return
	}
	for b := range blocks {
		old, dirty := n.old[b]
		if !dirty || b*memBlock >= size {
			continue
		}
		lost := memBlock // bytes at the block's end that keep their old content
		if c.keep {
			switch c.rng.IntN(4) {
			case 0, 1:
				lost = 0
			case 2:
				lost = c.rng.IntN(8) * 512
			}
		}
		block := clone.data[b*memBlock : min(size, (b+1)*memBlock)]
		for i := memBlock - lost; i < len(block); i++ {
			block[i] = 0
			if i < len(old) {
				block[i] = old[i]
			}
		}
	}
}

func set(children map[string]*memNode, name string, n *memNode) {
	if n == nil {
		delete(children, name)
	} else {
		children[name] = n
	}
}

func split(name string) []string {
	var parts []string
	for rest := path.Clean("/" + name)[1:]; rest != ""; {
		i := 0
		for i < len(rest) && rest[i] != '/' {
			i++
		}
		parts = append(parts, rest[:i])
		rest = rest[min(i+1, len(rest)):]
	}
	return parts
}

func (m *MemFS) find(name string) *memNode {
	n := m.root
	for _, part := range split(name) {
		if n == nil || n.children == nil {
			return nil
		}
		n = n.children[part]
	}
	return n
}

func (m *MemFS) change(dir *memNode, name string, to *memNode) {
	dir.ops = append(dir.ops, memOp{name: name, from: dir.children[name], to: to})
	set(dir.children, name, to)
}

func notExist(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

func (m *MemFS) Open(name string, mode Mode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, unix.EIO
	}
	n := m.find(name)
	if n == nil {
		dir := m.find(path.Dir(name))
		if mode&Create == 0 || dir == nil || dir.children == nil {
			return nil, notExist("open", name)
		}
		n = &memNode{}
		m.change(dir, path.Base(name), n)
	}
	if n.children != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: unix.EISDIR}
	}
	return &memFile{m, n, mode}, nil
}

func (m *MemFS) List(name string) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir := m.find(name)
	if dir == nil || dir.children == nil {
		return nil, notExist("list", name)
	}
	entries := make([]Entry, 0, len(dir.children))
	for name, n := range dir.children {
		entries = append(entries, Entry{name, n.children != nil, int64(len(n.data))})
	}
	return entries, nil
}

func (m *MemFS) Stat(name string) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(name)
	if n == nil {
		return Entry{}, notExist("stat", name)
	}
	return Entry{path.Base(name), n.children != nil, int64(len(n.data))}, nil
}

func (m *MemFS) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return unix.EIO
	}
	if m.find(name) != nil {
		return nil
	}
	dir := m.find(path.Dir(name))
	if dir == nil || dir.children == nil {
		return notExist("mkdir", name)
	}
	m.change(dir, path.Base(name), &memNode{children: map[string]*memNode{}})
	return nil
}

func (m *MemFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return unix.EIO
	}
	n, fromDir, toDir := m.find(from), m.find(path.Dir(from)), m.find(path.Dir(to))
	if n == nil || toDir == nil || toDir.children == nil {
		return notExist("rename", from)
	}
	if old := toDir.children[path.Base(to)]; old != nil && old != n {
		m.used -= old.bytes()
	}
	m.change(toDir, path.Base(to), n)
	m.change(fromDir, path.Base(from), nil)
	if fromDir == toDir {
		toDir.ops[len(toDir.ops)-1].joined = true
	} else {
		toOp, fromOp := &toDir.ops[len(toDir.ops)-1], &fromDir.ops[len(fromDir.ops)-1]
		toOp.twin, toOp.twinName = fromDir, path.Base(from)
		fromOp.twin, fromOp.twinName = toDir, path.Base(to)
	}
	return nil
}

func (m *MemFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return unix.EIO
	}
	n := m.find(name)
	if n == nil {
		return notExist("remove", name)
	}
	if len(n.children) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: unix.ENOTEMPTY}
	}
	m.used -= int64(len(n.data))
	m.change(m.find(path.Dir(name)), path.Base(name), nil)
	return nil
}

// sync counts a Sync or SyncDir and says what becomes of it.
func (m *MemFS) sync() (skip bool, err error) {
	if m.dead {
		return true, unix.EIO
	}
	m.syncs++
	if m.failSync == m.syncs {
		return true, m.failErr
	}
	return m.ignoreSync, nil
}

// before calls a hook outside of the lock.
func (m *MemFS) before(hook *func()) {
	m.mu.Lock()
	f := *hook
	m.mu.Unlock()
	if f != nil {
		f()
	}
}

func (m *MemFS) SyncDir(name string) error {
	m.before(&m.onSync)
	m.mu.Lock()
	defer m.mu.Unlock()
	if skip, err := m.sync(); skip || err != nil {
		return err
	}
	dir := m.find(name)
	if dir == nil || dir.children == nil {
		return notExist("sync", name)
	}
	// A rename across directories is durable in both or in none.
	for _, op := range dir.ops {
		if op.twin == nil {
			continue
		}
		for i, other := range op.twin.ops {
			if other.twin == dir && other.name == op.twinName && other.twinName == op.name {
				op.twin.ops = append(op.twin.ops[:i:i], op.twin.ops[i+1:]...)
				break
			}
		}
	}
	dir.ops = nil
	return nil
}

func (m *MemFS) Free(string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.capacity == 0 {
		return 1 << 50, nil
	}
	return max(m.capacity-m.used, 0), nil
}

type memFile struct {
	fs   *MemFS
	node *memNode
	mode Mode
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.dead {
		return 0, unix.EIO
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// remember keeps the content of the blocks in [from, to) as they were synced.
func (n *memNode) remember(from, to int64) {
	if n.old == nil {
		n.old = map[int64][]byte{}
	}
	for b := from / memBlock; b*memBlock < to; b++ {
		if _, known := n.old[b]; known {
			continue
		}
		var before []byte
		if b*memBlock < int64(len(n.data)) {
			before = append(before, n.data[b*memBlock:min(int64(len(n.data)), (b+1)*memBlock)]...)
		}
		n.old[b] = before
	}
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	m, n := f.fs, f.node
	m.before(&m.onWrite)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return 0, unix.EIO
	}
	if f.mode&(Write|Create) == 0 {
		return 0, unix.EBADF
	}
	var failed error
	m.writes++
	if m.failWrite == m.writes {
		p, failed = p[:len(p)/2], m.failErr
	}
	end := off + int64(len(p))
	if grow := end - int64(len(n.data)); grow > 0 && failed == nil && m.capacity > 0 && m.used+grow > m.capacity {
		fits := max(0, int64(len(p))-(m.used+grow-m.capacity))
		p, failed = p[:fits], unix.ENOSPC
		end = off + fits
	}
	n.remember(off, end)
	if grow := end - int64(len(n.data)); grow > 0 && len(p) > 0 {
		n.data = append(n.data, make([]byte, grow)...)
		m.used += grow
	}
	copy(n.data[min(off, int64(len(n.data))):], p)
	return len(p), failed
}

func (f *memFile) Truncate(size int64) error {
	m, n := f.fs, f.node
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return unix.EIO
	}
	old := int64(len(n.data))
	n.remember(min(old, size), max(old, size))
	if size < old {
		n.data = n.data[:size:size]
	} else {
		n.data = append(n.data, make([]byte, size-old)...)
	}
	m.used += size - old
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *memFile) Sync() error {
	f.fs.before(&f.fs.onSync)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	skip, err := f.fs.sync()
	n := f.node
	if err != nil {
		for b := range n.old {
			if n.stuck == nil {
				n.stuck = map[int64]bool{}
			}
			n.stuck[b] = true
		}
	}
	if skip || err != nil {
		return err
	}
	n.syncedSize = int64(len(n.data))
	for b := range n.old {
		if !n.stuck[b] {
			delete(n.old, b)
		}
	}
	return nil
}

func (f *memFile) DropCache()   {}
func (f *memFile) Close() error { return nil }
