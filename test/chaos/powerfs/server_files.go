package powerfs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// This file has what the kernel asks of open files.

func (s *server) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := s.enterNode(cancel, OpOpen, in.NodeId)
	if err != nil {
		return status(err)
	}
	defer s.disk.mu.Unlock()
	if in.Flags&syscall.O_TRUNC != 0 {
		if errno := s.disk.truncate(n, 0); errno != 0 {
			return fuse.Status(errno)
		}
	}
	out.Fh = s.opened(n, in.Flags)
	return fuse.OK
}

func (s *server) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { s.closed(in.Fh) }

// Flush is close(2), which makes nothing durable.
func (s *server) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (s *server) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h, err := s.enterHandle(cancel, OpRead, in.NodeId, in.Fh)
	if err != nil {
		return nil, status(err)
	}
	d := s.disk
	defer d.mu.Unlock()
	if errno := d.faults.fail(OpRead, h.node.path()); errno != 0 {
		return nil, fuse.Status(errno)
	}
	f, err := d.backing(h.node)
	if err != nil {
		return nil, status(err)
	}
	n, err := h.node.content.read(f, buf, int64(in.Offset))
	if err != nil {
		return nil, status(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write that has to fail does so half done, and one that meets a full disk
// writes what fits.
func (s *server) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h, err := s.enterHandle(cancel, OpWrite, in.NodeId, in.Fh)
	if err != nil {
		return 0, status(err)
	}
	d, n := s.disk, h.node
	d.stats.Writes++
	failed := d.faults.fail(OpWrite, n.path())
	if failed != 0 {
		data = data[:len(data)/2]
	}
	written, errno := d.write(n, data, int64(in.Offset))
	d.mu.Unlock()
	if failed != 0 {
		return 0, fuse.Status(failed)
	}
	if errno != 0 {
		return 0, fuse.Status(errno)
	}
	if h.flags&unix.O_DSYNC != 0 {
		if code := s.sync(cancel, in.NodeId, in.Fh); code != fuse.OK {
			return 0, code
		}
	}
	return uint32(written), fuse.OK
}

// Fsync is fsync and fdatasync: the size is part of what is needed to find the
// bytes again, and times are not kept anyway.
func (s *server) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return s.sync(cancel, in.NodeId, in.Fh)
}

func (s *server) sync(cancel <-chan struct{}, id, fh uint64) fuse.Status {
	h, err := s.enterHandle(cancel, OpSync, id, fh)
	if err != nil {
		return status(err)
	}
	d := s.disk
	defer d.mu.Unlock()
	if errno := d.faults.fail(OpSync, h.node.path()); errno != 0 {
		h.node.content.lose()
		return fuse.Status(errno)
	}
	d.stats.Syncs++
	if d.lies {
		return fuse.OK
	}
	return status(d.syncFile(h.node))
}

func (s *server) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if in.Mode&^unix.FALLOC_FL_KEEP_SIZE != 0 {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	h, err := s.enterHandle(cancel, OpTruncate, in.NodeId, in.Fh)
	if err != nil {
		return status(err)
	}
	d := s.disk
	defer d.mu.Unlock()
	if errno := d.faults.fail(OpTruncate, h.node.path()); errno != 0 {
		return fuse.Status(errno)
	}
	end := int64(in.Offset + in.Length)
	if in.Mode&unix.FALLOC_FL_KEEP_SIZE != 0 || end <= h.node.content.size {
		return fuse.OK
	}
	return fuse.Status(d.truncate(h.node, end))
}

// write gives how many bytes fit.
func (d *disk) write(n *node, p []byte, off int64) (int, syscall.Errno) {
	if grow := off + int64(len(p)) - n.content.size; grow > 0 && n.names > 0 && d.room >= 0 && d.used+grow > d.room {
		fits := max(0, int64(len(p))-(d.used+grow-d.room))
		if p = p[:fits]; fits == 0 {
			return 0, syscall.ENOSPC
		}
	}
	f, err := d.backing(n)
	if err != nil {
		return 0, syscall.Errno(status(err))
	}
	before := n.content.size
	err = n.content.write(f, p, off)
	d.grown(n, before)
	if err != nil {
		return 0, syscall.Errno(status(err))
	}
	return len(p), 0
}

func (d *disk) truncate(n *node, size int64) syscall.Errno {
	if n.isDir() {
		return syscall.EISDIR
	}
	before := n.content.size
	if grow := size - before; grow > 0 && n.names > 0 && d.room >= 0 && d.used+grow > d.room {
		return syscall.ENOSPC
	}
	n.content.truncate(size)
	d.grown(n, before)
	return 0
}

func (d *disk) grown(n *node, before int64) {
	if n.names > 0 {
		d.used += n.content.size - before
	}
	n.mtime = time.Now()
}
