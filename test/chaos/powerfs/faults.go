package powerfs

import (
	"fmt"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Op is a kind of operation, as Fail and the statistics name it.
type Op string

// The operations. Sync is fsync and fdatasync of a file, SyncDir of a directory.
const (
	OpLookup   Op = "lookup"
	OpAttr     Op = "attr"
	OpOpen     Op = "open"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpSync     Op = "sync"
	OpSyncDir  Op = "syncdir"
	OpCreate   Op = "create" // of files and directories
	OpRemove   Op = "remove"
	OpRename   Op = "rename"
	OpList     Op = "list"
)

var ops = []Op{
	OpLookup, OpAttr, OpOpen, OpRead, OpWrite, OpTruncate, OpSync, OpSyncDir,
	OpCreate, OpRemove, OpRename, OpList,
}

// Scope says which operations are slow or hang.
type Scope string

// The scopes: what makes durable, or everything.
const (
	Syncs Scope = "syncs"
	All   Scope = "all"
)

func (s Scope) has(op Op) bool { return s == All || s == Syncs && (op == OpSync || op == OpSyncDir) }

// Failure lets operations fail.
type Failure struct {
	Op Op
	// Errno is what they fail with; 0 is EIO.
	Errno syscall.Errno
	// Pattern is matched with the end of the path below the mount, part for
	// part: "J-*.log", "journal/*". "" is every path.
	Pattern string
	// Skip is how many operations succeed before.
	Skip int
	// Count is how many fail then; 0 is all. The kernel tries again what it
	// has read ahead in vain, so one failed read alone is often not seen.
	Count int
}

func (f Failure) validate() error {
	if !slices.Contains(ops, f.Op) {
		return fmt.Errorf("there is no operation %q", f.Op)
	}
	if _, err := path.Match(f.Pattern, ""); err != nil {
		return fmt.Errorf("pattern %q: %w", f.Pattern, err)
	}
	return nil
}

// faults decides which operations wait and which fail.
type faults struct {
	mu       sync.Mutex
	changed  chan struct{} // closed when waiting operations have to look again
	hang     Scope         // "": none
	slow     Scope
	delay    time.Duration
	failures []*Failure
	failed   int64 // operations, so far
	waiting  int64 // operations, now
}

func newFaults() *faults { return &faults{changed: make(chan struct{})} }

// set changes the faults, and wakes whoever waits.
func (f *faults) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// idle says that no operation waits or fails.
func (f *faults) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hang == "" && f.slow == "" && len(f.failures) == 0
}

func (f *faults) hangs(op Op) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hang.has(op)
}

// wait lets an operation take its time. It gives false if the operation was
// given up, or if gone says that there is nothing to wait for any more.
func (f *faults) wait(op Op, cancel <-chan struct{}, gone func() bool) bool {
	f.mu.Lock()
	slow, delay, hung := f.slow.has(op), f.delay, f.hang.has(op)
	if slow || hung {
		f.waiting++
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.waiting--
		}()
	}
	f.mu.Unlock()
	if slow {
		if !f.sleep(delay, cancel, gone) {
			return false
		}
	}
	for {
		f.mu.Lock()
		hung, changed := f.hang.has(op), f.changed // together, to miss no change
		f.mu.Unlock()
		if gone() {
			return false
		}
		if !hung {
			return true
		}
		select {
		case <-changed:
		case <-cancel:
			return false
		}
	}
}

func (f *faults) sleep(d time.Duration, cancel <-chan struct{}, gone func() bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		if gone() {
			return false
		}
		select {
		case <-timer.C:
			return true
		case <-changed:
		case <-cancel:
			return false
		}
	}
}

// fail gives the error that the operation has to fail with, 0 for none.
func (f *faults) fail(op Op, name string) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, rule := range f.failures {
		if rule.Op != op || !matches(rule.Pattern, name) {
			continue
		}
		if rule.Skip > 0 {
			rule.Skip--
			continue
		}
		if rule.Count > 0 {
			if rule.Count--; rule.Count == 0 {
				f.failures = slices.Delete(f.failures, i, i+1)
			}
		}
		f.failed++
		return rule.Errno
	}
	return 0
}

// count gives how many operations were made to fail, and how many wait.
func (f *faults) count() (failed, waiting int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed, f.waiting
}

// glob is path.Match of a pattern that was looked at before.
func glob(pattern, name string) bool {
	ok, _ := path.Match(pattern, name)
	return ok
}
