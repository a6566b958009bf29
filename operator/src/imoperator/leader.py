"""One leader among the operator's replicas, by a Lease of coordination.k8s.io that is renewed and can be given back.
A replica that can't renew in time stops acting before another may begin; clocks of two nodes are never compared."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from time import monotonic

from lightkube import ApiError, AsyncClient
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease

from .api import UNANSWERED

__all__ = ["UNINSTALLING", "Elector"]

log = logging.getLogger(__name__)

DURATION_SECONDS = 15
RENEW_SECONDS = 2.0
# A leader that could not renew for so long stops; the others wait for DURATION_SECONDS.
STOP_SECONDS = 8.0
CALL_SECONDS = 3.0
# By then Helm has removed the operator that was uninstalled; one that finds its mark at the start was installed anew.
ANEW_SECONDS = 30.0
UNINSTALLING = "uninstalling"


class Elector:
    """Takes and keeps the Lease for `identity`. `leading` is true while this replica may act."""

    def __init__(self, client: AsyncClient, namespace: str, name: str, identity: str) -> None:
        self._client, self._namespace, self._name, self._identity = client, namespace, name, identity
        self._seen: tuple[str, str] | None = None
        self._seen_at = 0.0
        self._anew: bool | None = None
        self._renewed = float("-inf")
        self.tried = monotonic()
        """When the Lease was last asked for, with any outcome, on the monotonic clock."""

    @property
    def leading(self) -> bool:
        """Whether this replica is the leader and has renewed in time."""
        return monotonic() - self._renewed < STOP_SECONDS

    async def run(self, changed: asyncio.Event) -> None:
        """Try for ever; `changed` is set whenever `leading` may have changed."""
        while True:
            before = self.leading
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self._try()
            except UNANSWERED as error:
                log.warning("the Lease %s/%s could not be asked for: %s", self._namespace, self._name, error)
            self.tried = monotonic()
            if self.leading != before:
                log.info("this replica leads now" if self.leading else "this replica does not lead any more")
            changed.set()
            await asyncio.sleep(RENEW_SECONDS)

    async def _try(self) -> None:
        began = monotonic()
        lease = await self._get()
        if self._anew is None:
            holder = lease.spec.holderIdentity if lease is not None and lease.spec is not None else None
            self._anew = holder == UNINSTALLING
        if lease is None:
            spec = self._spec(0)
            await self._client.create(Lease(metadata=ObjectMeta(name=self._name, namespace=self._namespace), spec=spec))
            self._renewed = began
            return
        spec = lease.spec or LeaseSpec()
        mine = spec.holderIdentity == self._identity
        if not mine and not self._free(spec):
            self._renewed = float("-inf")
            return
        lease.spec = self._spec((spec.leaseTransitions or 0) + (not mine), spec.acquireTime if mine else None)
        # The resourceVersion in it makes the API refuse this if somebody was faster.
        await self._client.replace(lease)
        self._renewed = began

    def _free(self, spec: LeaseSpec) -> bool:
        """Whether nobody holds the Lease, or its holder stood still for its duration on this replica's own clock."""
        if not spec.holderIdentity:
            return True
        seen = (spec.holderIdentity, str(spec.renewTime))
        if seen != self._seen:
            self._seen, self._seen_at = seen, monotonic()
        duration: float = spec.leaseDurationSeconds or DURATION_SECONDS
        if self._anew and spec.holderIdentity == UNINSTALLING:
            duration = min(duration, ANEW_SECONDS)
        return monotonic() - self._seen_at > duration

    def _spec(self, transitions: int, acquired: datetime | None = None) -> LeaseSpec:
        now = datetime.now(UTC)
        return LeaseSpec(
            holderIdentity=self._identity,
            leaseDurationSeconds=DURATION_SECONDS,
            acquireTime=acquired or now,
            renewTime=now,
            leaseTransitions=transitions,
        )

    async def _get(self) -> Lease | None:
        try:
            return await self._client.get(Lease, self._name, namespace=self._namespace)
        except ApiError as error:
            if error.status.code == 404:
                return None
            raise

    async def give_back(self) -> None:
        """Give the Lease back, so that another replica takes over at once. Best effort."""
        if not self.leading:
            return
        self._renewed = float("-inf")
        try:
            async with asyncio.timeout(CALL_SECONDS):
                lease = await self._get()
                if lease is not None and lease.spec is not None and lease.spec.holderIdentity == self._identity:
                    lease.spec.holderIdentity = ""
                    await self._client.replace(lease)
        except UNANSWERED as error:
            log.info("the Lease could not be given back and runs out: %s", error)

    async def seize(self, seconds: int) -> None:
        """Take the Lease away from whoever holds it, for `seconds`: nobody leads while the operator is uninstalled."""
        for _ in range(10):
            lease = await self._get()
            try:
                if lease is None:
                    return
                spec = self._spec((lease.spec.leaseTransitions or 0) + 1 if lease.spec else 0)
                spec.holderIdentity, spec.leaseDurationSeconds = UNINSTALLING, seconds
                lease.spec = spec
                await self._client.replace(lease)
            except ApiError as error:
                if error.status.code != 409:
                    raise
                await asyncio.sleep(0.2)
            else:
                return
        raise TimeoutError(f"the Lease {self._namespace}/{self._name} could not be taken")
