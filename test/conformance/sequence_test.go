package conformance

import (
	"fmt"
	"math/big"
	"testing"
)

// sequence is a sequence number, read as the reference draws it: 47 hexadecimal
// digits.
type sequence struct {
	major, version    int64
	created, arrival  int64 // Unix seconds
	counter           uint64
	shard, lowOfShard int64
}

// parseSequence reads a number, and holds that it is one of this form.
func parseSequence(t testing.TB, text string) sequence {
	t.Helper()
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || len(text) != 56 || n.BitLen() != 186 {
		t.Fatalf("%q is no number of 56 digits and 186 bits", text)
	}
	field := func(from, digits uint) uint64 { // from the left
		shift := 4 * (47 - from - digits)
		mask := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 4*digits), big.NewInt(1))
		return new(big.Int).And(new(big.Int).Rsh(n, shift), mask).Uint64()
	}
	s := sequence{
		major: int64(field(0, 1)), created: int64(field(1, 9)), lowOfShard: int64(field(10, 1)), counter: field(11, 16),
		arrival: int64(field(29, 9)), shard: int64(field(38, 8)), version: int64(field(46, 1)),
	}
	if s.major != 2 || s.version != 2 || s.lowOfShard != s.shard&0xf || field(27, 2) != 0 {
		t.Fatalf("%s is %+v", text, s)
	}
	return s
}

// String gives the number in decimal.
func (s sequence) String() string {
	n, _ := new(big.Int).SetString(fmt.Sprintf("%x%09x%x%016x00%09x%08x%x", s.major, s.created, s.shard&0xf, s.counter, s.arrival, uint32(s.shard), s.version), 16)
	return n.String()
}

// TestSequence holds the test's own reading against numbers that are known.
func TestSequence(t *testing.T) {
	const seen = "49674026002850188218576229259473476449429298564223254594" // of 2026-04, shard 3076
	want := sequence{major: 2, version: 2, created: 1777319237, arrival: 1777320018, counter: 21689507110, shard: 3076, lowOfShard: 4}
	if got := parseSequence(t, seen); got != want || got.String() != seen {
		t.Errorf("%+v and %s, not %+v", got, got, want)
	}
	const first = "49646437577108476416916876405825929425585429676275269634"
	if got := (sequence{major: 2, version: 2, created: 1700000000, arrival: 1700000000}).String(); got != first {
		t.Errorf("%s, not %s", got, first)
	}
}
