package placement

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"shardstream/stream"
)

// shard makes one from letters: "a* b (c) d!" is led by a; c is not able, d lost.
func shard(number uint32, factor int, replicas ...string) Shard {
	sh := Shard{ID: stream.ShardID{Stream: 1, Number: number}, Factor: factor}
	for _, r := range replicas {
		sh.Replicas = append(sh.Replicas, Replica{
			Node: stream.NodeID(r[:1]), Leader: slices.Contains([]byte(r), '*'),
			Able: !slices.Contains([]byte(r), '-') && !slices.Contains([]byte(r), '!'), Lost: slices.Contains([]byte(r), '!'),
		})
	}
	return sh
}

func TestPreferredLeadersTable(t *testing.T) {
	for _, c := range []struct {
		name   string
		shards []Shard
		want   string
	}{
		{"nothing", nil, "[]"},
		{"at home", []Shard{shard(0, 3, "a*", "b", "c")}, "[]"},
		{"back home", []Shard{shard(0, 3, "a", "b*", "c")}, "[0 to a]"},
		{"home is not able", []Shard{shard(0, 3, "a-", "b*", "c")}, "[]"},
		{"nobody is", []Shard{shard(0, 3, "a-", "b-")}, "[]"},
		{"offline", []Shard{shard(0, 3, "a", "b")}, "[0 to a]"},
		{"even out", []Shard{shard(0, 2, "a*", "b"), shard(1, 2, "a*", "b"), shard(2, 2, "a*", "b")}, "[0 to b]"},
		{"within one", []Shard{shard(0, 2, "a*", "b"), shard(1, 2, "b*", "a"), shard(2, 2, "a*", "b")}, "[]"},
		{"along a chain", []Shard{shard(0, 2, "a*", "b"), shard(1, 2, "a*", "b"), shard(2, 2, "b*", "c")}, "[0 to b 2 to c]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, m := range PreferredLeaders(c.shards) {
				got = append(got, fmt.Sprintf("%d to %s", m.Shard.Number, m.To))
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

// drawShards makes shards with replicas on some of the nodes.
func drawShards(t *rapid.T, nodes int) []Shard {
	shards := make([]Shard, rapid.IntRange(0, 30).Draw(t, "shards"))
	for i := range shards {
		sh := Shard{ID: stream.ShardID{Stream: stream.StreamID(i % 3), Number: uint32(i)}, Factor: rapid.IntRange(1, 4).Draw(t, "factor")}
		on := rapid.SliceOfNDistinct(rapid.IntRange(0, nodes-1), 1, min(4, nodes), rapid.ID[int]).Draw(t, "on")
		leader := rapid.IntRange(-1, len(on)-1).Draw(t, "leader")
		for j, n := range on {
			sh.Replicas = append(sh.Replicas, Replica{
				Node: nodeName(n), Leader: j == leader,
				Able: rapid.IntRange(0, 3).Draw(t, "able") > 0, Lost: rapid.IntRange(0, 4).Draw(t, "lost") == 0,
			})
		}
		shards[i] = sh
	}
	return shards
}

func nodeName(i int) stream.NodeID { return stream.NodeID(fmt.Sprintf("n%d", i)) }

func clone(shards []Shard) []Shard {
	all := slices.Clone(shards)
	for i := range all {
		all[i].Replicas = slices.Clone(all[i].Replicas)
	}
	return all
}

func TestPreferredLeadersProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shards := drawShards(t, rapid.IntRange(1, 6).Draw(t, "nodes"))
		before := clone(shards)
		moves := PreferredLeaders(shards)
		if !reflect.DeepEqual(before, shards) {
			t.Fatal("the argument was changed")
		}
		if again := PreferredLeaders(rapid.Permutation(shards).Draw(t, "order")); !reflect.DeepEqual(moves, again) {
			t.Fatalf("depends on the order of the shards:\n%v\n%v", moves, again)
		}
		to := make(map[stream.ShardID]stream.NodeID)
		for _, m := range moves {
			if _, twice := to[m.Shard]; twice {
				t.Fatalf("shard %v is moved twice", m.Shard)
			}
			to[m.Shard] = m.To
		}
		leads := make(map[stream.NodeID]int)
		for i := range shards {
			sh := &shards[i]
			target, moved := to[sh.ID]
			for j := range sh.Replicas {
				r := &sh.Replicas[j]
				if moved {
					if r.Node == target && (!r.Able || r.Leader) {
						t.Fatalf("%v was moved to %s: %v", sh.ID, target, sh)
					}
					r.Leader = r.Node == target
				}
				if r.Leader && r.Able {
					leads[r.Node]++
				}
			}
		}
		if more := PreferredLeaders(shards); len(more) > 0 {
			t.Fatalf("after %v it wants %v", moves, more)
		}
		// Nobody has two more than another that could take one over directly.
		for _, sh := range shards {
			for _, from := range sh.Replicas {
				for _, to := range sh.Replicas {
					if from.Leader && from.Able && to.Able && leads[from.Node] > leads[to.Node]+1 {
						t.Fatalf("%s leads %d, and %s only %d: %v", from.Node, leads[from.Node], to.Node, leads[to.Node], sh)
					}
				}
			}
		}
	})
}

