package powerfs

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// maxWrite is the most that one request of the kernel carries, bytes.
const maxWrite = 1 << 20

// Mount is a file system that this process serves. Its methods may be called
// concurrently.
type Mount struct {
	dir    string
	disk   *disk
	server *fuse.Server
	served chan struct{} // closed when nothing is served any more
	behind sync.WaitGroup
}

// Loss says what a power loss leaves.
type Loss struct {
	// Torn lets a part of what was not synced survive, chosen by Seed; else
	// nothing of it does.
	Torn bool
	Seed uint64
}

// New mounts a file system on a directory, with the backing directory for its
// platter. Both must exist. An error that matches ErrUnavailable says that this
// machine has no FUSE for us.
func New(mountPoint, backing string) (*Mount, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	backing, err := filepath.Abs(backing)
	if err != nil {
		return nil, err
	}
	d, err := newDisk(backing)
	if err != nil {
		return nil, fmt.Errorf("backing directory: %w", err)
	}
	m := &Mount{dir: mountPoint, disk: d, served: make(chan struct{})}
	m.server, err = fuse.NewServer(newServer(d), mountPoint, &fuse.MountOptions{
		FsName: "powerfs", Name: "powerfs", DirectMountStrict: true, AllowOther: true,
		MaxWrite: maxWrite, ExplicitDataCacheControl: true, DisableReadDirPlus: true, DisableXAttrs: true,
		Logger: log.New(io.Discard, "", 0), // it tells of interrupted requests
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mounting %s: %w", mountPoint, err), d.close())
	}
	go func() {
		defer close(m.served)
		m.server.Serve()
	}()
	if err := m.server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting %s: %w", mountPoint, err), m.Close())
	}
	return m, nil
}

// ErrUnavailable is matched by the error of New and Start where FUSE can't be
// used; tests then skip.
var ErrUnavailable = errors.New("no FUSE")

// Available says why file systems can't be mounted here.
func Available() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: only root can mount", ErrUnavailable)
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return f.Close()
}

// Close unmounts, also while files are open, and makes everything durable as an
// orderly stop of a machine does.
func (m *Mount) Close() error {
	_ = m.Heal() // never fails; who hangs would keep the kernel from letting go
	err := syscall.Unmount(m.dir, syscall.MNT_DETACH)
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", m.dir, err)
	}
	<-m.served
	m.behind.Wait()
	return m.disk.close()
}

// Gone is closed when the file system is unmounted and no file of it is open.
func (m *Mount) Gone() <-chan struct{} { return m.served }

// PowerLoss drops what was not synced. From now on everything fails with EIO.
func (m *Mount) PowerLoss(loss Loss) error {
	known, err := m.disk.lose(loss)
	m.disk.faults.set(func() {}) // whoever waits fails now
	m.invalidate(known...)
	return err
}

// PowerOn lets operations succeed again, but for those on what was open.
func (m *Mount) PowerOn() error {
	m.disk.powerOn()
	return nil
}

// Slow delays each operation of the scope; 0 is no delay.
func (m *Mount) Slow(scope Scope, delay time.Duration) error {
	if scope != Syncs && scope != All {
		return fmt.Errorf("there is no scope %q", scope)
	}
	if delay <= 0 {
		scope = ""
	}
	m.disk.faults.set(func() { m.disk.faults.slow, m.disk.faults.delay = scope, delay })
	return nil
}

// Hang keeps operations of the scope waiting until Unhang, a power loss, or
// until whoever waits is killed, which a real disk would not permit.
func (m *Mount) Hang(scope Scope) error {
	if scope != Syncs && scope != All {
		return fmt.Errorf("there is no scope %q", scope)
	}
	m.disk.faults.set(func() { m.disk.faults.hang = scope })
	return nil
}

// Unhang lets what hangs go on.
func (m *Mount) Unhang() error {
	m.disk.faults.set(func() { m.disk.faults.hang = "" })
	return nil
}

// Full lets files grow by so many bytes, all together, and no more; less than
// 0 is no bound. A write that does not fit is done in part, and then ENOSPC.
func (m *Mount) Full(left int64) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.disk.room = -1
	if left >= 0 {
		m.disk.room = m.disk.used + left
	}
	return nil
}

// Lie lets syncs do nothing and succeed.
func (m *Mount) Lie(on bool) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.disk.lies = on
	return nil
}

// Fail lets operations fail. A sync that fails loses what it should have made
// durable; a write is half done.
func (m *Mount) Fail(f Failure) error {
	if f.Errno == 0 {
		f.Errno = syscall.EIO
	}
	if err := f.validate(); err != nil {
		return err
	}
	m.disk.faults.set(func() { m.disk.faults.failures = append(m.disk.faults.failures, &f) })
	if f.Op == OpRead {
		m.dropCaches() // so that reads come here
	}
	return nil
}

// Heal ends Slow, Hang, Full, Lie and Fail.
func (m *Mount) Heal() error {
	m.disk.mu.Lock()
	m.disk.room, m.disk.lies = -1, false
	m.disk.mu.Unlock()
	m.disk.faults.set(func() { m.disk.faults.hang, m.disk.faults.slow, m.disk.faults.failures = "", "", nil })
	return nil
}

// FlipBit inverts a bit on the platter, of a file whose path matches (as in
// Failure), both chosen by the seed, and lets readers see it.
func (m *Mount) FlipBit(pattern string, seed uint64) (Flip, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return Flip{}, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	m.disk.mu.Lock()
	flip, id, err := m.disk.flip(pattern, seed)
	m.disk.mu.Unlock()
	if err == nil {
		m.invalidate(id)
	}
	return flip, err
}

// CutFile shortens a file on the platter, chosen as in FlipBit.
func (m *Mount) CutFile(pattern string, seed uint64) (Cut, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return Cut{}, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	m.disk.mu.Lock()
	cut, id, err := m.disk.cut(pattern, seed)
	m.disk.mu.Unlock()
	if err == nil {
		m.invalidate(id)
	}
	return cut, err
}

// Stats counts what has happened.
func (m *Mount) Stats() (Stats, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return m.disk.count(), nil
}

func (m *Mount) dropCaches() {
	m.disk.mu.Lock()
	ids := m.disk.knownIDs()
	m.disk.mu.Unlock()
	m.invalidate(ids...)
}

// invalidate lets the kernel forget what is in files. That waits for their
// reads; if those hang, it is done when they go on.
func (m *Mount) invalidate(ids ...uint64) {
	done := make(chan struct{})
	m.behind.Go(func() {
		defer close(done)
		for _, id := range ids {
			_ = m.server.InodeNotify(id, 0, 0) // fails if nothing is cached
		}
	})
	if !m.disk.faults.hangs(OpRead) {
		<-done
	}
}
