"""A long life in small: all sockets opened and closed again and again, by clients that never come back.

Whatever a connection leaves behind, in the server's memory or as keys in Redis, adds up and is seen.
"""

import asyncio

from redis.asyncio import Redis

from bench.cluster import PREFIX, Cluster
from bench.errors import BenchError
from bench.natives import MODES
from bench.options import Options
from bench.procs import rss_bytes, settle
from bench.report import Goal, Row
from imhelper.core import keys

WORK = "churn"
# Eighteen times 10,000 connections that leave 16 bytes each would be 3 MB.
GOAL_GROWTH = Goal(16, "ours")
GRACE_SECONDS = 1
# Until nobody is online any more: grace, and then what ends it, a bounded number at a time.
GONE_SECONDS = 60


async def measure(options: Options) -> list[Row]:
    """RSS of the server after the second, the middle and the last time, its growth a connection, and Redis's keys."""
    async with Cluster(settings={"IM_GRACE_SECONDS": str(GRACE_SECONDS)}) as cluster:
        server = cluster.servers[0].pid
        sizes: list[int] = []
        redis: list[tuple[int, int]] = []
        opened = 0
        async with Redis.from_url(cluster.redis_url) as client:
            keys_before = await client.dbsize()
            for time in range(options.churn_rounds):
                urls = await cluster.mint(f"passer-{time}-{index}" for index in range(options.churn))
                await cluster.loadgen.connect(urls, MODES[time % len(MODES)])
                opened += (await cluster.loadgen.stats())["sockets"]
                await cluster.loadgen.close()
                await _nobody_online(cluster)
                await settle(server)
                await asyncio.sleep(options.settle_seconds)
                sizes.append(rss_bytes(server))
                redis.append(await _left(client))
    return _rows(options, sizes, redis, keys_before, opened)


async def _nobody_online(cluster: Cluster) -> None:
    deadline = asyncio.get_running_loop().time() + GONE_SECONDS
    while left := await cluster.helper.get_online_count():
        if asyncio.get_running_loop().time() > deadline:
            raise BenchError(f"{left} clients are still online {GONE_SECONDS} s after all sockets were closed")
        await asyncio.sleep(0.1)


async def _left(redis: Redis) -> tuple[int, int]:
    """The number of keys, and Redis's memory without the events, which are kept for an hour."""
    used = int((await redis.info("memory"))["used_memory"])
    events = await redis.memory_usage(keys.events(keys.group_tag(PREFIX, 0)), samples=0) or 0
    return await redis.dbsize(), used - events


def _rows(options: Options, sizes: list[int], redis: list[tuple[int, int]], keys_before: int, opened: int) -> list[Row]:
    due = options.churn_rounds * options.churn
    case = f"{options.churn} connects and disconnects"
    second = min(2, len(sizes))
    middle = max(second, len(sizes) // 2)
    later = max(1, (len(sizes) - second) * options.churn)

    def row(what: str, unit: str, figure: float, compared: float | None = None, goal: Goal | None = None) -> Row:
        floor = [] if compared is None else [compared]
        return Row(WORK, what, unit, [figure], floor, goal, delivered=opened, expected=due)

    rows = [
        row(
            f"RSS of the server after {time} times {case} (floor: after {second})",
            "MB",
            size / 1e6,
            sizes[second - 1] / 1e6,
        )
        for time, size in ((time, sizes[time - 1]) for time in (middle, len(sizes)))
    ]
    growth = (sizes[-1] - sizes[second - 1]) / later
    kept = (redis[-1][1] - redis[second - 1][1]) / later
    span = f"from time {second} to {len(sizes)} of {case}"
    return [
        *rows,
        row(f"RSS that a connection left behind, {span}", "bytes", growth, goal=GOAL_GROWTH),
        row(f"Redis memory that a connection left behind, events apart, {span}", "bytes", kept),
        row(f"keys in Redis after {len(sizes)} times {case} (floor: before)", "1", redis[-1][0], keys_before),
    ]
