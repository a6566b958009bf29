"""CPU of the server for channel messages to many sockets: one at a time, and many queued at once.

Ours, the floor and the peers hold the same number of sockets at the same time and take turns, round by round, so that
all see the same machine. Each is charged with everything from before the send until the last message arrived.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

from bench.cluster import Cluster, in_parallel, payload
from bench.errors import BenchError
from bench.natives import Loadgen
from bench.options import Options
from bench.peers import enter
from bench.procs import cpu_seconds, settle
from bench.report import Goal, Row

CHANNEL = "bench"
GOALS_ONE = (Goal(1.3, "ratio"), Goal(0.6, "centrifugo"))
GOAL_QUEUED = Goal(0.4, "ratio")
# What a server still does for a message after its last frame is out belongs to that message.
TRAIL_SECONDS = 0.05


async def measure_one(options: Options) -> list[Row]:
    """One channel message at a time; a row for each payload size."""
    return await _measure(options, "fanout", 1, options.repeats)


async def measure_burst(options: Options) -> list[Row]:
    """`options.burst` channel messages queued at once; a row for each payload size."""
    return await _measure(options, "burst", options.burst, 1)


@dataclass
class _Side:
    """Ours, the floor or a peer: whose CPU is read, who counts, how messages are sent to everybody."""

    name: str
    pids: list[int]
    loadgen: Loadgen
    send: Callable[[int, int], Awaitable[object]]
    figures: list[float] = field(default_factory=list)
    messages: int = 0
    failed: str = ""

    async def batch(self, sockets: int, size: int, queued: int) -> tuple[float, int]:
        """Sends a batch, checks that every socket got each message once; returns CPU in seconds, and messages."""
        await self.loadgen.reset()
        before = sum(map(cpu_seconds, self.pids))
        await self.send(size, queued)
        seen = await self.loadgen.received(sockets * queued)
        await asyncio.sleep(TRAIL_SECONDS)
        if (seen.fewest, seen.most) != (queued, queued):
            raise BenchError(f"{queued} messages a socket were due; {self.name}'s got {seen.fewest} to {seen.most}")
        return sum(map(cpu_seconds, self.pids)) - before, seen.messages

    def fail(self, why: str) -> None:
        """Takes back what was measured: a round of this side can't be trusted."""
        self.failed = why
        self.figures.clear()


async def _measure(options: Options, work: str, queued: int, repeats: int) -> list[Row]:
    async with Cluster() as cluster, AsyncExitStack() as stack:
        members = [f"member-{index}" for index in range(options.sockets)]
        await cluster.loadgen.connect(await cluster.mint(members))
        await cluster.floor_loadgen.connect(cluster.floor.mint(options.sockets))
        joined = await in_parallel(lambda member: cluster.helper.join_chan(member, CHANNEL), members)
        if not all(joined):
            raise BenchError(f"{joined.count(False)} of {options.sockets} connected clients could not join")
        peers = await enter(stack, cluster.folder, options.peers)
        for peer in peers:
            await peer.loadgen.connect(peer.mint(0, options.sockets), peer.mode)

        def sides() -> list[_Side]:
            return [
                _Side("imserver", [cluster.servers[0].pid], cluster.loadgen, partial(_send, cluster)),
                _Side("floor", [cluster.floor.pid], cluster.floor_loadgen, cluster.floor.send),
                *(_Side(peer.name, peer.pids, peer.loadgen, peer.shout) for peer in peers),
            ]

        return [await _rounds(sides(), options, work, size, queued, repeats) for size in options.payloads]


async def _send(cluster: Cluster, size: int, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(cluster.helper.send_chan_message("bench", CHANNEL, payload(size)))


async def _rounds(sides: Sequence[_Side], options: Options, work: str, size: int, queued: int, repeats: int) -> Row:
    ours, floor, *peers = sides
    turns = list(sides)

    async def turn(side: _Side, repeats: int) -> None:
        await settle(*side.pids)
        try:
            batches = [await side.batch(options.sockets, size, queued) for _ in range(repeats)]
        except BenchError as error:
            if side not in peers:
                raise
            side.fail(error.brief)
            return
        costs, counts = zip(*batches, strict=True)
        side.figures.append(1e6 * sum(costs) / sum(counts))
        side.messages += sum(counts)

    for side in turns:  # buffers that grow at the first message of a size stay grown
        await turn(side, 1)
        side.figures.clear()
        side.messages = 0
    for _ in range(options.rounds):
        for side in turns:
            if not side.failed:
                await turn(side, repeats)
        turns.reverse()
    one_or_many = "a channel message" if queued == 1 else f"{queued} channel messages queued at once"
    return Row(
        work=work,
        what=f"server CPU a message and socket, {one_or_many} to {options.sockets} plain sockets, {size} B",
        unit="µs",
        ours=ours.figures,
        floor=floor.figures,
        goal=GOALS_ONE if queued == 1 else GOAL_QUEUED,
        delivered=ours.messages,
        expected=floor.messages,
        peers={side.name: side.figures for side in peers},
        failed={side.name: side.failed for side in peers if side.failed},
    )
