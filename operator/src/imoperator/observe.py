"""From manifests as the API gives them to what the deciding modules read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from .model import Cluster, Manifest, Pod, Seen, Workload
from .names import ADOPT_PREFIX, CAUSE, DRAINING_SINCE, FINALIZER, GENERATION, SERVING, TEMPLATE, Key, ordinal_of
from .spec import parse_spec

__all__ = ["read_bare", "read_cluster", "read_pod", "read_seen", "seconds"]


def seconds(stamp: str | None) -> float | None:
    """RFC 3339 to seconds since 1970; None stays None."""
    return datetime.fromisoformat(stamp).timestamp() if stamp else None


def read_cluster(manifest: Manifest) -> Cluster:
    """An ImCluster. Raises ValueError when the spec does not fit this release's types."""
    metadata = manifest["metadata"]
    return Cluster(
        key=Key(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        spec=parse_spec(manifest["spec"]),
        adopt=(metadata.get("annotations") or {}).get(ADOPT_PREFIX) == "true",
        deleting_at=seconds(metadata.get("deletionTimestamp")),
        has_finalizer=FINALIZER in (metadata.get("finalizers") or ()),
        status=manifest.get("status") or {},
    )


def read_bare(manifest: Manifest) -> Cluster:
    """An ImCluster of whose spec nothing is asked, e.g. because it can't be read."""
    return read_cluster(manifest | {"spec": {"redis": {"url": "redis://unknown"}}})


def _trouble(status: Mapping[str, Any]) -> str:
    """The last words of the pod's containers, or why it is not scheduled."""
    for container in status.get("containerStatuses") or ():
        state, last = container.get("state") or {}, container.get("lastState") or {}
        waiting = state.get("waiting") or {}
        ended = state.get("terminated") or last.get("terminated") or {}
        words = [waiting.get("reason"), waiting.get("message")]
        if ended:
            words += [f"it ended with {ended.get('exitCode')}", (ended.get("message") or "").strip()[-500:]]
        text = ": ".join(w for w in words if w)
        if text:
            return text
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("PodScheduled", "Ready") and condition.get("status") == "False":
            text = ": ".join(w for w in (condition.get("reason"), condition.get("message")) if w)
            if text:
                return text
    return ""


def _changed(conditions: Mapping[str, Mapping[str, Any]]) -> float | None:
    """When the pod became ready, or ceased to be; None when it never was ready.

    Before that its Ready is false from the moment in which its node took it, as is Initialized at the latest.
    """
    ready, begun = conditions.get("Ready"), conditions.get("Initialized")
    since = seconds(ready.get("lastTransitionTime")) if ready else None
    if ready is None or since is None or ready.get("status") == "True":
        return since
    start = seconds(begun.get("lastTransitionTime")) if begun and begun.get("status") == "True" else None
    return since if start is not None and since > start + 1 else None


def read_pod(name: str, manifest: Manifest) -> Pod | None:
    """A pod of the cluster `name`; None when its name is none of the StatefulSet's."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    ordinal = ordinal_of(name, metadata["name"])
    if ordinal is None:
        return None
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    since = annotations.get(DRAINING_SINCE, "")
    return Pod(
        name=metadata["name"],
        ordinal=ordinal,
        uid=metadata["uid"],
        revision=labels.get("controller-revision-hash", ""),
        created=seconds(metadata["creationTimestamp"]) or 0.0,
        ready=conditions.get("Ready", {}).get("status") == "True",
        deleting_since=seconds(metadata.get("deletionTimestamp")),
        serving=labels.get(SERVING) == "true",
        draining_since=float(since) if since.replace(".", "", 1).isdigit() else None,
        trouble=_trouble(status),
        finished=status.get("phase") in ("Succeeded", "Failed"),
        changed=_changed(conditions),
    )


def _workload(manifest: Manifest) -> Workload:
    metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status") or {}
    annotations = metadata.get("annotations") or {}
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    generation = annotations.get(GENERATION, "")
    return Workload(
        replicas=spec.get("replicas", 1),
        partition=rolling.get("partition", 0),
        template=annotations.get(TEMPLATE, ""),
        generation=int(generation) if generation.isdigit() else 0,
        cause=annotations.get(CAUSE, ""),
        current_revision=status.get("currentRevision") or "",
        update_revision=status.get("updateRevision") or "",
        current=(status.get("observedGeneration") or 0) >= metadata.get("generation", 0),
    )


def read_seen(key: Key, at: float, pods: Iterable[Manifest], children: Mapping[tuple[str, str], Manifest]) -> Seen:
    """What the API showed of a cluster at `at`, in seconds since 1970."""
    found = [pod for pod in (read_pod(key.name, m) for m in pods) if pod is not None]
    statefulset = children.get(("StatefulSet", key.name))
    ports = {}
    for (kind, name), manifest in children.items():
        if kind == "Service":
            for port in (manifest.get("spec") or {}).get("ports") or ():
                if port.get("nodePort"):
                    ports[name] = int(port["nodePort"])
    return Seen(
        at=at,
        pods=tuple(sorted(found, key=lambda p: p.ordinal)),
        workload=_workload(statefulset) if statefulset else None,
        node_ports=ports,
    )
