package broker

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/uuid"

	"shardstream/stream"
)

// formatVersion is that of the data directory as a whole. A newer one is refused.
const formatVersion = 1

// identity is what a data directory says of itself, in identity.json.
type identity struct {
	ClusterID     string        `json:"cluster_id"`
	NodeID        stream.NodeID `json:"node_id"`
	DiskID        string        `json:"disk_id"`
	FormatVersion int           `json:"format_version"`
	Checksum      string        `json:"checksum"` // CRC32C of the fields above
}

func (id identity) checksum() string {
	text := fmt.Sprintf("%s\n%s\n%s\n%d\n", id.ClusterID, id.NodeID, id.DiskID, id.FormatVersion)
	return fmt.Sprintf("%08x", crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)))
}

// loadIdentity reads identity.json, or writes a new one into an empty
// directory. The node id in the file beats the default one (containers change
// their hostname); an explicit other one is refused.
func loadIdentity(dir string, explicit, fallback stream.NodeID, lone bool) (id identity, err error) {
	path := filepath.Join(dir, "identity.json")
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newIdentity(dir, path, explicit, fallback, lone)
	case err != nil:
		return id, fmt.Errorf("can't read the data directory's identity: %w", err)
	}
	if err := json.Unmarshal(text, &id); err != nil {
		return id, stream.Errorf(stream.Corrupt, "broker.Open", "%s is damaged: %w; restore it from a backup of this directory", path, err)
	}
	if id.FormatVersion > formatVersion {
		return id, fmt.Errorf("data directory %s has format %d, this shardstream knows up to %d: run the newer version on it", dir, id.FormatVersion, formatVersion)
	}
	if id.Checksum != id.checksum() {
		return id, stream.Errorf(stream.Corrupt, "broker.Open", "%s is damaged: checksum %s, stored %s; restore it from a backup of this directory", path, id.checksum(), id.Checksum)
	}
	if explicit != "" && explicit != id.NodeID {
		return id, fmt.Errorf("data directory %s belongs to node %q, not to %q: leave --node-id out or use another --data-dir", dir, id.NodeID, explicit)
	}
	return id, nil
}

func newIdentity(dir, path string, explicit, fallback stream.NodeID, lone bool) (identity, error) {
	// Without an identity there must be no data either: a lost file must not
	// turn a full disk into a new node's.
	for _, sub := range []string{"journal", "raft", "shards"} {
		if _, err := os.Stat(filepath.Join(dir, sub)); err == nil {
			return identity{}, fmt.Errorf("data directory %s holds data but no identity.json: restore that file, or use an empty directory", dir)
		}
	}
	id := identity{NodeID: fallback, DiskID: uuid.NewString(), FormatVersion: formatVersion}
	if lone { // its own cluster; a node with peers has yet to find its cluster
		id.ClusterID = uuid.NewString()
	}
	if explicit != "" {
		id.NodeID = explicit
	}
	if err := id.save(dir); err != nil {
		return id, fmt.Errorf("can't write the data directory's identity: %w", err)
	}
	return id, nil
}

// save writes the identity, with its checksum.
func (id *identity) save(dir string) error {
	id.Checksum = id.checksum()
	text, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeFileDurably(filepath.Join(dir, "identity.json"), append(text, '\n'))
}

// syncDir makes the creations, renames and removals in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDirDurably makes a directory with those above it, as os.MkdirAll does, and
// their names durable: else a power loss takes what was synced in them along.
// For one that exists this is done again, since whoever made it may have been
// killed before; if it can't be done, what is above is no directory of ours.
func makeDirDurably(dir string) error {
	parent := filepath.Dir(dir)
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := makeDirDurably(parent); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return errors.Join(err, &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR})
		}
		if err := syncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EINVAL) {
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(parent)
}

// writeFileDurably puts a file in place as a whole: temporary name, sync,
// rename, sync of the directory.
func writeFileDurably(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// lockDir takes the directory's LOCK for this process, or says who has it. The
// kernel gives it back when the process ends, however it ends.
func lockDir(dir string) (release func() error, err error) {
	path := filepath.Join(dir, "LOCK")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("can't open %s: %w", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path)
		f.Close()
		return nil, fmt.Errorf("data directory %s is in use by another shardstream (process %s): stop it first, or use another --data-dir", dir, string(holder))
	}
	if err := errors.Join(f.Truncate(0), writeAll(f, fmt.Sprint(os.Getpid()))); err != nil {
		f.Close()
		return nil, fmt.Errorf("can't write %s: %w", path, err)
	}
	return f.Close, nil
}

func writeAll(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// newTokenKey gives 32 random bytes, which seal iterators and page tokens.
func newTokenKey() []byte {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return key
}
