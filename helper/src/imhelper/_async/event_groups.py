"""Consumer groups of the event bus: each event to one member, in a client's order, again if that member dies.
The blocking form is generated from this file by tools/unasync.py."""

from __future__ import annotations

import logging
import secrets
import time

from .._backend._work_aio import Background, Guard
from .._backend.aio import Link
from .._backend.common import Arg, Call
from ..core.scripts import load
from ..errors import ImError
from .events import Callback, Event, Feed, Subscription, order

__all__ = ["GroupSubscription"]

logger = logging.getLogger("imhelper")

# A partition is a client's slot modulo 16; on a Redis Cluster each group of keys holds exactly one.
PARTITIONS = 16
LEASE_MS = 5000
RENEW_SECONDS = 1.2


class _Hold:
    """A partition while this member holds it: up to which event it is finished."""

    __slots__ = ("position",)

    def __init__(self, position: bytes) -> None:
        self.position = position


class GroupSubscription(Subscription):
    """A member of a consumer group.

    The partitions are spread over the members that are alive; a member works on the events of those it holds a lease
    of, renews the lease while a callback runs, and moves the partition's cursor after the callback. So a client's
    events go to one member at a time, in order, at least once.
    """

    def __init__(self, link: Link, feed: Feed, online: Callback, offline: Callback, group: str) -> None:
        super().__init__(feed, online, offline)
        self._link = link
        self._group = group
        self._member = secrets.token_hex(8)
        self._groups = 1
        self._holds: dict[int, _Hold] = {}
        # Partitions on their way out: Redis has not yet been told up to where they are finished.
        self._let_go: dict[int, _Hold] = {}
        self._busy: int | None = None
        self._valid_until = 0.0
        self._guard = Guard()
        self._keeper = Background("imhelper event bus lease", self._keep)

    async def start(self) -> None:
        """Begin: every event from now on is covered once this returns. Raises RedisUnavailableError."""
        self._groups = await self._feed.groups()
        await self._renew()
        self._keeper.start()
        self._background.start()

    async def _run(self) -> None:
        """Work until asked to stop, then leave: others take the partitions over at once."""
        await super()._run()
        await self._keeper.stop()
        try:
            await self._link.eval(load("events_members"), None, self._group, self._member, 0)
            await self._lease(set())
        except ImError as error:
            logger.warning("the event bus could not give its lease back, it will run out: %s", error)

    # -- leases -----------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while not self._keeper.stopping:
            await self._keeper.pause(RENEW_SECONDS)
            try:
                if not self._keeper.stopping:
                    await self._renew()
            except ImError as error:
                logger.warning("the event bus could not renew its lease: %s", error)
            except Exception:
                logger.exception("the event bus could not renew its lease")

    async def _renew(self) -> None:
        """Say that this member lives, then hold the partitions that are its share and let go the others."""
        began = time.monotonic()
        members = await self._link.eval(load("events_members"), None, self._group, self._member, LEASE_MS)
        names = [name.decode() for name in members]
        mine = names.index(self._member)
        await self._lease({p for p in range(PARTITIONS) if p % len(names) == mine})
        self._valid_until = began + LEASE_MS / 1000

    async def _lease(self, wanted: set[int]) -> None:
        with self._guard:
            if self._busy is not None:
                # Its callback runs: it goes when that is finished.
                wanted = wanted | {self._busy}
            for partition in set(self._holds) - wanted:
                self._let_go[partition] = self._holds.pop(partition)
        calls = []
        for group in range(self._groups):
            args: list[Arg] = [self._group, self._member, LEASE_MS]
            for partition in range(group, PARTITIONS, self._groups):
                hold = self._holds.get(partition) or self._let_go.get(partition)
                args += (partition, "+" if partition in wanted else "-", hold.position if hold else "")
            calls.append(Call(group, tuple(args), load("events_lease")))
        for group, reply in enumerate(await self._link.gather(calls)):
            if isinstance(reply, BaseException):
                raise reply
            held = dict(zip(map(int, reply[::2]), reply[1::2], strict=True))
            for partition in range(group, PARTITIONS, self._groups):
                self._let_go.pop(partition, None)
                if partition not in held:
                    self._holds.pop(partition, None)
                elif partition not in self._holds:
                    self._holds[partition] = _Hold(held[partition])

    # -- events -----------------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        holds = dict(self._holds)
        after: dict[int, bytes] = {}
        for partition, held in holds.items():
            group = partition % self._groups
            if group not in after or order(held.position) < order(after[group]):
                after[group] = held.position
        if not after or time.monotonic() > self._valid_until:
            await self._background.pause(RENEW_SECONDS / 4)
            return
        events = await self._feed.read(after, self._background)
        left: set[int] = set()
        for event in events:
            if self._background.stopping:
                return
            partition = event.slot % PARTITIONS
            hold = holds.get(partition)
            if hold is None or partition in left or order(event.id) <= order(hold.position):
                continue
            if not self._begin(partition, hold):
                # Not this member's at the moment: from this event on it is for whoever holds the partition next.
                left.add(partition)
                continue
            try:
                await self._call_back(event)
                await self._finish(partition, hold, event)
            finally:
                self._busy = None
        last = {event.group: event.id for event in events}
        for partition, held in holds.items():
            # Events of other partitions were passed over: they need not be read again.
            newest = last.get(partition % self._groups)
            if newest is not None and partition not in left and order(newest) > order(held.position):
                held.position = newest

    def _begin(self, partition: int, hold: _Hold) -> bool:
        """Whether an event of a partition may be worked on; if so the partition stays until that is finished."""
        with self._guard:
            if self._holds.get(partition) is not hold or time.monotonic() > self._valid_until:
                return False
            self._busy = partition
            return True

    async def _finish(self, partition: int, hold: _Hold, event: Event) -> None:
        hold.position = event.id
        done = await self._link.eval(
            load("events_done"), partition % self._groups, self._group, self._member, LEASE_MS, partition, event.id
        )
        if not done:
            self._holds.pop(partition, None)
            logger.warning(
                "another member of group %r took over client %r and may repeat an event", self._group, event.client
            )
