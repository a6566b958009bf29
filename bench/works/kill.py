"""A server is killed, and all its clients come back at once: how long that takes, and what others notice of it.

Each client asks for a new URL and resumes where it was; it is back once it has the message that was sent while it was
away. The others, on servers that live, get 1:1 messages before and meanwhile. Nobody starts the server again.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from bench.cluster import Cluster, in_parallel, payload
from bench.errors import BenchError
from bench.natives import DELIVERY_SECONDS, Delivered, Loadgen
from bench.options import Options
from bench.procs import Speaker
from bench.report import Row
from imhelper.core.slots import slot_of

WORK = "kill"
SERVERS = 3
OTHERS = 1000
CHANNEL = "bench-kill"
# Longer than it takes to set up a round on a slow machine: what was missed must not be forgotten meanwhile.
RETAIN_SECONDS = 600
# Clients that try at once; each is answered, or told to come again.
AT_ONCE = 1000
CHUNK_SECONDS = 0.5


@dataclass
class _Figures:
    """One figure a round."""

    back: list[float] = field(default_factory=list)
    minting: list[float] = field(default_factory=list)
    handshakes: list[float] = field(default_factory=list)
    before: dict[str, list[float]] = field(default_factory=dict)
    meanwhile: dict[str, list[float]] = field(default_factory=dict)
    returned: int = 0


async def measure(options: Options) -> list[Row]:
    """Seconds until all are back, handshakes a second, latency of others; each round has a cluster of its own."""
    figures = _Figures()
    for _ in range(options.rounds):
        async with Cluster(servers=SERVERS, settings={"IM_RETAIN_SECONDS": str(RETAIN_SECONDS)}) as cluster:
            await _round(cluster, options, figures)
    due = options.rounds * options.returning
    case = f"{options.returning} clients of a killed server, {SERVERS - 1} left"
    others = f"{options.storm_rate}/s to others while {case} (floor: before)"

    def row(what: str, unit: str, ours: list[float], floor: list[float] | None = None) -> Row:
        return Row(WORK, what, unit, ours, floor or (), delivered=figures.returned, expected=due)

    return [
        row(f"time until all are back and have what they missed, {case}", "s", figures.back),
        row(f"of which one helper gave out the URLs, {case}", "s", figures.minting),
        row(f"handshakes a second meanwhile, {case}", "1/s", figures.handshakes),
        *(
            row(f"latency of a 1:1 message, {name}, {others}", "ms", figures.meanwhile[name], figures.before[name])
            for name in figures.meanwhile
        ),
    ]


async def _round(cluster: Cluster, options: Options, figures: _Figures) -> None:
    victim = cluster.servers[0]
    names, others = await _sorted_names(cluster, victim.name, options.returning)
    async with (
        Loadgen(cluster.folder, "victims", 11) as victims,
        Loadgen(cluster.folder, "back", 21) as back,
        _sender(cluster, others) as sender,
    ):
        await victims.connect(await cluster.mint(names), "envelope")
        await cluster.loadgen.connect(await cluster.mint(others))
        if not all(await in_parallel(lambda name: cluster.helper.join_chan(name, CHANNEL), names)):
            raise BenchError("not every connected client could join")
        await victims.expect(len(names))
        await cluster.helper.send_chan_message("bench", CHANNEL, payload(options.payloads[0]))
        await victims.delivered(len(names))
        positions = await victims.positions()
        # The first message of a sender loads scripts; twice as many show that it has got going.
        for count in (OTHERS // 10, max(10, round(options.storm_rate * options.seconds))):
            await cluster.loadgen.reset()
            await _say(sender, count, options)
            quiet = await cluster.loadgen.received(count)
        _note(figures.before, quiet)

        await cluster.loadgen.reset()
        await back.reset()
        over = asyncio.Event()
        talk = asyncio.create_task(_talk(sender, options, over))
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            await victim.kill()
            await cluster.helper.send_chan_message("bench", CHANNEL, payload(options.payloads[0]))
            urls = await in_parallel(lambda name: cluster.helper.prev_connect_server(name, avoid=victim.name), names)
            figures.minting.append(loop.time() - start)
            resumed = [f"{url}&since={quote(pos, safe='')}" for url, pos in zip(urls, positions, strict=True)]
            figures.handshakes.append(await back.connect(resumed, "envelope", concurrency=AT_ONCE))
            figures.returned += (await back.received(len(names))).messages
            figures.back.append(loop.time() - start)
        finally:
            over.set()
            said = await talk
        _note(figures.meanwhile, await cluster.loadgen.received(said))


async def _sorted_names(cluster: Cluster, victim: str, count: int) -> tuple[list[str], list[str]]:
    """`count` clients whom the table gives to the victim, and OTHERS whom it does not."""
    topology = await cluster.helper.topology()
    names: list[str] = []
    others: list[str] = []
    index = 0
    while len(names) < count or len(others) < OTHERS:
        name = f"client-{index}"
        server = topology.server_of_slot(slot_of(name, topology.slots))
        (names if server is not None and server.name == victim else others).append(name)
        index += 1
    return names[:count], others[:OTHERS]


@asynccontextmanager
async def _sender(cluster: Cluster, targets: list[str]) -> AsyncIterator[Speaker]:
    """A process that sends, so that its pace does not hang on the one that gives out URLs."""
    file = cluster.folder / "targets"
    file.write_text("\n".join(targets))
    command: list[str | Path] = [sys.executable, "-m", "bench.sender", cluster.redis_url, file]
    async with Speaker("sender", command, cluster.folder / "sender.log") as sender:
        await sender.hear("ready")
        yield sender


async def _say(sender: Speaker, count: int, options: Options) -> None:
    order = {"op": "helper", "count": count, "rate": options.storm_rate, "size": options.payloads[0]}
    await sender.ask(json.dumps(order), "sent", DELIVERY_SECONDS)


async def _talk(sender: Speaker, options: Options, over: asyncio.Event) -> int:
    """Sends until it is over; returns how many messages that were."""
    chunk = max(1, round(options.storm_rate * CHUNK_SECONDS))
    said = 0
    while not over.is_set():
        await _say(sender, chunk, options)
        said += chunk
    return said


def _note(into: dict[str, list[float]], seen: Delivered) -> None:
    for name in ("p50", "p99"):
        into.setdefault(name, []).append(seen.latency_us[name] / 1000)
