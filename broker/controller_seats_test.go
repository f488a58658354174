package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"shardstream/placement"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
)

// seatWorld is a raft configuration that follows a seatKeeper. Nodes are called
// by a letter and their zone.
type seatWorld struct {
	keeper  seatKeeper
	now     time.Time
	brokers map[string]*pb.Broker
	well    map[string]bool
	servers []raftfsm.Server
	changes []string
}

func newSeatWorld() *seatWorld {
	return &seatWorld{keeper: newSeatKeeper(), now: time.Unix(1000, 0), brokers: map[string]*pb.Broker{}, well: map[string]bool{}}
}

func seatDisk(node string, n int) string { return fmt.Sprintf("%08d-%s", n, node) }

// add makes a node known, well, and a server, which may vote.
func (w *seatWorld) add(node string, voter bool) {
	w.brokers[node] = &pb.Broker{NodeId: node, DiskId: seatDisk(node, 1), Zone: node[1:], State: stateLive}
	w.well[node] = true
	w.servers = append(w.servers, raftfsm.Server{ID: raftfsm.ServerID(node, seatDisk(node, 1)), NodeID: node, Voter: voter})
}

// run lets time pass and gives what has changed meanwhile.
func (w *seatWorld) run(d time.Duration) []string {
	before := len(w.changes)
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(time.Second) {
		w.keeper.observe(w.now, w.well)
		w.apply(w.keeper.next(w.now, "a1", w.list(), w.servers))
	}
	return w.changes[before:]
}

func (w *seatWorld) list() (list []*pb.Broker) {
	for _, b := range w.brokers {
		list = append(list, b)
	}
	return list
}

func (w *seatWorld) apply(c seatChange) {
	i := slices.IndexFunc(w.servers, func(s raftfsm.Server) bool { return s.ID == c.server.ID })
	switch c.action {
	case seatPromote:
		w.servers[i].Voter = true
		w.changes = append(w.changes, "+"+c.server.NodeID)
	case seatDemote:
		w.servers[i].Voter = false
		w.changes = append(w.changes, "-"+c.server.NodeID)
	case seatRemove:
		w.servers = slices.Delete(w.servers, i, i+1)
		w.changes = append(w.changes, "x"+c.server.ID)
	}
}

func (w *seatWorld) voters() (ids []string) {
	for _, s := range w.servers {
		if s.Voter {
			ids = append(ids, s.NodeID)
		}
	}
	slices.Sort(ids)
	return ids
}

func TestVotersGrowWithTheCluster(t *testing.T) {
	w := newSeatWorld()
	w.add("a1", true)
	for i, want := range []string{"a1", "a1 b1 c1", "a1 b1 c1", "a1 b1 c1 d1 e1", "a1 b1 c1 d1 e1"} {
		w.add(fmt.Sprintf("%c1", 'b'+i), false)
		if got := w.run(seatPatience); len(got) != 0 {
			t.Fatal("a node votes before it was well for long enough, or an even number do:", got)
		}
		w.run(time.Minute)
		if got := strings.Join(w.voters(), " "); got != want {
			t.Fatalf("%d nodes: %s vote, want %s", i+2, got, want)
		}
	}
}

func TestFoundersVoteBeforeTheyHaveRegistered(t *testing.T) {
	w := newSeatWorld()
	for _, n := range []string{"a1", "b1", "c1"} {
		w.add(n, true)
	}
	for _, n := range []string{"b1", "c1"} {
		delete(w.brokers, n)
		delete(w.well, n)
	}
	if got := w.run(time.Minute); len(got) != 0 {
		t.Fatal(got)
	}
}

func TestVotersAreSpreadOverZones(t *testing.T) {
	w := newSeatWorld()
	w.add("a1", true)
	for _, n := range []string{"b1", "c1", "d2", "e3"} {
		w.add(n, false)
	}
	delete(w.brokers, "c1") // four nodes: three seats
	w.servers = slices.DeleteFunc(w.servers, func(s raftfsm.Server) bool { return s.NodeID == "c1" })
	delete(w.well, "c1")
	w.run(2 * time.Minute)
	if got := strings.Join(w.voters(), " "); got != "a1 d2 e3" {
		t.Fatal(got)
	}
}

