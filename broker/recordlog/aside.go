package recordlog

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"shardstream/stream"
)

// SetAside ends replicas as Drop does, but moves their segments to trash/, with
// all durable batches in them: an operator may still want to look for something
// in them. Those that are not here are passed over. It can be repeated after a
// crash, and then does what is left. Kinds: Unavailable, DiskFull, Internal.
func (l *Log) SetAside(keys []stream.ReplicaKey) error {
	var found []stream.ReplicaKey
	for _, key := range keys {
		if l.Replica(key) != nil && !slices.Contains(found, key) {
			found = append(found, key)
		}
	}
	for _, key := range found {
		if err := l.moveAside(key); err != nil {
			return err
		}
	}
	// Last, since recovery deletes what it finds of a dropped replica.
	return l.Drop(found)
}

func (l *Log) moveAside(key stream.ReplicaKey) error {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	r := l.Replica(key)
	if r == nil {
		return nil
	}
	r.mu.Lock()
	damaged := len(r.damage) > 0
	r.mu.Unlock()
	if err := l.flushReplica(r); err != nil && !damaged { // else what there is has to do
		if errors.Is(err, errFull) {
			return stream.Errorf(stream.DiskFull, "recordlog.SetAside", "%w", err)
		}
		return err
	}
	r.mu.Lock()
	r.dropped = true
	segs := slices.Clone(r.segs)
	r.mu.Unlock()
	for _, s := range segs {
		l.cache.forget(segID{key, s.base})
	}
	err := l.toTrash(l.replicaDir(key), "aside-"+strings.ReplaceAll(key.String(), "/", "-"))
	if errors.Is(err, fs.ErrNotExist) { // it never had a segment, or is there already
		return nil
	}
	return l.mustNotFail(err)
}
