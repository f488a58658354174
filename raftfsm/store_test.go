package raftfsm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	bolterrors "go.etcd.io/bbolt/errors"

	"shardstream/stream"
)

// contents is all that a store holds, as far as raft can tell.
func contents(s *store) (string, error) {
	var b strings.Builder
	first, last, err := s.bounds()
	if err != nil {
		return "", err
	}
	fmt.Fprintln(&b, first, last)
	for i := first; i > 0 && i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			return "", err
		}
		fmt.Fprintln(&b, l.Index, l.Term, l.Type, l.Data)
	}
	for _, key := range stableKeys {
		v, err := s.Get([]byte(key))
		if err != nil {
			return "", err
		}
		fmt.Fprintln(&b, key, v)
	}
	return b.String(), nil
}

// fillStore writes a log of several pages, compacts it, and votes.
func fillStore(tb testing.TB, dir string, entries int) {
	tb.Helper()
	s := openTestStore(tb, dir)
	check := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	check(s.SetUint64([]byte("CurrentTerm"), 1))
	for i := 1; i <= entries; i += 3 {
		var logs []*raft.Log
		for j := range min(3, entries-i+1) {
			data := make([]byte, rnd.IntN(300))
			for k := range data {
				data[k] = byte(rnd.Uint32())
			}
			logs = append(logs, &raft.Log{Index: uint64(i + j), Term: 1 + uint64(i)/20, Data: data})
		}
		check(s.StoreLogs(logs))
	}
	check(s.SetUint64([]byte("CurrentTerm"), 7))
	check(s.SetUint64([]byte("LastVoteTerm"), 7))
	check(s.Set([]byte("LastVoteCand"), []byte("n1/01234567")))
	check(s.DeleteRange(1, uint64(entries/5)))
	check(s.Close())
}

func openTestStore(tb testing.TB, dir string) *store {
	tb.Helper()
	s, err := openStore(dir, func(err error) { tb.Errorf("fatal: %v", err) })
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestStoreReopens(t *testing.T) {
	dir := t.TempDir()
	fillStore(t, dir, 100)
	s := openTestStore(t, dir)
	defer s.Close()
	if first, last, _ := s.bounds(); first != 21 || last != 100 {
		t.Errorf("log [%d,%d]", first, last)
	}
	if v, err := s.GetUint64([]byte("CurrentTerm")); v != 7 || err != nil {
		t.Errorf("term %d, %v", v, err)
	}
	var l raft.Log
	if err := s.GetLog(20, &l); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("a compacted entry: %v", err)
	}
	if err := s.GetLog(101, &l); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an entry behind the end: %v", err)
	}
}

// A follower's log is cut where the leader's differs, and grows again.
func TestStoreCutsTheEnd(t *testing.T) {
	dir := t.TempDir()
	fillStore(t, dir, 100)
	s := openTestStore(t, dir)
	if err := s.DeleteRange(90, 100); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir)
	if err := s.StoreLog(&raft.Log{Index: 90, Term: 50}); err != nil {
		t.Fatal(err)
	}
	want, err := contents(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir)
	if got, err := contents(s); err != nil || got != want {
		t.Errorf("%v: got another log", err)
	}
	if err := s.DeleteRange(21, 90); err != nil { // as after a snapshot from the leader
		t.Fatal(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 500, Term: 51}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir)
	defer s.Close()
	if first, last, _ := s.bounds(); first != 500 || last != 500 {
		t.Errorf("log [%d,%d]", first, last)
	}
}

