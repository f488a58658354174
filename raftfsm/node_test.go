package raftfsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// openNode starts a lone voter on dir and waits until it leads. An OnFatal
// fails the test unless fatal is given.
func openNode(tb testing.TB, dir string, fatal func(error)) *Node {
	tb.Helper()
	if fatal == nil {
		fatal = func(err error) { tb.Errorf("OnFatal: %v", err) }
	}
	n, err := Open(testConfig(dir, fatal))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = n.Close() })
	if err := n.WaitLeader(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return n
}

func testConfig(dir string, fatal func(error)) Config {
	return Config{
		Dir: dir, NodeID: "n1", DiskID: "0123456789abcdef", Bootstrap: true, LoneVoter: true, OnFatal: fatal,
	}
}

func mustPropose(tb testing.TB, n *Node, c *pb.Command) *pb.CommandResult {
	tb.Helper()
	res, err := n.Propose(context.Background(), c)
	if err != nil {
		tb.Fatal(err)
	}
	if res.GetError() != 0 {
		tb.Fatalf("%v: %v", c, res)
	}
	return res
}

func TestNodeRestartKeepsState(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	n := openNode(t, dir, nil)
	t.Logf("open and lead: %v", time.Since(began))
	res := mustPropose(t, n, initCmd(nil))
	if n.State().Index() != res.GetIndex() || n.State().Cluster().GetId() != "cluster" || !n.IsLeader() {
		t.Fatalf("result %v, state at %d", res, n.State().Index())
	}
	if index, err := n.ReadIndex(t.Context()); err != nil || index != res.GetIndex() {
		t.Fatalf("read index %d, %v", index, err)
	}
	want := encode(t, n.State())
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	n = openNode(t, dir, nil)
	t.Logf("reopen and lead: %v", time.Since(began))
	if !bytes.Equal(encode(t, n.State()), want) {
		t.Fatalf("state at %d after restart", n.State().Index())
	}
	if index, err := n.ReadIndex(t.Context()); err != nil || index != res.GetIndex() {
		t.Fatalf("read index %d, %v", index, err)
	}
}

func TestNodeRestartFromSnapshot(t *testing.T) {
	dir := t.TempDir()
	n := openNode(t, dir, nil)
	mustPropose(t, n, initCmd(nil))
	mustPropose(t, n, register("a", "d"))
	mustPropose(t, n, create("s", 3, "a"))
	if err := n.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	mustPropose(t, n, create("t", 3, "a"))
	want := encode(t, n.State())
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, dir, nil)
	if !bytes.Equal(encode(t, n.State()), want) {
		t.Fatal("another state after restart")
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	snaps, _ := filepath.Glob(filepath.Join(dir, "snapshots", "*"))
	data, err := os.ReadFile(snaps[0])
	if err != nil || len(snaps) != 1 {
		t.Fatal(err, snaps)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(snaps[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testConfig(dir, func(error) {})); stream.KindOf(err) != stream.Corrupt || !strings.Contains(err.Error(), filepath.Base(snaps[0])) {
		t.Errorf("with a damaged snapshot: %v", err)
	}
}

// The log behind a snapshot is nothing without it.
func TestNodeSnapshotGone(t *testing.T) {
	dir := t.TempDir()
	logs := openTestStore(t, dir)
	err := errors.Join(logs.SetUint64([]byte("CurrentTerm"), 2), logs.StoreLog(&raft.Log{Index: 50, Term: 2}), logs.Close())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testConfig(dir, func(error) {})); stream.KindOf(err) != stream.Corrupt || !strings.Contains(err.Error(), "begins at entry 50") {
		t.Error(err)
	}
}

// A crash between a snapshot from the leader and the removal of the log that
// it overtakes.
func TestNodeDropsOvertakenLog(t *testing.T) {
	dir := t.TempDir()
	logs := openTestStore(t, dir)
	defer logs.Close()
	if err := logs.StoreLogs([]*raft.Log{{Index: 1, Term: 1}, {Index: 2, Term: 1}}); err != nil {
		t.Fatal(err)
	}
	snaps := openTestSnaps(t, filepath.Join(dir, "snapshots"))
	writeSnap(t, snaps, 50, 2, "body")
	if err := joinUp(logs, snaps); err != nil {
		t.Fatal(err)
	}
	if first, last, _ := logs.bounds(); first != 0 || last != 0 {
		t.Errorf("log [%d,%d]", first, last)
	}
}

// BootstrapCluster writes the term and then the first entry.
func TestNodeFinishesBootstrap(t *testing.T) {
	dir := t.TempDir()
	logs := openTestStore(t, dir)
	if err := errors.Join(logs.SetUint64([]byte("CurrentTerm"), 1), logs.Close()); err != nil {
		t.Fatal(err)
	}
	openNode(t, dir, nil)
}

func TestNodeEntriesGone(t *testing.T) {
	dir := t.TempDir()
	logs := openTestStore(t, dir)
	if err := errors.Join(logs.SetUint64([]byte("CurrentTerm"), 4), logs.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testConfig(dir, func(error) {})); stream.KindOf(err) != stream.Corrupt {
		t.Errorf("bootstrapped over term 4: %v", err)
	}
}

func TestConfigReportsEveryMistake(t *testing.T) {
	_, err := Open(Config{DiskID: "short"})
	for _, want := range []string{"Dir", "NodeID", "DiskID", "OnFatal"} {
		if stream.KindOf(err) != stream.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in %v", want, err)
		}
	}
}

