"""1:1 messages at a rate to clients of two servers: what server, sender and Redis pay a message, and how long it takes.

Floors: for the server one send(2) a message, for sender and Redis one bare XADD a message at the same pace.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.cluster import Cluster
from bench.errors import BenchError
from bench.natives import DELIVERY_SECONDS, Loadgen
from bench.options import Options
from bench.peers.base import Peer, Sent
from bench.procs import Speaker, cpu_seconds, settle
from bench.report import Goal, Row

GOAL_SERVER = Goal(0.7, "centrifugo-redis")
# The rate at which the latency has a goal.
GOAL_RATE = 5000
GOAL_P99 = Goal(25, "ours")
# A side that can't keep up with the rate sends for at most this many times as long as it was to take, and a bit.
PATIENCE = 3
PATIENCE_SECONDS = 5
PAYERS = ("server", "sender", "Redis")
PERCENTILES = ("p50", "p99", "p999")


@dataclass
class _Side:
    """Ours, a peer, or the floor, which delivers nothing: who pays, who counts, how it is sent; one figure a round."""

    name: str
    payers: Mapping[str, Sequence[int]]
    loadgen: Loadgen | None
    send: Callable[[int, int, float], Awaitable[Sent]]
    figures: dict[str, list[float]] = field(default_factory=dict)
    messages: int = 0
    failed: str = ""

    async def round(self, size: int, count: int, rate: int) -> Sent:
        """Sends, waits until all of it arrived, and keeps the figures."""
        await settle(*(pid for pids in self.payers.values() for pid in pids))
        if self.loadgen is not None:
            await self.loadgen.reset()
        before = {name: sum(map(cpu_seconds, pids)) for name, pids in self.payers.items()}
        sent = await self.send(size, count, rate)
        if self.loadgen is not None:
            seen = await self.loadgen.received(sent.messages)
            self.messages += seen.messages
            for name in PERCENTILES:
                self._keep(name, seen.latency_us[name] / 1000)
        for name, pids in self.payers.items():
            self._keep(name, 1e6 * (sum(map(cpu_seconds, pids)) - before[name]) / sent.messages)
        self._keep("rate", sent.messages / sent.seconds)
        return sent

    def _keep(self, name: str, figure: float) -> None:
        self.figures.setdefault(name, []).append(figure)

    def fail(self, why: str) -> None:
        """Takes back what was measured: a round of this side can't be trusted."""
        self.failed = why
        self.figures.clear()


async def measure(cluster: Cluster, sender: Speaker, peers: Sequence[Peer], options: Options) -> list[Row]:
    """The rows of each rate."""
    return [row for rate in options.rates for row in await _at(rate, cluster, sender, peers, options)]


async def _at(rate: int, cluster: Cluster, sender: Speaker, peers: Sequence[Peer], options: Options) -> list[Row]:
    size, count = options.payloads[0], max(1, round(rate * options.seconds))
    patience = PATIENCE * options.seconds + PATIENCE_SECONDS
    redis = {"sender": [sender.pid], "Redis": [cluster.valkey.pid]}
    servers = {"server": [server.pid for server in cluster.servers]}
    ours = _Side("imserver", servers | redis, cluster.loadgen, _by(sender, "helper", patience))
    floor = _Side("floor", redis, None, _by(sender, "xadd", patience))
    others = [_peer_side(peer, options.addressees, patience) for peer in peers]
    turns = [ours, floor, *others]
    expected = 0
    for _ in range(options.rounds):
        for side in turns:
            if side.failed:
                continue
            try:
                sent = await side.round(size, count, rate)
            except BenchError as error:
                if side not in others:
                    raise
                side.fail(error.brief)
                continue
            expected += sent.messages if side is ours else 0
        before = cpu_seconds(cluster.floor.pid)
        await cluster.floor.send(size, count, to_all=False)
        floor.figures.setdefault("server", []).append(1e6 * (cpu_seconds(cluster.floor.pid) - before) / count)
        turns.reverse()
    case = f"{rate}/s of {size} B to {options.addressees} clients on two servers"
    return _rows(case, rate, ours, floor, others, expected)


def _by(sender: Speaker, op: str, patience: float) -> Callable[[int, int, float], Awaitable[Sent]]:
    async def send(size: int, count: int, rate: float) -> Sent:
        order = {"op": op, "size": size, "count": count, "rate": rate, "patience": patience}
        done = await sender.ask(json.dumps(order), "sent", patience + DELIVERY_SECONDS)
        return Sent(done["sent"], done["seconds"])

    return send


def _peer_side(peer: Peer, users: int, patience: float) -> _Side:
    async def send(size: int, count: int, rate: float) -> Sent:
        return await peer.talk(size, count, rate, users, patience)

    payers = {"server": peer.pids, "sender": [process.pid for process in peer.senders]}
    if peer.redis is not None:
        payers["Redis"] = [peer.redis.pid]
    return _Side(peer.name, payers, peer.loadgen, send)


def _rows(case: str, rate: int, ours: _Side, floor: _Side, others: Sequence[_Side], expected: int) -> list[Row]:
    failed = {side.name: side.failed for side in others if side.failed}

    def row(what: str, unit: str, figure: str, goal: Goal | None = None) -> Row:
        return Row(
            work="direct",
            what=f"{what}, {case}",
            unit=unit,
            ours=ours.figures[figure],
            floor=floor.figures.get(figure, ()) if figure != "rate" else (),
            goal=goal,
            delivered=ours.messages,
            expected=expected,
            peers={side.name: side.figures.get(figure, ()) for side in others},
            failed=failed,
        )

    rows = [row(f"{name} CPU a 1:1 message", "µs", name, GOAL_SERVER if name == "server" else None) for name in PAYERS]
    for name in PERCENTILES:
        goal = GOAL_P99 if name == "p99" and rate == GOAL_RATE else None
        rows.append(row(f"latency of a 1:1 message, {name}", "ms", name, goal))
    return [*rows, row("1:1 messages really sent a second", "1/s", "rate")]
