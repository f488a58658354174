//go:build linux

package run

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"shardstream/test/chaos/lab"
	"shardstream/test/chaos/network"
)

// Nemesis is something that goes wrong, again and again while an episode lasts.
type Nemesis struct {
	Name string
	What string // for reports, one line
	// Strike does it once, and takes it back before it returns: the fault lasts as
	// long as that takes. It must leave everything healed, also when the context
	// ends; what can't be healed is its error.
	Strike func(ctx context.Context, w *World) error
	// Needs says what the lab must have, "" for nothing.
	Needs Need
	// Padding makes records larger, as load.Config has it; Args are flags of the
	// brokers.
	Padding int
	Args    []string
	// Hopes says at the end what did not happen though it should have, "" if all
	// did.
	Hopes func(ctx context.Context, w *World) string
}

// Need is a part of the lab that a nemesis takes.
type Need string

// The needs.
const (
	Disks    Need = "disks"    // powerfs
	Clocks   Need = "clocks"   // a build whose clocks can be set
	Previous Need = "previous" // the build before, to begin with
)

// World is what a nemesis has before it.
type World struct {
	*lab.Lab
	Rand   *rand.Rand
	Events *Events
	// Reshard changes the stream's shards once.
	Reshard func(ctx context.Context) error

	cfg   Config
	dir   string         // of the episode
	ended []*lab.Process // may end by themselves, since their disks were broken

	rotten *lab.Broker // whose segments rot
	flips  int         // bits of them
}

// span draws a time between two.
func (w *World) span(from, to time.Duration) time.Duration {
	return from + time.Duration(w.Rand.Int64N(int64(to-from)+1))
}

// pause waits; it ends early with the context.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (w *World) anyBroker() *lab.Broker { return w.Brokers[w.Rand.IntN(len(w.Brokers))] }

// some gives n brokers, in random order.
func (w *World) some(n int) []*lab.Broker {
	var list []*lab.Broker
	for _, i := range w.Rand.Perm(len(w.Brokers))[:n] {
		list = append(list, w.Brokers[i])
	}
	return list
}

func (w *World) minority() int { return (len(w.Brokers) - 1) / 2 }

// raftLeader gives the broker that leads raft, or any while nobody is known to.
func (w *World) raftLeader(ctx context.Context) *lab.Broker {
	if b := w.RaftLeader(ctx); b != nil {
		return b
	}
	return w.anyBroker()
}

// down kills brokers at once, leaves them down for a while and starts them again.
func (w *World) down(ctx context.Context, victims []*lab.Broker, away time.Duration) error {
	led := w.led(ctx)
	for _, b := range victims {
		w.Events.Add("kill -9", b.Name, led[b.Name]...)
	}
	done := make(chan struct{}, len(victims))
	for _, b := range victims {
		go func() { b.Kill(); done <- struct{}{} }()
	}
	for range victims {
		<-done
	}
	pause(ctx, away)
	return w.up(ctx, victims)
}

// led gives the shards that each node leads, as far as the cluster says.
func (w *World) led(ctx context.Context) map[string][]string {
	leaders, err := w.Leaders(ctx, stream)
	if err != nil {
		return nil
	}
	by := make(map[string][]string)
	for shard, node := range leaders {
		by[node] = append(by[node], shard)
	}
	return by
}

