// Package saboteur has versions of the broker with one protection taken out
// each, and the nemeses that must find them out.
package saboteur

import "shardstream/test/mutants"

// Saboteur is a broker that breaks a promise as soon as something goes wrong.
type Saboteur struct {
	mutants.Mutant
	Nemeses []string // that find it, in turn
}

// All are the saboteurs that a chaos run must catch. The rules whose loss takes
// a rare order of events are left to test/sim.
func All() []Saboteur {
	return []Saboteur{
		{mutants.Mutant{
			Name: "ack-before-fsync", Rule: "an acknowledged record is on disks that have been synced (I2)",
			Edits: []mutants.Edit{{"broker/recordlog/journal.go", "if !j.log.cfg.mutantNoSync {", "if false {"}},
		}, []string{"power-all", "power-torn"}},
		{mutants.Mutant{
			Name: "ack-before-followers", Rule: "an acknowledged record is on all in-sync replicas (I2)",
			Edits: []mutants.Edit{{
				"broker/replica/leader.go",
				"\t\tif c := l.cursorOf(id); c != nil && c.acked {\n\t\t\treturn c.match, true\n\t\t}\n\t\treturn 0, false\n",
				"\t\treturn r.log.DurableEnd(), true\n",
			}},
		}, []string{"kill", "isolate", "pause"}},
		{mutants.Mutant{
			Name: "floor-1", Rule: "the in-sync set never shrinks below its floor (I1)",
			Edits: []mutants.Edit{
				{"broker/replica/leader.go", "nextInSync(l.inSync, r.view.MinInSync, others)", "nextInSync(l.inSync, 1, others)"},
				{"broker/replica/leader.go", "if len(l.inSync) < r.view.MinInSync {", "if len(l.inSync) < 1 {"},
				{"raftfsm/apply_stream.go", "uint32(min(2, len(nodes)))", "uint32(min(1, len(nodes)))"},
				{"raftfsm/elect.go", "uint32(min(2, len(all)))", "uint32(min(1, len(all)))"},
				{"raftfsm/insync.go", "sh.GetMinInSync() < 2 &&", "false &&"},
			},
		}, []string{"alone-then-wiped"}},
		{mutants.Mutant{
			Name: "no-disk-id", Rule: "an emptied disk is another replica (I8)",
			Edits: []mutants.Edit{
				{"raftfsm/apply_broker.go", "gone := old != nil && !sameDisk(old, c)", "gone := false"},
				{"broker/host.go", "case mine.State == pb.ReplicaState_REPLICA_STATE_NEW:", "case mine.State == pb.ReplicaState_REPLICA_STATE_NEW || onDisk == nil:"},
			},
		}, []string{"wipe-slow", "wipe-at-floor"}},
		{mutants.Mutant{
			Name: "epoch-not-durable", Rule: "a process never leads an epoch that it led before a restart (I4, I6)",
			Edits: []mutants.Edit{
				{"broker/replica/replica.go", "epoch: log.Epoch()}", "epoch: log.EpochOf(log.End())}"},
				// A registration's new epoch would hide it.
				{"raftfsm/apply_broker.go", "\t\td.vacate(d.at(at), b.GetNodeId())\n", "\t\tif gone {\n\t\t\td.vacate(d.at(at), b.GetNodeId())\n\t\t}\n"},
			},
		}, []string{"kill-all", "power-all"}},
		{mutants.Mutant{
			Name: "truncate-to-hw", Rule: "a follower is cut where the epoch tables part, not at its high watermark (I5)",
			Edits: []mutants.Edit{{
				"broker/replica/cursor.go", "if !ok {\n\t\tr.env.Alarm(r, c.replica, \"an in-sync",
				"to, restart, ok = stream.Offset(m.HighWatermark), false, true\n\tif !ok {\n\t\tr.env.Alarm(r, c.replica, \"an in-sync",
			}},
		}, []string{"kill-twice"}},
		{mutants.Mutant{
			Name: "no-crc-check", Rule: "what fails its checksum is never served (I14)",
			Edits: []mutants.Edit{{"stream/batch.go", "sum != batch.CRC() {", "sum != batch.CRC() && false {"}},
		}, []string{"rot-live", "rot"}},
		{mutants.Mutant{
			Name: "no-directory-sync", Rule: "a file's name is durable before what is in it counts",
			Edits: []mutants.Edit{{"broker/recordlog/fs.go", "return errors.Join(d.Sync(), d.Close())", "return d.Close()"}},
		}, []string{"power-all", "power-torn"}},
	}
}
