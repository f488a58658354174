package recordlog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"shardstream/stream"
)

// Config says where a log lives and what it may use.
type Config struct {
	// Dir is the node's data directory; the log uses journal/, shards/ and
	// trash/ in it.
	Dir string
	// FS is the file system; nil is the real one.
	FS FS

	// JournalBudget bounds the journal, bytes; a checkpoint begins at half of
	// it. 0 is 256 MiB.
	JournalBudget int64
	// JournalFileSize is that of one journal file, bytes. 0 is an eighth of
	// the budget, at most 128 MiB.
	JournalFileSize int64
	// SegmentSize is where a segment is sealed, bytes. 0 is 64 MiB.
	SegmentSize int64
	// SegmentAge is when a segment is sealed though it is small, so that
	// retention can delete it. 0 is 3 h.
	SegmentAge time.Duration
	// TailCache bounds the batches kept in memory, bytes. 0 is 64 MiB.
	TailCache int64
	// MaxOpenFiles bounds the open segments. 0 is 1024.
	MaxOpenFiles int
	// DiskReserve is the free space below which appends are refused, bytes.
	// 0 is 256 MiB, less than 0 is none.
	DiskReserve int64
	// ScrubInterval is how often all segments are read and verified; the first
	// round begins at Open. 0 is never.
	ScrubInterval time.Duration
	// ScrubRate bounds the scrub's reads, bytes per second. 0 is 32 MiB.
	ScrubRate int64

	// Logger is told of damage, recovery and a full disk. nil is none.
	Logger *slog.Logger
	// OnFatal is called once, at the first failed write or sync. The process
	// must end then: nothing is written any more (I15).
	OnFatal func(error)
	// Now gives the time. nil is time.Now.
	Now func() time.Time

	inFlight     int64         // bytes of appends that are not durable yet
	admitWait    time.Duration // that an append waits for them to become fewer
	idleFrame    time.Duration // after which an empty frame covers the last one
	flushTick    time.Duration // between two looks at the disk's free space
	spillAt      int64         // bytes of a replica's tail that are worth a write
	mutantNoSync bool          // tests only: show that the tests notice a missing fdatasync
}

// Validate reports every mistake in the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no Dir is given"))
	}
	for name, v := range map[string]int64{
		"JournalBudget": c.JournalBudget, "JournalFileSize": c.JournalFileSize, "SegmentSize": c.SegmentSize,
		"TailCache": c.TailCache, "MaxOpenFiles": int64(c.MaxOpenFiles), "SegmentAge": int64(c.SegmentAge),
		"ScrubInterval": int64(c.ScrubInterval), "ScrubRate": c.ScrubRate,
	} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("%s is negative", name))
		}
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.FS = cmp.Or[FS](c.FS, realFS{})
	c.JournalBudget = cmp.Or(c.JournalBudget, 256<<20)
	c.JournalFileSize = roundUp(cmp.Or(c.JournalFileSize, min(c.JournalBudget/8, 128<<20)))
	c.SegmentSize = cmp.Or(c.SegmentSize, 64<<20)
	c.SegmentAge = cmp.Or(c.SegmentAge, 3*time.Hour)
	c.TailCache = cmp.Or(c.TailCache, 64<<20)
	c.MaxOpenFiles = cmp.Or(c.MaxOpenFiles, 1024)
	c.DiskReserve = max(0, cmp.Or(c.DiskReserve, 256<<20))
	c.ScrubRate = cmp.Or(c.ScrubRate, 32<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnFatal == nil {
		c.OnFatal = func(error) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.inFlight = cmp.Or(c.inFlight, 64<<20)
	c.admitWait = cmp.Or(c.admitWait, time.Second)
	c.idleFrame = cmp.Or(c.idleFrame, 20*time.Millisecond)
	c.flushTick = cmp.Or(c.flushTick, time.Second)
	c.spillAt = cmp.Or(c.spillAt, 1<<20)
	return c
}

// Log is the record log of one node.
type Log struct {
	// Set once.
	cfg      Config
	fs       FS
	logger   *slog.Logger
	journal  *journal
	cache    *segCache
	recovery RecoveryReport
	stop     chan struct{}
	kick     chan struct{}
	behind   sync.WaitGroup // flusher, scrub, spare files
	writer   sync.WaitGroup

	counters    counters
	tailBytes   atomic.Int64 // of batches in memory
	unspilled   atomic.Int64 // of those that are in no segment
	free        atomic.Int64 // bytes on the disk, as of the last look
	full        atomic.Bool  // a write met a full disk since the last look
	looked      bool         // at the free space; the flusher's own after Open
	spareNumber atomic.Int64
	closed      sync.Once
	fatalOnce   sync.Once

	// mu guards which replicas there are, and who is told of damage.
	mu       sync.RWMutex
	replicas map[stream.ReplicaKey]*Replica
	sorted   []*Replica // by key; nil when it has to be made again
	told     []func(Damage)

	// segMu is held by whoever changes segments or the manifest: the flusher,
	// Cut, Drop. It is taken before a replica's mu, and that before the journal's.
	segMu     sync.Mutex
	spillBuf  []byte
	cached    []cachedRun
	dirtyDirs map[string]bool

	// queueMu may be taken under a replica's mu.
	queueMu    sync.Mutex
	spillQueue []*Replica
	trimQueue  []*Replica
	cutQueue   []*Replica // whose files are not yet as the journal says
	hintQueue  []*Replica // whose high watermark the journal does not know
}

func (l *Log) journalDir() string { return path.Join(l.cfg.Dir, "journal") }

// Open replays the log in a directory, or begins a new one in an empty
// directory. Errors have one line that says what to do.
func Open(cfg Config) (_ *Log, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, stream.Errorf(stream.Invalid, "recordlog.Open", "%w", err)
	}
	cfg = cfg.withDefaults()
	l := &Log{
		cfg: cfg, fs: cfg.FS, logger: cfg.Logger, stop: make(chan struct{}), kick: make(chan struct{}, 1),
		replicas: map[stream.ReplicaKey]*Replica{}, dirtyDirs: map[string]bool{},
	}
	l.cache = newSegCache(l, cfg.MaxOpenFiles)
	l.journal = &journal{
		log: l, fill: &frameBuf{}, other: &frameBuf{}, empty: true, keep: map[uint64]bool{},
		wake: make(chan struct{}, 1), freed: make(chan struct{}, 1), prepare: make(chan struct{}, 1),
	}
	defer func() {
		if err != nil {
			l.cache.closeAll()
			if l.journal.file != nil {
				err = errors.Join(err, l.journal.file.Close())
			}
		}
	}()
	l.checkSpace()
	if err := l.recover(); err != nil {
		return nil, err
	}
	l.writer.Go(l.journal.run)
	l.behind.Go(func() { l.runFlusher(l.stop) })
	l.behind.Go(func() { l.journal.prepareSpares(l.stop) })
	if cfg.ScrubInterval > 0 {
		l.behind.Go(func() { l.runScrub(l.stop) })
	}
	signal(l.journal.prepare)
	l.kickFlusher()
	return l, nil
}

