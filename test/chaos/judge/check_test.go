package judge

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// sound makes a history of a stream that keeps its promises: a shard that was
// split, writers that put one record after the other, readers of all kinds.
func sound(seed uint64) *History {
	rnd := rand.New(rand.NewPCG(seed, 1))
	h := &History{Shards: []Shard{{ID: "s0"}, {ID: "s1", Parents: []string{"s0"}}, {ID: "s2", Parents: []string{"s0"}}}}
	logs := map[string][]Record{"s0": {}, "s1": {}, "s2": {}}
	now := Time(time.Second)
	arrival := int64(1000)
	for n := range 60 {
		key := fmt.Sprintf("k%d", rnd.IntN(4))
		shard := "s0"
		if n >= 30 {
			shard = []string{"s1", "s2"}[int(key[1]-'0')%2]
		}
		p := Put{Key: key, Value: fmt.Sprintf("v%d", n), Called: now, Returned: now + 5, Place: Place{shard, fmt.Sprintf("%03d", 100+n)}}
		stored := true
		switch rnd.IntN(10) {
		case 0:
			p.Outcome, stored, p.Place = Refused, false, Place{}
		case 1:
			p.Outcome, stored = Unknown, rnd.IntN(2) == 0
		default:
			p.Outcome = Acknowledged
		}
		arrival += rnd.Int64N(3)
		if stored {
			logs[shard] = append(logs[shard], Record{Sequence: fmt.Sprintf("%03d", 100+n), Key: key, Value: p.Value, ArrivalMs: arrival, At: now + 3})
		}
		if p.Outcome == Unknown {
			p.Place = Place{}
		}
		h.Puts = append(h.Puts, p)
		now += 10
	}
	for _, shard := range slices.Sorted(maps.Keys(logs)) {
		log := logs[shard]
		end := now + 100
		h.Readings = append(h.Readings,
			Reading{Reader: "final", Shard: shard, Records: slices.Clone(log), Started: end, CaughtUp: end + 1, Final: true},
			Reading{Reader: "early", Shard: shard, Records: slices.Clone(log[:len(log)/2])},
			Reading{Reader: "late", Shard: shard, From: Latest, Started: log[len(log)/2].At + 5, Records: slices.Clone(log[len(log)/2+1:]), CaughtUp: end},
			Reading{Reader: "at", Shard: shard, From: AtSequence, Sequence: log[2].Sequence, Records: slices.Clone(log[2:5])},
			Reading{Reader: "after", Shard: shard, From: AfterSequence, Sequence: log[2].Sequence, Records: slices.Clone(log[3:5])},
		)
	}
	return h
}

func TestSoundHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := sound(rapid.Uint64().Draw(t, "seed"))
		if found, _ := h.Check(); len(found) > 0 {
			t.Fatalf("a sound history: %v", found)
		}
	})
}

// reading finds a reader's reading of a shard.
func (h *History) reading(reader, shard string) *Reading {
	for i := range h.Readings {
		if h.Readings[i].Reader == reader && h.Readings[i].Shard == shard {
			return &h.Readings[i]
		}
	}
	panic(reader + shard)
}

// acked finds the n-th acknowledged put of a shard.
func (h *History) acked(shard string, n int) *Put {
	for i := range h.Puts {
		if p := &h.Puts[i]; p.Outcome == Acknowledged && p.Place.Shard == shard {
			if n--; n < 0 {
				return p
			}
		}
	}
	panic("too few")
}

// everywhere changes what all readers of a shard got.
func (h *History) everywhere(shard string, change func([]Record) []Record) {
	for i := range h.Readings {
		if h.Readings[i].Shard == shard {
			h.Readings[i].Records = change(slices.Clone(h.Readings[i].Records))
		}
	}
}