// A broker that returns gets back what placement gave it, and no more moves.
func TestPreferredLeadersAfterFailover(t *testing.T) {
	brokers := []Broker{{Node: "a"}, {Node: "b"}, {Node: "c"}, {Node: "d"}}
	var shards []Shard
	away := 0
	for i, nodes := range Assign(100, 3, brokers) {
		sh := Shard{ID: stream.ShardID{Stream: 1, Number: uint32(i)}, Factor: 3}
		for j, n := range nodes {
			leads := j == 0
			if nodes[0] == "a" {
				leads = j == 1 // since a was away
			}
			sh.Replicas = append(sh.Replicas, Replica{Node: n, Leader: leads, Able: true})
		}
		if nodes[0] == "a" {
			away++
		}
		shards = append(shards, sh)
	}
	moves := PreferredLeaders(shards)
	if len(moves) != away {
		t.Errorf("%d moves for %d leaderships", len(moves), away)
	}
	for _, m := range moves {
		if m.To != "a" {
			t.Errorf("%v", m)
		}
	}
}

func TestRepairTable(t *testing.T) {
	brokers := []Broker{{Node: "a", Zone: "x"}, {Node: "b", Zone: "x", Replicas: 5}, {Node: "c", Zone: "y", Replicas: 9}, {Node: "d", Zone: "z", Replicas: 3}}
	wide := Limits{Total: 100, PerBroker: 100}
	for _, c := range []struct {
		name     string
		shards   []Shard
		underway map[stream.NodeID]int
		limits   Limits
		want     string
	}{
		{"whole", []Shard{shard(0, 3, "a", "b", "c")}, nil, wide, "[]"},
		{"a zone first", []Shard{shard(0, 2, "a")}, nil, wide, "[0 on d]"},
		{"then a count", []Shard{shard(0, 4, "a", "c", "d")}, nil, wide, "[0 on b]"},
		{"a lost one does not count", []Shard{shard(0, 3, "a", "c", "d!")}, nil, wide, "[0 on b]"},
		{"one at a time", []Shard{shard(0, 4, "a")}, nil, wide, "[0 on d]"},
		{"nowhere to go", []Shard{shard(0, 5, "a", "b", "c", "d")}, nil, wide, "[]"},
		{"the neediest first", []Shard{shard(0, 3, "a", "c"), shard(1, 3, "a")}, nil, Limits{1, 9}, "[1 on d]"},
		{"busy brokers wait", []Shard{shard(0, 3, "a", "c"), shard(1, 3, "a", "c")}, nil, Limits{9, 1}, "[0 on d]"},
		{"another in the zone is free", []Shard{shard(0, 2, "d")}, map[stream.NodeID]int{"a": 4}, Limits{9, 4}, "[0 on b]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, p := range Repair(c.shards, brokers, c.underway, c.limits) {
				got = append(got, fmt.Sprintf("%d on %s", p.Shard.Number, p.Node))
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestRepairProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "nodes")
		brokers := make([]Broker, n)
		underway := make(map[stream.NodeID]int)
		for i := range brokers {
			brokers[i] = Broker{Node: nodeName(i), Zone: fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "zone")), Replicas: rapid.IntRange(0, 9).Draw(t, "replicas")}
			underway[nodeName(i)] = rapid.IntRange(0, 3).Draw(t, "under way")
		}
		shards := drawShards(t, n)
		limits := Limits{rapid.IntRange(0, 9).Draw(t, "total"), rapid.IntRange(1, 4).Draw(t, "per broker")}
		before := clone(shards)
		places := Repair(shards, brokers, underway, limits)
		if !reflect.DeepEqual(before, shards) {
			t.Fatal("the argument was changed")
		}
		again := Repair(rapid.Permutation(shards).Draw(t, "order"), rapid.Permutation(brokers).Draw(t, "order"), underway, limits)
		if !reflect.DeepEqual(places, again) {
			t.Fatalf("depends on the order:\n%v\n%v", places, again)
		}
		if len(places) > limits.Total {
			t.Fatalf("%d at once", len(places))
		}
		byID := make(map[stream.ShardID]Shard)
		for _, sh := range shards {
			byID[sh.ID] = sh
		}
		seen := make(map[stream.ShardID]bool)
		for _, p := range places {
			sh := byID[p.Shard]
			underway[p.Node]++
			switch {
			case seen[p.Shard]:
				t.Fatalf("two for %v", p.Shard)
			case sh.missing() <= 0:
				t.Fatalf("%v lacks none", sh)
			case slices.ContainsFunc(sh.Replicas, func(r Replica) bool { return r.Node == p.Node }):
				t.Fatalf("two replicas of %v on %s", sh, p.Node)
			case underway[p.Node] > limits.PerBroker:
				t.Fatalf("%s has %d under way", p.Node, underway[p.Node])
			}
			seen[p.Shard] = true
		}
		// What was left out had a reason.
		for _, sh := range shards {
			if seen[sh.ID] || sh.missing() <= 0 || len(places) == limits.Total {
				continue
			}
			best, busy := 99, false
			for _, b := range brokers {
				if slices.ContainsFunc(sh.Replicas, func(r Replica) bool { return r.Node == b.Node }) {
					continue
				}
				in := 0
				for _, r := range sh.Replicas {
					if i := slices.IndexFunc(brokers, func(o Broker) bool { return o.Node == r.Node }); !r.Lost && brokers[i].Zone == b.Zone {
						in++
					}
				}
				full := underway[b.Node] >= limits.PerBroker
				if in < best {
					best, busy = in, full
				} else if in == best {
					busy = busy && full
				}
			}
			if best < 99 && !busy {
				t.Fatalf("%v was left out, with room for it", sh)
			}
		}
	})
}

