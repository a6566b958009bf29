"""Memory of a quiet connection: how much the process's RSS grows a connection, at several sizes.

The floor's figure is what a C server's own table costs; sockets themselves live in the kernel and in no one's RSS.
"""

import asyncio

from bench.cluster import Cluster
from bench.options import Options
from bench.procs import rss_bytes, settle
from bench.report import Goal, Row

# Opened before the first reading, so that code and tables that exist once are not counted as connections.
WARM_UP = 20
GOAL_PLAIN = Goal(8192, "ours")


async def measure(options: Options) -> list[Row]:
    """One row for each mode and size; each mode has a server of its own, its sizes rise in that one process."""
    rows = []
    for mode in options.modes:
        async with Cluster() as cluster:
            rows += await _sizes(cluster, mode, options)
    return rows


async def _sizes(cluster: Cluster, mode: str, options: Options) -> list[Row]:
    pids = (cluster.servers[0].pid, cluster.floor.pid)
    rows: list[Row] = []
    connected = 0

    async def read(sockets: int) -> tuple[int, int]:
        nonlocal connected
        urls = await cluster.mint(f"quiet-{index}" for index in range(connected, sockets))
        await cluster.loadgen.connect(urls, mode)
        await cluster.floor_loadgen.connect(cluster.floor.mint(sockets - connected), mode)
        connected = sockets
        await settle(*pids)
        await asyncio.sleep(options.settle_seconds)
        return rss_bytes(pids[0]), rss_bytes(pids[1])

    base, floor_base = await read(WARM_UP)
    for size in options.rss_sizes:
        ours, floor = await read(WARM_UP + size)
        sockets = (await cluster.loadgen.stats())["sockets"]
        rows.append(
            Row(
                work="rss",
                what=f"RSS a quiet {mode} connection, {size} in one process",
                unit="bytes",
                ours=[(ours - base) / size],
                floor=[(floor - floor_base) / size],
                goal=GOAL_PLAIN if mode == "plain" and size == max(options.rss_sizes) else None,
                delivered=sockets,
                expected=WARM_UP + size,
            )
        )
    return rows
