package recordlog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"shardstream/stream"
)

// journalScan walks through the frames of all journal files, from the
// manifest's position to the end, and tells a torn tail from damage (I13).
type journalScan struct {
	fs    FS
	dir   string
	uuid  [16]byte
	files []scanFile

	// onFrame gets each frame in order; what it is given is valid for the call.
	onFrame func(f *scannedFrame) error
	// onLost is told of a frame that was durable and can't be read at all.
	// bytes bounds what it may have held.
	onLost func(frame uint64, file string, pos, bytes int64) error

	report   *RecoveryReport
	cands    map[uint64]candidate // later frames seen by search, by number
	searched bool
	synced   uint64 // highest number that a later frame says was durable
}

type scanFile struct {
	seq    uint64
	name   string
	size   int64
	file   File
	buf    []byte
	bufPos int64
}

type candidate struct {
	file int
	pos  int64
	h    head

	tailOnly bool // the head is damaged
}

// scannedFrame is a frame that is whole, or damaged but named.
type scannedFrame struct {
	h       head
	file    *scanFile
	pos     int64
	bytes   []byte
	entries []entry
	batches []stream.Batch // of Append entries that are sound, else nil
	damaged bool
}

// at gives n bytes of a file, or fewer at its end.
func (f *scanFile) at(pos int64, n int) ([]byte, error) {
	n = int(min(int64(n), f.size-pos))
	if n <= 0 {
		return nil, nil
	}
	if at := pos - f.bufPos; at < 0 || at+int64(n) > int64(len(f.buf)) {
		size := min(max(int64(n), zeroChunk), f.size-pos)
		if int64(cap(f.buf)) < size {
			f.buf = alignedBuffer(int(size))
		}
		f.buf, f.bufPos = f.buf[:size], pos
		got, err := f.file.ReadAt(f.buf, pos)
		if err != nil && !errors.Is(err, io.EOF) {
			// A sector that can't be read is damage like any other.
			got = 0
		}
		clear(f.buf[got:])
	}
	at := pos - f.bufPos
	return f.buf[at : at+int64(n)], nil
}

// ours says whether a head is of this journal and this file.
func (s *journalScan) ours(h *head, f *scanFile) error {
	if h.uuid != s.uuid && h.file == f.seq {
		return stream.Errorf(stream.Invalid, "recordlog.Open", "%s belongs to another journal: put the files of one data directory back together", f.name)
	}
	return nil
}

// head reads the head at a position, of the frame with that number.
func (s *journalScan) head(i int, pos int64, frame uint64) (head, bool, error) {
	f := &s.files[i]
	b, err := f.at(pos, headSize)
	if err != nil {
		return head{}, false, err
	}
	h, ok, newer := getHead(b, headMagic)
	if newer {
		return h, false, stream.Errorf(stream.Unavailable, "recordlog.Open", "%s was written by a newer shardstream: run that version", f.name)
	}
	if !ok {
		return h, false, nil
	}
	if err := s.ours(&h, f); err != nil {
		return h, false, err
	}
	return h, h.uuid == s.uuid && h.file == f.seq && h.frame == frame && pos+int64(h.length) <= f.size, nil
}

// read reads the frame that a head describes. It gives nil if the directory is lost.
func (s *journalScan) read(i int, pos int64, h head) (*scannedFrame, error) {
	f := &s.files[i]
	bytes, err := f.at(pos, int(h.length))
	if err != nil {
		return nil, err
	}
	fr := &scannedFrame{h: h, file: f, pos: pos, bytes: bytes}
	var ok bool
	if fr.entries, ok = h.directory(bytes); !ok {
		return nil, nil
	}
	fr.batches = make([]stream.Batch, len(fr.entries))
	for n := range fr.entries {
		e := &fr.entries[n]
		if e.typ != entryAppend {
			continue
		}
		b, err := h.batch(bytes, e)
		if err != nil {
			fr.damaged = true
			continue
		}
		fr.batches[n] = b
	}
	return fr, nil
}

// walk walks from the start of the first file, whose first frame has that number.
func (s *journalScan) walk(first uint64) (last uint64, lastCRC uint32, err error) {
	i, pos, next := 0, int64(0), first
	var prev uint32
	chained := false // prev is that of frame next-1
	for i < len(s.files) {
		h, ok, err := s.head(i, pos, next)
		if err != nil {
			return 0, 0, err
		}
		c, seen := s.cands[next]
		if seen {
			i, pos, h, ok = c.file, c.pos, c.h, true
		}
		ok = ok && (!chained || h.prev == prev)
		var fr *scannedFrame
		if ok {
			if fr, err = s.read(i, pos, h); err != nil {
				return 0, 0, err
			}
		}
		// Not here: a roll, or a recovery that cut a torn tail, has made the
		// next file begin with it.
		if fr == nil || fr.damaged {
			if i+1 < len(s.files) {
				h2, ok2, err := s.head(i+1, 0, next)
				if err != nil {
					return 0, 0, err
				}
				if ok2 && (!chained || h2.prev == prev) {
					if fr2, err := s.read(i+1, 0, h2); err != nil {
						return 0, 0, err
					} else if fr2 != nil && !fr2.damaged {
						i, pos, h, fr = i+1, 0, h2, fr2
					}
				}
			}
		}
		if fr == nil || fr.damaged {
			if !s.searched {
				if err := s.search(i, pos, next); err != nil {
					return 0, 0, err
				}
				// The head may be lost and the tail not, or a later file may
				// have the frame that counts: look once more.
				if _, seen := s.cands[next]; seen {
					continue
				}
			}
			if next > s.synced {
				s.cut(i, pos, next, ok, h, fr)
				break
			}
		}
		switch {
		case fr == nil:
			// Durable, and not even named.
			to := s.nextCandidate(next)
			size := s.files[i].size - pos
			if c, found := s.cands[to]; found && c.file == i {
				size = c.pos - pos
			} else if found {
				size += c.pos
			}
			s.report.DamagedFrames += int(to - next)
			if err := s.onLost(next, s.files[i].name, pos, size); err != nil {
				return 0, 0, err
			}
			s.report.damagedFiles = append(s.report.damagedFiles, s.files[i].seq)
			next, chained = to, false
			continue
		case fr.damaged:
			s.report.DamagedFrames++
			s.report.damagedFiles = append(s.report.damagedFiles, s.files[i].seq)
		case seen && c.tailOnly:
			s.report.RepairedFrames++
			s.report.damagedFiles = append(s.report.damagedFiles, s.files[i].seq)
		}
		if err := s.onFrame(fr); err != nil {
			return 0, 0, err
		}
		s.report.Frames++
		pos += int64(h.length)
		prev, chained = h.crc, !fr.damaged
		last, lastCRC = next, h.crc
		next++
	}
	return max(last, first-1), lastCRC, nil
}

