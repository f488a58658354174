package recordlog

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"shardstream/stream"
)

// VerifyReport says what Verify has read, and what of it is wrong.
type VerifyReport struct {
	Recovery RecoveryReport // of the journal, as Open would see it
	Replicas int
	Segments int
	Batches  int64
	Bytes    int64    // verified
	Damage   []Damage // records that are lost
	Problems []string // wrong, but without loss: headers, indexes, copies, things that nothing mentions
}

// OK reports whether nothing is wrong. A torn last frame is nothing wrong.
func (r *VerifyReport) OK() bool { return len(r.Damage) == 0 && len(r.Problems) == 0 }

// Verify reads everything in the data directory of a stopped node: every
// checksum, every gap. It changes nothing. progress, if not nil, is told how
// many bytes of segments are read, and how many there are. The error is one of
// reading at all; what is wrong with the data stands in the report.
func Verify(dir string, fsys FS, progress func(done, total int64)) (VerifyReport, error) {
	if fsys == nil {
		fsys = realFS{}
	}
	var report VerifyReport
	if _, err := fsys.Stat(path.Join(dir, "journal")); err != nil {
		return report, stream.Errorf(stream.NotFound, "recordlog.Verify", "%s is not the data directory of a node: %w", dir, err)
	}
	s, err := loadState(fsys, dir, false)
	if err != nil || s == nil {
		return report, err
	}
	defer func() { _ = s.scan.close() }() // only read
	v := verifier{fs: fsys, dir: dir, report: &report, progress: progress}
	var replicas []*rebuilt
	for _, r := range s.replicas {
		if err := s.checkSegments(r); err != nil {
			return report, err
		}
		s.settle(r)
		for _, seg := range r.meta.segs {
			v.total += seg.bytes
		}
		replicas = append(replicas, r)
	}
	slices.SortFunc(replicas, func(a, b *rebuilt) int { return compareKeys(a.meta.key, b.meta.key) })
	for _, r := range replicas {
		report.Replicas++
		report.Batches += int64(len(r.pending))
		report.Damage = append(report.Damage, r.meta.damage...)
		for _, seg := range r.meta.segs {
			if err := v.segment(&r.meta, seg); err != nil {
				return report, err
			}
		}
	}
	for _, name := range s.report.ManifestCopies {
		v.problem("%s: this copy of the manifest is damaged", name)
	}
	if n := s.report.RepairedFrames; n > 0 {
		v.problem("%d journal frames are damaged, and readable by their second copy", n)
	}
	report.Recovery = s.report
	return report, v.unmentioned(s)
}

type verifier struct {
	fs          FS
	dir         string
	report      *VerifyReport
	progress    func(done, total int64)
	done, total int64
}

func (v *verifier) problem(format string, args ...any) {
	v.report.Problems = append(v.report.Problems, fmt.Sprintf(format, args...))
}

func (v *verifier) segment(m *replicaMeta, seg segment) (err error) {
	name := path.Join(v.dir, "shards", m.key.String(), segmentName(seg.base))
	v.report.Segments++
	f, err := v.fs.Open(name, ReadOnly)
	if err != nil {
		if ignoreMissing(err) == nil {
			return nil // checkSegments has named it
		}
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	header := make([]byte, pageSize)
	if _, err := f.ReadAt(header, 0); err != nil {
		v.problem("%s: %v", name, err)
	} else if err := checkSegmentHeader(header, m.key, seg.base); err != nil {
		v.problem("%s: %v", name, err)
	}
	damage, _, err := scrubFile(f, m.key, seg, func(bytes int64) bool {
		v.done += bytes
		v.report.Bytes += bytes
		if v.progress != nil {
			v.progress(v.done, v.total)
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, d := range damage {
		for _, lost := range subtract(stream.OffsetRange{Start: max(d.Range.Start, m.start), End: d.Range.End}, m.holes, m.damage) {
			d.File, d.Range = name, lost
			v.report.Damage = append(v.report.Damage, d)
		}
	}
	if seg.sealed {
		if _, ok := readIndex(f, seg); !ok {
			v.problem("%s: the index is damaged; it is rebuilt when it is needed", name)
		}
	}
	return nil
}

// unmentioned lists what lies below shards/ and is no replica.
func (v *verifier) unmentioned(s *state) error {
	streams, err := v.fs.List(path.Join(v.dir, "shards"))
	if err != nil {
		return ignoreMissing(err)
	}
	for _, st := range streams {
		replicas, err := v.fs.List(path.Join(v.dir, "shards", st.Name))
		if err != nil {
			return err
		}
		for _, rep := range replicas {
			if key, ok := parseReplicaDir(st.Name, rep.Name); !ok || s.replicas[key] == nil && !s.dropped[key] {
				v.problem("%s: nothing mentions it; Open moves it to trash", path.Join(v.dir, "shards", st.Name, rep.Name))
			}
		}
	}
	return nil
}
