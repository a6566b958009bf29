"""Ends what is due: grace, receipts nobody decided, old log entries; carries receipts between groups (Redis Cluster).
Every server may sweep every group, and the table's choice does it most; a log is trimmed by its slot's server alone."""

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

from .gate import Pace

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
    """Sweeps each group: often where this server is the table's choice, seldom elsewhere, in case that one is dead.

    Each group for itself, so that one of a Redis Cluster that is away holds up no other; together at a bounded rate.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._pace = Pace(1 / PAUSE_SECONDS, 1.0)
        # The groups whose outbox is being emptied.
        self._forwarding: set[int] = set()

    async def run(self) -> None:
        """Sweep for ever."""
        async with asyncio.TaskGroup() as tasks:
            for group in range(self._hub.groups):
                tasks.create_task(self._keep(group))
            tasks.create_task(self._keep_trimmed())

    async def _keep(self, group: int) -> None:
        more = False
        while True:
            wait = OWN_SECONDS if self._mine(group) or more else OTHER_SECONDS
            await asyncio.sleep(wait * random.uniform(0.7, 1.0))  # noqa: S311 - jitter, not a secret
            try:
                more = await self._sweep(group)
            except RedisUnavailableError as error:
                log.debug("sweeping group %d waits for Redis: %s", group, error)
                more = False

    async def _keep_trimmed(self) -> None:
        while True:
            await asyncio.sleep(max(TRIM_SECONDS, self._hub.settings.retain_seconds / 4))
            await self._trim()

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
            if outbox and group not in self._forwarding:
                # Beside the sweeps: a group that a receipt is for may be away.
                self._forwarding.add(group)
                hub.spawn(self._forward(group))
            if not more:
                break
            await asyncio.sleep(max(PAUSE_SECONDS, self._pace.turn(monotonic())))
        return bool(more)

    async def _forward(self, group: int) -> None:
        try:
            await self._empty_outbox(group)
        except RedisUnavailableError as error:
            log.debug("the receipts of group %d wait for Redis: %s", group, error)
        finally:
            self._forwarding.discard(group)

    async def _empty_outbox(self, group: int) -> None:
        """Carry receipts to their senders' groups. What is for one that is away stays there, and holds up no other."""
        hub, key = self._hub, keys.outbox(self._hub.tag(group))
        away: set[int | None] = set()
        after = b"-"
        for _ in range(BATCHES):
            found = await hub.link.command(group, "XRANGE", key, after, "+", "COUNT", BATCH)
            calls = {entry_id: self._receipt(f) for entry_id, f in found}
            calls = {entry_id: call for entry_id, call in calls.items() if call.group not in away}
            replies = dict(zip(calls, await hub.link.gather([*calls.values()]), strict=True))
            away |= {calls[at].group for at, reply in replies.items() if isinstance(reply, BaseException)}
            done = [at for at, reply in replies.items() if not isinstance(reply, BaseException)]
            if done:
                await hub.link.command(group, "XDEL", key, *done)
            if len(found) < BATCH:
                return
            after = b"(" + found[-1][0]

    def _receipt(self, f: list[bytes]) -> Call:
        slot = slot_of(f[5], self._hub.slots_count)
        args = (*self._hub.retention, slot, f[1], f[3], f[5], f[7], f[9], f[11])
        return Call(group_of(slot, self._hub.groups), args, scripts.load("receipt"))
