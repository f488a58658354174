import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

import com.google.common.util.concurrent.ListenableFuture;

import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * Puts COUNT user records with the KPL into STREAM, many to a record of the stream, and says of each where it is:
 *
 * <pre>
 *   put SHARD NUMBER KEY VALUE   user records of one aggregated record have one number
 * </pre>
 *
 * The KPL speaks TLS only. ENDPOINT is the server's address, TRUST the file of its certificate.
 */
public final class Producer {
    public static void main(String[] args) throws Exception {
        URI endpoint = URI.create(System.getenv("ENDPOINT"));
        KinesisProducer producer = new KinesisProducer(new KinesisProducerConfiguration()
                .setRegion("us-east-1").setKinesisEndpoint(endpoint.getHost()).setKinesisPort(endpoint.getPort())
                .setCaCertFile(System.getenv("TRUST")).setRecordMaxBufferedTime(200)
                // Of no use here. The discard port makes sure that nothing leaves the machine.
                .setMetricsLevel("none").setCloudwatchEndpoint("127.0.0.1").setCloudwatchPort(9)
                .setStsEndpoint("127.0.0.1").setStsPort(9));
        // The first record has the KPL learn the shards. Without them it doesn't aggregate.
        producer.addUserRecord(System.getenv("STREAM"), "first", ByteBuffer.wrap(new byte[] {'0'})).get();
        int count = Integer.parseInt(System.getenv("COUNT"));
        List<ListenableFuture<UserRecordResult>> results = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            results.add(producer.addUserRecord(System.getenv("STREAM"), "key-" + i % 40,
                    ByteBuffer.wrap(("value-" + i).getBytes(StandardCharsets.UTF_8))));
        }
        producer.flushSync();
        Set<String> records = new HashSet<>();
        StringBuilder said = new StringBuilder();
        for (int i = 0; i < count; i++) {
            UserRecordResult r = results.get(i).get();
            if (!r.isSuccessful()) {
                throw new AssertionError("value-" + i + " was not put: " + r.getAttempts());
            }
            records.add(r.getShardId() + r.getSequenceNumber());
            said.append("put ").append(r.getShardId()).append(' ').append(r.getSequenceNumber())
                    .append(" key-").append(i % 40).append(" value-").append(i).append('\n');
        }
        System.out.print(said);
        System.err.println(count + " user records in " + records.size() + " records");
        producer.destroy();
        System.exit(0);
    }
}
