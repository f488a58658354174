package main

import (
	"context"
	"log/slog"
	"net/url"

	"shardstream/gateway/kms"
)

// kmsFlags say where the keys are that wrap the data keys of encrypted streams.
type kmsFlags struct {
	KMSKeyring  string `name:"kms-keyring" placeholder:"FILE" help:"Keys for StartStreamEncryption, as 'shardstream keyring' makes them. Read again when it changes. All gateways need the same."`
	KMSEndpoint string `name:"kms-endpoint" placeholder:"URL" help:"Take the keys from AWS KMS ('aws') or from a service with its API at this URL, with the usual AWS credentials."`
	KMSRegion   string `name:"kms-region" placeholder:"REGION" help:"Region of AWS KMS (default: that of the environment or the profile)."`
}

// provider gives the provider that the flags ask for. Without any it is the
// keyring ownKeyring, made when it is first needed, or none if that is empty.
func (f *kmsFlags) provider(ctx context.Context, ownKeyring string, logger *slog.Logger) (kms.Provider, error) {
	switch {
	case f.KMSKeyring != "" && f.KMSEndpoint != "":
		return nil, usagef("--kms-keyring and --kms-endpoint can't be used together")
	case f.KMSRegion != "" && f.KMSEndpoint == "":
		return nil, usagef("--kms-region goes with --kms-endpoint")
	case f.KMSKeyring != "":
		k, err := kms.OpenKeyring(f.KMSKeyring, false, logger)
		if err != nil {
			return nil, usagef("--kms-keyring: %w", err)
		}
		return k, nil
	case f.KMSEndpoint != "":
		if u, err := url.Parse(f.KMSEndpoint); f.KMSEndpoint != kms.AWSEndpoint && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return nil, usagef("--kms-endpoint %s: want aws, http://HOST:PORT or https://HOST:PORT", f.KMSEndpoint)
		}
		a, err := kms.OpenAWS(ctx, f.KMSEndpoint, f.KMSRegion)
		if err != nil {
			return nil, usagef("--kms-endpoint %s: %w", f.KMSEndpoint, err)
		}
		return a, nil
	case ownKeyring != "":
		return kms.OpenKeyring(ownKeyring, true, logger)
	}
	return kms.None{}, nil
}
