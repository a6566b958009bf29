"""A business service that sends, in a process of its own so that its CPU is the helper's: `python -m bench.sender`.

One JSON object a line on stdin ({"op": "helper" | "xadd", "count", "rate", "size", "patience"}), one on stdout when it
is done, with how many were sent. `xadd` is the floor of a helper: the same pace, a bare XADD by redis-py a message.
"""

import asyncio
import json
import math
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from redis.asyncio import Redis

from bench.cluster import PREFIX, payload
from imhelper import ImHelper

# A service under load has many requests at once, but a run must not pile them up without bound.
IN_FLIGHT = 256
TICK_SECONDS = 0.001
FLOOR_KEY = "bench-floor"
FLOOR_ENTRIES = 10_000


async def paced(
    send: Callable[[str], Awaitable[object]], count: int, rate: float, size: int, patience: float = math.inf
) -> int:
    """Calls `send` with `count` stamped payloads, `rate` a second; 0: one after another. Returns how many it sent.

    What is due is sent once in a millisecond. A message that is due while IN_FLIGHT are unanswered waits; being late,
    it sends as fast as it can, and stops after `patience` seconds. The first error ends it.
    """
    if rate == 0:
        for _ in range(count):
            await send(payload(size))
        return count
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one() -> None:
        try:
            await send(payload(size))
        finally:
            slots.release()

    start, sent = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while sent < count and (elapsed := time.monotonic() - start) < patience:
            due = min(int(elapsed * rate) + 1, count, sent + IN_FLIGHT)
            for _ in range(due - sent):
                await slots.acquire()
                group.create_task(one())
            sent = due
            await asyncio.sleep(TICK_SECONDS)
    return sent


async def serve(redis_url: str, targets: Sequence[str]) -> None:
    """Serves commands until stdin ends. `targets`: client ids that messages are spread over."""
    draw = random.Random(1)
    async with (
        ImHelper(redis_url, prefix=PREFIX) as helper,
        Redis.from_url(redis_url, max_connections=IN_FLIGHT) as redis,
    ):
        sends: dict[str, Callable[[str], Awaitable[object]]] = {
            "helper": lambda text: helper.send_message("bench", draw.choice(targets), text),
            "xadd": lambda text: redis.xadd(FLOOR_KEY, {"p": text}, maxlen=FLOOR_ENTRIES, approximate=True),
        }
        await redis.ping()
        print(json.dumps({"event": "ready"}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            start = time.monotonic()
            patience = order.get("patience", math.inf)
            sent = await paced(sends[order["op"]], order["count"], order["rate"], order["size"], patience)
            print(json.dumps({"event": "sent", "sent": sent, "seconds": time.monotonic() - start}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]).read_text().split()))
