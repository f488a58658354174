package powerfs

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// node is a file or a directory.
type node struct {
	id    uint64 // never used again, also after a power loss
	mode  uint32 // with its type
	mtime time.Time

	// Where the node is or last was, for patterns and "..".
	parent *node
	name   string

	// Files.
	content content
	backing *os.File // nil when nobody has the node open

	// Directories.
	children map[string]*node // as programs see them; nil for a file
	durable  map[string]*node // on the platter
	ops      []*dirOp         // that lead from durable to children

	home place // of a directory on the platter; zero while it is nowhere

	// Who needs the node. With none of them left it is removed.
	names, homes, mentions, opens int // children, durables, ops, handles
	lookups                       uint64
}

// place is a name in a directory.
type place struct {
	dir  *node
	name string
}

// dirOp is one change of a name in a directory that is not durable.
type dirOp struct {
	dir    *node
	name   string
	to     *node  // what the name means after it; nil is nothing
	joined bool   // happens together with the op before it: a rename's second half
	twin   *dirOp // in the other directory of a rename across directories
}

func (n *node) isDir() bool { return n.children != nil }

// path gives the name below the mount, "" for the root.
func (n *node) path() string {
	var parts []string
	for ; n != nil && n.parent != nil; n = n.parent {
		parts = append(parts, n.name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// change gives a name in a directory another meaning.
func change(dir *node, name string, to *node) *dirOp {
	if old := dir.children[name]; old != nil {
		old.names--
	}
	if to == nil {
		delete(dir.children, name)
	} else {
		dir.children[name] = to
		to.names++
		to.parent, to.name = dir, name
		to.mentions++
	}
	op := &dirOp{dir: dir, name: name, to: to}
	dir.ops = append(dir.ops, op)
	dir.mtime = time.Now()
	return op
}

// rename moves a node. The target's old meaning must be one that may go.
func rename(from *node, name string, to *node, newName string) {
	n := from.children[name]
	arrival := change(to, newName, n)
	departure := change(from, name, nil)
	n.parent, n.name = to, newName
	if from == to {
		departure.joined = true
	} else {
		arrival.twin, departure.twin = departure, arrival
	}
}

// replaceable says why a node can't take the place of another.
func replaceable(old, by *node) syscall.Errno {
	switch {
	case old.isDir() && !by.isDir():
		return syscall.EISDIR
	case !old.isDir() && by.isDir():
		return syscall.ENOTDIR
	case len(old.children) > 0:
		return syscall.ENOTEMPTY
	}
	return 0
}

// matches says whether a path ends like the pattern, part for part, as
// path.Match has it; "" is every path.
func matches(pattern, name string) bool {
	if pattern == "" {
		return true
	}
	patterns, parts := strings.Split(pattern, "/"), strings.Split(name, "/")
	if len(patterns) > len(parts) {
		return false
	}
	for i, part := range parts[len(parts)-len(patterns):] {
		if !glob(patterns[i], part) {
			return false
		}
	}
	return true
}
