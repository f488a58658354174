package replica

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"shardstream/broker/recordlog"
	"shardstream/stream"
)

// history is a log as a list of the epochs of its records, from an offset on.
type history struct {
	start  stream.Offset
	epochs []stream.Epoch
}

func (h history) tail() tail {
	t := tail{start: h.start, end: h.start + stream.Offset(len(h.epochs))}
	for i, e := range h.epochs {
		if n := len(t.epochs); n == 0 || t.epochs[n-1].Epoch != e {
			t.epochs = append(t.epochs, recordlog.EpochStart{Epoch: e, First: h.start + stream.Offset(i)})
		}
	}
	return t
}

func TestAgreement_I5(t *testing.T) {
	for _, c := range []struct {
		name   string
		a, b   history
		want   stream.Offset
		common bool
	}{
		{"both empty", history{}, history{}, 0, false},
		{"the same", history{0, []stream.Epoch{1, 1}}, history{0, []stream.Epoch{1, 1}}, 2, true},
		{"the follower is behind", history{0, []stream.Epoch{1, 1, 2}}, history{0, []stream.Epoch{1}}, 1, true},
		{"the follower has more of an old epoch", history{0, []stream.Epoch{1, 1, 3}}, history{0, []stream.Epoch{1, 1, 1, 1}}, 2, true},
		{"the follower has an epoch that the leader never saw", history{0, []stream.Epoch{1, 1, 3}}, history{0, []stream.Epoch{1, 1, 2, 2}}, 2, true},
		{"nothing in common", history{0, []stream.Epoch{2}}, history{0, []stream.Epoch{1}}, 0, false},
		{"the common epoch is not the last of either", history{0, []stream.Epoch{1, 1, 4}}, history{0, []stream.Epoch{1, 2, 3}}, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, common := agreement(c.a.tail(), c.b.tail()); got != c.want || common != c.common {
				t.Errorf("%d, %v, want %d, %v", got, common, c.want, c.common)
			}
		})
	}
}

// TestReconcileGivesAPrefix draws logs as the protocol makes them: each epoch's
// leader goes on with some prefix of a log before. What reconcile says then
// makes the follower a prefix of the leader, and drops nothing that both have.
func TestReconcileGivesAPrefix_I5(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs := [][]stream.Epoch{{}}
		for epoch := stream.Epoch(1); epoch <= 6; epoch++ {
			base := logs[rapid.IntRange(0, len(logs)-1).Draw(t, "base")]
			base = base[:rapid.IntRange(0, len(base)).Draw(t, "prefix")]
			written := slices.Clone(base)
			for range rapid.IntRange(0, 4).Draw(t, "records") {
				written = append(written, epoch)
			}
			// A follower may have got only a part of it.
			logs = append(logs, written, written[:rapid.IntRange(len(base), len(written)).Draw(t, "received")])
		}
		l := logs[rapid.IntRange(0, len(logs)-1).Draw(t, "leader")]
		f := logs[rapid.IntRange(0, len(logs)-1).Draw(t, "follower")]
		same := 0
		for same < len(l) && same < len(f) && l[same] == f[same] {
			same++
		}
		to, restart, ok := reconcile(history{0, l}.tail(), history{0, f}.tail(), rapid.Bool().Draw(t, "in sync"))
		if !ok || restart || int(to) != same {
			t.Fatalf("leader %v, follower %v: to %d, restart %v, ok %v, the same is %d", l, f, to, restart, ok, same)
		}
	})
}

func TestReconcileWithTrimmedLogs_I17(t *testing.T) {
	for _, c := range []struct {
		name             string
		leader, follower history
		inSync           bool
		to               stream.Offset
		restart, ok      bool
	}{
		{"a new replica, and the leader has trimmed", history{7, []stream.Epoch{3}}, history{}, false, 7, true, true},
		{"a follower that was away for longer than the retention", history{7, []stream.Epoch{3}}, history{0, []stream.Epoch{1, 1}}, false, 7, true, true},
		{"the same for an in-sync one can't be", history{7, []stream.Epoch{3}}, history{0, []stream.Epoch{1, 1}}, true, 0, false, false},
		{"both have expired everything", history{5, nil}, history{5, nil}, true, 5, false, true},
		{"the follower has expired more", history{2, []stream.Epoch{1, 1, 1}}, history{5, nil}, true, 5, false, true},
		{"the leader has expired what the follower has", history{3, nil}, history{0, []stream.Epoch{1, 1, 1}}, true, 3, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			to, restart, ok := reconcile(c.leader.tail(), c.follower.tail(), c.inSync)
			if to != c.to || restart != c.restart || ok != c.ok {
				t.Errorf("%d, %v, %v, want %d, %v, %v", to, restart, ok, c.to, c.restart, c.ok)
			}
		})
	}
}

func TestCommitPoint_I2(t *testing.T) {
	ends := map[stream.ReplicaID]stream.Offset{1: 10, 2: 7, 3: 9}
	durable := func(id stream.ReplicaID) (stream.Offset, bool) { end, ok := ends[id]; return end, ok }
	for _, c := range []struct {
		set   []stream.ReplicaID
		want  stream.Offset
		known bool
	}{
		{[]stream.ReplicaID{1, 2, 3}, 7, true},
		{[]stream.ReplicaID{1, 3}, 9, true},
		{[]stream.ReplicaID{1}, 10, true},
		{[]stream.ReplicaID{1, 4}, 0, false},
		{nil, 0, false},
	} {
		if got, known := commitPoint(c.set, durable); got != c.want || known != c.known {
			t.Errorf("%v: %d, %v, want %d, %v", c.set, got, known, c.want, c.known)
		}
	}
}

func TestNextInSync_I1(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    []stream.ReplicaID
		floor  int
		others []candidate
		want   []stream.ReplicaID
		added  stream.ReplicaID
	}{
		{"all is well", []stream.ReplicaID{1, 2, 3}, 2, []candidate{{id: 2, member: true}, {id: 3, member: true}}, nil, 0},
		{"one stalls", []stream.ReplicaID{1, 2, 3}, 2, []candidate{{id: 2, member: true, stalled: true}, {id: 3, member: true}}, []stream.ReplicaID{1, 3}, 0},
		{"at the floor a stalled one stays", []stream.ReplicaID{1, 2}, 2, []candidate{{id: 2, member: true, stalled: true}}, nil, 0},
		{"at the floor it is swapped", []stream.ReplicaID{1, 2}, 2, []candidate{{id: 2, member: true, stalled: true}, {id: 3, ready: true}}, []stream.ReplicaID{1, 3}, 3},
		{"one has caught up", []stream.ReplicaID{1, 2}, 2, []candidate{{id: 2, member: true}, {id: 3, ready: true}}, []stream.ReplicaID{1, 2, 3}, 3},
		{"one has not", []stream.ReplicaID{1, 2}, 2, []candidate{{id: 2, member: true}, {id: 3}}, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			set, added, change := nextInSync(c.set, c.floor, c.others)
			if !slices.Equal(set, c.want) || added != c.added || change != (c.want != nil) {
				t.Errorf("%v, added %d, want %v, %d", set, added, c.want, c.added)
			}
		})
	}
}
