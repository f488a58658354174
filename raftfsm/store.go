package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"shardstream/stream"
)

const (
	boltFile = "raft.db"
	markFile = "raft.mark"
)

// boltStore is what store needs of raftboltdb.BoltStore; tests put failing
// ones in its place.
type boltStore interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// store is raft's log and stable store: raft-boltdb, with a checksum on all
// that it holds and a mark beside it.
//
// bbolt checks its meta pages only. So each log entry carries a CRC32C in its
// Extensions, also on its way to other nodes, each stable value carries one
// behind it, and the mark says how far the log and the stable values had come:
// bbolt going back by a transaction, or losing the end of a page, is found out.
// What fails a check is refused by name of file and index; it is never served,
// skipped or cut (I13, I14).
//
// The first error of any call is the last: it goes to fatal, and each later
// call gets it again (I15).
type store struct {
	bolt  boltStore
	mark  *mark
	path  string
	fatal func(error)
	calls underway

	// writing is held over each write, so that the fields below don't move
	// under it: raft compacts on another goroutine than it stores.
	writing sync.Mutex

	mu          sync.Mutex
	err         error  // sticky
	first, last uint64 // of the log, 0 if it is empty
}

var (
	_ raft.LogStore          = (*store)(nil)
	_ raft.StableStore       = (*store)(nil)
	_ raft.MonotonicLogStore = (*store)(nil)
)

// openStore opens the log in dir, creating it if there is none, and checks all
// that it holds.
func openStore(dir string, fatal func(error)) (_ *store, err error) {
	s := &store{path: filepath.Join(dir, boltFile), fatal: fatal}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	_, statErr := os.Stat(s.path)
	isNew := errors.Is(statErr, os.ErrNotExist)
	if statErr != nil && !isNew {
		return nil, statErr
	}
	// The mark comes first, so that a log without one is never a log half made.
	if s.mark, err = openMark(filepath.Join(dir, markFile), isNew); err != nil {
		return nil, err
	}
	if isNew && s.mark.marks != (marks{}) {
		return nil, damaged(s.path, "it is missing, and %s says that it had entries up to %d", markFile, s.mark.last)
	}
	if !isNew {
		if err := checkBolt(s.path); err != nil {
			return nil, err
		}
	}
	err = trap(s.path, func() error {
		b, err := raftboltdb.New(raftboltdb.Options{Path: s.path, BoltOptions: &bbolt.Options{
			Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
		}})
		if err != nil {
			return err
		}
		s.bolt = b
		return nil
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, stream.Errorf(stream.Unavailable, "raftfsm.Open", "%s is in use by another process", s.path)
	case err != nil:
		return nil, err
	}
	if isNew {
		if err := syncDir(dir); err != nil {
			return nil, err
		}
	}
	return s, s.scan()
}

// scan verifies every entry and every stable value.
func (s *store) scan() error {
	return trap(s.path, func() error {
		var err error
		if s.first, err = s.bolt.FirstIndex(); err != nil {
			return err
		}
		if s.last, err = s.bolt.LastIndex(); err != nil {
			return err
		}
		if s.last < s.mark.last {
			return damaged(s.path, "it ends at entry %d, but held entry %d", s.last, s.mark.last)
		}
		if s.mark.last > 0 && s.first > s.mark.first {
			return damaged(s.path, "it begins at entry %d, but held entry %d", s.first, s.mark.first)
		}
		for i := s.first; i > 0 && i <= s.last; i++ {
			var log raft.Log
			if err := s.read(i, &log); err != nil {
				return err
			}
			if i == s.mark.last && log.Term != s.mark.term {
				return damaged(s.path, "entry %d is of term %d, but was of term %d", i, log.Term, s.mark.term)
			}
		}
		for i, key := range stableKeys {
			_, seq, err := s.stable(key)
			if err != nil {
				return err
			}
			if seq < s.mark.stable[i] {
				return damaged(s.path, "the value of %s has gone back", key)
			}
			s.mark.stable[i] = seq
		}
		return nil
	})
}

// Close closes the files.
func (s *store) Close() error {
	var err error
	if s.bolt != nil {
		err = trap(s.path, s.bolt.Close)
	}
	if s.mark != nil {
		err = errors.Join(err, s.mark.Close())
	}
	return err
}

// IsMonotonic tells raft that the log has no gaps, not even after a snapshot
// from another node was installed.
func (s *store) IsMonotonic() bool { return true }

// FirstIndex gives the first index of the log, 0 if it is empty.
func (s *store) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, s.err
}

