package recordlog

import "sync/atomic"

// Stats are counters since Open, and gauges.
type Stats struct {
	Appends          int64
	AppendBytes      int64
	Throttled        int64 // appends refused because too many bytes were under way
	Frames           int64
	Fdatasyncs       int64 // of the journal
	JournalBytes     int64 // written, with heads and padding
	Checkpoints      int64
	CarriedBytes     int64 // small tails that checkpoints wrote to the journal again
	Spills           int64 // writes to segments
	SpillBytes       int64
	SegmentSyncs     int64
	SegmentsDeleted  int64
	SegmentReadBytes int64
	ScrubbedBytes    int64
	ScrubRounds      int64
	Damage           int64 // found since Open

	Replicas      int64
	OpenSegments  int64
	TailBytes     int64 // batches in memory
	UnspilledTail int64 // of those, bytes that are in no segment yet
	JournalSize   int64 // files that recovery would read, bytes
	DiskFree      int64
	DiskFull      bool
}

type counters struct {
	appends, appendBytes, throttled, frames, fdatasyncs, journalBytes     atomic.Int64
	checkpoints, carriedBytes, spills, spillBytes, segmentSyncs           atomic.Int64
	segmentsDeleted, segmentReadBytes, scrubbedBytes, scrubRounds, damage atomic.Int64
}

// Stats gives the counters.
func (l *Log) Stats() Stats {
	c := &l.counters
	l.mu.RLock()
	replicas := len(l.replicas)
	l.mu.RUnlock()
	return Stats{
		Appends: c.appends.Load(), AppendBytes: c.appendBytes.Load(), Throttled: c.throttled.Load(),
		Frames: c.frames.Load(), Fdatasyncs: c.fdatasyncs.Load(), JournalBytes: c.journalBytes.Load(),
		Checkpoints: c.checkpoints.Load(), CarriedBytes: c.carriedBytes.Load(),
		Spills: c.spills.Load(), SpillBytes: c.spillBytes.Load(), SegmentSyncs: c.segmentSyncs.Load(),
		SegmentsDeleted: c.segmentsDeleted.Load(), SegmentReadBytes: c.segmentReadBytes.Load(),
		ScrubbedBytes: c.scrubbedBytes.Load(), ScrubRounds: c.scrubRounds.Load(), Damage: c.damage.Load(),
		Replicas: int64(replicas), OpenSegments: int64(l.cache.size()), TailBytes: l.tailBytes.Load(),
		UnspilledTail: l.unspilled.Load(), JournalSize: l.journal.liveBytes(), DiskFree: l.free.Load(), DiskFull: l.DiskFull(),
	}
}
