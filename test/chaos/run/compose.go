//go:build linux

package run

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

// together is a nemesis of others: something that happens to processes or
// disks, something that happens to the network, and reshards, all at once.
func together(first, second []Nemesis) Nemesis {
	return Nemesis{
		Name: "everything", Needs: Disks, What: "a fault of a process or disk, one of the network and reshards, at once",
		Strike: func(ctx context.Context, w *World) error {
			a, b := first[w.Rand.IntN(len(first))], second[w.Rand.IntN(len(second))]
			over, stop := context.WithCancel(ctx)
			defer stop()
			failed := make(chan error, 2)
			beside := *w
			// Its own source of chance, or the choices would depend on the scheduler.
			beside.Rand = rand.New(rand.NewPCG(w.Rand.Uint64(), 0))
			go func() { failed <- b.Strike(over, &beside) }()
			go func() {
				for over.Err() == nil {
					if err := w.Reshard(over); err != nil && over.Err() == nil {
						w.Events.Add("reshard failed", err.Error())
						pause(over, time.Second)
					}
				}
				failed <- nil
			}()
			err := a.Strike(ctx, w)
			stop()
			return errors.Join(err, <-failed, <-failed)
		},
	}
}

// without gives the nemeses but some, by name.
func without(all []Nemesis, names ...string) []Nemesis {
	return slices.DeleteFunc(slices.Clone(all), func(n Nemesis) bool { return slices.Contains(names, n.Name) })
}
