"""The life of a stream as boto3 sees it. ENDPOINT says where the server is."""

import os
import time
from datetime import datetime, timedelta, timezone

import boto3
from botocore.config import Config

kinesis = boto3.client(
    "kinesis", endpoint_url=os.environ["ENDPOINT"], config=Config(retries={"mode": "standard", "max_attempts": 5})
)
NAME = "boto3"


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def status():
    return kinesis.describe_stream_summary(StreamName=NAME)["StreamDescriptionSummary"]["StreamStatus"]


kinesis.create_stream(StreamName=NAME, ShardCount=2)
until(lambda: status() == "ACTIVE", "the stream becomes ACTIVE")
kinesis.get_waiter("stream_exists").wait(StreamName=NAME)

description = kinesis.describe_stream(StreamName=NAME)["StreamDescription"]
assert len(description["Shards"]) == 2 and description["HasMoreShards"] is False, description
assert description["RetentionPeriodHours"] == 24, description
age = datetime.now(timezone.utc) - description["StreamCreationTimestamp"]
assert timedelta(seconds=-5) < age < timedelta(minutes=5), age
ranges = sorted(
    (int(s["HashKeyRange"]["StartingHashKey"]), int(s["HashKeyRange"]["EndingHashKey"])) for s in description["Shards"]
)
assert ranges == [(0, 2**127 - 1), (2**127, 2**128 - 1)], ranges

# Every byte value, and text beyond ASCII in the key.
records = [{"Data": bytes(range(256)) + str(i).encode(), "PartitionKey": f"schlüssel-{i % 7}"} for i in range(50)]
answer = kinesis.put_records(StreamName=NAME, Records=records)
assert answer["FailedRecordCount"] == 0 and len(answer["Records"]) == 50, answer
one = kinesis.put_record(StreamName=NAME, Data=b"one", PartitionKey="k", ExplicitHashKey=str(2**128 - 1))
assert one["ShardId"] == "shardId-000000000001", one


def read(shard, **start):
    iterator = kinesis.get_shard_iterator(StreamName=NAME, ShardId=shard, **start)["ShardIterator"]
    found = []
    while iterator:
        page = kinesis.get_records(ShardIterator=iterator, Limit=7)
        found += page["Records"]
        iterator = page.get("NextShardIterator")
        if not page["Records"] and page["MillisBehindLatest"] == 0:
            break
    return found


shards = [s["ShardId"] for s in kinesis.list_shards(StreamName=NAME)["Shards"]]
found = {shard: read(shard, ShardIteratorType="TRIM_HORIZON") for shard in shards}
assert sum(map(len, found.values())) == 51, {shard: len(r) for shard, r in found.items()}
for shard, got in found.items():
    numbers = [int(r["SequenceNumber"]) for r in got]
    assert numbers == sorted(set(numbers)), shard
placed = {(shard, r["SequenceNumber"]): r for shard, got in found.items() for r in got}
for sent, stored in zip(records, answer["Records"]):
    got = placed[stored["ShardId"], stored["SequenceNumber"]]
    assert got["Data"] == sent["Data"] and got["PartitionKey"] == sent["PartitionKey"], got
    assert abs(datetime.now(timezone.utc) - got["ApproximateArrivalTimestamp"]) < timedelta(minutes=5), got

last = shards[1]
assert [r["Data"] for r in read(last, ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=one["SequenceNumber"])] == [b"one"]
assert read(last, ShardIteratorType="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=one["SequenceNumber"]) == []
assert read(last, ShardIteratorType="LATEST") == []
hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
assert len(read(last, ShardIteratorType="AT_TIMESTAMP", Timestamp=hour_ago)) == len(found[last])

for i in range(12):
    kinesis.create_stream(StreamName=f"{NAME}-{i:02}", ShardCount=1)
pages = list(kinesis.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 5}))
names = [name for page in pages for name in page["StreamNames"]]
assert len(pages) >= 3 and names == sorted(names) and len(names) == 13, (len(pages), names)

try:
    kinesis.put_record(StreamName="absent", Data=b"x", PartitionKey="x")
    raise AssertionError("a put into no stream succeeds")
except kinesis.exceptions.ResourceNotFoundException as e:
    assert e.response["Error"]["Message"] == "Stream absent under account 000000000000 not found.", e
try:
    kinesis.put_record(StreamName=NAME, Data=b"x", PartitionKey="x" * 257)
    raise AssertionError("a key of 257 characters is taken")
except kinesis.exceptions.ClientError as e:
    assert e.response["Error"]["Code"] == "ValidationException", e

kinesis.delete_stream(StreamName=NAME)


def gone():
    try:
        return status() is None
    except kinesis.exceptions.ResourceNotFoundException:
        return True


until(gone, "the stream is deleted")
print(f"boto3 {boto3.__version__}: ok")
