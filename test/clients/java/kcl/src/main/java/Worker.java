import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;

import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.exceptions.KinesisClientLibException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.MetricsLevel;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.RetrievalConfig;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * One worker of a KCL application. It says on its standard output what it does, one event a line:
 *
 * <pre>
 *   leased SHARD    the shard's processor begins
 *   record SHARD NUMBER SUB KEY VALUE   before it is checkpointed; SUB is its place in an aggregated record
 *   ended SHARD     the shard's end was reached and checkpointed
 *   lost SHARD      another worker has the shard now
 * </pre>
 *
 * The end of its standard input stops it. The library's log goes to the standard error.
 *
 * <p>ENDPOINT and DYNAMODB are the services' addresses, STREAM, APPLICATION and WORKER are names, and RETRIEVAL is
 * polling or fanout. Times are short, so that a test sees a dead worker's leases taken within seconds.
 */
public final class Worker {
    private static final PrintStream out = System.out;

    public static void main(String[] args) throws Exception {
        KinesisAsyncClient kinesis = KinesisClientUtil.createKinesisAsyncClient(
                KinesisAsyncClient.builder().endpointOverride(URI.create(env("ENDPOINT"))).region(Region.US_EAST_1));
        DynamoDbAsyncClient dynamo = DynamoDbAsyncClient.builder()
                .endpointOverride(URI.create(env("DYNAMODB"))).region(Region.US_EAST_1).build();
        // Never called: metrics are off. The discard port makes sure of it.
        CloudWatchAsyncClient cloudWatch = CloudWatchAsyncClient.builder()
                .endpointOverride(URI.create("http://127.0.0.1:9")).region(Region.US_EAST_1).build();
        SingleStreamTracker stream = new SingleStreamTracker(env("STREAM"),
                InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON));
        ConfigsBuilder configs = new ConfigsBuilder(
                stream, env("APPLICATION"), kinesis, dynamo, cloudWatch, env("WORKER"), Processor::new);
        RetrievalConfig retrieval = configs.retrievalConfig();
        if (env("RETRIEVAL").equals("fanout")) {
            retrieval.retrievalSpecificConfig(
                    new FanOutConfig(kinesis).streamName(env("STREAM")).applicationName(env("APPLICATION")));
        } else {
            retrieval.retrievalSpecificConfig(
                    new PollingConfig(env("STREAM"), kinesis).idleTimeBetweenReadsInMillis(250));
        }
        Scheduler scheduler = new Scheduler(
                configs.checkpointConfig(),
                configs.coordinatorConfig().parentShardPollIntervalMillis(1000),
                Tuning.shortTimes(configs.leaseManagementConfig().failoverTimeMillis(5000).shardSyncIntervalMillis(5000)
                        .leasesRecoveryAuditorExecutionFrequencyMillis(5000)),
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsLevel(MetricsLevel.NONE).metricsFactory(new NullMetricsFactory()),
                configs.processorConfig(),
                retrieval);
        Thread run = new Thread(scheduler, "scheduler");
        run.start();
        while (System.in.read() >= 0) { // until its end
        }
        // Not startGracefulShutdown: KCL 2 then waits for what it still remembers of ended shards.
        scheduler.shutdown();
        run.join();
        System.exit(0); // the clients' threads are not all daemons
    }

    private static String env(String name) {
        String value = System.getenv(name);
        if (value == null) {
            throw new IllegalArgumentException(name + " is not set");
        }
        return value;
    }

    /** Writes an event as one line, whole: processors of several shards write at once. */
    private static void say(CharSequence event) {
        synchronized (out) {
            out.append(event).append('\n').flush();
        }
    }

    private static final class Processor implements ShardRecordProcessor {
        private String shard;

        @Override
        public void initialize(InitializationInput in) {
            shard = in.shardId();
            say("leased " + shard);
        }

        @Override
        public void processRecords(ProcessRecordsInput in) {
            StringBuilder events = new StringBuilder();
            for (KinesisClientRecord r : in.records()) {
                events.append(events.length() == 0 ? "" : "\n").append("record ").append(shard).append(' ')
                        .append(r.sequenceNumber()).append(' ').append(r.subSequenceNumber()).append(' ')
                        .append(r.partitionKey()).append(' ')
                        .append(StandardCharsets.UTF_8.decode(r.data()));
            }
            if (events.length() > 0) {
                say(events);
            }
            checkpoint(in.checkpointer());
        }

        @Override
        public void leaseLost(LeaseLostInput in) {
            say("lost " + shard);
        }

        @Override
        public void shardEnded(ShardEndedInput in) {
            if (checkpoint(in.checkpointer())) {
                say("ended " + shard);
            }
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput in) {
            checkpoint(in.checkpointer());
        }

        /** A checkpoint that fails is made up for by the next one; at a shard's end the library calls again. */
        private boolean checkpoint(RecordProcessorCheckpointer checkpointer) {
            try {
                checkpointer.checkpoint();
                return true;
            } catch (KinesisClientLibException e) {
                System.err.println(shard + ": checkpoint: " + e);
                return false;
            }
        }
    }
}
