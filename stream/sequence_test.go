package stream

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// spell gives the number the layout says, the plain way.
func spell(t rapid.TB, created int64, nibble, counter uint64, zero, arrival int64, shard uint32, version int) string {
	t.Helper()
	hex := fmt.Sprintf("2%09x%x%016x%02x%09x%08x%x", created, nibble, counter, zero, arrival, shard, version)
	if len(hex) != 47 {
		t.Fatalf("%s has %d digits", hex, len(hex))
	}
	n, ok := new(big.Int).SetString(hex, 16)
	if !ok {
		t.Fatalf("%s is no number", hex)
	}
	return n.String()
}

func anySequence() *rapid.Generator[SequenceNumber] {
	return rapid.Custom(func(t *rapid.T) SequenceNumber {
		return SequenceNumber{
			Created: rapid.Int64Range(0, maxCreated-1).Draw(t, "created"),
			Shard:   rapid.Uint32Range(0, 1<<31-1).Draw(t, "shard"),
			Counter: rapid.OneOf(rapid.Uint64Range(0, MaxCounter), rapid.SampledFrom([]uint64{0, 1, MaxCounter})).Draw(t, "counter"),
			Arrival: rapid.Int64Range(0, 1<<36-1).Draw(t, "arrival"),
		}
	})
}

func TestSequenceLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := anySequence().Draw(t, "number")
		s := n.String()
		if want := spell(t, n.Created, uint64(n.Shard&0xf), n.Counter, 0, n.Arrival, n.Shard, 2); s != want {
			t.Fatalf("%+v: got %s, want %s", n, s, want)
		}
		if len(s) != 56 {
			t.Fatalf("%s has %d digits", s, len(s))
		}
		p, err := ParseSequence(s)
		if err != nil || p.SequenceNumber != n || p.Version != 2 || p.Shard64 != int64(n.Shard) {
			t.Fatalf("%s is read as %+v, %v", s, p, err)
		}
	})
}

// The order in a shard is that of the counters, whatever the clock did, as
// strings and as integers alike.
func TestSequenceOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anySequence().Draw(t, "a"), anySequence().Draw(t, "b")
		b.Created, b.Shard = a.Created, a.Shard
		if a.Counter == b.Counter {
			return
		}
		if (a.String() < b.String()) != (a.Counter < b.Counter) {
			t.Fatalf("%v and %v", a, b)
		}
		start, end := StartSequence(a.Shard, a.Created), EndSequence(a.Shard, a.Created, a.Arrival)
		record := RecordSequence(a.Shard, a.Created, Offset(a.Counter%(MaxCounter-1)), a.Arrival)
		if start.String() >= record.String() || record.String() >= end.String() {
			t.Fatalf("%v is not between %v and %v", record, start, end)
		}
	})
}

func TestSequenceVectors(t *testing.T) {
	// A number recorded in 2026.
	const recorded = "49674026002850188218576229259473476449429298564223254594"
	want := SequenceNumber{Created: 1777319237, Shard: 3076, Counter: 21689507110, Arrival: 1777320018}
	p, err := ParseSequence(recorded)
	if err != nil || p.SequenceNumber != want || p.Version != 2 {
		t.Errorf("got %+v, %v", p, err)
	}
	if got := want.String(); got != recorded {
		t.Errorf("got %s", got)
	}
	if got := StartSequence(0, 1700000000).String(); got != "49646437577108476416916876405825929425585429676275269634" {
		t.Errorf("got %s", got)
	}
	// Neighbouring shards of one stream: 2^144 + 16 apart while the nibble rises.
	difference, _ := new(big.Int).SetString("22300745198530623141535718272648361505980432", 10)
	for shard := range uint32(15) {
		a, _ := new(big.Int).SetString(StartSequence(shard, 1700000000).String(), 10)
		b, _ := new(big.Int).SetString(StartSequence(shard+1, 1700000000).String(), 10)
		if d := b.Sub(b, a); d.Cmp(difference) != 0 {
			t.Errorf("shard %d: got %v", shard, d)
		}
	}
	end := EndSequence(5, 1700000000, 1700000100)
	if got, want := end.String(), spell(t, 1700000000, 5, 0x7fffffffffffffff, 0, 1700000100, 5, 2); got != want {
		t.Errorf("end: got %s, want %s", got, want)
	}
}

