package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"shardstream/broker/member"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// formWorld is some nodes without a cluster, with fake gossip, calls and disks,
// on fake time. What is formed is noted once raft's first configuration would
// be on the founder's disk.
type formWorld struct {
	t      *testing.T
	random *rand.Rand
	expect int
	slow   int // calls and starts take up to so many ms

	mu     sync.Mutex
	nodes  []*formNode
	formed map[string][]string // cluster id -> its founding list
	writes int                 // durable writes so far, of all nodes
	crash  func(write int, id stream.NodeID) (crash, written bool)
	// afterwards is how likely a node dies right behind an answer, as long as
	// that has not happened too often.
	afterwards float64
	calls      int
}

// formNode is one node: its disk, and the process if it runs.
type formNode struct {
	world *formWorld
	id    stream.NodeID
	blind time.Time // until then it sees only some of the others

	// Guarded by world.mu.
	disk    formDisk
	facts   member.Facts
	told    []toldFacts                     // all that it has ever told, by time
	delay   map[stream.NodeID]time.Duration // how late it hears of the others
	running *former
	dead    context.CancelFunc
	changed chan struct{}
	sees    map[stream.NodeID]bool // while it is blind
	admits  bool                   // raft runs here
}

type toldFacts struct {
	at    time.Time
	facts member.Facts
	alive bool
}

type formDisk struct {
	id      string
	cluster string
	state   bool
	promise *promise
}

var errCrash = errors.New("crash")

func newFormWorld(t *testing.T, seed uint64, nodes, expect int) *formWorld {
	w := &formWorld{t: t, random: rand.New(rand.NewPCG(seed, 1)), expect: expect, slow: 50, formed: make(map[string][]string)}
	for i := range nodes {
		id := stream.NodeID(fmt.Sprintf("n%d", i+1))
		w.nodes = append(w.nodes, &formNode{world: w, id: id, disk: formDisk{id: "disk-of-" + string(id)}, changed: make(chan struct{})})
	}
	return w
}

func (w *formWorld) node(id string) *formNode {
	for _, n := range w.nodes {
		if string(n.id) == id {
			return n
		}
	}
	return nil
}