func TestVotersTable(t *testing.T) {
	m := func(id string, marks string) Member {
		has := func(c byte) bool { return slices.Contains([]byte(marks), c) }
		return Member{ID: id, Node: stream.NodeID(id), Zone: marks[:1], Voter: has('v'), Dead: has('d'), Well: has('w'), Leader: has('l')}
	}
	for _, c := range []struct {
		name    string
		members []Member
		want    VoterChange
	}{
		{"alone", []Member{m("a", "xvwl")}, VoterChange{}},
		{"two are as good as one", []Member{m("a", "xvwl"), m("b", "xw")}, VoterChange{}},
		{"to three", []Member{m("a", "xvwl"), m("b", "xw"), m("c", "xw")}, VoterChange{Promote: "b"}},
		{"and on", []Member{m("a", "xvwl"), m("b", "xvw"), m("c", "xw")}, VoterChange{Promote: "c"}},
		{"the third is not well yet", []Member{m("a", "xvwl"), m("b", "xw"), m("c", "x")}, VoterChange{}},
		{"four need no fourth", []Member{m("a", "xvwl"), m("b", "xvw"), m("c", "xvw"), m("d", "xw")}, VoterChange{}},
		{"a dead one is replaced", []Member{m("a", "xvwl"), m("b", "xvd"), m("c", "xvw"), m("d", "xw")}, VoterChange{Promote: "d"}},
		{"and goes then", []Member{m("a", "xvwl"), m("b", "xvd"), m("c", "xvw"), m("d", "xvw")}, VoterChange{Demote: "b"}},
		{"nobody to replace it", []Member{m("a", "xvwl"), m("b", "xvd"), m("c", "xvw")}, VoterChange{}},
		{"too early to say", []Member{m("a", "xvwl"), m("b", "xv"), m("c", "xvw"), m("d", "xw")}, VoterChange{}},
		{"zones first", []Member{m("a", "xvwl"), m("b", "xw"), m("c", "xw"), m("d", "yw"), m("e", "zw")}, VoterChange{Promote: "d"}},
		{"a crowded zone", []Member{m("a", "xvwl"), m("b", "xvw"), m("c", "xvw"), m("d", "yw")}, VoterChange{Promote: "d"}},
		{"gives one up", []Member{m("a", "xvwl"), m("b", "xvw"), m("c", "xvw"), m("d", "yvw")}, VoterChange{Demote: "c"}},
		{"never the leader", []Member{m("a", "xvw"), m("b", "xvwl")}, VoterChange{Demote: "a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Voters(c.members); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestVotersProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := make([]Member, rapid.IntRange(1, 8).Draw(t, "members"))
		leader := rapid.IntRange(0, len(members)-1).Draw(t, "leader")
		for i := range members {
			health := rapid.IntRange(0, 4).Draw(t, "health")
			members[i] = Member{
				ID: fmt.Sprint("s", i), Zone: fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "zone")),
				Voter: rapid.Bool().Draw(t, "voter"), Dead: health == 0, Well: health > 1,
			}
		}
		members[leader] = Member{ID: members[leader].ID, Zone: members[leader].Zone, Voter: true, Well: true, Leader: true}
		for step := 0; ; step++ {
			c := Voters(members)
			if again := Voters(rapid.Permutation(members).Draw(t, "order")); again != c {
				t.Fatalf("depends on the order: %+v, %+v", c, again)
			}
			if c == (VoterChange{}) {
				break
			}
			if step > 30 || c.Promote != "" && c.Demote != "" {
				t.Fatalf("step %d is %+v", step, c)
			}
			i := slices.IndexFunc(members, func(m Member) bool { return m.ID == c.Promote+c.Demote })
			m := &members[i]
			if promoted := c.Promote != ""; promoted == m.Voter || promoted && !m.Well || !promoted && m.Leader {
				t.Fatalf("%+v of %+v", c, *m)
			}
			m.Voter = c.Promote != ""
		}
		alive, voting, waiting := 0, 0, 0
		inZone := make(map[string]int)
		for _, m := range members {
			switch {
			case m.Voter && !m.Dead:
				alive++
				inZone[m.Zone]++
				voting++
			case m.Voter:
				voting++
			case m.Well:
				waiting++
			}
		}
		seats := Seats(len(members))
		if voting > seats {
			t.Fatalf("%d vote where %d should", voting, seats)
		}
		if alive < seats && waiting > 1 {
			t.Fatalf("%d voters alive where %d should be, and %d wait", alive, seats, waiting)
		}
		for _, m := range members {
			if m.Voter || !m.Well || alive < seats {
				continue
			}
			for _, n := range inZone {
				if n > inZone[m.Zone]+1 {
					t.Fatalf("%s could vote for zone %s, another zone has %d votes: %+v", m.ID, m.Zone, n, members)
				}
			}
		}
	})
}

func BenchmarkPreferredLeaders100kShards(b *testing.B) {
	brokers := make([]Broker, 12)
	for i := range brokers {
		brokers[i] = Broker{Node: nodeName(i), Zone: fmt.Sprint(i % 3)}
	}
	var shards []Shard
	for i, nodes := range Assign(100_000, 3, brokers) {
		sh := Shard{ID: stream.ShardID{Stream: 1, Number: uint32(i)}}
		for j, n := range nodes {
			sh.Replicas = append(sh.Replicas, Replica{Node: n, Leader: j == 1, Able: n != "n3"})
		}
		shards = append(shards, sh)
	}
	for b.Loop() {
		PreferredLeaders(shards)
	}
}
