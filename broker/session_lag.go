package broker

import (
	"slices"
	"time"
)

// lagWindow is over how many beats a node's scheduling lag is measured: 5 s.
const lagWindow = 100

// lagMeter measures by how much a goroutine that should run regularly comes too
// late: what the process suffers from starved cores. It is not safe for
// concurrent use.
type lagMeter struct {
	late [lagWindow]time.Duration // a ring
	n    int                      // noted in all
}

// note takes one oversleep.
func (m *lagMeter) note(late time.Duration) {
	m.late[m.n%lagWindow] = max(0, late)
	m.n++
}

// p99 gives the oversleep that one of a hundred beats exceeds.
func (m *lagMeter) p99() time.Duration {
	n := min(m.n, lagWindow)
	if n == 0 {
		return 0
	}
	sorted := slices.Clone(m.late[:n])
	slices.Sort(sorted)
	return sorted[max(0, (n*99+99)/100-1)]
}
