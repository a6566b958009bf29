"""1:1 messages through Redis: how many commands each takes, and what server, helper and Redis pay for it.

Two servers hold the clients. The commands are counted with one message at a time; direct_rates.py goes on from there.
"""

import asyncio
import json
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from bench.cluster import Cluster
from bench.monitor import Monitor
from bench.natives import DELIVERY_SECONDS
from bench.options import Options
from bench.peers import enter
from bench.peers.base import user
from bench.procs import Speaker
from bench.report import Goal, Row
from bench.works import direct_rates

# One call a message, and once a second the view of the cluster along with one of them.
GOAL_HELPER = Goal(1.05, "ours")
# Periodic commands (leases, polls) fall on either side of the idle window; a command a message would be ten times it.
GOAL_SERVER = Goal(0.1, "ours")
# Slow enough that a message is read before the next one is sent, so that nothing is saved by batching.
SINGLE_RATE = 100
TRAIL_SECONDS = 0.2
SERVERS = 2


async def measure(options: Options) -> list[Row]:
    """Commands a message (counted with MONITOR, one message at a time), then CPU and latency at each rate."""
    async with Cluster(SERVERS) as cluster, AsyncExitStack() as stack:
        clients = [user(index) for index in range(options.addressees)]
        await cluster.loadgen.connect(await cluster.mint(clients))
        await cluster.floor_loadgen.connect(cluster.floor.mint(options.addressees))
        targets = cluster.folder / "targets"
        targets.write_text("\n".join(clients))
        command: list[str | Path] = [sys.executable, "-m", "bench.sender", cluster.redis_url, targets]
        sender = await stack.enter_async_context(Speaker("sender", command, cluster.folder / "sender.log"))
        await sender.hear("ready")
        await _one_by_one(cluster, sender, options, min(10, options.single), 0)  # scripts are loaded now
        rows = await _commands(cluster, sender, options)
        peers = await enter(stack, cluster.folder, options.peers, nodes=SERVERS)
        for peer in peers:
            await peer.loadgen.connect(peer.mint(0, options.addressees), peer.mode)
        return rows + await direct_rates.measure(cluster, sender, peers, options)


async def _one_by_one(cluster: Cluster, sender: Speaker, options: Options, count: int, rate: int) -> int:
    """Has the helper send and waits until all of it arrived; returns how many messages that were."""
    await cluster.loadgen.expect(count)
    order = {"op": "helper", "count": count, "rate": rate, "size": options.payloads[0]}
    await sender.ask(json.dumps(order), "sent", DELIVERY_SECONDS)
    return (await cluster.loadgen.delivered(count)).messages


async def _commands(cluster: Cluster, sender: Speaker, options: Options) -> list[Row]:
    count = options.single
    loop = asyncio.get_running_loop()
    async with Monitor(cluster.redis_port) as monitor:
        start = loop.time()
        seen = await _one_by_one(cluster, sender, options, count, SINGLE_RATE)
        await asyncio.sleep(TRAIL_SECONDS)
        busy, helper = _of_servers(cluster, monitor), monitor.of(sender.pid)
        await asyncio.sleep(loop.time() - start)
        idle = _of_servers(cluster, monitor) - busy
    beyond_idle = Counter(busy)
    beyond_idle.subtract(idle)
    reads = beyond_idle.pop("XREAD", 0)
    others = sum(beyond_idle.values())
    names = ", ".join(f"{command} {number}" for command, number in sorted(helper.items()))

    def row(what: str, commands: int, goal: Goal | None = None) -> Row:
        return Row("direct", what, "1", [commands / count], goal=goal, delivered=seen, expected=count)

    return [
        row(f"helper's commands a 1:1 message ({names})", sum(helper.values()), GOAL_HELPER),
        row("servers' XREADs a 1:1 message, one at a time, beyond idle", reads),
        row("servers' other commands a 1:1 message, beyond idle", others, GOAL_SERVER),
    ]


def _of_servers(cluster: Cluster, monitor: Monitor) -> Counter[str]:
    counts: Counter[str] = Counter()
    for server in cluster.servers:
        counts += monitor.of(server.pid)
    return counts
