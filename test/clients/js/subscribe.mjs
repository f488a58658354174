// Enhanced fan-out as the AWS SDK for JavaScript sees it, over HTTP/2. ENDPOINT
// says where the server is.
import assert from "node:assert/strict";
import {
  CreateStreamCommand, DescribeStreamConsumerCommand, DescribeStreamSummaryCommand, KinesisClient, ListShardsCommand,
  PutRecordCommand, RegisterStreamConsumerCommand, SplitShardCommand, SubscribeToShardCommand,
} from "@aws-sdk/client-kinesis";

const kinesis = new KinesisClient({ endpoint: process.env.ENDPOINT, region: "us-east-1" });
const StreamName = "js-fanout";

async function until(condition, what) {
  for (const deadline = Date.now() + 60_000; !(await condition()); ) {
    assert.ok(Date.now() < deadline, what);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

await kinesis.send(new CreateStreamCommand({ StreamName, ShardCount: 1 }));
let summary;
await until(async () => {
  summary = (await kinesis.send(new DescribeStreamSummaryCommand({ StreamName }))).StreamDescriptionSummary;
  return summary.StreamStatus === "ACTIVE";
}, "the stream becomes ACTIVE");
const { Consumer } = await kinesis.send(
  new RegisterStreamConsumerCommand({ StreamARN: summary.StreamARN, ConsumerName: "js" }));
const ConsumerARN = Consumer.ConsumerARN;
await until(async () => (await kinesis.send(new DescribeStreamConsumerCommand({ ConsumerARN })))
  .ConsumerDescription.ConsumerStatus === "ACTIVE", "the consumer becomes ACTIVE");

const sent = Array.from({ length: 100 }, (_, i) => `value-${i}`);
const found = [];

// Reads a shard to its end, or until everything has been found, and gives its children.
async function follow(ShardId, onFirst) {
  let StartingPosition = { Type: "TRIM_HORIZON" };
  for (;;) {
    const { EventStream } = await kinesis.send(new SubscribeToShardCommand({ ConsumerARN, ShardId, StartingPosition }));
    for await (const { SubscribeToShardEvent: event } of EventStream) {
      onFirst?.();
      onFirst = undefined;
      for (const r of event.Records) found.push(Buffer.from(r.Data).toString());
      if (event.ContinuationSequenceNumber === undefined) return event.ChildShards;
      if (found.length === sent.length) return [];
      StartingPosition = { Type: "AFTER_SEQUENCE_NUMBER", SequenceNumber: event.ContinuationSequenceNumber };
    }
  }
}

let produced;
const children = await follow("shardId-000000000000", () => {
  produced = (async () => {
    for (const [i, text] of sent.entries()) {
      await kinesis.send(new PutRecordCommand({ StreamName, Data: new TextEncoder().encode(text), PartitionKey: `key-${i}` }));
      if (i === 49) {
        await kinesis.send(new SplitShardCommand({
          StreamName, ShardToSplit: "shardId-000000000000", NewStartingHashKey: (2n ** 127n).toString(),
        }));
        await until(async () => (await kinesis.send(new ListShardsCommand({ StreamName }))).Shards.length === 3, "the shard is split");
      }
    }
  })();
});
assert.deepEqual(children.map((c) => c.ParentShards), [["shardId-000000000000"], ["shardId-000000000000"]]);
// Both children at once, over one connection.
await Promise.race([Promise.all(children.map((c) => follow(c.ShardId))),
  until(() => found.length === sent.length, "all records are found")]);
await produced;
assert.deepEqual([...found].sort(), [...sent].sort());
console.log(`@aws-sdk/client-kinesis: ${found.length} records through a split`);
process.exit(0); // the subscriptions to the open shards would go on