// A store with a flipped bit is refused by name, or it shows what it showed
// before: each byte of what is small and near what matters, a sample of the
// rest (I13).
//
// Each flip costs an open; the long form tries them all.
func TestStoreBitFlips(t *testing.T) {
	long := os.Getenv("SHARDSTREAM_LONG") != ""
	for _, entries := range []int{0, 100} {
		t.Run(fmt.Sprint(entries), func(t *testing.T) {
			dir := t.TempDir()
			fillStore(t, dir, max(entries, 1))
			if entries == 0 { // an empty log
				s := openTestStore(t, dir)
				if err := s.DeleteRange(1, 1); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			want := flipWant(t, dir)
			rnd := rand.New(rand.NewPCG(3, uint64(entries)))
			refused, found := 0, 0
			for _, file := range []string{boltFile, markFile} {
				good, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil {
					t.Fatal(err)
				}
				for i := range good {
					// Page headers and the elements behind them are where a flip
					// changes what the rest means.
					if i%4096 > 64 && rnd.IntN(80) > 0 || !long && rnd.IntN(30) > 0 {
						continue
					}
					bad := bytes.Clone(good)
					bad[i] ^= 1 << rnd.IntN(8)
					found++
					if flipTried(t, dir, file, bad, fmt.Sprintf("byte %d of %s", i, file), want) {
						refused++
					}
				}
			}
			t.Logf("%d flips, %d refused", found, refused)
			if refused == 0 {
				t.Error("no flip was found")
			}
		})
	}
}

func flipWant(t *testing.T, dir string) string {
	t.Helper()
	s := openTestStore(t, dir)
	defer s.Close()
	want, err := contents(s)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// flipTried opens a copy of the store with one file replaced.
func flipTried(t *testing.T, dir, file string, bad []byte, what, want string) (refused bool) {
	t.Helper()
	copied := t.TempDir()
	for _, f := range []string{boltFile, markFile} {
		data := bad
		if f != file {
			var err error
			if data, err = os.ReadFile(filepath.Join(dir, f)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(copied, f), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := openStore(copied, func(error) {})
	if err == nil {
		defer s.Close()
		var got string
		if got, err = contents(s); err == nil {
			if got != want {
				t.Errorf("%s: accepted with other contents", what)
			}
			return false
		}
	}
	if stream.KindOf(err) != stream.Corrupt || !strings.Contains(err.Error(), file) && !strings.Contains(err.Error(), boltFile) ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: refused as %v", what, err)
	}
	return true
}

// bbolt falls back to its other meta page when one is bad, which takes the
// last transaction back: a vote, or an acknowledged entry.
func TestStoreFindsLostTransaction(t *testing.T) {
	for name, last := range map[string]func(*store) error{
		"entry": func(s *store) error { return s.StoreLog(&raft.Log{Index: 101, Term: 9}) },
		"vote":  func(s *store) error { return s.SetUint64([]byte("LastVoteTerm"), 8) },
	} {
		dir := t.TempDir()
		fillStore(t, dir, 100)
		s := openTestStore(t, dir)
		if err := last(s); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		good, err := os.ReadFile(filepath.Join(dir, boltFile))
		if err != nil {
			t.Fatal(err)
		}
		want := flipWant(t, dir)
		refused := 0
		for _, page := range []int{0, 4096} {
			bad := bytes.Clone(good)
			bad[page+boltHeader+48] ^= 1 // the transaction id
			if flipTried(t, dir, boltFile, bad, fmt.Sprintf("%s: meta page at %d", name, page), want) {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("%s: %d of two meta pages are needed, not one", name, refused)
		}
	}
}

func TestStoreMissingFiles(t *testing.T) {
	for _, file := range []string{boltFile, markFile} {
		dir := t.TempDir()
		fillStore(t, dir, 10)
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
		_, err := openStore(dir, func(error) {})
		if stream.KindOf(err) != stream.Corrupt || !strings.Contains(err.Error(), file) {
			t.Errorf("without %s: %v", file, err)
		}
	}
}

func TestStoreTruncated(t *testing.T) {
	dir := t.TempDir()
	fillStore(t, dir, 100)
	want := flipWant(t, dir)
	for _, file := range []string{boltFile, markFile} {
		good, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(good); n += 512 {
			flipTried(t, dir, file, good[:n], fmt.Sprintf("%s cut to %d bytes", file, n), want)
		}
	}
}

// A crash before the mark was written leaves a store that holds more.
func TestStoreAheadOfMark(t *testing.T) {
	dir := t.TempDir()
	fillStore(t, dir, 10)
	mark, err := os.ReadFile(filepath.Join(dir, markFile))
	if err != nil {
		t.Fatal(err)
	}
	s := openTestStore(t, dir)
	if err := errors.Join(s.StoreLog(&raft.Log{Index: 11, Term: 9}), s.SetUint64([]byte("CurrentTerm"), 9), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, markFile), mark, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir)
	if _, last, _ := s.bounds(); last != 11 {
		t.Errorf("last entry %d", last)
	}
	// The next write must count on from what is there, not from the mark.
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 10), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir)
	if v, err := s.GetUint64([]byte("CurrentTerm")); v != 10 || err != nil {
		t.Errorf("term %d, %v", v, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStoreRefusesForeignDamage(t *testing.T) {
	var told error
	s, err := openStore(t.TempDir(), func(err error) { told = err })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := &raft.Log{Index: 1, Term: 1, Data: []byte("x")}
	l.Extensions = seal(l)
	l.Data = []byte("y")
	if err := s.StoreLog(l); stream.KindOf(err) != stream.Corrupt || !errors.Is(told, stream.Corrupt) {
		t.Errorf("%v, told %v", err, told)
	}
}

func TestStoreRefusesGap(t *testing.T) {
	var told error
	s, err := openStore(t.TempDir(), func(err error) { told = err })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.StoreLog(&raft.Log{Index: 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 3, Term: 1}); err == nil || told == nil {
		t.Error("a gap was stored")
	}
}

// faulty fails or panics from its n-th call on.
type faulty struct {
	boltStore
	calls, from int
	panics      bool
}

var errDisk = errors.New("input/output error")

func (f *faulty) next() error {
	f.calls++
	if f.calls < f.from {
		return nil
	}
	if f.panics {
		panic("page 7 says that it is page 9")
	}
	return errDisk
}

func (f *faulty) GetLog(i uint64, l *raft.Log) error {
	return errors.Join(f.next(), f.boltStore.GetLog(i, l))
}

func (f *faulty) StoreLogs(l []*raft.Log) error {
	return errors.Join(f.next(), f.boltStore.StoreLogs(l))
}

func (f *faulty) DeleteRange(a, b uint64) error {
	return errors.Join(f.next(), f.boltStore.DeleteRange(a, b))
}

func (f *faulty) Set(k, v []byte) error { return errors.Join(f.next(), f.boltStore.Set(k, v)) }

func (f *faulty) Get(k []byte) ([]byte, error) {
	v, err := f.boltStore.Get(k)
	return v, errors.Join(f.next(), err)
}

// Each call that meets an error says so, once, and from then on the store
// gives nothing but that error (I15).
func TestStoreErrorIsFatalAndSticky(t *testing.T) {
	ops := map[string]func(*store) error{
		"GetLog":      func(s *store) error { return s.GetLog(30, new(raft.Log)) },
		"StoreLogs":   func(s *store) error { return s.StoreLog(&raft.Log{Index: 101, Term: 9}) },
		"DeleteRange": func(s *store) error { return s.DeleteRange(21, 22) },
		"Set":         func(s *store) error { return s.SetUint64([]byte("CurrentTerm"), 8) },
		"Get":         func(s *store) error { _, err := s.GetUint64([]byte("CurrentTerm")); return err },
	}
	for name, op := range ops {
		for _, panics := range []bool{false, true} {
			t.Run(fmt.Sprint(name, panics), func(t *testing.T) {
				dir := t.TempDir()
				fillStore(t, dir, 100)
				var told []error
				s, err := openStore(dir, func(err error) { told = append(told, err) })
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				good := s.bolt
				s.bolt = &faulty{boltStore: good, from: 1, panics: panics}
				first := op(s)
				if first == nil || len(told) != 1 || !errors.Is(told[0], first) {
					t.Fatalf("%v, told %v", first, told)
				}
				s.bolt = good
				for other, op := range ops {
					if err := op(s); err != first {
						t.Errorf("%s afterwards: %v", other, err)
					}
				}
				if len(told) != 1 {
					t.Errorf("told %d times", len(told))
				}
			})
		}
	}
}

// The mark is part of each write: its error is the store's.
func TestStoreMarkErrorIsFatal(t *testing.T) {
	var told error
	s, err := openStore(t.TempDir(), func(err error) { told = err })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.mark.file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 1, Term: 1}); err == nil || told == nil {
		t.Errorf("%v, told %v", err, told)
	}
	_ = s.Close()
}

// What bbolt says of a flipped bit is damage too where it does not say so: one
// in the kind of an entry makes a bucket a value.
func TestTrapKnowsDamage(t *testing.T) {
	for _, err := range []error{bolterrors.ErrInvalid, bolterrors.ErrChecksum, bolterrors.ErrVersionMismatch, bolterrors.ErrIncompatibleValue} {
		if got := trap("f", func() error { return err }); stream.KindOf(got) != stream.Corrupt {
			t.Errorf("%v: %v", err, got)
		}
	}
}
