package raftfsm

import (
	"slices"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

func (d *draft) registerConsumer(c *pb.RegisterConsumer) *pb.CommandResult {
	s := d.Stream(c.GetStreamId())
	switch {
	case s == nil:
		return refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	case c.GetName() == "":
		return refuse(stream.Invalid, "a consumer needs a name")
	case s.GetStatus() != pb.StreamStatus_STREAM_STATUS_ACTIVE:
		return wrongState(s)
	}
	creating := uint64(0)
	for _, other := range s.GetConsumers() {
		if other.GetName() == c.GetName() {
			return because(pb.Refusal_REFUSAL_CONSUMER_EXISTS, refuse(stream.AlreadyExists, "stream %q has a consumer %q", s.GetName(), c.GetName()))
		}
		if other.GetStatus() == pb.ConsumerStatus_CONSUMER_STATUS_CREATING {
			creating++
		}
	}
	if n, limit := uint64(len(s.GetConsumers())), c.GetLimit(); limit > 0 && n >= uint64(limit) {
		return limited(pb.Refusal_REFUSAL_CONSUMER_LIMIT, n, limit, "consumers")
	}
	if limit := c.GetCreatingLimit(); limit > 0 && creating >= uint64(limit) {
		return limited(pb.Refusal_REFUSAL_CREATING_LIMIT, creating, limit, "consumers CREATING")
	}
	made := &pb.Consumer{
		Name: c.GetName(), CreatedMs: max(d.now, s.GetNextConsumerMs()), Tags: c.GetTags(),
		Status: pb.ConsumerStatus_CONSUMER_STATUS_CREATING, TransitionAfterMs: c.GetTransitionAfterMs(),
	}
	if d.now >= made.TransitionAfterMs {
		made.Status, made.TransitionAfterMs = pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE, 0
	}
	if res := mayGrow(s, consumerSize(made)); res != nil {
		return res
	}
	s = d.editStream(s.GetId())
	s.Consumers = append(slices.Clip(s.GetConsumers()), made)
	return &pb.CommandResult{StreamId: s.GetId(), Current: uint64(made.CreatedMs)}
}

func (d *draft) deregisterConsumer(c *pb.DeregisterConsumer) *pb.CommandResult {
	s := d.Stream(c.GetStreamId())
	if s == nil {
		return refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	}
	consumer, res := findConsumer(s, c.GetConsumer())
	if res != nil {
		return res
	}
	if consumer.GetStatus() != pb.ConsumerStatus_CONSUMER_STATUS_DELETING {
		d.editConsumer(s.GetId(), c.GetConsumer(), func(c2 *pb.Consumer) {
			c2.Status, c2.TransitionAfterMs = pb.ConsumerStatus_CONSUMER_STATUS_DELETING, c.GetTransitionAfterMs()
		})
		d.advance(d.Stream(s.GetId()))
	}
	return &pb.CommandResult{StreamId: s.GetId()}
}

func (d *draft) advanceConsumers(c *pb.AdvanceConsumers) *pb.CommandResult {
	s := d.Stream(c.GetStreamId())
	if s == nil {
		return refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	}
	d.advance(s)
	return &pb.CommandResult{StreamId: s.GetId()}
}

// advance ends the transitions of a stream's consumers that are due.
func (d *draft) advance(s *pb.Stream) {
	changed, next := false, s.GetNextConsumerMs()
	kept := make([]*pb.Consumer, 0, len(s.GetConsumers()))
	for _, c := range s.GetConsumers() {
		due := d.now >= c.GetTransitionAfterMs()
		switch {
		case due && c.GetStatus() == pb.ConsumerStatus_CONSUMER_STATUS_CREATING:
			c = copyConsumer(c)
			c.Status, c.TransitionAfterMs = pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE, 0
			changed = true
		case due && c.GetStatus() == pb.ConsumerStatus_CONSUMER_STATUS_DELETING:
			next = max(next, (c.GetCreatedMs()/1000+1)*1000)
			changed = true
			continue
		}
		kept = append(kept, c)
	}
	if changed {
		s = d.editStream(s.GetId())
		s.Consumers, s.NextConsumerMs = kept, next
	}
}

// setPolicy sets the resource policy of a stream, or of a consumer that is ACTIVE.
func (d *draft) setPolicy(c *pb.SetPolicy) *pb.CommandResult {
	s := d.Stream(c.GetStreamId())
	switch {
	case s == nil:
		return refuse(stream.NotFound, "no stream %d", c.GetStreamId())
	case s.GetStatus() == pb.StreamStatus_STREAM_STATUS_DELETING:
		return wrongState(s)
	case c.GetConsumer() == nil:
		if res := mayGrow(s, len(c.GetPolicy())-len(s.GetPolicy())); res != nil {
			return res
		}
		d.editStream(s.GetId()).Policy = c.GetPolicy()
	default:
		consumer, res := findConsumer(s, c.GetConsumer())
		if res != nil {
			return res
		}
		if consumer.GetStatus() != pb.ConsumerStatus_CONSUMER_STATUS_ACTIVE {
			return because(pb.Refusal_REFUSAL_CONSUMER_STATE, refuse(stream.WrongState, "consumer %q is %s", consumer.GetName(), consumer.GetStatus()))
		}
		if res := mayGrow(s, len(c.GetPolicy())-len(consumer.GetPolicy())); res != nil {
			return res
		}
		d.editConsumer(s.GetId(), c.GetConsumer(), func(edited *pb.Consumer) { edited.Policy = c.GetPolicy() })
	}
	return &pb.CommandResult{StreamId: s.GetId()}
}

// isConsumer reports whether a reference means that consumer.
func isConsumer(c *pb.Consumer, ref *pb.ConsumerRef) bool {
	return c.GetName() == ref.GetName() && (ref.GetCreatedS() == 0 || c.GetCreatedMs()/1000 == ref.GetCreatedS())
}

func findConsumer(s *pb.Stream, ref *pb.ConsumerRef) (*pb.Consumer, *pb.CommandResult) {
	for _, c := range s.GetConsumers() {
		if isConsumer(c, ref) {
			return c, nil
		}
	}
	return nil, because(pb.Refusal_REFUSAL_CONSUMER_UNKNOWN, refuse(stream.NotFound, "stream %q has no consumer %q of %d", s.GetName(), ref.GetName(), ref.GetCreatedS()))
}

// editConsumer puts a changed copy in the place of a consumer that is there.
func (d *draft) editConsumer(id uint64, ref *pb.ConsumerRef, change func(*pb.Consumer)) {
	s := d.editStream(id)
	s.Consumers = slices.Clone(s.GetConsumers())
	for i, c := range s.Consumers {
		if isConsumer(c, ref) {
			s.Consumers[i] = copyConsumer(c)
			change(s.Consumers[i])
		}
	}
}

// copyConsumer copies the message, not its tags.
func copyConsumer(c *pb.Consumer) *pb.Consumer {
	return &pb.Consumer{
		Name: c.GetName(), CreatedMs: c.GetCreatedMs(), Status: c.GetStatus(), TransitionAfterMs: c.GetTransitionAfterMs(),
		Tags: c.GetTags(), Policy: c.GetPolicy(),
	}
}
