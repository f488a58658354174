package powerfs

import (
	"maps"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// This file has what the kernel asks of names and directories.

func (s *server) make(cancel <-chan struct{}, id uint64, name string, mode uint32, out *fuse.EntryOut) (*node, error) {
	dir, err := s.enterName(cancel, OpCreate, id, name)
	if err != nil {
		return nil, err
	}
	n := (*node)(nil)
	if dir.children[name] != nil {
		err = syscall.EEXIST
	} else {
		n, err = s.disk.create(dir, name, mode)
	}
	if err != nil {
		s.disk.mu.Unlock()
		return nil, err
	}
	s.entry(n, out)
	return n, nil
}

func (s *server) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	_, err := s.make(cancel, in.NodeId, name, syscall.S_IFDIR|in.Mode&0o7777, out)
	if err != nil {
		return status(err)
	}
	s.disk.mu.Unlock()
	return fuse.OK
}

func (s *server) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return fuse.EPERM
	}
	_, err := s.make(cancel, in.NodeId, name, in.Mode, out)
	if err != nil {
		return status(err)
	}
	s.disk.mu.Unlock()
	return fuse.OK
}

func (s *server) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	n, err := s.make(cancel, in.NodeId, name, syscall.S_IFREG|in.Mode&0o7777, &out.EntryOut)
	if err != nil {
		return status(err)
	}
	defer s.disk.mu.Unlock()
	out.Fh = s.opened(n, in.Flags)
	return fuse.OK
}

func (s *server) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return s.remove(cancel, in.NodeId, name, false)
}

func (s *server) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return s.remove(cancel, in.NodeId, name, true)
}

func (s *server) remove(cancel <-chan struct{}, id uint64, name string, isDir bool) fuse.Status {
	dir, err := s.enterName(cancel, OpRemove, id, name)
	if err != nil {
		return status(err)
	}
	defer s.disk.mu.Unlock()
	n := dir.children[name]
	switch {
	case n == nil:
		return fuse.ENOENT
	case isDir && !n.isDir():
		return fuse.ENOTDIR
	case !isDir && n.isDir():
		return fuse.Status(syscall.EISDIR)
	case len(n.children) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	s.disk.remove(dir, name)
	return fuse.OK
}

func (s *server) Rename(cancel <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	if in.Flags&^unix.RENAME_NOREPLACE != 0 {
		return fuse.EINVAL
	}
	from, err := s.enterName(cancel, OpRename, in.NodeId, name)
	if err != nil {
		return status(err)
	}
	defer s.disk.mu.Unlock()
	to := s.disk.known[in.Newdir]
	if to == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if err := s.checkName(OpRename, to, newName); err != nil {
		return status(err)
	}
	n, old := from.children[name], to.children[newName]
	if n == nil {
		return fuse.ENOENT
	}
	if old != nil && old != n {
		if in.Flags&unix.RENAME_NOREPLACE != 0 {
			return fuse.Status(syscall.EEXIST)
		}
		if errno := replaceable(old, n); errno != 0 {
			return fuse.Status(errno)
		}
	}
	s.disk.rename(from, name, to, newName)
	return fuse.OK
}

func (s *server) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := s.enterNode(cancel, OpOpen, in.NodeId)
	if err != nil {
		return status(err)
	}
	defer s.disk.mu.Unlock()
	out.Fh = s.opened(n, in.Flags)
	return fuse.OK
}

func (s *server) ReleaseDir(in *fuse.ReleaseIn) { s.closed(in.Fh) }

func (s *server) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	h, err := s.enterHandle(cancel, OpList, in.NodeId, in.Fh)
	if err != nil {
		return status(err)
	}
	defer s.disk.mu.Unlock()
	if errno := s.disk.faults.fail(OpList, h.node.path()); errno != 0 {
		return fuse.Status(errno)
	}
	if in.Offset == 0 || h.entries == nil {
		h.entries = h.node.list()
	}
	for i := in.Offset; i < uint64(len(h.entries)); i++ {
		if !out.AddDirEntry(h.entries[i]) {
			break
		}
	}
	return fuse.OK
}

// list gives the entries of a directory, which stay as they are while a reader
// goes through them.
func (n *node) list() []fuse.DirEntry {
	up := n
	if n.parent != nil {
		up = n.parent
	}
	entries := []fuse.DirEntry{
		{Name: ".", Ino: n.id, Mode: n.mode, Off: 1}, {Name: "..", Ino: up.id, Mode: up.mode, Off: 2},
	}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		child := n.children[name]
		entries = append(entries, fuse.DirEntry{Name: name, Ino: child.id, Mode: child.mode, Off: uint64(len(entries) + 1)})
	}
	return entries
}

func (s *server) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, err := s.enterHandle(cancel, OpSyncDir, in.NodeId, in.Fh)
	if err != nil {
		return status(err)
	}
	d := s.disk
	defer d.mu.Unlock()
	if errno := d.faults.fail(OpSyncDir, h.node.path()); errno != 0 {
		return fuse.Status(errno)
	}
	d.stats.DirSyncs++
	if d.lies {
		return fuse.OK
	}
	return status(d.syncDir(h.node))
}