func TestDeadVoterIsReplacedButNotForARestart(t *testing.T) {
	w := newSeatWorld()
	for _, n := range []string{"a1", "b1", "c1"} {
		w.add(n, true)
	}
	w.add("d1", false)
	w.run(time.Minute)
	w.well["b1"] = false
	w.run(seatPatience - time.Second)
	w.well["b1"] = true
	if got := w.run(time.Minute); len(got) != 0 || len(w.changes) != 0 {
		t.Fatal("a restart cost the seat:", w.changes)
	}
	w.well["b1"] = false
	if got := w.run(time.Minute); !slices.Equal(got, []string{"+d1", "-b1"}) {
		t.Fatal(got)
	}
	w.well["b1"] = true
	if got := w.run(time.Minute); len(got) != 0 {
		t.Fatal("back and forth:", got)
	}
}

func TestDeadVoterKeepsItsSeatWhileNobodyElseIsThere(t *testing.T) {
	w := newSeatWorld()
	for _, n := range []string{"a1", "b1", "c1"} {
		w.add(n, true)
	}
	w.well["b1"] = false
	if got := w.run(time.Hour); len(got) != 0 {
		t.Fatal(got)
	}
}

// A voter that returns with an emptied disk is another server. The old one goes
// and the new one votes, and nothing is taken from a node that is still joining.
func TestEmptiedVoterIsAnotherServer_I18(t *testing.T) {
	w := newSeatWorld()
	for _, n := range []string{"a1", "b1", "c1"} {
		w.add(n, true)
	}
	w.run(time.Minute)
	w.well["b1"] = false
	next := raftfsm.Server{ID: raftfsm.ServerID("b1", seatDisk("b1", 2)), NodeID: "b1"}
	w.servers = append(w.servers, next) // joined, and not registered yet
	if got := w.run(10 * time.Minute); len(got) != 0 {
		t.Fatal(got)
	}
	w.brokers["b1"].DiskId = seatDisk("b1", 2)
	w.well["b1"] = true
	if got := w.run(time.Minute); !slices.Equal(got, []string{"xb1/" + seatDisk("b1", 1)[:8], "+b1"}) {
		t.Fatal(got)
	}
}

func TestRemovedBrokerLosesItsServer(t *testing.T) {
	w := newSeatWorld()
	for _, n := range []string{"a1", "b1", "c1"} {
		w.add(n, true)
	}
	w.add("d1", false)
	w.brokers["c1"].State = pb.BrokerState_BROKER_STATE_GONE
	w.well["c1"] = false
	// Two voters bear no death, so that nobody waits for long.
	w.run(2 * seatSwapPatience)
	if got := strings.Join(w.voters(), " "); got != "a1 b1 d1" {
		t.Fatal(got, w.changes)
	}
}

// Whatever happens: changes come to an end, the leader keeps its seat, no change
// takes away the majority of those that are well, and if enough nodes are well,
// as many as there should be vote.
func TestSeatsComeToRest_Property(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newSeatWorld()
		w.add("a1", true)
		names := []string{"b1", "c2", "d2", "e3", "f3"}
		majority := func() bool {
			well, all := 0, 0
			for _, s := range w.servers {
				if s.Voter {
					all++
					if w.well[s.NodeID] && s.ID == raftfsm.ServerID(s.NodeID, w.brokers[s.NodeID].DiskId) {
						well++
					}
				}
			}
			return well*2 > all
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			node := rapid.SampledFrom(names).Draw(rt, "node")
			had := majority()
			switch rapid.SampledFrom([]string{"add", "sick", "well", "wait", "wait"}).Draw(rt, "what") {
			case "add":
				if w.brokers[node] == nil {
					w.add(node, false)
				}
			case "sick":
				if w.brokers[node] != nil {
					w.well[node] = false
				}
			case "well":
				if w.brokers[node] != nil {
					w.well[node] = true
				}
			case "wait":
				w.run(time.Duration(rapid.IntRange(1, 90).Draw(rt, "s")) * time.Second)
				if had && !majority() {
					rt.Fatalf("the majority was changed away: %v", w.changes)
				}
			}
			if !slices.Contains(w.voters(), "a1") {
				rt.Fatal("the leader lost its seat")
			}
		}
		for n := range w.well {
			w.well[n] = true
		}
		w.run(5 * time.Minute)
		if got := w.run(time.Minute); len(got) != 0 {
			rt.Fatalf("no rest: %v", w.changes)
		}
		if got, want := len(w.voters()), placement.Seats(len(w.brokers)); got != want {
			rt.Fatalf("%d voters of %d nodes", got, len(w.brokers))
		}
	})
}