func TestParseSequence(t *testing.T) {
	two := func(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }
	minus1 := func(n *big.Int) *big.Int { return n.Sub(n, big.NewInt(1)) }
	for _, c := range []struct {
		name, in string
		want     *ParsedSequence // nil: refused
	}{
		{"zero", "0", &ParsedSequence{}},
		{"shard of a small number", "5", &ParsedSequence{SequenceNumber: SequenceNumber{Shard: 5}, Shard64: 5}},
		{"negative shard, version 0", "2147483648", &ParsedSequence{SequenceNumber: SequenceNumber{Shard: 1 << 31}, Shard64: -1 << 31}},
		{"2^124 reads as 0", two(124).String(), &ParsedSequence{}},
		{"version 0 with leading 2", two(125).String(), nil},
		{"last below 2^129", minus1(two(129)).String(), nil},
		{"2^129", two(129).String(), nil},
		{"last below 2^185", minus1(two(185)).String(), nil},
		{"all zero, version 0 digit", two(185).String(), &ParsedSequence{}},
		{"all zero, version 1", spell(t, 0, 0, 0, 0, 0, 0, 1), &ParsedSequence{Version: 1}},
		{"all zero, version 2", spell(t, 0, 0, 0, 0, 0, 0, 2), &ParsedSequence{Version: 2}},
		{"version 3", spell(t, 0, 0, 0, 0, 0, 0, 3), nil},
		{"version 4", spell(t, 0, 0, 0, 0, 0, 0, 4), nil},
		{"version 15", spell(t, 0, 0, 0, 0, 0, 0, 15), nil},
		{"leading 3", minus1(two(186)).String(), nil},
		{"leading 3 of what else is version 2", new(big.Int).Or(new(big.Int).Lsh(big.NewInt(3), 184), big.NewInt(2)).String(), nil},
		{"leading 4", two(186).String(), nil},
		{"48 digits", two(190).String(), nil},
		{"negative shard", spell(t, 0, 0, 0, 0, 0, 1<<31, 2), &ParsedSequence{SequenceNumber: SequenceNumber{Shard: 1 << 31}, Version: 2, Shard64: -1 << 31}},
		{"last creation second", spell(t, maxCreated-1, 0, 0, 0, 0, 0, 2), &ParsedSequence{SequenceNumber: SequenceNumber{Created: maxCreated - 1}, Version: 2}},
		{"creation second too late", spell(t, maxCreated, 0, 0, 0, 0, 0, 2), nil},
		{"creation second too late, version 1", spell(t, maxCreated, 0, 0, 0, 0, 0, 1), nil},
		{"counter's top bit", spell(t, 0, 0, 1<<63, 0, 0, 0, 2), nil},
		{"greatest counter", spell(t, 0, 0, MaxCounter, 0, 0, 0, 2), &ParsedSequence{SequenceNumber: SequenceNumber{Counter: MaxCounter}, Version: 2}},
		{"empty", "", nil},
		{"leading zero", "05", nil},
		{"sign", "-5", nil},
		{"letter", "5a", nil},
		{"129 digits", strings.Repeat("9", 129), nil},
		{"130 digits", strings.Repeat("9", 130), nil},
	} {
		got, err := ParseSequence(c.in)
		if c.want == nil {
			var se *SequenceError
			if !errors.As(err, &se) {
				t.Errorf("%s: got %+v, %v", c.name, got, err)
			}
			continue
		}
		if err != nil || got != *c.want {
			t.Errorf("%s: got %+v, %v", c.name, got, err)
		}
	}
}

// TestParseVersion1 reads the fields of the old layout: 36 bits creation, a
// nibble, 8 bits, 36 bits arrival, 56 random bits, 8 bits, the shard.
func TestParseVersion1(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		created := rapid.Int64Range(0, maxCreated-1).Draw(t, "created")
		arrival := rapid.Int64Range(0, 1<<36-1).Draw(t, "arrival")
		random := rapid.Uint64Range(0, 1<<56-1).Draw(t, "random")
		shard := rapid.Uint32().Draw(t, "shard")
		hex := fmt.Sprintf("2%09x%x%02x%09x%014x%02x%08x1", created, shard&0xf, 0, arrival, random, shard&0xff, shard)
		n, _ := new(big.Int).SetString(hex, 16)
		want := ParsedSequence{SequenceNumber: SequenceNumber{Created: created, Arrival: arrival, Counter: random, Shard: shard}, Version: 1, Shard64: int64(int32(shard))}
		if got, err := ParseSequence(n.String()); err != nil || got != want {
			t.Fatalf("%s: got %+v, %v, want %+v", hex, got, err, want)
		}
	})
}

func FuzzSequence(f *testing.F) {
	f.Add("0")
	f.Add("49674026002850188218576229259473476449429298564223254594")
	f.Add(strings.Repeat("9", 129))
	f.Add("24519928653854221733733552434404946937899825954937634816")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseSequence(s)
		if err != nil {
			return
		}
		if p.Created < 0 || p.Created >= maxCreated || p.Version < 0 || p.Version > 2 {
			t.Fatalf("%s is read as %+v", s, p)
		}
		if p.Version != 2 {
			return
		}
		// All but the nibble and the zero byte of the layout comes back.
		again, err := ParseSequence(p.String())
		if err != nil || again != p {
			t.Fatalf("%s: %+v, then %+v, %v", s, p, again, err)
		}
	})
}

func TestSequenceAllocations(t *testing.T) {
	buf := make([]byte, 0, 64)
	n := RecordSequence(3, 1700000000, 12345, 1700000001)
	if got := testing.AllocsPerRun(100, func() { buf = n.Append(buf[:0]) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
