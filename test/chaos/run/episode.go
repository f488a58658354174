//go:build linux

// Package run plays episodes: a fresh cluster, a load, a nemesis that strikes
// again and again, then healing, and the judgement of everything that the
// clients were told and shown.
package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"shardstream/test/chaos/judge"
	"shardstream/test/chaos/lab"
	"shardstream/test/chaos/load"
)

// Config says how episodes are played.
type Config struct {
	Dir     string // for logs and data, one directory an episode; removed if all went well
	Program string // the binary under test
	Clocks  string // the same, with a clock that can be set; "" if there is none
	Before  string // the binary before it, to upgrade from; "" if there is none
	PowerFS string // the program of the breakable disks; "" for plain directories
	Brokers int
	Shards  int32
	Writers int
	Length  time.Duration // how long a nemesis goes on striking
	Healing time.Duration // how long the cluster may take to be well again; default 90 s
	Probe   time.Duration // as load.Config has it
	Args    []string      // more flags for the brokers
	Tell    func(string)  // progress, one line each
}

// Result is an episode's outcome.
type Result struct {
	Nemesis, What string
	Seed          uint64
	Took          time.Duration
	Strikes       int
	Put           int // records
	Acknowledged  int
	Unknown       int
	Read          int // records, by all readers
	StreamCalls   int // creating, deleting and describing
	Counts        map[string]int
	Violations    []judge.Violation
	Complaints    []string // answers that no client should get
	Problems      []string // the cluster did not heal, a process died by itself, ...
	LongestGap    time.Duration
	Failovers     []time.Duration // after each kill or pause: until each shard took writes again
	Events        []Event
	Timeline      []Second
	Dir           string // kept logs and data, "" if all went well
}

// Second is what happened in one second of an episode.
type Second struct {
	Acknowledged, Unknown int           // records
	Median, Longest       time.Duration // of requests that ended in it
}

// Playable tells whether the configuration has what a nemesis needs.
func (c Config) Playable(n Nemesis) bool {
	switch n.Needs {
	case Disks:
		return c.PowerFS != ""
	case Clocks:
		return c.Clocks != ""
	case Previous:
		return c.Before != ""
	}
	return true
}

// OK tells that nothing was broken.
func (r *Result) OK() bool {
	return len(r.Violations) == 0 && len(r.Complaints) == 0 && len(r.Problems) == 0
}

const stream = "chaos"

// Episode plays one nemesis. Its error says that it could not be played at all.
func Episode(ctx context.Context, cfg Config, n Nemesis, seed uint64) (*Result, error) {
	started := time.Now()
	r := &Result{Nemesis: n.Name, What: n.What, Seed: seed}
	dir := filepath.Join(cfg.Dir, fmt.Sprintf("%s-%d", n.Name, seed))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	events := &Events{started: started, tell: cfg.Tell}
	starting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c := lab.Config{
		Dir: dir, Program: cfg.Program, Brokers: cfg.Brokers, Gateways: 2, Seed: seed, Args: slices.Concat(cfg.Args, n.Args),
	}
	switch n.Needs {
	case Disks:
		c.Disks = powerDisks(cfg.PowerFS)
	case Clocks:
		c.Program = cfg.Clocks
		c.Env = func(node string) []string { return []string{clockVariable + "=" + clockFile(dir, node)} }
	case Previous:
		c.Program = cfg.Before
	}
	l, err := lab.New(starting, c)
	if err != nil {
		return nil, fmt.Errorf("starting the cluster (see %s): %w", dir, err)
	}
	defer l.Close()
	w := &World{Lab: l, Rand: rand.New(rand.NewPCG(seed, 1)), Events: events, cfg: cfg, dir: dir}
	lc := load.Config{Stream: stream, Shards: cfg.Shards, HTTP: l.HTTP(30 * time.Second), Writers: cfg.Writers, Seed: seed, Padding: n.Padding, Probe: cfg.Probe}
	for i := range l.Gateways {
		lc.Endpoints = append(lc.Endpoints, l.Endpoint(i))
	}
	clients, err := load.New(starting, lc)
	if err != nil {
		return nil, err
	}
	reshards := rand.New(rand.NewPCG(seed, 2))
	w.Reshard = func(ctx context.Context) error { return clients.Reshard(ctx, reshards, 2, 3*int(cfg.Shards)) }
	clients.Start(ctx)
	w.strike(ctx, cfg, n, r)
	w.settle(ctx, clients, n, r)
	r.Events, r.Took = events.All(), time.Since(started)
	for i := range r.Events { // to the clock of the history
		r.Events[i].At -= clients.Started().Sub(started)
	}
	h := clients.History()
	r.Put, r.Acknowledged, r.Unknown = clients.Counts()
	r.Complaints = clients.Complaints()
	r.Violations, r.Counts = h.Check()
	ops := clients.StreamOps()
	r.StreamCalls = len(ops)
	if text := judge.CheckStreams(ops, time.Minute); text != "" {
		r.Counts[judge.Unlinear]++
		r.Violations = append(r.Violations, judge.Violation{Check: judge.Unlinear, Text: text})
	}
	r.measure(h)
	for _, reading := range h.Readings {
		r.Read += len(reading.Records)
	}
	if r.OK() {
		l.Close()
		return r, os.RemoveAll(dir)
	}
	r.Dir = dir
	return r, nil
}

