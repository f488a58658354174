package raftfsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"shardstream/stream"
)

func openTestSnaps(tb testing.TB, dir string) *snapStore {
	tb.Helper()
	s, err := openSnapStore(dir, func(err error) { tb.Errorf("fatal: %v", err) })
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func writeSnap(tb testing.TB, s *snapStore, index, term uint64, body string) {
	tb.Helper()
	conf := raft.Configuration{Servers: []raft.Server{{ID: "a/01234567", Address: "x"}, {Suffrage: raft.Nonvoter, ID: "b", Address: "y"}}}
	sink, err := s.Create(1, index, term, conf, index-1, nil)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := io.WriteString(sink, body); err != nil {
		tb.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		tb.Fatal(err)
	}
}

func snapContents(s *snapStore) (string, error) {
	metas, err := s.List()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, m := range metas {
		meta, r, err := s.Open(m.ID)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return "", err
		}
		if int64(len(body)) != meta.Size || meta.Size != m.Size {
			return "", fmt.Errorf("%d bytes, not %d", len(body), meta.Size)
		}
		fmt.Fprintf(&b, "%+v %q\n", *meta, body)
	}
	return b.String(), nil
}

func TestSnapStoreKeepsTheNewest(t *testing.T) {
	dir := t.TempDir()
	s := openTestSnaps(t, dir)
	for i := range uint64(4) {
		writeSnap(t, s, 9+i, 3, fmt.Sprint("body ", i))
	}
	sink, err := s.Create(1, 99, 9, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Cancel(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(1, 99, 9, raft.Configuration{}, 1, nil); err != nil { // and the process dies
		t.Fatal(err)
	}
	want, err := snapContents(s)
	if err != nil || strings.Count(want, "\n") != 2 || !strings.Contains(strings.SplitN(want, "\n", 2)[0], "body 3") {
		t.Errorf("%v: %s", err, want)
	}
	got, err := snapContents(openTestSnaps(t, dir))
	if err != nil || got != want {
		t.Errorf("%v: %s", err, got)
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("%d files are left", len(files))
	}
}

// Every bit of a snapshot file counts, its header's too, and damage to the
// newest is never answered with an older one.
func TestSnapStoreBitFlips(t *testing.T) {
	dir := t.TempDir()
	s := openTestSnaps(t, dir)
	writeSnap(t, s, 5, 1, "an older one")
	writeSnap(t, s, 9, 2, "the state of the world")
	name := snapName(2, 9)
	good, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	try := func(bad []byte, what string) {
		if err := os.WriteFile(filepath.Join(dir, name), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := openSnapStore(dir, func(error) {})
		if stream.KindOf(err) != stream.Corrupt || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		// And at run time, when it is opened.
		var told error
		late := &snapStore{dir: dir, fatal: func(err error) { told = err }}
		if _, _, err := late.Open(name); stream.KindOf(err) != stream.Corrupt || told == nil {
			t.Errorf("%s, opened later: %v, told %v", what, err, told)
		}
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			try(bad, fmt.Sprintf("byte %d bit %d", i, bit))
		}
		try(good[:i], fmt.Sprintf("cut to %d", i))
	}
	// A snapshot under another one's name.
	if err := os.WriteFile(filepath.Join(dir, name), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, snapName(2, 10))); err != nil {
		t.Fatal(err)
	}
	if _, err := openSnapStore(dir, func(error) {}); stream.KindOf(err) != stream.Corrupt {
		t.Errorf("renamed: %v", err)
	}
}

func TestSnapStoreWriteErrorIsFatal(t *testing.T) {
	for name, act := range map[string]func(raft.SnapshotSink) error{
		"write": func(k raft.SnapshotSink) error { _, err := k.Write(make([]byte, 1<<20)); return err },
		"close": func(k raft.SnapshotSink) error { return k.Close() },
	} {
		var told error
		s, err := openSnapStore(t.TempDir(), func(err error) { told = err })
		if err != nil {
			t.Fatal(err)
		}
		sink, err := s.Create(1, 1, 1, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := sink.(*snapSink).file.Close(); err != nil {
			t.Fatal(err)
		}
		if err := act(sink); err == nil || told == nil {
			t.Errorf("%s: %v, told %v", name, err, told)
		}
		if metas, err := s.List(); err != nil || len(metas) != 0 {
			t.Errorf("%s: %v, %d snapshots", name, err, len(metas))
		}
	}
}
