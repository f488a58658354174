package e2e

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// streamConfig is what a Terraform configuration says of an aws_kinesis_stream,
// and what its provider reads back into the state. A difference between the two
// is a plan that never becomes empty.
type streamConfig struct {
	shards     int32 // 0: the mode is ON_DEMAND
	retention  int32 // hours
	recordKiB  int32
	metrics    []types.MetricsName // sorted
	key        string              // "" without encryption
	tags       map[string]string
	provisions bool // PROVISIONED
}

// terraform makes the calls of Terraform's AWS provider for one stream, in its
// order, and waits as it does: by DescribeStreamSummary.
type terraform struct {
	t    *testing.T
	c    *kinesis.Client
	name string
	arn  string
}

func (tf *terraform) must(what string, err error) {
	tf.t.Helper()
	if err != nil {
		tf.t.Fatalf("%s: %v", what, err)
	}
}

// wait is what follows each change: until the stream is ACTIVE.
func (tf *terraform) wait(what string, err error) {
	tf.t.Helper()
	tf.must(what, err)
	eventually(tf.t, func() error {
		s, err := tf.summary()
		if err == nil && s.StreamStatus != types.StreamStatusActive {
			err = fmt.Errorf("%s after %s", s.StreamStatus, what)
		}
		return err
	})
}

func (tf *terraform) summary() (*types.StreamDescriptionSummary, error) {
	out, err := tf.c.DescribeStreamSummary(tf.t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &tf.name})
	if err != nil {
		return nil, err
	}
	return out.StreamDescriptionSummary, nil
}

// create makes the stream as the configuration says: what CreateStream doesn't
// take comes in calls of its own.
func (tf *terraform) create(want streamConfig) {
	tf.t.Helper()
	in := &kinesis.CreateStreamInput{
		StreamName: &tf.name, Tags: want.tags, MaxRecordSizeInKiB: &want.recordKiB,
		StreamModeDetails: &types.StreamModeDetails{StreamMode: types.StreamModeOnDemand},
	}
	if want.provisions {
		in.ShardCount, in.StreamModeDetails.StreamMode = &want.shards, types.StreamModeProvisioned
	}
	_, err := tf.c.CreateStream(tf.t.Context(), in)
	tf.wait("CreateStream", err)
	s, err := tf.summary()
	tf.must("DescribeStreamSummary", err)
	tf.arn = *s.StreamARN
	// Always, also for the 24 hours that the stream has.
	tf.setRetention(0, want.retention)
	tf.setMetrics(nil, want.metrics)
	tf.setKey("", want.key)
}

// update changes the stream from one configuration to another.
func (tf *terraform) update(from, to streamConfig) {
	tf.t.Helper()
	ctx := tf.t.Context()
	if from.provisions != to.provisions {
		mode := types.StreamModeOnDemand
		if to.provisions {
			mode = types.StreamModeProvisioned
		}
		_, err := tf.c.UpdateStreamMode(ctx, &kinesis.UpdateStreamModeInput{
			StreamARN: &tf.arn, StreamModeDetails: &types.StreamModeDetails{StreamMode: mode},
		})
		tf.wait("UpdateStreamMode", err)
	}
	if to.provisions && from.provisions && from.shards != to.shards {
		_, err := tf.c.UpdateShardCount(ctx, &kinesis.UpdateShardCountInput{
			StreamName: &tf.name, TargetShardCount: &to.shards, ScalingType: types.ScalingTypeUniformScaling,
		})
		tf.wait("UpdateShardCount", err)
	}
	if from.retention != to.retention {
		tf.setRetention(from.retention, to.retention)
	}
	if from.recordKiB != to.recordKiB {
		_, err := tf.c.UpdateMaxRecordSize(ctx, &kinesis.UpdateMaxRecordSizeInput{StreamARN: &tf.arn, MaxRecordSizeInKiB: &to.recordKiB})
		tf.wait("UpdateMaxRecordSize", err)
	}
	tf.setMetrics(from.metrics, to.metrics)
	tf.setKey(from.key, to.key)
	tf.setTags(from.tags, to.tags)
}

func (tf *terraform) setRetention(from, to int32) {
	tf.t.Helper()
	if to < from {
		_, err := tf.c.DecreaseStreamRetentionPeriod(tf.t.Context(), &kinesis.DecreaseStreamRetentionPeriodInput{
			StreamName: &tf.name, RetentionPeriodHours: &to,
		})
		tf.wait("DecreaseStreamRetentionPeriod", err)
		return
	}
	_, err := tf.c.IncreaseStreamRetentionPeriod(tf.t.Context(), &kinesis.IncreaseStreamRetentionPeriodInput{
		StreamName: &tf.name, RetentionPeriodHours: &to,
	})
	tf.wait("IncreaseStreamRetentionPeriod", err)
}

