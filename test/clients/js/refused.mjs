// What the AWS SDK for JavaScript makes of being refused. ENDPOINT says where the
// server is.
import assert from "node:assert/strict";
import { AccessDeniedException, KinesisClient, ListShardsCommand } from "@aws-sdk/client-kinesis";

async function refused(name, accessKeyId, secretAccessKey, sessionToken) {
  const kinesis = new KinesisClient({
    endpoint: process.env.ENDPOINT, region: "us-east-1", maxAttempts: 1, credentials: { accessKeyId, secretAccessKey, sessionToken },
  });
  try {
    await kinesis.send(new ListShardsCommand({ StreamName: "orders" }));
  } catch (e) {
    assert.equal(e.name, name);
    assert.equal(e.$metadata.httpStatusCode, 400);
    return e;
  } finally {
    kinesis.destroy();
  }
  assert.fail(`${accessKeyId} is let in`);
}

await refused("InvalidSignatureException", "AKIDADMIN", "wrong");
await refused("UnrecognizedClientException", "nobody", "wrong");
await refused("UnrecognizedClientException", "ASIASESSION", "session/+secret", "wrong");
const denied = await refused("AccessDeniedException", "AKIDWRITER", "writer");
assert.ok(denied instanceof AccessDeniedException);
console.log("AWS SDK for JavaScript: refused as it should be");
