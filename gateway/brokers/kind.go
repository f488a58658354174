package brokers

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"shardstream/stream"
)

var kindByName = func() map[string]stream.Kind {
	m := make(map[string]stream.Kind)
	for _, k := range stream.Kinds() {
		m[k.String()] = k
	}
	return m
}()

// errorDomain marks the kind of an error in a gRPC status.
const errorDomain = "shardstream"

// KindOf gives the kind of an error of ours, of a broker behind gRPC, or of gRPC
// itself; 0 for nil.
func KindOf(err error) stream.Kind {
	if err == nil {
		return 0
	}
	if k := said(err); k != 0 {
		return k
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return stream.Timeout
	}
	s, ok := status.FromError(err)
	if !ok {
		return stream.KindOf(err)
	}
	switch s.Code() {
	case codes.Unavailable:
		return stream.Unavailable
	case codes.DeadlineExceeded, codes.Canceled:
		return stream.Timeout
	}
	return stream.Internal
}

// said gives the kind that a broker has put into the error, 0 if it has not
// spoken: what gRPC itself reports says nothing about what the broker has done.
func said(err error) stream.Kind {
	var ours *stream.Error
	if errors.As(err, &ours) {
		return ours.Kind
	}
	s, ok := status.FromError(err)
	if !ok {
		return 0
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == errorDomain {
			return kindByName[info.Reason]
		}
	}
	return 0
}
