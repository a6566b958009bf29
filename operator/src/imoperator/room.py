"""Whether a server may be drained now: only while enough others are there to take its clients.
Who is on the way is waited for, but no longer than the spec gives a new server."""

from __future__ import annotations

from collections.abc import Collection
from math import ceil

from imhelper.core.topology import ACTIVE

from .model import Cluster, Pod, RedisView, Seen

__all__ = ["enough_serve", "overdue", "waits_for"]


def overdue(cluster: Cluster, seen: Seen, pod: Pod) -> bool:
    """Whether a pod that is not ready, or not gone, had the time for it that the spec gives."""
    limit = cluster.spec.rollout.progress_deadline_seconds
    if pod.deleting_since is not None:
        return seen.at - pod.deleting_since > limit + cluster.spec.drain.timeout_seconds
    # One that was ready has its time from when it ceased to be.
    return seen.at - (pod.changed or pod.created) > limit


def enough_serve(view: RedisView | None, wanted: int) -> bool:
    """Whether as many servers as are wanted have slots."""
    return view is not None and view.topology is not None and len(set(view.topology.table)) >= wanted


def waits_for(cluster: Cluster, seen: Seen, view: RedisView, victim: Pod, leaving: Collection[str], target: int) -> str:
    """The server that must come before `victim` is drained; nothing when it may be drained now.

    `leaving` are those that are drained already, `target` is how many pods there are to be. Enough others are as many
    as are wanted at rest, or so many that none gets more slots than some server has now.
    """
    servers, table = (view.topology.servers, view.topology.table) if view.topology else ((), ())
    states = {s.name: s.state for s in servers}
    slots = {s.name: table.count(at) for at, s in enumerate(servers)}
    if not slots.get(victim.name):
        return ""
    takers = {
        p.ordinal
        for p in seen.pods
        if states.get(p.name) == ACTIVE
        and p.deleting_since is None
        and p.name not in leaving
        and p is not victim
        and (lease := view.leases.get(p.name)) is not None
        and lease.state == ACTIVE
    }
    others = set(range(target)) - {victim.ordinal}
    if len(takers) >= min(cluster.spec.replicas, len(others)):
        return ""
    if takers and ceil(len(table) / len(takers)) <= max(slots.values()):
        return ""
    pods = {p.ordinal: p for p in seen.pods}
    for ordinal in sorted(others - takers, reverse=True):
        pod = pods.get(ordinal)
        # Who is in the table has only been told that it serves again.
        if pod is None or pod.name in states or not overdue(cluster, seen, pod):
            return f"{cluster.key.name}-{ordinal}"
    return ""