// Close makes durable what was appended, and waits for the log's goroutines.
// Later appends fail with Kind Unavailable.
func (l *Log) Close() error {
	l.closed.Do(func() {
		close(l.stop)
		l.behind.Wait()
		l.logNotes()
		l.journal.close()
		l.writer.Wait()
		l.cache.closeAll()
		if f := l.journal.file; f != nil {
			if err := f.Close(); err != nil {
				l.journal.fail(err)
			}
		}
	})
	return l.journal.err()
}

// logNotes writes the visible starts and high watermarks that moved, so that a
// clean stop keeps them. Why it can't, Close reports.
func (l *Log) logNotes() {
	for _, r := range l.Replicas() {
		r.mu.Lock()
		var ops []op
		if r.start > r.logged {
			ops = append(ops, op{key: r.key, typ: entryTrim, base: r.start})
		}
		if hw := r.hwLocked(); r.hinted && hw > r.start {
			ops = append(ops, op{key: r.key, typ: entryHW, base: hw})
		}
		if len(ops) > 0 && !r.dropped {
			_, _ = l.journal.push(ops...)
		}
		r.mu.Unlock()
	}
}

// fatal tells the owner that the process must end.
func (l *Log) fatal(err error) {
	l.fatalOnce.Do(func() {
		l.logger.Error("the record log has stopped", slog.Any("error", err))
		l.cfg.OnFatal(err)
	})
}

// Replica gives a replica, nil if it is not here.
func (l *Log) Replica(key stream.ReplicaKey) *Replica {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.replicas[key]
}

func compareKeys(a, b stream.ReplicaKey) int {
	return cmp.Or(cmp.Compare(a.Shard.Stream, b.Shard.Stream), cmp.Compare(a.Shard.Number, b.Shard.Number), cmp.Compare(a.Replica, b.Replica))
}

// Replicas gives all replicas by key. The slice must not be changed.
func (l *Log) Replicas() []*Replica {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sorted == nil {
		l.sorted = make([]*Replica, 0, len(l.replicas))
		for _, r := range l.replicas {
			l.sorted = append(l.sorted, r)
		}
		slices.SortFunc(l.sorted, func(a, b *Replica) int { return compareKeys(a.key, b.key) })
	}
	return l.sorted
}

// Create makes empty replicas, all in one frame, durable on return. Those that
// exist are left as they are. Kinds: DiskFull, Unavailable, Internal.
func (l *Log) Create(keys []stream.ReplicaKey) error {
	if l.DiskFull() {
		return stream.Errorf(stream.DiskFull, "recordlog.Create", "less than the disk reserve is left")
	}
	var ops []op
	for _, key := range keys {
		if l.Replica(key) == nil {
			ops = append(ops, op{key: key, typ: entryCreate})
		}
	}
	if len(ops) == 0 {
		return nil
	}
	// No checkpoint between the durable entry and the replica in memory.
	l.segMu.Lock()
	defer l.segMu.Unlock()
	if err := l.journal.do(ops...); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if l.replicas[key] == nil {
			l.replicas[key] = &Replica{log: l, key: key}
		}
	}
	l.sorted = nil
	return nil
}

