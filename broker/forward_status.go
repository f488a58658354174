package broker

import (
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"shardstream/stream"
)

// fromStatus turns what another broker answered into an error of ours. What
// does not carry a Kind came from gRPC itself, which can't say whether the call
// had an effect: Timeout, the kind of unknown outcomes.
func fromStatus(op string, err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return stream.Errorf(stream.Timeout, op, "%w", err)
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == errorDomain {
			for _, kind := range stream.Kinds() {
				if kind.String() == info.Reason {
					return stream.Errorf(kind, op, "%s", s.Message())
				}
			}
		}
	}
	if s.Code() == codes.Unimplemented { // an older broker: nothing happened
		return stream.Errorf(stream.Unavailable, op, "%s", s.Message())
	}
	return stream.Errorf(stream.Timeout, op, "%s: %s", s.Code(), s.Message())
}

// fromCall is fromStatus for a call that noted with grpc.Peer whom it reached. A
// call that got no connection reached nobody, and had no effect.
func fromCall(op string, err error, reached *grpcpeer.Peer) error {
	if reached.Addr == nil && status.Code(err) == codes.Unavailable {
		if e := fromStatus(op, err); !errors.Is(e, stream.Timeout) {
			return e
		}
		return stream.Errorf(stream.Unavailable, op, "%w", err)
	}
	return fromStatus(op, err)
}
