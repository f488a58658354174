package recordlog

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"shardstream/stream"
)

// RecoveryReport says what Open found in the journal.
type RecoveryReport struct {
	Frames   int // replayed
	Batches  int // taken into memory or segments
	Duration time.Duration

	// The last frame, if it was not whole: with nothing behind it nobody can
	// tell a write that was under way from damage, so it is cut and told.
	TornFrames int
	TornBytes  int64
	TornFile   string
	TornPos    int64
	Torn       []string // what it held, as far as it can be read

	DamagedFrames  int // were durable and can't be read in whole; never cut
	RepairedFrames int // were damaged and could be read by their second copy
	Damage         []Damage
	ManifestCopies []string // damaged copies of the manifest; the other was used

	damagedFiles []uint64
}

// Recovery gives what Open found.
func (l *Log) Recovery() RecoveryReport { return l.recovery }

// rebuilt is a replica as recovery puts it together: what the manifest says,
// and what the journal says since.
type rebuilt struct {
	meta    replicaMeta
	pending []pendingBatch
	end     stream.Offset // of the log as far as the walk has come
	cut     bool          // the journal cuts into what the manifest has
	known   uint64        // the last frame whose cuts the manifest reflects

	// A frame that nobody can read may have held batches of this replica.
	suspect    bool
	suspectEnd stream.Offset
	suspectAt  Damage
}

// pendingBatch is a batch that stands in the journal.
type pendingBatch struct {
	entry   entry
	file    int   // in the scan
	pos     int64 // in the file
	arrival int64
	lost    bool
}

// state is what a data directory says, before anything is changed in it.
type state struct {
	fs       FS
	dir      string
	manifest *manifest
	scan     *journalScan
	report   RecoveryReport
	replicas map[stream.ReplicaKey]*rebuilt
	dropped  map[stream.ReplicaKey]bool
	fileHas  map[uint64]uint64 // first frame of each journal file that has any
	frame    uint64            // last frame
	crc      uint32
	endPos   int64 // behind it, in the last file that has any
}

// loadState reads the manifest and the journal. It gives nil for a directory
// in which nothing was ever written.
func loadState(fsys FS, dir string, sync bool) (_ *state, err error) {
	journal := path.Join(dir, "journal")
	m, copies, err := readManifest(fsys, journal)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, checkFresh(fsys, dir)
	}
	s := &state{
		fs: fsys, dir: dir, manifest: m, replicas: map[stream.ReplicaKey]*rebuilt{},
		dropped: map[stream.ReplicaKey]bool{}, fileHas: map[uint64]uint64{},
	}
	for _, meta := range m.replicas {
		s.replicas[meta.key] = &rebuilt{meta: meta, end: meta.end, known: meta.lastCut}
	}
	if s.scan, err = openScan(fsys, journal, m.uuid, m.firstFile, sync); err != nil {
		return nil, err
	}
	s.scan.report, s.scan.onFrame, s.scan.onLost = &s.report, s.applyFrame, s.applyLost
	s.report.ManifestCopies = copies
	if s.frame, s.crc, err = s.scan.walk(m.firstFrame); err != nil {
		return nil, errors.Join(err, s.scan.close())
	}
	return s, nil
}

