package broker

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	pb "shardstream/proto/shardstream/v1"
)

// Bounds on the time until each shard takes writes again.
// The bubble's time stands still while anything computes, so they hold on any
// machine, or never.
const (
	afterKill    = time.Second
	afterSilence = 2 * time.Second
	// More, if the victim led raft.
	raftKill    = 700 * time.Millisecond
	raftSilence = 2500 * time.Millisecond
	// A node that hears nothing but is heard shows that only when raft, which
	// it follows, has been silent for it: one or two times raft's patience.
	afterDeafness = 3 * time.Second
	// Until a node that was started again takes part in everything.
	afterRestart = 3 * time.Second
)

// inLoadedCluster runs f with a whole cluster under load, and then checks what
// must hold after any fault: the cluster becomes whole by itself, nothing
// acknowledged is lost, doubled or out of order, and all copies are alike.
func inLoadedCluster(t *testing.T, nodes int, f func(c *bubbleCluster, l *bubbleLoad), options ...func(*bubbleCluster)) {
	t.Helper()
	inBubbleCluster(t, nodes, func(c *bubbleCluster) {
		l := c.load(6)
		c.awaitWhole()
		time.Sleep(300 * time.Millisecond)
		f(c, l)
		l.calm.Store(true)
		healed := c.awaitWhole()
		// Whoever could still change its mind does.
		time.Sleep(2 * time.Second)
		c.awaitWhole()
		for _, v := range l.finish(time.Minute) {
			t.Error(v)
		}
		c.await("all copies are alike", func() bool { return len(l.copiesDiffer()) == 0 })
		t.Logf("whole after %v, %d records acknowledged", healed, l.acknowledged())
	}, options...)
}

// takesWrites holds the time until each shard takes writes after a fault
// against its bound.
func (l *bubbleLoad) takesWrites(fault time.Time, bound time.Duration) {
	l.c.t.Helper()
	took := slices.Max(slices.Collect(maps.Values(l.recovered(fault))))
	if took > bound {
		l.c.t.Errorf("a shard took writes again only after %v, want %v", took, bound)
	}
	l.calm.Store(true)
	l.c.t.Logf("all shards took writes again after %v", took)
}

// longUnless leaves a case to the long form of the tests.
func longUnless(t *testing.T, quick bool) {
	if !quick && os.Getenv("SHARDSTREAM_LONG") == "" {
		t.Skip("set SHARDSTREAM_LONG=1 to run this, too")
	}
}

// victims are the two kinds of nodes that can fail.
var victims = []struct {
	name   string
	leads  bool // raft
	choose func(*bubbleCluster) *bubbleNode
}{
	{"of a raft follower", false, (*bubbleCluster).follower},
	{"of the raft leader", true, (*bubbleCluster).raftLeader},
}

func TestBubbleKill(t *testing.T) {
	for _, v := range victims {
		for _, nodes := range []int{3, 4} {
			t.Run(fmt.Sprint(v.name, ", ", nodes, " nodes"), func(t *testing.T) {
				longUnless(t, v.leads == (nodes == 3))
				inLoadedCluster(t, nodes, func(c *bubbleCluster, l *bubbleLoad) {
					n, bound := v.choose(c), afterKill
					if v.leads {
						bound += raftKill
					}
					fault := time.Now()
					n.kill()
					l.takesWrites(fault, bound)
					n.restart()
					n.awaitUp()
					if took := c.awaitWhole(); took > afterRestart {
						t.Errorf("the cluster was whole %v after the restart, want %v", took, afterRestart)
					}
				})
			})
		}
	}
}

func TestBubblePowerCut(t *testing.T) {
	for _, v := range victims {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprint(v.name, ", keep ", keep), func(t *testing.T) {
				longUnless(t, v.leads != keep)
				inLoadedCluster(t, 3, func(c *bubbleCluster, l *bubbleLoad) {
					n, bound := v.choose(c), afterSilence
					if v.leads {
						bound += raftSilence
					}
					fault := time.Now()
					n.cutPower(1, keep)
					l.takesWrites(fault, bound)
					n.restart()
					n.awaitUp()
					if took := c.awaitWhole(); took > afterRestart {
						t.Errorf("the cluster was whole %v after the restart, want %v", took, afterRestart)
					}
				})
			})
		}
	}
}

// cutPowerOfAll cuts the power of all nodes at the same moment and starts them
// again.
func cutPowerOfAll(c *bubbleCluster, seed uint64, keep bool) {
	for _, n := range c.nodes {
		n.cluster.net.powerOff(n.machine)
	}
	for i, n := range c.nodes {
		n.cutPower(seed+uint64(i), keep)
	}
	for _, n := range c.nodes {
		n.restart()
	}
}

func TestBubblePowerCutOfAll_I1(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			inLoadedCluster(t, 3, func(c *bubbleCluster, l *bubbleLoad) {
				for seed := range uint64(3) {
					cutPowerOfAll(c, 10*seed, keep)
					for _, n := range c.nodes {
						n.awaitUp()
					}
					l.recovered(time.Now())
				}
			})
		})
	}
}

