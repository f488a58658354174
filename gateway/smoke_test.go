package gateway

import "testing"

func TestPutThenGet(t *testing.T) {
	e := newEnv(t)
	for _, e := range []*env{e, e.overH2C()} {
		name := "s"
		if e.h2c {
			name = "s2"
		}
		e.create(name, 1)
		e.put(name, "k", "hello")
		out := e.read(e.iterator(name, "shardId-000000000000", "TRIM_HORIZON", nil), nil)
		if got := dataOf(t, out); got != "hello" {
			t.Fatalf("read %q", got)
		}
		t.Log(out)
	}
}
