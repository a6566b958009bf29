"""1:1 messages through Redis: how many commands each takes, and what server, helper and Redis pay for it.

Floors: for the server one send(2) a message, for helper and Redis one bare XADD a message at the same pace.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.cluster import Cluster
from bench.monitor import Monitor
from bench.natives import DELIVERY_SECONDS, Delivered
from bench.options import Options
from bench.procs import Speaker, cpu_seconds, settle
from bench.report import Goal, Row

# One call a message, and once a second the view of the cluster along with one of them.
GOAL_HELPER = Goal(1.05, "ours")
# Periodic commands (leases, polls) fall on either side of the idle window; a command a message would be ten times it.
GOAL_SERVER = Goal(0.1, "ours")
# Slow enough that a message is read before the next one is sent, so that nothing is saved by batching.
SINGLE_RATE = 100
TRAIL_SECONDS = 0.2


async def measure(options: Options) -> list[Row]:
    """Commands a message (counted with MONITOR, one message at a time), then CPU and latency at a rate."""
    async with Cluster() as cluster:
        clients = [f"peer-{index}" for index in range(options.clients)]
        await cluster.loadgen.connect(await cluster.mint(clients))
        await cluster.floor_loadgen.connect(cluster.floor.mint(options.clients))
        targets = cluster.folder / "targets"
        targets.write_text("\n".join(clients))
        command: list[str | Path] = [sys.executable, "-m", "bench.sender", cluster.redis_url, targets]
        async with Speaker("sender", command, cluster.folder / "sender.log") as sender:
            await sender.hear("ready")
            size = options.payloads[0]
            await _send(cluster, sender, "helper", min(10, options.single), 0, size)  # scripts are loaded now
            return await _commands(cluster, sender, options, size) + await _costs(cluster, sender, options, size)


async def _send(cluster: Cluster, sender: Speaker, op: str, count: int, rate: int, size: int) -> Delivered:
    """Has the sender send and, where clients get something, waits for it; returns what the clients got."""
    order = json.dumps({"op": op, "count": count, "rate": rate, "size": size})
    if op != "helper":
        await sender.ask(order, "sent", DELIVERY_SECONDS)
        return Delivered(0, 0, 0, {})
    await cluster.loadgen.expect(count)
    await sender.ask(order, "sent", DELIVERY_SECONDS)
    return await cluster.loadgen.delivered(count)


async def _commands(cluster: Cluster, sender: Speaker, options: Options, size: int) -> list[Row]:
    server, count = cluster.servers[0].pid, options.single
    loop = asyncio.get_running_loop()
    async with Monitor(cluster.redis_port) as monitor:
        start = loop.time()
        seen = await _send(cluster, sender, "helper", count, SINGLE_RATE, size)
        await asyncio.sleep(TRAIL_SECONDS)
        busy, helper = monitor.of(server), monitor.of(sender.pid)
        await asyncio.sleep(loop.time() - start)
        idle = monitor.of(server) - busy
    beyond_idle = Counter(busy)
    beyond_idle.subtract(idle)
    reads = beyond_idle.pop("XREAD", 0)
    others = sum(beyond_idle.values())
    names = ", ".join(f"{command} {number}" for command, number in sorted(helper.items()))

    def row(what: str, commands: int, goal: Goal | None = None) -> Row:
        return Row("direct", what, "1", [commands / count], goal=goal, delivered=seen.messages, expected=count)

    return [
        row(f"helper's commands a 1:1 message ({names})", sum(helper.values()), GOAL_HELPER),
        row("server's XREADs a 1:1 message, one at a time, beyond idle", reads),
        row("server's other commands a 1:1 message, beyond idle", others, GOAL_SERVER),
    ]


async def _costs(cluster: Cluster, sender: Speaker, options: Options, size: int) -> list[Row]:
    count = max(1, round(options.rate * options.seconds))
    pids = {"server": cluster.servers[0].pid, "helper": sender.pid, "Redis": cluster.valkey.pid}
    ours: dict[str, list[float]] = {name: [] for name in pids}
    floors: dict[str, list[float]] = {name: [] for name in pids}
    latencies: dict[str, list[float]] = {"p50": [], "p99": [], "p999": []}
    arrived = 0

    async def charge(into: dict[str, list[float]], op: str) -> Delivered:
        await settle(*pids.values())
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        seen = await _send(cluster, sender, op, count, options.rate, size)
        for name, pid in pids.items():
            into[name].append(1e6 * (cpu_seconds(pid) - before[name]) / count)
        return seen

    for _ in range(options.rounds):
        seen = await charge(ours, "helper")
        arrived += seen.messages
        for name, milliseconds in latencies.items():
            milliseconds.append(seen.latency_us[name] / 1000)
        await charge(floors, "xadd")
        before = cpu_seconds(cluster.floor.pid)
        await cluster.floor.send(size, count, to_all=False)
        floors["server"][-1] = 1e6 * (cpu_seconds(cluster.floor.pid) - before) / count
    case = f"{options.rate}/s of {size} B to {options.clients} clients"

    def row(what: str, unit: str, figures: list[float], floor: Sequence[float] = ()) -> Row:
        due = count * options.rounds
        return Row("direct", f"{what}, {case}", unit, figures, floor, delivered=arrived, expected=due)

    rows = [row(f"{name} CPU a 1:1 message", "µs", ours[name], floors[name]) for name in pids]
    return rows + [row(f"latency of a 1:1 message, {name}", "ms", figures) for name, figures in latencies.items()]