// LastIndex gives the last index of the log, 0 if it is empty.
func (s *store) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.err
}

// GetLog reads and verifies an entry; raft.ErrLogNotFound outside the log.
func (s *store) GetLog(index uint64, log *raft.Log) error {
	defer s.calls.begin()()
	s.mu.Lock()
	first, last, err := s.first, s.last, s.err
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if index < first || index > last || index == 0 {
		return raft.ErrLogNotFound
	}
	err = trap(s.path, func() error { return s.read(index, log) })
	if err == nil {
		return nil
	}
	// The entry may have been cut or compacted away since.
	s.mu.Lock()
	gone := index < s.first || index > s.last
	s.mu.Unlock()
	if gone {
		return raft.ErrLogNotFound
	}
	return s.fail(err)
}

func (s *store) read(index uint64, log *raft.Log) error {
	err := s.bolt.GetLog(index, log)
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		return damaged(s.path, "entry %d is missing", index)
	case err != nil:
		return damaged(s.path, "entry %d: %w", index, err)
	case log.Index != index:
		return damaged(s.path, "entry %d says that it is entry %d", index, log.Index)
	case !sealed(log):
		return damaged(s.path, "entry %d fails its checksum", index)
	}
	return nil
}

// StoreLog is part of raft.LogStore.
func (s *store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs makes entries durable. Those from another node come sealed and are
// verified; the node's own get their seal here.
func (s *store) StoreLogs(logs []*raft.Log) error {
	defer s.calls.begin()()
	if len(logs) == 0 {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	first, last, err := s.bounds()
	if err != nil {
		return err
	}
	if first == 0 {
		first = logs[0].Index
	}
	for i, log := range logs {
		if len(log.Extensions) == 0 {
			log.Extensions = seal(log)
		} else if !sealed(log) {
			return s.fail(stream.Errorf(stream.Corrupt, "raftfsm.StoreLogs",
				"raft entry %d came with a checksum that it fails", log.Index))
		}
		if want := last + 1 + uint64(i); last > 0 && log.Index != want {
			return s.fail(damaged(s.path, "entry %d would follow entry %d", log.Index, want-1))
		}
	}
	end := logs[len(logs)-1]
	return s.write(func() error {
		if err := s.bolt.StoreLogs(logs); err != nil {
			return err
		}
		next := s.mark.marks
		next.first, next.last, next.term = first, end.Index, end.Term
		return s.mark.set(next)
	}, func() {
		s.first, s.last = first, end.Index
	})
}

// DeleteRange removes the entries from lo to hi, both included.
func (s *store) DeleteRange(lo, hi uint64) error {
	defer s.calls.begin()()
	s.writing.Lock()
	defer s.writing.Unlock()
	first, last, err := s.bounds()
	if err != nil {
		return err
	}
	if last == 0 || hi < first || lo > last {
		return nil
	}
	lo = max(lo, first)
	var before raft.Log // the entry that ends the log afterwards
	switch {
	case hi < last && lo > first: // raft cuts at either end
		return s.fail(stream.Errorf(stream.Internal, "raftfsm.DeleteRange", "[%d,%d] would leave a gap in [%d,%d]", lo, hi, first, last))
	case hi >= last && lo > first:
		if err := s.GetLog(lo-1, &before); err != nil {
			return s.fail(err)
		}
	}
	next := marks{first: first, last: before.Index, term: before.Term}
	switch {
	case hi < last:
		next.first, next.last = hi+1, last
	case lo == first:
		next.first = 0
	}
	return s.write(func() error {
		// What is about to go, the mark must not promise any longer.
		m := s.mark.marks
		m.first, m.last = next.first, next.last
		if hi >= last {
			m.term = next.term
		}
		if err := s.mark.set(m); err != nil {
			return err
		}
		return s.bolt.DeleteRange(lo, hi)
	}, func() { s.first, s.last = next.first, next.last })
}

// stableKeys are the keys of raft's stable store.
var stableKeys = [...]string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"}

// Set makes a stable value durable.
func (s *store) Set(key, val []byte) error {
	defer s.calls.begin()()
	slot := -1
	for i, k := range stableKeys {
		if k == string(key) {
			slot = i
		}
	}
	if slot < 0 {
		return s.fail(stream.Errorf(stream.Internal, "raftfsm.Set", "unknown key %q", key))
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.write(func() error {
		next := s.mark.marks
		next.stable[slot]++
		buf := binary.BigEndian.AppendUint64(nil, next.stable[slot])
		buf = append(buf, val...)
		buf = binary.BigEndian.AppendUint32(buf, stableSum(key, buf))
		if err := s.bolt.Set(key, buf); err != nil {
			return err
		}
		return s.mark.set(next)
	}, func() {})
}

// Get gives a stable value, nil if it was never set.
func (s *store) Get(key []byte) ([]byte, error) {
	defer s.calls.begin()()
	if _, _, err := s.bounds(); err != nil {
		return nil, err
	}
	var val []byte
	err := trap(s.path, func() (err error) {
		val, _, err = s.stable(string(key))
		return err
	})
	if err != nil {
		return nil, s.fail(err)
	}
	return val, nil
}

// SetUint64 is part of raft.StableStore.
func (s *store) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 gives a stable number, 0 if it was never set.
func (s *store) GetUint64(key []byte) (uint64, error) {
	val, err := s.Get(key)
	if err != nil || val == nil {
		return 0, err
	}
	if len(val) != 8 {
		return 0, s.fail(damaged(s.path, "the value of %s has %d bytes", key, len(val)))
	}
	return binary.BigEndian.Uint64(val), nil
}

// stable reads a value and the number of times that it was set.
func (s *store) stable(key string) (val []byte, seq uint64, err error) {
	buf, err := s.bolt.Get([]byte(key))
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		return nil, 0, nil
	case err != nil:
		return nil, 0, err
	case len(buf) < 12 || stableSum([]byte(key), buf[:len(buf)-4]) != binary.BigEndian.Uint32(buf[len(buf)-4:]):
		return nil, 0, damaged(s.path, "the value of %s fails its checksum", key)
	}
	return buf[8 : len(buf)-4], binary.BigEndian.Uint64(buf), nil
}

func (s *store) bounds() (first, last uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, s.last, s.err
}

// write runs a change of the files and then, if it went well, of the fields.
func (s *store) write(files func() error, fields func()) error {
	if _, _, err := s.bounds(); err != nil {
		return err
	}
	if err := trap(s.path, files); err != nil {
		return s.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fields()
	return nil
}

// fail makes the first error stick and tells the node's owner.
func (s *store) fail(err error) error {
	s.mu.Lock()
	already := s.err != nil
	if !already {
		s.err = err
	}
	err = s.err
	s.mu.Unlock()
	if !already {
		s.fatal(err)
	}
	return err
}

// trap turns a panic of bbolt, which it uses for damaged pages, and a fault
// in its memory map, which is an unreadable sector, into an error.
func trap(path string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(path, "%v", p)
		}
	}()
	if err = f(); err == nil {
		return nil
	}
	var ours *stream.Error
	if errors.As(err, &ours) || errors.Is(err, bolterrors.ErrTimeout) {
		return err
	}
	switch {
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch),
		errors.Is(err, bolterrors.ErrIncompatibleValue): // a bucket that is a value, or the reverse
		return damaged(path, "%w", err)
	}
	return stream.Errorf(stream.Internal, "raftfsm", "%s: %w", path, err)
}

// damaged says in one line which file is bad and why.
func damaged(path, format string, args ...any) *stream.Error {
	return stream.Errorf(stream.Corrupt, "raftfsm", "%s is damaged: %w", path, fmt.Errorf(format, args...))
}

const sealVersion = 1

// seal gives an entry's checksum, for its Extensions:
//
//	version u8 = 1 | CRC32C u32 big-endian over index, term, type, data
func seal(log *raft.Log) []byte {
	var head [17]byte
	binary.BigEndian.PutUint64(head[:], log.Index)
	binary.BigEndian.PutUint64(head[8:], log.Term)
	head[16] = byte(log.Type)
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, log.Data)
	return binary.BigEndian.AppendUint32([]byte{sealVersion}, sum)
}

func sealed(log *raft.Log) bool { return string(log.Extensions) == string(seal(log)) }

func stableSum(key, val []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, val)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
