package powerfs

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

const rootID = 1

// disk is the state of one mount: what programs see, what is on the platter,
// and what leads from one to the other.
type disk struct {
	platter platter
	faults  *faults

	// mu guards what follows, and all nodes. It is taken before that of faults.
	mu     sync.Mutex
	on     bool
	boot   uint64           // counts the power losses
	nodes  map[uint64]*node // all that there are, by id
	nextID uint64
	known  map[uint64]*node // to the kernel
	open   map[uint64]*handle
	nextFH uint64

	used  int64 // bytes of all files that have a name
	room  int64 // bound of used; less than 0 is none
	lies  bool  // syncs do nothing and succeed
	stats Stats
}

// handle is an open file or directory.
type handle struct {
	node    *node
	flags   uint32          // of open(2)
	entries []fuse.DirEntry // of a directory, as it was when reading began
}

// Stats counts operations since the start.
type Stats struct {
	Writes, Syncs, DirSyncs int64
	// Failed counts the operations that a Failure has hit.
	Failed int64
	// Losses counts the power losses.
	Losses int64
	// Waiting is how many operations are slow or hang now.
	Waiting int64
	// Volatile is what a power loss would lose now: bytes of blocks that were
	// not synced, and changes in directories.
	Volatile    int64
	VolatileOps int64
}

func newDisk(backing string) (*disk, error) {
	d := &disk{platter: platter{backing}, faults: newFaults(), nextID: rootID, room: -1, on: true}
	return d, d.load()
}

// load begins anew with what is on the platter.
func (d *disk) load() error {
	d.nodes, d.known, d.open, d.used = map[uint64]*node{}, map[uint64]*node{}, map[uint64]*handle{}, 0
	if err := d.platter.clear(); err != nil {
		return err
	}
	info, err := os.Stat(d.platter.root)
	if err != nil {
		return err
	}
	// The root keeps its id: the kernel knows it by no other.
	root := &node{
		id: rootID, mode: syscall.S_IFDIR | uint32(info.Mode().Perm()), mtime: info.ModTime(),
		children: map[string]*node{}, durable: map[string]*node{}, names: 1, lookups: 1,
	}
	d.nodes[rootID], d.known[rootID] = root, root
	if err := d.platter.load(root, d.newNode); err != nil {
		return err
	}
	for _, n := range d.nodes {
		d.used += n.content.size
	}
	return nil
}

func (d *disk) newNode(mode uint32) *node {
	d.nextID++
	n := &node{id: d.nextID, mode: mode, mtime: time.Now()}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		n.children, n.durable = map[string]*node{}, map[string]*node{}
	}
	d.nodes[n.id] = n
	return n
}

// create makes a node with a name in a directory.
func (d *disk) create(dir *node, name string, mode uint32) (*node, error) {
	n := d.newNode(mode)
	if err := d.platter.create(n); err != nil {
		delete(d.nodes, n.id)
		return nil, err
	}
	change(dir, name, n)
	return n, nil
}

// remove takes a name out of a directory.
func (d *disk) remove(dir *node, name string) {
	n := dir.children[name]
	change(dir, name, nil)
	if n.names == 0 {
		d.used -= n.content.size
	}
	d.release(n)
}

// rename moves a node, over another that may go.
func (d *disk) rename(from *node, name string, to *node, newName string) {
	old := to.children[newName]
	if old == from.children[name] {
		return
	}
	rename(from, name, to, newName)
	if old != nil {
		if old.names == 0 {
			d.used -= old.content.size
		}
		d.release(old)
	}
}

// backing gives the node's file on the platter, open until release finds that
// nobody has the node open.
func (d *disk) backing(n *node) (*os.File, error) {
	if n.backing == nil {
		f, err := d.platter.open(n)
		if err != nil {
			return nil, err
		}
		n.backing = f
	}
	return n.backing, nil
}

// release lets go of what nobody needs any more.
func (d *disk) release(n *node) {
	if n.opens == 0 && n.backing != nil {
		_ = n.backing.Close() // nothing is buffered
		n.backing = nil
	}
	if n.names > 0 || n.homes > 0 || n.mentions > 0 || n.opens > 0 || n.lookups > 0 || d.nodes[n.id] != n {
		return
	}
	delete(d.nodes, n.id)
	ops := n.ops
	n.ops = nil
	for _, op := range ops {
		d.forget(op)
	}
	for name, child := range maps.Clone(n.durable) {
		_ = d.platter.set(n, name, nil) // what stays is cleared at the next start
		d.release(child)
	}
	_ = d.platter.remove(n)
}

