"""Memory of a quiet connection: how much the process's RSS grows a connection, at several sizes.

The floor's figure is what a C server's own table costs; sockets themselves live in the kernel and in no one's RSS.
"""

import asyncio
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.cluster import Cluster
from bench.errors import BenchError
from bench.options import Options
from bench.peers import enter
from bench.peers.base import Peer
from bench.procs import rss_bytes, settle
from bench.report import Goal, Row

# Opened before the first reading, so that code and tables that exist once are not counted as connections.
WARM_UP = 20
GOALS = {"plain": Goal(7 * 1024, "ours"), "envelope": Goal(8 * 1024, "ours")}


async def measure(options: Options) -> list[Row]:
    """One row for each mode and size; each mode has a server of its own, its sizes rise in that one process.

    Peers come one after another, so that the machine need not hold all of them at once; they have one mode each.
    """
    peers: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for name in options.peers:
        try:
            peers[name] = await _peer(name, options)
        except BenchError as error:
            failed[name] = error.brief
    rows = []
    for mode in options.modes:
        async with Cluster() as cluster:
            rows += await _sizes(cluster, mode, options, peers)
    return [dataclasses.replace(row, failed=failed) for row in rows]


async def _peer(name: str, options: Options) -> list[float]:
    """Bytes a connection of the peer, for each size."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imcluster-bench-")))
        (peer,) = await enter(stack, folder, [name])
        base, connected = await _read_peer(peer, 0, WARM_UP, options), WARM_UP
        figures = []
        for size in options.rss_sizes:
            read = await _read_peer(peer, connected, WARM_UP + size, options)
            connected = WARM_UP + size
            figures.append((read - base) / size)
        return figures


async def _read_peer(peer: Peer, connected: int, wanted: int, options: Options) -> int:
    await peer.loadgen.connect(peer.mint(connected, wanted - connected), peer.mode)
    await settle(*peer.pids)
    await asyncio.sleep(options.settle_seconds)
    return sum(map(rss_bytes, peer.pids))


async def _sizes(cluster: Cluster, mode: str, options: Options, peers: Mapping[str, Sequence[float]]) -> list[Row]:
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
    for index, size in enumerate(options.rss_sizes):
        ours, floor = await read(WARM_UP + size)
        sockets = (await cluster.loadgen.stats())["sockets"]
        rows.append(
            Row(
                work="rss",
                what=f"RSS a quiet {mode} connection, {size} in one process",
                unit="bytes",
                ours=[(ours - base) / size],
                floor=[(floor - floor_base) / size],
                goal=GOALS.get(mode),
                delivered=sockets,
                expected=WARM_UP + size,
                peers={name: [figures[index]] for name, figures in peers.items()},
            )
        )
    return rows
