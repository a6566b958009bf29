"""As many users as a machine can hold at once: all connected, all answering pings, all in one channel, and talked to.

A message to all of them every few seconds, 1:1 messages to random ones all the time. A socket that is closed, for
whatever reason, or a message lost or doubled ends the run: there are no figures of a crowd that fell apart.
"""

import asyncio
import json
import sys
from pathlib import Path

from bench.cluster import Cluster, in_parallel, payload
from bench.crowd import SOCKETS_EACH, Crowd
from bench.errors import BenchError
from bench.natives import DELIVERY_SECONDS
from bench.options import Options
from bench.procs import Speaker, cpu_seconds, rss_bytes
from bench.report import Row

WORK = "crowd"
CHANNEL = "bench-crowd"
WARM_UP = 20
# A message to all is 100,000 frames, and the machine may be busy: that everything arrives is what counts.
LATE_SECONDS = 120


async def measure(options: Options) -> list[Row]:
    """One long round over as many servers and load generators as the crowd needs."""
    processes = max(2, -(-options.crowd // SOCKETS_EACH))
    settings = {"IM_PING_SECONDS": str(options.ping_seconds)}
    async with Cluster(servers=processes, settings=settings) as cluster, Crowd(cluster.folder, processes) as crowd:
        loop = asyncio.get_running_loop()
        names = [f"user-{index}" for index in range(options.crowd)]
        base = sum(rss_bytes(server.pid) for server in cluster.servers)
        start = loop.time()
        await crowd.connect(names, cluster.mint)
        connecting = loop.time() - start
        joined = await in_parallel(lambda name: cluster.helper.join_chan(name, CHANNEL), names)
        if not all(joined):
            raise BenchError(f"{joined.count(False)} of {len(names)} connected clients could not join")
        targets = cluster.folder / "targets"
        targets.write_text("\n".join(names))
        command: list[str | Path] = [sys.executable, "-m", "bench.sender", cluster.redis_url, targets]
        async with Speaker("sender", command, cluster.folder / "sender.log") as sender:
            await sender.hear("ready")
            rows = await _talk(cluster, crowd, sender, options)
        memory = sum(rss_bytes(server.pid) for server in cluster.servers)
    case = f"{options.crowd} users over {processes} servers"

    def row(what: str, unit: str, figure: float) -> Row:
        return Row(WORK, f"{what}, {case}", unit, [figure], delivered=options.crowd, expected=options.crowd)

    return [
        row("time until all are connected, one helper giving out URLs", "s", connecting),
        row("RSS of all servers", "MB", memory / 1e6),
        row("RSS a connection, all members of a channel that is sent to", "bytes", (memory - base) / options.crowd),
        *rows,
    ]


async def _talk(cluster: Cluster, crowd: Crowd, sender: Speaker, options: Options) -> list[Row]:
    size, rate = options.payloads[0], options.crowd_rate
    count, shouts = round(rate * options.crowd_seconds), max(1, int(options.crowd_seconds / options.shout_seconds))
    due = count + shouts * options.crowd

    async def say(messages: int) -> None:
        order = {"op": "helper", "count": messages, "rate": rate, "size": size}
        await sender.ask(json.dumps(order), "sent", options.crowd_seconds + DELIVERY_SECONDS)

    async def shout() -> None:
        for _ in range(shouts):
            await cluster.helper.send_chan_message("bench", CHANNEL, payload(size, "tc"))
            await asyncio.sleep(options.shout_seconds)

    await crowd.reset()
    await say(WARM_UP)
    await crowd.received(WARM_UP)

    pids = {
        "all servers": [child.pid for child in cluster.servers],
        "Redis": [cluster.valkey.pid],
        "helper": [sender.pid],
    }

    def used() -> dict[str, float]:
        return {name: sum(map(cpu_seconds, some)) for name, some in pids.items()}

    loop = asyncio.get_running_loop()
    await crowd.reset()
    start, before = loop.time(), used()
    await asyncio.gather(say(count), shout())
    seen = await crowd.received(due, LATE_SECONDS)
    elapsed, after = loop.time() - start, used()
    held, pings = sum(one["sockets"] for one in seen), sum(one["pings"] for one in seen)
    if held != options.crowd:
        raise BenchError(f"{options.crowd} users were connected; {held} are left")
    if pings < options.crowd * (int(elapsed / options.ping_seconds) - 1):
        raise BenchError(
            f"{options.crowd} sockets were to be pinged every {options.ping_seconds:g} s; {pings} pings came"
        )
    arrived = sum(one["messages"] for one in seen)
    case = f"{options.crowd} users, one message to all every {options.shout_seconds:g} s, {rate} 1:1 messages a second"

    def row(what: str, unit: str, figure: float) -> Row:
        return Row(WORK, f"{what}, {case}", unit, [figure], delivered=arrived, expected=due)

    def worst(kind: str, name: str) -> float:
        """Of all load generators: percentiles can't be added up."""
        return max(float(one[kind][name]) for one in seen) / 1000

    direct = [row(f"latency of a 1:1 message, {n}", "ms", worst("latency_us", n)) for n in ("p50", "p99", "p999")]
    return [
        row("pings answered a socket", "1", pings / options.crowd),
        *direct,
        row("latency of a message to all, p50 of the sockets", "ms", worst("channel_latency_us", "p50")),
        row("latency of a message to all, the last socket", "ms", worst("channel_latency_us", "max")),
        *(row(f"cores that {name} used", "1", (after[name] - before[name]) / elapsed) for name in pids),
    ]
