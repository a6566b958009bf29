"""Memory of quiet connections that one process can't hold: over four servers, as a cluster holds them.

The figure is the growth of all servers' RSS together; the floor's are as many C servers as their sockets need.
"""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack

from bench.cluster import Cluster
from bench.crowd import SOCKETS_EACH, Crowd
from bench.natives import Floor
from bench.options import Options
from bench.procs import Child, rss_bytes, settle
from bench.report import Goal, Row

SERVERS = 4
# Opened before the first reading on each server, or nearly so: what exists once is not counted as connections.
WARM_UP = 50 * SERVERS
GOALS = {"plain": Goal(7168, "ours"), "envelope": Goal(8192, "ours")}


async def measure(options: Options) -> list[Row]:
    """One row a mode, each with servers of its own."""
    return [await _measure(mode, options) for mode in options.modes]


async def _measure(mode: str, options: Options) -> Row:
    processes = max(2, -(-(options.connections + WARM_UP) // SOCKETS_EACH))
    async with Cluster(servers=SERVERS) as cluster, AsyncExitStack() as stack:
        names = [f"quiet-{index}" for index in range(WARM_UP + options.connections)]

        async def read(held: list[Child]) -> int:
            await settle(*(child.pid for child in held))
            await asyncio.sleep(options.settle_seconds)
            return sum(rss_bytes(child.pid) for child in held)

        async with Crowd(cluster.folder, processes) as crowd:
            await crowd.connect(names[:WARM_UP], cluster.mint, mode)
            base = await read(cluster.servers)
            await crowd.connect(names[WARM_UP:], cluster.mint, mode)
            ours = await read(cluster.servers) - base
            opened = sum(seen["sockets"] for seen in await crowd.stats())
            await crowd.close()
            floors = [await stack.enter_async_context(Floor(cluster.folder)) for _ in range(processes)]
            turns = itertools.cycle(floors)

            async def mint_floor(some: Sequence[str]) -> list[str]:
                return next(turns).mint(len(some))

            await crowd.connect(names[:WARM_UP], mint_floor, mode)
            floor_base = await read([*floors])
            await crowd.connect(names[WARM_UP:], mint_floor, mode)
            floor = await read([*floors]) - floor_base
        return Row(
            work="rss4",
            what=f"RSS a quiet {mode} connection, {options.connections} over {SERVERS} servers",
            unit="bytes",
            ours=[ours / options.connections],
            floor=[floor / options.connections],
            goal=GOALS[mode],
            delivered=opened,
            expected=len(names),
        )
