package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"shardstream/cmd/shardstream/internal/benchclient"
)

// benchVerified is the outcome of reading everything back.
type benchVerified struct {
	OK           bool     `json:"ok"`
	Acknowledged int64    `json:"acknowledged"`
	Found        int64    `json:"found"`      // of this load, each counted once
	Unknown      int64    `json:"unknown"`    // found though not acknowledged: their answer was lost
	Lost         int64    `json:"lost"`       // acknowledged, but not found
	Twice        int64    `json:"twice"`      // found again
	Misplaced    int64    `json:"misplaced"`  // not where the acknowledgement said
	Disordered   int64    `json:"disordered"` // behind a later record of their key
	NotRising    int64    `json:"notRising"`  // sequence number not above the one before in the shard
	Damaged      int64    `json:"damaged"`    // other data or key than was put
	Examples     []string `json:"examples,omitempty"`
}

func (v *benchVerified) bad() int64 {
	return v.Lost + v.Twice + v.Misplaced + v.Disordered + v.NotRising + v.Damaged
}

// verifier compares what is read with what was acknowledged. One goroutine per
// connection reads; mu is taken once per answer.
type verifier struct {
	load *load

	mu    sync.Mutex
	v     benchVerified
	found [][]bool  // by writer and number
	last  [][]int64 // by writer and key: the highest number found, -1 for none
}

// verify reads every shard from its beginning and checks the load's records.
// Other records in the stream are passed over.
func verify(ctx context.Context, e *env, target *benchclient.Target, s *benchStream, l *load) (*benchVerified, error) {
	c := &verifier{load: l}
	for _, w := range l.writers {
		c.found = append(c.found, make([]bool, len(w.acks)))
		last := make([]int64, l.flags.Keys)
		for i := range last {
			last[i] = -1
		}
		c.last = append(c.last, last)
		if len(w.bad) > 0 {
			c.v.NotRising += int64(len(w.bad))
			c.v.Examples = append(c.v.Examples, w.bad...)
		}
		for _, ack := range w.acks {
			if ack != 0 {
				c.v.Acknowledged++
			}
		}
	}
	progress := startProgress(e.stderr, true, func(time.Duration) string {
		c.mu.Lock()
		defer c.mu.Unlock()
		return fmt.Sprintf("verifying: %s of %s records found", decimal(c.v.Found), decimal(c.v.Acknowledged))
	})
	defer progress.stop()
	const readers = 4
	var wg sync.WaitGroup
	failures := make([]error, readers)
	for i := range readers {
		wg.Go(func() {
			conn := target.NewConn()
			defer conn.Close()
			for j := i; j < len(s.shards) && failures[i] == nil; j += readers {
				failures[i] = c.shard(ctx, s, conn, s.shards[j])
			}
		})
	}
	wg.Wait()
	if err := errors.Join(failures...); err != nil {
		return nil, fmt.Errorf("reading back: %w", err)
	}
	for w, writer := range l.writers {
		for seq, ack := range writer.acks {
			if ack != 0 && !c.found[w][seq] {
				c.v.Lost++
				c.example("record %d of writer %d is acknowledged, but lost", seq, w)
			}
		}
	}
	c.v.OK = c.v.bad() == 0
	return &c.v, nil
}

func (c *verifier) shard(ctx context.Context, s *benchStream, conn *benchclient.Conn, id string) error {
	cursor, err := s.cursor(ctx, conn, id, "TRIM_HORIZON", 10000)
	if err != nil {
		return err
	}
	last := "" // sequence number
	for caughtUp := false; !caughtUp; {
		_, caughtUp, err = cursor.next(ctx, func(g benchclient.Got) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if !lessSequence(last, string(g.SequenceNumber)) {
				c.v.NotRising++
				c.example("%s: sequence number %s comes after %s", id, g.SequenceNumber, last)
			}
			last = string(g.SequenceNumber)
			c.recordLocked(id, g)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *verifier) recordLocked(shard string, g benchclient.Got) {
	stamp, damaged, ours := c.load.format.Read(g.Data)
	if !ours {
		return
	}
	if int(stamp.Writer) >= len(c.found) || stamp.Seq >= uint64(len(c.found[stamp.Writer])) || int(stamp.Key) >= c.load.flags.Keys ||
		damaged || string(g.PartitionKey) != benchclient.PartitionKey(stamp.Writer, stamp.Key) {
		c.v.Damaged++
		c.example("%s: record %s is not as it was put", shard, g.SequenceNumber)
		return
	}
	if c.found[stamp.Writer][stamp.Seq] {
		c.v.Twice++
		c.example("%s: record %d of writer %d is there twice, again as %s", shard, stamp.Seq, stamp.Writer, g.SequenceNumber)
		return
	}
	c.found[stamp.Writer][stamp.Seq] = true
	c.v.Found++
	switch ack := c.load.writers[stamp.Writer].acks[stamp.Seq]; ack {
	case 0:
		c.v.Unknown++
	case place([]byte(shard), g.SequenceNumber):
	default:
		c.v.Misplaced++
		c.example("record %d of writer %d is at %s %s, which is not what was acknowledged", stamp.Seq, stamp.Writer, shard, g.SequenceNumber)
	}
	if last := c.last[stamp.Writer][stamp.Key]; int64(stamp.Seq) < last {
		c.v.Disordered++
		c.example("%s: record %d of writer %d comes after its record %d of the same key", shard, stamp.Seq, stamp.Writer, last)
		return
	}
	c.last[stamp.Writer][stamp.Key] = int64(stamp.Seq)
}

func (c *verifier) example(format string, args ...any) {
	if len(c.v.Examples) < 10 {
		c.v.Examples = append(c.v.Examples, fmt.Sprintf(format, args...))
	}
}
