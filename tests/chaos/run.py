# One run from start to verdict: processes up, clients connected, traffic and faults, then time to settle, then judging.
# Settling ends as soon as nothing is wrong any more, or when what the contract allows has passed.

import asyncio
import logging
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from imhelper import ImHelper
from imhelper.errors import NoServerError, RedisUnavailableError
from tests.chaos.device import Device
from tests.chaos.faults import Faults
from tests.chaos.ledger import Ledger, now
from tests.chaos.listening import Listeners
from tests.chaos.scene import Scene
from tests.chaos.store import Store
from tests.chaos.traffic import Traffic, make_clients
from tests.chaos.verdict import Judge, Verdict
from tests.chaos.world import World
from tests.support.waiting import eventually

__all__ = ["Options", "Outcome", "run"]

log = logging.getLogger(__name__)

CONNECT_RATE = 400
PING_SECONDS = 5
TICK_SECONDS = 0.5
DRAIN_RATE = 200
DRAIN_SECONDS = 8
# Longer than any client stays away, on a machine that starves it too.
RETAIN_SECONDS = 150
SETTLE_EXTRA_SECONDS = 20


@dataclass
class Options:
    """The command line. `every` are the bounds of the pause between two faults."""

    seed: int
    seconds: float
    servers: int
    clients: int
    rate: float
    faults: list[str]
    every: tuple[float, float]
    lease: float
    grace: float
    fsync: str
    store: type[Store]
    folder: Path


@dataclass
class Outcome:
    """What a run came to."""

    verdict: Verdict
    ledger: Ledger
    peak_kilobytes: int = 0
    exits: dict[int, int] = field(default_factory=dict)
    settled: float = 0.0


async def run(options: Options) -> Outcome:
    """Run once."""
    rng = random.Random(options.seed)
    ledger = Ledger()
    world = World(
        options.folder,
        options.store(options.folder, options.fsync),
        options.servers,
        IM_LEASE_SECONDS=options.lease,
        IM_GRACE_SECONDS=options.grace,
        IM_PING_SECONDS=PING_SECONDS,
        IM_DRAIN_RATE=DRAIN_RATE,
        IM_DRAIN_TIMEOUT_SECONDS=DRAIN_SECONDS,
        IM_RETAIN_SECONDS=RETAIN_SECONDS,
        IM_LOG_LEVEL="info",
    )
    try:
        await world.start()
        async with ImHelper(world.store.url) as helper:
            return await _with_helper(options, rng, ledger, world, helper)
    finally:
        await world.stop()


async def _with_helper(options: Options, rng: random.Random, ledger: Ledger, world: World, helper: ImHelper) -> Outcome:
    # Until the table names all of them, clients go to the first: faults of the others would meet nobody.
    await eventually(lambda: _tabled(helper, options.servers), 30, "a topology of all servers")
    devices = make_clients(ledger, helper, options.clients, rng)
    listeners = Listeners(helper, random.Random(options.seed))
    await listeners.start()
    ticker = asyncio.get_running_loop().create_task(_tick(ledger, devices))
    for device in devices:
        device.start()
        await asyncio.sleep(1 / CONNECT_RATE)
    await _until(lambda: all(d.connected for d in devices), 30)
    spread = Counter(d.server for d in devices if d.server is not None)
    log.info("devices of %d clients are connected: %s", options.clients, sorted(spread.values()))
    traffic = Traffic(ledger, helper, devices, rng, options.rate, options.grace)
    await traffic.fill_chans()
    scene = Scene(world, ledger, devices, traffic, rng, options.lease, options.grace)
    sending = asyncio.get_running_loop().create_task(traffic.run())
    living = asyncio.get_running_loop().create_task(_live(traffic, len(devices)))
    await Faults(scene, options.faults).run(options.seconds, options.every)
    living.cancel()
    await traffic.stop()
    await sending
    log.info("settling")
    began = now()
    for device in devices:
        if device.client.gone is None:
            device.start()
    await world.all_ready(60)
    outcome = await _settle(options, ledger, world, helper, devices, listeners)
    outcome.settled = now() - began
    await listeners.stop()
    ticker.cancel()
    # The processes end next: that is no close of the run's.
    for device in devices:
        device.leave()
    return outcome


async def _tabled(helper: ImHelper, servers: int) -> bool:
    try:
        return len((await helper.topology()).servers) == servers
    except (NoServerError, RedisUnavailableError):
        return False


async def _until(condition: object, timeout: float) -> bool:
    assert callable(condition)
    deadline = now() + timeout
    while not condition():
        if now() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def _tick(ledger: Ledger, devices: list[Device]) -> None:
    """Pings; and how late this turn comes: a machine that starves the runner makes its verdicts less sharp."""
    due = now()
    while True:
        time = now()
        ledger.stalls.append(time - due)
        if time - due > TICK_SECONDS:
            log.info("the runner stood still for %.1f s", time - due)
        for device in devices:
            device.tick(time)
        due = now() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)