// strike lets the nemesis strike until its time is over.
func (w *World) strike(ctx context.Context, cfg Config, n Nemesis, r *Result) {
	over, cancel := context.WithTimeout(ctx, cfg.Length)
	defer cancel()
	pause(over, time.Second) // a look at how it is without
	for over.Err() == nil {
		if err := n.Strike(over, w); err != nil {
			r.Problems = append(r.Problems, fmt.Sprintf("%s could not be taken back: %v", n.Name, err))
			return
		}
		r.Strikes++
		pause(over, w.span(200*time.Millisecond, 2*time.Second))
	}
}

// settle heals everything, waits until the cluster says that it is well, and has
// every shard read to its end.
func (w *World) settle(ctx context.Context, clients *load.Load, n Nemesis, r *Result) {
	problem := func(format string, args ...any) {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
	w.Events.Add("heal", "everything")
	w.Network.Heal()
	for _, b := range w.Brokers {
		b.Resume()
		if err := os.RemoveAll(clockFile(w.dir, b.Name)); err != nil {
			problem("%v", err)
		}
		if err := heal(b.Disk); err != nil {
			problem("%s's disk does not heal: %v", b.Name, err)
		}
	}
	healing, cancel := context.WithTimeout(ctx, cmp.Or(w.cfg.Healing, 90*time.Second))
	defer cancel()
	patience := 2 * time.Minute
	if err := w.well(healing); err != nil {
		patience = 20 * time.Second // what can be read then can be read at once
		problem("not well long after everything was healed: %v", err)
	}
	w.Events.Add("well", "cluster")
	writable, cancelWrites := context.WithTimeout(ctx, min(patience, 30*time.Second))
	defer cancelWrites()
	if err := clients.Writable(writable); err != nil {
		problem("after that, %v", err)
	}
	clients.StopWriting()
	reading, cancelReads := context.WithTimeout(ctx, patience)
	defer cancelReads()
	if err := clients.Finish(reading); err != nil {
		problem("%v", err)
	}
	clients.Stop()
	for _, p := range w.Processes() {
		for _, crash := range p.Crashes() {
			if !w.mayEnd(p) {
				problem("%s: %s", crash, p.LastLines(3))
			}
		}
	}
	if n.Hopes != nil {
		if text := n.Hopes(ctx, w); text != "" {
			problem("%s", text)
		}
	}
	if err := w.orderly(ctx); err != nil {
		problem("%v", err)
	}
}

// well starts what does not run, and waits until the cluster finds nothing wrong.
// A broker whose disk failed may take a moment to end by that.
func (w *World) well(ctx context.Context) error {
	for {
		for _, b := range w.Brokers {
			if b.Running() {
				continue
			}
			w.Events.Add("start", b.Name)
			if err := b.Start(); err != nil {
				return err
			}
		}
		look, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := w.Healthy(look)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// orderly stops everything by SIGTERM.
func (w *World) orderly(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var errs []error
	for _, p := range w.Processes() {
		errs = append(errs, p.Stop(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}
