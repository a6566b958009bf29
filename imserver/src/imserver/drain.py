"""Leaving: clients are sent elsewhere at a bounded rate, because the process ends or because the table says so.
`move` with a fresh token for envelope clients, 1012 for plain ones; whoever stays is closed at the deadline."""

from __future__ import annotations

import asyncio
import logging
import random
from time import monotonic
from typing import TYPE_CHECKING

from imhelper.core import scripts
from imhelper.core.leases import choose_server, live_names
from imhelper.core.slots import group_of
from imhelper.core.tokens import make_token
from imhelper.core.topology import DRAINING
from imhelper.errors import RedisUnavailableError, TopologyError

from . import entries
from .lease import Fenced, LeaseKeeper
from .socket import OPEN, Socket
from .waiting import until

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["TableDrain", "drain", "pace"]

log = logging.getLogger(__name__)

# How long the token of a `move` lives; the client is connected and acts at once.
TOKEN_MS = 30000
JOIN_SECONDS = 2.0
# How often sockets are looked for that opened after the drain began.
LOOK_SECONDS = 0.5
GOING_AWAY = "server going away"


def pace(rate: float, sockets: int, timeout: float) -> float:
    """Sockets a second: the rate, or more when that would not do within four fifths of the timeout."""
    return max(rate, sockets / (0.8 * timeout)) if timeout > 0 else float("inf")


async def drain(hub: Hub, keeper: LeaseKeeper) -> None:
    """Before the end: move all clients away; return when none is left or the time is over.

    New handshakes get 503 meanwhile.
    """
    hub.draining = hub.ending = True
    hub.poke()
    await tell_publisher(hub, keeper)
    # A server that has just joined is in no table yet: better a moment's wait than clients that must ask for a URL.
    await until(lambda: _others_listed(hub, keeper) or len(keeper.leases) < 2, JOIN_SECONDS)
    await _empty(hub, keeper)


async def _empty(hub: Hub, keeper: LeaseKeeper) -> None:
    settings = hub.settings
    deadline = monotonic() + settings.drain_timeout_seconds
    told: set[Socket] = set()
    while True:
        # Again and again: a handshake that was under way when the drain began opens its socket later.
        sockets = [s for s in hub.connected if s.state == OPEN and s not in told]
        random.shuffle(sockets)
        rate = pace(settings.drain_rate, len(sockets), settings.drain_timeout_seconds)
        if sockets or not told:
            log.info("draining %d sockets at %.0f a second", len(sockets), rate)
        for socket in sockets:
            if monotonic() >= deadline:
                break
            told.add(socket)
            if socket.state == OPEN:
                _send_away(hub, keeper, socket)
                await asyncio.sleep(random.uniform(0.5, 1.5) / rate)  # noqa: S311 - jitter, not a secret
        left = deadline - monotonic()
        if left <= 0 or await until(lambda: not hub.open_count, min(LOOK_SECONDS, left)):
            break
    for socket in [s for s in hub.connected if s.state == OPEN]:
        socket.close(1012, GOING_AWAY)


class TableDrain:
    """Drains while an operator's table has this server as `draining`, and stops when it is active again.

    The process goes on either way: whoever drained it decides when it ends. A table that the servers publish
    themselves only repeats what their leases say, so it is not obeyed.
    """

    def __init__(self, hub: Hub, keeper: LeaseKeeper) -> None:
        self._hub, self._keeper = hub, keeper
        self._job: asyncio.Task[None] | None = None

    def _told(self) -> bool:
        hub = self._hub
        servers = hub.topology.servers if hub.topology is not None else ()
        me = hub.settings.server_name
        return hub.settings.topology == "operator" and any(s.name == me and s.state == DRAINING for s in servers)

    async def run(self) -> None:
        """Follow the table for ever. Raises what a drain raised."""
        hub = self._hub
        while True:
            learnt = asyncio.get_running_loop().create_task(hub.learnt.wait())
            try:
                await asyncio.wait([learnt, *([self._job] if self._job else [])], return_when=asyncio.FIRST_COMPLETED)
            finally:
                learnt.cancel()
            if self._job is not None and self._job.done():
                self._job.result()
                self._job = None
            hub.learnt.clear()
            if hub.ending or self._told() == hub.draining:
                continue
            hub.draining = not hub.draining
            hub.poke()
            if hub.draining:
                log.info("the table says that this server drains")
                self._job = asyncio.get_running_loop().create_task(_empty(hub, self._keeper))
            else:
                log.info("the table says that this server is active again")
                self.stop()

    def stop(self) -> None:
        """Send nobody else away."""
        if self._job is not None:
            self._job.cancel()
            self._job = None


def _others_listed(hub: Hub, keeper: LeaseKeeper) -> bool:
    live = live_names(keeper.leases, hub.settings.lease_seconds) - {hub.settings.server_name}
    return hub.topology is not None and any(s.name in live for s in hub.topology.servers)


async def tell_publisher(hub: Hub, keeper: LeaseKeeper) -> None:
    """Make the server that publishes look at once. Nothing depends on it: it looks at each beat anyway."""
    try:
        await keeper.beat()
        for lease in keeper.leases.values():
            if lease.boot != hub.boot:
                await hub.link.eval(scripts.load("wake"), 0, lease.boot, "p", "")
    except (RedisUnavailableError, TopologyError, Fenced) as error:
        log.warning("the other servers could not be told: %r", error)


def _send_away(hub: Hub, keeper: LeaseKeeper, socket: Socket) -> None:
    if socket.envelope:
        # Beside the others: where a part of a Redis Cluster is away, a token takes its time to fail, which is all
        # that this socket waits for.
        hub.spawn(_move(hub, keeper, socket))
    else:
        socket.close(1012, GOING_AWAY)


async def _move(hub: Hub, keeper: LeaseKeeper, socket: Socket) -> None:
    url = await _url_elsewhere(hub, keeper, socket)
    if socket.state != OPEN or not hub.draining:
        return
    if url is None:
        socket.close(1012, GOING_AWAY)
    else:
        socket.send(entries.move(url, socket.position()), socket.reached)
        hub.stats.moves += 1


async def _url_elsewhere(hub: Hub, keeper: LeaseKeeper, socket: Socket) -> str | None:
    topology = hub.topology
    if topology is None:
        return None
    slot, client = socket.member.slot.number, socket.member.client.decode()
    live = live_names(keeper.leases, hub.settings.lease_seconds) - {hub.settings.server_name}
    server = choose_server(topology, slot, client, live)
    if server is None or server.name == hub.settings.server_name:
        return None
    token = make_token(slot)
    try:
        await hub.link.eval(scripts.load("mint"), group_of(slot, hub.groups), token, TOKEN_MS, client, socket.metadata)
    except RedisUnavailableError:
        return None
    return f"{server.url}?token={token}"
