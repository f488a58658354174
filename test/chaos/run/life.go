//go:build linux

package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"shardstream/test/chaos/lab"
	"shardstream/test/chaos/network"
)

// lifeNemeses are what operators do: nothing of it is a fault, all of it must be
// survived together with one.
func lifeNemeses() []Nemesis {
	return []Nemesis{
		{Name: "rolling-restart", What: "SIGTERM and start of each broker in turn", Strike: func(ctx context.Context, w *World) error {
			for _, b := range w.Brokers {
				if ctx.Err() != nil {
					return nil
				}
				w.Events.Add("SIGTERM", b.Name)
				stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
				err := b.Stop(stopping)
				cancel()
				if err != nil {
					return err
				}
				if err := w.up(ctx, w.Brokers[indexOf(w, b.Name):][:1]); err != nil {
					return err
				}
				healthy, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
				err = w.Healthy(healthy)
				cancel()
				if err != nil {
					return fmt.Errorf("after the restart of %s: %w", b.Name, err)
				}
			}
			return nil
		}},
		{Name: "upgrade", Needs: Previous, What: "each broker in turn is stopped and comes back as the new build, and one is killed after each", Strike: func(ctx context.Context, w *World) error {
			for _, b := range w.Brokers {
				if ctx.Err() != nil {
					return nil
				}
				w.Events.Add("upgrade", b.Name)
				stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
				err := b.Stop(stopping)
				cancel()
				if err != nil {
					return err
				}
				b.Use(w.cfg.Program)
				if err := w.up(ctx, w.Brokers[indexOf(w, b.Name):][:1]); err != nil {
					return err
				}
				if err := w.down(ctx, w.some(1), w.span(0, time.Second)); err != nil {
					return err
				}
			}
			return nil
		}},
		{Name: "reshard", What: "splits, merges and scaling, one after the other", Strike: func(ctx context.Context, w *World) error {
			w.Events.Add("reshard", "stream")
			if err := w.Reshard(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			return nil
		}},
		{Name: "reshard-kill", What: "a reshard while a broker is killed", Strike: func(ctx context.Context, w *World) error {
			done := make(chan error, 1)
			w.Events.Add("reshard", "stream")
			go func() { done <- w.Reshard(ctx) }()
			pause(ctx, w.span(0, 50*time.Millisecond))
			err := w.down(ctx, w.some(1), w.span(0, time.Second))
			if failed := <-done; err == nil && ctx.Err() == nil && failed != nil {
				w.Events.Add("reshard failed", failed.Error())
			}
			return err
		}},
		{Name: "wipe", What: "a broker is killed, its disk emptied, and it starts again", Strike: func(ctx context.Context, w *World) error {
			b := w.anyBroker()
			w.Events.Add("kill -9", b.Name)
			b.Kill()
			if err := w.anotherHasAll(ctx, b.Name); err != nil {
				return err
			}
			w.Events.Add("disk emptied", b.Name)
			if err := os.RemoveAll(b.Disk.Path()); err != nil {
				return err
			}
			if err := w.up(ctx, w.Brokers[indexOf(w, b.Name):][:1]); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
			defer cancel()
			return w.Healthy(ctx)
		}},
		{Name: "alone-then-wiped", What: "two of three brokers are killed, then the disk of the third is emptied, and all start again", Strike: func(ctx context.Context, w *World) error {
			all := w.some(len(w.Brokers))
			few := w.minority() + 1
			for _, b := range all[few-1:] {
				w.Events.Add("kill -9", b.Name)
				b.Kill()
			}
			pause(ctx, w.span(2*time.Second, 4*time.Second)) // the rest may do what it can alone
			if err := w.emptied(all[:1]); err != nil {
				return err
			}
			return w.wellAgain(ctx, all)
		}},
		{Name: "wipe-at-floor", What: "of the two copies that are left, one is emptied, and comes back without the other", Strike: func(ctx context.Context, w *World) error {
			all := w.some(len(w.Brokers))
			third, wiped, other := all[2:], all[:1], all[1:2]
			w.Events.Add("kill -9", third[0].Name)
			third[0].Kill()
			if err := w.anotherHasAll(ctx, third[0].Name); err != nil {
				return err
			}
			w.Events.Add("kill -9", other[0].Name)
			other[0].Kill()
			if err := w.emptied(wiped); err != nil {
				return err
			}
			for _, b := range append(wiped[:1:1], third...) {
				w.Events.Add("start", b.Name)
				if err := b.Start(); err != nil {
					return err
				}
			}
			pause(ctx, w.span(2*time.Second, 5*time.Second))
			return w.wellAgain(ctx, all)
		}},
		{Name: "wipe-slow", Padding: 8 << 10, What: "of the two copies that are left, one is emptied and can't get much again before the other is killed", Strike: func(ctx context.Context, w *World) error {
			all := w.some(len(w.Brokers))
			third, wiped, other := all[2], all[0], all[1]
			w.Events.Add("kill -9", third.Name)
			third.Kill()
			if err := w.anotherHasAll(ctx, third.Name); err != nil {
				return err
			}
			if err := w.emptied(all[:1]); err != nil {
				return err
			}
			slow := network.Rule{Rate: 150 << 10}
			w.Network.Set(other.Host, wiped.Host, slow)
			w.Network.Set(other.Host, third.Host, slow)
			for _, b := range []*lab.Broker{wiped, third} {
				w.Events.Add("start", b.Name)
				if err := b.Start(); err != nil {
					return err
				}
			}
			pause(ctx, w.span(6*time.Second, 9*time.Second)) // the emptied one may vote again by then
			w.Events.Add("kill -9", other.Name)
			other.Kill()
			w.Network.Heal()
			pause(ctx, w.span(2*time.Second, 5*time.Second))
			return w.wellAgain(ctx, all)
		}},
		{Name: "old-copy", What: "a broker's disk is put back from a copy made some seconds before", Strike: func(ctx context.Context, w *World) error {
			b := w.anyBroker()
			copied := filepath.Join(filepath.Dir(b.Log), "copy-"+b.Name)
			w.Events.Add("kill -9", b.Name)
			b.Kill()
			if err := os.RemoveAll(copied); err != nil {
				return err
			}
			if err := os.CopyFS(copied, os.DirFS(b.Disk.Path())); err != nil {
				return err
			}
			victims := w.Brokers[indexOf(w, b.Name):][:1]
			if err := w.up(ctx, victims); err != nil {
				return err
			}
			healthy, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
			defer cancel()
			if err := w.Healthy(healthy); err != nil {
				return err
			}
			pause(ctx, w.span(time.Second, 3*time.Second))
			w.Events.Add("kill -9", b.Name)
			b.Kill()
			w.Events.Add("old disk", b.Name)
			if err := os.RemoveAll(b.Disk.Path()); err != nil {
				return err
			}
			if err := os.CopyFS(b.Disk.Path(), os.DirFS(copied)); err != nil {
				return err
			}
			if err := w.up(ctx, victims); err != nil {
				return err
			}
			return w.Healthy(healthy)
		}},
		{Name: "membership", What: "a broker joins, takes its part, and another is drained and removed", Strike: func(ctx context.Context, w *World) error {
			return w.exchange(ctx, func(*lab.Broker) (wait func()) { return func() {} })
		}},
		{Name: "membership-kill", What: "the same, while a third broker is killed and the stream is resharded", Strike: func(ctx context.Context, w *World) error {
			var beside sync.WaitGroup
			var failed error
			err := w.exchange(ctx, func(old *lab.Broker) (wait func()) {
				third := w.Brokers[w.Rand.IntN(len(w.Brokers)-1)]
				for third == old {
					third = w.Brokers[w.Rand.IntN(len(w.Brokers)-1)]
				}
				away, later := w.span(0, time.Second), w.span(0, time.Second)
				beside.Go(func() {
					pause(ctx, later)
					failed = w.down(ctx, []*lab.Broker{third}, away)
				})
				beside.Go(func() {
					if err := w.Reshard(ctx); err != nil && ctx.Err() == nil {
						w.Events.Add("reshard failed", err.Error())
					}
				})
				return beside.Wait
			})
			return errors.Join(err, failed)
		}},
	}
}

// emptied kills brokers and empties their disks.
func (w *World) emptied(victims []*lab.Broker) error {
	for _, b := range victims {
		w.Events.Add("kill -9", b.Name)
		b.Kill()
		w.Events.Add("disk emptied", b.Name)
		if err := os.RemoveAll(b.Disk.Path()); err != nil {
			return err
		}
	}
	return nil
}

// wellAgain starts what does not run, and waits until all is well.
func (w *World) wellAgain(ctx context.Context, all []*lab.Broker) error {
	for _, b := range all {
		if b.Running() {
			continue
		}
		w.Events.Add("start", b.Name)
		if err := b.Start(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	return w.Healthy(ctx)
}

func indexOf(w *World, name string) int {
	for i, b := range w.Brokers {
		if b.Name == name {
			return i
		}
	}
	return -1
}

// anotherHasAll waits until the cluster says that nothing is below its floor: a
// disk may be lost at any time, but not two.
func (w *World) anotherHasAll(ctx context.Context, but string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for {
		s, err := w.Status(ctx)
		if err == nil && s.Shards.Offline == 0 && s.Shards.BelowMinInSync == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("without %s not all shards have two copies: %+v %w", but, s.Shards, ctx.Err())
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// exchange adds a broker, and drains and removes another one. meanwhile is called
// with that one as the draining begins, and waited for when it has ended.
func (w *World) exchange(ctx context.Context, meanwhile func(old *lab.Broker) (wait func())) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	if err := w.Healthy(ctx); err != nil {
		return err
	}
	w.Events.Add("join", "another broker")
	if _, err := w.AddBroker(ctx); err != nil {
		return err
	}
	old := w.Brokers[w.Rand.IntN(len(w.Brokers)-1)]
	w.Events.Add("drain", old.Name)
	wait := meanwhile(old)
	out, err := w.Cluster(ctx, "drain", old.Name, "--wait")
	wait()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	w.Events.Add("remove", old.Name)
	if err := old.Stop(ctx); err != nil {
		return err
	}
	if out, err := w.Cluster(ctx, "remove", old.Name); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	w.Forget(old)
	return w.Healthy(ctx)
}
