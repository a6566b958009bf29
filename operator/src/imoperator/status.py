"""The status of an ImCluster and the events that tell of its changes: pure functions of what was seen and decided.
Conditions follow the API conventions; counters change often and are written at most every 15 s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .late import late, worst
from .model import Cluster, Problem, RedisView, Seen
from .names import selector
from .rollout import Plan

__all__ = ["COUNTERS_SECONDS", "Event", "build_status", "events_of", "failed_status", "urgent"]

Json = dict[str, Any]
COUNTERS_SECONDS = 15.0
# Old servers that are all there and serve: nothing is being changed.
_HELD = ("Paused", "Waiting")
# Told by Degraded alone: clients stay connected, and the servers are there.
_STILL_READY = ("RedisUnavailable", "NoUrl")
# What was to come has had its time: nothing is going on any more.
_OVER = ("RolloutStuck", "ServersNotReady")


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the ImCluster."""

    reason: str
    message: str
    warning: bool = False


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(kind: str, status: bool, reason: str, message: str, cluster: Cluster, at: float) -> Json:
    value = "True" if status else "False"
    before = next((c for c in cluster.status.get("conditions", ()) if c.get("type") == kind), None)
    since = _stamp(at)
    if before is not None and before.get("status") == value:
        since = before.get("lastTransitionTime", since)
    return {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
        "observedGeneration": cluster.generation,
    }


def _servers(cluster: Cluster, seen: Seen, view: RedisView | None) -> list[Json]:
    topology = view.topology if view else None
    entries = {s.name: (i, s) for i, s in enumerate(topology.servers)} if topology else {}
    # While Redis does not tell, what it told last.
    known = {s["name"]: s for s in cluster.status.get("servers", ())} if view is None else {}
    found = []
    for pod in sorted(seen.pods, key=lambda p: p.ordinal):
        server: Json = dict(known.get(pod.name, {"name": pod.name, "state": "absent"}))
        if pod.name in entries and topology is not None:
            index, entry = entries[pod.name]
            server |= {"state": entry.state, "url": entry.url, "slots": topology.table.count(index)}
        lease = view.leases.get(pod.name) if view else None
        if lease is not None:
            server["connections"] = lease.connections
        found.append(server)
    return found


def _progressing(cluster: Cluster, seen: Seen, plan: Plan, ready: int) -> Problem | None:
    """What is being changed now, or None when all is at rest."""
    wanted, have = cluster.spec.replicas, len(seen.pods)
    trouble = f"; {text}" if (text := worst(seen)) else ""
    if plan.rolling:
        reason = "Paused" if cluster.spec.rollout.paused else "RollingOut"
        waits = f"; {plan.waiting}" if plan.waiting else ""
        return Problem(reason, f"{plan.outdated} of {wanted} servers still run the old template{waits}{trouble}")
    if have > wanted:
        return Problem("ScalingDown", f"{have} servers run, {wanted} are wanted; {plan.waiting or 'the others leave'}")
    if have < wanted or ready < wanted:
        return Problem("Starting", f"{ready} of {wanted} servers are ready{trouble}")
    if plan.outdated:
        told = f"{plan.outdated} of {wanted} servers still run the old template"
        if cluster.spec.rollout.paused:
            return Problem("Paused", f"{told}; the roll-out is held")
        return Problem("Waiting", f"{told}; it waits for its turn among the ImClusters")
    return None


