"""A shard's limits as boto3 meets them. ENDPOINT says where the server is, which
holds shards to AWS's limits and lets stream "s" have two of them."""

import os
import time

import boto3
from botocore.config import Config

kinesis = boto3.client(
    "kinesis", endpoint_url=os.environ["ENDPOINT"], config=Config(retries={"mode": "standard", "total_max_attempts": 1})
)
NAME, MIB = "s", 1 << 20
SHARDS = ["shardId-000000000000", "shardId-000000000001"]
KEYS = ["0", str(2**127)]  # explicit hash keys of the two
EXCEEDED = kinesis.exceptions.ProvisionedThroughputExceededException


def text(shard):
    return f"Rate exceeded for shard {SHARDS[shard]} in stream {NAME} under account 000000000000."


def refused(call, shard, what):
    """Calls until a call is refused: a slow machine may let the limit's time pass."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            call()
        except EXCEEDED as e:
            assert e.response["ResponseMetadata"]["HTTPStatusCode"] == 400, e.response
            assert e.response["Error"]["Message"] == text(shard), e.response
            return
    raise AssertionError(what)


# PutRecords: 450 records of 5 KiB for one shard, of which 1 MiB passes, and 50
# for the other between them. The first of a shard are stored.
data = [i.to_bytes(2, "big") * 2559 + b"d" for i in range(500)]
shard_of = [1 if i % 10 == 3 else 0 for i in range(500)]
records = [{"Data": d, "PartitionKey": "k", "ExplicitHashKey": KEYS[s]} for d, s in zip(data, shard_of)]
answer = kinesis.put_records(StreamName=NAME, Records=records)
fits = MIB // 5120
assert answer["FailedRecordCount"] == 450 - fits, answer["FailedRecordCount"]
assert len(answer["Records"]) == 500
of_first = 0
for i, r in enumerate(answer["Records"]):
    stored = shard_of[i] == 1 or of_first < fits
    of_first += shard_of[i] == 0
    if stored:
        assert r["ShardId"] == SHARDS[shard_of[i]] and "ErrorCode" not in r, (i, r)
    else:
        assert r == {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": text(0)}, (i, r)

# 1,000 records a second, whatever the machine's speed.
began, accepted = time.monotonic(), 0
for _ in range(4):
    tiny = [{"Data": b"t", "PartitionKey": "k", "ExplicitHashKey": KEYS[1]}] * 500
    accepted += 500 - kinesis.put_records(StreamName=NAME, Records=tiny)["FailedRecordCount"]
assert accepted <= 1000 + 1000 * (time.monotonic() - began), accepted
assert accepted > 0

# PutRecord: as an error of the call. Half a MiB each.
large = 0


def put():
    global large
    kinesis.put_record(StreamName=NAME, Data=b"x" * (MIB // 2), PartitionKey="k", ExplicitHashKey=KEYS[0])
    large += 1


refused(put, 0, "PutRecord is never refused")

# What was answered as stored is there, once and in order, and nothing else.
iterator = kinesis.get_shard_iterator(StreamName=NAME, ShardId=SHARDS[0], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
found = []
while True:
    try:
        page = kinesis.get_records(ShardIterator=iterator)
    except EXCEEDED as e:  # a call in three seconds of 5 MiB
        assert e.response["Error"]["Message"] == text(0), e.response
        time.sleep(0.2)
        continue
    found += [r["Data"] for r in page["Records"]]
    iterator = page["NextShardIterator"]
    if page["MillisBehindLatest"] == 0:
        break
want = [d for d, s in zip(data, shard_of) if s == 0][:fits] + [b"x" * (MIB // 2)] * large
assert found == want, (len(found), len(want))

# GetRecords and GetShardIterator: five calls a second.
refused(lambda: kinesis.get_records(ShardIterator=iterator, Limit=1), 0, "GetRecords is never refused")
for start in (
    {"ShardIteratorType": "LATEST"},
    {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": answer["Records"][3]["SequenceNumber"]},
):
    refused(
        lambda: kinesis.get_shard_iterator(StreamName=NAME, ShardId=SHARDS[1], **start),
        1,
        "GetShardIterator is never refused",
    )

# After 10 MiB a shard is shut for five seconds. One record has them.
kinesis.create_stream(StreamName="large", ShardCount=1, MaxRecordSizeInKiB=10240)
while kinesis.describe_stream_summary(StreamName="large")["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
    time.sleep(0.05)
kinesis.put_record(StreamName="large", Data=b"x" * (10 * MIB - 1), PartitionKey="k")
iterator = kinesis.get_shard_iterator(StreamName="large", ShardId="0", ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
for attempt in range(10):
    try:
        began = time.monotonic()
        page = kinesis.get_records(ShardIterator=iterator)
    except EXCEEDED:
        time.sleep(0.5)
        continue
    assert len(page["Records"]) == 1 and len(page["Records"][0]["Data"]) == 10 * MIB - 1
    try:
        kinesis.get_records(ShardIterator=page["NextShardIterator"])
    except EXCEEDED:
        break
    assert time.monotonic() - began > 5, "not refused within five seconds"
else:
    raise AssertionError("GetRecords is never refused after 10 MiB")

print(f"boto3 {boto3.__version__}: throttled in PutRecords, PutRecord, GetRecords and GetShardIterator")
