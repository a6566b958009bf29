"""CPU of the server for channel messages to many sockets: one at a time, and many queued at once.

Ours and the floor hold the same number of sockets at the same time and take turns, round by round, so that both see
the same machine. Ours is charged with everything from before the send until the last frame arrived.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.cluster import Cluster, in_parallel, payload
from bench.errors import BenchError
from bench.natives import Loadgen
from bench.options import Options
from bench.procs import cpu_seconds, settle
from bench.report import Goal, Row

CHANNEL = "bench"
GOAL_ONE = Goal(1.6, "ratio")
GOAL_QUEUED = Goal(1.6, "ratio")
# What a server still does for a message after its last frame is out belongs to that message.
TRAIL_SECONDS = 0.05


async def measure_one(options: Options) -> list[Row]:
    """One channel message at a time; a row for each payload size."""
    return await _measure(options, "fanout", 1, options.repeats)


async def measure_burst(options: Options) -> list[Row]:
    """`options.burst` channel messages queued at once; a row for each payload size."""
    return await _measure(options, "burst", options.burst, 1)


async def _measure(options: Options, work: str, queued: int, repeats: int) -> list[Row]:
    async with Cluster() as cluster:
        members = [f"member-{index}" for index in range(options.sockets)]
        await cluster.loadgen.connect(await cluster.mint(members))
        await cluster.floor_loadgen.connect(cluster.floor.mint(options.sockets))
        joined = await in_parallel(lambda member: cluster.helper.join_chan(member, CHANNEL), members)
        if not all(joined):
            raise BenchError(f"{joined.count(False)} of {options.sockets} connected clients could not join")
        return [await _rounds(cluster, options, work, size, queued, repeats) for size in options.payloads]


@dataclass
class _Side:
    """Ours or the floor: whose CPU is read, who counts, how one batch is sent."""

    pid: int
    loadgen: Loadgen
    send: Callable[[], Awaitable[object]]

    async def batch(self, sockets: int, queued: int) -> tuple[float, int]:
        """Sends a batch, checks that every socket got each message once; returns the CPU in seconds and the frames."""
        await self.loadgen.expect(sockets * queued)
        before = cpu_seconds(self.pid)
        await self.send()
        seen = await self.loadgen.delivered(sockets * queued)
        await asyncio.sleep(TRAIL_SECONDS)
        if (seen.fewest, seen.most) != (queued, queued):
            raise BenchError(f"{queued} messages a socket were due; sockets got {seen.fewest} to {seen.most}")
        return cpu_seconds(self.pid) - before, seen.messages


async def _rounds(cluster: Cluster, options: Options, work: str, size: int, queued: int, repeats: int) -> Row:
    async def send_ours() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(queued):
                group.create_task(cluster.helper.send_chan_message("bench", CHANNEL, payload(size)))

    ours = _Side(cluster.servers[0].pid, cluster.loadgen, send_ours)
    floor = _Side(cluster.floor.pid, cluster.floor_loadgen, lambda: cluster.floor.send(size, queued))
    figures: dict[int, list[float]] = {ours.pid: [], floor.pid: []}
    frames = dict.fromkeys(figures, 0)
    sides = [ours, floor]
    for side in sides:  # buffers that grow at the first message of a size stay grown
        await side.batch(options.sockets, queued)
    for _ in range(options.rounds):
        for side in sides:
            await settle(ours.pid, floor.pid)
            costs, counts = zip(*[await side.batch(options.sockets, queued) for _ in range(repeats)], strict=True)
            figures[side.pid].append(1e6 * sum(costs) / sum(counts))
            frames[side.pid] += sum(counts)
        sides.reverse()
    one_or_many = "a channel message" if queued == 1 else f"{queued} channel messages queued at once"
    return Row(
        work=work,
        what=f"server CPU a frame, {one_or_many} to {options.sockets} plain sockets, {size} B",
        unit="µs",
        ours=figures[ours.pid],
        floor=figures[floor.pid],
        goal=GOAL_ONE if queued == 1 else GOAL_QUEUED,
        delivered=frames[ours.pid],
        expected=frames[floor.pid],
    )