// setMetrics disables what is no longer asked for, then enables what is new.
func (tf *terraform) setMetrics(from, to []types.MetricsName) {
	tf.t.Helper()
	without := func(a, b []types.MetricsName) []types.MetricsName {
		return slices.DeleteFunc(slices.Clone(a), func(m types.MetricsName) bool { return slices.Contains(b, m) })
	}
	if off := without(from, to); len(off) > 0 {
		_, err := tf.c.DisableEnhancedMonitoring(tf.t.Context(), &kinesis.DisableEnhancedMonitoringInput{
			StreamName: &tf.name, ShardLevelMetrics: off,
		})
		tf.wait("DisableEnhancedMonitoring", err)
	}
	if on := without(to, from); len(on) > 0 {
		_, err := tf.c.EnableEnhancedMonitoring(tf.t.Context(), &kinesis.EnableEnhancedMonitoringInput{
			StreamName: &tf.name, ShardLevelMetrics: on,
		})
		tf.wait("EnableEnhancedMonitoring", err)
	}
}

// setKey starts encryption, also with another key, or stops it with the old one.
func (tf *terraform) setKey(from, to string) {
	tf.t.Helper()
	switch {
	case from == to:
	case to == "":
		_, err := tf.c.StopStreamEncryption(tf.t.Context(), &kinesis.StopStreamEncryptionInput{
			StreamName: &tf.name, EncryptionType: types.EncryptionTypeKms, KeyId: &from,
		})
		tf.wait("StopStreamEncryption", err)
	default:
		_, err := tf.c.StartStreamEncryption(tf.t.Context(), &kinesis.StartStreamEncryptionInput{
			StreamName: &tf.name, EncryptionType: types.EncryptionTypeKms, KeyId: &to,
		})
		tf.wait("StartStreamEncryption", err)
	}
}

func (tf *terraform) setTags(from, to map[string]string) {
	tf.t.Helper()
	var gone []string
	for k := range from {
		if _, stays := to[k]; !stays {
			gone = append(gone, k)
		}
	}
	changed := map[string]string{}
	for k, v := range to {
		if old, was := from[k]; !was || old != v {
			changed[k] = v
		}
	}
	if len(gone) > 0 {
		_, err := tf.c.RemoveTagsFromStream(tf.t.Context(), &kinesis.RemoveTagsFromStreamInput{StreamName: &tf.name, TagKeys: gone})
		tf.must("RemoveTagsFromStream", err)
	}
	if len(changed) > 0 {
		_, err := tf.c.AddTagsToStream(tf.t.Context(), &kinesis.AddTagsToStreamInput{StreamName: &tf.name, Tags: changed})
		tf.must("AddTagsToStream", err)
	}
}

// refresh reads the state, and holds it against the configuration: Terraform
// would plan each difference for ever.
func (tf *terraform) refresh(want streamConfig) {
	tf.t.Helper()
	s, err := tf.summary()
	tf.must("DescribeStreamSummary", err)
	tags, err := tf.c.ListTagsForStream(tf.t.Context(), &kinesis.ListTagsForStreamInput{StreamName: &tf.name})
	tf.must("ListTagsForStream", err)
	got := streamConfig{
		shards: *s.OpenShardCount, retention: *s.RetentionPeriodHours, recordKiB: *s.MaxRecordSizeInKiB,
		provisions: s.StreamModeDetails.StreamMode == types.StreamModeProvisioned,
	}
	if !got.provisions {
		got.shards = 0 // not in the state
	}
	for _, m := range s.EnhancedMonitoring {
		got.metrics = append(got.metrics, m.ShardLevelMetrics...)
	}
	slices.Sort(got.metrics)
	if s.EncryptionType == types.EncryptionTypeKms {
		got.key = *s.KeyId
	}
	for _, tag := range tags.Tags {
		if got.tags == nil {
			got.tags = map[string]string{}
		}
		got.tags[*tag.Key] = *tag.Value
	}
	if !reflect.DeepEqual(got, want) {
		tf.t.Fatalf("the state is\n%+v, and the configuration\n%+v", got, want)
	}
}

// destroy deletes the stream with its consumers, and waits until it is gone.
func (tf *terraform) destroy() {
	tf.t.Helper()
	_, err := tf.c.DeleteStream(tf.t.Context(), &kinesis.DeleteStreamInput{StreamName: &tf.name, EnforceConsumerDeletion: aws.Bool(true)})
	tf.must("DeleteStream", err)
	eventually(tf.t, func() error {
		s, err := tf.summary()
		if errors.As(err, new(*types.ResourceNotFoundException)) {
			return nil
		}
		return fmt.Errorf("after DeleteStream: %v, %v", s, err)
	})
}

