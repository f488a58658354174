package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
)

// endpointFlags say which Kinesis put and tail talk to.
type endpointFlags struct {
	Endpoint string `default:"http://127.0.0.1:4567" env:"SHARDSTREAM_ENDPOINT,AWS_ENDPOINT_URL_KINESIS,AWS_ENDPOINT_URL" placeholder:"URL" help:"Kinesis endpoint, or 'aws' for the region's own (${default})."`
	Region   string `default:"us-east-1" env:"SHARDSTREAM_REGION,AWS_REGION,AWS_DEFAULT_REGION" help:"AWS region that requests are signed for (${default})."`
}

// client makes an SDK client. Against an endpoint of one's own it works without
// any AWS configuration: it signs with dummy credentials if there are none.
// Calls are retried until their context ends, as a broker's failover or
// restart is no reason for a pipeline to stop.
func (f endpointFlags) client(ctx context.Context) (*kinesis.Client, error) {
	own := f.Endpoint != "aws"
	options := []func(*config.LoadOptions) error{
		config.WithRegion(f.Region),
		// What goes wrong comes back as an error; the SDK's own warnings, as of
		// a connection that it could not use again, are noise on stderr.
		config.WithLogger(logging.Nop{}),
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts = 0 // until the context ends
				o.MaxBackoff = 2 * time.Second
				o.RateLimiter = ratelimit.None
			})
		}),
	}
	if own {
		u, err := url.Parse(f.Endpoint)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, usagef("--endpoint %s: want http://HOST:PORT or https://HOST:PORT, or aws", f.Endpoint)
		}
		// Without this a machine that has no credentials waits for the
		// metadata service of a cloud that it does not run in.
		options = append(options, config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, err
	}
	if own {
		if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
			cfg.Credentials = credentials.NewStaticCredentialsProvider("shardstream", "shardstream", "")
		}
	}
	return kinesis.NewFromConfig(cfg, func(o *kinesis.Options) {
		if own {
			o.BaseEndpoint = aws.String(f.Endpoint)
		}
	}), nil
}

// fewAttempts makes a call fail soon, for the first call of a command: someone
// who mistyped the endpoint wants to know it now.
func fewAttempts(o *kinesis.Options) { o.RetryMaxAttempts = 3 }

// errorCode gives the AWS error code in err, "" if it has none.
func errorCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// plainError makes of an SDK error one line for people: the AWS code and
// message, or what the network said.
func plainError(err error) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		return fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
	}
	var network *net.OpError
	if errors.As(err, &network) {
		return fmt.Errorf("can't reach the endpoint: %w", network)
	}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
