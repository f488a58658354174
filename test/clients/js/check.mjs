// The life of a stream as the AWS SDK for JavaScript sees it. ENDPOINT says
// where the server is. The SDK's Kinesis client speaks HTTP/2.
import assert from "node:assert/strict";
import {
  CreateStreamCommand, DeleteStreamCommand, DescribeStreamSummaryCommand, GetRecordsCommand, GetShardIteratorCommand,
  KinesisClient, ListShardsCommand, PutRecordCommand, PutRecordsCommand, ResourceNotFoundException,
} from "@aws-sdk/client-kinesis";

const kinesis = new KinesisClient({ endpoint: process.env.ENDPOINT, region: "us-east-1" });
const StreamName = "js-sdk";
const bytes = (text) => new TextEncoder().encode(text);

async function until(condition, what) {
  for (const deadline = Date.now() + 60_000; !(await condition()); ) {
    assert.ok(Date.now() < deadline, what);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const status = async () =>
  (await kinesis.send(new DescribeStreamSummaryCommand({ StreamName }))).StreamDescriptionSummary.StreamStatus;

await kinesis.send(new CreateStreamCommand({ StreamName, ShardCount: 2 }));
await until(async () => (await status()) === "ACTIVE", "the stream becomes ACTIVE");

const sent = Array.from({ length: 100 }, (_, i) => ({ Data: bytes(`value-${i}`), PartitionKey: `key-${i % 9}` }));
const put = await kinesis.send(new PutRecordsCommand({ StreamName, Records: sent }));
assert.equal(put.FailedRecordCount, 0);
assert.equal(put.Records.length, 100);
// Many calls at once over one HTTP/2 connection.
const more = await Promise.all(
  Array.from({ length: 50 }, (_, i) =>
    kinesis.send(new PutRecordCommand({ StreamName, Data: bytes(`single-${i}`), PartitionKey: `single-${i}` }))),
);
assert.equal(new Set(more.map((r) => r.ShardId + r.SequenceNumber)).size, 50);

const found = new Map();
for (const { ShardId } of (await kinesis.send(new ListShardsCommand({ StreamName }))).Shards) {
  let { ShardIterator } = await kinesis.send(
    new GetShardIteratorCommand({ StreamName, ShardId, ShardIteratorType: "TRIM_HORIZON" }));
  for (;;) {
    const page = await kinesis.send(new GetRecordsCommand({ ShardIterator, Limit: 40 }));
    for (const r of page.Records) found.set(ShardId + r.SequenceNumber, r);
    ShardIterator = page.NextShardIterator;
    if (page.Records.length === 0 && page.MillisBehindLatest === 0) break;
  }
}
assert.equal(found.size, 150);
put.Records.forEach((r, i) => {
  const got = found.get(r.ShardId + r.SequenceNumber);
  assert.deepEqual(Buffer.from(got.Data), Buffer.from(sent[i].Data));
  assert.equal(got.PartitionKey, sent[i].PartitionKey);
  assert.ok(Math.abs(Date.now() - got.ApproximateArrivalTimestamp) < 300_000);
});

await assert.rejects(
  kinesis.send(new PutRecordCommand({ StreamName: "absent", Data: bytes("x"), PartitionKey: "x" })), ResourceNotFoundException);
await kinesis.send(new DeleteStreamCommand({ StreamName }));
await until(
  () => status().then(() => false, (e) => e instanceof ResourceNotFoundException), "the stream is deleted");
kinesis.destroy();
console.log("AWS SDK for JavaScript: ok");
