"""Servers that had their time and are still not there, and what their pods say: it ends in the status. Pure.
Nothing is drained or replaced because of it."""

from __future__ import annotations

from .model import Cluster, Pod, Problem, Seen
from .names import pod_name
from .room import overdue
from .routes import node_port_service

__all__ = ["URL_SECONDS", "complaint", "late", "worst"]

# The API server gives a node port in the moment in which the Service is written.
URL_SECONDS = 30.0
MOST_CHARACTERS = 1000
# What a pod says that is just being started.
_ORDINARY = ("ContainerCreating", "PodInitializing", "ContainersNotReady")


def worst(seen: Seen) -> str:
    """What is wrong with the first pod that does not come; nothing while all that do not run are just being started."""
    for pod in seen.pods:
        stays = pod.deleting_since is None and pod.draining_since is None
        if not pod.ready and stays and pod.trouble and not pod.trouble.startswith(_ORDINARY):
            return f"{pod.name}: {pod.trouble[:MOST_CHARACTERS]}"
    return ""


def complaint(cluster: Cluster, seen: Seen, ordinal: int) -> str:
    """Why the server of an ordinal is not there, once it had the time that the spec gives it; else nothing."""
    deadline, name = cluster.spec.rollout.progress_deadline_seconds, pod_name(cluster.key.name, ordinal)
    pod = next((p for p in seen.pods if p.ordinal == ordinal), None)
    if pod is None:
        if seen.at - seen.absent.get(ordinal, seen.at) <= deadline:
            return ""
        return f"{name} is not there after {deadline} s: the events of StatefulSet {cluster.key.name} tell why"
    if pod.ready or pod.draining_since is not None or not overdue(cluster, seen, pod):
        return ""
    if pod.deleting_since is not None:
        return f"{name} was to end and is still there after {deadline} s more: its node may be away"
    return f"{name} is not ready after {deadline} s: {pod.trouble[:MOST_CHARACTERS] or 'it says nothing'}"


def late(cluster: Cluster, seen: Seen, *, rolling: bool) -> Problem | None:
    """The problem, where servers that are wanted do not come, or can't be reached."""
    work = seen.workload
    if work is None:
        return None
    # Outdated pods in a roll-out that goes on are what it replaces.
    replaced = rolling and not cluster.spec.rollout.paused
    outdated = {p.ordinal for p in seen.pods if replaced and p.revision != work.update_revision}
    wanted = set(range(min(cluster.spec.replicas, work.replicas))) - outdated
    found = [text for ordinal in sorted(wanted) if (text := complaint(cluster, seen, ordinal))]
    if found:
        message = found[0] + (f"; so it is with {len(found) - 1} more" if len(found) > 1 else "")
        if any(p.revision == work.update_revision and _came(p) for p in seen.pods):
            return Problem("ServersNotReady", message)
        return Problem("RolloutStuck", message)
    for name, since in sorted(seen.without_url.items()):
        if seen.at - since > URL_SECONDS:
            return Problem("NoUrl", _no_url(cluster, seen, name))
    return None


def _came(pod: Pod) -> bool:
    return pod.ready or pod.changed is not None


def _no_url(cluster: Cluster, seen: Seen, name: str) -> str:
    ordinal = next((p.ordinal for p in seen.pods if p.name == name), 0)
    service = node_port_service(cluster, ordinal)
    return (
        f"{name} is ready, but gets no clients: exposure.urlTemplate asks for {{nodePort}}, and Service {service} has "
        "none (exposure.service.type must be NodePort or LoadBalancer)"
    )