def build_status(
    cluster: Cluster, seen: Seen, view: RedisView | None, plan: Plan | None, problem: Problem | None
) -> Json:
    """The whole status. `problem` is what keeps the operator from its work; None when nothing does."""
    old, at = cluster.status, seen.at
    ready = sum(p.ready and p.deleting_since is None for p in seen.pods)
    status: Json = {
        "observedGeneration": cluster.generation,
        "replicas": len(seen.pods),
        "readyReplicas": ready,
        "selector": ",".join(f"{k}={v}" for k, v in selector(cluster.key.name).items()),
        "servers": _servers(cluster, seen, view),
    }
    if view is not None and view.topology is not None:
        status["epoch"] = view.topology.epoch
        status["connections"] = sum(lease.connections for lease in view.leases.values())
    else:
        status |= {k: old[k] for k in ("epoch", "connections") if k in old}
    if problem is None and plan is not None:
        problem = Problem("RolloutStuck", plan.stuck) if plan.stuck else late(cluster, seen, rolling=plan.rolling)
    moving = _progressing(cluster, seen, plan, ready) if plan is not None else None
    stuck = problem is not None and problem.reason in _OVER
    if problem is not None:
        readiness = Problem(problem.reason, problem.message)
    elif moving is not None:
        readiness = moving
    else:
        readiness = Problem("Ready", f"{ready} servers are ready")
    all_ready = plan is not None and ready == len(seen.pods) == cluster.spec.replicas
    at_rest = moving is None or moving.reason in _HELD
    is_ready = all_ready and at_rest and (problem is None or problem.reason in _STILL_READY)
    if is_ready and problem is not None:
        readiness = Problem("Ready", f"{ready} servers are ready, but {problem.message}")
    elif is_ready and moving is not None:
        readiness = Problem("Ready", moving.message)
    going_on = moving is not None and moving.reason not in _HELD and not stuck
    rest = moving or Problem("Settled", "everything is as the spec says")
    if stuck and problem is not None:
        rest = problem
    degraded = problem or Problem("Healthy", "nothing is wrong")
    status["conditions"] = [
        _condition("Ready", is_ready, readiness.reason, readiness.message, cluster, at),
        _condition("Progressing", going_on, rest.reason, rest.message, cluster, at),
        _condition("Degraded", problem is not None, degraded.reason, degraded.message, cluster, at),
    ]
    return status


def failed_status(cluster: Cluster, at: float, problem: Problem) -> Json:
    """The status of a cluster that can't be looked after: what was known last, but nothing is promised any more."""
    return {k: v for k, v in cluster.status.items() if k != "conditions"} | {
        "conditions": [
            _condition(kind, kind == "Degraded", problem.reason, problem.message, cluster, at)
            for kind in ("Ready", "Progressing", "Degraded")
        ]
    }


def _without_counters(status: Mapping[str, Any]) -> Json:
    whole = {k: v for k, v in status.items() if k != "connections"}
    whole["servers"] = [{k: v for k, v in s.items() if k != "connections"} for s in status.get("servers", ())]
    return whole


def urgent(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether something else than counters has changed, so that the status is written at once."""
    return _without_counters(old) != _without_counters(new)


def _by_type(status: Mapping[str, Any]) -> dict[str, Json]:
    return {c["type"]: c for c in status.get("conditions", ())}


def events_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    """What a person should be told about the way from one status to the next."""
    before, after = _by_type(old), _by_type(new)
    found = []
    was, now = before.get("Degraded", {}), after["Degraded"]
    if now["status"] == "True" and (was.get("status") != "True" or was.get("reason") != now["reason"]):
        found.append(Event(now["reason"], now["message"], warning=True))
    elif now["status"] == "False" and was.get("status") == "True":
        found.append(Event("Recovered", f"{was.get('reason', 'the problem')} is over"))
    was, now = before.get("Progressing", {}), after["Progressing"]
    if before and now["reason"] != was.get("reason"):
        if now["reason"] == "RollingOut":
            found.append(Event("RollingOut", now["message"]))
        elif was.get("reason") == "RollingOut" and now["reason"] in ("Settled", "ScalingDown"):
            found.append(Event("RolledOut", "every server runs the new template"))
    if before and after["Ready"]["status"] == "True" and before.get("Ready", {}).get("status") != "True":
        found.append(Event("Ready", after["Ready"]["message"]))
    return found