// TestPlantedFaults plants one fault in a sound history; each must be found, and
// by the check that it is meant for.
func TestPlantedFaults(t *testing.T) {
	faults := []struct {
		name, check string
		plant       func(*History)
	}{
		{"an acknowledged record is nowhere", Lost, func(h *History) {
			value := h.acked("s0", 3).Value
			h.everywhere("s0", func(rs []Record) []Record {
				return slices.DeleteFunc(rs, func(r Record) bool { return r.Value == value })
			})
		}},
		{"the last acknowledged records are nowhere", Lost, func(h *History) {
			h.everywhere("s1", func(rs []Record) []Record { return rs[:min(len(rs), 4)] })
		}},
		{"a record is at another place than was acknowledged", Lost, func(h *History) { h.acked("s0", 3).Place.Sequence += "0" }},
		{"another record is at the place", Lost, func(h *History) {
			a, b := h.acked("s0", 3), h.acked("s0", 4)
			a.Place, b.Place = b.Place, a.Place
		}},
		{"a record is there that nobody put", Invented, func(h *History) {
			r := h.reading("final", "s1")
			r.Records = append(r.Records, Record{Sequence: "900", Key: "k0", Value: "alien", ArrivalMs: 99999})
		}},
		{"a record is there that was refused", Invented, func(h *History) { h.acked("s0", 2).Outcome = Refused }},
		{"a record has another key", Invented, func(h *History) { h.acked("s0", 2).Key = "other" }},
		{"a retry is stored twice", Duplicated, func(h *History) {
			r := h.reading("final", "s2")
			again := r.Records[1]
			again.Sequence, again.ArrivalMs = "999", 99999
			r.Records = append(r.Records, again)
		}},
		{"a retry is stored again in a child", Duplicated, func(h *History) {
			again := h.reading("final", "s0").Records[0]
			again.Sequence, again.ArrivalMs = "999", 99999
			r := h.reading("final", "s2")
			r.Records = append(r.Records, again)
		}},
		{"sequence numbers fall", Unordered, func(h *History) {
			rs := h.reading("final", "s0").Records
			rs[3].Sequence, rs[4].Sequence = rs[4].Sequence, rs[3].Sequence
		}},
		{"a number is used twice", Unordered, func(h *History) {
			rs := h.reading("final", "s0").Records
			rs[4].Sequence = rs[3].Sequence
		}},
		{"arrival times fall", Unordered, func(h *History) {
			h.everywhere("s0", func(rs []Record) []Record {
				if len(rs) > 0 {
					rs[0].ArrivalMs = 90_000
				}
				return rs
			})
		}},
		{"a reader saw what is not there any more", Divergent, func(h *History) {
			r := h.reading("early", "s0")
			r.Records = append(r.Records, Record{Sequence: "1005", Value: "gone", At: 1e12})
		}},
		{"a reader saw another value", Divergent, func(h *History) { h.reading("early", "s0").Records[2].Value = "v59" }},
		{"a reader saw another time", Divergent, func(h *History) { h.reading("early", "s0").Records[2].ArrivalMs++ }},
		{"a reader skipped a record", Divergent, func(h *History) {
			r := h.reading("early", "s0")
			r.Records = slices.Delete(r.Records, 2, 3)
		}},
		{"a reader got a record twice", Divergent, func(h *History) {
			r := h.reading("early", "s0")
			r.Records = slices.Insert(r.Records, 3, r.Records[2])
		}},
		{"TRIM_HORIZON began too late", Divergent, func(h *History) {
			r := h.reading("early", "s0")
			r.Records = r.Records[1:]
		}},
		{"AT_SEQUENCE_NUMBER began behind it", Divergent, func(h *History) {
			r := h.reading("at", "s0")
			r.Records = r.Records[1:]
		}},
		{"AFTER_SEQUENCE_NUMBER began with it", Divergent, func(h *History) {
			r := h.reading("after", "s0")
			r.Records = slices.Clone(h.reading("at", "s0").Records)
		}},
		{"AT_TIMESTAMP began too late", Divergent, func(h *History) {
			final := h.reading("final", "s0").Records
			h.Readings = append(h.Readings, Reading{
				Reader: "time", Shard: "s0", From: AtTimestamp, TimestampMs: final[3].ArrivalMs, Records: slices.Clone(final[6:]),
			})
		}},
		{"LATEST began too early", Stale, func(h *History) { h.reading("late", "s0").Started = 1e12 }},
		{"a reader was told that nothing is further", Stale, func(h *History) {
			r := h.reading("early", "s0")
			r.CaughtUp = 1e12
		}},
		{"a later put has a lower number", Unreal, func(h *History) {
			p := h.acked("s0", 0)
			p.Called, p.Returned = 1e12, 1e12+1
		}},
		{"a record was read before it was put", Unreal, func(h *History) { h.reading("early", "s0").Records[0].At = 1 }},
		{"a key's later put stands before", KeyOrder, func(h *History) {
			p := h.acked("s0", 0)
			p.Called, p.Returned = 1e12, 1e12+1
			q := h.acked("s1", 0)
			q.Key = p.Key
			h.everywhere("s1", func(rs []Record) []Record {
				for i := range rs {
					if rs[i].Value == q.Value {
						rs[i].Key = p.Key
					}
				}
				return rs
			})
		}},
		{"a parent took records after its child", ParentLast, func(h *History) {
			h.everywhere("s0", func(rs []Record) []Record {
				for i := range rs {
					rs[i].ArrivalMs += 50_000
				}
				return rs
			})
		}},
		{"a shard was not read at the end", Incomplete, func(h *History) { h.reading("final", "s2").Final = false }},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			for seed := range uint64(20) {
				h := sound(seed)
				f.plant(h)
				if _, counts := h.Check(); counts[f.check] == 0 {
					t.Fatalf("seed %d: not found by %q: %v", seed, f.check, counts)
				}
			}
		})
	}
}
