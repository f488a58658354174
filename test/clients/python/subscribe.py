"""Enhanced fan-out as boto3 sees it, over HTTP/1.1. ENDPOINT says where the server is."""

import os
import threading
import time

import boto3

kinesis = boto3.client("kinesis", endpoint_url=os.environ["ENDPOINT"])
NAME = "boto3-fanout"


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


kinesis.create_stream(StreamName=NAME, ShardCount=1)
kinesis.get_waiter("stream_exists").wait(StreamName=NAME, WaiterConfig={"Delay": 1})
arn = kinesis.describe_stream_summary(StreamName=NAME)["StreamDescriptionSummary"]["StreamARN"]
consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="boto3")["Consumer"]["ConsumerARN"]
until(
    lambda: kinesis.describe_stream_consumer(ConsumerARN=consumer)["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE",
    "the consumer becomes ACTIVE",
)
assert kinesis.describe_stream_summary(StreamName=NAME)["StreamDescriptionSummary"]["ConsumerCount"] == 1


def subscribe(shard, **position):
    stream = kinesis.subscribe_to_shard(ConsumerARN=consumer, ShardId=shard, StartingPosition=position)["EventStream"]
    for event in stream:
        yield event["SubscribeToShardEvent"]


SENT = [bytes([i]) + b"-\x00\xff" for i in range(100)]


def put(records):
    for data in records:  # all into the lowest hash keys
        kinesis.put_record(StreamName=NAME, Data=data, PartitionKey="k", ExplicitHashKey="0")


def produce():
    put(SENT[:50])
    kinesis.split_shard(StreamName=NAME, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127))
    until(lambda: len(kinesis.list_shards(StreamName=NAME)["Shards"]) == 3, "the shard is split")
    put(SENT[50:])


def follow(shard, found, enough):
    """Reads a shard until there is enough, and gives its children if it ended."""
    heard = time.monotonic()
    for event in subscribe(shard, Type="TRIM_HORIZON"):
        assert time.monotonic() - heard < 10, "an event at least every five seconds"
        heard = time.monotonic()
        found += [r["Data"] for r in event["Records"]]
        if "ContinuationSequenceNumber" not in event:
            assert event["ChildShards"] and not event["Records"], event
            return event["ChildShards"]
        assert "ChildShards" not in event, event
        if len(found) >= enough:
            return []


producer = threading.Thread(target=produce, daemon=True)
producer.start()
found = []
children = follow("shardId-000000000000", found, 51)
assert [c["ParentShards"] for c in children] == [["shardId-000000000000"]] * 2, children
follow(children[0]["ShardId"], found, 100)
assert found == SENT, found
producer.join()

listed = kinesis.get_paginator("list_stream_consumers").paginate(StreamARN=arn).build_full_result()["Consumers"]
assert [c["ConsumerName"] for c in listed] == ["boto3"], listed

# Deregistered while it is subscribed.
events = subscribe(children[1]["ShardId"], Type="LATEST")
next(events)
kinesis.deregister_stream_consumer(ConsumerARN=consumer)
try:
    for _ in events:
        pass
    raise AssertionError("the stream went on without its consumer")
except Exception as e:  # botocore's EventStreamError
    assert "ResourceNotFoundException" in str(e), e
print(f"boto3 {boto3.__version__}: {len(found)} records through a split")
