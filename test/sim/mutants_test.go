package sim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"shardstream/test/mutants"
)

// mutant takes one protection out of the real code. Each must make the
// simulation fail: a rule whose loss no test notices is a rule that the next
// change may lose.
type mutant struct {
	name, rule string
	edits      []mutants.Edit
	runs       int // schedules that surely are enough; 0 is the default
}

const (
	followerFile = "broker/replica/follower.go"
	leaderFile   = "broker/replica/leader.go"
	cursorFile   = "broker/replica/cursor.go"
	replicaFile  = "broker/replica/replica.go"
	rulesFile    = "broker/replica/rules.go"
)

var all = []mutant{
	{"ack-before-fsync", "a follower acknowledges what fdatasync has returned for (I2)", []mutants.Edit{
		{followerFile, "if durable := r.log.DurableEnd(); r.up.owed", "if durable := r.log.End(); r.up.owed"},
	}, 0},
	{"leader-counts-unsynced", "a leader counts its own durable end only (I2)", []mutants.Edit{
		{leaderFile, "return r.log.DurableEnd(), true // never the unsynced tail (I2)", "return r.log.End(), true"},
	}, 0},
	{"shrink-before-commit", "a member counts until its eviction is known to be committed (I3)", []mutants.Edit{
		{leaderFile, "l.maximal = union(l.inSync, set)", "l.maximal = union(l.inSync, set)\n\tif added == 0 {\n\t\tl.maximal = set\n\t}"},
	}, 0},
	{"expand-without-maximal", "a new member counts from its proposal on (I3)", []mutants.Edit{
		{leaderFile, "l.maximal = union(l.inSync, set)", "l.maximal = union(l.inSync, set)\n\tif added != 0 {\n\t\tl.maximal = l.inSync\n\t}"},
	}, 0},
	{"same-epoch-restart", "a process never leads an epoch that was adopted before (I4)", []mutants.Edit{
		{replicaFile, "case v.Leader == r.key.Replica && v.Epoch > r.epoch:", "case v.Leader == r.key.Replica && v.Epoch >= r.epoch && r.role != leading && r.role != preparing:"},
		{"raftfsm/apply_broker.go", "\t\td.vacate(d.at(at), b.GetNodeId())\n", "\t\tif gone {\n\t\t\td.vacate(d.at(at), b.GetNodeId())\n\t\t}\n"},
	}, 0},
	{"truncate-to-hw", "a follower is cut where the epoch tables part, not at its high watermark (I5)", []mutants.Edit{
		{cursorFile, "if !ok {\n\t\tr.env.Alarm(r, c.replica, \"an in-sync", "to, restart, ok = stream.Offset(m.HighWatermark), false, true\n\tif !ok {\n\t\tr.env.Alarm(r, c.replica, \"an in-sync"},
	}, 0},
	{"truncate-by-offset-only", "logs are compared by epoch and offset, not by offset alone (I5)", []mutants.Edit{
		{rulesFile, "if to, common := agreement(leader, follower); common &&", "if to, common := min(leader.end, follower.end), true; common &&"},
	}, 0},
	{"floor-1", "the in-sync set never shrinks below its floor (I1)", []mutants.Edit{
		{leaderFile, "nextInSync(l.inSync, r.view.MinInSync, others)", "nextInSync(l.inSync, 1, others)"},
		{leaderFile, "if len(l.inSync) < r.view.MinInSync {", "if len(l.inSync) < 1 {"},
		{"raftfsm/apply_stream.go", "uint32(min(2, len(nodes)))", "uint32(min(1, len(nodes)))"},
		{"raftfsm/elect.go", "uint32(min(2, len(all)))", "uint32(min(1, len(all)))"},
		{"raftfsm/insync.go", "sh.GetMinInSync() < 2 &&", "false &&"},
	}, 0},
	{"in-sync-names-nodes", "an emptied disk is another replica (I8)", []mutants.Edit{
		{"raftfsm/apply_broker.go", "gone := old != nil && !sameDisk(old, c)", "gone := old != nil && !sameDisk(old, c) && false"},
		{"test/sim/node.go", "if rep.State != pb.ReplicaState_REPLICA_STATE_NEW {\n\t\t\t\t\tcontinue", "if false {\n\t\t\t\t\tcontinue"},
	}, 0},
	{"expand-without-catch-up", "a new member holds all that is committed (I9)", []mutants.Edit{
		{leaderFile, "c.match >= r.hw && c.match >= l.epochStart && now >= c.banUntil", "now >= c.banUntil"},
	}, 0},
	{"expand-without-epoch-start", "a new member holds all that its leader was elected with (I9)", []mutants.Edit{
		{leaderFile, "c.match >= r.hw && c.match >= l.epochStart && now", "c.match >= r.hw && now"},
	}, 0},
	{"cut-without-session", "a cut belongs to one handshake (I7)", []mutants.Edit{
		{followerFile, "if !r.attached(from, stream.Epoch(m.Epoch), m.Session) || r.up.reconciled || r.up.cutting {", "if !r.attached(from, stream.Epoch(m.Epoch), r.up.session) || r.up.cutting {"},
	}, 0},
	{"session-is-length", "a handshake is named by a number of its own, not by the log's length (I7)", []mutants.Edit{
		{followerFile, "\tr.up.session++\n", "\tr.up.session = uint64(r.log.End()) + 1\n"},
		{cursorFile, "m.Incarnation == c.incarnation && m.Session <= c.session", "false"},
	}, 0},
	{"epoch-not-persisted", "an epoch is durable before the first message in it (I6)", []mutants.Edit{
		{replicaFile, "epoch: log.Epoch()}", "epoch: log.EpochOf(log.End())}"},
		{"test/sim/disk.go", "if epoch < l.mem.epoch {", "if false {"},
		// A registration's new epoch would hide it.
		{"raftfsm/apply_broker.go", "\t\td.vacate(d.at(at), b.GetNodeId())\n", "\t\tif gone {\n\t\t\td.vacate(d.at(at), b.GetNodeId())\n\t\t}\n"},
	}, 0},
	{"seal-at-the-high-watermark", "a shard is closed when all in-sync members have cut off what is not committed (I21)", []mutants.Edit{
		{leaderFile, "known && hw == end && r.hw == end", "(known || hw == 0) && r.hw == end"},
	}, 0},
	{"append-while-sealing", "the leader of a sealing shard takes no more (I21)", []mutants.Edit{
		{leaderFile, "if !r.view.Open {", "if !r.view.Open && !r.view.Sealing {"},
	}, 0},
	{"settled-at-once", "a new leader has settled when it has committed what it was elected with (I12)", []mutants.Edit{
		{"broker/replica/read.go", "Settling: !settled}", "Settling: false && settled}"},
	}, 0},
	{"narrow-on-refusal", "the commit set narrows only to what was read from the metadata (I3)", []mutants.Edit{
		{leaderFile, "\t\tl.proposedAt = now\n\t\tr.env.ProposeInSync(r, l.pending)\n", "\t\tl.pending, l.maximal = nil, l.inSync\n\t\treturn true\n"},
	}, 0},
}

