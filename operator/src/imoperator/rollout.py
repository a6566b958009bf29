"""How many pods there are and which may be replaced: pure decisions for scaling and roll-outs.
No pod that holds clients is ever taken away: it is drained first, or has had its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imhelper.core.topology import ACTIVE, DRAINING

from .model import Cluster, Pod, RedisView, Seen, Workload

__all__ = ["Plan", "drained", "plan"]

# A server that has no lease is empty; but right after Redis lost everything, all have none for a moment.
NO_LEASE_SECONDS = 10.0
# After the servers' own deadline, a little more, so that the server's end is the usual one.
TIMEOUT_MARGIN = 5.0
# How long the StatefulSet's controller has for replacing a drained pod before the operator deletes it.
REPLACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do next with the pods of one cluster.

    `replicas` and `partition` are for the StatefulSet, `leaving` are the pods to drain, `delete` those that the
    controller has not replaced in time. `rolling` says that slots must move in blocks, `waiting` what for.
    """

    replicas: int
    partition: int
    leaving: frozenset[str] = frozenset()
    delete: frozenset[str] = frozenset()
    rolling: bool = False
    outdated: int = 0
    waiting: str = ""
    stuck: str = ""


def drained(pod: Pod, view: RedisView | None, now: float, timeout: float) -> bool:
    """Whether nothing is left on a pod that is being drained, or its time is over. Unknown counts as not."""
    if pod.draining_since is None:
        return False
    since = now - pod.draining_since
    if since > timeout + TIMEOUT_MARGIN:
        return True
    if view is None:
        return False
    lease = view.leases.get(pod.name)
    if lease is None or pod.name in view.dead:
        return not pod.ready or since > NO_LEASE_SECONDS
    return lease.state == DRAINING and lease.connections == 0


def plan(
    cluster: Cluster,
    seen: Seen,
    view: RedisView | None,
    template: str,
    *,
    hold: bool = False,
    released: Mapping[str, float] | None = None,
) -> Plan:
    """The next step. `template` is the digest of the wanted pod template, `hold` keeps roll-outs from going on.

    `released` tells, by the pod's uid, since when the operator has seen an outdated pod that may be replaced.
    Idempotent: the same observation gives the same plan.
    """
    wanted = cluster.spec.replicas
    work = seen.workload
    if work is None:
        return Plan(wanted, wanted, waiting="the StatefulSet is created")
    highest = max((p.ordinal + 1 for p in seen.pods), default=0)
    if work.template != template:
        # All ordinals are below the partition, or the controller would replace pods that hold clients.
        most = max(highest, work.replicas)
        count = sum(p.ordinal < wanted for p in seen.pods)
        leaving, goes_on = _still_leaving(seen), not hold or work.partition < work.replicas
        waiting = "the new template is applied"
        return Plan(work.replicas, most, leaving, rolling=goes_on, outdated=count, waiting=waiting)
    outdated = [p for p in seen.pods if p.revision != work.update_revision]
    kept_outdated = [p for p in outdated if p.ordinal < wanted]
    active = _admitted(seen, view)
    if work.partition < work.replicas:
        settled = not outdated and all(i in active for i in range(wanted))
        # Where no server is to stay, none is replaced by a new one that would have to be emptied in its turn.
        rolling = wanted > 0 and not (settled and work.current and work.current_revision == work.update_revision)
    else:
        rolling = bool(kept_outdated) and not hold
    if not work.current:
        leaving = _still_leaving(seen)
        waiting = "the StatefulSet's controller has not seen the last change"
        return Plan(work.replicas, work.partition, leaving, frozenset(), rolling, len(kept_outdated), waiting)
    return _step(cluster, seen, view, work, outdated, active, rolling=rolling, hold=hold, released=released or {})


