import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.services.kinesis.KinesisClient;
import software.amazon.awssdk.services.kinesis.model.*;
import software.amazon.awssdk.services.kinesis.model.Record;

/**
 * Calls every operation but SubscribeToShard with the client that the argument names, sync or async, and holds the
 * answers against what was asked for. The last line says how many operations succeeded, and in which body format.
 */
public final class Operations {
    private static final String KEY = "alias/aws/kinesis";

    private final KinesisClient kinesis;
    private final String stream;
    private String arn;

    private Operations(KinesisClient kinesis, String stream) {
        this.kinesis = kinesis;
        this.stream = stream;
    }

    public static void main(String[] args) throws Exception {
        try (KinesisClient client = args[0].equals("sync") ? Clients.sync() : Clients.blocking(Clients.async())) {
            Operations o = new Operations(client, "java-" + args[0]);
            o.create();
            o.records();
            o.reshard();
            o.account();
            o.settings();
            o.tags();
            o.policies();
            o.consumers();
            o.errors();
            o.delete();
        }
        System.out.println(Clients.operations.size() + " operations, " + Clients.contentTypes);
        System.exit(0); // the client's threads may linger
    }

    private StreamDescriptionSummary summary() {
        return kinesis.describeStreamSummary(DescribeStreamSummaryRequest.builder().streamName(stream).build())
                .streamDescriptionSummary();
    }

    private void awaitActive() throws InterruptedException {
        Check.eventually(stream + " is ACTIVE", () -> summary().streamStatus() == StreamStatus.ACTIVE);
    }

    private List<Shard> shards() {
        return kinesis.listShards(ListShardsRequest.builder().streamName(stream).build()).shards();
    }

    private void create() throws InterruptedException {
        Instant before = Instant.now();
        kinesis.createStream(CreateStreamRequest.builder().streamName(stream).shardCount(2).build());
        awaitActive();
        StreamDescriptionSummary s = summary();
        arn = s.streamARN();
        Check.that(s.openShardCount() == 2 && s.retentionPeriodHours() == 24
                && s.streamModeDetails().streamMode() == StreamMode.PROVISIONED
                && s.encryptionType() == EncryptionType.NONE && s.consumerCount() == 0, "the summary", s);
        // Times are milliseconds in CBOR and seconds in JSON.
        Check.that(Duration.between(before, s.streamCreationTimestamp()).abs().toMinutes() < 5, "the time of creation", s);
        StreamDescription d = kinesis.describeStream(DescribeStreamRequest.builder().streamName(stream).build()).streamDescription();
        Check.that(d.shards().size() == 2 && !d.hasMoreShards(), "the description", d);
        Check.that(kinesis.listStreams(ListStreamsRequest.builder().build()).streamNames().contains(stream), "ListStreams");
    }

    private static SdkBytes bytes(int i) {
        byte[] b = new byte[256 + i]; // every byte value
        for (int k = 0; k < b.length; k++) {
            b[k] = (byte) k;
        }
        return SdkBytes.fromByteArray(b);
    }

