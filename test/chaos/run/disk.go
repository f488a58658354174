//go:build linux

package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"shardstream/test/chaos/lab"
	"shardstream/test/chaos/powerfs"
)

// powerDisk is a node's disk that one can break.
type powerDisk struct {
	*powerfs.Process
	path string
}

func (d *powerDisk) Path() string { return d.path }
func (d *powerDisk) Close() error { return d.Kill() }

// powerDisks makes disks of that program for a lab.
func powerDisks(program string) func(node, backing string) (lab.Disk, error) {
	return func(node, backing string) (lab.Disk, error) {
		mount, platter := filepath.Join(backing, "mount"), filepath.Join(backing, "platter")
		if err := errors.Join(os.MkdirAll(mount, 0o755), os.MkdirAll(platter, 0o755)); err != nil {
			return nil, err
		}
		p, err := powerfs.Start(program, mount, platter)
		if err != nil {
			return nil, err
		}
		return &powerDisk{p, filepath.Join(mount, "data")}, nil
	}
}

// heal takes all faults of a disk back.
func heal(d lab.Disk) error {
	if p, ok := d.(*powerDisk); ok {
		return p.Heal()
	}
	return nil
}

func disk(b *lab.Broker) *powerDisk { return b.Disk.(*powerDisk) }

// powerLoss takes the power from brokers at one moment, and gives it back.
func (w *World) powerLoss(ctx context.Context, victims []*lab.Broker, torn bool, away time.Duration) error {
	what := "power loss"
	if torn {
		what = "power loss, torn writes"
	}
	failed := make(chan error, len(victims))
	for _, b := range victims {
		w.Events.Add(what, b.Name)
		seed := w.Rand.Uint64()
		go func() {
			// The disk first: what the process still writes is lost too.
			err := disk(b).PowerLoss(powerfs.Loss{Torn: torn, Seed: seed})
			b.Kill()
			failed <- err
		}()
	}
	var errs []error
	for range victims {
		errs = append(errs, <-failed)
	}
	pause(ctx, away)
	for _, b := range victims {
		errs = append(errs, disk(b).PowerOn())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return w.up(ctx, victims)
}

func diskNemeses() []Nemesis {
	return []Nemesis{
		{Name: "power-all", Needs: Disks, What: "all brokers lose power at one moment, and with it every write that was not synced", Strike: func(ctx context.Context, w *World) error {
			return w.powerLoss(ctx, w.Brokers, false, w.span(0, time.Second))
		}},
		{Name: "power-torn", Needs: Disks, What: "all brokers lose power; of what was not synced a random part is there", Strike: func(ctx context.Context, w *World) error {
			return w.powerLoss(ctx, w.Brokers, true, w.span(0, time.Second))
		}},
		{Name: "power-one", Needs: Disks, What: "one broker loses power", Strike: func(ctx context.Context, w *World) error {
			return w.powerLoss(ctx, w.some(1), w.Rand.IntN(2) == 0, w.span(0, 2*time.Second))
		}},
		{Name: "power-pause", Needs: Disks, What: "a broker loses power while another is frozen, and a majority forms with the one that lost", Strike: func(ctx context.Context, w *World) error {
			three := w.some(len(w.Brokers))
			w.Events.Add("SIGSTOP", three[0].Name)
			three[0].Pause()
			pause(ctx, w.span(time.Second, 2*time.Second))
			err := w.powerLoss(ctx, three[1:2], w.Rand.IntN(2) == 0, 0)
			pause(ctx, w.span(0, 2*time.Second))
			w.Events.Add("SIGCONT", three[0].Name)
			three[0].Resume()
			return err
		}},
		{Name: "slow-disk", Needs: Disks, What: "each sync of one broker takes 50 to 500 ms", Strike: func(ctx context.Context, w *World) error {
			return w.badDisk(ctx, "slow disk", func(d *powerDisk) error {
				return d.Slow(powerfs.Syncs, w.span(50*time.Millisecond, 500*time.Millisecond))
			}, w.span(time.Second, 6*time.Second))
		}},
		{Name: "hung-disk", Needs: Disks, What: "no sync of one broker returns for 1 to 15 s; after 10 s it exits by design", Strike: func(ctx context.Context, w *World) error {
			return w.badDisk(ctx, "hung disk", func(d *powerDisk) error { return d.Hang(powerfs.Syncs) }, w.span(time.Second, 15*time.Second))
		}},
		{Name: "failing-disk", Needs: Disks, What: "the syncs or writes of one broker fail; it exits by design", Strike: func(ctx context.Context, w *World) error {
			op := []powerfs.Op{powerfs.OpSync, powerfs.OpWrite, powerfs.OpSyncDir}[w.Rand.IntN(3)]
			return w.badDisk(ctx, "failing "+string(op), func(d *powerDisk) error {
				return d.Fail(powerfs.Failure{Op: op, Skip: w.Rand.IntN(20), Count: 1})
			}, w.span(time.Second, 3*time.Second))
		}},
		{Name: "full-disk", Needs: Disks, What: "the disk of one broker is full", Strike: func(ctx context.Context, w *World) error {
			return w.badDisk(ctx, "full disk", func(d *powerDisk) error { return d.Full(w.Rand.Int64N(64 << 10)) }, w.span(time.Second, 6*time.Second))
		}},
		{Name: "rot", Needs: Disks, What: "bits of one broker's files are flipped while it is down", Strike: func(ctx context.Context, w *World) error {
			return w.damage(ctx, func(d *powerDisk) (string, error) {
				f, err := d.FlipBit(w.file(), w.Rand.Uint64())
				return fmt.Sprintf("%s at %d", f.Path, f.Offset), err
			})
		}},
		{
			Name: "rot-live", Needs: Disks, Padding: 8 << 10, Args: []string{"--scrub-interval", "2s", "--tail-cache", "1048576"},
			What: "bits in segments of one broker are flipped while it serves; a read or the scrub finds them, and they are repaired from the others",
			Strike: func(ctx context.Context, w *World) error {
				if w.rotten == nil {
					w.rotten = w.anyBroker() // one disk at a time
				}
				f, err := disk(w.rotten).FlipBit("shards/*/*/*.seg", w.Rand.Uint64())
				if err != nil {
					pause(ctx, time.Second)
					return nil // no segment yet
				}
				w.flips++
				w.Events.Add("damage", fmt.Sprintf("%s %s at %d", w.rotten.Name, f.Path, f.Offset))
				pause(ctx, w.span(time.Second, 4*time.Second))
				return nil
			},
			Hopes: func(ctx context.Context, w *World) string {
				if w.rotten == nil {
					return "no bit was flipped"
				}
				found, err := w.Metric(ctx, w.rotten.Process, "shardstream_log_damage_found_total")
				open, err2 := w.Metric(ctx, w.rotten.Process, "shardstream_damaged_ranges")
				w.Events.Add("found by checksum", fmt.Sprintf("%.0f ranges of %d flipped bits", found, w.flips))
				switch {
				case errors.Join(err, err2) != nil:
					return errors.Join(err, err2).Error()
				case w.flips > 0 && found == 0:
					return fmt.Sprintf("%d flipped bits, and none was found", w.flips)
				case open > 0:
					return fmt.Sprintf("%.0f damaged ranges were not repaired", open)
				}
				return ""
			},
		},
		{Name: "cut-files", Needs: Disks, What: "a file of one broker loses its end while it is down", Strike: func(ctx context.Context, w *World) error {
			return w.damage(ctx, func(d *powerDisk) (string, error) {
				c, err := d.CutFile(w.file(), w.Rand.Uint64())
				return fmt.Sprintf("%s from %d to %d", c.Path, c.Old, c.New), err
			})
		}},
	}
}

// file draws which files are damaged.
func (w *World) file() string {
	return []string{"journal/*", "shards/*/*/*", "raft/*"}[w.Rand.IntN(3)]
}

// badDisk lets one broker's disk misbehave for a while, and starts the broker
// again if it ended by that.
func (w *World) badDisk(ctx context.Context, what string, do func(*powerDisk) error, length time.Duration) error {
	b := w.anyBroker()
	w.Events.Add(what, b.Name)
	if err := do(disk(b)); err != nil {
		return err
	}
	pause(ctx, length)
	if err := disk(b).Heal(); err != nil {
		return err
	}
	w.Events.Add("heal", b.Name)
	w.ended = append(w.ended, b.Process)
	return w.restartEnded(ctx, b)
}

// restartEnded starts a broker that may have ended by itself.
func (w *World) restartEnded(ctx context.Context, b *lab.Broker) error {
	if b.Running() {
		return nil
	}
	_ = b.Crashes() // by design
	return w.up(ctx, []*lab.Broker{b})
}

// damage damages files of one broker that is down. What the broker then does is
// its own affair, as long as it serves again by itself within a minute, perhaps
// from its peers.
func (w *World) damage(ctx context.Context, do func(*powerDisk) (string, error)) error {
	b := w.anyBroker()
	w.Events.Add("kill -9", b.Name)
	b.Kill()
	if err := w.anotherHasAll(ctx, b.Name); err != nil {
		return err
	}
	what, err := do(disk(b))
	if err != nil {
		what = err.Error() // no such file yet
	}
	w.Events.Add("damage", b.Name+" "+what)
	w.ended = append(w.ended, b.Process)
	if err := w.up(ctx, []*lab.Broker{b}); err != nil {
		return err
	}
	healthy, cancel := context.WithTimeout(context.WithoutCancel(ctx), 90*time.Second)
	defer cancel()
	return w.Healthy(healthy)
}

// mayEnd tells that a process may have ended by itself, since its disk was bad.
func (w *World) mayEnd(p *lab.Process) bool {
	for _, other := range w.ended {
		if other == p {
			return true
		}
	}
	return false
}
