package powerfs

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// server answers the kernel. It lets the faults have their way, checks names
// and kinds, and leaves the rest to the disk.
//
// Nothing is cached by time: after a power loss each name may mean something
// else. What is in a file is cached until somebody else than the kernel changes
// it, which is when Mount invalidates it.
type server struct {
	fuse.RawFileSystem // says ENOSYS to all that is not here
	disk               *disk
}

func newServer(d *disk) *server {
	return &server{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: d}
}

func (s *server) String() string { return "powerfs" }

// status gives the answer for an error of the host's or of ours.
func status(err error) fuse.Status {
	var errno syscall.Errno
	switch {
	case err == nil:
		return fuse.OK
	case errors.As(err, &errno):
		return fuse.Status(errno)
	}
	return fuse.EIO
}

// enter locks the disk for an operation on a node that the kernel knows, once
// the operation has waited as the faults will have it. After an error the disk
// is not locked.
func (s *server) enter(cancel <-chan struct{}, op Op, id uint64) (*node, error) {
	d := s.disk
	d.mu.Lock()
	if d.on && !d.faults.idle() {
		boot := d.boot
		d.mu.Unlock()
		lost := func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return !d.on || d.boot != boot
		}
		if !d.faults.wait(op, cancel, lost) && !lost() {
			return nil, syscall.EINTR
		}
		d.mu.Lock()
		if d.boot != boot {
			d.mu.Unlock()
			return nil, syscall.EIO
		}
	}
	n, err := d.known[id], error(nil)
	if !d.on {
		err = syscall.EIO
	} else if n == nil {
		err = syscall.ESTALE // the kernel looks the name up again
	}
	if err != nil {
		d.mu.Unlock()
	}
	return n, err
}

// enterNode is enter for an operation that fails as a whole.
func (s *server) enterNode(cancel <-chan struct{}, op Op, id uint64) (*node, error) {
	n, err := s.enter(cancel, op, id)
	if err != nil {
		return nil, err
	}
	if errno := s.disk.faults.fail(op, n.path()); errno != 0 {
		s.disk.mu.Unlock()
		return nil, errno
	}
	return n, nil
}

// enterName is enterNode for a name in a directory; failures go by its path.
func (s *server) enterName(cancel <-chan struct{}, op Op, id uint64, name string) (*node, error) {
	dir, err := s.enter(cancel, op, id)
	if err != nil {
		return nil, err
	}
	err = s.checkName(op, dir, name)
	if err != nil {
		s.disk.mu.Unlock()
	}
	return dir, err
}

func (s *server) checkName(op Op, dir *node, name string) error {
	at := name
	if p := dir.path(); p != "" {
		at = p + "/" + name
	}
	if errno := s.disk.faults.fail(op, at); errno != 0 {
		return errno
	}
	switch {
	case !dir.isDir():
		return syscall.ENOTDIR
	case dir.id == rootID && name == looseDir:
		return syscall.EPERM // would be hidden by ours
	}
	return nil
}

// enterHandle is enter for what is open. What was opened before the power was
// lost is so no more.
func (s *server) enterHandle(cancel <-chan struct{}, op Op, id, fh uint64) (*handle, error) {
	_, err := s.enter(cancel, op, id)
	if err == syscall.ESTALE {
		return nil, syscall.EIO
	}
	if err != nil {
		return nil, err
	}
	h := s.disk.open[fh]
	if h == nil {
		s.disk.mu.Unlock()
		return nil, syscall.EIO
	}
	return h, nil
}

// opened gives the number of a new handle.
func (s *server) opened(n *node, flags uint32) uint64 {
	d := s.disk
	d.nextFH++
	d.open[d.nextFH] = &handle{node: n, flags: flags}
	n.opens++
	return d.nextFH
}

func (s *server) closed(fh uint64) {
	d := s.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.open[fh]; h != nil { // else it was opened before a power loss
		delete(d.open, fh)
		h.node.opens--
		d.release(h.node)
	}
}

func (n *node) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink = n.id, n.mode, 1
	out.Blksize = blockSize
	if n.isDir() {
		out.Nlink = 2
	}
	out.Size = uint64(n.content.size)
	out.Blocks = (out.Size + sectorSize - 1) / sectorSize
	out.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

// entry tells the kernel of a node, which it knows from now on.
func (s *server) entry(n *node, out *fuse.EntryOut) {
	n.lookups++
	s.disk.known[n.id] = n
	out.NodeId, out.Generation = n.id, 1
	n.attr(&out.Attr)
}

func (s *server) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, err := s.enterName(cancel, OpLookup, in.NodeId, name)
	if err != nil {
		return status(err)
	}
	defer s.disk.mu.Unlock()
	n := dir.children[name]
	if n == nil {
		return fuse.ENOENT
	}
	s.entry(n, out)
	return fuse.OK
}

func (s *server) Forget(id, count uint64) {
	d := s.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.known[id]
	if n == nil || id == rootID {
		return // known before a power loss, or for ever
	}
	if n.lookups -= min(count, n.lookups); n.lookups == 0 {
		delete(d.known, id)
		d.release(n)
	}
}

func (s *server) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := s.enterNode(cancel, OpAttr, in.NodeId)
	if err != nil {
		return status(err)
	}
	defer s.disk.mu.Unlock()
	n.attr(&out.Attr)
	return fuse.OK
}

func (s *server) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	op := OpAttr
	size, resize := in.GetSize()
	if resize {
		op = OpTruncate
	}
	n, err := s.enterNode(cancel, op, in.NodeId)
	if err != nil {
		return status(err)
	}
	defer s.disk.mu.Unlock()
	if resize {
		if errno := s.disk.truncate(n, int64(size)); errno != 0 {
			return fuse.Status(errno)
		}
	}
	if mode, ok := in.GetMode(); ok {
		n.mode = n.mode&syscall.S_IFMT | mode
		if err := s.disk.platter.chmod(n); err != nil {
			return status(err)
		}
	}
	if mtime, ok := in.GetMTime(); ok {
		n.mtime = mtime
	}
	n.attr(&out.Attr)
	return fuse.OK
}

func (s *server) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if _, err := s.enter(cancel, OpAttr, in.NodeId); err != nil {
		return status(err)
	}
	defer s.disk.mu.Unlock()
	var host syscall.Statfs_t
	if err := syscall.Statfs(s.disk.platter.root, &host); err != nil {
		return status(err)
	}
	out.FromStatfsT(&host)
	out.Blocks = out.Blocks * uint64(out.Bsize) / blockSize
	out.Bfree = out.Bfree * uint64(out.Bsize) / blockSize
	out.Bavail = out.Bavail * uint64(out.Bsize) / blockSize
	out.Bsize, out.Frsize = blockSize, blockSize
	if s.disk.room >= 0 {
		out.Bavail = min(out.Bavail, uint64(max(0, s.disk.room-s.disk.used))/blockSize)
		out.Bfree = out.Bavail
		out.Blocks = min(out.Blocks, uint64(s.disk.room)/blockSize)
	}
	return fuse.OK
}

func (s *server) OnUnmount() {
	// Whoever waits waits for nobody.
	s.disk.faults.set(func() { s.disk.faults.hang = "" })
}
