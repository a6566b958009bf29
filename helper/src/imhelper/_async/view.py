"""What the helper knows of the cluster: topology and leases, kept for a second, refreshed along with other calls.
The blocking form is generated from this file by tools/unasync.py."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from .._backend._work_aio import SingleFlight
from .._backend.aio import Link
from .._backend.common import Call, policy_of
from ..core.leases import Lease, choose_server, live_names, parse_leases
from ..core.scripts import load
from ..core.slots import slot_of
from ..core.topology import ServerEntry, Topology
from ..errors import NoServerError, TopologyError

__all__ = ["View"]

logger = logging.getLogger("imhelper")

# A view older than FRESH asks again with the next call; one older than USABLE is not used to choose a server, and one
# older than LAYOUT_LIFE not even to find a client's slot: the prefix may have been set up anew since.
FRESH = 1.0
USABLE = 2.0
LAYOUT_LIFE = 60.0
_NEVER = float("-inf")


class View:
    """The topology in force and the servers' leases, at most a second or two old."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._flight = SingleFlight(link.timeout)
        self._topology: Topology | None = None
        self._leases: dict[str, Lease] = {}
        self._seen = self._asked = _NEVER
        self._policy_checked = False

    def _age(self) -> float:
        return time.monotonic() - self._seen

    async def topology(self) -> Topology:
        """The topology for finding slots and limits. Raises NoServerError when none was ever published."""
        found = await self.topology_or_none()
        if found is None:
            raise NoServerError(f"no topology is published under prefix {self._link.prefix!r}: is an imserver running?")
        return found

    async def topology_or_none(self) -> Topology | None:
        """As `topology`, but None when there is none: then no client was ever online."""
        if self._age() > (FRESH if self._topology is None else LAYOUT_LIFE):
            await self._flight.run(self._refresh)
        return self._topology

    async def newest(self) -> Topology | None:
        """The topology as it is at most a second ago."""
        await self._flight.run(self._refresh)
        return self._topology

    @property
    def leases(self) -> dict[str, tuple[Lease, float]]:
        """Each server's lease, and its age in seconds by now."""
        passed = self._age()
        return {name: (lease, lease.age + passed) for name, lease in self._leases.items()}

    async def gather(self, calls: Sequence[Call], *, look: bool = False) -> list[Any]:
        """Make calls, as `Link.gather`; a view that is no longer fresh is refreshed in the same round trip.

        `look`: refresh it in any case, for the caller goes by what it says.
        """
        now = time.monotonic()
        if not look and now - max(self._seen, self._asked) <= FRESH:
            return await self._link.gather(calls)
        self._asked = now
        *replies, view = await self._link.gather([*calls, self._question()])
        if not isinstance(view, BaseException):
            try:
                self._take(view)
            except TopologyError:
                # These calls are done all the same; the next one has to look at the topology again and tells it.
                self._seen = _NEVER
        return replies

    async def all(self, calls: Sequence[Call], *, look: bool = False) -> list[Any]:
        """The replies of calls, as `gather`; the first failure is raised."""
        replies = await self.gather(calls, look=look)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return replies

    async def choose(self, client_id: str, avoid: str | None) -> ServerEntry | None:
        """The server for a client among those alive, or None."""
        if self._age() > USABLE:
            await self._flight.run(self._refresh)
        found = self._choose(client_id, avoid)
        if found is None and self._age() > FRESH / 10:
            # The last known server may be gone and another one there: look once more before giving up.
            self._seen = _NEVER
            await self._flight.run(self._refresh)
            found = self._choose(client_id, avoid)
        return found

    def _choose(self, client_id: str, avoid: str | None) -> ServerEntry | None:
        topology = self._topology
        if topology is None:
            return None
        live = live_names(self._leases, topology.limits.lease_seconds, self._age())
        return choose_server(topology, slot_of(client_id, topology.slots), client_id, live, avoid)

    def _question(self) -> Call:
        return Call(None, (self._topology.epoch if self._topology else "",), load("view"))

    async def _refresh(self) -> None:
        if self._age() <= FRESH:
            return
        questions = [self._question()]
        if not self._policy_checked:
            questions.append(Call(None, ("INFO", "memory")))
        view, *memory = await self._link.gather(questions)
        if isinstance(view, BaseException):
            raise view
        self._take(view)
        for reply in memory:
            self._check_policy(reply)

    def _take(self, reply: Any) -> None:
        now_ms, epoch, record, leases = reply
        if not epoch:
            self._topology = None
        elif record:
            self._topology = Topology.from_json(record, int(epoch))
        self._leases = parse_leases(leases, int(now_ms))
        self._seen = time.monotonic()

    def _check_policy(self, reply: Any) -> None:
        self._policy_checked = True
        # Where INFO is not allowed, nothing is known and nothing is said.
        policy = policy_of(reply)
        if policy not in (None, "noeviction"):
            logger.warning(
                "Redis at %s runs with maxmemory-policy %s: it may drop messages and presence; set it to noeviction",
                self._link.config.describe(),
                policy,
            )
