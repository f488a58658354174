import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisClient;
import software.amazon.awssdk.services.kinesis.model.*;

/**
 * Enhanced fan-out with the asynchronous client: a registered consumer subscribes to a shard, gets what is there and
 * what is put meanwhile, follows a split to the shard's end, and goes on at a child and after a sequence number.
 */
public final class FanOut {
    private static final String STREAM = "java-fanout";

    private final KinesisAsyncClient async = Clients.async();
    private final KinesisClient kinesis = Clients.blocking(async);
    private final Set<String> got = new HashSet<>();
    private String consumer;

    public static void main(String[] args) throws Exception {
        new FanOut().run();
        System.out.println(Clients.operations);
        System.exit(0); // the client's threads may linger
    }

    /** One subscription: its events, and how it ended. */
    private final class Subscription {
        final BlockingQueue<SubscribeToShardEvent> events = new LinkedBlockingQueue<>();
        final CompletableFuture<Void> ended;

        Subscription(String shard, StartingPosition from) {
            ended = async.subscribeToShard(
                    SubscribeToShardRequest.builder().consumerARN(consumer).shardId(shard).startingPosition(from).build(),
                    SubscribeToShardResponseHandler.builder()
                            .subscriber(SubscribeToShardResponseHandler.Visitor.builder()
                                    .onSubscribeToShardEvent(events::add).build())
                            .build());
        }

        /** Takes events until one is the last of its kind, and gives that one. */
        SubscribeToShardEvent until(String what, java.util.function.Predicate<SubscribeToShardEvent> last) throws InterruptedException {
            for (;;) {
                SubscribeToShardEvent e = events.poll(60, TimeUnit.SECONDS);
                Check.that(e != null, what, ended);
                e.records().forEach(r -> got.add(r.data().asUtf8String()));
                boolean open = !e.hasChildShards();
                Check.that(open == (e.continuationSequenceNumber() != null), "a continuation while the shard is open", e);
                if (last.test(e)) {
                    return e;
                }
            }
        }
    }

    private void put(int from, int to) {
        for (int i = from; i < to; i++) {
            kinesis.putRecord(PutRecordRequest.builder().streamName(STREAM).partitionKey("key-" + i)
                    .data(SdkBytes.fromUtf8String("value-" + i)).build());
        }
    }

    private static StartingPosition at(ShardIteratorType type, String number) {
        return StartingPosition.builder().type(type).sequenceNumber(number).build();
    }

    private void run() throws Exception {
        kinesis.createStream(CreateStreamRequest.builder().streamName(STREAM).shardCount(1).build());
        awaitActive();
        String arn = kinesis.describeStreamSummary(DescribeStreamSummaryRequest.builder().streamName(STREAM).build())
                .streamDescriptionSummary().streamARN();
        consumer = kinesis.registerStreamConsumer(RegisterStreamConsumerRequest.builder().streamARN(arn).consumerName("java").build())
                .consumer().consumerARN();
        Check.eventually("the consumer is ACTIVE", () -> kinesis
                .describeStreamConsumer(DescribeStreamConsumerRequest.builder().consumerARN(consumer).build())
                .consumerDescription().consumerStatus() == ConsumerStatus.ACTIVE);

        put(0, 50);
        Subscription first = new Subscription("shardId-000000000000", at(ShardIteratorType.TRIM_HORIZON, null));
        first.until("what was there", e -> got.size() == 50);
        put(50, 100);
        first.until("what was put meanwhile", e -> got.size() == 100);
        String continuation = first.until("an event without records", e -> e.records().isEmpty() && e.millisBehindLatest() == 0)
                .continuationSequenceNumber();
        kinesis.splitShard(SplitShardRequest.builder().streamName(STREAM).shardToSplit("shardId-000000000000")
                .newStartingHashKey("170141183460469231731687303715884105728").build());
        SubscribeToShardEvent end = first.until("the shard's end", SubscribeToShardEvent::hasChildShards);
        Check.that(end.childShards().size() == 2, "the children", end);
        first.ended.get(60, TimeUnit.SECONDS);
        awaitActive();
        put(100, 150);
        for (ChildShard child : end.childShards()) {
            Check.that(child.parentShards().equals(List.of("shardId-000000000000")), "the parent", child);
            new Subscription(child.shardId(), at(ShardIteratorType.TRIM_HORIZON, null))
                    .until("a child's records", e -> !e.records().isEmpty() && e.millisBehindLatest() == 0);
        }
        Check.that(got.size() == 150, "records of all shards", got.size());

        // A consumer subscribes to a shard again after five seconds at the earliest.
        TimeUnit.SECONDS.sleep(6);
        got.clear();
        Subscription again = new Subscription("shardId-000000000000", at(ShardIteratorType.AFTER_SEQUENCE_NUMBER, continuation));
        again.until("the end again", SubscribeToShardEvent::hasChildShards);
        Check.that(got.isEmpty(), "nothing is behind the continuation", got);
        again.ended.get(60, TimeUnit.SECONDS);
        kinesis.deleteStream(DeleteStreamRequest.builder().streamName(STREAM).enforceConsumerDeletion(true).build());
    }

    private void awaitActive() throws InterruptedException {
        Check.eventually(STREAM + " is ACTIVE", () -> kinesis
                .describeStreamSummary(DescribeStreamSummaryRequest.builder().streamName(STREAM).build())
                .streamDescriptionSummary().streamStatus() == StreamStatus.ACTIVE);
    }
}
