package kms

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"shardstream/stream"
)

// AWS is the provider whose keys are in AWS KMS, or in a service with its API. It
// takes the credentials of the usual chain: environment, profile, role of the
// machine.
type AWS struct{ client *awskms.Client }

// AWSEndpoint as an endpoint is AWS's own.
const AWSEndpoint = "aws"

// OpenAWS makes the client of a key service: AWSEndpoint or a URL. An empty
// region is that of the environment or the profile; for a URL it may be absent
// there. It calls nobody.
func OpenAWS(ctx context.Context, endpoint, region string) (*AWS, error) {
	var options []func(*config.LoadOptions) error
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("can't read the AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		if endpoint == AWSEndpoint {
			return nil, errors.New("AWS KMS needs a region: --kms-region, AWS_REGION or that of a profile")
		}
		cfg.Region = "us-east-1" // only for the signature
	}
	return &AWS{awskms.NewFromConfig(cfg, func(o *awskms.Options) {
		if endpoint != AWSEndpoint {
			o.BaseEndpoint = aws.String(endpoint)
		}
	})}, nil
}

// GenerateDataKey asks the service for a data key.
func (a *AWS) GenerateDataKey(ctx context.Context, keyID string, c Context) (plain, wrapped []byte, err error) {
	out, err := a.client.GenerateDataKey(ctx, &awskms.GenerateDataKeyInput{
		KeyId: &keyID, KeySpec: types.DataKeySpecAes256, EncryptionContext: c.Map(),
	})
	if err != nil {
		return nil, nil, awsError(err)
	}
	return out.Plaintext, out.CiphertextBlob, nil
}

// Unwrap asks the service to decrypt a data key. The ciphertext names its key
// itself: an alias may have moved on to another one.
func (a *AWS) Unwrap(ctx context.Context, _ string, wrapped []byte, c Context) ([]byte, error) {
	out, err := a.client.Decrypt(ctx, &awskms.DecryptInput{CiphertextBlob: wrapped, EncryptionContext: c.Map()})
	if err != nil {
		return nil, awsError(err)
	}
	return out.Plaintext, nil
}

// Version is always the same: the service tells nobody of changes.
func (a *AWS) Version() uint64 { return 0 }

// awsReasons says what the service's error codes are as errors of the Kinesis
// API. Those of the caller's own credentials are among them: the gateway is not
// let in.
var awsReasons = map[string]Reason{
	"AccessDeniedException": AccessDenied, "UnrecognizedClientException": AccessDenied,
	"InvalidClientTokenId": AccessDenied, "ExpiredTokenException": AccessDenied, "ExpiredToken": AccessDenied,
	"MissingAuthenticationTokenException": AccessDenied, "MissingAuthenticationToken": AccessDenied,
	"InvalidSignatureException": AccessDenied, "IncompleteSignatureException": AccessDenied, "IncompleteSignature": AccessDenied,
	"DisabledException":             Disabled,
	"KMSInvalidStateException":      InvalidState,
	"InvalidKeyUsageException":      InvalidState,
	"NotFoundException":             NotFound,
	"InvalidArnException":           NotFound,
	"ValidationException":           NotFound, // of a key id that none can have
	"OptInRequired":                 OptInRequired,
	"SubscriptionRequiredException": OptInRequired,
	"ThrottlingException":           Throttled, "Throttling": Throttled, "RequestLimitExceeded": Throttled, "LimitExceededException": Throttled,
}

// awsError makes a refusal of the service's error, if it is one.
func awsError(err error) error {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return err
	}
	switch code := answer.ErrorCode(); code {
	case "InvalidCiphertextException", "IncorrectKeyException":
		return stream.Errorf(stream.Corrupt, "kms.Unwrap", "%s: %s", code, answer.ErrorMessage())
	default:
		if reason := awsReasons[code]; reason != 0 {
			return refusal(reason, "%s", answer.ErrorMessage())
		}
	}
	return err
}