    private void records() {
        Instant before = Instant.now();
        List<PutRecordsRequestEntry> entries = new ArrayList<>();
        for (int i = 0; i < 100; i++) {
            entries.add(PutRecordsRequestEntry.builder().partitionKey("schlüssel-" + i).data(bytes(i)).build());
        }
        PutRecordsResponse put = kinesis.putRecords(PutRecordsRequest.builder().streamName(stream).records(entries).build());
        Check.that(put.failedRecordCount() == 0 && put.records().size() == 100, "PutRecords", put);
        PutRecordResponse one = kinesis.putRecord(PutRecordRequest.builder().streamName(stream).partitionKey("k")
                .explicitHashKey("0").data(SdkBytes.fromUtf8String("one")).build());
        Check.that(one.shardId().equals("shardId-000000000000"), "hash key 0", one);

        Map<String, Record> found = new HashMap<>();
        for (Shard shard : shards()) {
            String iterator = kinesis.getShardIterator(GetShardIteratorRequest.builder().streamName(stream)
                    .shardId(shard.shardId()).shardIteratorType(ShardIteratorType.AT_TIMESTAMP)
                    .timestamp(before.minusSeconds(60)).build()).shardIterator();
            GetRecordsResponse page;
            do {
                page = kinesis.getRecords(GetRecordsRequest.builder().shardIterator(iterator).limit(30).build());
                page.records().forEach(r -> found.put(shard.shardId() + r.sequenceNumber(), r));
                iterator = page.nextShardIterator();
            } while (!page.records().isEmpty() || page.millisBehindLatest() > 0);
        }
        Check.that(found.size() == 101, "records read", found.size());
        for (int i = 0; i < 100; i++) {
            PutRecordsResultEntry stored = put.records().get(i);
            Record r = found.get(stored.shardId() + stored.sequenceNumber());
            Check.that(r.data().equals(bytes(i)) && r.partitionKey().equals("schlüssel-" + i), "record " + i, r);
            Check.that(Duration.between(before, r.approximateArrivalTimestamp()).abs().toMinutes() < 5, "its arrival", r);
        }
        String at = kinesis.getShardIterator(GetShardIteratorRequest.builder().streamARN(arn).shardId(one.shardId())
                .shardIteratorType(ShardIteratorType.AT_SEQUENCE_NUMBER).startingSequenceNumber(one.sequenceNumber()).build())
                .shardIterator();
        List<Record> last = kinesis.getRecords(GetRecordsRequest.builder().shardIterator(at).build()).records();
        Check.that(last.size() == 1 && last.get(0).data().asString(StandardCharsets.UTF_8).equals("one"), "at its number", last);
    }

    private void reshard() throws InterruptedException {
        kinesis.splitShard(SplitShardRequest.builder().streamName(stream).shardToSplit("shardId-000000000000")
                .newStartingHashKey("1234567890").build());
        awaitActive();
        kinesis.mergeShards(MergeShardsRequest.builder().streamName(stream).shardToMerge("shardId-000000000002")
                .adjacentShardToMerge("shardId-000000000003").build());
        awaitActive();
        UpdateShardCountResponse u = kinesis.updateShardCount(UpdateShardCountRequest.builder().streamName(stream)
                .targetShardCount(4).scalingType(ScalingType.UNIFORM_SCALING).build());
        Check.that(u.currentShardCount() == 2 && u.targetShardCount() == 4, "UpdateShardCount", u);
        awaitActive();
        Check.that(summary().openShardCount() == 4, "open shards", summary());
        int all = shards().size();
        ListShardsResponse first = kinesis.listShards(ListShardsRequest.builder().streamName(stream).maxResults(3).build());
        ListShardsResponse rest = kinesis.listShards(ListShardsRequest.builder().nextToken(first.nextToken()).build());
        Check.that(first.shards().size() + rest.shards().size() == all && rest.nextToken() == null, "pages of ListShards", all, first, rest);
        List<Shard> latest = kinesis.listShards(ListShardsRequest.builder().streamName(stream)
                .shardFilter(f -> f.type(ShardFilterType.AT_LATEST)).build()).shards();
        Check.that(latest.size() == 4, "open shards by a filter", latest);
        String end = kinesis.getShardIterator(GetShardIteratorRequest.builder().streamName(stream)
                .shardId("shardId-000000000002").shardIteratorType(ShardIteratorType.TRIM_HORIZON).build()).shardIterator();
        GetRecordsResponse closed = kinesis.getRecords(GetRecordsRequest.builder().shardIterator(end).build());
        Check.that(closed.nextShardIterator() == null && closed.childShards().size() == 1
                && closed.childShards().get(0).parentShards().size() == 2, "the end of a merged shard", closed);
    }

