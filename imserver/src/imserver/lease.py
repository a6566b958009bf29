"""The server's lease: renews it, learns the topology and of the other servers, reclaims the dead ones' sockets.
What another server did wrong or too late can't corrupt anything: every script checks the boot's marker."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING

from imhelper._backend.common import Call
from imhelper.core import scripts
from imhelper.core.leases import Lease, parse_leases
from imhelper.core.topology import ACTIVE, DRAINING, FORMAT, Topology
from imhelper.errors import RedisUnavailableError, TopologyError

from . import __version__
from .groups import each
from .observer import Observer, Silent

if TYPE_CHECKING:
    from .hub import Hub
    from .publisher import SelfPublisher

__all__ = ["Fenced", "LeaseKeeper"]

log = logging.getLogger(__name__)

# Sockets a batch, and groups of a Redis Cluster at once: what others ask of Redis meanwhile goes between.
RECLAIM_BATCH = 200
RECLAIM_GROUPS = 4
# Servers that see the same death go one after the other, so that mostly one does the work.
STAGGER_SECONDS = 0.15


class Fenced(Exception):
    """Another boot has this server's name, or its sockets were reclaimed: it must end."""


class LeaseKeeper:
    """Beats a few times a lease. `run` raises Fenced when this boot was ended by others.

    `publish` is called after each beat with the leases that are alive, when the topology is `self`.
    """

    def __init__(self, hub: Hub, publish: SelfPublisher | None) -> None:
        self._hub = hub
        self._publish = publish
        self._observer = Observer(hub.settings.server_name, hub.settings.lease_seconds)
        self._poked = asyncio.Event()
        self._run_id: bytes | None = None
        self._epoch_seen = ""
        self._first = True
        self._orphans: dict[bytes, float] = {}
        self._looked = 0.0
        self._looking = False
        self._reclaiming = asyncio.Semaphore(RECLAIM_GROUPS)
        self.leases: dict[str, Lease] = {}
        hub.poke = self._poked.set

    @property
    def interval(self) -> float:
        """Seconds between two beats."""
        return self._hub.settings.lease_seconds / 5

    async def run(self) -> None:
        """Beat for ever, sooner when poked."""
        while True:
            began = monotonic()
            try:
                await self.beat()
                self._look_for_orphans()
            except RedisUnavailableError as error:
                self._observer.failed()
                if self._hub.redis_up:
                    log.warning("Redis is unavailable: %s", error)
                self._hub.redis_up = False
            due = min(began + self.interval, self._observer.next_deadline() + 0.01)
            try:
                async with asyncio.timeout(max(0.05, due - monotonic())):
                    await self._poked.wait()
            except TimeoutError:
                continue
            self._poked.clear()
            # Several pokes at once are one beat.
            await asyncio.sleep(0.05)

    def _report(self) -> str:
        hub = self._hub
        return json.dumps(
            {
                "url": hub.settings.url,
                "state": DRAINING if hub.draining else ACTIVE,
                "drain": "end" if hub.ending else "topology" if hub.draining else "",
                "connections": hub.open_count,
                "epoch": hub.topology.epoch if hub.topology else 0,
                "format": FORMAT,
                "version": __version__,
            },
            separators=(",", ":"),
        )

    async def _call(self, may_restore: bool) -> list[bytes]:
        hub = self._hub
        reply: list[bytes] = await hub.link.eval(
            *(scripts.load("beat"), None, hub.settings.server_name, hub.boot, int(self._first)),
            *(self._report(), self._epoch_seen, int(may_restore)),
        )
        return reply

    async def look(self) -> None:
        """Learn the topology before the name is taken: a server that can't serve it must not disturb the others.

        Raises RedisUnavailableError, TopologyError.
        """
        _, epoch, record, _ = await self._hub.link.eval(scripts.load("view"), None, "")
        if record:
            self._learn(record, epoch)

    async def beat(self) -> None:
        """Renew the lease once. Raises RedisUnavailableError, Fenced, and TopologyError as long as none is in force."""
        hub = self._hub
        reply = await self._call(False)
        lost = reply[0] == b"lost"
        if lost:
            reply = await self._call(True)
        status, now_ms, run, replaced, epoch, record, flat = reply
        now = monotonic()
        if status == b"fenced":
            hub.stats.fenced += 1
            raise Fenced
        hub.clock_offset_ms = int(now_ms) - now * 1000
        if not hub.redis_up:
            log.info("Redis answers")
        hub.redis_up = True
        self.leases = parse_leases(flat, int(now_ms))  # type: ignore[arg-type]
        hub.epoch_in_redis = _text(epoch)
        if record:
            self._learn(record, epoch)
        if self._first:
            self._first = False
            if replaced:
                log.warning("this name was held by an earlier boot, whose sockets are reclaimed now")
                # Beside the beats, as all reclaiming: a group may be out of reach for longer than a lease.
                hub.spawn(self._reclaim([replaced.decode()]))
        elif lost or (self._run_id is not None and run != self._run_id):
            for group in range(hub.groups):
                hub.writes_lost(group)
            hub.presence.restore()
        self._run_id = run
        beats = {name: (at.boot, at.beat) for name, at in self.leases.items()}
        silent = self._observer.observed(now, run.decode(), beats)
        if silent:
            hub.spawn(self._fence(silent))
        if self._publish is not None:
            gone = {s.name for s in silent}
            await self._publish({n: at for n, at in self.leases.items() if n not in gone})

    def _learn(self, record: bytes, epoch: bytes) -> None:
        """Put a topology in force. One that can't be is refused at the start, and passed over by a server that serves:
        it needs no publisher, and a bad record must not end all servers at once. Raises TopologyError.
        """
        hub, old = self._hub, self._hub.topology
        self._epoch_seen = _text(epoch)
        try:
            topology = self._checked(record, epoch)
        except TopologyError as error:
            if old is None:
                raise
            hub.stats.topology_refused = 1
            log.error("topology %s is passed over, that of epoch %d stays in force: %s", _text(epoch), old.epoch, error)
            return
        hub.stats.topology_refused = 0
        if topology.limits != hub.settings.limits and (old is None or old.limits != topology.limits):
            log.warning(
                "this server's settings differ from the published limits, which helpers follow: %s", topology.limits
            )
        hub.topology = topology
        hub.learnt.set()
        hub.slots_count, hub.groups = topology.slots, topology.groups
        log.info("topology: epoch %d, servers %s", topology.epoch, ", ".join(s.name for s in topology.servers))

    def _checked(self, record: bytes, epoch: bytes) -> Topology:
        if not epoch.isdigit():
            raise TopologyError(f"the topology in Redis has {_text(epoch)!r} for an epoch")
        topology = Topology.from_json(record, int(epoch))
        slots, old = self._hub.settings.slots, self._hub.topology
        if slots is not None and slots != topology.slots:
            raise TopologyError(f"IM_SLOTS must be {topology.slots}, as the published topology has, not '{slots}'")
        if old is not None and (old.slots, old.groups) != (topology.slots, topology.groups):
            raise TopologyError("the topology's slots or groups were changed under a running server")
        return topology

    async def _fence(self, silent: list[Silent]) -> None:
        alive = sorted(n for n in self.leases if n not in {s.name for s in silent})
        for dead in silent:
            order = sorted(alive, key=lambda n: blake2b(f"{n}\n{dead.boot}".encode()).digest())
            me = self._hub.settings.server_name
            await asyncio.sleep(STAGGER_SECONDS * (order.index(me) if me in order else 0))
            try:
                if not await self._hub.link.eval(scripts.load("fence"), None, dead.name, dead.boot, dead.beat):
                    continue
                log.warning("server %s is dead: its sockets are reclaimed", dead.name)
                if self._publish is not None:
                    await self._publish.depose(dead.boot)
            except RedisUnavailableError as error:
                log.warning("fencing %s failed and is taken up again later: %s", dead.name, error)
                return
            # Beside the next one's fencing: a group that is away must not hold that up.
            self._hub.spawn(self._reclaim([dead.boot]))

    async def _reclaim(self, boots: Sequence[str]) -> None:
        """Take dead boots' sockets back, each group for itself; what can't be is left to whoever finds the orphans.

        Safe to repeat.
        """
        try:
            await each(range(self._hub.groups), lambda group: self._reclaim_in(group, boots))
        except RedisUnavailableError as error:
            log.warning("a reclaim stopped where Redis is away and is taken up again later: %s", error)

    async def _reclaim_in(self, group: int, boots: Sequence[str]) -> None:
        for boot in boots:
            # Markers first: from then on the dead can write nothing here.
            await self._reclaim_some(group, boot, 1, b"0")
        async with self._reclaiming:
            for boot in boots:
                left, cursor = 1, b"0"
                while left:
                    left, cursor = await self._reclaim_some(group, boot, RECLAIM_BATCH, cursor)

    async def _reclaim_some(self, group: int, boot: str, batch: int, cursor: bytes) -> tuple[int, bytes]:
        hub = self._hub
        grace = int(hub.settings.grace_seconds * 1000)
        gone, left, cursor = await hub.link.eval(
            scripts.load("reclaim"), group, boot, batch, grace, *hub.retention, cursor
        )
        hub.stats.reclaims += gone
        return left, cursor

    def _look_for_orphans(self) -> None:
        now = monotonic()
        if not self._looking and now - self._looked >= self._hub.settings.lease_seconds:
            self._looked, self._looking = now, True
            self._hub.spawn(self._adopt_orphans(now))

    async def _adopt_orphans(self, now: float) -> None:
        """Boots that a group knows but that hold no lease: reclaims cut short, leases that Redis lost."""
        hub = self._hub
        held = {at.boot.encode() for at in self.leases.values()}
        held.add(hub.boot_raw)
        try:
            replies = await hub.link.gather([Call(group, (), scripts.load("orphans")) for group in range(hub.groups)])
            # A group that can't be reached tells nothing, and keeps nobody from seeing to the others.
            boots = {boot for reply in replies if not isinstance(reply, BaseException) for boot in chain(*reply)}
            self._orphans = {boot: self._orphans.get(boot, now) for boot in boots - held}
            due = [b.decode() for b, since in self._orphans.items() if now - since >= hub.settings.lease_seconds]
            if due:
                log.warning("%d boots without a lease are reclaimed", len(due))
            await self._reclaim(due)
        finally:
            self._looking = False


def _text(epoch: bytes) -> str:
    """An epoch as it stands in Redis, where a foreign hand may have written anything."""
    return epoch.decode(errors="replace")
