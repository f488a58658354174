package broker

import (
	"fmt"

	"shardstream/broker/member"
)

// endAmongStrangers ends the node if the ones that it is told to join are of
// another cluster than its data directory, and it found none of its own: the
// directory or the list of nodes is the wrong one.
func (b *Broker) endAmongStrangers(group *member.Group) {
	select {
	case <-group.Sought():
	case <-b.stopped:
		return
	}
	if err := group.Foreign(); err != nil {
		err = fmt.Errorf("%s is the directory of another cluster than the nodes of --join are of: %w", b.cfg.DataDir, err)
		b.fail(err)
		b.abort(err)
	}
}
