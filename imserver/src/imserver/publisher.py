"""Publishes the topology when there is no operator: the servers elect one of themselves by a lease in Redis.
Whoever holds it derives the table from the live leases; the publishing script lets only the holder through."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from imhelper.core import scripts
from imhelper.core.leases import Lease
from imhelper.core.planner import plan_table
from imhelper.core.slots import CLUSTER_GROUPS
from imhelper.core.topology import ACTIVE, DRAINING, ServerEntry, Topology

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["SelfPublisher", "derive"]

log = logging.getLogger(__name__)

TERM_MS = 15000
DEFAULT_SLOTS = 128


def derive(leases: dict[str, Lease], old: Topology | None, slots: int, groups: int, lease_seconds: float) -> Topology:
    """The topology that these leases call for; its epoch is the old one's, for the publishing script decides it.

    A server whose lease is dead on Redis's clock is left out, unless all are: an empty table helps nobody.
    """
    fresh = {n: at for n, at in leases.items() if at.age <= lease_seconds} or leases
    servers = tuple(
        ServerEntry(name, at.url, DRAINING if at.state == DRAINING else ACTIVE) for name, at in sorted(fresh.items())
    )
    table = plan_table(servers, old, slots)
    return Topology(epoch=old.epoch if old else 0, slots=slots, groups=groups, servers=servers, table=table)


class SelfPublisher:
    """Called after each beat: takes or keeps the publisher's lease and publishes what has changed."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._refused = False
        # What this server published last: no lease reports it before the next beat, and Redis may lose it till then.
        self._epoch = 0
        self.holder: str | None = None

    async def __call__(self, leases: dict[str, Lease]) -> None:
        """Publish if this server may and the topology is not what the leases call for."""
        hub = self._hub
        reply = await hub.link.eval(scripts.load("publisher"), None, "take", "self", "self", hub.boot, TERM_MS, 0)
        if not reply[0]:
            self._denied(reply[1].decode())
            self.holder = reply[3].decode()
            return
        self.holder = hub.boot
        old = hub.topology
        slots = old.slots if old else hub.settings.slots or DEFAULT_SLOTS
        groups = old.groups if old else (CLUSTER_GROUPS if hub.link.groups > 1 else 1)
        new = derive(leases, old, slots, groups, hub.settings.lease_seconds)
        limits = hub.settings.limits
        # Another epoch in Redis is none, or one of a record that no server can serve by.
        in_force = old is not None and hub.epoch_in_redis == str(old.epoch)
        if old and in_force and (old.servers, old.table, old.limits) == (new.servers, new.table, limits):
            return
        new = Topology(old.epoch if old else 0, slots, groups, new.servers, new.table, limits)
        highest = max([self._epoch, *(int(at.report.get("epoch", 0)) for at in leases.values())])
        reply = await hub.link.eval(
            *(scripts.load("publish"), None, "self", "self", hub.boot),
            *(hub.epoch_in_redis, highest, new.to_json()),
        )
        if reply[0]:
            self._epoch = int(reply[1])
            log.info("published the topology: %s", ", ".join(f"{s.name} ({s.state})" for s in new.servers))
            hub.poke()

    def _denied(self, kind: str) -> None:
        if kind == "operator" and not self._refused:
            self._refused = True
            log.error("IM_TOPOLOGY is self, but an operator owns this prefix: this server publishes nothing")

    async def depose(self, boot: str) -> None:
        """A dead server may have been the one that published: its term ends now. Raises RedisUnavailableError."""
        await self._release(boot)
        self._hub.poke()

    async def release(self) -> None:
        """Give the lease back, so that another server need not wait for its end. Raises RedisUnavailableError."""
        await self._release(self._hub.boot)

    async def _release(self, boot: str) -> None:
        """End the term of a boot, if it is the one that holds the lease."""
        await self._hub.link.eval(scripts.load("publisher"), None, "release", "self", "self", boot, TERM_MS, 0)