// forget ends an operation that is durable, or never will be.
func (d *disk) forget(op *dirOp) {
	if op.twin != nil {
		op.twin.twin = nil
	}
	if op.to != nil {
		op.to.mentions--
		d.release(op.to)
	}
}

// apply makes an operation durable.
func (d *disk) apply(op *dirOp) error {
	old := op.dir.durable[op.name]
	if err := d.platter.set(op.dir, op.name, op.to); err != nil {
		return err
	}
	if old != nil && old != op.to {
		d.release(old)
	}
	return nil
}

// syncDir makes durable what happened in a directory. A rename across
// directories becomes so in both.
func (d *disk) syncDir(dir *node) error {
	for len(dir.ops) > 0 {
		op := dir.ops[0]
		if err := d.apply(op); err != nil {
			return err
		}
		if twin := op.twin; twin != nil {
			if err := d.apply(twin); err != nil {
				return err
			}
			// What the name meant before it means no more.
			other := twin.dir
			i := slices.Index(other.ops, twin)
			var done []*dirOp
			for _, o := range other.ops[:i+1] {
				if o.name == twin.name {
					done = append(done, o)
				}
			}
			other.ops = slices.DeleteFunc(other.ops, func(o *dirOp) bool { return slices.Contains(done, o) })
			for _, o := range done {
				d.forget(o)
			}
		}
		dir.ops = dir.ops[1:]
		d.forget(op)
	}
	dir.ops = nil
	return nil
}

// syncFile makes durable what is in a file.
func (d *disk) syncFile(n *node) error {
	if n.content.clean() {
		return nil
	}
	f, err := d.backing(n)
	if err != nil {
		return err
	}
	return n.content.flush(f)
}

// syncAll makes everything durable, as an orderly stop does.
func (d *disk) syncAll() error {
	var errs []error
	for _, n := range d.sorted() {
		if n.isDir() {
			errs = append(errs, d.syncDir(n))
		} else if d.nodes[n.id] == n { // else it was let go of with its last name
			errs = append(errs, d.syncFile(n))
		}
	}
	return errors.Join(errs...)
}

// sorted gives all nodes by id, so that a seed alone decides.
func (d *disk) sorted() []*node {
	nodes := make([]*node, 0, len(d.nodes))
	for _, id := range slices.Sorted(maps.Keys(d.nodes)) {
		nodes = append(nodes, d.nodes[id])
	}
	return nodes
}

// lose is the power loss. It gives the ids that the kernel knew.
func (d *disk) lose(loss Loss) ([]uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.on = false
	d.boot++
	d.stats.Losses++
	known := d.knownIDs()
	var errs []error
	if loss.Torn {
		errs = append(errs, d.tear(rand.New(rand.NewPCG(loss.Seed, 7))))
	}
	for _, n := range d.nodes {
		if n.backing != nil {
			errs = append(errs, n.backing.Close())
		}
	}
	return known, errors.Join(append(errs, d.load())...)
}

// tear lets a part of what was not synced reach the platter.
func (d *disk) tear(rng *rand.Rand) error {
	for _, n := range d.sorted() {
		if n.isDir() || n.content.clean() {
			continue
		}
		f, err := d.backing(n)
		if err != nil {
			return err
		}
		if err := n.content.tear(f, rng); err != nil {
			return err
		}
	}
	for _, dir := range d.sorted() {
		if len(dir.ops) == 0 {
			continue
		}
		kept := rng.IntN(len(dir.ops) + 1)
		for kept < len(dir.ops) && dir.ops[kept].joined {
			kept++
		}
		for _, op := range dir.ops[:kept] {
			if err := d.platter.set(op.dir, op.name, op.to); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *disk) knownIDs() []uint64 { return slices.Collect(maps.Keys(d.known)) }

// count gives the statistics as of now.
func (d *disk) count() Stats {
	s := d.stats
	s.Failed, s.Waiting = d.faults.count()
	for _, n := range d.nodes {
		s.Volatile += int64(len(n.content.dirty)) * blockSize
		s.VolatileOps += int64(len(n.ops))
	}
	return s
}

// powerOn lets operations succeed again.
func (d *disk) powerOn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.on = true
}

// close makes everything durable, and leaves nothing but the platter.
func (d *disk) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.syncAll()
	for _, n := range d.nodes {
		if n.backing != nil {
			err = errors.Join(err, n.backing.Close())
			n.backing = nil
		}
	}
	return errors.Join(err, os.RemoveAll(d.platter.looseRoot()))
}
