"""How much one process can send through the helper: asyncio with many sends under way, and blocking, one thread.

Nobody is connected, so that neither servers nor sockets take anything from the machine; that each message was accepted
once is seen in the numbers of the slots' logs. The floor is a bare XADD through redis-py in the same style and round.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from bench.cluster import PREFIX, Cluster
from bench.errors import BenchError
from bench.options import Options
from bench.populate import channel, populate
from bench.procs import Speaker, cpu_seconds, settle
from bench.report import Goal, Row
from imhelper.core import keys
from imhelper.core.slots import slot_of

WORK = "helper"
GOAL_ASYNC = Goal(15_000, "ours", "least")
GOAL_BLOCKING = Goal(4_000, "ours", "least")
TARGETS = 2000
SEND_SECONDS = 120
# Sends that touch all slots cost Redis as much as so many others.
MANY_SHARE = 20


@dataclass
class _Case:
    """A way of sending and its floors.

    Args:
        op: of bench.pusher.
        floors: ops of its floors and what these are called; the first one's CPU is compared, too.
        entries: entries that a send appends.
    """

    op: str
    what: str
    floors: tuple[tuple[str, str], ...]
    count: int
    in_flight: int
    entries: int = 1
    goal: Goal | None = None
    rates: dict[str, list[float]] = field(default_factory=dict)
    helper: dict[str, list[float]] = field(default_factory=dict)
    redis: dict[str, list[float]] = field(default_factory=dict)
    appended: int = 0


async def measure(options: Options) -> list[Row]:
    """Sends a second, CPU of the sending process and of Redis a send, for each way of sending."""
    async with Cluster() as cluster:
        slots = (await cluster.helper.topology()).slots
        members = [f"member-{index}" for index in range(max(TARGETS, options.receivers))]
        await populate(cluster, members, 1)
        (cluster.folder / "targets").write_text("\n".join(members[:TARGETS]))
        (cluster.folder / "receivers").write_text("\n".join(members[: options.receivers]))
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "bench.pusher",
            cluster.redis_url,
            cluster.folder,
            channel(0),
        ]
        cases = _cases(options, _touched(members, slots), _touched(members[: options.receivers], slots))
        async with (
            Speaker("pusher", command, cluster.folder / "pusher.log") as pusher,
            Redis.from_url(cluster.redis_url) as redis,
        ):
            await pusher.hear("ready")
            for case in cases:
                for op in (case.op, *(op for op, _ in case.floors)):  # connections are open and scripts loaded now
                    await _order(pusher, op, min(20, case.count), case, options)
            for round_ in range(options.rounds):
                for case in cases:
                    ops = [case.op, *(op for op, _ in case.floors)]
                    for op in ops if round_ % 2 == 0 else reversed(ops):
                        await _charge(cluster, pusher, redis, op, case, options)
    return [row for case in cases for row in _rows(case, options)]


def _touched(members: list[str], slots: int) -> int:
    return len({slot_of(member, slots) for member in members})


def _cases(options: Options, all_slots: int, receivers_slots: int) -> list[_Case]:
    few = max(1, options.sends // MANY_SHARE)
    pairs = (("xadd", "bare XADDs in as many tasks"), ("xadd-pipelined", "bare XADDs pipelined by hand"))
    best = max(options.in_flight)
    cases = [
        _Case("helper", f"asyncio, {n} under way", pairs, options.sends, n, goal=GOAL_ASYNC if n == best else None)
        for n in options.in_flight
    ]
    alone = (("xadd-blocking", "bare XADDs one by one"),)
    few_in_flight = min(options.in_flight)
    to_all = f"to a channel in {all_slots} slots, asyncio, {few_in_flight} under way"
    to_many = f"to {options.receivers} receivers in {receivers_slots} slots, asyncio, {few_in_flight} under way"
    return [
        *cases,
        _Case("helper-blocking", "blocking", alone, options.sends, 1, goal=GOAL_BLOCKING),
        _Case("helper-channel", to_all, pairs[:1], few, few_in_flight, entries=all_slots),
        _Case("helper-many", to_many, pairs[:1], few, few_in_flight, entries=receivers_slots),
    ]


async def _order(pusher: Speaker, op: str, count: int, case: _Case, options: Options) -> dict[str, float]:
    order = {"op": op, "count": count, "size": options.payloads[0], "in_flight": case.in_flight}
    return await pusher.ask(json.dumps(order), "sent", SEND_SECONDS)


async def _entries(redis: Redis) -> int:
    """Entries ever appended to all logs: the numbers within a slot are dense."""
    last: dict[bytes, bytes] = await redis.hgetall(keys.last_ids(keys.group_tag(PREFIX, 0)))  # type: ignore[assignment]
    return sum(int(entry.rpartition(b"-")[2]) for entry in last.values())


async def _charge(cluster: Cluster, pusher: Speaker, redis: Redis, op: str, case: _Case, options: Options) -> None:
    valkey = cluster.valkey.pid
    entries = await _entries(redis)
    await settle(valkey, pusher.pid)
    before = cpu_seconds(valkey)
    done = await _order(pusher, op, case.count, case, options)
    case.redis.setdefault(op, []).append(1e6 * (cpu_seconds(valkey) - before) / case.count)
    case.helper.setdefault(op, []).append(1e6 * done["cpu_seconds"] / case.count)
    case.rates.setdefault(op, []).append(case.count / done["seconds"])
    appended = await _entries(redis) - entries
    due = case.count * case.entries if op == case.op else 0
    if appended != due:
        raise BenchError(f"{case.count} sends {case.what} were to append {due} entries; there are {appended}")
    case.appended += appended


def _rows(case: _Case, options: Options) -> list[Row]:
    due = options.rounds * case.count * case.entries

    def row(what: str, unit: str, figures: dict[str, list[float]], floor: str, goal: Goal | None = None) -> Row:
        return Row(WORK, what, unit, figures[case.op], figures[floor], goal, delivered=case.appended, expected=due)

    rows = []
    for index, (floor, name) in enumerate(case.floors):
        goal = case.goal if index == 0 else None
        rows.append(row(f"sends a second, {case.what} (floor: {name})", "1/s", case.rates, floor, goal))
    floor, name = case.floors[0]
    return [
        *rows,
        row(f"helper CPU a send, {case.what} (floor: {name})", "µs", case.helper, floor),
        row(f"Redis CPU a send, {case.what} (floor: {name})", "µs", case.redis, floor),
    ]
