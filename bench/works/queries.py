"""What questions and changes cost as clients and channels grow: time, Redis's CPU, the longest command meanwhile.

Redis does one command at a time, so the longest one is what everybody else waits. The clients are put into Redis in
bulk by a real script, without a socket each (populate.py); the fewer and the more take turns, each with its own Redis.
"""

import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from redis.asyncio import Redis

from bench.cluster import Cluster
from bench.errors import BenchError
from bench.options import Options
from bench.populate import channel, populate
from bench.procs import cpu_seconds, settle, tcp_peers_of
from bench.report import Goal, Row

# A question about one client or channel must not know how many others there are.
GOAL_FLAT = Goal(1.5, "ratio")
# What lists all of them takes its time, but in bites.
GOAL_LONGEST = Goal(2000, "ours")
SLOWEST_KEPT = 100_000
# Lists of everything are asked for this much less often than the rest.
LISTS_SHARE = 20
OURS_TO_ASK = frozenset({"SLOWLOG", "CONFIG"})


@dataclass
class _Side:
    """A cluster with so many clients and channels in its Redis; figures by the name of a call."""

    cluster: Cluster
    clients: list[str]
    channels: int
    times: dict[str, list[float]] = field(default_factory=dict)
    costs: dict[str, list[float]] = field(default_factory=dict)
    longest: dict[str, list[float]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Call:
    """One call of the helper.

    Args:
        ask: the call for the n-th time, and whether its answer was right.
        listing: whether it names everybody, so that it may take longer with more of them.
    """

    name: str
    ask: Callable[[_Side, int], Awaitable[bool]]
    listing: bool = False


async def _has_online(side: _Side, turn: int) -> bool:
    return await side.cluster.helper.has_online(side.clients[turn % len(side.clients)])


async def _online_count(side: _Side, turn: int) -> bool:
    return await side.cluster.helper.get_online_count() == len(side.clients)


async def _chan_online(side: _Side, turn: int) -> bool:
    return await side.cluster.helper.get_chan_online(channel(turn % side.channels)) > 0


def _membership(side: _Side, turn: int) -> tuple[str, str]:
    """A client and a channel, another pair each turn."""
    rest, index = divmod(turn, len(side.clients))
    return side.clients[index], f"joined-{rest}"


async def _join(side: _Side, turn: int) -> bool:
    return await side.cluster.helper.join_chan(*_membership(side, turn))


async def _leave(side: _Side, turn: int) -> bool:
    return await side.cluster.helper.leave_chan(*_membership(side, turn)) == 1


async def _online_list(side: _Side, turn: int) -> bool:
    return len(await side.cluster.helper.get_client_list_by_online()) == len(side.clients)


async def _chan_list(side: _Side, turn: int) -> bool:
    return len(await side.cluster.helper.get_chan_list()) == side.channels


# Who joined has left again before the channels are counted.
CALLS = (
    _Call("has_online", _has_online),
    _Call("get_online_count", _online_count),
    _Call("get_chan_online", _chan_online),
    _Call("join_chan", _join),
    _Call("leave_chan", _leave),
    _Call("get_client_list_by_online", _online_list, listing=True),
    _Call("get_chan_list", _chan_list, listing=True),
)


async def measure(options: Options) -> list[Row]:
    """Three rows a call: time, Redis CPU, the longest command; the floor is the same with the fewer clients."""
    async with AsyncExitStack() as stack:
        sides = []
        for clients, channels in zip(options.known, options.channels, strict=True):
            cluster = await stack.enter_async_context(Cluster())
            side = _Side(cluster, [f"known-{index}" for index in range(clients)], channels)
            await populate(cluster, side.clients, channels)
            await cluster.helper.join_chan(side.clients[0], "warm-up")  # scripts are loaded now
            await cluster.helper.leave_chan(side.clients[0], "warm-up")
            sides.append(side)
        fewer, more = sides
        for _ in range(options.rounds):
            for call in CALLS:
                for side in sides:
                    await _ask(side, call, _count(call, options))
            sides.reverse()
    return [row for call in CALLS for row in _rows(call, fewer, more, options)]


def _count(call: _Call, options: Options) -> int:
    return max(1, options.calls // LISTS_SHARE) if call.listing else options.calls


def _rows(call: _Call, fewer: _Side, more: _Side, options: Options) -> list[Row]:
    name, due = call.name, options.rounds * _count(call, options)
    case = f"{name} with {len(more.clients)} clients in {more.channels} channels (floor: {len(fewer.clients)} in "
    case += f"{fewer.channels})"
    figures = (
        ("time of", more.times, fewer.times, None),
        ("Redis CPU of", more.costs, fewer.costs, None if call.listing else GOAL_FLAT),
        ("longest Redis command of", more.longest, fewer.longest, GOAL_LONGEST),
    )
    return [
        Row("queries", f"{what} {case}", "µs", ours[name], floor[name], goal, delivered=more.done[name], expected=due)
        for what, ours, floor, goal in figures
    ]


async def _ask(side: _Side, call: _Call, count: int) -> None:
    """Calls it `count` times, one after another; each answer is checked."""
    valkey = side.cluster.valkey.pid
    async with Redis.from_url(side.cluster.redis_url) as redis:
        await settle(valkey)
        await redis.config_set("slowlog-max-len", SLOWEST_KEPT)
        await redis.config_set("slowlog-log-slower-than", 0)
        await redis.slowlog_reset()
        before, times = cpu_seconds(valkey), []
        for turn in range(count):
            start = time.perf_counter()
            right = await call.ask(side, turn)
            times.append(1e6 * (time.perf_counter() - start))
            if not right:
                raise BenchError(f"{call.name} with {len(side.clients)} clients gave a wrong answer")
        cost = cpu_seconds(valkey) - before
        mine = tcp_peers_of(os.getpid(), side.cluster.redis_port)
        log = await redis.slowlog_get(SLOWEST_KEPT)
        await redis.config_set("slowlog-log-slower-than", -1)
    took = [
        entry["duration"]
        for entry in log
        if entry["client_address"].decode() in mine and entry["command"].split()[0].decode() not in OURS_TO_ASK
    ]
    if not took:
        raise BenchError(f"Redis's slow log holds no command of {call.name}")
    side.times.setdefault(call.name, []).append(statistics.median(times))
    side.costs.setdefault(call.name, []).append(1e6 * cost / count)
    side.longest.setdefault(call.name, []).append(max(took))
    side.done[call.name] = side.done.get(call.name, 0) + count
