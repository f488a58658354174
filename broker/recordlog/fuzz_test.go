package recordlog

import (
	"bytes"
	"io"
	"reflect"
	"testing"

	"shardstream/stream"
)

// FuzzFrame gives the decoder of journal frames any bytes: it must neither
// fail in any other way than by saying so, nor give a batch that is not sound.
func FuzzFrame(f *testing.F) {
	var fb frameBuf
	k := key(3)
	for i := range 3 {
		b := batch(k.Shard, 1, stream.Offset(i), int64(i), 1, 50)
		fb.add(op{key: k, typ: entryAppend, epoch: 1, base: b.Base(), end: b.End(), batch: b})
	}
	fb.add(op{key: k, typ: entryHW, base: 2})
	fb.add(op{}) // a barrier takes no entry
	frame, _ := fb.finish(head{file: 1, frame: 7, synced: 6})
	f.Add(bytes.Clone(frame))
	f.Add(make([]byte, pageSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, magic := range []uint32{headMagic, tailMagic} {
			h, ok, _ := getHead(b, magic)
			if !ok || int(h.length) > len(b) {
				continue
			}
			entries, ok := h.directory(b[:h.length])
			if !ok {
				continue
			}
			for i := range entries {
				if entries[i].typ != entryAppend {
					continue
				}
				got, err := h.batch(b[:h.length], &entries[i])
				if err != nil {
					continue
				}
				if _, err := stream.CheckBatch(got); err != nil || got.Base() != entries[i].base || got.Shard() != entries[i].key.Shard {
					t.Fatalf("an unsound batch is given: %v", err)
				}
			}
		}
	})
}

// FuzzSegment walks through any bytes as a segment: what it gives is sound, in
// order and within bounds, and the walk accounts for every offset.
func FuzzSegment(f *testing.F) {
	k := key(3)
	page := make([]byte, pageSize)
	segmentHeader(page, k, 10, 1)
	whole := bytes.Clone(page)
	next := stream.Offset(10)
	for i := range 4 {
		b := batch(k.Shard, 1, next, int64(i), 2, 300)
		whole, next = append(whole, b...), b.End()
		if i == 1 {
			whole = append(whole, make([]byte, roundUp(int64(len(whole)))-int64(len(whole)))...)
		}
	}
	f.Add(whole, uint16(8))
	f.Add(page, uint16(3))
	f.Add(whole[:len(whole)-7], uint16(8))
	f.Fuzz(func(t *testing.T, b []byte, records uint16) {
		s := segment{base: 10, end: 10 + stream.Offset(records), bytes: int64(len(b))}
		sc := newScanner(readerFile{bytes.NewReader(b)}, k, s)
		at := s.base
		for {
			step, err := sc.step()
			if err != nil {
				t.Fatal(err)
			}
			if step.lost.Start < step.lost.End {
				if step.lost.Start != at {
					t.Fatalf("lost %v, but the walk is at %d", step.lost, at)
				}
				at = step.lost.End
			}
			if step.batch == nil {
				break
			}
			got, err := stream.CheckBatch(step.batch)
			if err != nil || got.Base() != at || got.End() > s.end || got.Shard() != k.Shard {
				t.Fatalf("[%d,%d) is given at %d: %v", got.Base(), got.End(), at, err)
			}
			at = got.End()
		}
		if at != s.end {
			t.Fatalf("the walk ends at %d of %d", at, s.end)
		}
		_, _ = decodeIndex(b, s.bytes)
		_ = checkSegmentHeader(b, k, 10)
	})
}

// readerFile is a file that can only be read.
type readerFile struct{ *bytes.Reader }

func (readerFile) WriteAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }
func (readerFile) Close() error                       { return nil }
func (readerFile) Sync() error                        { return nil }
func (readerFile) Truncate(int64) error               { return io.ErrClosedPipe }
func (f readerFile) Size() (int64, error)             { return f.Reader.Size(), nil }
func (readerFile) DropCache()                         {}

// FuzzManifest decodes any bytes; what it accepts encodes to the same.
func FuzzManifest(f *testing.F) {
	m := &manifest{firstFile: 3, firstFrame: 9, replicas: []replicaMeta{{
		key: key(1), epoch: 4, start: 1, flushed: 5, end: 9, hw: 7, startMs: 1, lastMs: 2, lastCut: 3,
		epochs: []EpochStart{{1, 0}, {4, 3}}, holes: []stream.OffsetRange{{Start: 2, End: 3}},
		damage: []Damage{{Key: key(1), Range: stream.OffsetRange{Start: 4, End: 5}, File: "f", Reason: "r"}},
		segs:   []segment{{base: 0, end: 5, bytes: 5000, sealed: true}},
	}}}
	f.Add(m.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// The fuzzer can't guess checksums.
		if len(b) >= manifestHeader {
			fixed := bytes.Clone(b)
			putManifestHeader(fixed)
			decodeBoth(t, fixed)
		}
		decodeBoth(t, b)
	})
}

func decodeBoth(t *testing.T, b []byte) {
	m, err := decodeManifest(b)
	if err != nil {
		return
	}
	again, err := decodeManifest(m.encode())
	if err != nil || !reflect.DeepEqual(m, again) {
		t.Fatalf("decoded, encoded and decoded again differs: %v", err)
	}
}
