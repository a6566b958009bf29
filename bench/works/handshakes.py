"""Handshakes with token, presence and 101, a CPU-second of the server; the floor does the 101 and nothing else.

Sockets of earlier rounds stay open, so that no round pays for the goodbyes of the one before.
"""

from bench.cluster import Cluster
from bench.options import Options
from bench.procs import cpu_seconds, settle
from bench.report import Goal, Row

GOAL = Goal(2000, "ours", "least")


async def measure(options: Options) -> list[Row]:
    """Handshakes a CPU-second of imserver and of the floor, and Redis's CPU for one handshake of ours."""
    async with Cluster() as cluster:
        server, floor, valkey = cluster.servers[0].pid, cluster.floor.pid, cluster.valkey.pid
        ours: list[float] = []
        floors: list[float] = []
        redis: list[float] = []

        async def open_ours(first: int, count: int) -> None:
            urls = await cluster.mint(f"shaker-{index}" for index in range(first, first + count))
            await settle(server, valkey)
            before, redis_before = cpu_seconds(server), cpu_seconds(valkey)
            await cluster.loadgen.connect(urls)
            ours.append(count / (cpu_seconds(server) - before))
            redis.append(1e6 * (cpu_seconds(valkey) - redis_before) / count)

        async def open_floor(count: int) -> None:
            urls = cluster.floor.mint(count)
            before = cpu_seconds(floor)
            await cluster.floor_loadgen.connect(urls)
            floors.append(count / (cpu_seconds(floor) - before))

        warm_up = min(200, options.handshakes)
        await open_ours(0, warm_up)
        await open_floor(warm_up)
        for figures in (ours, floors, redis):
            figures.clear()
        for round_ in range(options.rounds):
            first = warm_up + round_ * options.handshakes
            if round_ % 2 == 0:
                await open_ours(first, options.handshakes)
                await open_floor(options.handshakes)
            else:
                await open_floor(options.handshakes)
                await open_ours(first, options.handshakes)
        seen = await cluster.loadgen.stats()
        opened = seen["sockets"]
        due = warm_up + options.rounds * options.handshakes
        what = f"handshakes a CPU-second of the server, {options.handshakes} a round"
        if seen["retries"]:
            what += f", {seen['retries']} answered 503 first"
        return [
            Row("handshakes", what, "1/s", ours, floors, GOAL, delivered=opened, expected=due),
            Row("handshakes", "Redis CPU a handshake", "µs", redis, delivered=opened, expected=due),
        ]
