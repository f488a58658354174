"""Consumes a stream with async-kinesis, which gives an application the records' data and nothing else.

ENDPOINT and STREAM say what. Each record is a line "value DATA" on the standard output. It ends with its standard input.
"""

import asyncio
import os
import sys

from kinesis import Consumer, StringProcessor


async def consume():
    async with Consumer(
        stream_name=os.environ["STREAM"],
        endpoint_url=os.environ["ENDPOINT"],
        region_name="us-east-1",
        processor=StringProcessor(),
        use_list_shards=True,
        sleep_time_no_records=0.2,
    ) as consumer:
        while True:  # an iteration ends when nothing comes for a while
            async for data in consumer:
                print("value", data, flush=True)


async def main():
    consumer = asyncio.create_task(consume())
    end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    done, _ = await asyncio.wait([consumer, end], return_when=asyncio.FIRST_COMPLETED)
    if consumer in done:
        consumer.result()  # raises what it failed with
    os._exit(0)  # nothing is left to be kept


asyncio.run(main())
