// Consumes a stream with lifion-kinesis, by polling. It takes its
// settings from the variables of ../java/kcl's Worker, says the same on its
// standard output, and ends with its standard input.
const Kinesis = require("lifion-kinesis");

const { APPLICATION, DYNAMODB, ENDPOINT, STREAM } = process.env;
const say = (level) => (...args) => console.error(level, ...args);

const kinesis = new Kinesis({
  streamName: STREAM, endpoint: ENDPOINT, region: "us-east-1", consumerGroup: APPLICATION,
  dynamoDb: { endpoint: DYNAMODB, region: "us-east-1", tags: { owner: "tests" } },
  createStreamIfNeeded: false, initialPositionInStream: "TRIM_HORIZON", leaseAcquisitionInterval: 2000,
  shouldParseJson: false,
  logger: { debug: say("debug"), warn: say("warn"), error: say("error") },
});
kinesis.on("data", ({ records, shardId }) => {
  for (const { data, partitionKey, sequenceNumber } of records) {
    console.log(`record ${shardId} ${sequenceNumber} 0 ${partitionKey} ${data}`);
  }
});
kinesis.on("error", (error) => { console.error(error); process.exit(1); });
// Not stopConsumer: it fails once a shard has ended.
process.stdin.resume().on("end", () => process.exit(0));
kinesis.startConsumer().catch((error) => { console.error(error); process.exit(1); });
