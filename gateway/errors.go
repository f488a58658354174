package gateway

import (
	"errors"

	"shardstream/gateway/brokers"
	"shardstream/gateway/kinesis"
	"shardstream/gateway/kms"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// subject is what an error text speaks of.
type subject struct {
	name, account string
	shard         string // id of the shard, "" if none is meant
	state         string // of the stream, for WrongState
	read          bool   // a read: what is missing is called a shard
}

// answers is the one table Kind -> AWS answer. Where AWS has no class for what
// can happen to us we take one that every SDK tries again by itself: 500 and
// 503, and never a throttling class, on which they also slow down.
//
// DiskFull is 503 ServiceUnavailable with a message that names the disk, not
// ProvisionedThroughputExceeded: operators must not look for hot shards when
// they should add disk. In a PutRecords it is the code InternalFailure with that
// message, since a record's result knows only two codes.
var answers = map[stream.Kind]func(subject) *kinesis.Error{
	stream.Internal: func(subject) *kinesis.Error { return kinesis.InternalFailure() },
	stream.NotFound: func(s subject) *kinesis.Error {
		if s.read {
			return kinesis.ShardDoesNotExist(s.shard, s.name, s.account)
		}
		return kinesis.StreamNotFound(s.name, s.account)
	},
	stream.AlreadyExists: func(s subject) *kinesis.Error { return kinesis.StreamExists(s.name, s.account) },
	stream.WrongState:    func(s subject) *kinesis.Error { return kinesis.StreamState(s.name, s.account, s.state) },
	stream.LimitExceeded: func(subject) *kinesis.Error { return kinesis.Limit("A limit of the account has been reached.") },
	stream.Invalid: func(subject) *kinesis.Error {
		return kinesis.InvalidArgument("The request has been refused as invalid.")
	},
	stream.NotLeader: func(subject) *kinesis.Error { return unavailable("The leader of the shard is not known yet.") },
	stream.Offline:   func(subject) *kinesis.Error { return unavailable("The shard is offline.") },
	stream.Throttled: func(s subject) *kinesis.Error {
		if s.shard == "" {
			return busy()
		}
		return kinesis.ShardRateExceeded(s.shard, s.name, s.account)
	},
	stream.DiskFull: func(subject) *kinesis.Error { return unavailable(diskFullMessage) },
	stream.Unavailable: func(subject) *kinesis.Error {
		return unavailable("The service is starting or stopping, has no majority, or waits for the end of a reshard.")
	},
	stream.Corrupt: func(subject) *kinesis.Error { return kinesis.InternalFailure() },
	stream.Stale:   func(subject) *kinesis.Error { return unavailable("The request met a change of the cluster.") },
	stream.Gap:     func(subject) *kinesis.Error { return kinesis.InternalFailure() },
	stream.Timeout: func(subject) *kinesis.Error { return kinesis.InternalFailure() },
}

const diskFullMessage = "The disk of the broker is almost full."

func unavailable(message string) *kinesis.Error {
	e := kinesis.ServiceUnavailable()
	e.Message = message
	return e
}

// busy answers when the memory for bodies is used up.
func busy() *kinesis.Error { return unavailable("Too many bytes of requests are in flight.") }

// fail turns an error into an answer; its text goes into the log.
func (c *call) fail(err error, s subject) *kinesis.Error {
	if refused := new(kms.Error); errors.As(err, &refused) {
		return c.keyFailure(refused, s)
	}
	kind := kindOf(err)
	attrs := []any{"operation", c.op, "request", c.requestID(), "stream", s.name, "shard", s.shard, "error", err}
	switch kind {
	case stream.Internal, stream.Corrupt, stream.Gap, stream.Invalid:
		c.g.log.Error("request failed", attrs...)
	default:
		c.g.log.Debug("request refused", attrs...)
	}
	return answerKind(kind, s)
}

func answerKind(kind stream.Kind, s subject) *kinesis.Error {
	if answer := answers[kind]; answer != nil {
		return answer(s)
	}
	return kinesis.InternalFailure()
}

// refused turns a command's refusal into an answer; nil if it was applied.
func (c *call) refused(r *pb.CommandResult, s subject) *kinesis.Error {
	if r.Error == pb.ErrorKind_ERROR_KIND_NONE {
		return nil
	}
	s.state = statusName(r.Status)
	return c.fail(resultError(r.Error, r.Detail), s)
}

// resultError makes an error of the kind and detail that a broker's answer carries.
func resultError(kind pb.ErrorKind, detail string) error {
	return stream.Errorf(stream.Kind(kind), "broker", "%s", detail)
}

// kindOf gives the kind of an error of ours, of a broker behind gRPC, or of gRPC
// itself.
func kindOf(err error) stream.Kind { return brokers.KindOf(err) }