// up starts brokers and waits until they serve.
func (w *World) up(ctx context.Context, victims []*lab.Broker) error {
	for _, b := range victims {
		w.Events.Add("start", b.Name)
		if err := b.Start(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for _, b := range victims {
		if err := b.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Nemeses are all that there are, in the order of reports.
func Nemeses() []Nemesis {
	all := slices.Concat(processNemeses(), networkNemeses(), diskNemeses(), clockNemeses(), lifeNemeses())
	return append(all, together(without(slices.Concat(processNemeses(), diskNemeses()), "none"), networkNemeses()))
}

func processNemeses() []Nemesis {
	return []Nemesis{
		{Name: "none", What: "nothing goes wrong", Strike: func(ctx context.Context, _ *World) error {
			pause(ctx, time.Second)
			return nil
		}},
		{Name: "kill", What: "kill -9 of one broker, which is back within seconds", Strike: func(ctx context.Context, w *World) error {
			return w.down(ctx, w.some(1), w.span(0, 2*time.Second))
		}},
		{Name: "kill-raft-leader", What: "kill -9 of the broker that leads the metadata", Strike: func(ctx context.Context, w *World) error {
			return w.down(ctx, []*lab.Broker{w.raftLeader(ctx)}, w.span(0, 2*time.Second))
		}},
		{Name: "kill-majority", What: "kill -9 of all but a minority at once", Strike: func(ctx context.Context, w *World) error {
			return w.down(ctx, w.some(len(w.Brokers)-w.minority()), w.span(0, 2*time.Second))
		}},
		{Name: "kill-all", What: "kill -9 of all brokers at once", Strike: func(ctx context.Context, w *World) error {
			return w.down(ctx, w.some(len(w.Brokers)), w.span(0, time.Second))
		}},
		{Name: "kill-twice", Padding: 4 << 10, What: "on a slow network a broker is killed, and another before its successors have caught up with each other", Strike: func(ctx context.Context, w *World) error {
			for _, a := range w.Brokers {
				for _, b := range w.Brokers {
					if a != b {
						w.Network.Set(a.Host, b.Host, network.Rule{Rate: 300 << 10})
					}
				}
			}
			pause(ctx, w.span(time.Second, 2*time.Second))
			two := w.some(2)
			for i, b := range two {
				if i > 0 {
					pause(ctx, w.span(20*time.Millisecond, 400*time.Millisecond))
				}
				w.Events.Add("kill -9", b.Name)
				b.Kill()
			}
			pause(ctx, w.span(0, time.Second))
			w.Network.Heal()
			return w.up(ctx, two)
		}},
		{Name: "kill-gateway", What: "kill -9 of a gateway", Strike: func(ctx context.Context, w *World) error {
			g := w.Gateways[w.Rand.IntN(len(w.Gateways))]
			w.Events.Add("kill -9", g.Name)
			g.Kill()
			pause(ctx, w.span(0, time.Second))
			w.Events.Add("start", g.Name)
			if err := g.Start(); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			return g.Ready(ctx)
		}},
		{Name: "pause", What: "SIGSTOP of one broker for 0.3 to 5 s", Strike: func(ctx context.Context, w *World) error {
			return w.freeze(ctx, w.some(1), w.span(300*time.Millisecond, 5*time.Second))
		}},
		{Name: "pause-raft-leader", What: "SIGSTOP of the broker that leads the metadata", Strike: func(ctx context.Context, w *World) error {
			return w.freeze(ctx, []*lab.Broker{w.raftLeader(ctx)}, w.span(time.Second, 5*time.Second))
		}},
		{Name: "pause-all", What: "SIGSTOP of all brokers, which wake up one after the other", Strike: func(ctx context.Context, w *World) error {
			return w.freeze(ctx, w.some(len(w.Brokers)), w.span(300*time.Millisecond, 3*time.Second))
		}},
		{Name: "pause-then-kill", What: "a broker is frozen while another is killed; it wakes up as the other is down", Strike: func(ctx context.Context, w *World) error {
			two := w.some(2)
			w.Events.Add("SIGSTOP", two[0].Name)
			two[0].Pause()
			pause(ctx, w.span(500*time.Millisecond, 2*time.Second))
			w.Events.Add("kill -9", two[1].Name)
			two[1].Kill()
			w.Events.Add("SIGCONT", two[0].Name)
			two[0].Resume()
			pause(ctx, w.span(0, time.Second))
			return w.up(ctx, two[1:])
		}},
	}
}

// freeze stops processes and lets them go on, one after the other.
func (w *World) freeze(ctx context.Context, victims []*lab.Broker, length time.Duration) error {
	led := w.led(ctx)
	for _, b := range victims {
		w.Events.Add("SIGSTOP", b.Name, led[b.Name]...)
		b.Pause()
	}
	pause(ctx, length)
	for _, b := range victims {
		w.Events.Add("SIGCONT", b.Name)
		b.Resume()
		if len(victims) > 1 {
			pause(ctx, w.span(0, time.Second))
		}
	}
	return nil
}

func networkNemeses() []Nemesis {
	cut := network.Rule{Cut: true}
	return []Nemesis{
		{Name: "isolate", What: "one broker is cut off from all others", Strike: func(ctx context.Context, w *World) error {
			b := w.anyBroker()
			return w.broken(ctx, "cut off", b.Name, func() {
				for _, h := range w.all() {
					w.Network.Both(b.Host, h, cut)
				}
			})
		}},
		{Name: "halves", What: "a minority of the brokers and one gateway on one side, the rest on the other", Strike: func(ctx context.Context, w *World) error {
			few := w.some(max(1, w.minority()))
			one := []*network.Host{w.Gateways[0].Host}
			for _, b := range few {
				one = append(one, b.Host)
			}
			return w.broken(ctx, "halves", few[0].Name, func() {
				for _, a := range one {
					for _, b := range w.all() {
						if !slices.Contains(one, b) && b != w.Clients {
							w.Network.Both(a, b, cut)
						}
					}
				}
			})
		}},
		{Name: "deaf", What: "one broker hears nothing, and is heard", Strike: func(ctx context.Context, w *World) error {
			b := w.anyBroker()
			return w.broken(ctx, "deaf", b.Name, func() {
				for _, h := range w.all() {
					w.Network.Set(h, b.Host, cut)
				}
			})
		}},
		{Name: "mute", What: "one broker is not heard, and hears", Strike: func(ctx context.Context, w *World) error {
			b := w.anyBroker()
			return w.broken(ctx, "mute", b.Name, func() {
				for _, h := range w.all() {
					w.Network.Set(b.Host, h, cut)
				}
			})
		}},
		{Name: "bridge", What: "two brokers don't reach each other; all else does", Strike: func(ctx context.Context, w *World) error {
			two := w.some(2)
			return w.broken(ctx, "no way between", two[0].Name+" "+two[1].Name, func() { w.Network.Both(two[0].Host, two[1].Host, cut) })
		}},
		{Name: "gateway-cut", What: "a gateway doesn't reach one of the brokers", Strike: func(ctx context.Context, w *World) error {
			b, g := w.anyBroker(), w.Gateways[w.Rand.IntN(len(w.Gateways))]
			return w.broken(ctx, "no way between", b.Name+" "+g.Name, func() { w.Network.Both(b.Host, g.Host, cut) })
		}},
		{Name: "flapping", What: "one broker is cut off and back every 0.1 to 1 s", Strike: func(ctx context.Context, w *World) error {
			b := w.anyBroker()
			w.Events.Add("flapping", b.Name)
			for range 5 {
				for _, h := range w.all() {
					w.Network.Both(b.Host, h, cut)
				}
				pause(ctx, w.span(100*time.Millisecond, time.Second))
				w.Network.Heal()
				pause(ctx, w.span(100*time.Millisecond, time.Second))
			}
			w.Events.Add("heal", "network")
			return nil
		}},
		{Name: "bad-network", What: "all frames delayed by up to 30 ms, 2 % lost, some overtaking others", Strike: func(ctx context.Context, w *World) error {
			r := network.Rule{Delay: time.Millisecond, Jitter: w.span(time.Millisecond, 30*time.Millisecond), Loss: 0.02, Reorder: 0.1}
			return w.broken(ctx, "bad network", "all", func() {
				for _, a := range w.all() {
					for _, b := range w.all() {
						if a != b {
							w.Network.Set(a, b, r)
						}
					}
				}
			})
		}},
		{Name: "slow-node", What: "one broker is 50 to 300 ms away", Strike: func(ctx context.Context, w *World) error {
			b := w.anyBroker()
			r := network.Rule{Delay: w.span(25*time.Millisecond, 150*time.Millisecond)}
			return w.broken(ctx, "far away", b.Name, func() {
				for _, h := range w.all() {
					w.Network.Both(b.Host, h, r)
				}
			})
		}},
	}
}

// all gives all hosts but nothing twice.
func (w *World) all() []*network.Host {
	list := []*network.Host{w.Clients}
	for _, b := range w.Brokers {
		list = append(list, b.Host)
	}
	for _, g := range w.Gateways {
		list = append(list, g.Host)
	}
	return list
}

// broken breaks the network for some seconds.
func (w *World) broken(ctx context.Context, what, whom string, do func()) error {
	w.Events.Add(what, whom)
	do()
	pause(ctx, w.span(500*time.Millisecond, 6*time.Second))
	w.Network.Heal()
	w.Events.Add("heal", "network")
	return nil
}
