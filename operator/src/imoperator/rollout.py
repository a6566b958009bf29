"""How many pods there are and which may be replaced: pure decisions for scaling and roll-outs.
No pod that holds clients is ever taken away: it is drained first, or has had its time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from imhelper.core.topology import ACTIVE, DRAINING

from .late import complaint
from .model import Cluster, Pod, RedisView, Seen, Workload
from .room import enough_serve, waits_for

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
    controller has not replaced in time. `blocks` says that slots move in blocks only, so that shares of slots stay
    shares of clients; `waiting` says what the next step waits for.
    """

    replicas: int
    partition: int
    leaving: frozenset[str] = frozenset()
    delete: frozenset[str] = frozenset()
    rolling: bool = False
    blocks: bool = False
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
        return Plan(work.replicas, most, leaving, frozenset(), goes_on, True, count, waiting)
    look = _Look(cluster, seen, view, work, hold, released or {})
    kept, active = look.kept_outdated, _admitted(seen, view)
    if work.partition < work.replicas:
        settled = not look.outdated and all(i in active for i in range(wanted))
        # Where no server is to stay, none is replaced by a new one that would have to be emptied in its turn.
        rolling = wanted > 0 and not (settled and work.current and work.current_revision == work.update_revision)
    else:
        rolling = bool(kept) and not hold
    if not work.current:
        waiting = "the StatefulSet's controller has not seen the last change"
        return Plan(work.replicas, work.partition, _still_leaving(seen), frozenset(), rolling, True, kept, waiting)
    target = wanted
    if rolling:
        most = wanted + cluster.spec.rollout.max_surge
        target = most if kept and not hold else max(wanted, min(work.replicas, most))
    return _step(look, active, target, rolling=rolling)


@dataclass(frozen=True, slots=True)
class _Look:
    """What one step is decided from."""

    cluster: Cluster
    seen: Seen
    view: RedisView | None
    work: Workload
    hold: bool
    released: Mapping[str, float]

    @property
    def outdated(self) -> list[Pod]:
        """The pods of another revision than the wanted one, from the top."""
        return [p for p in reversed(self.seen.pods) if p.revision != self.work.update_revision]

    @property
    def kept_outdated(self) -> int:
        return sum(p.ordinal < self.cluster.spec.replicas for p in self.outdated)

    @property
    def done(self) -> set[str]:
        timeout = float(self.cluster.spec.drain.timeout_seconds)
        return {p.name for p in self.seen.pods if drained(p, self.view, self.seen.at, timeout)}

    def missing(self, victim: Pod, leaving: Collection[str], target: int) -> str:
        return waits_for(self.cluster, self.seen, self.view, victim, leaving, target) if self.view else ""


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


def _step(look: _Look, active: set[int], target: int, *, rolling: bool) -> Plan:
    outdated, done, count = look.outdated, look.done, look.kept_outdated
    by_ordinal = {p.ordinal: p for p in look.seen.pods}
    replicas = max(look.work.replicas, target)
    while replicas > target:
        top = by_ordinal.get(replicas - 1)
        if top is not None and top.deleting_since is None and top.name not in done:
            break
        replicas -= 1
    leaving, waiting = _too_many(look, target)
    # A drain that has begun is ended, also while a roll-out is held: a server that keeps a part of its clients can't
    # take another's as well.
    if rolling or outdated:
        leaving |= {p.name for p in look.seen.pods if p.draining_since is not None and p.name not in done}
    blocks = rolling or bool(waiting)
    if look.hold and outdated:
        blocks = enough_serve(look.view, look.cluster.spec.replicas)
    if rolling:
        return _roll(look, active, target, replicas, leaving, blocks=blocks)
    names = waiting or (f"{len(leaving)} servers that leave are emptied" if leaving else "")
    most = max(replicas, target)
    return Plan(replicas, most, frozenset(leaving), blocks=blocks, outdated=count, waiting=names)


def _too_many(look: _Look, target: int) -> tuple[set[str], str]:
    """The pods beyond `target` that are drained, from the top, and what the next of them waits for.

    With Redis away nobody is waited for: the time that their drain may take begins.
    """
    beyond = [p for p in reversed(look.seen.pods) if p.ordinal >= target]
    leaving = {p.name for p in beyond if p.draining_since is not None or p.deleting_since is not None}
    for pod in beyond:
        missing = "" if pod.name in leaving else look.missing(pod, leaving, target)
        if missing:
            return leaving, f"server {missing} is not ready yet"
        leaving.add(pod.name)
    return leaving, ""


def _roll(look: _Look, active: set[int], target: int, replicas: int, leaving: set[str], *, blocks: bool) -> Plan:
    work, outdated, done, now = look.work, look.outdated, look.done, look.seen.at
    held = [p.ordinal for p in outdated if p.deleting_since is None and p.name not in done and p.ordinal < replicas]
    partition = min(max(held, default=-1) + 1, replicas)
    if look.hold:
        partition = max(partition, min(work.partition, replicas))
    free = [p for p in outdated if p.ordinal >= partition]
    # What the controller may be about to take stays empty. What is empty, but below one that is not, serves again: it
    # takes that one's clients.
    leaving |= {p.name for p in outdated if p in free or (p.name in done and p.ordinal >= work.partition)}
    open_ones = [p for p in outdated if p.name not in done and p not in free]
    victim = next((p for p in open_ones if p.draining_since is not None), None)
    pending = [i for i in range(partition, min(replicas, target)) if i not in active]
    waiting = ""
    if pending:
        waiting = f"server {look.cluster.key.name}-{pending[-1]} is not ready yet"
    elif look.hold:
        waiting = "the roll-out is held"
    elif look.view is None or look.view.topology is None:
        waiting = "Redis can't be asked"
    elif victim is None and open_ones:
        missing = look.missing(open_ones[0], leaving, target)
        if missing:
            waiting = f"server {missing} is not ready yet"
        else:
            victim = open_ones[0]
            leaving.add(victim.name)
    if victim is not None:
        waiting = waiting or f"server {victim.name} is emptied"
    late = {
        p.name
        for p in free
        if p.deleting_since is None and p.name in done and now - look.released.get(p.uid, now) > REPLACE_SECONDS
    }
    complaints = (complaint(look.cluster, look.seen, ordinal) for ordinal in reversed(pending))
    stuck = next(filter(None, complaints), "")
    count = look.kept_outdated
    return Plan(replicas, partition, frozenset(leaving), frozenset(late), True, blocks, count, waiting, stuck)
