"""Leaving: clients are sent elsewhere at a bounded rate, then the process ends.
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
from imhelper.errors import RedisUnavailableError

from . import entries
from .lease import Fenced, LeaseKeeper
from .socket import OPEN, Socket
from .waiting import until

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["drain", "pace"]

log = logging.getLogger(__name__)

# How long the token of a `move` lives; the client is connected and acts at once.
TOKEN_MS = 30000
JOIN_SECONDS = 2.0
GOING_AWAY = "server going away"


def pace(rate: float, sockets: int, timeout: float) -> float:
    """Sockets a second: the rate, or more when that would not do within four fifths of the timeout."""
    return max(rate, sockets / (0.8 * timeout)) if timeout > 0 else float("inf")


async def drain(hub: Hub, keeper: LeaseKeeper) -> None:
    """Move all clients away and return when none is left or the time is over. New handshakes get 503 meanwhile."""
    settings = hub.settings
    deadline = monotonic() + settings.drain_timeout_seconds
    hub.draining = True
    hub.poke()
    await tell_publisher(hub, keeper)
    # A server that has just joined is in no table yet: better a moment's wait than clients that must ask for a URL.
    await until(lambda: _others_listed(hub, keeper) or len(keeper.leases) < 2, JOIN_SECONDS)
    sockets = [s for s in hub.connected if s.state == OPEN]
    random.shuffle(sockets)
    rate = pace(settings.drain_rate, len(sockets), settings.drain_timeout_seconds)
    log.info("draining %d sockets at %.0f a second", len(sockets), rate)
    for socket in sockets:
        if monotonic() >= deadline:
            break
        if socket.state == OPEN:
            await _send_away(hub, keeper, socket)
            await asyncio.sleep(random.uniform(0.5, 1.5) / rate)  # noqa: S311 - jitter, not a secret
    await until(lambda: not hub.open_count, deadline - monotonic())
    for socket in [s for s in hub.connected if s.state == OPEN]:
        socket.close(1012, GOING_AWAY)


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
    except (RedisUnavailableError, Fenced) as error:
        log.warning("the other servers could not be told: %r", error)


async def _send_away(hub: Hub, keeper: LeaseKeeper, socket: Socket) -> None:
    url = await _url_elsewhere(hub, keeper, socket) if socket.envelope else None
    if socket.state != OPEN:
        return
    if url is None:
        socket.close(1012, GOING_AWAY)
    else:
        socket.transport.write(entries.move(url, socket.position()))
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