    private void settings() throws InterruptedException {
        kinesis.increaseStreamRetentionPeriod(IncreaseStreamRetentionPeriodRequest.builder().streamName(stream).retentionPeriodHours(48).build());
        awaitActive();
        Check.that(summary().retentionPeriodHours() == 48, "retention", summary());
        kinesis.decreaseStreamRetentionPeriod(DecreaseStreamRetentionPeriodRequest.builder().streamName(stream).retentionPeriodHours(24).build());
        awaitActive();
        EnableEnhancedMonitoringResponse on = kinesis.enableEnhancedMonitoring(EnableEnhancedMonitoringRequest.builder()
                .streamName(stream).shardLevelMetrics(MetricsName.INCOMING_BYTES, MetricsName.OUTGOING_RECORDS).build());
        Check.that(on.desiredShardLevelMetrics().size() == 2, "EnableEnhancedMonitoring", on);
        awaitActive();
        Check.that(summary().enhancedMonitoring().get(0).shardLevelMetrics().size() == 2, "monitoring", summary());
        kinesis.disableEnhancedMonitoring(DisableEnhancedMonitoringRequest.builder().streamName(stream).shardLevelMetrics(MetricsName.ALL).build());
        awaitActive();
        kinesis.startStreamEncryption(StartStreamEncryptionRequest.builder().streamName(stream).encryptionType(EncryptionType.KMS).keyId(KEY).build());
        awaitActive();
        Check.that(summary().encryptionType() == EncryptionType.KMS && summary().keyId() != null, "encryption", summary());
        PutRecordResponse hidden = kinesis.putRecord(PutRecordRequest.builder().streamName(stream).partitionKey("k").data(bytes(1)).build());
        Check.that(hidden.encryptionType() == EncryptionType.KMS, "a put into an encrypted stream", hidden);
        String at = kinesis.getShardIterator(GetShardIteratorRequest.builder().streamName(stream).shardId(hidden.shardId())
                .shardIteratorType(ShardIteratorType.AT_SEQUENCE_NUMBER).startingSequenceNumber(hidden.sequenceNumber()).build()).shardIterator();
        Record r = kinesis.getRecords(GetRecordsRequest.builder().shardIterator(at).build()).records().get(0);
        Check.that(r.data().equals(bytes(1)) && r.encryptionType() == EncryptionType.KMS, "an encrypted record", r);
        kinesis.stopStreamEncryption(StopStreamEncryptionRequest.builder().streamName(stream).encryptionType(EncryptionType.KMS).keyId(KEY).build());
        awaitActive();
        kinesis.updateMaxRecordSize(UpdateMaxRecordSizeRequest.builder().streamARN(arn).maxRecordSizeInKiB(2048).build());
        awaitActive();
        Check.that(summary().maxRecordSizeInKiB() == 2048, "the size of records", summary());
        kinesis.updateStreamMode(UpdateStreamModeRequest.builder().streamARN(arn).streamModeDetails(d -> d.streamMode(StreamMode.ON_DEMAND)).build());
        awaitActive();
        Check.that(summary().streamModeDetails().streamMode() == StreamMode.ON_DEMAND, "the mode", summary());
        kinesis.updateStreamWarmThroughput(UpdateStreamWarmThroughputRequest.builder().streamARN(arn).warmThroughputMiBps(5).build());
        awaitActive();
        Check.that(summary().warmThroughput().targetMiBps() == 5, "warm throughput", summary());
        kinesis.updateStreamMode(UpdateStreamModeRequest.builder().streamARN(arn).streamModeDetails(d -> d.streamMode(StreamMode.PROVISIONED)).build());
        awaitActive();
    }

    private void tags() {
        kinesis.addTagsToStream(AddTagsToStreamRequest.builder().streamName(stream).tags(Map.of("a", "1", "b", "2")).build());
        kinesis.removeTagsFromStream(RemoveTagsFromStreamRequest.builder().streamName(stream).tagKeys("a").build());
        List<Tag> tags = kinesis.listTagsForStream(ListTagsForStreamRequest.builder().streamName(stream).build()).tags();
        Check.that(tags.size() == 1 && tags.get(0).key().equals("b") && tags.get(0).value().equals("2"), "tags", tags);
        kinesis.tagResource(TagResourceRequest.builder().resourceARN(arn).tags(Map.of("c", "3")).build());
        kinesis.untagResource(UntagResourceRequest.builder().resourceARN(arn).tagKeys("b").build());
        tags = kinesis.listTagsForResource(ListTagsForResourceRequest.builder().resourceARN(arn).build()).tags();
        Check.that(tags.size() == 1 && tags.get(0).key().equals("c"), "tags of a resource", tags);
    }