// run is the node's life: it starts again after each crash, until ctx ends.
func (n *formNode) run(ctx context.Context) {
	w := n.world
	for ctx.Err() == nil {
		life, cancel := context.WithCancel(ctx)
		err := n.live(life, cancel)
		cancel()
		w.mu.Lock()
		n.running, n.admits = nil, false
		n.tellLocked(false)
		pause := time.Duration(w.random.IntN(3000)) * time.Millisecond
		w.mu.Unlock()
		if !errors.Is(err, errCrash) && ctx.Err() == nil {
			w.t.Errorf("%s: %v", n.id, err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// live does what the broker does with the place that it is given.
func (n *formNode) live(ctx context.Context, die context.CancelFunc) error {
	w := n.world
	w.mu.Lock()
	self := member.Facts{NodeID: n.id, DiskID: n.disk.id, GRPC: string(n.id), Raft: string(n.id) + ":7071", Expect: w.expect}
	f := newFormer(self, n, n, n, n.disk.cluster, n.disk.state, n.disk.promise, slog.New(slog.DiscardHandler))
	n.facts, n.running, n.dead = self, f, die
	n.tellLocked(true)
	w.mu.Unlock()
	at, err := f.find(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return errCrash
		}
		return err
	}
	if at.bootstrap != nil {
		w.mu.Lock()
		opening := time.Duration(w.random.IntN(2000)) * time.Millisecond
		w.mu.Unlock()
		time.Sleep(opening) // raft's first configuration takes its time
		if err := n.write(func(d *formDisk) {
			d.state = true
			w.formed[at.clusterID] = strings.Split(names(n.disk.promise.Founders), ", ")
		}); err != nil {
			return err
		}
		if err := f.formed(at.clusterID); err != nil {
			return err
		}
		if err := f.tellGossip(); err != nil {
			return err
		}
	}
	w.mu.Lock()
	n.admits = true
	w.mu.Unlock()
	// Raft brings the cluster's state, if the cluster was really formed.
	for {
		w.mu.Lock()
		_, formed := w.formed[at.clusterID]
		w.mu.Unlock()
		if formed {
			break
		}
		select {
		case <-ctx.Done():
			return errCrash
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err := n.write(func(d *formDisk) { d.state = true }); err != nil {
		return err
	}
	if err := f.settled(); err != nil {
		return err
	}
	<-ctx.Done()
	return errCrash
}

// write is a durable write, at which the node may crash, before or behind it.
func (n *formNode) write(change func(*formDisk)) error {
	w := n.world
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	crash, written := false, true
	if w.crash != nil {
		crash, written = w.crash(w.writes, n.id)
	}
	if written {
		change(&n.disk)
	}
	if crash {
		n.dead()
		n.running = nil
		return errCrash
	}
	return nil
}

func (n *formNode) SavePromise(p *promise) error {
	return n.write(func(d *formDisk) { d.promise = p })
}
func (n *formNode) ClearPromise() error { return n.write(func(d *formDisk) { d.promise = nil }) }
func (n *formNode) SaveCluster(id string) error {
	return n.write(func(d *formDisk) { d.cluster = id })
}

// tellLocked notes what the node says of itself from now on.
func (n *formNode) tellLocked(alive bool) {
	n.told = append(n.told, toldFacts{time.Now(), n.facts, alive})
	for _, n := range n.world.nodes {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// Watch is gossip: it tells how the others were a while ago, and, while the
// node is blind, of some of them only.
func (n *formNode) Watch() ([]member.Member, <-chan struct{}) {
	w := n.world
	w.mu.Lock()
	defer w.mu.Unlock()
	var members []member.Member
	for _, m := range w.nodes {
		if time.Now().Before(n.blind) && !n.sees[m.id] {
			continue
		}
		for i := len(m.told) - 1; i >= 0; i-- {
			if past := m.told[i]; time.Since(past.at) >= n.delay[m.id] {
				state := member.Alive
				if !past.alive {
					state = member.Dead
				}
				members = append(members, member.Member{Facts: past.facts, State: state})
				break
			}
		}
	}
	return members, n.changed
}

func (n *formNode) Sought() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

func (n *formNode) UpdateFacts(change func(*member.Facts)) error {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	change(&n.facts)
	n.tellLocked(true)
	return nil
}

// call reaches another node's process, unless it dies before it has answered.
func (n *formNode) call(ctx context.Context, address string, do func(*former) error) error {
	w := n.world
	w.mu.Lock()
	to := w.node(address)
	f := to.running
	delay := time.Duration(w.random.IntN(1+w.slow)) * time.Millisecond
	w.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(delay):
	}
	if f == nil {
		return errors.New("connection refused")
	}
	err := do(f)
	w.mu.Lock()
	defer w.mu.Unlock()
	if to.running != f {
		return errors.New("connection reset")
	}
	if w.calls < 30 && w.random.Float64() < w.afterwards { // its answer gets through, and it dies
		w.calls++
		to.dead()
		to.running = nil
	}
	return err
}

func (n *formNode) Promise(ctx context.Context, address string, req *pb.PromiseRequest) (answer *pb.PromiseResponse, err error) {
	err = n.call(ctx, address, func(f *former) (err error) {
		answer, err = f.Promise(ctx, req)
		return err
	})
	return answer, err
}

func (n *formNode) Join(ctx context.Context, address string, req *pb.JoinRequest) (answer *pb.JoinResponse, err error) {
	err = n.call(ctx, address, func(*former) error {
		w := n.world
		w.mu.Lock()
		defer w.mu.Unlock()
		to := w.node(address)
		if _, formed := w.formed[to.disk.cluster]; !formed || !to.admits {
			return stream.Errorf(stream.NotLeader, "test", "no leader here")
		}
		answer = &pb.JoinResponse{ClusterId: to.disk.cluster}
		return nil
	})
	return answer, err
}

// finish waits until all nodes have settled in one cluster, and checks that no
// node was in the founding of two.
func (w *formWorld) finish(ctx context.Context) {
	w.t.Helper()
	for start := time.Now(); ; {
		w.mu.Lock()
		clusters := make(map[string]bool)
		open := 0
		for _, n := range w.nodes {
			clusters[n.disk.cluster] = true
			if n.disk.cluster == "" || !n.disk.state || n.disk.promise != nil {
				open++
			}
		}
		done := open == 0 && len(clusters) == 1
		if len(w.formed) > 1 {
			w.t.Errorf("two clusters were formed: %v", w.formed)
		}
		var disks []string
		for _, n := range w.nodes {
			disks = append(disks, fmt.Sprintf("%s: %+v %+v", n.id, n.disk, n.disk.promise))
		}
		w.mu.Unlock()
		switch {
		case done || w.t.Failed():
			return
		case time.Since(start) > 10*time.Minute:
			w.t.Errorf("no cluster after ten minutes; formed %v\n%s", w.formed, strings.Join(disks, "\n"))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// play runs the world until it has come to rest.
func (w *formWorld) play() {
	ctx, cancel := context.WithCancel(context.Background())
	var lives sync.WaitGroup
	for _, n := range w.nodes {
		start := time.Duration(w.random.IntN(1+w.slow)) * time.Millisecond
		lives.Go(func() {
			time.Sleep(start)
			n.run(ctx)
		})
	}
	w.finish(ctx)
	cancel()
	lives.Wait()
}

func TestFormsOneCluster(t *testing.T) {
	for _, c := range []struct{ nodes, expect int }{{1, 1}, {2, 2}, {3, 3}, {5, 3}, {4, 4}, {7, 5}} {
		synctest.Test(t, func(t *testing.T) {
			w := newFormWorld(t, 1, c.nodes, c.expect)
			w.play()
			for _, list := range w.formed {
				if len(list) != c.expect {
					t.Errorf("%d nodes, expecting %d: founded by %v", c.nodes, c.expect, list)
				}
			}
		})
	}
}

// TestFormingSurvivesACrashAtEachStep crashes the node that makes the k-th
// durable write, before it and behind it, for all k of a forming.
func TestFormingSurvivesACrashAtEachStep(t *testing.T) {
	for k := 1; ; k++ {
		total := 0
		for _, written := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newFormWorld(t, uint64(k), 4, 3)
				w.crash = func(write int, _ stream.NodeID) (bool, bool) {
					return write == k, write != k || written
				}
				w.play()
				total = max(total, w.writes)
			})
			if t.Failed() {
				t.Fatalf("crash at write %d, written: %v", k, written)
			}
		}
		if k > total {
			t.Logf("%d writes", total)
			return
		}
	}
}

// TestFormingWithCrossedViews has nodes that at first see only some of the
// others, so that their lists cross, and crash at any time. More than half of
// the nodes make a list, so that there can be only one cluster in the end.
func TestFormingWithCrossedViews(t *testing.T) {
	seeds := 150
	if os.Getenv("SHARDSTREAM_LONG") != "" {
		seeds = 20_000
	}
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			nodes := 3 + r.IntN(4)
			w := newFormWorld(t, seed, nodes, nodes/2+1+r.IntN((nodes+1)/2))
			w.slow = []int{0, 50, 500, 3000}[r.IntN(4)]
			for _, n := range w.nodes {
				n.delay = make(map[stream.NodeID]time.Duration)
				for _, m := range w.nodes {
					n.delay[m.id] = time.Duration(r.IntN(4000)) * time.Millisecond
				}
				n.blind = time.Now().Add(time.Duration(r.IntN(20_000)) * time.Millisecond)
				n.sees = map[stream.NodeID]bool{n.id: true}
				for _, m := range w.nodes {
					n.sees[m.id] = n.sees[m.id] || r.IntN(3) > 0
				}
			}
			w.afterwards = []float64{0, 0.1, 0.4}[r.IntN(3)]
			rate := []float64{0, 0.05, 0.3}[r.IntN(3)]
			w.crash = func(write int, _ stream.NodeID) (bool, bool) {
				crash := write < 60 && w.random.Float64() < rate
				return crash, !crash || w.random.IntN(2) == 0
			}
			w.play()
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestForming gives up a list of which a node has lost its disk, and frees the
// others, as long as nothing was founded.
func TestFormingAfterALostDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFormWorld(t, 3, 3, 3)
		list := &promise{ClusterID: "old"}
		for _, n := range w.nodes {
			list.Founders = append(list.Founders, &pb.Founder{NodeId: string(n.id), DiskId: n.disk.id, RaftAddress: "x:1"})
		}
		w.nodes[0].disk.promise = list
		w.nodes[1].disk.promise = list
		w.nodes[2].disk.id = "another disk"
		w.play()
		if w.formed["old"] != nil || len(w.formed) != 1 {
			t.Errorf("formed: %v", w.formed)
		}
	})
}

func TestNextStep(t *testing.T) {
	list := func(cluster string, ids ...string) *promise {
		p := &promise{ClusterID: cluster}
		for _, id := range ids {
			p.Founders = append(p.Founders, &pb.Founder{NodeId: id, DiskId: "d-" + id, RaftAddress: id + ":1"})
		}
		return p
	}
	m := func(id string, change ...func(*member.Member)) member.Member {
		m := member.Member{Facts: member.Facts{NodeID: stream.NodeID(id), DiskID: "d-" + id, Raft: id + ":1", Expect: 3}, State: member.Alive}
		for _, c := range change {
			c(&m)
		}
		return m
	}
	has := func(cluster string) func(*member.Member) {
		return func(m *member.Member) { m.ClusterID = cluster }
	}
	dead := func(m *member.Member) { m.State = member.Dead }
	for _, c := range []struct {
		name string
		view func(*formView)
		want formAction
		why  string
	}{
		{"nothing there", func(*formView) {}, formWait, "1 of 3 nodes"},
		{"all there", func(v *formView) { v.members = []member.Member{m("b"), m("c")} }, formFound, "a, b, c"},
		{"more than all", func(v *formView) { v.members = []member.Member{m("b"), m("c"), m("d")} }, formFound, "a, b, c"},
		{"not the smallest", func(v *formView) { v.members = []member.Member{m("A"), m("c")} }, formWait, "waiting for node A"},
		{"dead ones don't count", func(v *formView) { v.members = []member.Member{m("b"), m("c", dead)} }, formWait, "2 of 3 nodes"},
		{"seeds not tried yet", func(v *formView) { v.members, v.sought = []member.Member{m("b"), m("c")}, false }, formWait, "looking around"},
		{"members just came", func(v *formView) { v.members, v.settled = []member.Member{m("b"), m("c")}, false }, formWait, "looking around"},
		{"unequal expectations", func(v *formView) {
			v.members = []member.Member{m("b"), m("c", func(m *member.Member) { m.Expect = 5 })}
		}, formWait, "give all nodes the same"},
		{"one that only joins", func(v *formView) {
			v.members = []member.Member{m("b"), m("c", func(m *member.Member) { m.Expect = 0 })}
		}, formWait, "2 of 3 nodes"},
		{"only joins itself", func(v *formView) { v.self.Expect, v.members = 0, []member.Member{m("b"), m("c")} }, formWait, "--bootstrap-expect"},
		{"one is bound elsewhere", func(v *formView) {
			v.members = []member.Member{m("b"), m("c", func(m *member.Member) { m.Founding = "y" })}
		}, formWait, "about to found"},
		{"a cluster exists", func(v *formView) { v.members = []member.Member{m("b", has("x")), m("c")} }, formJoin, "x"},
		{"a dead cluster doesn't count", func(v *formView) { v.members = []member.Member{m("b", has("x"), dead), m("c"), m("d")} }, formFound, "a, c, d"},
		{"two clusters exist", func(v *formView) { v.members = []member.Member{m("b", has("x")), m("c", has("y"))} }, formWait, "two clusters"},
		{"had a cluster, alone", func(v *formView) { v.cluster = "x" }, formJoin, "x"},
		{"had a cluster, others have none", func(v *formView) { v.cluster, v.members = "x", []member.Member{m("b"), m("c")} }, formJoin, "x"},
		{"raft state", func(v *formView) { v.cluster, v.state = "x", true }, formResume, ""},
		{"founder with its promise", func(v *formView) { v.promise, v.sought = list("x", "a", "b", "c"), false }, formFound, "a, b, c"},
		{"founder sees another cluster", func(v *formView) { v.promise, v.members = list("x", "a", "b", "c"), []member.Member{m("b", has("y"))} }, formAbandon, "exists already"},
		{"founder sees its own cluster", func(v *formView) { v.promise, v.members = list("x", "a", "b", "c"), []member.Member{m("b", has("x"))} }, formBroken, "raft/ is empty"},
		{"founder sees a smaller founder", func(v *formView) {
			v.promise = list("x", "a", "b", "c")
			v.members = []member.Member{m("b", func(m *member.Member) { m.Founding, m.Founder = "y", "A" })}
		}, formAbandon, "node A founds"},
		{"founder sees a larger founder", func(v *formView) {
			v.promise = list("x", "a", "b", "c")
			v.members = []member.Member{m("b", func(m *member.Member) { m.Founding, m.Founder = "y", "b" })}
		}, formFound, "a, b, c"},
		{"founder that had its cluster", func(v *formView) { v.promise, v.cluster = list("x", "a", "b", "c"), "x" }, formBroken, "raft/ is empty"},
		{"bound to another", func(v *formView) { v.promise, v.members = list("x", "A", "a", "c"), []member.Member{m("A"), m("c")} }, formAwait, "node A"},
		{"bound, founded", func(v *formView) { v.promise, v.members = list("x", "A", "a", "c"), []member.Member{m("A", has("x"))} }, formListed, ""},
		{"bound, founded, no voter", func(v *formView) {
			v.promise, v.members = list("x", "A", "B", "C", "a"), []member.Member{m("A", has("x"))}
		}, formJoin, "x"},
		{"bound, another one founded", func(v *formView) { v.promise, v.members = list("x", "A", "a", "c"), []member.Member{m("c", has("y"))} }, formAwait, "node A"},
		{"founded, nothing from raft yet", func(v *formView) { v.promise, v.cluster = list("x", "A", "a", "c"), "x" }, formListed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := formView{self: m("a").Facts, sought: true, settled: true}
			c.view(&v)
			if got := nextStep(v); got.action != c.want || !strings.Contains(got.why, c.why) {
				t.Errorf("action %d, why %q; want %d, %q", got.action, got.why, c.want, c.why)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	list := func(cluster string, ids ...string) *promise {
		p := &promise{ClusterID: cluster}
		for _, id := range ids {
			p.Founders = append(p.Founders, &pb.Founder{NodeId: id, DiskId: "d-" + id, RaftAddress: id + ":1"})
		}
		return p
	}
	asked := list("x", "a", "m", "z")
	for _, c := range []struct {
		name   string
		view   func(*formView)
		sealed bool
		asked  *promise
		yes    bool
		keeps  bool
		err    stream.Kind
	}{
		{"free", func(*formView) {}, false, asked, true, true, 0},
		{"bound to it", func(v *formView) { v.promise = asked }, false, asked, true, false, 0},
		{"bound to another", func(v *formView) { v.promise = list("y", "b", "m", "z") }, false, asked, false, false, 0},
		{"own list gives way to a smaller founder", func(v *formView) { v.promise = list("y", "m", "n", "z") }, false, asked, true, true, 0},
		{"own list that is being formed does not", func(v *formView) { v.promise = list("y", "m", "n", "z") }, true, asked, false, false, 0},
		{"has a cluster", func(v *formView) { v.cluster = "y" }, false, asked, false, false, 0},
		{"has that very cluster", func(v *formView) { v.cluster, v.promise = "x", asked }, false, asked, false, false, 0},
		{"has raft state", func(v *formView) { v.state, v.promise = true, asked }, false, asked, false, false, 0},
		{"sees a cluster", func(v *formView) {
			v.members = []member.Member{{Facts: member.Facts{NodeID: "q", ClusterID: "y"}, State: member.Alive}}
		}, false, asked, false, false, 0},
		{"expects another number", func(v *formView) { v.self.Expect = 5 }, false, asked, false, false, 0},
		{"still looks around", func(v *formView) { v.sought = false }, false, asked, false, false, 0},
		{"another disk", func(v *formView) { v.self.DiskID = "other" }, false, asked, false, false, stream.Stale},
		{"not on the list", func(*formView) {}, false, list("x", "a", "b", "c"), false, false, stream.Stale},
		{"not sorted", func(*formView) {}, false, list("x", "m", "a", "z"), false, false, stream.Invalid},
		{"no cluster id", func(*formView) {}, false, list("", "a", "m", "z"), false, false, stream.Invalid},
		{"founder, bound", func(v *formView) { v.promise = list("x", "m", "n", "z") }, false, list("x", "m", "n", "z"), true, false, 0},
		{"founder, founded", func(v *formView) { v.cluster, v.state = "x", true }, false, list("x", "m", "n", "z"), true, false, 0},
		{"founder that left the list", func(v *formView) { v.promise = asked }, false, list("y", "m", "n", "z"), false, false, 0},
		{"founder, never bound by being asked", func(*formView) {}, false, list("y", "m", "n", "z"), false, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := formView{self: member.Facts{NodeID: "m", DiskID: "d-m", Expect: 3}, sought: true}
			c.view(&v)
			answer, keep, err := answerTo(v, c.sealed, c.asked)
			if c.err != 0 {
				if !errors.Is(err, c.err) {
					t.Fatalf("answer %v, error %v, want %v", answer, err, c.err)
				}
				return
			}
			if err != nil || answer.Promised != c.yes || (keep != nil) != c.keeps || !c.yes && answer.Detail == "" {
				t.Errorf("answer %v, keeps %v, error %v", answer, keep, err)
			}
		})
	}
}

func TestPromiseFile(t *testing.T) {
	dir := t.TempDir()
	s := formFiles{dir: dir}
	if p, err := loadPromise(dir); p != nil || err != nil {
		t.Fatalf("empty directory: %v, %v", p, err)
	}
	want := &promise{ClusterID: "x", Founders: []*pb.Founder{
		{NodeId: "a", DiskId: "d1", RaftAddress: "a:1"},
		{NodeId: "b", DiskId: "d2", RaftAddress: "b:1"},
	}}
	if err := s.SavePromise(want); err != nil {
		t.Fatal(err)
	}
	got, err := loadPromise(dir)
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b *pb.Founder) bool {
		return a.NodeId == b.NodeId && a.DiskId == b.DiskId && a.RaftAddress == b.RaftAddress
	}
	if got.ClusterID != want.ClusterID || !slices.EqualFunc(got.Founders, want.Founders, same) {
		t.Errorf("%+v, want %+v", got, want)
	}
	path := filepath.Join(dir, promiseFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		if text[i] == '\n' || text[i] == ' ' {
			continue
		}
		bad := slices.Clone(text)
		bad[i] ^= 4
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if p, err := loadPromise(dir); !errors.Is(err, stream.Corrupt) {
			t.Fatalf("byte %d flipped: %v, %v", i, p, err)
		}
	}
	for range 2 {
		if err := s.ClearPromise(); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := loadPromise(dir); p != nil || err != nil {
		t.Errorf("after clearing: %v, %v", p, err)
	}
}
