package recordlog

import (
	"strings"
	"testing"

	"shardstream/stream"
)

// asideBytes adds up what was set aside.
func asideBytes(fs *MemFS) (n int64) {
	for name, size := range fs.Files() {
		if strings.Contains(name, "/trash/aside-") {
			n += size
		}
	}
	return n
}

func TestSetAside(t *testing.T) {
	fs := NewMemFS()
	l := open(t, small(fs))
	gone, stays := create(t, l, key(0)), create(t, l, key(1))
	bytes := int64(0)
	for n := range 100 {
		bytes += int64(len(add(t, gone, int64(1000+n), 700)))
		add(t, stays, int64(1000+n), 100)
	}
	if err := l.SetAside([]stream.ReplicaKey{key(0), key(0), key(9)}); err != nil {
		t.Fatal(err)
	}
	if got := asideBytes(fs); got < bytes {
		t.Errorf("%d bytes are kept of %d", got, bytes)
	}
	if l.Replica(key(0)) != nil {
		t.Error("it is still there")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, small(fs))
	if r := l.Recovery(); len(r.Damage) > 0 || l.Replica(key(0)) != nil || l.Replica(key(1)).End() != 100 {
		t.Errorf("after a restart: %+v, %v, %v", r, l.Replica(key(0)), l.Replica(key(1)))
	}
	if got := asideBytes(fs); got < bytes {
		t.Errorf("after a restart, %d bytes are kept of %d", got, bytes)
	}
}

// A crash between the two steps loses nothing that was to be kept.
func TestSetAsideIsRepeatedAfterACrash(t *testing.T) {
	for seed := range uint64(50) {
		fs := NewMemFS()
		l := open(t, small(fs))
		r := create(t, l, key(0))
		bytes := int64(0)
		for n := range 40 {
			bytes += int64(len(add(t, r, int64(1000+n), 700)))
		}
		if err := l.moveAside(key(0)); err != nil {
			t.Fatal(err)
		}
		crashed := fs.CrashClone(seed, seed%2 == 0)
		l.Close()
		l = open(t, small(crashed))
		if err := l.SetAside([]stream.ReplicaKey{key(0)}); err != nil {
			t.Fatal(err)
		}
		if got := asideBytes(crashed); got < bytes {
			t.Fatalf("seed %d: %d bytes are kept of %d", seed, got, bytes)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, small(crashed))
		if l.Replica(key(0)) != nil {
			t.Fatalf("seed %d: it is back", seed)
		}
		l.Close()
	}
}
