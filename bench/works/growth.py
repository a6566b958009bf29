"""What a message costs as one thing grows and all else stays: clients, channels, members, slots, servers, history.

Two clusters live side by side, one with little and one with much of it, and take turns, so that both see the same
machine. What they do without any message, in as long a time, is taken off and told apart.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from redis.asyncio import Redis

from bench.cluster import PREFIX, Cluster, in_parallel, payload
from bench.errors import BenchError
from bench.options import Options
from bench.populate import populate
from bench.procs import cpu_seconds, settle
from bench.report import Goal, Row
from bench.sender import paced
from imhelper.core import keys
from imhelper.core.slots import slot_of

CHANNEL = "bench-growth"
GOAL_FLAT = Goal(1.3, "ratio")
# Members of the channel that is sent to while others grow.
FEW = 20
# Slots of the clusters whose logs are filled: each has to be filled.
FILLED_SLOTS = 16
TRAIL_SECONDS = 0.2
WARM_UP = 5


@dataclass
class Side:
    """A cluster with little or much of what grows.

    Args:
        send: sends one message with this payload.
        frames: how many a message makes.
        rate: messages a second.
    """

    cluster: Cluster
    send: Callable[[str], Awaitable[object]]
    frames: int
    rate: float
    server: list[float] = field(default_factory=list)
    redis: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    arrived: int = 0

    async def warm_up(self, size: int) -> None:
        """Buffers that grow at the first messages stay grown."""
        await self.cluster.loadgen.reset()
        for _ in range(WARM_UP):
            await self.send(payload(size))
        await self.cluster.loadgen.received(WARM_UP * self.frames)

    async def round(self, seconds: float, size: int) -> None:
        """Idles, then sends, as long; notes what a message cost beyond idle."""
        cluster, loop = self.cluster, asyncio.get_running_loop()
        servers = [child.pid for child in cluster.servers]
        count = max(1, round(seconds * self.rate))

        def used() -> tuple[float, float]:
            return sum(map(cpu_seconds, servers)), cpu_seconds(cluster.valkey.pid)

        await cluster.loadgen.reset()
        await settle(*servers, cluster.valkey.pid)
        start, before = loop.time(), used()
        await asyncio.sleep(seconds)
        idle_seconds, after = loop.time() - start, used()
        idle = [(b - a) / idle_seconds for a, b in zip(before, after, strict=True)]
        start, before = loop.time(), used()
        await paced(self.send, count, self.rate, size)
        seen = await cluster.loadgen.received(count * self.frames)
        await asyncio.sleep(TRAIL_SECONDS)
        busy_seconds, after = loop.time() - start, used()
        costs = [(b - a - i * busy_seconds) / count for a, b, i in zip(before, after, idle, strict=True)]
        self.server.append(1e6 * costs[0])
        self.redis.append(1e6 * costs[1])
        self.idle.append(1e3 * sum(idle))
        self.arrived += seen.messages


@dataclass(frozen=True)
class Case:
    """One thing that grows.

    Args:
        name: of what there is little or much.
        message: what is sent.
        sizes: how little and how much.
        set_up: brings a cluster to a size and tells how it is sent to; its clusters end with the stack.
        goal: for the servers' and Redis's CPU a message.
        members: whether `sizes` are members, so that the servers' cost is printed a member.
    """

    name: str
    message: str
    sizes: tuple[int, ...]
    set_up: Callable[[AsyncExitStack, Options, int], Awaitable[Side]]
    goal: Goal | None = None
    members: bool = False


async def _connect(cluster: Cluster, count: int, name: str = "grown") -> list[str]:
    names = [f"{name}-{index}" for index in range(count)]
    await cluster.loadgen.connect(await cluster.mint(names))
    return names


def _direct(cluster: Cluster, names: Sequence[str], options: Options) -> Side:
    draw = random.Random(1)
    return Side(cluster, lambda text: cluster.helper.send_message("bench", draw.choice(names), text), 1, options.rate)


def _to_channel(cluster: Cluster, members: int, rate: float) -> Side:
    return Side(cluster, lambda text: cluster.helper.send_chan_message("bench", CHANNEL, text), members, rate)


async def _join(cluster: Cluster, members: Sequence[tuple[str, str]]) -> None:
    joined = await in_parallel(lambda pair: cluster.helper.join_chan(*pair), members)
    if not all(joined):
        raise BenchError(f"{joined.count(False)} of {len(members)} connected clients could not join")


async def _clients(stack: AsyncExitStack, options: Options, size: int) -> Side:
    """The first clients have sockets, as many as one server is meant to hold; the others are known to Redis only."""
    cluster = await stack.enter_async_context(Cluster())
    connected = min(size, options.sockets)
    names = await _connect(cluster, connected)
    await populate(cluster, [f"known-{index}" for index in range(size - connected)], options.channels[0])
    return _direct(cluster, names, options)


async def _channels(stack: AsyncExitStack, options: Options, size: int) -> Side:
    cluster = await stack.enter_async_context(Cluster())
    names = await _connect(cluster, FEW)
    await _join(cluster, [(names[index % FEW], f"chan-{index}") for index in range(size)])
    await _join(cluster, [(name, CHANNEL) for name in names])
    return _to_channel(cluster, FEW, options.rate / FEW)


async def _members(stack: AsyncExitStack, options: Options, size: int) -> Side:
    cluster = await stack.enter_async_context(Cluster())
    names = await _connect(cluster, size)
    await _join(cluster, [(name, CHANNEL) for name in names])
    return _to_channel(cluster, size, options.sockets / size)


async def _slots(stack: AsyncExitStack, options: Options, size: int) -> Side:
    cluster = await stack.enter_async_context(Cluster(settings={"IM_SLOTS": str(size)}))
    return _direct(cluster, await _connect(cluster, options.clients), options)


async def _servers(stack: AsyncExitStack, options: Options, size: int) -> Side:
    cluster = await stack.enter_async_context(Cluster(servers=size))
    return _direct(cluster, await _connect(cluster, options.clients), options)


async def _history(stack: AsyncExitStack, options: Options, size: int) -> Side:
    settings = {"IM_SLOTS": str(FILLED_SLOTS), "IM_RETAIN_SECONDS": "3600"}
    cluster = await stack.enter_async_context(Cluster(settings=settings))
    one_a_slot: dict[int, str] = {}
    for index in range(100 * FILLED_SLOTS):
        one_a_slot.setdefault(slot_of(f"absent-{index}", FILLED_SLOTS), f"absent-{index}")
    absent = list(one_a_slot.values())
    await in_parallel(lambda _: cluster.helper.send_message("bench", absent, "x" * options.payloads[0]), range(size))
    async with Redis.from_url(cluster.redis_url) as redis:
        lengths = [await redis.xlen(keys.log(keys.group_tag(PREFIX, 0), slot)) for slot in range(FILLED_SLOTS)]
    if lengths != [size] * FILLED_SLOTS:
        raise BenchError(f"each log was to hold {size} entries; they hold {min(lengths)} to {max(lengths)}")
    return _direct(cluster, await _connect(cluster, options.clients), options)


def cases(options: Options) -> dict[str, Case]:
    """What can grow, in the order of the rows."""
    clients = f"clients (at most {options.sockets} connected)"
    return {
        "clients": Case(clients, "1:1", options.known, _clients, GOAL_FLAT),
        "channels": Case("channels", f"channel of {FEW}", options.channels, _channels, GOAL_FLAT),
        "members": Case("members", "channel", options.grown_members, _members, GOAL_FLAT, members=True),
        "slots": Case("slots", "1:1", options.grown_slots, _slots),
        "servers": Case("servers", "1:1", options.grown_servers, _servers),
        "history": Case("retained entries a slot", "1:1", options.history, _history),
    }


async def measure(options: Options) -> list[Row]:
    """Three rows a case: servers' CPU, Redis's CPU, and what both use without a message; the floor is the smaller."""
    rows = []
    for case in (case for name, case in cases(options).items() if name in options.grow):
        async with AsyncExitStack() as stack:
            little, much = [await case.set_up(stack, options, size) for size in case.sizes]
            sides = [little, much]
            for side in sides:
                await side.warm_up(options.payloads[0])
            for _ in range(options.rounds):
                for side in sides:
                    await side.round(options.seconds, options.payloads[0])
                sides.reverse()
        rows += _rows(case, little, much, options)
    return rows


def _rows(case: Case, little: Side, much: Side, options: Options) -> list[Row]:
    fewer, more = case.sizes
    due = options.rounds * max(1, round(options.seconds * much.rate)) * much.frames
    grown = f"{more} {case.name} (floor: {fewer})"
    message = f"a {case.message} message, {grown}"

    def row(what: str, unit: str, ours: list[float], floor: list[float], goal: Goal | None = None) -> Row:
        return Row("growth", what, unit, ours, floor, goal, delivered=much.arrived, expected=due)

    if case.members:
        ours, floor = [cost / more for cost in much.server], [cost / fewer for cost in little.server]
        server = row(f"servers' CPU a member of {message}", "µs", ours, floor, case.goal)
    else:
        server = row(f"servers' CPU {message}", "µs", much.server, little.server, case.goal)
    redis = row(f"Redis CPU {message}", "µs", much.redis, little.redis, None if case.members else case.goal)
    return [server, redis, row(f"idle CPU of servers and Redis, {grown}", "ms/s", much.idle, little.idle)]
