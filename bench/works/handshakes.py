"""Handshakes with token, presence and 101, a CPU-second of the server; the floor does the 101 and nothing else.

Sockets of earlier rounds stay open, so that no round pays for the goodbyes of the one before.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bench.cluster import Cluster
from bench.errors import BenchError
from bench.natives import Loadgen
from bench.options import Options
from bench.peers import enter
from bench.peers.base import Peer
from bench.procs import cpu_seconds, settle
from bench.report import Goal, Row

GOAL = Goal(3000, "ours", "least")
WARM_UP = 200


@dataclass
class _Side:
    """Ours, the floor or a peer: who opens, whose CPU is read, and Redis's if it has one."""

    name: str
    mint: Callable[[int, int], Awaitable[list[str]]]
    loadgen: Loadgen
    mode: str
    pids: list[int]
    redis: int | None = None
    opened: int = 0
    figures: list[float] = field(default_factory=list)
    redis_us: list[float] = field(default_factory=list)
    failed: str = ""

    async def open(self, count: int) -> None:
        """Opens `count` sockets more and keeps what each cost."""
        urls = await self.mint(self.opened, count)
        self.opened += count
        redis = [] if self.redis is None else [self.redis]
        await settle(*self.pids, *redis)
        before, redis_before = sum(map(cpu_seconds, self.pids)), sum(map(cpu_seconds, redis))
        await self.loadgen.connect(urls, self.mode)
        self.figures.append(count / (sum(map(cpu_seconds, self.pids)) - before))
        if redis:
            self.redis_us.append(1e6 * (sum(map(cpu_seconds, redis)) - redis_before) / count)

    def forget(self) -> None:
        """Takes back all figures: they were a warm-up, or can't be trusted."""
        self.figures.clear()
        self.redis_us.clear()


async def measure(options: Options) -> list[Row]:
    """Handshakes a CPU-second of imserver, of the floor and of the peers, and Redis's CPU for one handshake."""
    async with Cluster() as cluster, AsyncExitStack() as stack:
        sides = await _sides(cluster, stack, options)
        ours, floor, *peers = sides
        warm_up = min(WARM_UP, options.handshakes)

        async def turn(side: _Side, count: int) -> None:
            try:
                await side.open(count)
            except BenchError as error:
                if side not in peers:
                    raise
                side.failed = error.brief

        for side in sides:
            await turn(side, warm_up)
            side.forget()
        turns = list(sides)
        for _ in range(options.rounds):
            for side in turns:
                if not side.failed:
                    await turn(side, options.handshakes)
            turns.reverse()
        for side in peers:
            if side.failed:
                side.forget()
        seen = await cluster.loadgen.stats()
        opened = seen["sockets"]
        due = warm_up + options.rounds * options.handshakes
        what = f"handshakes a CPU-second of the server, {options.handshakes} a round"
        if seen["retries"]:
            what += f", {seen['retries']} answered 503 first"
        rates = {side.name: side.figures for side in peers}
        failed = {side.name: side.failed for side in peers if side.failed}
        redis = {side.name: side.redis_us for side in peers if side.redis_us}
        return [
            Row("handshakes", what, "1/s", ours.figures, floor.figures, GOAL, opened, due, peers=rates, failed=failed),
            Row(
                "handshakes", "Redis CPU a handshake", "µs", ours.redis_us, delivered=opened, expected=due, peers=redis
            ),
        ]


async def _sides(cluster: Cluster, stack: AsyncExitStack, options: Options) -> list[_Side]:
    async def ours(first: int, count: int) -> list[str]:
        return await cluster.mint(f"shaker-{index}" for index in range(first, first + count))

    async def floor(first: int, count: int) -> list[str]:
        return cluster.floor.mint(count)

    sides = [
        _Side("imserver", ours, cluster.loadgen, "plain", [cluster.servers[0].pid], cluster.valkey.pid),
        _Side("floor", floor, cluster.floor_loadgen, "plain", [cluster.floor.pid]),
    ]
    for peer in await enter(stack, cluster.folder, options.peers, presence=True):

        async def mint(first: int, count: int, peer: Peer = peer) -> list[str]:
            return peer.mint(first, count)

        redis = None if peer.redis is None else peer.redis.pid
        sides.append(_Side(peer.name, mint, peer.loadgen, peer.mode, peer.pids, redis))
    return sides