// An entry that this program cannot apply stops the node; nothing behind it is
// applied, and it stops it again after a restart.
func TestNodeStopsAtUnknownCommand(t *testing.T) {
	dir := t.TempDir()
	told := make(chan error, 1)
	n := openNode(t, dir, func(err error) { told <- err })
	mustPropose(t, n, initCmd(nil))
	at := n.State().Index()
	future := n.raft.Apply([]byte{0x98, 0x06, 1}, 0)
	if err := future.Error(); err != nil {
		t.Fatal(err)
	}
	if err := <-told; stream.KindOf(err) != stream.Corrupt || !strings.Contains(err.Error(), fmt.Sprint("entry ", future.Index())) {
		t.Error(err)
	}
	if _, err := n.Propose(t.Context(), register("a", "d")); err == nil {
		t.Errorf("proposed behind it: %v", err)
	}
	if err := n.raft.Snapshot().Error(); err == nil {
		t.Error("a snapshot skipped it")
	}
	if n.State().Index() != at {
		t.Errorf("state went on to %d", n.State().Index())
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(testConfig(dir, func(err error) { told <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := <-told; stream.KindOf(err) != stream.Corrupt {
		t.Error(err)
	}
}

func TestNodeStoreErrorIsFatal(t *testing.T) {
	told := make(chan error, 1)
	n := openNode(t, t.TempDir(), func(err error) { told <- err })
	mustPropose(t, n, initCmd(nil))
	n.store.writing.Lock()
	good := n.store.bolt
	n.store.bolt = &faulty{boltStore: good, from: 1}
	n.store.writing.Unlock()
	if _, err := n.Propose(t.Context(), register("a", "d")); err == nil {
		t.Error("proposed to a broken disk")
	}
	if err := <-told; !errors.Is(err, errDisk) {
		t.Error(err)
	}
	if n.State().Broker("a") != nil {
		t.Error("applied what is not on disk")
	}
}

func TestProposeRefusals(t *testing.T) {
	n := openNode(t, t.TempDir(), nil)
	if _, err := n.Propose(t.Context(), &pb.Command{}); stream.KindOf(err) != stream.Invalid {
		t.Errorf("without an op: %v", err)
	}
	if res, err := n.Propose(t.Context(), register("a", "d")); err != nil || stream.Kind(res.GetError()) != stream.Unavailable {
		t.Errorf("before InitCluster: %v, %v", res, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Propose(ctx, initCmd(nil)); stream.KindOf(err) != stream.Timeout && stream.KindOf(err) != stream.Unavailable && err != nil {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := n.ReadIndex(ctx); err != nil && stream.KindOf(err) != stream.Unavailable {
		t.Errorf("cancelled: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := n.Propose(t.Context(), initCmd(nil)); stream.KindOf(err) != stream.Unavailable {
		t.Errorf("closed: %v", err)
	}
	if _, err := n.ReadIndex(t.Context()); stream.KindOf(err) != stream.Unavailable {
		t.Errorf("closed: %v", err)
	}
}

func TestWatchSeesTheNewest(t *testing.T) {
	n := openNode(t, t.TempDir(), nil)
	_, changed := n.Watch()
	mustPropose(t, n, initCmd(nil))
	for i := range 20 { // nobody reads meanwhile
		mustPropose(t, n, register(fmt.Sprint(i), "d"))
	}
	<-changed
	s, changed := n.Watch()
	if len(s.Brokers()) != 20 {
		t.Errorf("%d brokers", len(s.Brokers()))
	}
	select {
	case <-changed:
		t.Error("told of a change that was none")
	default:
	}
}

func TestConcurrentProposalsAndReads(t *testing.T) {
	n := openNode(t, t.TempDir(), nil)
	mustPropose(t, n, initCmd(nil))
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			res, err := n.Propose(t.Context(), register(fmt.Sprint(i), "d"))
			if err != nil {
				t.Error(err)
				return
			}
			index, err := n.ReadIndex(t.Context())
			if err != nil || index < res.GetIndex() || n.State().Index() < index {
				t.Errorf("read index %d after %d: %v", index, res.GetIndex(), err)
			}
		})
	}
	wg.Wait()
	if len(n.State().Brokers()) != 40 {
		t.Errorf("%d brokers", len(n.State().Brokers()))
	}
}

// Ten thousand shards: figures for the record, and that it works at all.
func TestTenThousandShards(t *testing.T) {
	dir := t.TempDir()
	n := openNode(t, dir, nil)
	mustPropose(t, n, initCmd(nil))
	mustPropose(t, n, register("a", "d"))
	step := func(what string, f func()) {
		began := time.Now()
		f()
		t.Logf("%-32s %v", what, time.Since(began).Round(10*time.Microsecond))
	}
	var id uint64
	step("create 10,000 shards", func() { id = mustPropose(t, n, create("big", 10_000, "a")).GetStreamId() })
	w := &world{s: n.State()}
	refs := w.refs(id, "a")
	step("report 10,000 replicas", func() { mustPropose(t, n, created("a", 1, refs...)) })
	step("activate", func() { mustPropose(t, n, activate(id)) })
	before := n.State()
	step("register the broker again", func() { mustPropose(t, n, register("a", "d")) })
	step("differences", func() { Diff(before, n.State()) })
	step("everything as events", func() { Diff(nil, n.State()) })
	step("suspect one replica", func() { mustPropose(t, n, suspect("a", 2, refs[17])) })
	step("write a snapshot", func() {
		if err := n.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
	})
	want := encode(t, n.State())
	t.Logf("%-32s %d bytes", "snapshot", len(want))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	step("open from it and lead", func() { n = openNode(t, dir, nil) })
	if !bytes.Equal(encode(t, n.State()), want) {
		t.Error("another state after restart")
	}
}

func BenchmarkPropose(b *testing.B) {
	n := openNode(b, b.TempDir(), nil)
	mustPropose(b, n, initCmd(nil))
	for b.Loop() {
		mustPropose(b, n, register("a", "d"))
	}
}

func BenchmarkReadIndex(b *testing.B) {
	n := openNode(b, b.TempDir(), nil)
	mustPropose(b, n, initCmd(nil))
	for b.Loop() {
		if _, err := n.ReadIndex(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// The cost of one change among 10,000 small streams.
func BenchmarkApplyAmong10kStreams(b *testing.B) {
	w := newWorld(b, "a")
	for i := range 10_000 {
		w.must(create(fmt.Sprint("stream-", i), 1, "a"))
	}
	c := created("a", 1, w.refs(5000, "a")...)
	_ = w.s
	b.Run("Apply", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w.s.Apply(1, c)
		}
	})
	b.Run("Diff", func(b *testing.B) {
		next, _ := w.s.Apply(1, c)
		for b.Loop() {
			Diff(w.s, next)
		}
	})
	b.Run("Create", func(b *testing.B) {
		one := create("new", 1, "a")
		for b.Loop() {
			w.s.Apply(1, one)
		}
	})
	b.Run("Register", func(b *testing.B) {
		one := register("a", "disk-a")
		for b.Loop() {
			w.s.Apply(1, one)
		}
	})
}
