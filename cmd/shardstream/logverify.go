package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"shardstream/broker/recordlog"
	"shardstream/stream"
)

// logCmd is `shardstream log`, for data directories of stopped nodes.
type logCmd struct {
	Verify logVerifyCmd `cmd:"" help:"Check every checksum and every gap of a stopped node's records."`
}

// logVerifyCmd is `shardstream log verify DIR`.
type logVerifyCmd struct {
	Dir  string `arg:"" help:"Data directory, as given to --data-dir."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Help is what `shardstream log verify --help` says below its first line.
func (logVerifyCmd) Help() string {
	return `Reads the journal and all segments, and changes nothing. Exit status 1 if anything is wrong; the damaged ranges are
then what 'shardstream cluster recover' will list once the node runs.

Examples:
  shardstream log verify ./shardstream-data
  shardstream log verify --json /var/lib/shardstream | jq .damage`
}

func (c *logVerifyCmd) Run(e *env) error {
	unlock, err := lockStopped(c.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	var done, total atomic.Int64
	progress := startProgress(e.stderr, !c.JSON, func(time.Duration) string {
		return fmt.Sprintf("%s of %s read", byteSize(done.Load()), byteSize(total.Load()))
	})
	report, err := recordlog.Verify(c.Dir, nil, func(d, t int64) {
		done.Store(d)
		total.Store(t)
	})
	progress.stop()
	if err != nil {
		return err
	}
	if err := c.print(e.stdout, &report); err != nil {
		return err
	}
	if !report.OK() {
		return fmt.Errorf("%s is damaged: %s, %s", c.Dir, plural(uint64(len(report.Damage)), "lost range"), plural(uint64(len(report.Problems)), "other problem"))
	}
	return nil
}

// lockStopped takes the lock that a running node holds, as what is read under
// a node's hands would look like damage. Reading needs no lock file to be there.
func lockStopped(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s is in use by a running node: stop it first", dir)
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// verifyReport is what --json prints.
type verifyReport struct {
	OK        bool           `json:"ok"`
	Replicas  int            `json:"replicas"`
	Segments  int            `json:"segments"`
	Batches   int64          `json:"batches"`  // in the journal alone
	Bytes     int64          `json:"bytes"`    // of segments
	TornTail  int64          `json:"tornTail"` // bytes of an unfinished write at the journal's end: nothing wrong
	Damage    []damagedRange `json:"damage"`
	Problems  []string       `json:"problems"`
	Directory string         `json:"directory"`
}

func (c *logVerifyCmd) print(w io.Writer, r *recordlog.VerifyReport) error {
	out := verifyReport{
		OK: r.OK(), Replicas: r.Replicas, Segments: r.Segments, Batches: r.Batches, Bytes: r.Bytes,
		TornTail: r.Recovery.TornBytes, Damage: []damagedRange{}, Problems: append([]string{}, r.Problems...), Directory: c.Dir,
	}
	for _, d := range r.Damage {
		out.Damage = append(out.Damage, damagedRange{
			StreamID: uint64(d.Key.Shard.Stream), Shard: stream.ShardName(d.Key.Shard.Number), Replica: uint64(d.Key.Replica),
			Start: uint64(d.Range.Start), End: uint64(d.Range.End), Records: records(uint64(d.Range.Start), uint64(d.Range.End)),
			After: timeText(d.AfterMs), Before: timeText(d.BeforeMs), File: d.File, Position: d.Pos, Reason: d.Reason,
		})
	}
	if c.JSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(out)
	}
	fmt.Fprintf(w, "%s: %s, %s with %s, %s in the journal alone\n", c.Dir, plural(uint64(out.Replicas), "replica"),
		plural(uint64(out.Segments), "segment"), byteSize(out.Bytes), plural(uint64(out.Batches), "batch"))
	if out.TornTail > 0 {
		fmt.Fprintf(w, "the journal ends with %s of an unfinished write, which was never acknowledged\n", byteSize(out.TornTail))
	}
	if out.OK {
		_, err := fmt.Fprintln(w, "nothing is wrong")
		return err
	}
	if len(out.Damage) > 0 {
		printRanges(w, "", out.Damage)
	}
	for _, p := range out.Problems {
		fmt.Fprintln(w, p)
	}
	return nil
}