// Drop deletes replicas for good, durably on return, and frees their space.
// It is for explicit deletions only (I16). Those that are not here are passed
// over. Kinds: Unavailable, Internal.
func (l *Log) Drop(keys []stream.ReplicaKey) error {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	var ops []op
	var dropped []*Replica
	for _, key := range keys {
		if r := l.Replica(key); r != nil && !slices.Contains(dropped, r) {
			dropped = append(dropped, r)
			ops = append(ops, op{key: key, typ: entryDrop})
		}
	}
	if len(ops) == 0 {
		return nil
	}
	for _, r := range dropped {
		r.mu.Lock()
		r.dropped = true // no append may stand behind the drop
		r.mu.Unlock()
	}
	if err := l.journal.do(ops...); err != nil {
		return err
	}
	l.mu.Lock()
	for _, r := range dropped {
		delete(l.replicas, r.key)
	}
	l.sorted = nil
	l.mu.Unlock()
	for _, r := range dropped {
		r.mu.Lock()
		r.dropTailLocked(len(r.tail))
		segs := r.segs
		r.segs, r.dirty, r.dirtyFile, r.damage = nil, false, 0, nil
		r.doomed, r.long, r.before = nil, 0, nil
		r.mu.Unlock()
		for _, s := range segs {
			l.cache.forget(segID{r.key, s.base})
		}
		delete(l.dirtyDirs, l.replicaDir(r.key))
		if err := removeDir(l.fs, l.replicaDir(r.key)); err != nil {
			return l.mustNotFail(err)
		}
	}
	return nil
}

// removeDir removes a directory of files; it is no error if it is missing.
func removeDir(fsys FS, dir string) error {
	entries, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := fsys.Remove(path.Join(dir, e.Name)); err != nil {
			return err
		}
	}
	return fsys.Remove(dir)
}

// Adoption is an epoch that a replica is to adopt.
type Adoption struct {
	Key   stream.ReplicaKey
	Epoch stream.Epoch
}

// Adopt makes replicas adopt epochs, all in one frame, durably on return. It
// refuses to go back (I6), then nothing is adopted. Kinds: Stale, NotFound,
// Unavailable, Internal.
func (l *Log) Adopt(as []Adoption) error {
	rs := make([]*Replica, len(as))
	for i, a := range as {
		r := l.Replica(a.Key)
		if r == nil {
			return stream.Errorf(stream.NotFound, whereAdopt, "replica %s is not here", a.Key)
		}
		r.mu.Lock()
		err := r.adoptableLocked(a.Epoch)
		r.mu.Unlock()
		if err != nil {
			return err
		}
		rs[i] = r
	}
	// What is pushed back to back goes into a frame or two.
	results := make(chan error, len(as))
	pushed := 0
	var failed error
	for i, a := range as {
		if failed = rs[i].Adopt(a.Epoch, func(err error) { results <- err }); failed != nil {
			break
		}
		pushed++
	}
	for range pushed {
		if err := <-results; err != nil {
			failed = err
		}
	}
	return failed
}

// DiskFull reports whether appends are refused for want of space.
func (l *Log) DiskFull() bool {
	return l.full.Load() || l.free.Load() < l.cfg.DiskReserve
}

// checkSpace looks how much the disk has left.
func (l *Log) checkSpace() {
	free, err := l.fs.Free(l.cfg.Dir)
	if err != nil {
		l.logger.Error("can't tell the free space", slog.Any("error", err))
		return
	}
	was := l.DiskFull()
	if !l.looked {
		l.looked, was = true, false
	}
	l.free.Store(free)
	// A write that met the end is tried again once there is clearly more.
	if free > max(l.cfg.DiskReserve, l.cfg.JournalFileSize) {
		l.full.Store(false)
	}
	if is := l.DiskFull(); is && !was {
		l.logger.Warn("the disk is almost full: appends are refused until space is freed", slog.Int64("free", free), slog.Int64("reserve", l.cfg.DiskReserve))
	} else if was && !is {
		l.logger.Info("the disk has space again: appends are accepted", slog.Int64("free", free), slog.Int64("reserve", l.cfg.DiskReserve))
	}
	if !l.DiskFull() {
		signal(l.journal.freed)
		signal(l.journal.prepare)
	}
}

// noteFull turns the log to refusing appends until checkSpace finds room.
func (l *Log) noteFull(err error) {
	if !l.full.Swap(true) {
		l.logger.Warn("the disk is full, appends are refused", slog.Any("error", err))
	}
}

// spaceLeft gives the bytes above the reserve.
func (l *Log) spaceLeft() int64 { return l.free.Load() - l.cfg.DiskReserve }

// mkdirDurably makes a directory and syncs its parent.
func (l *Log) mkdirDurably(dir string) error {
	if _, err := l.fs.Stat(dir); err == nil {
		return nil
	}
	if err := l.fs.Mkdir(dir); err != nil {
		return err
	}
	return l.fs.SyncDir(path.Dir(dir))
}
