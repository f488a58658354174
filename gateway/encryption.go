package gateway

import (
	"context"
	"crypto/cipher"

	"shardstream/gateway/kinesis"
	"shardstream/gateway/kms"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: StartStreamEncryption and StopStreamEncryption change an ACTIVE
// stream, which is UPDATING for TransitionDelay, and answer with nothing.
//
//   - Starting makes a new data key, also for a stream that is encrypted: that is
//     how another key takes over, and how the data key of the same one is changed.
//     The KeyId is shown as it was given.
//   - Stopping does not look at the KeyId, and is no error for a stream that is not
//     encrypted.
//   - Records that are there stay as they are, and each tells its own
//     EncryptionType.
//   - What the key's provider refuses is one of the six KMS errors, for starting and
//     for puts and reads that need the key. A PutRecords fails as a whole.
//
// Records are encrypted here, one batch at a time, after it is built and before
// it is sent: nothing behind the gateways has the key.

func startStreamEncryption(c *call, in *kinesis.StartStreamEncryptionInput) (*empty, *kinesis.Error) {
	t, failure := c.encryptable(in.StreamName, in.StreamARN, *in.EncryptionType)
	if failure != nil {
		return nil, failure
	}
	wrapped, err := c.g.keys.Generate(c.ctx(), *in.KeyId, kms.Context{
		Cluster: t.cluster, Stream: t.v.Name, First: !c.g.meta.load().hasDataKeys(),
	})
	if err != nil {
		return nil, c.fail(err, subject{name: t.v.Name, account: t.account})
	}
	return nil, c.update(t, &pb.UpdateStream{Change: &pb.UpdateStream_StartEncryption{StartEncryption: &pb.StartEncryption{
		KeyId: *in.KeyId, Wrapped: wrapped, DailyLimit: c.g.dailyLimits().encryptions,
	}}})
}

// hasDataKeys tells whether any stream has been encrypted.
func (m *metadata) hasDataKeys() bool {
	for _, v := range m.byID {
		if len(v.DataKeys) > 0 {
			return true
		}
	}
	return false
}

func stopStreamEncryption(c *call, in *kinesis.StopStreamEncryptionInput) (*empty, *kinesis.Error) {
	t, failure := c.encryptable(in.StreamName, in.StreamARN, *in.EncryptionType)
	if failure != nil {
		return nil, failure
	}
	return nil, c.update(t, &pb.UpdateStream{Change: &pb.UpdateStream_StopEncryption{StopEncryption: &pb.StopEncryption{
		DailyLimit: c.g.dailyLimits().encryptions,
	}}})
}

// encryptable gives the stream that a request names, if it can be changed and the
// type is one that can be started and stopped.
func (c *call) encryptable(name, arn *string, encryptionType string) (updateTarget, *kinesis.Error) {
	t, failure := c.updatable(name, arn)
	if failure == nil && encryptionType != kinesis.EncryptionTypeKMS {
		failure = kinesis.EncryptionTypeRefused(encryptionType)
	}
	return t, failure
}

// keyErrors are the classes of what a provider of keys refuses.
var keyErrors = map[kms.Reason]string{
	kms.AccessDenied:  kinesis.CodeKMSAccessDenied,
	kms.Disabled:      kinesis.CodeKMSDisabled,
	kms.InvalidState:  kinesis.CodeKMSInvalidState,
	kms.NotFound:      kinesis.CodeKMSNotFound,
	kms.OptInRequired: kinesis.CodeKMSOptInRequired,
	kms.Throttled:     kinesis.CodeKMSThrottling,
}

// keyFailure answers what a provider refuses. One that was not reached has
// refused nothing: SDKs try again.
func (c *call) keyFailure(err *kms.Error, s subject) *kinesis.Error {
	attrs := []any{"operation", c.op, "request", c.requestID(), "stream", s.name, "error", err}
	if err.Reason == kms.Unreachable {
		c.g.log.Error("the key service was not reached", attrs...)
		return unavailable(err.Message)
	}
	c.g.log.Debug("the key was refused", attrs...)
	return kinesis.KMS(keyErrors[err.Reason], err.Message)
}

// takeKey gives a put the key that its records are encrypted with, if they are.
// It stays the put's over all its attempts: a key that is retired meanwhile is
// kept long enough.
func (c *call) takeKey(p *put, m *metadata, v *streamView, account string) *kinesis.Error {
	if v.DataKey == 0 {
		return nil
	}
	key, err := c.g.openKey(c.ctx, m, v, v.dataKey(v.DataKey))
	if err != nil {
		return c.fail(err, subject{name: v.Name, account: account})
	}
	p.key, p.keyID = key, v.DataKey
	return nil
}

// encryptionType is what the put's answer says, "" for nothing.
func (p *put) encryptionType() string {
	if p.key == nil {
		return ""
	}
	return kinesis.EncryptionTypeKMS
}

// dataKey gives a data key of the stream, nil if the metadata at hand does not
// have it.
func (v *streamView) dataKey(id uint32) *pb.DataKey {
	for _, k := range v.DataKeys {
		if k.Id == id {
			return k
		}
	}
	return nil
}

// openKey gives the AEAD of a data key of the stream. Errors are those of
// kms.Keys.Get; Corrupt if there is no such key.
func (g *Gateway) openKey(ctx func() context.Context, m *metadata, v *streamView, k *pb.DataKey) (cipher.AEAD, error) {
	if k == nil {
		return nil, stream.Errorf(stream.Corrupt, "gateway.openKey", "the metadata of stream %s does not have the data key", v.Name)
	}
	return g.keys.Get(ctx, kms.DataKey{
		Stream: v.Id, ID: k.Id, KeyID: k.KeyId, Wrapped: k.Wrapped,
		Context: kms.Context{Cluster: m.cluster.GetId(), Stream: v.Name},
	})
}

// decrypt gives an encrypted batch of the stream with its records in the clear.
// A key that the metadata at hand does not have is looked up in metadata that
// shows everything: another gateway may have used it before we heard of it.
func (g *Gateway) decrypt(ctx context.Context, m *metadata, v *streamView, b stream.Batch) (stream.Batch, error) {
	k := v.dataKey(b.DataKey())
	if k == nil {
		newer, err := g.linearizable(ctx)
		if err != nil {
			return nil, err
		}
		if now := newer.byID[v.Id]; now != nil {
			k = now.dataKey(b.DataKey())
		}
	}
	key, err := g.openKey(func() context.Context { return ctx }, m, v, k)
	if err != nil {
		return nil, err
	}
	return b.Decrypt(nil, key)
}
