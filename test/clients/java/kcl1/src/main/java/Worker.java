import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

import com.amazonaws.auth.DefaultAWSCredentialsProviderChain;
import com.amazonaws.services.kinesis.clientlibrary.exceptions.InvalidStateException;
import com.amazonaws.services.kinesis.clientlibrary.exceptions.KinesisClientLibDependencyException;
import com.amazonaws.services.kinesis.clientlibrary.exceptions.ShutdownException;
import com.amazonaws.services.kinesis.clientlibrary.exceptions.ThrottlingException;
import com.amazonaws.services.kinesis.clientlibrary.interfaces.IRecordProcessorCheckpointer;
import com.amazonaws.services.kinesis.clientlibrary.interfaces.v2.IRecordProcessor;
import com.amazonaws.services.kinesis.clientlibrary.lib.worker.InitialPositionInStream;
import com.amazonaws.services.kinesis.clientlibrary.lib.worker.KinesisClientLibConfiguration;
import com.amazonaws.services.kinesis.clientlibrary.lib.worker.ShutdownReason;
import com.amazonaws.services.kinesis.clientlibrary.types.InitializationInput;
import com.amazonaws.services.kinesis.clientlibrary.types.ProcessRecordsInput;
import com.amazonaws.services.kinesis.clientlibrary.types.ShutdownInput;
import com.amazonaws.services.kinesis.clientlibrary.types.UserRecord;
import com.amazonaws.services.kinesis.metrics.interfaces.MetricsLevel;
import com.amazonaws.services.kinesis.model.Record;

/**
 * One worker of an application of the KCL 1, which stands on the SDK for Java 1. It takes its settings from the same
 * variables as the worker of the KCL 2 and 3 (../kcl), and says the same on its standard output.
 */
public final class Worker {
    private static final PrintStream out = System.out;

    public static void main(String[] args) throws Exception {
        KinesisClientLibConfiguration configuration = new KinesisClientLibConfiguration(
                System.getenv("APPLICATION"), System.getenv("STREAM"), new DefaultAWSCredentialsProviderChain(), System.getenv("WORKER"))
                .withKinesisEndpoint(System.getenv("ENDPOINT"))
                .withDynamoDBEndpoint(System.getenv("DYNAMODB"))
                .withRegionName("us-east-1")
                .withMetricsLevel(MetricsLevel.NONE)
                .withInitialPositionInStream(InitialPositionInStream.TRIM_HORIZON)
                .withFailoverTimeMillis(5000)
                .withShardSyncIntervalMillis(5000)
                .withParentShardPollIntervalMillis(1000)
                .withIdleTimeBetweenReadsInMillis(250)
                .withLeasesRecoveryAuditorExecutionFrequencyMillis(5000);
        com.amazonaws.services.kinesis.clientlibrary.lib.worker.Worker worker =
                new com.amazonaws.services.kinesis.clientlibrary.lib.worker.Worker.Builder()
                        .config(configuration).recordProcessorFactory(Processor::new).build();
        Thread run = new Thread(worker, "worker");
        run.start();
        while (System.in.read() >= 0) { // until its end
        }
        worker.shutdown();
        run.join();
        System.exit(0); // the clients' threads are not all daemons
    }

    /** Writes an event as one line, whole: processors of several shards write at once. */
    private static void say(CharSequence event) {
        synchronized (out) {
            out.append(event).append('\n').flush();
        }
    }

    private static final class Processor implements IRecordProcessor {
        private String shard;

        @Override
        public void initialize(InitializationInput in) {
            shard = in.getShardId();
            say("leased " + shard);
        }

        @Override
        public void processRecords(ProcessRecordsInput in) {
            StringBuilder events = new StringBuilder();
            for (Record r : in.getRecords()) {
                long sub = r instanceof UserRecord ? ((UserRecord) r).getSubSequenceNumber() : 0;
                events.append(events.length() == 0 ? "" : "\n").append("record ").append(shard).append(' ')
                        .append(r.getSequenceNumber()).append(' ').append(sub).append(' ')
                        .append(r.getPartitionKey()).append(' ')
                        .append(StandardCharsets.UTF_8.decode(r.getData()));
            }
            if (events.length() > 0) {
                say(events);
                checkpoint(in.getCheckpointer());
            }
        }

        @Override
        public void shutdown(ShutdownInput in) {
            if (in.getShutdownReason() != ShutdownReason.TERMINATE) {
                say("lost " + shard);
            } else if (checkpoint(in.getCheckpointer())) {
                say("ended " + shard);
            }
        }

        /** A checkpoint that fails is made up for by the next one; at a shard's end the library calls again. */
        private boolean checkpoint(IRecordProcessorCheckpointer checkpointer) {
            try {
                checkpointer.checkpoint();
                return true;
            } catch (InvalidStateException | KinesisClientLibDependencyException | ShutdownException | ThrottlingException e) {
                System.err.println(shard + ": checkpoint: " + e);
                return false;
            }
        }
    }
}
