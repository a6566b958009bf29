"""Applies the children that are not as they should be and removes those that are one too many.
What the API server refused, or what is somebody else's, is not asked for again before it was looked at again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from lightkube import ApiError

from .api import Api
from .children import drifted, normal, whose
from .model import Cluster, Manifest, Problem
from .names import APPLIED

__all__ = ["Applier"]

log = logging.getLogger(__name__)

AT_ONCE = 8


class Applier:
    """The live children of one cluster, as last observed or applied."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._live: dict[tuple[str, str], Manifest] = {}
        # The manifests as the API server writes them: "500m" where the spec says 0.5.
        self._normal: dict[tuple[str, str], Manifest] = {}
        # The digest and resourceVersion that an apply ended with: what still differs then, an apply does not change.
        self._settled: dict[tuple[str, str], tuple[str, str | None]] = {}
        self._refused: dict[tuple[str, str], tuple[str, Problem]] = {}
        # The list for which nothing was left to do; the same list is not compared again before the next look.
        self._calm: Sequence[Manifest] | None = None

    def observed(self, live: dict[tuple[str, str], Manifest]) -> None:
        """What the API showed just now of the cluster's own children, by kind and name."""
        self._live, self._refused, self._calm = live, {}, None

    async def apply(self, cluster: Cluster, wanted: Sequence[Manifest]) -> tuple[bool, Problem | None]:
        """Bring the children to what is wanted. Whether anything was changed, and the first refusal.

        The StatefulSet goes last: its pods need the others. It is not made while one of their names is taken: no server
        runs under another's ServiceAccount. Raises what the API raises, refusals of an apply apart.
        """
        if wanted is self._calm:
            return False, self._first_refusal()
        first = [m for m in wanted if m["kind"] != "StatefulSet" and self._due(m)]
        gate = asyncio.Semaphore(AT_ONCE)
        done = list(await asyncio.gather(*(self._one(cluster, m, gate) for m in first)))
        taken = any(problem.reason == "NameTaken" for _, problem in self._refused.values())
        for manifest in (m for m in wanted if m["kind"] == "StatefulSet" and self._due(m)):
            if not taken or ("StatefulSet", manifest["metadata"]["name"]) in self._live:
                done.append(await self._one(cluster, manifest, gate))
        removed = await self._prune(cluster, wanted)
        self._calm = wanted if not done and not removed else None
        return any(done) or removed, self._first_refusal()

    def _first_refusal(self) -> Problem | None:
        return next((problem for _, problem in self._refused.values()), None)

    def _due(self, manifest: Manifest) -> bool:
        at = (manifest["kind"], manifest["metadata"]["name"])
        refused, live, mark = self._refused.get(at), self._live.get(at), manifest["metadata"]["annotations"][APPLIED]
        if refused is not None and refused[0] == mark:
            return False
        if live is not None and self._settled.get(at) == (mark, live["metadata"].get("resourceVersion")):
            return False
        return drifted(live, manifest, self._normal.get(at))

    async def _one(self, cluster: Cluster, manifest: Manifest, gate: asyncio.Semaphore) -> bool:
        kind, name = at = manifest["kind"], manifest["metadata"]["name"]
        async with gate:
            before = self._live.get(at)
            try:
                if before is None:
                    # An apply would take over what others have made under this name, and its end would remove it.
                    before = await self._api.child(kind, cluster.key, name)
                    reason = whose(cluster, before) if before is not None else ""
                    if reason:
                        return self._refuse(cluster, manifest, Problem("NameTaken", f"{kind} {name} {reason}"))
                after = await self._api.apply(manifest)
            except ApiError as error:
                return self._refuse(cluster, manifest, Problem("ApplyFailed", f"{kind} {name}: {error}"))
        self._refused.pop(at, None)
        self._live[at], self._normal[at] = after, normal(manifest, after)
        mark, version = manifest["metadata"]["annotations"][APPLIED], after["metadata"].get("resourceVersion")
        self._settled[at] = mark, version
        log.debug("%s: applied %s %s", cluster.key, kind, name)
        return before is None or before["metadata"].get("resourceVersion") != after["metadata"].get("resourceVersion")

    def _refuse(self, cluster: Cluster, manifest: Manifest, problem: Problem) -> bool:
        at = manifest["kind"], manifest["metadata"]["name"]
        self._refused[at] = manifest["metadata"]["annotations"][APPLIED], problem
        log.warning("%s: %s", cluster.key, problem.message)
        return False

    async def _prune(self, cluster: Cluster, wanted: Sequence[Manifest]) -> bool:
        names = {(m["kind"], m["metadata"]["name"]) for m in wanted}
        removed = False
        for kind, name in [at for at in self._live if at not in names and self._api.prunable(at[0])]:
            owners = self._live[kind, name]["metadata"].get("ownerReferences") or ()
            if any(owner.get("uid") == cluster.uid for owner in owners):
                log.info("%s: %s %s is no longer wanted", cluster.key, kind, name)
                await self._api.remove(kind, cluster.key, name)
                del self._live[kind, name]
                removed = True
        return removed
