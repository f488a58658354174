package recordlog

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FS is all that the record log asks of a file system. MemFS is the one for
// tests: it forgets what was not synced, tears, flips, fills up and fails.
//
// Names are slash-separated paths. Errors of a missing file match
// fs.ErrNotExist, those of a full disk match unix.ENOSPC.
type FS interface {
	// Open opens a file. Create makes it if it is missing; Direct asks for
	// writes and reads past the page cache, for which memory, position and
	// length must be multiples of 4096; where the file system refuses that,
	// the file is opened without.
	Open(name string, mode Mode) (File, error)
	// List gives the entries of a directory in no particular order.
	List(dir string) ([]Entry, error)
	// Stat gives one entry.
	Stat(name string) (Entry, error)
	// Mkdir makes one directory; it is no error if it exists.
	Mkdir(dir string) error
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes creations, renames and removals in the directory durable.
	SyncDir(dir string) error
	// Free gives the bytes that can still be written below the directory.
	Free(dir string) (int64, error)
}

// Mode says how to open a file.
type Mode uint8

// The modes; they are or-ed together.
const (
	ReadOnly Mode = 0
	Write    Mode = 1 << iota
	Create
	Direct
)

// Entry is what List and Stat tell of a file or directory.
type Entry struct {
	Name string // without its directory
	Dir  bool
	Size int64
}

// File is an open file. Methods may be called concurrently.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes written bytes and the size durable, as fdatasync does. After
	// an error nothing is known of any byte written since the last success.
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
	// DropCache forgets clean cached pages, so that the next read asks the disk.
	DropCache()
}

type realFS struct{}

type realFile struct{ *os.File }

func (realFS) Open(name string, mode Mode) (File, error) {
	flags := os.O_RDONLY
	if mode&(Write|Create) != 0 {
		flags = os.O_RDWR
	}
	if mode&Create != 0 {
		flags |= os.O_CREATE
	}
	if mode&Direct != 0 {
		if f, err := os.OpenFile(name, flags|unix.O_DIRECT, 0o644); err == nil {
			return realFile{f}, nil
		} else if !errors.Is(err, unix.EINVAL) {
			return nil, err
		}
		// tmpfs and others know no direct access.
	}
	f, err := os.OpenFile(name, flags, 0o644)
	if err != nil {
		return nil, err
	}
	return realFile{f}, nil
}

func (f realFile) Sync() error {
	for {
		// EINTR comes before anything was done; any other error is final.
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}

func (f realFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f realFile) DropCache() { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

func (realFS) List(dir string) ([]Entry, error) {
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(found))
	for _, e := range found {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, Entry{e.Name(), e.IsDir(), info.Size()})
	}
	return entries, nil
}

func (realFS) Stat(name string) (Entry, error) {
	info, err := os.Stat(name)
	if err != nil {
		return Entry{}, err
	}
	return Entry{info.Name(), info.IsDir(), info.Size()}, nil
}

func (realFS) Mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (realFS) Rename(from, to string) error { return os.Rename(from, to) }
func (realFS) Remove(name string) error     { return os.Remove(name) }

func (realFS) SyncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (realFS) Free(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