def _admitted(seen: Seen, view: RedisView | None) -> set[int]:
    """Ordinals whose pod is ready, runs the newest template, and is active in the table."""
    topology = view.topology if view else None
    names = {s.name for s in topology.servers if s.state == ACTIVE} if topology else set()
    revision = seen.workload.update_revision if seen.workload else ""
    return {
        p.ordinal
        for p in seen.pods
        if p.ready and p.deleting_since is None and p.revision == revision and p.name in names
    }


def _still_leaving(seen: Seen) -> frozenset[str]:
    return frozenset(p.name for p in seen.pods if p.draining_since is not None)


def _step(
    cluster: Cluster,
    seen: Seen,
    view: RedisView | None,
    work: Workload,
    outdated: list[Pod],
    active: set[int],
    *,
    rolling: bool,
    hold: bool,
    released: Mapping[str, float],
) -> Plan:
    spec, now = cluster.spec, seen.at
    wanted, surge = spec.replicas, spec.rollout.max_surge
    timeout = float(spec.drain.timeout_seconds)
    kept_outdated = [p for p in outdated if p.ordinal < wanted]

    target = wanted
    if rolling:
        target = wanted + surge if kept_outdated and not hold else max(wanted, min(work.replicas, wanted + surge))
    by_ordinal = {p.ordinal: p for p in seen.pods}
    done = {p.name for p in seen.pods if drained(p, view, now, timeout)}
    replicas = max(work.replicas, target)
    while replicas > target:
        top = by_ordinal.get(replicas - 1)
        if top is not None and top.deleting_since is None and top.name not in done:
            break
        replicas -= 1
    leaving = {p.name for p in seen.pods if p.ordinal >= target}
    if not rolling:
        names = f"{len(leaving)} servers that leave are emptied" if leaving else ""
        outdated_count = len(kept_outdated)
        return Plan(replicas, max(replicas, target), frozenset(leaving), frozenset(), False, outdated_count, names)

    held = [p.ordinal for p in outdated if p.deleting_since is None and p.name not in done and p.ordinal < replicas]
    partition = min(max(held, default=-1) + 1, replicas)
    if hold:
        partition = max(partition, min(work.partition, replicas))
    free = [p for p in outdated if p.ordinal >= partition]
    pending = [i for i in range(partition, min(replicas, target)) if i not in active]
    # What is empty stays so until it is replaced, also when a higher ordinal has to go first.
    leaving |= {p.name for p in outdated if p in free or p.name in done}
    open_ones = sorted((p for p in outdated if p.name not in done and p not in free), key=_top)
    victim = next((p for p in open_ones if p.draining_since is not None), None)
    waiting = ""
    if pending:
        waiting = f"server {cluster.key.name}-{pending[-1]} is not ready yet"
    elif hold:
        waiting = "the roll-out is held"
    elif victim is None and open_ones:
        victim = open_ones[0]
    if victim is not None and not hold:
        leaving.add(victim.name)
        waiting = waiting or f"server {victim.name} is emptied"
    late = {
        p.name
        for p in free
        if p.deleting_since is None and p.name in done and now - released.get(p.uid, now) > REPLACE_SECONDS
    }
    stuck = _stuck(cluster, seen, pending)
    return Plan(replicas, partition, frozenset(leaving), frozenset(late), True, len(kept_outdated), waiting, stuck)


def _top(pod: Pod) -> int:
    return -pod.ordinal


def _stuck(cluster: Cluster, seen: Seen, pending: list[int]) -> str:
    """Why a new server does not come, once it had the time that the spec gives it; else nothing."""
    deadline = cluster.spec.rollout.progress_deadline_seconds
    for pod in sorted(seen.pods, key=_top):
        if pod.ordinal not in pending or pod.ready:
            continue
        since = pod.deleting_since if pod.deleting_since is not None else pod.created
        limit = deadline + (cluster.spec.drain.timeout_seconds if pod.deleting_since is not None else 0)
        if seen.at - since > limit:
            return f"{pod.name} is not ready after {deadline} s: {pod.trouble or 'it says nothing'}"
    return ""