    private void policies() {
        String policy = "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":{\"AWS\":\"111122223333\"},"
                + "\"Action\":[\"kinesis:DescribeStreamSummary\",\"kinesis:ListShards\",\"kinesis:PutRecord\"],\"Resource\":\"" + arn + "\"}]}";
        kinesis.putResourcePolicy(PutResourcePolicyRequest.builder().resourceARN(arn).policy(policy).build());
        String got = kinesis.getResourcePolicy(GetResourcePolicyRequest.builder().resourceARN(arn).build()).policy();
        Check.that(got.contains("111122223333"), "the policy", got);
        kinesis.deleteResourcePolicy(DeleteResourcePolicyRequest.builder().resourceARN(arn).build());
    }

    private void consumers() throws InterruptedException {
        Consumer c = kinesis.registerStreamConsumer(RegisterStreamConsumerRequest.builder().streamARN(arn).consumerName("java").build()).consumer();
        Check.that(c.consumerName().equals("java") && c.consumerARN().startsWith(arn + "/consumer/java:"), "the consumer", c);
        Check.eventually("the consumer is ACTIVE", () -> kinesis
                .describeStreamConsumer(DescribeStreamConsumerRequest.builder().consumerARN(c.consumerARN()).build())
                .consumerDescription().consumerStatus() == ConsumerStatus.ACTIVE);
        List<Consumer> all = kinesis.listStreamConsumers(ListStreamConsumersRequest.builder().streamARN(arn).build()).consumers();
        Check.that(all.size() == 1 && all.get(0).consumerARN().equals(c.consumerARN()), "consumers", all);
        Check.fails(ResourceInUseException.class, () -> kinesis.deleteStream(DeleteStreamRequest.builder().streamName(stream).build()));
        kinesis.deregisterStreamConsumer(DeregisterStreamConsumerRequest.builder().consumerARN(c.consumerARN()).build());
    }

    private void account() {
        DescribeLimitsResponse limits = kinesis.describeLimits(DescribeLimitsRequest.builder().build());
        Check.that(limits.openShardCount() >= 4 && limits.shardLimit() >= limits.openShardCount(), "limits", limits);
        kinesis.describeAccountSettings(DescribeAccountSettingsRequest.builder().build());
        UpdateAccountSettingsResponse on = kinesis.updateAccountSettings(UpdateAccountSettingsRequest.builder()
                .minimumThroughputBillingCommitment(c -> c.status(MinimumThroughputBillingCommitmentInputStatus.ENABLED)).build());
        Check.that(on.minimumThroughputBillingCommitment() != null, "account settings", on);
    }

    private void errors() {
        ResourceNotFoundException absent = Check.fails(ResourceNotFoundException.class, () -> kinesis.putRecord(
                PutRecordRequest.builder().streamName("absent").partitionKey("k").data(bytes(0)).build()));
        Check.that(absent.awsErrorDetails().errorMessage().equals("Stream absent under account 000000000000 not found.")
                && absent.statusCode() == 400 && absent.requestId() != null, "the error", absent);
        KinesisException key = Check.fails(KinesisException.class, () -> kinesis.putRecord(
                PutRecordRequest.builder().streamName(stream).partitionKey("x".repeat(257)).data(bytes(0)).build()));
        Check.that(key.awsErrorDetails().errorCode().equals("ValidationException"), "the error", key);
    }

    private void delete() throws InterruptedException {
        kinesis.deleteStream(DeleteStreamRequest.builder().streamName(stream).enforceConsumerDeletion(true).build());
        Check.eventually("the stream is gone", () -> {
            try {
                summary();
                return false;
            } catch (ResourceNotFoundException e) {
                return true;
            }
        });
    }
}