// cut ends the walk before a frame that was never acknowledged, or about
// which nothing more can be known: it is the last one.
func (s *journalScan) cut(i int, pos int64, next uint64, ok bool, h head, fr *scannedFrame) {
	if !ok {
		return // nothing is there
	}
	s.report.TornFrames++
	s.report.TornBytes += int64(h.length)
	s.report.TornFile, s.report.TornPos = s.files[i].name, pos
	if fr != nil {
		for n, e := range fr.entries {
			if e.typ == entryAppend && fr.batches[n] == nil {
				s.report.Torn = append(s.report.Torn, fmt.Sprintf("%s %s", e.key, stream.OffsetRange{Start: e.base, End: e.end}))
			}
		}
	}
}

func (s *journalScan) nextCandidate(after uint64) uint64 {
	best := s.synced + 1
	for n := range s.cands {
		if n > after {
			best = min(best, n)
		}
	}
	return best
}

// search looks behind the first bad frame for later ones, through all files,
// page by page: heads where a page begins, tails where one ends.
func (s *journalScan) search(i int, pos int64, next uint64) error {
	s.searched = true
	s.cands = map[uint64]candidate{}
	for ; i < len(s.files); i++ {
		f := &s.files[i]
		for ; pos+pageSize <= f.size; pos += pageSize {
			page, err := f.at(pos, pageSize)
			if err != nil {
				return err
			}
			for _, tail := range [2]bool{false, true} {
				at, magic := page, uint32(headMagic)
				if tail {
					at, magic = page[pageSize-headSize:], tailMagic
				}
				h, ok, _ := getHead(at, magic)
				if !ok || h.uuid != s.uuid || h.file != f.seq || h.frame < next {
					continue
				}
				start := pos
				if tail {
					start = pos + pageSize - int64(h.length)
				}
				if start < 0 || start+int64(h.length) > f.size {
					continue
				}
				if h.synced > s.synced {
					s.synced = h.synced
				}
				// A frame that a recovery wrote in place of a torn one stands
				// in a later file, and is the one that counts.
				if _, seen := s.cands[h.frame]; !seen || !tail {
					s.cands[h.frame] = candidate{i, start, h, tail}
				}
			}
		}
		pos = 0
	}
	return nil
}

// openScan opens and syncs the journal files from first on: what a killed
// process left in the page cache looks fine and is not durable. Then the
// cache is dropped, so that the disk is read and not what was meant for it.
func openScan(fsys FS, dir string, uuid [16]byte, first uint64, sync bool) (s *journalScan, err error) {
	s = &journalScan{fs: fsys, dir: dir, uuid: uuid, report: &RecoveryReport{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	entries, err := fsys.List(dir)
	if err != nil {
		return s, err
	}
	for _, e := range entries {
		if seq, ok := parseJournalName(e.Name); ok && seq >= first {
			s.files = append(s.files, scanFile{seq: seq, name: path.Join(dir, e.Name), size: e.Size / pageSize * pageSize})
		}
	}
	slices.SortFunc(s.files, func(a, b scanFile) int { return cmp.Compare(a.seq, b.seq) })
	if len(s.files) == 0 {
		s.files = append(s.files, scanFile{}) // the first one is missing too
	}
	for i := range s.files {
		f := &s.files[i]
		want := first + uint64(i)
		if f.seq != want {
			return s, stream.Errorf(stream.Corrupt, "recordlog.Open", "%s is missing: put it back, or restore the directory from a backup", path.Join(dir, journalName(want)))
		}
		mode := ReadOnly
		if sync {
			mode = Write
		}
		if f.file, err = fsys.Open(f.name, mode); err != nil {
			return s, err
		}
		if sync {
			if err := f.file.Sync(); err != nil {
				return s, err
			}
			f.file.DropCache()
		}
	}
	return s, nil
}

func (s *journalScan) close() (err error) {
	for i := range s.files {
		if f := s.files[i].file; f != nil {
			err = errors.Join(err, f.Close())
			s.files[i].file = nil
		}
	}
	return err
}
