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
# Of the second half: by then the allocator has met the most that it has to hold at once. 16 bytes would be 1.6 MB.
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
    last = len(sizes)
    second = min(2, last)
    middle = max(second, last // 2)

    def row(what: str, unit: str, figure: float, compared: float | None = None, goal: Goal | None = None) -> Row:
        floor = [] if compared is None else [compared]
        return Row(WORK, what, unit, [figure], floor, goal, delivered=opened, expected=due)

    def a_connection(before: int, after: int, times: int) -> float:
        return (after - before) / max(1, times * options.churn)

    def after(time: int) -> Row:
        what = f"RSS of the server after {time} times {case} (floor: after {second})"
        return row(what, "MB", sizes[time - 1] / 1e6, sizes[second - 1] / 1e6)

    def growth(since: int, goal: Goal | None = None) -> Row:
        what = f"RSS that a connection left behind, from time {since} to {last} of {case}"
        return row(what, "bytes", a_connection(sizes[since - 1], sizes[-1], last - since), goal=goal)

    kept = a_connection(redis[second - 1][1], redis[-1][1], last - second)
    each = f"RSS of the server after each of {last} times {case}"
    return [
        Row(WORK, each, "MB", [size / 1e6 for size in sizes], delivered=opened, expected=due),
        after(middle),
        after(last),
        growth(second),
        growth(middle, GOAL_GROWTH),
        row(
            f"Redis memory that a connection left behind, events apart, time {second} to {last} of {case}",
            "bytes",
            kept,
        ),
        row(f"keys in Redis after {last} times {case} (floor: before)", "1", redis[-1][0], keys_before),
    ]
