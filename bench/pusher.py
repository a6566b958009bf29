"""A business service that sends as fast as it can, in a process of its own: `python -m bench.pusher REDIS_URL TARGETS`.

One JSON object a line on stdin ({"op", "count", "size", "in_flight"}), one on stdout when it is done. Ops that begin
with "helper" are the helper's, those that begin with "xadd" the floor: as many bare XADDs through redis-py in the same
style.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import redis
from redis.asyncio import BlockingConnectionPool, Redis

import imhelper.sync
from bench.cluster import PREFIX, payload
from imhelper import ImHelper

FLOOR_KEY = "bench-floor"
FLOOR_ENTRIES = 10_000
# What redis-py holds open for sends under way at once: a service bounds it, too.
POOL = 64
WAIT_SECONDS = 30


def one_by_one(send: Callable[[str], object], count: int, size: int) -> None:
    """Blocking sends, one after another."""
    for _ in range(count):
        send(payload(size))


async def at_once(send: Callable[[str], Awaitable[object]], count: int, size: int, in_flight: int) -> None:
    """`in_flight` callers, each of which sends again as soon as its send has returned. The first error ends it."""
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await send(payload(size))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(in_flight, count)):
            group.create_task(caller())


async def pipelined(client: Redis, count: int, size: int, in_flight: int) -> None:
    """XADDs in pipelines of `in_flight`, put together by hand: as cheap as redis-py can do it."""
    for first in range(0, count, in_flight):
        async with client.pipeline(transaction=False) as pipe:
            for _ in range(min(in_flight, count - first)):
                pipe.xadd(FLOOR_KEY, {"p": payload(size)}, maxlen=FLOOR_ENTRIES, approximate=True)
            await pipe.execute()


async def serve(redis_url: str, targets: Sequence[str], channel: str, receivers: Sequence[str]) -> None:
    """Serves commands until stdin ends."""
    draw = random.Random(1)
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=POOL, timeout=WAIT_SECONDS)
    blocking_floor = redis.Redis.from_url(redis_url)
    async with ImHelper(redis_url, prefix=PREFIX) as helper, Redis.from_pool(pool) as floor:
        with imhelper.sync.ImHelper(redis_url, prefix=PREFIX) as blocking:
            sends: dict[str, Callable[[str], Awaitable[object]]] = {
                "helper": lambda text: helper.send_message("bench", draw.choice(targets), text),
                "helper-channel": lambda text: helper.send_chan_message("bench", channel, text),
                "helper-many": lambda text: helper.send_message("bench", receivers, text),
                "xadd": lambda text: floor.xadd(FLOOR_KEY, {"p": text}, maxlen=FLOOR_ENTRIES, approximate=True),
            }
            blocking_sends: dict[str, Callable[[str], object]] = {
                "helper-blocking": lambda text: blocking.send_message("bench", draw.choice(targets), text),
                "xadd-blocking": lambda text: blocking_floor.xadd(
                    FLOOR_KEY, {"p": text}, maxlen=FLOOR_ENTRIES, approximate=True
                ),
            }
            print(json.dumps({"event": "ready"}), flush=True)
            while line := await asyncio.to_thread(sys.stdin.readline):
                order = json.loads(line)
                op, count, size = order["op"], order["count"], order["size"]
                start, cpu = time.monotonic(), time.process_time()
                if op in blocking_sends:
                    one_by_one(blocking_sends[op], count, size)
                elif op == "xadd-pipelined":
                    await pipelined(floor, count, size, order["in_flight"])
                else:
                    await at_once(sends[op], count, size, order["in_flight"])
                done = {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu}
                print(json.dumps({"event": "sent"} | done), flush=True)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    asyncio.run(
        serve(
            sys.argv[1],
            (folder / "targets").read_text().split(),
            sys.argv[3],
            (folder / "receivers").read_text().split(),
        )
    )
