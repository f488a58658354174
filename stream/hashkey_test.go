package stream

import (
	"crypto/md5"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var two128 = new(big.Int).Lsh(big.NewInt(1), 128)

func (k HashKey) big() *big.Int {
	n := new(big.Int).SetUint64(k.Hi)
	return n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(k.Lo))
}

// anyHashKey prefers the edges, where carries happen.
func anyHashKey() *rapid.Generator[HashKey] {
	word := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 1<<63 - 1, 1 << 63, 1<<64 - 1}))
	return rapid.Custom(func(t *rapid.T) HashKey { return HashKey{word.Draw(t, "hi"), word.Draw(t, "lo")} })
}

func TestHashKeyArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyHashKey().Draw(t, "a"), anyHashKey().Draw(t, "b")
		m := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 20)).Draw(t, "m")
		mod := func(n *big.Int) *big.Int { return n.Mod(n, two128) }
		for _, c := range []struct {
			name string
			got  HashKey
			want *big.Int
		}{
			{"add", a.Add(b), mod(new(big.Int).Add(a.big(), b.big()))},
			{"sub", a.Sub(b), mod(new(big.Int).Sub(a.big(), b.big()))},
			{"next", a.Next(), mod(new(big.Int).Add(a.big(), big.NewInt(1)))},
			{"prev", a.Prev(), mod(new(big.Int).Sub(a.big(), big.NewInt(1)))},
			{"times", a.mul64(m), mod(new(big.Int).Mul(a.big(), new(big.Int).SetUint64(m)))},
		} {
			if c.got.big().Cmp(c.want) != 0 {
				t.Fatalf("%s: got %v, want %v", c.name, c.got, c.want)
			}
		}
		if d := max(m, 1); d != 0 {
			q, r := a.divmod64(d)
			wantQ, wantR := new(big.Int).QuoRem(a.big(), new(big.Int).SetUint64(d), new(big.Int))
			if q.big().Cmp(wantQ) != 0 || r != wantR.Uint64() {
				t.Fatalf("%v / %d: got %v, %d", a, d, q, r)
			}
		}
		if got, want := a.Compare(b), a.big().Cmp(b.big()); got != want || a.Less(b) != (want < 0) {
			t.Fatalf("compare %v, %v: got %d, want %d", a, b, got, want)
		}
		if got, want := a.String(), a.big().String(); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		r := HashRange{a, b}
		c := anyHashKey().Draw(t, "c")
		if got, want := r.Contains(c), c.big().Cmp(a.big()) >= 0 && c.big().Cmp(b.big()) <= 0; got != want {
			t.Fatalf("%v in [%v, %v]: %v", c, a, b, got)
		}
	})
}

func TestParseHashKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := anyHashKey().Draw(t, "key")
		if got, ok := ParseHashKey(k.String()); !ok || got != k {
			t.Fatalf("%v is read as %v, %v", k, got, ok)
		}
		// A decimal of any size is read as math/big reads it, or refused.
		s := rapid.StringMatching(`[0-9]{1,41}`).Draw(t, "decimal")
		n, _ := new(big.Int).SetString(s, 10)
		want := n.Cmp(two128) < 0 && n.String() == s
		if got, ok := ParseHashKey([]byte(s)); ok != want || ok && got.big().Cmp(n) != 0 {
			t.Fatalf("%s is read as %v, %v", s, got, ok)
		}
	})
	for s, want := range map[string]bool{
		"0": true, "00": false, "01": false, "": false, "-1": false, "+1": false, "1 ": false, "1a": false, "٣": false,
		"340282366920938463463374607431768211455": true,
		"340282366920938463463374607431768211456": false,
		"340282366920938463463374607431768211460": false,
		"999999999999999999999999999999999999999": false,
		"100000000000000000000000000000000000000": true,
		strings.Repeat("1", 40):                   false,
	} {
		if _, ok := ParseHashKey(s); ok != want {
			t.Errorf("%q: got %v, want %v", s, ok, want)
		}
	}
}

func TestHashPartitionKey(t *testing.T) {
	// Vectors recorded against AWS, and the shards of a fresh stream of three.
	three := UniformRanges(3)
	for _, c := range []struct {
		key, hash string
		shard     int
	}{
		{"a", "16955237001963240173058271559858726497", 0},
		{"b", "195289424170611159128911017612795795343", 1},
		{"e", "299611584147932843547128611849858313266", 2},
		{"f", "190917122200326810055233066464581373159", 1},
	} {
		h := HashPartitionKey([]byte(c.key))
		if h.String() != c.hash || !three[c.shard].Contains(h) {
			t.Errorf("%s: got %v", c.key, h)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOf(rapid.Byte()).Draw(t, "key")
		sum := md5.Sum(key)
		if got, want := HashPartitionKey(key).big(), new(big.Int).SetBytes(sum[:]); got.Cmp(want) != 0 {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestUniformRanges(t *testing.T) {
	for n, want := range map[int]string{
		1: "0-340282366920938463463374607431768211455",
		2: "0-170141183460469231731687303715884105727 170141183460469231731687303715884105728-340282366920938463463374607431768211455",
		3: "0-113427455640312821154458202477256070484 113427455640312821154458202477256070485-226854911280625642308916404954512140969 226854911280625642308916404954512140970-340282366920938463463374607431768211455",
	} {
		var got []string
		for _, r := range UniformRanges(n) {
			got = append(got, fmt.Sprintf("%v-%v", r.Start, r.End))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%d: got %s", n, s)
		}
	}
	counts := []int{4096, 9999, 10000, 65536, 100000}
	for n := 1; n <= 300; n++ {
		counts = append(counts, n)
	}
	for _, n := range counts {
		ranges := UniformRanges(n)
		w := new(big.Int).Quo(two128, big.NewInt(int64(n)))
		if len(ranges) != n || ranges[0].Start != (HashKey{}) || ranges[n-1].End != MaxHashKey {
			t.Fatalf("%d: not the whole space", n)
		}
		for i, r := range ranges {
			if r.Start.big().Cmp(new(big.Int).Mul(w, big.NewInt(int64(i)))) != 0 {
				t.Fatalf("%d: range %d starts at %v", n, i, r.Start)
			}
			if r.End.Less(r.Start) || i > 0 && ranges[i-1].End.Next() != r.Start {
				t.Fatalf("%d: a hole or an overlap at range %d", n, i)
			}
		}
	}
}
