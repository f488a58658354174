package member

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	// lookAround is how often a node that has company asks the seeds anew:
	// two halves that have forgotten each other meet again that way.
	lookAround    = 15 * time.Second
	lookupTimeout = 3 * time.Second
	// warnEvery bounds the log lines about seeds that don't answer.
	warnEvery = time.Minute
)

// seek joins whatever the seeds stand for, until ctx ends. It never gives up:
// the others may start later, and DNS may know them later.
func (g *Group) seek(ctx context.Context) {
	if len(g.cfg.Seeds) == 0 {
		close(g.sought)
		return
	}
	pause := firstPause
	started := time.Now()
	warned := make(map[string]time.Time)
	announce := sync.OnceFunc(func() { close(g.sought) })
	for {
		company, problems := g.seekOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if !company {
			for _, seed := range g.cfg.Seeds {
				if err := problems[seed]; errors.Is(err, errForeign) {
					g.foreign.CompareAndSwap(nil, &err)
				}
			}
		}
		announce()
		now := time.Now()
		for seed, err := range problems {
			// A seed that isn't up yet is no news in the first seconds, nor is
			// one that is down while others are there.
			clear := errors.Is(err, errNoGossip) || errors.Is(err, errRefused)
			if (clear || !company && now.Sub(started) > 3*time.Second) && now.Sub(warned[seed]) > warnEvery {
				warned[seed] = now
				g.logger.Warn("can't join by this seed yet; will try again", "seed", seed, "reason", err)
			}
		}
		wait := pause
		pause = min(2*pause, lastPause)
		if company {
			pause, wait = firstPause, lookAround
		}
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// seekOnce joins every address of every seed that is not a member yet. It tells
// whether this node has company, and what went wrong by seed.
func (g *Group) seekOnce(ctx context.Context) (company bool, problems map[string]error) {
	problems = make(map[string]error)
	self := g.list.LocalNode().Address()
	for _, seed := range g.cfg.Seeds {
		addresses, err := g.resolve(ctx, seed)
		if err != nil {
			problems[seed] = err
			continue
		}
		for _, address := range addresses {
			if ctx.Err() != nil {
				return company, problems
			}
			if address == self || g.knows(address) {
				continue
			}
			if _, err := g.list.Join([]string{address}); err != nil {
				problems[seed] = explain(address, err)
			}
		}
	}
	for _, m := range g.Members() {
		company = company || m.State == Alive && m.NodeID != g.cfg.Facts.NodeID
	}
	return company, problems
}

// Foreign gives what a seed has answered that belongs to another cluster than
// this node, if the node found nobody of its own then; nil if there was none.
func (g *Group) Foreign() error {
	if err := g.foreign.Load(); err != nil {
		return *err
	}
	return nil
}

// resolve gives all addresses, IP:PORT, that a seed stands for.
func (g *Group) resolve(ctx context.Context, seed string) ([]string, error) {
	host, port, err := net.SplitHostPort(seed)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return []string{seed}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := g.cfg.LookupHost(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("DNS does not know it: %w", err)
	}
	slices.Sort(ips)
	addresses := make([]string, 0, len(ips))
	for _, ip := range slices.Compact(ips) {
		addresses = append(addresses, net.JoinHostPort(ip, port))
	}
	return addresses, nil
}

func (g *Group) knows(address string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.seen {
		if m.Gossip == address && m.State == Alive {
			return true
		}
	}
	return false
}

var (
	errNoGossip = errors.New("it answers, but does not speak gossip: --join takes a node's gossip port (by default 7072), not that of gRPC, raft or HTTP")
	errRefused  = errors.New("refused")
	errForeign  = fmt.Errorf("%w: of another cluster", errRefused)
)

// explain turns memberlist's words into an operator's.
func explain(address string, err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "invalid msgType"), strings.Contains(text, "EOF"), strings.Contains(text, "connection reset"),
		strings.Contains(text, "msgpack"), strings.Contains(text, "decode"):
		return fmt.Errorf("%s: %w", address, errNoGossip)
	case strings.Contains(text, "belongs to cluster"):
		_, reason, _ := strings.Cut(text, "failed to join "+address+": ")
		return fmt.Errorf("%w: %s", errForeign, strings.TrimSpace(reason))
	case strings.Contains(text, "not encrypted"), strings.Contains(text, "encrypt"), strings.Contains(text, "decrypt"):
		return fmt.Errorf("%w: %s has another gossip key, or only one of the two has one", errRefused, address)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	return errors.New(strings.Join(strings.Fields(text), " "))
}
