package broker

import (
	"context"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
)

// noteEvery is how often the metadata notes how far journals are durable.
const noteEvery = recallEvery

// frameKeeper gathers what brokers say of their journals, so that a disk which
// returns from an earlier time is known as such (I8).
type frameKeeper struct {
	said map[string]*pb.FrameNote // in the newest beat of each node
	next time.Time
}

func (k *frameKeeper) hear(node string, incarnation, frame uint64) {
	if frame == 0 {
		return
	}
	if k.said == nil {
		k.said = make(map[string]*pb.FrameNote)
	}
	k.said[node] = &pb.FrameNote{NodeId: node, Incarnation: incarnation, Frame: frame}
}

// due gives what to note now; nil if nothing is new, or it is too early.
func (k *frameKeeper) due(now time.Time, state *raftfsm.State) *pb.NoteFrames {
	if now.Before(k.next) {
		return nil
	}
	k.next = now.Add(noteEvery)
	c := &pb.NoteFrames{}
	for _, b := range state.Brokers() { // in their order, not that of a map
		if n := k.said[b.NodeId]; n != nil && n.Incarnation == b.Incarnation && n.Frame > b.NotedFrame {
			c.Notes = append(c.Notes, n)
		}
	}
	if len(c.Notes) == 0 {
		return nil
	}
	return c
}

// noteFrames has the metadata note what is due.
func (c *controller) noteFrames(ctx context.Context, now time.Time, state *raftfsm.State) {
	c.mu.Lock()
	notes := c.frames.due(now, state)
	c.mu.Unlock()
	if notes == nil {
		return
	}
	c.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
		// One that fails is made up for by the next.
		_, _ = c.control.proposeHere(ctx, &pb.Command{Op: &pb.Command_NoteFrames{NoteFrames: notes}})
	})
}
