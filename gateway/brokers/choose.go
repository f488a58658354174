package brokers

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"time"
)

const lookupTimeout = 2 * time.Second

// candidates gives the addresses to try in turn: the broker whose watch is alive
// unless another is wanted, then those the metadata names and the seeds, whoever
// was tried longest ago first. Gateways that start together so spread over the
// brokers.
func (p *Pool) candidates(ctx context.Context, another bool) []string {
	p.mu.Lock()
	members, fruitless := p.members, p.fruitless
	p.mu.Unlock()
	list := slices.Clone(members)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	// Seeds are looked up only when no member has answered: a resolver that
	// hangs must not delay the way to a broker that lives.
	if fruitless >= len(members) {
		seeds := p.resolve(ctx)
		rand.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })
		for _, s := range seeds {
			if !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	current := p.current
	slices.SortStableFunc(list, func(a, b string) int {
		if !another && (a == current) != (b == current) {
			if a == current {
				return -1
			}
			return 1
		}
		return int(int64(p.tried[a]) - int64(p.tried[b]))
	})
	return list
}

// resolve gives all addresses of the seeds. A name that cannot be resolved is
// given as it is: dialling it then says what is wrong.
func (p *Pool) resolve(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var list []string
	for _, s := range p.seeds {
		host, port, _ := net.SplitHostPort(s) // New has checked them
		hosts := []string{host}
		if net.ParseIP(host) == nil {
			found, err := p.lookup(ctx, host)
			if err != nil {
				p.log.Debug("a seed's name does not resolve", "seed", s, "error", err)
			} else if len(found) > 0 {
				hosts = found
			}
		}
		for _, h := range hosts {
			list = append(list, net.JoinHostPort(h, port))
		}
	}
	return list
}

// chosen notes that an address is being tried.
func (p *Pool) chosen(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choices++
	p.fruitless++
	p.tried[address] = p.choices
}

// alive notes that a watch of that broker speaks.
func (p *Pool) alive(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current, p.fruitless = address, 0
}

// lost notes that the watch of that broker has ended.
func (p *Pool) lost(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == address {
		p.current = ""
	}
}
