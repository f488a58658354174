package broker

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"shardstream/stream"
)

// errorDomain marks a gRPC status that carries one of our kinds.
const errorDomain = "shardstream"

// codeOf is the one table Kind -> gRPC code. The Kind itself travels in the
// status's ErrorInfo, so nothing is lost where kinds share a code.
var codeOf = map[stream.Kind]codes.Code{
	stream.Internal:      codes.Internal,
	stream.NotFound:      codes.NotFound,
	stream.AlreadyExists: codes.AlreadyExists,
	stream.WrongState:    codes.FailedPrecondition,
	stream.LimitExceeded: codes.ResourceExhausted,
	stream.Invalid:       codes.InvalidArgument,
	stream.NotLeader:     codes.FailedPrecondition,
	stream.Offline:       codes.Unavailable,
	stream.Throttled:     codes.ResourceExhausted,
	stream.DiskFull:      codes.ResourceExhausted,
	stream.Unavailable:   codes.Unavailable,
	stream.Corrupt:       codes.DataLoss,
	stream.Stale:         codes.Aborted,
	stream.Gap:           codes.OutOfRange,
	stream.Timeout:       codes.DeadlineExceeded,
}

// toStatus turns an error into the gRPC status that callers see.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	kind := stream.KindOf(err)
	switch {
	case errors.Is(err, context.Canceled):
		return status.FromContextError(err).Err()
	case errors.Is(err, context.DeadlineExceeded):
		kind = stream.Timeout
	}
	s := status.New(codeOf[kind], err.Error())
	if with, detailErr := s.WithDetails(&errdetails.ErrorInfo{Domain: errorDomain, Reason: kind.String()}); detailErr == nil {
		s = with
	}
	return s.Err()
}
