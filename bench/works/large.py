"""A channel larger than one process can hold: what its messages cost others, who get 1:1 messages meanwhile.

The floor is the same 1:1 messages, at the same pace, while the channel is quiet: ratios to one are what others notice.
"""

import asyncio
from contextlib import AsyncExitStack

from bench.cluster import Cluster, in_parallel, payload
from bench.natives import Loadgen
from bench.options import Options
from bench.report import Row

CHANNEL = "bench-large"
PROBES = 200
# Members that one server and one load generator hold; the table is even to a slot, so a server gets a few more.
MEMBERS_A_PROCESS = 16_800
# 1:1 messages a second: enough to meet every slice, too few to be a load of their own.
RATE = 100


async def measure(options: Options) -> list[Row]:
    """Latency of 1:1 messages while all members get `repeats` messages, and the rate of these."""
    processes = max(2, -(-options.members // MEMBERS_A_PROCESS))
    async with Cluster(servers=processes) as cluster, AsyncExitStack() as stack:
        names = [f"member-{index}" for index in range(options.members)]
        crowds = []
        for index in range(processes):
            mine = names[index::processes]
            crowd = Loadgen(cluster.folder, f"crowd-{index}", 11 + 8 * index)
            crowds.append((await stack.enter_async_context(crowd), len(mine)))
            await crowd.connect(await cluster.mint(mine))
        await in_parallel(lambda name: cluster.helper.join_chan(name, CHANNEL), names)
        probes = [f"probe-{index}" for index in range(PROBES)]
        await cluster.loadgen.connect(await cluster.mint(probes))
        return await _rounds(cluster, crowds, probes, options, processes)


async def _rounds(
    cluster: Cluster, crowds: list[tuple[Loadgen, int]], probes: list[str], options: Options, processes: int
) -> list[Row]:
    size, count = options.payloads[0], max(10, round(RATE * options.seconds))
    latencies: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ("p50", "p99")}
    arrived = 0

    async def talk() -> None:
        for index in range(count):
            await cluster.helper.send_message("bench", probes[index % len(probes)], payload(size))
            await asyncio.sleep(1 / RATE)

    async def shout() -> None:
        for _ in range(options.repeats):
            await cluster.helper.send_chan_message("bench", CHANNEL, payload(size))
            await asyncio.sleep(options.seconds / options.repeats)

    for _ in range(options.rounds):
        for busy in (False, True):
            await cluster.loadgen.expect(count)
            for crowd, members in crowds if busy else ():
                await crowd.expect(members * options.repeats)
            await asyncio.gather(talk(), *([shout()] if busy else []))
            seen = await cluster.loadgen.delivered(count)
            arrived += seen.messages
            for name, (quiet_ms, busy_ms) in latencies.items():
                (busy_ms if busy else quiet_ms).append(seen.latency_us[name] / 1000)
            for crowd, members in crowds if busy else ():
                arrived += (await crowd.delivered(members * options.repeats)).messages
    due = options.rounds * (2 * count + options.members * options.repeats)
    case = f"while a channel of {options.members} on {processes} servers is sent to (floor: while it is quiet)"
    return [
        Row("large", f"latency of a 1:1 message, {name}, {case}", "ms", busy, quiet, delivered=arrived, expected=due)
        for name, (quiet, busy) in latencies.items()
    ]
