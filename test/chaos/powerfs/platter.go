package powerfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// looseDir is the directory in the backing one that holds what has no name on
// the platter, by the nodes' ids: every file, as a hard link that stays when
// its names go, and the directories that are not durable. It is not part of
// the platter, and is made anew at each start and power loss.
const looseDir = ".powerfs"

// platter is the backing directory.
type platter struct{ root string }

func (p platter) looseRoot() string { return filepath.Join(p.root, looseDir) }

func (p platter) loose(n *node) string {
	return filepath.Join(p.looseRoot(), strconv.FormatUint(n.id, 10))
}

// path gives where a directory is.
func (p platter) path(n *node) string {
	switch {
	case n.id == rootID:
		return p.root
	case n.home.dir == nil:
		return p.loose(n)
	}
	return filepath.Join(p.path(n.home.dir), n.home.name)
}

// create makes the file or directory of a new node, without a name.
func (p platter) create(n *node) error {
	perm := fs.FileMode(n.mode & 0o777)
	if n.isDir() {
		return os.Mkdir(p.loose(n), perm|0o700)
	}
	f, err := os.OpenFile(p.loose(n), os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm|0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (p platter) open(n *node) (*os.File, error) { return os.OpenFile(p.loose(n), os.O_RDWR, 0) }

// chmod takes over the node's mode, which no power loss undoes.
func (p platter) chmod(n *node) error {
	at := p.path(n)
	if !n.isDir() {
		at = p.loose(n)
	}
	return os.Chmod(at, fs.FileMode(n.mode&0o777))
}

// remove deletes the file or directory of a node that has no name.
func (p platter) remove(n *node) error { return os.Remove(p.loose(n)) }

// set gives a name on the platter its durable meaning; nil is none.
func (p platter) set(dir *node, name string, n *node) error {
	old := dir.durable[name]
	if old == n {
		return nil
	}
	at := filepath.Join(p.path(dir), name)
	if old != nil {
		old.homes--
		delete(dir.durable, name)
		switch {
		case old.isDir():
			old.home = place{}
			if err := os.Rename(at, p.loose(old)); err != nil {
				return err
			}
		case n == nil || n.isDir():
			if err := os.Remove(at); err != nil {
				return err
			}
		}
	}
	if n == nil {
		return nil
	}
	if n.isDir() {
		from := p.path(n)
		if n.home.dir != nil { // a directory has one place only
			delete(n.home.dir.durable, n.home.name)
			n.homes--
		}
		n.home = place{dir, name}
		if err := os.Rename(from, at); err != nil {
			return err
		}
	} else {
		tmp := p.loose(n) + ".new"
		if err := errors.Join(os.Link(p.loose(n), tmp), os.Rename(tmp, at)); err != nil {
			return err
		}
	}
	dir.durable[name] = n
	n.homes++
	return nil
}

// clear removes what has no name on the platter, and makes room for more.
func (p platter) clear() error {
	if err := os.RemoveAll(p.looseRoot()); err != nil {
		return err
	}
	return os.Mkdir(p.looseRoot(), 0o700)
}

// load makes the nodes of what is on the platter. newNode gives one with its id.
func (p platter) load(root *node, newNode func(mode uint32) *node) error {
	linked := map[uint64]*node{} // files with more than one name, by host inode
	var walk func(dir *node) error
	walk = func(dir *node) error {
		entries, err := os.ReadDir(p.path(dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if dir == root && e.Name() == looseDir {
				continue
			}
			at := filepath.Join(p.path(dir), e.Name())
			var st syscall.Stat_t
			if err := syscall.Lstat(at, &st); err != nil {
				return &fs.PathError{Op: "lstat", Path: at, Err: err}
			}
			n := linked[st.Ino]
			if n == nil {
				n = newNode(st.Mode)
				n.mtime = time.Unix(st.Mtim.Unix())
				switch st.Mode & syscall.S_IFMT {
				case syscall.S_IFDIR:
					n.home = place{dir, e.Name()}
				case syscall.S_IFREG:
					n.content = content{size: st.Size, synced: st.Size, floor: st.Size}
					linked[st.Ino] = n
					if err := os.Link(at, p.loose(n)); err != nil {
						return err
					}
				default:
					return fmt.Errorf("%s is neither a file nor a directory", at)
				}
			}
			dir.children[e.Name()], dir.durable[e.Name()] = n, n
			n.parent, n.name = dir, e.Name()
			n.names++
			n.homes++
			if n.isDir() {
				if err := walk(n); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return walk(root)
}
