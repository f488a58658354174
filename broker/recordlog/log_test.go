package recordlog

import (
	"bytes"
	"testing"

	"shardstream/stream"
)

func sameBatches(t testing.TB, got, want []stream.Batch) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d batches, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("batch %d is [%d,%d), want [%d,%d)", i, got[i].Base(), got[i].End(), want[i].Base(), want[i].End())
		}
	}
}

func TestAppendReadReopen(t *testing.T) {
	fs := NewMemFS()
	l := open(t, small(fs))
	var want [3][]stream.Batch
	for i := range 3 {
		create(t, l, key(i))
	}
	for n := range 400 {
		for i := range 3 {
			want[i] = append(want[i], add(t, l.Replica(key(i)), int64(1000+n), 100+(n*37)%900))
		}
	}
	check := func(l *Log) {
		t.Helper()
		for i := range 3 {
			got, err := readAll(l.Replica(key(i)))
			if err != nil {
				t.Fatal(err)
			}
			sameBatches(t, got, want[i])
		}
	}
	check(l)
	s := l.Stats()
	if s.Checkpoints == 0 || s.Spills == 0 || s.OpenSegments > 4 || s.JournalSize > 640<<10 {
		t.Fatalf("the test does not reach checkpoints and spills within bounds: %+v", s)
	}
	for range 3 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, small(fs))
		if r := l.Recovery(); len(r.Damage) > 0 || r.TornFrames > 0 {
			t.Fatalf("recovery after a clean stop: %+v", r)
		}
		check(l)
	}
	v, err := Verify("/data", fs.Clone(), nil)
	if err != nil || !v.OK() {
		t.Fatalf("Verify: %v %+v", err, v)
	}
}