// TestMutants builds the code without each protection and runs the simulation
// on it, which must fail. It takes minutes; the short form tries two.
func TestMutants(t *testing.T) {
	if os.Getenv("SHARDSTREAM_MUTANT") != "" {
		t.Skip("this is a mutant")
	}
	tried := all
	if os.Getenv("SHARDSTREAM_LONG") == "" {
		tried = []mutant{all[2], all[6]}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range tried {
		t.Run(m.name, func(t *testing.T) {
			out, failed := m.try(t, root)
			if !failed {
				t.Fatalf("no schedule fails though this rule is left out: %s", m.rule)
			}
			found := regexp.MustCompile(`seed (\d+): (.*)`).FindStringSubmatch(out)
			if found == nil {
				t.Fatalf("it failed, but not by a schedule:\n%s", out)
			}
			t.Logf("%s: caught by seed %s: %s", m.rule, found[1], found[2])
		})
	}
}

func (m mutant) try(t *testing.T, root string) (out string, failed bool) {
	t.Helper()
	file, err := mutants.Mutant{Name: m.name, Rule: m.rule, Edits: m.edits}.Overlay(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	runs := m.runs
	if runs == 0 {
		runs = 20_000
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", file, "-vet=off", "-run", "^TestSchedules$", "-timeout", "9m", ".", "-args", "-runs", fmt.Sprint(runs))
	cmd.Env = append(os.Environ(), "SHARDSTREAM_MUTANT="+m.name)
	raw, err := cmd.CombinedOutput()
	if strings.Contains(string(raw), "[build failed]") {
		t.Fatalf("the mutant doesn't build:\n%s", raw)
	}
	return string(raw), err != nil
}