async def _live(traffic: Traffic, devices: int) -> None:
    """Clients come and go: each minute a seventh of the devices goes away for a while, and a few leave for good."""
    pause = 60 / (devices / 7)
    turn = 0
    while True:
        await asyncio.sleep(pause)
        traffic.go_away()
        turn += 1
        if turn % 10 == 0:
            traffic.leave_for_good()


async def _settle(
    options: Options, ledger: Ledger, world: World, helper: ImHelper, devices: list[Device], listeners: Listeners
) -> Outcome:
    deadline = now() + options.lease + options.grace + SETTLE_EXTRA_SECONDS
    await _until(lambda: all(d.connected for d in devices if d.client.gone is None), 30)
    while True:
        await asyncio.sleep(1.0)
        await asyncio.to_thread(_read_events, ledger, world)
        verdict = await _judge(options, ledger, last=now() > deadline)
        if verdict is None:
            continue
        await _look(verdict, ledger, world, helper, devices)
        if not ledger.losses:
            for text in listeners.wrong(ledger):
                verdict.fault("event bus", text)
        if not any(verdict.wrong.values()) or now() > deadline:
            break
    for line in world.errors_in_logs():
        verdict.fault("other", line)
    exits: dict[int, int] = {}
    for managed in world.servers:
        for code in managed.exits:
            exits[code] = exits.get(code, 0) + 1
    peak = max(m.peak_kilobytes for m in world.servers)
    return Outcome(verdict, ledger, peak, exits)


async def _judge(options: Options, ledger: Ledger, *, last: bool) -> Verdict | None:
    """Judge beside the loop: of a long run it takes seconds, in which clients must go on answering. None when the
    ledger grew meanwhile, which the last look does not let it."""
    if last:
        return Judge(ledger, options.lease, options.grace).verdict()
    try:
        return await asyncio.to_thread(lambda: Judge(ledger, options.lease, options.grace).verdict())
    except RuntimeError as error:
        log.debug("judging begins again: %s", error)
        return None


def _read_events(ledger: Ledger, world: World) -> None:
    ledger.events.clear()
    for tag in world.store.tags:
        with world.store.holder(tag).client() as client:
            reply: Any = client.xrange(f"{tag}:ev")
        for entry_id, fields in reply:
            number = ledger.number_of(fields[b"c"].decode())
            if number is not None:
                ledger.events[number].append((int(entry_id.split(b"-")[0]) / 1000, fields[b"e"].decode()))


async def _look(verdict: Verdict, ledger: Ledger, world: World, helper: ImHelper, devices: list[Device]) -> None:
    """Compare what the helper says now with what is: presence, channels, and what Redis still holds of the dead."""
    online = set(await helper.get_client_list_by_online())
    connected = {d.client.client_id for d in devices if d.connected}
    for name in sorted(online - connected):
        verdict.fault("ghosts", f"{name!r} is online without a socket")
    for name in sorted(connected - online):
        verdict.fault("ghosts", f"{name!r} has a socket and is not online")
    for device in devices:
        if device.client.gone is None and not device.connected:
            verdict.fault("other", f"{device.client.client_id!r} does not get a connection")
    for chan, count in await helper.get_chan_list():
        members = await helper.get_chan_client_list(chan)
        if len(members) != count or not set(members) <= online:
            verdict.fault("ghosts", f"{chan!r}: {count} members counted, {len(members)} listed, not all of them online")
    for text in await asyncio.to_thread(_left_behind, world, not ledger.losses):
        verdict.fault("ghosts", text)


def _left_behind(world: World, receipts: bool) -> list[str]:
    """Records of boots that are no more; and receipts that nobody decided, unless Redis may have lost the decision."""
    store = world.store
    with store.holder("{im}").client() as client:
        records: Any = client.hgetall("{im}:servers")
    leases = {value.split(b"\n")[0] for value in records.values()}
    found = []
    for tag in store.tags:
        with store.holder(tag).client() as client:
            found += _boots_left_behind(client, tag, leases)
            if receipts:
                found += _receipts_left_behind(client, tag)
    return found


def _boots_left_behind(client: Redis, tag: str, leases: set[bytes]) -> list[str]:
    found = []
    for key in (f"{tag}:boots", f"{tag}:dying"):
        boots: Any = client.smembers(key)
        found += [f"{key} names a boot without a lease" for boot in boots if boot not in leases]
    for kind in ("bs", "bp"):
        for key in client.scan_iter(match=f"{tag}:{kind}:*", count=1000):
            if key.rsplit(b":", 1)[1] not in leases:
                found.append(f"{tag}: {kind} of a boot without a lease is left")
    return found


def _receipts_left_behind(client: Redis, tag: str) -> list[str]:
    pending = [f"{key!r}: receipts that nobody decided" for key in client.scan_iter(match=f"{tag}:pend:*", count=1000)]
    due = [f"{tag}: receipts are still due"] if client.zcard(f"{tag}:due") else []
    return pending + due + ([f"{tag}: receipts were not carried on"] if client.xlen(f"{tag}:out") else [])
