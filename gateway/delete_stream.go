package gateway

import (
	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: DeleteStream starts the deletion of a stream in any state and
// answers empty. The stream is DELETING until its data is off the disks, and for
// TransitionDelay; then every call says not found and the name is free. A stream
// with consumers is only deleted with EnforceConsumerDeletion, and they with it. A
// second call while it is DELETING changes nothing and succeeds.

func deleteStream(c *call, in *kinesis.DeleteStreamInput) (*empty, *kinesis.Error) {
	m, v, failure := c.locate(in.StreamName, in.StreamARN)
	if failure != nil {
		return nil, failure
	}
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_DeleteStream{DeleteStream: &pb.DeleteStream{
		Name: v.Name, StreamId: v.Id, TransitionAfterMs: c.transitionEnd(), WithConsumers: deref(in.EnforceConsumerDeletion),
	}}})
	if err != nil {
		return nil, c.fail(err, subject{name: v.Name, account: m.cluster.AccountId})
	}
	if r.Refusal == pb.Refusal_REFUSAL_HAS_CONSUMERS {
		return nil, kinesis.StreamHasConsumers(v.Name, m.cluster.AccountId)
	}
	if stream.Kind(r.Error) == stream.WrongState && r.Status == pb.StreamStatus_STREAM_STATUS_DELETING {
		return nil, nil
	}
	return nil, c.refused(r, subject{name: v.Name, account: m.cluster.AccountId})
}
