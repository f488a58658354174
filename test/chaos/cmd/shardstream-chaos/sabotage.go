//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"shardstream/test/chaos/run"
	"shardstream/test/chaos/saboteur"
)

// patienceWithSaboteurs is how long a saboteur may go unnoticed.
const patienceWithSaboteurs = 15 * time.Minute

// sabotage plays the nemeses against each saboteur until it is caught. failed
// tells that one was not.
func (o options) sabotage(ctx context.Context, cfg run.Config) (failed bool, err error) {
	var table strings.Builder
	table.WriteString("| saboteur | what is left out | caught by | check | after | episodes |\n| --- | --- | --- | --- | ---: | ---: |\n")
	for _, s := range saboteur.All() {
		if o.saboteurs != "all" && !slices.Contains(strings.Split(o.saboteurs, ","), s.Name) {
			continue
		}
		if cfg.Program, err = o.buildMutant(ctx, s.Mutant); err != nil {
			return false, err
		}
		cfg.Dir, cfg.Healing = filepath.Join(o.dir, s.Name), 40*time.Second
		line, caught, err := o.catch(ctx, cfg, s)
		if err != nil {
			return false, err
		}
		failed = failed || !caught
		fmt.Println(line)
		table.WriteString(line + "\n")
	}
	fmt.Print("\n", table.String())
	return failed, nil
}

func (o options) catch(ctx context.Context, cfg run.Config, s saboteur.Saboteur) (line string, caught bool, err error) {
	started := time.Now()
	for i := 0; time.Since(started) < patienceWithSaboteurs && ctx.Err() == nil; i++ {
		n, ok := nemesis(s.Nemeses[i%len(s.Nemeses)])
		if !ok {
			return "", false, fmt.Errorf("%s: no nemesis is called %q", s.Name, s.Nemeses[i%len(s.Nemeses)])
		}
		r, err := run.Episode(ctx, cfg, n, o.seed+uint64(i))
		if err != nil {
			return "", false, err
		}
		say(r)
		if r.OK() {
			continue
		}
		var checks []string
		for _, check := range slices.Sorted(maps.Keys(r.Counts)) {
			checks = append(checks, fmt.Sprintf("%s (%d)", check, r.Counts[check]))
		}
		if len(r.Complaints) > 0 {
			checks = append(checks, "answers that no client should get")
		}
		if len(r.Problems) > 0 {
			checks = append(checks, "the cluster does not heal")
		}
		check := strings.Join(checks, ", ")
		return fmt.Sprintf("| %s | %s | %s, seed %d | %s | %s | %d |", s.Name, s.Rule, n.Name, r.Seed, check, time.Since(started).Round(time.Second), i+1), true, nil
	}
	return fmt.Sprintf("| %s | %s | NOT CAUGHT | | %s | |", s.Name, s.Rule, time.Since(started).Round(time.Second)), false, nil
}

func nemesis(name string) (run.Nemesis, bool) {
	for _, n := range run.Nemeses() {
		if n.Name == name {
			return n, true
		}
	}
	return run.Nemesis{}, false
}
