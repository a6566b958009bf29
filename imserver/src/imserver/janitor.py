"""Ends what is due: grace, receipts nobody decided, old log entries; carries receipts between groups (Redis Cluster).
Every server may sweep every group; the one that the table gives the group's first slot does it most."""

from __future__ import annotations

import asyncio
import logging
import random
from time import monotonic
from typing import TYPE_CHECKING

from imhelper._backend.common import Call
from imhelper.core import keys, scripts
from imhelper.core.slots import group_of, slot_of
from imhelper.errors import RedisUnavailableError

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Janitor"]

log = logging.getLogger(__name__)

# A dead server's clients come due together: thousands a second go, and what is asked of Redis meanwhile goes between.
BATCH = 100
BATCHES = 50
PAUSE_SECONDS = 0.01
OWN_SECONDS = 0.25
OTHER_SECONDS = 1.5
TRIM_SECONDS = 1.0


class Janitor:
    """Sweeps each group: often where this server is the table's choice, seldom elsewhere, in case that one is dead."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._next: dict[int, float] = {}
        self._trim_next = 0.0

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(OWN_SECONDS)
            now = monotonic()
            for group in range(self._hub.groups):
                if self._next.get(group, 0.0) > now:
                    continue
                try:
                    more = await self._sweep(group)
                except RedisUnavailableError as error:
                    log.debug("sweeping waits for Redis: %s", error)
                    more = False
                wait = OWN_SECONDS if self._mine(group) or more else OTHER_SECONDS
                self._next[group] = now + wait * random.uniform(0.7, 1.0)  # noqa: S311 - jitter, not a secret
            if now >= self._trim_next:
                await self._trim()
                self._trim_next = now + max(TRIM_SECONDS, self._hub.settings.retain_seconds / 4)

    async def _trim(self) -> None:
        """End what is older than the retention in the slots of this server: appends trim only where there are some."""
        hub, topology = self._hub, self._hub.topology
        if topology is None:
            return
        oldest = int(hub.clock_ms() - hub.settings.retain_seconds * 1000)
        calls = []
        for slot, at in enumerate(topology.table):
            if topology.servers[at].name == hub.settings.server_name:
                group = group_of(slot, hub.groups)
                calls.append(Call(group, ("XTRIM", keys.log(hub.tag(group), slot), "MINID", oldest)))
        for reply in await hub.link.gather(calls):
            if isinstance(reply, BaseException):
                log.debug("trimming waits for Redis: %s", reply)
                return

    def _mine(self, group: int) -> bool:
        topology = self._hub.topology
        server = topology.server_of_slot(group) if topology else None
        return server is not None and server.name == self._hub.settings.server_name

    async def _sweep(self, group: int) -> bool:
        hub = self._hub
        more = 1
        for _ in range(BATCHES):
            _, _, more, outbox = await hub.link.eval(scripts.load("sweep"), group, BATCH, *hub.retention)
            if outbox:
                await self._forward(group)
            if not more:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        return bool(more)

    async def _forward(self, group: int) -> None:
        hub, key = self._hub, keys.outbox(self._hub.tag(group))
        for entry_id, f in await hub.link.command(group, "XRANGE", key, "-", "+", "COUNT", BATCH):
            slot = slot_of(f[5], hub.slots_count)
            await hub.link.eval(
                *(scripts.load("receipt"), group_of(slot, hub.groups), *hub.retention),
                *(slot, f[1], f[3], f[5], f[7], f[9], f[11]),
            )
            await hub.link.command(group, "XDEL", key, entry_id)
