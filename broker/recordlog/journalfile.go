package recordlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"shardstream/stream"
)

// Journal files are written once with zeros and then used again and again:
// fdatasync of blocks that were written before costs half of an append's,
// since the file system has no metadata to write.

const (
	// firstFileSize is that of the first file of a new directory, small enough
	// to be zeroed before Open returns.
	firstFileSize = 4 << 20
	minSpareSize  = 64 << 10
	zeroChunk     = 1 << 20
	spaceRetry    = time.Second
)

func journalName(seq uint64) string { return fmt.Sprintf("J-%012d.log", seq) }

func parseJournalName(name string) (seq uint64, ok bool) {
	digits, found := strings.CutPrefix(name, "J-")
	digits, suffix := strings.CutSuffix(digits, ".log")
	if !found || !suffix {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	return seq, err == nil && name == journalName(seq)
}

func isSpareName(name string) bool {
	return strings.HasPrefix(name, "spare-") && strings.HasSuffix(name, ".log")
}

// roll goes on to the next file, a prepared one if there is any. With wait it
// outlasts a full disk.
func (j *journal) roll(need int64, wait bool) error {
	spare, ok := j.takeSpare(need)
	for !ok {
		var err error
		spare, err = j.zeroFile(max(roundUp(need), min(j.log.cfg.JournalFileSize, firstFileSize)))
		if err == nil {
			break
		}
		if !isNoSpace(err) || !wait {
			return err
		}
		// The disk is full. Nothing is lost: what waits goes on waiting until
		// a checkpoint or an operator has made room.
		j.log.noteFull(err)
		j.log.kickFlusher()
		select {
		case <-j.freed:
		case <-time.After(spaceRetry):
		}
		if err := j.stopped(); err != nil {
			return err
		}
		spare, ok = j.takeSpare(need)
	}
	dir, seq := j.log.journalDir(), j.seq+1
	name := path.Join(dir, journalName(seq))
	if err := j.log.fs.Rename(path.Join(dir, spare.name), name); err != nil {
		return err
	}
	if err := j.log.fs.SyncDir(dir); err != nil {
		return err
	}
	file, err := j.log.fs.Open(name, Write|Direct)
	if err != nil {
		return err
	}
	if j.file != nil {
		if err := j.file.Close(); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	j.file, j.size, j.pos, j.seq = file, spare.size, 0, seq
	j.mu.Lock()
	j.files = append(j.files, journalFile{seq, spare.size, j.frame + 1})
	j.mu.Unlock()
	signal(j.prepare)
	j.log.kickFlusher()
	return nil
}

// stopped says why the writer must not wait any longer.
func (j *journal) stopped() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed == nil && j.closing {
		return stream.Errorf(stream.DiskFull, "recordlog.Close", "the disk is full, what waited was not written")
	}
	return j.failed
}

// takeSpare gives the first prepared file that is large enough.
func (j *journal) takeSpare(need int64) (spareFile, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, s := range j.spares {
		if s.size >= need {
			j.spares = append(j.spares[:i], j.spares[i+1:]...)
			return s, true
		}
	}
	return spareFile{}, false
}

// zeroFile makes a spare file, synced but for its name. On an error it is
// removed again.
func (j *journal) zeroFile(size int64) (s spareFile, err error) {
	size = roundUp(size)
	s = spareFile{fmt.Sprintf("spare-%d.log", j.log.spareNumber.Add(1)), size}
	name := path.Join(j.log.journalDir(), s.name)
	file, err := j.log.fs.Open(name, Write|Create|Direct)
	if err != nil {
		return s, err
	}
	zeros := alignedBuffer(int(min(size, zeroChunk)))
	for at := int64(0); at < size && err == nil; at += int64(len(zeros)) {
		_, err = file.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		if rm := j.log.fs.Remove(name); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
			err = errors.Join(err, rm)
		}
	}
	return s, err
}

// prepareSpares keeps one file ready, so that the writer need not wait for one.
func (j *journal) prepareSpares(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-j.prepare:
		}
		j.mu.Lock()
		wanted := j.failed == nil
		for _, s := range j.spares {
			wanted = wanted && s.size < j.log.cfg.JournalFileSize
		}
		j.mu.Unlock()
		if !wanted || j.log.spaceLeft() < j.log.cfg.JournalFileSize {
			continue
		}
		s, err := j.zeroFile(j.log.cfg.JournalFileSize)
		if isNoSpace(err) {
			j.log.noteFull(err)
			continue
		}
		if err != nil {
			j.fail(err)
			return
		}
		j.mu.Lock()
		j.spares = append(j.spares, s)
		j.mu.Unlock()
		signal(j.freed)
	}
}

// retire gives up the files before first, which a checkpoint has made
// superfluous: they become spares, or are removed if there are enough.
func (j *journal) retire(first uint64) error {
	j.mu.Lock()
	n := 0
	for n < len(j.files)-1 && j.files[n].seq < first {
		n++
	}
	old := append([]journalFile(nil), j.files[:n]...)
	j.files = append([]journalFile(nil), j.files[n:]...)
	j.mu.Unlock()
	dir := j.log.journalDir()
	for _, f := range old {
		name := path.Join(dir, journalName(f.seq))
		if j.keep[f.seq] {
			// The evidence of damage is not overwritten.
			if err := j.log.toTrash(name, "journal-"+journalName(f.seq)); err != nil {
				return err
			}
			continue
		}
		j.mu.Lock()
		enough := f.size < j.log.cfg.JournalFileSize || len(j.spares) >= 2
		j.mu.Unlock()
		if enough {
			if err := j.log.fs.Remove(name); err != nil {
				return err
			}
			continue
		}
		s := spareFile{fmt.Sprintf("spare-%d.log", j.log.spareNumber.Add(1)), f.size}
		if err := j.log.fs.Rename(name, path.Join(dir, s.name)); err != nil {
			return err
		}
		j.mu.Lock()
		j.spares = append(j.spares, s)
		j.mu.Unlock()
	}
	signal(j.freed)
	if len(old) == 0 {
		return nil
	}
	return j.log.fs.SyncDir(dir)
}

func roundUp(n int64) int64 { return (n + pageSize - 1) / pageSize * pageSize }
