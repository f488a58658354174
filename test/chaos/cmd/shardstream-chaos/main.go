//go:build linux

// Command shardstream-chaos breaks clusters of real processes in every way that
// it knows, and judges what their clients saw.
//
//	go run ./test/chaos/cmd/shardstream-chaos --hours 0.5 --report chaos.html
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"shardstream/test/chaos/report"
	"shardstream/test/chaos/run"
	"shardstream/test/mutants"
)

func main() { os.Exit(command(os.Args[1:])) }

type options struct {
	hours, length    float64
	seed             uint64
	nemeses, program string
	report, dir      string
	brokers, writers int
	shards           int
	once, verbose    bool
	saboteurs        string
	before           string
	probe            time.Duration
	root             string // of the repository
}

func command(args []string) int {
	var o options
	f := flag.NewFlagSet("shardstream-chaos", flag.ContinueOnError)
	f.Float64Var(&o.hours, "hours", 0.5, "how long to go on")
	f.Float64Var(&o.length, "length", 40, "seconds that a nemesis strikes in one episode")
	f.Uint64Var(&o.seed, "seed", 0, "of all that is drawn; 0 draws one, which is printed")
	f.StringVar(&o.nemeses, "nemesis", "", "only these, separated by commas; \"list\" lists them")
	f.StringVar(&o.program, "program", "", "the binary under test; built from this repository if empty")
	f.StringVar(&o.report, "report", "chaos.html", "where the page with all timelines goes")
	f.StringVar(&o.dir, "dir", "", "where logs and data of failed episodes are kept; a temporary directory if empty")
	f.IntVar(&o.brokers, "brokers", 3, "brokers of a cluster")
	f.IntVar(&o.shards, "shards", 4, "shards of the stream at its beginning")
	f.IntVar(&o.writers, "writers", 4, "writers")
	f.BoolVar(&o.once, "once", false, "each nemesis once, however long that takes")
	f.StringVar(&o.saboteurs, "saboteurs", "", "build versions without one protection each, and see them caught: \"all\", or some, separated by commas")
	f.DurationVar(&o.probe, "probe", 0, "one more writer for each shard, which puts this often: makes the times until a shard takes writes again exact")
	f.StringVar(&o.before, "before", "", "the binary of the release before, to upgrade from")
	f.BoolVar(&o.verbose, "v", false, "print each event")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed, err := o.run(ctx)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "shardstream-chaos:", err)
		return 2
	case failed:
		return 1
	}
	return 0
}

func (o options) run(ctx context.Context) (failed bool, err error) {
	chosen, err := o.choose()
	if err != nil || chosen == nil {
		return false, err
	}
	if os.Getuid() != 0 {
		return false, errors.New("it makes network namespaces and mounts, which takes root")
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000)
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "shardstream-chaos-"); err != nil {
			return false, err
		}
	}
	cfg := run.Config{
		Dir: o.dir, Brokers: o.brokers, Shards: int32(o.shards), Writers: o.writers, Length: time.Duration(o.length * float64(time.Second)),
	}
	if cfg.Program = o.program; cfg.Program == "" && o.saboteurs == "" {
		if cfg.Program, err = build(ctx, o.dir, "shardstream/cmd/shardstream"); err != nil {
			return false, err
		}
	}
	if cfg.PowerFS, err = build(ctx, o.dir, "shardstream/test/chaos/powerfs/cmd/powerfs"); err != nil {
		return false, err
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return false, fmt.Errorf("it builds from the repository, and must be started in it: %w", err)
	}
	o.root = strings.TrimSpace(string(root))
	if cfg.Clocks, err = o.buildMutant(ctx, run.SetClocks); err != nil {
		return false, err
	}
	cfg.Before, cfg.Probe = o.before, o.probe
	if o.verbose {
		cfg.Tell = func(s string) { fmt.Println("  ", s) }
	}
	if o.saboteurs != "" {
		return o.sabotage(ctx, cfg)
	}
	for _, n := range chosen {
		if !cfg.Playable(n) {
			fmt.Printf("%s is left out: it takes %s\n", n.Name, n.Needs)
		}
	}
	chosen = slices.DeleteFunc(chosen, func(n run.Nemesis) bool { return !cfg.Playable(n) })
	fmt.Printf("seed %d, %d nemeses\n", o.seed, len(chosen))
	end := time.Now().Add(time.Duration(o.hours * float64(time.Hour)))
	var results []*run.Result
	for i := 0; ctx.Err() == nil && (o.once && i < len(chosen) || !o.once && time.Now().Before(end)); i++ {
		n, seed := chosen[i%len(chosen)], o.seed+uint64(i)
		r, err := run.Episode(ctx, cfg, n, seed)
		if err != nil {
			return true, fmt.Errorf("%s, seed %d: %w", n.Name, seed, err)
		}
		results = append(results, r)
		failed = failed || !r.OK()
		say(r)
		if err := o.write(results); err != nil {
			return failed, err
		}
	}
	fmt.Println()
	if err := report.Table(os.Stdout, results); err != nil {
		return failed, err
	}
	fmt.Println("\ntimelines:", o.report)
	if !failed {
		return false, os.RemoveAll(o.dir)
	}
	fmt.Println("logs and data of what failed:", o.dir)
	return true, nil
}

func (o options) choose() ([]run.Nemesis, error) {
	all := run.Nemeses()
	if o.nemeses == "" {
		return all, nil
	}
	if o.nemeses == "list" {
		for _, n := range all {
			fmt.Printf("%-18s %s\n", n.Name, n.What)
		}
		return nil, nil
	}
	var chosen []run.Nemesis
	for name := range strings.SplitSeq(o.nemeses, ",") {
		n, ok := nemesis(name)
		if !ok {
			return nil, fmt.Errorf("no nemesis is called %q; --nemesis list lists them", name)
		}
		chosen = append(chosen, n)
	}
	return chosen, nil
}

func say(r *run.Result) {
	verdict := "ok"
	if !r.OK() {
		verdict = "FAILED"
	}
	fmt.Printf("%-18s seed %-8d %3d faults %7d put %6d unknown, longest without writes %8s: %s\n", r.Nemesis, r.Seed, r.Strikes, r.Put, r.Unknown,
		r.LongestGap.Round(time.Millisecond), verdict)
	for _, p := range r.Problems {
		fmt.Println("    problem:", p)
	}
	for _, c := range r.Complaints {
		fmt.Println("    complaint:", c)
	}
	for i, v := range r.Violations {
		if i < 10 {
			fmt.Printf("    %s: %s\n", v.Check, v.Text)
		}
	}
	if !r.OK() {
		fmt.Println("    counts:", r.Counts, "kept:", r.Dir)
	}
}

func (o options) write(results []*run.Result) error {
	f, err := os.Create(o.report)
	if err != nil {
		return err
	}
	return errors.Join(report.HTML(f, fmt.Sprintf("Shardstream under faults, seed %d", o.seed), results), f.Close())
}

// buildMutant builds the broker with a mutant's edits.
func (o options) buildMutant(ctx context.Context, m mutants.Mutant) (string, error) {
	dir := filepath.Join(o.dir, m.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	overlay, err := m.Overlay(o.root, dir)
	if err != nil {
		return "", err
	}
	return build(ctx, dir, "shardstream/cmd/shardstream", "-overlay", overlay)
}

func build(ctx context.Context, dir, pkg string, flags ...string) (string, error) {
	to := filepath.Join(dir, filepath.Base(pkg))
	out, err := exec.CommandContext(ctx, "go", append(append([]string{"build"}, flags...), "-o", to, pkg)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return to, nil
}