// Without fsync the same test must fail.
func TestBubbleMutantNoSync(t *testing.T) {
	inBubbleCluster(t, 3, func(c *bubbleCluster) {
		for _, n := range c.nodes {
			n.disk.IgnoreSync(true)
		}
		l := c.load(6)
		c.awaitWhole()
		time.Sleep(time.Second)
		cutPowerOfAll(c, 1, false)
		for _, n := range c.nodes {
			n.mayFail()
		}
		violations := l.finish(30 * time.Second)
		if len(violations) == 0 {
			t.Fatal("disks that keep nothing, and nobody noticed")
		}
		t.Logf("%d violations, the first: %s", len(violations), violations[0])
	})
}

func TestBubblePartition(t *testing.T) {
	ways := []struct {
		name     string
		to, from bool
	}{{"both ways", true, true}, {"nothing comes in", true, false}, {"nothing goes out", false, true}}
	for _, v := range victims {
		for _, way := range ways {
			t.Run(fmt.Sprint(v.name, ", ", way.name), func(t *testing.T) {
				longUnless(t, way.to && v.leads == way.from)
				inLoadedCluster(t, 3, func(c *bubbleCluster, l *bubbleLoad) {
					n, bound := v.choose(c), afterSilence
					switch {
					case v.leads:
						bound += raftSilence
					case !way.from:
						bound = afterDeafness
					}
					fault := time.Now()
					n.partition(way.to, way.from, true)
					ctx, cancel := context.WithCancel(context.Background())
					stale := make(chan []string)
					// Beats are answered, and pings, up to the fault.
					go func() { stale <- l.insist(ctx, n, fault.Add(readLease+beatEvery)) }()
					l.takesWrites(fault, bound)
					time.Sleep(3 * time.Second)
					cancel()
					for _, read := range <-stale {
						t.Errorf("after %v of partition: %s", readLease, read)
					}
					n.partition(way.to, way.from, false)
				})
			})
		}
	}
}

func TestBubblePause(t *testing.T) {
	for _, v := range victims {
		for _, silence := range []time.Duration{200 * time.Millisecond, 3 * time.Second, time.Minute} {
			t.Run(fmt.Sprint(v.name, ", ", silence), func(t *testing.T) {
				longUnless(t, !v.leads && silence == 3*time.Second)
				inLoadedCluster(t, 3, func(c *bubbleCluster, l *bubbleLoad) {
					n, bound := v.choose(c), afterSilence
					if v.leads {
						bound += raftSilence
					}
					fault := time.Now()
					resumed := time.AfterFunc(silence, func() { n.stall(false) })
					defer resumed.Stop()
					n.stall(true)
					l.takesWrites(fault, bound)
					time.Sleep(time.Until(fault.Add(silence)) + time.Millisecond)
				})
			})
		}
	}
}

// A disk that hangs costs the node its leaderships within the watchdog's time,
// and then its life (I15).
func TestBubbleDiskHangs_I15(t *testing.T) {
	for _, v := range victims {
		t.Run(v.name, func(t *testing.T) {
			longUnless(t, v.leads)
			inLoadedCluster(t, 3, func(c *bubbleCluster, l *bubbleLoad) {
				n := v.choose(c)
				hang := make(chan struct{})
				disk, fault := n.disk, time.Now()
				n.mayFail()
				disk.OnSync(func() { <-hang })
				given := c.await("its leaderships are given away", func() bool {
					return len(leads(c.state(), l.stream.Id, n.name)) == 0
				})
				if most := stallNoticed + 2*watchdogEvery + 500*time.Millisecond; given > most {
					t.Errorf("leaderships were given away after %v, want %v", given, most)
				}
				l.takesWrites(fault, stallNoticed+afterSilence)
				c.await("the node ends", func() bool { return n.died() != nil })
				if after := time.Since(fault); after < stallFatal || after > stallFatal+2*watchdogEvery+50*time.Millisecond {
					t.Errorf("the node ended after %v", after)
				}
				n.kill()
				disk.OnSync(nil)
				close(hang)
				n.restart()
				n.awaitUp()
			})
		})
	}
}

// A failed fsync ends the node, and only this one (I15).
func TestBubbleSyncFails_I15(t *testing.T) {
	for _, v := range victims {
		t.Run(v.name, func(t *testing.T) {
			longUnless(t, !v.leads)
			inLoadedCluster(t, 3, func(c *bubbleCluster, l *bubbleLoad) {
				n, bound := v.choose(c), afterKill
				if v.leads {
					bound += raftKill
				}
				fault := time.Now()
				n.mayFail()
				n.disk.FailSync(1)
				c.await("the node ends", func() bool { return n.died() != nil })
				l.takesWrites(fault, bound)
				for _, o := range c.nodes {
					if err := o.died(); o != n && err != nil {
						t.Errorf("%s ended, too: %v", o.name, err)
					}
				}
				n.cutPower(1, false) // what the failed call was to save is lost
				n.restart()
				n.awaitUp()
			})
		})
	}
}

// A node that leaves for longer than ReplaceAfter is replaced by the fourth.
func TestBubbleReplacement(t *testing.T) {
	longUnless(t, false)
	inLoadedCluster(t, 4, func(c *bubbleCluster, l *bubbleLoad) {
		n := c.follower()
		n.kill()
		c.await("no shard has a copy on the dead node", func() bool {
			for _, shard := range c.state().Shards(l.stream.Id) {
				if slices.ContainsFunc(shard.Replicas, func(r *pb.Replica) bool { return r.NodeId == n.name }) {
					return false
				}
			}
			return true
		})
		n.restart()
		n.awaitUp()
	}, func(c *bubbleCluster) { c.replaceAfter = 5 * time.Second })
}