// checkFresh refuses a directory that has data but no manifest: a lost file
// must not turn a full disk into an empty one (I16).
func checkFresh(fsys FS, dir string) error {
	refuse := func(what string) error {
		return stream.Errorf(stream.Corrupt, "recordlog.Open", "%s holds %s but no manifest: restore journal/MANIFEST, or use an empty directory", dir, what)
	}
	if streams, err := fsys.List(path.Join(dir, "shards")); err == nil && len(streams) > 0 {
		return refuse("segments")
	}
	entries, err := fsys.List(path.Join(dir, "journal"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := parseJournalName(e.Name); !ok {
			continue
		}
		b, err := readFile(fsys, path.Join(dir, "journal", e.Name))
		if err != nil {
			return err
		}
		if _, ok, newer := getHead(b, headMagic); ok || newer {
			return refuse("a journal")
		}
	}
	return nil
}

func (s *state) noteFrame(seq, frame uint64) {
	if first, ok := s.fileHas[seq]; !ok || frame < first {
		s.fileHas[seq] = frame
	}
}

func (s *state) applyFrame(f *scannedFrame) error {
	s.noteFrame(f.file.seq, f.h.frame)
	s.endPos = f.pos + int64(f.h.length)
	file := slices.IndexFunc(s.scan.files, func(x scanFile) bool { return x.seq == f.file.seq })
	for i := range f.entries {
		e := &f.entries[i]
		r := s.replicas[e.key]
		if r == nil {
			if e.typ == entryDrop {
				continue
			}
			// Made here, or by a frame that is lost.
			r = &rebuilt{meta: replicaMeta{key: e.key}}
			s.replicas[e.key] = r
			delete(s.dropped, e.key)
		}
		switch e.typ {
		case entryAppend:
			p := pendingBatch{entry: *e, file: file, pos: f.pos + int64(f.h.payloadPos) + int64(e.pos), lost: f.batches[i] == nil}
			if !p.lost {
				p.arrival = f.batches[i].Arrival()
			}
			r.pending = append(r.pending, p)
			if r.suspect && e.base >= r.suspectEnd {
				r.suspect = e.base > r.suspectEnd // else nothing is missing between
			}
			r.end = max(r.end, e.end)
		case entryCut:
			r.applyCut(e.base, f.h.frame)
		case entryRestart:
			r.applyRestart(e.base, f.h.frame)
		case entryAdopt:
			r.meta.epoch = max(r.meta.epoch, e.epoch)
		case entryTrim, entryHW, entryHole:
			if f.h.frame <= r.known {
				break // the manifest has that, and perhaps a cut or restart after it
			}
			r.applyNote(e)
		case entryDrop:
			delete(s.replicas, e.key)
			s.dropped[e.key] = true
		}
	}
	return nil
}

func (r *rebuilt) applyNote(e *entry) {
	switch e.typ {
	case entryTrim:
		r.meta.start = max(r.meta.start, e.base)
	case entryHW:
		r.meta.hw = max(r.meta.hw, e.base)
	case entryHole:
		r.meta.giveUp(stream.OffsetRange{Start: e.base, End: e.end})
		r.end = max(r.end, e.end)
	}
}

// applyRestart empties the replica. What the manifest says is younger or not,
// as for a cut.
func (r *rebuilt) applyRestart(at stream.Offset, frame uint64) {
	r.pending = nil
	if frame <= r.known {
		return
	}
	r.meta = replicaMeta{key: r.meta.key, epoch: r.meta.epoch, start: at, flushed: at, end: at, hw: at, lastCut: frame}
	r.cut, r.end, r.suspect = true, at, false
}

func (m *replicaMeta) giveUp(hole stream.OffsetRange) {
	if !known(hole, nil, m.holes) {
		m.holes = append(m.holes, hole)
		sort.Slice(m.holes, func(i, j int) bool { return m.holes[i].Start < m.holes[j].Start })
	}
	m.damage = slices.DeleteFunc(m.damage, func(d Damage) bool { return known(d.Range, nil, m.holes) })
	m.end = max(m.end, hole.End)
}

// applyCut takes away what a cut took away. What stands before it in the
// journal is void from there on; of what the manifest says only if the cut is
// younger.
func (r *rebuilt) applyCut(to stream.Offset, frame uint64) {
	r.pending = slices.DeleteFunc(r.pending, func(p pendingBatch) bool { return p.entry.end > to })
	m := &r.meta
	if frame <= r.known {
		return
	}
	m.lastCut, r.cut = frame, true
	m.flushed, m.end, m.hw, r.end = min(m.flushed, to), min(m.end, to), min(m.hw, to), to
	m.holes, m.damage = cutRanges(m.holes, m.damage, to)
	for len(m.epochs) > 0 && m.epochs[len(m.epochs)-1].First >= to {
		m.epochs = m.epochs[:len(m.epochs)-1]
	}
	for len(m.segs) > 0 && m.segs[len(m.segs)-1].base >= to {
		m.segs = m.segs[:len(m.segs)-1]
	}
}

// applyLost is told of a durable frame of which nothing can be read: every
// replica may have lost batches there.
func (s *state) applyLost(frame uint64, file string, pos, bytes int64) error {
	if seq, ok := parseJournalName(path.Base(file)); ok {
		s.noteFrame(seq, frame)
	}
	for _, r := range s.replicas {
		if !r.suspect {
			r.suspect, r.suspectEnd = true, r.end
			r.suspectAt = Damage{
				Key: r.meta.key, File: file, Pos: pos,
				Reason: fmt.Sprintf("journal frame %d is destroyed with both its directories, and may have held records of this replica", frame),
				// No frame holds more records than that; offsets that may be
				// taken are never given out again (I4).
				Range: stream.OffsetRange{Start: r.end, End: r.end + stream.Offset(bytes/stream.RecordHeaderSize+1)},
			}
		}
	}
	return nil
}

// settle compares what the journal holds with what it must hold, names what
// is missing, and gives the batches to take over in offset order.
func (s *state) settle(r *rebuilt) (live []pendingBatch) {
	m := &r.meta
	m.flushed = max(m.flushed, m.start)
	slices.SortStableFunc(r.pending, func(a, b pendingBatch) int {
		return cmp.Or(cmp.Compare(a.entry.base, b.entry.base), compareBool(a.lost, b.lost))
	})
	end := m.flushed
	missing := func(to stream.Offset, d Damage) {
		for _, lost := range subtract(stream.OffsetRange{Start: max(end, m.start), End: to}, m.holes, m.damage) {
			d.Key, d.Range = m.key, lost
			m.damage = append(m.damage, d)
			s.report.Damage = append(s.report.Damage, d)
		}
		end = max(end, to)
	}
	after := int64(0)
	if n := len(m.segs); n > 0 {
		after = m.segs[n-1].lastMs
	}
	for _, p := range r.pending {
		e := &p.entry
		where := Damage{File: s.scan.files[p.file].name, Pos: p.pos, AfterMs: after, BeforeMs: p.arrival}
		if e.end <= end {
			continue
		}
		if e.base > end {
			where.Reason = "the journal does not hold them any more"
			missing(e.base, where)
		}
		// The visible start may lie inside of the first batch.
		if p.lost || e.base < end && end > m.start {
			where.Reason = "a batch in the journal fails its checksum"
			missing(e.end, where)
			continue
		}
		after, end = p.arrival, e.end
		live = append(live, p)
	}
	if end < m.end {
		missing(m.end, Damage{File: "journal", AfterMs: after, Reason: "the journal does not hold them any more"})
	}
	if r.suspect {
		d := r.suspectAt
		d.Range = stream.OffsetRange{Start: max(end, d.Range.Start), End: max(end, d.Range.Start) + d.Range.End - d.Range.Start}
		d.AfterMs = after
		missing(d.Range.End, d)
	}
	m.end = end
	sort.SliceStable(m.damage, func(i, j int) bool { return m.damage[i].Range.Start < m.damage[j].Range.Start })
	return live
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// subtract gives the parts of a range that no hole and no damage covers.
func subtract(r stream.OffsetRange, holes []stream.OffsetRange, damage []Damage) (rest []stream.OffsetRange) {
	covered := slices.Clone(holes)
	for _, d := range damage {
		covered = append(covered, d.Range)
	}
	slices.SortFunc(covered, func(a, b stream.OffsetRange) int { return cmp.Compare(a.Start, b.Start) })
	for _, c := range covered {
		if c.Start > r.Start && r.Start < r.End {
			rest = append(rest, stream.OffsetRange{Start: r.Start, End: min(c.Start, r.End)})
		}
		r.Start = max(r.Start, c.End)
	}
	if r.Start < r.End {
		rest = append(rest, r)
	}
	return rest
}

// checkSegments compares the manifest's segments with the files, cuts the last
// one where the journal does, and names what is missing.
func (s *state) checkSegments(r *rebuilt) error {
	m := &r.meta
	trimmed := func() {
		for len(m.segs) > 0 && m.segs[0].end <= m.start {
			m.segs = m.segs[1:]
		}
	}
	trimmed()
	defer trimmed() // the last one may end earlier than the manifest says
	for i := range m.segs {
		seg := &m.segs[i]
		name := path.Join(s.dir, "shards", m.key.String(), segmentName(seg.base))
		info, err := s.fs.Stat(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		cutAt := seg.end
		if i == len(m.segs)-1 && r.cut {
			cutAt = min(seg.end, max(m.flushed, seg.base))
		}
		if err == nil && info.Size >= seg.bytes && cutAt == seg.end {
			continue
		}
		d := Damage{Key: m.key, File: name, AfterMs: seg.firstMs, BeforeMs: seg.lastMs, Reason: "the file is missing"}
		from := seg.base
		if err == nil {
			d.Reason = "the file is too short"
			if from, d.Pos, err = s.soundUntil(name, m.key, seg, cutAt); err != nil {
				return err
			}
		}
		seg.end = cutAt
		if from < cutAt {
			for _, lost := range subtract(stream.OffsetRange{Start: max(from, m.start), End: cutAt}, m.holes, m.damage) {
				d.Range = lost
				m.damage = append(m.damage, d)
				s.report.Damage = append(s.report.Damage, d)
			}
		}
	}
	return nil
}

// soundUntil walks through a segment up to an offset, shortens it to there if
// the log was cut, and gives how far it is readable.
func (s *state) soundUntil(name string, key stream.ReplicaKey, seg *segment, cutAt stream.Offset) (_ stream.Offset, _ int64, err error) {
	f, err := s.fs.Open(name, ReadOnly)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sc := newScanner(f, key, *seg)
	sc.reuse = true
	last, lastMs, end := int64(pageSize), seg.firstMs, seg.base
	for end < cutAt {
		step, err := sc.step()
		if err != nil || step.batch == nil || step.batch.Base() >= cutAt {
			break
		}
		last, lastMs, end = step.pos+int64(len(step.batch)), step.batch.Arrival(), step.batch.End()
	}
	if cutAt < seg.end {
		seg.bytes, seg.lastMs, seg.sealed = last, lastMs, false
	}
	return end, last, nil
}

// recover puts the log together from its directory.
func (l *Log) recover() error {
	began := time.Now()
	if err := l.mkdirDurably(l.cfg.Dir); err != nil {
		return err
	}
	for _, dir := range []string{l.journalDir(), path.Join(l.cfg.Dir, "shards")} {
		if err := l.fs.Mkdir(dir); err != nil {
			return err
		}
	}
	// A directory that is there need not be durable: its maker may have been killed.
	if err := l.fs.SyncDir(l.cfg.Dir); err != nil {
		return err
	}
	s, err := loadState(l.fs, l.cfg.Dir, true)
	if err != nil {
		return err
	}
	if s == nil {
		return l.begin()
	}
	defer func() { _ = s.scan.close() }() // read only, and synced before
	if err := l.takeSpares(); err != nil {
		return err
	}
	if err := l.continueJournal(s); err != nil {
		return err
	}
	keys := make([]stream.ReplicaKey, 0, len(s.replicas))
	for key := range s.replicas {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compareKeys)
	l.segMu.Lock()
	defer l.segMu.Unlock()
	for _, key := range keys {
		r := s.replicas[key]
		if err := s.checkSegments(r); err != nil {
			return err
		}
		r.pending = s.settle(r)
		s.report.Batches += len(r.pending)
	}
	// Before anything is written behind what segments hold.
	if err := l.sweep(s); err != nil {
		return err
	}
	for _, key := range keys {
		r := s.replicas[key]
		if err := l.takeReplica(s, r, r.pending); err != nil {
			return err
		}
		r.pending = nil
	}
	if err := l.relieve(l.cfg.TailCache / 2); err != nil && !errors.Is(err, errFull) {
		return err
	}
	l.evict()
	s.report.Duration = time.Since(began)
	l.recovery = s.report
	l.logRecovery()
	return nil
}

func (l *Log) logRecovery() {
	r := &l.recovery
	if r.TornFrames > 0 {
		l.logger.Warn("the journal's last frame was not whole and is cut; it was never acknowledged unless the disk lost it",
			slog.String("file", r.TornFile), slog.Int64("pos", r.TornPos), slog.Int64("bytes", r.TornBytes), slog.Any("records", r.Torn))
	}
	for _, name := range r.ManifestCopies {
		l.logger.Error("a copy of the manifest is damaged, the other one is used", slog.String("file", name))
	}
	if r.RepairedFrames > 0 {
		l.logger.Error("damaged journal frames were read by their second copy", slog.Int("frames", r.RepairedFrames))
	}
	for _, d := range r.Damage {
		l.logger.Error("stored records are damaged", slog.String("replica", d.Key.String()), slog.String("records", d.Range.String()),
			slog.String("file", d.File), slog.Int64("pos", d.Pos), slog.String("reason", d.Reason))
	}
}

// begin makes an empty log. The journal's first file comes before the
// manifest that demands it.
func (l *Log) begin() error {
	entries, err := l.fs.List(l.journalDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := l.fs.Remove(path.Join(l.journalDir(), e.Name)); err != nil {
			return err
		}
	}
	j := l.journal
	_, _ = rand.Read(j.uuid[:]) // never fails
	if err := j.roll(minSpareSize, false); err != nil {
		return err
	}
	return writeManifest(l.fs, l.journalDir(), &manifest{uuid: j.uuid, firstFile: j.seq, firstFrame: 1})
}

// takeSpares finds the spare files of the last run, and removes what is left
// of unfinished ones.
func (l *Log) takeSpares() error {
	entries, err := l.fs.List(l.journalDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(l.journalDir(), e.Name)
		switch {
		case isSpareName(e.Name) && e.Size >= minSpareSize:
			l.journal.spares = append(l.journal.spares, spareFile{e.Name, e.Size / pageSize * pageSize})
			var n int64
			if _, err := fmt.Sscanf(e.Name, "spare-%d.log", &n); err == nil {
				l.spareNumber.Store(max(l.spareNumber.Load(), n))
			}
		case isSpareName(e.Name), strings.HasSuffix(e.Name, ".tmp"):
			if err := l.fs.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// continueJournal goes on in a new file, so that a frame that was cut stays to
// be looked at; on a full disk in the last one.
func (l *Log) continueJournal(s *state) error {
	j := l.journal
	j.uuid, j.frame, j.prev, j.synced, j.durable = s.manifest.uuid, s.frame, s.crc, s.frame, s.frame
	for _, seq := range s.report.damagedFiles {
		j.keep[seq] = true
	}
	files := s.scan.files
	used := len(files)
	for used > 0 && s.fileHas[files[used-1].seq] == 0 {
		used--
	}
	// Files behind the last frame are spares again, and files before the
	// manifest's first one were retired by a checkpoint that did not get to it.
	if err := l.spareLeftovers(s, used); err != nil {
		return err
	}
	next := s.frame + 1
	for i := used - 1; i >= 0; i-- {
		if first := s.fileHas[files[i].seq]; first != 0 {
			next = first
		}
		j.files = append(j.files, journalFile{files[i].seq, files[i].size, next})
	}
	slices.Reverse(j.files)
	if used < len(files) {
		// Nothing was ever durable in it. It stays in its place, for the
		// manifest may demand it.
		return l.continueIn(s, files[used], 0)
	}
	j.seq = files[used-1].seq
	err := j.roll(minSpareSize, false)
	if !isNoSpace(err) {
		return err
	}
	l.noteFull(err)
	j.files = j.files[:used-1]
	return l.continueIn(s, files[used-1], s.endPos)
}

// continueIn goes on in a file that is there, from a position on.
func (l *Log) continueIn(s *state, f scanFile, pos int64) error {
	file, err := l.fs.Open(f.name, Write|Direct)
	if err != nil {
		return err
	}
	j := l.journal
	j.file, j.seq, j.size, j.pos = file, f.seq, f.size, pos
	first := j.frame + 1
	if has := s.fileHas[f.seq]; has != 0 {
		first = has
	}
	j.files = append(j.files, journalFile{f.seq, f.size, first})
	if s.report.TornFile != f.name {
		return nil
	}
	// No part of the frame that was cut may be found behind the one that
	// takes its number.
	zeros := alignedBuffer(int(s.report.TornBytes))
	if _, err := file.WriteAt(zeros, s.report.TornPos); err != nil {
		return err
	}
	return file.Sync()
}

func (l *Log) spareLeftovers(s *state, used int) error {
	entries, err := l.fs.List(l.journalDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		seq, ok := parseJournalName(e.Name)
		if !ok || seq >= s.manifest.firstFile && seq <= s.manifest.firstFile+uint64(used) {
			continue
		}
		spare := spareFile{fmt.Sprintf("spare-%d.log", l.spareNumber.Add(1)), e.Size / pageSize * pageSize}
		if err := l.fs.Rename(path.Join(l.journalDir(), e.Name), path.Join(l.journalDir(), spare.name)); err != nil {
			return err
		}
		l.journal.spares = append(l.journal.spares, spare)
	}
	return nil
}

// takeReplica makes the replica and takes over its batches from the journal.
func (l *Log) takeReplica(s *state, from *rebuilt, live []pendingBatch) error {
	m := &from.meta
	r := &Replica{
		log: l, key: m.key, epoch: m.epoch, wanted: m.epoch, start: m.start, logged: m.start, durable: m.end, end: m.end,
		startMs: m.startMs, lastMs: m.lastMs, holes: m.holes, damage: m.damage, segs: m.segs, lastCut: m.lastCut, hw: m.hw,
		spilled: m.end,
	}
	first := m.end
	if len(live) > 0 {
		first = live[0].entry.base
		r.spilled = first
	}
	for _, e := range m.epochs {
		if e.First < first {
			r.epochs = append(r.epochs, e)
		}
	}
	if n := len(m.segs); n > 0 {
		r.synced = m.segs[n-1]
	}
	if from.cut {
		r.lastMs = r.synced.lastMs
		if m.start >= m.flushed {
			r.startMs = 0
		}
	}
	l.mu.Lock()
	l.replicas[m.key] = r
	l.sorted = nil
	l.mu.Unlock()
	for _, p := range live {
		file := &s.scan.files[p.file]
		b := make(stream.Batch, p.entry.len)
		if _, err := file.file.ReadAt(b, p.pos); err != nil {
			return fmt.Errorf("can't read %s again: %w", file.name, err)
		}
		if _, err := checkEntry(b, &p.entry); err != nil {
			return fmt.Errorf("%s changes under our eyes: %w", file.name, err)
		}
		end := r.end
		r.addLocked(b, file.seq)
		r.end = max(end, r.end)
		if r.unspilled >= l.cfg.spillAt && l.unspilled.Load() > l.cfg.TailCache/2 {
			if err := l.spill(r); err != nil && !errors.Is(err, errFull) {
				return err
			}
			l.evict()
		}
	}
	if len(r.tail) > 0 && r.tail[0].batch.Base() == r.start {
		r.startMs = r.tail[0].batch.Arrival()
	}
	return nil
}

// sweep looks at what lies below shards/ and is not in the log: leftovers of
// drops and of segments that the journal has anyway are removed, replicas that
// nothing mentions go to trash/ (I16).
func (l *Log) sweep(s *state) error {
	shards := path.Join(l.cfg.Dir, "shards")
	streams, err := l.fs.List(shards)
	if err != nil {
		return err
	}
	for _, st := range streams {
		replicas, err := l.fs.List(path.Join(shards, st.Name))
		if err != nil {
			return err
		}
		for _, rep := range replicas {
			dir := path.Join(shards, st.Name, rep.Name)
			key, ok := parseReplicaDir(st.Name, rep.Name)
			switch {
			case ok && s.dropped[key]:
				if err := removeDir(l.fs, dir); err != nil {
					return err
				}
			case !ok || s.replicas[key] == nil:
				if err := l.toTrash(dir, "shards-"+st.Name+"-"+rep.Name); err != nil {
					return err
				}
			default:
				if err := l.sweepReplica(&s.replicas[key].meta, dir); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sweepReplica removes segment files that are not the replica's: trimmed ones,
// and ones that were not synced, of which the journal has everything. What
// stands behind the synced end of the last one goes too.
func (l *Log) sweepReplica(m *replicaMeta, dir string) error {
	entries, err := l.fs.List(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name)
		base, ok := parseSegmentName(e.Name)
		i := slices.IndexFunc(m.segs, func(s segment) bool { return s.base == base })
		switch {
		case ok && i < 0 && (len(m.damage) == 0 || base < m.start):
			err = l.fs.Remove(name)
		case i < 0:
			// Perhaps the only copy of what the journal has lost.
			err = l.toTrash(name, strings.ReplaceAll(m.key.String(), "/", "-")+"-"+e.Name)
		case !m.segs[i].sealed && e.Size > m.segs[i].bytes:
			var f File
			if f, err = l.fs.Open(name, Write); err == nil {
				err = errors.Join(f.Truncate(m.segs[i].bytes), f.Close())
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func parseReplicaDir(streamName, replicaName string) (key stream.ReplicaKey, ok bool) {
	if _, err := fmt.Sscanf(streamName+"/"+replicaName, "%d/%d-%d", &key.Shard.Stream, &key.Shard.Number, &key.Replica); err != nil {
		return key, false
	}
	return key, key.String() == streamName+"/"+replicaName
}