// TestTerraform replays, call by call, what Terraform's AWS provider does for a
// stream and a consumer over their whole life. After each apply the state is
// what the configuration says.
func TestTerraform(t *testing.T) {
	n := start(t, "--ephemeral", "--transition-delay", "50ms")
	tf := &terraform{t: t, c: client(n.endpoint), name: "terraform"}
	const key = "alias/aws/kinesis"
	current := streamConfig{
		provisions: true, shards: 2, retention: 48, recordKiB: 1024, key: key,
		metrics: []types.MetricsName{types.MetricsNameIncomingBytes, types.MetricsNameOutgoingBytes},
		tags:    map[string]string{"Environment": "test", "Name": "terraform"},
	}
	tf.create(current)
	tf.refresh(current)
	apply := func(change func(*streamConfig)) {
		t.Helper()
		to := current
		to.metrics, to.tags = slices.Clone(current.metrics), map[string]string{}
		for k, v := range current.tags {
			to.tags[k] = v
		}
		change(&to)
		if len(to.metrics) == 0 {
			to.metrics = nil
		}
		tf.update(current, to)
		tf.refresh(to)
		current = to
	}
	apply(func(s *streamConfig) { s.shards = 4 })
	apply(func(s *streamConfig) { s.shards = 3 })
	apply(func(s *streamConfig) { s.retention = 24 })
	apply(func(s *streamConfig) { s.retention = 8760 })
	apply(func(s *streamConfig) { s.recordKiB = 10240 })
	apply(func(s *streamConfig) {
		s.metrics = []types.MetricsName{types.MetricsNameIncomingBytes, types.MetricsNameIteratorAgeMilliseconds}
	})
	apply(func(s *streamConfig) { s.tags["Environment"] = "live"; delete(s.tags, "Name"); s.tags["Owner"] = "me" })
	apply(func(s *streamConfig) { s.key = "" })
	apply(func(s *streamConfig) { s.provisions, s.shards = false, 0 })
	apply(func(s *streamConfig) { s.provisions, s.shards = true, 3 })
	apply(func(s *streamConfig) { s.metrics, s.key, s.retention, s.shards = nil, key, 24, 6 })

	t.Run("consumer", func(t *testing.T) { tf.consumer(t) })
	t.Run("policy", func(t *testing.T) { tf.policy(t) })
	tf.destroy()

	// The next create may use the name again; the smallest configuration this time.
	current = streamConfig{retention: 24, recordKiB: 1024}
	tf.create(current)
	tf.refresh(current)
	tf.destroy()
}

// consumer is the life of an aws_kinesis_stream_consumer.
func (tf *terraform) consumer(t *testing.T) {
	registered, err := tf.c.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{
		StreamARN: &tf.arn, ConsumerName: aws.String("reader"), Tags: map[string]string{"Team": "a"},
	})
	if err != nil {
		t.Fatal(err)
	}
	arn := registered.Consumer.ConsumerARN
	describe := func() (*types.ConsumerDescription, error) {
		out, err := tf.c.DescribeStreamConsumer(t.Context(), &kinesis.DescribeStreamConsumerInput{ConsumerARN: arn})
		if err != nil {
			return nil, err
		}
		return out.ConsumerDescription, nil
	}
	eventually(t, func() error {
		d, err := describe()
		if err == nil && d.ConsumerStatus != types.ConsumerStatusActive {
			err = fmt.Errorf("the consumer is %s", d.ConsumerStatus)
		}
		return err
	})
	d, err := describe()
	if err != nil || *d.ConsumerName != "reader" || *d.StreamARN != tf.arn || *d.ConsumerARN != *arn || d.ConsumerCreationTimestamp == nil {
		t.Fatalf("%+v, %v", d, err)
	}
	tags, err := tf.c.ListTagsForResource(t.Context(), &kinesis.ListTagsForResourceInput{ResourceARN: arn})
	if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "Team" {
		t.Fatalf("%+v, %v", tags, err)
	}
	if _, err := tf.c.DeregisterStreamConsumer(t.Context(), &kinesis.DeregisterStreamConsumerInput{ConsumerARN: arn}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		d, err := describe()
		if errors.As(err, new(*types.ResourceNotFoundException)) {
			return nil
		}
		return fmt.Errorf("after DeregisterStreamConsumer: %v, %v", d, err)
	})
	// One is left, which the stream's end takes with it.
	if _, err := tf.c.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: &tf.arn, ConsumerName: aws.String("left")}); err != nil {
		t.Fatal(err)
	}
}

// policy is the life of an aws_kinesis_resource_policy.
func (tf *terraform) policy(t *testing.T) {
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"reads","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},`+
		`"Action":["kinesis:DescribeStreamSummary","kinesis:GetRecords","kinesis:GetShardIterator","kinesis:ListShards"],"Resource":%q}]}`, tf.arn)
	if _, err := tf.c.PutResourcePolicy(t.Context(), &kinesis.PutResourcePolicyInput{ResourceARN: &tf.arn, Policy: &policy}); err != nil {
		t.Fatal(err)
	}
	out, err := tf.c.GetResourcePolicy(t.Context(), &kinesis.GetResourcePolicyInput{ResourceARN: &tf.arn})
	if err != nil || *out.Policy != policy {
		t.Fatalf("%+v, %v, want %s", out, err, policy)
	}
	if _, err := tf.c.DeleteResourcePolicy(t.Context(), &kinesis.DeleteResourcePolicyInput{ResourceARN: &tf.arn}); err != nil {
		t.Fatal(err)
	}
}
