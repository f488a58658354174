package history

import (
	"strings"
	"testing"
)

// TestCheckFindsEachViolation feeds the checker one history and what a faulty
// store would give back, one fault at a time: a checker that can't fail proves
// nothing.
func TestCheckFindsEachViolation(t *testing.T) {
	at := func(n string) Place { return Place{"shard-0", n} }
	newHistory := func() *History {
		h := New()
		for i, value := range []string{"a1", "a2", "a3"} {
			h.Attempt("a", value)
			h.Acknowledged(value, at([]string{"10", "20", "30"}[i]))
		}
		h.Attempt("a", "unknown")
		h.Attempt("a", "refused")
		h.Refused("refused")
		h.Attempt("a", "twice") // its first answer was lost
		h.Attempt("a", "twice")
		h.Acknowledged("twice", at("60"))
		return h
	}
	rec := func(n, key, value string) Read { return Read{at(n), key, value} }
	good := []Read{rec("10", "a", "a1"), rec("20", "a", "a2"), rec("30", "a", "a3")}
	with := func(more ...Read) []Read { return append(append([]Read(nil), good...), more...) }
	for _, c := range []struct {
		name  string
		reads []Read
		want  string // "" for none
	}{
		{"all there", with(rec("60", "a", "twice")), ""},
		{"unknown stored", with(rec("40", "a", "unknown"), rec("60", "a", "twice")), ""},
		{"both attempts stored", with(rec("50", "a", "twice"), rec("60", "a", "twice")), ""},
		{"lost", with()[1:], `"a1" was acknowledged`},
		{"lost at the end", with(), `"twice" was acknowledged`},
		{"other place", with(rec("61", "a", "twice")), `acknowledged at shard-0 60`},
		{"stored again", with(rec("40", "a", "a3"), rec("60", "a", "twice")), `attempted 1 times and is there 2 times`},
		{"refused but stored", with(rec("40", "a", "refused"), rec("60", "a", "twice")), `attempted 0 times`},
		{"never put", with(rec("60", "a", "twice"), rec("70", "a", "stranger")), `never put`},
		{"other key", with(rec("60", "b", "twice")), `read under "b"`},
		{"out of order", []Read{rec("5", "a", "a2"), rec("10", "a", "a1"), rec("30", "a", "a3"), rec("60", "a", "twice")}, `put later`},
		{"numbers fall", []Read{good[0], good[2], good[1], rec("60", "a", "twice")}, `sequence number 20 is read after 30`},
		{"longer is greater", with(rec("60", "a", "twice"), rec("100", "a", "unknown")), `put later`},
	} {
		violations := newHistory().Check(c.reads)
		got := strings.Join(violations, "\n")
		if c.want == "" && got != "" || c.want != "" && !strings.Contains(got, c.want) {
			t.Errorf("%s: violations %q, want %q", c.name, got, c.want)
		}
	}
}
